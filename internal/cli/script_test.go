package cli_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/z4j-go/z4j/internal/cli"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"z4j-brain": func() { os.Exit(cli.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs testdata/*.txtar, one per command and one per past incident, on both databases.
//
// A script finds a fresh Z4J_HOME (not made yet), a free port, cheap passwords, and, on Postgres, an empty database in
// Z4J_DATABASE_URL; $DB is sqlite or postgres. Its own commands: `ready` waits until the brain is ready, `halt` sends
// SIGTERM to everything in the background; `get PATH [FILE]` and `post PATH BODY` ask the brain, with the API key that FILE
// holds, and leave status and answer in stdout; `sql TEXT…` runs each statement past everything; `until TEXT PATH` asks
// until the answer holds a text.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 12 {
		t.Fatalf("testdata holds %d scripts, want one per command at least", len(files))
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nstop\n") {
			t.Errorf("%s says stop, which is testscript's own: it ends the script there as passed; say halt", file)
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			storetest.EachURL(t, func(t *testing.T, url string) {
				testscript.Run(t, testscript.Params{
					Files: []string{file}, RequireExplicitExec: true, RequireUniqueNames: true,
					Setup:     func(e *testscript.Env) error { return prepare(t, e, url) },
					Condition: func(name string) (bool, error) { return strings.HasPrefix(url, name), nil },
					Cmds: map[string]func(*testscript.TestScript, bool, []string){
						"ready": ready, "halt": halt, "get": get, "post": post, "sql": execute(t, url), "until": until,
					},
				})
			})
		})
	}
}

func prepare(t *testing.T, e *testscript.Env, url string) error {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return err
	}
	e.Setenv("Z4J_HOME", filepath.Join(e.WorkDir, "home"))
	e.Setenv("Z4J_BIND_PORT", port)
	e.Setenv("BRAIN", "http://127.0.0.1:"+port)
	for name, value := range map[string]string{"TIME_COST": "1", "MEMORY_COST": "8192", "PARALLELISM": "1"} {
		e.Setenv("Z4J_ARGON2_"+name, value)
	}
	e.Setenv("Z4J_LOGIN_MIN_DURATION_MS", "0")
	e.Setenv("DB", "sqlite")
	if strings.HasPrefix(url, "postgres") {
		e.Setenv("DB", "postgres")
		e.Setenv("Z4J_DATABASE_URL", url)
	}
	return nil
}

// ready waits until the brain is.
func ready(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: ready")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		status, _, err := ask(ctx, http.MethodGet, ts.Getenv("BRAIN")+"/api/v1/health/ready", "", "")
		if err == nil && status == http.StatusOK {
			return
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("the brain is not ready after 30 s: status %d, %v", status, err)
		case <-tick.C:
		}
	}
}

func halt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: halt")
	}
	for _, c := range ts.BackgroundCmds() {
		ts.Check(c.Process.Signal(syscall.SIGTERM))
	}
}

// execute runs statements on the database of the script, as somebody who has a way around the brain.
func execute(t *testing.T, url string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) == 0 {
			ts.Fatalf("usage: sql TEXT…")
		}
		if strings.HasPrefix(url, "sqlite:") {
			url = "sqlite:" + filepath.Join(ts.Getenv("Z4J_HOME"), "z4j.db")
		}
		db := storetest.DB(t, url)
		for _, text := range args {
			_, err := db.ExecContext(context.Background(), text)
			ts.Check(err)
		}
	}
}

// until asks the brain until its answer holds a text.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: until TEXT PATH")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, answer, err := ask(ctx, http.MethodGet, ts.Getenv("BRAIN")+args[1], "", "")
		if err == nil && strings.Contains(answer, args[0]) {
			return
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("%s: within a minute no %q in %s, %v", args[1], args[0], answer, err)
		case <-tick.C:
		}
	}
}

func get(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: get PATH [FILE]")
	}
	key := ""
	if len(args) == 2 {
		key = strings.TrimSpace(ts.ReadFile(args[1]))
	}
	show(ts, http.MethodGet, args[0], "", key)
}

func post(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: post PATH BODY")
	}
	show(ts, http.MethodPost, args[0], args[1], "")
}

func show(ts *testscript.TestScript, method, path, body, key string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	status, answer, err := ask(ctx, method, ts.Getenv("BRAIN")+path, body, key)
	ts.Check(err)
	_, err = fmt.Fprintf(ts.Stdout(), "%d %s\n", status, answer)
	ts.Check(err)
}

func ask(ctx context.Context, method, url, body, key string) (status int, answer string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}
