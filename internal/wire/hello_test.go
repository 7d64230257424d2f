package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/z4j-go/z4j/internal/wire"
)

const minimalHello = `"protocol_version":"2","agent_version":"1.13.0","framework":"bare"`

func hello(payload string) []byte {
	return []byte(`{"v":2,"id":"hello_1","ts":null,"type":"hello","payload":{` + payload + `}}`)
}

func TestParseHello(t *testing.T) {
	h, err := wire.ParseHello(hello(minimalHello + `,"engines":["rq"],"schedulers":null,"capabilities":{"rq":["retry_task"],"x":[]},"host":{"name":"web-eu-1"},
		"worker_id":"flask-1","worker_role":"web","worker_pid":4711,"worker_started_at":"2026-03-14T09:26:53.589793Z","runtime_features":["a","b"],"new":{}`))
	if err != nil {
		t.Fatal(err)
	}
	if h.ID != "hello_1" || h.AgentVersion != "1.13.0" || h.ProtocolVersion != "2" || h.Framework != "bare" || len(h.Engines) != 1 || h.Engines[0] != "rq" ||
		h.Schedulers != nil || len(h.Capabilities) != 2 || h.Capabilities["rq"][0] != "retry_task" || h.HostName != "web-eu-1" ||
		*h.WorkerID != "flask-1" || h.WorkerRole != "web" || *h.WorkerPID != 4711 || h.WorkerStartedAt != testNow.UnixMicro() || len(h.RuntimeFeatures) != 2 {
		t.Errorf("got %+v, want what the frame says", h)
	}
}

func TestParseHelloIsLenient(t *testing.T) {
	tests := []struct {
		name, raw string
		ok        func(wire.Hello) bool
	}{
		{"no more than is required", string(hello(minimalHello)), func(h wire.Hello) bool { return h.WorkerID == nil && h.Host == nil && h.WorkerPID == nil }},
		{"without v and ts", `{"id":"a","type":"hello","payload":{` + minimalHello + `}}`, func(h wire.Hello) bool { return h.ID == "a" }},
		{"a byte order mark", "\xef\xbb\xbf" + string(hello(minimalHello)), func(h wire.Hello) bool { return h.ID == "hello_1" }},
		{"versions as numbers", string(hello(`"protocol_version":2,"agent_version":1.13,"framework":"bare"`)), func(h wire.Hello) bool { return h.AgentVersion == "1.13" }},
		{"an empty version", string(hello(`"protocol_version":"2","agent_version":"","framework":"bare"`)), func(h wire.Hello) bool { return h.AgentVersion == "" }},
		{"a pid as text", string(hello(minimalHello + `,"worker_pid":"4711"`)), func(h wire.Hello) bool { return h.WorkerPID == nil }},
		{"a pid beyond 31 bits", string(hello(minimalHello + `,"worker_pid":2147483648`)), func(h wire.Hello) bool { return h.WorkerPID == nil }},
		{"a start that is no time", string(hello(minimalHello + `,"worker_started_at":"yesterday"`)), func(h wire.Hello) bool { return h.WorkerStartedAt == 0 }},
		{"a role that is a list", string(hello(minimalHello + `,"worker_role":[]`)), func(h wire.Hello) bool { return h.WorkerRole == "" }},
		{"a host that is text", string(hello(minimalHello + `,"host":"x"`)), func(h wire.Hello) bool { return h.HostName == "" && h.Host == nil }},
		{"a host name that is a number", string(hello(minimalHello + `,"host":{"name":7}`)), func(h wire.Hello) bool { return h.HostName == "" }},
		{
			"null everywhere", string(hello(minimalHello + `,"engines":null,"capabilities":null,"host":null,"worker_id":null,"worker_role":null,"worker_pid":null`)),
			func(h wire.Hello) bool { return h.WorkerID == nil && h.Engines == nil },
		},
		{"NUL and half a pair in a name", string(hello(minimalHello + `,"worker_id":"a\u0000\ud83d"`)), func(h wire.Hello) bool { return *h.WorkerID == "a\ufffd\ufffd" }},
	}
	for _, tt := range tests {
		h, err := wire.ParseHello([]byte(tt.raw))
		if err != nil || !tt.ok(h) {
			t.Errorf("%s: got %+v, %v, want it taken", tt.name, h, err)
		}
	}
}

