package ingest_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

var start = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

// lab is a writer on a database of its own.
type lab struct {
	t      *testing.T
	writer *ingest.Writer
	db     *sql.DB
	now    time.Time
	frames int
}

func eachLab(t *testing.T, fn func(t *testing.T, l *lab)) {
	t.Helper()
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		l := &lab{t: t, db: storetest.DB(t, url), now: start.Add(24 * time.Hour)}
		l.writer = ingest.New(s, ingest.Options{Now: func() time.Time { return l.now }})
		l.writer.Start(t.Context())
		t.Cleanup(func() {
			if err := l.writer.Close(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
		fn(t, l)
	})
}

func session(engine string) *ingest.Session {
	return &ingest.Session{ID: "s", Project: id.Random(), Agent: id.Random(), Engines: []string{engine}, HasWorkerID: true, WorkerID: "bare-1-1", ProcessStarted: start.Add(-time.Hour).UnixMicro()}
}

// send sends each batch as one frame, in order, and returns the answers when all are there.
func (l *lab) send(s *ingest.Session, received time.Time, batches ...[]string) []ingest.Outcome {
	l.t.Helper()
	answers := make([]chan ingest.Outcome, len(batches))
	for i, batch := range batches {
		l.frames++
		answers[i] = make(chan ingest.Outcome, 1)
		f := &ingest.Frame{
			Session: s, ID: fmt.Sprintf("ev_%d", l.frames), Payload: []byte(`{"events":[` + strings.Join(batch, ",") + `]}`),
			Received: received.UnixMicro(), Done: func(o ingest.Outcome) { answers[i] <- o },
		}
		if err := l.writer.Submit(l.t.Context(), f); err != nil {
			l.t.Fatal(err)
		}
	}
	var out []ingest.Outcome
	for _, answer := range answers {
		o := <-answer
		if o.Err != nil {
			l.t.Fatal(o.Err)
		}
		out = append(out, o)
	}
	return out
}

// ev is one event on the wire; at is seconds after start.
func ev(kind, task, worker string, at float64, data string) string {
	when := start.Add(time.Duration(at * float64(time.Second))).Format("2006-01-02T15:04:05.000000-07:00")
	if worker != "" {
		data = strings.TrimPrefix(data+fmt.Sprintf(`,"worker":%q`, worker), ",")
	}
	return fmt.Sprintf(`{"id":%q,"kind":%q,"engine":"celery","task_id":%q,"occurred_at":%q,"data":{%s}}`, id.Random(), kind, task, when, data)
}

// rowsOf dumps what a project's rows say, but for what isn't a function of the marks: ids of rows and times of receipt.
func (l *lab) rowsOf(s *ingest.Session) map[string][][]string {
	l.t.Helper()
	where := fmt.Sprintf(`WHERE project_id = X'%x'`, s.Project[:])
	micros := func(c string) string { return c }
	if _, err := l.db.ExecContext(l.t.Context(), `SELECT 1 FROM pg_class LIMIT 0`); err == nil {
		where = fmt.Sprintf(`WHERE project_id = '%s'`, s.Project)
		micros = func(c string) string { return `(extract(epoch FROM ` + c + `) * 1000000)::bigint AS ` + c }
	}
	out := map[string][][]string{}
	for table, q := range map[string]string{
		"tasks": `SELECT engine, task_id, state, rare_state, ` + micros("last_at") + `, ` + micros("received_at") + `, ` + micros("started_at") + `, ` + micros("finished_at") + `, ` + micros("eta") + `,
			wait_us, runtime_us, deciding, attempts, retry_count, deliveries, name, queue, worker, priority, parent_task_id, root_task_id, reason, args, kwargs FROM tasks ` + where + ` ORDER BY engine, task_id`,
		"attempts": `SELECT number, state, ` + micros("started_at") + `, ` + micros("finished_at") + `, wait_us, runtime_us, retries, worker, result, exception, exception_message, traceback, reason
			FROM attempts ` + where + ` ORDER BY engine, task_key, number`,
		"payloads": `SELECT payload FROM task_payloads ` + where + ` ORDER BY engine, task_key, mark`,
		"events":   `SELECT kind, task_id, ` + micros("occurred_at") + `, worker FROM events ` + where + ` ORDER BY occurred_at, kind, task_id, worker`,
		"minutes":  `SELECT ` + micros("bucket") + `, measure, name, queue, count, sum FROM rollup_minutes ` + where + ` AND (count <> 0 OR sum <> 0) ORDER BY bucket, measure, name, queue`,
		"hours":    `SELECT ` + micros("bucket") + `, measure, name, queue, count, sum FROM rollup_hours ` + where + ` AND (count <> 0 OR sum <> 0) ORDER BY bucket, measure, name, queue`,
	} {
		out[table] = storetest.Rows(l.t, l.db, q)
	}
	return out
}

func TestATaskFromBirthToEnd(t *testing.T) {
	eachLab(t, func(t *testing.T, l *lab) {
		s := session("celery")
		got := l.send(s, l.now,
			[]string{ev("task.received", "a1", "", 0, `"task_name":"shop.charge","queue":"default","args":[7205759403792793601],"kwargs":{}`)},
			[]string{ev("task.started", "a1", "celery@n1", 1, `"task_name":"<unknown:a1>","queue":null`)},
			[]string{ev("task.succeeded", "a1", "celery@n1", 3.5, `"task_name":"<unknown:a1>","result":"3","runtime_ms":null`)},
		)
		for i, o := range got {
			if o.Received != 1 || o.Accepted != 1 || o.Rejected != 0 {
				t.Errorf("frame %d: %+v, want one event taken", i+1, o)
			}
		}
		task := l.rowsOf(s)["tasks"][0]
		at := func(sec float64) string {
			return fmt.Sprint(start.Add(time.Duration(sec * float64(time.Second))).UnixMicro())
		}
		want := []string{
			"celery", "a1", "4", "-", at(3.5), at(0), at(1), at(3.5), "-", "1000000", "2500000", "1", "1", "0", "1", "shop.charge", "default", "celery@n1",
			"-", "-", "-", "-", "[7205759403792793601]", "{}",
		}
		if diff := cmp.Diff(want, task); diff != "" {
			t.Errorf("task (- want, + got):\n%s", diff)
		}
	})
}

// TestOrderSplitsAndRepetitionChangeNothing sends the same events in many orders, cut into frames in many ways, some of
// them twice, each time into a project of its own: the rows, also the rollups, have to be equal.
func TestOrderSplitsAndRepetitionChangeNothing(t *testing.T) {
	eachLab(t, func(t *testing.T, l *lab) {
		events := []string{
			ev("task.received", "r1", "celery@n1", 0, `"task_name":"pub.export","queue":"slow","args":[7],"kwargs":{}`),
			ev("task.started", "r1", "celery@n1", 1, `"task_name":"<unknown:r1>"`),
			ev("task.retried", "r1", "celery@n1", 2, `"reason":"Timeout()"`),
			ev("task.received", "r1", "celery@n2", 3, `"task_name":"pub.export","queue":"slow","retries":1`),
			ev("task.started", "r1", "celery@n2", 4, ``),
			ev("task.failed", "r1", "celery@n2", 6, `"exception":"ValueError","exception_message":"no","traceback":"tb"`),
			ev("task.failed", "r1", "celery@n2", 6.4, `"exception":"ValueError","exception_message":"no, because"`),
			ev("task.succeeded", "r2", "celery@n1", 5, `"result":null,"runtime_ms":0.4`),
			ev("task.revoked", "r3", "", 7, `"expired":true,"terminated":false`),
			ev("task.received", "r3", "celery@n1", 6.5, `"task_name":"tick","queue":"cron"`),
			ev("worker.heartbeat", "", "celery@n1", 8, ``),
		}
		var first map[string][][]string
		rnd := rand.New(rand.NewPCG(1, 2))
		for round := range 25 {
			s := session("celery")
			order := make([]string, len(events))
			for i, j := range rnd.Perm(len(events)) {
				order[i] = events[j]
			}
			if round == 0 {
				copy(order, events)
			}
			var batches [][]string
			for len(order) > 0 {
				n := 1 + rnd.IntN(len(order))
				batches = append(batches, order[:n])
				if rnd.IntN(3) == 0 {
					batches = append(batches, order[:n])
				}
				order = order[n:]
			}
			l.send(s, l.now, batches...)
			rows := l.rowsOf(s)
			if first == nil {
				first = rows
				continue
			}
			if diff := cmp.Diff(first, rows); diff != "" {
				t.Fatalf("round %d, frames %v: rows differ (- first round, + this one):\n%s", round, batches, diff)
			}
		}
	})
}

func TestWhatCannotBeTakenIsADeadLetterAndBlocksNothing(t *testing.T) {
	eachLab(t, func(t *testing.T, l *lab) {
		s := session("celery")
		good := ev("task.received", "ok", "", 0, `"task_name":"j"`)
		l.send(s, l.now, []string{
			good, `7`, `{"kind":"task.started"}`, `{"kind":5}`, `{}`,
			ev("task.received", strings.Repeat("x", 201), "", 0, ``),
			ev("task.succeeded", "old", "", -200*86400, ``),
			`{"id":"1","kind":"task.sent","engine":"celery","task_id":"t","data":[1]}`,
			ev("brand.new", "", "", 0, `"x":1`),
		})
		letters := storetest.Rows(t, l.db, `SELECT reason, count(*) FROM dead_letters GROUP BY reason ORDER BY reason`)
		if diff := cmp.Diff([][]string{{"no_task_id", "1"}, {"too_old", "1"}, {"unusable", "5"}}, letters); diff != "" {
			t.Errorf("dead letters (- want, + got):\n%s", diff)
		}
		tasks := storetest.Rows(t, l.db, `SELECT task_id FROM tasks ORDER BY task_id`)
		if diff := cmp.Diff([][]string{{"ok"}}, tasks); diff != "" {
			t.Errorf("tasks (- want, + got):\n%s", diff)
		}
		unknown := storetest.Rows(t, l.db, `SELECT kind, payload FROM events WHERE kind = 'unknown'`)
		if diff := cmp.Diff([][]string{{"unknown", `{"original_kind":"brand.new","x":1}`}}, unknown); diff != "" {
			t.Errorf("an unknown kind is kept (- want, + got):\n%s", diff)
		}
	})
}

func TestAFrameWithoutEventsIsAnswered(t *testing.T) {
	eachLab(t, func(t *testing.T, l *lab) {
		if o := l.send(session("rq"), l.now, nil)[0]; o != (ingest.Outcome{}) {
			t.Errorf("%+v, want zeros", o)
		}
	})
}

func TestManyConnectionsAtOnce(t *testing.T) {
	eachLab(t, func(t *testing.T, l *lab) {
		const agents, tasks = 8, 60
		s := session("celery")
		var wg sync.WaitGroup
		for a := range agents {
			wg.Go(func() {
				mine := *s
				mine.Agent, mine.WorkerID = id.Random(), fmt.Sprint("w", a)
				for i := range tasks {
					for k, kind := range []string{"task.received", "task.started", "task.succeeded"} {
						done := make(chan ingest.Outcome, 1)
						e := ev(kind, fmt.Sprintf("t-%d", i), "celery@n1", float64(i)+float64(k)/10, `"task_name":"j","queue":"q"`)
						err := l.writer.Submit(t.Context(), &ingest.Frame{
							Session: &mine, ID: "f", Payload: []byte(`{"events":[` + e + `]}`), Received: l.now.UnixMicro(), Done: func(o ingest.Outcome) { done <- o },
						})
						if err != nil {
							t.Error(err)
							return
						}
						if o := <-done; o.Err != nil {
							t.Error(o.Err)
						}
					}
				}
			})
		}
		wg.Wait()
		got := storetest.Rows(t, l.db, `SELECT count(*), sum(attempts), min(state), max(state) FROM tasks`)
		if diff := cmp.Diff([][]string{{"60", "60", "4", "4"}}, got); diff != "" {
			t.Errorf("eight agents heard the same 60 tasks (- want, + got):\n%s", diff)
		}
		counted := storetest.Rows(t, l.db, `SELECT sum(count) FROM rollup_minutes WHERE measure = 20`)
		if diff := cmp.Diff([][]string{{"60"}}, counted); diff != "" {
			t.Errorf("tasks by state success in the rollups (- want, + got):\n%s", diff)
		}
	})
}

func TestCloseAnswersWhatWasTaken(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		w := ingest.New(s, ingest.Options{Now: time.Now})
		w.Start(t.Context())
		answered := make(chan ingest.Outcome, 200)
		sess := session("celery")
		now := time.Now()
		for i := range 200 {
			payload, err := json.Marshal(map[string]any{"events": []any{map[string]any{"kind": "task.received", "engine": "celery", "task_id": fmt.Sprint(i), "occurred_at": now}}})
			if err != nil {
				t.Fatal(err)
			}
			err = w.Submit(t.Context(), &ingest.Frame{Session: sess, ID: fmt.Sprint(i), Payload: bytes.Clone(payload), Received: now.UnixMicro(), Done: func(o ingest.Outcome) { answered <- o }})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		close(answered)
		n := 0
		for o := range answered {
			if o.Err == nil && o.Accepted == 1 {
				n++
			}
		}
		if n != 200 {
			t.Errorf("%d of 200 frames were answered as taken before Close returned", n)
		}
		if err := w.Submit(t.Context(), &ingest.Frame{Session: sess, ID: "late"}); err == nil {
			t.Error("a closed writer took a frame")
		}
	})
}

