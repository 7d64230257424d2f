package audit_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/audit"
)

// sample is a chain in which every column of some row is filled.
func sample(t testing.TB) *chain {
	c := newChain(t, secretA)
	for i := range byte(4) {
		c.add(t, login(i))
	}
	f := login(5)
	f.Action = audit.ProjectCreated
	f.Project = audit.Project{ID: user(7), Label: "shop"}
	f.Target = audit.Target{ID: user(7), Label: "Shop"}
	f.Details = map[string]any{"slug": "shop"}
	c.add(t, f)
	c.add(t, login(6))
	return c
}

func (c *chain) clone() ([]audit.Row, map[int64][]audit.Personal) {
	rows, parts := slices.Clone(c.rows), map[int64][]audit.Personal{}
	for i := range rows {
		rows[i].Body = bytes.Clone(rows[i].Body)
	}
	for seq, list := range c.parts {
		parts[seq] = slices.Clone(list)
		for i := range parts[seq] {
			parts[seq][i].Salt = bytes.Clone(list[i].Salt)
		}
	}
	return rows, parts
}

func (c *chain) keys() []audit.Key { return []audit.Key{c.key} }

func expect(t *testing.T, name string, r audit.Report, exit int, seq int64, class audit.Class) {
	t.Helper()
	if r.Exit() != exit {
		t.Errorf("%s: exit %d, want %d; %+v", name, r.Exit(), exit, r)
	}
	switch {
	case class == "" && r.First == nil:
	case r.First == nil || r.First.Seq != seq || r.First.Class != class:
		t.Errorf("%s: first bad %+v, want row %d %q", name, r.First, seq, class)
	}
}

// TestFlipEveryStoredField changes each stored field of each row in turn: every change is found, at its row.
func TestFlipEveryStoredField(t *testing.T) {
	c := sample(t)
	for at := range c.rows {
		seq := c.rows[at].Seq
		flip := func(name string, change func(*audit.Row)) {
			rows, parts := c.clone()
			change(&rows[at])
			r := walk(c.keys(), nil, rows, parts)
			if r.Exit() != audit.ExitTampered || r.First == nil || name != "seq" && r.First.Seq != seq {
				t.Errorf("row %d, %s changed: exit %d, first bad %+v; want 1 at this row", seq, name, r.Exit(), r.First)
			}
		}
		for _, f := range fields {
			old := f.get(&c.rows[at])
			others := []audit.Text{{S: old.S + "x", Set: true}, {S: "", Set: true}, {}}
			if old.Set {
				others = append(others, audit.Text{S: flipLast(old.S), Set: true}, audit.Text{S: old.S + " ", Set: true})
			}
			for _, other := range others {
				changed := c.rows[at]
				if f.set(&changed, other); f.get(&changed) == old && other != (audit.Text{Set: true}) {
					continue
				}
				if changed.ID == c.rows[at].ID && f.get(&changed) == old { // a column that is never NULL, and stayed
					continue
				}
				flip(fmt.Sprintf("%s from %v to %v", f.name, old, other), func(r *audit.Row) { f.set(r, other) })
			}
		}
		flip("seq", func(r *audit.Row) { r.Seq += 100 })
		flip("ts", func(r *audit.Row) { r.TS++ })
		for i := range c.rows[at].Body {
			flip(fmt.Sprintf("byte %d of body", i), func(r *audit.Row) { r.Body[i] ^= 1 })
		}
		flip("body emptied", func(r *audit.Row) { r.Body = nil })
		flip("body with a space", func(r *audit.Row) { r.Body = append(r.Body, ' ') })
	}
}

func flipLast(s string) string {
	b := []byte(s)
	b[len(b)-1] ^= 1
	return string(b)
}

// TestEmptyTextIsNotNull: NULL and ” differ, so that neither can become the other unnoticed.
func TestEmptyTextIsNotNull(t *testing.T) {
	c := sample(t)
	rows, parts := c.clone()
	rows[1].ProjectID = audit.Text{S: "", Set: true}
	expect(t, "NULL made ''", walk(c.keys(), nil, rows, parts), 1, 2, audit.ColumnDiffers)
}

