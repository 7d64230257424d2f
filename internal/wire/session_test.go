package wire_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/wire"
)

func isOneOf(err error, want []error) bool {
	return slices.ContainsFunc(want, func(w error) bool { return errors.Is(err, w) })
}

func itoa(n int) string { return strconv.Itoa(n) }

func hexText(b []byte) string { return hex.EncodeToString(b) }

var testNow = time.Date(2026, 3, 14, 9, 26, 53, 589793000, time.UTC)

// signedBy makes a frame of members and of the canonical bytes that its sender hashed between them and the ids.
func signedBy(t testing.TB, k wire.Keys, members string, canonical string) []byte {
	t.Helper()
	canonical = strings.NewReplacer("$agent", k.AgentID, "$project", k.ProjectID, "$session", k.SessionID).Replace(canonical)
	mac := hmac.New(sha256.New, k.Secret)
	mac.Write([]byte(canonical))
	return []byte(`{"hmac":"` + hex.EncodeToString(mac.Sum(nil)) + `",` + members + `}`)
}

// signed makes a frame of members that are sorted and canonical already, but for the ids between.
func signed(t testing.TB, k wire.Keys, id, nonce, payload, seq, ts, typ string) []byte {
	t.Helper()
	members := fmt.Sprintf(`"id":%s,"nonce":%s,"payload":%s,"seq":%s,"ts":%s,"type":%s,"v":2`, id, nonce, payload, seq, ts, typ)
	canonical := fmt.Sprintf(`{"agent_id":"$agent","id":%s,"nonce":%s,"payload":%s,"project_id":"$project","seq":%s,"session_id":"$session","ts":%s,"type":%s,"v":2}`,
		id, nonce, payload, seq, ts, typ)
	return signedBy(t, k, members, canonical)
}

const testTS = `"2026-03-14T09:26:53.589793Z"`

