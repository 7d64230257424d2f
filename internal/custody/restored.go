package custody

import (
	"cmp"
	"context"
	"errors"
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
	for _, a := range gather(c.anchors(ctx), func(p *post) knowledge { return c.know(ctx, p, instance) }) {
		k.whole[a.where] = a.whole
		k.Newest = append(k.Newest, a.newest...)
		for i := range a.lines {
			l := &a.lines[i]
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

// knowledge is what one anchor knows.
type knowledge struct {
	where  string
	whole  bool // all was read
	newest []audit.Witness
	lines  []audit.Line
}

// know reads what one anchor knows, as much as can be read.
func (c *Custody) know(ctx context.Context, p *post, instance string) knowledge {
	limit, cancel := context.WithTimeout(ctx, longReach)
	defer cancel()
	k := knowledge{where: p.String()}
	keys := c.publicKeys()
	found, err := p.histories(limit, instance)
	for _, h := range found {
		if h.instance != instance {
			continue
		}
		notes, bad := p.checkpoints(limit, h, math.MaxInt64, c.ours(h))
		err = cmp.Or(err, bad)
		for cp := range c.own(notes, h.instance, h.generation) {
			k.newest = append(k.newest, audit.Witness{Checkpoint: cp, Where: k.where, Shared: p != c.local})
			break
		}
		notes, bad = p.lines(limit, h, 0)
		err = cmp.Or(err, bad)
		for _, n := range notes {
			if l, err := audit.OpenLine(n, keys...); err == nil && l.Instance == instance {
				k.lines = append(k.lines, l)
			}
		}
		if errors.Is(err, context.DeadlineExceeded) {
			break // the rest would not be answered, either
		}
	}
	k.whole = err == nil
	c.note(ctx, p, Unreadable, err)
	return k
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