func TestFlipEveryPersonalField(t *testing.T) {
	c := sample(t)
	for seq, list := range c.parts {
		for i := range list {
			for name, change := range map[string]func(*audit.Personal){
				"json":           func(p *audit.Personal) { p.JSON.S += " " },
				"json gone":      func(p *audit.Personal) { p.JSON = audit.Text{} },
				"salt":           func(p *audit.Personal) { p.Salt[3] ^= 1 },
				"role":           func(p *audit.Personal) { p.Role = "nobody" },
				"erased by none": func(p *audit.Personal) { *p = audit.Personal{Seq: seq, Role: p.Role, ErasedBy: 7} },
				"erased before":  func(p *audit.Personal) { *p = audit.Personal{Seq: seq, Role: p.Role, ErasedBy: 1} },
			} {
				rows, parts := c.clone()
				change(&parts[seq][i])
				if r := walk(c.keys(), nil, rows, parts); r.Exit() != audit.ExitTampered {
					t.Errorf("row %d, %s of %s: exit %d, want 1", seq, name, list[i].Role, r.Exit())
				}
			}
			rows, parts := c.clone()
			parts[seq] = slices.Delete(parts[seq], i, i+1)
			expect(t, "a part deleted", walk(c.keys(), nil, rows, parts), 1, seq, audit.PersonalMissing)
		}
	}
	rows, parts := c.clone()
	parts[1] = []audit.Personal{{Seq: 1, Role: audit.RoleActor, JSON: audit.Some("{}")}}
	expect(t, "a part added", walk(c.keys(), nil, rows, parts), 1, 1, audit.PersonalEdited)
	rows, parts = c.clone()
	parts[2] = append(parts[2], audit.Personal{Seq: 2, Role: "nobody"})
	expect(t, "a part of nobody added", walk(c.keys(), nil, rows, parts), 1, 2, audit.PersonalEdited)
}

func TestRowsMoved(t *testing.T) {
	c := sample(t)
	last := int64(len(c.rows))
	for _, tt := range []struct {
		name   string
		change func([]audit.Row) []audit.Row
		exit   int
		seq    int64
		class  audit.Class
	}{
		{"nothing", func(r []audit.Row) []audit.Row { return r }, 0, 0, ""},
		{"a row deleted", func(r []audit.Row) []audit.Row { return slices.Delete(r, 3, 4) }, 1, 4, audit.MissingInside},
		{"two rows deleted", func(r []audit.Row) []audit.Row { return slices.Delete(r, 2, 4) }, 1, 3, audit.MissingInside},
		{"the first deleted", func(r []audit.Row) []audit.Row { return r[1:] }, 1, 1, audit.MissingInside},
		{"a row twice", func(r []audit.Row) []audit.Row { return slices.Insert(r, 3, r[2]) }, 1, 3, audit.Edited},
		{"two rows swapped", func(r []audit.Row) []audit.Row { r[2], r[3] = r[3], r[2]; return r }, 1, 3, audit.MissingInside},
		{"two rows swapped and numbered again", func(r []audit.Row) []audit.Row {
			r[2], r[3] = r[3], r[2]
			r[2].Seq, r[3].Seq = 3, 4
			return r
		}, 1, 3, audit.ColumnDiffers},
		{"a row of number 0", func(r []audit.Row) []audit.Row { x := r[2]; x.Seq = 0; return append([]audit.Row{x}, r...) }, 1, 0, audit.Edited},
		{"wiped", func([]audit.Row) []audit.Row { return nil }, 3, 0, ""},
		{"the tail cut, seen from inside only", func(r []audit.Row) []audit.Row { return r[:len(r)-1] }, 0, 0, ""},
	} {
		rows, parts := c.clone()
		r := walk(c.keys(), nil, tt.change(rows), parts)
		expect(t, tt.name, r, tt.exit, tt.seq, tt.class)
		if tt.exit == 0 && (r.From != 1 || r.To > last || r.Checked != r.Exist) {
			t.Errorf("%s: %+v", tt.name, r)
		}
	}
}

func TestRememberedRows(t *testing.T) {
	c := sample(t)
	other := sample(t)
	other.rows = other.rows[:5]
	other.add(t, login(77))
	other.add(t, login(78))
	for _, tt := range []struct {
		name  string
		rows  []audit.Row
		head  audit.Head
		exit  int
		seq   int64
		class audit.Class
	}{
		{"the head is there", c.rows, audit.Head{Seq: 7, RowHMAC: c.rows[6].RowHMAC}, 0, 0, ""},
		{"an older row is there", c.rows, audit.Head{Seq: 4, RowHMAC: c.rows[3].RowHMAC}, 0, 0, ""},
		{"the tail was cut", c.rows[:5], audit.Head{Seq: 7, RowHMAC: c.rows[6].RowHMAC}, 4, 6, audit.CutTail},
		{"it was cut and grew again", other.rows, audit.Head{Seq: 7, RowHMAC: c.rows[6].RowHMAC}, 4, 7, audit.Against},
	} {
		v := audit.NewVerifier(c.keys())
		v.Expect(tt.head)
		for i := range tt.rows {
			parts := c.parts[tt.rows[i].Seq]
			if tt.rows[i].RowHMAC != c.rows[min(i, 6)].RowHMAC {
				parts = other.parts[tt.rows[i].Seq]
			}
			v.Row(&tt.rows[i], parts)
		}
		expect(t, tt.name, v.Finish(int64(len(tt.rows))), tt.exit, tt.seq, tt.class)
	}
}

