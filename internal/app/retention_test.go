package app_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/app/apptest"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

func TestSweepTurn(t *testing.T) {
	at := func(text string) time.Time {
		v, err := time.Parse("2006-01-02 15:04", text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, tt := range []struct{ now, want string }{
		{"2026-03-02 03:29", "2026-03-01 03:30"},
		{"2026-03-02 03:30", "2026-03-02 03:30"},
		{"2026-03-02 23:59", "2026-03-02 03:30"},
		{"2026-03-01 00:00", "2026-02-28 03:30"},
	} {
		if got := app.SweepTurn(at(tt.now), 3*time.Hour+30*time.Minute); !got.Equal(at(tt.want)) {
			t.Errorf("at %s: %s, want %s", tt.now, got, tt.want)
		}
	}
}

// aged is a database in which a brain took a task and its failed sister, and then stopped; later is a brain on it some days on.
func aged(t *testing.T, url string) (later func(days int, at string, settings ...string) *apptest.Brain) {
	t.Helper()
	start := func(now time.Time, settings ...string) *apptest.Brain {
		b := apptest.Start(t, apptest.Options{Database: url, Now: apptest.NewClock(now).Now, Environ: append(settings, "Z4J_METRICS_PUBLIC=true")})
		b.Client.Login(apptest.Email, apptest.Password)
		return b
	}
	b := start(noon)
	p := b.Client.Mint("default", "shop", apptest.NewClock(noon).Now).Process(t, nil)
	p.Connect(b.URL())
	p.Send(told(1, "task.succeeded", "fine", noon, ""), told(2, "task.failed", "bad", noon, ""), told(3, "task.started", "open", noon, ""))
	p.Settle()
	apptest.Until(t, "retention begins", func() bool { return strings.Contains(b.Output(), "retention begins") })
	if err := b.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	return func(days int, at string, settings ...string) *apptest.Brain {
		t.Helper()
		clock, err := time.Parse("15:04", at)
		if err != nil {
			t.Fatal(err)
		}
		return start(noon.Truncate(24*time.Hour).AddDate(0, 0, days).Add(time.Duration(clock.Hour())*time.Hour+time.Duration(clock.Minute())*time.Minute), settings...)
	}
}

// sweptTo waits until a brain has swept, and wants these tasks to be left, and so many events.
func sweptTo(t *testing.T, b *apptest.Brain, url, tasks string, events int) {
	t.Helper()
	apptest.Until(t, "a sweep", func() bool { return strings.Contains(b.Output(), "retention swept") })
	db := storetest.DB(t, url)
	var left []string
	for _, r := range storetest.Rows(t, db, `SELECT task_id FROM tasks ORDER BY task_id`) {
		left = append(left, r[0])
	}
	want(t, "tasks that are left", strings.Join(left, " "), tasks)
	want(t, "events that are left", storetest.Rows(t, db, `SELECT count(*) FROM events`)[0][0], fmt.Sprint(events))
}

// TestRetentionIsSeen: what a sweep deleted stands in the log, the metrics and the audit log.
func TestRetentionIsSeen(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := aged(t, url)(91, "12:00", "Z4J_FAILED_TASK_RETENTION_DAYS=100")
		sweptTo(t, b, url, "bad open", 0)
		contains(t, "log", b.Output(), "deleted=")
		_, _, page := b.Client.Try(http.MethodGet, "/metrics", nil)
		for _, line := range []string{`z4j_retention_deleted_total{table="tasks"} 1`, `z4j_retention_deleted_total{table="events"} 3`, "z4j_retention_last_run_timestamp_seconds 1.7", "z4j_events_default_partition_rows 0"} {
			contains(t, "metrics", string(page), line)
		}
		rows := storetest.Rows(t, storetest.DB(t, url), `SELECT actor_kind, details FROM audit_log WHERE action = 'retention.swept'`)
		if len(rows) != 1 || rows[0][0] != "system" || !strings.Contains(rows[0][1], `"tasks":1`) {
			t.Errorf("entries about sweeps: %v, want one of the system with the task", rows)
		}
		var state struct {
			LastSweep *time.Time `json:"last_sweep"`
		}
		b.Client.Do(http.MethodGet, "/api/v1/retention", nil, http.StatusOK, &state)
		if state.LastSweep == nil {
			t.Error("the API tells of no sweep")
		}
	})
}

// TestAProjectsOwnHorizon: what a project's shorter retention would delete at once is not taken in.
func TestAProjectsOwnHorizon(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := aged(t, url)(1, "01:00")
		b.Client.Do(http.MethodPatch, "/api/v1/projects/default", map[string]any{"task_retention_days": 5}, http.StatusOK, nil)
		if err := b.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
		b = aged2(t, url, noon.AddDate(0, 0, 1))
		p := b.Client.Mint("default", "late", apptest.NewClock(noon.AddDate(0, 0, 1)).Now).Process(t, nil)
		p.Connect(b.URL())
		p.Send(told(1, "task.succeeded", "late", noon.AddDate(0, 0, -5), ""), told(2, "task.succeeded", "early", noon.AddDate(0, 0, -3), ""))
		p.Settle()
		want(t, "tasks", len(storetest.Rows(t, storetest.DB(t, url), `SELECT 1 FROM tasks WHERE task_id IN ('late', 'early')`)), 1)
		want(t, "dead letters", storetest.Rows(t, storetest.DB(t, url), `SELECT reason FROM dead_letters`)[0][0], "too_old")
	})
}

func aged2(t *testing.T, url string, now time.Time) *apptest.Brain {
	t.Helper()
	b := apptest.Start(t, apptest.Options{Database: url, Now: apptest.NewClock(now).Now})
	b.Client.Login(apptest.Email, apptest.Password)
	return b
}
