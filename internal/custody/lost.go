package custody

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

// Gone is an entry that somebody knows and a log lacks.
type Gone struct {
	Generation string       `json:"generation"`
	Seq        int64        `json:"seq"`
	Time       store.Time   `json:"time"`
	Action     audit.Action `json:"action"`
	TargetType string       `json:"target_type,omitempty"`
	TargetID   string       `json:"target_id,omitempty"`
	Parts      int          `json:"parts,omitempty"`   // personal parts that it erased, which are here too
	Through    int64        `json:"through,omitempty"` // a prune: the last entry that it took
	Again      bool         `json:"again"`             // it is done again
	LeftOut    bool         `json:"left_out"`          // as was asked

	erased []audit.ErasedPart
	target id.ID // that was revoked
}

// Branch is a history and all that came out of it, each with the smallest size at which one left another on the way: the
// entries up to there are of the first.
type Branch map[string]int64

// beginning reads which history a line's entry begins.
func beginning(l *audit.Line) (generation, previous string, fork int64, ok bool) {
	if l.Action != audit.GenerationStarted && l.Action != audit.SystemRestored {
		return "", "", 0, false
	}
	var d struct {
		Generation string `json:"generation"`
		Previous   string `json:"previous"`
		Fork       int64  `json:"fork"`
	}
	if json.Unmarshal(l.Facts.Details, &d) != nil {
		return "", "", 0, false
	}
	return d.Generation, d.Previous, d.Fork, d.Generation != "" && d.Previous != ""
}

// Branch finds what came out of a history.
func (k *Known) Branch(generation string) Branch {
	b := Branch{generation: math.MaxInt64}
	for grown := true; grown; {
		grown = false
		for i := range k.Lines {
			g, previous, fork, ok := beginning(&k.Lines[i])
			if !ok {
				continue
			}
			of, known := b[previous]
			if _, there := b[g]; known && !there {
				b[g], grown = min(of, fork), true
			}
		}
	}
	return b
}

// Tell counts the anchors that can tell what came behind entry size of a history: all that they hold was read, and they
// know that history at least so far, or one that went on from an entry behind. One that only knows what began at that very
// entry, as the home of a restored database does, knows nothing of what was lost.
func (k *Known) Tell(generation string, size int64) int {
	n, _ := k.tell(k.Branch(generation), size, func(w *audit.Witness) (bool, error) { return w.Generation == generation && w.Size >= size, nil })
	return n
}

func (k *Known) tell(b Branch, size int64, knows func(*audit.Witness) (bool, error)) (int, error) {
	tells := map[string]bool{}
	for i := range k.Newest {
		w := &k.Newest[i]
		if !k.whole[w.Where] {
			continue
		}
		yes, err := knows(w)
		if err != nil {
			return 0, err
		}
		left, ok := b[w.Generation]
		if yes || ok && left != math.MaxInt64 && left > size {
			tells[w.Where] = true
		}
	}
	return len(tells), nil
}

// GoneBehind lists what was made behind entry size of a history and in those that came out of it. What was made in the
// histories without is left out.
func (k *Known) GoneBehind(generation string, size int64, without []string) []Gone {
	out := []Gone{}
	b := k.Branch(generation)
	for i := range k.Lines {
		l := &k.Lines[i]
		left, ok := b[l.Generation]
		if common := min(left, size); ok && l.Seq > common {
			out = append(out, goneBy(l, without, func(p audit.ErasedPart) bool { return p.Seq <= common }))
		}
	}
	return out
}

// goneBy tells of the entry of l, which took those of the parts that here accepts.
func goneBy(l *audit.Line, without []string, here func(audit.ErasedPart) bool) Gone {
	g := Gone{Generation: l.Generation, Seq: l.Seq, Time: store.TimeAt(l.Time), Action: l.Action, TargetType: l.Facts.TargetType, TargetID: l.Facts.TargetID}
	g.LeftOut = slices.Contains(without, l.Generation)
	for _, p := range l.Facts.Erased {
		if here(p) {
			g.erased = append(g.erased, p)
		}
	}
	if l.Action == audit.Pruned {
		var d struct {
			Through int64 `json:"through"`
		}
		if json.Unmarshal(l.Facts.Details, &d) == nil {
			g.Through = d.Through
		}
	}
	g.Parts = len(g.erased)
	again := g.Parts > 0
	if l.Action == audit.AgentRevoked || l.Action == audit.APIKeyRevoked {
		var err error
		g.target, err = id.Parse(l.Facts.TargetID)
		again = err == nil // no agent and no key has another name
	}
	g.Again = again && !g.LeftOut
	return g
}