// TestLessonA1NotExaminedIsNotProved: a walk that read less than there is proves nothing about the rest.
func TestLessonA1NotExaminedIsNotProved(t *testing.T) {
	c := sample(t)
	v := audit.NewVerifier(c.keys())
	for i := range c.rows[:5] {
		v.Row(&c.rows[i], c.parts[c.rows[i].Seq])
	}
	r := v.Finish(int64(len(c.rows)))
	if r.Exit() != audit.ExitUnprovable || r.Exist != 7 || r.Checked != 5 {
		t.Errorf("5 of 7 rows read: exit %d, %d exist, %d checked; want 3, 7, 5", r.Exit(), r.Exist, r.Checked)
	}
}

// TestKeys has the rules of audit.md "Keys", as far as a reader sees them.
func TestKeys(t *testing.T) {
	a, b, stranger := newKey(t, secretA), newKey(t, secretB), newKey(t, "another-secret-another-secret-another-1")
	introduce := func(old, by audit.Key, kid, prev string) audit.Facts {
		return audit.Facts{Action: audit.KeyIntroduced, Actor: audit.Actor{Kind: audit.System}, Details: map[string]any{
			"kid": kid, "public_key": by.PublicKey(), "previous_kid": old.KID(), "proof": old.RotationProof(kid, prev),
		}}
	}
	adopt := audit.Facts{Action: audit.KeyAdopted, Actor: audit.Actor{Kind: audit.CLI}, Details: map[string]any{"kid": b.KID(), "reason": "lost"}}
	retire := audit.Facts{Action: audit.KeyRetired, Actor: audit.Actor{Kind: audit.CLI}, Details: map[string]any{"kid": a.KID()}}
	for _, tt := range []struct {
		name  string
		keys  []audit.Key
		build func(*chain)
		exit  int
		seq   int64
		class audit.Class
	}{
		{"both keys given", []audit.Key{a, b}, func(c *chain) {
			f := introduce(a, b, b.KID(), c.head().RowHMAC)
			c.key = b
			c.add(t, f)
			c.key = a
			c.add(t, login(1))
		}, 0, 0, ""},
		{"a key used before it was introduced", []audit.Key{a, b}, func(c *chain) { c.key = b; c.add(t, login(1)) }, 1, 3, audit.KeyOutOfTime},
		{"a key that nobody knows and nobody introduced", []audit.Key{a}, func(c *chain) { c.key = stranger; c.add(t, login(1)) }, 1, 3, audit.KeyOutOfTime},
		{"a key used after it was retired", []audit.Key{a, b}, func(c *chain) {
			f := introduce(a, b, b.KID(), c.head().RowHMAC)
			c.key = b
			c.add(t, f)
			c.add(t, retire)
			c.key = a
			c.add(t, login(1))
		}, 1, 5, audit.KeyOutOfTime},
		{"an introduction with a wrong proof", []audit.Key{a, b}, func(c *chain) {
			f := introduce(a, b, b.KID(), strings.Repeat("0", 64))
			c.key = b
			c.add(t, f)
		}, 1, 3, audit.KeyOutOfTime},
		{"an introduction proved by a key that was never in", []audit.Key{a, b, stranger}, func(c *chain) {
			f := introduce(stranger, b, b.KID(), c.head().RowHMAC)
			c.key = b
			c.add(t, f)
		}, 1, 3, audit.KeyOutOfTime},
		{"an introduction signed by the old key", []audit.Key{a, b}, func(c *chain) { c.add(t, introduce(a, b, b.KID(), c.head().RowHMAC)) }, 1, 3, audit.KeyOutOfTime},
		{"the old key is not given", []audit.Key{b}, func(c *chain) {
			f := introduce(a, b, b.KID(), c.head().RowHMAC)
			c.key = b
			c.add(t, f)
			c.add(t, login(1))
		}, 3, 0, ""},
		{"the new key is not given", []audit.Key{a}, func(c *chain) {
			f := introduce(a, b, b.KID(), c.head().RowHMAC)
			c.key = b
			c.add(t, f)
			c.add(t, login(1))
		}, 3, 0, ""},
		{"a retirement without a name", []audit.Key{a}, func(c *chain) {
			c.add(t, audit.Facts{Action: audit.KeyRetired, Actor: audit.Actor{Kind: audit.CLI}, Details: map[string]any{"reason": "x"}})
		}, 1, 3, audit.KeyOutOfTime},
		{"a retirement without details", []audit.Key{a}, func(c *chain) {
			c.add(t, audit.Facts{Action: audit.KeyRetired, Actor: audit.Actor{Kind: audit.CLI}})
		}, 1, 3, audit.KeyOutOfTime},
		{"a key retired before it came", []audit.Key{a, b}, func(c *chain) {
			c.add(t, audit.Facts{Action: audit.KeyRetired, Actor: audit.Actor{Kind: audit.CLI}, Details: map[string]any{"kid": b.KID()}})
			f := introduce(a, b, b.KID(), c.head().RowHMAC)
			c.key = b
			c.add(t, f)
			c.add(t, login(1))
		}, 0, 0, ""},
		{"a key retired twice: the first counts", []audit.Key{a, b}, func(c *chain) {
			f := introduce(a, b, b.KID(), c.head().RowHMAC)
			c.key = b
			c.add(t, f)
			c.add(t, retire)
			c.key = a
			c.add(t, login(1))
			c.key = b
			c.add(t, retire)
		}, 1, 5, audit.KeyOutOfTime},
		{"a key introduced again by itself", []audit.Key{a}, func(c *chain) { c.add(t, introduce(a, a, a.KID(), c.head().RowHMAC)) }, 0, 0, ""},
		{"no key at all", nil, func(*chain) {}, 3, 0, ""},
		{"adopted without proof", []audit.Key{a, b}, func(c *chain) { c.key = b; c.add(t, adopt); c.add(t, login(1)) }, 3, 0, ""},
		{"a stranger's adoption, his key not given", []audit.Key{a}, func(c *chain) { c.key = b; c.add(t, adopt); c.add(t, login(1)) }, 3, 0, ""},
		{"system.installed again, by a stranger", []audit.Key{a, stranger}, func(c *chain) {
			c.key = stranger
			c.add(t, audit.Facts{Action: audit.SystemInstalled, Actor: audit.Actor{Kind: audit.System}, Details: map[string]any{"kid": stranger.KID()}})
		}, 1, 3, audit.KeyOutOfTime},
	} {
		c := newChain(t, secretA)
		c.add(t, login(9))
		tt.build(c)
		expect(t, tt.name, walk(tt.keys, nil, c.rows, c.parts), tt.exit, tt.seq, tt.class)
	}
}

