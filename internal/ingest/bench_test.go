package ingest_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// BenchmarkIngest writes events of 8 agents through the writer, each with at most 256 frames unanswered, as published
// agents do: a task's three events a while apart (interleaved over 200 tasks an agent). No socket, no signature.
// Run with -benchtime 60000x; events/s is the figure.
func BenchmarkIngest(b *testing.B) {
	for _, database := range []string{"sqlite", "postgres"} {
		for _, perFrame := range []int{1, 200} {
			b.Run(fmt.Sprintf("%s/%d-per-frame", database, perFrame), func(b *testing.B) {
				url := storetest.SQLite(b)
				if database == "postgres" {
					url = storetest.Postgres(b)
				}
				s := storetest.Open(b, url)
				w := ingest.New(s, ingest.Options{Now: time.Now})
				w.Start(b.Context())
				benchmarkIngest(b, w, perFrame)
				if err := w.Close(context.WithoutCancel(b.Context())); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(w.Stats.Events.Load())/b.Elapsed().Seconds(), "events/s")
				b.ReportMetric(float64(w.Stats.Events.Load())/float64(w.Stats.Groups.Load()), "events/group")
			})
		}
	}
}

func benchmarkIngest(b *testing.B, w *ingest.Writer, perFrame int) {
	const agents, window, width = 8, 256, 200
	project := id.Random()
	var wg sync.WaitGroup
	b.ResetTimer()
	for a := range agents {
		wg.Go(func() {
			s := &ingest.Session{ID: "s", Project: project, Agent: id.Random(), Engines: []string{"celery"}, HasWorkerID: true, WorkerID: fmt.Sprint(a)}
			slots := make(chan bool, window)
			var payload []byte
			n := 0
			flush := func() {
				slots <- true
				f := &ingest.Frame{Session: s, ID: fmt.Sprint(n), Payload: append(payload, `]}`...), Received: time.Now().UnixMicro(), Done: func(o ingest.Outcome) {
					if o.Err != nil {
						b.Error(o.Err)
					}
					<-slots
				}}
				payload, n = nil, 0
				if err := w.Submit(b.Context(), f); err != nil {
					b.Error(err)
				}
			}
			for i := range b.N / agents {
				if payload == nil {
					payload = append(make([]byte, 0, 700*perFrame), `{"events":[`...)
				} else {
					payload = append(payload, ',')
				}
				payload = appendEvent(payload, a, i, width)
				if n++; n == perFrame {
					flush()
				}
			}
			if n > 0 {
				flush()
			}
			for range window {
				slots <- true
			}
		})
	}
	wg.Wait()
	b.StopTimer()
}

// appendEvent appends the i-th event of an agent: of blocks of width tasks all are received, then started, then done.
func appendEvent(dst []byte, agent, i, width int) []byte {
	block, rest := i/(3*width), i%(3*width)
	step, task := rest/width, block*width+rest%width
	kind := [...]string{"task.received", "task.started", "task.succeeded"}[step]
	at := time.Now().UTC().Format("2006-01-02T15:04:05.000000-07:00")
	dst = fmt.Appendf(dst, `{"id":"%08x-51f0-4d5e-9d0c-7a1c2b3d4e5f","kind":%q,"engine":"celery","task_id":"%08x-aaaa-4bbb-8ccc-%012x","occurred_at":%q,"data":{`, i, kind, task, agent, at)
	switch step {
	case 0:
		dst = fmt.Appendf(dst, `"task_name":"shop.tasks.charge_customer","queue":"payments","worker":null,"args":[%d,"order-%d"],"kwargs":{"currency":"EUR","amount_cents":%d,"note":"%0150d"}}}`, task, task, task*3, task)
	case 1:
		dst = fmt.Appendf(dst, `"task_name":"<unknown:%08x>","queue":null,"worker":"celery@web-%d","args":null,"kwargs":null}}`, task, agent)
	default:
		dst = fmt.Appendf(dst, `"task_name":"<unknown:%08x>","worker":"celery@web-%d","result":"{'ok': True, 'charge': %d, 'text': '%0100d'}","runtime_ms":12}}`, task, agent, task, task)
	}
	return dst
}
