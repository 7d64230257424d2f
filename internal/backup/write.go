package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"
	"sync"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
)

// Writer writes one archive.
type Writer struct {
	out     io.Writer
	sealed  io.Closer // nil: not encrypted
	workers chan *worker

	mu      sync.Mutex
	content hash.Hash
	size    int64
	tables  map[string]*tally
	err     error // what broke the stream: nothing may follow
}

// worker is what one goroutine needs to compress.
type worker struct {
	zstd *zstd.Encoder
	out  []byte
}

// tally counts what there is of a table.
type tally struct {
	rows   int64
	bytes  int64
	chunks [][sha256.Size]byte
	have   int
}

// compressors is how many chunks are compressed at a time: each needs about 30 MB.
const compressors = 2

// NewWriter begins an archive in out, encrypted if recipients are given. What is written is complete with Finish.
func NewWriter(out io.Writer, recipients ...age.Recipient) (*Writer, error) {
	w := &Writer{out: out, content: sha256.New(), tables: map[string]*tally{}, workers: make(chan *worker, compressors)}
	for range compressors {
		z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil, fmt.Errorf("prepare compression: %w", err)
		}
		w.workers <- &worker{zstd: z}
	}
	if len(recipients) > 0 {
		sealed, err := age.Encrypt(out, recipients...)
		if err != nil {
			return nil, fmt.Errorf("begin encryption: %w", err)
		}
		w.out, w.sealed = sealed, sealed
	}
	return w, nil
}

// Expect names tables that are in the archive although they may have no rows.
func (w *Writer) Expect(tables ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range tables {
		w.table(name)
	}
}

func (w *Writer) table(name string) *tally {
	t := w.tables[name]
	if t == nil {
		t = &tally{}
		w.tables[name] = t
	}
	return t
}

// Add writes a chunk. Several goroutines may add chunks: they are compressed at the same time and written one by one.
func (w *Writer) Add(c store.Chunk) error {
	sum := sha256.Sum256(c.Raw)
	compress := <-w.workers
	defer func() { w.workers <- compress }()
	compress.out = compress.zstd.EncodeAll(c.Raw, compress.out[:0])

	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.table(c.Table)
	if err := t.put(c.N, sum); err != nil {
		return fmt.Errorf("write chunk %d of %s: %w", c.N, c.Table, err)
	}
	t.rows += c.Rows
	t.bytes += int64(len(c.Raw))
	return w.member(chunkName(c.Table, c.N), compress.out)
}

// put remembers the digest of chunk n.
func (t *tally) put(n int, sum [sha256.Size]byte) error {
	const most = 1 << 24 // chunks: 128 TiB of a table
	if n < 0 || n >= most {
		return errors.New("the number is none of a chunk")
	}
	if n >= len(t.chunks) {
		t.chunks = append(t.chunks, make([][sha256.Size]byte, n+1-len(t.chunks))...)
	}
	if t.chunks[n] != [sha256.Size]byte{} {
		return errors.New("there is one of this number already")
	}
	t.chunks[n] = sum
	t.have++
	return nil
}

// digest is the table's, if no chunk is missing.
func (t *tally) digest() (string, bool) {
	h := sha256.New()
	for i := range t.chunks {
		h.Write(t.chunks[i][:])
	}
	return hex.EncodeToString(h.Sum(nil)), t.have == len(t.chunks)
}

// member writes one member whole.
func (w *Writer) member(name string, body []byte) error {
	head, err := header(name, int64(len(body)))
	if err != nil {
		return err
	}
	for _, part := range [][]byte{head, body, zeros[:padding(int64(len(body)))]} {
		if err := w.write(part); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) write(p []byte) error {
	if w.err != nil {
		return w.err
	}
	if _, err := w.out.Write(p); err != nil {
		w.err = fmt.Errorf("write the archive: %w", err)
		return w.err
	}
	w.content.Write(p)
	w.size += int64(len(p))
	return nil
}

// Bytes is how much was written, before encryption.
func (w *Writer) Bytes() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.size
}

// Finish writes the end: m, with what was counted, and its signature. Without it the archive is none.
func (w *Writer) Finish(m Manifest, key audit.Key) (Manifest, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m.Format = Format
	m.Tables = []Table{}
	for _, name := range slices.Sorted(maps.Keys(w.tables)) {
		t := w.tables[name]
		sum, whole := t.digest()
		if !whole {
			return m, fmt.Errorf("finish the archive: table %s has %d chunks of %d", name, t.have, len(t.chunks))
		}
		m.Tables = append(m.Tables, Table{Name: name, Rows: t.rows, Chunks: len(t.chunks), Bytes: t.bytes, SHA256: sum})
	}
	m.Content = Content{Bytes: w.size, SHA256: hex.EncodeToString(w.content.Sum(nil))}
	text, err := json.MarshalIndent(&m, "", "  ")
	if err != nil {
		return m, fmt.Errorf("write the manifest: %w", err)
	}
	if len(text) > maxManifest {
		return m, fmt.Errorf("the manifest has %d bytes, more than %d", len(text), maxManifest)
	}
	signature, err := key.SignManifest(m.Instance, m.Generation, text)
	if err != nil {
		return m, err
	}
	if err := w.member(manifestName, text); err != nil {
		return m, err
	}
	if err := w.member(signatureName, []byte(signature)); err != nil {
		return m, err
	}
	if err := w.write(zeros[:]); err != nil {
		return m, err
	}
	w.err = errors.New("the archive is finished")
	if w.sealed != nil {
		if err := w.sealed.Close(); err != nil {
			return m, fmt.Errorf("end encryption: %w", err)
		}
	}
	return m, nil
}
