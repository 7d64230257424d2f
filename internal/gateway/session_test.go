package gateway_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/z4j-go/z4j/internal/gateway"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/wire"
)

func TestFaultsAndTheirCodes(t *testing.T) {
	b := start(t, storetest.SQLite(t), gateway.Options{})
	forged := func(p *process) []byte {
		return []byte(strings.Replace(string(p.sign(wire.TypeHeartbeat, "hb_1", `{"buffer_size":1}`)), `"buffer_size":1`, `"buffer_size":2`, 1))
	}
	for _, tt := range []struct {
		name string
		send func(p *process)
		want websocket.StatusCode // 0: the connection goes on
	}{
		{"one changed byte", func(p *process) { p.write(forged(p)) }, wire.CloseSignature},
		{"the same frame twice", func(p *process) {
			f := p.sign(wire.TypeHeartbeat, "hb_1", `{}`)
			p.write(f)
			p.write(f)
		}, wire.CloseSignature},
		{"a number that goes back", func(p *process) {
			first := p.sign(wire.TypeHeartbeat, "hb_1", `{}`)
			p.send(wire.TypeHeartbeat, "hb_2", `{}`)
			p.write(first)
		}, wire.CloseSignature},
		{"61 seconds old", func(p *process) {
			p.write(p.signAt(wire.TypeHeartbeat, "hb_1", `{}`, time.Now().Add(-61*time.Second)))
		}, wire.CloseSignature},
		{"62 seconds ahead", func(p *process) {
			p.write(p.signAt(wire.TypeHeartbeat, "hb_1", `{}`, time.Now().Add(62*time.Second)))
		}, wire.CloseSignature},
		{"no JSON", func(p *process) { p.write([]byte(`{"v":2`)) }, wire.CloseProtocol},
		{"no object", func(p *process) { p.write([]byte(`"x"`)) }, wire.CloseProtocol},
		{"v 3", func(p *process) {
			p.write([]byte(strings.Replace(string(p.sign(wire.TypeHeartbeat, "hb_1", `{}`)), `"v":2`, `"v":3`, 1)))
		}, wire.CloseProtocol},
		{"unsigned", func(p *process) {
			p.write([]byte(`{"v":2,"id":"x","ts":"2026-03-14T09:26:53Z","type":"heartbeat","payload":{}}`))
		}, wire.CloseSignature},
		{"more than a MiB", func(p *process) { p.write([]byte(strings.Repeat(" ", 1<<20+1))) }, wire.CloseProtocol},
		{"55 seconds old", func(p *process) {
			p.write(p.signAt(wire.TypeHeartbeat, "hb_1", `{}`, time.Now().Add(-55*time.Second)))
		}, 0},
		{"a second hello", func(p *process) { p.write(newHello("x").frame(t)) }, 0},
		{"an error frame", func(p *process) { p.send(wire.TypeError, "e", `{"code":"x","message":"y","fatal":true}`) }, 0},
		{"a registry delta", func(p *process) { p.send(wire.TypeRegistryDelta, "r", `{"tasks":[]}`) }, 0},
		{"a text message", func(p *process) {
			if err := p.ws.Write(context.Background(), websocket.MessageText, p.sign(wire.TypeHeartbeat, "hb_1", `{}`)); err != nil {
				t.Fatal(err)
			}
		}, 0},
		{"a heartbeat of odd types", func(p *process) {
			p.send(wire.TypeHeartbeat, "hb_1", `{"buffer_size":"many","adapter_health":[1],"dropped_events":-1}`)
		}, 0},
		{"a status of odd types", func(p *process) { p.send(wire.TypeAgentStatus, "as_1", `{"buffer_depth":{},"engines":7}`) }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := b.dial(t, newHello("a"))
			p.t = t
			tt.send(p)
			if tt.want != 0 {
				p.wantClose(tt.name, tt.want)
				return
			}
			p.send(wire.TypeEventBatch, "ev_after", event(1))
			p.wantAck("ev_after")
		})
	}
	if !strings.Contains(b.log.String(), "behind_seconds=6") {
		t.Errorf("log: %s\nwant the measured skew of a clock that is off", b.log)
	}
	if n := strings.Count(b.log.String(), "clock is off"); n != 1 {
		t.Errorf("the skew was logged %d times within a minute, want once", n)
	}
}

