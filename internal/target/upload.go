package target

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"github.com/minio/minio-go/v7"
)

const (
	partSize = 16 << 20 // bytes: what an upload holds in memory
	maxParts = 10_000   // S3's limit: 156 GiB in one file
)

// upload is a Writer into a bucket: one request for what fits into a part, else a multipart upload, a part at a time.
type upload struct {
	ctx  context.Context //nolint:containedctx // io.Writer has none.
	b    *bucket
	name string
	key  string

	id    string // of the multipart upload
	parts []minio.CompletePart
	part  []byte
	all   hash.Hash
	size  int64
	done  bool
}

func (u *upload) Write(p []byte) (int, error) {
	if u.done {
		return 0, fmt.Errorf("write %s: %w", u.name, fs.ErrClosed)
	}
	written := 0
	for len(p) > 0 {
		if len(u.part) == partSize {
			if err := u.send(); err != nil {
				return written, err
			}
		}
		n := min(len(p), partSize-len(u.part))
		u.grow(n)
		u.part = append(u.part, p[:n]...)
		u.all.Write(p[:n])
		u.size += int64(n)
		p, written = p[n:], written+n
	}
	return written, nil
}

// grow makes room for n bytes more; append would go past a part's size.
func (u *upload) grow(n int) {
	if need := len(u.part) + n; need > cap(u.part) {
		u.part = append(make([]byte, 0, min(partSize, max(64<<10, 2*need))), u.part...)
	}
}

// send uploads the part that is full.
func (u *upload) send() error {
	doing := "upload " + u.name
	if len(u.parts) == maxParts {
		return fmt.Errorf("%s: it is longer than %d GiB, the most that an upload may have: leave a table out, or write to a directory", doing, int64(maxParts)*partSize>>30)
	}
	if u.id == "" {
		id, err := u.b.core.NewMultipartUpload(u.ctx, u.b.name, u.key, minio.PutObjectOptions{ContentType: "application/octet-stream"})
		if err != nil {
			return u.b.failed(doing, err)
		}
		u.id = id
	}
	n := len(u.parts) + 1
	part, err := u.b.core.PutObjectPart(u.ctx, u.b.name, u.key, u.id, n, bytes.NewReader(u.part), int64(len(u.part)), minio.PutObjectPartOptions{Sha256Hex: sum(u.part)})
	if err != nil {
		return u.b.failed(fmt.Sprintf("%s, part %d", doing, n), err)
	}
	u.parts = append(u.parts, minio.CompletePart{PartNumber: n, ETag: part.ETag})
	u.part = u.part[:0]
	return nil
}

func (u *upload) Commit() error {
	if u.done {
		return fmt.Errorf("commit %s: %w", u.name, fs.ErrClosed)
	}
	placed, err := u.commit()
	if err == nil {
		u.done, u.part = true, nil
		return nil
	}
	if !placed {
		return errors.Join(err, u.Close())
	}
	u.done, u.part = true, nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.ctx), abandonIn)
	defer cancel()
	return errors.Join(err, u.b.Remove(ctx, u.name))
}

// commit says also whether the server has a file now.
func (u *upload) commit() (placed bool, err error) {
	o := minio.PutObjectOptions{ContentType: "application/octet-stream"}
	if u.id == "" {
		if _, err := u.b.core.PutObject(u.ctx, u.b.name, u.key, bytes.NewReader(u.part), u.size, "", sum(u.part), o); err != nil {
			return false, u.b.failed("upload "+u.name, err)
		}
		return true, u.readBack(true)
	}
	if len(u.part) > 0 {
		if err := u.send(); err != nil {
			return false, err
		}
	}
	if _, err := u.b.core.CompleteMultipartUpload(u.ctx, u.b.name, u.key, u.id, u.parts, minio.PutObjectOptions{}); err != nil {
		return false, u.b.failed("complete the upload of "+u.name, err)
	}
	return true, u.readBack(!u.b.unread)
}

// readBack checks that the server has what was sent: its length and, when whole, every byte.
func (u *upload) readBack(whole bool) error {
	r, err := u.b.Open(u.ctx, u.name)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if r.Size() != u.size {
		return errors.Join(fmt.Errorf("read back %s: the server has %d bytes of %d: it lost a part", u.name, r.Size(), u.size), r.Close())
	}
	if !whole {
		return r.Close()
	}
	got := sha256.New()
	u.part = nil
	_, err = io.CopyBuffer(got, struct{ io.Reader }{io.NewSectionReader(r, 0, r.Size())}, make([]byte, partSize/4))
	if err == nil && !bytes.Equal(got.Sum(nil), u.all.Sum(nil)) {
		err = fmt.Errorf("the server gives other bytes than were sent (SHA-256 %s)", hex.EncodeToString(got.Sum(nil)))
	}
	if err != nil {
		err = fmt.Errorf("read back %s: %w", u.name, err)
	}
	return errors.Join(err, r.Close())
}

// Close discards the upload unless it was committed.
func (u *upload) Close() error {
	if u.done {
		return nil
	}
	u.done, u.part = true, nil
	if u.id == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.ctx), abandonIn)
	defer cancel()
	return u.b.failed("abort the upload of "+u.name, u.b.core.AbortMultipartUpload(ctx, u.b.name, u.key, u.id))
}
