package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestFaultsAtTheBordersOfPages: a walk reads pages of 1000 rows in parallel, and finds what is wrong with the last row of
// one and the first of the next, whoever reads them.
func TestFaultsAtTheBordersOfPages(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		const rows = 3300
		s := storetest.Open(t, url)
		storetest.FillAudit(t, url, rows-1)
		db := attack(t, url)
		for _, tt := range []struct {
			name, do, undo string
			want           map[audit.Class]int64
			first, checked int64
		}{
			{"nothing", ``, ``, map[audit.Class]int64{}, 0, rows},
			{
				"the last row of a page", `UPDATE audit_log SET request_id = request_id || 'x' WHERE seq = 1000`,
				`UPDATE audit_log SET request_id = substr(request_id, 1, length(request_id) - 1) WHERE seq = 1000`,
				map[audit.Class]int64{audit.ColumnDiffers: 1},
				1000, rows,
			},
			{
				"the first row of a page", `UPDATE audit_log SET request_id = request_id || 'x' WHERE seq IN (1001, 2001)`,
				`UPDATE audit_log SET request_id = substr(request_id, 1, length(request_id) - 1) WHERE seq IN (1001, 2001)`,
				map[audit.Class]int64{audit.ColumnDiffers: 2},
				1001, rows,
			},
			{
				"the first and the last of all", `UPDATE audit_log SET outcome = 'deny' WHERE seq IN (1, 3300)`,
				`UPDATE audit_log SET outcome = 'allow' WHERE seq IN (1, 3300)`,
				map[audit.Class]int64{audit.ColumnDiffers: 2},
				1, rows,
			},
			{
				"the last row of a page is missing", `DELETE FROM audit_log WHERE seq = 1000`, `INSERT INTO audit_log SELECT * FROM before WHERE seq = 1000`,
				map[audit.Class]int64{audit.MissingInside: 1},
				1000, rows - 1,
			},
			{
				"rows across a border are missing", `DELETE FROM audit_log WHERE seq BETWEEN 1999 AND 2001`, `INSERT INTO audit_log SELECT * FROM before WHERE seq BETWEEN 1999 AND 2001`,
				map[audit.Class]int64{audit.MissingInside: 1, audit.PersonalEdited: 1},
				1999, rows - 3,
			},
			{
				"a whole page is missing", `DELETE FROM audit_log WHERE seq > 1000 AND seq <= 2000`, `INSERT INTO audit_log SELECT * FROM before WHERE seq > 1000 AND seq <= 2000`,
				map[audit.Class]int64{audit.MissingInside: 1, audit.PersonalEdited: 100},
				1001, rows - 1000,
			},
			{
				"rows change places across a border",
				`UPDATE audit_log SET seq = -1 WHERE seq = 1000; UPDATE audit_log SET seq = 1000 WHERE seq = 1001; UPDATE audit_log SET seq = 1001 WHERE seq = -1`,
				`UPDATE audit_log SET seq = -1 WHERE seq = 1000; UPDATE audit_log SET seq = 1000 WHERE seq = 1001; UPDATE audit_log SET seq = 1001 WHERE seq = -1`,
				map[audit.Class]int64{audit.ColumnDiffers: 2, audit.MissingInside: 3},
				1000, rows,
			},
			{
				"parts of a person are missing at borders", `DELETE FROM audit_personal WHERE seq IN (999, 1002, 3300)`, `INSERT INTO audit_personal SELECT * FROM parts WHERE seq IN (999, 1002, 3300)`,
				map[audit.Class]int64{audit.PersonalMissing: 6},
				999, rows,
			},
		} {
			mustExec(t, db, `CREATE TABLE before AS SELECT * FROM audit_log WHERE seq BETWEEN 999 AND 2002`)
			mustExec(t, db, `CREATE TABLE parts AS SELECT * FROM audit_personal`)
			each := func(list string) {
				for text := range strings.SplitSeq(list, "; ") {
					if text != "" {
						mustExec(t, db, text)
					}
				}
			}
			each(tt.do)
			var first audit.Report
			for i, workers := range []int{1, 2, 8} {
				r := verifyStore(t, s, store.VerifyOptions{Workers: workers})
				at := int64(0)
				if r.First != nil {
					at = r.First.Seq
				}
				if diff := cmp.Diff(tt.want, r.Faults); diff != "" || at != tt.first || r.Checked != tt.checked || r.Exist != tt.checked || r.Exit() != min(1, len(tt.want)) {
					t.Errorf("%s, %d workers: exit %d, first bad %+v, %d of %d rows checked; want %d first, %d rows; faults (-want +got):\n%s",
						tt.name, workers, r.Exit(), r.First, r.Checked, r.Exist, tt.first, tt.checked, diff)
				}
				if i == 0 {
					first = r
				}
				if diff := cmp.Diff(first, r); diff != "" {
					t.Errorf("%s: %d workers report another thing than one (-one +%d):\n%s", tt.name, workers, workers, diff)
				}
			}
			each(tt.undo)
			mustExec(t, db, `DROP TABLE before`)
			mustExec(t, db, `DROP TABLE parts`)
		}
		if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != 0 {
			t.Errorf("everything put back: exit %d, %+v; want 0", r.Exit(), r.First)
		}
	})
}

