package api_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/api"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// unguarded opens the database of b as somebody who may do everything, without the guards of the audit log.
func (b *brain) unguarded() *sql.DB {
	b.t.Helper()
	db := storetest.DB(b.t, b.url)
	for trigger, table := range map[string]string{"audit_log_delete": "audit_log", "audit_personal_delete": "audit_personal"} {
		on := ""
		if b.store.Dialect() == "postgres" {
			on = " ON " + table
		}
		execute(b.t, db, `DROP TRIGGER `+trigger+on)
	}
	return db
}

func execute(t *testing.T, db *sql.DB, text string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), text); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

// health asks both health routes and fails unless they answer 200 and say audit and a detail that has the words.
func (b *brain) health(when, audit string, words ...string) {
	b.t.Helper()
	for path, status := range map[string]string{"/health": "ok", "/health/ready": "ready"} {
		got := b.client().get(path).must(b.t, when+": "+path, 200)
		detail, _ := got.body["audit_detail"].(string)
		if got.body["status"] != status || got.body["audit"] != audit || (detail == "") != (audit == "ok") {
			b.t.Errorf("%s: %s says %s, want the status %s and audit %s", when, path, got.text, status, audit)
		}
		for _, word := range words {
			if !strings.Contains(detail, word) {
				b.t.Errorf("%s: %s says %q, want %q in it", when, path, detail, word)
			}
		}
	}
}

// TestLessonL9HealthSaysThatChangesAreStopped: a tail that is cut behind the brain's back stops changes, and health says
// so with the way out, while reads go on.
func TestLessonL9HealthSaysThatChangesAreStopped(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		b.health("a log that is whole", "ok")
		db := b.unguarded()
		execute(t, db, `DELETE FROM audit_personal WHERE seq > 1`)
		execute(t, db, `DELETE FROM audit_log WHERE seq > 1`)
		b.health("within the time that an outcome is good for", "ok")
		if got := root.post("/projects", object{"slug": "shop", "name": "Shop"}).must(t, "a change", 503); got.code() != "history_in_doubt" {
			t.Errorf("a change: got %s, want history_in_doubt", got.text)
		}
		b.health("after a change met it", "history_in_doubt", "acknowledge-rollback")
		root.get("/projects").must(t, "a read", 200)
	})
}

// TestLessonL9HealthTriesWithoutAChange: nobody has to try a change for health to know; and it knows when it is over.
func TestLessonL9HealthTriesWithoutAChange(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		b.setUp()
		b.health("a log that is whole", "ok")
		db := b.unguarded()
		ready := func(when, audit string) {
			t.Helper()
			b.pass(time.Minute)
			b.client().get("/health/ready").must(t, when, 200)
			b.health(when, audit)
		}
		execute(t, db, `ALTER TABLE audit_personal RENAME TO elsewhere`)
		ready("a log that takes nothing", "failed")
		execute(t, db, `ALTER TABLE elsewhere RENAME TO audit_personal`)
		ready("when it takes entries again", "ok")
		execute(t, db, `DELETE FROM audit_personal WHERE seq > 1`)
		execute(t, db, `DELETE FROM audit_log WHERE seq > 1`)
		ready("a cut tail", "history_in_doubt")
	})
}

// TestHealthSaysThatTheAuditKeyIsUnknown from the start on, with both ways out and no secret.
func TestHealthSaysThatTheAuditKeyIsUnknown(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		b.setUp()
		const mistyped = "mistyped-audit-secret-mistyped-audit-secret"
		o := storetest.Options(b.url)
		secrets := storetest.Secrets
		secrets.Audit, secrets.PreviousAudit = []byte(mistyped), nil
		o.Secrets = func(context.Context, bool) (store.Secrets, error) { return secrets, nil }
		other, err := store.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = other.Close() })
		second := start(t, b.url, func(o *api.Options) { o.Store = other })
		second.health("another key", "audit_key_unknown", "Z4J_AUDIT_SECRETS_PREVIOUS", "audit adopt-key --lost")
		got := second.client().post("/auth/login", object{"email": "root@example.com", "password": password}).must(t, "log-in", 503)
		if got.code() != "audit_key_unknown" {
			t.Errorf("log-in: got %s, want audit_key_unknown", got.text)
		}
		second.health("after a change met it", "audit_key_unknown")
		if text := second.client().get("/health").text; strings.Contains(text, mistyped) {
			t.Errorf("health tells a secret: %s", text)
		}
	})
}
