package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/wire"
)

// conn is an agent's connection. One goroutine reads; whoever writes holds sendMu from signing to the socket.
type conn struct {
	server  *Server
	ws      *websocket.Conn
	net     *corkable
	agent   id.ID
	project id.ID
	name    string // of the agent, for the log

	// Set by the hello.
	slot    store.Slot
	session string
	source  *ingest.Session
	wire    *wire.Session
	version string
	acks    bool // takes acks by id
	spins   bool // sends again without reading
	window  int  // frames that may wait for their commit before we stop reading

	reserved, installed bool // the registry's

	ctx      context.Context // ends when the connection is to end
	cancel   context.CancelFunc
	ending   atomic.Bool
	greeted  atomic.Bool // hello_ack is sent
	idle     *time.Timer // fires when nothing valid came for too long while we were reading
	watchdog *time.Timer // fires when a write takes too long
	pinger   *time.Timer

	sendMu sync.Mutex
	wrote  atomic.Bool // since the last look of the pinger

	lag          atomic.Int64 // µs from signing to receipt, the least so far: how far the clocks are apart
	statusMinute int64        // µs; the reader's
	statuses     int

	mu       sync.Mutex
	early    func() // what an end before open has left to do
	closed   bool
	helpers  sync.WaitGroup // goroutines that run beside the reader
	seen     int64          // µs of receipt, newest verified frame
	touched  int64          // the seen that was last written down
	status   []byte         // newest agent_status since then
	inflight map[frameKey]*inflight
	waiting  int // frames and copies that wait for their commit or for their ack to be written
	bytes    int // of them
	recent   recent
	due      []dueAck
	writing  bool          // somebody writes due
	refused  bool          // ingest could not take a frame
	room     chan struct{} // has an element when waiting shrank
	quiet    chan struct{} // closed when waiting is 0; nil if nobody asked
	pausedTo int64         // µs on the agent's clock: copies signed before do not pause the reader again
}

const (
	// Frames of one connection that may wait for their commit. Reading on is what starves an agent that spins; for the
	// others it is about what they have under way at most.
	windowSpin  = 4
	window      = 512
	windowBytes = 4 << 20 // of payloads; a few of the largest frames
)

func newConn(s *Server, who store.AgentCredential) *conn {
	c := &conn{server: s, agent: who.Agent, project: who.Project, name: who.Name, room: make(chan struct{}, 1)}
	c.ctx, c.cancel = context.WithCancel(s.base)
	c.lag.Store(math.MaxInt64 / 2)
	return c
}

// open gives c its socket and waits for no hello longer than HelloTimeout.
func (c *conn) open(ws *websocket.Conn, nc *corkable) {
	ws.SetReadLimit(-1) // receive has its own, with our close code
	c.mu.Lock()
	c.ws, c.net = ws, nc
	c.idle = time.AfterFunc(c.server.HelloTimeout, c.silent)
	c.watchdog = time.AfterFunc(c.server.WriteTimeout, c.cut)
	c.watchdog.Stop()
	c.pinger = time.AfterFunc(c.server.PingInterval, func() { c.beside(c.ping) })
	c.pinger.Stop()
	early := c.early
	c.mu.Unlock()
	if early != nil {
		c.beside(early)
	}
}

// silent ends a connection that said nothing in time.
func (c *conn) silent() {
	if c.greeted.Load() {
		c.end(wire.CloseIdle, "nothing heard for too long")
		return
	}
	c.end(wire.CloseProtocol, "no hello in time")
}

// beside runs f in a goroutine that the end of c waits for, unless c is over.
func (c *conn) beside(f func()) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.helpers.Add(1)
	c.mu.Unlock()
	go func() {
		defer c.helpers.Done()
		f()
	}()
}

// end closes the connection with a code, once. It does not wait.
func (c *conn) end(code int, reason string) {
	if c.ending.Swap(true) {
		return
	}
	c.cancel()
	if code >= 4000 {
		c.server.Metrics.Refusal(strconv.Itoa(code))
	}
	c.shut(func() {
		c.idle.Stop()
		_ = c.ws.Close(websocket.StatusCode(code), reason) // the peer may be gone: then there is nobody to tell
	})
}

