package store

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Chunk is a part of one table of a snapshot: whole rows, in the form that docs/decisions/0010-backup-format.md describes.
type Chunk struct {
	Table string
	N     int // 0, 1, 2 …: no number of a table is left out
	Rows  int64
	Raw   []byte // the emitter uses it again: a receiver that keeps it makes a copy
}

const (
	// ChunkSize is how large a chunk is at most, in bytes, if it has more than one row: a unit of work for who compresses.
	ChunkSize = 8 << 20

	// MaxChunk is the largest chunk of all: one row beyond it is refused, by who writes it and by who reads it.
	MaxChunk = 64 << 20

	chunkMagic   = "z4jr\x01"
	chunkColumns = 1 << 10 // columns of a table at most, so that a damaged header reserves no memory
)

// ErrDamaged says that a chunk is not what this package writes.
var ErrDamaged = errors.New("damaged rows")

// Kind is the type of a column, the same for both databases.
type Kind byte

// The kinds, and what a Cell of each holds.
const (
	KindBool  Kind = 'b' // Int: 0 or 1
	KindInt   Kind = 'i' // Int
	KindTime  Kind = 'm' // Int: µs since 1970
	KindText  Kind = 't' // Bytes
	KindBytes Kind = 'y' // Bytes
	KindUUID  Kind = 'u' // Bytes: 16
)

// Column is one column of a chunk.
type Column struct {
	Name string
	Kind Kind
}

// Cell is one value of a row; Kind says which field has it.
type Cell struct {
	Null  bool
	Int   int64
	Bytes []byte // a part of the chunk
}

// Rows reads the rows of a chunk.
type Rows struct {
	Table   string
	Columns []Column

	rest  []byte
	cells []Cell
	at    []byte // the row last read, as it is written
	n     int64
	err   error
}

// DecodeRows reads the header of a chunk. Whatever raw is, it and the Rows end with ErrDamaged at worst.
func DecodeRows(raw []byte) (*Rows, error) {
	r := &Rows{}
	rest, ok := cutPrefix(raw, chunkMagic)
	if !ok || len(raw) > MaxChunk {
		return nil, fmt.Errorf("read chunk: %w: it does not begin as one", ErrDamaged)
	}
	table, rest, ok := cutBytes(rest)
	n, size := binary.Uvarint(rest)
	if !ok || size <= 0 || n == 0 || n > chunkColumns {
		return nil, fmt.Errorf("read chunk: %w: bad header", ErrDamaged)
	}
	r.Table, rest = string(table), rest[size:]
	for range n {
		name, after, ok := cutBytes(rest)
		if !ok || len(after) == 0 || !Kind(after[0]).known() {
			return nil, fmt.Errorf("read chunk of %s: %w: bad header", r.Table, ErrDamaged)
		}
		r.Columns = append(r.Columns, Column{string(name), Kind(after[0])})
		rest = after[1:]
	}
	r.rest, r.cells = rest, make([]Cell, len(r.Columns))
	return r, nil
}

func (k Kind) known() bool { return k.String() != "" }

// String names the kind.
func (k Kind) String() string {
	switch k {
	case KindBool:
		return "boolean"
	case KindInt:
		return "integer"
	case KindTime:
		return "time"
	case KindText:
		return "text"
	case KindBytes:
		return "bytes"
	case KindUUID:
		return "uuid"
	}
	return ""
}

// Next reads the next row and reports whether there is one.
func (r *Rows) Next() bool {
	if r.err != nil || len(r.rest) == 0 {
		return false
	}
	nulls, rest := len(r.Columns)+7>>3, r.rest
	if len(rest) < nulls {
		return r.damaged()
	}
	bits, rest := rest[:nulls], rest[nulls:]
	for i := range r.Columns {
		c := &r.cells[i]
		if *c = (Cell{}); bits[i>>3]&(1<<(i&7)) != 0 {
			c.Null = true
			continue
		}
		ok := false
		if rest, ok = c.read(r.Columns[i].Kind, rest); !ok {
			return r.damaged()
		}
	}
	r.at, r.rest = r.rest[:len(r.rest)-len(rest)], rest
	r.n++
	return true
}

func (r *Rows) damaged() bool {
	r.err = fmt.Errorf("read row %d of a chunk of %s: %w", r.n+1, r.Table, ErrDamaged)
	return false
}

// Cells are the values of the row that Next read, until the next call.
func (r *Rows) Cells() []Cell { return r.cells }

// Err is what ended Next before the end.
func (r *Rows) Err() error { return r.err }

