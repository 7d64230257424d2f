package audit

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
)

// Head is a row that somebody remembers: its number and its HMAC.
type Head struct {
	Seq     int64  `json:"seq"`
	RowHMAC string `json:"row_hmac"`
}

// life is the time of a key in the chain.
type life struct {
	introduced int64
	retired    int64 // 0: not
}

// Verifier walks the rows of a chain in order and collects what they prove. It needs the same memory for any number of
// rows. Make one with NewVerifier, give it the rows with Row, and end with Finish.
type Verifier struct {
	keys   map[string]Key
	kids   map[string]life
	heads  []Head
	erased map[int64]*erasure // tombstones met, by the entry that they name

	checker     *Checker     // of Row
	tree        *Tree        // of the rows so far; nil: no root is compared
	witnesses   []witness    // by size
	seen        int          // so many of them are behind
	generations []generation // that the chain names, in order

	// Pruned is asked when rows are missing: whether a prune took them, and all before them, while the log was read. nil:
	// none did.
	Pruned func(from, through int64) (Boundary, bool)

	// Erasure is asked when other parts were met as erased than the entry says: which are now, in order; some may have
	// been read before they were erased. nil: those that were met.
	Erasure func(entry int64) []ErasedPart

	next   int64    // number of the next row
	prev   string   // HMAC of the row before it; "" with unlinked: not known
	linked bool     // prev is known
	whole  bool     // every tombstone is met: the walk began at row 1, or the erasure came after all that a prune took was gone
	behind int64    // the walk began behind a prune that went up to here; 0: it did not
	kept   Erasures // what was met of erasures since the walk began there
	partly []string // what is to be noted of those that tell of more, unless the prune's entry proves them
	part   bool     // the rows end before the chain does
	sparse bool     // rows are left out on purpose
	anyKey bool     // nothing says when keys signed
	copied bool     // the rows are a copy, so that they may end before a checkpoint

	anchored bool // a checkpoint from beyond the machine has to agree
	report   Report
}

// NewVerifier starts a walk at row 1 with the keys that are at hand.
func NewVerifier(keys []Key) *Verifier {
	v := &Verifier{keys: map[string]Key{}, kids: map[string]life{}, erased: map[int64]*erasure{}, next: 1, linked: true, whole: true}
	for _, k := range keys {
		v.keys[k.kid] = k
	}
	v.report.Faults = map[Class]int64{}
	return v
}

// Boundary is where a chain begins whose older rows were exported and deleted: what an audit.pruned says.
type Boundary struct {
	Through     int64
	RowHMAC     string
	Kids        []KeyTime
	Peaks       string           `json:",omitempty"` // hexadecimal, of the tree of the deleted rows
	Generations []GenerationTime `json:",omitempty"`
	Erased      *KeptErasures    `json:",omitempty"` // before the entry; nil: it does not say
}

// GenerationTime says when a history began and what it followed.
type GenerationTime struct {
	Generation string `json:"generation"`
	Started    int64  `json:"started"` // seq of the entry
	Previous   string `json:"previous,omitempty"`
	Fork       int64  `json:"fork"` // the size up to which it and the one before agree
	Cause      string `json:"cause,omitempty"`

	Abandoned []string `json:"abandoned,omitempty"` // histories that anchors knew then and the log did not
}

// KeyTime says when a key entered the chain and when it left it, by the numbers of the entries.
type KeyTime struct {
	KID        string `json:"kid"`
	Introduced int64  `json:"introduced"`
	Retired    int64  `json:"retired"` // 0: it still signs
}

// ReadBoundary returns what r, an audit.pruned, says; ok is false if the keys don't prove it.
func ReadBoundary(r *Row, keys []Key) (b Boundary, ok bool) {
	b, kid, ok := claimedBoundary(r)
	if !ok {
		return Boundary{}, false
	}
	for _, k := range keys {
		if k.kid == kid && k.Proves(r.Body, r.RowHMAC) {
			return b, true
		}
	}
	return Boundary{}, false
}

