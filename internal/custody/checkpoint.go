package custody

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
)

// leafPage is how many rows are read at once.
const leafPage = 1000

// Checkpoint signs the whole log as it is, if something is new, and puts that into the anchors. It compares first with the
// anchor of the home: nothing is signed while the history is in doubt. The others, whose word holds nothing where that one
// agrees, get the checkpoint after the home has it, and nothing waits long for them.
func (c *Custody) Checkpoint(ctx context.Context) error {
	if c.o.ReadOnly || c.signer().IsZero() {
		return nil
	}
	if err := c.Examine(ctx); err != nil {
		return err
	}
	held, err := c.o.Store.Hold(ctx)
	if err != nil || held != nil || c.o.Store.AuditErr() != nil {
		return err // why changes are refused is told elsewhere
	}
	return c.signNew(ctx)
}

// signNew signs the whole log, if something is new, and shows the newest checkpoint to the anchors.
func (c *Custody) signNew(ctx context.Context) error {
	st, err := c.chain(ctx)
	if err != nil {
		return err
	}
	newest, err := c.newest(ctx, &st)
	if err != nil {
		return err
	}
	if newest.Size >= st.head.Seq {
		return c.show(ctx, &st, &newest, "")
	}
	cp, note, err := c.sign(ctx, &st)
	if err != nil {
		return err
	}
	c.mirror(ctx, &st)
	return c.show(ctx, &st, &cp, note)
}

// sign signs a checkpoint of the whole log and keeps it.
func (c *Custody) sign(ctx context.Context, st *chainState) (cp audit.Checkpoint, note string, err error) {
	tree, err := c.tree(ctx, st)
	if err != nil {
		return cp, "", err
	}
	last, err := c.extend(ctx, tree, st.head.Seq)
	if err != nil {
		return cp, "", err
	}
	present, err := c.o.Store.PresentPlace(ctx)
	if err != nil {
		return cp, "", err
	}
	cp = audit.Checkpoint{
		Instance: st.instance, Generation: st.current(), Size: tree.Size(), Root: tree.Root(), RowHMAC: last.RowHMAC,
		Time: store.TimeOf(c.o.Now()).UnixMicro(), Timeline: present.Timeline,
	}
	if note, err = c.signer().SignCheckpoint(cp); err != nil {
		return cp, "", err
	}
	return cp, note, c.o.Store.PutCheckpoint(ctx, cp, note, tree.Peaks())
}

// show compares the anchors outside of this home, whose word holds nothing now, and puts the newest checkpoint into them:
// a new one, which note is, or one that an anchor lacks.
func (c *Custody) show(ctx context.Context, st *chainState, newest *audit.Checkpoint, note string) error {
	kept := note
	if kept == "" && newest.Size > 0 {
		notes, err := c.o.Store.CheckpointNotes(ctx, newest.Generation, newest.Size-1, 1)
		if err != nil {
			return err
		}
		if len(notes) > 0 && c.ours(history{newest.Instance, newest.Generation})(notes[0]) {
			kept = notes[0]
		}
	}
	h, at := history{newest.Instance, newest.Generation}, store.TimeAt(newest.Time).Time
	c.beside(ctx, c.sharedAnchors(ctx), showing, func(ctx context.Context, p *post) error {
		if ok, err := c.follows(ctx, p); !ok {
			return err
		}
		o, err := c.askOne(ctx, p, st, true)
		lacks := err == nil && o.standing <= Agrees && o.agreed.Size < newest.Size
		if note != "" && !errors.Is(err, context.DeadlineExceeded) || kept != "" && lacks {
			bad := p.putCheckpoint(ctx, h, newest.Size, at, kept)
			c.note(ctx, p, Unwritable, bad)
			err = cmp.Or(err, bad)
		}
		return err
	})
	return nil
}

// newest returns the largest checkpoint of the present history that the database keeps and one of our keys signed.
func (c *Custody) newest(ctx context.Context, st *chainState) (audit.Checkpoint, error) {
	notes, err := c.o.Store.NewestCheckpointNotes(ctx, st.current(), 8)
	if err != nil {
		return audit.Checkpoint{}, err
	}
	for cp := range c.own(notes, st.instance, st.current()) {
		return cp, nil
	}
	return audit.Checkpoint{}, nil
}

// tree returns the tree to go on from: the one that was kept, if it is that of a checkpoint of our own whose last row is
// still there; else that of the rows which were pruned, or an empty one.
func (c *Custody) tree(ctx context.Context, st *chainState) (*audit.Tree, error) {
	f, err := c.o.Store.Frontier(ctx)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err == nil && f.Size >= st.boundary.Through {
		trusted, err := c.trusts(ctx, &f, st)
		if err != nil {
			return nil, err
		}
		if trusted != nil {
			return trusted, nil
		}
		c.o.Log.WarnContext(ctx, "the kept tree of the audit log is not that of a signed checkpoint: it is made again", "size", f.Size)
	}
	return c.base(st)
}

