package conformance_test

import (
	"bytes"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// settled waits until the brain shows a task in a state, and returns it.
func (l *lab) settled(t *testing.T, id, state string) task {
	t.Helper()
	var one task
	eventually(t, "task "+id+" in state "+state, func() (bool, string) {
		one = l.brain.task(id)
		return one.State == state, one.State
	})
	return one
}

// wantText reports a field that differs.
func wantText(t *testing.T, field, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %s, want %s", field, got, want)
	}
}

func (l *lab) success(t *testing.T) {
	ids := l.send(t, order{Task: "add", Args: []any{2, 3}})
	one := l.settled(t, ids[0], "success")
	wantText(t, "name", text(one.Name), "shop.add")
	wantText(t, "queue", text(one.Queue), "celery")
	wantText(t, "worker", text(one.WorkerName), "w1@lab")
	wantText(t, "args", string(one.Args), "[2,3]")
	wantText(t, "result", string(one.Result), `"5"`)
	wantText(t, "exception", text(one.Exception), "<null>")
	if len(one.Attempts) != 1 {
		t.Errorf("attempts: got %v, want one", one.Attempts)
	}
	for field, value := range map[string]*string{"received_at": one.ReceivedAt, "started_at": one.StartedAt, "finished_at": one.FinishedAt} {
		if value == nil {
			t.Errorf("%s: got null, want a time", field)
		}
	}
	if !l.workerSeen(t) {
		t.Error("workers: got none named w1@lab, want it")
	}
}

// workerSeen reports whether the list of workers has ours, online.
func (l *lab) workerSeen(t *testing.T) bool {
	t.Helper()
	var workers []struct {
		Name  string `json:"name"`
		State string `json:"state"`
	}
	l.brain.call(t, http.MethodGet, "/projects/"+project+"/workers", nil, http.StatusOK, &workers)
	for _, w := range workers {
		if w.Name == "w1@lab" && w.State == "online" {
			return true
		}
	}
	return false
}

func (l *lab) failure(t *testing.T) {
	ids := l.send(t, order{Task: "fail", Args: []any{"no such customer"}})
	one := l.settled(t, ids[0], "failure")
	wantText(t, "name", text(one.Name), "shop.fail")
	if !strings.Contains(text(one.Exception)+text(one.Traceback), "no such customer") {
		t.Errorf("exception and traceback: got %s and %s, want the message", text(one.Exception), text(one.Traceback))
	}
	if !strings.Contains(text(one.Traceback), "raise ValueError") {
		t.Errorf("traceback: got %s, want the line that raised", text(one.Traceback))
	}
}

func (l *lab) retry(t *testing.T) {
	ids := l.send(t, order{Task: "flaky", Args: []any{2}}, order{Task: "hopeless"})
	l.settled(t, ids[0], "success")
	l.settled(t, ids[1], "failure")
	for _, tt := range []struct {
		name string
		id   string
		want []string
	}{
		{"twice retried, then well", ids[0], []string{"retry", "retry", "success"}},
		{"twice retried, then given up", ids[1], []string{"retry", "retry", "failure"}},
	} {
		// An event of an earlier attempt may come after the one that settled the task.
		eventually(t, tt.name, func() (bool, string) {
			var states []string
			one := l.brain.task(tt.id)
			for _, a := range slices.Backward(one.Attempts) { // the API has the newest first
				states = append(states, a.State)
			}
			return slices.Equal(states, tt.want) && one.RetryCount == 2,
				fmt.Sprintf("attempts %q, retry_count %d, events %v, want attempts %q", states, one.RetryCount, l.brain.events(t, tt.id), tt.want)
		})
	}
}

func (l *lab) revoke(t *testing.T) {
	ids := l.send(t, order{Task: "nap", Args: []any{300}})
	l.settled(t, ids[0], "started")
	l.send(t, order{Revoke: ids[0], Terminate: true})
	one := l.settled(t, ids[0], "revoked")
	wantText(t, "name", text(one.Name), "shop.nap")
}

