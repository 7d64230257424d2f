package backup

import (
	"errors"
	"io"
	"sync"
)

// blocks reads in large pieces from what is slow to ask: decryption asks for 64 KiB at a time, and each could be a request
// to an S3 server. It keeps the last two.
type blocks struct {
	from io.ReaderAt
	size int64

	mu   sync.Mutex
	kept [2]block
}

type block struct {
	at   int64 // -1: none
	data []byte
}

// blockBytes is one piece.
const blockBytes = 4 << 20

func newBlocks(from io.ReaderAt, size int64) *blocks {
	return &blocks{from: from, size: size, kept: [2]block{{at: -1}, {at: -1}}}
}

func (b *blocks) ReadAt(p []byte, at int64) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for n < len(p) {
		if at >= b.size {
			return n, io.EOF
		}
		one, err := b.block(at - at%blockBytes)
		if err != nil {
			return n, err
		}
		did := copy(p[n:], one.data[at-one.at:])
		n, at = n+did, at+int64(did)
	}
	return n, nil
}

// block gives the piece that begins at a place.
func (b *blocks) block(at int64) (*block, error) {
	if b.kept[0].at != at {
		b.kept[0], b.kept[1] = b.kept[1], b.kept[0]
	}
	one := &b.kept[0]
	if one.at == at {
		return one, nil
	}
	one.at = -1
	want := int(min(blockBytes, b.size-at))
	if cap(one.data) < want {
		one.data = make([]byte, want)
	}
	one.data = one.data[:want]
	if n, err := b.from.ReadAt(one.data, at); n < want {
		return nil, errors.Join(io.ErrUnexpectedEOF, err)
	}
	one.at = at
	return one, nil
}
