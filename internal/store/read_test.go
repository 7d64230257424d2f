package store_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/z4j-go/z4j/internal/fold"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// seed writes rows as ingest would.
func seed(t interface {
	Helper()
	Fatal(...any)
}, s *store.Store, w *store.IngestWrites,
) {
	t.Helper()
	var refs []store.TaskRef
	for i := range w.NewTasks {
		refs = append(refs, w.NewTasks[i].TaskRef)
	}
	for i := range w.ChangedTasks {
		refs = append(refs, w.ChangedTasks[i].TaskRef)
	}
	slices.SortFunc(refs, store.TaskRef.Compare)
	ctx := testContext()
	err := s.Ingest(ctx, func(tx *store.IngestTx) error {
		if _, err := tx.Tasks(ctx, refs); err != nil {
			return err
		}
		return tx.Write(ctx, w)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// taskRow is a task that was received at `at`; its id is made from at too.
func taskRow(project id.ID, taskID string, at time.Time, state fold.State) store.TaskRow {
	r := store.TaskRow{
		TaskRef: store.TaskRef{Project: project, Engine: "celery", Key: fold.TaskKey("celery", taskID)},
		ID:      id.New(at), Created: at.UnixMicro(), Updated: at.UnixMicro(), LastAt: at.UnixMicro(), Received: at.UnixMicro(),
		WaitUS: -1, RuntimeUS: -1, State: int16(state), TaskID: taskID, Marks: []byte{},
	}
	if state >= fold.StateFailure {
		r.Rare = int16(state)
	}
	return r
}

// walked is a page of any list: what a walk needs of it.
type walked struct {
	keys       []string
	next, prev *string
}

func walkedOf[T any](s store.Slice[T], err error, key func(*T) string) (walked, error) {
	w := walked{next: s.Next, prev: s.Prev}
	for i := range s.Items {
		w.keys = append(w.keys, key(&s.Items[i]))
	}
	return w, err
}

// A walkCase is a list, and what may happen to it between two pages.
type walkCase struct {
	name   string
	rows   func(rt *rapid.T, s *store.Store, project id.ID, n int) // makes n rows whose keys are key(0) … key(n-1)
	key    func(i int) string
	page   func(s *store.Store, project id.ID, p store.Page) (walked, error)
	meddle func(rt *rapid.T, s *store.Store, project id.ID, step int) // adds rows with other keys, changes those that are there
}

var t0 = time.Date(2026, 3, 2, 8, 0, 0, 123456000, time.UTC)

// TestLessonF21UnionOfPagesIsTheList walks every list forwards and then back while rows come in and change.
func TestLessonF21UnionOfPagesIsTheList(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		s.SearchBy(3) // so that a search takes several stretches
		lists := walkCases()
		const kinds = 4 // of lists of tasks
		for _, group := range [][]walkCase{lists[:kinds], lists[kinds:]} {
			rapid.Check(t, func(rt *rapid.T) {
				i := rapid.IntRange(0, len(group)-1).Draw(rt, "list")
				rt.Log(group[i].name)
				walk(rt, s, group[i])
			})
		}
	})
}

func walk(rt *rapid.T, s *store.Store, c walkCase) {
	project := id.Random()
	n := rapid.IntRange(0, 15).Draw(rt, "rows")
	c.rows(rt, s, project, n)
	var want []string
	for i := range n {
		want = append(want, c.key(i))
	}
	slices.Sort(want)
	limit := rapid.IntRange(2, 9).Draw(rt, "limit")
	step := 0
	read := func(cursor string) walked {
		w, err := c.page(s, project, store.Page{Limit: limit, Cursor: cursor})
		if err != nil {
			rt.Fatal(err)
		}
		if len(w.keys) > limit {
			rt.Fatalf("%d rows, want at most %d", len(w.keys), limit)
		}
		for range rapid.IntRange(0, 1).Draw(rt, "meddling") {
			c.meddle(rt, s, project, step)
			step++
		}
		return w
	}
	page := read("")
	if page.prev != nil {
		rt.Fatal("the first page has a previous one")
	}
	forward := slices.Clone(page.keys)
	for page.next != nil {
		if page = read(*page.next); page.prev == nil {
			rt.Fatal("a later page has no previous one")
		}
		forward = append(forward, page.keys...)
	}
	check := func(way string, got []string) {
		seen := map[string]bool{}
		var old []string
		for _, k := range got {
			if seen[k] {
				rt.Fatalf("%s: %s came twice in %q", way, k, got)
			}
			seen[k] = true
			if slices.Contains(want, k) {
				old = append(old, k)
			}
		}
		slices.Sort(old)
		if diff := cmp.Diff(want, old); diff != "" {
			rt.Fatalf("%s: the rows of the beginning (-want +got):\n%s", way, diff)
		}
	}
	check("forwards", forward)
	back := slices.Clone(page.keys)
	for page.prev != nil {
		page = read(*page.prev)
		back = append(slices.Clone(page.keys), back...)
	}
	check("back", back)
}

func walkCases() []walkCase {
	key := func(i int) string { return fmt.Sprintf("k%03d", i) }
	at := func(rt *rapid.T) time.Time { // few distinct times: ties are common
		return t0.Add(time.Duration(rapid.IntRange(0, 5).Draw(rt, "µs")) * time.Microsecond)
	}
	taskKey := func(t *store.Task) string { return t.TaskID }
	tasks := func(name string, prepare func(r *store.TaskRow, i int), filter func(f *store.TaskFilter)) walkCase {
		row := func(rt *rapid.T, project id.ID, taskID string, i int) store.TaskRow {
			r := taskRow(project, taskID, at(rt), fold.StateReceived)
			prepare(&r, i)
			return r
		}
		return walkCase{
			name: name, key: key,
			rows: func(rt *rapid.T, s *store.Store, project id.ID, n int) {
				var w store.IngestWrites
				for i := range n {
					w.NewTasks = append(w.NewTasks, row(rt, project, key(i), i))
				}
				seed(rt, s, &w)
			},
			page: func(s *store.Store, project id.ID, p store.Page) (walked, error) {
				f := store.TaskFilter{Project: project, Page: p}
				filter(&f)
				out, err := s.Tasks(testContext(), f)
				return walkedOf(out, err, taskKey)
			},
			meddle: func(rt *rapid.T, s *store.Store, project id.ID, step int) {
				w := store.IngestWrites{NewTasks: []store.TaskRow{row(rt, project, fmt.Sprintf("new%03d", step), step)}}
				changed, err := s.Tasks(testContext(), store.TaskFilter{Project: project, Page: store.Page{Limit: 1 + step%7}})
				if err != nil {
					rt.Fatal(err)
				}
				if n := len(changed.Items); n > 0 {
					last := changed.Items[n-1]
					r := taskRow(project, last.TaskID, t0, fold.StateSuccess)
					prepare(&r, step)
					r.ID, r.Started, r.Finished = last.ID, t0.UnixMicro(), t0.UnixMicro()+int64(step)
					if last.Name != nil {
						r.Name = *last.Name
					}
					w.ChangedTasks = []store.TaskRow{r}
				}
				seed(rt, s, &w)
			},
		}
	}
	return append([]walkCase{
		tasks("tasks", func(*store.TaskRow, int) {}, func(*store.TaskFilter) {}),
		tasks("tasks of a state", func(r *store.TaskRow, _ int) { r.State, r.Rare = int16(fold.StateFailure), int16(fold.StateFailure) },
			func(f *store.TaskFilter) { f.State = new(fold.StateFailure) }),
		tasks("tasks of some names", func(r *store.TaskRow, i int) { r.Name = []string{"pay.one", "pay.two", "pay.three"}[i%3] },
			func(f *store.TaskFilter) { f.Name = "pay." }),
		tasks("tasks that a search finds", func(r *store.TaskRow, _ int) { r.Queue = "Slow_1" },
			func(f *store.TaskFilter) { f.Search = "w_1" }),
	}, otherWalkCases(key, at)...)
}

func otherWalkCases(key func(int) string, at func(*rapid.T) time.Time) []walkCase {
	type inserter func(rt *rapid.T, w *store.IngestWrites, project id.ID, key string)
	var cases []walkCase
	add := func(name string, insert inserter, page func(s *store.Store, project id.ID, p store.Page) (walked, error)) {
		cases = append(cases, walkCase{
			name: name, key: key, page: page,
			rows: func(rt *rapid.T, s *store.Store, project id.ID, n int) {
				var w store.IngestWrites
				for i := range n {
					insert(rt, &w, project, key(i))
				}
				seed(rt, s, &w)
			},
			meddle: func(rt *rapid.T, s *store.Store, project id.ID, step int) {
				var w store.IngestWrites
				insert(rt, &w, project, fmt.Sprintf("k%03dnew", step))
				seed(rt, s, &w)
			},
		})
	}
	worker := func(rt *rapid.T, w *store.IngestWrites, project id.ID, key string) {
		w.Workers = append(w.Workers, store.WorkerTouch{Project: project, Engine: "celery", Name: key, Seen: at(rt).UnixMicro()})
	}
	workerKey := func(w *store.Worker) string { return w.Name }
	add("workers", worker, func(s *store.Store, project id.ID, p store.Page) (walked, error) {
		out, err := s.Workers(testContext(), store.WorkerFilter{Project: project, Page: p}, store.TimeOf(t0))
		return walkedOf(out, err, workerKey)
	})
	add("workers by name", func(rt *rapid.T, w *store.IngestWrites, project id.ID, key string) {
		if len(w.Workers) == 0 && key != "k000" {
			worker(rt, w, project, "k000") // heard from again: its place is where it was
		}
		worker(rt, w, project, key)
	}, func(s *store.Store, project id.ID, p store.Page) (walked, error) {
		out, err := s.Workers(testContext(), store.WorkerFilter{Project: project, ByName: true, Page: p}, store.TimeOf(t0))
		w, err := walkedOf(out, err, workerKey)
		return w, err
	})
	add("queues", func(rt *rapid.T, w *store.IngestWrites, project id.ID, key string) {
		w.Queues = append(w.Queues, store.QueueTouch{Project: project, Engine: "celery", Name: key, Seen: at(rt).UnixMicro()})
	}, func(s *store.Store, project id.ID, p store.Page) (walked, error) {
		out, err := s.Queues(testContext(), project, p)
		return walkedOf(out, err, func(q *store.Queue) string { return q.Name })
	})
	add("refused events", func(rt *rapid.T, w *store.IngestWrites, project id.ID, key string) {
		w.DeadLetters = append(w.DeadLetters, store.DeadLetter{
			Project: project, ID: id.New(at(rt)), Agent: project, Received: t0.UnixMicro(), FrameID: key, Reason: "too_old",
		})
	}, func(s *store.Store, project id.ID, p store.Page) (walked, error) {
		out, err := s.RefusedEvents(testContext(), project, "too_old", p)
		return walkedOf(out, err, func(r *store.RefusedEvent) string { return r.FrameID })
	})
	add("attempts", func(rt *rapid.T, w *store.IngestWrites, project id.ID, key string) {
		var n int32
		if _, err := fmt.Sscanf(key, "k%d", &n); err != nil {
			rt.Fatal(err)
		}
		if key[len(key)-1] == 'w' {
			n += 1000
		}
		ref := taskRow(project, "one", t0, 0).TaskRef
		w.Attempts = append(w.Attempts, store.AttemptRow{TaskRef: ref, Number: n + 1, State: 5, WaitUS: -1, RuntimeUS: -1, Retries: -1, Worker: key})
	}, func(s *store.Store, project id.ID, p store.Page) (walked, error) {
		out, err := s.Attempts(testContext(), project, "celery", "one", p)
		return walkedOf(out, err, func(a *store.Attempt) string { return *a.Worker })
	})
	other := func(project id.ID) id.ID { project[0] ^= 0xff; return project }
	add("recent failures of two projects", func(rt *rapid.T, w *store.IngestWrites, project id.ID, key string) {
		if rapid.Bool().Draw(rt, "other") {
			project = other(project)
		}
		w.NewTasks = append(w.NewTasks, taskRow(project, key, at(rt), fold.StateFailure))
	}, func(s *store.Store, project id.ID, p store.Page) (walked, error) {
		out, err := s.RecentFailures(testContext(), []id.ID{project, other(project)}, p)
		return walkedOf(out, err, func(t *store.Task) string { return t.TaskID })
	})
	add("events", func(rt *rapid.T, w *store.IngestWrites, project id.ID, key string) {
		ref := taskRow(project, "one", t0, 0).TaskRef
		w.Events = append(w.Events, store.EventRow{
			Project: project, ID: id.Random(), Agent: project, HasTask: true, TaskKey: ref.Key, Occurred: at(rt).UnixMicro(), Received: t0.UnixMicro(),
			Engine: "celery", TaskID: "one", Kind: "task.sent", Worker: key, Payload: []byte(`{}`),
		})
	}, func(s *store.Store, project id.ID, p store.Page) (walked, error) {
		out, err := s.Events(testContext(), project, "celery", "one", p)
		return walkedOf(out, err, func(e *store.Event) string { return *e.WorkerName })
	})
	return cases
}

func TestCursorsOfOtherListsAreRefused(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		project := id.Random()
		seed(t, s, &store.IngestWrites{NewTasks: []store.TaskRow{taskRow(project, "a", t0, 2), taskRow(project, "b", t0.Add(1000), 2)}})
		out, err := s.Tasks(t.Context(), store.TaskFilter{Project: project, Page: store.Page{Limit: 1}})
		if err != nil || out.Next == nil {
			t.Fatalf("first page: %+v, %v", out, err)
		}
		for _, tt := range []struct {
			name string
			err  func(cursor string) error
			text string
		}{
			{"of tasks, at events", func(c string) error {
				_, err := s.Events(t.Context(), project, "celery", "a", store.Page{Cursor: c})
				return err
			}, *out.Next},
			{"cut", func(c string) error {
				_, err := s.Tasks(t.Context(), store.TaskFilter{Project: project, Page: store.Page{Cursor: c}})
				return err
			}, (*out.Next)[:len(*out.Next)-2]},
			{"no base64", func(c string) error {
				_, err := s.Queues(t.Context(), project, store.Page{Cursor: c})
				return err
			}, "|2026|"},
		} {
			if err := tt.err(tt.text); !errors.Is(err, store.ErrCursor) {
				t.Errorf("%s: %v, want %v", tt.name, err, store.ErrCursor)
			}
		}
	})
}
