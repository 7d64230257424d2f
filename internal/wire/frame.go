package wire

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Types of frames. hello and hello_ack are unsigned.
const (
	TypeHello         = "hello"
	TypeHelloAck      = "hello_ack"
	TypeEventBatch    = "event_batch"
	TypeEventBatchAck = "event_batch_ack"
	TypeHeartbeat     = "heartbeat"
	TypeAgentStatus   = "agent_status"
	TypeCommand       = "command"
	TypeCommandAck    = "command_ack"
	TypeCommandResult = "command_result"
	TypeRegistryDelta = "registry_delta"
	TypeError         = "error"
)

// What Verify says of a frame beside ErrProtocol. After ErrProtocol a connection closes with CloseProtocol, after
// ErrSignature, ErrReplay and ErrStale with CloseSignature; the others are counted and the frame is skipped.
var (
	// ErrSignature says that the hmac is missing or is not what our secret and ids give.
	ErrSignature = errors.New("wrong signature")
	// ErrReplay says that a correctly signed frame has no sequence number or nonce, or one that was there before.
	ErrReplay = errors.New("replayed frame")
	// ErrStale says that a correctly signed frame's time is missing, has no zone, or is further off than Window; in
	// the last case the error is a SkewError.
	ErrStale = errors.New("frame out of its time")
	// ErrHandshake says that the frame is a hello or hello_ack, which nobody signs: it proves nothing, not even life.
	ErrHandshake = errors.New("handshake frame in a session")
	// ErrUnknownType says that a correctly signed frame has a type that is not known here.
	ErrUnknownType = errors.New("unknown frame type")
	// ErrContent says that a correctly signed frame has a payload that is no object, or no id that an answer could name.
	ErrContent = errors.New("unusable frame")
)

// SkewError is an ErrStale that knows how far the sender's clock is from ours: positive if the frame is from the past.
type SkewError struct{ Skew time.Duration }

func (e *SkewError) Error() string {
	if e.Skew < 0 {
		return fmt.Sprintf("%v: %v ahead of our clock", ErrStale, -e.Skew)
	}
	return fmt.Sprintf("%v: %v behind our clock", ErrStale, e.Skew)
}

// Is makes a SkewError an ErrStale.
func (e *SkewError) Is(target error) bool { return target == ErrStale }

// Frame is a verified frame.
type Frame struct {
	Type string
	ID   string // what an ack or a command names
	Seq  int64
	TS   int64 // µs: when the sender signed it, within Window of our clock
	// Payload is the payload's text as it came, a part of the message that was given to Verify; nil stands for {}.
	Payload []byte
}

// knownType returns the constant for the name of a signed type, or "".
func knownType(name []byte) string {
	switch string(name) {
	case TypeEventBatch:
		return TypeEventBatch
	case TypeHeartbeat:
		return TypeHeartbeat
	case TypeAgentStatus:
		return TypeAgentStatus
	case TypeEventBatchAck:
		return TypeEventBatchAck
	case TypeCommand:
		return TypeCommand
	case TypeCommandAck:
		return TypeCommandAck
	case TypeCommandResult:
		return TypeCommandResult
	case TypeRegistryDelta:
		return TypeRegistryDelta
	case TypeError:
		return TypeError
	}
	return ""
}

// envelope is what the outermost object of a frame holds, each value in canonical spelling; nil is absent.
type envelope struct {
	v, typ, id, ts, nonce, seq, hmac []byte
	payload                          []byte // as it came
}

// envelope reads the members of a frame that document has scanned; of equal keys the last counts.
func (s *scanner) envelope() (e envelope) {
	for i := range s.top {
		m := &s.top[i]
		value := s.out[m.colon+1 : m.end]
		switch string(s.key(&m.member)) {
		case "v":
			e.v = value
		case "type":
			e.typ = value
		case "id":
			e.id = value
		case "ts":
			e.ts = value
		case "nonce":
			e.nonce = value
		case "seq":
			e.seq = value
		case "hmac":
			e.hmac = value
		case "payload":
			e.payload = s.raw[m.rawStart:m.rawEnd]
		}
	}
	return e
}

// inside returns what lies between the quotes of a canonical string, and false for another value.
func inside(value []byte) ([]byte, bool) {
	if len(value) < 2 || value[0] != '"' {
		return nil, false
	}
	return value[1 : len(value)-1], true
}

// frameID reads an id that an answer can name: 1 to MaxID characters of valid text.
func frameID(value []byte) (string, bool) {
	text, ok := inside(value)
	if !ok || len(text) == 0 || len(text) > MaxID*6 {
		return "", false
	}
	var buf [MaxID * 6]byte
	id := appendUnescaped(buf[:0], text)
	if !utf8.Valid(id) || len(id) > MaxID && utf8.RuneCount(id) > MaxID {
		return "", false
	}
	return string(id), true
}

// bom is what some writers put before UTF-8; the published verifiers take it too.
const bom = "\xef\xbb\xbf"

func withoutBOM(raw []byte) []byte {
	if len(raw) >= len(bom) && string(raw[:len(bom)]) == bom {
		return raw[len(bom):]
	}
	return raw
}

// frame reads the text, of at most most bytes, as a frame whose signature covers bind.
func (s *scanner) frame(bind *binding, most int) (envelope, error) {
	s.bind = bind
	if len(s.raw) > most {
		return envelope{}, fmt.Errorf("%w: %d bytes, want at most %d", ErrProtocol, len(s.raw), most)
	}
	s.space()
	if s.at < len(s.raw) && s.raw[s.at] != '{' {
		return envelope{}, s.fail("no object")
	}
	if err := s.document(); err != nil {
		return envelope{}, err
	}
	return s.envelope(), nil
}
