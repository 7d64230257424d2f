package ingest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/z4j-go/z4j/internal/fold"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/redact"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/wire"
)

// Reasons of dead letters.
const (
	deadShape   = "unusable"       // no object, no kind, a field of a wrong type
	deadTooOld  = "too_old"        // beyond what retention keeps
	deadTooMany = "too_many"       // more events in a frame than are taken
	deadNoTask  = "no_task_id"     // about a task, and not saying which
	deadNoName  = "no_engine"      // of no engine, where the session has several or none
	deadRefused = "refused"        // the database will not have it
	maxBody     = 32 << 10         // bytes kept of a dead letter
	farAhead    = 24 * 3600e6      // µs: a time further ahead than this chooses no partition
	freshFor    = 60 * 1_000_000   // µs: what is older on arrival is news of the past, not a sign of life
	maxName     = 500              // characters of a task's name
	maxLabel    = wire.MaxName     // characters of a queue's or worker's name
	maxRuntime  = 10 * 366 * 86400 // seconds
)

// read turns a frame into parts, one for each writer that has something to do, nil for the others. A task's events go to
// the writer of its key, so that two writers never wait for one row. It sets the job's counts.
func (w *Writer) read(j *job) []*part {
	f := j.frame
	parts := make([]*part, len(w.shards))
	at := func(key id.ID) *part {
		i := int(key[15]) % len(parts)
		if parts[i] == nil {
			parts[i] = &part{job: j}
		}
		return parts[i]
	}
	sender := senderOf(f.Session)
	var letters deadLetters
	beyond := 0
	for e, err := range wire.Events(f.Payload) {
		j.received++
		if j.received > wire.MaxEvents {
			beyond++
			continue
		}
		p := at(f.Session.Agent)
		if err != nil {
			letters.add(w, f, p, e.Raw, deadShape, err.Error())
			continue
		}
		ev := event{}
		if reason, detail := w.parse(f, &e, sender, &ev); reason != "" {
			letters.add(w, f, p, e.Raw, reason, detail)
			continue
		}
		if ev.isMark {
			p = at(ev.ref.Key)
		}
		p.events = append(p.events, ev)
	}
	letters.sum(w, f, at(f.Session.Agent), beyond)
	left := 0
	for i, p := range parts {
		switch {
		case p == nil:
		case p.size() == 0 && j.received > 0:
			parts[i] = nil // only asked for
		default:
			left++
		}
	}
	j.left.Store(int32(left))
	return parts
}

// maxLetters is how many dead letters one frame makes; what is wrong with more of it is told as a number. A frame of
// published agents holds one event.
const maxLetters = 50

// deadLetters counts a frame's dead letters by reason, beyond those that are kept one by one.
type deadLetters struct {
	kept int
	more map[string]int
}

func (d *deadLetters) add(w *Writer, f *Frame, p *part, raw []byte, reason, detail string) {
	if d.kept < maxLetters {
		d.kept++
		p.dead = append(p.dead, w.deadLetter(f, d.kept, raw, reason, detail))
		return
	}
	if d.more == nil {
		d.more = map[string]int{}
	}
	d.more[reason]++
}

// sum adds one letter a reason for what add only counted, and one for the events beyond the number that is taken.
func (d *deadLetters) sum(w *Writer, f *Frame, p *part, beyond int) {
	for _, reason := range slices.Sorted(maps.Keys(d.more)) {
		p.dead = append(p.dead, w.deadLetter(f, 0, nil, reason, fmt.Sprintf("%d more elements of the frame, not kept one by one", d.more[reason])))
	}
	if beyond > 0 {
		p.dead = append(p.dead, w.deadLetter(f, 0, nil, deadTooMany, fmt.Sprintf("%d events beyond the %d that are taken of a frame", beyond, wire.MaxEvents)))
	}
}

// senderOf names the agent's process to the fold.
func senderOf(s *Session) fold.Sender {
	h := fnv.New64a()
	h.Write(s.Agent[:])
	if s.HasWorkerID {
		h.Write([]byte(s.WorkerID))
	} else {
		h.Write([]byte(s.ID))
	}
	return fold.Sender{ID: h.Sum64(), Started: s.ProcessStarted}
}

