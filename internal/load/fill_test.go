package load_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/load"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

var until = time.Date(2026, 3, 12, 15, 0, 0, 0, time.UTC)

// every is a history with what each engine tells.
func every(tasks int64) load.History {
	return load.History{Tasks: tasks, Days: 3, Projects: 2, Engines: load.EngineNames(), Seed: 7, EventSize: 250, Until: until}
}

// TestFilledIsWhatIngestWrites lets ingest take the events of a history, and compares every row with what Fill wrote.
func TestFilledIsWhatIngestWrites(t *testing.T) {
	h := every(2000)
	storetest.EachURL(t, func(t *testing.T, url string) {
		filled := storetest.Open(t, url)
		wrote, err := load.Fill(t.Context(), filled, load.FillOptions{History: h})
		if err != nil {
			t.Fatal(err)
		}
		other := storetest.SQLite(t)
		if strings.HasPrefix(url, "postgres") {
			other = storetest.Postgres(t)
		}
		events := take(t, storetest.Open(t, other), h)
		if wrote.Events != int64(events) || wrote.Tasks < 1990 || wrote.Tasks > 2000 {
			t.Errorf("wrote %+v, want %d events and nearly 2000 tasks", wrote, events)
		}
		got, want := dump(t, url), dump(t, other)
		for table := range want {
			if len(want[table]) == 0 {
				t.Errorf("%s: no rows, want some", table)
			}
			if diff := cmp.Diff(want[table], got[table]); diff != "" {
				t.Errorf("%s (- ingest, + fill):\n%.3000s", table, diff)
			}
		}
		const slack = 3_000_000 // µs: ingest writes a sign of life when the one before is two seconds old
		for _, table := range []string{"workers", "queues"} {
			ours, theirs := lives(t, url, table), lives(t, other, table)
			for name, seen := range theirs {
				if our := ours[name]; our < seen || our > seen+slack {
					t.Errorf("%s: %s was last seen at %s, want %s or just after", table, name, store.TimeAt(our), store.TimeAt(seen))
				}
			}
		}
	})
}

