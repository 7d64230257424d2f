package audit_test

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/audit"
)

const (
	second = "ffeeddccbbaa99887766554433221100"
	third  = "0123456789abcdef0123456789abcdef"
)

// started is the entry with which a history begins.
func started(generation, previous string, fork int64, abandoned ...any) audit.Facts {
	d := map[string]any{"generation": generation, "previous": previous, "fork": fork, "cause": "acknowledged"}
	if len(abandoned) > 0 {
		d["abandoned"] = abandoned
	}
	return audit.Facts{Action: audit.GenerationStarted, Actor: audit.Actor{Kind: audit.CLI}, Details: d}
}

// cut is c without the entries behind n, and grows on its own.
func (c *chain) cut(n int) *chain {
	rows, parts := c.clone()
	for seq := range parts {
		if seq > int64(n) {
			delete(parts, seq)
		}
	}
	return &chain{key: c.key, rows: rows[:n:n], parts: parts, ts: c.ts + 3600e6} // an hour later
}

func (c *chain) grow(t testing.TB, n int) *chain {
	t.Helper()
	for range n {
		c.add(t, login(200))
	}
	return c
}

// of is the checkpoint of n entries in a history.
func (c *chain) of(n int, generation string) audit.Checkpoint {
	cp := c.checkpoint(n)
	cp.Generation = generation
	return cp
}

// held walks a chain with witnesses, after whatever else is told to the walk first.
func (c *chain) held(told func(*audit.Verifier), list ...audit.Witness) audit.Report {
	v := audit.NewVerifier([]audit.Key{c.key})
	v.Witness(list...)
	if told != nil {
		told(v)
	}
	checker := v.Checker()
	for i := range c.rows {
		raw := rawColumns(&c.rows[i])
		checked := checker.Columns(&raw, c.parts[c.rows[i].Seq])
		v.Take(&checked)
	}
	return v.Finish(int64(len(c.rows)))
}

// ifBehind is the class that is wanted when a walk ends with an exit code.
func ifBehind(exit int, c audit.Class) audit.Class {
	if exit == audit.ExitBehind {
		return c
	}
	return ""
}

func standings(r *audit.Report) (out []audit.Standing) {
	for _, c := range r.Checkpoints {
		out = append(out, c.Standing)
	}
	return out
}

const where = "/mnt/anchors"

func own(c audit.Checkpoint) audit.Witness { return audit.Witness{Checkpoint: c, Where: where} }

func shared(c audit.Checkpoint) audit.Witness {
	return audit.Witness{Checkpoint: c, Where: where, Shared: true}
}