// atPage makes a walk with one worker call do once it took a number of pages: by then it has read few of those after them.
func atPage(page int, do func()) store.VerifyOptions {
	return store.VerifyOptions{Workers: 1, Progress: func(int64, int64) {
		if page--; page == 0 {
			do()
		}
	}}
}

// prune takes the rows up to one as audit export --delete does, and leaves those above left, as one that was killed.
func prune(t testing.TB, s *store.Store, through, left int64) {
	t.Helper()
	by := store.By{Actor: audit.Actor{Kind: audit.CLI, ID: "root"}, Via: "cli"}
	p, err := s.VerifyPrefix(t.Context(), through, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RecordPruned(t.Context(), store.Prune{Prefix: p, By: by}); err != nil {
		t.Fatal(err)
	}
	killed := fmt.Errorf("killed")
	done, err := s.NewestPruned(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = s.DeletePruned(t.Context(), done, func(deleted int64) error {
		if left > 0 && deleted >= left {
			return killed
		}
		return nil
	})
	if err != nil && err != killed { //nolint:errorlint // the very one.
		t.Fatal(err)
	}
}

// TestPruneWhileTheLogIsVerified: what a prune takes between two reads is no gap, and what it says of histories is known.
func TestPruneWhileTheLogIsVerified(t *testing.T) {
	for _, tt := range []struct {
		name          string
		through, left int64
	}{
		{"whole", 7500, 0},
		{"it was killed in the middle", 7500, 6500},
		{"all but the last row, up to the border of a page", 8000, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			storetest.EachURL(t, func(t *testing.T, url string) {
				s := storetest.Open(t, url)
				storetest.FillAudit(t, url, 3999)
				lost := id.Random().String()
				lost = strings.ReplaceAll(lost, "-", "")
				if _, err := s.StartGeneration(t.Context(), store.NewGeneration{Cause: "restored", Fork: 4000, Abandoned: []string{lost}}); err != nil {
					t.Fatal(err)
				}
				storetest.FillAudit(t, url, 8001-4001)
				w := audit.Witness{Where: "the local anchor", Checkpoint: audit.Checkpoint{Generation: lost, Size: 20_000}}
				pruned := false
				o := atPage(2, func() { prune(t, s, tt.through, tt.left); pruned = true })
				o.Witnesses = []audit.Witness{w}
				r := verifyStore(t, s, o)
				if r.Exit() != 0 || !pruned || r.To < 8002 || !slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, "were pruned while the log was read") }) {
					t.Errorf("pruned meanwhile: exit %d, first bad %+v, %v, to %d, notes %q; want 0 and a note", r.Exit(), r.First, r.Unprovable, r.To, r.Notes)
				}
				r = verifyStore(t, s, store.VerifyOptions{Witnesses: o.Witnesses})
				if r.Exit() != 0 || r.From <= 2000 || r.Checkpoints[0].Standing != audit.LostWithFork {
					t.Errorf("afterwards: exit %d, first bad %+v, from %d, %+v; want 0, behind the pruned, and that history was lost", r.Exit(), r.First, r.From, r.Checkpoints)
				}
			})
		})
	}
}