// TestUnprovableRanges: what could not be proved is told by ranges, with the reason.
func TestUnprovableRanges(t *testing.T) {
	v := readVector(t, "rotation") // rows of A: 1, 2, 4; of B: 3 (the introduction), 5, 6 (A is retired), 7
	rows, parts := v.stored()
	a, b := newKey(t, secretA), newKey(t, secretB)
	without := func(k audit.Key) string { return "key " + k.KID() + " was not given" }
	for _, tt := range []struct {
		name string
		keys []audit.Key
		rows []audit.Row
		want []audit.Range
	}{
		{"both keys", []audit.Key{a, b}, rows, nil},
		{"without the old", []audit.Key{b}, rows, []audit.Range{
			{From: 1, To: 2, Class: audit.UnknownKey, Why: without(a)},
			{From: 3, To: 3, Class: audit.UnknownKey, Why: "the introduction of key " + b.KID() + " can't be proved: key " + a.KID() + " was not given"},
			{From: 4, To: 4, Class: audit.UnknownKey, Why: without(a)},
		}},
		{"without the new", []audit.Key{a}, rows, []audit.Range{
			{From: 3, To: 3, Class: audit.UnknownKey, Why: without(b)}, {From: 5, To: 7, Class: audit.UnknownKey, Why: without(b)},
		}},
		{"no row", []audit.Key{a}, nil, []audit.Range{{Why: "there is no row"}}},
	} {
		r := walk(tt.keys, nil, tt.rows, parts)
		if diff := cmp.Diff(tt.want, r.Unprovable); diff != "" || r.First != nil {
			t.Errorf("%s: first bad %+v, ranges (-want +got):\n%s", tt.name, r.First, diff)
		}
	}
	w := audit.NewVerifier([]audit.Key{a})
	w.Row(&rows[0], nil)
	if r := w.Finish(2); len(r.Unprovable) != 1 || r.Unprovable[0].Why != "2 rows exist and 1 were read" {
		t.Errorf("one of two rows read: %+v", r.Unprovable)
	}
}

// TestLessonA3LegalPrune and A2: a chain that begins behind an authentic boundary is whole, and only there.
func TestLessonA3LegalPrune(t *testing.T) {
	v := readVector(t, "prune")
	rows, parts := v.stored()
	key := newKey(t, secretA)
	entry := rows[len(rows)-2]
	b, ok := audit.ReadBoundary(&entry, []audit.Key{key})
	if !ok || b.Through != 3 || len(b.Kids) != 1 {
		t.Fatalf("the entry of the prune: %+v, %v; want a boundary at 3", b, ok)
	}
	expect(t, "behind the boundary", walk([]audit.Key{key}, &b, rows, parts), 0, 0, "")
	expect(t, "without it", walk([]audit.Key{key}, nil, rows, parts), 1, 1, audit.MissingInside)
	expect(t, "one row more gone", walk([]audit.Key{key}, &b, rows[1:], parts), 1, 4, audit.MissingInside)
	edited := entry
	edited.Details = audit.Some(strings.Replace(entry.Details.S, `"through":3`, `"through":4`, 1))
	if _, ok := audit.ReadBoundary(&edited, []audit.Key{key}); ok {
		t.Error("an edited boundary: want it refused")
	}
	if _, ok := audit.ReadBoundary(&entry, []audit.Key{newKey(t, secretB)}); ok {
		t.Error("a boundary signed with an unknown key: want it refused")
	}
}