// TestWitnesses: how a log stands to the checkpoints of anchors, and what a verification ends with.
func TestWitnesses(t *testing.T) {
	long := logins(t, 12)
	regrown := long.cut(6).grow(t, 8)
	next := long.cut(6) // acknowledged: it goes on as another history
	next.add(t, started(second, generation, 6))
	next.grow(t, 5)
	failover := long.cut(9) // only two checkpoints of before agree, and rows behind the fork stayed
	failover.add(t, started(second, generation, 6))
	restored := long.cut(6)
	restored.add(t, started(third, generation, 5, second))
	wrong := long.checkpoint(8)
	wrong.Root[0] ^= 1
	for _, tt := range []struct {
		name  string
		log   *chain
		list  []audit.Witness
		exit  int
		stand []audit.Standing
		class audit.Class
		seq   int64
	}{
		{"agrees", long, []audit.Witness{own(long.checkpoint(9))}, 0, []audit.Standing{audit.Agrees}, "", 0},
		{"agrees at the head", long, []audit.Witness{own(long.checkpoint(12))}, 0, []audit.Standing{audit.Agrees}, "", 0},
		{"agrees at row 1", long, []audit.Witness{own(long.checkpoint(1))}, 0, []audit.Standing{audit.Agrees}, "", 0},
		{
			"given in any order", long,
			[]audit.Witness{own(long.checkpoint(9)), own(long.checkpoint(2)), own(long.checkpoint(9))},
			0,
			[]audit.Standing{audit.Agrees, audit.Agrees, audit.Agrees},
			"", 0,
		},
		{"the tail was cut", long.cut(6), []audit.Witness{own(long.checkpoint(9))}, 4, []audit.Standing{audit.Behind}, audit.CutTail, 7},
		{
			"the tail was cut behind an older checkpoint", long.cut(6),
			[]audit.Witness{own(long.checkpoint(6)), shared(long.checkpoint(7))},
			4,
			[]audit.Standing{audit.Agrees, audit.Behind},
			audit.CutTail, 7,
		},
		{"cut and grown again", regrown, []audit.Witness{own(long.checkpoint(9))}, 4, []audit.Standing{audit.Disagrees}, audit.Against, 9},
		{"cut and grown to the same size", long.cut(6).grow(t, 3), []audit.Witness{own(long.checkpoint(9))}, 4, []audit.Standing{audit.Disagrees}, audit.Against, 9},
		{"its root is of other rows", long, []audit.Witness{own(wrong)}, 4, []audit.Standing{audit.Disagrees}, audit.Against, 8},
		{"a history that the log does not name", long, []audit.Witness{own(long.of(3, second))}, 4, []audit.Standing{audit.Unnamed}, audit.Against, 3},
		{"the same, ahead", long, []audit.Witness{own(next.of(12, second)), own(regrown.of(14, second))}, 4, []audit.Standing{audit.Unnamed, audit.Unnamed}, audit.Against, 12},
		{"in an anchor that others write, too", long, []audit.Witness{shared(long.of(3, second))}, 0, []audit.Standing{audit.Unnamed}, "", 0},
		{"an ended history, before its end", next, []audit.Witness{own(long.checkpoint(5)), own(long.checkpoint(6))}, 0, []audit.Standing{audit.Agrees, audit.Agrees}, "", 0},
		{"an ended history, beyond its end", next, []audit.Witness{own(long.checkpoint(9)), own(long.checkpoint(12))}, 0, []audit.Standing{audit.LostWithFork, audit.LostWithFork}, "", 0},
		{"an ended history, against before its end", regrown.cut(9).plus(t, started(second, generation, 9)), []audit.Witness{own(long.checkpoint(9))}, 4, []audit.Standing{audit.Disagrees}, audit.Against, 9},
		{"the new history", next, []audit.Witness{own(next.of(10, second))}, 0, []audit.Standing{audit.Agrees}, "", 0},
		{"the new history, cut", next.cut(9), []audit.Witness{own(next.of(12, second))}, 4, []audit.Standing{audit.Behind}, audit.CutTail, 10},
		{"cut to before the new history", next.cut(6), []audit.Witness{own(next.of(12, second))}, 4, []audit.Standing{audit.Unnamed}, audit.Against, 7},
		{"behind the fork, though the rows stayed", failover, []audit.Witness{own(long.checkpoint(8))}, 0, []audit.Standing{audit.LostWithFork}, "", 0},
		{"a history that was lost with what a restore replaced", restored, []audit.Witness{own(next.of(3, second)), own(next.of(12, second))}, 0, []audit.Standing{audit.LostWithFork, audit.LostWithFork}, "", 0},
	} {
		r := tt.log.held(nil, tt.list...)
		expect(t, tt.name, r, tt.exit, tt.seq, tt.class)
		if diff := cmp.Diff(tt.stand, standings(&r)); diff != "" {
			t.Errorf("%s: standings (-want +got):\n%s", tt.name, diff)
		}
		for _, c := range r.Checkpoints {
			if c.Standing == audit.Agrees && !c.Root {
				t.Errorf("%s: the root of %d rows was not recomputed", tt.name, c.Size)
			}
		}
	}
}

func (c *chain) plus(t testing.TB, f audit.Facts) *chain {
	t.Helper()
	c.add(t, f)
	return c
}

