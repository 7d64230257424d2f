package wire

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"unicode/utf8"
)

// Heartbeat is what a heartbeat tells. It is read field by field: what is missing, null, negative or of another type
// is unknown (nil, 0 for a time), never 0, and harms nothing beside it.
type Heartbeat struct {
	BufferSize    *int64 // frames that wait in the agent's buffer
	DroppedEvents *int64 // always 0 before agent 1.11, and since then counted in TelemetryLoss
	LastFlushAt   int64  // µs
	TelemetryLoss *TelemetryLoss

	Health  []Health // sorted by engine and name, without the two below
	Queues  []QueueDepth
	Workers []WorkerDetail

	Unreadable int // fields and entries that were there and could not be read
	Dropped    int // entries beyond MaxHealth, MaxQueues, MaxWorkers or with a name beyond MaxName
}

// Health is one value that an engine's adapter reports of itself, such as broker_connected: "True".
type Health struct{ Engine, Name, Value string }

// QueueDepth is how many messages wait in a queue; nil is unknown.
type QueueDepth struct {
	Engine, Name string
	Pending      *int64
}

// WorkerDetail is an engine's worker as its inspection shows it.
type WorkerDetail struct {
	Engine, Name string
	Concurrency  *int64
	PID          *int64
	Active       *int64   // tasks that it works on
	Queues       []string // that it consumes; nil is unknown
	Registered   []string // names of the tasks that it can run; nil is unknown
	LoadAverage  []float64
	// Metadata is a JSON object of stats, active, active_queues, registered and conf, as far as they were sent, the
	// conf reduced to harmless keys; the rest is what the agent sent and still has to be redacted.
	Metadata []byte
}

// TelemetryLoss is what an agent knows of its own losses since its process began. The counters overlap.
type TelemetryLoss struct {
	BufferID, RuntimeID string
	CapacityEvicted     *int64 // frames that the full buffer pushed out
	ContentRejected     *int64 // frames that could not be sent, such as those above the size limit
	EventRecords        *int64
	CommandResults      *int64
	OtherFrames         *int64
	Unclassified        *int64
	AdapterEvents       map[string]int64 // by adapter, at most MaxHealth
}

// maxHealthValue is the length, in bytes, of a value that is no document: a longer one is no state of a broker.
const maxHealthValue = 8 << 10

// confKeys are the settings of a worker that may be shown; raw ones hold credentials.
var confKeys = map[string]bool{
	"accept_content": true, "result_accept_content": true, "task_serializer": true, "result_serializer": true, "event_serializer": true,
	"task_default_queue": true, "worker_concurrency": true, "worker_prefetch_multiplier": true,
	"worker_max_tasks_per_child": true, "worker_max_memory_per_child": true, "task_acks_late": true,
	"task_reject_on_worker_lost": true, "task_time_limit": true, "task_soft_time_limit": true,
	"broker_pool_limit": true, "broker_heartbeat": true, "timezone": true, "enable_utc": true,
}

