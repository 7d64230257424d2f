package load_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/app/apptest"
	"github.com/z4j-go/z4j/internal/load"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// command runs z4j-loadgen.
func command(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = load.Command(load.Process{Args: args, Stdout: &out, Stderr: &err, Now: time.Now})
	return code, out.String(), err.String()
}

// summary runs it against a brain and reads what it says.
func summary(t *testing.T, b *apptest.Brain, want int, args ...string) load.Summary {
	t.Helper()
	args = append([]string{"run", "--json", "--url", b.URL(), "--email", apptest.Email, "--password", apptest.Password}, args...)
	code, stdout, stderr := command(args...)
	if code != want {
		t.Fatalf("%q: exit code %d, want %d\n%s%s", args, code, want, stdout, stderr)
	}
	var s load.Summary
	if err := json.Unmarshal([]byte(stdout), &s); err != nil {
		t.Fatalf("%q prints no JSON: %v\n%s", args, err, stdout)
	}
	return s
}

// TestRunAgainstABrain compares what was acked with what the API shows.
func TestRunAgainstABrain(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := apptest.Start(t, apptest.Options{Database: url})
		b.Client.Login(apptest.Email, apptest.Password)
		var acked int64
		for _, args := range [][]string{
			{"--order", "interleaved", "--duration", "700ms", "--rate", "3000"},
			{"--order", "completed", "--batch", "40", "--events", "2000", "--duration", "0", "--engines", "celery,rq,huey", "--agents", "3", "--processes", "2"},
		} {
			s := summary(t, b, 0, append(args, "--samples", "20", "--projects", "2")...)
			acked += s.Acked
			if s.Acked == 0 || s.Acked != s.Sent || s.Accepted != s.Acked || s.Rejected != 0 || s.Unacked != 0 || len(s.Errors) > 0 {
				t.Errorf("%q: %+v, want every event acked as new", args, s)
			}
			if s.Ack == nil || s.Ack.P50 <= 0 || s.Ack.P99 < s.Ack.P50 || s.Visible == nil || s.Visible.P50 <= 0 {
				t.Errorf("%q: ack %+v, visible %+v, want both measured", args, s.Ack, s.Visible)
			}
			if s.Rate <= 0 || s.Seconds <= 0 {
				t.Errorf("%q: %f events a second in %f s", args, s.Rate, s.Seconds)
			}
		}
		db := storetest.DB(t, url)
		if got := storetest.Rows(t, db, `SELECT count(*) FROM events`)[0][0]; got != fmt.Sprint(acked) {
			t.Errorf("%s rows of events, want the %d that were acked", got, acked)
		}
		if got := storetest.Rows(t, db, `SELECT count(*), count(revoked_at) FROM agents`)[0]; !slices.Equal(got, []string{"11", "11"}) {
			t.Errorf("agents, and revoked ones: %q, want 11 minted and all revoked", got)
		}
		if dead := storetest.Rows(t, db, `SELECT reason, detail FROM dead_letters`); len(dead) > 0 {
			t.Errorf("dead letters: %q", dead)
		}
		total := int64(0)
		for _, slug := range []string{"load-1", "load-2"} {
			var page struct {
				Total int64 `json:"total_count"`
			}
			b.Client.Do(http.MethodGet, "/api/v1/projects/"+slug+"/tasks?include_total=true&limit=1", nil, http.StatusOK, &page)
			if page.Total == 0 {
				t.Errorf("project %s has no tasks", slug)
			}
			total += page.Total
		}
		if got := storetest.Rows(t, db, `SELECT count(*) FROM tasks`)[0][0]; got != fmt.Sprint(total) {
			t.Errorf("the API counts %d tasks, the table has %s", total, got)
		}
	})
}

