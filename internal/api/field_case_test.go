package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/store"
)

// listed returns the task ids of a list, in its order.
func listed(t *testing.T, c *client, query string) string {
	t.Helper()
	got := c.get("/projects/default/tasks?"+query).must(t, query, 200)
	var page struct{ Items []store.Task }
	if err := json.Unmarshal([]byte(got.text), &page); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, task := range page.Items {
		ids = append(ids, task.TaskID)
	}
	return strings.Join(ids, " ")
}

// TestF01 is a message handed out again at each visibility time-out: one task, two runs, its wait counted from the first
// sight.
func TestF01(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		f := b.feed(root)
		at := func(hours, minutes int) time.Duration {
			return 3*time.Hour - time.Duration(hours)*time.Hour - time.Duration(minutes)*time.Minute
		}
		more := `"task_name":"pub.export","queue":"slow","args":[7],"kwargs":{}`
		events := []string{
			f.ev("task.received", "a1", "celery@n1", at(0, 0), more), f.ev("task.received", "a1", "celery@n2", at(1, 0), more),
			f.ev("task.received", "a1", "celery@n1", at(2, 0), more), f.ev("task.started", "a1", "celery@n2", at(2, 5), ``),
			f.ev("task.started", "a1", "celery@n1", at(2, 6), ``), f.ev("task.succeeded", "a1", "celery@n2", at(2, 45), `"result":"'ok'"`),
			f.ev("task.succeeded", "a1", "celery@n1", at(2, 47), `"result":"'ok'"`),
		}
		for i := range events {
			f.send(events[len(events)-1-i]) // the last first
		}
		got := root.get("/projects/default/tasks/celery/a1").must(t, "task", 200)
		attempts := got.body["attempts"].([]any)
		first := attempts[len(attempts)-1].(object)
		if got.body["state"] != "success" || got.body["deliveries"] != 3.0 || len(attempts) != 2 || first["wait_ms"] != 2*3600e3+5*60e3 || attempts[0].(object)["wait_ms"] != nil {
			t.Errorf("task: %s", got.text)
		}
		home := root.get("/home/summary").must(t, "home", 200)
		if n := home.body["aggregate"].(object)["tasks_24h"]; n != 1.0 {
			t.Errorf("home counts %v tasks, want 1", n)
		}
	})
}

// TestF03 is a task whose beginning is heard late or never: unknown is null, and it is found by what is known.
func TestF03(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		f := b.feed(root)
		f.send(f.ev("task.succeeded", "a3", "celery@n1", time.Minute, `"result":"3","runtime_ms":250`))
		got := root.get("/projects/default/tasks/celery/a3").must(t, "task", 200)
		for _, field := range []string{"name", "queue", "args", "kwargs", "started_at", "received_at", "wait_ms"} {
			if v, ok := got.body[field]; !ok || v != nil {
				t.Errorf("%s: %v, want null", field, v)
			}
		}
		if got.body["state"] != "success" || got.body["runtime_ms"] != 250.0 || got.body["result"] != "3" || len(got.body["attempts"].([]any)) != 1 {
			t.Errorf("first answer: %s", got.text)
		}
		if ids := listed(t, root, "state=success"); ids != "a3" {
			t.Errorf("by state: %q, want a3", ids)
		}
		finished := got.body["finished_at"]
		f.send(f.ev("task.received", "a3", "celery@n1", time.Minute+time.Second, `"task_name":"calc.add","queue":"math","args":[1,2],"kwargs":{}`))
		got = root.get("/projects/default/tasks/celery/a3").must(t, "task", 200)
		if got.body["name"] != "calc.add" || got.body["queue"] != "math" || fmt.Sprint(got.body["args"]) != "[1 2]" || got.body["finished_at"] != finished || got.body["received_at"] == nil {
			t.Errorf("second answer: %s", got.text)
		}
		if ids := listed(t, root, "name=calc.add&state=success"); ids != "a3" {
			t.Errorf("by name: %q, want a3", ids)
		}
		if ids := listed(t, root, "state=started"); ids != "" {
			t.Errorf("running: %q, want none", ids)
		}
	})
}

