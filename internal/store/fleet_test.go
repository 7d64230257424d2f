package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestLessonL18AgentsAndWorkersAgeAlike counts an agent as online while one of its processes is, and each process by the
// rule that holds for workers.
func TestLessonL18AgentsAndWorkersAgeAlike(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		project, agent := enrol(t, url, "hash-1")
		empty, _ := enrol(t, url, "hash-2")
		for i := range 7 {
			c := connect(project, agent, fmt.Sprint("p", i), fmt.Sprint("s", i), noon.Add(-time.Duration(i)*10*time.Second))
			c.Role = []string{"web", "task", "", "worker"}[i%4]
			mustConnect(t, s, c)
		}
		seed(t, s, &store.IngestWrites{Workers: []store.WorkerTouch{{Project: project, Engine: "celery", Name: "w", Seen: noon.UnixMicro()}}})
		for _, tt := range []struct {
			name                            string
			at                              time.Duration
			agents, agentsAll, workers, all int64
		}{
			{"at once", 0, 1, 1, 1, 1},
			{"30 seconds on", 30 * time.Second, 1, 1, 1, 1},
			{"a microsecond later", 30*time.Second + time.Microsecond, 0, 1, 0, 1},
		} {
			got, err := s.Fleets(t.Context(), []id.ID{project, empty}, store.TimeOf(noon.Add(tt.at)))
			want := store.Fleet{Project: project, AgentsOnline: tt.agents, AgentsTotal: tt.agentsAll, WorkersOnline: tt.workers, WorkersTotal: tt.all}
			if err != nil || got[project] != want || got[empty] != (store.Fleet{Project: empty, AgentsTotal: 1}) {
				t.Errorf("%s: %+v, %v; want %+v", tt.name, got, err, want)
			}
		}
		for _, tt := range []struct {
			name   string
			filter store.AgentWorkerFilter
			want   string
		}{
			{"the freshest first", store.AgentWorkerFilter{}, "p0:online p1:online p2:online p3:online p4:offline p5:offline p6:offline"},
			{"online", store.AgentWorkerFilter{State: store.Online}, "p0:online p1:online p2:online p3:online"},
			{"offline", store.AgentWorkerFilter{State: store.Offline}, "p4:offline p5:offline p6:offline"},
			{"of a role", store.AgentWorkerFilter{Role: "task"}, "p1:online p5:offline"},
			{"of another role or none", store.AgentWorkerFilter{Role: "other"}, "p2:online p3:online p6:offline"},
		} {
			tt.filter.Project = project
			for _, limit := range []int{2, 500} {
				var got []string
				tt.filter.Page = store.Page{Limit: limit}
				for {
					page, err := s.AgentWorkerPage(t.Context(), tt.filter, store.TimeOf(noon))
					if err != nil {
						t.Fatal(err)
					}
					for _, w := range page.Items {
						got = append(got, *w.WorkerID+":"+w.State)
					}
					if page.Next == nil {
						break
					}
					tt.filter.Page.Cursor = *page.Next
				}
				if g := strings.Join(got, " "); g != tt.want {
					t.Errorf("%s, %d at once: %s, want %s", tt.name, limit, g, tt.want)
				}
			}
		}
	})
}
