package custody

import (
	"context"
	"errors"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
)

// lonely is after which silence of all brains a database with an empty home may be a restored one.
const lonely = 15 * time.Minute

// Examine finds out whether the database is the one it was, and does what follows. Anchors that can't be read hold nothing.
// Nothing waits for those outside of this home but a home without an anchor of its own.
func (c *Custody) Examine(ctx context.Context) error {
	c.examining.Lock()
	defer c.examining.Unlock()
	s := c.o.Store
	if len(s.AuditKeys()) == 0 {
		return nil // without a key no note is known to be our own
	}
	held, err := s.Hold(ctx)
	if err != nil {
		return err
	}
	st, err := c.chain(ctx)
	if err != nil {
		return err
	}
	where, present, known, err := c.whereabouts(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.place = present
	c.mu.Unlock()
	if held != nil {
		return nil // decided already
	}
	local, asked := c.askLocal(ctx, &st)
	if !asked && where == Same {
		return c.settle(ctx, present, known)
	}
	situation := Situation{Place: where, Local: local.standing}
	shared := opinion{}
	if local.standing == None {
		shared = c.askShared(ctx, &st, false)
		situation.Shared = shared.standing
	}
	if situation.Lonely, err = c.lonely(ctx); err != nil {
		return err
	}
	c.measure(&situation, &local, &st, present)
	return c.act(ctx, Decide(situation), &finding{st, local, shared, present, known, where})
}

// finding is what a decision was made of.
type finding struct {
	chain   chainState
	local   opinion
	shared  opinion
	present store.Place
	known   bool // the place was recorded
	where   Whereabouts
}

// askLocal compares the anchor in this home. asked is false where there is none, or it can't be read.
func (c *Custody) askLocal(ctx context.Context, st *chainState) (o opinion, asked bool) {
	if c.local == nil {
		return o, false
	}
	o, err := c.ask(ctx, c.local, st, true)
	c.note(ctx, c.local, Unreadable, err)
	return o, err == nil
}

// askShared asks the other anchors and returns the worst that one of them says. calm says that the local one speaks for
// the database: then what they say is an alert.
func (c *Custody) askShared(ctx context.Context, st *chainState, calm bool) (worst opinion) {
	for _, o := range gather(c.sharedAnchors(ctx), func(p *post) opinion {
		o, err := c.askOne(ctx, p, st, calm)
		if err != nil {
			return opinion{}
		}
		return o
	}) {
		if o.standing > worst.standing {
			worst = o
		}
	}
	return worst
}

// askOne asks one of the other anchors, within a time, and notes what is wrong with it.
func (c *Custody) askOne(ctx context.Context, p *post, st *chainState, calm bool) (opinion, error) {
	limit, cancel := context.WithTimeout(ctx, reach)
	defer cancel()
	o, err := c.ask(limit, p, st, false)
	c.note(ctx, p, Unreadable, err)
	if err != nil {
		return o, err
	}
	var against error
	if calm && o.standing > Agrees {
		against = errors.New(o.reason(st.head.Seq))
	}
	c.note(ctx, p, Contradicts, against)
	return o, nil
}

func (c *Custody) lonely(ctx context.Context) (bool, error) {
	if c.o.Store.Dialect() == "sqlite" {
		return false, nil
	}
	seen, err := c.o.Store.BrainSeen(ctx)
	return c.o.Now().Sub(seen.Time) > lonely, err
}

// measure finds out whether a failover lost what the local anchor misses, and no more than it may.
func (c *Custody) measure(s *Situation, local *opinion, st *chainState, present store.Place) {
	cp := &local.newest
	s.Higher = present.Timeline > cp.Timeline && cp.Timeline > 0
	switch local.standing {
	case Behind:
		s.Within = c.o.Grace.Allows(cp.Size-st.head.Seq, time.Duration(cp.Time-st.head.TS)*time.Microsecond)
	case Against:
		if local.agreed.Size > 0 {
			s.Within = c.o.Grace.Allows(cp.Size-local.agreed.Size, time.Duration(cp.Time-local.agreed.Time)*time.Microsecond)
		}
	case None, Agrees, Unnamed:
	}
}

func (c *Custody) act(ctx context.Context, d Decision, f *finding) error {
	s := c.o.Store
	switch d.Act {
	case GoOn:
		return c.settle(ctx, f.present, f.known)
	case Moved:
		p, err := c.newPlace(ctx)
		if err != nil {
			return err
		}
		c.o.Log.WarnContext(ctx, "the database lives at another place", "location", p.Location)
		return unlessKeyless(s.PutPlace(ctx, p))
	case BeginAnchor:
		return c.begin(ctx, d.Await, f)
	case NewGeneration:
		doubt := f.doubt()
		_, err := s.StartGeneration(ctx, store.NewGeneration{
			Cause: "failover", Reason: doubt.Reason, Fork: max(doubt.Fork, f.chain.started()), AnchorSize: doubt.AnchorSize, AnchorRoot: doubt.AnchorRoot, Doubt: &doubt, Place: &f.present,
		})
		c.o.Log.ErrorContext(ctx, "a failover lost entries of the audit log", "anchor_size", doubt.AnchorSize, "head_seq", f.chain.head.Seq)
		return err
	default:
		return s.PutHold(ctx, f.doubt())
	}
}

// begin notes that a home has no anchor yet, once; a new installation has nothing to note.
func (c *Custody) begin(ctx context.Context, await bool, f *finding) error {
	c.mu.Lock()
	begun := c.begun || c.local == nil
	c.mu.Unlock()
	if !begun && f.chain.head.Seq > 1 {
		if err := c.noteAnchor(ctx, await, f); err != nil {
			return err // the next look does it again
		}
	}
	c.mu.Lock()
	c.begun = true
	c.mu.Unlock()
	return c.settle(ctx, f.present, f.known)
}

func (c *Custody) noteAnchor(ctx context.Context, await bool, f *finding) error {
	s := c.o.Store
	if await && f.known {
		if err := s.HoldOutgoing(ctx); err != nil {
			return err
		}
		c.o.Log.WarnContext(ctx, "commands, fires and notifications wait for `z4j-brain restore release`: the home has no anchor, no brain was seen for long, and the database may be a restored one")
	}
	err := s.Update(ctx, func(tx *store.Tx) error {
		tx.Record(audit.New(audit.Facts{Action: audit.AnchorStarted, Actor: audit.Actor{Kind: audit.System}, Details: map[string]any{
			"anchor": c.local.String(), "size": f.chain.head.Seq,
		}}))
		return nil
	})
	return unlessKeyless(err)
}

// unlessKeyless is err, unless it says that our key may not sign: then every change is refused, which is told elsewhere.
func unlessKeyless(err error) error {
	if errors.Is(err, store.ErrAuditKeyUnknown) {
		return nil
	}
	return err
}

// settle records where the database is, where that is new.
func (c *Custody) settle(ctx context.Context, present store.Place, known bool) error {
	s := c.o.Store
	if !known && s.Dialect() == "sqlite" {
		var err error
		if present, err = c.newPlace(ctx); err != nil {
			return err
		}
	}
	return unlessKeyless(s.PutPlace(ctx, present))
}

// doubt is what a hold says of f.
func (f *finding) doubt() store.Doubt {
	o := &f.local
	if o.standing == None && f.shared.standing > Agrees {
		o = &f.shared
	}
	d := store.Doubt{Cause: "rolled_back", Fork: -1}
	if o.standing > Agrees {
		d.Reason = o.reason(f.chain.head.Seq)
	}
	if o.newest.Size > 0 && o.standing != Agrees {
		d.Anchor, d.AnchorSize, d.AnchorRoot = o.anchor, o.newest.Size, o.root()
		d.LostSeq, d.LostRowHMAC, d.LostTS = o.newest.Size, o.newest.RowHMAC, o.newest.Time
	}
	switch {
	case o.standing == Unnamed:
		d.Cause = "unnamed_generation"
	case o.standing == Behind:
		d.Count, d.Fork = o.newest.Size-f.chain.head.Seq, o.agreed.Size
	case o.agreed.Size > 0:
		d.Fork = o.agreed.Size
	}
	if d.Fork >= 0 {
		d.Fork = f.chain.fork(d.Fork, d.LostSeq)
	}
	if f.where != Same {
		text := "the database is another one than this home knows"
		if f.where == Missing {
			text = "this home does not know the database: " + instanceFile + " is missing"
		}
		d.Cause = "restored"
		if d.Reason != "" {
			text += "; " + d.Reason
		}
		d.Reason = text
	}
	return d
}