func (l *lab) unicode(t *testing.T) {
	const said = "süß, 日本語, 🎉, a\u0301, \u202e, \"quoted\", \\ and \u0001"
	ids := l.send(t, order{Task: "say", Args: []any{said}, Kwargs: map[string]any{"ключ": said}}, order{Task: "fail", Args: []any{"größer 🎈"}})
	one := l.settled(t, ids[0], "success")
	var args []string
	if err := json.Unmarshal(one.Args, &args); err != nil || len(args) != 1 || args[0] != said {
		t.Errorf("args: got %s (%v), want %q", one.Args, err, said)
	}
	var kwargs map[string]string
	if err := json.Unmarshal(one.Kwargs, &kwargs); err != nil || kwargs["ключ"] != said {
		t.Errorf("kwargs: got %s (%v), want %q", one.Kwargs, err, said)
	}
	bad := l.settled(t, ids[1], "failure")
	if !strings.Contains(text(bad.Exception)+text(bad.Traceback), "größer 🎈") {
		t.Errorf("exception: got %s, want the message", text(bad.Exception))
	}
}

// secrets sends a canary under names that give it away, and looks for it wherever the brain writes.
func (l *lab) secrets(t *testing.T) {
	const canary = "canary-7f3a9c-do-not-keep"
	ids := l.send(t, order{
		Task: "say", Args: []any{map[string]any{"password": canary, "nested": []any{map[string]any{"api_key": canary}}}, 4711},
		Kwargs: map[string]any{"password": canary, "client_secret": canary, "amount": 12},
	})
	one := l.settled(t, ids[0], "success")
	if !bytes.Contains(one.Args, []byte("4711")) || !bytes.Contains(one.Kwargs, []byte("12")) {
		t.Errorf("args and kwargs: got %s and %s, want what is no secret to be there", one.Args, one.Kwargs)
	}
	for _, path := range []string{"/tasks/celery/" + ids[0], "/tasks?limit=50", "/events?engine=celery&task_id=" + ids[0], "/audit"} {
		status, answer, err := l.brain.try(http.MethodGet, "/projects/"+project+path, nil)
		if err != nil || status != http.StatusOK {
			t.Errorf("GET %s: got %d %v, want 200", path, status, err)
		}
		if bytes.Contains(answer, []byte(canary)) {
			t.Errorf("GET %s: the answer has the secret", path)
		}
	}
	l.searchFiles(t, canary)
	if l.brain.postgres != "" {
		l.searchTables(t, canary)
	}
}

// searchFiles looks for a text in every file of the brain's home: its log, and its database if that is SQLite.
func (l *lab) searchFiles(t *testing.T, canary string) {
	t.Helper()
	searched := 0
	err := filepath.WalkDir(l.brain.home, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		searched++
		if bytes.Contains(content, []byte(canary)) {
			t.Errorf("%s has the secret", filepath.Base(path))
		}
		return nil
	})
	if err != nil || searched == 0 {
		t.Errorf("search the brain's files: got %d files, %v", searched, err)
	}
}

// searchTables looks for a text in every row of every table.
func (l *lab) searchTables(t *testing.T, canary string) {
	t.Helper()
	db, err := sql.Open("pgx", l.brain.postgres)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var joined string
	list := `SELECT coalesce(string_agg(quote_ident(tablename), ' '), '') FROM pg_tables WHERE schemaname = current_schema()`
	if err := db.QueryRowContext(t.Context(), list).Scan(&joined); err != nil || joined == "" {
		t.Fatalf("list the tables: got %q, %v", joined, err)
	}
	for name := range strings.FieldsSeq(joined) {
		var found int
		query := `SELECT count(*) FROM ` + name + ` AS r WHERE position($1 in r::text) > 0 OR position($2 in r::text) > 0`
		if err := db.QueryRowContext(t.Context(), query, canary, hex.EncodeToString([]byte(canary))).Scan(&found); err != nil {
			t.Fatalf("search table %s: %v", name, err)
		}
		if found > 0 {
			t.Errorf("table %s: %d rows have the secret", name, found)
		}
	}
}

func (l *lab) queues(t *testing.T) {
	names := []string{"celery", "mail", "süß"}
	var orders []order
	for _, queue := range names {
		orders = append(orders, order{Task: "add", Args: []any{1, 1}, Queue: queue, N: 3})
	}
	ids := l.send(t, orders...)
	for i, id := range ids {
		wantText(t, "queue of task "+id, text(l.settled(t, id, "success").Queue), names[i/3])
	}
	var listed []struct {
		Name string `json:"name"`
	}
	l.brain.call(t, http.MethodGet, "/projects/"+project+"/queues", nil, http.StatusOK, &listed)
	for _, want := range names {
		if !slices.ContainsFunc(listed, func(q struct {
			Name string `json:"name"`
		},
		) bool {
			return q.Name == want
		}) {
			t.Errorf("queues: got %v, want %s among them", listed, want)
		}
	}
}