// lives tells when each worker or queue was last seen, in µs.
func lives(t *testing.T, url, table string) map[string]int64 {
	t.Helper()
	seen := `last_seen_at`
	if strings.HasPrefix(url, "postgres") {
		seen = `(extract(epoch FROM last_seen_at) * 1000000)::bigint`
	}
	out := map[string]int64{}
	for _, row := range storetest.Rows(t, storetest.DB(t, url), `SELECT project_id, engine, name, `+seen+` FROM `+table) {
		at, err := strconv.ParseInt(row[3], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		out[row[0]+row[1]+row[2]] = at
	}
	return out
}

// take sends the history's events through ingest, each in a frame of its own, in the order of their receipt.
func take(t *testing.T, s *store.Store, h load.History) (n int) {
	t.Helper()
	parts, processes, err := load.Parts(h)
	if err != nil {
		t.Fatal(err)
	}
	w := ingest.New(s, ingest.Options{Now: func() time.Time { return until }})
	w.Start(t.Context())
	for _, events := range parts {
		slices.SortStableFunc(events, func(a, b store.EventRow) int { return int(a.Received - b.Received) })
		for i := range events {
			e := &events[i]
			p := processes[e.Agent]
			f := &ingest.Frame{
				Session: &ingest.Session{ID: "s", Project: e.Project, Agent: e.Agent, HasWorkerID: true, WorkerID: p.WorkerID, Engines: []string{p.Engine}, ProcessStarted: p.Started},
				ID:      fmt.Sprint(n), Received: e.Received,
				Payload: fmt.Appendf(nil, `{"events":[{"id":"","kind":%q,"engine":%q,"task_id":%q,"occurred_at":%q,"data":%s}]}`, e.Kind, e.Engine, e.TaskID, store.TimeAt(e.Occurred), e.Payload),
				Done: func(o ingest.Outcome) {
					if o.Err != nil || o.Accepted != 1 {
						t.Errorf("%s of %s: %+v, want it accepted", e.Kind, e.TaskID, o)
					}
				},
			}
			if err := w.Submit(t.Context(), f); err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	if err := w.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	return n
}

// dump is what all tables say that Fill writes. Left out are random parts of ids, and the times of workers and queues:
// ingest has them of the groups that it happened to write.
func dump(t *testing.T, url string) map[string][][]string {
	t.Helper()
	db := storetest.DB(t, url)
	micros := func(columns string) string { return columns }
	milli := `substr(hex(id), 1, 12)`
	if strings.HasPrefix(url, "postgres") {
		milli = `upper(substr(replace(id::text, '-', ''), 1, 12))`
		micros = func(columns string) string {
			var out []string
			for c := range strings.SplitSeq(columns, ", ") {
				out = append(out, `(extract(epoch FROM `+c+`) * 1000000)::bigint AS `+c)
			}
			return strings.Join(out, ", ")
		}
	}
	out := map[string][][]string{}
	for table, q := range map[string]string{
		"tasks": `SELECT project_id, engine, task_key, ` + milli + `, ` + micros("created_at, updated_at, last_at, received_at, started_at, finished_at, eta") + `,
			wait_us, runtime_us, state, rare_state, deciding, attempts, retry_count, deliveries, truncated, task_id, name, queue, worker, priority,
			parent_task_id, root_task_id, reason, args, kwargs, tags, marks FROM tasks ORDER BY project_id, engine, task_key`,
		"attempts": `SELECT project_id, engine, task_key, number, state, ` + micros("started_at, finished_at") + `, wait_us, runtime_us, retries, worker, result,
			exception, exception_message, traceback, reason FROM attempts ORDER BY project_id, engine, task_key, number`,
		"events":         `SELECT project_id, id, agent_id, task_key, ` + micros("occurred_at, received_at") + `, engine, task_id, kind, worker, payload FROM events ORDER BY project_id, occurred_at, id`,
		"rollup_minutes": `SELECT project_id, ` + micros("bucket") + `, measure, name, queue, count, sum FROM rollup_minutes WHERE count <> 0 OR sum <> 0 ORDER BY project_id, bucket, measure, name, queue`,
		"rollup_hours":   `SELECT project_id, ` + micros("bucket") + `, measure, name, queue, count, sum FROM rollup_hours WHERE count <> 0 OR sum <> 0 ORDER BY project_id, bucket, measure, name, queue`,
		"workers":        `SELECT project_id, engine, name, agent_id, stopped_at, queues, metadata FROM workers ORDER BY project_id, engine, name`,
		"queues":         `SELECT project_id, engine, name, pending_count FROM queues ORDER BY project_id, engine, name`,
	} {
		out[table] = storetest.Rows(t, db, q)
	}
	payloads := storetest.Rows(t, db, `SELECT count(*) FROM task_payloads`)
	dead := storetest.Rows(t, db, `SELECT count(*) FROM dead_letters`)
	out["of no use"] = append(payloads, dead...)
	if diff := cmp.Diff([][]string{{"0"}, {"0"}}, out["of no use"]); diff != "" {
		t.Errorf("side payloads and dead letters (- want, + got):\n%s", diff)
	}
	return out
}

func TestFillOnTopOfAFill(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		first := every(300)
		if _, err := load.Fill(t.Context(), s, load.FillOptions{History: first}); err != nil {
			t.Fatal(err)
		}
		if _, err := load.Fill(t.Context(), s, load.FillOptions{History: first}); !errors.Is(err, store.ErrNotEmpty) {
			t.Errorf("again: %v, want ErrNotEmpty", err)
		}
		if _, err := load.Fill(t.Context(), s, load.FillOptions{History: first, Add: true}); !errors.Is(err, store.ErrConflict) || !strings.Contains(err.Error(), "seed") {
			t.Errorf("again with Add: %v, want a conflict that names the seed", err)
		}
		second := every(400)
		second.Seed = 8
		if _, err := load.Fill(t.Context(), s, load.FillOptions{History: second, Add: true}); err != nil {
			t.Fatal(err)
		}
		got := dump(t, url)
		other := storetest.SQLite(t)
		if strings.HasPrefix(url, "postgres") {
			other = storetest.Postgres(t)
		}
		both := storetest.Open(t, other)
		take(t, both, first)
		take(t, both, second)
		want := dump(t, other)
		for _, table := range []string{"tasks", "attempts", "events", "rollup_minutes", "rollup_hours"} {
			if diff := cmp.Diff(want[table], got[table]); diff != "" {
				t.Errorf("%s (- ingest, + fill):\n%.3000s", table, diff)
			}
		}
	})
}

func TestFillIsTheSameForOneSeed(t *testing.T) {
	one, _, err := load.Parts(every(load.PartTasks + 300))
	if err != nil {
		t.Fatal(err)
	}
	two, _, err := load.Parts(every(load.PartTasks + 300))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(one, two) {
		t.Error("two histories of one seed differ, want the same")
	}
	other := every(300)
	other.Seed++
	three, _, err := load.Parts(other)
	if err != nil {
		t.Fatal(err)
	}
	if three[0][0].TaskID == one[0][0].TaskID {
		t.Error("another seed gives the same task, want another one")
	}
}

// TestFillSpreadsItsTasks looks at what reads would find odd.
func TestFillSpreadsItsTasks(t *testing.T) {
	h := every(4000)
	h.Engines = load.DefaultEngines()
	parts, _, err := load.Parts(h)
	if err != nil {
		t.Fatal(err)
	}
	first, last, bytes := until.UnixMicro(), int64(0), 0
	kinds, hours := map[string]int{}, map[int64]int{}
	for _, events := range parts {
		for _, e := range events {
			first, last = min(first, e.Occurred), max(last, e.Occurred)
			kinds[e.Kind]++
			hours[e.Occurred/3_600_000_000]++
			bytes += len(e.Payload)
		}
	}
	events := len(parts[0])
	if begin := until.AddDate(0, 0, -3).UnixMicro(); first < begin || first > begin+3_600_000_000 || last > until.UnixMicro() || last < until.UnixMicro()-600_000_000 {
		t.Errorf("from %s to %s, want the three days before %s", store.TimeAt(first), store.TimeAt(last), until)
	}
	if per := float64(events) / 4000; per < 2.9 || per > 3.3 {
		t.Errorf("%.2f events a task, want about three", per)
	}
	if size := bytes / events; size < 150 || size > 300 {
		t.Errorf("%d bytes of data an event, want about 250", size)
	}
	for _, kind := range []string{"task.received", "task.started", "task.succeeded", "task.failed", "task.retried", "task.revoked"} {
		if kinds[kind] == 0 {
			t.Errorf("no %s among %v", kind, kinds)
		}
	}
	if len(hours) < 70 {
		t.Errorf("events in %d hours, want all of three days", len(hours))
	}
}

// TestFillThatEndsEarlyLeavesItsIndexes cancels a fill while rows are written.
func TestFillThatEndsEarlyLeavesItsIndexes(t *testing.T) {
	url := storetest.Postgres(t)
	s := storetest.Open(t, url)
	db := storetest.DB(t, url)
	const indexes = `SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() AND tablename NOT LIKE 'events_2026%' ORDER BY 1, 2`
	before := storetest.Rows(t, db, indexes)
	ctx, cancel := context.WithCancel(t.Context())
	h := every(2 * load.PartTasks)
	gone := 0
	_, err := load.Fill(ctx, s, load.FillOptions{History: h, Done: func(int64, int64) {
		gone = len(before) - len(storetest.Rows(t, db, indexes))
		cancel()
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v, want that it says so", err)
	}
	if gone == 0 {
		t.Error("no index was set aside while rows were written")
	}
	if diff := cmp.Diff(before, storetest.Rows(t, db, indexes)); diff != "" {
		t.Errorf("indexes after a fill that was cancelled (- before, + after):\n%s", diff)
	}
}

// TestFillMendsAfterAKill leaves a database as a fill leaves it that is killed between its rows and its indexes: what it
// noted stands, and indexes are missing.
func TestFillMendsAfterAKill(t *testing.T) {
	url := storetest.Postgres(t)
	s := storetest.Open(t, url)
	db := storetest.DB(t, url)
	const indexes = `SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() AND tablename NOT LIKE 'events_2026%' ORDER BY 1, 2`
	const noted = `SELECT value FROM meta WHERE key = 'fill_indexes_set_aside'`
	before, note := storetest.Rows(t, db, indexes), ""
	_, err := load.Fill(t.Context(), s, load.FillOptions{History: every(200), Done: func(int64, int64) { note = storetest.Rows(t, db, noted)[0][0] }})
	if err != nil || !strings.Contains(note, "tasks_name") {
		t.Fatalf("fill: %v; it noted %q, want its indexes", err, note)
	}
	if left := storetest.Rows(t, db, noted); len(left) > 0 {
		t.Errorf("after the fill its note still stands: %q", left)
	}
	for _, q := range []string{`DROP INDEX tasks_name`, `ALTER TABLE events DROP CONSTRAINT events_pkey`, `ALTER TABLE attempts DROP CONSTRAINT attempts_pkey`} {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.ExecContext(t.Context(), `INSERT INTO meta (key, value, updated_at) VALUES ('fill_indexes_set_aside', $1, now())`, note); err != nil {
		t.Fatal(err)
	}
	if _, err := load.Fill(t.Context(), s, load.FillOptions{History: every(200)}); !errors.Is(err, store.ErrNotEmpty) {
		t.Errorf("the next fill: %v, want ErrNotEmpty", err)
	}
	if diff := cmp.Diff(before, storetest.Rows(t, db, indexes)); diff != "" {
		t.Errorf("indexes after the next fill (- before, + after):\n%s", diff)
	}
}

func TestFillRefuses(t *testing.T) {
	s := storetest.Open(t, storetest.SQLite(t))
	for _, tt := range []struct {
		name, want string
		change     func(h *load.History)
	}{
		{"no tasks", "--tasks", func(h *load.History) { h.Tasks = 0 }},
		{"no days", "--days", func(h *load.History) { h.Days = 0 }},
		{"no project", "--projects", func(h *load.History) { h.Projects = 0 }},
		{"no engine", "--engines", func(h *load.History) { h.Engines = nil }},
		{"an unknown engine", "celery, rq", func(h *load.History) { h.Engines = []string{"sidekiq"} }},
		{"events of no size", "--event-size", func(h *load.History) { h.EventSize = 1 }},
	} {
		h := every(10)
		tt.change(&h)
		if _, err := load.Fill(t.Context(), s, load.FillOptions{History: h}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error that names %s", tt.name, err, tt.want)
		}
	}
	ok, err := s.Lease(t.Context(), "jobs", "somebody", store.TimeOf(time.Now()), store.TimeOf(time.Now().Add(time.Minute)))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if _, err := load.Fill(t.Context(), s, load.FillOptions{History: every(10)}); !errors.Is(err, store.ErrInUse) {
		t.Errorf("with a brain at work: %v, want ErrInUse", err)
	}
}
