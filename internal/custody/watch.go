package custody

import (
	"context"
	"errors"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
)

// newPage is how many new entries are looked at in one go.
const newPage = 1000

// Watch is done every second on every brain, and at once when Store.AuditNews tells: it notices a database that was put in
// the place of the one that was opened, and brings new checkpoints and lines into the anchors.
func (c *Custody) Watch(ctx context.Context) error {
	s := c.o.Store
	if err := c.lookWhere(ctx); err != nil {
		c.mu.Lock()
		c.away = true
		c.mu.Unlock()
		return err
	}
	if c.o.ReadOnly || len(s.AuditKeys()) == 0 {
		return nil
	}
	st, news, err := c.news(ctx)
	if err != nil || !news {
		return err
	}
	held, err := s.Hold(ctx)
	if err != nil {
		return err
	}
	if held == nil {
		c.mirror(ctx, &st)
	}
	return c.bringLines(ctx, &st, held != nil)
}

// lookWhere compares where the database is with the last look, and examines it when that changed or it was away.
func (c *Custody) lookWhere(ctx context.Context) error {
	s := c.o.Store
	if errors.Is(s.FileErr(), store.ErrDatabaseGone) {
		if err := s.Reopen(ctx); err != nil {
			return err
		}
		c.forget()
		return c.Examine(ctx)
	}
	present, err := s.PresentPlace(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	was, away := c.place, c.away
	c.mu.Unlock()
	if s.Dialect() == "sqlite" {
		present.Identifier = was.Identifier
	}
	if !away && present == was {
		return nil
	}
	if err := c.Examine(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.place, c.away = present, false
	return nil
}

// forget drops what was known of another database.
func (c *Custody) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scanned, c.lines, c.mirrored = 0, map[cursor]mark{}, map[string]int64{}
}

// news looks at the entries that came since the last look. It reports whether the anchors want something, and wakes the
// signing of a checkpoint.
func (c *Custody) news(ctx context.Context) (st chainState, news bool, err error) {
	s := c.o.Store
	head, err := s.AuditHead(ctx)
	if err != nil {
		return st, false, err
	}
	c.mu.Lock()
	after, as := c.scanned, c.scannedAs
	c.mu.Unlock()
	if back, err := c.setBack(ctx, mark{after, as}, &head); err != nil {
		return st, false, err
	} else if back { // whoever appends next finds it; what was appended since wants its lines
		after = 0
	}
	newest, err := s.NewestCheckpoint(ctx)
	if err != nil {
		return st, false, err
	}
	if after == 0 {
		after = min(newest.Size, head.Seq)
		news = true
	}
	rows, err := s.AuditNewActions(ctx, after, newPage)
	if err != nil {
		return st, false, err
	}
	grave := false
	for _, r := range rows {
		kind, _ := audit.Action(r.Action).Kind()
		news = news || kind.Line
		grave = grave || kind.Grave && r.Seq > newest.Size
		after = r.Seq
	}
	if grave {
		select {
		case c.grave <- struct{}{}:
		default: // it is told already
		}
	}
	c.mu.Lock()
	mirrored, ok := c.mirrored[newest.Generation]
	c.scanned, c.scannedAs = after, ""
	if after == head.Seq {
		c.scannedAs = head.RowHMAC
	}
	c.mu.Unlock()
	if news = news || newest.Size > 0 && (!ok || newest.Size > mirrored); !news {
		return st, false, nil
	}
	st, err = c.chain(ctx)
	return st, true, err
}

// setBack reports whether the log is not the one any more that had m.
func (c *Custody) setBack(ctx context.Context, m mark, head *audit.Row) (bool, error) {
	if head.Seq <= m.seq || m.rowHMAC == "" {
		return head.Seq < m.seq || head.Seq == m.seq && m.rowHMAC != "" && head.RowHMAC != m.rowHMAC, nil
	}
	row, err := c.o.Store.AuditLeaf(ctx, m.seq)
	if errors.Is(err, store.ErrNotFound) {
		b, err := c.o.Store.PruneBoundary(ctx)
		return b.Through < m.seq, err
	}
	return row.RowHMAC != m.rowHMAC, err
}

// bringLines writes the lines that the anchors don't have yet. In hold only the anchor of this home gets any.
func (c *Custody) bringLines(ctx context.Context, st *chainState, held bool) error {
	var anchors []*post
	if c.local != nil {
		anchors = append(anchors, c.local)
	}
	if !held {
		anchors = append(anchors, c.sharedAnchors(ctx)...)
	}
	behind := c.beside(ctx, anchors, bringing, func(ctx context.Context, p *post) error {
		ok, err := c.follows(ctx, p)
		if ok {
			err = c.bringAll(ctx, p, st)
		}
		c.note(ctx, p, Lines, err)
		return err
	})
	if behind { // the next look tries again
		c.mu.Lock()
		c.scanned = 0
		c.mu.Unlock()
	}
	return nil
}

// bringAll writes to an anchor the lines of all histories that it does not have.
func (c *Custody) bringAll(ctx context.Context, p *post, st *chainState) error {
	for i, g := range st.generations {
		through := st.head.Seq
		if i+1 < len(st.generations) {
			through = st.generations[i+1].Started - 1
		}
		if err := c.bringTo(ctx, p, history{st.instance, g.ID}, g.Started-1, through, st); err != nil {
			return err
		}
	}
	return nil
}

// bringTo writes to a the lines of entries of h behind a number, up to another, that it does not have.
// Those of a log that was set back since count for nothing: new entries may have the numbers of lost ones.
func (c *Custody) bringTo(ctx context.Context, a anchor, h history, after, through int64, st *chainState) error {
	key := cursor{a.String(), h.generation}
	c.mu.Lock()
	known, ok := c.lines[key]
	c.mu.Unlock()
	if ok {
		back, err := c.setBack(ctx, known, &st.head)
		if err != nil {
			return err
		}
		ok = !back
	}
	last := known.seq
	if !ok {
		var err error
		if last, err = c.lastLine(ctx, a, h, st); err != nil {
			return err
		}
	}
	for last = max(last, after); last < through; {
		entries, looked, err := c.o.Store.AuditLineEntries(ctx, last, through, newPage)
		if err != nil {
			return err
		}
		for i := range entries {
			if err := c.putLines(ctx, a, h, &entries[i]); err != nil {
				return err
			}
		}
		last = looked
	}
	row, err := c.o.Store.AuditLeaf(ctx, last)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	c.mu.Lock()
	c.lines[key] = mark{last, row.RowHMAC}
	c.mu.Unlock()
	return nil
}

// lastLine is the number of the newest entry of the log that a has a line of.
func (c *Custody) lastLine(ctx context.Context, a anchor, h history, st *chainState) (int64, error) {
	keys := c.publicKeys()
	var failed error
	last, err := a.lastLine(ctx, h, func(note string) bool {
		l, err := audit.OpenLine(note, keys...)
		if err != nil || l.Instance != h.instance || l.Generation != h.generation {
			return false
		}
		if l.Seq <= st.boundary.Through {
			return true // exported and deleted
		}
		row, err := c.o.Store.AuditLeaf(ctx, l.Seq)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			failed = err
			return true
		}
		return row.RowHMAC == l.RowHMAC
	})
	if err != nil {
		return last, err // what was left behind may still look
	}
	return last, failed
}

// putLines writes the lines of one entry.
func (c *Custody) putLines(ctx context.Context, a anchor, h history, r *audit.Row) error {
	var erased []audit.ErasedPart
	if r.Action == string(audit.Erased) {
		var err error
		if erased, err = c.o.Store.ErasedBy(ctx, r.Seq); err != nil {
			return err
		}
	}
	for part := 0; part == 0 || len(erased) > 0; part++ {
		n := min(len(erased), audit.MaxErased)
		note, err := c.signer().SignLine(audit.NewLine(h.instance, h.generation, r, part, erased[:n]))
		if err != nil {
			return err
		}
		if err := a.putLine(ctx, h, r.Seq, part, note); err != nil {
			return err
		}
		erased = erased[n:]
	}
	return nil
}
