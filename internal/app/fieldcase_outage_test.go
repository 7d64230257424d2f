package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/app/apptest"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// stream is what a process of an agent reports of many tasks: each is received, started and ended.
func stream(t testing.TB, name string, tasks int) (all []string) {
	t.Helper()
	ends := []string{`"task.succeeded"`, `"task.succeeded"`, `"task.failed"`, `"task.retried"`, `"task.revoked"`}
	for i := range tasks {
		for step, kind := range []string{`"task.received"`, `"task.started"`, ends[i%len(ends)]} {
			all = append(all, event(t, fmt.Sprintf(`{"kind":%s,"task_id":"%s-%d","name":"job.%d","queue":"q%d","worker":"celery@%s","at":"T+%d.%03d","exception":null}`,
				kind, name, i, i%7, i%3, name, step, i%1000), noon))
		}
	}
	// Out of order, as buffers of several threads are.
	r := rand.New(rand.NewPCG(uint64(tasks), 1))
	for i := range all {
		j := i + r.IntN(min(20, len(all)-i))
		all[i], all[j] = all[j], all[i]
	}
	return all
}

// exact wants n tasks of a stream to be there, each event once, and every number to be that of the rows.
func (l *lane) exact(tasks int) {
	l.t.Helper()
	counted := map[string]int{}
	for _, row := range l.items("/tasks") {
		row := row.(map[string]any)
		counted[fmt.Sprint(row["state"])]++
		has(l.t, "a task", row, `{"attempt_count":1,"deliveries":1}`)
	}
	part := tasks / 5
	want := map[string]int{"success": 2 * part, "failure": part, "retry": part, "revoked": part}
	if !maps.Equal(counted, want) {
		l.t.Errorf("tasks by state: got %v, want %v", counted, want)
	}
	has(l.t, "stats", l.get("/stats"), fmt.Sprintf(`{"tasks_total":%d,"tasks_succeeded_24h":%d,"tasks_failed_24h":%d}`, tasks, 2*part, part))
	has(l.t, "home", l.home(), fmt.Sprintf(`{"tasks_24h":%d,"failures_24h":%d}`, tasks, part))
	db := storetest.DB(l.t, l.field.Database)
	if rows := storetest.Rows(l.t, db, `SELECT count(*) FROM events`); rows[0][0] != fmt.Sprint(3*tasks) {
		l.t.Errorf("events: %s rows, want %d", rows[0][0], 3*tasks)
	}
	l.agree()
}

// TestKilledInTheMiddleOfAStream kills the brain several times while frames come: what was acked is there, what was not
// comes again, and everything counts once.
func TestKilledInTheMiddleOfAStream(t *testing.T) {
	const tasks = 200 // of each process
	playMortal(t, noon.Add(minute), func(t *testing.T, m *mortal) {
		l := m.lane(t, nil)
		hello := maps.Clone(l.Hello)
		delete(hello, "worker_id")
		second := l.Agent.Process(t, hello)
		second.Connect(m.Base)
		processes := []*apptest.Process{l.Process, second}
		streams := [][]string{stream(t, "n1", tasks), stream(t, "n2", tasks)}
		const lives = 3
		for life := range lives {
			var wg sync.WaitGroup
			for i, p := range processes {
				part := len(streams[i]) / lives
				wg.Go(func() {
					for _, e := range streams[i][life*part : (life+1)*part] {
						p.Send(e)
					}
				})
			}
			l.until("some acks", func() bool { return l.Acked() > life*len(streams[0])/lives+20 })
			m.restart()
			wg.Wait()
			left := 0
			for _, p := range processes {
				left += p.Waiting()
				p.Connect(m.Base)
			}
			t.Logf("life %d: %d batches were not acked when the brain died", life, left)
		}
		for _, p := range processes {
			p.Settle()
		}
		if got := l.Acked() + second.Acked(); got != len(streams[0])+len(streams[1]) {
			t.Errorf("%d frames are acked, want all %d", got, len(streams[0])+len(streams[1]))
		}
		l.exact(2 * tasks)
	})
}

// wall stands between the brain and its database and can be shut.
type wall struct {
	target string
	listen net.Listener
	wg     sync.WaitGroup

	mu     sync.Mutex
	mood   mood
	change chan struct{} // closed at the next change of mood
	conns  map[net.Conn]bool
}

type mood int

const (
	passing mood = iota
	cutting      // connections are closed, new ones too
	silent       // nothing is forwarded, nothing is closed: packets are dropped
)

// between puts a wall before the database at dsn and returns the URL that leads through it.
func between(t *testing.T, dsn string) (*wall, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	w := &wall{target: u.Host, change: make(chan struct{}), conns: map[net.Conn]bool{}}
	if w.listen, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	w.wg.Go(w.accept)
	t.Cleanup(func() {
		w.listen.Close()
		w.set(cutting)
		w.wg.Wait()
	})
	u.Host = w.listen.Addr().String()
	return w, u.String()
}

func (w *wall) accept() {
	for {
		near, err := w.listen.Accept()
		if err != nil {
			return
		}
		w.wg.Go(func() { w.serve(near) })
	}
}

