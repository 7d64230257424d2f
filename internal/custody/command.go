package custody

import (
	"context"
	"math"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
)

const (
	// commandTime bounds what a command does at the anchors, before and after its own work each.
	commandTime = 20 * time.Second

	// commandPatience is how long a command waits for an anchor: it has no next look.
	commandPatience = 10 * time.Second
)

// Command is what one command of the command line does at the anchors. A brain that runs does the same, maybe at the same
// time: a line that is there twice says the same, and a checkpoint is kept once. It begins no anchor and moves no database,
// which is for a brain to do: the command may be another database's that only has these settings.
type Command struct {
	*Custody

	began chainState
}

// Before compares the database with the anchor in the home, and holds changes if that contradicts.
func (c *Custody) Before(ctx context.Context) (*Command, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	out := &Command{Custody: c}
	if len(c.o.Store.AuditKeys()) == 0 {
		return out, nil // no note is known to be our own
	}
	c.examining.Lock()
	defer c.examining.Unlock()
	held, err := c.o.Store.Hold(ctx)
	if err != nil {
		return nil, err
	}
	if out.began, err = c.chain(ctx); err != nil {
		return nil, err
	}
	c.following = &history{out.began.instance, out.began.current()}
	if held != nil {
		return out, nil // decided already
	}
	if c.local == nil || c.Local("").Missing {
		return out, nil
	}
	local, asked := c.askLocal(ctx, &out.began)
	if !asked || local.standing <= Agrees {
		return out, nil
	}
	where, present, known, err := c.whereabouts(ctx)
	if err != nil {
		return nil, err
	}
	s := Situation{Place: where, Local: local.standing}
	c.measure(&s, &local, &out.began, present)
	return out, unlessKeyless(c.act(ctx, Decide(s), &finding{out.began, local, opinion{}, present, known, where}))
}

// After brings the lines of what the command recorded to the anchors, and signs a checkpoint if it wants one at once.
func (c *Command) After(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandTime)
	defer cancel()
	line, grave, err := c.recorded(ctx)
	if err != nil || !line && !grave {
		return err
	}
	held, err := c.o.Store.Hold(ctx)
	if err != nil {
		return err
	}
	if line {
		st, err := c.chain(ctx)
		if err != nil {
			return err
		}
		if err := c.bringLines(ctx, &st, held != nil); err != nil {
			return err
		}
	}
	if !grave || held != nil {
		return nil
	}
	return c.checkpoint(ctx)
}

// Settle lets the anchors know everything that is recorded, whoever recorded it, before something is done that can't be
// undone.
func (c *Command) Settle(ctx context.Context) error {
	if err := c.After(ctx); err != nil {
		return err
	}
	return c.checkpoint(ctx)
}

// checkpoint signs one of the log as it is, unless changes are held.
func (c *Command) checkpoint(ctx context.Context) error {
	if c.began.instance == "" {
		return nil // nothing can be signed
	}
	held, err := c.o.Store.Hold(ctx)
	if err != nil || held != nil || c.o.Store.AuditErr() != nil {
		return err
	}
	return c.signNew(ctx)
}

// recorded tells whether entries came since Before that anchors have lines of, or that want a checkpoint.
func (c *Command) recorded(ctx context.Context) (line, grave bool, err error) {
	if c.began.instance == "" {
		return false, false, nil
	}
	for after := c.began.head.Seq; ; {
		rows, err := c.o.Store.AuditNewActions(ctx, after, newPage)
		if err != nil {
			return false, false, err
		}
		for _, r := range rows {
			kind, _ := audit.Action(r.Action).Kind()
			line, grave, after = line || kind.Line, grave || kind.Grave, r.Seq
		}
		if len(rows) < newPage {
			return line, grave, nil
		}
	}
}

// follows reports whether an anchor is the database's own, as far as a command has to know: it knew the history in which the
// command began. What only has these settings, such as a copy, writes nothing into the anchors of another.
func (c *Custody) follows(ctx context.Context, p *post) (bool, error) {
	if c.following == nil {
		return true, nil // a brain's are
	}
	notes, err := p.checkpoints(ctx, *c.following, math.MaxInt64, c.ours(*c.following))
	return len(notes) > 0, err
}
