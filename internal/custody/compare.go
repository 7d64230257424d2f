package custody

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"slices"
	"strconv"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
)

// opinion is what an anchor says of the database.
type opinion struct {
	anchor   string
	standing Standing
	newest   audit.Checkpoint // that decided; zero for none
	agreed   audit.Checkpoint // the largest that agrees; zero: none does
	common   int64            // where it contradicts: both have no more than that in common
	line     audit.Action     // it is the line of an entry that decided, which newest names; "": a checkpoint
}

// chainState is what the database says of itself.
type chainState struct {
	instance    string
	generations []store.Generation
	head        audit.Row
	boundary    audit.Boundary
}

func (s *chainState) current() string {
	if n := len(s.generations); n > 0 {
		return s.generations[n-1].ID
	}
	return ""
}

func (c *Custody) chain(ctx context.Context) (st chainState, err error) {
	s := c.o.Store
	if st.instance, err = s.Instance(ctx); err != nil {
		return st, err
	}
	if st.generations, err = s.Generations(ctx); err != nil {
		return st, err
	}
	if st.head, err = s.AuditHead(ctx); err != nil {
		return st, err
	}
	st.boundary, err = s.PruneBoundary(ctx)
	return st, err
}

// ask compares an anchor with the database. A local anchor may know no history that the chain does not name.
func (c *Custody) ask(ctx context.Context, a *post, st *chainState, local bool) (opinion, error) {
	out := opinion{anchor: a.String()}
	for _, g := range st.generations {
		most := st.end(g.ID)
		notes, err := a.checkpoints(ctx, history{st.instance, g.ID}, most, c.ours(history{st.instance, g.ID}))
		if err != nil {
			return out, err
		}
		if err := c.weigh(ctx, notes, most, st, g.ID, &out); err != nil {
			return out, err
		}
		if out.standing > Agrees {
			break // what came out of it is no better
		}
	}
	bad := c.weighLines(ctx, a, st, &out)
	if bad != nil && out.standing <= Agrees {
		return out, bad
	}
	strange, err := c.strangers(ctx, a, st, local)
	if err != nil {
		return out, err
	}
	if len(strange) > 0 {
		if local {
			out.standing, out.newest, out.line = Unnamed, strange[0], ""
			return out, nil
		}
		c.note(ctx, a, Foreign, fmt.Errorf("it holds checkpoints of the history %s of this installation, signed with its key, which the audit log does not name: somebody runs a copy of this database with these settings", strange[0].Generation))
	} else if !local {
		c.note(ctx, a, Foreign, nil)
	}
	return out, nil
}

// ours tells whether a note is a checkpoint of h that one of our keys signed.
func (c *Custody) ours(h history) func(note string) bool {
	keys := c.publicKeys()
	return func(note string) bool {
		cp, err := audit.OpenCheckpoint(note, keys...)
		return err == nil && cp.Instance == h.instance && cp.Generation == h.generation
	}
}

// own gives the checkpoints that one of our keys signed, the largest first; notes of another history count for nothing.
func (c *Custody) own(notes []string, instance, generation string) iter.Seq[audit.Checkpoint] {
	keys := c.publicKeys()
	slices.SortFunc(notes, func(a, b string) int { return cmp.Compare(sizeOf(b), sizeOf(a)) })
	return func(yield func(audit.Checkpoint) bool) {
		for _, n := range notes[:min(len(notes), mostWeighed)] {
			cp, err := audit.OpenCheckpoint(n, keys...)
			if err == nil && cp.Instance == instance && cp.Generation == generation && !yield(cp) {
				return
			}
		}
	}
}

// mostWeighed is how many notes of a history are opened to find the newest that agrees: those of two hours.
const mostWeighed = 120

// weigh compares the newest checkpoint of a history with the database. When it does not agree, older ones tell since when.
func (c *Custody) weigh(ctx context.Context, notes []string, most int64, st *chainState, generation string, out *opinion) error {
	newest := true
	for cp := range c.own(notes, st.instance, generation) {
		if cp.Size > most {
			continue
		}
		standing, err := c.stands(ctx, &cp, st)
		if err != nil {
			return err
		}
		if newest && (standing > out.standing || standing == Agrees && cp.Size > out.newest.Size) {
			out.standing, out.newest = max(standing, out.standing), cp
		}
		newest = false
		if standing == Agrees {
			if cp.Size > out.agreed.Size {
				out.agreed = cp
			}
			return nil
		}
		out.common = cp.Size - 1
	}
	if !newest {
		out.common = out.agreed.Size // those before these were not looked at
	}
	return nil
}

// weighLines compares the lines of entries behind the newest checkpoint that agrees, which speaks for those before. They can
// only speak against the database.
func (c *Custody) weighLines(ctx context.Context, a anchor, st *chainState, out *opinion) error {
	lines, err := c.linesBehind(ctx, a, st, out.agreed.Size)
	for i := range lines {
		cp := lineAsCheckpoint(&lines[i])
		standing, bad := c.stands(ctx, &cp, st)
		if bad != nil {
			return bad
		}
		if standing <= Agrees {
			continue
		}
		if common := cp.Size - 1; out.standing <= Agrees || common < out.common {
			out.common = common
		}
		if standing > out.standing || standing == out.standing && cp.Size > out.newest.Size {
			if cp.Timeline = out.newest.Timeline; cp.Timeline == 0 {
				cp.Timeline = out.agreed.Timeline // a line knows of none
			}
			out.standing, out.newest, out.line = standing, cp, lines[i].Action
		}
	}
	return err
}

