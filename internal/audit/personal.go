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

// Tombstones sum up what is left of personal parts that one audit.erased took. The zero value is none.
type Tombstones struct {
	Count int64
	sum   hash.Hash
}

// Add takes the next one; they are in order.
func (t *Tombstones) Add(seq int64, role string) {
	if t.sum == nil {
		t.sum = sha256.New()
	}
	t.Count++
	t.sum.Write([]byte(ErasureLine(seq, role)))
}

// Digest is the SHA-256 over their lines.
func (t *Tombstones) Digest() string {
	if t.sum == nil {
		t.sum = sha256.New()
	}
	return hex.EncodeToString(t.sum.Sum(nil))
}

// Fit reports whether these are the parts that the details of an audit.erased tell of.
func (t *Tombstones) Fit(details string) bool {
	d, err := readErasure(details)
	return err == nil && t.are(d)
}

func (t *Tombstones) are(d saidErased) bool { return t.Count == d.Count && t.Digest() == d.SHA256 }

// saidErased is what an audit.erased says of the parts.
type saidErased struct {
	Count  int64  `json:"count"`
	SHA256 string `json:"sha256"`
}

func readErasure(details string) (d saidErased, err error) {
	err = json.Unmarshal([]byte(details), &d)
	return d, err
}

// erasure is what a walk met of one audit.erased.
type erasure struct {
	Tombstones

	entry bool // the entry was met
}

func tombstones(parts []ErasedPart) *Tombstones {
	t := &Tombstones{}
	for _, p := range parts {
		t.Add(p.Seq, p.Role)
	}
	return t
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
			e = &erasure{}
			v.erased[by] = e
		}
		e.Add(r.Seq, r.erased[i])
	}
}

// Erasures sums up what erasures took of rows that stay when the rows before them are pruned. An audit.pruned says it of
// the erasures between its boundary and itself: their own entries tell of parts that are gone with their rows. The zero
// value is of none.
type Erasures struct {
	Entries int64
	sum     hash.Hash
}

// Add takes the next audit.erased and what it left in rows that stay.
func (e *Erasures) Add(entry int64, t *Tombstones) {
	if e.sum == nil {
		e.sum = sha256.New()
	}
	e.Entries++
	fmt.Fprintf(e.sum, "%d %d %s\n", entry, t.Count, t.Digest())
}

// Digest is the SHA-256 over the lines of all entries.
func (e *Erasures) Digest() string {
	if e.sum == nil {
		e.sum = sha256.New()
	}
	return hex.EncodeToString(e.sum.Sum(nil))
}

// Details is what an audit.pruned says of them.
func (e *Erasures) Details() map[string]any {
	return map[string]any{"entries": e.Entries, "sha256": e.Digest()}
}

// Are reports whether they are the ones of which an audit.pruned says this.
func (e *Erasures) Are(k *KeptErasures) bool { return e.Entries == k.Entries && e.Digest() == k.SHA256 }

// KeptErasures is what an audit.pruned says of the erasures before it.
type KeptErasures struct {
	Entries int64  `json:"entries"`
	SHA256  string `json:"sha256"`
}

// pruned takes the entry of the prune behind whose boundary the walk began: it proves the erasures before it.
func (v *Verifier) pruned(b *Body) {
	var d struct {
		Through int64         `json:"through"`
		Erased  *KeptErasures `json:"erased"`
	}
	if json.Unmarshal([]byte(b.Details.S), &d) != nil || v.behind == 0 || d.Through != v.behind || d.Erased == nil {
		return
	}
	if !v.kept.Are(d.Erased) {
		v.fault(b.Seq, PersonalMissing, "other personal parts are gone than the ones that were erased when the rows before were pruned")
	}
	v.partly = nil
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
	e := v.erased[b.Seq]
	if e == nil {
		e = &erasure{}
		v.erased[b.Seq] = e
	}
	e.entry = true
	if v.behind > 0 && !v.whole {
		v.kept.Add(b.Seq, &e.Tombstones)
	}
	d, err := readErasure(b.Details.S)
	if err != nil {
		v.fault(b.Seq, PersonalMissing, "it does not say what was erased")
		return
	}
	if e.are(d) || v.Erasure != nil && tombstones(v.Erasure(b.Seq)).are(d) {
		return
	}
	if !v.whole && e.Count < d.Count {
		v.partly = append(v.partly[:min(len(v.partly), maxRanges)], fmt.Sprintf("erased by entry %d: %d parts, of which %d are in these rows", b.Seq, d.Count, e.Count))
		return
	}
	v.fault(b.Seq, PersonalMissing, "other personal parts are gone than the ones that were erased")
}

// finishErased says of the tombstones whose entry was not met what that means.
func (v *Verifier) finishErased() {
	for _, text := range v.partly {
		v.note(text)
	}
	for _, seq := range slices.Sorted(maps.Keys(v.erased)) {
		switch e := v.erased[seq]; {
		case e.entry:
		case v.part && (seq >= v.next || v.sparse):
			v.note(fmt.Sprintf("%d personal parts were erased by entry %d, not in this file", e.Count, seq))
		default:
			v.fault(seq, PersonalMissing, "personal parts are gone, and it is no entry that erased them")
		}
	}
}
