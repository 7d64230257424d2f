package ingest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

func (l *lab) postgres() bool {
	var n int
	return l.db.QueryRowContext(l.t.Context(), `SELECT count(*) FROM pg_class`).Scan(&n) == nil
}

func (l *lab) exec(q string) {
	l.t.Helper()
	if _, err := l.db.ExecContext(l.t.Context(), q); err != nil {
		l.t.Fatal(err)
	}
}

// refuse makes the database refuse any task of that id.
func (l *lab) refuse(task string) {
	l.t.Helper()
	if !l.postgres() {
		l.exec(`CREATE TRIGGER refuse BEFORE INSERT ON tasks WHEN NEW.task_id = '` + task + `' BEGIN SELECT RAISE(ABORT, 'no'); END`)
		return
	}
	l.exec(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE data_exception; END $$`)
	l.exec(`CREATE TRIGGER refuse BEFORE INSERT ON tasks FOR EACH ROW WHEN (NEW.task_id = '` + task + `') EXECUTE FUNCTION refuse()`)
}

// TestLessonF1OneBadEventKillsNoBatch: what the database refuses stands alone among the dead letters, and its neighbours
// are taken.
func TestLessonF1OneBadEventKillsNoBatch(t *testing.T) {
	eachLab(t, func(t *testing.T, l *lab) {
		l.refuse("poison")
		s := session("celery")
		const n = 40
		answers := make(chan ingest.Outcome, n)
		for i := range n {
			task := fmt.Sprintf("good-%d", i)
			if i == 17 {
				task = "poison"
			}
			err := l.writer.Submit(t.Context(), &ingest.Frame{
				Session: s, ID: fmt.Sprint(i), Payload: []byte(`{"events":[` + ev("task.received", task, "", float64(i), `"task_name":"j"`) + `]}`),
				Received: l.now.UnixMicro(), Done: func(o ingest.Outcome) { answers <- o },
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		for range n {
			if o := <-answers; o.Err != nil {
				t.Errorf("a frame was not answered: %v", o.Err)
			}
		}
		got := storetest.Rows(t, l.db, `SELECT count(*) FROM tasks UNION ALL SELECT count(*) FROM dead_letters WHERE reason = 'refused'`)
		if diff := cmp.Diff([][]string{{fmt.Sprint(n - 1)}, {"1"}}, got); diff != "" {
			t.Errorf("tasks and dead letters (- want, + got):\n%s", diff)
		}
	})
}

// TestOneRefusedEventOfAFrameStandsAlone: its neighbours in the same frame are taken.
func TestOneRefusedEventOfAFrameStandsAlone(t *testing.T) {
	eachLab(t, func(t *testing.T, l *lab) {
		l.refuse("poison")
		var batch []string
		for i := range 30 {
			task := fmt.Sprintf("good-%d", i)
			if i == 11 {
				task = "poison"
			}
			batch = append(batch, ev("task.received", task, "", float64(i), `"task_name":"j"`))
		}
		l.send(session("celery"), l.now, batch)
		got := storetest.Rows(t, l.db, `SELECT count(*) FROM tasks UNION ALL SELECT count(*) FROM dead_letters WHERE reason = 'refused'`)
		if diff := cmp.Diff([][]string{{"29"}, {"1"}}, got); diff != "" {
			t.Errorf("tasks and dead letters (- want, + got):\n%s", diff)
		}
	})
}

// TestUnreadableMarksBlockNothing: a task whose stored marks can't be read keeps them; what is reported of it goes to the
// dead letters, and other tasks are taken.
func TestUnreadableMarksBlockNothing(t *testing.T) {
	eachLab(t, func(t *testing.T, l *lab) {
		s := session("celery")
		l.send(s, l.now, []string{ev("task.received", "torn", "", 0, `"task_name":"j"`)})
		if l.postgres() {
			l.exec(`UPDATE tasks SET marks = '\xff'`)
		} else {
			l.exec(`UPDATE tasks SET marks = X'ff'`)
		}
		l.send(s, l.now, []string{ev("task.started", "torn", "w", 1, ``), ev("task.received", "whole", "", 1, `"task_name":"j"`)})
		got := storetest.Rows(t, l.db, `SELECT count(*) FROM tasks UNION ALL SELECT count(*) FROM dead_letters WHERE reason = 'refused'`)
		if diff := cmp.Diff([][]string{{"2"}, {"1"}}, got); diff != "" {
			t.Errorf("tasks and dead letters (- want, + got):\n%s", diff)
		}
	})
}

// TestUnknownKindsBetweenATasksMarks: an event of a kind without a name here stands between a task's marks, in one frame and
// in one group, and the marks before and after it count.
func TestUnknownKindsBetweenATasksMarks(t *testing.T) {
	eachLab(t, func(t *testing.T, l *lab) {
		s := session("celery")
		l.send(s, l.now, []string{
			ev("task.received", "u1", "", 0, `"task_name":"j"`),
			ev("task.progress", "u1", "celery@n1", 1, `"percent":50`),
			ev("task.started", "u1", "celery@n1", 1, ``),
			ev("task.progress", "u1", "celery@n1", 2, `"percent":90`),
			ev("task.succeeded", "u1", "celery@n1", 3, `"result":"1"`),
			ev("task.received", "u2", "", 0, `"task_name":"j"`),
		})
		got := storetest.Rows(t, l.db, `SELECT task_id, state FROM tasks ORDER BY task_id`)
		if diff := cmp.Diff([][]string{{"u1", "4"}, {"u2", "2"}}, got); diff != "" {
			t.Errorf("tasks (- want, + got):\n%s", diff)
		}
		if n := len(l.rowsOf(s)["events"]); n != 6 {
			t.Errorf("%d events, want all 6", n)
		}
	})
}

// TestHostileFramesAreBounded: what can't be stored in a dead letter is replaced, and what is wrong with thousands of
// elements is told by a few letters; what comes behind is taken.
func TestHostileFramesAreBounded(t *testing.T) {
	eachLab(t, func(t *testing.T, l *lab) {
		s := session("celery")
		junk := make([]string, 6000)
		for i := range junk {
			junk[i] = "0"
		}
		l.send(s, l.now,
			[]string{`{"kind":"task.\u0000","engine":"celery","task_id":""}`},
			[]string{`{"kind":"task.received","engine":"celery","task_id":"n\u0000ul","occurred_at":"2026-03-02T08:00:00Z","data":{"task_name":"a\u0000b","worker":"w\u0000"}}`},
			junk,
			[]string{ev("task.received", "after", "", 1, `"task_name":"j"`)},
		)
		letters := storetest.Rows(t, l.db, `SELECT reason, count(*) FROM dead_letters GROUP BY reason ORDER BY reason`)
		if diff := cmp.Diff([][]string{{"no_task_id", "1"}, {"too_many", "1"}, {"unusable", "51"}}, letters); diff != "" {
			t.Errorf("dead letters (- want, + got):\n%s", diff)
		}
		tasks := storetest.Rows(t, l.db, `SELECT task_id, name FROM tasks ORDER BY task_id`)
		if diff := cmp.Diff([][]string{{"after", "j"}, {"n\ufffdul", "a\ufffdb"}}, tasks); diff != "" {
			t.Errorf("tasks (- want, + got):\n%s", diff)
		}
	})
}

// TestOldNewsShowsNoClock: a dead worker's buffer, delivered an hour late, says nothing of its clock; a worker whose clock
// is an hour behind shows it.
func TestOldNewsShowsNoClock(t *testing.T) {
	eachLab(t, func(t *testing.T, l *lab) {
		s := session("celery")
		late := start.Add(time.Hour)
		for i := range 60 {
			l.send(s, late.Add(time.Duration(i)*100*time.Millisecond), []string{ev("task.started", fmt.Sprint("d", i), "celery@dead", float64(i)*60, ``)})
			l.send(s, late.Add(time.Duration(i)*100*time.Millisecond), []string{ev("task.started", fmt.Sprint("b", i), "celery@behind", float64(i)/10, ``)})
		}
		if err := l.writer.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := storetest.Rows(t, l.db, `SELECT name, offset_us FROM workers ORDER BY name`)
		if len(got) != 2 || got[1][1] != "-" || !strings.HasPrefix(got[0][1], "-3600") {
			t.Errorf("offsets %v, want an hour behind for celery@behind and none for celery@dead", got)
		}
	})
}

// TestLessonD1IdsOfOtherProjectsBlockNothing: the same task id, event id and times in two projects are two tasks.
func TestLessonD1IdsOfOtherProjectsBlockNothing(t *testing.T) {
	eachLab(t, func(t *testing.T, l *lab) {
		events := []string{
			ev("task.received", "6f1c0f1e-aaaa-4bbb-8ccc-0123456789ab", "", 0, `"task_name":"j"`),
			ev("worker.online", "", "w", 0, ``),
		}
		var rows []map[string][][]string
		for range 2 {
			s := session("celery")
			l.send(s, l.now, events)
			rows = append(rows, l.rowsOf(s))
		}
		if diff := cmp.Diff(rows[0], rows[1]); diff != "" {
			t.Errorf("the second project's rows differ:\n%s", diff)
		}
		if n := len(rows[1]["events"]); n != 2 {
			t.Errorf("%d events in the second project, want 2", n)
		}
	})
}

// TestLessonF7CopiesOfOneBrokerEvent: nine agents that listen to one broker make one event each, one attempt in all.
func TestLessonF7CopiesOfOneBrokerEvent(t *testing.T) {
	eachLab(t, func(t *testing.T, l *lab) {
		first := session("celery")
		for i := range 9 {
			s := *first
			s.Agent, s.WorkerID = id.Random(), fmt.Sprint("w", i)
			at := 1 + float64(i)/1000
			l.send(&s, l.now, []string{ev("task.started", "x", "celery@n1", at, ``), ev("task.succeeded", "x", "celery@n1", at+2, `"result":"1"`)})
		}
		rows := l.rowsOf(first)
		if n := len(rows["attempts"]); n != 1 {
			t.Errorf("%d attempts, want 1: %v", n, rows["attempts"])
		}
	})
}

// TestLessonF4AckOnlyWhatIsCommitted: connections that the database cuts cost a retry, never an event.
func TestLessonF4AckOnlyWhatIsCommitted(t *testing.T) {
	eachLab(t, func(t *testing.T, l *lab) {
		if !l.postgres() {
			t.Skip("SQLite has no connection that could be cut; kill -9 is in the conformance tests")
		}
		s := session("celery")
		for i := range 60 {
			if i%10 == 5 {
				l.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'z4j-brain' AND pid <> pg_backend_pid()
					AND backend_start > now() - interval '1 hour' AND datname = current_database() AND query LIKE '%events%'`)
			}
			l.send(s, l.now, []string{ev("task.received", fmt.Sprint(i), "", float64(i), `"task_name":"j"`)})
		}
		got := storetest.Rows(t, l.db, `SELECT count(*) FROM tasks UNION ALL SELECT count(*) FROM events`)
		if diff := cmp.Diff([][]string{{"60"}, {"60"}}, got); diff != "" {
			t.Errorf("tasks and events (- want, + got):\n%s", diff)
		}
	})
}