// linesBehind returns the lines of ours that an anchor has of the log's own histories, of entries behind a number and not
// behind the end of a history; with an error, those that could be read.
func (c *Custody) linesBehind(ctx context.Context, a anchor, st *chainState, after int64) (out []audit.Line, err error) {
	keys := c.publicKeys()
	for _, g := range st.generations {
		end := st.end(g.ID)
		if end <= after {
			continue
		}
		notes, bad := a.lines(ctx, history{st.instance, g.ID}, after)
		err = cmp.Or(err, bad)
		for _, n := range notes {
			l, bad := audit.OpenLine(n, keys...)
			if bad == nil && l.Instance == st.instance && l.Generation == g.ID && l.Seq > after && l.Seq <= end && l.Facts.Part == 0 {
				out = append(out, l)
			}
		}
	}
	return out, err
}

// lineAsCheckpoint is what a line says of the log: which row its entry is. It knows no root.
func lineAsCheckpoint(l *audit.Line) audit.Checkpoint {
	return audit.Checkpoint{Instance: l.Instance, Generation: l.Generation, Size: l.Seq, RowHMAC: l.RowHMAC, Time: l.Time, KID: l.KID}
}

// root is that of the checkpoint that decided, in hexadecimal; "" if a line did.
func (o *opinion) root() string {
	if o.line != "" {
		return ""
	}
	return hex.EncodeToString(o.newest.Root[:])
}

// stands looks up the last row of a checkpoint: the chain binds those before it.
func (c *Custody) stands(ctx context.Context, cp *audit.Checkpoint, st *chainState) (Standing, error) {
	row, err := c.o.Store.AuditLeaf(ctx, cp.Size)
	switch {
	case err == nil && row.RowHMAC == cp.RowHMAC:
		return Agrees, nil
	case err == nil:
		return Against, nil
	case !errors.Is(err, store.ErrNotFound):
		return None, err
	case cp.Size == st.boundary.Through && st.boundary.RowHMAC != cp.RowHMAC:
		return Against, nil
	case cp.Size <= st.boundary.Through:
		return Agrees, nil // exported and deleted
	case cp.Size > st.head.Seq:
		return Behind, nil
	}
	return Against, nil // a row inside is missing
}

// names reports whether the chain names a history: as one of its own, or one of a log that was lost.
func (s *chainState) names(h history) bool {
	return slices.ContainsFunc(s.generations, func(g store.Generation) bool {
		return g.ID == h.generation && h.instance == s.instance || slices.Contains(g.Abandoned, h.generation)
	})
}

// Abandoned lists the histories of the local anchor that the chain does not name: a new one has to, or they speak against
// the database for ever.
func (c *Custody) Abandoned(ctx context.Context) ([]string, error) {
	st, err := c.chain(ctx)
	if err != nil {
		return nil, err
	}
	return c.abandoned(ctx, &st)
}

// abandoned lists the histories of the local anchor that the chain does not name.
func (c *Custody) abandoned(ctx context.Context, st *chainState) (out []string, err error) {
	if c.local == nil {
		return nil, nil
	}
	found, err := c.strangers(ctx, c.local, st, true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // there is no local anchor yet
	}
	for _, cp := range found {
		out = append(out, cp.Generation)
	}
	return out, err
}

// strangers returns the newest checkpoint of ours of each history that the chain does not name, the newest first.
func (c *Custody) strangers(ctx context.Context, a anchor, st *chainState, local bool) (out []audit.Checkpoint, err error) {
	found, err := a.histories(ctx, st.instance)
	if err != nil {
		return nil, err
	}
	for _, h := range found {
		if st.names(h) || !local && h.instance != st.instance {
			continue
		}
		notes, err := a.checkpoints(ctx, h, math.MaxInt64, c.ours(h))
		if errors.Is(err, errStrange) {
			continue // nothing of ours is known of it
		}
		if err != nil {
			return nil, err
		}
		for cp := range c.own(notes, h.instance, h.generation) {
			out = append(out, cp)
			break
		}
	}
	slices.SortFunc(out, func(a, b audit.Checkpoint) int { return cmp.Compare(b.Time, a.Time) })
	return out, nil
}

// reason says what an anchor found, for people.
func (o *opinion) reason(head int64) string {
	cp := &o.newest
	at := store.TimeAt(cp.Time).String()
	switch o.standing {
	case Behind:
		if o.line != "" {
			return "the anchor in " + o.anchor + " knows entry " + strconv.FormatInt(cp.Size, 10) + " (" + string(o.line) + ") of " + at + ", and the database has " + strconv.FormatInt(head, 10) + " entries: it was set back"
		}
		return "the anchor in " + o.anchor + " knows " + strconv.FormatInt(cp.Size, 10) + " entries, signed at " + at + ", and the database has " + strconv.FormatInt(head, 10) + ": it was set back"
	case Against:
		return "entry " + strconv.FormatInt(cp.Size, 10) + " is another one than the anchor in " + o.anchor + " knows since " + at + ": the database was set back, or changed"
	case Unnamed:
		return "the anchor in " + o.anchor + " knows the history " + cp.Generation + ", last signed at " + at + ", of which this database knows nothing: it was set back, or is another one"
	default:
		return "the anchor in " + o.anchor + " says " + o.standing.String()
	}
}