// TestLostTailIsToldWithTimeAndCount: a checkpoint that the log ends before says how much is gone and of when it is.
func TestLostTailIsToldWithTimeAndCount(t *testing.T) {
	long := logins(t, 12)
	newest := long.checkpoint(11)
	r := long.cut(6).held(nil, own(long.checkpoint(9)), own(newest))
	if r.Behind != 5 || r.Faults[audit.CutTail] != 2 {
		t.Errorf("%d behind, %v; want 5, two checkpoints that are ahead", r.Behind, r.Faults)
	}
	for _, want := range []string{"3 entries behind", "9 rows", "2026-01-02T03:04:13", where, "--restored"} {
		if r.First == nil || !strings.Contains(r.First.Why, want) {
			t.Errorf("first bad: %+v, want %q in it", r.First, want)
		}
	}
	lost := r.Checkpoints[1]
	if lost.Size != 11 || lost.Time != "2026-01-02T03:04:15.000016Z" || lost.KID != long.key.KID() || lost.Generation != generation {
		t.Errorf("the newest that is lost: %+v", lost)
	}
	if newest, outside := r.Covered(); newest != nil || outside != nil {
		t.Errorf("covered by %v, %v; want nothing", newest, outside)
	}
}

// TestRestoredCopy: a copy is compared with checkpoints up to its size, and only says how far it is behind the others.
func TestRestoredCopy(t *testing.T) {
	long := logins(t, 12)
	restored := (*audit.Verifier).Restored
	r := long.cut(6).held(restored, own(long.checkpoint(6)), own(long.checkpoint(11)))
	expect(t, "a copy", r, 0, 0, "")
	if r.Behind != 5 || !slices.Equal(standings(&r), []audit.Standing{audit.Agrees, audit.Behind}) {
		t.Errorf("%d behind, %v; want 5, the first agrees", r.Behind, standings(&r))
	}
	r = long.cut(6).grow(t, 1).held(restored, own(long.checkpoint(7)), own(long.checkpoint(11)))
	expect(t, "a copy that was written to", r, 4, 7, audit.Against)
	r = long.cut(6).held(restored, own(long.of(3, second)))
	expect(t, "a copy of another log", r, 4, 3, audit.Against)
	r = long.cut(0).held(restored, own(long.checkpoint(11)))
	expect(t, "a copy of nothing", r, 3, 0, "")
}

// TestRequireAnchor: only a checkpoint from beyond the machine that agrees is enough.
func TestRequireAnchor(t *testing.T) {
	long := logins(t, 12)
	far := func(n int) audit.Witness {
		w := shared(long.checkpoint(n))
		w.Outside = true
		return w
	}
	require := (*audit.Verifier).RequireAnchor
	next := long.cut(6)
	next.add(t, started(second, generation, 6))
	for _, tt := range []struct {
		name string
		log  *chain
		list []audit.Witness
		exit int
	}{
		{"none", long, nil, 3},
		{"one of this machine", long, []audit.Witness{own(long.checkpoint(12))}, 3},
		{"one from beyond", long, []audit.Witness{own(long.checkpoint(12)), far(4)}, 0},
		{"one from beyond, of what was given up", next, []audit.Witness{far(9)}, 3},
		{"one from beyond, which is ahead", long.cut(6), []audit.Witness{far(9)}, 4},
	} {
		r := tt.log.held(require, tt.list...)
		expect(t, tt.name, r, tt.exit, 7, ifBehind(tt.exit, audit.CutTail))
	}
}

// TestWitnessesOfATamperedLog: what a row itself shows goes before what an anchor says.
func TestWitnessesOfATamperedLog(t *testing.T) {
	long := logins(t, 12)
	edited := long.cut(12)
	edited.rows[3].Body[20] ^= 1
	r := edited.held(nil, own(long.checkpoint(3)), own(long.checkpoint(8)))
	expect(t, "an edited row", r, 1, 4, audit.Edited)
	if r.Checkpoints[1].Standing != audit.Disagrees || r.Faults[audit.Against] != 1 {
		t.Errorf("the root behind the edited row: %+v, want against", r.Checkpoints[1])
	}
	gap := long.cut(12)
	gap.rows = slices.Delete(gap.rows, 4, 5)
	delete(gap.parts, 5)
	r = gap.held(nil, own(long.checkpoint(5)), own(long.checkpoint(8)))
	expect(t, "a missing row", r, 1, 5, audit.MissingInside)
	if got := standings(&r); !slices.Equal(got, []audit.Standing{audit.NotReached, audit.Agrees}) || r.Checkpoints[1].Root {
		t.Errorf("checkpoints of and behind a missing row: %+v; want that the second agrees by its row alone", r.Checkpoints)
	}
}