func TestVerifySaysWhatIsWrong(t *testing.T) {
	k := benchKeys
	good := signed(t, k, `"a"`, `"n"`, `{}`, `1`, testTS, `"heartbeat"`)
	tests := []struct {
		name string
		raw  []byte
		want error // nil: accepted
	}{
		{"a plain frame", good, nil},
		{"a byte order mark before it", append([]byte("\xef\xbb\xbf"), good...), nil},
		{"white space around it", []byte(" \t" + string(good) + "\r\n"), nil},
		{"nothing", nil, wire.ErrProtocol},
		{"text after it", append(bytes.Clone(good), 'x'), wire.ErrProtocol},
		{"a list", []byte(`[1]`), wire.ErrProtocol},
		{"a number", []byte(`2`), wire.ErrProtocol},
		{"NaN", []byte(`{"v":2,"type":"heartbeat","payload":{"a":NaN}}`), wire.ErrProtocol},
		{"Infinity", []byte(`{"v":2,"type":"heartbeat","payload":{"a":-Infinity}}`), wire.ErrProtocol},
		{"a leading zero", []byte(`{"v":02,"type":"heartbeat"}`), wire.ErrProtocol},
		{"a control character in a text", []byte("{\"v\":2,\"type\":\"heart\tbeat\"}"), wire.ErrProtocol},
		{"too deep", []byte(`{"v":2,"type":"heartbeat","payload":` + strings.Repeat("[", 600) + strings.Repeat("]", 600) + `}`), wire.ErrProtocol},
		{"too large", append(bytes.Clone(good), bytes.Repeat([]byte(" "), wire.MaxFrame)...), wire.ErrProtocol},
		{"no type", []byte(`{"v":2}`), wire.ErrProtocol},
		{"type is a number", []byte(`{"v":2,"type":7}`), wire.ErrProtocol},
		{"no v", []byte(`{"type":"heartbeat"}`), wire.ErrProtocol},
		{"v is 2.0", []byte(`{"v":2.0,"type":"heartbeat"}`), wire.ErrProtocol},
		{"v is text", []byte(`{"v":"2","type":"heartbeat"}`), wire.ErrProtocol},
		{"hello", []byte(`{"v":2,"type":"hello"}`), wire.ErrHandshake},
		{"hello_ack", []byte(`{"v":2,"type":"hello_ack"}`), wire.ErrHandshake},
		{"hmac is a number", []byte(`{"v":2,"type":"heartbeat","hmac":1}`), wire.ErrSignature},
		{"an unknown type, unsigned", []byte(`{"v":2,"type":"shiny","hmac":"` + strings.Repeat("0", 64) + `"}`), wire.ErrSignature},
		{"an unknown type", signed(t, k, `"a"`, `"n"`, `{}`, `1`, testTS, `"shiny"`), wire.ErrUnknownType},
		{"payload is text", signed(t, k, `"a"`, `"n"`, `"{}"`, `1`, testTS, `"heartbeat"`), wire.ErrContent},
		{"payload is null", signed(t, k, `"a"`, `"n"`, `null`, `1`, testTS, `"heartbeat"`), nil},
		{"id is null", signed(t, k, `null`, `"n"`, `{}`, `1`, testTS, `"heartbeat"`), wire.ErrContent},
		{"id is empty", signed(t, k, `""`, `"n"`, `{}`, `1`, testTS, `"heartbeat"`), wire.ErrContent},
		{"id of 64 characters", signed(t, k, `"`+strings.Repeat("é", 64)+`"`, `"n"`, `{}`, `1`, testTS, `"heartbeat"`), nil},
		{"id of 65 characters", signed(t, k, `"`+strings.Repeat("é", 65)+`"`, `"n"`, `{}`, `1`, testTS, `"heartbeat"`), wire.ErrContent},
		{"no seq", signed(t, k, `"a"`, `"n"`, `{}`, `null`, testTS, `"heartbeat"`), wire.ErrReplay},
		{"seq is text", signed(t, k, `"a"`, `"n"`, `{}`, `"1"`, testTS, `"heartbeat"`), wire.ErrReplay},
		{"seq is true", signed(t, k, `"a"`, `"n"`, `{}`, `true`, testTS, `"heartbeat"`), wire.ErrReplay},
		{"seq is negative", signed(t, k, `"a"`, `"n"`, `{}`, `-1`, testTS, `"heartbeat"`), wire.ErrReplay},
		{"seq beyond 63 bits", signed(t, k, `"a"`, `"n"`, `{}`, `9223372036854775808`, testTS, `"heartbeat"`), wire.ErrReplay},
		{"nonce is a number", signed(t, k, `"a"`, `1`, `{}`, `1`, testTS, `"heartbeat"`), wire.ErrReplay},
		{"ts is a number", signed(t, k, `"a"`, `"n"`, `{}`, `1`, `1773480413`, `"heartbeat"`), wire.ErrStale},
		{"ts is a word", signed(t, k, `"a"`, `"n"`, `{}`, `1`, `"now"`, `"heartbeat"`), wire.ErrStale},
		{"ts with an offset and nine digits", signed(t, k, `"a"`, `"n"`, `{}`, `1`, `"2026-03-14T14:56:53.589793999+05:30"`, `"heartbeat"`), nil},
		{"exactly 60 s old", signed(t, k, `"a"`, `"n"`, `{}`, `1`, `"2026-03-14T09:25:53.589793Z"`, `"heartbeat"`), nil},
		{"60 s and 1 µs old", signed(t, k, `"a"`, `"n"`, `{}`, `1`, `"2026-03-14T09:25:53.589792Z"`, `"heartbeat"`), wire.ErrStale},
		{"exactly 60 s ahead", signed(t, k, `"a"`, `"n"`, `{}`, `1`, `"2026-03-14T09:27:53.589793Z"`, `"heartbeat"`), nil},
		{"60 s and 1 µs ahead", signed(t, k, `"a"`, `"n"`, `{}`, `1`, `"2026-03-14T09:27:53.589794Z"`, `"heartbeat"`), wire.ErrStale},
		{"a year of its own", signed(t, k, `"a"`, `"n"`, `{}`, `1`, `"9999-12-31T23:59:59Z"`, `"heartbeat"`), wire.ErrStale},
	}
	for _, tt := range tests {
		f, err := session(t, k).Verify(tt.raw, testNow)
		if tt.want == nil && err != nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if err == nil && (f.Type != "heartbeat" || f.ID == "" || f.Seq != 1) {
			t.Errorf("%s: got %+v, want the frame's members", tt.name, f)
		}
	}
}