// ClaimedBoundary returns what r, an audit.pruned, says, if the key that is named as its signer is none of keys: it is
// neither proved nor disproved.
func ClaimedBoundary(r *Row, keys []Key) (b Boundary, ok bool) {
	b, kid, ok := claimedBoundary(r)
	if !ok || slices.ContainsFunc(keys, func(k Key) bool { return k.kid == kid }) {
		return Boundary{}, false
	}
	return b, true
}

func claimedBoundary(r *Row) (b Boundary, kid string, ok bool) {
	body, err := ParseBody(r.Body)
	if err != nil || body.Differs(r) != "" || body.Action != string(Pruned) {
		return Boundary{}, "", false
	}
	var d struct {
		Through int64     `json:"through"`
		RowHMAC string    `json:"row_hmac"`
		Kids    []KeyTime `json:"kids"`

		Peaks       string           `json:"peaks"`
		Generations []GenerationTime `json:"generations"`
		Erased      *KeptErasures    `json:"erased"`
	}
	if err := json.Unmarshal([]byte(body.Details.S), &d); err != nil || d.Through < 1 || d.Through >= r.Seq {
		return Boundary{}, "", false
	}
	return Boundary(d), body.KID, true
}

// Begin lets the walk start behind a boundary.
func (v *Verifier) Begin(b Boundary) {
	v.next, v.prev, v.whole, v.behind = b.Through+1, b.RowHMAC, false, b.Through
	for _, k := range b.Kids {
		v.kids[k.KID] = life{k.Introduced, k.Retired}
	}
	for i := range b.Generations {
		v.history(&b.Generations[i])
	}
	if v.tree != nil {
		peaks, _ := hex.DecodeString(b.Peaks) // what is none are no peaks
		if v.tree, _ = TreeFromPeaks(b.Through, peaks); v.tree == nil {
			v.note(fmt.Sprintf("the roots of checkpoints were not recomputed: entry audit.pruned does not hold the tree of %d rows", b.Through))
		}
	}
}

// BeginUnproved lets the walk start behind a boundary that nobody can prove with the keys at hand.
func (v *Verifier) BeginUnproved(b Boundary) {
	v.Begin(b)
	v.unprovable(b.Through, UnknownKey, fmt.Sprintf("rows up to %d are not there; an entry says that they were exported and deleted, and the key that signed it was not given", b.Through))
	v.report.Unprovable[len(v.report.Unprovable)-1].From = 1
}

// BeginAt lets the walk start at row seq without knowing what stands before it; Seed tells of the keys.
func (v *Verifier) BeginAt(seq int64) {
	v.next, v.prev, v.linked, v.whole, v.behind = seq, "", false, false, 0
	v.tree = nil
}

// Seed gives the walk an entry about keys that stands before its beginning.
func (v *Verifier) Seed(r *Row) {
	body, err := ParseBody(r.Body)
	if err != nil {
		v.fault(r.Seq, Edited, "its body is none of an entry")
		return
	}
	if key, ok := v.keys[body.KID]; ok && !key.Proves(r.Body, r.RowHMAC) {
		v.fault(r.Seq, Edited, "its bytes are not those that were signed")
	}
	v.keyEntry(&body, body.PrevRowHMAC.S)
	v.generation(&body)
}

// Expect tells the walk of rows that somebody remembers.
func (v *Verifier) Expect(heads ...Head) {
	v.heads = append(slices.Clone(v.heads), heads...)
	slices.SortStableFunc(v.heads, func(a, b Head) int { return cmp.Compare(a.Seq, b.Seq) })
}

// Row takes the next row, with its personal parts.
func (v *Verifier) Row(r *Row, parts []Personal) {
	c := v.check(r, parts)
	v.Take(&c)
}

func (v *Verifier) check(r *Row, parts []Personal) Checked {
	if v.checker == nil {
		v.checker = v.Checker()
	}
	return v.checker.row(r, parts, false)
}