// TestCutWhileTheLogIsVerified: who deletes between two reads is no prune.
func TestCutWhileTheLogIsVerified(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		storetest.FillAudit(t, url, 7999)
		prune(t, s, 500, 0)
		db := attack(t, url)
		r := verifyStore(t, s, atPage(2, func() {
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback()
			for _, text := range []string{`DELETE FROM audit_personal WHERE seq <= 7500`, `DELETE FROM audit_log WHERE seq <= 7500`, `UPDATE audit_boundary SET through = 7500`} {
				if _, err := tx.ExecContext(t.Context(), text); err != nil {
					t.Fatalf("%s: %v", text, err)
				}
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
		}))
		if r.Exit() != audit.ExitTampered || r.First.Class != audit.MissingInside || r.First.Seq <= 2500 || r.First.Seq > 7500 {
			t.Errorf("exit %d, first bad %+v; want 1, rows missing inside", r.Exit(), r.First)
		}
	})
}

// TestErasureWhileTheLogIsVerified: of a person who is forgotten between two reads some parts were met, and some were not.
func TestErasureWhileTheLogIsVerified(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		storetest.FillAudit(t, url, 7999)
		who := store.Person{User: id.Named(id.ID{}, []byte("user 7"))}
		all, err := s.Erasable(t.Context(), who)
		if err != nil || all < 40 {
			t.Fatalf("%d parts, %v; want some on every page", all, err)
		}
		by := store.By{Actor: audit.Actor{Kind: audit.CLI, ID: "root"}, Via: "cli"}
		r := verifyStore(t, s, atPage(2, func() {
			if done, err := s.EraseAudit(t.Context(), who, "asked for", by); err != nil || done.Parts != all {
				t.Errorf("erased %+v, %v; want %d parts", done, err, all)
			}
		}))
		if r.Exit() != 0 || r.PersonalErased == 0 || r.PersonalErased >= all {
			t.Errorf("erased meanwhile: exit %d, first bad %+v, %d erased parts met; want 0, some of %d", r.Exit(), r.First, r.PersonalErased, all)
		}
		if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != 0 || r.PersonalErased != all {
			t.Errorf("afterwards: exit %d, first bad %+v, %d erased parts; want 0, %d", r.Exit(), r.First, r.PersonalErased, all)
		}
		db := attack(t, url)
		mustExec(t, db, `UPDATE audit_personal SET subject = NULL, salt = NULL, json = NULL, erased_by = 8001
			WHERE seq = (SELECT min(seq) FROM audit_personal WHERE erased_by IS NULL) AND role = 'actor'`)
		if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != audit.ExitTampered || r.First.Class != audit.PersonalMissing {
			t.Errorf("a part more that names the erasure: exit %d, %+v; want 1", r.Exit(), r.First)
		}
	})
}

// TestErasureOfManyParts: a person with more parts than one entry lists is forgotten in several.
func TestErasureOfManyParts(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		who := id.Random()
		entries := make([]audit.Entry, 600)
		for i := range entries {
			entries[i] = audit.New(audit.Facts{
				Action: audit.AuthLogin, Actor: audit.Actor{Kind: audit.User, ID: who.String(), Label: "ann@example.org", IP: "203.0.113.7"},
				Target: audit.Target{ID: who.String(), Label: "ann@example.org"},
			})
		}
		const times = 5
		for range times {
			if err := record(t.Context(), s, append(slices.Clip(entries), note("of another"))...); err != nil {
				t.Fatal(err)
			}
		}
		parts := int64(2 * times * len(entries))
		done, err := s.EraseAudit(t.Context(), store.Person{User: who}, "asked for", store.By{Actor: audit.Actor{Kind: audit.CLI, ID: "root"}, Via: "cli"})
		if err != nil || done.Parts != parts || len(done.Entries) != 2 {
			t.Fatalf("erased %+v, %v; want %d parts in two entries", done, err, parts)
		}
		r := verifyStore(t, s, store.VerifyOptions{})
		if r.Exit() != 0 || r.PersonalErased != parts || r.PersonalPresent != 2*times {
			t.Errorf("exit %d, first bad %+v, %d erased, %d present; want 0, %d, %d", r.Exit(), r.First, r.PersonalErased, r.PersonalPresent, parts, 2*times)
		}
		left, err := s.Erasable(t.Context(), store.Person{User: who})
		if err != nil || left != 0 {
			t.Errorf("%d parts left, %v; want none", left, err)
		}
	})
}
