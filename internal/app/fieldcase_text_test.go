package app_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sameOnBoth plays fn on both databases and wants what it returns to be equal.
func sameOnBoth(t *testing.T, fn func(t *testing.T, f *field) string) {
	t.Helper()
	var heard dumps
	t.Cleanup(func() {
		if a, b := heard.all["sqlite"], heard.all["postgres"]; a != "" && b != "" && a != b {
			t.Errorf("the databases differ (-sqlite +postgres):\n%s", cmp.Diff(a, b))
		}
	})
	play(t, noon, func(t *testing.T, f *field) { heard.put(f.dialect(), fn(t, f)) })
}

// odd makes the payload of one frame; canonical is what of it is signed where that isn't its own text.
func odd(events []string, canonical func(string) string) (payload, signed string) {
	payload = `{"events":[` + strings.Join(events, ",") + `]}`
	return payload, canonical(payload)
}

func TestFieldCaseF07NulsAndHalvesOfSurrogates(t *testing.T) {
	const lines = `
{"kind":"task.received","task_id":"a7","name":"scan.pdf","queue":"ocr","worker":"celery@o1","at":"2026-03-02T08:00:00Z","args":["spec\u0000ial","low \ud83d alone","shown \\u0000 as text"],"kwargs":{"k\u0000ey":1}}
{"kind":"task.failed","task_id":"a7","worker":"celery@o1","at":"2026-03-02T08:00:01Z","exception":"ValueError","exception_message":"bad byte \u0000 at 4","traceback":"line 1\u0000\nline 2"}
{"kind":"task.received","task_id":"a7b","name":"scan.pdf","queue":"ocr","worker":"celery@o1","at":"2026-03-02T08:00:02Z","args":["fine"]}`
	sameOnBoth(t, func(t *testing.T, f *field) string {
		l := f.lane(t, nil)
		// What Python signs for half a pair are the three bytes that UTF-8 would give it.
		l.SendOdd(odd(events(t, lines, noon), func(s string) string { return strings.Replace(s, `\ud83d`, "\xed\xa0\xbd", 1) }))
		l.Settle()
		l.task("a7", `{"state":"failure","name":"scan.pdf","args":["spec\ufffdial","low \ufffd alone","shown \\u0000 as text"],"kwargs":{"k\ufffdey":1},
			"exception":"ValueError","exception_message":"bad byte \ufffd at 4","traceback":"line 1\ufffd\nline 2"}`)
		l.task("a7b", `{"state":"received","args":["fine"]}`)
		l.found("state=failure&search=SCAN", "a7")
		l.found("search=scan", "a7", "a7b")
		has(t, "refused events", l.items("/refused-events"), `[]`)
		l.agree()
		return l.dump("celery", []string{"a7", "a7b"})
	})
}

func TestFieldCaseF11Digits(t *testing.T) {
	const lines = `
{"kind":"task.received","task_id":"a11","name":"row.fix","queue":"db","worker":"celery@d1","at":"2026-03-02T08:00:00Z","args":[7205759403792793601,-9007199254740993,1.10,1e400,0.30000000000000004],"kwargs":{"id":123456789012345678901234567890}}
{"kind":"task.succeeded","task_id":"a11","worker":"celery@d1","at":"2026-03-02T08:00:01Z","result":9007199254740993}`
	sameOnBoth(t, func(t *testing.T, f *field) string {
		l := f.lane(t, nil)
		l.SendOdd(odd(events(t, lines, noon), func(s string) string { return strings.Replace(s, "1.10", "1.1", 1) }))
		l.Settle()
		const args = `"args":[7205759403792793601,-9007199254740993,1.10,1e400,0.30000000000000004],"kwargs":{"id":123456789012345678901234567890}`
		l.task("a11", `{"state":"success",`+args+`,"result":9007199254740993}`)
		has(t, "events", l.items("/events?engine=celery&task_id=a11"), `[{"payload":{"result":9007199254740993}},{"payload":{`+args+`}}]`)
		return l.dump("celery", []string{"a11"})
	})
}

func TestFieldCaseF53BytesThatAreNoUTF8(t *testing.T) {
	const lines = `
{"kind":"task.failed","task_id":"u53","name":"impSURROGATEort","queue":"q","worker":"celery@n1","at":"2026-03-02T08:00:00Z","exception":"BadLONE","traceback":"LEAD endOVERLONG"}
{"kind":"task.failed","task_id":"u53b","name":"impSURROGATEort","queue":"q","worker":"celery@n1","at":"2026-03-02T08:00:00.5Z","exception":"BadLONE"}
{"kind":"task.failed","task_id":"u54","name":"ok","queue":"q","worker":"celery@n1","at":"2026-03-02T08:00:01Z","exception":"Fine"}`
	bytes := strings.NewReplacer("SURROGATE", "\xed\xa0\xbd", "LONE", "\xcb", "LEAD", "\xd8", "OVERLONG", "\xc0\x80")
	sameOnBoth(t, func(t *testing.T, f *field) string {
		l := f.lane(t, nil)
		all := events(t, lines, noon)
		for i := range all {
			all[i] = bytes.Replace(all[i])
		}
		l.SendOdd(odd(all, func(s string) string { return s }))
		l.Settle()
		l.task("u53", `{"state":"failure","name":"imp\ufffdort","exception":"Bad\ufffd","traceback":"\ufffd end\ufffd\ufffd"}`)
		l.task("u53b", `{"state":"failure","name":"imp\ufffdort"}`)
		l.task("u54", `{"state":"failure","name":"ok","exception":"Fine"}`)
		l.found("state=failure", "u53", "u53b", "u54")
		l.found("name=imp", "u53", "u53b")
		_, _, raw := f.Client.Try(http.MethodGet, "/api/v1/projects/"+l.slug+"/tasks", nil)
		if !json.Valid(raw) || strings.ToValidUTF8(string(raw), "") != string(raw) {
			t.Errorf("list of tasks: %q, want valid UTF-8", raw)
		}
		l.agree()
		return l.dump("celery", []string{"u53", "u53b", "u54"})
	})
}

