package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/wire"
)

// take works on one message. raw is the reader's again afterwards.
func (c *conn) take(raw []byte) {
	now := c.server.Now()
	f, err := c.wire.Verify(raw, now)
	if err != nil && !c.skips(err, f.Type, now) {
		return
	}
	at := now.UnixMicro()
	c.alive(at)
	if lag := at - f.TS; err == nil && lag < c.lag.Load() {
		c.lag.Store(lag)
	}
	c.server.Metrics.Frame(f.Type)
	if err != nil {
		if f.Type == wire.TypeEventBatch && f.ID != "" { // else its agent sends it for ever
			c.takeEvents(f, []byte(notAnObject), at)
		}
		return
	}
	switch f.Type {
	case wire.TypeEventBatch:
		c.takeEvents(f, bytes.Clone(f.Payload), at)
	case wire.TypeHeartbeat:
		c.takeHeartbeat(f, at)
	case wire.TypeAgentStatus:
		c.takeStatus(f, at)
	case wire.TypeCommandAck, wire.TypeCommandResult:
		c.takeAnswer(f, at)
	case wire.TypeError:
		if c.server.notices.due(c.agent, "error", at) {
			c.server.Log.Warn("agent reports an error", "agent", c.agent, "name", c.name, "version", c.version)
		}
	}
}

// notAnObject stands for a batch whose payload is none, so that it becomes a dead letter and is answered.
const notAnObject = `{"events":"the payload of this frame was not an object"}`

// skips decides about a frame that is not usable: whether it shows life and is skipped, or else whether the connection
// ends.
func (c *conn) skips(err error, typ string, now time.Time) bool {
	var skew *wire.SkewError
	switch {
	case errors.Is(err, wire.ErrUnknownType), errors.Is(err, wire.ErrContent):
		if c.server.notices.due(c.agent, "skipped", now.UnixMicro()) {
			c.server.Log.Warn("frame skipped", "agent", c.agent, "name", c.name, "version", c.version, "type", typ, "err", err)
		}
		return true
	case errors.Is(err, wire.ErrHandshake): // unsigned: shows nothing, not even life
		c.server.Metrics.Frame("handshake")
		return false
	case errors.As(err, &skew):
		if c.server.notices.due(c.agent, "skew", now.UnixMicro()) {
			c.server.Log.Error("an agent's clock is off: its connection can't last; set the clock of its host or of the brain's",
				"agent", c.agent, "name", c.name, "worker_id", c.slot.WorkerID, "behind_seconds", skew.Skew.Seconds())
		}
		c.end(wire.CloseSignature, "frame out of its time")
	case errors.Is(err, wire.ErrSignature), errors.Is(err, wire.ErrReplay), errors.Is(err, wire.ErrStale):
		c.fault(err, now)
		c.end(wire.CloseSignature, "signature or replay")
	default:
		c.fault(err, now)
		c.end(wire.CloseProtocol, "not a frame")
	}
	return false
}

func (c *conn) fault(err error, now time.Time) {
	if c.server.notices.due(c.agent, "fault", now.UnixMicro()) {
		c.server.Log.Warn("frame refused", "agent", c.agent, "name", c.name, "version", c.version, "worker_id", c.slot.WorkerID, "err", err)
	}
}

// takeEvents answers a batch that is committed already and hands a new one to ingest. Every copy is answered: an agent
// that did not process the first answer sends until it processes one.
func (c *conn) takeEvents(f wire.Frame, payload []byte, now int64) {
	key := keyOf(f.ID)
	c.mu.Lock()
	if done, ok := c.recent.get(key); ok {
		c.mu.Unlock()
		if !c.acks {
			return
		}
		c.ack(f.ID, ingest.Outcome{Received: int(done.received), Rejected: int(done.received)})
		c.pauseForSpin(f.TS, done)
		return
	}
	if c.acks && c.server.stopping() {
		c.mu.Unlock()
		return // it stays with the agent
	}
	c.waiting++
	if under, ok := c.inflight[key]; ok {
		under.copies++
		c.mu.Unlock()
		return
	}
	if c.inflight == nil {
		c.inflight = map[frameKey]*inflight{}
	}
	c.inflight[key] = &inflight{copies: 1, size: len(payload)}
	c.bytes += len(payload)
	c.mu.Unlock()
	c.submit(&ingest.Frame{
		Session: c.source, ID: f.ID, Payload: payload, Received: now,
		Done: func(out ingest.Outcome) { c.settled(f.ID, key, out) },
	})
}

// submit waits while ingest is full: that is what stops the reading of the socket.
func (c *conn) submit(f *ingest.Frame) {
	if err := c.server.Ingest.Submit(c.ctx, f); err != nil {
		f.Done(ingest.Outcome{Err: err})
	}
}

// pauseForSpin stops reading when a copy was signed so late that its sender can't have processed the answer: such an
// agent reads only when it can't write, so its buffers have to fill. What was signed before the end of the pause says
// nothing new and stops it no second time.
func (c *conn) pauseForSpin(signed int64, done committed) {
	if !c.spins || signed <= done.late || signed <= c.pausedTo {
		return
	}
	c.server.Metrics.Frame("spin_pause")
	c.pause(c.server.SpinPause)
	c.pausedTo = c.server.Now().UnixMicro() - c.lag.Load()
}

