package app_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/store/storetest"
)

// metric is the value of a series, "" if there is none.
func (l *lane) metric(series string) string {
	l.t.Helper()
	_, _, raw := l.field.Client.Try(http.MethodGet, "/metrics", nil)
	for line := range strings.Lines(string(raw)) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// project is the id of the lane's project.
func (l *lane) project() string {
	l.t.Helper()
	return fmt.Sprint(l.get("")["id"])
}

// online wants every place that counts workers to count so many alive.
func (l *lane) online(want int) {
	l.t.Helper()
	has(l.t, "stats", l.get("/stats"), fmt.Sprintf(`{"workers_online":%d}`, want))
	has(l.t, "home", l.home(), fmt.Sprintf(`{"workers_online":%d}`, want))
	if got := len(l.bare("/workers?state=online")); got != want {
		l.t.Errorf("list of workers online: %d rows, want %d", got, want)
	}
	if got := l.metric(`z4j_workers_online{project="` + l.project() + `"}`); got != strconv.Itoa(want) {
		l.t.Errorf("metric z4j_workers_online: %q, want %d", got, want)
	}
}

func TestFieldCaseF13WorkerNamesOfEachDeploy(t *testing.T) {
	const deploys = 500
	play(t, noon.Add(deploys*10*minute), func(t *testing.T, f *field) {
		l := f.lane(t, nil)
		var all []string
		for i := 1; i <= deploys; i++ {
			all = append(all, events(t, fmt.Sprintf(`
{"kind":"worker.online","worker":"celery@web-%[1]d-x7f","at":"T+%[2]d"}
{"kind":"task.succeeded","task_id":"d%[1]d","name":"j","worker":"celery@web-%[1]d-x7f","at":"T+%[3]d"}`, i, 600*i-10, 600*i-5), noon)...)
		}
		for batch := range slices.Chunk(all, 100) {
			l.Send(batch...)
		}
		l.Settle()
		l.online(1)
		first := l.bare("/workers")
		has(t, "the first worker", first[0], `{"name":"celery@web-500-x7f","state":"online"}`)
		has(t, "the second worker", first[1], `{"name":"celery@web-499-x7f","state":"offline","stopped_at":null}`)
		if len(first) != deploys {
			t.Errorf("workers: %d, want %d", len(first), deploys)
		}

		l.at(f.Clock.Now().Add(10 * 24 * time.Hour))
		l.online(0)
		l.Send(events(t, `{"kind":"worker.online","worker":"celery@web-501-x7f","at":"T+0"}`, f.Clock.Now())...)
		l.Settle()
		l.online(1)
		has(t, "the first worker", l.bare("/workers?limit=1"), `[{"name":"celery@web-501-x7f","state":"online"}]`)
		l.task("d7", `{"worker_name":"celery@web-7-x7f"}`)
	})
}

func TestFieldCaseF25ManyRowsOfOneInstant(t *testing.T) {
	play(t, noon, func(t *testing.T, f *field) {
		l := f.lane(t, nil)
		var all []string
		for group, fraction := range []string{".123456", ".123457", ".123999"} {
			for i := 1; i <= 400; i++ {
				all = append(all, event(t, fmt.Sprintf(`{"kind":"task.received","task_id":"g%d-%03d","name":"bulk","queue":"q","worker":"celery@n1","at":"2026-03-02T08:00:00%sZ"}`, group+1, i, fraction), noon))
			}
		}
		for batch := range slices.Chunk(all, 300) {
			l.Send(batch...)
		}
		l.Settle()
		newer := 0
		insert := func() { // while the pages are read
			newer++
			l.tell(fmt.Sprintf(`{"kind":"task.received","task_id":"new-%d","name":"bulk","queue":"q","worker":"celery@n1","at":"2026-03-02T09:00:00.%06dZ"}`, newer, newer))
		}
		var reference []string
		for _, walk := range []struct {
			query string
			every int // pages between two insertions
		}{{"limit=50", 1}, {"limit=7", 20}, {"limit=50&name=bulk", 4}, {"limit=50&queue=q&state=received", 4}} {
			forward, last := l.walk("/tasks?"+walk.query, "next_cursor", walk.every, insert)
			if reference == nil {
				reference = forward
			}
			if !slices.Equal(forward, reference) {
				t.Errorf("walk %s: %d of the 1,200 rows in another order or number, want the %d of the first walk", walk.query, len(forward), len(reference))
			}
			back, _ := l.walk("/tasks?"+walk.query+"&cursor="+url.QueryEscape(last), "prev_cursor", walk.every, insert)
			slices.Reverse(back)
			if !slices.Equal(back, reference[:len(back)]) || len(back) < 1200-50 {
				t.Errorf("walk %s backwards: %d rows, want those of the first walk up to its last page", walk.query, len(back))
			}
		}
		if slices.Sort(reference); len(reference) != 1200 || len(slices.Compact(reference)) != 1200 {
			t.Errorf("walk: %d rows, want each of the 1,200 once", len(reference))
		}
	})
}

// walk reads pages in one direction and returns the task ids of the case, in the order of reading, and the cursor that
// leads back from the last page. Pages read backwards are turned, so that the walk as a whole goes one way.
func (l *lane) walk(path, direction string, every int, between func()) (ids []string, last string) {
	l.t.Helper()
	cursor := ""
	for n := 1; ; n++ {
		page := l.get(path + cursor)
		rows := page["items"].([]any)
		if direction == "prev_cursor" {
			slices.Reverse(rows)
		}
		for _, row := range rows {
			if name := row.(map[string]any)["task_id"].(string); name[0] == 'g' {
				ids = append(ids, name)
			}
		}
		if n%every == 0 {
			between()
		}
		last, _ = page["prev_cursor"].(string)
		next, ok := page[direction].(string)
		if !ok {
			return ids, last
		}
		path, _, _ = strings.Cut(path, "&cursor=")
		cursor = "&cursor=" + url.QueryEscape(next)
	}
}

func TestFieldCaseF27OldBuffersAndMissingPartitions(t *testing.T) {
	for _, tt := range []struct {
		name string
		days int
		old  string // what becomes of the event of 40 days ago
	}{{"beyond the horizon", 30, "refused"}, {"within the horizon", 90, "stored"}} {
		t.Run(tt.name, func(t *testing.T) {
			playWith(t, noon, []string{"Z4J_TASK_RETENTION_DAYS=" + strconv.Itoa(tt.days)}, func(t *testing.T, f *field) {
				l := f.lane(t, nil)
				tell := func(task string, at time.Time) {
					l.tell(`{"kind":"task.succeeded","task_id":"` + task + `","name":"j","worker":"celery@n1","at":"` + at.Format(time.RFC3339) + `"}`)
				}
				tell("ahead", noon.Add(8*24*time.Hour))
				tell("old", noon.Add(-40*24*time.Hour))
				l.at(noon.Add(9 * 24 * time.Hour)) // the job that makes partitions has not run
				tell("later", noon.Add(9*24*time.Hour))
				l.task("ahead", `{"state":"success","finished_at":"2026-03-10T12:00:00Z"}`)
				l.task("later", `{"state":"success","finished_at":"2026-03-11T12:00:00Z"}`)
				for _, task := range []string{"ahead", "later"} {
					if n := len(l.items("/events?engine=celery&task_id=" + task)); n != 1 {
						t.Errorf("events of %s: %d, want 1", task, n)
					}
				}
				if tt.old == "stored" {
					l.found("", "ahead", "later", "old")
					has(t, "refused events", l.items("/refused-events"), `[]`)
					return
				}
				l.found("", "ahead", "later")
				has(t, "refused events", l.items("/refused-events"), `[{"reason":"too_old"}]`)
				if body := l.items("/refused-events")[0].(map[string]any)["body"]; !strings.Contains(fmt.Sprint(body), `"old"`) {
					t.Errorf("body of the refused event: %v, want the event", body)
				}
				l.agree()
			})
		})
	}
}

func TestFieldCaseF34CrashLoop(t *testing.T) {
	play(t, noon.Add(300*time.Second), func(t *testing.T, f *field) {
		l := f.lane(t, map[string]any{"engines": []string{"dramatiq"}})
		start := func(task string, i int) string {
			return event(t, fmt.Sprintf(`{"kind":"task.started","engine":"dramatiq","task_id":%q,"name":"render","queue":"gpu","worker":"d-%d","at":"T+%g","max_retries":3}`, task, i, 0.1*float64(i)), noon)
		}
		var all []string
		for i := range 6 {
			all = append(all, start("boom", 200*i))
		}
		l.Send(all...)
		l.Settle()
		l.taskOf("dramatiq", "boom", `{"state":"started","attempt_count":6,"started_at":"T+100","worker_name":"d-1000","attempts":[
			{"number":6},{"number":5},{"number":4},{"number":3},{"number":2},{"number":1}]}`)
		all = nil
		for i := range 2500 {
			all = append(all, start("bigger", i))
		}
		for batch := range slices.Chunk(all, 250) {
			l.Send(batch...)
		}
		l.Settle()
		big := l.get(taskPath("dramatiq", "bigger"))
		has(t, "bigger", big, `{"state":"started","counts_at_least":true}`)
		if n := len(big["attempts"].([]any)); n != 50 {
			t.Errorf("a task with 2,500 starts shows %d attempts, want 50", n)
		}
		if n, err := big["attempt_count"].(json.Number).Int64(); err != nil || n < 300 || n > 2500 {
			t.Errorf("attempt_count %v, %v; want at least 300", n, err)
		}
		if n := len(l.items("/events?engine=dramatiq&task_id=bigger")); n != 2500 {
			t.Errorf("events: %d, want 2,500", n)
		}
		l.agree()
	})
}

func TestFieldCaseF37ClocksApart(t *testing.T) {
	at := func(second int) time.Time { return noon.Add(-4*time.Hour + time.Duration(second)*time.Second) }
	play(t, at(0), func(t *testing.T, f *field) {
		l := f.lane(t, nil)
		hear := func(second int, line string) {
			l.at(at(second))
			l.tell(line)
		}
		fast := []string{
			`{"kind":"task.started","task_id":"f37","name":"sync","worker":"celery@w-fast","at":"2026-03-02T09:00:00Z"}`,
			`{"kind":"task.failed","task_id":"f37","worker":"celery@w-fast","at":"2026-03-02T09:00:04Z","exception":"E"}`,
		}
		hear(0, `{"kind":"task.started","task_id":"s37","name":"sync","worker":"celery@w-ok","at":"2026-03-02T08:00:00Z"}`)
		hear(0, fast[0])
		hear(2, `{"kind":"task.retried","task_id":"s37","worker":"celery@w-ok","at":"2026-03-02T08:00:02Z","retry_count":1}`)
		hear(3, `{"kind":"task.received","task_id":"s37","name":"sync","worker":"celery@w-late","at":"2026-03-02T07:00:03Z","retries":1}`)
		hear(4, fast[1])
		hear(5, `{"kind":"task.started","task_id":"s37","worker":"celery@w-late","at":"2026-03-02T07:00:05Z"}`)
		l.task("s37", `{"state":"started","worker_name":"celery@w-late","attempt_count":2}`)
		hear(9, `{"kind":"task.succeeded","task_id":"s37","worker":"celery@w-late","at":"2026-03-02T07:00:09Z","result":1}`)
		l.at(at(64))
		l.tell(fast[0] + "\n" + fast[1])
		l.task("s37", `{"state":"success","result":1,"attempt_count":2,"attempts":[
			{"number":2,"worker_name":"celery@w-late","runtime_ms":4000,"retries":1},{"number":1,"worker_name":"celery@w-ok","state":"retry","runtime_ms":2000}]}`)
		l.task("f37", `{"state":"failure","attempt_count":1,"attempts":[{"runtime_ms":4000}]}`)
		if n := len(l.items("/events?engine=celery&task_id=f37")); n != 2 {
			t.Errorf("events of f37: %d, want 2", n)
		}
		for _, row := range append(l.items("/tasks"), l.get(taskPath("celery", "s37"))["attempts"].([]any)...) {
			for _, key := range []string{"wait_ms", "runtime_ms"} {
				if text := fmt.Sprint(row.(map[string]any)[key]); strings.HasPrefix(text, "-") {
					t.Errorf("%s is %s, want no negative one: %v", key, text, row)
				}
			}
		}
		has(t, "stats", l.get("/stats?hours=6"), `{"tasks_failed_24h":1,"tasks_succeeded_24h":1}`)
		offsets := map[string]float64{}
		for _, w := range l.bare("/workers") {
			w := w.(map[string]any)
			number, ok := w["clock_offset_ms"].(json.Number)
			ms, err := number.Float64()
			if !ok || err != nil {
				t.Errorf("clock_offset_ms of %v: %v", w["name"], w["clock_offset_ms"])
			}
			offsets[w["name"].(string)] = ms
		}
		for worker, want := range map[string]float64{"celery@w-ok": 0, "celery@w-late": -3600e3, "celery@w-fast": 3600e3} {
			if got := offsets[worker]; got < want-120e3 || got > want+5e3 {
				t.Errorf("clock offset of %s: %v ms, want about %v", worker, got, want)
			}
		}
		if n := strings.Count(f.Output(), "w-fast"); n > 1 {
			t.Errorf("the log speaks of w-fast %d times, want once at most", n)
		}
		l.agree()
	})
}

func TestFieldCaseF39CutByAProxy(t *testing.T) {
	play(t, noon, func(t *testing.T, f *field) {
		l := f.lane(t, nil)
		audited := len(l.items("/audit"))
		for i := range 6 {
			l.Process.Close() // as a proxy cuts
			frame := l.Send(event(t, fmt.Sprintf(`{"kind":"task.received","task_id":"p%d","name":"j","at":"T+0"}`, i), noon))
			l.Connect(f.Base)
			l.Settle()
			if l.Acks(frame) == 0 {
				t.Errorf("frame %s has no ack", frame)
			}
			has(t, "stats", l.get("/stats"), `{"agents_online":1}`)
		}
		l.found("", "p0", "p1", "p2", "p3", "p4", "p5")
		if n := len(l.items("/audit")); n != audited {
			t.Errorf("audit: %d rows more after six connections, want none", n-audited)
		}
	})
}

func TestFieldCaseF47NumbersPast31Bits(t *testing.T) {
	play(t, noon, func(t *testing.T, f *field) {
		l := f.lane(t, nil)
		l.tell(`{"kind":"task.succeeded","task_id":"t0","name":"j0","queue":"q0","worker":"celery@n0","at":"T+0"}`)
		db := storetest.DB(t, f.Database)
		if f.dialect() == "postgres" {
			// The one of the migrations' own table counts migrations.
			if rows := storetest.Rows(t, db, `SELECT sequencename FROM pg_sequences WHERE schemaname = current_schema() AND sequencename <> 'schema_migrations_id_seq'`); len(rows) > 0 {
				t.Errorf("sequences: %v, want none: what is none can't run out", rows)
			}
		}
		for _, table := range []string{"rollup_hours", "rollup_minutes"} {
			if _, err := db.ExecContext(t.Context(), `UPDATE `+table+` SET count = 2147483640`); err != nil {
				t.Fatal(err)
			}
		}
		var all []string
		for i := 1; i < 100; i++ {
			all = append(all, event(t, fmt.Sprintf(`{"kind":"task.succeeded","task_id":"t%d","name":"j%d","queue":"q%d","worker":"celery@n%d","at":"T+0"}`, i, i%3, i%2, i%2), noon))
		}
		l.Send(all...)
		l.Settle()
		has(t, "stats", l.get("/stats"), `{"tasks_succeeded_24h":2147483739,"tasks_by_state":{"success":2147483739}}`)
		has(t, "home", l.home(), `{"tasks_24h":2147483739}`)
	})
}

func TestFieldCaseF65WorkerWithoutEvents(t *testing.T) {
	play(t, noon, func(t *testing.T, f *field) {
		l := f.lane(t, nil)
		beat := func(processed, active, depth int) {
			list := strings.TrimSuffix(strings.Repeat(`{"id":"x"},`, active), ",")
			l.Heartbeat(map[string]string{
				"celery.queue_depths":   fmt.Sprintf(`{"quiet":%d}`, depth),
				"celery.worker_details": fmt.Sprintf(`{"celery@quiet":{"stats":{"total":{"job":%d},"pool":{"max-concurrency":8}},"active":[%s],"active_queues":[{"name":"quiet"}]}}`, processed, list),
			})
			want := strconv.Itoa(active)
			l.until("the heartbeat to be written", func() bool {
				w := l.bare("/workers")
				return len(w) == 1 && fmt.Sprint(w[0].(map[string]any)["active_tasks"]) == want
			})
		}
		beat(1000, 4, 500)
		has(t, "queues", l.bare("/queues"), `[{"name":"quiet","pending_count":500}]`)
		l.at(noon.Add(10 * minute))
		beat(9000, 5, 40)
		has(t, "workers", l.bare("/workers"), `[{"name":"celery@quiet","state":"online","active_tasks":5,"concurrency":8,"queues":["quiet"]}]`)
		has(t, "queues", l.bare("/queues"), `[{"name":"quiet","pending_count":40}]`)
		l.online(1)
		l.found("")
	})
}

// TestFieldCaseF25OtherLists walks the lists of what has one time for many rows, in small pages.
func TestFieldCaseF25OtherLists(t *testing.T) {
	const many = 60
	play(t, noon, func(t *testing.T, f *field) {
		l := f.lane(t, nil)
		var all []string
		for i := range many {
			all = append(all, event(t, fmt.Sprintf(`{"kind":"task.received","task_id":"one","name":"j","queue":"q%d","worker":"celery@n%d","at":"2026-03-02T08:00:00.123456Z"}`, i, i), noon))
		}
		l.Send(all...)
		l.Settle()
		for _, list := range []struct {
			path, key string
			least     int
		}{
			{"/events?engine=celery&task_id=one&limit=7", "id", many},
			{"/workers?limit=7", "name", many},
			{"/workers?limit=7&sort=name", "name", many},
			{"/queues?limit=7", "name", many},
			{"/audit?limit=1", "id", 2},
			{"/agents?limit=1", "id", 1},
		} {
			seen := map[string]bool{}
			rows := 0
			for path := "/api/v1/projects/" + l.slug + list.path; path != ""; {
				_, header, raw := f.Client.Try(http.MethodGet, path, nil)
				page, next := decode(t, raw), header.Get("X-Next-Cursor")
				if envelope, ok := page.(map[string]any); ok {
					page = envelope["items"]
					next, _ = envelope["next_cursor"].(string)
				}
				for _, row := range page.([]any) {
					seen[fmt.Sprint(row.(map[string]any)[list.key])] = true
					rows++
				}
				path, _, _ = strings.Cut(path, "&cursor=")
				if path += "&cursor=" + url.QueryEscape(next); next == "" {
					break
				}
			}
			if rows < list.least || len(seen) != rows {
				t.Errorf("%s: %d rows, %d different ones, want each of at least %d once", list.path, rows, len(seen), list.least)
			}
		}
	})
}
