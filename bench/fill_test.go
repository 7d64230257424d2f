package bench_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/store"
)

// history is what fill writes.
type history struct {
	tasks int           // three events each; one in twenty fails
	over  time.Duration // they are spread over this time, which ends now
}

// fill writes believable tasks of one project, as agents send them, through the same writer as the brain's: every table that
// events touch is filled, rollups included.
func fill(b *testing.B, s *store.Store, h history) store.Project {
	b.Helper()
	ctx := b.Context()
	project, err := s.CreateProject(ctx, store.Project{Slug: "shop", Name: "Shop", Environment: "production", Timezone: "UTC", DefaultSchedulerOwner: "beat"},
		store.By{Actor: audit.Actor{Kind: audit.System}})
	if err != nil {
		b.Fatal(err)
	}
	w := ingest.New(s, ingest.Options{Now: time.Now, Horizon: h.over + 24*time.Hour})
	w.Start(ctx)
	f := feeder{b: b, w: w, project: project.ID, agent: id.Random(), random: rand.New(rand.NewPCG(1, 2)), slots: make(chan bool, 16)}
	began := time.Now().Add(-h.over)
	step := h.over / time.Duration(h.tasks)
	for first := 0; first < h.tasks; first += perFrame {
		f.frame(first, min(perFrame, h.tasks-first), func(i int) time.Time { return began.Add(time.Duration(i) * step) })
	}
	if err := w.Close(context.WithoutCancel(ctx)); err != nil {
		b.Fatal(err)
	}
	if got, want := w.Stats.Events.Load(), int64(3*h.tasks); got != want {
		b.Fatalf("%d events were written, want %d", got, want)
	}
	return project
}

// feed takes in new tasks of a project of its own for a while, as fast as it goes.
func feed(b *testing.B, w *ingest.Writer, most time.Duration) {
	b.Helper()
	f := feeder{b: b, w: w, project: id.Random(), agent: id.Random(), random: rand.New(rand.NewPCG(3, 4)), slots: make(chan bool, 16)}
	until := time.Now().Add(most)
	for first := 0; time.Now().Before(until); first += perFrame {
		f.frame(first, perFrame, func(int) time.Time { return time.Now() })
	}
	for range cap(f.slots) {
		f.slots <- true
	}
}

// perFrame is how many tasks, of three events each, a frame holds.
const perFrame = 100

// feeder sends frames of a few processes of one agent, with a bounded number unanswered.
type feeder struct {
	b              *testing.B
	w              *ingest.Writer
	project, agent id.ID
	random         *rand.Rand
	slots          chan bool
}

// frame sends n tasks, counted from first.
func (f *feeder) frame(first, n int, at func(i int) time.Time) {
	payload := append(make([]byte, 0, 2000*n), `{"events":[`...)
	for i := first; i < first+n; i++ {
		payload = appendTask(payload, f.random, i, at(i))
	}
	payload[len(payload)-1] = ']'
	payload = append(payload, '}')
	f.slots <- true
	const processes = 4
	session := &ingest.Session{ID: "s", Project: f.project, Agent: f.agent, Engines: []string{"celery"}, HasWorkerID: true, WorkerID: fmt.Sprint(first / perFrame % processes)}
	frame := &ingest.Frame{Session: session, ID: fmt.Sprint(first), Payload: payload, Received: time.Now().UnixMicro(), Done: func(o ingest.Outcome) {
		if o.Err != nil {
			f.b.Error(o.Err)
		}
		<-f.slots
	}}
	if err := f.w.Submit(f.b.Context(), frame); err != nil {
		f.b.Fatal(err)
	}
}

// appendTask appends a task's three events, each followed by a comma: 400 to 700 bytes an event.
func appendTask(dst []byte, random *rand.Rand, i int, at time.Time) []byte {
	names := [...]string{"charge_customer", "send_receipt", "resize_image", "sync_stock", "rebuild_index", "export_report", "refund", "notify"}
	name := names[random.IntN(len(names))]
	queue := [...]string{"payments", "mail", "media", "default"}[random.IntN(4)]
	worker := random.IntN(40)
	task := fmt.Sprintf("%08x-%04x-4bbb-8ccc-%012x", random.Uint32(), i&0xffff, i)
	event := func(kind string, after time.Duration) {
		when := at.Add(after).UTC().Format("2006-01-02T15:04:05.000000-07:00")
		dst = fmt.Appendf(dst, `{"id":"%08x-%04x-4d5e-9d0c-%012x","kind":%q,"engine":"celery","task_id":%q,"occurred_at":%q,"data":{`, random.Uint32(), random.IntN(1<<16), i, kind, task, when)
	}
	took := time.Duration(random.IntN(4000)) * time.Millisecond
	event("task.received", 0)
	dst = fmt.Appendf(dst, `"task_name":"shop.tasks.%s","queue":%q,"worker":null,"args":[%d,"order-%x"],"kwargs":{"currency":"EUR","amount_cents":%d,"note":"%x"}}},`,
		name, queue, random.IntN(1e6), random.Uint64(), random.IntN(1e5), [4]uint64{random.Uint64(), random.Uint64(), random.Uint64(), random.Uint64()})
	event("task.started", 20*time.Millisecond)
	dst = fmt.Appendf(dst, `"task_name":"shop.tasks.%s","queue":null,"worker":"celery@web-%02d","args":null,"kwargs":null}},`, name, worker)
	if i%20 == 7 {
		event("task.failed", took+30*time.Millisecond)
		return fmt.Appendf(dst, `"task_name":"shop.tasks.%s","worker":"celery@web-%02d","exception":"ValueError","traceback":"Traceback (most recent call last):\n  File \"/srv/shop/tasks.py\", line %d, in %s\n    raise ValueError(order)\nValueError: no such order %x"}},`,
			name, worker, random.IntN(900), name, random.Uint64())
	}
	event("task.succeeded", took+30*time.Millisecond)
	return fmt.Appendf(dst, `"task_name":"shop.tasks.%s","worker":"celery@web-%02d","result":"{'ok': True, 'charge': %d, 'reference': '%x'}","runtime_ms":%d}},`,
		name, worker, random.IntN(1e6), [2]uint64{random.Uint64(), random.Uint64()}, took.Milliseconds())
}