// TestRowsSignedAgain: whoever has the key can write the whole log anew, and only what lies elsewhere shows it.
func TestRowsSignedAgain(t *testing.T) {
	long := logins(t, 12)
	forged := newChain(t, secretA)
	forged.grow(t, 11)
	expect(t, "by itself", forged.held(nil), 0, 0, "")
	expect(t, "with a checkpoint", forged.held(nil, own(long.checkpoint(9))), 4, 9, audit.Against)
	expect(t, "up to row 1 it is the same", forged.held(nil, own(long.checkpoint(1))), 0, 0, "")
}

// TestTreeGoesOnFromAPrune: roots are recomputed behind a prune from the peaks that its entry has.
func TestTreeGoesOnFromAPrune(t *testing.T) {
	long := logins(t, 12)
	rest := long.cut(12)
	rest.rows = rest.rows[5:]
	wrong := long.checkpoint(9)
	wrong.Root[0] ^= 1
	peaks, bad := long.tree(5).Peaks(), long.tree(5).Peaks()
	bad[0] ^= 1
	for _, tt := range []struct {
		name  string
		peaks string
		cp    audit.Checkpoint
		exit  int
		root  bool
		notes int
	}{
		{"with peaks", hex.EncodeToString(peaks), long.checkpoint(9), 0, true, 0},
		{"with peaks, and a wrong root", hex.EncodeToString(peaks), wrong, 4, true, 0},
		{"with other peaks", hex.EncodeToString(bad), long.checkpoint(9), 4, true, 0},
		{"without peaks", "", long.checkpoint(9), 0, false, 1},
		{"with what is none", "peaks", long.checkpoint(9), 0, false, 1},
		{"a checkpoint of the pruned", hex.EncodeToString(peaks), long.checkpoint(4), 0, false, 0},
	} {
		r := rest.held(func(v *audit.Verifier) {
			v.Begin(audit.Boundary{
				Through: 5, RowHMAC: long.rows[4].RowHMAC, Kids: []audit.KeyTime{{KID: long.key.KID(), Introduced: 1}}, Peaks: tt.peaks,
				Generations: []audit.GenerationTime{{Generation: generation, Started: 1}},
			})
		}, own(tt.cp))
		expect(t, tt.name, r, tt.exit, 9, ifBehind(tt.exit, audit.Against))
		if c := r.Checkpoints[0]; c.Root != tt.root || len(r.Notes) != tt.notes {
			t.Errorf("%s: root recomputed %t, notes %q; want %t, %d", tt.name, c.Root, r.Notes, tt.root, tt.notes)
		}
	}
}

