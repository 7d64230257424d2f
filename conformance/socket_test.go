package conformance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/wire"
)

// BenchmarkSocket measures the built binary with what published agents send: one event a frame, three events a task, at most
// 256 frames that are not acknowledged on each of the connections. An operation is one event, from signing to its ack. The agents'
// side runs in this process, on the same cores.
func BenchmarkSocket(b *testing.B) {
	if _, err := os.Stat(filepath.Join(root(b), "bin", "z4j-brain")); err != nil {
		b.Skip("needs the built binary: `make bench` builds it")
	}
	for _, database := range []string{"sqlite", "postgres"} {
		if database == "postgres" && os.Getenv("Z4J_TEST_SQLITE_ONLY") == "1" {
			continue
		}
		b.Run(database, func(b *testing.B) {
			br := newBrain(b, database)
			keys := br.mint(b, "bench")
			for _, connections := range []int{1, 8} {
				b.Run(fmt.Sprintf("connections=%d", connections), func(b *testing.B) { sendAll(b, br, keys, connections) })
			}
		})
	}
}

// sendAll sends b.N events over so many connections and waits until each is acknowledged.
func sendAll(b *testing.B, br *brain, keys agentKeys, connections int) {
	b.StopTimer()
	agents := make([]*fakeAgent, connections)
	for i := range agents {
		a, err := dial(b.Context(), br, keys, fmt.Sprintf("bench-%d-%d", connections, i))
		if err != nil {
			b.Fatal(err)
		}
		defer a.conn.CloseNow()
		agents[i] = a
	}
	group, ctx := errgroup.WithContext(b.Context())
	b.StartTimer()
	for i, a := range agents {
		share := b.N / connections
		if i < b.N%connections {
			share++
		}
		group.Go(func() error { return a.send(ctx, share) })
	}
	err := group.Wait()
	b.StopTimer()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	var waits []time.Duration
	for _, a := range agents {
		waits = append(waits, a.waits...)
	}
	slices.Sort(waits)
	if len(waits) > 0 {
		b.ReportMetric(float64(waits[len(waits)/2].Microseconds())/1000, "ms-ack-p50")
		b.ReportMetric(float64(waits[len(waits)*99/100].Microseconds())/1000, "ms-ack-p99")
	}
}

// fakeAgent is the agent's end of a connection.
type fakeAgent struct {
	conn    *websocket.Conn
	session *wire.Session
	worker  string
	window  chan struct{} // an entry for each frame that is not acknowledged

	mu    sync.Mutex
	sent  map[string]time.Time
	waits []time.Duration
}

// dial connects and shakes hands as agent 1.13 does.
func dial(ctx context.Context, br *brain, keys agentKeys, worker string) (*fakeAgent, error) {
	header := http.Header{"Authorization": {"Bearer " + keys.Token}}
	conn, resp, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(br.base, "http")+"/ws/agent", &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		return nil, err
	}
	if resp.Body != nil {
		resp.Body.Close()
	}
	hello := `{"v":2,"id":"hello_` + worker + `","ts":null,"type":"hello","payload":{"agent_version":"1.13.0","protocol_version":"2",` +
		`"framework":"bare","engines":["celery"],"worker_id":"` + worker + `","worker_pid":1}}`
	if err := conn.Write(ctx, websocket.MessageBinary, []byte(hello)); err != nil {
		return nil, err
	}
	_, answer, err := conn.Read(ctx)
	if err != nil {
		return nil, fmt.Errorf("read hello_ack: %w", err)
	}
	var ack struct {
		Payload struct {
			AgentID   string `json:"agent_id"`
			ProjectID string `json:"project_id"`
			SessionID string `json:"session_id"`
		} `json:"payload"`
	}
	if err := json.Unmarshal(answer, &ack); err != nil {
		return nil, err
	}
	secret, err := wire.DecodeSecret(keys.HMACSecret)
	if err != nil {
		return nil, err
	}
	session, err := wire.NewSession(wire.Keys{
		Secret: secret, AgentID: ack.Payload.AgentID, ProjectID: ack.Payload.ProjectID, SessionID: ack.Payload.SessionID,
	})
	if err != nil {
		return nil, err
	}
	const window = 256 // what agent 1.13 has in flight at most
	return &fakeAgent{conn: conn, session: session, worker: worker, window: make(chan struct{}, window), sent: map[string]time.Time{}}, nil
}

// send sends n events and returns when all are acknowledged.
func (a *fakeAgent) send(ctx context.Context, n int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.readAcks(ctx, n) })
	group.Go(func() error {
		var frame []byte
		var task string
		for i := range n {
			now := time.Now()
			kind := [...]string{"received", "started", "succeeded"}[i%3]
			if i%3 == 0 {
				task = id.New(now).String()
			}
			payload := `{"events":[{"id":"` + id.New(now).String() + `","kind":"task.` + kind + `","engine":"celery","task_id":"` + task +
				`","occurred_at":"` + now.UTC().Format("2006-01-02T15:04:05.000000+00:00") + `","data":{"task_name":"shop.charge","queue":"default",` +
				`"worker":"` + a.worker + `","args":[4711,"a customer's name"],"kwargs":{"currency":"EUR","amount":"12.50"}}}]}`
			name := fmt.Sprintf("ev_%s_%012d", strings.ReplaceAll(a.worker, "-", ""), i)
			select {
			case a.window <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			var err error
			if frame, err = a.session.Sign(frame[:0], wire.TypeEventBatch, name, []byte(payload), now); err != nil {
				return err
			}
			a.mu.Lock()
			a.sent[name] = now
			a.mu.Unlock()
			if err := a.conn.Write(ctx, websocket.MessageBinary, frame); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

func (a *fakeAgent) readAcks(ctx context.Context, n int) error {
	for acked := 0; acked < n; {
		_, raw, err := a.conn.Read(ctx)
		if err != nil {
			return err
		}
		frame, err := a.session.Verify(raw, time.Now())
		if err != nil {
			return fmt.Errorf("verify what the brain sent: %w", err)
		}
		if frame.Type != wire.TypeEventBatchAck {
			continue
		}
		var ack struct {
			ID       string `json:"acked_id"`
			Accepted int    `json:"accepted"`
		}
		if err := json.Unmarshal(frame.Payload, &ack); err != nil {
			return err
		}
		if ack.Accepted != 1 {
			return fmt.Errorf("ack of %s: got %d accepted, want 1", ack.ID, ack.Accepted)
		}
		a.mu.Lock()
		a.waits = append(a.waits, time.Since(a.sent[ack.ID]))
		delete(a.sent, ack.ID)
		a.mu.Unlock()
		<-a.window
		acked++
	}
	return nil
}