// TestF07 is text that no database holds: it comes back with a visible replacement, and what only looks like it as it was.
func TestF07(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		f := b.feed(root)
		f.send(
			f.ev("task.received", "a7", "celery@o1", 3*time.Second, `"task_name":"scan.pdf","queue":"ocr","args":["spec\u0000ial","low \ud83d alone","shown \\u0000 as text"],"kwargs":{"k\u0000ey":1}`),
			f.ev("task.failed", "a7", "celery@o1", 2*time.Second, `"exception":"ValueError","exception_message":"bad byte \u0000 at 4","traceback":"line 1\u0000\nline 2"`),
			f.ev("task.received", "a7b", "celery@o1", time.Second, `"task_name":"scan.pdf","queue":"ocr","args":["fine"]`))
		got := root.get("/projects/default/tasks/celery/a7").must(t, "task", 200)
		args := got.body["args"].([]any)
		if args[2] != `shown \u0000 as text` || args[0] != "spec\ufffdial" || args[1] != "low \ufffd alone" || got.body["traceback"] != "line 1\ufffd\nline 2" {
			t.Errorf("args %q, traceback %q", args, got.body["traceback"])
		}
		if ids := listed(t, root, "search=SCAN.pdf&state=failure"); ids != "a7" {
			t.Errorf("search: %q, want a7", ids)
		}
		if ids := listed(t, root, "queue=ocr"); ids != "a7b a7" {
			t.Errorf("queue: %q, want both", ids)
		}
	})
}

// TestF13 is a deploy each ten minutes, whose workers never say goodbye: the living are first, and every count is theirs.
func TestF13(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		f := b.feed(root)
		const deploys = 520 // more than one page
		b.pass(-10 * time.Minute * deploys)
		for range deploys {
			b.pass(10 * time.Minute)
			f.send(f.ev("task.succeeded", fmt.Sprint("d", f.frames), fmt.Sprintf("celery@web-%d-x7f", f.frames), time.Second, ``))
		}
		var page []store.Worker
		got := root.get("/projects/default/workers").must(t, "workers", 200)
		if err := json.Unmarshal([]byte(got.text), &page); err != nil {
			t.Fatal(err)
		}
		if len(page) != 500 || page[0].State != store.Online || page[0].Name != fmt.Sprintf("celery@web-%d-x7f", deploys-1) || page[1].State != store.Offline {
			t.Errorf("first page: %d workers, %s %s, %s; want 500, the living one first", len(page), page[0].Name, page[0].State, page[1].State)
		}
		next := got.header.Get("X-Next-Cursor")
		if got := root.get("/projects/default/workers?cursor="+next).must(t, "second page", 200); strings.Count(got.text, `"engine"`) != deploys-500 || got.header.Get("X-Prev-Cursor") == "" {
			t.Errorf("second page: %s", got.text)
		}
		stats := root.get("/projects/default/stats").must(t, "stats", 200)
		home := root.get("/home/summary").must(t, "home", 200).body["aggregate"].(object)
		online := strings.Count(root.get("/projects/default/workers?state=online").must(t, "online", 200).text, `"online"`)
		if stats.body["workers_online"] != 1.0 || home["workers_online"] != 1.0 || online != 1 || home["workers_total"] != float64(deploys) {
			t.Errorf("online: stats %v, home %v, list %d; want 1 each", stats.body["workers_online"], home["workers_online"], online)
		}
		b.pass(240 * time.Hour)
		if got := root.get("/home/summary"); got.status == 200 && got.body["aggregate"].(object)["workers_online"] != 0.0 {
			t.Errorf("ten days later: %s", got.text)
		}
		if ids := listed(t, b.login(), "worker="+url.QueryEscape("celery@web-0-x7f")); ids != "d0" {
			t.Errorf("tasks of a dead worker: %q, want d0", ids)
		}
	})
}

// login logs the first account in again: after long tests its session is over.
func (b *brain) login() *client {
	b.t.Helper()
	c := b.client()
	c.post("/auth/login", object{"email": "root@example.com", "password": password}).must(b.t, "login", 200)
	return c
}

// TestF43 is numbers that are none: nothing answers 500, and what cannot be read is unknown.
func TestF43(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		f := b.feed(root)
		f.send(
			f.ev("task.succeeded", "n43", "celery@n1", 3*time.Second, `"task_name":"j","runtime_ms":-5`),
			f.ev("task.succeeded", "n44", "celery@n1", 2*time.Second, `"task_name":"j","runtime_ms":"12.5"`),
			f.ev("task.succeeded", "n45", "celery@n1", time.Second, `"task_name":"j","runtime_ms":0.4`))
		for taskID, want := range map[string]any{"n43": nil, "n45": 0.4} {
			if got := root.get("/projects/default/tasks/celery/"+taskID).must(t, taskID, 200); got.body["runtime_ms"] != want || got.body["state"] != "success" {
				t.Errorf("%s: run time %v in %v, want %v in success", taskID, got.body["runtime_ms"], got.body["state"], want)
			}
		}
		for _, rt := range b.server.Routes() {
			if rt.Method != http.MethodGet {
				continue
			}
			if got := root.do("GET", pathOf(rt), nil); got.status >= 500 {
				t.Errorf("%s: %d %s", rt.Path, got.status, got.text)
			}
		}
	})
}

