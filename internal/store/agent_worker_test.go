package store_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

// raw runs a statement past the store, as an operator at the database would.
func raw(t *testing.T, url, q string, args ...any) {
	t.Helper()
	driver, dsn := "pgx", url
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		driver, dsn = "sqlite3", "file:"+path+"?_pragma=busy_timeout(10000)"
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), q, args...); err != nil {
		t.Fatal(err)
	}
}

// enrol makes a project and an agent with the given token hash.
func enrol(t *testing.T, url, hash string) (project, agent id.ID) {
	t.Helper()
	project, agent = id.Random(), id.Random()
	now := store.TimeOf(noon)
	raw(t, url, `INSERT INTO projects (id, slug, name, created_at, updated_at) VALUES ($1, $2, 'Shop', $3, $3)`, project, "shop-"+project.String(), now)
	raw(t, url, `INSERT INTO agents (id, project_id, name, token_hash, created_at) VALUES ($1, $2, 'web', $3, $4)`, agent, project, hash, now)
	return project, agent
}

func connect(project, agent id.ID, worker, session string, at time.Time) store.SlotConnect {
	pid := int64(4711)
	started := store.TimeOf(noon.Add(-time.Hour))
	return store.SlotConnect{
		Slot: store.Slot{Project: project, Agent: agent, WorkerID: worker, Named: worker != ""}, Session: session, At: store.TimeOf(at),
		Role: "web", Framework: "flask", PID: &pid, Started: &started, ProtocolVersion: "2", AgentVersion: "1.13.0",
		Engines: []string{"celery"}, Capabilities: map[string][]string{"celery": {"retry_task"}}, HostName: "web-eu-1",
	}
}

func mustConnect(t *testing.T, s *store.Store, c ...store.SlotConnect) {
	t.Helper()
	taken, err := s.ConnectSlots(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	for i, ok := range taken {
		if !ok {
			t.Fatalf("connect %d: refused, want taken", i)
		}
	}
}

// states returns the processes' states by worker id, as of at.
func states(t *testing.T, s *store.Store, project id.ID, at time.Time) map[string]string {
	t.Helper()
	list, err := s.AgentWorkers(t.Context(), project, "", store.TimeOf(at), 100)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, w := range list {
		name := "(none)"
		if w.WorkerID != nil {
			name = *w.WorkerID
		}
		got[name] = w.State
	}
	return got
}

func TestAgentCredential(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		project, agent := enrol(t, url, "hash-1")
		for _, tt := range []struct {
			name    string
			change  string
			hash    string
			want    store.AgentCredential
			wantErr error
		}{
			{"an unknown token is not found", "", "hash-x", store.AgentCredential{}, store.ErrNotFound},
			{"a known one is", "", "hash-1", store.AgentCredential{Agent: agent, Project: project, Name: "web", ProjectActive: true}, nil},
			{"an inactive project shows", `UPDATE projects SET is_active = FALSE`, "hash-1", store.AgentCredential{Agent: agent, Project: project, Name: "web"}, nil},
			{"so does a revocation", `UPDATE agents SET revoked_at = created_at`, "hash-1", store.AgentCredential{Agent: agent, Project: project, Name: "web", Revoked: true}, nil},
		} {
			if tt.change != "" {
				raw(t, url, tt.change)
			}
			got, err := s.AgentCredential(t.Context(), tt.hash)
			if !errors.Is(err, tt.wantErr) || got != tt.want {
				t.Errorf("%s: %+v, %v; want %+v, %v", tt.name, got, err, tt.want, tt.wantErr)
			}
		}
	})
}

// TestLessonE10SlotPerWorkerID: processes of one agent do not kick one another, and no worker id is the legacy slot.
func TestLessonE10SlotPerWorkerID(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		project, agent := enrol(t, url, "h")
		unnamed := connect(project, agent, "", "s1", noon)
		empty := connect(project, agent, "", "s2", noon)
		empty.Named = true // a worker id that is the empty text is a worker id
		mustConnect(t, s, unnamed, empty, connect(project, agent, "a", "s3", noon), connect(project, agent, "b", "s4", noon))
		want := map[string]string{"(none)": "online", "": "online", "a": "online", "b": "online"}
		if diff := cmp.Diff(want, states(t, s, project, noon)); diff != "" {
			t.Errorf("slots (-want +got):\n%s", diff)
		}
		if err := s.DisconnectSlots(t.Context(), []store.SlotEnd{{Slot: unnamed.Slot, Session: "s1", At: unnamed.At}}); err != nil {
			t.Fatal(err)
		}
		want["(none)"] = "offline"
		if diff := cmp.Diff(want, states(t, s, project, noon)); diff != "" {
			t.Errorf("after the unnamed one ended (-want +got):\n%s", diff)
		}
	})
}