func (c *conn) takeHeartbeat(f wire.Frame, now int64) {
	beat := wire.ParseHeartbeat(f.Payload)
	out := ingest.Beat{Session: c.source, Received: now}
	for _, q := range beat.Queues {
		out.Queues = append(out.Queues, ingest.QueueDepth(q))
	}
	for _, w := range beat.Workers {
		out.Workers = append(out.Workers, ingest.WorkerDetail{
			Engine: w.Engine, Name: w.Name, Concurrency: w.Concurrency, PID: w.PID, ActiveTasks: w.Active, Queues: w.Queues,
			LoadAverage: w.LoadAverage, Metadata: w.Metadata,
		})
	}
	c.server.Ingest.Beat(out)
}

// status is what is kept of an agent_status.
type status struct {
	AuthFailures       *int64      `json:"auth_failure_streak"`
	ProtocolFailures   *int64      `json:"protocol_failure_streak"`
	ConnectionFailures *int64      `json:"connection_failure_streak"`
	LastConnectAt      *store.Time `json:"last_successful_connect_at"`
	SessionAge         *float64    `json:"current_session_age_seconds"`
	BufferDepth        *int64      `json:"buffer_depth"`
	BufferOldestAge    *float64    `json:"buffer_oldest_age_seconds"`
	TelemetryLoss      *lossCounts `json:"telemetry_loss"`
	CapturedAt         store.Time  `json:"captured_at"` // when the agent signed it
}

// lossCounts is what an agent lost before it reached us; the counters overlap.
type lossCounts struct {
	BufferID        string           `json:"buffer_id"`
	RuntimeID       string           `json:"runtime_id"`
	CapacityEvicted *int64           `json:"capacity_evicted_frames"`
	ContentRejected *int64           `json:"content_rejected_frames"`
	EventRecords    *int64           `json:"event_records"`
	CommandResults  *int64           `json:"command_results"`
	OtherFrames     *int64           `json:"other_frames"`
	Unclassified    *int64           `json:"unclassified_frames"`
	AdapterEvents   map[string]int64 `json:"adapter_events"`
}

// takeStatus keeps the newest status for the next touch. More than a few a minute are not worth the work.
func (c *conn) takeStatus(f wire.Frame, now int64) {
	if minute := now - now%time.Minute.Microseconds(); minute != c.statusMinute {
		c.statusMinute, c.statuses = minute, 0
	}
	if c.statuses++; c.statuses > wire.MaxStatusPerMinute {
		return
	}
	s := wire.ParseStatus(f.Payload)
	text, err := json.Marshal(status{
		AuthFailures: s.AuthFailures, ProtocolFailures: s.ProtocolFailures, ConnectionFailures: s.ConnectionFailures,
		LastConnectAt: store.TimeAtOrNil(s.LastConnectAt), SessionAge: s.SessionAge, BufferDepth: s.BufferDepth, BufferOldestAge: s.BufferOldestAge,
		TelemetryLoss: (*lossCounts)(s.TelemetryLoss), CapturedAt: store.TimeAt(f.TS),
	})
	if err != nil {
		return // a number that JSON can't say
	}
	c.mu.Lock()
	c.status = text
	c.mu.Unlock()
}

// answerSpace is the name space of events that stand for acks and results of commands.
var answerSpace = id.Named(id.ID{}, []byte("z4j command answers"))

// takeAnswer stores a command's ack or result as an event; nobody waits for an answer to it. The protocol has no event
// for these, so one is made: kind command.ack or command.result, without engine and task,
//
//	"data":{"command_id":…,"answered_at":…,"answer":{the payload}}
//
// Its id depends on agent, type and command only, and its time is that of the command, whose id is a UUIDv7 of ours, so
// that an answer that comes again adds nothing. The answer to an id that is not ours takes the time at which it was signed.
func (c *conn) takeAnswer(f wire.Frame, now int64) {
	kind := "command.ack"
	if f.Type == wire.TypeCommandResult {
		kind = "command.result"
	}
	at := f.TS
	if command, err := id.Parse(f.ID); err == nil && command[6]>>4 == 7 {
		at = command.Micros()
	}
	name := append(append(bytes.Clone(c.agent[:]), kind...), f.ID...)
	text := append([]byte(`{"events":[{"engine":"","task_id":"","kind":"`), kind...)
	text = append(append(text, `","id":"`...), id.Named(answerSpace, name).String()...)
	text = wire.AppendTime(append(text, `","occurred_at":"`...), time.UnixMicro(at))
	text = append(append(text, `","data":{"command_id":`...), quote(f.ID)...)
	text = wire.AppendTime(append(text, `,"answered_at":"`...), time.UnixMicro(f.TS))
	text = append(text, `","answer":`...)
	if f.Payload == nil {
		text = append(text, `{}`...)
	}
	text = append(append(text, f.Payload...), `}}]}`...)
	c.mu.Lock()
	c.waiting++
	c.bytes += len(text)
	c.mu.Unlock()
	c.submit(&ingest.Frame{
		Session: c.source, ID: f.ID, Payload: text, Received: now,
		Done: func(out ingest.Outcome) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.refused = c.refused || out.Err != nil
			c.shrink(1, len(text))
		},
	})
}

// quote writes text as JSON.
func quote(text string) []byte {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err) // text always marshals
	}
	return b
}