// TestFrameLimitIsTheOneThatHelloAckTells: larger ones by setting are taken, smaller limits do not exist: an agent
// deletes events that don't fit.
func TestFrameLimitIsTheOneThatHelloAckTells(t *testing.T) {
	for _, tt := range []struct{ setting, want int }{{0, 1 << 20}, {1024, 1 << 20}, {2 << 20, 2 << 20}} {
		b := start(t, storetest.SQLite(t), gateway.Options{Limits: gateway.Limits{MaxFrame: tt.setting}})
		p := b.dial(t, newHello("a"))
		if got := p.ack.Payload.MaxFrame; got != tt.want {
			t.Errorf("setting %d: hello_ack tells %d, want %d", tt.setting, got, tt.want)
		}
		for _, padding := range []int{tt.want / 2, tt.want} {
			frame := p.sign(wire.TypeEventBatch, fmt.Sprint("ev_", padding), event(1))
			frame = append(frame, bytes.Repeat([]byte(" "), padding-len(frame))...) // as a signature does not see it
			p.write(frame)
			p.wantAck(fmt.Sprint("ev_", padding))
		}
		p.write(bytes.Repeat([]byte(" "), tt.want+1))
		p.wantClose("one byte more", wire.CloseProtocol)
	}
}

// TestUnknownTypeIsSkipped: the reference closes; skipping is what lets newer agents live. It is skipped only if its
// signature is right.
func TestUnknownTypeIsSkipped(t *testing.T) {
	b := start(t, storetest.SQLite(t), gateway.Options{})
	p := b.dial(t, newHello("a"))
	p.write(p.signUnknown(t, b, "registry_omega", `{"x":1}`))
	p.write(p.signUnknown(t, b, "registry_omega", `[]`))
	raw := string(p.signUnknown(t, b, "registry_omega", `{"x":1}`))
	p.write([]byte(strings.Replace(raw, `"x":1`, `"x":2`, 1)))
	p.wantClose("an unknown type whose signature is wrong", wire.CloseSignature)
	for _, want := range []string{"frame skipped", "registry_omega"} {
		if !strings.Contains(b.log.String(), want) {
			t.Errorf("log: %s\nwant %q", b.log, want)
		}
	}
}

// TestBatchWithoutAnObjectIsADeadLetter: it is answered, so that its agent does not send it for ever.
func TestBatchWithoutAnObjectIsADeadLetter(t *testing.T) {
	b := startWhole(t, storetest.SQLite(t), time.Now)
	p := b.dial(t, newHello("a"))
	p.write(p.signUnknown(t, b, wire.TypeEventBatch, `[1]`))
	p.wantAck("x")
	var reason, frame string
	err := b.sql.QueryRowContext(t.Context(), `SELECT reason, frame_id FROM dead_letters WHERE project_id = $1`, b.project).Scan(&reason, &frame)
	if err != nil || reason == "" || frame != "x" {
		t.Errorf("dead letter: %q of frame %q, %v; want one of frame x", reason, frame, err)
	}
}

// signUnknown signs a frame of a type or payload that Sign refuses, numbered after all that p has sent.
func (p *process) signUnknown(t *testing.T, b *brain, typ, payload string) []byte {
	t.Helper()
	p.extra++
	members := fmt.Sprintf(`"id":"x","nonce":"n%d","payload":%s,%%s"seq":%d,%%s"ts":%q,"type":%q,"v":2`,
		p.extra, payload, p.extra, p.now().UTC().Format("2006-01-02T15:04:05.000000Z"), typ)
	ids := p.ack.Payload
	mac := hmac.New(sha256.New, b.secret)
	fmt.Fprintf(mac, `{"agent_id":%q,`+members+`}`, ids.AgentID, fmt.Sprintf(`"project_id":%q,`, ids.ProjectID), fmt.Sprintf(`"session_id":%q,`, ids.SessionID))
	return []byte(`{"hmac":"` + hex.EncodeToString(mac.Sum(nil)) + `",` + fmt.Sprintf(members, "", "") + `}`)
}

