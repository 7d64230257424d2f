package audit

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
)

// Witness is a checkpoint that a walk compares the log with: of an anchor, or one that somebody brings. Whoever gives it
// has checked its signature.
type Witness struct {
	Checkpoint

	Line    Action // it is no checkpoint, but the line of an entry, which Size numbers, of this action: there is no root
	Where   string // the anchor or the file that it comes from
	Outside bool   // which lies beyond the brain's machine
	Shared  bool   // and takes what other brains write: a generation that the log does not name is told, and is no fault
}

// Standing says how the log and a checkpoint go together.
type Standing string

// The standings.
const (
	Agrees       Standing = "agrees"
	Disagrees    Standing = "against"
	Behind       Standing = "behind"          // the log ends before it
	LostWithFork Standing = "lost"            // it is of a history that ended before it: what it speaks of was given up, on record
	Unnamed      Standing = "not of this log" // of a generation that the log does not name
	NotReached   Standing = "before"          // its row stands before the beginning of the walk, or is missing
)

// Compared is a checkpoint and how the log stands to it.
type Compared struct {
	Where      string   `json:"where"`
	Outside    bool     `json:"outside"`
	Generation string   `json:"generation"`
	Size       int64    `json:"size"`
	Time       string   `json:"time"`
	KID        string   `json:"kid"`
	Standing   Standing `json:"standing"`
	Root       bool     `json:"root_recomputed"` // from every row; otherwise the last row alone was compared, which names all before
}

type witness struct {
	Witness

	standing Standing
	root     bool // was compared, too
	why      string
}

// generation is a history, as an entry or a boundary says.
type generation struct {
	id       string
	previous string
	fork     int64 // the size up to which it and the one before agree
}

// Witness tells the walk what to compare the log with. It comes before the beginning of the walk is set.
func (v *Verifier) Witness(list ...Witness) {
	for _, w := range list {
		v.witnesses = append(v.witnesses, witness{Witness: w, standing: NotReached})
	}
	slices.SortStableFunc(v.witnesses, func(a, b witness) int { return cmp.Compare(a.Size, b.Size) })
	if len(v.witnesses) > 0 && v.tree == nil {
		v.tree = &Tree{}
	}
}

// Restored says that the log is a copy: checkpoints beyond its end are told, and are no fault.
func (v *Verifier) Restored() { v.copied = true }

// RequireAnchor says that a log is not proved without a checkpoint from beyond the brain's machine that agrees.
func (v *Verifier) RequireAnchor() { v.anchored = true }

// BeginAfter lets the walk start behind a checkpoint that agrees; Seed tells of keys and generations. peaks are those of
// the tree of its rows, nil if they are not known.
func (v *Verifier) BeginAfter(c Checkpoint, peaks []byte) {
	v.BeginAt(c.Size + 1)
	v.prev, v.linked, v.report.Since = c.RowHMAC, true, c.Size
	v.report.To, v.report.Head = c.Size, c.RowHMAC
	v.tree = nil
	if tree, err := TreeFromPeaks(c.Size, peaks); err == nil && tree.Root() == c.Root && len(v.witnesses) > 0 {
		v.tree = tree
	}
}

// Recall compares the checkpoints from before the beginning of the walk with the row of their size, whose HMAC row looks up:
// "" if there is none.
func (v *Verifier) Recall(row func(seq int64) (rowHMAC string, err error)) error {
	for i := range v.witnesses {
		w := &v.witnesses[i]
		if w.Size >= v.next {
			break
		}
		rowHMAC, err := row(w.Size)
		if err != nil {
			return err
		}
		if rowHMAC != "" {
			v.compare(w, rowHMAC)
		}
	}
	return nil
}

// grow adds a row to the tree, as long as there is none missing.
func (v *Verifier) grow(r *Checked) {
	if v.tree == nil {
		return
	}
	if v.tree.Size()+1 != r.Seq || r.leaf == nil {
		v.tree = nil
		return
	}
	v.tree.append(r.leaf, nil)
}