func TestFieldCaseF43NumbersThatAreNone(t *testing.T) {
	play(t, noon.Add(5*minute), func(t *testing.T, f *field) {
		l := f.lane(t, map[string]any{"engines": []string{"celery", "rq"}})
		l.Heartbeat(map[string]string{
			"rq.queue_depths":       `{"default":null,"low":"n/a","high":-1,"mid":3.7,"big":9223372036854775808,"good":4}`,
			"celery.worker_details": `{"celery@n1":{"stats":{"pool":{"max-concurrency":"N/A"},"loadavg":null,"total":"many","pid":12},"pool":{"max-concurrency":"N/A"},"loadavg":null,"total":"many"},"celery@n2":{"stats":{"pool":{"max-concurrency":4}}}}`,
		})
		l.tell(`
{"kind":"task.succeeded","task_id":"n43","name":"j","worker":"celery@n1","at":"2026-03-02T08:00:00Z","runtime_ms":-5}
{"kind":"task.succeeded","task_id":"n44","name":"j","worker":"celery@n1","at":"2026-03-02T08:00:01Z","runtime_ms":"12.5"}
{"kind":"task.succeeded","task_id":"n45","name":"j","worker":"celery@n1","at":"2026-03-02T08:00:02Z","runtime_ms":0.4}`)
		l.task("n43", `{"state":"success","runtime_ms":null}`)
		l.task("n44", `{"state":"success","runtime_ms":null}`)
		l.task("n45", `{"state":"success","runtime_ms":0.4}`)
		l.until("the heartbeat to be written", func() bool { return len(l.bare("/queues")) > 0 })
		for _, q := range l.bare("/queues") {
			q := q.(map[string]any)
			want := "null"
			if q["name"] == "good" {
				want = "4"
			}
			has(t, fmt.Sprintf("queue %v", q["name"]), q, `{"pending_count":`+want+`}`)
		}
		l.until("both workers", func() bool { return len(l.bare("/workers")) == 2 })
		has(t, "workers", l.bare("/workers?sort=name"), `[{"name":"celery@n1","concurrency":null,"load_average":null,"pid":12},{"name":"celery@n2","concurrency":4}]`)
		l.agree()

		// Names that no database takes as they are must not hold up the heartbeats of everybody else.
		l.Heartbeat(map[string]string{"rq.queue_depths": `{"nul\u0000":7}`, "rq.worker_details": `{"w\u0000":{"active":["\u0000"],"active_queues":[{"name":"\u0000"}]}}`})
		other := f.lane(t, nil)
		other.Heartbeat(map[string]string{"celery.queue_depths": `{"fine":1}`})
		l.until("the other heartbeat", func() bool { return len(other.bare("/queues")) == 1 })
		l.until("the odd worker", func() bool { return len(l.bare("/workers")) == 3 })
		walk(t, f, l)
	})
}

// walk asks every route that only reads: none may answer 500. It returns all answers.
func walk(t *testing.T, f *field, l *lane) map[string]string {
	t.Helper()
	answers := map[string]string{}
	for _, path := range readable(t, f, l) {
		status, header, raw := f.Client.Try(http.MethodGet, path, nil)
		if status != http.StatusOK && path != "/api/v1/openapi.yaml" {
			t.Errorf("GET %s: status %d, want 200: %s", path, status, raw)
		}
		answers[path] = fmt.Sprint(header, string(raw))
	}
	if len(answers) < 20 {
		t.Errorf("%d routes asked, want all of them", len(answers))
	}
	return answers
}

// readable are the paths of all GET routes of the API, filled in with what the lane has.
func readable(t *testing.T, f *field, l *lane) []string {
	t.Helper()
	doc := get(t, f.Client, "/api/v1/openapi.json")
	paths, _ := doc["paths"].(map[string]any)
	var tasks []map[string]any
	for _, row := range l.items("/tasks") {
		tasks = append(tasks, row.(map[string]any))
	}
	all := []string{"/metrics", "/", "/docs", "/api/v1/openapi.json"}
	for path, operations := range paths {
		if _, ok := operations.(map[string]any)["get"]; !ok {
			continue
		}
		path = strings.Replace(path, "{slug}", l.slug, 1)
		switch {
		case strings.Contains(path, "{task_id}"):
			for _, task := range tasks {
				head, tail, _ := strings.Cut(path, "/{engine}/{task_id}")
				all = append(all, strings.TrimSuffix(head, "/tasks")+taskPath(fmt.Sprint(task["engine"]), fmt.Sprint(task["task_id"]))+tail)
			}
		case strings.HasSuffix(path, "/events") && !strings.HasSuffix(path, "refused-events"):
			for _, task := range tasks {
				all = append(all, path+"?engine="+fmt.Sprint(task["engine"])+"&task_id="+fmt.Sprint(task["task_id"]))
			}
		case strings.Contains(path, "{worker_id}"):
			for _, w := range l.bare("/workers") {
				all = append(all, strings.Replace(path, "{worker_id}", fmt.Sprint(w.(map[string]any)["id"]), 1))
			}
		case strings.Contains(path, "{"):
			t.Errorf("route %s has a place that this test can't fill in; teach it", path)
		default:
			all = append(all, path)
		}
	}
	return all
}
