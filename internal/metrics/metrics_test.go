package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/metrics"
)

func scrape(t *testing.T, m *metrics.Metrics, a metrics.Access, authorization string) (int, string, http.Header) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w := httptest.NewRecorder()
	m.Handler(a).ServeHTTP(w, r)
	body, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(body), w.Header()
}

func has(t *testing.T, body string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+body, "\n"+line+"\n") {
			t.Errorf("scrape lacks the line %q", line)
		}
	}
}

func TestLessonB10MetricsAreClosedByDefault(t *testing.T) {
	m := metrics.New(metrics.Options{})
	for _, tt := range []struct {
		name   string
		access metrics.Access
		header string
		want   int
	}{
		{"no token is set and none is given", metrics.Access{}, "", 401},
		{"no token is set and an empty one is given", metrics.Access{}, "Bearer ", 401},
		{"no token is given", metrics.Access{Token: "abc"}, "", 401},
		{"a wrong token", metrics.Access{Token: "abc"}, "Bearer abd", 401},
		{"another scheme", metrics.Access{Token: "abc"}, "Basic abc", 401},
		{"the right token", metrics.Access{Token: "abc"}, "Bearer abc", 200},
		{"the scheme in lower case", metrics.Access{Token: "abc"}, "bearer abc", 200},
		{"public", metrics.Access{Public: true}, "", 200},
	} {
		got, body, header := scrape(t, m, tt.access, tt.header)
		if got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
		if got == 401 && (!strings.HasPrefix(header.Get("WWW-Authenticate"), "Bearer") || strings.Contains(body, "z4j_")) {
			t.Errorf("%s: WWW-Authenticate %q and body %q, want a Bearer challenge and no metric", tt.name, header.Get("WWW-Authenticate"), body)
		}
	}
}

func TestEveryCounterIsShown(t *testing.T) {
	m := metrics.New(metrics.Options{
		Version:  "1.2.3",
		Database: func() (int, int) { return 12, 3 },
		Snapshot: func() time.Duration { return 90 * time.Second },
		Anchors: func() []metrics.AnchorState {
			return []metrics.AnchorState{{Anchor: "home", Fault: "silent"}, {Anchor: "1", Fault: "unreadable", Bad: true}}
		},
		Items: map[string]func() int{"slots": func() int { return 7 }},
		State: func(context.Context) ([]metrics.ProjectState, error) {
			return []metrics.ProjectState{{
				Project: "p", AgentsOnline: 2, WorkersOnline: 3,
				Queues: []metrics.QueueDepth{{Engine: "celery", Queue: "mail", Pending: 5}},
			}}, nil
		},
		Audit: func() (metrics.AuditChain, bool) {
			return metrics.AuditChain{OK: true, VerifiedSeq: 99, VerifiedAt: time.Unix(1_700_000_000, 0), Took: 1500 * time.Millisecond, Unproved: 4}, true
		},
	})
	m.EventIngested("p", "celery", "task.started", 3)
	m.DeadLetter("p", "too_old")
	m.TaskState("p", "app.add", "success", 2)
	m.TaskDuration("p", "app.add", 20*time.Millisecond, 1)
	m.Frame("heartbeat")
	m.Refusal("4401")
	m.Connections(2)
	m.Connections(-1)
	m.IngestCommit(3 * time.Millisecond)
	m.Request("get-health", 204, time.Millisecond)
	m.Request("", 404, time.Millisecond)
	m.Request("get-health", 0, time.Millisecond)
	m.JobFailed("tidy", true)
	_, body, _ := scrape(t, m, metrics.Access{Public: true}, "")
	has(t, body,
		`z4j_build_info{version="1.2.3"} 1`,
		`z4j_events_ingested_total{engine="celery",kind="task.started",project="p"} 3`,
		`z4j_dead_letters_total{project="p",reason="too_old"} 1`,
		`z4j_tasks_total{project="p",state="success",task_name="app.add"} 2`,
		`z4j_task_duration_seconds_count{project="p",task_name="app.add"} 1`,
		`z4j_agent_frames_total{type="heartbeat"} 1`,
		`z4j_agent_refusals_total{code="4401"} 1`,
		`z4j_ws_connections 1`,
		`z4j_ingest_commit_seconds_count 1`,
		`z4j_http_request_seconds_count{route="get-health",status="2xx"} 1`,
		`z4j_http_request_seconds_count{route="other",status="4xx"} 1`,
		`z4j_background_task_error_active{task="tidy"} 1`,
		`z4j_db_pool_size 12`, `z4j_db_pool_checked_out 3`,
		`z4j_snapshot_age_seconds 90`,
		`z4j_anchor_trouble{anchor="home",fault="silent"} 0`, `z4j_anchor_trouble{anchor="1",fault="unreadable"} 1`,
		`z4j_inmemory_state_items{subsystem="slots"} 7`,
		`z4j_agents_online{project="p"} 2`, `z4j_workers_online{project="p"} 3`,
		`z4j_queue_depth{engine="celery",project="p",queue="mail"} 5`,
		`z4j_scrape_state_error 0`,
		`z4j_audit_chain_ok 1`, `z4j_audit_verified_seq 99`, `z4j_audit_verify_duration_seconds 1.5`, `z4j_audit_unproved_rows 4`,
		`z4j_audit_verified_timestamp_seconds 1.7e+09`,
	)
	m.JobFailed("tidy", false)
	_, body, _ = scrape(t, m, metrics.Access{Public: true}, "")
	has(t, body, `z4j_background_task_error_active{task="tidy"} 0`)
}

