package wire

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

var (
	// ErrHello says which part of a hello can't be accepted; the connection closes with CloseProtocol.
	ErrHello = errors.New("not a valid hello")
	// ErrVersion says that a hello speaks another protocol_version; the connection closes with CloseVersion.
	ErrVersion = errors.New("unsupported protocol_version")
)

// Limits of a hello's fields, in characters and items, as the published schema has them. It has none for the items'
// own lengths: those are the longest known, several times over.
const (
	maxVersionText  = 40
	maxFramework    = 40
	maxAdapters     = 64
	maxAdapterName  = 80
	maxCapabilities = 256
	maxWorkerID     = 128
	maxWorkerRole   = 32
	maxHostName     = 255
	maxHost         = 8 << 10 // bytes; shipped agents send a name of their operator's choice, or {}
	maxPID          = 1<<31 - 1
)

// Hello is how an agent process introduces itself. All texts are valid UTF-8 without U+0000.
type Hello struct {
	ID              string
	AgentVersion    string // of the agent's core package; "" or "0.0.0" if unknown
	ProtocolVersion string
	Framework       string
	Engines         []string
	Schedulers      []string
	Capabilities    map[string][]string // by engine or scheduler
	HostName        string              // the operator's label, "" if there is none
	Host            []byte              // the whole host object as raw JSON, nil if it is empty
	WorkerID        *string             // names the process among those of the agent; nil has a slot of its own
	WorkerRole      string              // web, task, scheduler, beat, other; "" if unknown
	WorkerPID       *int64
	WorkerStartedAt int64 // µs, 0 if unknown
	RuntimeFeatures []string
}

// ParseHello reads the first message of a connection. Unknown keys are ignored; fields that only inform (role, pid,
// start, host) are dropped if they can't be read, a version may be a number, and for all others and for everything
// beyond a limit the error names the field.
func ParseHello(raw []byte) (Hello, error) {
	var h Hello
	raw = withoutBOM(raw)
	if len(raw) > MaxFrame {
		return h, fmt.Errorf("%w: %d bytes, want at most %d", ErrHello, len(raw), MaxFrame)
	}
	if err := check(raw); err != nil {
		return h, fmt.Errorf("%w: %w", ErrHello, err)
	}
	f := fields(raw)
	if typ, _ := String(f["type"]); typ != TypeHello {
		return h, fmt.Errorf("%w: type is not %q: the first message has to be a hello", ErrHello, TypeHello)
	}
	if v := f["v"]; v != nil && string(v) != "2" {
		return h, fmt.Errorf("%w: v is not %d", ErrHello, Version)
	}
	if !IsObject(f["payload"]) {
		return h, fmt.Errorf("%w: payload is not an object", ErrHello)
	}
	p := helloReader{fields: fields(f["payload"])}
	if h.ProtocolVersion = p.version("protocol_version"); p.err == nil && h.ProtocolVersion != ProtocolVersion {
		return h, fmt.Errorf("%w %q, want %q", ErrVersion, h.ProtocolVersion, ProtocolVersion)
	}
	h.AgentVersion = p.version("agent_version")
	h.Framework = p.text("framework", maxFramework)
	h.Engines = p.list("engines")
	h.Schedulers = p.list("schedulers")
	h.RuntimeFeatures = p.list("runtime_features")
	h.Capabilities = p.lists("capabilities")
	if !IsNull(p.fields["worker_id"]) {
		id := p.text("worker_id", maxWorkerID)
		h.WorkerID = &id
	}
	p.process(&h)
	if p.err != nil {
		return h, fmt.Errorf("%w: payload.%w", ErrHello, p.err)
	}
	var ok bool
	if h.ID, ok = String(f["id"]); !ok || h.ID == "" || utf8.RuneCountInString(h.ID) > MaxID {
		return h, fmt.Errorf("%w: id is not a text of 1 to %d characters", ErrHello, MaxID)
	}
	return h, nil
}

// check reports what is wrong with a JSON text, invalid Unicode allowed.
func check(raw []byte) error {
	s := newScanner(raw, false)
	defer s.release()
	return s.document()
}

// fields collects an object's members, the last of equal ones.
func fields(raw []byte) map[string][]byte {
	m := make(map[string][]byte)
	for key, value := range Members(raw) {
		m[string(key)] = value
	}
	return m
}

// helloReader reads the payload's fields and keeps the first error.
type helloReader struct {
	fields map[string][]byte
	err    error
}

func (p *helloReader) fail(name, format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(name+" "+format, args...)
	}
}

// label makes text storable anywhere.
func label(text string) string { return strings.ReplaceAll(text, "\x00", "\ufffd") }