// TestPayloadsOfEndsThatCloseNothingStay: what a revoke without an attempt says, and what two reports of one end say each,
// is there in every order, and when a late start takes them apart again.
func TestPayloadsOfEndsThatCloseNothingStay(t *testing.T) {
	eachLab(t, func(t *testing.T, l *lab) {
		events := []string{
			ev("task.revoked", "p1", "", 5, `"reason":"nobody wants it"`),
			ev("task.failed", "p2", "celery@n1", 10, `"exception":"E","exception_message":"short"`),
			ev("task.failed", "p2", "celery@n1", 10.5, `"exception":"E","exception_message":"a longer one","traceback":"tb"`),
			ev("task.started", "p2", "celery@n1", 10.2, ``),
			ev("task.started", "p2", "celery@n1", 8, ``),
			ev("task.succeeded", "p3", "celery@n1", 3, `"result":"1"`),
			ev("task.failed", "p3", "celery@n2", 20, `"exception":"Abandoned"`),
		}
		var first map[string][][]string
		rnd := rand.New(rand.NewPCG(3, 4))
		for round := range 12 {
			s := session("celery")
			var frames [][]string
			for _, i := range rnd.Perm(len(events)) {
				frames = append(frames, []string{events[i]})
			}
			if round%2 == 0 {
				for _, f := range frames {
					l.send(s, l.now, f) // each a group of its own
				}
			} else {
				l.send(s, l.now, frames...)
			}
			rows := l.rowsOf(s)
			if first == nil {
				first = rows
				if len(rows["payloads"]) < 2 {
					t.Errorf("side rows: %v, want the revoke's reason and the hearsay's exception", rows["payloads"])
				}
				continue
			}
			if diff := cmp.Diff(first, rows); diff != "" {
				t.Fatalf("round %d, frames %v: rows differ:\n%s", round, frames, diff)
			}
		}
	})
}