func TestLessonF25LabelsAreBounded(t *testing.T) {
	m := metrics.New(metrics.Options{State: func(context.Context) ([]metrics.ProjectState, error) {
		p := metrics.ProjectState{Project: "p"}
		for i := range 600 {
			p.Queues = append(p.Queues, metrics.QueueDepth{Engine: "celery", Queue: fmt.Sprint("q", i), Pending: 1})
		}
		return []metrics.ProjectState{p}, nil
	}})
	for i := range 1100 {
		m.TaskState("p", fmt.Sprint("task", i), "success", 1)
		m.EventIngested("p", fmt.Sprint("engine", i), fmt.Sprint("kind", i), 1)
	}
	m.TaskState("p", strings.Repeat("x", 500)+"\xff", "success", 1)
	m.TaskState("other", strings.Repeat("é", 200)+"\xff", "success", 1)
	_, body, _ := scrape(t, m, metrics.Access{Public: true}, "")
	has(t, body,
		`z4j_tasks_total{project="p",state="success",task_name="__overflow__"} 101`,
		`z4j_tasks_total{project="other",state="success",task_name="`+strings.Repeat("é", 64)+`"} 1`,
		`z4j_queue_depth{engine="celery",project="p",queue="__overflow__"} 100`,
		`z4j_events_ingested_total{engine="__overflow__",kind="__overflow__",project="p"} 1036`)
	if got := strings.Count(body, "\nz4j_events_ingested_total{"); got > 65 {
		t.Errorf("series of z4j_events_ingested_total: %d, want at most 65", got)
	}
}

func TestAScrapeSurvivesADatabaseThatIsGone(t *testing.T) {
	m := metrics.New(metrics.Options{State: func(context.Context) ([]metrics.ProjectState, error) { return nil, errors.New("gone") }})
	m.Connections(1)
	code, body, _ := scrape(t, m, metrics.Access{Public: true}, "")
	if code != 200 {
		t.Errorf("status %d, want 200", code)
	}
	has(t, body, `z4j_ws_connections 1`, `z4j_scrape_state_error 1`)
}

func TestTwoBrainsShareNoNumber(t *testing.T) {
	a, b := metrics.New(metrics.Options{}), metrics.New(metrics.Options{})
	a.Connections(5)
	_, body, _ := scrape(t, b, metrics.Access{Public: true}, "")
	has(t, body, `z4j_ws_connections 0`)
}

func TestNilCountsNothing(t *testing.T) {
	var m *metrics.Metrics
	m.EventIngested("p", "e", "k", 1)
	m.DeadLetter("p", "r")
	m.TaskState("p", "n", "s", 1)
	m.TaskDuration("p", "n", 1, 1)
	m.Frame("f")
	m.Refusal("c")
	m.Connections(1)
	m.IngestCommit(1)
	m.Request("r", 200, 1)
	m.JobFailed("j", true)
}
