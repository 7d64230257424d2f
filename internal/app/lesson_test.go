package app_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/app/apptest"
	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestLessonL7NoRetentionTouchesTheAuditLog: ten years later, with every retention at its least and the jobs at work, the
// log has all it had.
func TestLessonL7NoRetentionTouchesTheAuditLog(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		first := apptest.Start(t, apptest.Options{Database: url})
		first.Client.Login(apptest.Email, apptest.Password)
		if err := first.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
		db := storetest.DB(t, url)
		entries := func() [][]string { return storetest.Rows(t, db, `SELECT seq, action FROM audit_log ORDER BY seq`) }
		before := entries()

		clock := apptest.NewClock(time.Now().AddDate(10, 0, 0))
		b := apptest.Start(t, apptest.Options{Database: url, Now: clock.Now, Environ: []string{
			"Z4J_AUDIT_RETENTION_DAYS=1", "Z4J_TASK_RETENTION_DAYS=1", "Z4J_EVENT_RETENTION_DAYS=1",
		}})
		apptest.Until(t, "the jobs have a turn", func() bool {
			return len(storetest.Rows(t, db, `SELECT name FROM leases WHERE name LIKE 'job/%' AND holder <> ''`)) > 0
		})
		if !strings.Contains(b.Output(), "the audit log is never deleted automatically") {
			t.Errorf("the log of the start: %s; want it to say that Z4J_AUDIT_RETENTION_DAYS deletes nothing", b.Output())
		}
		after := entries()
		if diff := cmp.Diff(before, after[:min(len(before), len(after))]); diff != "" || len(before) < 3 {
			t.Errorf("the %d entries of the first start (- before, + ten years later):\n%s", len(before), diff)
		}
		r, err := b.Store.VerifyAudit(t.Context(), store.VerifyOptions{})
		if err != nil || r.Exit() != 0 || r.Exist != int64(len(after)) {
			t.Errorf("verified: %+v, %v; want %d rows, all proved", r, err, len(after))
		}
	})
}

// TestLessonL10ABrainServesOverALogThatCannotBeVerified: nothing is verified before serving, so that the start does not
// take longer as the log grows; who verifies is told.
func TestLessonL10ABrainServesOverALogThatCannotBeVerified(t *testing.T) {
	url := storetest.SQLite(t)
	first := apptest.Start(t, apptest.Options{Database: url})
	for range 3 {
		first.Client.Login(apptest.Email, apptest.Password)
	}
	if err := first.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	db := storetest.DB(t, url)
	for _, q := range []string{`DROP TRIGGER audit_log_update`, `UPDATE audit_log SET body = 'unreadable' WHERE seq = 2`} {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	b := apptest.Start(t, apptest.Options{Database: url})
	b.Client.Do(http.MethodGet, "/api/v1/health", nil, http.StatusOK, nil)
	r, err := b.Store.VerifyAudit(t.Context(), store.VerifyOptions{})
	if err != nil || r.Exit() != audit.ExitTampered || r.First.Seq != 2 {
		t.Errorf("verified: %+v, %v; want row 2 named", r, err)
	}
}

// TestLessonI2UnknownPathsAreJSON: beside the API too, where agents, metrics and pages are, no typing error gets a page.
func TestLessonI2UnknownPathsAreJSON(t *testing.T) {
	b := apptest.Start(t, apptest.Options{})
	b.Client.Login(apptest.Email, apptest.Password)
	for _, path := range []string{"/api/v1/taskss", "/api/nothing", "/ws/agents", "/metrics/x", "/assets/app.js", "/no/such/page"} {
		status, header, answer := b.Client.Try(http.MethodGet, path, nil)
		if status != http.StatusNotFound || !strings.HasPrefix(header.Get("Content-Type"), "application/json") {
			t.Errorf("%s: %d %s %.100q, want 404 in JSON", path, status, header.Get("Content-Type"), answer)
		}
	}
}
