package custody

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"syscall"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
)

// anchors are all that there are.
func (c *Custody) anchors(ctx context.Context) []*post {
	out := c.sharedAnchors(ctx)
	if c.local != nil {
		out = append([]*post{c.local}, out...)
	}
	return out
}

// Witnesses returns, of every readable anchor, the newest checkpoint of each history of this installation, the newest up to
// the end of one that ended, and the newest up to the end of the log, with which an older copy can be compared; and the lines
// of entries behind the largest that agrees. Anchors that can't be read are Troubles.
func (c *Custody) Witnesses(ctx context.Context) ([]audit.Witness, error) {
	st, err := c.chain(ctx)
	if err != nil {
		return nil, err
	}
	var out []audit.Witness
	for _, found := range gather(c.anchors(ctx), func(p *post) []audit.Witness { return c.witness(ctx, p, &st) }) {
		out = append(out, found...)
	}
	slices.SortStableFunc(out, func(a, b audit.Witness) int { return cmp.Compare(a.Size, b.Size) })
	return out, nil
}

// witness are the Witnesses of one anchor.
func (c *Custody) witness(ctx context.Context, p *post, st *chainState) (out []audit.Witness) {
	limit, cancel := context.WithTimeout(ctx, longReach)
	defer cancel()
	found, err := p.histories(limit, st.instance)
	outside := err == nil && c.outside(limit, p)
	for _, h := range found {
		for _, most := range []int64{math.MaxInt64, st.end(h.generation), st.head.Seq} {
			notes, bad := p.checkpoints(limit, h, most, c.ours(h))
			err = cmp.Or(err, bad)
			for cp := range c.own(notes, h.instance, h.generation) {
				w := audit.Witness{Checkpoint: cp, Where: p.String(), Outside: outside, Shared: p != c.local}
				if !slices.Contains(out, w) {
					out = append(out, w)
				}
				break
			}
		}
		if errors.Is(err, context.DeadlineExceeded) {
			c.note(ctx, p, Unreadable, err)
			return out // the rest would not be answered, either
		}
	}
	lines, bad := c.linesBehind(limit, p, st, c.agreed(limit, out, st))
	err = cmp.Or(err, bad)
	for i := range lines {
		out = append(out, audit.Witness{Checkpoint: lineAsCheckpoint(&lines[i]), Line: lines[i].Action, Where: p.String(), Outside: outside, Shared: p != c.local})
	}
	c.note(ctx, p, Unreadable, err)
	return out
}

// agreed is the size of the largest checkpoint that agrees and counts; 0: there is none.
func (c *Custody) agreed(ctx context.Context, list []audit.Witness, st *chainState) (size int64) {
	for i := range list {
		cp := &list[i].Checkpoint
		if cp.Size <= size || !st.names(history{cp.Instance, cp.Generation}) || cp.Size > st.end(cp.Generation) {
			continue
		}
		if standing, err := c.stands(ctx, cp, st); err == nil && standing == Agrees {
			size = cp.Size
		}
	}
	return size
}

// outside reports whether an anchor lies beyond this machine, as far as that can be told: a bucket does, and a directory
// that is mounted from elsewhere than the home.
func (c *Custody) outside(ctx context.Context, p *post) bool {
	f, file := p.anchor.(*patient)
	if !file {
		return true
	}
	same, known := f.onVolume(ctx, c.o.Home)
	return p != c.local && known && !same
}

// sameVolume reports whether two paths lie on one volume, and whether that is known.
func sameVolume(a, b string) (same, known bool) {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	if err1 != nil || err2 != nil {
		return false, false
	}
	i, ok1 := x.Sys().(*syscall.Stat_t)
	j, ok2 := y.Sys().(*syscall.Stat_t)
	if !ok1 || !ok2 {
		return false, false
	}
	return i.Dev == j.Dev, true
}

// Local tells of the anchor in the home, for those who ask what it is worth.
type Local struct {
	Path     string `json:"path"`               // "": there is no home
	Missing  bool   `json:"missing"`            // it was not begun, or somebody took it away
	OnVolume bool   `json:"on_database_volume"` // of the database: a snapshot that is put back sets back both
}

