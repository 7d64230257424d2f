package gateway_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	neturl "net/url"
	"strings"
	"sync"
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

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// raw runs a statement past the store, as an operator at the database would.
func raw(t testing.TB, url, q string, args ...any) {
	t.Helper()
	db := open(t, url)
	if _, err := db.ExecContext(t.Context(), q, args...); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, url string) *sql.DB {
	t.Helper()
	driver, dsn := "pgx", url
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		driver, dsn = "sqlite3", "file:"+(&neturl.URL{Path: path}).EscapedPath()+"?_pragma=busy_timeout(10000)"
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// taker is an ingest that commits at once what it is given, keeps nothing, and can be told to wait or to fail. Tests
// that are about the connection use it; those about what comes of events use the real one.
type taker struct {
	mu     sync.Mutex
	frames []*ingest.Frame
	beats  []ingest.Beat
	hold   chan struct{} // while not nil and open, Submit waits
	late   chan struct{} // while not nil and open, Done waits
	fail   error         // of every outcome
	wg     sync.WaitGroup
}

func (k *taker) Submit(ctx context.Context, f *ingest.Frame) error {
	k.mu.Lock()
	hold, late, fail := k.hold, k.late, k.fail
	k.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	k.mu.Lock()
	k.frames = append(k.frames, f)
	k.mu.Unlock()
	n := wire.EventCount(f.Payload)
	k.wg.Go(func() {
		if late != nil {
			<-late
		}
		f.Done(ingest.Outcome{Received: n, Accepted: n, Err: fail})
	})
	return nil
}

func (k *taker) Beat(b ingest.Beat) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.beats = append(k.beats, b)
}

func (k *taker) set(change func(*taker)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(k)
}

func (k *taker) taken() []*ingest.Frame {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]*ingest.Frame(nil), k.frames...)
}

// brain is a gateway that listens, with one project and one agent.
type brain struct {
	*gateway.Server
	store   *store.Store
	db      string // its URL
	url     string // of the listener
	project id.ID
	agent   id.ID
	token   string
	secret  []byte
	log     *lines
	now     func() time.Time
	sql     *sql.DB
}

// lines keeps what was logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// start runs a gateway on the database at db until the end of the test; tune changes the HTTP server before it listens.
func start(t testing.TB, db string, o gateway.Options, tune ...func(*http.Server)) *brain {
	t.Helper()
	b := &brain{db: db, log: &lines{}, sql: open(t, db)}
	b.store = storetest.Open(t, db)
	b.project, b.agent, b.token = b.enrol(t)
	b.secret = wire.ProjectSecret(string(storetest.Secrets.Master), b.project)
	o.Store, o.Master, o.Log = b.store, storetest.Secrets.Master, slog.New(slog.NewTextHandler(b.log, nil))
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Ingest == nil {
		k := &taker{}
		o.Ingest = k
		t.Cleanup(k.wg.Wait)
	}
	b.now = o.Now
	b.Server = gateway.New(o)
	b.Start()
	listener := httptest.NewUnstartedServer(b.Handler())
	for _, f := range tune {
		f(listener.Config)
	}
	listener.Start()
	b.url = listener.URL
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if err := b.Close(ctx); err != nil {
			t.Error(err)
		}
		listener.Close()
	})
	return b
}

// enrol makes a project with an agent.
func (b *brain) enrol(t testing.TB) (project, agent id.ID, token string) {
	t.Helper()
	project, agent = id.Random(), id.Random()
	token, err := wire.NewToken(nil)
	if err != nil {
		t.Fatal(err)
	}
	now := store.TimeOf(time.Now())
	b.exec(t, `INSERT INTO projects (id, slug, name, created_at, updated_at) VALUES ($1, $2, 'Shop', $3, $3)`, project, "p-"+project.String(), now)
	b.exec(t, `INSERT INTO agents (id, project_id, name, token_hash, created_at) VALUES ($1, $2, 'web', $3, $4)`,
		agent, project, wire.TokenHash(string(storetest.Secrets.Master), token), now)
	return project, agent, token
}

// exec runs a statement past the store.
func (b *brain) exec(t testing.TB, q string, args ...any) {
	t.Helper()
	if _, err := b.sql.ExecContext(t.Context(), q, args...); err != nil {
		t.Fatal(err)
	}
}

// hello is what a process says first; tests change it.
type hello map[string]any

func newHello(worker string) hello {
	h := hello{
		"agent_version": "1.13.0", "protocol_version": "2", "framework": "celery", "engines": []string{"celery"}, "schedulers": []string{},
		"capabilities": map[string][]string{"celery": {"retry_task"}}, "host": map[string]any{"name": "web-eu-1"},
		"worker_role": "task", "worker_pid": 4711, "worker_started_at": "2026-03-14T09:26:53.589793Z",
	}
	if worker != "" {
		h["worker_id"] = worker
	}
	return h
}

func (h hello) with(key string, value any) hello {
	h[key] = value
	return h
}

func (h hello) frame(t testing.TB) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{"v": 2, "id": "hello_3f0c9a1be2d47788", "ts": nil, "type": "hello", "payload": h})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// process is an agent's process at the other end of a connection.
type process struct {
	t    testing.TB
	ws   *websocket.Conn
	wire *wire.Session
	now  func() time.Time
	ack  helloAck

	extra   int // frames that were signed past wire
	refused websocket.StatusCode
}