func TestEventsAreAckedAfterCommit(t *testing.T) {
	late := make(chan struct{})
	k := &taker{late: late}
	b := start(t, storetest.SQLite(t), gateway.Options{Ingest: k})
	t.Cleanup(k.wg.Wait)
	p := b.dial(t, newHello("a"))
	frame := "ev_5b1f0c9d2e3a"
	p.send(wire.TypeEventBatch, frame, event(1))
	p.send(wire.TypeEventBatch, frame, event(1)) // a copy before the commit
	p.send(wire.TypeEventBatch, "ev_empty", `{"events":[]}`)
	until(t, "both frames", func() bool { return len(k.taken()) == 2 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	quiet := make(chan wire.Frame, 8)
	go func() {
		for {
			f, err := p.answer()
			if err != nil {
				close(quiet)
				return
			}
			quiet <- f
		}
	}()
	select {
	case f := <-quiet:
		t.Fatalf("%s %s before the commit, want nothing", f.Type, f.Payload)
	case <-ctx.Done():
	}
	close(late)
	acks := map[string]int{}
	for range 3 {
		f := <-quiet
		var a ackPayload
		if err := json.Unmarshal(f.Payload, &a); err != nil || f.Type != wire.TypeEventBatchAck {
			t.Fatalf("answer: %s %s, want an ack", f.Type, f.Payload)
		}
		if !strings.HasPrefix(f.ID, "eba_") {
			t.Errorf("ack id %q, want eba_…", f.ID)
		}
		acks[a.AckedID]++
	}
	if acks[frame] != 2 || acks["ev_empty"] != 1 {
		t.Errorf("acks: %v, want both copies of %s and one of ev_empty", acks, frame)
	}
	p.send(wire.TypeEventBatch, frame, event(1)) // a copy after the commit
	f := <-quiet
	if !strings.Contains(string(f.Payload), frame) || len(k.taken()) != 2 {
		t.Errorf("a copy after the commit: answer %s, %d frames in ingest; want its ack, 2 frames", f.Payload, len(k.taken()))
	}
	if err := p.ws.CloseNow(); err != nil {
		t.Fatal(err)
	}
	for range quiet { // until the reader is gone
	}
}

// TestNoAckBeforeAgent15: an ack by id makes agents before 1.5 reconnect for every batch.
func TestNoAckBeforeAgent15(t *testing.T) {
	for version, want := range map[string]bool{"1.4.0": false, "1.3.9": false, "1.5.0": true, "1.6.7": true, "1.13.0": true, "": true, "0.0.0": true} {
		t.Run(version, func(t *testing.T) {
			k := &taker{}
			b := start(t, storetest.SQLite(t), gateway.Options{Ingest: k, Limits: gateway.Limits{PingInterval: 10 * time.Millisecond}})
			t.Cleanup(k.wg.Wait)
			p := b.dial(t, newHello("a").with("agent_version", version))
			p.send(wire.TypeEventBatch, "ev_1", event(1))
			p.send(wire.TypeEventBatch, "ev_1", event(1))
			until(t, "the frame", func() bool { return len(k.taken()) > 0 })
			if want {
				p.wantAck("ev_1")
				p.wantAck("ev_1")
				return
			}
			closed := make(chan error, 1)
			go func() { closed <- b.Close(context.WithoutCancel(t.Context())) }()
			p.wantCloseWithoutFrames(wire.CloseRestart)
			if err := <-closed; err != nil {
				t.Error(err)
			}
		})
	}
}

// wantCloseWithoutFrames is wantClose that refuses every frame before the close.
func (p *process) wantCloseWithoutFrames(code websocket.StatusCode) {
	p.t.Helper()
	raw, err := p.read()
	if err == nil || websocket.CloseStatus(err) != code {
		p.t.Errorf("got %s, %v; want nothing but close %d", raw, err, code)
	}
}

// TestFailedCommitIsNotAcked: the frame stays with the agent, which sends it again.
func TestFailedCommitIsNotAcked(t *testing.T) {
	k := &taker{fail: errTest}
	b := start(t, storetest.SQLite(t), gateway.Options{Ingest: k})
	t.Cleanup(k.wg.Wait)
	p := b.dial(t, newHello("a"))
	p.send(wire.TypeEventBatch, "ev_1", event(1))
	until(t, "the frame", func() bool { return len(k.taken()) == 1 })
	k.wg.Wait()
	k.set(func(k *taker) { k.fail = nil })
	p.send(wire.TypeEventBatch, "ev_2", event(2))
	p.wantAck("ev_2")
	p.send(wire.TypeEventBatch, "ev_1", event(1))
	p.wantAck("ev_1")
	if n := len(k.taken()); n != 3 {
		t.Errorf("%d frames in ingest, want 3: the failed one twice", n)
	}
}

// TestBackPressure: while ingest takes nothing the socket is not read, the connection neither grows nor goes idle, and
// everything arrives when ingest goes on.
func TestBackPressure(t *testing.T) {
	hold := make(chan struct{})
	k := &taker{hold: hold}
	b := start(t, storetest.SQLite(t), gateway.Options{Ingest: k, Limits: gateway.Limits{IdleTimeout: 2 * time.Second, PingInterval: 50 * time.Millisecond}})
	t.Cleanup(k.wg.Wait)
	p := b.dial(t, newHello("a"))
	const frames = 3000
	body := strings.Repeat("x", 4000)
	sent := make(chan int, frames)
	go func() {
		defer close(sent)
		for i := range frames {
			payload := fmt.Sprintf(`{"events":[{"kind":"task.received","engine":"celery","task_id":"t-%d","data":{"args":%q}}]}`, i, body)
			raw, err := p.wire.Sign(nil, wire.TypeEventBatch, fmt.Sprint("ev_", i), []byte(payload), time.Now())
			if err != nil || p.ws.Write(context.Background(), websocket.MessageBinary, raw) != nil {
				return
			}
			sent <- i
		}
	}()
	stuck := time.NewTimer(2500 * time.Millisecond) // longer than the idle timeout
	defer stuck.Stop()
	n := 0
wait:
	for {
		select {
		case _, ok := <-sent:
			if !ok {
				t.Fatalf("%d of %d frames were taken while ingest takes nothing, want TCP to stop the agent", n, frames)
			}
			n++
		case <-stuck.C:
			break wait
		}
	}
	if len(k.taken()) != 0 {
		t.Fatalf("%d frames in ingest, want 0", len(k.taken()))
	}
	close(hold)
	acked := map[string]bool{}
	for len(acked) < frames {
		f, err := p.answer()
		if err != nil {
			t.Fatalf("after %d acks: %v", len(acked), err)
		}
		var a ackPayload
		if err := json.Unmarshal(f.Payload, &a); err != nil {
			t.Fatal(err)
		}
		acked[a.AckedID] = true
	}
	for range sent { // until the sender is gone
	}
}

func TestIdleTimeout(t *testing.T) {
	b := start(t, storetest.SQLite(t), gateway.Options{Limits: gateway.Limits{IdleTimeout: 200 * time.Millisecond}})
	p := b.dial(t, newHello("a"))
	began := time.Now()
	done := make(chan struct{})
	go func() { // an unsigned frame proves no life
		defer close(done)
		for range 20 {
			if p.ws.Write(context.Background(), websocket.MessageBinary, newHello("a").frame(t)) != nil {
				return
			}
			<-time.After(20 * time.Millisecond)
		}
	}()
	p.wantClose("silence", wire.CloseIdle)
	if d := time.Since(began); d < 150*time.Millisecond || d > 2*time.Second {
		t.Errorf("closed after %v, want 200 ms", d)
	}
	<-done
}

// TestFieldF39PingsWhileNothingElseIsSent: proxies cut what carries nothing from the server.
func TestFieldF39PingsWhileNothingElseIsSent(t *testing.T) {
	b := start(t, storetest.SQLite(t), gateway.Options{Limits: gateway.Limits{PingInterval: 20 * time.Millisecond}})
	pings := make(chan struct{}, 100)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, b.url, &websocket.DialOptions{
		HTTPHeader:     map[string][]string{"Authorization": {"Bearer " + b.token}},
		OnPingReceived: func(context.Context, []byte) bool { pings <- struct{}{}; return true },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	p := &process{t: t, ws: ws}
	p.write(newHello("a").frame(t))
	if _, err := p.read(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			if _, err := p.read(); err != nil {
				return
			}
		}
	}()
	for range 3 {
		select {
		case <-pings:
		case <-ctx.Done():
			t.Fatal("no ping came")
		}
	}
}

// TestLessonD11RevokeClosesAtOnce: every connection of the agent, those that shake hands included; nobody else's.
func TestLessonD11RevokeClosesAtOnce(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := start(t, url, gateway.Options{})
		one, two := b.dial(t, newHello("a")), b.dial(t, newHello(""))
		ws, _ := b.upgrade(t, b.token)
		shaking := &process{t: t, ws: ws}
		mine := b.agent
		b.project, b.agent, b.token = b.enrol(t)
		b.secret = wire.ProjectSecret(string(storetest.Secrets.Master), b.project)
		other := b.dial(t, newHello("a"))
		raw(t, url, `UPDATE agents SET revoked_at = created_at WHERE id = $1`, mine)
		b.Revoked(mine)
		one.wantClose("a named process", wire.CloseRevoked)
		two.wantClose("an unnamed one", wire.CloseRevoked)
		shaking.wantClose("one that shakes hands", wire.CloseRevoked)
		other.send(wire.TypeEventBatch, "ev_1", event(1))
		other.wantAck("ev_1")
	})
}

