package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/z4j-go/z4j/internal/wire"
)

// agent is one process of an agent: it keeps each frame until it is acked, and sends what is left when it has to connect
// again, as published agents do.
type agent struct {
	run      *runner
	number   int
	cred     Credential
	secret   []byte
	workerID string
	stream   *stream

	mu      sync.Mutex
	pending map[uint64]*frame
	next    uint64
	quiet   chan struct{} // has an element when pending became empty
	spare   []*frame
	tries   int       // connects in a row that failed
	paced   time.Time // when the next frame is due
}

// frame is what waits for its ack.
type frame struct {
	payload []byte
	events  int
	sent    int64  // µs
	again   bool   // it was sent more than once: its ack says nothing about time
	task    string // sampled: the task that it tells of first
}

// ackLook is how many acks go by between two whose signature is checked. An agent checks all; here it would only cost the
// brain's processor where both run on one machine.
const ackLook = 16

// link is one connection of an agent.
type link struct {
	agent *agent
	ws    *websocket.Conn
	mu    sync.Mutex // from signing to the socket
	wire  *wire.Session
	buf   []byte
	ack   wire.HelloAck
	over  chan struct{} // closed when the reader ended
	err   error         // why; after over
}

// Backoff between connects.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 5 * time.Second
	dialWithin   = 30 * time.Second
)

// live connects, and connects again, until the run is over or there is no use.
func (a *agent) live(ctx context.Context) {
	for ctx.Err() == nil {
		err := a.session(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		a.run.meter.failed(reasonOf(err))
		if hopeless(err) || a.run.stopping() && a.waiting() == 0 {
			return
		}
		wait := min(backoffFirst<<min(a.tries, 10), backoffMost)
		a.tries++
		pause(ctx, wait+wait*time.Duration(a.number%16)/16) // never all at once
	}
}

// pause waits for d, or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// refused is an upgrade that was answered otherwise.
type refused struct{ status int }

func (r *refused) Error() string { return fmt.Sprintf("upgrade refused with status %d", r.status) }

// reasonOf makes of an error a text of which there are few.
func reasonOf(err error) string {
	if code := websocket.CloseStatus(err); code != -1 {
		return "closed with code " + strconv.Itoa(int(code))
	}
	var r *refused
	switch {
	case errors.As(err, &r):
		return r.Error()
	case errors.Is(err, wire.ErrSignature):
		return "a frame of the brain has a wrong signature"
	case errors.Is(err, context.DeadlineExceeded):
		return "timed out"
	case strings.Contains(err.Error(), "connection refused"):
		return "connection refused"
	}
	return "connection lost"
}

// hopeless reports whether connecting again can't help.
func hopeless(err error) bool {
	var r *refused
	code := websocket.CloseStatus(err)
	return errors.As(err, &r) && r.status < 500 && r.status != http.StatusTooManyRequests ||
		code == wire.CloseUnauthorized || code == wire.CloseRevoked || code == wire.CloseVersion
}

// session is one connection from dial to end; nil says that everything was said and acked.
func (a *agent) session(ctx context.Context) error {
	l, err := a.connect(ctx)
	if err != nil {
		return err
	}
	// A brain that does not read keeps a write waiting for ever.
	defer context.AfterFunc(ctx, func() { _ = l.ws.CloseNow() })()
	var beside sync.WaitGroup
	beside.Go(l.read)
	beside.Go(l.beat)
	a.tries = 0
	a.run.meter.online(1)
	err = a.work(ctx, l)
	a.run.meter.online(-1)
	if err == nil {
		_ = l.ws.Close(websocket.StatusNormalClosure, "") // the brain may be gone
	} else {
		_ = l.ws.CloseNow()
	}
	beside.Wait()
	return err
}

func (a *agent) connect(ctx context.Context) (*link, error) {
	select {
	case a.run.dials <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-a.run.dials }()
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	began := a.run.now()
	url := strings.Replace(a.run.client.base, "http", "ws", 1) + "/ws/agent"
	o := &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + a.cred.Token}}}
	ws, res, err := websocket.Dial(ctx, url, o) //nolint:bodyclose // the library does
	switch {
	case err != nil && res != nil && res.StatusCode != http.StatusSwitchingProtocols:
		return nil, &refused{res.StatusCode}
	case err != nil:
		return nil, err
	}
	ws.SetReadLimit(wire.MaxFrame)
	l := &link{agent: a, ws: ws, over: make(chan struct{})}
	if err := l.greet(ctx); err != nil {
		return nil, errors.Join(err, ws.CloseNow())
	}
	a.run.meter.connected(a.run.now().Sub(began).Microseconds())
	return l, nil
}

