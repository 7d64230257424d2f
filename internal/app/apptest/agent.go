package apptest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/wire"
)

// Patience is how long a test waits for what must come.
const Patience = 30 * time.Second

// Until waits for what must come true.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(Patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %v", what, Patience)
		}
	}
}

// Agent is an enrolled agent: what its processes are configured with.
type Agent struct {
	Project string // slug
	ID      string
	Token   string
	Secret  []byte
	Now     func() time.Time
}

// Project makes a project.
func (c *Client) Project(slug string) {
	c.t.Helper()
	c.Do(http.MethodPost, "/api/v1/projects", map[string]any{"slug": slug, "name": slug}, http.StatusCreated, nil)
}

// Mint makes an agent in a project. now is the clock of its processes.
func (c *Client) Mint(slug, name string, now func() time.Time) *Agent {
	c.t.Helper()
	var minted struct {
		Agent  struct{ ID string }
		Token  string
		Secret string `json:"hmac_secret"`
	}
	c.Do(http.MethodPost, "/api/v1/projects/"+slug+"/agents", map[string]any{"name": name}, http.StatusCreated, &minted)
	secret, err := wire.DecodeSecret(minted.Secret)
	if err != nil {
		c.t.Fatal(err)
	}
	return &Agent{Project: slug, ID: minted.Agent.ID, Token: minted.Token, Secret: secret, Now: now}
}

// Process is an agent's process: it keeps each batch until it is acked and sends what is left when it connects again,
// as published agents do. Its methods belong to one goroutine.
type Process struct {
	Agent *Agent
	Hello map[string]any // payload of its hello; Connect fills in what is missing

	t    testing.TB
	link *link

	mu      sync.Mutex
	pending map[string]batch
	acks    map[string]int // how many came for each frame
	sent    int
}

// batch is a frame that waits for its ack.
type batch struct {
	order           int
	payload, signed string // signed: the canonical form where wire.Session can't give it, else ""
}

// link is one connection.
type link struct {
	ws   *websocket.Conn
	wire *wire.Session
	ids  wire.Keys
	done chan struct{} // closed when the reader ended
	err  error         // why; after done
}

// Process returns a process of the agent that is not connected.
func (a *Agent) Process(t testing.TB, hello map[string]any) *Process {
	p := &Process{Agent: a, Hello: maps.Clone(hello), t: t, pending: map[string]batch{}, acks: map[string]int{}}
	if p.Hello == nil {
		p.Hello = map[string]any{}
	}
	for key, value := range map[string]any{
		"agent_version": "1.13.0", "protocol_version": "2", "framework": "bare", "engines": []string{"celery"}, "schedulers": []string{},
		"capabilities": map[string]any{}, "host": map[string]any{}, "worker_id": "bare-1-" + id.Random().String()[:8], "worker_role": "task",
		"worker_pid": 4711, "worker_started_at": "2026-01-01T00:00:00.000000Z",
	} {
		if _, has := p.Hello[key]; !has {
			p.Hello[key] = value
		}
	}
	t.Cleanup(p.Close)
	return p
}

// Connect connects to the brain at base, and sends what waits.
func (p *Process) Connect(base string) {
	p.t.Helper()
	if err := p.TryConnect(base); err != nil {
		p.t.Fatalf("connect: %v", err)
	}
}

// Refused is an upgrade that the brain answered otherwise.
type Refused struct{ Status int }

// Error names the status.
func (r Refused) Error() string { return "refused with status " + strconv.Itoa(r.Status) }