// Take takes the next row, which a Checker looked at.
func (v *Verifier) Take(r *Checked) {
	v.report.Checked++
	if !v.place(r) {
		return
	}
	v.grow(r)
	v.remembered(r)
	if r.none {
		v.fault(r.Seq, Edited, "its body is none of an entry")
		v.follow(r)
		return
	}
	switch {
	case r.known && !r.proved:
		v.fault(r.Seq, Edited, "its bytes are not those that were signed")
	case r.Seq == 1 && r.body.Action != string(SystemInstalled):
		v.fault(r.Seq, Edited, "the first row is not "+string(SystemInstalled))
	case r.column != "":
		v.fault(r.Seq, ColumnDiffers, "column "+r.column+" is not what was signed")
	}
	if v.linked && r.prev != v.prev {
		v.fault(r.Seq, MissingInside, "it was signed as the one that follows another row than the one before it")
	}
	if r.body != nil {
		v.keyEntry(r.body, r.prev)
		v.generation(r.body)
	}
	v.keyTime(r)
	if !r.known {
		v.unprovable(r.Seq, UnknownKey, "key "+r.KID+" was not given")
	}
	v.persons(r)
	if r.body != nil && r.proved {
		switch Action(r.body.Action) {
		case Pruned:
			v.pruned(r.body)
		case PruneCompleted:
			v.pruneCompleted(r.body)
		case KeyAdopted:
			v.report.Adopted = r.Seq
		default:
		}
	}
	if r.body != nil && r.body.Action == string(Erased) && (r.proved || !r.known) {
		v.erasedEntry(r.body)
	}
	v.follow(r)
}

// place checks the number of r. A row that stands where none can is not looked at further.
func (v *Verifier) place(r *Checked) bool {
	switch {
	case r.Seq < v.next:
		v.fault(r.Seq, Edited, "its number is one that was before, or none")
		return false
	case r.Seq > v.next && v.sparse:
		v.linked = false
	case r.Seq > v.next && v.gap(r.Seq-1): // taken away legally meanwhile
	case r.Seq > v.next:
		v.fault(v.next, MissingInside, fmt.Sprintf("rows %d to %d are missing", v.next, r.Seq-1))
		v.linked = false
	}
	if v.report.From == 0 {
		v.report.From = r.Seq
	}
	return true
}

// gap takes that the rows up to a number are missing, and reports whether a prune took them.
func (v *Verifier) gap(through int64) bool {
	if v.Pruned == nil {
		return false
	}
	b, ok := v.Pruned(v.next, through)
	if !ok || through > b.Through {
		return false
	}
	v.note(fmt.Sprintf("rows %d to %d were pruned while the log was read", v.next, through))
	v.whole, v.behind, v.linked = false, 0, through == b.Through
	if v.linked {
		v.prev = b.RowHMAC
	} else {
		v.Expect(Head{b.Through, b.RowHMAC})
	}
	v.seed(b, through)
	return true
}

// seed takes what a boundary says of the time up to a number.
func (v *Verifier) seed(b Boundary, through int64) {
	for _, k := range b.Kids {
		l, ok := v.kids[k.KID]
		switch {
		case k.Introduced > through:
		case !ok:
			v.kids[k.KID] = life{k.Introduced, k.Retired}
		case l.retired == 0 && k.Retired <= through:
			v.kids[k.KID] = life{l.introduced, k.Retired}
		}
	}
	for i := range b.Generations {
		if g := &b.Generations[i]; g.Started >= v.next && g.Started <= through {
			v.history(g)
		}
	}
}

// follow makes r the row that the next one has to follow.
func (v *Verifier) follow(r *Checked) {
	v.next, v.prev, v.linked = r.Seq+1, r.rowHMAC, true
	v.report.To, v.report.Head = r.Seq, r.rowHMAC
}

// remembered compares r with what is remembered of its number.
func (v *Verifier) remembered(r *Checked) {
	for len(v.heads) > 0 && v.heads[0].Seq <= r.Seq {
		if v.heads[0].Seq == r.Seq && v.heads[0].RowHMAC != r.rowHMAC {
			v.fault(r.Seq, Against, "it is not the row that was remembered")
		}
		v.heads = v.heads[1:]
	}
	for v.seen < len(v.witnesses) && v.witnesses[v.seen].Size <= r.Seq {
		if w := &v.witnesses[v.seen]; w.Size == r.Seq {
			v.compare(w, r.rowHMAC)
		}
		v.seen++
	}
}

