package app_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/app/apptest"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/wire"
)

type taskPage struct {
	Items []struct {
		TaskID string `json:"task_id"`
		Name   string `json:"name"`
		State  string `json:"state"`
	} `json:"items"`
}

// told is an event of a Celery task as agents send it; data are further members of its data.
func told(n int, kind, task string, at time.Time, data string) string {
	return fmt.Sprintf(`{"id":"0b8f7a52-51f0-4d5e-9d0c-%012d","kind":%q,"engine":"celery","task_id":%q,"occurred_at":%q,"data":{"task_name":"shop.charge"%s}}`,
		n, kind, task, at.UTC().Format("2006-01-02T15:04:05.000000+00:00"), data)
}

// TestAnAgentsTaskIsInTheAPI goes the one straight road through all layers: minted by the API, connected, reported,
// acknowledged, read back, counted; then revoked, which closes the connection at once.
func TestAnAgentsTaskIsInTheAPI(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := apptest.Start(t, apptest.Options{Database: url, Environ: []string{"Z4J_METRICS_PUBLIC=true"}})
		b.Client.Login(apptest.Email, apptest.Password)
		agent := b.Client.Mint("default", "shop", time.Now)
		p := agent.Process(t, nil)
		p.Connect(b.URL())
		now := time.Now()
		p.Send(told(1, "task.received", "t-1", now, `,"queue":"mail"`), told(2, "task.started", "t-1", now.Add(10*time.Millisecond), `,"worker":"celery@w1"`),
			told(3, "task.succeeded", "t-1", now.Add(30*time.Millisecond), `,"worker":"celery@w1","runtime_ms":20`))
		p.Settle()
		var page taskPage
		b.Client.Do(http.MethodGet, "/api/v1/projects/default/tasks", nil, http.StatusOK, &page)
		if len(page.Items) != 1 || page.Items[0].TaskID != "t-1" || page.Items[0].State != "success" || page.Items[0].Name != "shop.charge" {
			t.Errorf("tasks: %+v, want t-1, shop.charge, success", page.Items)
		}
		var project struct{ ID string }
		b.Client.Do(http.MethodGet, "/api/v1/projects/default", nil, http.StatusOK, &project)
		_, _, text := b.Client.Try(http.MethodGet, "/metrics", nil)
		for _, want := range []string{
			`z4j_events_ingested_total{engine="celery",kind="task.started",project="` + project.ID + `"} 1`,
			`z4j_tasks_total{project="` + project.ID + `",state="success",task_name="shop.charge"} 1`,
			`z4j_task_duration_seconds_count{project="` + project.ID + `",task_name="shop.charge"} 1`,
			`z4j_agents_online{project="` + project.ID + `"} 1`,
			`z4j_agent_frames_total{type="event_batch"} 1`, `z4j_ws_connections 1`,
			`z4j_http_request_seconds_count{route="list-tasks",status="2xx"} 1`,
		} {
			if !strings.Contains(string(text), "\n"+want+"\n") {
				t.Errorf("metrics lack %s", want)
			}
		}
		b.Client.Do(http.MethodDelete, "/api/v1/projects/default/agents/"+agent.ID, nil, http.StatusNoContent, nil)
		if code := websocket.CloseStatus(p.Ended()); code != wire.CloseRevoked {
			t.Errorf("connection of the revoked agent: closed with %d, want %d", code, wire.CloseRevoked)
		}
		var refused apptest.Refused
		if err := p.TryConnect(b.URL()); !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized {
			t.Errorf("revoked agent: %v, want 401", err)
		}
	})
}

func TestStopTellsAgentsToComeBackAndLosesNothing(t *testing.T) {
	url := storetest.SQLite(t)
	b := apptest.Start(t, apptest.Options{Database: url})
	b.Client.Login(apptest.Email, apptest.Password)
	p := b.Client.Mint("default", "shop", time.Now).Process(t, nil)
	p.Connect(b.URL())
	const frames = 50
	for n := range frames {
		p.Send(told(n, "task.received", "t-"+strconv.Itoa(n), time.Now(), ""))
	}
	began := time.Now()
	if err := b.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > app.StopTimeout/2 {
		t.Errorf("stop took %v, want far less than %v", took, app.StopTimeout)
	}
	if code := websocket.CloseStatus(p.Ended()); code != wire.CloseRestart {
		t.Errorf("agent: closed with %d, want %d", code, wire.CloseRestart)
	}
	acked := frames - p.Waiting()
	again := apptest.Start(t, apptest.Options{Database: url})
	again.Client.Login(apptest.Email, apptest.Password)
	count := func() int {
		var page taskPage
		again.Client.Do(http.MethodGet, "/api/v1/projects/default/tasks?limit=500", nil, http.StatusOK, &page)
		return len(page.Items)
	}
	if got := count(); got < acked {
		t.Errorf("tasks after the restart: %d, want at least the %d that were acked", got, acked)
	}
	p.Connect(again.URL())
	p.Settle()
	if got := count(); got != frames {
		t.Errorf("tasks when the agent is back: %d, want %d", got, frames)
	}
}

func TestANewSessionSecretLogsEverybodyOut(t *testing.T) {
	url := storetest.SQLite(t)
	b := apptest.Start(t, apptest.Options{Database: url})
	b.Client.Login(apptest.Email, apptest.Password)
	if err := b.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	const other = "Z4J_SESSION_SECRET=another-session-secret-another-session-1"
	for _, tt := range []struct {
		name    string
		environ []string
		want    int
	}{
		{"the same secret", nil, http.StatusOK},
		{"another secret", []string{other}, http.StatusUnauthorized},
		{"another secret, and the old one named", []string{other, "Z4J_PREVIOUS_SESSION_SECRETS=" + apptest.SessionSecret}, http.StatusOK},
	} {
		again := apptest.Start(t, apptest.Options{Database: url, Environ: tt.environ})
		b.Client.Base = again.URL()
		if status, _, _ := b.Client.Try(http.MethodGet, "/api/v1/auth/me", nil); status != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, status, tt.want)
		}
		if err := again.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
}