// parse fills ev from e, or says why e is a dead letter.
func (w *Writer) parse(f *Frame, e *wire.Event, sender fold.Sender, ev *event) (reason, detail string) {
	kind, known := fold.ParseKind(e.Kind)
	engine := clean(e.Engine)
	if engine == "" {
		if len(f.Session.Engines) == 1 {
			engine = f.Session.Engines[0]
		} else if strings.HasPrefix(e.Kind, "task.") {
			return deadNoName, "the event of a task names no engine, and the session does not have exactly one"
		}
	}
	if strings.HasPrefix(e.Kind, "task.") && e.TaskID == "" {
		return deadNoTask, "kind " + e.Kind + " without a task_id"
	}
	at := e.OccurredAt
	if !e.HasTime {
		at = f.Received
	}
	if at < f.Received-w.horizon(f.Session.Project).Microseconds() {
		return deadTooOld, "older than what is kept"
	}
	data := redact.Event(e.Data)
	taskID := clean(e.TaskID)
	ev.row = store.EventRow{
		Project: f.Session.Project, Agent: f.Session.Agent, Occurred: at, Received: f.Received, Engine: engine, TaskID: taskID,
		Kind: kindName(e.Kind), Payload: data,
	}
	if data == nil {
		ev.row.Payload = []byte("{}")
	}
	if ev.row.Kind == "unknown" {
		ev.row.Payload = withKind(ev.row.Payload, clean(e.Kind))
	}
	if at > f.Received+farAhead {
		ev.row.Occurred = f.Received
	}
	d := readData(data)
	ev.row.Worker = d.worker
	ev.ref = store.TaskRef{Project: f.Session.Project, Engine: engine, Key: fold.TaskKey(engine, taskID)}
	if known {
		w.mark(f, e, kind, at, sender, d, ev, taskID)
	} else {
		ev.row.HasTask = taskID != ""
		ev.row.TaskKey = ev.ref.Key
		ev.row.ID = otherID(f, e)
	}
	w.signsOfLife(f, e, d, at, engine, ev)
	return "", ""
}

// mark makes ev one mark of its task.
func (w *Writer) mark(f *Frame, e *wire.Event, kind fold.Kind, at int64, sender fold.Sender, d facts, ev *event, taskID string) {
	ev.isMark = true
	ev.taskID = taskID
	ev.mark = fold.Mark{
		Kind: kind, At: at, Heard: f.Received, Worker: d.worker, Sender: sender, Retries: d.retries, RetryCount: d.retryCount,
		RuntimeUS: d.runtime, ETA: d.eta, Expired: d.expired, Terminated: d.terminated, WillRetry: d.willRetry, Fields: &d.fields,
	}
	if !e.HasTime {
		ev.mark.Event = otherID(f, e)
	}
	if p := d.payload; p.Result != nil || p.Exception != "" || p.ExceptionMessage != "" || p.Traceback != "" || p.Reason != "" {
		ev.mark.Payload = &d.payload
	}
	ev.row.HasTask, ev.row.TaskKey = true, ev.ref.Key
	ev.row.ID = fold.EventID(f.Session.Project, ev.ref.Engine, taskID, ev.mark.Key())
}

// otherID is the identity of what the fold does not identify: by the agent's own event id, else by chance.
func otherID(f *Frame, e *wire.Event) id.ID {
	text := e.ID
	if len(text) == 32 { // the restart event's id has no hyphens
		text = text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
	}
	u, err := id.Parse(text)
	if err != nil || u.IsZero() {
		if e.ID == "" {
			return id.Random()
		}
		u = id.Named(f.Session.Agent, []byte(e.ID))
	}
	return fold.AgentEventID(f.Session.Project, u)
}

// signsOfLife notes the worker and the queue that the event names.
func (w *Writer) signsOfLife(f *Frame, e *wire.Event, d facts, at int64, engine string, ev *event) {
	if d.fields.Queue != "" {
		ev.queue = store.QueueTouch{Project: f.Session.Project, Engine: engine, Name: d.fields.Queue, Seen: f.Received}
	}
	name := d.worker
	if name == "" && strings.HasPrefix(e.Kind, "worker.") {
		name = d.workerName
	}
	if name == "" {
		return
	}
	ev.worker = store.WorkerTouch{Project: f.Session.Project, Engine: engine, Name: name, Seen: f.Received, Stopped: e.Kind == "worker.offline"}
	if e.HasTime {
		if lead, ok := w.clocks.observe(workerKey{f.Session.Project, engine, name}, at, f.Received); ok {
			ev.worker.Offset = &lead
		}
		if at < f.Received-freshFor {
			ev.worker.Seen = at + freshFor
		}
	}
}

// kinds are the events' kinds that have a name here; any other is stored as unknown.
var kinds = []string{
	"task.sent", "task.received", "task.started", "task.succeeded", "task.failed", "task.retried", "task.revoked", "task.rejected",
	"worker.online", "worker.offline", "worker.heartbeat", "queue.depth_report", "schedule.run_started", "schedule.run_completed",
	"schedule.created", "schedule.updated", "schedule.deleted", "schedule.snapshot", "command.ack", "command.result",
}

func kindName(kind string) string {
	if i := slices.Index(kinds, kind); i >= 0 {
		return kinds[i]
	}
	return "unknown"
}

// withKind keeps the word that the agent used for a kind that has no name here.
func withKind(data []byte, kind string) []byte {
	text, err := json.Marshal(kind)
	if err != nil {
		return data
	}
	out := append([]byte(`{"original_kind":`), text...)
	if rest := bytes.TrimSpace(data[1:]); len(rest) > 1 {
		out = append(append(out, ','), rest...)
		return out
	}
	return append(out, '}')
}

// facts are what an event's data says, as far as the brain knows the words.
type facts struct {
	worker, workerName             string
	fields                         fold.Fields
	payload                        fold.Payload
	retries, retryCount, runtime   fold.Number
	eta                            int64
	expired, terminated, willRetry bool
}

