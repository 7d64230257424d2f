package store_test

import (
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

func TestIngestWritesAndReadsBack(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		now := time.Date(2026, 3, 2, 8, 0, 0, 123456000, time.UTC).UnixMicro()
		project := id.New(time.UnixMicro(now))
		ref := func(n byte) store.TaskRef { return store.TaskRef{Project: project, Engine: "celery", Key: id.ID{n}} }
		refs := []store.TaskRef{ref(1), ref(2), ref(3)}

		first := store.TaskRow{
			TaskRef: ref(2), ID: id.At(now), Created: now, Updated: now, LastAt: now, Received: now, WaitUS: -1, RuntimeUS: -1,
			State: 2, TaskID: "two", Name: "pub.export", Queue: "slow", Args: []byte(`[7205759403792793601]`), Marks: []byte{1, 2, 3},
		}
		event := store.EventRow{
			Project: project, ID: id.ID{9}, Agent: project, HasTask: true, TaskKey: ref(2).Key, Occurred: now, Received: now,
			Engine: "celery", TaskID: "two", Kind: "task.received", Worker: "w", Payload: []byte(`{}`),
		}
		rollups := []store.RollupDelta{{Project: project, Minute: now - now%60e6, Measure: 1, Name: "pub.export", Count: 1, Sum: 5}}
		write := func(w *store.IngestWrites) {
			t.Helper()
			err := s.Ingest(t.Context(), func(tx *store.IngestTx) error {
				if _, err := tx.Tasks(t.Context(), refs); err != nil {
					return err
				}
				return tx.Write(t.Context(), w)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		w := &store.IngestWrites{
			Events: []store.EventRow{event, event}, NewTasks: []store.TaskRow{first}, Rollups: rollups,
			Attempts: []store.AttemptRow{{TaskRef: ref(2), Number: 1, State: 4, Started: now, WaitUS: 0, RuntimeUS: 7, Retries: -1, Payload: store.Payload{Result: []byte(`3`)}}},
			Workers:  []store.WorkerTouch{{Project: project, Engine: "celery", Name: "w", Seen: now}},
			Queues:   []store.QueueTouch{{Project: project, Engine: "celery", Name: "slow", Seen: now}},
		}
		write(w)
		if w.AcceptedEvents != 1 {
			t.Errorf("accepted %d events, want 1 of two equal ones", w.AcceptedEvents)
		}
		changed := first
		changed.State, changed.Args, changed.Marks = 4, nil, []byte{4}
		write(&store.IngestWrites{
			ChangedTasks: []store.TaskRow{changed}, Rollups: rollups,
			Attempts: []store.AttemptRow{{TaskRef: ref(2), Number: 1, State: 5, Started: now, WaitUS: -1, RuntimeUS: -1, Retries: 2, KeepPayload: true}},
			Payloads: []store.MarkPayload{{TaskRef: ref(2), Mark: []byte{1}, Payload: []byte(`{}`)}, {TaskRef: ref(2), Mark: []byte{2}}},
			Workers:  []store.WorkerTouch{{Project: project, Engine: "celery", Name: "w", Seen: now + 1, Stopped: true}},
			WorkerBeats: []store.WorkerBeat{
				{Project: project, Agent: id.ID{7}, Engine: "celery", Name: "w", Seen: now + 2, PID: 4711, Concurrency: -1, Active: 0, Queues: []byte(`["slow"]`), Metadata: []byte(`{}`)},
				{Project: project, Agent: id.ID{7}, Engine: "celery", Name: "x", Seen: now + 2, PID: -1, Concurrency: 4, Active: -1},
			},
			QueueBeats: []store.QueueBeat{{Project: project, Engine: "celery", Name: "slow", Seen: now + 2, Pending: 3}, {Project: project, Engine: "celery", Name: "fast", Seen: now + 2, Pending: -1}},
		})
		err := s.Ingest(t.Context(), func(tx *store.IngestTx) error {
			got, err := tx.Tasks(t.Context(), refs)
			if err != nil {
				return err
			}
			if got[0].Marks != nil || got[2].Marks != nil {
				t.Errorf("rows that aren't there: %+v", got)
			}
			if g := got[1]; string(g.Marks) != "\x04" || g.Name != "pub.export" || g.Queue != "slow" || g.Created != now || g.ID != first.ID {
				t.Errorf("task: %+v", g)
			}
			return tx.Write(t.Context(), &store.IngestWrites{})
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestIngestTellsThatAnotherBrainWasFirst(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		row := store.TaskRow{TaskRef: store.TaskRef{Engine: "rq", Key: id.ID{1}}, ID: id.ID{2}, Created: 1, Updated: 1, LastAt: 1, WaitUS: -1, RuntimeUS: -1, TaskID: "x", Marks: []byte{}}
		for i, want := range []error{nil, store.ErrConflict} {
			err := s.Ingest(t.Context(), func(tx *store.IngestTx) error {
				return tx.Write(t.Context(), &store.IngestWrites{NewTasks: []store.TaskRow{row}})
			})
			if !errorIs(err, want) {
				t.Errorf("insert %d: %v, want %v", i+1, err, want)
			}
		}
		if err := s.Ping(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestIngestOrdersTasksByBytes: a server whose language orders text otherwise than by bytes reads tasks in our order.
func TestIngestOrdersTasksByBytes(t *testing.T) {
	url := storetest.Postgres(t)
	s := storetest.Open(t, url)
	if storetest.Rows(t, storetest.DB(t, url), `SELECT count(*) FROM pg_collation WHERE collname = 'und-x-icu'`)[0][0] == "0" {
		t.Skip("this Postgres was built without ICU, so it has no such order; Debian's has")
	}
	if _, err := storetest.DB(t, url).ExecContext(t.Context(), `ALTER TABLE tasks ALTER COLUMN engine TYPE text COLLATE "und-x-icu"`); err != nil {
		t.Fatal(err)
	}
	w := &store.IngestWrites{}
	var refs []store.TaskRef
	for i, engine := range []string{"B", "a", "a-b", "aa", "ab"} { // by bytes; a dictionary has B last and a-b beside ab
		ref := store.TaskRef{Engine: engine, Key: id.ID{byte(i + 1)}}
		refs = append(refs, ref)
		w.NewTasks = append(w.NewTasks, store.TaskRow{TaskRef: ref, ID: id.ID{byte(i + 1)}, Created: 1, Updated: 1, LastAt: 1, WaitUS: -1, RuntimeUS: -1, TaskID: engine, Marks: []byte(engine)})
	}
	if err := s.Ingest(t.Context(), func(tx *store.IngestTx) error { return tx.Write(t.Context(), w) }); err != nil {
		t.Fatal(err)
	}
	err := s.Ingest(t.Context(), func(tx *store.IngestTx) error {
		got, err := tx.Tasks(t.Context(), refs)
		if err != nil {
			return err
		}
		for i := range got {
			if string(got[i].Marks) != refs[i].Engine {
				t.Errorf("task %d: marks %q, want %q", i, got[i].Marks, refs[i].Engine)
			}
		}
		return tx.Write(t.Context(), &store.IngestWrites{})
	})
	if err != nil {
		t.Fatal(err)
	}
}