func TestRunWithAFileOfTokens(t *testing.T) {
	b := apptest.Start(t, apptest.Options{})
	file := filepath.Join(t.TempDir(), "tokens.json")
	s := summary(t, b, 0, "--save", file, "--agents", "2", "--projects", "1", "--events", "100", "--rate", "1000")
	if s.Acked != 100 || s.Connections != 2 {
		t.Errorf("first run: %+v, want 100 events of 2 agents", s)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of tokens: %v, %v; want mode 0600", info, err)
	}
	code, stdout, stderr := command("--url", b.URL(), "--tokens", file, "--events", "50")
	if code != 0 || !strings.Contains(stdout, "50 acked of 50") || strings.Contains(stdout, "visible") {
		t.Errorf("with tokens alone: %d\n%s%s\nwant 50 events acked and nothing said of the API", code, stdout, stderr)
	}
	if code, _, stderr := command("--url", b.URL(), "--tokens", file, "--events", "50", "--save", file, "--email", apptest.Email, "--password", "wrong"); code != 1 || !strings.Contains(stderr, "log in") {
		t.Errorf("wrong password: %d %s, want 1 and that it is about the log-in", code, stderr)
	}
}

func TestRunIdle(t *testing.T) {
	b := apptest.Start(t, apptest.Options{})
	s := summary(t, b, 0, "--idle", "--agents", "2", "--processes", "10", "--duration", "500ms")
	if s.Connections != 20 || s.Sent != 0 || s.Connect == nil || s.Connect.N != 20 || len(s.Errors) > 0 {
		t.Errorf("idle: %+v, want 20 connections and no events", s)
	}
}

func TestRunGoals(t *testing.T) {
	b := apptest.Start(t, apptest.Options{})
	if s := summary(t, b, 0, "--events", "300", "--goal", "1"); !s.Met {
		t.Errorf("a goal of 1: %+v, want it met", s)
	}
	if s := summary(t, b, 3, "--events", "300", "--goal", "1e9"); s.Met || s.Acked != 300 {
		t.Errorf("a goal of 1e9: %+v, want it missed", s)
	}
}

func TestRunAgainstNobody(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens.json")
	text := `[{"project":"p","token":"t","hmac_secret":"` + strings.Repeat("A", 43) + `="}]`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b := apptest.Start(t, apptest.Options{})
	code, stdout, _ := command("--url", b.URL(), "--tokens", file, "--duration", "300ms")
	if code != 1 || !strings.Contains(stdout, "status 401") {
		t.Errorf("with a token that nobody minted: %d %s, want 1 and the status", code, stdout)
	}
	code, stdout, _ = command("--url", "http://127.0.0.1:1", "--tokens", file, "--duration", "300ms")
	if code != 1 || !strings.Contains(stdout, "connection refused") {
		t.Errorf("without a brain: %d %s, want 1 and why", code, stdout)
	}
}

