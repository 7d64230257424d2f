package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/z4j-go/z4j/internal/gateway"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/wire"
)

func TestHandshake(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := start(t, url, gateway.Options{})
		before := time.Now().Add(-time.Second)
		p := b.dial(t, newHello("celery-4711-1773480413589"))
		got := p.ack.Payload
		if p.ack.V != 2 || p.ack.ID == "" || len(p.ack.ID) > 64 || !strings.HasSuffix(p.ack.TS, "Z") {
			t.Errorf("hello_ack: v %d, id %q, ts %q; want v 2, an id of 1 to 64 characters, a time in UTC", p.ack.V, p.ack.ID, p.ack.TS)
		}
		if got.ProtocolVersion != "2" || !strings.HasPrefix(got.BrainVersion, "1.13.") || got.AgentID != b.agent.String() ||
			got.ProjectID != b.project.String() || got.Heartbeat != 10 || got.MaxFrame != 1<<20 {
			t.Errorf("hello_ack: %+v; want protocol 2, a brain version 1.13.x, agent %s, project %s, heartbeat 10, 1 MiB", got, b.agent, b.project)
		}
		session, err := id.Parse(got.SessionID)
		if err != nil || session[6]>>4 != 4 {
			t.Errorf("session id %q: want a UUIDv4", got.SessionID)
		}
		if again := b.dial(t, newHello("other")); again.ack.Payload.SessionID == got.SessionID {
			t.Error("two connections have the same session id, want a fresh one each")
		}
		list, err := b.store.AgentWorkers(t.Context(), b.project, store.Online, store.TimeOf(time.Now()), 10)
		if err != nil || len(list) != 2 {
			t.Fatalf("processes online: %d, %v; want 2", len(list), err)
		}
		w := list[1]
		if *w.WorkerID != "celery-4711-1773480413589" || *w.Role != "task" || *w.Framework != "celery" || *w.PID != 4711 ||
			w.StartedAt.String() != "2026-03-14T09:26:53.589793Z" || w.LastConnectAt.Before(before) {
			t.Errorf("process: %+v; want what its hello said", w)
		}
		var protocol, engines, schedulers, capabilities, host, version string
		err = b.sql.QueryRowContext(t.Context(), `SELECT protocol_version, engine_adapters, scheduler_adapters, capabilities, host_name, agent_version
			FROM agents WHERE id = $1`, b.agent).Scan(&protocol, &engines, &schedulers, &capabilities, &host, &version)
		if err != nil || protocol != "2" || engines != `["celery"]` || schedulers != `[]` || capabilities != `{"celery":["retry_task"]}` || host != "web-eu-1" || version != "1.13.0" {
			t.Errorf("agent: %q %q %q %q %q %q, %v; want what its hello said", protocol, engines, schedulers, capabilities, host, version, err)
		}
	})
}

// TestExactTypesOfHelloAck: agents parse it strictly; 10.0 or "10" ends the attempt and leaves the socket open.
func TestExactTypesOfHelloAck(t *testing.T) {
	b := start(t, storetest.SQLite(t), gateway.Options{})
	ws, _ := b.upgrade(t, b.token)
	p := &process{t: t, ws: ws}
	p.write(newHello("a").frame(t))
	raw, err := p.read()
	if err != nil {
		t.Fatal(err)
	}
	var frame map[string]json.RawMessage
	if err := json.Unmarshal(raw, &frame); err != nil {
		t.Fatal(err)
	}
	var payload map[string]json.RawMessage
	if err := json.Unmarshal(frame["payload"], &payload); err != nil {
		t.Fatal(err)
	}
	if len(frame) != 5 || len(payload) != 7 {
		t.Errorf("hello_ack has %d and %d keys, want 5 and 7: %s", len(frame), len(payload), raw)
	}
	for key, want := range map[string]string{"heartbeat_interval_seconds": "10", "max_frame_size_bytes": "1048576", "protocol_version": `"2"`} {
		if string(payload[key]) != want {
			t.Errorf("%s: %s, want %s", key, payload[key], want)
		}
	}
}

