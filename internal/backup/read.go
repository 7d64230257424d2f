package backup

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
)

// Archive is an archive that is read. What it says is believed only when Read or Verify got to its end.
type Archive struct {
	Name      string
	Manifest  Manifest
	Size      int64 // bytes of the file
	Encrypted bool
	KID       string // the audit key that signed
	Unsigned  error  // ErrUnsigned: that key is not at hand

	file       target.Reader
	identities []age.Identity
	plain      io.ReaderAt
	end        int64  // bytes of the tar file
	tail       []byte // from the manifest's header on
	sum        string // SHA-256 of the file, once it was read whole
}

// ReadOptions say how an archive is opened.
type ReadOptions struct {
	Identities []age.Identity // that may decrypt it
	Keys       []audit.Key    // that may have signed it
	Unsigned   bool           // open one whose key is not at hand all the same
}

// sealMark begins every encrypted file.
const sealMark = "age-encryption.org/"

// Open opens the archive called name and reads its manifest. The Archive has to be closed.
func Open(ctx context.Context, from target.Target, name string, o ReadOptions) (*Archive, error) {
	file, err := from.Open(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open archive %s: %w", name, err)
	}
	a := &Archive{Name: name, Size: file.Size(), file: file, identities: o.Identities}
	if err := a.open(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("open archive %s in %s: %w", name, from, err), file.Close())
	}
	return a, nil
}

// Close gives up the file.
func (a *Archive) Close() error { return a.file.Close() }