// TestLessonE11LateEndOfAnOldConnection: the clean-up of a displaced connection leaves the newer one online.
func TestLessonE11LateEndOfAnOldConnection(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		project, agent := enrol(t, url, "h")
		old, newer := connect(project, agent, "a", "old", noon), connect(project, agent, "a", "new", noon.Add(time.Second))
		mustConnect(t, s, old)
		mustConnect(t, s, newer)
		end := store.SlotEnd{Slot: old.Slot, Session: "old", At: store.TimeOf(noon.Add(2 * time.Second))}
		if err := s.DisconnectSlots(t.Context(), []store.SlotEnd{end}); err != nil {
			t.Fatal(err)
		}
		if got := states(t, s, project, noon.Add(2*time.Second))["a"]; got != store.Online {
			t.Errorf("after the old connection's end: %s, want online", got)
		}
		losses, err := s.TouchSlots(t.Context(), []store.SlotTouch{
			{Slot: old.Slot, Session: "old", Seen: end.At}, {Slot: newer.Slot, Session: "new", Seen: end.At},
		})
		if want := []store.SlotLoss{store.SlotTaken, store.SlotHeld}; err != nil || !cmp.Equal(losses, want) {
			t.Errorf("touch of both: %v, %v; want %v", losses, err, want)
		}
		end.Session = "new"
		if err := s.DisconnectSlots(t.Context(), []store.SlotEnd{end}); err != nil {
			t.Fatal(err)
		}
		if got := states(t, s, project, noon.Add(2*time.Second))["a"]; got != store.Offline {
			t.Errorf("after the newer connection's end: %s, want offline", got)
		}
	})
}

func TestTouchSlots(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		project, agent := enrol(t, url, "h")
		c := connect(project, agent, "a", "s", noon)
		mustConnect(t, s, c)
		for _, tt := range []struct {
			name       string
			seen       time.Duration
			status     string
			at         time.Duration
			wantSeen   time.Duration
			wantState  string
			wantStatus string
		}{
			{"a touch moves the time and keeps the status", 20 * time.Second, `{"buffer_depth":1}`, 45 * time.Second, 20 * time.Second, "online", `{"buffer_depth":1}`},
			{"a time never goes back", 5 * time.Second, "", 45 * time.Second, 20 * time.Second, "online", `{"buffer_depth":1}`},
			{"silence of 30 s is still online", 20 * time.Second, "", 50 * time.Second, 20 * time.Second, "online", `{"buffer_depth":1}`},
			{"more is offline", 20 * time.Second, `{"buffer_depth":2}`, 51 * time.Second, 20 * time.Second, "offline", `{"buffer_depth":2}`},
			{"a new sign of life heals it", 51 * time.Second, "", 52 * time.Second, 51 * time.Second, "online", `{"buffer_depth":2}`},
		} {
			touch := store.SlotTouch{Slot: c.Slot, Session: "s", Seen: store.TimeOf(noon.Add(tt.seen))}
			if tt.status != "" {
				touch.Status = []byte(tt.status)
			}
			losses, err := s.TouchSlots(t.Context(), []store.SlotTouch{touch})
			if err != nil || !cmp.Equal(losses, []store.SlotLoss{store.SlotHeld}) {
				t.Fatalf("%s: %v, %v; want held", tt.name, losses, err)
			}
			at := store.TimeOf(noon.Add(tt.at))
			list, err := s.AgentWorkers(t.Context(), project, "", at, 10)
			if err != nil || len(list) != 1 {
				t.Fatalf("%s: %d workers, %v; want 1", tt.name, len(list), err)
			}
			w := list[0]
			if !w.LastSeenAt.Equal(noon.Add(tt.wantSeen)) || w.State != tt.wantState || string(w.Status) != tt.wantStatus {
				t.Errorf("%s: seen %v, %s, %s; want %v, %s, %s", tt.name, w.LastSeenAt, w.State, w.Status, noon.Add(tt.wantSeen), tt.wantState, tt.wantStatus)
			}
			presences, err := s.AgentPresences(t.Context(), project, at)
			online := 0
			if tt.wantState == store.Online {
				online = 1
			}
			want := map[id.ID]store.AgentPresence{agent: {State: tt.wantState, LastSeenAt: store.TimeOf(noon.Add(tt.wantSeen)), Online: online}}
			if diff := cmp.Diff(want, presences); err != nil || diff != "" {
				t.Errorf("%s: presences, %v (-want +got):\n%s", tt.name, err, diff)
			}
		}
	})
}

