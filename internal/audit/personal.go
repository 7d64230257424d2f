package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"maps"
	"slices"
)

// erasure sums up the tombstones that name one audit.erased.
type erasure struct {
	count int64
	sum   hash.Hash
	entry bool // the entry was met
}

// newErasure sums up parts, which are in order.
func newErasure(parts []ErasedPart) *erasure {
	e := &erasure{sum: sha256.New()}
	for _, p := range parts {
		e.add(p.Seq, p.Role)
	}
	return e
}

func (e *erasure) add(seq int64, role string) {
	e.count++
	e.sum.Write([]byte(ErasureLine(seq, role)))
}

// is reports whether these are the parts that an audit.erased tells of.
func (e *erasure) is(count int64, digest string) bool {
	return e.count == count && hex.EncodeToString(e.sum.Sum(nil)) == digest
}

// ErasureLine is what the digest of an audit.erased is made of, for each part that was erased, in order.
func ErasureLine(seq int64, role string) string { return fmt.Sprintf("%d %s\n", seq, role) }

// persons takes what was found of the personal parts of an entry.
func (v *Verifier) persons(r *Checked) {
	for _, f := range r.faults {
		v.fault(f.Seq, f.Class, f.Why)
	}
	v.report.PersonalPresent += int64(r.present)
	for i, by := range r.by {
		v.report.PersonalErased++
		e := v.erased[by]
		if e == nil {
			e = newErasure(nil)
			v.erased[by] = e
		}
		e.add(r.Seq, r.erased[i])
	}
}

// pruneCompleted takes that what the prune at the beginning of the walk let go was gone: an erasure from here on can only
// have met parts that are in these rows.
func (v *Verifier) pruneCompleted(b *Body) {
	var d struct {
		Through int64 `json:"through"`
	}
	if json.Unmarshal([]byte(b.Details.S), &d) == nil && v.behind > 0 && d.Through == v.behind {
		v.whole = true
	}
}

// erasedEntry compares the tombstones with the entry that says what was erased.
func (v *Verifier) erasedEntry(b *Body) {
	var d struct {
		Count  int64  `json:"count"`
		SHA256 string `json:"sha256"`
	}
	e := v.erased[b.Seq]
	if e == nil {
		e = newErasure(nil)
		v.erased[b.Seq] = e
	}
	e.entry = true
	if err := json.Unmarshal([]byte(b.Details.S), &d); err != nil {
		v.fault(b.Seq, PersonalMissing, "it does not say what was erased")
		return
	}
	if e.is(d.Count, d.SHA256) || v.Erasure != nil && newErasure(v.Erasure(b.Seq)).is(d.Count, d.SHA256) {
		return
	}
	if !v.whole && e.count < d.Count {
		v.note(fmt.Sprintf("erased by entry %d: %d parts, of which %d are in these rows", b.Seq, d.Count, e.count))
		return
	}
	v.fault(b.Seq, PersonalMissing, "other personal parts are gone than the ones that were erased")
}

// finishErased says of the tombstones whose entry was not met what that means.
func (v *Verifier) finishErased() {
	for _, seq := range slices.Sorted(maps.Keys(v.erased)) {
		switch e := v.erased[seq]; {
		case e.entry:
		case v.part && (seq >= v.next || v.sparse):
			v.note(fmt.Sprintf("%d personal parts were erased by entry %d, not in this file", e.count, seq))
		default:
			v.fault(seq, PersonalMissing, "personal parts are gone, and it is no entry that erased them")
		}
	}
}