// TryConnect is Connect for brains that may not be there or refuse.
func (p *Process) TryConnect(base string) error {
	p.t.Helper()
	p.Close()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	ws, res, err := websocket.Dial(ctx, strings.Replace(base, "http", "ws", 1)+"/ws/agent",
		&websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + p.Agent.Token}}})
	switch {
	case err != nil && res != nil && res.StatusCode != http.StatusSwitchingProtocols:
		return Refused{res.StatusCode}
	case err != nil:
		return err
	}
	l := &link{ws: ws, done: make(chan struct{})}
	if err := p.greet(ctx, l); err != nil {
		return errors.Join(err, ws.CloseNow())
	}
	go p.read(l)
	p.link = l
	p.mu.Lock()
	left := slices.SortedFunc(maps.Keys(p.pending), func(a, b string) int { return p.pending[a].order - p.pending[b].order })
	p.mu.Unlock()
	for _, frame := range left {
		p.write(frame)
	}
	return nil
}

func (p *Process) greet(ctx context.Context, l *link) error {
	hello, err := json.Marshal(map[string]any{"v": 2, "id": "hello_3f0c9a1be2d47788", "ts": nil, "type": "hello", "payload": p.Hello})
	if err != nil {
		return err
	}
	if err := l.ws.Write(ctx, websocket.MessageText, hello); err != nil {
		return err
	}
	_, raw, err := l.ws.Read(ctx)
	if err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	var ack struct {
		Type    string
		Payload struct {
			AgentID   string `json:"agent_id"`
			ProjectID string `json:"project_id"`
			SessionID string `json:"session_id"`
		}
	}
	if err := json.Unmarshal(raw, &ack); err != nil || ack.Type != "hello_ack" {
		return fmt.Errorf("hello answered with %s", raw)
	}
	l.ids = wire.Keys{Secret: p.Agent.Secret, AgentID: ack.Payload.AgentID, ProjectID: ack.Payload.ProjectID, SessionID: ack.Payload.SessionID}
	l.wire, err = wire.NewSession(l.ids)
	return err
}

// read takes what the brain sends until the connection ends.
func (p *Process) read(l *link) {
	defer close(l.done)
	for {
		_, raw, err := l.ws.Read(context.Background())
		if err != nil {
			l.err = err
			return
		}
		f, err := l.wire.Verify(raw, p.Agent.Now())
		if err != nil {
			p.t.Errorf("a frame of the brain does not verify: %v\n%s", err, raw)
			continue
		}
		var ack struct {
			ID string `json:"acked_id"`
		}
		if err := json.Unmarshal(f.Payload, &ack); f.Type != wire.TypeEventBatchAck || err != nil {
			continue
		}
		p.mu.Lock()
		p.acks[ack.ID]++
		delete(p.pending, ack.ID)
		p.mu.Unlock()
	}
}

// Send sends one batch of events, each a JSON text, and returns the frame's id. While there is no connection it waits
// for the next one.
func (p *Process) Send(events ...string) (frame string) {
	p.t.Helper()
	return p.put(batch{payload: `{"events":[` + strings.Join(events, ",") + `]}`})
}

// SendOdd is Send for text that is no Unicode: wire signs none, and agents do. canonical is its canonical form.
func (p *Process) SendOdd(payload, canonical string) (frame string) {
	p.t.Helper()
	return p.put(batch{payload: payload, signed: canonical})
}

func (p *Process) put(b batch) (frame string) {
	p.t.Helper()
	p.mu.Lock()
	p.sent++
	b.order = p.sent
	frame = fmt.Sprintf("ev_%012x", p.sent)
	p.pending[frame] = b
	p.mu.Unlock()
	p.write(frame)
	return frame
}

// Again sends a frame that may be acked already once more: an agent that lost the ack.
func (p *Process) Again(frame string, events ...string) {
	p.t.Helper()
	p.mu.Lock()
	p.sent++
	p.pending[frame] = batch{order: p.sent, payload: `{"events":[` + strings.Join(events, ",") + `]}`}
	p.mu.Unlock()
	p.write(frame)
}

// Heartbeat sends a heartbeat with this adapter_health.
func (p *Process) Heartbeat(health map[string]string) {
	p.t.Helper()
	payload, err := json.Marshal(map[string]any{"buffer_size": 0, "last_flush_at": nil, "dropped_events": 0, "adapter_health": health})
	if err != nil {
		p.t.Fatal(err)
	}
	p.Raw(wire.TypeHeartbeat, "hb_"+id.Random().String()[:8], string(payload))
}