// compare holds a checkpoint against the row of its size.
func (v *Verifier) compare(w *witness, rowHMAC string) {
	w.standing = Agrees
	if w.RowHMAC != rowHMAC {
		w.standing, w.why = Disagrees, "its row is another one"
		return
	}
	if v.tree == nil || v.tree.Size() != w.Size || w.Line != "" {
		return
	}
	w.root = true
	if v.tree.Root() != w.Root {
		w.standing, w.why = Disagrees, "the rows before it are not those that it was signed over"
	}
}

// generation takes what an entry says about histories.
func (v *Verifier) generation(b *Body) {
	switch Action(b.Action) {
	case SystemInstalled:
		if b.Seq != 1 {
			return
		}
	case GenerationStarted:
	default:
		return
	}
	var d GenerationTime
	if json.Unmarshal([]byte(b.Details.S), &d) == nil && d.Generation != "" {
		v.history(&d)
	}
}

func (v *Verifier) history(g *GenerationTime) {
	v.generations = append(v.generations, generation{g.Generation, g.Previous, g.Fork})
	for _, lost := range g.Abandoned {
		v.generations = append(v.generations, generation{id: lost}, generation{id: g.Generation, previous: lost})
	}
}

// end returns the size at which a generation ended, and whether the log names it. The one that goes on has no end. None
// counts further than one that came out of it: a later fork that lies before an earlier one says that that was too high.
func (v *Verifier) end(id string) (size int64, ended, named bool) {
	of := id
	for _, g := range v.generations {
		named = named || g.id == id
		if g.previous != of {
			continue
		}
		if !ended || g.fork < size {
			size = g.fork
		}
		of, ended = g.id, true
	}
	return size, ended, named
}

// finishWitnesses says of every checkpoint how the log stands to it.
func (v *Verifier) finishWitnesses() {
	for i := range v.witnesses {
		w := &v.witnesses[i]
		v.stand(w)
		if w.Line != "" {
			continue // what it speaks against is a fault; it covers nothing
		}
		if len(v.report.Checkpoints) < maxRanges || w.standing != Agrees {
			v.report.Checkpoints = append(v.report.Checkpoints, Compared{
				w.Where, w.Outside, w.Generation, w.Size, formatTime(w.Time), w.KID, w.standing, w.root,
			})
		}
	}
}

// requireAnchor says that no checkpoint from elsewhere agrees, if one is required.
func (v *Verifier) requireAnchor() {
	if _, outside := v.report.Covered(); v.anchored && outside == nil {
		v.unprovable(0, "", "no checkpoint of an anchor beyond this machine agrees, and --require-anchor wants one")
	}
}

func (v *Verifier) stand(w *witness) {
	fork, ended, named := v.end(w.Generation)
	what := fmt.Sprintf("the checkpoint of %d rows of %s from %s", w.Size, formatTime(w.Time), w.Where)
	if w.Line != "" {
		what = fmt.Sprintf("the line of entry %d (%s) of %s from %s", w.Size, w.Line, formatTime(w.Time), w.Where)
	}
	switch {
	case !named && len(v.generations) > 0:
		w.standing = Unnamed
		if !w.Shared {
			v.fault(min(w.Size, v.next), Against, what+" is of generation "+w.Generation+", which this log does not name")
		}
	case ended && w.Size > fork:
		w.standing = LostWithFork
	case w.standing == Disagrees:
		v.fault(w.Size, Against, "against "+what+": "+w.why)
	case w.standing == NotReached && w.Size >= v.next:
		w.standing = Behind
		v.report.Behind = max(v.report.Behind, w.Size-v.next+1)
		if !v.copied {
			v.fault(v.next, CutTail, fmt.Sprintf("%d entries behind %s; after a restore use --restored or acknowledge", w.Size-v.next+1, what))
		}
	}
}

// Covered returns the largest checkpoint that the log agrees with, and the largest of those beyond the brain's machine;
// nil for none.
func (r *Report) Covered() (newest, outside *Compared) {
	for i := range r.Checkpoints {
		c := &r.Checkpoints[i]
		if c.Standing != Agrees {
			continue
		}
		if newest == nil || c.Size >= newest.Size {
			newest = c
		}
		if c.Outside && (outside == nil || c.Size >= outside.Size) {
			outside = c
		}
	}
	return newest, outside
}