// Local looks at the anchor in the home. database is the file that the database is, "" if it is none.
func (c *Custody) Local(database string) Local {
	if c.local == nil {
		return Local{}
	}
	l := Local{Path: c.local.String()}
	if _, err := os.Stat(l.Path); errors.Is(err, fs.ErrNotExist) {
		l.Missing = true
	}
	if database != "" {
		l.OnVolume, _ = sameVolume(l.Path, database)
	}
	return l
}

// end is the size up to which a history counts.
func (s *chainState) end(generation string) int64 {
	if size, ended := store.End(s.generations, generation); ended {
		return size
	}
	return math.MaxInt64
}

// started is the number of the entry that began the present history.
func (s *chainState) started() int64 {
	if n := len(s.generations); n > 0 {
		return s.generations[n-1].Started
	}
	return 0
}

// fork is where a history comes out of the present one, as far as somebody knows: behind the entry that began that one,
// which is there. Unless what is lost is older: then a history before it was said to go further than it does.
func (s *chainState) fork(known, lost int64) int64 {
	if lost > 0 && lost < s.started() {
		return min(known, lost-1)
	}
	return max(known, s.started())
}

// Checkpoints are those of Witnesses.
func (c *Custody) Checkpoints(ctx context.Context) ([]audit.Checkpoint, error) {
	list, err := c.Witnesses(ctx)
	out := []audit.Checkpoint{}
	for i := range list {
		if list[i].Line == "" {
			out = append(out, list[i].Checkpoint)
		}
	}
	return out, err
}

// Lines returns what all readable anchors know of one installation's entries, by history and number, each once.
func (c *Custody) Lines(ctx context.Context, instance string) ([]audit.Line, error) {
	k, err := c.Known(ctx, instance)
	return k.Lines, err
}

// Acknowledgement says who ends a hold, and how.
type Acknowledgement struct {
	By       audit.Actor
	Reason   string
	NoDefuse bool     // what the older state brings back to life lives
	Without  []string // histories whose revocations and erasures are left out, such as a drill's
}

// Acknowledged says what Acknowledge did.
type Acknowledged struct {
	Generation string `json:"generation"`
	Previous   string `json:"previous"`
	Fork       int64  `json:"fork"`
	Defused    bool   `json:"defused"`

	Gone      []Gone          `json:"gone"` // what the anchors know and the log lacks
	Revoked   int             `json:"revoked_again"`
	Erased    int             `json:"erased_again"`
	Suspended bool            `json:"api_keys_suspended"`
	LookAt    *store.Admitted `json:"look_at"`                 // who gets in; null: an anchor tells who was revoked
	Prune     int64           `json:"prune_through,omitempty"` // the last entry of a prune to run again; 0: none
	Gap       *store.DataGap  `json:"data_gap"`                // open until the release
}

// ErrNoHold says that nothing is in doubt.
var ErrNoHold = errors.New("the history is not in doubt")

// Acknowledge ends a hold: the database as it is holds from now on, in a new history, at the place where it is. What an
// older state would bring back to life is made void, and what the anchors know that was revoked or erased since is revoked
// and erased again, unless that is declined.
func (c *Custody) Acknowledge(ctx context.Context, a Acknowledgement) (out Acknowledged, err error) {
	s := c.o.Store
	held, err := s.Hold(ctx)
	if err != nil {
		return out, err
	}
	if held == nil {
		return out, fmt.Errorf("acknowledge: %w", ErrNoHold)
	}
	st, err := c.chain(ctx)
	if err != nil {
		return out, err
	}
	local, _ := c.askLocal(ctx, &st)
	fork := forkOf(&st, held, &local)
	abandoned, err := c.abandoned(ctx, &st)
	if err != nil {
		return out, err
	}
	n := store.NewGeneration{Cause: "acknowledged", Reason: a.Reason, Actor: a.By, Fork: fork, Abandoned: abandoned}
	if local.newest.Size > 0 {
		n.AnchorSize, n.AnchorRoot = local.newest.Size, local.root()
	}
	out = Acknowledged{Previous: st.current(), Fork: fork, Defused: !a.NoDefuse, Gone: []Gone{}}
	if !a.NoDefuse {
		r, gone, err := c.lost(ctx, &st, held, abandoned, a.Without)
		if err == nil {
			r.Gap, err = c.gap(ctx, max(out.Fork, st.started()), held)
		}
		if err != nil {
			return out, fmt.Errorf("find out what was lost: %w", err)
		}
		n.Defuse, out.Gap, out.Suspended = &r, &r.Gap, r.SuspendKeys
		out.Gone, out.Revoked, out.Erased = append(out.Gone, gone...), len(r.Agents)+len(r.Keys), len(r.Erasures)
	}
	place, err := c.newPlace(ctx)
	if err != nil {
		return out, err
	}
	n.Place = &place
	if out.Generation, err = s.StartGeneration(ctx, n); err != nil || a.NoDefuse {
		return out, err
	}
	pruned, err := s.NewestPruned(ctx)
	if err == nil && out.Suspended {
		out.LookAt = new(store.Admitted)
		*out.LookAt, err = s.Admitted(ctx, Looked)
	}
	if err != nil {
		return out, fmt.Errorf("it is acknowledged, and who gets in and what was pruned can't be listed: %w", err)
	}
	if out.Prune = PruneAgain(out.Gone, out.Fork, pruned.Through); out.Prune == 0 && pruned.Unfinished() {
		out.Prune = pruned.Through
	}
	return out, nil
}

