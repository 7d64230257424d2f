package audit

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// Prover collects, from the rows of a chain in order, what shows that one of them is in the tree of a checkpoint. It
// needs the same memory for any number of rows.
type Prover struct {
	index, size int64
	nodes       proof.Nodes
	want        map[compact.NodeID][]byte
	tree        *Tree
	leaf        []byte
}

// NewProver starts a proof that row seq is in the tree of size rows. peaks are those of the tree of the rows up to
// through, which were pruned; 0 and nil if the chain begins at 1.
func NewProver(seq, size, through int64, peaks []byte) (*Prover, error) {
	switch {
	case seq < 1 || seq > size:
		return nil, fmt.Errorf("prove row %d: the checkpoint covers rows 1 to %d", seq, size)
	case seq <= through:
		return nil, fmt.Errorf("prove row %d: rows up to %d were exported and deleted: prove it with the archive's checkpoint", seq, through)
	}
	tree, err := TreeFromPeaks(through, peaks)
	if err != nil {
		return nil, fmt.Errorf("prove row %d: %w", seq, err)
	}
	p := &Prover{index: seq - 1, size: size, tree: tree, want: map[compact.NodeID][]byte{}}
	if p.nodes, err = proof.Inclusion(uint64(p.index), uint64(size)); err != nil {
		return nil, fmt.Errorf("prove row %d: %w", seq, err)
	}
	for _, n := range p.nodes.IDs {
		p.want[n] = nil
	}
	for i, n := range compact.RangeNodes(0, uint64(through), nil) {
		p.visit(n, peaks[i*HashSize:(i+1)*HashSize])
	}
	return p, nil
}

func (p *Prover) visit(n compact.NodeID, hash []byte) {
	if _, wanted := p.want[n]; wanted {
		p.want[n] = hash
	}
}

// Row takes the next row and reports whether the proof wants more.
func (p *Prover) Row(r *Row) (more bool) {
	data := leaf(r.Body, r.RowHMAC)
	if p.tree.Size() == p.index {
		p.leaf = data
	}
	p.tree.append(rfc6962.DefaultHasher.HashLeaf(data), p.visit)
	return p.tree.Size() < p.size
}

// Proof is what shows that a row is in the chain that a checkpoint signed.
type Proof struct {
	Index  int64    // of the leaf: the row's number less 1
	Leaf   []byte   // body and the 32 bytes of row_hmac
	Hashes [][]byte // from the leaf to the root
	Note   string   // of the checkpoint
}

// ErrProof says that a file proves nothing.
var ErrProof = errors.New("not a proof that a row is in the audit log")

// Finish returns the proof for the checkpoint of note, which has root. The rows must be those that were signed.
func (p *Prover) Finish(note string, root [HashSize]byte) (Proof, error) {
	if p.tree.Size() != p.size || p.tree.Root() != root {
		return Proof{}, fmt.Errorf("%w: the rows are not those that the checkpoint signed: `z4j-brain audit verify` says which", ErrProof)
	}
	hashes := make([][]byte, len(p.nodes.IDs))
	for i, n := range p.nodes.IDs {
		hashes[i] = p.want[n]
	}
	hashes, err := p.nodes.Rehash(hashes, rfc6962.DefaultHasher.HashChildren)
	if err != nil {
		return Proof{}, fmt.Errorf("%w: %w", ErrProof, err)
	}
	return Proof{Index: p.index, Leaf: p.leaf, Hashes: hashes, Note: note}, nil
}

const proofTag = "c2sp.org/tlog-proof@v1"

// String writes p in the form of C2SP tlog-proof: the leaf is its extra data.
func (p Proof) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nextra %s\nindex %d\n", proofTag, base64.StdEncoding.EncodeToString(p.Leaf), p.Index)
	for _, h := range p.Hashes {
		b.WriteString(base64.StdEncoding.EncodeToString(h) + "\n")
	}
	return b.String() + "\n" + p.Note
}

// ParseProof reads what String wrote.
func ParseProof(text string) (p Proof, err error) {
	head, note, ok := strings.Cut(text, "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || len(lines) < 3 || lines[0] != proofTag || len(lines) > 3+64 {
		return Proof{}, ErrProof
	}
	extra, ok1 := strings.CutPrefix(lines[1], "extra ")
	index, ok2 := strings.CutPrefix(lines[2], "index ")
	if !ok1 || !ok2 {
		return Proof{}, ErrProof
	}
	p.Note = note
	leaf, err1 := base64.StdEncoding.DecodeString(extra)
	at, err2 := strconv.ParseInt(index, 10, 64)
	if err1 != nil || err2 != nil || at < 0 || len(leaf) < HashSize {
		return Proof{}, ErrProof
	}
	p.Leaf, p.Index = leaf, at
	for _, line := range lines[3:] {
		h, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(h) != HashSize {
			return Proof{}, ErrProof
		}
		p.Hashes = append(p.Hashes, h)
	}
	return p, nil
}

// Check returns the checkpoint that p proves its row to be in, and the body of the row, if one of the keys signed it.
func (p Proof) Check(publicKeys ...string) (Checkpoint, Body, error) {
	c, err := OpenCheckpoint(p.Note, publicKeys...)
	if err != nil {
		return Checkpoint{}, Body{}, err
	}
	hash := rfc6962.DefaultHasher.HashLeaf(p.Leaf)
	if p.Index < 0 || p.Index >= c.Size {
		return Checkpoint{}, Body{}, fmt.Errorf("%w: row %d is not among the %d of the checkpoint", ErrProof, p.Index+1, c.Size)
	}
	err = proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(p.Index), uint64(c.Size), hash, p.Hashes, c.Root[:])
	if err != nil {
		return Checkpoint{}, Body{}, fmt.Errorf("%w: %w", ErrProof, err)
	}
	body, err := ParseBody(p.Leaf[:len(p.Leaf)-HashSize])
	if err != nil || body.Seq != p.Index+1 {
		return Checkpoint{}, Body{}, fmt.Errorf("%w: what it proves is no row with the number %d", ErrProof, p.Index+1)
	}
	return c, body, nil
}