func (a *Archive) open(ctx context.Context, o ReadOptions) error {
	mark := make([]byte, len(sealMark))
	if _, err := a.file.ReadAt(mark, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	a.Encrypted = string(mark) == sealMark
	a.plain, a.end = newBlocks(a.file, a.Size), a.Size
	if a.Encrypted {
		if len(a.identities) == 0 {
			return fmt.Errorf("%w: give --identity or --passphrase-file", ErrNoIdentity)
		}
		if err := a.unseal(ctx); err != nil {
			return err
		}
		plain, size, err := age.DecryptReaderAt(a.plain, a.Size, a.identities...)
		if err != nil {
			return sealError(err)
		}
		a.plain, a.end = plain, size
	}
	return a.readTail(o)
}

// unseal finds the key of the file: a passphrase takes a second, and the file is opened twice.
func (a *Archive) unseal(ctx context.Context) error {
	const longest = 64 << 10 // bytes of a header; a recipient takes about 150
	head, err := age.ExtractHeader(io.NewSectionReader(a.plain, 0, min(a.Size, longest)))
	if err != nil {
		return sealError(err)
	}
	fileKey, err := untilDone(ctx, func() ([]byte, error) {
		key, err := age.DecryptHeader(head, a.identities...)
		if err != nil {
			return nil, sealError(err)
		}
		return key, nil
	})
	if err != nil {
		return err
	}
	a.identities = []age.Identity{age.NewInjectedFileKeyIdentity(fileKey)}
	return nil
}

// sealError tells a wrong key from damage.
func sealError(err error) error {
	if noMatch := new(age.NoIdentityMatchError); errors.As(err, &noMatch) {
		return fmt.Errorf("%w: %w", ErrNoIdentity, err)
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// readTail finds the manifest from the end, and checks its signature.
func (a *Archive) readTail(o ReadOptions) error {
	if a.end < endSize || a.end%blockSize != 0 {
		return ErrIncomplete
	}
	tail := make([]byte, min(a.end, maxManifest+(64<<10)))
	if _, err := a.plain.ReadAt(tail, a.end-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return damaged(err)
	}
	if !bytes.Equal(tail[len(tail)-endSize:], zeros[:]) {
		return ErrIncomplete
	}
	at := len(tail) - endSize - blockSize
	for ; at >= 0; at -= blockSize {
		if name, _, err := parseHeader(tail[at : at+blockSize]); err == nil && name == manifestName {
			break
		}
	}
	if at < 0 {
		return fmt.Errorf("%w (no manifest)", ErrIncomplete)
	}
	a.tail = bytes.Clone(tail[at:]) // of what was read it is a small part
	members := newMembers(bytes.NewReader(a.tail), nil)
	text, err := members.want(manifestName)
	if err != nil {
		return err
	}
	signature, err := members.want(signatureName)
	if err != nil {
		return err
	}
	if members.at != int64(len(a.tail)-endSize) {
		return fmt.Errorf("%w: something stands behind its signature", ErrDamaged)
	}
	return a.readManifest(text, signature, o)
}

// readError tells what can't be read from what can't be decrypted.
func (a *Archive) readError(err error) error {
	if !a.Encrypted || errors.Is(err, errUnread) {
		return err
	}
	return damaged(err)
}

// errUnread says that the file could not be read, which tells nothing of what is in it.
var errUnread = errors.New("the file can't be read")

// damaged is for what can only come of a file that was changed.
func damaged(err error) error {
	if errors.Is(err, ErrDamaged) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

func (a *Archive) readManifest(text, signature []byte, o ReadOptions) error {
	if err := json.Unmarshal(text, &a.Manifest); err != nil {
		return damaged(fmt.Errorf("read its manifest: %w", err))
	}
	m := &a.Manifest
	if m.Format != Format {
		return fmt.Errorf("%w: it is %.40q, and this program reads %s: use the program that made it", ErrFormat, m.Format, Format)
	}
	kid, err := audit.OpenManifest(string(signature), m.Instance, m.Generation, text, o.Keys)
	a.KID = kid
	switch {
	case errors.Is(err, audit.ErrManifestKey):
		a.Unsigned = fmt.Errorf("%w: key id %s; give Z4J_AUDIT_SECRET, or put it into Z4J_AUDIT_SECRETS_PREVIOUS", ErrUnsigned, kid)
		if !o.Unsigned {
			return a.Unsigned
		}
	case err != nil:
		return damaged(err)
	}
	if m.Content.Bytes != a.end-int64(len(a.tail)) {
		return fmt.Errorf("%w: there are %d bytes before its manifest, which says %d", ErrDamaged, a.end-int64(len(a.tail)), m.Content.Bytes)
	}
	return nil
}

// part is a chunk and where it lies in the tar file.
type part struct {
	store.Chunk

	at   int64
	size int64
}

// Read gives every chunk to fn, decompressed, from up to parallel goroutines. Chunk.Rows is not set, and Raw is used again
// when fn returns. Only an end without error says that everything was there and as it was written.
func (a *Archive) Read(ctx context.Context, parallel int, fn func(store.Chunk) error) error {
	return a.walk(ctx, parallel, func(p part) error { return fn(p.Chunk) }, nil)
}

// walk is Read with places. progress is told how much of the file was read.
func (a *Archive) walk(ctx context.Context, parallel int, fn func(part) error, progress func(done, total int64)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &walker{a: a, fn: fn, tables: map[string]*tally{}, jobs: make(chan job), free: make(chan []byte, parallel+1)}
	for range cap(w.free) {
		w.free <- nil
	}
	var workers sync.WaitGroup
	for range parallel {
		workers.Go(func() {
			if err := w.work(); err != nil {
				cancel(err)
			}
		})
	}
	err := w.read(ctx, progress)
	close(w.jobs)
	workers.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err == nil {
		err = w.compare()
	}
	if err != nil {
		return fmt.Errorf("read archive %s: %w", a.Name, err)
	}
	return nil
}

// walker reads an archive from its beginning to its end.
type walker struct {
	a    *Archive
	fn   func(part) error
	jobs chan job
	free chan []byte // buffers of members: as many as are read at a time, and one for the reader

	mu     sync.Mutex
	tables map[string]*tally
}

// job is a member to decompress.
type job struct {
	table string
	n     int
	body  []byte
	at    int64
}

func (w *walker) read(ctx context.Context, progress func(done, total int64)) error {
	a := w.a
	ahead := bufio.NewReaderSize(io.NewSectionReader(a.file, 0, a.Size), blockBytes)
	file := &summed{from: ahead, sum: sha256.New(), ctx: ctx, total: a.Size, progress: progress}
	var plain io.Reader = file
	if a.Encrypted {
		opened, err := age.Decrypt(file, a.identities...)
		if err != nil {
			return sealError(err)
		}
		plain = opened
	}
	content := sha256.New()
	limited := io.LimitReader(plain, a.Manifest.Content.Bytes)
	members := newMembers(limited, content)
	for {
		var body []byte
		select {
		case body = <-w.free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		name, body, err := members.into(body)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return a.readError(err)
		}
		table, n, ok := parseChunkName(name)
		if want, known := a.Manifest.Table(table); !ok || !known || n >= want.Chunks {
			return fmt.Errorf("%w: it has a member %.60q", ErrDamaged, name)
		}
		select {
		case w.jobs <- job{table, n, body, members.at - int64(len(body)) - padding(int64(len(body)))}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if got := hex.EncodeToString(content.Sum(nil)); got != a.Manifest.Content.SHA256 || members.at != a.Manifest.Content.Bytes {
		return fmt.Errorf("%w: its content is not what its manifest says", ErrDamaged)
	}
	tail, err := io.ReadAll(io.LimitReader(plain, int64(len(a.tail))+1))
	if err != nil {
		return a.readError(err)
	}
	if !bytes.Equal(tail, a.tail) {
		return fmt.Errorf("%w: its end changed while it was read", ErrDamaged)
	}
	if n, err := io.Copy(io.Discard, file); err != nil || n > 0 {
		return errors.Join(fmt.Errorf("%w: something stands behind its end", ErrDamaged), err)
	}
	a.sum = hex.EncodeToString(file.sum.Sum(nil))
	return nil
}

// work decompresses members until there are no more.
func (w *walker) work() error {
	var z *zstd.Decoder
	defer func() {
		if z != nil {
			z.Close()
		}
	}()
	var raw []byte
	for j := range w.jobs {
		var err error
		if z == nil {
			if z, err = newDecoder(); err != nil {
				return err
			}
		}
		if raw, err = z.DecodeAll(j.body, raw[:0]); err != nil {
			return fmt.Errorf("%w: decompress chunk %d of %s: %w", ErrDamaged, j.n, j.table, err)
		}
		w.mu.Lock()
		t := w.tables[j.table]
		if t == nil {
			t = &tally{}
			w.tables[j.table] = t
		}
		err = t.put(j.n, sha256.Sum256(raw))
		t.bytes += int64(len(raw))
		w.mu.Unlock()
		if err != nil {
			return fmt.Errorf("%w: chunk %d of %s: %w", ErrDamaged, j.n, j.table, err)
		}
		if err := w.fn(part{store.Chunk{Table: j.table, N: j.n, Raw: raw}, j.at, int64(len(j.body))}); err != nil {
			return err
		}
		w.free <- j.body
	}
	return nil
}

func newDecoder() (*zstd.Decoder, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(store.MaxChunk), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("prepare decompression: %w", err)
	}
	return z, nil
}

// compare looks whether everything was there.
func (w *walker) compare() error {
	for _, want := range w.a.Manifest.Tables {
		t := w.tables[want.Name]
		if t == nil {
			t = &tally{}
		}
		sum, whole := t.digest()
		if !whole || len(t.chunks) != want.Chunks || t.bytes != want.Bytes || sum != want.SHA256 {
			return fmt.Errorf("%w: table %s is not what its manifest says", ErrDamaged, want.Name)
		}
	}
	return nil
}

// summed hashes what is read through it, and ends with its context.
type summed struct {
	from     io.Reader
	sum      hash.Hash
	ctx      context.Context //nolint:containedctx // io.Reader has none.
	done     int64
	total    int64
	progress func(done, total int64)
}

func (s *summed) Read(p []byte) (int, error) {
	if err := context.Cause(s.ctx); err != nil {
		return 0, fmt.Errorf("%w: %w", errUnread, err)
	}
	n, err := s.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", errUnread, err)
	}
	s.sum.Write(p[:n])
	s.done += int64(n)
	if s.progress != nil {
		s.progress(s.done, s.total)
	}
	return n, err
}

// maxMember is the longest member: a chunk that could not be compressed.
const maxMember = store.MaxChunk + store.MaxChunk/8

// members reads a tar file in our form.
type members struct {
	from io.Reader
	at   int64
}

// newMembers reads from a tar file; content, if it is not nil, gets every byte.
func newMembers(from io.Reader, content hash.Hash) *members {
	if content != nil {
		from = io.TeeReader(from, content)
	}
	return &members{from: from}
}

func (m *members) want(name string) ([]byte, error) {
	got, body, err := m.next()
	if err != nil || got != name {
		return nil, errors.Join(fmt.Errorf("%w: %s is not where it belongs", ErrDamaged, name), err)
	}
	return body, nil
}

func (m *members) next() (name string, body []byte, err error) { return m.into(nil) }

// into reads the next member into buf, or what is longer. The end of the file, or of what it was limited to, is io.EOF.
func (m *members) into(buf []byte) (name string, body []byte, err error) {
	var head [blockSize]byte
	n, err := io.ReadFull(m.from, head[:])
	m.at += int64(n)
	switch {
	case errors.Is(err, io.EOF):
		return "", nil, io.EOF
	case err != nil:
		return "", nil, m.failed(err)
	case bytes.Equal(head[:], zeros[:blockSize]):
		return "", nil, io.EOF
	}
	name, size, err := parseHeader(head[:])
	if err != nil {
		return "", nil, fmt.Errorf("%w at byte %d", err, m.at-blockSize)
	}
	if size > maxMember {
		return "", nil, fmt.Errorf("%w: %.60q is too long", ErrDamaged, name)
	}
	whole := int(size + padding(size))
	if cap(buf) < whole {
		buf = make([]byte, whole)
	}
	buf = buf[:whole]
	n, err = io.ReadFull(m.from, buf)
	m.at += int64(n)
	if err != nil {
		return "", nil, m.failed(err)
	}
	if !bytes.Equal(buf[size:], zeros[:padding(size)]) {
		return "", nil, fmt.Errorf("%w at byte %d", ErrDamaged, m.at)
	}
	return name, buf[:size], nil
}

func (m *members) failed(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it ends at byte %d, in the middle of a member", ErrDamaged, m.at)
	}
	return fmt.Errorf("read at byte %d: %w", m.at, err)
}