func (l *link) greet(ctx context.Context) error {
	a := l.agent
	pid := int64(1000 + a.number)
	hello := wire.Hello{
		ID: "hello_" + a.run.id + strconv.Itoa(a.number), AgentVersion: "1.13.0", ProtocolVersion: wire.ProtocolVersion, Framework: "bare",
		Engines: []string{a.stream.reporter.engine.name}, WorkerID: &a.workerID, WorkerRole: "task", WorkerPID: &pid, WorkerStartedAt: a.run.started.UnixMicro(),
	}
	if err := l.ws.Write(ctx, websocket.MessageText, hello.Append(nil)); err != nil {
		return err
	}
	_, raw, err := l.ws.Read(ctx)
	if err != nil {
		return err
	}
	if l.ack, err = wire.ParseHelloAck(raw); err != nil {
		return err
	}
	l.wire, err = wire.NewSession(wire.Keys{Secret: a.secret, AgentID: l.ack.AgentID, ProjectID: l.ack.ProjectID, SessionID: l.ack.SessionID})
	return err
}

// read takes what the brain sends until the connection ends.
func (l *link) read() {
	defer close(l.over)
	for n := 0; ; n++ {
		_, raw, err := l.ws.Read(context.Background()) // a context that ends would cut the connection without a word
		if err != nil {
			l.err = err
			return
		}
		payload := ackOf(raw)
		if payload == nil || n%ackLook == 0 {
			f, err := l.wire.Verify(raw, l.agent.run.now())
			switch {
			case errors.Is(err, wire.ErrUnknownType), errors.Is(err, wire.ErrContent):
				continue
			case err != nil:
				l.err = err
				return
			}
			if f.Type != wire.TypeEventBatchAck {
				continue // commands are for real agents
			}
			payload = f.Payload
		}
		l.agent.acked(payload)
	}
}

// ackOf finds the payload of an event_batch_ack, nil for other frames.
func ackOf(raw []byte) (payload []byte) {
	is := false
	for key, value := range wire.Members(raw) {
		switch string(key) {
		case "type":
			is = string(value) == `"`+wire.TypeEventBatchAck+`"`
		case "payload":
			payload = value
		}
	}
	if !is {
		return nil
	}
	return payload
}

// beat sends heartbeats until the connection ends.
func (l *link) beat() {
	ticker := time.NewTicker(l.ack.HeartbeatInterval)
	defer ticker.Stop()
	payload := []byte(`{"buffer_size":0,"last_flush_at":null,"dropped_events":0,"adapter_health":{}}`)
	for n := 0; ; n++ {
		select {
		case <-ticker.C:
		case <-l.over:
			return
		}
		if err := l.send(wire.TypeHeartbeat, "hb_"+strconv.Itoa(n), payload); err != nil {
			return // the reader knows
		}
	}
}

// send signs and writes one frame.
func (l *link) send(typ, id string, payload []byte) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf, err = l.wire.Sign(l.buf[:0], typ, id, payload, l.agent.run.now()); err != nil {
		return err
	}
	return l.ws.Write(context.Background(), websocket.MessageText, l.buf)
}

const framePrefix = "ev_"

func frameID(n uint64) string { return framePrefix + strconv.FormatUint(n, 16) }

// work sends what is left from earlier connections, then new frames, until the run stops and everything is acked. An error
// says that the connection broke.
func (a *agent) work(ctx context.Context, l *link) error {
	if err := a.resend(l); err != nil {
		return l.broken(err)
	}
	for a.ready(ctx, l) {
		n, f := a.frame()
		if err := l.send(wire.TypeEventBatch, frameID(n), f.payload); err != nil {
			return l.broken(err)
		}
	}
	for a.waiting() > 0 {
		select {
		case <-a.quiet:
		case <-l.over:
			return l.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case <-l.over:
		return l.err
	default:
		return nil
	}
}

// broken waits for the reader, which knows why.
func (l *link) broken(err error) error {
	_ = l.ws.CloseNow()
	<-l.over
	if websocket.CloseStatus(l.err) != -1 {
		return l.err
	}
	return err
}

// ready waits until a frame may be sent, and takes its place among those that are not acked; false says that there will be
// none on this connection.
func (a *agent) ready(ctx context.Context, l *link) bool {
	if a.run.o.Idle {
		select {
		case <-a.run.stop:
		case <-l.over:
		case <-ctx.Done():
		}
		return false
	}
	select {
	case a.run.slots[a.number] <- struct{}{}:
	case <-a.run.stop:
		return false
	case <-l.over:
		return false
	case <-ctx.Done():
		return false
	}
	if a.due(l) && a.run.claim() {
		return true
	}
	<-a.run.slots[a.number]
	return false
}

// arrears is how far behind its rate a process may be and still catch up.
const arrears = time.Second

// due waits until the rate has a frame due.
func (a *agent) due(l *link) bool {
	select {
	case <-a.run.stop:
		return false
	default:
	}
	step := a.run.pace
	if step == 0 {
		return true
	}
	now := a.run.now()
	switch {
	case a.paced.IsZero():
		a.paced = now.Add(step * time.Duration(a.number) / time.Duration(max(1, len(a.run.slots))))
	case a.paced.Before(now.Add(-arrears)):
		a.paced = now.Add(-arrears)
	}
	wait := a.paced.Sub(now)
	a.paced = a.paced.Add(step)
	if wait <= 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-a.run.stop:
	case <-l.over:
	}
	return false
}

