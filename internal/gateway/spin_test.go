package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/z4j-go/z4j/internal/gateway"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/wire"
)

// starved is a network connection as an agent of 1.5 to 1.6 has it: as long as the kernel takes what it writes, nothing
// is read; only a write that does not go on lets the rest of its process run for a moment.
type starved struct {
	net.Conn
	mu      sync.Mutex
	turn    *sync.Cond
	reading int // reasons why the rest of the process may run
}

func (s *starved) allow(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading += n
	s.turn.Broadcast()
}

func (s *starved) yield(d time.Duration) {
	s.allow(1)
	<-time.After(d)
	s.allow(-1)
}

func (s *starved) Write(b []byte) (n int, err error) {
	for n < len(b) {
		if err := s.SetWriteDeadline(time.Now().Add(time.Millisecond)); err != nil {
			return n, err
		}
		m, err := s.Conn.Write(b[n:])
		n += m
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.yield(5 * time.Millisecond)
			continue
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (s *starved) Read(b []byte) (int, error) {
	for {
		s.mu.Lock()
		for s.reading == 0 {
			s.turn.Wait()
		}
		s.mu.Unlock()
		if err := s.SetReadDeadline(time.Now().Add(2 * time.Millisecond)); err != nil {
			return 0, err
		}
		n, err := s.Conn.Read(b)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// TestSpin: an agent of 1.6 that re-sends a burst without reading is back to normal within ten seconds.
func TestSpin(t *testing.T) {
	for _, version := range []string{"1.5.0", "1.6.7"} {
		t.Run(version, func(t *testing.T) {
			k := &taker{}
			b := start(t, storetest.SQLite(t), gateway.Options{Ingest: k})
			t.Cleanup(k.wg.Wait)
			s := &starved{}
			s.turn = sync.NewCond(&s.mu)
			transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				s.Conn = c
				// What a pause of 3 s has to fill; a test under the race detector writes a tenth of what an agent does.
				return s, c.(*net.TCPConn).SetWriteBuffer(512 << 10)
			}}
			s.allow(1) // the handshake is not starved
			ws, _, err := websocket.Dial(t.Context(), b.url, &websocket.DialOptions{
				HTTPHeader: http.Header{"Authorization": {"Bearer " + b.token}}, HTTPClient: &http.Client{Transport: transport},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer ws.CloseNow()
			p := b.greet(t, ws, newHello("a").with("agent_version", version))
			s.allow(-1)

			const burst = 200
			var unacked sync.Map
			var left, copies atomic.Int64
			payloads := make([]string, burst)
			for i := range burst {
				payloads[i] = event(i)
				unacked.Store(fmt.Sprint("ev_", i), true)
			}
			left.Store(burst)
			over := make(chan struct{})
			go func() {
				defer close(over)
				for { // until the test closes the connection
					_, raw, err := ws.Read(context.Background())
					if err != nil {
						return
					}
					f, err := p.wire.Verify(raw, time.Now())
					if err != nil {
						t.Errorf("a frame of the brain does not verify: %v", err)
						continue
					}
					var a ackPayload
					if unmarshal(t, f.Payload, &a); a.AckedID != "" {
						if _, there := unacked.LoadAndDelete(a.AckedID); there {
							left.Add(-1)
						}
					}
				}
			}()
			began := time.Now()
			for left.Load() > 0 && time.Since(began) < patience {
				for i := range burst {
					name := fmt.Sprint("ev_", i)
					if _, there := unacked.Load(name); !there {
						continue
					}
					copies.Add(1)
					p.send(wire.TypeEventBatch, name, payloads[i])
				}
			}
			took := time.Since(began)
			s.allow(1)
			if left.Load() > 0 {
				t.Fatalf("after %v and %d copies %d frames are not acked, want all within 10 s", took, copies.Load(), left.Load())
			}
			p.send(wire.TypeHeartbeat, "hb_1", `{}`)
			until(t, "the heartbeat after the spin", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return len(k.beats) == 1 })
			t.Logf("%s: %d copies of %d frames in %v, %d frames in ingest", version, copies.Load(), burst, took, len(k.taken()))
			if took > 10*time.Second {
				t.Errorf("back to normal after %v, want within 10 s", took)
			}
			if n := len(k.taken()); n != burst {
				t.Errorf("%d frames in ingest, want %d: copies cost a signature only", n, burst)
			}
			if err := ws.CloseNow(); err != nil {
				t.Error(err)
			}
			<-over
		})
	}
}

// TestSpinPause: a copy signed well after its ack shows that the agent did not read the ack; reading stops for a while,
// and copies from before the agent can have noticed stop it no second time. Other versions are never paused.
func TestSpinPause(t *testing.T) {
	const pause = 400 * time.Millisecond
	for _, tt := range []struct {
		name, version string
		later         []time.Duration // signing times of copies, after the ack
		want          int             // pauses
	}{
		{"a copy soon after the ack", "1.6.7", []time.Duration{100 * time.Millisecond}, 0},
		{"a copy long after the ack", "1.6.7", []time.Duration{5 * time.Second}, 1},
		{"more of the same time", "1.6.7", []time.Duration{5 * time.Second, 5100 * time.Millisecond, 5200 * time.Millisecond}, 1},
		{"and again after the pause", "1.6.7", []time.Duration{5 * time.Second, 9 * time.Second}, 2},
		{"agent 1.13", "1.13.0", []time.Duration{5 * time.Second}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := &taker{}
			b := start(t, storetest.SQLite(t), gateway.Options{Ingest: k, Limits: gateway.Limits{SpinPause: pause}})
			t.Cleanup(k.wg.Wait)
			p := b.dial(t, newHello("a").with("agent_version", tt.version))
			p.send(wire.TypeEventBatch, "ev_1", event(1))
			p.wantAck("ev_1")
			acked := time.Now()
			for _, d := range tt.later {
				p.write(p.signAt(wire.TypeEventBatch, "ev_1", event(1), acked.Add(d)))
				p.wantAck("ev_1")
			}
			p.write(p.signAt(wire.TypeHeartbeat, "hb_1", `{}`, acked.Add(30*time.Second)))
			until(t, "the heartbeat", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return len(k.beats) == 1 })
			took := time.Since(acked)
			if least := time.Duration(tt.want) * pause; took < least || took > least+pause-50*time.Millisecond {
				t.Errorf("heartbeat after %v, want %d pauses of %v", took, tt.want, pause)
			}
		})
	}
}
