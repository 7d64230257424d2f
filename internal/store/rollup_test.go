package store_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/z4j-go/z4j/internal/fold"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// tell sends events through the real writer and waits for the commit.
func tell(t interface {
	Helper()
	Fatal(...any)
}, w *ingest.Writer, project id.ID, received time.Time, events ...string,
) {
	t.Helper()
	done := make(chan ingest.Outcome, 1)
	err := w.Submit(testContext(), &ingest.Frame{
		Session: &ingest.Session{ID: "s", Project: project, Agent: project, Engines: []string{"celery"}, WorkerID: "agent-1", HasWorkerID: true},
		ID:      "f", Payload: []byte(`{"events":[` + strings.Join(events, ",") + `]}`), Received: received.UnixMicro(),
		Done: func(o ingest.Outcome) { done <- o },
	})
	if err != nil {
		t.Fatal(err)
	}
	if o := <-done; o.Err != nil {
		t.Fatal(o.Err)
	}
}

// event is a Celery event as agents send it.
func event(kind, task, worker string, at time.Time, data string) string {
	return fmt.Sprintf(`{"id":%q,"kind":%q,"engine":"celery","task_id":%q,"occurred_at":%q,"data":{"worker":%q%s}}`,
		id.Random(), kind, task, at.Format("2006-01-02T15:04:05.000000Z"), worker, data)
}

func startWriter(t *testing.T, s *store.Store, now time.Time) *ingest.Writer {
	t.Helper()
	w := ingest.New(s, ingest.Options{Now: func() time.Time { return now }})
	w.Start(t.Context())
	t.Cleanup(func() {
		if err := w.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return w
}

// TestCountsEqualARecount: whatever is heard, the numbers of stats and home are those of the lists behind them.
func TestCountsEqualARecount(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		now := t0.Add(time.Hour)
		w := startWriter(t, s, now)
		rapid.Check(t, func(rt *rapid.T) {
			project := id.Random()
			for range rapid.IntRange(1, 3).Draw(rt, "frames") {
				var events []string
				for range rapid.IntRange(1, 12).Draw(rt, "events") {
					at := t0.Add(-time.Duration(rapid.IntRange(0, 300).Draw(rt, "minutes ago")) * time.Minute)
					events = append(events, event(
						rapid.SampledFrom([]string{"task.received", "task.started", "task.succeeded", "task.failed", "task.retried", "task.revoked"}).Draw(rt, "kind"),
						rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(rt, "task"), rapid.SampledFrom([]string{"w1", "w2"}).Draw(rt, "worker"), at,
						rapid.SampledFrom([]string{``, `,"task_name":"pay.one","queue":"q"`, `,"task_name":"mail.two"`}).Draw(rt, "fields")))
				}
				tell(rt, w, project, now, events...)
			}
			since := t0.Add(-time.Duration(rapid.IntRange(0, 310).Draw(rt, "window")) * time.Minute).Truncate(time.Minute)
			recount(rt, s, project, store.TimeOf(since))
		})
	})
}

func recount(rt *rapid.T, s *store.Store, project id.ID, since store.Time) {
	all, err := s.Tasks(testContext(), store.TaskFilter{Project: project})
	if err != nil {
		rt.Fatal(err)
	}
	states := map[string]int64{}
	for state := fold.StateUnknown; state <= fold.StateLost; state++ {
		states[state.String()] = 0
	}
	var want store.Traffic
	for _, task := range all.Items {
		states[task.State]++
		detail, err := s.Task(testContext(), project, "celery", task.TaskID)
		if err != nil {
			rt.Fatal(err)
		}
		for _, a := range detail.Attempts {
			switch {
			case a.FinishedAt == nil || a.FinishedAt.Before(since.Time):
			case a.State == "failure":
				want.Failed++
			case a.State == "success":
				want.Succeeded++
			}
		}
		if events, err := s.Events(testContext(), project, "celery", task.TaskID, store.Page{}); err != nil {
			rt.Fatal(err)
		} else if first := events.Items[len(events.Items)-1]; !first.OccurredAt.Before(since.Time) {
			want.Tasks++
		}
	}
	got, err := s.TasksByState(testContext(), project)
	if diff := cmp.Diff(states, got); err != nil || diff != "" {
		rt.Fatalf("tasks by state: %v (-list +rollups):\n%s", err, diff)
	}
	traffic, err := s.Traffics(testContext(), []id.ID{project}, since)
	if diff := cmp.Diff(want, traffic[project]); err != nil || diff != "" {
		rt.Fatalf("traffic since %v: %v (-lists +rollups):\n%s", since, err, diff)
	}
	for _, f := range []store.TaskFilter{
		{}, {State: new(fold.StateFailure)}, {State: new(fold.StateStarted)}, {Name: "pay"}, {Queue: "q"}, {Name: "o", Queue: "q", State: new(fold.StateSuccess)}, {Name: "nothing"},
	} {
		f.Project = project
		list, err := s.Tasks(testContext(), f)
		if err != nil {
			rt.Fatal(err)
		}
		n, err := s.CountTasks(testContext(), f)
		if err != nil || n == nil || *n != int64(len(list.Items)) {
			rt.Fatalf("count of %+v: %v, %v; want %d", f, n, err, len(list.Items))
		}
	}
}

// TestEventsSayWhatTheFoldMadeOfThem shows a copy and hearsay as such, and the event that counts in their place.
func TestEventsSayWhatTheFoldMadeOfThem(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		now := t0.Add(time.Hour)
		w := startWriter(t, s, now)
		project := id.Random()
		tell(t, w, project, now,
			event("task.started", "a5", "w-1", t0, `,"task_name":"up.store"`),
			event("task.succeeded", "a5", "w-1", t0.Add(4*time.Second), `,"result":"stored"`),
			event("task.succeeded", "a5", "w-1", t0.Add(4500*time.Millisecond), ``),
			event("task.failed", "a5", "w-6", t0.Add(5*time.Minute), `,"exception":"AbandonedJobError"`),
			event("task.progress", "a5", "w-1", t0.Add(time.Second), `,"percent":7205759403792793601`))
		page, err := s.Events(t.Context(), project, "celery", "a5", store.Page{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		ids := map[id.ID]string{}
		for _, e := range slices.Backward(page.Items) {
			ids[e.ID] = e.Kind + " of " + e.OccurredAt.String()[14:22]
			remark := "counts"
			if e.Remark != nil {
				remark = *e.Remark
			}
			if e.RemarkOf != nil {
				remark += " of " + ids[*e.RemarkOf]
			}
			got = append(got, ids[e.ID]+": "+remark)
		}
		want := []string{
			"task.started of 00:00.12: counts", "unknown of 00:01.12: counts", "task.succeeded of 00:04.12: counts",
			"task.succeeded of 00:04.62: copy of task.succeeded of 00:04.12", "task.failed of 05:00.12: hearsay",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if e := page.Items[3]; !strings.Contains(string(e.Payload), "7205759403792793601") {
			t.Errorf("payload %s, want its digits", e.Payload)
		}
	})
}