// ParseHeartbeat reads a heartbeat's payload; nil is one without any field.
func ParseHeartbeat(payload []byte) Heartbeat {
	var h Heartbeat
	f := fields(payload)
	h.BufferSize = h.count(f["buffer_size"])
	h.DroppedEvents = h.count(f["dropped_events"])
	h.LastFlushAt = h.time(f["last_flush_at"])
	h.TelemetryLoss = parseLoss(f["telemetry_loss"])
	if !IsNull(f["telemetry_loss"]) && h.TelemetryLoss == nil {
		h.Unreadable++
	}
	h.health(f["adapter_health"])
	slices.SortFunc(h.Health, func(a, b Health) int {
		return cmp.Or(cmp.Compare(a.Engine, b.Engine), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(h.Queues, func(a, b QueueDepth) int {
		return cmp.Or(cmp.Compare(a.Engine, b.Engine), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(h.Workers, func(a, b WorkerDetail) int {
		return cmp.Or(cmp.Compare(a.Engine, b.Engine), cmp.Compare(a.Name, b.Name))
	})
	return h
}

// count reads a number of things.
func (h *Heartbeat) count(raw []byte) *int64 {
	n, ok := Int(raw)
	if ok && n >= 0 {
		return &n
	}
	if !IsNull(raw) {
		h.Unreadable++
	}
	return nil
}

func (h *Heartbeat) time(raw []byte) int64 {
	t, ok := Time(raw)
	if !ok && !IsNull(raw) {
		h.Unreadable++
	}
	return t
}

// health takes the entries of adapter_health: "<engine>.<name>" with a text, which may be a JSON document.
func (h *Heartbeat) health(raw []byte) {
	if !IsNull(raw) && !IsObject(raw) {
		h.Unreadable++
		return
	}
	entries := fields(raw)
	for i, key := range slices.Sorted(maps.Keys(entries)) {
		engine, what := cutEngine(label(key))
		if i >= MaxHealth || utf8.RuneCountInString(key) > MaxName || utf8.RuneCountInString(engine) > MaxEngine {
			h.Dropped++
			continue
		}
		text, ok := String(entries[key])
		if !ok {
			h.Unreadable++
			continue
		}
		switch {
		case what == "queue_depths":
			h.queueDepths(engine, []byte(text))
		case what == "worker_details":
			h.workerDetails(engine, []byte(text))
		case len(text) > maxHealthValue:
			h.Dropped++
		default:
			h.Health = append(h.Health, Health{Engine: engine, Name: what, Value: label(text)})
		}
	}
}

// cutEngine splits "celery.queue_depths" at its first point; what has none belongs to no engine.
func cutEngine(key string) (engine, name string) {
	for i := range len(key) {
		if key[i] == '.' {
			return key[:i], key[i+1:]
		}
	}
	return "", key
}

// document makes a text that came within a string safe to walk, or returns nil.
func (h *Heartbeat) document(text []byte) []byte {
	if check(text) != nil {
		h.Unreadable++
		return nil
	}
	text = bytes.TrimSpace(text)
	if !IsObject(text) {
		if !IsNull(text) {
			h.Unreadable++
		}
		return nil
	}
	return Clean(text)
}

// entries are the members of a document whose keys may name a queue or a worker, in order, at most room of them.
func (h *Heartbeat) entries(text []byte, room int) (names []string, values map[string][]byte) {
	values = fields(h.document(text))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if name == "" || utf8.RuneCountInString(name) > MaxName || len(names) >= room {
			h.Dropped++
			continue
		}
		names = append(names, name)
	}
	return names, values
}

func (h *Heartbeat) queueDepths(engine string, text []byte) {
	names, values := h.entries(text, MaxQueues-len(h.Queues))
	for _, name := range names {
		if IsNull(values[name]) {
			h.Unreadable++ // the engine was asked and could not say
		}
		h.Queues = append(h.Queues, QueueDepth{Engine: engine, Name: name, Pending: h.count(values[name])})
	}
}

func (h *Heartbeat) workerDetails(engine string, text []byte) {
	names, values := h.entries(text, MaxWorkers-len(h.Workers))
	for _, name := range names {
		h.Workers = append(h.Workers, h.worker(engine, name, values[name]))
	}
}

func (h *Heartbeat) worker(engine, name string, raw []byte) WorkerDetail {
	w := WorkerDetail{Engine: engine, Name: name}
	if !IsObject(raw) {
		h.Unreadable++
		return w
	}
	f := fields(raw)
	stats := fields(f["stats"])
	pool := f["pool"] // some inspections leave the level of stats out
	if IsObject(stats["pool"]) {
		pool = stats["pool"]
	}
	w.Concurrency = h.concurrency(fields(pool))
	w.PID = h.count(either(stats["pid"], f["pid"]))
	if active := f["active"]; isList(active) {
		n := int64(0)
		for range Elements(active) {
			n++
		}
		w.Active = &n
	} else if !IsNull(active) {
		h.Unreadable++
	}
	w.Queues = h.queueNames(f["active_queues"])
	w.Registered = h.names(f["registered"], String)
	w.LoadAverage = h.load(either(stats["loadavg"], f["loadavg"]))
	w.Metadata = metadata(f)
	return w
}

// either returns a, or b if there is no a.
func either(a, b []byte) []byte {
	if a != nil {
		return a
	}
	return b
}

func isList(raw []byte) bool { return len(raw) > 0 && raw[0] == '[' }

// concurrency is a pool's size, or the number of its processes.
func (h *Heartbeat) concurrency(pool map[string][]byte) *int64 {
	size := pool["max-concurrency"]
	if n, ok := Int(size); ok && n >= 0 {
		return &n
	}
	if !IsNull(size) {
		h.Unreadable++
	}
	processes := pool["processes"]
	if n, ok := Int(processes); ok && n >= 0 {
		return &n
	}
	if !isList(processes) {
		return nil
	}
	n := int64(0)
	for range Elements(processes) {
		n++
	}
	return &n
}

// queueNames reads [{"name": …}, …], or the names alone.
func (h *Heartbeat) queueNames(raw []byte) []string {
	return h.names(raw, func(element []byte) (string, bool) {
		if IsObject(element) {
			return String(fields(element)["name"])
		}
		return String(element)
	})
}

func (h *Heartbeat) names(raw []byte, read func([]byte) (string, bool)) []string {
	if !isList(raw) {
		if !IsNull(raw) {
			h.Unreadable++
		}
		return nil
	}
	list := []string{}
	for element := range Elements(raw) {
		name, ok := read(element)
		switch {
		case !ok || name == "":
			h.Unreadable++
		case len(list) >= MaxNames || utf8.RuneCountInString(name) > MaxName:
			h.Dropped++
		default:
			list = append(list, label(name))
		}
	}
	return list
}

// load reads the averages of one, five and fifteen minutes; all or none.
func (h *Heartbeat) load(raw []byte) []float64 {
	if IsNull(raw) {
		return nil
	}
	var list []float64
	for element := range Elements(raw) {
		if f, ok := Float(element); ok && f >= 0 && len(list) < 3 {
			list = append(list, f)
			continue
		}
		h.Unreadable++
		return nil
	}
	if list == nil {
		h.Unreadable++
	}
	return list
}

// metadata is what of a worker's details may be kept.
func metadata(f map[string][]byte) []byte {
	dst := []byte{'{'}
	for _, name := range []string{"active", "active_queues", "conf", "registered", "stats"} {
		value := f[name]
		if name == "conf" {
			value = allowed(value)
		}
		if IsNull(value) {
			continue
		}
		if len(dst) > 1 {
			dst = append(dst, ',')
		}
		dst = append(append(appendQuoted(dst, name), ':'), value...)
	}
	return append(dst, '}')
}

// allowed reduces a worker's settings to the harmless ones; values that hold an object are none of them.
func allowed(conf []byte) []byte {
	if !IsObject(conf) {
		return nil
	}
	dst := []byte{'{'}
	for key, value := range Members(conf) {
		if !confKeys[string(key)] || IsObject(value) {
			continue
		}
		if len(dst) > 1 {
			dst = append(dst, ',')
		}
		dst = append(append(appendQuoted(dst, string(key)), ':'), value...)
	}
	return append(dst, '}')
}

// parseLoss reads telemetry_loss; nil if there is none.
func parseLoss(raw []byte) *TelemetryLoss {
	if !IsObject(raw) {
		return nil
	}
	f := fields(raw)
	l := &TelemetryLoss{
		CapacityEvicted: counter(f["capacity_evicted_frames"]), ContentRejected: counter(f["content_rejected_frames"]),
		EventRecords: counter(f["event_records"]), CommandResults: counter(f["command_results"]),
		OtherFrames: counter(f["other_frames"]), Unclassified: counter(f["unclassified_frames"]),
	}
	l.BufferID, l.RuntimeID = shortText(f["buffer_id"]), shortText(f["runtime_id"])
	for key, value := range Members(f["adapter_events"]) {
		n := counter(value)
		if n == nil || len(l.AdapterEvents) >= MaxHealth || utf8.RuneCount(key) > MaxName {
			continue
		}
		if l.AdapterEvents == nil {
			l.AdapterEvents = make(map[string]int64)
		}
		l.AdapterEvents[label(string(key))] = *n
	}
	return l
}

func counter(raw []byte) *int64 {
	n, ok := Int(raw)
	if !ok || n < 0 {
		return nil
	}
	return &n
}

// shortText reads a text of at most MaxName characters; another one is unknown.
func shortText(raw []byte) string {
	text, _ := String(raw)
	if utf8.RuneCountInString(text) > MaxName {
		return ""
	}
	return label(text)
}