func TestWalkFromTheMiddle(t *testing.T) {
	c := sample(t)
	begin := func(seed bool) *audit.Verifier {
		v := audit.NewVerifier(c.keys())
		v.BeginAt(4)
		if seed {
			v.Seed(&c.rows[0])
		}
		return v
	}
	v := begin(true)
	for i := range c.rows[3:] {
		v.Row(&c.rows[3+i], c.parts[c.rows[3+i].Seq])
	}
	r := v.Finish(4)
	expect(t, "from row 4", r, 0, 0, "")
	if r.From != 4 || r.To != 7 {
		t.Errorf("range %d to %d, want 4 to 7", r.From, r.To)
	}
	v = begin(true)
	v.Row(&c.rows[5], c.parts[6])
	expect(t, "row 4 is missing", v.Finish(1), 1, 4, audit.MissingInside)
}

func TestErasureInAPart(t *testing.T) {
	v := readVector(t, "erased")
	rows, parts := v.stored()
	key := newKey(t, secretA)
	w := audit.NewVerifier([]audit.Key{key})
	w.Part()
	for i := range rows[:3] {
		w.Row(&rows[i], parts[rows[i].Seq])
	}
	if r := w.Finish(3); r.Exit() != 0 || len(r.Notes) != 1 || r.PersonalErased != 2 {
		t.Errorf("the entry is not in this file: %+v; want exit 0 and a note", r)
	}
	w = audit.NewVerifier([]audit.Key{key})
	for i := range rows[:3] {
		w.Row(&rows[i], parts[rows[i].Seq])
	}
	expect(t, "in the whole chain there is no such entry", w.Finish(3), 1, 4, audit.PersonalMissing)
	c := sample(t)
	c.add(t, audit.Facts{Action: audit.Erased, Actor: audit.Actor{Kind: audit.CLI}, Details: map[string]any{"count": "two"}})
	expect(t, "an erasure that doesn't say what", walk(c.keys(), nil, c.rows, c.parts), 1, 8, audit.PersonalMissing)
	parts[3][0] = audit.Personal{Seq: 3, Role: parts[3][0].Role, ErasedBy: 4}
	expect(t, "one part more is gone", walk([]audit.Key{key}, nil, rows, parts), 1, 4, audit.PersonalMissing)
}

// TestErasureBehindAPruneIsExact: one that was recorded after a prune had ended tells of all parts that it erased; an older
// one may tell of some that are pruned.
func TestErasureBehindAPruneIsExact(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ended int64 // up to where the prune went of which the log says that it ended; 0: it does not say so
		claim int
		seqs  []int64
		exit  int
		notes int
	}{
		{"after the end: exactly these", 2, 2, []int64{3, 5}, 0, 0},
		{"after the end: one is there again", 2, 2, []int64{5}, 1, 0},
		{"after the end: it says more, and others are gone", 2, 9, []int64{4, 6}, 1, 0},
		{"before the end: it says more", 0, 9, []int64{3, 5}, 0, 1},
		{"after the end of another prune: it says more", 1, 9, []int64{3, 5}, 0, 1},
	} {
		c := sample(t)
		if tt.ended > 0 {
			c.add(t, audit.Facts{Action: audit.PruneCompleted, Actor: audit.Actor{Kind: audit.CLI}, Details: map[string]any{"through": tt.ended, "rows": tt.ended, "archive": "there"}})
		}
		c.add(t, audit.Facts{Action: audit.Erased, Actor: audit.Actor{Kind: audit.CLI}, Details: map[string]any{
			"count": tt.claim, "sha256": sum(audit.ErasureLine(3, audit.RoleActor) + audit.ErasureLine(5, audit.RoleActor)),
		}})
		rows, parts := c.clone()
		for _, seq := range tt.seqs {
			parts[seq][0] = audit.Personal{Seq: seq, Role: audit.RoleActor, ErasedBy: c.head().Seq}
		}
		if r := behindTwo(t, rows, parts); r.Exit() != tt.exit || len(r.Notes) != tt.notes {
			t.Errorf("%s: exit %d, notes %q, %+v; want %d and %d notes", tt.name, r.Exit(), r.Notes, r.First, tt.exit, tt.notes)
		}
	}
}

// behindTwo verifies rows of which the first two were pruned.
func behindTwo(t *testing.T, rows []audit.Row, parts map[int64][]audit.Personal) audit.Report {
	t.Helper()
	key := newKey(t, secretA)
	v := audit.NewVerifier([]audit.Key{key})
	v.Begin(audit.Boundary{Through: 2, RowHMAC: rows[1].RowHMAC, Kids: []audit.KeyTime{{KID: key.KID(), Introduced: 1}}})
	for i := range rows[2:] {
		r := &rows[2+i]
		v.Row(r, parts[r.Seq])
	}
	return v.Finish(int64(len(rows)) - 2)
}