func (w *wall) serve(near net.Conn) {
	defer near.Close()
	far, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", w.target)
	if err != nil {
		return
	}
	defer far.Close()
	if !w.enter(near, far) {
		return
	}
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		both.Go(func() {
			defer near.Close()
			defer far.Close()
			w.forward(way[1], way[0])
		})
	}
	both.Wait()
	w.mu.Lock()
	delete(w.conns, near)
	delete(w.conns, far)
	w.mu.Unlock()
}

func (w *wall) enter(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		w.conns[c] = true
	}
	return w.mood != cutting
}

func (w *wall) forward(to io.Writer, from io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil || !w.passes() {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// passes waits while the wall is silent; false says that the connection is cut.
func (w *wall) passes() bool {
	for {
		w.mu.Lock()
		mood, change := w.mood, w.change
		w.mu.Unlock()
		if mood != silent {
			return mood == passing
		}
		<-change
	}
}

func (w *wall) set(m mood) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mood = m
	close(w.change)
	w.change = make(chan struct{})
	if m == cutting {
		for c := range w.conns {
			c.Close()
		}
	}
}

// TestDatabaseThatGoesAwayAndComesBack shuts the way to Postgres under load: the brain stays, says clearly that it can't
// work, acks nothing that is not committed, and goes on by itself.
func TestDatabaseThatGoesAwayAndComesBack(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		mood mood
	}{{"connections are cut", cutting}, {"packets are dropped", silent}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			direct := storetest.Postgres(t)
			way, through := between(t, direct)
			clock := apptest.NewClock(noon.Add(minute))
			b := apptest.Start(t, apptest.Options{Database: through, Now: clock.Now})
			f := &field{Brain: b, Client: b.Client, Clock: clock, Base: b.URL(), Database: direct}
			f.Client.Login(apptest.Email, apptest.Password)
			l := f.lane(t, nil)
			all := stream(t, "n1", 200)
			for _, e := range all[:300] {
				l.Send(e)
			}
			l.until("some acks", func() bool { return l.Acked() > 20 })
			way.set(tt.mood)
			for _, e := range all[300:] {
				l.Send(e)
			}
			before := l.Acked()
			away(t, f, l)
			if l.Waiting() < 100 {
				t.Errorf("%d batches wait for their ack while the database is away, want most: %d were acked before", l.Waiting(), before)
			}
			select {
			case err := <-b.Failed():
				t.Fatalf("the brain gave up: %v", err)
			default:
			}
			way.set(passing)
			l.until("the brain to be ready again", func() bool {
				status, _, _ := f.Client.Try(http.MethodGet, "/api/v1/health/ready", nil)
				return status == http.StatusOK
			})
			if l.Broken() { // an agent may be sent away, and comes back by itself
				l.Connect(f.Base)
			}
			l.Settle()
			l.exact(200)
			l.tell(`{"kind":"task.received","task_id":"after","name":"after","at":"T+3"}`)
			l.found("name=after", "after")
			fresh := l.Agent.Process(t, nil)
			fresh.Connect(f.Base)
		})
	}
}

// away asks a brain whose database is away for everything.
func away(t *testing.T, f *field, l *lane) {
	t.Helper()
	f.Client.Do(http.MethodGet, "/api/v1/health", nil, http.StatusOK, nil)
	var ready struct{ Status, Reason string }
	f.Client.Do(http.MethodGet, "/api/v1/health/ready", nil, http.StatusServiceUnavailable, &ready)
	if ready.Status != "unready" || ready.Reason != "database" {
		t.Errorf("readiness: %+v, want unready for the database", ready)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, call := range []struct {
		method, path string
		body         any
	}{
		{http.MethodGet, "/api/v1/projects/" + l.slug + "/tasks", nil},
		{http.MethodGet, "/api/v1/home/summary", nil},
		{http.MethodPost, "/api/v1/projects", map[string]any{"slug": "while-away", "name": "n"}},
		{http.MethodPost, "/api/v1/auth/login", map[string]any{"email": apptest.Email, "password": apptest.Password}},
	} {
		wg.Go(func() {
			began := time.Now()
			status, _, raw := f.Client.Try(call.method, call.path, call.body)
			var body struct {
				Error, Message string
				RequestID      string `json:"request_id"`
			}
			if err := json.Unmarshal(raw, &body); err != nil || body.Error == "" || body.Message == "" || body.RequestID == "" {
				t.Errorf("%s %s: %v in %s, want an error with message and request id", call.method, call.path, err, raw)
			}
			if status != http.StatusServiceUnavailable && status != http.StatusInternalServerError {
				t.Errorf("%s %s: status %d, want 503: %s", call.method, call.path, status, raw)
			}
			if strings.Contains(string(raw), "127.0.0.1") || strings.Contains(string(raw), "postgres") {
				t.Errorf("%s %s: %s, want nothing of the database's address", call.method, call.path, raw)
			}
			t.Logf("%s %s: %d after %v: %s", call.method, call.path, status, time.Since(began).Round(time.Millisecond), raw)
		})
	}
	var refused apptest.Refused
	if err := l.Agent.Process(t, nil).TryConnect(f.Base); !errors.As(err, &refused) || refused.Status != http.StatusServiceUnavailable {
		t.Errorf("a process connects: %v, want status 503", err)
	}
}