func TestParseHelloNamesTheField(t *testing.T) {
	long := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	list := func(n int, item string) string {
		return "[" + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + "]"
	}
	tests := []struct {
		raw, want string
		kind      error
	}{
		{``, "not a frame", wire.ErrHello},
		{`{`, "no key where a member should be at byte 1", wire.ErrHello},
		{`[]`, "type is not", wire.ErrHello},
		{`{"type":"heartbeat"}`, `type is not "hello"`, wire.ErrHello},
		{`{"type":"hello","v":3}`, "v is not 2", wire.ErrHello},
		{`{"type":"hello","v":2}`, "payload is not an object", wire.ErrHello},
		{`{"type":"hello","v":2,"payload":{` + minimalHello + `}}`, "id is not a text of 1 to 64 characters", wire.ErrHello},
		{`{"type":"hello","id":` + long(65) + `,"payload":{` + minimalHello + `}}`, "id is not a text of 1 to 64 characters", wire.ErrHello},
		{string(hello(``)), "payload.protocol_version is missing", wire.ErrHello},
		{string(hello(`"protocol_version":"3"`)), `unsupported protocol_version "3", want "2"`, wire.ErrVersion},
		{string(hello(`"protocol_version":1`)), `unsupported protocol_version "1"`, wire.ErrVersion},
		{string(hello(`"protocol_version":"2.1"`)), `unsupported protocol_version "2.1"`, wire.ErrVersion},
		{string(hello(`"protocol_version":{}`)), "payload.protocol_version is not text", wire.ErrHello},
		{string(hello(`"protocol_version":"2"`)), "payload.agent_version is missing", wire.ErrHello},
		{string(hello(`"protocol_version":"2","agent_version":` + long(41))), "payload.agent_version has more than 40 characters", wire.ErrHello},
		{string(hello(`"protocol_version":"2","agent_version":"1"`)), "payload.framework is missing", wire.ErrHello},
		{string(hello(minimalHello + `,"framework":` + long(41))), "payload.framework has more than 40 characters", wire.ErrHello},
		{string(hello(minimalHello + `,"engines":"rq"`)), "payload.engines is not a list", wire.ErrHello},
		{string(hello(minimalHello + `,"engines":[1]`)), "payload.engines holds something that is not text", wire.ErrHello},
		{string(hello(minimalHello + `,"schedulers":` + list(65, `"a"`))), "payload.schedulers has more than 64 items", wire.ErrHello},
		{string(hello(minimalHello + `,"runtime_features":` + list(1, long(81)))), "payload.runtime_features holds a text of more than 80 characters", wire.ErrHello},
		{string(hello(minimalHello + `,"capabilities":[]`)), "payload.capabilities is not an object", wire.ErrHello},
		{string(hello(minimalHello + `,"capabilities":{"a":{}}`)), "payload.capabilities is not a list", wire.ErrHello},
		{string(hello(minimalHello + `,"capabilities":{"a":` + list(257, `"a"`) + `}`)), "payload.capabilities has more than 256 items", wire.ErrHello},
		{string(hello(minimalHello + `,"worker_id":7`)), "payload.worker_id is not text", wire.ErrHello},
		{string(hello(minimalHello + `,"worker_id":` + long(129))), "payload.worker_id has more than 128 characters", wire.ErrHello},
		{string(hello(minimalHello + `,"worker_role":` + long(33))), "payload.worker_role has more than 32 characters", wire.ErrHello},
		{string(hello(minimalHello + `,"host":{"name":` + long(256) + `}`)), "payload.host.name has more than 255 characters", wire.ErrHello},
		{string(hello(minimalHello + `,"host":{"x":` + long(9000) + `}`)), "payload.host has more than 8192 bytes", wire.ErrHello},
		{string(hello(minimalHello)) + strings.Repeat(" ", wire.MaxFrame), "want at most 1048576", wire.ErrHello},
	}
	for _, tt := range tests {
		_, err := wire.ParseHello([]byte(tt.raw))
		if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.120s: got %v, want %s", tt.raw, err, tt.want)
		}
	}
}