func TestVerifyReadsTheLastOfEqualKeys(t *testing.T) {
	k := benchKeys
	raw := signedBy(t, k,
		`"v":3,"type":"x","payload":[1],"seq":9,"id":"b","ts":null,"nonce":"","agent_id":"other",`+
			`"\u0074ype":"heartbeat","v":2,"payload":{"z":1,"a":{"c":1,"b":2},"z":2},"seq":1,"id":"a","ts":`+testTS+`,"nonce":"n","hmac":"0","hm\u0061c":"$"`,
		`{"agent_id":"$agent","id":"a","nonce":"n","payload":{"a":{"b":2,"c":1},"z":2},"project_id":"$project","seq":1,"session_id":"$session","ts":`+testTS+`,"type":"heartbeat","v":2}`)
	sum := raw[len(`{"hmac":"`):][:64]
	raw = bytes.Replace(raw, []byte(`"$"`), []byte(`"`+string(sum)+`"`), 1)
	f, err := session(t, k).Verify(raw, testNow)
	if err != nil {
		t.Fatalf("got %v, want a frame", err)
	}
	if f.Type != "heartbeat" || f.ID != "a" || f.Seq != 1 || string(f.Payload) != `{"z":1,"a":{"c":1,"b":2},"z":2}` {
		t.Errorf("got %+v with payload %s, want the last members", f, f.Payload)
	}
}

func TestSkewIsMeasured(t *testing.T) {
	k := benchKeys
	raw := signed(t, k, `"a"`, `"n"`, `{}`, `1`, testTS, `"heartbeat"`)
	for _, off := range []time.Duration{61 * time.Second, -2 * time.Hour} {
		_, err := session(t, k).Verify(raw, testNow.Add(off))
		var skew *wire.SkewError
		if !errors.As(err, &skew) || skew.Skew != off || !errors.Is(err, wire.ErrStale) {
			t.Errorf("a frame of %v ago: got %v, want a SkewError of that", off, err)
		}
	}
}

func TestUnknownTypeAndWrongPayloadConsumeTheirNumber(t *testing.T) {
	k := benchKeys
	s := session(t, k)
	for i, frame := range [][]byte{
		signed(t, k, `"a"`, `"n1"`, `{}`, `5`, testTS, `"shiny"`),
		signed(t, k, `"a"`, `"n2"`, `7`, `6`, testTS, `"heartbeat"`),
	} {
		f, err := s.Verify(frame, testNow)
		if !isOneOf(err, []error{wire.ErrUnknownType, wire.ErrContent}) || f.ID != "a" {
			t.Errorf("frame %d: got %+v, %v, want it with its id, to be skipped", i, f, err)
		}
		if _, err := s.Verify(frame, testNow); !errors.Is(err, wire.ErrReplay) {
			t.Errorf("frame %d again: got %v, want %v", i, err, wire.ErrReplay)
		}
	}
}

func TestRejectedFramesChangeNothing(t *testing.T) {
	k := benchKeys
	s := session(t, k)
	good := signed(t, k, `"a"`, `"n"`, `{}`, `1`, testTS, `"heartbeat"`)
	other := k
	other.Secret = bytes.Repeat([]byte("x"), 32)
	for _, bad := range [][]byte{
		signed(t, other, `"a"`, `"n"`, `{}`, `9`, testTS, `"heartbeat"`),
		signed(t, k, `"a"`, `"n"`, `{}`, `9`, `"2026-03-14T09:00:00Z"`, `"heartbeat"`),
		signed(t, k, `"a"`, `""`, `{}`, `9`, testTS, `"heartbeat"`),
		bytes.ToUpper(good),
		[]byte(`{"type":"hello","seq":9,"nonce":"n"}`),
		good[:len(good)-1],
	} {
		if _, err := s.Verify(bad, testNow); err == nil {
			t.Fatalf("%s: accepted, want an error", bad)
		}
	}
	if _, err := s.Verify(good, testNow); err != nil {
		t.Errorf("after rejected frames: got %v, want a frame", err)
	}
}

func TestNonceIsRememberedFor180Seconds(t *testing.T) {
	k := benchKeys
	s := session(t, k)
	verify := func(seq int, nonce string, after time.Duration) error {
		now := testNow.Add(after)
		ts := `"` + string(wire.AppendTime(nil, now)) + `"`
		_, err := s.Verify(signed(t, k, `"a"`, `"`+nonce+`"`, `{}`, itoa(seq), ts, `"heartbeat"`), now)
		return err
	}
	for i, step := range []struct {
		nonce string
		after time.Duration
		want  error
	}{
		{"x", 0, nil},
		{"y", time.Second, nil},
		{"x", 180 * time.Second, wire.ErrReplay},
		{"x", 181 * time.Second, nil},
	} {
		if err := verify(i+1, step.nonce, step.after); !errors.Is(err, step.want) {
			t.Errorf("nonce %s after %v: got %v, want %v", step.nonce, step.after, err, step.want)
		}
	}
}