// base is the tree of the rows that were pruned; an empty one if there are none.
func (c *Custody) base(st *chainState) (*audit.Tree, error) {
	if st.boundary.Through == 0 {
		return &audit.Tree{}, nil
	}
	peaks, err := hex.DecodeString(st.boundary.Peaks)
	if err != nil {
		return nil, fmt.Errorf("read the peaks of the pruned rows: %w", err)
	}
	return audit.TreeFromPeaks(st.boundary.Through, peaks)
}

// trusts returns the tree of f if a signed checkpoint has its root, nil if none has.
func (c *Custody) trusts(ctx context.Context, f *store.Frontier, st *chainState) (*audit.Tree, error) {
	tree, err := audit.TreeFromPeaks(f.Size, f.Peaks)
	if err != nil {
		return nil, nil //nolint:nilnil // what is no tree is not trusted.
	}
	notes, err := c.o.Store.CheckpointNotes(ctx, f.Generation, f.Size-1, 1)
	if err != nil {
		return nil, err
	}
	for cp := range c.own(notes, st.instance, f.Generation) {
		if cp.Size != f.Size || cp.Root != tree.Root() {
			continue
		}
		standing, err := c.stands(ctx, &cp, st)
		if err != nil {
			return nil, err
		}
		if standing == Agrees {
			return tree, nil
		}
	}
	return nil, nil //nolint:nilnil // as said.
}

// extend adds the rows up to a number and returns the last. A row that is missing inside, which a verification tells of,
// stands as an empty leaf: it stops no checkpoint.
func (c *Custody) extend(ctx context.Context, tree *audit.Tree, through int64) (last audit.Row, err error) {
	missing := int64(0)
	for tree.Size() < through {
		rows, err := c.o.Store.AuditLeaves(ctx, tree.Size(), through, leafPage)
		if err != nil {
			return last, err
		}
		if len(rows) == 0 {
			return last, fmt.Errorf("extend the tree of the audit log: rows behind %d are gone", tree.Size())
		}
		for i := range rows {
			missing += fill(tree, rows[i].Seq)
			tree.Append(rows[i].Body, rows[i].RowHMAC)
		}
		last = rows[len(rows)-1]
	}
	if missing > 0 {
		c.o.Log.ErrorContext(ctx, "rows of the audit log are missing inside; `z4j-brain audit verify` says which", "rows", missing)
	}
	return last, nil
}

// fill puts empty leaves for the rows that are missing before row seq.
func fill(tree *audit.Tree, seq int64) (missing int64) {
	for tree.Size() < seq-1 {
		tree.Append(nil, "")
		missing++
	}
	return missing
}

// mirror puts the checkpoints that the database keeps, whoever signed them, into the anchor of this home.
func (c *Custody) mirror(ctx context.Context, st *chainState) {
	if c.local == nil || c.o.ReadOnly {
		return
	}
	ok, err := c.follows(ctx, c.local)
	if ok {
		err = c.mirrorNew(ctx, st)
	}
	c.note(ctx, c.local, Unwritable, err)
}

func (c *Custody) mirrorNew(ctx context.Context, st *chainState) error {
	h := history{st.instance, st.current()}
	c.mu.Lock()
	after, known := c.mirrored[h.generation]
	c.mu.Unlock()
	if !known {
		notes, err := c.local.checkpoints(ctx, h, math.MaxInt64, c.ours(h))
		if err != nil {
			return err
		}
		for cp := range c.own(notes, h.instance, h.generation) {
			after = cp.Size
			break
		}
		newest, err := c.newest(ctx, st)
		if err != nil {
			return err
		}
		if after == 0 && newest.Size > 0 {
			after = newest.Size - 1 // a home that is new needs the newest only
		}
	}
	notes, err := c.o.Store.CheckpointNotes(ctx, h.generation, after, leafPage)
	if err != nil {
		return err
	}
	keys := c.publicKeys()
	for _, note := range notes {
		cp, err := audit.OpenCheckpoint(note, keys...)
		if err != nil || cp.Instance != h.instance || cp.Generation != h.generation || cp.Size <= after {
			continue // nobody of ours signed it
		}
		if err := c.local.putCheckpoint(ctx, h, cp.Size, store.TimeAt(cp.Time).Time, note); err != nil {
			return err
		}
		after = cp.Size
	}
	c.mu.Lock()
	c.mirrored[h.generation] = after
	c.mu.Unlock()
	return nil
}
