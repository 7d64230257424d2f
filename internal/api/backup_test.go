package api_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/api"
	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/target"
)

// backups makes those of the test's brain, into a directory of their own.
func (b *brain) backups(t *testing.T) *backup.Brain {
	t.Helper()
	k, err := audit.NewKey(storetest.Secrets.Audit)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	out := backup.NewBrain(t.Context(), backup.Plan{
		Options: backup.Options{
			Store: b.store, Keys: []audit.Key{k}, Version: "test", Now: b.Now, TempDir: t.TempDir(),
			Open: func(ctx context.Context) (target.Target, error) { return target.Open(ctx, dir, target.Options{}) },
		},
		Place: dir, RPO: time.Hour,
	})
	t.Cleanup(func() {
		if err := out.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return out
}

// backup waits until a backup is made and returns the list.
func (c *client) backup() answer {
	c.b.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		list := c.get("/admin/backups").must(c.b.t, "list backups", 200)
		standing, _ := list.body["status"].(map[string]any)
		if standing["last_success"] != nil && standing["running"] == nil {
			return c.get("/admin/backups").must(c.b.t, "list backups", 200)
		}
		if time.Now().After(deadline) {
			c.b.t.Fatalf("got %s, want a backup within 20 s", list.text)
		}
	}
}

func TestABackupIsMadeOnDemand(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		begun := root.post("/admin/backups", nil).must(t, "start", 202)
		id, _ := begun.body["id"].(string)
		list := root.backup()
		item := list.body["items"].([]any)[0].(map[string]any)
		if item["id"] != id || item["ok"] != true || item["verified"] != true || item["actor_kind"] != "user" || id == "" {
			t.Errorf("the backup: got %v, want the one that was begun (%s), verified, by a user", item, id)
		}
		now := list.body["status"].(map[string]any)
		last, _ := now["last_success"].(map[string]any)
		if last["id"] != id || now["late"] != false || now["last_failure"] != nil || now["rpo_seconds"] != 3600.0 {
			t.Errorf("status: got %v, want the backup as the last success", now)
		}
		if files, err := os.ReadDir(now["target"].(string)); err != nil || len(files) != 1 {
			t.Errorf("files: got %v, %v, want one", files, err)
		}
	})
}

func TestASecondBackupIsRefused(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		at := store.TimeOf(b.Now())
		if mine, err := b.store.Lease(t.Context(), backup.LeaseName, "another", at, store.TimeOf(at.Add(time.Hour))); !mine || err != nil {
			t.Fatalf("lease: got %v, %v, want it", mine, err)
		}
		if got := root.post("/admin/backups", nil); got.status != 409 || got.code() != "backup_running" {
			t.Errorf("while another is made: got %d %s, want 409 backup_running", got.status, got.text)
		}
	})
}

// late says that backups are.
type late struct{ api.Backups }

func (late) Late() bool      { return true }
func (late) DrillLate() bool { return true }

func TestHealthSaysThatBackupsAreLate(t *testing.T) {
	each(t, func(o *api.Options) { o.Backups = late{o.Backups} }, func(t *testing.T, b *brain) {
		for _, path := range []string{"/health", "/health/ready"} {
			if got := b.client().get(path); got.status != 200 || !strings.Contains(got.text, `"backup":"late","drill":"late"`) {
				t.Errorf("%s: got %d %s, want 200 and that backups and drills are late", path, got.status, got.text)
			}
		}
	})
}
