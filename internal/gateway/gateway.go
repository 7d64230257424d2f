// Package gateway takes agents' connections.
//
// A connection is decided on before its hello_ack: who it is, whether its agent may connect, whether its slot is free or
// taken over, and that the database knows. After that it is closed for a fault only. Frames are verified by one reader
// per connection, events go to ingest and are answered after their commit; a reader that may not go on stops reading its
// socket, and TCP tells the agent.
package gateway

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/metrics"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/wire"
)

// Ingest takes what agents report.
type Ingest interface {
	// Submit waits while the queue is full. It fails only if ctx ends or ingest does; then Done is not called.
	Submit(ctx context.Context, f *ingest.Frame) error
	// Beat takes a heartbeat and never waits.
	Beat(b ingest.Beat)
}

// Refusals counts refused credentials by address.
type Refusals interface {
	Blocked(address string) bool // too many of late
	Refused(address string)      // one more
}

// Options are what a Server needs. The zero value of everything below Now is a usable default.
type Options struct {
	Store   *store.Store
	Ingest  Ingest
	Log     *slog.Logger
	Now     func() time.Time
	Metrics *metrics.Metrics

	Master          []byte   // Z4J_SECRET: tokens are hashed and frames signed under it
	PreviousMasters [][]byte // tokens that were minted under these go on working, signatures too

	Address  func(*http.Request) string // of the client, past trusted proxies; nil: the socket's peer
	Refusals Refusals                   // nil: no limit

	BrainVersion string // told in hello_ack; an agent compares major and minor

	Limits
}

// Limits bound what agents can ask of the brain. Zero is the default, which the comment names.
type Limits struct {
	MaxFrame     int           // bytes of a message, told in hello_ack: 1 MiB
	SlotCap      int           // processes of one agent: 64; negative: any number
	HelloTimeout time.Duration // from the upgrade to the hello: 10 s
	IdleTimeout  time.Duration // without a verified frame while we read: 90 s
	WriteTimeout time.Duration // of one message: 60 s; agents up to 1.6 may not read for many seconds
	PingInterval time.Duration // without a message from us: 20 s; proxies cut what carries nothing for 60 s
	TouchEvery   time.Duration // signs of life are written down: 5 s
	RevokedEvery time.Duration // agents that were revoked elsewhere are looked for, where nothing is heard: 1 s
	SpinPause    time.Duration // for which a re-sending agent is not read: 3 s
	DrainTimeout time.Duration // for frames under way when the brain stops: 3 s
	Lookups      int           // credentials looked up at once: 8
	Handshakes   int           // connections between upgrade and hello_ack: 10,000, some 20 KiB each
}

const (
	maxHello      = 256 << 10 // bytes; the largest that the limits of its fields allow for is about half
	lookupTimeout = 5 * time.Second
)

func (l *Limits) fill() {
	l.MaxFrame = max(l.MaxFrame, wire.MaxFrame) // an agent deletes events that sign larger than what hello_ack says
	l.SlotCap = cmp.Or(l.SlotCap, wire.MaxWorkersPerAgent)
	l.HelloTimeout = cmp.Or(l.HelloTimeout, wire.HelloTimeout)
	l.IdleTimeout = cmp.Or(l.IdleTimeout, wire.IdleTimeout)
	l.WriteTimeout = cmp.Or(l.WriteTimeout, time.Minute)
	l.PingInterval = cmp.Or(l.PingInterval, 20*time.Second)
	l.TouchEvery = cmp.Or(l.TouchEvery, 5*time.Second)
	l.RevokedEvery = cmp.Or(l.RevokedEvery, time.Second)
	l.SpinPause = cmp.Or(l.SpinPause, 3*time.Second)
	l.DrainTimeout = cmp.Or(l.DrainTimeout, 3*time.Second)
	l.Lookups = cmp.Or(l.Lookups, 8)
	l.Handshakes = cmp.Or(l.Handshakes, 10_000)
}