func TestTypeOfAnotherTimeIsShortAndValid(t *testing.T) {
	k := benchKeys
	raw := signed(t, k, `"a"`, `"n"`, `{}`, `1`, testTS, `"`+strings.Repeat("ü", 1000)+`"`)
	f, err := session(t, k).Verify(raw, testNow)
	if !errors.Is(err, wire.ErrUnknownType) || f.Type != strings.Repeat("ü", 40) || f.ID != "a" {
		t.Errorf("got type %q, id %q, %v, want its first 80 bytes and %v", f.Type, f.ID, err, wire.ErrUnknownType)
	}
}

// The session id inside the signature keeps a frame from being replayed when counters have begun again.
func TestLessonE1FrameOfAnotherSessionIsRefused(t *testing.T) {
	old, fresh := benchKeys, benchKeys
	fresh.SessionID = "0c9a4a2d-5a2e-4e0b-9c1d-2f3e4d5c6b7a"
	raw := signed(t, old, `"a"`, `"n"`, `{}`, `1`, testTS, `"heartbeat"`)
	if _, err := session(t, old).Verify(raw, testNow); err != nil {
		t.Fatalf("in its own session: got %v, want a frame", err)
	}
	if _, err := session(t, fresh).Verify(raw, testNow); !errors.Is(err, wire.ErrSignature) {
		t.Errorf("in the next session: got %v, want %v", err, wire.ErrSignature)
	}
}

func TestLessonE2NumbersAreStrict(t *testing.T) {
	for _, text := range []string{
		`NaN`, `Infinity`, `-Infinity`, `1e400`, `-1e309`, `01`, `+1`, `1.`, `.5`, `1e`, `0x10`, `1_000`, `--1`, `-`, `1e+`, `1.e5`,
	} {
		for _, around := range []string{"%s", `{"a":%s}`, `[%s]`} {
			raw := fmt.Sprintf(around, text)
			if got, err := wire.Canonical(nil, []byte(raw)); !errors.Is(err, wire.ErrProtocol) {
				t.Errorf("%s: got %s, %v, want %v", raw, got, err, wire.ErrProtocol)
			}
		}
	}
}

// A peer may spoil its own session with a huge number, and nobody else's; what a session remembers stays small.
func TestLessonE15HugeSeqAndNonceFloodStayInTheirSession(t *testing.T) {
	k := benchKeys
	s := session(t, k)
	if _, err := s.Verify(signed(t, k, `"a"`, `"n"`, `{}`, `9223372036854775807`, testTS, `"heartbeat"`), testNow); err != nil {
		t.Fatalf("the largest number: got %v, want a frame", err)
	}
	if _, err := s.Verify(signed(t, k, `"a"`, `"m"`, `{}`, `2`, testTS, `"heartbeat"`), testNow); !errors.Is(err, wire.ErrReplay) {
		t.Errorf("a smaller number after it: got %v, want %v", err, wire.ErrReplay)
	}
	other := session(t, k)
	for i := range 5000 {
		if _, err := other.Verify(signed(t, k, `"a"`, `"n`+itoa(i)+`"`, `{}`, itoa(i+1), testTS, `"heartbeat"`), testNow); err != nil {
			t.Fatalf("frame %d of another session: got %v, want a frame", i, err)
		}
	}
	if n := wire.NonceCount(other); n > 64 {
		t.Errorf("after 5,000 frames: got %d nonces in memory, want at most 64", n)
	}
}

