package target

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

const (
	defaultRetries = 5
	answerIn       = 60 * time.Second // an S3 server's head of an answer; completing a long upload takes some seconds
	abandonIn      = 20 * time.Second // what is discarded must not hold up the end
)

// bucket is a Target in a bucket of an S3 server.
type bucket struct {
	core   minio.Core
	name   string
	prefix string // ends with a slash, or is empty
	unread bool
}

func openBucket(_ context.Context, rest string, o Options) (Target, error) {
	name, prefix, _ := strings.Cut(rest, "/")
	prefix = strings.Trim(prefix, "/")
	if name == "" || strings.ContainsAny(name, "@:?#") {
		return nil, errors.New("an S3 location is s3://bucket/prefix; keys and endpoint are settings of their own (Z4J_S3_ACCESS_KEY_ID, Z4J_S3_ENDPOINT)")
	}
	if prefix != "" {
		if err := checkName(prefix); err != nil {
			return nil, fmt.Errorf("prefix of s3://%s: %w", name, err)
		}
		prefix += "/"
	}
	client, err := newClient(o.S3)
	if err != nil {
		return nil, fmt.Errorf("reach s3://%s: %w", name, err)
	}
	return &bucket{core: minio.Core{Client: client}, name: name, prefix: prefix, unread: o.Unread}, nil
}

func newClient(o S3) (*minio.Client, error) {
	endpoint, secure, lookup := "s3.amazonaws.com", true, minio.BucketLookupAuto
	providers := []credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}}
	if o.Endpoint == "" {
		providers = append(providers, &credentials.IAM{Region: o.Region})
	} else {
		u, err := url.Parse(o.Endpoint)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return nil, errors.New("the endpoint of S3 is not of the form https://host:port") // not quoted: it may hold a password
		}
		endpoint, secure, lookup = u.Host, u.Scheme == "https", minio.BucketLookupPath
	}
	if (o.AccessKeyID == "") != (o.SecretAccessKey == "") {
		return nil, errors.New("of the two S3 keys one is missing: give access key id and secret access key, or neither")
	}
	creds := credentials.NewChainCredentials(providers)
	if o.AccessKeyID != "" {
		creds = credentials.NewStaticV4(o.AccessKeyID, o.SecretAccessKey, "")
	}
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, err
	}
	transport.ResponseHeaderTimeout = answerIn
	retries := o.Retries
	if retries == 0 {
		retries = defaultRetries
	}
	return minio.New(endpoint, &minio.Options{Creds: creds, Secure: secure, Region: o.Region, BucketLookup: lookup, Transport: transport, MaxRetries: retries})
}

func (b *bucket) String() string { return bucketName(b.name, b.prefix) }

// failed says what was being done, and what an S3 server's code means for us.
func (b *bucket) failed(doing string, err error) error {
	if err == nil {
		return nil
	}
	switch code := minio.ToErrorResponse(err).Code; code {
	case minio.NoSuchKey:
		return fmt.Errorf("%s: %w (%w)", doing, fs.ErrNotExist, err)
	case minio.NoSuchBucket:
		return fmt.Errorf("%s: there is no bucket %s: make it, or name another: %w", doing, b.name, err)
	case minio.AccessDenied, "InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed":
		return fmt.Errorf("%s: the S3 server refuses our keys (Z4J_S3_ACCESS_KEY_ID, Z4J_S3_SECRET_ACCESS_KEY, Z4J_S3_REGION): %w", doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func (b *bucket) Create(ctx context.Context, name string) (Writer, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return &upload{ctx: ctx, b: b, name: name, key: b.prefix + name, all: sha256.New()}, nil
}

func (b *bucket) Open(ctx context.Context, name string) (Reader, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	info, err := b.core.StatObject(ctx, b.name, b.prefix+name, minio.StatObjectOptions{})
	if err != nil {
		return nil, b.failed("open "+path.Join(b.String(), name), err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	return &objectReader{ctx: ctx, cancel: cancel, b: b, key: b.prefix + name, etag: info.ETag, size: info.Size}, nil
}

func (b *bucket) List(ctx context.Context, prefix string, limit int) ([]Object, error) {
	if err := checkPrefix(prefix); err != nil {
		return nil, err
	}
	const page = 1000 // the most that a server gives at once
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing when it has more than we want
	o := minio.ListObjectsOptions{Prefix: b.prefix + prefix, Recursive: true, MaxKeys: min(max(limit, 1), page)}
	var out []Object
	for info := range b.core.ListObjectsIter(ctx, b.name, o) {
		if info.Err != nil {
			return nil, b.failed("list "+b.String(), info.Err)
		}
		if len(out) >= limit {
			break
		}
		name := strings.TrimPrefix(info.Key, b.prefix)
		if checkName(name) == nil {
			out = append(out, Object{name, info.Size, info.LastModified.UTC()})
		}
		if len(out) >= limit {
			break
		}
	}
	return out, nil
}

func (b *bucket) Remove(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	err := b.core.RemoveObject(ctx, b.name, b.prefix+name, minio.RemoveObjectOptions{})
	if minio.ToErrorResponse(err).Code == minio.NoSuchKey {
		return nil
	}
	return b.failed("remove "+path.Join(b.String(), name), err)
}

func (b *bucket) Sweep(ctx context.Context, prefix string, before time.Time) error {
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for info := range b.core.ListIncompleteUploads(ctx, b.name, b.prefix+prefix, true) {
		if info.Err != nil {
			return b.failed("look for unfinished uploads to "+b.String(), info.Err)
		}
		if info.Initiated.Before(before) {
			err := b.core.AbortMultipartUpload(ctx, b.name, info.Key, info.UploadID)
			if err != nil && minio.ToErrorResponse(err).Code != minio.NoSuchUpload {
				return b.failed("abort an unfinished upload to "+b.String(), err)
			}
		}
	}
	return nil
}

// objectReader reads ranges of one object, as long as it is the one that was opened.
type objectReader struct {
	ctx    context.Context //nolint:containedctx // io.ReaderAt has none.
	cancel context.CancelCauseFunc
	b      *bucket
	key    string
	etag   string
	size   int64
}

func (r *objectReader) Size() int64 { return r.size }

func (r *objectReader) Close() error {
	r.cancel(fs.ErrClosed)
	return nil
}

func (r *objectReader) ReadAt(p []byte, at int64) (int, error) {
	if at < 0 {
		return 0, errors.New("read before the beginning")
	}
	want := int(min(int64(len(p)), max(r.size-at, 0)))
	done := 0
	for tries := 0; done < want; tries++ {
		n, err := r.read(p[done:want], at+int64(done))
		done += n
		if err == nil {
			continue
		}
		again := minio.ToErrorResponse(err).StatusCode == 0 && r.ctx.Err() == nil // a connection that broke, not an answer
		if !again || tries >= defaultRetries {
			return done, r.b.failed("read "+r.key, errors.Join(err, context.Cause(r.ctx)))
		}
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

func (r *objectReader) read(p []byte, at int64) (int, error) {
	var o minio.GetObjectOptions
	if err := errors.Join(o.SetRange(at, at+int64(len(p))-1), o.SetMatchETag(r.etag)); err != nil {
		return 0, err
	}
	body, _, _, err := r.b.core.GetObject(r.ctx, r.b.name, r.key, o)
	if err != nil {
		return 0, err
	}
	n, err := io.ReadFull(body, p)
	return n, errors.Join(err, body.Close())
}

func sum(p []byte) string {
	s := sha256.Sum256(p)
	return hex.EncodeToString(s[:])
}