type helloAck struct {
	V       int    `json:"v"`
	ID      string `json:"id"`
	TS      string `json:"ts"`
	Type    string `json:"type"`
	Payload struct {
		ProtocolVersion string `json:"protocol_version"`
		BrainVersion    string `json:"brain_version"`
		AgentID         string `json:"agent_id"`
		ProjectID       string `json:"project_id"`
		SessionID       string `json:"session_id"`
		Heartbeat       int    `json:"heartbeat_interval_seconds"`
		MaxFrame        int    `json:"max_frame_size_bytes"`
	} `json:"payload"`
}

// upgrade opens a connection and says nothing; status is the answer's if there is none.
func (b *brain) upgrade(t testing.TB, token string) (ws *websocket.Conn, status int) {
	t.Helper()
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, res, err := websocket.Dial(ctx, b.url, &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		if res == nil {
			t.Fatal(err)
		}
		return nil, res.StatusCode
	}
	ws.SetReadLimit(1 << 20)
	t.Cleanup(func() { _ = ws.CloseNow() })
	return ws, res.StatusCode
}

// dial connects a process and shakes hands.
func (b *brain) dial(t testing.TB, h hello) *process {
	t.Helper()
	p, code := b.try(t, h)
	if p == nil {
		t.Fatalf("hello: closed with %d, want hello_ack\n%s", code, b.log)
	}
	return p
}

// try is dial that may be refused with a close code.
func (b *brain) try(t testing.TB, h hello) (*process, websocket.StatusCode) {
	t.Helper()
	ws, status := b.upgrade(t, b.token)
	if ws == nil {
		t.Fatalf("upgrade: %d, want 101\n%s", status, b.log)
	}
	p := b.greet(t, ws, h)
	if p.wire == nil {
		return nil, p.refused
	}
	return p, 0
}

// greet says hello on an open connection; the process has no session if it was refused.
func (b *brain) greet(t testing.TB, ws *websocket.Conn, h hello) *process {
	t.Helper()
	p := &process{t: t, ws: ws, now: b.now}
	p.write(h.frame(t))
	raw, err := p.read()
	if err != nil {
		p.refused = websocket.CloseStatus(err)
		return p
	}
	if err := json.Unmarshal(raw, &p.ack); err != nil || p.ack.Type != "hello_ack" {
		t.Fatalf("answer to hello: %s, %v; want hello_ack", raw, err)
	}
	p.wire, err = wire.NewSession(wire.Keys{
		Secret: b.secret, AgentID: p.ack.Payload.AgentID, ProjectID: p.ack.Payload.ProjectID, SessionID: p.ack.Payload.SessionID,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func unmarshal(t testing.TB, raw []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(raw, v); err != nil {
		t.Errorf("%s: %v", raw, err)
	}
}

func (p *process) write(raw []byte) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.ws.Write(ctx, websocket.MessageBinary, raw); err != nil {
		p.t.Fatalf("write: %v", err)
	}
}

func (p *process) read() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, raw, err := p.ws.Read(ctx)
	return raw, err
}

// sign makes a frame that is due now.
func (p *process) sign(typ, frame, payload string) []byte {
	return p.signAt(typ, frame, payload, p.now())
}

func (p *process) signAt(typ, frame, payload string, at time.Time) []byte {
	p.t.Helper()
	raw, err := p.wire.Sign(nil, typ, frame, []byte(payload), at)
	if err != nil {
		p.t.Fatal(err)
	}
	return raw
}

func (p *process) send(typ, frame, payload string) {
	p.t.Helper()
	p.write(p.sign(typ, frame, payload))
}

// event is a batch of one event of its own.
func event(n int) string {
	return fmt.Sprintf(`{"events":[{"id":"0b8f7a52-51f0-4d5e-9d0c-%012d","kind":"task.received","engine":"celery","task_id":"t-%d",`+
		`"occurred_at":%q,"data":{"task_name":"shop.charge","queue":"default"}}]}`, n, n, time.Now().UTC().Format("2006-01-02T15:04:05.000000+00:00"))
}

// answer reads the next frame, which must be one of ours.
func (p *process) answer() (wire.Frame, error) {
	p.t.Helper()
	raw, err := p.read()
	if err != nil {
		return wire.Frame{}, err
	}
	f, err := p.wire.Verify(raw, p.now())
	if err != nil {
		p.t.Fatalf("a frame of the brain does not verify: %v\n%s", err, raw)
	}
	return f, nil
}

type ackPayload struct {
	AckedID                      string `json:"acked_id"`
	Received, Accepted, Rejected int
}

// wantAck reads an answer that must be the ack of a frame.
func (p *process) wantAck(frame string) ackPayload {
	p.t.Helper()
	f, err := p.answer()
	if err != nil {
		p.t.Fatalf("answer to %s: %v, want an ack", frame, err)
	}
	var a ackPayload
	if err := json.Unmarshal(f.Payload, &a); err != nil || f.Type != wire.TypeEventBatchAck || a.AckedID != frame {
		p.t.Fatalf("answer to %s: %s %s, %v; want its ack", frame, f.Type, f.Payload, err)
	}
	return a
}

// wantClose reads until the connection ends, which must be with code.
func (p *process) wantClose(name string, code websocket.StatusCode) {
	p.t.Helper()
	for {
		_, err := p.read()
		if err == nil {
			continue
		}
		if got := websocket.CloseStatus(err); got != code {
			p.t.Errorf("%s: closed with %d (%v), want %d", name, got, err, code)
		}
		return
	}
}

// until waits for what must come true.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s did not come", what)
		}
	}
}

var errTest = errors.New("told to fail")
