package backup_test

import (
	"errors"
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
		if _, err := s.db.ExecContext(t.Context(), `UPDATE tasks SET attempts = attempts + 1 WHERE id = (SELECT id FROM tasks ORDER BY id LIMIT 1)`); err != nil {
			t.Fatal(err)
		}
		made := s.backup(t)
		if made.Verified || !strings.HasPrefix(made.Reason, "content: ") {
			t.Errorf("backup: got verified %v, reason %q, want it not verified, and why", made.Verified, made.Reason)
		}
		o := s.restoring(t, made.Name, s.fresh(t, false))
		if r, err := backup.PlanRestore(t.Context(), o); !errors.Is(err, backup.ErrTampered) || !strings.Contains(err.Error(), "--accept-tampered") {
			t.Errorf("restore: got %+v, %v, want it refused, with the way out", r, err)
		}
		o.Tampered = true
		r, _, next := run(t, o)
		if !strings.Contains(strings.Join(r.Plan.Warnings, "\n"), "which was accepted") {
			t.Errorf("plan: got %q, want a warning", r.Plan.Warnings)
		}
		page, err := next.AuditLog(t.Context(), store.AuditFilter{Action: string(audit.SystemRestored)})
		if err != nil || len(page.Items) != 1 || !strings.Contains(string(page.Items[0].Details), `"accepted"`) {
			t.Errorf("recorded: got %+v, %v, want an entry that says what was accepted", page.Items, err)
		}
	})
}
