package wire_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/z4j-go/z4j/internal/wire"
)

// record is one line of a recorded session.
type record struct {
	Kind      string            `json:"kind"`
	Dir       string            `json:"dir"`
	Transport string            `json:"transport"`
	Conn      int               `json:"conn"`
	Session   string            `json:"session"`
	Raw       string            `json:"raw"`
	Headers   map[string]string `json:"headers"`
	Secret    string            `json:"hmac_secret"`
}

func recordings(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/sessions/*.jsonl")
	if err != nil || len(files) != 12 {
		t.Fatalf("recorded sessions: got %d, %v, want 12", len(files), err)
	}
	return files
}

func readRecording(t testing.TB, file string) []record {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []record
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var r record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		list = append(list, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

// replay walks the frames of a recording with the session that each belongs to.
type replay struct {
	secret   []byte
	sessions map[string]*wire.Session
	keys     map[int]wire.Keys // by WebSocket connection
	longpoll wire.Keys
}

func newReplay(t testing.TB, head record) *replay {
	t.Helper()
	secret, err := wire.DecodeSecret(head.Secret)
	if err != nil {
		t.Fatal(err)
	}
	return &replay{secret: secret, sessions: map[string]*wire.Session{}, keys: map[int]wire.Keys{}}
}

// handshake takes what tells the ids, and reports whether r is no signed frame.
func (p *replay) handshake(t testing.TB, r record) bool {
	t.Helper()
	h := http.Header{}
	for name, value := range r.Headers {
		h.Set(name, value)
	}
	if agent := h.Get("X-Z4J-Agent-Id"); agent != "" {
		p.longpoll = wire.Keys{Secret: p.secret, AgentID: agent, ProjectID: h.Get("X-Z4J-Project-Id")}
	}
	if r.Kind != "frame" {
		return true
	}
	var f struct{ Type string }
	if err := json.Unmarshal([]byte(r.Raw), &f); err != nil {
		t.Fatal(err)
	}
	switch f.Type {
	case wire.TypeHello:
		return true
	case wire.TypeHelloAck:
		a, err := wire.ParseHelloAck([]byte(r.Raw))
		if err != nil {
			t.Fatal(err)
		}
		p.keys[r.Conn] = wire.Keys{Secret: p.secret, AgentID: a.AgentID, ProjectID: a.ProjectID, SessionID: a.SessionID}
		return true
	}
	return false
}

func (p *replay) session(t testing.TB, r record) (*wire.Session, boundVector) {
	t.Helper()
	k := p.keys[r.Conn]
	if r.Transport == "longpoll" {
		k = p.longpoll
		k.SessionID = r.Session
	}
	bound := boundVector{SecretHex: hexText(p.secret), AgentID: k.AgentID, ProjectID: k.ProjectID, SessionID: k.SessionID}
	name := k.SessionID + r.Dir
	if p.sessions[name] == nil {
		p.sessions[name] = session(t, k)
	}
	return p.sessions[name], bound
}

// tsOf reads a frame's ts without the code under test.
func tsOf(t testing.TB, raw string) string {
	t.Helper()
	var f struct{ TS string }
	if err := json.Unmarshal([]byte(raw), &f); err != nil {
		t.Fatal(err)
	}
	return f.TS
}

func TestRecordedFramesVerify(t *testing.T) {
	signed, fromBrain, events := 0, 0, 0
	for _, file := range recordings(t) {
		lines := readRecording(t, file)
		p := newReplay(t, lines[0])
		for n, r := range lines[1:] {
			if p.handshake(t, r) {
				continue
			}
			signed++
			name := filepath.Base(file) + " line " + itoa(n+2)
			s, bound := p.session(t, r)
			now := at(t, tsOf(t, r.Raw))
			changed := []byte(r.Raw)
			changed[bytes.LastIndexByte(changed, '"')-1] ^= 1 // a byte of the payload, or of its last key
			if _, err := s.Verify(changed, now); !isOneOf(err, []error{wire.ErrSignature, wire.ErrProtocol}) {
				t.Errorf("%s: with a changed byte got %v, want it refused", name, err)
			}
			f, err := s.Verify([]byte(r.Raw), now)
			if err != nil {
				t.Errorf("%s: got %v, want a frame", name, err)
				continue
			}
			if _, err := s.Verify([]byte(r.Raw), now); !isOneOf(err, []error{wire.ErrReplay}) {
				t.Errorf("%s: again got %v, want %v", name, err, wire.ErrReplay)
			}
			if r.Dir == "brain>agent" {
				fromBrain++
				resign(t, name, bound, []byte(r.Raw))
			}
			if f.Type == wire.TypeEventBatch {
				events += checkEvents(t, name, f.Payload)
			}
		}
	}
	if signed != 982 || fromBrain == 0 || events == 0 {
		t.Errorf("got %d signed frames, %d of them from the brain, %d events, want 982 and some", signed, fromBrain, events)
	}
}

// checkEvents compares Events with another reader.
func checkEvents(t testing.TB, name string, payload []byte) (n int) {
	t.Helper()
	var want struct {
		Events []struct {
			ID, Kind, Engine string
			TaskID           string `json:"task_id"`
			OccurredAt       string `json:"occurred_at"`
			Data             json.RawMessage
		}
	}
	if err := json.Unmarshal(payload, &want); err != nil {
		t.Fatal(err)
	}
	for e, err := range wire.Events(payload) {
		if err != nil {
			t.Errorf("%s: event %d: got %v, want none", name, n, err)
			return n
		}
		w := want.Events[n]
		if e.ID != w.ID || e.Kind != w.Kind || e.Engine != w.Engine || e.TaskID != w.TaskID || !bytes.Equal(e.Data, w.Data) {
			t.Errorf("%s: event %d: got %+v, want %+v", name, n, e, w)
		}
		if when := at(t, w.OccurredAt).UnixMicro(); !e.HasTime || e.OccurredAt != when {
			t.Errorf("%s: event %d: time got %d, %v, want %d", name, n, e.OccurredAt, e.HasTime, when)
		}
		n++
	}
	if n != len(want.Events) || wire.EventCount(payload) != n {
		t.Errorf("%s: got %d events, counted %d, want %d", name, n, wire.EventCount(payload), len(want.Events))
	}
	return n
}

func TestRecordedHandshakesAreRead(t *testing.T) {
	hellos := 0
	for _, file := range recordings(t) {
		for _, r := range readRecording(t, file) {
			if r.Kind != "frame" || !bytes.Contains([]byte(r.Raw), []byte(`"type":"hello",`)) {
				continue
			}
			hellos++
			h, err := wire.ParseHello([]byte(r.Raw))
			if err != nil {
				t.Errorf("%s: got %v, want a hello", file, err)
				continue
			}
			if h.WorkerID == nil || h.WorkerPID == nil || h.WorkerStartedAt == 0 || len(h.Engines) == 0 || len(h.Capabilities) == 0 {
				t.Errorf("%s: got %+v, want all that the frame says", file, h)
			}
			again, err := wire.ParseHello(h.Append(nil))
			if err != nil {
				t.Errorf("%s: written again: %v", file, err)
			}
			if got, want := again.Append(nil), h.Append(nil); !bytes.Equal(got, want) {
				t.Errorf("%s: written again: got %s, want %s", file, got, want)
			}
		}
	}
	if hellos < 12 {
		t.Errorf("got %d hellos, want one of each recording at least", hellos)
	}
}

func TestRecordedHeartbeatsAndStatusesAreRead(t *testing.T) {
	beats, statuses, workers := 0, 0, 0
	for _, file := range recordings(t) {
		lines := readRecording(t, file)
		p := newReplay(t, lines[0])
		for _, r := range lines[1:] {
			if p.handshake(t, r) {
				continue
			}
			s, _ := p.session(t, r)
			f, err := s.Verify([]byte(r.Raw), at(t, tsOf(t, r.Raw)))
			if err != nil {
				t.Fatal(err)
			}
			switch f.Type {
			case wire.TypeHeartbeat:
				beats++
				h := wire.ParseHeartbeat(f.Payload)
				if h.Unreadable != 0 || h.Dropped != 0 || h.BufferSize == nil {
					t.Errorf("%s: heartbeat %s: got %d unreadable, %d dropped, buffer %v, want 0, 0, a number", file, f.ID, h.Unreadable, h.Dropped, h.BufferSize)
				}
				for _, w := range h.Workers {
					workers++
					if w.Engine != "celery" || w.Name == "" || w.Concurrency == nil || w.PID == nil || w.Active == nil || len(w.Queues) == 0 ||
						len(w.Registered) == 0 || !json.Valid(w.Metadata) {
						t.Errorf("%s: heartbeat %s: worker got %+v, want all of it", file, f.ID, w)
					}
				}
			case wire.TypeAgentStatus:
				statuses++
				st := wire.ParseStatus(f.Payload)
				if st.AgentVersion == "" || st.BufferDepth == nil || st.AuthFailures == nil || len(st.Engines) == 0 {
					t.Errorf("%s: status %s: got %+v, want all of it", file, f.ID, st)
				}
			}
		}
	}
	if beats == 0 || statuses == 0 || workers == 0 {
		t.Errorf("got %d heartbeats, %d statuses, %d workers, want some of each", beats, statuses, workers)
	}
}