// keyEntry takes what an entry says about keys. prev is the HMAC that it follows.
func (v *Verifier) keyEntry(b *Body, prev string) {
	var d struct {
		KID         string `json:"kid"`
		PreviousKID string `json:"previous_kid"`
		Proof       string `json:"proof"`
		Reason      string `json:"reason"`
	}
	action := Action(b.Action)
	switch {
	case action != SystemInstalled && action != KeyIntroduced && action != KeyAdopted && action != KeyRetired:
		return
	case action == SystemInstalled && b.Seq != 1:
		return
	case json.Unmarshal([]byte(b.Details.S), &d) != nil || d.KID == "":
		v.fault(b.Seq, KeyOutOfTime, "it names no key")
		return
	case action == KeyRetired:
		if l, ok := v.kids[d.KID]; ok && l.retired == 0 {
			v.kids[d.KID] = life{l.introduced, b.Seq}
		}
		return
	case d.KID != b.KID:
		v.fault(b.Seq, KeyOutOfTime, "it introduces another key than the one that signed it")
		return
	}
	if action == SystemInstalled && d.Reason != "" {
		v.note("entry 1 says: " + d.Reason)
	}
	if action == KeyIntroduced {
		v.proof(b.Seq, d.PreviousKID, d.KID, prev, d.Proof)
	}
	if action == KeyAdopted {
		v.unprovable(b.Seq, "", "key "+d.KID+" was adopted without proof of an older one: nothing is provable across this row")
	}
	if _, ok := v.kids[d.KID]; !ok {
		v.kids[d.KID] = life{introduced: b.Seq}
	}
}

// proof checks that who introduced kid knew a key that signed at that time.
func (v *Verifier) proof(seq int64, old, kid, prev, proof string) {
	l, ok := v.kids[old]
	key, known := v.keys[old]
	switch {
	case !ok && !v.anyKey || l.retired != 0 && l.retired < seq:
		v.fault(seq, KeyOutOfTime, "key "+kid+" is introduced by one that could not sign")
	case !known:
		v.unprovable(seq, UnknownKey, "the introduction of key "+kid+" can't be proved: key "+old+" was not given")
	case key.RotationProof(kid, prev) != proof:
		v.fault(seq, KeyOutOfTime, "the introduction of key "+kid+" is not proved by key "+old)
	}
}

// keyTime checks that the key which signed an entry was introduced and not retired.
func (v *Verifier) keyTime(b *Checked) {
	l, ok := v.kids[b.KID]
	switch {
	case v.anyKey:
	case !ok || b.Seq < l.introduced:
		v.fault(b.Seq, KeyOutOfTime, "it is signed with key "+b.KID+", which was not introduced")
	case l.retired != 0 && b.Seq > l.retired:
		v.fault(b.Seq, KeyOutOfTime, "it is signed with key "+b.KID+", which was retired")
	}
}

// Finish ends the walk. exist is the number of rows that there are from the beginning of the walk to its end.
func (v *Verifier) Finish(exist int64) Report {
	v.report.Exist = exist
	if v.report.Checked == 0 && v.report.Since == 0 { // behind a checkpoint nothing may be new
		v.unprovable(0, "", "there is no row")
	}
	if exist != v.report.Checked {
		v.unprovable(0, "", fmt.Sprintf("%d rows exist and %d were read", exist, v.report.Checked))
	}
	for _, h := range v.heads {
		if h.Seq >= v.next {
			v.fault(v.next, CutTail, fmt.Sprintf("rows %d to %d were remembered and are gone", v.next, h.Seq))
		}
	}
	v.finishErased()
	v.finishWitnesses()
	v.requireAnchor()
	return v.report
}

// Stray takes that there is a personal part of a row that there is not.
func (v *Verifier) Stray(seq int64) {
	v.fault(seq, PersonalEdited, "there is a personal part of a row that there is not")
}

// Part says that the rows are a part of a chain which goes on behind them: an export, not the database.
func (v *Verifier) Part() { v.part = true }