// forkOf is where the history that ends a hold comes out of the present one: no later than what was found when the hold
// began, and than what the local anchor says now.
func forkOf(st *chainState, held *store.Hold, local *opinion) int64 {
	known, lost := local.agreed.Size, held.LostSeq
	if held.Fork != nil {
		known = *held.Fork
	}
	switch local.standing {
	case Unnamed:
		lost = 0 // its number is none of this history
	case Behind, Against:
		known = min(known, local.common)
		if lost == 0 || local.newest.Size < st.started() {
			lost = local.newest.Size
		}
	case None, Agrees:
	}
	fork := min(st.fork(known, lost), st.head.Seq)
	if held.Entry > 0 {
		fork = min(fork, held.Entry-1)
	}
	return fork
}

// Looked is how many users and agents are listed to be looked at, at most.
const Looked = 500

// Prove returns the proof that entry seq is in the log, for the newest checkpoint. One that none covers yet gets one.
func (c *Custody) Prove(ctx context.Context, seq int64) (audit.Proof, error) {
	st, err := c.chain(ctx)
	if err != nil {
		return audit.Proof{}, err
	}
	if seq < 1 || seq > st.head.Seq {
		return audit.Proof{}, fmt.Errorf("prove entry %d: the audit log has entries 1 to %d: %w", seq, st.head.Seq, store.ErrNotFound)
	}
	cp, err := c.newest(ctx, &st)
	if err == nil && cp.Size < seq {
		if err = c.Checkpoint(ctx); err == nil {
			cp, err = c.newest(ctx, &st)
		}
	}
	if err != nil {
		return audit.Proof{}, err
	}
	if cp.Size < seq {
		return audit.Proof{}, fmt.Errorf("prove entry %d: no checkpoint covers it, and none can be signed now: %w", seq, c.o.Store.AuditErr())
	}
	notes, err := c.o.Store.CheckpointNotes(ctx, cp.Generation, cp.Size-1, 1)
	if err != nil {
		return audit.Proof{}, err
	}
	return c.prove(ctx, seq, &cp, notes[0], &st)
}

func (c *Custody) prove(ctx context.Context, seq int64, cp *audit.Checkpoint, note string, st *chainState) (audit.Proof, error) {
	base, err := c.base(st)
	if err != nil {
		return audit.Proof{}, err
	}
	p, err := audit.NewProver(seq, cp.Size, base.Size(), base.Peaks())
	if err != nil {
		return audit.Proof{}, err
	}
	for at, more := base.Size(), true; more; {
		rows, err := c.o.Store.AuditLeaves(ctx, at, cp.Size, leafPage)
		if err != nil {
			return audit.Proof{}, err
		}
		if len(rows) == 0 {
			return audit.Proof{}, fmt.Errorf("prove entry %d: rows behind %d are gone", seq, at)
		}
		for i := range rows {
			for ; at < rows[i].Seq-1; at++ {
				p.Row(&audit.Row{}) // as extend fills it
			}
			more = p.Row(&rows[i])
			at = rows[i].Seq
		}
	}
	return p.Finish(note, cp.Root)
}
