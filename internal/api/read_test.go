package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/store"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file below testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; -update writes it anew):\n%s", path, diff)
	}
}

// feed is an agent of the default project, past the gateway.
type feed struct {
	t       *testing.T
	b       *brain
	writer  *ingest.Writer
	session *ingest.Session
	frames  int
}

// feed starts the real writer on the brain's database.
func (b *brain) feed(root *client) *feed {
	b.t.Helper()
	project, err := id.Parse(root.get("/projects/default").must(b.t, "project", 200).body["id"].(string))
	if err != nil {
		b.t.Fatal(err)
	}
	minted := root.post("/projects/default/agents", object{"name": "web"}).must(b.t, "mint", 201)
	agent, err := id.Parse(minted.body["agent"].(object)["id"].(string))
	if err != nil {
		b.t.Fatal(err)
	}
	w := ingest.New(b.store, ingest.Options{Now: b.Now})
	w.Start(b.t.Context())
	b.t.Cleanup(func() {
		if err := w.Close(context.WithoutCancel(b.t.Context())); err != nil {
			b.t.Error(err)
		}
	})
	return &feed{t: b.t, b: b, writer: w, session: &ingest.Session{
		ID: "s", Project: project, Agent: agent, Engines: []string{"celery"}, WorkerID: "web-1", HasWorkerID: true,
		ProcessStarted: b.Now().Add(-time.Hour).UnixMicro(),
	}}
}

// send sends one frame and waits until it is committed.
func (f *feed) send(events ...string) {
	f.t.Helper()
	f.frames++
	done := make(chan ingest.Outcome, 1)
	err := f.writer.Submit(f.t.Context(), &ingest.Frame{
		Session: f.session, ID: fmt.Sprint("frame-", f.frames), Payload: []byte(`{"events":[` + strings.Join(events, ",") + `]}`),
		Received: f.b.Now().UnixMicro(), Done: func(o ingest.Outcome) { done <- o },
	})
	if err != nil {
		f.t.Fatal(err)
	}
	o := <-done
	if o.Err != nil {
		f.t.Fatal(o.Err)
	}
}

// ev is an event as agents send it; ago is before the brain's now, and data are more fields of data.
func (f *feed) ev(kind, task, worker string, ago time.Duration, data string) string {
	if worker != "" {
		data = strings.TrimPrefix(data+fmt.Sprintf(`,"worker":%q`, worker), ",")
	}
	return fmt.Sprintf(`{"id":%q,"kind":%q,"engine":"celery","task_id":%q,"occurred_at":%q,"data":{%s}}`,
		id.Random(), kind, task, f.b.Now().Add(-ago).Format("2006-01-02T15:04:05.000000-07:00"), data)
}

var (
	uuidForm   = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	cursorForm = regexp.MustCompile(`"(next|prev)_cursor": "[^"]+"`)
	chance     = regexp.MustCompile(`"(kid|row_hmac|prev_row_hmac|body|salt|request_id|ts)": "[A-Za-z0-9+/=_:.-]+"`)
	auditTime  = regexp.MustCompile(`"occurred_at": "[^"]+"`)
)

// pretty makes an answer fit for a golden file: indented, and what is made by chance numbered in the order of appearance.
func pretty(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(text), "", "  "); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	out := cursorForm.ReplaceAll(b.Bytes(), []byte(`"${1}_cursor": "<cursor>"`))
	out = chance.ReplaceAll(out, []byte(`"$1": "<$1>"`))
	seen := map[string]int{}
	return uuidForm.ReplaceAllFunc(out, func(u []byte) []byte {
		if seen[string(u)] == 0 {
			seen[string(u)] = len(seen) + 1
		}
		return fmt.Appendf(nil, "<id %d>", seen[string(u)])
	})
}

// history is a little of everything.
func (f *feed) history() {
	f.send(
		f.ev("task.received", "a11", "celery@d1", 40*time.Second, `"task_name":"row.fix","queue":"db","priority":"high","args":[7205759403792793601,-9007199254740993,1.10],"kwargs":{"id":123456789012345678901234567890}`),
		f.ev("task.started", "a11", "celery@d1", 39*time.Second, ``),
		f.ev("task.succeeded", "a11", "celery@d1", 38*time.Second, `"result":"9007199254740993","runtime_ms":0.4`),
		f.ev("task.received", "pay/1 %", "celery@p1", 30*time.Second, `"task_name":"pay.poll","queue":"pay","args":[],"kwargs":{},"parent_task_id":"a11","root_task_id":"a11"`),
		f.ev("task.started", "pay/1 %", "celery@p1", 29*time.Second, ``),
		f.ev("task.retried", "pay/1 %", "celery@p1", 28*time.Second, `"reason":"Timeout()","retry_count":1`),
		f.ev("task.started", "pay/1 %", "celery@p2", 20*time.Second, ``),
		f.ev("task.failed", "pay/1 %", "celery@p2", 18*time.Second, `"exception":"ValueError","exception_message":"no such account","traceback":"Traceback (most recent call last):\n  line 1"`),
		f.ev("task.failed", "pay/1 %", "celery@janitor", 5*time.Second, `"exception":"AbandonedJobError"`),
		f.ev("task.succeeded", "a3", "celery@n1", 10*time.Second, `"result":null,"runtime_ms":250`),
	)
	f.send(`{"id":"0195fa10-1111-7abc-8def-0123456789ab","kind":"task.started","engine":"celery","task_id":"","occurred_at":"2026-03-14T09:00:00+00:00","data":{}}`)
}