// TestLessonD11RevokedElsewhere: a brain that was not told finds out by itself, and an agent that is revoked between
// upgrade and hello gets no session.
func TestLessonD11RevokedElsewhere(t *testing.T) {
	for _, change := range []string{`UPDATE agents SET revoked_at = created_at`, `UPDATE projects SET is_active = FALSE`} {
		storetest.EachURL(t, func(t *testing.T, url string) {
			b := start(t, url, gateway.Options{Limits: gateway.Limits{TouchEvery: 20 * time.Millisecond, RevokedEvery: time.Hour}})
			p := b.dial(t, newHello("a"))
			ws, _ := b.upgrade(t, b.token)
			raw(t, url, change)
			p.send(wire.TypeHeartbeat, "hb_1", `{}`)
			p.wantClose(change, wire.CloseRevoked)
			shaking := &process{t: t, ws: ws}
			shaking.write(newHello("b").frame(t))
			shaking.wantClose("hello after "+change, wire.CloseUnauthorized)
		})
	}
}

// TestDrain: frames that were taken are committed and answered before the close 1012; new ones stay with the agent; who
// knocks is sent away for a short time.
func TestDrain(t *testing.T) {
	late := make(chan struct{})
	k := &taker{late: late}
	b := start(t, storetest.SQLite(t), gateway.Options{Ingest: k})
	t.Cleanup(k.wg.Wait)
	p := b.dial(t, newHello("a"))
	p.send(wire.TypeEventBatch, "ev_1", event(1))
	until(t, "the frame", func() bool { return len(k.taken()) == 1 })
	closed := make(chan error, 1)
	go func() { closed <- b.Close(context.WithoutCancel(t.Context())) }()
	until(t, "the refusal of new connections", func() bool {
		ws, status := b.upgrade(t, b.token)
		return ws == nil && status == 503
	})
	p.send(wire.TypeEventBatch, "ev_2", event(2))
	p.send(wire.TypeHeartbeat, "hb_1", `{}`)
	until(t, "the heartbeat behind it", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return len(k.beats) == 1 })
	close(late)
	p.wantAck("ev_1")
	p.wantClose("drain", wire.CloseRestart)
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
	if n := len(k.taken()); n != 1 {
		t.Errorf("%d frames in ingest, want 1: what comes during the drain stays with the agent", n)
	}
	list, err := b.store.AgentWorkers(t.Context(), b.project, store.Offline, store.TimeOf(time.Now()), 10)
	if err != nil || len(list) != 1 {
		t.Errorf("offline after the drain: %d, %v; want 1", len(list), err)
	}
}