// Server takes agents' connections at GET /ws/agent. Start it before it serves, Close it before ingest stops.
type Server struct {
	Options

	registry   registry
	presence   presence
	notices    notices
	lookups    chan struct{} // a place for each lookup under way
	handshakes atomic.Int64

	base     context.Context // ends every connection's work
	stop     context.CancelFunc
	draining chan struct{} // closed: no new connection, no new frame

	gate    sync.Mutex // of conns.Add against Close
	closed  bool
	conns   sync.WaitGroup // connections and what runs beside them
	writers sync.WaitGroup // the presence writer
}

// New makes a Server; Start starts it.
func New(o Options) *Server {
	o.fill()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Address == nil {
		o.Address = peer
	}
	if o.Refusals == nil {
		o.Refusals = unlimited{}
	}
	o.BrainVersion = cmp.Or(o.BrainVersion, "1.13.0")
	s := &Server{Options: o, lookups: make(chan struct{}, o.Lookups), draining: make(chan struct{})}
	s.base, s.stop = context.WithCancel(context.Background())
	s.presence = newPresence(s)
	return s
}

// Start starts what runs beside the connections.
func (s *Server) Start() {
	s.writers.Go(s.presence.run)
	ctx, cancel := context.WithCancel(s.base)
	s.writers.Go(func() {
		<-s.draining
		cancel()
	})
	s.writers.Go(func() { (&revocations{server: s}).run(ctx) })
}

// Close stops taking connections and frames, waits a little for frames that are under way so that they are answered,
// tells every agent to come back, and returns when nothing of s runs any more, or with an error when ctx ends first.
func (s *Server) Close(ctx context.Context) error {
	s.gate.Lock()
	if s.closed {
		s.gate.Unlock()
		return nil
	}
	s.closed = true
	close(s.draining)
	s.gate.Unlock()
	s.drain(ctx)
	for _, c := range s.registry.all() {
		c.end(wire.CloseRestart, "brain restarts")
	}
	done := make(chan struct{})
	go func() {
		s.conns.Wait()
		s.presence.finish()
		s.writers.Wait()
		close(done)
	}()
	defer s.stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	for _, c := range s.registry.all() {
		c.cut()
	}
	select {
	case <-done: // and who was connected is written down
		return nil
	case <-time.After(lastWrites):
		return errors.New("close gateway: connections are still open, or the database does not answer")
	}
}

// lastWrites is how long Close goes on after its context, to write down which connections ended.
const lastWrites = time.Second

// drain waits until no frame waits for its commit any more, but not for long.
func (s *Server) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.DrainTimeout)
	defer cancel()
	for _, c := range s.registry.all() {
		c.settle(ctx)
	}
}

// Revoked closes every connection of an agent at once. Call it after the revocation is committed: what connects later
// meets the database.
func (s *Server) Revoked(agent id.ID) {
	for _, c := range s.registry.of(agent) {
		c.end(wire.CloseRevoked, "agent revoked")
	}
}

// Connections returns how many connections are open, those that still shake hands included.
func (s *Server) Connections() int { return s.registry.len() }

// enter counts a connection in unless the server closes.
func (s *Server) enter() bool {
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.closed {
		return false
	}
	s.conns.Add(1)
	return true
}

// stopping reports whether Close was called.
func (s *Server) stopping() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}

// unlimited counts nothing.
type unlimited struct{}

func (unlimited) Blocked(string) bool { return false }
func (unlimited) Refused(string)      {}

// notices lets one log line through per agent, kind and minute: an agent that flaps must not fill the disk.
type notices struct {
	mu   sync.Mutex
	last map[noticeKey]int64 // µs
}

type noticeKey struct {
	agent id.ID
	kind  string
}

const maxNotices = 10_000 // keys; about 1 MiB

// due reports whether a line of this kind about agent may be written at now.
func (n *notices) due(agent id.ID, kind string, now int64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := noticeKey{agent, kind}
	if last, ok := n.last[key]; ok && now-last < time.Minute.Microseconds() && now >= last {
		return false
	}
	if n.last == nil || len(n.last) >= maxNotices {
		n.last = map[noticeKey]int64{}
	}
	n.last[key] = now
	return true
}
