package app_test

import (
	"context"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/app/apptest"
	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/target"
)

// drilled is a brain that makes an encrypted backup and drills with it, both by schedule.
func drilled(t *testing.T) {
	me, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	b := loggedIn(t, always, "Z4J_BACKUP_TARGET="+t.TempDir(), "Z4J_BACKUP_RECIPIENTS="+me.Recipient().String(), "Z4J_BACKUP_IDENTITY="+me.String(),
		"Z4J_DRILL_SCHEDULE=0 0 1 1 *", "Z4J_METRICS_PUBLIC=true")
	var page struct {
		Status struct{ Drill backup.DrillStanding }
	}
	apptest.Until(t, "a drill is recorded", func() bool {
		b.Client.Do(http.MethodGet, "/api/v1/admin/backups", nil, http.StatusOK, &page)
		return page.Status.Drill.Last != nil
	})
	d := page.Status.Drill
	if d.LastSuccess == nil || !d.LastSuccess.OK || !d.LastSuccess.RPOMet || !d.LastSuccess.RTOMet || d.Late || d.Next == nil {
		t.Errorf("after a drill by schedule: %+v (%+v), want one that went well", d, d.Last)
	}
	if strings.Contains(b.Output(), me.String()) {
		t.Error("LessonB8: the secret key is in the log, want it nowhere")
	}
	for _, wrong := range []string{"Z4J_DRILL_SCHEDULE=often", "Z4J_BACKUP_IDENTITY=AGE-SECRET-KEY-1" + strings.Repeat("Q", 58)} {
		_, err := apptest.TryStart(t, apptest.Options{Environ: []string{wrong}})
		name, value, _ := strings.Cut(wrong, "=")
		contains(t, wrong, errText(err), name)
		if strings.HasPrefix(name, "Z4J_BACKUP") && strings.Contains(errText(err), value) {
			t.Errorf("%s: the error %v quotes the key", name, err)
		}
	}
}

// content is every file below some directories, with its bytes.
func content(t *testing.T, dirs ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			out[path] = string(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestDrillLeavesProductionAlone: with production's settings and anchors, also when an agent was revoked after the backup,
// no anchor changes by a byte, and production goes on without doubt (spec: "a drill by hand").
func TestDrillLeavesProductionAlone(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		shared, home, place := t.TempDir(), t.TempDir(), t.TempDir()
		o := apptest.Options{Database: url, Home: home, Environ: []string{"Z4J_AUDIT_ANCHORS=" + shared, "Z4J_AUDIT_CHECKPOINT_INTERVAL=1", "Z4J_BACKUP_TARGET=" + place}}
		b := apptest.Start(t, o)
		b.Client.Login(apptest.Email, apptest.Password)
		agent := b.Client.Mint("default", "shop", time.Now)
		b.Client.Mint("default", "office", time.Now)
		b.Client.Do(http.MethodPost, "/api/v1/admin/backups", nil, http.StatusAccepted, nil)
		archives(t, place, 1)
		b.Client.Do(http.MethodDelete, "/api/v1/projects/default/agents/"+agent.ID, nil, http.StatusNoContent, nil)
		apptest.Until(t, "the anchors know of the revocation", func() bool {
			for _, text := range content(t, shared) {
				if strings.Contains(text, string(audit.AgentRevoked)) {
					return true
				}
			}
			return false
		})
		stopped(t, b)

		c, err := config.Load(config.Input{Environ: apptest.Environ(t, o), WorkDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		live := storetest.Open(t, url)
		before := content(t, shared, home)
		if len(before) < 3 {
			t.Fatalf("anchors and home hold %d files, want checkpoints and lines", len(before))
		}
		r := drillOf(t, c, live, place, url, time.Now)
		if !r.OK || !r.RPOMet || !r.RTOMet || !r.Recorded {
			t.Errorf("drill: %+v, want it well and recorded", r)
		}
		after := content(t, shared, home)
		for name, text := range before {
			if after[name] != text {
				t.Errorf("%s is not what it was before the drill", name)
			}
		}
		if len(after) != len(before) {
			t.Errorf("the drill left %d files where %d were", len(after), len(before))
		}
		if late := drillOf(t, c, live, place, url, func() time.Time { return time.Now().Add(26 * time.Hour) }); !late.OK || late.RPOMet || late.Age < 25*3600 {
			t.Errorf("a day later: %+v, want it well, and the backup older than the RPO", late)
		}

		again := apptest.Start(t, o)
		if held, err := again.Store.Hold(t.Context()); err != nil || held != nil {
			t.Errorf("production after a drill: hold %+v, %v; want none", held, err)
		}
		again.Client.Login(apptest.Email, apptest.Password)
		again.Client.Mint("default", "third", time.Now)
		if report, err := again.Store.VerifyAudit(t.Context(), store.VerifyOptions{}); err != nil || report.Exit() != audit.ExitProved {
			t.Errorf("production's audit log after a drill: exit %d, %v", report.Exit(), err)
		}
	})
}

func stopped(t *testing.T, b *apptest.Brain) {
	t.Helper()
	if err := b.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// drillOf drills with the newest backup in place, on the kind of database that url is.
func drillOf(t *testing.T, c *config.Config, live *store.Store, place, url string, now func() time.Time) backup.DrillReport {
	t.Helper()
	from, err := target.Open(t.Context(), place, target.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	o := app.DrillOptions{
		Config: c, Version: "1.2.3-test", Log: slog.New(slog.DiscardHandler), Now: now, From: from, Live: live, TempDir: tmp,
		By: store.By{Actor: audit.Actor{Kind: audit.CLI, ID: "uid:0"}, Via: "cli"},
	}
	if live.Dialect() == "postgres" {
		o.Into = url
	}
	r := app.Drill(t.Context(), o)
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("the drill left %v, %v; want nothing", left, err)
	}
	return r
}