func (p *helloReader) text(name string, most int) string {
	raw := p.fields[name]
	text, ok := String(raw)
	switch {
	case raw == nil:
		p.fail(name, "is missing")
	case !ok:
		p.fail(name, "is not text")
	case utf8.RuneCountInString(text) > most:
		p.fail(name, "has more than %d characters", most)
	}
	return label(text)
}

// version is text that may be spelled as a number.
func (p *helloReader) version(name string) string {
	raw := p.fields[name]
	if isNumber(raw) && len(raw) <= maxVersionText {
		return string(raw)
	}
	return p.text(name, maxVersionText)
}

func (p *helloReader) list(name string) []string {
	return p.texts(name, p.fields[name], maxAdapters)
}

func (p *helloReader) texts(name string, raw []byte, most int) []string {
	if IsNull(raw) {
		return nil
	}
	if raw[0] != '[' {
		p.fail(name, "is not a list")
		return nil
	}
	var list []string
	for element := range Elements(raw) {
		text, ok := String(element)
		switch {
		case !ok:
			p.fail(name, "holds something that is not text")
		case len(list) >= most:
			p.fail(name, "has more than %d items", most)
		case utf8.RuneCountInString(text) > maxAdapterName:
			p.fail(name, "holds a text of more than %d characters", maxAdapterName)
		}
		if p.err != nil {
			return nil
		}
		list = append(list, label(text))
	}
	return list
}

func (p *helloReader) lists(name string) map[string][]string {
	raw := p.fields[name]
	if IsNull(raw) {
		return nil
	}
	if !IsObject(raw) {
		p.fail(name, "is not an object")
		return nil
	}
	m := make(map[string][]string)
	for key, value := range Members(raw) {
		switch {
		case len(m) >= 2*maxAdapters:
			p.fail(name, "has more than %d entries", 2*maxAdapters)
		case utf8.RuneCount(key) > maxAdapterName:
			p.fail(name, "has a key of more than %d characters", maxAdapterName)
		}
		if p.err != nil {
			return nil
		}
		m[label(string(key))] = p.texts(name, value, maxCapabilities)
	}
	return m
}

// process reads what only informs about the process.
func (p *helloReader) process(h *Hello) {
	if _, ok := String(p.fields["worker_role"]); ok {
		h.WorkerRole = p.text("worker_role", maxWorkerRole)
	}
	if pid, ok := Int(p.fields["worker_pid"]); ok && pid >= 0 && pid <= maxPID {
		h.WorkerPID = &pid
	}
	if started, ok := Time(p.fields["worker_started_at"]); ok {
		h.WorkerStartedAt = started
	}
	host := p.fields["host"]
	if !IsObject(host) {
		return
	}
	if len(host) > maxHost {
		p.fail("host", "has more than %d bytes", maxHost)
		return
	}
	for key, value := range Members(host) {
		h.Host = Clean(host)
		if string(key) == "name" {
			name, _ := String(value)
			h.HostName = label(name)
		}
	}
	if utf8.RuneCountInString(h.HostName) > maxHostName {
		p.fail("host.name", "has more than %d characters", maxHostName)
	}
}

// Append writes the hello as an agent sends it; it is what ParseHello reads.
func (h Hello) Append(dst []byte) []byte {
	dst = appendQuoted(append(dst, `{"v":2,"id":`...), h.ID)
	dst = appendQuoted(append(dst, `,"ts":null,"type":"hello","payload":{"protocol_version":`...), h.ProtocolVersion)
	dst = appendQuoted(append(dst, `,"agent_version":`...), h.AgentVersion)
	dst = appendQuoted(append(dst, `,"framework":`...), h.Framework)
	dst = appendList(append(dst, `,"engines":`...), h.Engines)
	dst = appendList(append(dst, `,"schedulers":`...), h.Schedulers)
	dst = append(dst, `,"capabilities":{`...)
	for i, name := range slices.Sorted(maps.Keys(h.Capabilities)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendList(append(appendQuoted(dst, name), ':'), h.Capabilities[name])
	}
	dst = append(dst, `},"host":`...)
	switch {
	case h.Host != nil:
		dst = append(dst, h.Host...)
	case h.HostName != "":
		dst = append(appendQuoted(append(dst, `{"name":`...), h.HostName), '}')
	default:
		dst = append(dst, '{', '}')
	}
	dst = appendOptional(append(dst, `,"worker_id":`...), h.WorkerID)
	var role *string
	if h.WorkerRole != "" {
		role = &h.WorkerRole
	}
	dst = appendOptional(append(dst, `,"worker_role":`...), role)
	dst = append(dst, `,"worker_pid":`...)
	if h.WorkerPID == nil {
		dst = append(dst, "null"...)
	} else {
		dst = strconv.AppendInt(dst, *h.WorkerPID, 10)
	}
	dst = append(dst, `,"worker_started_at":`...)
	if h.WorkerStartedAt == 0 {
		dst = append(dst, "null"...)
	} else {
		dst = append(AppendTime(append(dst, '"'), time.UnixMicro(h.WorkerStartedAt)), '"')
	}
	dst = appendList(append(dst, `,"runtime_features":`...), h.RuntimeFeatures)
	return append(dst, '}', '}')
}