// TestPruneProvesOlderErasures: what an audit.pruned says of erasures before it binds what they left behind its boundary.
func TestPruneProvesOlderErasures(t *testing.T) {
	const entry = 8 // of the erasure, which took parts of rows 1, 3 and 5, of which 1 is pruned
	for _, tt := range []struct {
		name   string
		says   bool
		before int64 // the boundary of which the entry is; 2 is ours
		seqs   []int64
		exit   int
		notes  int
	}{
		{"as it says", true, 2, []int64{3, 5}, 0, 0},
		{"another one", true, 2, []int64{3, 4}, 1, 0},
		{"one less", true, 2, []int64{3}, 1, 0},
		{"one more", true, 2, []int64{3, 4, 5}, 1, 0},
		{"it does not say", false, 2, []int64{3, 4}, 0, 1},
		{"it is of another prune", true, 1, []int64{3, 4}, 0, 1},
	} {
		c := sample(t)
		through := c.rows[1]
		lines := audit.ErasureLine(1, audit.RoleActor) + audit.ErasureLine(3, audit.RoleActor) + audit.ErasureLine(5, audit.RoleActor) + audit.ErasureLine(6, audit.RoleActor)
		c.add(t, audit.Facts{Action: audit.Erased, Actor: audit.Actor{Kind: audit.CLI}, Details: map[string]any{"count": 4, "sha256": sum(lines)}})
		var left audit.Tombstones
		left.Add(3, audit.RoleActor)
		left.Add(5, audit.RoleActor)
		var kept audit.Erasures
		kept.Add(entry, &left)
		details := map[string]any{"through": tt.before, "row_hmac": through.RowHMAC}
		if tt.says {
			details["erased"] = kept.Details()
		}
		c.add(t, audit.Facts{Action: audit.Pruned, Actor: audit.Actor{Kind: audit.CLI}, Details: details})
		rows, parts := c.clone()
		for _, seq := range tt.seqs {
			parts[seq][0] = audit.Personal{Seq: seq, Role: audit.RoleActor, ErasedBy: entry}
		}
		if r := behindTwo(t, rows, parts); r.Exit() != tt.exit || len(r.Notes) != tt.notes {
			t.Errorf("%s: exit %d, notes %q, %+v; want %d and %d notes", tt.name, r.Exit(), r.Notes, r.First, tt.exit, tt.notes)
		}
	}
}

// TestErasureIsExact: the entry tells which parts were erased, not only how many; behind a prune it can tell of more.
func TestErasureIsExact(t *testing.T) {
	erased := func(claim int, lines string, seqs ...int64) ([]audit.Row, map[int64][]audit.Personal) {
		c := sample(t)
		c.add(t, audit.Facts{Action: audit.Erased, Actor: audit.Actor{Kind: audit.CLI}, Details: map[string]any{"count": claim, "sha256": sum(lines)}})
		rows, parts := c.clone()
		for _, seq := range seqs {
			parts[seq][0] = audit.Personal{Seq: seq, Role: audit.RoleActor, ErasedBy: c.head().Seq}
		}
		return rows, parts
	}
	two := audit.ErasureLine(3, audit.RoleActor) + audit.ErasureLine(5, audit.RoleActor)
	for _, tt := range []struct {
		name  string
		from  int64
		claim int
		lines string
		seqs  []int64
		exit  int
		notes int
	}{
		{"exactly these", 1, 2, two, []int64{3, 5}, 0, 0},
		{"as many, but another", 1, 2, two, []int64{2, 5}, 1, 0},
		{"one of the two is there again", 1, 2, two, []int64{5}, 1, 0},
		{"one more", 1, 2, two, []int64{2, 3, 5}, 1, 0},
		{"from the middle: one is before", 4, 2, two, []int64{3, 5}, 0, 1},
		{"from the middle: one more than was erased", 4, 1, audit.ErasureLine(5, audit.RoleActor), []int64{5, 6}, 1, 0},
		{"from the middle: as many, but another", 4, 1, audit.ErasureLine(5, audit.RoleActor), []int64{6}, 1, 0},
	} {
		rows, parts := erased(tt.claim, tt.lines, tt.seqs...)
		v := audit.NewVerifier([]audit.Key{newKey(t, secretA)})
		if tt.from > 1 {
			v.BeginAt(tt.from)
			v.Seed(&rows[0])
		}
		for i := range rows[tt.from-1:] {
			r := &rows[int(tt.from)-1+i]
			v.Row(r, parts[r.Seq])
		}
		if r := v.Finish(int64(len(rows)) - tt.from + 1); r.Exit() != tt.exit || len(r.Notes) != tt.notes {
			t.Errorf("%s: exit %d, notes %q, %+v; want %d and %d notes", tt.name, r.Exit(), r.Notes, r.First, tt.exit, tt.notes)
		}
	}
}