// frame makes the next frame and notes it.
func (a *agent) frame() (n uint64, f *frame) {
	a.mu.Lock()
	if i := len(a.spare) - 1; i >= 0 {
		f, a.spare = a.spare[i], a.spare[:i]
	} else {
		f = &frame{}
	}
	a.mu.Unlock()
	*f = frame{payload: append(f.payload[:0], `{"events":[`...), events: a.run.o.Batch}
	first := ""
	for i := range f.events {
		if i > 0 {
			f.payload = append(f.payload, ',')
		}
		var task string
		f.payload, task = a.stream.append(f.payload)
		if first == "" {
			first = task
		}
	}
	f.payload = append(f.payload, `]}`...)
	now := a.run.now()
	f.sent = now.UnixMicro()
	if first != "" && a.run.sampler.due(now) {
		f.task = first
	}
	a.mu.Lock()
	a.next++
	n = a.next
	a.pending[n] = f
	a.mu.Unlock()
	if f.task != "" {
		a.run.sampler.put(sample{a.cred.Project, f.task, f.sent})
	}
	a.run.meter.sent(f.sent, f.events)
	return n, f
}

// resend sends what was not acked before the connection was lost, in its order.
func (a *agent) resend(l *link) error {
	a.mu.Lock()
	last := a.next
	a.mu.Unlock()
	for n := last - min(last, uint64(a.run.o.Window)); n <= last; n++ {
		a.mu.Lock()
		f := a.pending[n]
		if f != nil {
			f.again = true
		}
		a.mu.Unlock()
		if f == nil {
			continue
		}
		if err := l.send(wire.TypeEventBatch, frameID(n), f.payload); err != nil {
			return err
		}
	}
	return nil
}

func (a *agent) waiting() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.pending)
}

// acked takes a frame off.
func (a *agent) acked(payload []byte) {
	var id string
	var accepted, rejected int64
	for key, value := range wire.Members(payload) {
		switch string(key) {
		case "acked_id":
			id, _ = wire.String(value)
		case "accepted":
			accepted, _ = wire.Int(value)
		case "rejected":
			rejected, _ = wire.Int(value)
		}
	}
	text, ours := strings.CutPrefix(id, framePrefix)
	n, err := strconv.ParseUint(text, 16, 64)
	if !ours || err != nil {
		a.run.meter.failed("ack of an unknown frame")
		return
	}
	a.mu.Lock()
	f := a.pending[n]
	delete(a.pending, n)
	left := len(a.pending)
	a.mu.Unlock()
	if f == nil {
		return // of a frame that was sent twice
	}
	now := a.run.now().UnixMicro()
	a.run.meter.acked(now, f, accepted, rejected)
	a.mu.Lock()
	if !f.again { // else a writer may still hold it
		a.spare = append(a.spare, f)
	}
	a.mu.Unlock()
	<-a.run.slots[a.number]
	if left == 0 {
		select {
		case a.quiet <- struct{}{}:
		default:
		}
	}
}

// decode reads a file of credentials: a JSON list.
func decodeCredentials(text []byte) ([]Credential, error) {
	var list []Credential
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	if len(list) == 0 {
		return nil, errors.New("read tokens: the list is empty")
	}
	for i, c := range list {
		if c.Project == "" || c.Token == "" || c.Secret == "" {
			return nil, fmt.Errorf("read tokens: element %d lacks project, token or hmac_secret", i)
		}
		if _, err := wire.DecodeSecret(c.Secret); err != nil {
			return nil, fmt.Errorf("read tokens: element %d: hmac_secret: %w", i, err)
		}
	}
	return list, nil
}