// A worker that is named like a sentinel must not be taken for one without a name.
func TestLessonE10WorkerWithoutIDIsApart(t *testing.T) {
	for _, tt := range []struct {
		field string
		want  *string
	}{{`null`, nil}, {`""`, new(string)}, {`"null"`, ptr("null")}} {
		h, err := wire.ParseHello(hello(minimalHello + `,"worker_id":` + tt.field))
		if err != nil || (h.WorkerID == nil) != (tt.want == nil) || tt.want != nil && *h.WorkerID != *tt.want {
			t.Errorf("worker_id %s: got %v, %v, want %v", tt.field, h.WorkerID, err, tt.want)
		}
	}
}

func ptr[T any](v T) *T { return &v }

func TestHelloAckHasExactTypes(t *testing.T) {
	a := wire.HelloAck{BrainVersion: "1.13.0", AgentID: benchKeys.AgentID, ProjectID: benchKeys.ProjectID, SessionID: benchKeys.SessionID}
	got := string(a.Append([]byte("kept"), testNow))
	want := `kept{"v":2,"id":"hack_b7a4a2d05a2e","ts":"2026-03-14T09:26:53.589793Z","type":"hello_ack","payload":{"protocol_version":"2","brain_version":"1.13.0",` +
		`"agent_id":"8f6b1c1e-3a0f-4c55-9a57-0d6b5f3c2a11","project_id":"3c9d7e52-7b1a-4f0e-8f4d-6a2b91c0de77",` +
		`"session_id":"b7a4a2d0-5a2e-4e0b-9c1d-2f3e4d5c6b7a","heartbeat_interval_seconds":10,"max_frame_size_bytes":1048576}}`
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	back, err := wire.ParseHelloAck([]byte(want[len("kept"):]))
	a.HeartbeatInterval, a.MaxFrame = wire.HeartbeatInterval, wire.MaxFrame
	if err != nil || back != a {
		t.Errorf("read back: got %+v, %v, want %+v", back, err, a)
	}
	for _, bad := range []string{`{}`, `{"type":"hello_ack","v":2.0}`, strings.Replace(want[4:], `"2"`, `"3"`, 1), strings.Replace(want[4:], `:10,`, `:"10",`, 1), `{`} {
		if _, err := wire.ParseHelloAck([]byte(bad)); err == nil {
			t.Errorf("%.60s: got a hello_ack, want an error", bad)
		}
	}
}

func FuzzParseHello(f *testing.F) {
	for _, file := range recordings(f) {
		for _, r := range readRecording(f, file) {
			if bytes.Contains([]byte(r.Raw), []byte(`"type":"hello",`)) {
				f.Add([]byte(r.Raw))
				break
			}
		}
	}
	f.Add(hello(minimalHello + `,"capabilities":{"a":["b"]},"host":{"name":"\ud83d\u0000"},"worker_id":"\udead"`))
	f.Add([]byte(`{"type":"hello","payload":{"engines":[`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := wire.ParseHello(raw)
		if err != nil {
			if !errors.Is(err, wire.ErrHello) && !errors.Is(err, wire.ErrVersion) || !utf8.ValidString(err.Error()) {
				t.Fatalf("%q: got %q, want an ErrHello or ErrVersion in valid text", raw, err)
			}
			return
		}
		written := h.Append(nil)
		if !json.Valid(written) || !utf8.Valid(written) || bytes.Contains(written, []byte(`\u0000`)) && !bytes.Contains(raw, []byte(`\\u0000`)) {
			t.Fatalf("%q: written as %q, want valid text without NUL", raw, written)
		}
		again, err := wire.ParseHello(written)
		if err != nil || !bytes.Equal(again.Append(nil), written) {
			t.Fatalf("%q: written as %q, read again: %v", raw, written, err)
		}
	})
}