// readData reads data, which is clean and redacted. What has a wrong type is left out: it is unknown.
func readData(data []byte) facts {
	var d facts
	for key, v := range wire.Members(data) {
		switch string(key) {
		case "task_name":
			d.fields.Name = label(v, maxName)
		case "queue":
			d.fields.Queue = label(v, maxLabel)
		case "worker":
			d.worker = label(v, maxLabel)
		case "worker_name":
			d.workerName = label(v, maxLabel)
		case "priority":
			d.fields.Priority = priority(v)
		case "parent_task_id":
			d.fields.Parent, _ = wire.String(v)
		case "root_task_id":
			d.fields.Root, _ = wire.String(v)
		case "args":
			d.fields.Args = known(v)
		case "kwargs":
			d.fields.Kwargs = known(v)
		case "tags":
			d.fields.Tags = known(v)
		case "retries":
			d.retries = count(v)
		case "retry_count":
			d.retryCount = count(v)
		case "runtime_ms":
			d.runtime = runtime(v)
		case "eta":
			d.eta, _ = wire.Time(v)
		case "expired":
			d.expired, _ = wire.Bool(v)
		case "terminated":
			d.terminated, _ = wire.Bool(v)
		case "will_retry":
			d.willRetry, _ = wire.Bool(v)
		default:
			d.end(string(key), v)
		}
	}
	return d
}

// end reads what only an end carries.
func (d *facts) end(key string, v []byte) {
	switch key {
	case "result":
		d.payload.Result = v // null is a result too
	case "exception":
		d.payload.Exception, _ = wire.String(v)
	case "exception_message":
		d.payload.ExceptionMessage, _ = wire.String(v)
	case "traceback":
		d.payload.Traceback, _ = wire.String(v)
	case "reason":
		if reason, _ := wire.String(v); reason != "None" { // Python's word for nothing, as some agents send it
			d.payload.Reason = reason
		}
	}
}

func known(v []byte) []byte {
	if wire.IsNull(v) {
		return nil
	}
	return v
}

// label reads a name, cut to most characters.
func label(v []byte, most int) string {
	s, _ := wire.String(v)
	if len(s) <= most || utf8.RuneCountInString(s) <= most {
		return s
	}
	for i := range s {
		if most == 0 {
			return s[:i]
		}
		most--
	}
	return s
}

func priority(v []byte) string {
	switch s, _ := wire.String(v); s {
	case "critical", "high", "normal", "low":
		return s
	}
	return ""
}

func count(v []byte) fold.Number {
	n, ok := wire.Int(v)
	if !ok || n < 0 || n > math.MaxInt32 {
		return fold.Number{}
	}
	return fold.Num(n)
}

// runtime reads milliseconds, whole or not, as µs.
func runtime(v []byte) fold.Number {
	ms, ok := wire.Float(v)
	if !ok || ms < 0 || ms > maxRuntime*1000 {
		return fold.Number{}
	}
	return fold.Num(int64(math.Round(ms * 1000)))
}

// clean makes a text storable: NUL becomes U+FFFD.
func clean(s string) string { return strings.ReplaceAll(s, "\x00", "\ufffd") }

// deadLetter is what is kept of an event that can't be taken, the n-th of its frame. Of one receipt its id is always the same, so that a group
// that is written again buries nothing twice.
func (w *Writer) deadLetter(f *Frame, n int, raw []byte, reason, detail string) store.DeadLetter {
	body := redact.Event(raw)
	if len(body) > maxBody {
		cut := maxBody
		for !utf8.RuneStart(body[cut]) {
			cut--
		}
		body = body[:cut]
	}
	h := id.Named(f.Session.Agent, fmt.Appendf(nil, "%s\x00%d\x00%s\x00%s\x00%s", f.ID, n, reason, detail, raw))
	at := id.At(f.Received)
	at[7] &^= 3 // the random bits of the first half
	binary.BigEndian.PutUint64(at[8:], binary.BigEndian.Uint64(h[8:]))
	return store.DeadLetter{
		Project: f.Session.Project, ID: at, Agent: f.Session.Agent, Received: f.Received, FrameID: clean(f.ID),
		Reason: reason, Detail: clean(detail), Size: int32(min(len(raw), math.MaxInt32)), Body: string(body),
	}
}

// bury makes the part's event a dead letter, or, where it has none left, strips its dead letters of what the database may
// have refused. It reports whether there is something left to try.
func (w *Writer) bury(p *part, code string) bool {
	if len(p.events) > 0 {
		e := &p.events[0]
		p.dead = append(p.dead, w.deadLetter(p.job.frame, int(binary.BigEndian.Uint32(e.row.ID[:4])), e.row.Payload, deadRefused, "kind "+e.row.Kind+": the database refuses it (code "+code+")"))
		p.events = nil
		return true
	}
	left := false
	for i := range p.dead {
		if d := &p.dead[i]; d.Body != "" || d.FrameID != "" {
			d.Body, d.FrameID, d.Detail, left = "", "", "the database refuses what was to be kept of it (code "+code+")", true
		}
	}
	return left
}