// TestReadShapes holds every answer of the read side still, the same on both databases.
func TestReadShapes(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		f := b.feed(root)
		f.history()
		worker := root.get("/projects/default/workers?sort=name&limit=1").must(t, "workers", 200)
		workerID := uuidForm.FindString(worker.text)
		for name, path := range map[string]string{
			"tasks":           "/projects/default/tasks?include_total=true&limit=2",
			"task":            "/projects/default/tasks/celery/a11",
			"task-failed":     "/projects/default/tasks/celery/" + url.PathEscape("pay/1 %"),
			"task-unknown":    "/projects/default/tasks/celery/a3",
			"attempts":        "/projects/default/tasks/celery/" + url.PathEscape("pay/1 %") + "/attempts?limit=1",
			"events":          "/projects/default/events?engine=celery&task_id=" + url.QueryEscape("pay/1 %"),
			"refused-events":  "/projects/default/refused-events",
			"workers":         "/projects/default/workers?sort=name&limit=2",
			"worker":          "/projects/default/workers/" + workerID,
			"queues":          "/projects/default/queues",
			"agents":          "/projects/default/agents",
			"agent-workers":   "/projects/default/agent-workers",
			"stats":           "/projects/default/stats",
			"home":            "/home/summary",
			"recent-failures": "/home/recent-failures",
			"audit":           "/projects/default/audit?limit=1",
			"health":          "/health",
			"ready":           "/health/ready",
			"error":           "/projects/default/tasks?state=failed",
		} {
			got := root.get(path)
			if got.status >= 500 {
				t.Fatalf("%s: %d %s", path, got.status, got.text)
			}
			text := pretty(t, got.text)
			if name == "audit" { // its clock is the database's
				text = auditTime.ReplaceAll(text, []byte(`"occurred_at": "<ts>"`))
			}
			golden(t, "shapes/"+name+".json", text)
		}
		system := root.get("/health/system").must(t, "system", 200)
		if system.body["database_type"] != b.store.Dialect() || system.body["z4j_version"] != "test" || system.body["database_version"] == nil {
			t.Errorf("system: %s", system.text)
		}
		if got := fmt.Sprint(system.body["anchor_troubles"]); got != "[]" {
			t.Errorf("system: anchor troubles %s, want none", got)
		}
	})
}

// TestGapsOfARestoreAreShownWhereCountsAre: a count of a time of which events may be missing says so.
func TestGapsOfARestoreAreShownWhereCountsAre(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		for _, path := range []string{"/projects/default/stats", "/home/summary", "/health/system"} {
			if got := root.get(path).must(t, path, 200); fmt.Sprint(got.body["data_gaps"]) != "[]" {
				t.Errorf("%s: got %v, want no gaps", path, got.body["data_gaps"])
			}
		}
		const gap = `[{"from":"2026-03-14T09:00:00.000000Z","until":"2026-03-14T09:26:53.589793Z","backup_id":"b"},` +
			`{"from":"2026-03-15T09:00:00.000000Z","until":null,"backup_id":""}]`
		if err := b.store.PutMeta(t.Context(), "data_gaps", gap); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/projects/default/stats", "/home/summary", "/health/system"} {
			if got := root.get(path).must(t, path, 200); !strings.Contains(got.text, `"data_gaps":`+gap) {
				t.Errorf("%s: got %s, want %s", path, got.text, gap)
			}
		}
	})
}

