package backup

import (
	"encoding/hex"
	"sync"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
)

// logTree grows the tree of the audit log while its chunks go by.
type logTree struct {
	tree  *audit.Tree
	whole bool
}

// treeOf begins the tree of a log that begins behind a boundary, of which the newest prune tells the tree.
func treeOf(boundary int64, pruned audit.Boundary) *logTree {
	if boundary == 0 {
		return &logTree{tree: &audit.Tree{}, whole: true}
	}
	if pruned.Through == boundary {
		if tree := prunedTree(pruned); tree != nil {
			return &logTree{tree: tree, whole: true}
		}
	}
	return &logTree{tree: &audit.Tree{}}
}

func (t *logTree) add(raw []byte) {
	rows, err := store.DecodeRows(raw)
	if err != nil || !t.whole {
		t.whole = false
		return
	}
	for rows.Next() {
		r, err := logRow(rows.Columns, rows.Cells())
		if err != nil || r.Seq != t.tree.Size()+1 {
			t.whole = false
			return
		}
		t.tree.Append(r.Body, r.RowHMAC)
	}
}

// root is the tree's if it has size rows, else empty.
func (t *logTree) root(size int64) string {
	if !t.whole || t.tree.Size() != size {
		return ""
	}
	root := t.tree.Root()
	return hex.EncodeToString(root[:])
}

// rowCount sums up rows of several goroutines and tells of them.
type rowCount struct {
	mu       sync.Mutex
	rows     int64
	progress func(phase string, done, total int64)
}

func (c *rowCount) add(n int64) {
	if c.progress == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows += n
	c.progress("rows", c.rows, 0)
}