// RevivalOf is what has to be done again of what is gone.
func RevivalOf(gone []Gone) (r store.Revival) {
	for i := range gone {
		switch g := &gone[i]; {
		case !g.Again:
		case g.Action == audit.AgentRevoked:
			r.Agents = append(r.Agents, g.target)
		case g.Action == audit.APIKeyRevoked:
			r.Keys = append(r.Keys, g.target)
		default:
			r.Erasures = append(r.Erasures, store.Erasure{
				Reason: fmt.Sprintf("erased by entry %d of generation %s, which this log lacks", g.Seq, g.Generation), Parts: g.erased,
			})
		}
	}
	return r
}

// PruneAgain is the last entry to which a log is to be pruned once more, since a prune is gone that had taken so far; 0: none.
// common is the last entry that is of both histories, and through how far the log is pruned.
func PruneAgain(gone []Gone, common, through int64) int64 {
	last := int64(0)
	for i := range gone {
		if !gone[i].LeftOut {
			last = max(last, min(gone[i].Through, common))
		}
	}
	if last <= through {
		return 0
	}
	return last
}

// lost asks the anchors what the log in hold lost, and whether they can tell.
func (c *Custody) lost(ctx context.Context, st *chainState, held *store.Hold, abandoned, without []string) (r store.Revival, gone []Gone, err error) {
	k, err := c.Known(ctx, st.instance)
	if err != nil {
		return r, nil, err
	}
	branch := k.Branch(st.current())
	unrelated := func(generation string) bool { // a history of which the log knows nothing, since it was wiped
		_, ok := branch[generation]
		return !ok && slices.Contains(abandoned, generation)
	}
	for i := range k.Lines {
		l := &k.Lines[i]
		if _, ok := branch[l.Generation]; !ok && !unrelated(l.Generation) {
			continue
		}
		there, err := c.has(ctx, st, l)
		if err != nil {
			return r, nil, err
		}
		if there {
			continue
		}
		var failed error
		gone = append(gone, goneBy(l, without, func(p audit.ErasedPart) bool {
			here, err := c.precedes(ctx, p.Seq, l.Time)
			failed = errors.Join(failed, err)
			return here
		}))
		if failed != nil {
			return r, nil, failed
		}
	}
	r = RevivalOf(gone)
	size := st.head.Seq
	if held.Entry > 0 {
		size = held.Entry - 1
	}
	n, err := k.tell(branch, size, func(w *audit.Witness) (bool, error) {
		if w.Generation != st.current() {
			return unrelated(w.Generation), nil
		}
		standing, err := c.stands(ctx, &w.Checkpoint, st)
		return standing > Agrees || w.Size >= size, err
	})
	r.SuspendKeys = n == 0
	return r, gone, err
}

// has reports whether the log holds the entry of a line. Of other histories than the present one it holds none that
// it would name.
func (c *Custody) has(ctx context.Context, st *chainState, l *audit.Line) (bool, error) {
	if l.Generation != st.current() {
		return false, nil
	}
	if l.Seq <= st.boundary.Through {
		return true, nil // exported and deleted
	}
	row, err := c.o.Store.AuditLeaf(ctx, l.Seq)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return row.RowHMAC == l.RowHMAC, err
}

// precedes reports whether entry seq was made before a moment. What was made in the place of a lost entry was made later
// than anything that was lost.
func (c *Custody) precedes(ctx context.Context, seq, before int64) (bool, error) {
	row, err := c.o.Store.AuditLeaf(ctx, seq)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return row.TS <= before, err
}

// gap is the time of which events may be missing in a log that was set back to a size: it begins with the newest entry
// that is common.
func (c *Custody) gap(ctx context.Context, fork int64, held *store.Hold) (store.DataGap, error) {
	row, err := c.o.Store.AuditLeaf(ctx, fork)
	switch {
	case err == nil:
		return store.DataGap{From: store.TimeAt(row.TS)}, nil
	case !errors.Is(err, store.ErrNotFound):
		return store.DataGap{}, err
	case held.LostTS != nil:
		return store.DataGap{From: *held.LostTS}, nil
	}
	return store.DataGap{From: held.Since}, nil
}