func TestHelloIsRead(t *testing.T) {
	b := start(t, storetest.SQLite(t), gateway.Options{})
	long := strings.Repeat("x", 300)
	for _, tt := range []struct {
		name  string
		frame []byte
		want  websocket.StatusCode // 0: hello_ack
	}{
		{"a hello of agent 1.13", newHello("a").with("runtime_features", []string{"retry_by_reference"}).frame(t), 0},
		{"the smallest hello", []byte(`{"id":"h","type":"hello","payload":{"agent_version":"","protocol_version":"2","framework":"bare"}}`), 0},
		{"unknown keys are ignored", newHello("a").with("new_in_2.0", map[string]any{"x": 1}).frame(t), 0},
		{"a wrong optional type is dropped", newHello("a").with("worker_pid", "4711").frame(t), 0},
		{"another protocol", newHello("a").with("protocol_version", "3").frame(t), wire.CloseVersion},
		{"protocol 2.1", newHello("a").with("protocol_version", "2.1").frame(t), wire.CloseVersion},
		{"a worker id of more than 128 characters", newHello(long).frame(t), wire.CloseProtocol},
		{"no JSON", []byte(`hello`), wire.CloseProtocol},
		{"no object", []byte(`[1]`), wire.CloseProtocol},
		{"v 3", []byte(strings.Replace(string(newHello("a").frame(t)), `"v":2`, `"v":3`, 1)), wire.CloseProtocol},
		{"another type", []byte(`{"v":2,"id":"h","type":"heartbeat","payload":{}}`), wire.CloseProtocol},
		{"no payload", []byte(`{"v":2,"id":"h","type":"hello"}`), wire.CloseProtocol},
		{"too large", newHello("a").with("host", map[string]any{"name": strings.Repeat("x", 300<<10)}).frame(t), wire.CloseProtocol},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ws, _ := b.upgrade(t, b.token)
			p := &process{t: t, ws: ws}
			p.write(tt.frame)
			raw, err := p.read()
			if tt.want == 0 && (err != nil || !strings.Contains(string(raw), `"hello_ack"`)) {
				t.Errorf("answer: %s, %v; want hello_ack", raw, err)
			}
			if tt.want != 0 && websocket.CloseStatus(err) != tt.want {
				t.Errorf("answer: %s, %v; want close %d", raw, err, tt.want)
			}
		})
	}
}

func TestTextAndBinaryHellosAndOffers(t *testing.T) {
	b := start(t, storetest.SQLite(t), gateway.Options{})
	for _, compression := range []websocket.CompressionMode{websocket.CompressionDisabled, websocket.CompressionContextTakeover} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		ws, _, err := websocket.Dial(ctx, b.url, &websocket.DialOptions{
			HTTPHeader:      http.Header{"Authorization": {"bearer  " + b.token + " "}, "Origin": {"https://elsewhere.example"}},
			CompressionMode: compression,
		})
		cancel()
		if err != nil {
			t.Fatalf("with an offer of compression %v and a foreign origin: %v, want an upgrade", compression, err)
		}
		defer ws.CloseNow()
		if err := ws.Write(t.Context(), websocket.MessageText, newHello("a").frame(t)); err != nil {
			t.Fatal(err)
		}
		typ, raw, err := ws.Read(t.Context())
		if err != nil || typ != websocket.MessageBinary || !strings.Contains(string(raw), "hello_ack") {
			t.Errorf("answer to a hello as text: %v %s, %v; want a binary hello_ack", typ, raw, err)
		}
	}
}

func TestHelloInTime(t *testing.T) {
	b := start(t, storetest.SQLite(t), gateway.Options{Limits: gateway.Limits{HelloTimeout: 50 * time.Millisecond}})
	ws, _ := b.upgrade(t, b.token)
	(&process{t: t, ws: ws}).wantClose("no hello at all", wire.CloseProtocol)
	if n := b.Connections(); n > 1 {
		t.Errorf("%d connections, want none but one that closes", n)
	}
}

func TestRefusedCredentials(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := start(t, url, gateway.Options{})
		_, _, revoked := b.enrol(t)
		raw(t, url, `UPDATE agents SET revoked_at = created_at WHERE token_hash = $1`, wire.TokenHash(string(storetest.Secrets.Master), revoked))
		inactive, _, inactiveToken := b.enrol(t)
		raw(t, url, `UPDATE projects SET is_active = FALSE WHERE id = $1`, inactive)
		for _, tt := range []struct {
			name, token string
			want        int
		}{
			{"no token", "", 401},
			{"an unknown one", "nonsense", 401},
			{"an endless one", strings.Repeat("x", 5000), 401},
			{"a revoked one", revoked, 401},
			{"one of an inactive project", inactiveToken, 403},
			{"the right one", b.token, 101},
		} {
			if _, status := b.upgrade(t, tt.token); status != tt.want {
				t.Errorf("%s: %d, want %d", tt.name, status, tt.want)
			}
		}
	})
}