// TestHeartbeatsAreGrouped: many heartbeats of one slot are one write, and what can't be read is unknown.
func TestHeartbeatsAreGrouped(t *testing.T) {
	eachLab(t, func(t *testing.T, l *lab) {
		s := session("celery")
		n, pid := int64(3), int64(4711)
		for i := range 50 {
			l.writer.Beat(ingest.Beat{
				Session: s, Received: l.now.Add(time.Duration(i) * time.Millisecond).UnixMicro(),
				Queues:  []ingest.QueueDepth{{Engine: "celery", Name: "default", Pending: &n}, {Engine: "celery", Name: "odd"}},
				Workers: []ingest.WorkerDetail{{Engine: "celery", Name: "celery@n1", PID: &pid, Queues: []string{"default"}, Metadata: []byte(`{"conf":{}}`)}},
			})
		}
		if err := l.writer.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([][]string{{"default", "3"}, {"odd", "-"}}, storetest.Rows(t, l.db, `SELECT name, pending_count FROM queues ORDER BY name`)); diff != "" {
			t.Errorf("queues (- want, + got):\n%s", diff)
		}
		if diff := cmp.Diff([][]string{{"celery@n1", "4711", "-", `["default"]`, `{"conf":{}}`}}, storetest.Rows(t, l.db, `SELECT name, pid, concurrency, queues, metadata FROM workers`)); diff != "" {
			t.Errorf("workers (- want, + got):\n%s", diff)
		}
	})
}
