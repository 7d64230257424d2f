package audit

import (
	"encoding/json"
	"fmt"
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

	next   int64  // number of the next row
	prev   string // HMAC of the row before it; "" with unlinked: not known
	linked bool   // prev is known
	whole  bool   // the walk began at row 1, so every tombstone is met
	part   bool   // the rows end before the chain does
	sparse bool   // rows are left out on purpose
	anyKey bool   // nothing says when keys signed
	report Report
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
	Through int64
	RowHMAC string
	Kids    []KeyTime
}

// KeyTime says when a key entered the chain and when it left it, by the numbers of the entries.
type KeyTime struct {
	KID        string `json:"kid"`
	Introduced int64  `json:"introduced"`
	Retired    int64  `json:"retired"` // 0: it still signs
}

// ReadBoundary returns what r, an audit.pruned, says; ok is false if the keys don't prove it.
func ReadBoundary(r *Row, keys []Key) (b Boundary, ok bool) {
	body, err := ParseBody(r.Body)
	if err != nil || body.Differs(r) != "" || body.Action != string(Pruned) {
		return Boundary{}, false
	}
	var d struct {
		Through int64     `json:"through"`
		RowHMAC string    `json:"row_hmac"`
		Kids    []KeyTime `json:"kids"`
	}
	if err := json.Unmarshal([]byte(body.Details.S), &d); err != nil || d.Through < 1 || d.Through >= r.Seq {
		return Boundary{}, false
	}
	for _, k := range keys {
		if k.kid == body.KID && k.Proves(r.Body, r.RowHMAC) {
			return Boundary(d), true
		}
	}
	return Boundary{}, false
}

// Begin lets the walk start behind a boundary.
func (v *Verifier) Begin(b Boundary) {
	v.next, v.prev, v.whole = b.Through+1, b.RowHMAC, false
	for _, k := range b.Kids {
		v.kids[k.KID] = life{k.Introduced, k.Retired}
	}
}

// BeginAt lets the walk start at row seq without knowing what stands before it; Seed tells of the keys.
func (v *Verifier) BeginAt(seq int64) {
	v.next, v.prev, v.linked, v.whole = seq, "", false, false
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
}

// Expect tells the walk of rows that somebody remembers.
func (v *Verifier) Expect(heads ...Head) { v.heads = append(v.heads, heads...) }

// Row takes the next row, with its personal parts.
func (v *Verifier) Row(r *Row, parts []Personal) {
	v.report.Checked++
	if !v.place(r) {
		return
	}
	v.remembered(r)
	body, err := ParseBody(r.Body)
	if err != nil {
		v.fault(r.Seq, Edited, "its body is none of an entry")
		v.follow(r)
		return
	}
	key, known := v.keys[body.KID]
	authentic := known && key.Proves(r.Body, r.RowHMAC)
	switch {
	case known && !authentic:
		v.fault(r.Seq, Edited, "its bytes are not those that were signed")
	case r.Seq == 1 && body.Action != string(SystemInstalled):
		v.fault(r.Seq, Edited, "the first row is not "+string(SystemInstalled))
	default:
		if column := body.Differs(r); column != "" {
			v.fault(r.Seq, ColumnDiffers, "column "+column+" is not what was signed")
		}
	}
	body.Seq = r.Seq // if it says another number, that was said
	if v.linked && body.PrevRowHMAC.S != v.prev {
		v.fault(r.Seq, MissingInside, "it was signed as the one that follows another row than the one before it")
	}
	v.keyEntry(&body, body.PrevRowHMAC.S)
	v.keyTime(&body)
	if !known {
		v.unprovable(r.Seq, UnknownKey, "key "+body.KID+" was not given")
	}
	v.personal(r.Seq, &body, parts)
	if (authentic || !known) && body.Action == string(Erased) {
		v.erasedEntry(&body)
	}
	v.follow(r)
}

// place checks the number of r. A row that stands where none can is not looked at further.
func (v *Verifier) place(r *Row) bool {
	switch {
	case r.Seq < v.next:
		v.fault(r.Seq, Edited, "its number is one that was before, or none")
		return false
	case r.Seq > v.next && v.sparse:
		v.linked = false
	case r.Seq > v.next:
		v.fault(v.next, MissingInside, fmt.Sprintf("rows %d to %d are missing", v.next, r.Seq-1))
		v.linked = false
	}
	if v.report.From == 0 {
		v.report.From = r.Seq
	}
	return true
}

// follow makes r the row that the next one has to follow.
func (v *Verifier) follow(r *Row) {
	v.next, v.prev, v.linked = r.Seq+1, r.RowHMAC, true
	v.report.To, v.report.Head = r.Seq, r.RowHMAC
}

func (v *Verifier) remembered(r *Row) {
	for _, h := range v.heads {
		if h.Seq == r.Seq && h.RowHMAC != r.RowHMAC {
			v.fault(r.Seq, Against, "it is not the row that was remembered")
		}
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
func (v *Verifier) keyTime(b *Body) {
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
	if v.report.Checked == 0 {
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
	return v.report
}

// Part says that the rows are a part of a chain which goes on behind them: an export, not the database.
func (v *Verifier) Part() { v.part = true }