// TestDroppingAnyFieldBreaks takes each field out of a signed body: it is no body any more, and not what was signed.
func TestDroppingAnyFieldBreaks(t *testing.T) {
	for _, name := range []string{"unicode", "empty", "maximum", "rotation", "prune", "erased"} {
		v := readVector(t, name)
		rows, _ := v.stored()
		row := rows[len(rows)-1]
		var m map[string]json.RawMessage
		if err := json.Unmarshal(row.Body, &m); err != nil {
			t.Fatal(err)
		}
		if len(m) != 20 {
			t.Errorf("%s: the body has %d fields, want 20", name, len(m))
		}
		for field := range m {
			less := maps.Clone(m)
			delete(less, field)
			body := sorted(less)
			if _, err := audit.ParseBody(body); err == nil {
				t.Errorf("%s without %s: parsed, want it refused", name, field)
			}
			if k := newKey(t, secretA); k.Proves(body, row.RowHMAC) {
				t.Errorf("%s without %s: the HMAC fits", name, field)
			}
		}
	}
}

func sorted(m map[string]json.RawMessage) []byte {
	var b bytes.Buffer
	for i, k := range slices.Sorted(maps.Keys(m)) {
		b.WriteByte("{,"[min(i, 1)])
		fmt.Fprintf(&b, "%q:%s", k, m[k])
	}
	b.WriteByte('}')
	return b.Bytes()
}