func appendOptional(dst []byte, text *string) []byte {
	if text == nil {
		return append(dst, "null"...)
	}
	return appendQuoted(dst, *text)
}

func appendList(dst []byte, list []string) []byte {
	dst = append(dst, '[')
	for i, text := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendQuoted(dst, text)
	}
	return append(dst, ']')
}

// HelloAck is the brain's answer to a hello. The ids are what both ends sign from then on, so they are given as text.
type HelloAck struct {
	BrainVersion string // agents warn if its major.minor is not their own
	AgentID      string
	ProjectID    string
	SessionID    string // a fresh UUIDv4

	HeartbeatInterval time.Duration // whole seconds, 1 s to 1 h; 0: HeartbeatInterval
	MaxFrame          int           // bytes, 1,024 to 67,108,864; 0: MaxFrame. Agents delete events that don't fit
}

// Append writes the answer. Agents want every field, of exactly these types.
func (a HelloAck) Append(dst []byte, now time.Time) []byte {
	if a.HeartbeatInterval == 0 {
		a.HeartbeatInterval = HeartbeatInterval
	}
	if a.MaxFrame == 0 {
		a.MaxFrame = MaxFrame
	}
	id := strings.ReplaceAll(a.SessionID, "-", "")
	id = "hack_" + id[:min(12, len(id))]
	dst = appendQuoted(append(dst, `{"v":2,"id":`...), id)
	dst = AppendTime(append(dst, `,"ts":"`...), now)
	dst = appendQuoted(append(dst, `","type":"hello_ack","payload":{"protocol_version":"2","brain_version":`...), a.BrainVersion)
	dst = appendQuoted(append(dst, `,"agent_id":`...), a.AgentID)
	dst = appendQuoted(append(dst, `,"project_id":`...), a.ProjectID)
	dst = appendQuoted(append(dst, `,"session_id":`...), a.SessionID)
	dst = strconv.AppendInt(append(dst, `,"heartbeat_interval_seconds":`...), int64(a.HeartbeatInterval/time.Second), 10)
	dst = strconv.AppendInt(append(dst, `,"max_frame_size_bytes":`...), int64(a.MaxFrame), 10)
	return append(dst, '}', '}')
}

// ParseHelloAck is the agent's side of Append: what agents built with this package read.
func ParseHelloAck(raw []byte) (HelloAck, error) {
	var a HelloAck
	if err := check(raw); err != nil {
		return a, fmt.Errorf("hello_ack: %w", err)
	}
	f := fields(raw)
	if !bytes.Equal(f["type"], []byte(`"hello_ack"`)) || string(f["v"]) != "2" {
		return a, fmt.Errorf("hello_ack: %w: type %s, v %s", ErrProtocol, f["type"], f["v"])
	}
	p := fields(f["payload"])
	for _, one := range []struct {
		name string
		to   *string
	}{
		{"brain_version", &a.BrainVersion}, {"agent_id", &a.AgentID}, {"project_id", &a.ProjectID}, {"session_id", &a.SessionID},
	} {
		var ok bool
		if *one.to, ok = String(p[one.name]); !ok {
			return a, fmt.Errorf("hello_ack: %w: payload.%s is not text", ErrProtocol, one.name)
		}
	}
	if version, _ := String(p["protocol_version"]); version != ProtocolVersion {
		return a, fmt.Errorf("hello_ack: %w: %s", ErrVersion, p["protocol_version"])
	}
	seconds, ok1 := Int(p["heartbeat_interval_seconds"])
	size, ok2 := Int(p["max_frame_size_bytes"])
	if !ok1 || !ok2 || seconds < 1 || seconds > 3600 {
		return a, fmt.Errorf("hello_ack: %w: heartbeat_interval_seconds %s, max_frame_size_bytes %s",
			ErrProtocol, p["heartbeat_interval_seconds"], p["max_frame_size_bytes"])
	}
	a.HeartbeatInterval, a.MaxFrame = time.Duration(seconds)*time.Second, int(size)
	return a, nil
}