// TestDrainEnds: a database that does not answer and an agent that does not read hold no shutdown up.
func TestDrainEnds(t *testing.T) {
	late := make(chan struct{})
	k := &taker{late: late}
	b := start(t, storetest.SQLite(t), gateway.Options{Ingest: k, Limits: gateway.Limits{DrainTimeout: 50 * time.Millisecond}})
	p := b.dial(t, newHello("a"))
	p.send(wire.TypeEventBatch, "ev_1", event(1))
	until(t, "the frame", func() bool { return len(k.taken()) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := b.Close(ctx)
	if d := time.Since(began); err != nil || d > 2*time.Second {
		t.Errorf("close: %v after %v, want nil within 2 s", err, d)
	}
	close(late)
	k.wg.Wait()
}

// TestAgentThatNeverReads is cut after the write timeout, although a ping waits for its answer too.
func TestAgentThatNeverReads(t *testing.T) {
	k := &taker{}
	b := start(t, storetest.SQLite(t), gateway.Options{Ingest: k, Limits: gateway.Limits{
		WriteTimeout: 200 * time.Millisecond, PingInterval: 10 * time.Millisecond, IdleTimeout: time.Minute,
	}}, func(h *http.Server) {
		h.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
			if err := c.(*net.TCPConn).SetWriteBuffer(4 << 10); err != nil { // so that few acks fill it
				t.Error(err)
			}
			return ctx
		}
	})
	t.Cleanup(k.wg.Wait)
	p := b.dial(t, newHello("a"))
	<-time.After(50 * time.Millisecond) // a ping is under way
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i := 0; ; i++ {
		raw := p.sign(wire.TypeEventBatch, fmt.Sprint("ev_", i), `{"events":[]}`)
		if err := p.ws.Write(ctx, websocket.MessageBinary, raw); err != nil {
			break
		}
	}
	if ctx.Err() != nil {
		t.Fatal("the connection was not cut")
	}
	until(t, "the end of the connection", func() bool { return b.Connections() == 0 })
}

// TestDatabaseAwayDuringASession: the connection goes on, and what could not be written is written when the database is
// back: signs of life, and the end of a connection.
func TestDatabaseAwayDuringASession(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := start(t, url, gateway.Options{Limits: gateway.Limits{TouchEvery: 20 * time.Millisecond}})
		stays, goes := b.dial(t, newHello("stays")), b.dial(t, newHello("goes"))
		b.exec(t, `ALTER TABLE agent_workers RENAME TO agent_workers_gone`)
		away := store.TimeOf(time.Now())
		stays.send(wire.TypeAgentStatus, "as_1", `{"buffer_depth":7}`)
		if err := goes.ws.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Fatal(err)
		}
		until(t, "the failures", func() bool {
			log := b.log.String()
			return strings.Contains(log, "signs of life not written") && strings.Contains(log, "ended connections not written")
		})
		b.exec(t, `ALTER TABLE agent_workers_gone RENAME TO agent_workers`)
		until(t, "what could not be written", func() bool {
			list, err := b.store.AgentWorkers(t.Context(), b.project, "", store.TimeOf(time.Now()), 10)
			if err != nil || len(list) != 2 {
				t.Fatalf("%d processes, %v; want 2", len(list), err)
			}
			return *list[0].WorkerID == "stays" && !list[0].LastSeenAt.Before(away.Time) && strings.Contains(string(list[0].Status), `"buffer_depth":7`) &&
				list[1].State == store.Offline
		})
		stays.send(wire.TypeEventBatch, "ev_1", event(1))
		stays.wantAck("ev_1")
	})
}