func FuzzParseBody(f *testing.F) {
	for _, name := range []string{"unicode", "empty", "rotation", "erased"} {
		v := readVector(f, name)
		rows, _ := v.stored()
		for i := range rows {
			f.Add(rows[i].Body)
		}
	}
	f.Add([]byte(`{"action":null}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, in []byte) {
		b, err := audit.ParseBody(in)
		if err != nil {
			return
		}
		if !json.Valid(in) {
			t.Fatalf("%q was taken and is no JSON", in)
		}
		r := b.Row
		r.Body = in
		again, err := audit.ParseBody(in)
		if err != nil || again.TS != b.TS || again.Differs(&r) != b.Differs(&r) {
			t.Fatalf("%q reads differently the second time", in)
		}
		v := audit.NewVerifier(nil)
		v.Row(&r, nil)
		v.Finish(1)
	})
}

// TestSplicedChains: rows that are each authentic, but of two histories of one installation, don't follow each other.
func TestSplicedChains(t *testing.T) {
	a, b := sample(t), newChain(t, secretA)
	for i := range byte(4) {
		b.add(t, login(i+50))
	}
	b.add(t, login(60))
	b.add(t, login(61))
	rows := append(slices.Clone(a.rows[:4]), b.rows[4:]...)
	parts := maps.Clone(a.parts)
	for _, r := range b.rows[4:] {
		parts[r.Seq] = b.parts[r.Seq]
	}
	r := walk(a.keys(), nil, rows, parts)
	expect(t, "spliced at row 5", r, 1, 5, audit.MissingInside)
	if r.Faults[audit.MissingInside] != 1 || len(r.Faults) != 1 {
		t.Errorf("faults %v, want the seam alone", r.Faults)
	}
}

// TestOneFaultIsOneFault: what follows a broken row is not blamed for it.
func TestOneFaultIsOneFault(t *testing.T) {
	c := sample(t)
	for _, tt := range []struct {
		name   string
		change func([]audit.Row) []audit.Row
		class  audit.Class
		why    string
	}{
		{"a body that is none", func(r []audit.Row) []audit.Row { r[3].Body = []byte("{}"); return r }, audit.Edited, "none of an entry"},
		{"a body that was changed", func(r []audit.Row) []audit.Row {
			r[3].Body = bytes.Replace(r[3].Body, []byte(`"outcome":"allow"`), []byte(`"outcome":"deny"`), 1)
			return r
		}, audit.Edited, "not those that were signed"},
		{"a column", func(r []audit.Row) []audit.Row { r[3].Outcome = "deny"; return r }, audit.ColumnDiffers, "column outcome"},
		{"rows missing", func(r []audit.Row) []audit.Row { return slices.Delete(r, 3, 5) }, audit.MissingInside, "rows 4 to 5 are missing"},
	} {
		rows, parts := c.clone()
		r := walk(c.keys(), nil, tt.change(rows), parts)
		if len(r.Faults) != 1 || r.Faults[tt.class] != 1 || !strings.Contains(r.First.Why, tt.why) || r.First.Seq != 4 {
			t.Errorf("%s: %v, %+v; want one fault %q at row 4 that says %q", tt.name, r.Faults, r.First, tt.class, tt.why)
		}
	}
}

// TestFirstRow: only system.installed begins a chain, whoever can sign.
func TestFirstRow(t *testing.T) {
	for _, action := range []audit.Action{audit.KeyAdopted, audit.KeyIntroduced, audit.AuthLogin} {
		c := &chain{key: newKey(t, secretA), parts: map[int64][]audit.Personal{}, ts: firstTime}
		f := audit.Facts{Action: action, Actor: audit.Actor{Kind: audit.System}}
		if action != audit.AuthLogin {
			f.Details = map[string]any{"kid": c.key.KID()}
		}
		c.add(t, f)
		expect(t, string(action), walk(c.keys(), nil, c.rows, c.parts), 1, 1, audit.Edited)
	}
}

func TestSeedsAreChecked(t *testing.T) {
	c := sample(t)
	for _, tt := range []struct {
		name   string
		change func(*audit.Row)
	}{
		{"no body", func(r *audit.Row) { r.Body = nil }},
		{"another body", func(r *audit.Row) { r.Body = bytes.Replace(r.Body, []byte("0011"), []byte("0012"), 1) }},
	} {
		rows, parts := c.clone()
		tt.change(&rows[0])
		v := audit.NewVerifier(c.keys())
		v.BeginAt(4)
		v.Seed(&rows[0])
		for i := range rows[3:] {
			v.Row(&rows[3+i], parts[rows[3+i].Seq])
		}
		expect(t, tt.name, v.Finish(4), 1, 1, audit.Edited)
	}
}

func TestBoundariesAreChecked(t *testing.T) {
	c := sample(t)
	good := map[string]any{"through": 3, "row_hmac": c.rows[2].RowHMAC, "kids": []any{}}
	key := c.key
	add := func(details map[string]any) audit.Row {
		return c.add(t, audit.Facts{Action: audit.Pruned, Actor: audit.Actor{Kind: audit.CLI}, Details: details})
	}
	row := add(good)
	if _, ok := audit.ReadBoundary(&row, []audit.Key{newKey(t, secretB), key}); !ok {
		t.Error("a good boundary: refused")
	}
	forged := row
	forged.Details.S = strings.Replace(row.Details.S, `"through":3`, `"through":4`, 1)
	forged.Body = bytes.Replace(row.Body, []byte(`"through":3`), []byte(`"through":4`), 1)
	if _, ok := audit.ReadBoundary(&forged, []audit.Key{key}); ok {
		t.Error("forged in body and column alike, without the key: taken")
	}
	for name, through := range map[string]any{"text": "3", "zero": 0, "itself": func() int64 { return c.head().Seq + 1 }, "what comes": int64(900)} {
		if f, ok := through.(func() int64); ok {
			through = f()
		}
		row := add(map[string]any{"through": through})
		if b, ok := audit.ReadBoundary(&row, []audit.Key{key}); ok {
			t.Errorf("%s: taken as %+v", name, b)
		}
	}
	other := c.add(t, login(1))
	if _, ok := audit.ReadBoundary(&other, []audit.Key{key}); ok {
		t.Error("another entry: taken as a boundary")
	}
}

// TestPartsOfAnAPIKeysOwner: what an API key did has its owner's personal data, which an erasure of the owner finds.
func TestPartsOfAnAPIKeysOwner(t *testing.T) {
	f := login(1)
	f.Action, f.Target = audit.ProjectCreated, audit.Target{ID: user(7), Label: "Shop"}
	f.Actor.Kind, f.Actor.ID, f.Actor.Owner = audit.APIKey, user(8), user(9)
	for _, tt := range []struct {
		name    string
		details map[string]any
	}{
		{"short details", map[string]any{"slug": "shop"}},
		{"details of which only an excerpt is kept", map[string]any{"slug": strings.Repeat("shop ", 10_000)}},
	} {
		c := newChain(t, secretA)
		f.Details = tt.details
		c.add(t, f)
		seq := c.rows[len(c.rows)-1].Seq
		if got := c.parts[seq][0].Subject; got != audit.Some(user(9)) {
			t.Errorf("%s: the part is %v's, want the owner's", tt.name, got)
		}
		stored := func(parts map[int64][]audit.Personal) audit.Report { // a file does not say whose its parts are
			v := audit.NewVerifier(c.keys())
			checker := v.Checker()
			for i := range c.rows {
				raw := rawColumns(&c.rows[i])
				checked := checker.Columns(&raw, parts[c.rows[i].Seq])
				v.Take(&checked)
			}
			return v.Finish(int64(len(c.rows)))
		}
		expect(t, tt.name, stored(c.parts), audit.ExitProved, 0, "")
		_, parts := c.clone()
		for _, other := range []audit.Text{{}, audit.Some(user(8)), audit.Some(user(1))} {
			parts[seq][0].Subject = other
			expect(t, tt.name+", kept as another's", stored(parts), audit.ExitTampered, seq, audit.PersonalEdited)
		}
	}
}