func (l *lab) workerReturns(t *testing.T) {
	before := l.send(t, order{Task: "add", Args: []any{1, 2}})
	l.settled(t, before[0], "success")
	l.stopWorker(t)
	l.waitForAgent(t, "offline")
	meanwhile := l.send(t, order{Task: "add", Args: []any{3, 4}, N: 5})
	l.startWorker(t)
	// The agent hears of starts and ends through the broker, and subscribes a moment after the worker has begun to run what waited:
	// how these tasks ended it may never know. That they were taken it does.
	for _, id := range meanwhile {
		eventually(t, "task "+id+" that waited for the worker", func() (bool, string) {
			state := l.brain.task(id).State
			return slices.Contains([]string{"received", "started", "success"}, state), state
		})
	}
	after := l.send(t, order{Task: "add", Args: []any{5, 6}})
	l.settled(t, after[0], "success")
	wantText(t, "a task of before", l.brain.task(before[0]).State, "success")
	eventually(t, "worker online again", func() (bool, string) { return l.workerSeen(t), "not among the workers" })
}

// killedUnderLoad kills the brain twice while tasks run, and then compares each of them with what really happened.
func (l *lab) killedUnderLoad(t *testing.T) {
	l.waitForCalm(t)
	earlier := l.truth(t)
	ids := l.send(t,
		order{Task: "add", Args: []any{1, 2}, N: 120}, order{Task: "fail", Args: []any{"under load"}, N: 40},
		order{Task: "flaky", Args: []any{1}, N: 40}, order{Task: "add", Args: []any{3, 4}, N: 120},
		order{Task: "hopeless", N: 20}, order{Task: "say", Args: []any{"x"}, N: 60},
	)
	ended := func() int {
		now := l.truth(t)
		return len(now.Succeeded) + len(now.Failed) - len(earlier.Succeeded) - len(earlier.Failed)
	}
	for _, part := range []int{len(ids) / 4, len(ids) / 2} {
		eventually(t, fmt.Sprintf("%d tasks ended", part), func() (bool, string) { n := ended(); return n >= part, fmt.Sprint(n) })
		l.brain.kill()
		down := part + len(ids)/8 // the worker goes on without a brain
		eventually(t, fmt.Sprintf("%d tasks ended", down), func() (bool, string) { n := ended(); return n >= down, fmt.Sprint(n) })
		l.brain.start(t)
		l.waitForAgent(t, "online")
	}
	eventually(t, "all tasks ended", func() (bool, string) { n := ended(); return n >= len(ids), fmt.Sprint(n) })
	truth := l.truth(t)
	want := func(id string) string {
		if truth.Failed[id] > 0 {
			return "failure"
		}
		return "success"
	}
	// An agent resends what was not acknowledged at the latest 91 s after it was sent.
	within(t, patience, "the brain knows how each task ended", func() (bool, string) {
		all := l.brain.tasks(t)
		open, byState, example := 0, map[string]int{}, ""
		for _, id := range ids {
			if got := all[id].State; got != want(id) {
				open++
				byState[got+" instead of "+want(id)]++
				example = id
			}
		}
		if open == 0 {
			return true, ""
		}
		return false, fmt.Sprintf("%d of %d tasks are not there yet: %v; for example %s: %v", open, len(ids), byState, example, l.brain.events(t, example))
	})
	for _, id := range ids {
		l.compare(t, id, truth)
	}
	l.compareCounts(t)
}