// TestLessonE18StatusFramesAreCapped: at line rate they are one row's newest value, not a row each.
func TestLessonE18StatusFramesAreCapped(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := start(t, url, gateway.Options{Limits: gateway.Limits{TouchEvery: 20 * time.Millisecond}, Now: func() time.Time { return time.Now() }})
		p := b.dial(t, newHello("a"))
		for i := range 100 {
			p.send(wire.TypeAgentStatus, fmt.Sprint("as_", i), fmt.Sprintf(`{"buffer_depth":%d,"current_session_age_seconds":1.5,"nonsense":"x"}`, i+1))
		}
		p.send(wire.TypeEventBatch, "ev_1", event(1))
		p.wantAck("ev_1")
		var status struct {
			Depth int      `json:"buffer_depth"`
			Age   *float64 `json:"current_session_age_seconds"`
			At    string   `json:"captured_at"`
		}
		until(t, "the status", func() bool {
			list, err := b.store.AgentWorkers(t.Context(), b.project, "", store.TimeOf(time.Now()), 10)
			if err != nil || len(list) != 1 {
				t.Fatalf("%d processes, %v; want 1", len(list), err)
			}
			return list[0].Status != nil && json.Unmarshal(list[0].Status, &status) == nil && status.Depth >= wire.MaxStatusPerMinute
		})
		if status.Depth > 2*wire.MaxStatusPerMinute || status.Age == nil || *status.Age != 1.5 || status.At == "" {
			t.Errorf("status: %+v; want one of the first %d of a minute", status, wire.MaxStatusPerMinute)
		}
	})
}