func TestRefusalBody(t *testing.T) {
	b := start(t, storetest.SQLite(t), gateway.Options{})
	w := httptest.NewRecorder()
	b.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/ws/agent", nil))
	var body struct {
		Error, Message string
		RequestID      *string `json:"request_id"`
		Details        map[string]any
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != 401 || body.Error != "unauthenticated" || body.Message == "" ||
		body.RequestID == nil || body.Details == nil || w.Header().Get("WWW-Authenticate") == "" {
		t.Errorf("no token: %d %s, %v; want 401 with error, message, request_id, details and the scheme", w.Code, w.Body, err)
	}
	w = httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/ws/agent", nil)
	r.Header.Set("Authorization", "Bearer "+b.token)
	b.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusUpgradeRequired {
		t.Errorf("the right token without an upgrade: %d, want 426", w.Code)
	}
	if n := b.Connections(); n != 0 {
		t.Errorf("%d connections after that, want 0", n)
	}
}

// TestPreviousMasterSecret: after a rotation both the token and the signatures of an agent go on working.
func TestPreviousMasterSecret(t *testing.T) {
	b := start(t, storetest.SQLite(t), gateway.Options{})
	old := []byte("an-older-master-secret-an-older-master-0001")
	o := gateway.Options{PreviousMasters: [][]byte{old}}
	b2 := start(t, storetest.SQLite(t), o)
	raw(t, b2.db, `UPDATE agents SET token_hash = $1`, wire.TokenHash(string(old), b2.token))
	b2.secret = wire.ProjectSecret(string(old), b2.project)
	p := b2.dial(t, newHello("a"))
	p.send(wire.TypeEventBatch, "ev_1", event(1))
	p.wantAck("ev_1")
	raw(t, b.db, `UPDATE agents SET token_hash = $1`, wire.TokenHash(string(old), b.token))
	if _, status := b.upgrade(t, b.token); status != 401 {
		t.Errorf("a token under a master secret that is not known: %d, want 401", status)
	}
}

// limiter lets a few refusals pass.
type limiter struct {
	mu     sync.Mutex
	counts map[string]int
	most   int
}

func (l *limiter) Blocked(address string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[address] >= l.most
}

func (l *limiter) Refused(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[address]++
}

// TestLessonE12ConnectLimits: a token that leaked opens no unlimited sockets; an address that guesses is turned away;
// many agents behind one address are not.
func TestLessonE12ConnectLimits(t *testing.T) {
	l := &limiter{counts: map[string]int{}, most: 3}
	b := start(t, storetest.SQLite(t), gateway.Options{
		Refusals: l, Limits: gateway.Limits{SlotCap: 2},
		Address: func(r *http.Request) string { return "192.0.2.1" },
	})
	var last *process
	for range 5 { // good credentials never count
		next := b.dial(t, newHello("a"))
		if last != nil {
			last.wantClose("the older connection", wire.CloseDisplaced)
		}
		last = next
	}
	var shaking []*websocket.Conn
	for range 4 {
		ws, status := b.upgrade(t, b.token)
		if ws == nil {
			t.Fatalf("a connection that may still shake hands: %d, want 101", status)
		}
		shaking = append(shaking, ws)
	}
	if _, status := b.upgrade(t, b.token); status != 429 {
		t.Errorf("one more that only opens sockets: %d, want 429", status)
	}
	for _, ws := range shaking {
		if err := ws.CloseNow(); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the end of the open handshakes", func() bool { return b.Connections() <= 1 })
	for i, want := range []int{401, 401, 401, 429} {
		if _, status := b.upgrade(t, "wrong"); status != want {
			t.Errorf("wrong token number %d: %d, want %d", i+1, status, want)
		}
	}
	if _, status := b.upgrade(t, b.token); status != 429 {
		t.Errorf("the right token from an address that guessed too often: %d, want 429", status)
	}
}

// TestSlotCap: only new slots count, an existing one may always come back, and the refusal stands in the place of
// hello_ack: a close right after it can wedge an agent.
func TestSlotCap(t *testing.T) {
	b := start(t, storetest.SQLite(t), gateway.Options{Limits: gateway.Limits{SlotCap: 2}})
	first := b.dial(t, newHello("a"))
	b.dial(t, newHello(""))
	if _, code := b.try(t, newHello("c")); code != wire.CloseTooManyWorkers {
		t.Errorf("a third process: closed with %d, want %d instead of hello_ack", code, wire.CloseTooManyWorkers)
	}
	again := b.dial(t, newHello("a"))
	first.wantClose("the process that came back", wire.CloseDisplaced)
	if err := again.ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Fatal(err)
	}
	until(t, "the end of the connection", func() bool { return b.Connections() == 1 })
	b.dial(t, newHello("c"))

	off := start(t, storetest.SQLite(t), gateway.Options{Limits: gateway.Limits{SlotCap: -1}})
	for i := range 70 {
		off.dial(t, newHello(fmt.Sprint("w", i)))
	}
}

// TestDatabaseDownDuringLookup: 503, never 401, 4401 or 4426: those send an agent away for minutes.
func TestDatabaseDownDuringLookup(t *testing.T) {
	for _, tt := range []struct{ name, down, up string }{
		{"lookup", `ALTER TABLE agents RENAME TO agents_gone`, `ALTER TABLE agents_gone RENAME TO agents`},
	} {
		storetest.EachURL(t, func(t *testing.T, url string) {
			b := start(t, url, gateway.Options{})
			raw(t, url, tt.down)
			if _, status := b.upgrade(t, b.token); status != http.StatusServiceUnavailable {
				t.Errorf("%s while the database fails: %d, want 503", tt.name, status)
			}
			raw(t, url, tt.up)
			b.dial(t, newHello("a"))
		})
	}
}

// TestDatabaseDownDuringHello: a fault after the upgrade and before hello_ack is a close of the network class.
func TestDatabaseDownDuringHello(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := start(t, url, gateway.Options{})
		raw(t, url, `ALTER TABLE agent_workers RENAME TO agent_workers_gone`)
		if _, code := b.try(t, newHello("a")); code != wire.CloseInternal {
			t.Errorf("hello while the database fails: closed with %d, want %d", code, wire.CloseInternal)
		}
		raw(t, url, `ALTER TABLE agent_workers_gone RENAME TO agent_workers`)
		b.dial(t, newHello("a"))
	})
}