// compare checks one task's attempts and events against the executions that it counted itself.
func (l *lab) compare(t *testing.T, id string, truth counts) {
	t.Helper()
	one := l.brain.task(id)
	runs := truth.Succeeded[id] + truth.Failed[id] + truth.Retried[id]
	if len(one.Attempts) != runs {
		t.Errorf("task %s (%s): got %d attempts %v, want %d", id, text(one.Name), len(one.Attempts), one.Attempts, runs)
	}
	if one.RetryCount != truth.Retried[id] {
		t.Errorf("task %s (%s): got retry_count %d, want %d", id, text(one.Name), one.RetryCount, truth.Retried[id])
	}
	kinds, seen := map[string]int{}, map[string]bool{}
	for _, e := range l.brain.events(t, id) {
		if seen[e.ID] {
			t.Errorf("task %s: event %s is there twice", id, e.ID)
		}
		seen[e.ID] = true
		if e.Remark == nil { // one with a remark is the same fact told again
			kinds[e.Kind]++
		}
	}
	for kind, want := range map[string]int{
		"task.received": runs, "task.started": runs, "task.succeeded": truth.Succeeded[id], "task.failed": truth.Failed[id], "task.retried": truth.Retried[id],
	} {
		if kinds[kind] != want {
			t.Errorf("task %s (%s): got %d events %s, want %d (all: %v)", id, text(one.Name), kinds[kind], kind, want, kinds)
		}
	}
}

// compareCounts checks the numbers that are kept as differences against a count of everything.
func (l *lab) compareCounts(t *testing.T) {
	t.Helper()
	byState := map[string]int{}
	for _, one := range l.brain.tasks(t) {
		byState[one.State]++
	}
	var stats struct {
		TasksByState map[string]int `json:"tasks_by_state"`
		Total        int            `json:"tasks_total"`
		Failed       int            `json:"tasks_failed_24h"`
		Succeeded    int            `json:"tasks_succeeded_24h"`
	}
	l.brain.call(t, http.MethodGet, "/projects/"+project+"/stats", nil, http.StatusOK, &stats)
	total := 0
	for state, n := range byState {
		total += n
		if stats.TasksByState[state] != n {
			t.Errorf("stats of state %s: got %d, want %d", state, stats.TasksByState[state], n)
		}
	}
	if stats.Total != total {
		t.Errorf("tasks_total: got %d, want %d", stats.Total, total)
	}
	if stats.Succeeded != byState["success"] || stats.Failed != byState["failure"] {
		t.Errorf("succeeded and failed in 24 h: got %d and %d, want %d and %d", stats.Succeeded, stats.Failed, byState["success"], byState["failure"])
	}
}

func (l *lab) tokenRevoked(t *testing.T) {
	l.waitForAgent(t, "online")
	l.brain.call(t, http.MethodDelete, "/projects/"+project+"/agents/"+l.keys.Agent.ID, nil, http.StatusNoContent, nil)
	ids := l.send(t, order{Task: "add", Args: []any{1, 2}, N: 3})
	eventually(t, "the worker works on without its token", func() (bool, string) {
		truth := l.truth(t)
		for _, id := range ids {
			if truth.Succeeded[id] == 0 {
				return false, "not yet run: " + id
			}
		}
		return true, ""
	})
	for _, id := range ids {
		if one := l.brain.task(id); one.State != "" {
			t.Errorf("task %s of a revoked agent: got state %s, want it unknown", id, one.State)
		}
	}
	l.stopWorker(t)
	l.keys = l.brain.mint(t, "shop-again")
	l.startWorker(t)
	fresh := l.send(t, order{Task: "add", Args: []any{5, 6}})
	l.settled(t, fresh[0], "success")
}

func (l *lab) audited(t *testing.T) {
	for _, args := range [][]string{{"audit", "verify"}, {"check"}, {"status"}, {"health"}, {"version"}} {
		if _, code := l.brain.run(t, args...); code != 0 {
			t.Errorf("z4j-brain %s: got exit code %d, want 0", strings.Join(args, " "), code)
		}
	}
	var page struct {
		Items []struct {
			Action string `json:"action"`
		} `json:"items"`
	}
	l.brain.call(t, http.MethodGet, "/projects/"+project+"/audit?limit=500", nil, http.StatusOK, &page)
	seen := map[string]int{}
	for _, row := range page.Items {
		seen[row.Action]++
	}
	if seen["agent.token.minted"] < 2 || seen["agent.token.revoked"] < 1 {
		t.Errorf("audit: got %v, want two agents minted and one revoked", seen)
	}
}

func (l *lab) stopped(t *testing.T) {
	const most = 20 * time.Second
	if took := l.brain.stop(t); took > most {
		t.Errorf("stop: took %v, want at most %v", took, most)
	} else {
		t.Logf("stopped in %v", took.Round(time.Millisecond))
	}
}
