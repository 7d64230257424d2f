package backup_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/store"
)

// TestLessonL5ABackupIsOnlyVerifiedIfItsRestoreTakesIt: one of a database that was tampered with is made, recorded as not
// verified with the fault, and restored only when that is accepted, which is recorded.
func TestLessonL5ABackupIsOnlyVerifiedIfItsRestoreTakesIt(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		trigger := `DROP TRIGGER audit_log_update`
		if s.Dialect() == "postgres" {
			trigger += ` ON audit_log`
		}
		for _, tt := range []struct {
			name, want string
			change     []string
		}{
			{"a task", "attempts", []string{`UPDATE tasks SET attempts = attempts + 1 WHERE id = (SELECT id FROM tasks ORDER BY id LIMIT 1)`}},
			{"an audit entry", "row 2 is", []string{trigger, `UPDATE audit_log SET details = '{"changed":true}' WHERE seq = 2`}},
		} {
			for _, q := range tt.change {
				if _, err := s.db.ExecContext(t.Context(), q); err != nil {
					t.Fatal(err)
				}
			}
			s.tampered(t, tt.name, tt.want)
		}
	})
}

func (s *site) tampered(t *testing.T, name, want string) {
	t.Helper()
	found, err := s.BeginVerification(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := s.EndVerification(t.Context(), found, &audit.Report{First: &audit.Fault{Seq: 2}, Faults: map[audit.Class]int64{audit.Edited: 1}}); err != nil {
		t.Fatal(err)
	}
	before, err := s.AuditState(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	made := s.backup(t)
	if after, err := s.AuditState(t.Context()); err != nil || (after.Wanted > before.Wanted) != (name == "an audit entry") {
		t.Errorf("%s: a verification is wanted %d times, and %d before, %v, want one more for a fault of the log alone", name, after.Wanted, before.Wanted, err)
	}
	if made.Verified || !strings.HasPrefix(made.Reason, "content: ") || !strings.Contains(made.Reason, want) {
		t.Errorf("%s: backup: got verified %v, reason %q, want it not verified, and why", name, made.Verified, made.Reason)
	}
	o := s.restoring(t, made.Name, s.fresh(t, false))
	if r, err := backup.PlanRestore(t.Context(), o); !errors.Is(err, backup.ErrTampered) || !strings.Contains(err.Error(), "--accept-tampered") {
		t.Errorf("%s: restore: got %+v, %v, want it refused, with the way out", name, r, err)
	}
	o.Tampered = true
	o.Custody = watches(t.TempDir()) // the home goes on with the live one
	r, _, next := run(t, o)
	if !strings.Contains(strings.Join(r.Plan.Warnings, "\n"), "which was accepted") {
		t.Errorf("%s: plan: got %q, want a warning", name, r.Plan.Warnings)
	}
	page, err := next.AuditLog(t.Context(), store.AuditFilter{Action: string(audit.SystemRestored)})
	if err != nil || len(page.Items) != 1 {
		t.Fatalf("%s: recorded: got %+v, %v, want one entry", name, page.Items, err)
	}
	var said struct{ Accepted string }
	if err := json.Unmarshal(page.Items[0].Details, &said); err != nil || !strings.Contains(said.Accepted, want) {
		t.Errorf("%s: recorded: got %s, %v, want what was accepted", name, page.Items[0].Details, err)
	}
	if a, err := next.AuditState(t.Context()); err != nil || a.Last != nil {
		t.Errorf("%s: verifications: got %+v, %v, want those of the live one forgotten", name, a, err)
	}
	c := o.Custody(next)
	if err := errors.Join(c.Examine(t.Context()), c.Watch(t.Context())); err != nil {
		t.Errorf("%s: what watches the restored log: %v", name, err)
	}
	if held, err := next.Hold(t.Context()); err != nil || held != nil {
		t.Errorf("%s: got hold %+v, %v, want none: a row that was tampered with stops no brain", name, held, err)
	}
}

// TestBackupsOfADatabaseThatIsNotRightAreKeptAmongThemselves: they take the place of no good one, and don't heap up.
func TestBackupsOfADatabaseThatIsNotRightAreKeptAmongThemselves(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		good := s.backup(t)
		if _, err := s.db.ExecContext(t.Context(), `UPDATE tasks SET attempts = attempts + 1 WHERE id = (SELECT id FROM tasks ORDER BY id LIMIT 1)`); err != nil {
			t.Fatal(err)
		}
		first, second := s.backup(t), s.backup(t)
		p, err := backup.Prune(t.Context(), s.options(t), backup.Keep{Last: 1}, true)
		if err != nil || !slices.Equal(p.Removed, []string{first.Name}) {
			t.Errorf("got %q, %v, want only the older one of those that are not right removed (%s), and not %s or %s", p.Removed, err, first.Name, good.Name, second.Name)
		}
	})
}