// TestF57 opens, behind each number, a list with exactly as many rows, after each event and each repetition.
func TestF57(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		f := b.feed(root)
		m4 := f.ev("task.started", "m4", "celery@n1", 55*time.Second, `"task_name":"j"`)
		failed := f.ev("task.failed", "m4", "celery@n1", 50*time.Second, `"exception":"E"`)
		for _, e := range []string{
			f.ev("task.succeeded", "m1", "celery@n1", 60*time.Second, `"task_name":"j"`),
			f.ev("task.started", "m2", "celery@n1", 59*time.Second, `"task_name":"j"`),
			f.ev("task.revoked", "m2", "celery@n1", 58*time.Second, `"terminated":true`),
			f.ev("task.started", "m3", "celery@n1", 57*time.Second, `"task_name":"j"`),
			f.ev("task.retried", "m3", "celery@n1", 56*time.Second, `"retry_count":1`),
			m4, m4, m4, m4, failed, failed,
		} {
			f.send(e)
			stats := root.get("/projects/default/stats").must(t, "stats", 200)
			for state, n := range stats.body["tasks_by_state"].(object) {
				rows := len(strings.Fields(listed(t, root, "state="+state)))
				if float64(rows) != n {
					t.Fatalf("%s: %v by the number, %d by the list", state, n, rows)
				}
				total := root.get("/projects/default/tasks?include_total=true&state="+state).must(t, "total", 200).body["total_count"]
				if total != n {
					t.Fatalf("%s: total_count %v, want %v", state, total, n)
				}
			}
		}
		stats := root.get("/projects/default/stats").must(t, "stats", 200)
		got := fmt.Sprint(stats.body["tasks_by_state"].(object))
		if want := "map[failure:1 lost:0 pending:0 received:0 rejected:0 retry:1 revoked:1 started:0 success:1 unknown:0]"; got != want {
			t.Errorf("in the end: %s, want %s", got, want)
		}
	})
}

// TestLessonD10HomeShowsOwnProjectsOnly: neither counts nor failures of others.
func TestLessonD10HomeShowsOwnProjectsOnly(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		f := b.feed(root)
		f.send(f.ev("task.failed", "x", "celery@n1", time.Second, `"exception":"E"`))
		root.post("/projects", object{"slug": "other", "name": "Other"}).must(t, "other", 201)
		member, _ := b.user(root, "member@example.com", "viewer")
		stranger, _ := b.user(root, "stranger@example.com", "")
		for _, tt := range []struct {
			name               string
			c                  *client
			projects, failures int
			role               string
		}{
			{"a member", member, 1, 1, `"role":"viewer"`},
			{"a stranger", stranger, 0, 0, `"projects":[]`},
			{"a global admin", root, 2, 1, `"role":null`},
		} {
			home := tt.c.get("/home/summary").must(t, tt.name, 200)
			failures := tt.c.get("/home/recent-failures").must(t, tt.name, 200)
			if n := strings.Count(home.text, `"slug"`); n != tt.projects || !strings.Contains(home.text, tt.role) {
				t.Errorf("%s: %d projects, want %d and %s in %s", tt.name, n, tt.projects, tt.role, home.text)
			}
			if n := len(failures.body["items"].([]any)); n != tt.failures {
				t.Errorf("%s: %d failures, want %d", tt.name, n, tt.failures)
			}
		}
	})
}

// TestReadinessFollowsTheDatabase: without a database the brain lives and is not ready, and says nothing more to anybody.
func TestReadinessFollowsTheDatabase(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		c := b.client()
		ready := func(when string, status int, want string) {
			t.Helper()
			if got := c.do("GET", "/api/v1/health/ready", nil); got.status != status || strings.TrimSpace(got.text) != want {
				t.Errorf("%s: %d %s, want %d %s", when, got.status, got.text, status, want)
			}
		}
		ready("with a database", 200, `{"status":"ready","audit":"ok","audit_chain_ok":null}`)
		if err := b.store.Close(); err != nil {
			t.Fatal(err)
		}
		b.pass(time.Minute)
		ready("without", 503, `{"status":"unready","reason":"database","audit":"failed","audit_detail":"the audit log takes no entry or the database is too busy, so that no change is made; the log of the brain says more","audit_chain_ok":null}`)
		if got := c.get("/health"); got.status != 200 || strings.TrimSpace(got.text) != `{"status":"ok","audit":"ok","audit_chain_ok":null}` {
			t.Errorf("health: %d %s", got.status, got.text)
		}
		if got := c.get("/setup/status"); got.status < 500 || got.code() == "" || got.body["request_id"] == nil {
			t.Errorf("another route: %d %s", got.status, got.text)
		}
	})
}