// TestBadInput names the parameter that cannot be read, whatever the list, and tolerates what it does not know.
func TestBadInput(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		b.feed(root).history()
		next := root.get("/projects/default/tasks?limit=1").must(t, "tasks", 200).body["next_cursor"].(string)
		for _, tt := range []struct {
			name, path string
			status     int
			field      string
		}{
			{"a limit of 0", "/projects/default/tasks?limit=0", 422, "query.limit"},
			{"a negative limit", "/projects/default/workers?limit=-1", 422, "query.limit"},
			{"a limit above 5,000", "/projects/default/tasks?limit=5001", 422, "query.limit"},
			{"a limit that is no number", "/projects/default/queues?limit=ten", 422, "query.limit"},
			{"a limit above 500", "/projects/default/tasks?limit=5000", 200, ""},
			{"another list's cursor", "/projects/default/queues?cursor=" + next, 422, "query.cursor"},
			{"a cursor of the first z4j", "/projects/default/tasks?cursor=W1siZHQiLCIyMDI2Il0", 422, "query.cursor"},
			{"a bad cursor of attempts", "/projects/default/tasks/celery/a11/attempts?cursor=x", 422, "query.cursor"},
			{"a bad cursor of events", "/projects/default/events?engine=celery&task_id=a11&cursor=x", 422, "query.cursor"},
			{"a bad cursor of refused events", "/projects/default/refused-events?cursor=x", 422, "query.cursor"},
			{"a bad cursor of workers", "/projects/default/workers?cursor=x", 422, "query.cursor"},
			{"a bad cursor of agent workers", "/projects/default/agent-workers?cursor=x", 422, "query.cursor"},
			{"a bad cursor of failures", "/home/recent-failures?cursor=x", 422, "query.cursor"},
			{"a bad cursor of the audit log", "/projects/default/audit?cursor=x", 422, "query.cursor"},
			{"a bad state", "/projects/default/tasks?state=failed", 422, "query.state"},
			{"a bad priority", "/projects/default/tasks?priority=high,urgent", 422, "query.priority"},
			{"a bad date", "/projects/default/tasks?since=yesterday", 422, "query.since"},
			{"a day that is none", "/projects/default/tasks?until=2026-02-30", 422, "query.until"},
			{"a bad date of the audit log", "/projects/default/audit?since=1", 422, "query.since"},
			{"a bad user", "/projects/default/audit?user_id=me", 422, "query.user_id"},
			{"a window that is none", "/projects/default/stats?hours=5", 422, "query.hours"},
			{"a worker that is no UUID", "/projects/default/workers/me", 422, "path.worker_id"},
			{"a state of workers", "/projects/default/workers?state=lost", 422, "query.state"},
			{"events of no task", "/projects/default/events?engine=celery", 422, "query.task_id"},
			{"events of no engine", "/projects/default/events?task_id=a", 422, "query.engine"},
			{"U+0000 in a search", "/projects/default/tasks?search=a%00b", 422, "query.search"},
			{"no UTF-8 in a queue", "/projects/default/tasks?queue=%ff", 422, "query.queue"},
			{"U+0000 in a task id", "/projects/default/tasks/celery/a%00b", 422, "path"},
			{"half a percent escape", "/projects/default/tasks?search=%2", 422, "query"},
			{"a date", "/projects/default/tasks?since=2026-03-14&until=2026-03-14T23:59:59", 200, ""},
			{"an unknown parameter", "/projects/default/tasks?color=red&page=7", 200, ""},
			{"a task that is not there", "/projects/default/tasks/rq/a11", 404, ""},
			{"events of a task that is not there", "/projects/default/events?engine=rq&task_id=a11", 200, ""},
			{"a search that is very long", "/projects/default/tasks?search=" + strings.Repeat("x", 201), 422, "query.search"},
			{"quotes and wildcards", "/projects/default/tasks?search=" + url.QueryEscape(`%_\'";--`) + "&name=%27%25", 200, ""},
		} {
			got := root.get(tt.path)
			if got.status != tt.status {
				t.Errorf("%s: %d %s, want %d", tt.name, got.status, got.text, tt.status)
				continue
			}
			if tt.field == "" {
				continue
			}
			errs, _ := got.body["details"].(object)["errors"].([]any)
			loc := fmt.Sprint(errs[0].(object)["loc"])
			if want := "[" + strings.ReplaceAll(tt.field, ".", " ") + "]"; loc != want || got.code() != "validation_failed" || got.body["detail"] == nil {
				t.Errorf("%s: error at %s, want %s: %s", tt.name, loc, want, got.text)
			}
		}
		var all struct{ Items []store.Task }
		if err := json.Unmarshal([]byte(root.get("/projects/default/tasks?limit=5000").text), &all); err != nil || len(all.Items) != 3 {
			t.Errorf("a limit above 500: %d rows, %v; want 3", len(all.Items), err)
		}
	})
}

// TestTaskIDsInPaths finds tasks whose ids look like parts of a path.
func TestTaskIDsInPaths(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		f := b.feed(root)
		ids := []string{"a/b", "a//b/", "100%", "%2F", "attempts", "a/attempts", "..", "?x=1#y", " ä😀 ", strings.Repeat("x", 200), "a+b", `"q"\`, "cron:x;y=z&"}
		for _, taskID := range ids {
			text, err := json.Marshal(taskID)
			if err != nil {
				t.Fatal(err)
			}
			f.send(fmt.Sprintf(`{"id":%q,"kind":"task.started","engine":"celery","task_id":%s,"occurred_at":%q,"data":{"worker":"w"}}`,
				id.Random(), text, b.Now().Format(time.RFC3339)))
		}
		for _, taskID := range ids {
			path := "/projects/default/tasks/celery/" + strings.ReplaceAll(url.PathEscape(taskID), "..", "%2E%2E")
			if got := root.get(path).must(t, path, 200); got.body["task_id"] != taskID {
				t.Errorf("task %q: %s", taskID, got.text)
			}
			if got := root.get(path+"/attempts").must(t, path+"/attempts", 200); len(got.body["items"].([]any)) != 1 {
				t.Errorf("attempts of %q: %s", taskID, got.text)
			}
			if got := root.get("/projects/default/events?engine=celery&task_id="+url.QueryEscape(taskID)).must(t, "events of "+taskID, 200); len(got.body["items"].([]any)) != 1 {
				t.Errorf("events of %q: %s", taskID, got.text)
			}
		}
	})
}
