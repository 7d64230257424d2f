package custody

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
)

// post is an anchor as this process asks it.
type post struct {
	anchor

	label string // "home", or its number among the further ones: what may stand in a metric
	turns map[errand]chan struct{}
}

// errand is what is done at an anchor while others wait for none: one of a kind at a time.
type errand string

const (
	showing  errand = "checkpoints"
	bringing errand = "lines"
)

func newPost(a anchor, label string) *post {
	return &post{anchor: a, label: label, turns: map[errand]chan struct{}{showing: make(chan struct{}, 1), bringing: make(chan struct{}, 1)}}
}

const (
	// reach bounds one look at an anchor.
	reach = 15 * time.Second

	// patience is how long the others wait for an anchor that does not answer.
	patience = 2 * time.Second

	// longReach bounds reading all that an anchor holds.
	longReach = 5 * time.Minute
)

// beside does an errand at all of list at once and reports whether it failed at one. An anchor that does not answer soon is
// left behind, with its errand, and is a Trouble; it holds up nobody.
func (c *Custody) beside(ctx context.Context, list []*post, e errand, do func(context.Context, *post) error) (failed bool) {
	type answer struct {
		from *post
		err  error
	}
	answers := make(chan answer, len(list))
	waits := map[*post]bool{}
	for _, p := range list {
		select {
		case p.turns[e] <- struct{}{}:
		default: // it did not even end the last one
			failed = true
			continue
		}
		waits[p] = true
		go func() {
			defer func() { <-p.turns[e] }()
			answers <- answer{p, do(ctx, p)}
		}()
	}
	enough := time.NewTimer(patience)
	if c.following != nil {
		enough.Reset(commandPatience)
	}
	defer enough.Stop()
	for len(waits) > 0 {
		select {
		case a := <-answers:
			delete(waits, a.from)
			c.note(ctx, a.from, Silent, nil)
			failed = failed || a.err != nil
		case <-ctx.Done():
			return true
		case <-enough.C:
			for p := range waits {
				c.note(ctx, p, Silent, errors.New("it does not answer"))
			}
			return true
		}
	}
	return failed
}

// gather asks all of list at once, and waits for each, which is bounded by itself.
func gather[T any](list []*post, ask func(*post) T) []T {
	out := make([]T, len(list))
	var wg sync.WaitGroup
	for i, p := range list {
		wg.Go(func() { out[i] = ask(p) })
	}
	wg.Wait()
	return out
}

// sharedAnchors are those beside the local one, which are opened when they are first needed. One that can't be is tried
// again the next time.
func (c *Custody) sharedAnchors(ctx context.Context) []*post {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*post
	for i, location := range c.o.Anchors {
		p := c.shared[i]
		if p == nil {
			a, err := c.open(ctx, location)
			p = newPost(a, strconv.Itoa(i+1))
			if c.noteLocked(ctx, p, Unreadable, err); err != nil {
				continue
			}
			c.shared[i] = p
		}
		out = append(out, p)
	}
	return out
}

func (c *Custody) open(ctx context.Context, location string) (anchor, error) {
	if !strings.Contains(location, "://") {
		return newPatient(&fileAnchor{dir: location, make: false}), nil
	}
	t, err := target.Open(ctx, location, c.o.Target)
	if err != nil {
		return nil, fmt.Errorf("open anchor: %w", err)
	}
	return &bucketAnchor{Target: t}, nil
}

// Home is how a Trouble names the anchor in the home.
const Home = "home"

// localPost is the home's, which a new one has not yet.
func localPost(home string) *post {
	return newPost(newPatient(&fileAnchor{dir: filepath.Join(home, "anchors"), make: true}), Home)
}

// where names an anchor. One that could not be opened has no name: what was given may hold a secret.
func (p *post) where() string {
	if p.anchor == nil {
		return "number " + p.label + " of Z4J_AUDIT_ANCHORS"
	}
	return p.String()
}

// Fault is what may be wrong with an anchor.
type Fault string

// The faults, none of which holds anything.
const (
	Silent      Fault = "silent"      // it does not answer
	Unreadable  Fault = "unreadable"  // it can't be opened or read
	Unwritable  Fault = "unwritable"  // checkpoints can't be written
	Lines       Fault = "no_lines"    // lines can't be written
	Contradicts Fault = "contradicts" // it does not agree with the database, which the anchor of the home does
	Foreign     Fault = "foreign"     // it holds what a copy of the database signed
)

// Faults lists them all.
func Faults() []Fault { return []Fault{Silent, Unreadable, Unwritable, Lines, Contradicts, Foreign} }

// Trouble is what is wrong with an anchor and holds nothing.
type Trouble struct {
	Anchor string     `json:"anchor" doc:"home, or its number in Z4J_AUDIT_ANCHORS"`
	Where  string     `json:"where"`
	Fault  Fault      `json:"fault" enum:"silent,unreadable,unwritable,no_lines,contradicts,foreign"`
	Detail string     `json:"detail"`
	Since  store.Time `json:"since"`
}

// String says it for people.
func (t *Trouble) String() string { return t.Where + ": " + string(t.Fault) + ": " + t.Detail }

// faulty is a fault of an anchor.
type faulty struct {
	anchor string
	fault  Fault
}

// note remembers that something is wrong with an anchor, or, with nil, that it is right again. A change is logged.
func (c *Custody) note(ctx context.Context, p *post, f Fault, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noteLocked(ctx, p, f, err)
}

func (c *Custody) noteLocked(ctx context.Context, p *post, f Fault, err error) {
	key := faulty{p.label, f}
	was, bad := c.troubles[key]
	switch {
	case err == nil && bad:
		delete(c.troubles, key)
		c.o.Log.InfoContext(ctx, "audit anchor is right again", "anchor", p.where(), "fault", f)
	case err != nil && was.Detail != err.Error():
		if !bad {
			was = Trouble{Anchor: p.label, Fault: f, Since: store.TimeOf(c.o.Now())}
		}
		was.Where, was.Detail = p.where(), err.Error()
		c.troubles[key] = was
		c.o.Log.WarnContext(ctx, "audit anchor needs attention", "anchor", p.where(), "fault", f, "err", err)
	}
}

// Troubles tells what is wrong with anchors and holds nothing, as far as this process met it.
func (c *Custody) Troubles() []Trouble {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := []Trouble{}
	for _, t := range c.troubles {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b Trouble) int {
		return cmp.Or(cmp.Compare(len(b.Anchor), len(a.Anchor)), cmp.Compare(a.Anchor, b.Anchor), cmp.Compare(a.Fault, b.Fault))
	})
	return out
}

// Labels names the anchors as Troubles do.
func (c *Custody) Labels() []string {
	var out []string
	if c.local != nil {
		out = append(out, c.local.label)
	}
	for i := range c.o.Anchors {
		out = append(out, strconv.Itoa(i+1))
	}
	return out
}

// Look compares every anchor with the database and tells what is wrong. It writes nothing, and decides nothing.
func (c *Custody) Look(ctx context.Context) ([]Trouble, error) {
	if c.o.Store == nil || len(c.o.Store.AuditKeys()) == 0 {
		return c.Troubles(), nil // no note is known to be our own
	}
	st, err := c.chain(ctx)
	if err != nil {
		return nil, err
	}
	if c.local != nil && !c.Local("").Missing { // whether that is right Local's reader knows
		if local, asked := c.askLocal(ctx, &st); asked && local.standing > Agrees {
			c.note(ctx, c.local, Contradicts, errors.New(local.reason(st.head.Seq)))
		}
	}
	c.askShared(ctx, &st, true)
	return c.Troubles(), nil
}
