package custody_test

import (
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// outcome is what a verification ends with.
type outcome struct {
	exit  int
	class audit.Class // of the first bad row
	seq   int64
}

func (b brain) verify(t testing.TB, o store.VerifyOptions) (outcome, audit.Report) {
	t.Helper()
	w, err := b.Witnesses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o.Witnesses = w
	r, err := b.VerifyAudit(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	out := outcome{exit: r.Exit()}
	if r.First != nil {
		out.class, out.seq = r.First.Class, r.First.Seq
	}
	return out, r
}

// TestVerifyAgainstAnchors: what was done behind a checkpoint is found, from the beginning and behind the newest checkpoint,
// and of a copy it is said how old it is.
func TestVerifyAgainstAnchors(t *testing.T) {
	const first, second = 5, 9 // rows when checkpoints were signed
	for _, tt := range []struct {
		name                  string
		do                    func(t testing.TB, l *lab)
		full, since, restored outcome
		began, behind         int64 // behind which checkpoint the second began; entries that a copy lacks
		covered               int64
	}{
		{"nothing", func(testing.TB, *lab) {}, outcome{}, outcome{}, outcome{}, second, 0, second},
		{"the database lost its checkpoints", func(t testing.TB, l *lab) {
			l.exec(t, `DELETE FROM audit_checkpoints`, `DELETE FROM audit_frontier`)
		}, outcome{}, outcome{}, outcome{}, second, 0, second},
		{"its checkpoints are not ours", func(t testing.TB, l *lab) {
			l.exec(t, `UPDATE audit_checkpoints SET note = 'z4j'`, `UPDATE audit_frontier SET size = 3`)
		}, outcome{}, outcome{}, outcome{}, second, 0, second},
		{
			"the tail is cut", func(t testing.TB, l *lab) { l.cut(t, 7) },
			outcome{4, audit.CutTail, 8},
			outcome{4, audit.CutTail, 8},
			outcome{},
			first, 2, first,
		},
		{
			"the last row is cut", func(t testing.TB, l *lab) { l.cut(t, 8) },
			outcome{4, audit.CutTail, 9},
			outcome{4, audit.CutTail, 9},
			outcome{},
			first, 1, first,
		},
		{"it is cut, and what the database knows of it", func(t testing.TB, l *lab) {
			l.cut(t, 7)
			l.exec(t, `DELETE FROM audit_checkpoints`, `DELETE FROM audit_frontier`)
		}, outcome{4, audit.CutTail, 8}, outcome{4, audit.CutTail, 8}, outcome{}, first, 2, first},
		{"it is cut and grows again", func(t testing.TB, l *lab) {
			l.cut(t, 7)
			brain{Store: storetest.Open(t, l.url)}.change(t, 9)
		}, outcome{4, audit.Against, 9}, outcome{4, audit.Against, 9}, outcome{4, audit.Against, 9}, first, 0, 0},
		{"it is cut and grows to the size that it had", func(t testing.TB, l *lab) {
			l.cut(t, 7)
			brain{Store: storetest.Open(t, l.url)}.change(t, 2)
		}, outcome{4, audit.Against, 9}, outcome{4, audit.Against, 9}, outcome{4, audit.Against, 9}, first, 0, 0},
		{
			"it is wiped", func(t testing.TB, l *lab) { l.cut(t, 0) },
			outcome{4, audit.CutTail, 1},
			outcome{4, audit.CutTail, 1},
			outcome{3, "", 0},
			0, second, 0,
		},
		{"a column is changed", func(t testing.TB, l *lab) {
			l.unguarded(t)
			l.exec(t, `UPDATE audit_log SET actor_id = 'u2' WHERE seq = 4`)
		}, outcome{1, audit.ColumnDiffers, 4}, outcome{}, outcome{1, audit.ColumnDiffers, 4}, second, 0, second},
		{"a row behind the checkpoint is changed", func(t testing.TB, l *lab) {
			l.unguarded(t)
			brain{Store: storetest.Open(t, l.url)}.change(t, 3)
			l.exec(t, `UPDATE audit_log SET actor_id = 'u2' WHERE seq = 11`)
		}, outcome{1, audit.ColumnDiffers, 11}, outcome{1, audit.ColumnDiffers, 11}, outcome{1, audit.ColumnDiffers, 11}, second, 0, second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, func(t *testing.T, l *lab) {
				b := l.run(t, first-1)
				b.change(t, second-first)
				b.sign(t)
				b = l.watch(t) // before, as a start adds to a wiped log
				tt.do(t, l)
				got, r := b.verify(t, store.VerifyOptions{})
				if newest, _ := r.Covered(); got != tt.full || newest == nil != (tt.covered == 0) || newest != nil && newest.Size != tt.covered {
					t.Errorf("in full: %+v, covered %+v; want %+v, %d rows", got, newest, tt.full, tt.covered)
				}
				if got, r = b.verify(t, store.VerifyOptions{SinceLast: true}); got != tt.since || r.Since != tt.began {
					t.Errorf("since the last checkpoint: %+v behind row %d, want %+v behind %d", got, r.Since, tt.since, tt.began)
				}
				if got, r = b.verify(t, store.VerifyOptions{Restored: true}); got != tt.restored || r.Behind != tt.behind {
					t.Errorf("as a copy: %+v, %d entries behind; want %+v, %d", got, r.Behind, tt.restored, tt.behind)
				}
			})
		})
	}
}

// TestVerifySinceLastComparesOlderCheckpoints: an anchor counts though it is older than where the walk begins.
func TestVerifySinceLastComparesOlderCheckpoints(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		b := l.run(t, 4)
		w, err := b.Witnesses(t.Context())
		if err != nil || len(w) == 0 {
			t.Fatalf("%d witnesses, %v", len(w), err)
		}
		older := w[len(w)-1]
		older.Outside = true
		b.change(t, 3)
		b.sign(t)
		for _, o := range []store.VerifyOptions{{SinceLast: true}, {From: older.Size + 2}, {}} {
			o.Witnesses, o.Anchored = []audit.Witness{older}, true
			if r, err := b.VerifyAudit(t.Context(), o); err != nil || r.Exit() != 0 || len(r.Checkpoints) != 1 || r.Checkpoints[0].Standing != audit.Agrees {
				t.Errorf("since the last %t, from %d: %+v, %v; want that the older checkpoint agrees", o.SinceLast, o.From, r, err)
			}
			o.Witnesses[0].RowHMAC = strings.Repeat("0", 64)
			if r, err := b.VerifyAudit(t.Context(), o); err != nil || r.Exit() != audit.ExitBehind {
				t.Errorf("since the last %t, from %d, and it speaks of another row: %+v, %v; want 4", o.SinceLast, o.From, r, err)
			}
		}
	})
}

// watch opens the database as a command does that only looks.
func (l *lab) watch(t testing.TB) brain {
	t.Helper()
	s := storetest.Open(t, l.url)
	return brain{s, custody.New(custody.Options{Store: s, Now: time.Now, Home: l.home, Anchors: l.anchors, ReadOnly: true})}
}