// shut runs f beside the reader, once there is a socket.
func (c *conn) shut(f func()) {
	c.mu.Lock()
	if c.ws == nil {
		c.early = f
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	c.beside(f)
}

// cut drops the network connection under everybody's feet.
func (c *conn) cut() {
	if !c.ending.Swap(true) {
		c.cancel()
		c.shut(func() { _ = c.ws.CloseNow() }) // wakes a ping that waits for its answer
	}
	c.mu.Lock()
	nc := c.net
	c.mu.Unlock()
	if nc != nil {
		_ = nc.Close() // closing twice is harmless
	}
}

// finish waits until nothing of c runs any more and gives its slot back.
func (c *conn) finish() {
	c.end(wire.CloseNormal, "")
	c.idle.Stop()
	c.mu.Lock()
	c.closed = true
	c.due = nil
	if c.quiet != nil {
		close(c.quiet)
		c.quiet = nil
	}
	c.mu.Unlock()
	c.watchdog.Stop()
	c.pinger.Stop()
	c.helpers.Wait()
	_ = c.net.Close() // closing twice is harmless
	c.server.registry.remove(c)
	if c.installed {
		end := store.SlotEnd{Slot: c.slot, Session: c.session, At: store.TimeOf(c.server.Now())}
		if t, ok := c.touch(); ok {
			end.Seen, end.Status = t.Seen, t.Status
		}
		c.server.presence.end(end)
	}
}

var errTooLarge = errors.New("message too large")

// scratch holds buffers that messages are read into: an idle connection has none.
var scratch = sync.Pool{New: func() any { return new(bytes.Buffer) }}

const keepScratch = 64 << 10 // bytes; larger buffers are left to the collector

// read reads one message of at most most bytes into b.
func (c *conn) read(b *bytes.Buffer, r io.Reader, most int) error {
	b.Reset()
	n, err := b.ReadFrom(io.LimitReader(r, int64(most)+1))
	if err == nil && n > int64(most) {
		err = errTooLarge
	}
	return err
}

// receive waits for a message and gives it to take, which must not keep it.
func (c *conn) receive(most int, take func(raw []byte)) error {
	_, r, err := c.ws.Reader(context.Background()) // a context that ends would cut the connection without a word
	if err != nil {
		return err
	}
	b := scratch.Get().(*bytes.Buffer)
	defer func() {
		if b.Cap() <= keepScratch {
			scratch.Put(b)
		}
	}()
	if err := c.read(b, r, most); err != nil {
		if errors.Is(err, errTooLarge) {
			c.end(wire.CloseProtocol, "message too large")
		}
		return err
	}
	take(b.Bytes())
	return nil
}

// serve reads until the connection ends.
func (c *conn) serve() {
	for !c.ending.Load() {
		if err := c.receive(c.server.MaxFrame, c.take); err != nil {
			return
		}
		c.hold()
	}
}

// alive notes a verified frame and stops the idle timer while it is worked on: what we don't read can't be silent.
func (c *conn) alive(now int64) {
	c.idle.Stop()
	c.mu.Lock()
	c.seen = max(c.seen, now)
	c.mu.Unlock()
}

// hold waits while too much of c waits for its commit, and starts the idle timer again.
func (c *conn) hold() {
	for {
		c.mu.Lock()
		full, refused := c.waiting >= c.window || c.bytes >= windowBytes, c.refused
		c.refused = false
		c.mu.Unlock()
		if refused {
			c.pause(time.Second)
		}
		if !full {
			break
		}
		select {
		case <-c.room:
		case <-c.ctx.Done():
			return
		}
	}
	c.idle.Reset(c.server.IdleTimeout)
}

// pause stops reading for d.
func (c *conn) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.ctx.Done():
	}
}

// settle waits until every frame that was taken is answered.
func (c *conn) settle(ctx context.Context) {
	c.mu.Lock()
	if c.waiting == 0 || c.closed {
		c.mu.Unlock()
		return
	}
	if c.quiet == nil {
		c.quiet = make(chan struct{})
	}
	quiet := c.quiet
	c.mu.Unlock()
	select {
	case <-quiet:
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
}

// touch returns c's newest sign of life if it is news.
func (c *conn) touch() (store.SlotTouch, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == c.touched {
		return store.SlotTouch{}, false
	}
	c.touched = c.seen
	t := store.SlotTouch{Slot: c.slot, Session: c.session, Seen: store.TimeAt(c.seen), Status: c.status}
	c.status = nil
	return t, true
}

// untouch takes back a touch that could not be written.
func (c *conn) untouch(t store.SlotTouch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touched = 0
	if c.status == nil {
		c.status = t.Status
	}
}

// ping sends something if nothing else was sent of late. A missing answer is the idle timer's business.
func (c *conn) ping() {
	defer c.pinger.Reset(c.server.PingInterval)
	if c.wrote.Swap(false) || !c.sendMu.TryLock() {
		return
	}
	c.sendMu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), wire.PongTimeout)
	defer cancel()
	_ = c.ws.Ping(ctx)
}
