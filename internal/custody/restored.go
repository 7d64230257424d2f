package custody

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
)

// Known is what the anchors know of one installation, whether or not its database is there.
type Known struct {
	Newest []audit.Witness // the newest checkpoint of each history in each anchor
	Lines  []audit.Line    // each once, by history and number

	whole map[string]bool // anchors, by where they are, all of whose notes were read
}

// Known asks every anchor about an installation. It writes nothing. What can't be read is a Trouble.
func (c *Custody) Known(ctx context.Context, instance string) (Known, error) {
	k := Known{whole: map[string]bool{}}
	seen := map[string]bool{}
	for _, a := range c.anchors(ctx) {
		newest, lines, err := c.know(ctx, a, instance)
		c.note(ctx, a.String(), err)
		k.whole[a.String()] = err == nil
		k.Newest = append(k.Newest, newest...)
		for i := range lines {
			l := &lines[i]
			if one := fmt.Sprint(l.Generation, l.Seq, l.RowHMAC, l.Facts.Part); !seen[one] {
				seen[one] = true
				k.Lines = append(k.Lines, *l)
			}
		}
	}
	slices.SortStableFunc(k.Lines, func(a, b audit.Line) int {
		return cmp.Or(cmp.Compare(a.Generation, b.Generation), cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.Facts.Part, b.Facts.Part))
	})
	return k, nil
}

// know reads what one anchor knows, as much as can be read.
func (c *Custody) know(ctx context.Context, a anchor, instance string) (newest []audit.Witness, lines []audit.Line, err error) {
	keys := c.publicKeys()
	found, err := a.histories(ctx, instance)
	for _, h := range found {
		if h.instance != instance {
			continue
		}
		notes, bad := a.checkpoints(ctx, h, math.MaxInt64, c.ours(h))
		err = cmp.Or(err, bad)
		for cp := range c.own(notes, h.instance, h.generation) {
			newest = append(newest, audit.Witness{Checkpoint: cp, Where: a.String(), Shared: a != c.local})
			break
		}
		notes, bad = a.lines(ctx, h, 0)
		err = cmp.Or(err, bad)
		for _, n := range notes {
			if l, err := audit.OpenLine(n, keys...); err == nil && l.Instance == instance {
				lines = append(lines, l)
			}
		}
	}
	return newest, lines, err
}

// RestoredPlace is where a database that was restored lives from now on; for SQLite that is a new name, which is written
// into the home as well, if that may be written.
func (c *Custody) RestoredPlace(ctx context.Context) (store.Place, error) {
	p, err := c.newPlace(ctx)
	if err != nil {
		return p, fmt.Errorf("find the place of the restored database: %w", err)
	}
	return p, nil
}
