package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/fold"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestHotListsUseIndexes: each page of a list that can grow comes out of an index that has its order.
func TestHotListsUseIndexes(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		project := id.Random()
		var w store.IngestWrites
		for i := range 3000 {
			state := fold.StateSuccess
			if i%50 == 0 {
				state = fold.StateFailure
			}
			r := taskRow(project, fmt.Sprint("t", i), t0.Add(time.Duration(i)*time.Millisecond), state)
			r.Name, r.Queue = fmt.Sprint("name-", i%3), "q"
			w.NewTasks = append(w.NewTasks, r)
		}
		slices.SortFunc(w.NewTasks, func(a, b store.TaskRow) int { return a.Compare(b.TaskRef) })
		seed(t, s, &w)
		first, err := s.Tasks(t.Context(), store.TaskFilter{Project: project, Page: store.Page{Limit: 100}})
		if err != nil {
			t.Fatal(err)
		}
		second := store.Page{Limit: 50, Cursor: *first.Next}
		checks := []struct {
			name, index string
			filter      store.TaskFilter
		}{
			{"the newest", "tasks_list", store.TaskFilter{Page: store.Page{Limit: 50}}},
			{"the next page", "tasks_list", store.TaskFilter{Page: second}},
			{"of a queue", "tasks_list", store.TaskFilter{Queue: "q", Page: second}},
			{"of a worker since", "tasks_list", store.TaskFilter{Worker: "w", Since: new(store.TimeOf(t0))}},
			{"a search", "tasks_list", store.TaskFilter{Search: "x"}},
			{"failures", "tasks_rare", store.TaskFilter{State: new(fold.StateFailure), Page: second}},
			{"of a name", "tasks_name", store.TaskFilter{Name: "name-1", Page: second}},
			{"of some names", "tasks_name", store.TaskFilter{Name: "name", Page: second}},
			{"by id", "task_key", store.TaskFilter{Search: id.Random().String()}},
		}
		for _, statistics := range []string{"without statistics: ", "with statistics: "} {
			if s.Dialect() == "postgres" && statistics == "without statistics: " {
				if err := s.Analyze(t.Context()); err != nil {
					t.Fatal(err)
				}
				continue // autovacuum gathers them there; nobody does on SQLite
			}
			for _, tt := range checks {
				tt.filter.Project = project
				plan, err := s.ExplainTasks(t.Context(), tt.filter)
				checkPlan(t, statistics+tt.name, tt.index, plan, err)
			}
			if err := s.Analyze(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestEventsOfATaskPrunePartitions: days before the task's beginning are not looked at, and all its events are found.
func TestEventsOfATaskPrunePartitions(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		now := t0.Add(time.Hour)
		w := startWriter(t, s, now)
		project := id.Random()
		old, late := t0.Add(-20*24*time.Hour), t0.Add(-2*24*time.Hour)
		tell(t, w, project, now, event("task.started", "older", "w", old, ``))
		tell(t, w, project, now, event("task.received", "a", "w", late, ``), event("task.started", "a", "w", late.Add(time.Second), ``))
		tell(t, w, project, now, event("task.succeeded", "a", "w", t0, ``))
		page, err := s.Events(t.Context(), project, "celery", "a", store.Page{})
		if err != nil || len(page.Items) != 3 {
			t.Errorf("events: %d, %v; want 3", len(page.Items), err)
		}
		plan, err := s.ExplainEvents(t.Context(), project, "celery", "a")
		checkPlan(t, "events of a task", "occurred_at", plan, err)
		if day := "events_" + old.Format("2006_01_02"); strings.Contains(plan, day) {
			t.Errorf("%s is looked at:\n%s", day, plan)
		}
	})
}

func checkPlan(t *testing.T, name, index, plan string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if !strings.Contains(plan, index) {
		t.Errorf("%s: want %s in\n%s", name, index, plan)
	}
	for line := range strings.Lines(plan) {
		if strings.Contains(line, "SEARCH t ") && !strings.Contains(line, "(project_id=? AND id=?)") || strings.Contains(line, "AUTOMATIC") {
			t.Errorf("%s: the page's rows are not found one by one in\n%s", name, plan)
		}
		whole := strings.Contains(line, "Seq Scan") || strings.HasPrefix(line, "SCAN ") && !strings.Contains(line, "INDEX") &&
			!strings.Contains(line, "SCAN p") && !strings.Contains(line, "SCAN u")
		if whole {
			t.Errorf("%s: a whole table is read in\n%s", name, plan)
		}
	}
}
