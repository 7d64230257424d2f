package store

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Content tells one set of rows of a table from another, in whatever order they come and however they are cut into
// chunks: it adds up the SHA-256 of each row. It is the same for both databases.
type Content struct {
	Rows int64
	sum  [4]uint64
}

// Add adds the rows of a chunk.
func (c *Content) Add(raw []byte) error {
	r, err := DecodeRows(raw)
	if err != nil {
		return err
	}
	for r.Next() {
		c.row(r.at)
	}
	return r.Err()
}

func (c *Content) row(b []byte) {
	h := sha256.Sum256(b)
	for i := range c.sum {
		c.sum[i] += binary.BigEndian.Uint64(h[8*i:])
	}
	c.Rows++
}

// Merge adds the rows of o.
func (c *Content) Merge(o Content) {
	for i := range c.sum {
		c.sum[i] += o.sum[i]
	}
	c.Rows += o.Rows
}

// String is the number of rows and the sum.
func (c Content) String() string {
	return fmt.Sprintf("%d rows %016x%016x%016x%016x", c.Rows, c.sum[0], c.sum[1], c.sum[2], c.sum[3])
}
