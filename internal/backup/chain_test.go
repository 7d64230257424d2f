package backup_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/prune"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/target"
)

// prune takes the audit log's rows to through away.
func (s *site) prune(t *testing.T, through int64) {
	t.Helper()
	if err := pruneTo(t, s.Store, through); err != nil {
		t.Fatal(err)
	}
}

// pruneTo takes the audit log's rows to through away, into a directory of its own.
func pruneTo(t *testing.T, s *store.Store, through int64) error {
	t.Helper()
	_, err := prune.Run(t.Context(), pruning(t, s, through))
	return err
}

func pruning(t *testing.T, s *store.Store, through int64) prune.Options {
	t.Helper()
	return prune.Options{
		Store: s, Place: t.TempDir(), Format: audit.NDJSON, Through: through, Now: time.Now, By: store.By{Actor: audit.Actor{Kind: audit.CLI, ID: "uid:0"}, Via: "cli"},
		Open: func(ctx context.Context, location string) (target.Target, error) {
			return target.Open(ctx, location, target.Options{})
		},
	}
}

// TestABackupOfAPrunedLogIsProved: right after a prune, and after a second one that took the first one's entry away, the tree goes
// on from what the prune recorded, and what was restored is proved.
func TestABackupOfAPrunedLogIsProved(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		storetest.FillAudit(t, s.url, 600)
		s.watch(t)
		for _, through := range []int64{300, 560} {
			s.prune(t, through)
			made := s.backup(t)
			if made.Manifest.Audit.Boundary != through || made.Manifest.Audit.Root == "" || made.Manifest.Audit.Checkpoint == "" {
				t.Errorf("pruned to %d: manifest: got %+v, want the boundary, the root and a checkpoint", through, made.Manifest.Audit)
			}
			report, err := verify(t, s.options(t), made.Name)
			if err != nil || report.Exit() != backup.ExitGood || report.Audit.From != through+1 {
				t.Errorf("pruned to %d: verify: got exit %d from row %d, %v, %q, %+v; want it good from behind the boundary",
					through, report.Exit(), report.Audit.From, err, report.Disagree, report.Audit.First)
			}
			if len(report.Audit.Checkpoints) != 1 || report.Audit.Checkpoints[0].Standing != audit.Agrees && report.Audit.Checkpoints[0].Size > through {
				t.Errorf("pruned to %d: checkpoint: got %+v, want the one of the manifest, which agrees", through, report.Audit.Checkpoints)
			}
			o := s.restoring(t, made.Name, s.fresh(t, through == 560))
			o.Custody = watches(t.TempDir()) // the home and its anchors go on with the live one
			if _, done, _ := run(t, o); done.Rows != made.Rows {
				t.Errorf("pruned to %d: restored %d rows, want %d", through, done.Rows, made.Rows)
			}
			s.watch(t)
		}
	})
}

// halfPruned stops a prune behind its entry, when only those rows are deleted.
func (s *site) halfPruned(t *testing.T, through int64, deleted string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := pruning(t, s.Store, through)
	o.Step = func(name string) {
		if name == "recorded" {
			cancel()
		}
	}
	_, err := prune.Run(ctx, o)
	if err == nil {
		t.Fatal("the prune went on, want it stopped behind its entry")
	}
	for _, table := range []string{"audit_personal", "audit_log"} {
		if _, err := s.db.ExecContext(t.Context(), `DELETE FROM `+table+` WHERE `+deleted); err != nil {
			t.Fatal(err)
		}
	}
}

// TestABackupOfAHalfPrunedLogIsProved: a prune that was killed before it deleted everything leaves a log that begins before its
// boundary.
func TestABackupOfAHalfPrunedLogIsProved(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		storetest.FillAudit(t, s.url, 300)
		s.halfPruned(t, 200, `seq <= 120`)
		made := s.backup(t)
		report, err := verify(t, s.options(t), made.Name)
		if err != nil || report.Exit() != backup.ExitGood || report.Audit.From != 121 {
			t.Errorf("verify: got exit %d from row %d, %v, %q, %+v; want it good from row 121", report.Exit(), report.Audit.From, err, report.Disagree, report.Audit.First)
		}
	})
}

// TestTheCheckpointOfAManifestIsComparedWithTheLog: one of another log, or one that nobody signed, is told.
func TestTheCheckpointOfAManifestIsComparedWithTheLog(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		o := s.options(t)
		signer := o.Keys[0]
		made := s.backup(t)
		note := made.Manifest.Audit.Checkpoint
		own, err := audit.OpenCheckpoint(note, signer.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		sign := func(change func(c *audit.Checkpoint)) string {
			c := own
			change(&c)
			text, err := signer.SignCheckpoint(c)
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
		for _, tt := range []struct{ name, note, want string }{
			{"its own", note, ""},
			{"none", "", ""},
			{"of a key that is not at hand", strings.ReplaceAll(note, signer.KID(), "0123456789abcdef"), ""},
			{"another root", sign(func(c *audit.Checkpoint) { c.Root[5]++ }), "not those that it was signed over"},
			{"another row", sign(func(c *audit.Checkpoint) { c.RowHMAC = strings.Repeat("ab", 32) }), "another one"},
			{"of another installation", sign(func(c *audit.Checkpoint) { c.Instance = strings.Repeat("ab", 16) }), "another installation"},
			{"of more rows", sign(func(c *audit.Checkpoint) { c.Size += 100 }), "rows, and the audit log has"},
			{"its text changed", strings.Replace(note, "\ntimeline 0\n", "\ntimeline 9\n", 1), "did not sign it"},
		} {
			if tt.name == "its text changed" && tt.note == note {
				tt.note = strings.Replace(note, "\ntimeline 1\n", "\ntimeline 9\n", 1)
			}
			name := repack(t, s, made, func(m *backup.Manifest) { m.Audit.Checkpoint = tt.note })
			report, err := verify(t, o, name)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			said := strings.Join(report.Disagree, "\n")
			if report.Audit.First != nil {
				said += report.Audit.First.Why
			}
			if (report.Exit() == backup.ExitGood) != (tt.want == "") || !strings.Contains(said, tt.want) {
				t.Errorf("%s: got exit %d, %q, want it to say %q", tt.name, report.Exit(), said, tt.want)
			}
		}
	})
}

