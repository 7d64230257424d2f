package custody

import (
	"cmp"
	"context"
	"fmt"
	"math"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
)

// Known is what the readable anchors know of one installation, whether or not its database is there.
type Known struct {
	Readable int // anchors that know it
	Newest   []audit.Witness
	Lines    []audit.Line
}

// Known asks every anchor about an installation. It writes nothing. What can't be read is a Trouble.
func (c *Custody) Known(ctx context.Context, instance string) (k Known, err error) {
	for _, a := range c.anchors(ctx) {
		found, err := a.histories(ctx, instance)
		knows := false
		for _, h := range found {
			if h.instance != instance {
				continue
			}
			knows = true
			notes, bad := a.checkpoints(ctx, h, math.MaxInt64, c.ours(h))
			err = cmp.Or(err, bad)
			for cp := range c.own(notes, h.instance, h.generation) {
				k.Newest = append(k.Newest, audit.Witness{Checkpoint: cp, Where: a.String(), Shared: a != c.local})
				break
			}
		}
		if knows {
			k.Readable++
		}
		c.note(ctx, a.String(), err)
	}
	k.Lines, err = c.Lines(ctx, instance)
	return k, err
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