// TestLessonE10 and E11 at the socket: a slot per worker id; a displaced connection's clean-up changes nothing.
func TestLessonE10SlotsDoNotKickOneAnother(t *testing.T) {
	b := start(t, storetest.SQLite(t), gateway.Options{})
	unnamed, null, empty := b.dial(t, newHello("")), newHello("").with("worker_id", nil), newHello("").with("worker_id", "")
	a := b.dial(t, newHello("a"))
	e := b.dial(t, empty)
	second := b.dial(t, null)
	unnamed.wantClose("the unnamed process that came back", wire.CloseDisplaced)
	for name, p := range map[string]*process{"a": a, "the empty name": e, "null": second} {
		p.send(wire.TypeEventBatch, "ev_1", event(1))
		p.wantAck("ev_1")
		_ = name
	}
}

func TestLessonE11DisplacementKeepsTheNewerOnline(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := start(t, url, gateway.Options{})
		var last *process
		for range 5 {
			next := b.dial(t, newHello("a"))
			if last != nil {
				last.wantClose("the older connection", wire.CloseDisplaced)
			}
			last = next
		}
		until(t, "the end of the older ones", func() bool { return b.Connections() == 1 })
		online := func() int {
			list, err := b.store.AgentWorkers(t.Context(), b.project, store.Online, store.TimeOf(time.Now()), 10)
			if err != nil {
				t.Fatal(err)
			}
			return len(list)
		}
		if n := online(); n != 1 {
			t.Errorf("online after displacements: %d, want 1", n)
		}
		if err := last.ws.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Fatal(err)
		}
		until(t, "offline after the last end", func() bool { return online() == 0 })
	})
}

// TestTwoBrainsOneSlot: a process that reconnects to another brain is displaced at the first one, whose end leaves it
// online.
func TestTwoBrainsOneSlot(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := start(t, url, gateway.Options{Limits: gateway.Limits{TouchEvery: 20 * time.Millisecond}})
		b2 := start(t, url, gateway.Options{})
		b2.project, b2.agent, b2.token, b2.secret = b.project, b.agent, b.token, b.secret
		old := b.dial(t, newHello("a"))
		b2.dial(t, newHello("a"))
		old.send(wire.TypeHeartbeat, "hb_1", `{}`)
		old.wantClose("the connection at the first brain", wire.CloseDisplaced)
		until(t, "the end at the first brain", func() bool { return b.Connections() == 0 })
		list, err := b.store.AgentWorkers(t.Context(), b.project, store.Online, store.TimeOf(time.Now()), 10)
		if err != nil || len(list) != 1 {
			t.Errorf("online: %d, %v; want 1", len(list), err)
		}
	})
}
