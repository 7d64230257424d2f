package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/fold"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// sweepDay is when the sweeps of the tests run.
var sweepDay = time.Date(2026, 6, 15, 3, 30, 0, 0, time.UTC)

func daysAgo(n int) time.Time { return sweepDay.AddDate(0, 0, -n) }

var (
	keep90   = store.Retention{Tasks: 90, Unfinished: 365}
	sweepBy  = store.By{Actor: audit.Actor{Kind: audit.System, ID: "retention"}, Via: "daily"}
	sweeping = store.SweepOptions{Keep: keep90, By: sweepBy, Holder: "here", Batch: 7}
)

// openOn opens url with a clock that stands at sweepDay.
func openOn(t testing.TB, url string) *store.Store {
	t.Helper()
	return openClocked(t, url, func() time.Time { return sweepDay })
}

func openClocked(t testing.TB, url string, now func() time.Time) *store.Store {
	t.Helper()
	o := storetest.Options(url)
	o.Now = now
	s, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// swept is one database of a test about retention.
type swept struct {
	*store.Store
	t   *testing.T
	url string
}

func eachSwept(t *testing.T, fn func(t *testing.T, s *swept)) {
	t.Helper()
	storetest.EachURL(t, func(t *testing.T, url string) { fn(t, &swept{openOn(t, url), t, url}) })
}

// project makes one; change may set what it keeps.
func (s *swept) project(slug string, change func(*store.Project)) store.Project {
	s.t.Helper()
	p := store.Project{Slug: slug, Name: slug, Environment: "production", Timezone: "UTC", DefaultSchedulerOwner: "z4j-scheduler"}
	if change != nil {
		change(&p)
	}
	p, err := s.CreateProject(s.t.Context(), p, operator)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// heard takes events in as if they were received when they occurred.
func (s *swept) heard(project id.ID, at time.Time, events ...string) {
	s.t.Helper()
	w := ingest.New(s.Store, ingest.Options{Now: func() time.Time { return at }})
	w.Start(s.t.Context())
	tell(s.t, w, project, at, events...)
	if err := w.Close(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// ran are the events of a task that ran, and ended with the last kind, at a time.
func ran(task, last string, at time.Time) []string {
	return []string{
		event("task.received", task, "w1", at, `,"task_name":"pay.one","queue":"q"`), event("task.started", task, "w1", at, ``),
		event(last, task, "w1", at.Add(time.Second), ``),
	}
}

func (s *swept) rows(query string) string {
	s.t.Helper()
	var out []string
	for _, r := range storetest.Rows(s.t, storetest.DB(s.t, s.url), query) {
		out = append(out, strings.Join(r, " "))
	}
	return strings.Join(out, "\n")
}

// left are the tasks of a project that are there.
func (s *swept) left(project id.ID) string {
	s.t.Helper()
	page, err := s.Tasks(s.t.Context(), store.TaskFilter{Project: project, Page: store.Page{Limit: 500}})
	if err != nil {
		s.t.Fatal(err)
	}
	var names []string
	for _, t := range page.Items {
		names = append(names, t.TaskID)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func (s *swept) sweep(o store.SweepOptions) store.Swept {
	s.t.Helper()
	out, err := s.Sweep(s.t.Context(), o)
	if err != nil {
		s.t.Fatalf("sweep: %v", err)
	}
	return out
}

// entries are the details of the log's entries about sweeps.
func (s *swept) entries() []map[string]any {
	s.t.Helper()
	var out []map[string]any
	for _, r := range storetest.Rows(s.t, storetest.DB(s.t, s.url), `SELECT details FROM audit_log WHERE action = 'retention.swept' ORDER BY seq`) {
		var d map[string]any
		if err := json.Unmarshal([]byte(r[0]), &d); err != nil {
			s.t.Fatal(err)
		}
		out = append(out, d)
	}
	return out
}

func (s *swept) same(what, got, want string) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestEveryTableHasAPolicy(t *testing.T) {
	names, kinds := store.PolicyTables()
	for name, tables := range map[string][]string{
		"sqlite": query(t, "sqlite3", sqliteDSN(t), `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`),
		"postgres": query(t, "pgx", postgresDSN(t), `SELECT c.relname FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace
			AND c.relkind IN ('r', 'p') AND NOT c.relispartition`),
	} {
		for _, table := range tables {
			if !slices.Contains(names, table) {
				t.Errorf("%s: table %s has no line in policies (retention.go): say how its rows go, or why they stay", name, table)
			}
		}
		for i, table := range names {
			if !slices.Contains(tables, table) {
				t.Errorf("%s: policies names %s, which is no table", name, table)
			}
			if strings.HasPrefix(table, "audit_") && kinds[i] != "for_ever" {
				t.Errorf("%s goes %s: the audit log is never deleted automatically", table, kinds[i])
			}
		}
	}
}

// fillAll makes three projects with tasks of every kind of age and state: one that keeps what the installation keeps, one
// that keeps less, and more of failures, and one that keeps more.
func fillAll(s *swept) (usual, short, long store.Project) {
	usual = s.project("usual", nil)
	short = s.project("short", func(p *store.Project) {
		p.TaskRetentionDays, p.FailedRetentionDays, p.EventRetentionDays = new(int64(20)), new(int64(60)), new(int64(5))
	})
	long = s.project("long", func(p *store.Project) { p.TaskRetentionDays = new(int64(200)) })
	for _, p := range []store.Project{usual, short, long} {
		for _, days := range []int{400, 150, 100, 50, 10, 1} {
			at, n := daysAgo(days), fmt.Sprint(days)
			s.heard(p.ID, at, slices.Concat(ran("ok"+n, "task.succeeded", at), ran("bad"+n, "task.failed", at), ran("open"+n, "task.started", at))...)
			s.heard(p.ID, at, `{"id":"x","kind":"task.failed","engine":"celery"}`) // names no task: a dead letter
		}
	}
	at := daysAgo(100)
	s.heard(usual.ID, at, ran("revived", "task.failed", at)...)
	s.heard(usual.ID, daysAgo(2), event("task.started", "revived", "w1", daysAgo(2), ``))
	s.heard(usual.ID, at, event("task.received", "eta", "w1", at, `,"eta":"2026-06-20T00:00:00Z"`))
	return usual, short, long
}

func TestSweepDoesWhatThePlanSays(t *testing.T) {
	eachSwept(t, func(t *testing.T, s *swept) {
		usual, short, long := fillAll(s)
		plan, err := s.PlanRetention(t.Context(), keep90)
		if err != nil || plan.Hold != nil || plan.Waits != "" {
			t.Fatalf("plan: %+v, %v", plan, err)
		}
		planned := map[string]int64{}
		for _, l := range plan.Lines {
			if planned[l.Table] += l.Rows; l.AtLeast || l.Held != "" || l.Oldest == nil || !l.Oldest.Before(l.Before.Time) {
				t.Errorf("planned: %+v, want all counted, none held, the oldest before the cut-off", l)
			}
		}
		if len(plan.Kept) < 15 {
			t.Errorf("tables that are kept: %v", plan.Kept)
		}
		before := s.rows(`SELECT count(*) FROM tasks`)
		out := s.sweep(sweeping)
		for _, byParent := range []string{"attempts", "task_payloads"} {
			delete(out.Rows, byParent)
		}
		if diff := cmp.Diff(planned, out.Rows); diff != "" {
			t.Errorf("of %s tasks: what was planned (-) and deleted (+):\n%s", before, diff)
		}
		s.same("usual", s.left(usual.ID), "bad1 bad10 bad50 eta ok1 ok10 ok50 open1 open10 open100 open150 open50 revived")
		s.same("short", s.left(short.ID), "bad1 bad10 bad50 ok1 ok10 open1 open10 open100 open150 open50")
		s.same("long", s.left(long.ID), "bad1 bad10 bad100 bad150 bad50 ok1 ok10 ok100 ok150 ok50 open1 open10 open100 open150 open50")
		s.same("days of events that are left", s.rows(`SELECT p.slug, count(*) FROM events e JOIN projects p ON p.id = e.project_id GROUP BY p.slug ORDER BY p.slug`),
			"long 45\nshort 9\nusual 28")
		s.same("attempts without task", s.rows(`SELECT count(*) FROM attempts a WHERE NOT EXISTS (SELECT 1 FROM tasks t WHERE t.project_id = a.project_id AND t.engine = a.engine AND t.task_key = a.task_key)`), "0")
		for _, p := range []store.Project{usual, short, long} {
			counted(t, s, p.ID)
		}
		again := s.sweep(sweeping)
		if again.Total() != 0 || len(s.entries()) != 1 {
			t.Errorf("a second sweep deleted %v, and the log has %d entries about sweeps; want none and 1", again.Rows, len(s.entries()))
		}
		entry := s.entries()[0]
		tables := entry["tables"].(map[string]any)
		if tables["tasks"] != float64(planned["tasks"]) || tables["events"] != float64(planned["events"]) || entry["projects"].(map[string]any)["short"] == nil ||
			entry["cutoffs"].(map[string]any)["tasks"] != "2026-03-17T03:30:00.000000Z" || entry["via"] != "daily" {
			t.Errorf("the entry says %v, want what was planned: %v", entry, planned)
		}
		r, err := s.VerifyAudit(t.Context(), store.VerifyOptions{})
		if err != nil || r.Exit() != 0 {
			t.Errorf("the audit log afterwards: %+v, %v", r, err)
		}
	})
}

// counted wants the numbers of a project's tasks by state to be those of its tasks.
func counted(t *testing.T, s *swept, project id.ID) {
	t.Helper()
	n, err := s.TasksByState(t.Context(), project)
	if err != nil {
		t.Fatal(err)
	}
	page, err := s.Tasks(t.Context(), store.TaskFilter{Project: project, Page: store.Page{Limit: 500}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{}
	for state := fold.StateUnknown; state <= fold.StateLost; state++ {
		want[state.String()] = 0
	}
	for _, task := range page.Items {
		want[task.State]++
	}
	if diff := cmp.Diff(want, n); diff != "" {
		t.Errorf("tasks by state, listed (-) and counted (+):\n%s", diff)
	}
}

func TestHeldProjectsKeepAll(t *testing.T) {
	eachSwept(t, func(t *testing.T, s *swept) {
		one, other := s.project("one", nil), s.project("other", nil)
		for _, p := range []store.Project{one, other} {
			s.heard(p.ID, daysAgo(100), ran("old", "task.succeeded", daysAgo(100))...)
		}
		if _, err := s.HoldProject(t.Context(), "one", "case 7", operator); err != nil {
			t.Fatal(err)
		}
		if _, err := s.HoldProject(t.Context(), "one", "case 8", operator); !errors.Is(err, store.ErrLegalHoldStands) {
			t.Errorf("a second hold: %v, want %v", err, store.ErrLegalHoldStands)
		}
		plan, err := s.PlanRetention(t.Context(), keep90)
		if err != nil || !slices.ContainsFunc(plan.Lines, func(l store.PlannedRows) bool {
			return l.Table == "tasks" && l.Project == "one" && l.Rows == 1 && l.Held == "legal hold: case 7"
		}) {
			t.Errorf("the plan: %+v, %v; want the held project's rows, held", plan.Lines, err)
		}
		out := s.sweep(sweeping)
		s.same("events", s.rows(`SELECT p.slug, count(*) FROM events e JOIN projects p ON p.id = e.project_id GROUP BY p.slug`), "one 3")
		s.same("held", s.left(one.ID), "old")
		s.same("not held", s.left(other.ID), "")
		if len(out.Partitions) != 0 {
			t.Errorf("dropped %v, want no partition that holds what is held", out.Partitions)
		}
		if _, err := s.ReleaseProject(t.Context(), "one", "", operator); err != nil {
			t.Fatal(err)
		}
		s.sweep(sweeping)
		s.same("events after the release", s.rows(`SELECT count(*) FROM events`), "0")
		s.same("released", s.left(one.ID), "")
		if _, err := s.ReleaseProject(t.Context(), "one", "", operator); !errors.Is(err, store.ErrNoLegalHold) {
			t.Errorf("a second release: %v, want %v", err, store.ErrNoLegalHold)
		}
		s.same("the log", s.rows(`SELECT action, target_label FROM audit_log WHERE action LIKE 'retention.%' AND action <> 'retention.swept' ORDER BY seq`),
			"retention.held one\nretention.released one")
	})
}

// TestASweepWaits: while a backup holds its snapshot, everything is held, or the history is in doubt, nothing goes.
func TestASweepWaits(t *testing.T) {
	eachSwept(t, func(t *testing.T, s *swept) {
		p := s.project("one", nil)
		s.heard(p.ID, daysAgo(100), ran("old", "task.succeeded", daysAgo(100))...)
		db := storetest.DB(t, s.url)
		exec := func(q string) {
			if _, err := db.ExecContext(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		since, now := `1`, fmt.Sprint(sweepDay.UnixMicro())
		if s.Dialect() == "postgres" { // leases go by its clock
			since, now = `'2026-01-01'`, `now() - interval '1 second'`
		}
		for _, tt := range []struct {
			name      string
			want      error
			set, free func()
		}{
			{"a backup", store.ErrBackupRuns, func() {
				if ok, err := s.Lease(t.Context(), store.BackupLease, "there", store.TimeOf(sweepDay), store.TimeOf(sweepDay.Add(time.Minute))); !ok || err != nil {
					t.Fatal(ok, err)
				}
			}, func() { exec(`UPDATE leases SET until = ` + now + ` WHERE name = 'backup'`) }}, // it ended without a word
			{"a hold of everything", store.ErrLegalHold, func() {
				if _, err := s.HoldInstallation(t.Context(), "all", operator); err != nil {
					t.Fatal(err)
				}
			}, func() {
				if err := s.ReleaseInstallation(t.Context(), "", operator); err != nil {
					t.Fatal(err)
				}
			}},
			{"a history in doubt", store.ErrHistoryInDoubt, func() { exec(`INSERT INTO audit_hold (id, since, reason) VALUES (1, ` + since + `, 'x')`) }, func() {
				exec(`DELETE FROM audit_hold`)
			}},
			{"another sweep", store.ErrSweepRuns, func() {
				if ok, err := s.Lease(t.Context(), "retention", "there", store.TimeOf(sweepDay), store.TimeOf(sweepDay.Add(time.Minute))); !ok || err != nil {
					t.Fatal(ok, err)
				}
			}, func() {
				if err := s.ReleaseLease(t.Context(), "retention", "there"); err != nil {
					t.Fatal(err)
				}
			}},
		} {
			tt.set()
			out, err := s.Sweep(t.Context(), sweeping)
			if !errors.Is(err, tt.want) || out.Total() != 0 || s.left(p.ID) != "old" {
				t.Errorf("%s: %v, %v, left %q; want %v and nothing deleted", tt.name, out.Rows, err, s.left(p.ID), tt.want)
			}
			plan, err := s.PlanRetention(t.Context(), keep90)
			if err != nil || plan.Waits == "" && !errors.Is(tt.want, store.ErrSweepRuns) || len(plan.Lines) == 0 {
				t.Errorf("%s: the plan: %+v, %v; want what would go, and what it waits for", tt.name, plan, err)
			}
			tt.free()
		}
		if out := s.sweep(sweeping); out.Rows["tasks"] != 1 || out.Rows["events"] != 3 {
			t.Errorf("with nothing in the way: %v, want the task and its events gone", out.Rows)
		}
	})
}

// TestASweepThatWasKilledIsRecordedByTheNext: the process ends between two steps, again and again; what it had deleted is
// in the next one's entry.
func TestASweepThatWasKilledIsRecordedByTheNext(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := &swept{openOn(t, url), t, url}
		p := s.project("one", nil)
		for i := range 60 {
			s.heard(p.ID, daysAgo(100), ran(fmt.Sprint("t", i), "task.succeeded", daysAgo(100))...)
		}
		var kill context.CancelFunc
		var looks atomic.Int64
		dying := openClocked(t, url, func() time.Time {
			if looks.Add(-1) == 0 {
				kill()
			}
			return sweepDay
		})
		cut := 0
		for _, after := range []int64{7, 12, 18, 23, 29, 31} {
			var ctx context.Context
			ctx, kill = context.WithCancel(t.Context())
			looks.Store(after)
			o := sweeping
			o.Holder = "killed"
			out, err := dying.Sweep(ctx, o)
			if kill(); err != nil && out.Total() > 0 {
				cut++
			}
		}
		if cut < 3 {
			t.Fatalf("%d of the killed sweeps had deleted something, want 3 at least", cut)
		}
		s.sweep(sweeping)
		tasks, events := 0.0, 0.0
		for _, e := range s.entries() {
			tables := e["tables"].(map[string]any)
			for table, to := range map[string]*float64{"tasks": &tasks, "events": &events} {
				if n, ok := tables[table].(float64); ok {
					*to += n
				}
			}
		}
		if tasks != 60 || events != 180 || len(s.entries()) > 2 {
			t.Errorf("%d entries tell of %v tasks and %v events; want all 60 and 180", len(s.entries()), tasks, events)
		}
		s.same("left", s.left(p.ID)+s.rows(`SELECT count(*) FROM retention_counts`), "0")
		counted(t, s, p.ID)
	})
}

func TestTwoReplicasSweepOnce(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := &swept{openOn(t, url), t, url}
		p := s.project("one", nil)
		for i := range 40 {
			s.heard(p.ID, daysAgo(100), ran(fmt.Sprint("t", i), "task.succeeded", daysAgo(100))...)
		}
		replicas := []*store.Store{s.Store, openOn(t, url)}
		var total atomic.Int64
		var wg sync.WaitGroup
		for i, r := range replicas {
			wg.Go(func() {
				o := sweeping
				o.Holder = fmt.Sprint("replica", i)
				out, err := r.Sweep(t.Context(), o)
				if err != nil && !errors.Is(err, store.ErrSweepRuns) {
					t.Errorf("replica %d: %v", i, err)
				}
				total.Add(out.Rows["tasks"])
			})
		}
		wg.Wait()
		if total.Load() != 40 || len(s.entries()) != 1 {
			t.Errorf("both deleted %d tasks with %d entries, want 40 and 1", total.Load(), len(s.entries()))
		}
		counted(t, s, p.ID)
	})
}

// TestIngestGoesOnDuringASweep: what comes meanwhile is there afterwards, for old tasks too, which begin anew.
func TestIngestGoesOnDuringASweep(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := &swept{openClocked(t, url, time.Now), t, url}
		p := s.project("one", nil)
		old, now := time.Now().AddDate(0, 0, -100), time.Now()
		for i := range 20 {
			var events []string
			for j := range 20 {
				events = append(events, ran(fmt.Sprintf("t%d-%d", i, j), "task.succeeded", old)...)
			}
			s.heard(p.ID, old, events...)
		}
		w := startWriter(t, s.Store, now)
		ctx, stop := context.WithCancel(t.Context())
		var told atomic.Int64
		var wg sync.WaitGroup
		for lane := range 2 {
			wg.Go(func() {
				for i := 0; ctx.Err() == nil || told.Load() < 40; i++ {
					tell(t, w, p.ID, now, event("task.started", fmt.Sprintf("t%d-%d", i%20, lane), "w2", now.Add(time.Duration(i)*time.Millisecond), ``))
					told.Add(1)
				}
			})
		}
		o := sweeping
		o.Batch = 20
		out, err := s.Sweep(t.Context(), o)
		stop()
		wg.Wait()
		if err != nil || out.Rows["tasks"] < 300 {
			t.Fatalf("sweep: %v, %v", out.Rows, err)
		}
		s.same("events of now", s.rows(`SELECT count(*) FROM events WHERE worker = 'w2'`), fmt.Sprint(told.Load()))
		counted(t, s, p.ID)
		if next := s.sweep(sweeping); next.Rows["tasks"] > 40 {
			t.Errorf("the next sweep took %d tasks", next.Rows["tasks"])
		}
		counted(t, s, p.ID)
	})
}

// TestFieldCaseF27PartitionsOfOtherBrains: a day that another brain's sweep dropped is made again when an event of it comes.
func TestFieldCaseF27PartitionsOfOtherBrains(t *testing.T) {
	url := storetest.Postgres(t)
	s := &swept{openOn(t, url), t, url}
	other := &swept{openOn(t, url), t, url}
	p := s.project("one", nil)
	s.heard(p.ID, daysAgo(100), ran("old", "task.succeeded", daysAgo(100))...)
	if out := other.sweep(sweeping); !slices.Equal(out.Partitions, []string{"events_2026_03_07"}) || out.Rows["events"] != 3 {
		t.Fatalf("the other brain dropped %v", out.Partitions)
	}
	s.heard(p.ID, daysAgo(100), ran("again", "task.succeeded", daysAgo(100))...)
	s.same("events", s.rows(`SELECT count(*) FROM events WHERE task_id = 'again'`), "3")
	s.same("dead letters", s.rows(`SELECT count(*) FROM dead_letters`), "0")
}

// TestFieldCaseF27RowsInADefaultPartition: they go by their age, and are counted.
func TestFieldCaseF27RowsInADefaultPartition(t *testing.T) {
	url := storetest.Postgres(t)
	s := &swept{openOn(t, url), t, url}
	p := s.project("one", nil)
	if n, err := s.DefaultEvents(t.Context()); n != 0 || err != nil {
		t.Errorf("without one: %d, %v", n, err)
	}
	if _, err := storetest.DB(t, url).ExecContext(t.Context(), `CREATE TABLE events_rest PARTITION OF events DEFAULT;
		INSERT INTO events (project_id, id, agent_id, occurred_at, received_at, engine, task_id, kind, payload)
		SELECT (SELECT id FROM projects), gen_random_uuid(), gen_random_uuid(), at, at, 'celery', 'x', 'task.sent', '{}'
		FROM unnest(ARRAY['2026-01-01', '2026-02-01', '2026-06-01']::timestamptz[]) AS at`); err != nil {
		t.Fatal(err)
	}
	if n, err := s.DefaultEvents(t.Context()); n != 3 || err != nil {
		t.Errorf("rows in the default partition: %d, %v, want 3", n, err)
	}
	s.heard(p.ID, daysAgo(14), ran("new", "task.succeeded", daysAgo(14))...) // 2026-06-01, whose rows stand in the default one
	out := s.sweep(sweeping)
	s.same("left", s.rows(`SELECT count(*) FROM events WHERE task_id = 'x'`)+s.rows(`SELECT count(*) FROM events WHERE task_id = 'new'`), "13")
	if out.Rows["events"] != 2 || len(out.Partitions) != 0 {
		t.Errorf("swept: %+v, want the two old rows", out)
	}
}

// TestADropNeverStopsIngest: a reader keeps the drop of a partition waiting, and events go on coming in meanwhile.
func TestADropNeverStopsIngest(t *testing.T) {
	url := storetest.Postgres(t)
	s := &swept{openOn(t, url), t, url}
	p := s.project("one", nil)
	s.heard(p.ID, daysAgo(100), ran("old", "task.succeeded", daysAgo(100))...)
	reader, err := storetest.DB(t, url).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.ExecContext(t.Context(), `SELECT count(*) FROM events`); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.Sweep(t.Context(), sweeping)
		done <- err
	}()
	for i := range 30 {
		s.heard(p.ID, sweepDay, ran(fmt.Sprint("new", i), "task.succeeded", sweepDay)...)
	}
	s.same("the old day", s.rows(`SELECT count(*) FROM pg_class WHERE relname = 'events_2026_03_07' AND relnamespace = current_schema()::regnamespace`), "1")
	if err := reader.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s.same("events", s.rows(`SELECT count(*) FROM events`), "90")
	s.same("the old day", s.rows(`SELECT count(*) FROM pg_class WHERE relname = 'events_2026_03_07' AND relnamespace = current_schema()::regnamespace`), "0")
}

// TestLessonF14PartitionsGoByTheirBounds: a name says nothing of what is in a partition.
func TestLessonF14PartitionsGoByTheirBounds(t *testing.T) {
	url := storetest.Postgres(t)
	s := &swept{openOn(t, url), t, url}
	p := s.project("one", nil)
	s.heard(p.ID, daysAgo(3), ran("new", "task.succeeded", daysAgo(3))...)
	if _, err := storetest.DB(t, url).ExecContext(t.Context(), `ALTER TABLE events_2026_06_12 RENAME TO events_2020_01_01`); err != nil {
		t.Fatal(err)
	}
	if out := s.sweep(sweeping); len(out.Partitions) != 0 {
		t.Errorf("dropped %v, want nothing: its days are young", out.Partitions)
	}
	s.same("events", s.rows(`SELECT count(*) FROM events`), "3")
}

// TestASweptFileShrinks: SQLite's free pages go back to the file system; in a file of an older version after it was compacted.
func TestASweptFileShrinks(t *testing.T) {
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprintf("old file %t", old), func(t *testing.T) {
			url := storetest.SQLite(t)
			path := strings.TrimPrefix(url, "sqlite:")
			if old {
				if _, err := storetest.DB(t, url).ExecContext(t.Context(), `PRAGMA auto_vacuum = NONE; PRAGMA journal_mode = WAL; CREATE TABLE x (y); DROP TABLE x`); err != nil {
					t.Fatal(err)
				}
			}
			s := &swept{openOn(t, url), t, url}
			f, err := s.File(t.Context())
			if err != nil || f.Incremental == old {
				t.Fatalf("file: %+v, %v; want it to give pages back: %t", f, err, !old)
			}
			p := s.project("one", nil)
			filler := strings.Repeat("x", 3000)
			for i := range 20 {
				var events []string
				for j := range 20 {
					events = append(events, event("task.succeeded", fmt.Sprintf("t%d-%d", i, j), "w1", daysAgo(100), `,"result":"`+filler+`"`))
				}
				s.heard(p.ID, daysAgo(100), events...)
			}
			out := s.sweep(sweeping)
			if old == (out.FreedBytes > 1<<20) {
				t.Errorf("freed %d bytes, want more than a megabyte: %t", out.FreedBytes, !old)
			}
			before, after, err := s.Compact(t.Context())
			if err != nil || !after.Incremental || after.Free != 0 || old && after.Pages > before.Pages/2 {
				t.Errorf("compacted: %+v to %+v, %v", before, after, err)
			}
			info, err := os.Stat(filepath.Clean(path))
			if err != nil || info.Size() > 1<<20 {
				t.Errorf("the file has %d bytes, %v", info.Size(), err)
			}
			s.same("integrity", s.rows(`PRAGMA integrity_check`), "ok")
		})
	}
}

// TestLessonL7ASweepLeavesTheAuditLog: ten years later and with every retention at its least.
func TestLessonL7ASweepLeavesTheAuditLog(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := &swept{openClocked(t, url, func() time.Time { return sweepDay.AddDate(10, 0, 0) }), t, url}
		p := s.project("one", nil)
		s.heard(p.ID, sweepDay, ran("old", "task.succeeded", sweepDay)...)
		before := s.rows(`SELECT seq, row_hmac FROM audit_log ORDER BY seq`)
		o := sweeping
		o.Keep = store.Retention{Tasks: 1, Failed: 1, Unfinished: 1, Events: 1}
		if out := s.sweep(o); out.Rows["tasks"] != 1 {
			t.Errorf("swept: %v", out.Rows)
		}
		if after := s.rows(`SELECT seq, row_hmac FROM audit_log ORDER BY seq`); !strings.HasPrefix(after, before) {
			t.Errorf("the log lost rows: %s\nof\n%s", after, before)
		}
	})
}