// TestBehindACheckpoint: a walk can begin behind a checkpoint that agrees, with its tree; older ones are looked up.
func TestBehindACheckpoint(t *testing.T) {
	long := logins(t, 12)
	regrown := long.cut(3).grow(t, 9)
	for _, tt := range []struct {
		name  string
		begin int
		peaks []byte
		list  []audit.Witness
		exit  int
		stand []audit.Standing
		roots int
	}{
		{"with its tree", 7, long.tree(7).Peaks(), []audit.Witness{own(long.checkpoint(7)), own(long.checkpoint(10))}, 0, []audit.Standing{audit.Agrees, audit.Agrees}, 2},
		{"with another tree", 7, long.tree(6).Peaks(), []audit.Witness{own(long.checkpoint(7)), own(long.checkpoint(10))}, 0, []audit.Standing{audit.Agrees, audit.Agrees}, 0},
		{"without a tree", 7, nil, []audit.Witness{own(long.checkpoint(2)), own(long.checkpoint(10))}, 0, []audit.Standing{audit.Agrees, audit.Agrees}, 0},
		{"nothing is new", 12, nil, []audit.Witness{own(long.checkpoint(12))}, 0, []audit.Standing{audit.Agrees}, 0},
		{"an older one is against", 7, nil, []audit.Witness{own(regrown.checkpoint(4))}, 4, []audit.Standing{audit.Disagrees}, 0},
		{"an older one whose row was pruned", 7, nil, []audit.Witness{own(long.checkpoint(1))}, 0, []audit.Standing{audit.NotReached}, 0},
	} {
		rest := long.cut(12)
		rest.rows = rest.rows[tt.begin:]
		r := rest.held(func(v *audit.Verifier) {
			v.BeginAfter(long.checkpoint(tt.begin), tt.peaks)
			v.Seed(&long.rows[0])
			err := v.Recall(func(seq int64) (string, error) {
				if seq == 1 {
					return "", nil
				}
				return long.rows[seq-1].RowHMAC, nil
			})
			if err != nil {
				t.Error(err)
			}
		}, tt.list...)
		expect(t, tt.name, r, tt.exit, 4, ifBehind(tt.exit, audit.Against))
		roots := 0
		for _, c := range r.Checkpoints {
			roots += map[bool]int{true: 1}[c.Root]
		}
		if roots != tt.roots || !slices.Equal(standings(&r), tt.stand) || r.Since != int64(tt.begin) || r.To != 12 {
			t.Errorf("%s: %d roots, %v, since %d, to %d; want %d, %v, %d, 12", tt.name, roots, standings(&r), r.Since, r.To, tt.roots, tt.stand, tt.begin)
		}
	}
}

// TestExitCodes: each means what the specification says, whatever else was found.
func TestExitCodes(t *testing.T) {
	fault := func(list ...audit.Class) map[audit.Class]int64 {
		out := map[audit.Class]int64{}
		for _, c := range list {
			out[c]++
		}
		return out
	}
	some := []audit.Range{{From: 3, To: 4, Class: audit.UnknownKey}}
	for _, tt := range []struct {
		name    string
		r       audit.Report
		want    int
		verdict string
	}{
		{"all proved", audit.Report{Exist: 5, Checked: 5}, 0, "proved"},
		{"nothing new behind a checkpoint", audit.Report{Since: 5}, 0, "proved"},
		{"no row", audit.Report{}, 3, "not provable"},
		{"not all were read", audit.Report{Exist: 5, Checked: 4}, 3, "not provable"},
		{"a key is missing", audit.Report{Exist: 5, Checked: 5, Unprovable: some}, 3, "not provable"},
		{"behind", audit.Report{Exist: 5, Checked: 5, Faults: fault(audit.CutTail)}, 4, "behind"},
		{"behind, and a key is missing", audit.Report{Exist: 5, Checked: 5, Faults: fault(audit.CutTail), Unprovable: some}, 4, "behind"},
		{"against", audit.Report{Exist: 5, Checked: 5, Faults: fault(audit.Against, audit.CutTail)}, 4, "behind"},
		{"edited", audit.Report{Exist: 5, Checked: 5, Faults: fault(audit.Edited)}, 1, "tampered"},
		{"edited, against, and a key is missing", audit.Report{Exist: 5, Checked: 5, Faults: fault(audit.Edited, audit.Against), Unprovable: some}, 1, "tampered"},
		{"a part of a person is gone", audit.Report{Exist: 5, Checked: 5, Faults: fault(audit.PersonalMissing)}, 1, "tampered"},
	} {
		if got := tt.r.Exit(); got != tt.want || audit.Verdict(got) != tt.verdict {
			t.Errorf("%s: %d %s, want %d %s", tt.name, got, audit.Verdict(got), tt.want, tt.verdict)
		}
	}
}