func TestAgentWorkerShowsWhatHelloSaid(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		project, agent := enrol(t, url, "h")
		mustConnect(t, s, connect(project, agent, "flask-1", "s1", noon), connect(project, agent, "", "s2", noon.Add(-time.Minute)))
		list, err := s.AgentWorkers(t.Context(), project, "", store.TimeOf(noon), 10)
		if err != nil || len(list) != 2 {
			t.Fatalf("%d workers, %v; want 2", len(list), err)
		}
		list[0].ID, list[1].ID = id.ID{}, id.ID{}
		got, err := json.Marshal(list[0])
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf(`{"id":"00000000-0000-0000-0000-000000000000","agent_id":%q,"project_id":%q,"worker_id":"flask-1","role":"web","framework":"flask",`+
			`"pid":4711,"started_at":"2026-03-14T11:00:00.000000Z","state":"online","last_seen_at":"2026-03-14T12:00:00.000000Z",`+
			`"last_connect_at":"2026-03-14T12:00:00.000000Z","status":null,"created_at":"2026-03-14T12:00:00.000000Z","updated_at":"2026-03-14T12:00:00.000000Z"}`,
			agent, project)
		if string(got) != want {
			t.Errorf("worker:\n got %s\nwant %s", got, want)
		}
		for state, want := range map[string]int{store.Online: 1, store.Offline: 1, "": 2} {
			list, err := s.AgentWorkers(t.Context(), project, state, store.TimeOf(noon.Add(-30*time.Second+30*time.Second)), 10)
			if err != nil || len(list) != want {
				t.Errorf("state %q: %d workers, %v; want %d", state, len(list), err, want)
			}
		}
		other, err := s.AgentWorkers(t.Context(), id.Random(), "", store.TimeOf(noon), 10)
		if err != nil || len(other) != 0 {
			t.Errorf("another project: %d workers, %v; want none", len(other), err)
		}
	})
}

// TestLessonD11RevokedAgentsAndArchivedProjectsAreFound: after the handshake too, by the connect and by every touch.
func TestLessonD11RevokedAgentsAndArchivedProjectsAreFound(t *testing.T) {
	for _, change := range []string{`UPDATE agents SET revoked_at = created_at`, `UPDATE projects SET is_active = FALSE`} {
		t.Run(change, func(t *testing.T) {
			storetest.EachURL(t, func(t *testing.T, url string) {
				s := storetest.Open(t, url)
				project, agent := enrol(t, url, "h")
				c := connect(project, agent, "a", "s", noon)
				mustConnect(t, s, c)
				raw(t, url, change)
				taken, err := s.ConnectSlots(t.Context(), []store.SlotConnect{connect(project, agent, "b", "s2", noon)})
				if err != nil || taken[0] {
					t.Errorf("connect: %v, %v; want refused", taken, err)
				}
				losses, err := s.TouchSlots(t.Context(), []store.SlotTouch{{Slot: c.Slot, Session: "s", Seen: c.At}})
				if err != nil || losses[0] != store.SlotRevoked {
					t.Errorf("touch: %v, %v; want revoked", losses, err)
				}
			})
		})
	}
}

func TestConnectRefusesAForeignProject(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		_, agent := enrol(t, url, "h1")
		other, _ := enrol(t, url, "h2")
		taken, err := s.ConnectSlots(t.Context(), []store.SlotConnect{connect(other, agent, "a", "s", noon)})
		if err != nil || taken[0] {
			t.Errorf("connect to a project that is not the agent's: %v, %v; want refused", taken, err)
		}
	})
}

// TestSlotsOfManyBrainsAtOnce: brains that write the same agents' slots in different orders neither deadlock nor lose
// the newest connection.
func TestSlotsOfManyBrainsAtOnce(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		var agents [][2]id.ID
		for i := range 4 {
			project, agent := enrol(t, url, fmt.Sprint("h", i))
			agents = append(agents, [2]id.ID{project, agent})
		}
		var wg sync.WaitGroup
		for brain := range 3 {
			wg.Go(func() {
				for round := range 10 {
					var connects []store.SlotConnect
					var touches []store.SlotTouch
					var ends []store.SlotEnd
					for i := range agents {
						a := agents[(i*(brain+1)+brain)%len(agents)]
						c := connect(a[0], a[1], "w", fmt.Sprintf("%d-%d-%d", brain, round, i), noon)
						connects = append(connects, c)
						touches = append(touches, store.SlotTouch{Slot: c.Slot, Session: c.Session, Seen: c.At})
						ends = append(ends, store.SlotEnd{Slot: c.Slot, Session: c.Session, At: c.At})
					}
					if _, err := s.ConnectSlots(t.Context(), connects); err != nil {
						t.Error(err)
					}
					if _, err := s.TouchSlots(t.Context(), touches); err != nil {
						t.Error(err)
					}
					if err := s.DisconnectSlots(t.Context(), ends); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		for _, a := range agents {
			if got := states(t, s, a[0], noon)["w"]; got != store.Offline {
				t.Errorf("after every brain's connections ended: %s, want offline", got)
			}
		}
	})
}
