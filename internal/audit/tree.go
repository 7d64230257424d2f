package audit

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
)

// HashSize is the length in bytes of a root, of a peak and of a leaf's hash.
const HashSize = 32

var merkle = &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}

// Tree is the Merkle tree of RFC 6962 over the rows of a chain, in order. It keeps only its peaks, about one hash for
// each doubling of the rows. The zero Tree is empty.
type Tree struct {
	r *compact.Range
}

// ErrPeaks says that peaks are not those of a tree of their size.
var ErrPeaks = errors.New("these are not the peaks of a tree of that size")

// TreeFromPeaks returns the tree of size rows that has these peaks, HashSize bytes each, the largest subtree's first.
// Whether they are those of a chain, only a signed root can tell.
func TreeFromPeaks(size int64, peaks []byte) (*Tree, error) {
	if size < 0 || len(peaks)%HashSize != 0 {
		return nil, ErrPeaks
	}
	var hashes [][]byte
	for i := 0; i < len(peaks); i += HashSize {
		hashes = append(hashes, peaks[i:i+HashSize:i+HashSize])
	}
	r, err := merkle.NewRange(0, uint64(size), hashes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPeaks, err)
	}
	return &Tree{r}, nil
}

// leaf is what the tree holds of a row. A row_hmac that is none, which only a tampered row has, stands as it is.
func leaf(body []byte, rowHMAC string) []byte {
	raw, err := hex.DecodeString(rowHMAC)
	if err != nil || len(raw) != HashSize {
		raw = []byte(rowHMAC)
	}
	out := make([]byte, 0, len(body)+len(raw))
	return append(append(out, body...), raw...)
}

// Append adds the next row.
func (t *Tree) Append(body []byte, rowHMAC string) {
	t.append(rfc6962.DefaultHasher.HashLeaf(leaf(body, rowHMAC)), nil)
}

func (t *Tree) append(hash []byte, visit compact.VisitFn) {
	t.grow()
	_ = t.r.Append(hash, visit) // fails only for ranges that don't meet
}

func (t *Tree) grow() {
	if t.r == nil {
		t.r = merkle.NewEmptyRange(0)
	}
}

// Size is the number of rows.
func (t *Tree) Size() int64 {
	if t.r == nil {
		return 0
	}
	return int64(t.r.End())
}

// Root is the hash of the whole.
func (t *Tree) Root() (root [HashSize]byte) {
	if t.Size() == 0 {
		copy(root[:], rfc6962.DefaultHasher.EmptyRoot())
		return root
	}
	hash, _ := t.r.GetRootHash(nil) // fails only for ranges that don't begin at 0
	copy(root[:], hash)
	return root
}

// Peaks is what TreeFromPeaks takes.
func (t *Tree) Peaks() []byte {
	var out []byte
	if t.r != nil {
		for _, h := range t.r.Hashes() {
			out = append(out, h...)
		}
	}
	return out
}

// Clone returns a tree of its own with the same rows.
func (t *Tree) Clone() *Tree {
	c, _ := TreeFromPeaks(t.Size(), t.Peaks()) // its own peaks fit
	return c
}