func TestCommandRefuses(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.json")
	if err := os.WriteFile(bad, []byte(`[{"project":"p"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, want string
		args       []string
	}{
		{"long-poll", "long-poll", []string{"--poll", "--api-key", "k"}},
		{"nobody who asks", "--email", []string{}},
		{"an unknown flag", "--nonsense", []string{"--nonsense"}},
		{"no agents", "--agents", []string{"--api-key", "k", "--agents", "0"}},
		{"too many processes", "--processes", []string{"--api-key", "k", "--processes", "65"}},
		{"a frame of nothing", "--batch", []string{"--api-key", "k", "--batch", "0"}},
		{"a frame too large", "--batch", []string{"--api-key", "k", "--batch", "2000"}},
		{"no window", "--window", []string{"--api-key", "k", "--window", "0"}},
		{"an unknown order", "--order", []string{"--api-key", "k", "--order", "random"}},
		{"an unknown engine", "sidekiq", []string{"--api-key", "k", "--engines", "sidekiq"}},
		{"a negative rate", "--rate", []string{"--api-key", "k", "--rate=-1"}},
		{"tokens that are none", "element 0", []string{"--tokens", bad}},
		{"a database of another kind", "DATABASE_URL", []string{"fill", "mysql://x"}},
		{"a history of no tasks", "--tasks", []string{"fill", "--tasks", "0", "sqlite:x"}},
	} {
		code, _, stderr := command(tt.args...)
		if code != 2 || !strings.Contains(stderr, tt.want) {
			t.Errorf("%s: exit code %d, %q; want 2 and a text with %q", tt.name, code, stderr, tt.want)
		}
	}
}

// TestFillCommand fills a database, which a brain then works on.
func TestFillCommand(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		code, stdout, stderr := command("fill", "--tasks", "300", "--days", "2", "--projects", "2", "--json", url)
		var filled struct{ Tasks, Events int64 }
		if err := json.Unmarshal([]byte(stdout), &filled); err != nil || code != 0 || filled.Tasks < 290 {
			t.Fatalf("fill: %d\n%s%s%v", code, stdout, stderr, err)
		}
		if code, _, stderr := command("fill", "--tasks", "300", url); code != 1 || !strings.Contains(stderr, "--add") {
			t.Errorf("again: %d %s, want 1 and the way out", code, stderr)
		}
		if code, _, stderr := command("fill", "--tasks", "50", "--seed", "2", "--add", "--vacuum", url); code != 0 {
			t.Errorf("with --add: %d %s", code, stderr)
		}
		b := apptest.Start(t, apptest.Options{Database: url})
		b.Client.Login(apptest.Email, apptest.Password)
		var page struct {
			Total int64 `json:"total_count"`
			Items []store.Task
		}
		b.Client.Do(http.MethodGet, "/api/v1/projects/fill-1/tasks?include_total=true&limit=200", nil, http.StatusOK, &page)
		if page.Total < 100 || len(page.Items) < 100 {
			t.Errorf("fill-1 has %d tasks, %d on a page", page.Total, len(page.Items))
		}
		// The brain goes on where the history ends.
		if s := summary(t, b, 0, "--events", "200"); s.Acked != 200 || s.Rejected != 0 {
			t.Errorf("events on top: %+v", s)
		}
	})
}

// TestRunOverARestart stops the brain in the middle: agents come back and send again what was not acked, and nothing that
// was acked is lost.
func TestRunOverARestart(t *testing.T) {
	url := storetest.SQLite(t)
	b := apptest.Start(t, apptest.Options{Database: url})
	_, port, err := net.SplitHostPort(strings.TrimPrefix(b.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan load.Summary, 1)
	go func() {
		s, err := load.Run(t.Context(), load.RunOptions{
			URL: b.URL(), Account: load.Account{Email: apptest.Email, Password: apptest.Password}, Agents: 4, Processes: 1, Projects: 1, Engines: load.DefaultEngines(),
			Rate: 2000, Batch: 1, Window: 256, Order: load.Interleaved, EventSize: 300, Events: 3000, Now: time.Now, ID: "restart", Keep: true,
		})
		if err != nil {
			t.Error(err)
		}
		got <- s
	}()
	db := storetest.DB(t, url)
	apptest.Until(t, "some events", func() bool { return storetest.Rows(t, db, `SELECT count(*) > 300 FROM events`)[0][0] == "1" })
	if err := b.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	apptest.Start(t, apptest.Options{Database: url, Environ: []string{"Z4J_BIND_PORT=" + port}})
	s := <-got
	if s.Acked != 3000 || s.Unacked != 0 || s.Errors["closed with code 1012"] == 0 {
		t.Errorf("%+v, want 3000 events acked, and the brain's close code among the errors", s)
	}
	if rows := storetest.Rows(t, db, `SELECT count(*) FROM events`)[0][0]; rows != "3000" {
		t.Errorf("%s rows of events, want 3000", rows)
	}
}

// TestRunEndsWithWhatItHas ends a run that would go on for ever.
func TestRunEndsWithWhatItHas(t *testing.T) {
	url := storetest.SQLite(t)
	b := apptest.Start(t, apptest.Options{Database: url})
	ctx, cancel := context.WithCancel(t.Context())
	db := storetest.DB(t, url)
	go func() {
		defer cancel()
		apptest.Until(t, "some events", func() bool { return storetest.Rows(t, db, `SELECT count(*) > 100 FROM events`)[0][0] == "1" })
	}()
	s, err := load.Run(ctx, load.RunOptions{
		URL: b.URL(), Account: load.Account{Email: apptest.Email, Password: apptest.Password}, Agents: 2, Processes: 1, Projects: 1, Engines: load.DefaultEngines(),
		Batch: 10, Window: 8, Order: load.Completed, EventSize: 300, Now: time.Now, ID: "ends",
	})
	if err != nil || !s.Interrupted || s.Acked < 100 || s.Unacked != 0 {
		t.Errorf("%+v, %v; want a summary of what was acked until then", s, err)
	}
}