func TestHeartbeatsReachIngest(t *testing.T) {
	k := &taker{}
	b := start(t, storetest.SQLite(t), gateway.Options{Ingest: k})
	p := b.dial(t, newHello("a"))
	p.send(wire.TypeHeartbeat, "hb_1", `{"adapter_health":{"celery.queue_depths":"{\"default\": 3}","celery.worker_details":"{\"celery@web\": {\"stats\": {\"pid\": 7}}}"}}`)
	until(t, "the beat", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return len(k.beats) == 1 })
	beat := k.beats[0]
	if beat.Session.Project != b.project || beat.Session.Agent != b.agent || beat.Session.WorkerID != "a" || len(beat.Queues) != 1 ||
		beat.Queues[0].Name != "default" || *beat.Queues[0].Pending != 3 || len(beat.Workers) != 1 || *beat.Workers[0].PID != 7 {
		t.Errorf("beat: %+v; want the session of the connection, queue default with 3, worker celery@web with pid 7", beat)
	}
}

// TestCommandAnswersBecomeEvents: acks and results are stored as events; nobody answers them; a copy is the same event.
func TestCommandAnswersBecomeEvents(t *testing.T) {
	k := &taker{}
	b := start(t, storetest.SQLite(t), gateway.Options{Ingest: k})
	p := b.dial(t, newHello("a"))
	command := id.New(time.Now().Add(-time.Second)).String()
	p.send(wire.TypeCommandAck, command, `{"delivery_claim_token":null}`)
	p.send(wire.TypeCommandResult, command, `{"status":"success","result":{"n":12345678901234567890.0},"error":null}`)
	p.send(wire.TypeCommandResult, command, `{"status":"success","result":{"n":12345678901234567890.0},"error":null}`)
	p.send(wire.TypeCommandResult, "not \"a\" uuid", `{}`)
	p.send(wire.TypeEventBatch, "ev_1", event(1))
	p.wantAck("ev_1")
	var events []wire.Event
	for _, f := range k.taken()[:4] {
		for e, err := range wire.Events(f.Payload) {
			if err != nil {
				t.Fatalf("%s: %v", f.Payload, err)
			}
			events = append(events, e)
		}
	}
	answered := regexp.MustCompile(`"answered_at":"[^"]+Z",`)
	for i, want := range []struct{ kind, data string }{
		{"command.ack", `{"command_id":"` + command + `","answer":{"delivery_claim_token":null}}`},
		{"command.result", `{"command_id":"` + command + `","answer":{"error":null,"result":{"n":1.2345678901234567e+19},"status":"success"}}`},
		{"command.result", `{"command_id":"` + command + `","answer":{"error":null,"result":{"n":1.2345678901234567e+19},"status":"success"}}`},
		{"command.result", `{"command_id":"not \"a\" uuid","answer":{}}`},
	} {
		if e := events[i]; e.Kind != want.kind || answered.ReplaceAllString(string(e.Data), "") != want.data || e.TaskID != "" || !e.HasTime {
			t.Errorf("event %d: %s %s, want %s %s without a task, with a time", i, e.Kind, e.Data, want.kind, want.data)
		}
	}
	if events[0].ID == events[1].ID || events[1].ID != events[2].ID || events[2].ID == events[3].ID {
		t.Errorf("ids %s %s %s %s: want the second and third equal and no others", events[0].ID, events[1].ID, events[2].ID, events[3].ID)
	}
	if events[1].OccurredAt != events[2].OccurredAt {
		t.Error("copies of an answer have different times, want that of the command: time and id are an event's key")
	}
}

// TestLessonE6SlowIngestStarvesNoHeartbeat: the connection is alive while one batch waits for its commit.
func TestLessonE6SlowIngestStarvesNoHeartbeat(t *testing.T) {
	late := make(chan struct{})
	k := &taker{late: late}
	b := start(t, storetest.SQLite(t), gateway.Options{Ingest: k})
	t.Cleanup(func() { close(late); k.wg.Wait() })
	p := b.dial(t, newHello("a"))
	for i := range 100 {
		p.send(wire.TypeEventBatch, fmt.Sprint("ev_", i), event(i))
	}
	p.send(wire.TypeHeartbeat, "hb_1", `{}`)
	until(t, "the heartbeat behind 100 batches", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return len(k.beats) == 1 })
}

// TestLessonE7OrderIsKept: one connection's frames reach ingest in the order in which they came.
func TestLessonE7OrderIsKept(t *testing.T) {
	k := &taker{}
	b := start(t, storetest.SQLite(t), gateway.Options{Ingest: k})
	t.Cleanup(k.wg.Wait)
	p := b.dial(t, newHello("a"))
	const n = 200
	for i := range n {
		p.send(wire.TypeEventBatch, fmt.Sprint("ev_", i), event(i))
	}
	until(t, "all frames", func() bool { return len(k.taken()) == n })
	for i, f := range k.taken() {
		if f.ID != fmt.Sprint("ev_", i) {
			t.Fatalf("frame %d is %s, want ev_%d", i, f.ID, i)
		}
	}
}

