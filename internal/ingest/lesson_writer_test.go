package ingest_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestLessonF3OppositeOrdersNeverDeadlock: two brains that hear of the same tasks, each in the other's reverse order, lock
// them in the same order: no transaction had to be repeated.
func TestLessonF3OppositeOrdersNeverDeadlock(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		one := &lab{t: t, db: storetest.DB(t, url), now: start.Add(24 * time.Hour)}
		writers := []*ingest.Writer{nil, nil}
		for i := range writers {
			writers[i] = ingest.New(storetest.Open(t, url), ingest.Options{Now: one.clock})
			writers[i].Start(t.Context())
			t.Cleanup(func() {
				if err := writers[i].Close(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			})
		}
		const tasks, rounds = 40, 6
		s := session("celery")
		batch := func(kind string, at float64, reverse bool) (events []string) {
			for i := range tasks {
				events = append(events, ev(kind, fmt.Sprint("t", i), fmt.Sprint("celery@n", i%3), at, fmt.Sprintf(`"task_name":"j%d","queue":"q%d"`, i%5, i%4)))
			}
			if reverse {
				slices.Reverse(events)
			}
			return events
		}
		one.writer = writers[0]
		one.send(s, one.now, batch("task.received", 0, false)) // the rows are there, so that what follows are locks alone
		before := []int64{writers[0].Stats.Retries.Load(), writers[1].Stats.Retries.Load()}

		var both sync.WaitGroup
		for i := range writers {
			l := &lab{t: t, db: one.db, now: one.now, writer: writers[i]}
			both.Go(func() {
				for round := range rounds {
					l.send(s, l.now, batch("task.retried", float64(100*(2+round*2+i)), i == 1))
				}
			})
		}
		both.Wait()
		for i, w := range writers {
			if again := w.Stats.Retries.Load() - before[i]; again != 0 {
				t.Errorf("writer %d: %d transactions were repeated, want none", i, again)
			}
		}
		want := [][]string{{fmt.Sprint(tasks), fmt.Sprint(2 * rounds)}}
		if diff := cmp.Diff(want, storetest.Rows(t, one.db, `SELECT count(*), min(retry_count) FROM tasks`)); diff != "" {
			t.Errorf("tasks and their retries (- want, + got):\n%s", diff)
		}
	})
}

// TestLessonF9AHeartbeatIsOneUpsert: the workers that a heartbeat describes are one statement, and so are its queues.
func TestLessonF9AHeartbeatIsOneUpsert(t *testing.T) {
	eachLab(t, func(t *testing.T, l *lab) {
		if !l.postgres() {
			t.Skip("SQLite, in the same process, runs one prepared statement in one transaction; only Postgres tells what wrote a row")
		}
		b := ingest.Beat{Session: session("celery"), Received: l.now.UnixMicro()}
		n := int64(1)
		for i := range 60 {
			b.Workers = append(b.Workers, ingest.WorkerDetail{Engine: "celery", Name: fmt.Sprintf("celery@n%02d", i), PID: &n})
			b.Queues = append(b.Queues, ingest.QueueDepth{Engine: "celery", Name: fmt.Sprintf("q%02d", i), Pending: &n})
		}
		l.writer.Beat(b)
		if err := l.writer.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, table := range []string{"workers", "queues"} {
			// cmin is the number that a statement has in its transaction.
			rows := storetest.Rows(t, l.db, `SELECT count(*), count(DISTINCT (xmin::text, cmin::text)) FROM `+table)
			if diff := cmp.Diff([][]string{{"60", "1"}}, rows); diff != "" {
				t.Errorf("%s: rows and statements (- want, + got):\n%s", table, diff)
			}
		}
	})
}

// TestLessonL21ManyFramesAreOneTransaction: frames of many connections that wait together are committed together.
func TestLessonL21ManyFramesAreOneTransaction(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		l := &lab{t: t, db: storetest.DB(t, url), now: start.Add(24 * time.Hour)}
		w := ingest.New(storetest.Open(t, url), ingest.Options{Now: l.clock, Writers: 1})
		const connections, each = 20, 15
		answers := make(chan ingest.Outcome, connections*each)
		for c := range connections {
			s := session("celery")
			for i := range each {
				err := w.Submit(t.Context(), &ingest.Frame{
					Session: s, ID: fmt.Sprint(c, "-", i), Payload: []byte(`{"events":[` + ev("task.received", fmt.Sprint("t", i), "celery@n1", float64(i), `"task_name":"j"`) + `]}`),
					Received: l.now.UnixMicro(), Done: func(o ingest.Outcome) { answers <- o },
				})
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		w.Start(t.Context())
		t.Cleanup(func() {
			if err := w.Close(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
		for range connections * each {
			if o := <-answers; o.Err != nil || o.Accepted != 1 {
				t.Errorf("a frame: %+v, want its event taken", o)
			}
		}
		if frames, groups := w.Stats.Frames.Load(), w.Stats.Groups.Load(); frames != connections*each || groups != 1 {
			t.Errorf("%d frames in %d transactions, want %d in 1", frames, groups, connections*each)
		}
		if diff := cmp.Diff([][]string{{fmt.Sprint(connections * each)}}, storetest.Rows(t, l.db, `SELECT count(*) FROM events`)); diff != "" {
			t.Errorf("events (- want, + got):\n%s", diff)
		}
	})
}

// clock is the lab's.
func (l *lab) clock() time.Time { return l.now }