// read reads one value and returns what follows it.
func (c *Cell) read(k Kind, b []byte) (rest []byte, ok bool) {
	switch k {
	case KindBool:
		if len(b) == 0 || b[0] > 1 {
			return b, false
		}
		c.Int = int64(b[0])
		return b[1:], true
	case KindInt:
		n, size := binary.Varint(b)
		c.Int = n
		return b[max(size, 0):], size > 0
	case KindTime:
		if len(b) < 8 {
			return b, false
		}
		c.Int = int64(binary.BigEndian.Uint64(b))
		return b[8:], true
	case KindUUID:
		if len(b) < 16 {
			return b, false
		}
		c.Bytes = b[:16]
		return b[16:], true
	case KindText, KindBytes:
		c.Bytes, rest, ok = cutBytes(b)
		return rest, ok
	}
	return b, false
}

// cutBytes reads a length and as many bytes.
func cutBytes(b []byte) (found, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, b, false
	}
	end := size + int(n)
	return b[size:end:end], b[end:], true
}

func cutPrefix(b []byte, prefix string) (rest []byte, ok bool) {
	if len(b) < len(prefix) || string(b[:len(prefix)]) != prefix {
		return b, false
	}
	return b[len(prefix):], true
}

// chunkWriter collects the rows of one table and emits them as chunks.
type chunkWriter struct {
	table string
	width int    // bytes of the bits that tell NULL
	head  int    // bytes of the header
	buf   []byte // header and rows
	row   int    // where the row being written begins
	rows  int64  // whole rows in buf
	emit  func(rows int64, raw []byte) error
	sum   *Content // gets the rows instead of emit, one by one; nil: emit does
}

// newChunkWriter writes into buf, or into what is longer.
func newChunkWriter(table string, columns []Column, buf []byte, emit func(rows int64, raw []byte) error) *chunkWriter {
	w := &chunkWriter{table: table, width: len(columns) + 7>>3, buf: buf[:0], emit: emit}
	w.buf = append(w.buf, chunkMagic...)
	w.buf = appendBytes(w.buf, table)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(columns)))
	for _, c := range columns {
		w.buf = appendBytes(w.buf, c.Name)
		w.buf = append(w.buf, byte(c.Kind))
	}
	w.head = len(w.buf)
	return w
}

func appendBytes[T string | []byte](buf []byte, b T) []byte {
	return append(binary.AppendUvarint(buf, uint64(len(b))), b...)
}

// begin begins a row; what follows is one call of the methods below for each column.
func (w *chunkWriter) begin() {
	w.row = len(w.buf)
	for range w.width {
		w.buf = append(w.buf, 0)
	}
}

func (w *chunkWriter) null(column int) { w.buf[w.row+column>>3] |= 1 << (column & 7) }
func (w *chunkWriter) int(v int64)     { w.buf = binary.AppendVarint(w.buf, v) }
func (w *chunkWriter) time(micros int64) {
	w.buf = binary.BigEndian.AppendUint64(w.buf, uint64(micros))
}
func (w *chunkWriter) bytes(b []byte) { w.buf = appendBytes(w.buf, b) }
func (w *chunkWriter) uuid(b []byte)  { w.buf = append(w.buf, b...) }
func (w *chunkWriter) bool(v byte)    { w.buf = append(w.buf, v) }

// undo takes back the row that was begun.
func (w *chunkWriter) undo() { w.buf = w.buf[:w.row] }

// end ends a row. A chunk that it no longer fits in is emitted without it.
func (w *chunkWriter) end() error {
	if w.sum != nil {
		w.sum.row(w.buf[w.row:])
		w.undo()
		return nil
	}
	w.rows++
	switch size := len(w.buf); {
	case size <= ChunkSize:
		return nil
	case w.rows > 1:
		w.rows--
		if err := w.emit(w.rows, w.buf[:w.row]); err != nil {
			return err
		}
		w.buf = append(w.buf[:w.head], w.buf[w.row:size]...)
		w.row, w.rows = w.head, 1
	}
	if len(w.buf) > MaxChunk {
		return fmt.Errorf("a row of %s has %d bytes: more than %d can't be kept", w.table, len(w.buf)-w.head, MaxChunk)
	}
	return nil
}

// flush emits what is left, if anything.
func (w *chunkWriter) flush() error {
	if w.rows == 0 {
		return nil
	}
	rows := w.rows
	raw := w.buf
	w.rows = 0
	err := w.emit(rows, raw)
	w.buf = w.buf[:w.head]
	return err
}
