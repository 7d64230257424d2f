package api_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestLessonA18DenyIsPolicyAlone: what goes wrong in a change that the caller may make is an error; "deny" is for who may
// not; and a task that fails is no entry at all.
func TestLessonA18DenyIsPolicyAlone(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		viewer, _ := b.user(root, "viewer@example.com", "viewer")
		stranger, _ := b.user(root, "stranger@example.com", "")
		f := b.feed(root) // mints the agent "web"
		for _, tt := range []struct {
			name string
			do   func() answer
			want int
			out  audit.Outcome
		}{
			{"a name that is taken", func() answer { return root.post("/projects/default/agents", object{"name": "web"}) }, 409, audit.Failed},
			{"an address that is taken", func() answer { return root.post("/users", object{"email": "viewer@example.com", "password": password}) }, 409, audit.Failed},
			{"a password that is weak", func() answer { return root.post("/users", object{"email": "x@example.com", "password": "weak"}) }, 422, audit.Failed},
			{"a field that is missing", func() answer { return root.post("/projects", object{}) }, 422, audit.Failed},
			{"a role that does not suffice", func() answer { return viewer.post("/projects/default/agents", object{"name": "x"}) }, 403, audit.Deny},
			{"a project that is not the caller's", func() answer { return stranger.post("/projects/default/agents", object{"name": "x"}) }, 404, audit.Deny},
			{"no credentials", func() answer { return b.client().post("/projects", object{"slug": "x", "name": "X"}) }, 401, audit.Deny},
		} {
			b.refusals = nil
			tt.do().must(t, tt.name, tt.want)
			if len(b.refusals) != 1 || b.refusals[0].Outcome != tt.out {
				t.Errorf("%s: recorded %+v, want one with the outcome %s", tt.name, b.refusals, tt.out)
			}
		}

		b.refusals = nil
		db := storetest.DB(t, b.url)
		before := storetest.Rows(t, db, `SELECT count(*) FROM audit_log`)[0][0]
		f.history() // with a task that failed
		if after := storetest.Rows(t, db, `SELECT count(*) FROM audit_log`)[0][0]; after != before || len(b.refusals) != 0 {
			t.Errorf("a failed task: the log went from %s to %s rows, %d refusals; want nothing by the task", before, after, len(b.refusals))
		}
	})
}

// TestLessonI2UnknownPathsBelowAPIAreJSON: a typing error never gets a page with 200.
func TestLessonI2UnknownPathsBelowAPIAreJSON(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		for _, path := range []string{
			"/api", "/api/", "/api/v1", "/api/v1/", "/api/v1/taskss", "/api/v1/projects/default/taskss", "/api/v2/projects", "/api/v1/projects/default/tasks/",
			"/ws/nothing", "/auth/login",
		} {
			for _, c := range []*client{b.client(), root} {
				for _, method := range []string{http.MethodGet, http.MethodPost} {
					got := c.do(method, path, nil, func(r *http.Request) { r.Header.Set("Accept", "text/html") })
					kind := got.header.Get("Content-Type")
					if got.status != http.StatusNotFound || !strings.HasPrefix(kind, "application/json") || got.code() != "not_found" {
						t.Errorf("%s %s: %d %s %.100q, want 404 in JSON", method, path, got.status, kind, got.text)
					}
				}
			}
		}
	})
}

var (
	// timeLike is how a time begins.
	timeLike = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}`)
	timeForm = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$`)
)

// TestLessonI4EveryTimeHasItsZone: whatever is read, a time in it ends in Z, on both databases.
func TestLessonI4EveryTimeHasItsZone(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		b.feed(root).history()
		b.user(root, "viewer@example.com", "viewer")
		worker, _ := root.get("/projects/default/workers").first()["id"].(string)
		found, routes := 0, 0
		for _, rt := range b.server.Routes() {
			if rt.Method != http.MethodGet {
				continue
			}
			path := strings.NewReplacer("{slug}", "default", "{engine}", "celery", "{task_id}", "a11", "{worker_id}", worker).Replace(rt.Path)
			if rt.ID == "list-events" {
				path += "?engine=celery&task_id=a11"
			}
			if rt.ID == "export-audit" {
				path += "?format=ndjson&action=setup.completed&to=2026-01-01" // one line
			}
			got := root.do(http.MethodGet, path, nil).must(t, rt.ID, http.StatusOK)
			routes++
			var v any
			if err := json.Unmarshal([]byte(got.text), &v); err != nil {
				t.Fatalf("%s: %v", rt.ID, err)
			}
			texts(v, func(name, text string) {
				if !timeLike.MatchString(text) {
					return
				}
				found++
				if !timeForm.MatchString(text) {
					t.Errorf("%s: %s is %q, want RFC 3339 to the microsecond with Z", rt.ID, name, text)
				}
			})
		}
		if routes < 20 || found < 40 {
			t.Errorf("%d answers with %d times looked at, want all of the API's", routes, found)
		}
	})
}

// texts visits every text of a JSON value, but for what an agent sent.
func texts(v any, visit func(name, text string)) {
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			texts(one, visit)
		}
	case object:
		for name, one := range v {
			if text, is := one.(string); is {
				visit(name, text)
			} else if name != "payload" && name != "args" && name != "kwargs" {
				texts(one, visit)
			}
		}
	}
}

// first is the first element of an answer that is a list or has items.
func (a answer) first() object {
	var list []object
	if a.body != nil {
		items, _ := json.Marshal(a.body["items"])
		_ = json.Unmarshal(items, &list)
	} else {
		_ = json.Unmarshal([]byte(a.text), &list)
	}
	if len(list) == 0 {
		return nil
	}
	return list[0]
}

// TestLessonF26FiltersAreNeverReplaced: what cannot be read is refused and named, never taken as the default; only hours
// have one, as their documentation says.
func TestLessonF26FiltersAreNeverReplaced(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		b.feed(root).history()
		for _, query := range []string{
			"tasks?limit=abc", "tasks?limit=0", "tasks?limit=-1", "tasks?limit=1e2", "tasks?state=FAILED", "tasks?state=nope", "tasks?priority=urgent", "tasks?since=yesterday",
			"tasks?cursor=nonsense", "tasks?include_total=perhaps", "stats?hours=abc", "workers?state=gone", "workers?sort=random", "workers?limit=x", "agent-workers?role=boss", "queues?limit=x",
			"audit?since=x", "audit?user_id=x", "events?engine=celery", "refused-events?limit=x",
		} {
			got := root.get("/projects/default/" + query)
			if got.status != http.StatusUnprocessableEntity || got.code() != "validation_failed" {
				t.Errorf("%s: %d %s, want 422", query, got.status, got.text)
			}
		}
		day := root.get("/projects/default/stats?hours=24").must(t, "stats", 200).text
		b.pass(10 * time.Hour)
		root = b.login() // the session idled too long
		for hours, want := range map[string]int{"1": 0, "6": 0, "24": 1} {
			got := root.get("/projects/default/stats?hours="+hours).must(t, hours, 200)
			if n, _ := got.body["tasks_failed_24h"].(float64); (n > 0) != (want > 0) {
				t.Errorf("hours=%s: %v failures ten hours later, want them by their own hours only; at first %s", hours, n, day)
			}
		}
	})
}