// Raw signs and sends a frame that nobody acks.
func (p *Process) Raw(typ, frame, payload string) {
	p.t.Helper()
	raw, err := p.link.wire.Sign(nil, typ, frame, []byte(payload), p.Agent.Now())
	if err != nil {
		p.t.Fatal(err)
	}
	p.transmit(raw)
}

// Garbage sends a message as it is.
func (p *Process) Garbage(message string) { p.transmit([]byte(message)) }

// write signs and sends a frame if there is a connection; when that breaks, the frame goes with the next one.
func (p *Process) write(frame string) {
	p.t.Helper()
	if p.link == nil {
		return
	}
	p.mu.Lock()
	b, ok := p.pending[frame]
	p.mu.Unlock()
	if !ok {
		return
	}
	if b.signed != "" {
		p.transmit(p.signOdd(frame, b))
		return
	}
	raw, err := p.link.wire.Sign(nil, wire.TypeEventBatch, frame, []byte(b.payload), p.Agent.Now())
	if err != nil {
		p.t.Fatalf("sign: %v\n%.400s", err, b.payload)
	}
	p.transmit(raw)
}

func (p *Process) transmit(raw []byte) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	_ = p.link.ws.Write(ctx, websocket.MessageText, raw) // if it is broken the reader knows, and the frame still waits
}

// signOdd signs as agents do, over the text given. It burns a number of the session's own count to stay in order.
func (p *Process) signOdd(frame string, b batch) []byte {
	p.t.Helper()
	raw, err := p.link.wire.Sign(nil, wire.TypeEventBatch, frame, nil, p.Agent.Now())
	if err != nil {
		p.t.Fatal(err)
	}
	var f struct {
		TS, Nonce, HMAC string
		Seq             int64
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		p.t.Fatal(err)
	}
	ids := p.link.ids
	envelope := fmt.Sprintf(`{"agent_id":%q,"id":%q,"nonce":%q,"payload":%s,"project_id":%q,"seq":%d,"session_id":%q,"ts":%q,"type":"event_batch","v":2}`,
		ids.AgentID, frame, f.Nonce, b.signed, ids.ProjectID, f.Seq, ids.SessionID, f.TS)
	mac := hmac.New(sha256.New, p.Agent.Secret)
	mac.Write([]byte(envelope))
	text := strings.Replace(string(raw), f.HMAC, hex.EncodeToString(mac.Sum(nil)), 1)
	return []byte(strings.Replace(text, `"payload":{}`, `"payload":`+b.payload, 1))
}

// Waiting is how many batches are not acked yet.
func (p *Process) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pending)
}

// Acks is how many acks came for a frame.
func (p *Process) Acks(frame string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acks[frame]
}

// Acked is how many batches are acked.
func (p *Process) Acked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.acks)
}

// Settle waits until everything is acked.
func (p *Process) Settle() {
	p.t.Helper()
	l := p.link
	Until(p.t, "acks for everything that was sent", func() bool {
		select {
		case <-l.done:
			p.t.Fatalf("the connection ended with %d batches not acked: %v", p.Waiting(), l.err)
		default:
		}
		return p.Waiting() == 0
	})
}

// Ended returns how the connection ended: it waits for that.
func (p *Process) Ended() error {
	p.t.Helper()
	select {
	case <-p.link.done:
		return p.link.err
	case <-time.After(Patience):
		p.t.Fatalf("the connection still stands after %v, want its end", Patience)
		return nil
	}
}

// Broken reports whether the connection has ended.
func (p *Process) Broken() bool {
	if p.link == nil {
		return true
	}
	select {
	case <-p.link.done:
		return true
	default:
		return false
	}
}

// Close ends the connection without a word, as a lost network does.
func (p *Process) Close() {
	if p.link == nil {
		return
	}
	_ = p.link.ws.CloseNow()
	<-p.link.done
	p.link = nil
}