// repack writes an archive anew, signed, with another manifest.
func repack(t *testing.T, s *site, made backup.Result, change func(m *backup.Manifest)) string {
	t.Helper()
	o := s.options(t)
	a, err := backup.Open(t.Context(), o.Target, made.Name, backup.ReadOptions{Keys: o.Keys})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	const name = "repacked.tar"
	to, err := o.Target.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	w, err := backup.NewWriter(to)
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range made.Manifest.Tables {
		w.Expect(table.Name)
	}
	err = a.Read(t.Context(), 1, func(c store.Chunk) error {
		rows, err := store.DecodeRows(c.Raw)
		if err != nil {
			return err
		}
		for rows.Next() {
			c.Rows++
		}
		return w.Add(c)
	})
	if err != nil {
		t.Fatal(err)
	}
	m := made.Manifest
	change(&m)
	if _, err := w.Finish(m, o.Keys[0]); err != nil {
		t.Fatal(err)
	}
	if err := to.Commit(); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestABackupThatIsMadeInHoldSaysSo: backups go on while the history is in doubt, and are marked in the manifest, in the list and
// in the plan; the restored database is not in hold.
func TestABackupThatIsMadeInHoldSaysSo(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		if made := s.backup(t); made.Manifest.Hold != nil {
			t.Errorf("before it: got %+v, want no hold", made.Manifest.Hold)
		}
		if err := s.PutHold(t.Context(), store.Doubt{Cause: "rolled_back", Reason: "a test", Fork: 1}); err != nil {
			t.Fatal(err)
		}
		made := s.backup(t)
		if h := made.Manifest.Hold; h == nil || h.Reason != "a test" || h.Since.IsZero() {
			t.Errorf("in hold: got %+v, want it with its reason", h)
		}
		report, err := verify(t, s.options(t), made.Name)
		if err != nil || report.Manifest.Hold == nil || report.Exit() != backup.ExitGood {
			t.Errorf("verify: got %+v, exit %d, %v; want it good, and marked", report.Manifest.Hold, report.Exit(), err)
		}
		list, err := backup.List(t.Context(), s.place, s.Store, time.Now())
		if err != nil || len(list) != 2 || list[0].Record.Held || !list[1].Record.Held {
			t.Errorf("list: got %+v, %v, want the second marked", list, err)
		}
		r, _, next := run(t, s.restoring(t, made.Name, s.fresh(t, false)))
		if !strings.Contains(strings.Join(r.Plan.Warnings, "\n"), "in doubt when it was made") {
			t.Errorf("plan: got %q, want a warning", r.Plan.Warnings)
		}
		if held, err := next.Hold(t.Context()); err != nil || held != nil {
			t.Errorf("the restored database: got hold %+v, %v, want none", held, err)
		}
	})
}

// TestPrunesAreOfferedAfterARestore: one that the anchors know and the backup does not, and one that was interrupted in it; run
// again, the log goes on from where the prune ended.
func TestPrunesAreOfferedAfterARestore(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before, after func(t *testing.T, s *site)
		want          int64
	}{
		"pruned after the backup":  {after: func(t *testing.T, s *site) { s.prune(t, 200) }, want: 200},
		"interrupted":              {before: func(t *testing.T, s *site) { s.halfPruned(t, 150, `seq <= 70`) }, want: 150},
		"pruned before the backup": {before: func(t *testing.T, s *site) { s.prune(t, 100) }},
	} {
		t.Run(name, func(t *testing.T) {
			eachSite(t, func(t *testing.T, s *site) {
				storetest.FillAudit(t, s.url, 300)
				s.watch(t)
				if tt.before != nil {
					tt.before(t, s)
				}
				made := s.backup(t)
				s.watch(t)
				if tt.after != nil {
					tt.after(t, s)
				}
				s.watch(t)
				o := s.restoring(t, made.Name, s.fresh(t, false))
				if r := plan(t, o); r.Plan.Prune != tt.want {
					t.Fatalf("offered: got a prune to entry %d, want %d; gone: %+v", r.Plan.Prune, tt.want, r.Plan.Gone)
				}
				if tt.want == 0 {
					return
				}
				_, _, next := run(t, o)
				err := pruneTo(t, next, tt.want)
				if err != nil && !errors.Is(err, prune.ErrNothing) {
					t.Fatal(err)
				}
				p, err := next.NewestPruned(t.Context())
				if err != nil || p.Through != tt.want || p.Lowest != tt.want+1 || !p.Completed {
					t.Errorf("after the prune: got %+v, %v, want the log to begin behind entry %d", p, err, tt.want)
				}
			})
		})
	}
}
