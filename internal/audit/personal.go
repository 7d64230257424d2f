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

// ErasureLine is what the digest of an audit.erased is made of, for each part that was erased, in order.
func ErasureLine(seq int64, role string) string { return fmt.Sprintf("%d %s\n", seq, role) }

// personal checks the parts of an entry against what was signed.
func (v *Verifier) personal(seq int64, b *Body, parts []Personal) {
	for _, role := range [...]string{RoleActor, RoleTarget} {
		want := b.ActorPersonal
		if role == RoleTarget {
			want = b.TargetPersonal
		}
		at := slices.IndexFunc(parts, func(p Personal) bool { return p.Role == role })
		switch {
		case at < 0 && want.Set:
			v.fault(seq, PersonalMissing, "the personal part of the "+role+" is gone, and nothing says that it was erased")
		case at < 0:
		case parts[at].ErasedBy != 0:
			v.tombstone(&parts[at], seq, want)
		case !want.Set:
			v.fault(seq, PersonalEdited, "it has a personal part of the "+role+" that was not signed")
		case parts[at].Digest() != want.S:
			v.fault(seq, PersonalEdited, "the personal part of the "+role+" is not what was signed")
		default:
			v.report.PersonalPresent++
		}
	}
	for _, p := range parts {
		if p.Role != RoleActor && p.Role != RoleTarget {
			v.fault(seq, PersonalEdited, "it has a personal part of nobody")
		}
	}
}

// tombstone takes what is left of an erased part.
func (v *Verifier) tombstone(p *Personal, seq int64, want Text) {
	if !want.Set || p.ErasedBy <= seq || p.JSON.Set || len(p.Salt) != 0 || p.Subject.Set {
		v.fault(seq, PersonalEdited, "what is left of the personal part of the "+p.Role+" is not what an erasure leaves")
		return
	}
	v.report.PersonalErased++
	e := v.erased[p.ErasedBy]
	if e == nil {
		e = &erasure{sum: sha256.New()}
		v.erased[p.ErasedBy] = e
	}
	e.count++
	e.sum.Write([]byte(ErasureLine(seq, p.Role)))
}

// erasedEntry compares the tombstones with the entry that says what was erased.
func (v *Verifier) erasedEntry(b *Body) {
	var d struct {
		Count  int64  `json:"count"`
		SHA256 string `json:"sha256"`
	}
	e := v.erased[b.Seq]
	if e == nil {
		e = &erasure{sum: sha256.New()}
		v.erased[b.Seq] = e
	}
	e.entry = true
	if err := json.Unmarshal([]byte(b.Details.S), &d); err != nil {
		v.fault(b.Seq, PersonalMissing, "it does not say what was erased")
		return
	}
	if e.count == d.Count && hex.EncodeToString(e.sum.Sum(nil)) == d.SHA256 {
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