// TestLessonE1FramesOfAnotherSession: a recorded frame is worth nothing in the next session.
func TestLessonE1FramesOfAnotherSession(t *testing.T) {
	b := start(t, storetest.SQLite(t), gateway.Options{})
	first := b.dial(t, newHello("a"))
	recorded := first.sign(wire.TypeEventBatch, "ev_1", event(1))
	second := b.dial(t, newHello("b"))
	second.write(recorded)
	second.wantClose("a frame of another session", wire.CloseSignature)
}

// TestLessonE2StrictNumbers: NaN and Infinity are no JSON.
func TestLessonE2StrictNumbers(t *testing.T) {
	b := start(t, storetest.SQLite(t), gateway.Options{})
	for _, number := range []string{"NaN", "Infinity", "-Infinity", "01", "1e999"} {
		p := b.dial(t, newHello("a"))
		f := string(p.sign(wire.TypeHeartbeat, "hb_1", `{"buffer_size":1}`))
		p.write([]byte(strings.Replace(f, `"buffer_size":1`, `"buffer_size":`+number, 1)))
		_, err := p.read()
		if code := websocket.CloseStatus(err); code != wire.CloseProtocol && code != wire.CloseSignature {
			t.Errorf("%s: %v, want close %d or %d", number, err, wire.CloseProtocol, wire.CloseSignature)
		}
	}
}

// TestLessonE17ManyAndLong: a frame with too much in it is refused or cut as a whole, and nobody else notices.
func TestLessonE17ManyAndLong(t *testing.T) {
	b := start(t, storetest.SQLite(t), gateway.Options{})
	many := make([]string, 65)
	for i := range many {
		many[i] = fmt.Sprint("engine", i)
	}
	if _, code := b.try(t, newHello("a").with("engines", many)); code != wire.CloseProtocol {
		t.Errorf("65 engines: closed with %d, want %d", code, wire.CloseProtocol)
	}
	if _, code := b.try(t, newHello("a").with("worker_role", strings.Repeat("x", 1000))); code != wire.CloseProtocol {
		t.Errorf("a role of 1,000 characters: closed with %d, want %d", code, wire.CloseProtocol)
	}
	b.dial(t, newHello("a\x00b"))
	list, err := b.store.AgentWorkers(t.Context(), b.project, "", store.TimeOf(time.Now()), 10)
	if err != nil || len(list) != 1 || strings.Contains(*list[0].WorkerID, "\x00") {
		t.Errorf("a worker id with U+0000: %+v, %v; want it stored without", list, err)
	}
}

// TestGarbageKeepsTheServerAlive: random damage to frames ends connections at most.
func TestGarbageKeepsTheServerAlive(t *testing.T) {
	b := start(t, storetest.SQLite(t), gateway.Options{})
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 150 {
		ws, _ := b.upgrade(t, b.token)
		p := &process{t: t, ws: ws}
		frame := newHello("a").frame(t)
		if i%3 > 0 {
			p.write(frame)
			if _, err := p.read(); err != nil {
				t.Fatal(err)
			}
			frame = []byte(`{"v":2,"id":"ev_1","ts":"2026-03-14T09:26:53Z","nonce":"x","seq":1,"hmac":"` + strings.Repeat("a", 64) + `","type":"event_batch","payload":{"events":[{"a":"\ud800"}]}}`)
		}
		for range 1 + rng.IntN(6) {
			switch at := rng.IntN(len(frame)); rng.IntN(3) {
			case 0:
				frame[at] = byte(rng.UintN(256))
			case 1:
				frame = frame[:at+1]
			case 2:
				frame = append(frame[:at:at], append([]byte(`[{"`), frame[at:]...)...)
			}
		}
		p.write(frame)
		if err := ws.CloseNow(); err != nil {
			t.Fatal(err)
		}
	}
	p := b.dial(t, newHello("after"))
	p.send(wire.TypeEventBatch, "ev_1", event(1))
	p.wantAck("ev_1")
}

var _ gateway.Ingest = (*ingest.Writer)(nil)