func TestIdleSessionsAreSmall(t *testing.T) {
	const sessions, most = 500, 4 << 10 // of the 32 KiB that a connection may take in all
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	raw := signed(t, benchKeys, `"a"`, `"n"`, `{}`, `1`, testTS, `"heartbeat"`)
	before := heap()
	var list []*wire.Session
	var buf []byte
	for range sessions {
		s := session(t, benchKeys)
		if _, err := s.Verify(raw, testNow); err != nil {
			t.Fatal(err)
		}
		var err error
		if buf, err = s.SignAck(buf[:0], wire.Ack{FrameID: "a"}, testNow); err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	if each := (heap() - before) / sessions; each > most {
		t.Errorf("a session that was used: got %d bytes, want at most %d", each, most)
	}
	runtime.KeepAlive(list)
}

func TestBothDirectionsAtOnce(t *testing.T) {
	brain, agent := session(t, benchKeys), session(t, benchKeys)
	var wg sync.WaitGroup
	frames := make(chan []byte, 8)
	wg.Go(func() {
		defer close(frames)
		for i := range 200 {
			f, err := agent.Sign(nil, wire.TypeHeartbeat, "hb_"+itoa(i), nil, testNow)
			if err != nil {
				t.Error(err)
				return
			}
			frames <- f
		}
	})
	wg.Go(func() {
		for f := range frames {
			if _, err := brain.Verify(f, testNow); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for range 200 {
			if _, err := brain.SignAck(nil, wire.Ack{FrameID: "a"}, testNow); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
}

func TestSignRefuses(t *testing.T) {
	tests := []struct {
		name, typ, id, payload string
		want                   error
	}{
		{"an unknown type, which costs a reconnect", "shiny", "a", `{}`, wire.ErrUnknownType},
		{"hello, which is unsigned", "hello", "a", `{}`, wire.ErrUnknownType},
		{"no id", "command", "", `{}`, wire.ErrContent},
		{"an id of 65 characters", "command", strings.Repeat("x", 65), `{}`, wire.ErrContent},
		{"an id that is no UTF-8", "command", "\xff", `{}`, wire.ErrContent},
		{"a payload that is a list", "command", "a", `[]`, wire.ErrContent},
		{"a payload that is no JSON", "command", "a", `{`, wire.ErrProtocol},
		{"an empty payload", "command", "a", ``, wire.ErrProtocol},
		{"a payload that is no UTF-8", "command", "a", "{\"a\":\"\xff\"}", wire.ErrProtocol},
		{"half a surrogate pair", "command", "a", `{"a":"\ud83d"}`, wire.ErrProtocol},
		{"infinity", "command", "a", `{"a":1e999}`, wire.ErrProtocol},
		{"a frame above the limit", "command", "a", `{"a":"` + strings.Repeat("x", wire.MaxFrame) + `"}`, wire.ErrTooLarge},
		{"a frame just above the limit", "command", "a", `{"a":"` + strings.Repeat("x", wire.MaxFrame-200) + `"}`, wire.ErrTooLarge},
	}
	s := session(t, benchKeys)
	for _, tt := range tests {
		got, err := s.Sign([]byte("kept"), tt.typ, tt.id, []byte(tt.payload), testNow)
		if !errors.Is(err, tt.want) || string(got) != "kept" {
			t.Errorf("%s: got %.40q, %v, want what was there and %v", tt.name, got, err, tt.want)
		}
	}
	frame, err := s.Sign(nil, "command", "a", nil, testNow)
	if err != nil || !bytes.Contains(frame, []byte(`"seq":1,`)) {
		t.Errorf("after refusals: got %s, %v, want a frame with seq 1", frame, err)
	}
	broken := benchKeys
	broken.Rand = iotestErr{}
	if _, err := session(t, broken).Sign(nil, "command", "a", nil, testNow); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("without randomness: got %v, want %v", err, io.ErrClosedPipe)
	}
	if _, err := wire.NewSession(wire.Keys{Secret: make([]byte, 31)}); err == nil {
		t.Error("a secret of 31 bytes: got a session, want an error")
	}
	if _, err := wire.NewSession(wire.Keys{Secret: make([]byte, 32), AgentID: "\xff"}); err == nil {
		t.Error("an id that is no UTF-8: got a session, want an error")
	}
}

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

// Agents up to 1.5.0 hash what their schema makes of a frame: every key, no other, and the time in one spelling only.
func TestAckHasTheOnlySpellingThatOldAgentsTake(t *testing.T) {
	k := benchKeys
	k.Rand = bytes.NewReader(make([]byte, 64))
	s := session(t, k)
	for i, tt := range []struct {
		now    time.Time
		ack    wire.Ack
		wantTS string
		wantID string
	}{
		{testNow, wire.Ack{FrameID: "ev_1", Received: 3, Accepted: 2, Rejected: 1}, "2026-03-14T09:26:53.589793Z", "eba_ev_1"},
		{testNow.Truncate(time.Second), wire.Ack{FrameID: "ev_2"}, "2026-03-14T09:26:53Z", "eba_ev_2"},
		{testNow.Truncate(100 * time.Millisecond), wire.Ack{FrameID: `"ü"`}, "2026-03-14T09:26:53.500000Z", `eba_"ü"`},
		{testNow.In(time.FixedZone("", 3600)), wire.Ack{FrameID: strings.Repeat("x", 64)}, "2026-03-14T09:26:53.589793Z", "eba_" + strings.Repeat("x", 60)},
	} {
		raw, err := s.SignAck(nil, tt.ack, tt.now)
		if err != nil {
			t.Errorf("ack of %s: %v", tt.ack.FrameID, err)
			continue
		}
		want := fmt.Sprintf(`{"v":2,"id":%s,"ts":"%s","nonce":"AAAAAAAAAAAAAAAAAAAAAA","seq":%d,"hmac":"#","type":"event_batch_ack",`+
			`"payload":{"accepted":%d,"acked_id":%s,"received":%d,"rejected":%d}}`,
			quote(tt.wantID), tt.wantTS, i+1, tt.ack.Accepted, quote(tt.ack.FrameID), tt.ack.Received, tt.ack.Rejected)
		from := bytes.Index(raw, []byte(`"hmac":"`)) + len(`"hmac":"`)
		if got := string(raw[:from]) + "#" + string(raw[from+64:]); got != want {
			t.Errorf("ack of %s: got %s, want %s", tt.ack.FrameID, got, want)
		}
		if _, err := session(t, benchKeys).Verify(raw, tt.now); err != nil {
			t.Errorf("ack of %s at the agent: got %v, want a frame", tt.ack.FrameID, err)
		}
	}
	if _, err := s.SignAck(nil, wire.Ack{}, testNow); !errors.Is(err, wire.ErrContent) {
		t.Errorf("ack of no id: got %v, want %v", err, wire.ErrContent)
	}
}

func quote(text string) string { return `"` + strings.ReplaceAll(text, `"`, `\"`) + `"` }

func FuzzVerify(f *testing.F) {
	v := loadVectors(f)
	for _, p := range v.Positive {
		f.Add([]byte(p.Frame))
	}
	for _, n := range v.Negative {
		f.Add([]byte(n.Steps[0].Frame))
	}
	f.Add(signed(f, benchKeys, `"\ud83d"`, `"n"`, `{"events":[{"kind":"\ud83d"}]}`, `1`, testTS, `"event_batch"`))
	f.Add([]byte(`{"hmac":"","hmac":1,"v":2,"type":"heartbeat","payload":{"b":[{"d":1,"c":2}],"a":1}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		known := []error{
			wire.ErrProtocol, wire.ErrSignature, wire.ErrReplay, wire.ErrStale, wire.ErrHandshake, wire.ErrUnknownType, wire.ErrContent,
		}
		s := session(t, benchKeys)
		frame, err := s.Verify(raw, testNow)
		if err != nil && !isOneOf(err, known) {
			t.Fatalf("%q: got %v, want one of the known errors", raw, err)
		}
		if err == nil && (frame.ID == "" || frame.Seq < 1 || frame.Payload != nil && !wire.IsObject(frame.Payload)) {
			t.Fatalf("%q: got %+v, want a whole frame", raw, frame)
		}
		// Signed anew, what a frame says must come through unharmed, and nothing but it.
		payload, canonErr := wire.Canonical(nil, raw)
		if canonErr != nil || payload[0] != '{' {
			return
		}
		agent := session(t, benchKeys)
		again, signErr := agent.Sign(nil, wire.TypeHeartbeat, "a", raw, testNow)
		if signErr != nil {
			if !errors.Is(signErr, wire.ErrTooLarge) {
				t.Fatalf("%q: sign: %v", raw, signErr)
			}
			return
		}
		fresh := session(t, benchKeys)
		back, err := fresh.Verify(again, testNow)
		if err != nil || !bytes.Equal(back.Payload, payload) {
			t.Fatalf("%q: signed as %q, verified: %s, %v", raw, again, back.Payload, err)
		}
		if _, err := fresh.Verify(again, testNow); !errors.Is(err, wire.ErrReplay) {
			t.Fatalf("%q: a second time: %v, want %v", raw, err, wire.ErrReplay)
		}
	})
}
