package wire

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/maphash"
	"io"
	"strconv"
	"time"
	"unicode/utf8"
)

// Keys is what both ends of a session mix into each signature. The ids are signed as the texts they are.
type Keys struct {
	Secret    []byte // of the project, at least MinSecret bytes
	AgentID   string
	ProjectID string
	SessionID string // from hello_ack, fresh for each connection; over long-poll the client's nonce

	Rand     io.Reader // for nonces; nil: crypto/rand
	MaxFrame int       // bytes of a frame that Verify takes, as hello_ack told; 0: MaxFrame
}

// Session verifies what one peer sends and signs what is sent to it. Either end may use it: each direction has its own
// counter. Verify belongs to the one goroutine that reads; Sign and SignAck to whoever holds the lock under which the
// result is written to the connection, since the peer refuses a sequence number that comes out of order. Reader and
// writer need no lock between them.
type Session struct {
	bind  binding
	most  int // bytes of a frame
	seed  maphash.Seed
	in    hash.Hash // the reader's
	inSum [sha256.Size]byte
	seen  []nonce // a ring of at most maxNonces
	next  int     // where the ring goes on
	last  int64   // the highest sequence number taken

	out    hash.Hash // the writer's
	outSum [sha256.Size]byte
	random io.Reader
	nonce  [16]byte
	seq    int64 // the last given
}

// nonce is one that was taken: a keyed hash of it, and when, in µs.
type nonce struct {
	hash uint64
	at   int64
}

// NewSession starts a session.
func NewSession(k Keys) (*Session, error) {
	if len(k.Secret) < MinSecret {
		return nil, fmt.Errorf("session: secret of %d bytes, want at least %d", len(k.Secret), MinSecret)
	}
	for _, id := range []string{k.AgentID, k.ProjectID, k.SessionID} {
		if !utf8.ValidString(id) {
			return nil, errors.New("session: an id is no UTF-8")
		}
	}
	if k.Rand == nil {
		k.Rand = rand.Reader
	}
	s := &Session{
		most: cmp.Or(k.MaxFrame, MaxFrame), seed: maphash.MakeSeed(), random: k.Rand,
		in: hmac.New(sha256.New, k.Secret), out: hmac.New(sha256.New, k.Secret),
	}
	for i, one := range []struct{ key, id string }{
		{"agent_id", k.AgentID}, {"project_id", k.ProjectID}, {"session_id", k.SessionID},
	} {
		p := &s.bind.places[i]
		p.start = int32(len(s.bind.text))
		s.bind.text = appendQuoted(s.bind.text, one.key)
		p.colon = int32(len(s.bind.text))
		s.bind.text = append(s.bind.text, ':')
		s.bind.text = appendQuoted(s.bind.text, one.id)
		p.end = int32(len(s.bind.text))
		var prefix [8]byte
		copy(prefix[:], one.key)
		p.prefix = binary.BigEndian.Uint64(prefix[:])
	}
	return s, nil
}

// member returns the i-th of the ids as a canonical member.
func (b *binding) member(i int) []byte { return b.text[b.places[i].start:b.places[i].end] }

// Verify reads a frame and checks, in this order, that it is one, that the peer signed it for this session, and that
// it is neither replayed nor off our clock by more than Window. Only a frame that passes all that changes the session.
//
// With ErrUnknownType and ErrContent it has passed, and the frame is returned as far as it could be read. The payload
// is a part of raw, which therefore must not be used again.
func (s *Session) Verify(raw []byte, now time.Time) (Frame, error) {
	sc := newScanner(withoutBOM(raw), false)
	defer sc.release()
	e, err := sc.frame(&s.bind, s.most)
	if err != nil {
		return Frame{}, err
	}
	name, ok := inside(e.typ)
	if !ok {
		return Frame{}, fmt.Errorf("%w: type is not text", ErrProtocol)
	}
	if string(name) == TypeHello || string(name) == TypeHelloAck {
		return Frame{}, ErrHandshake
	}
	if string(e.v) != "2" {
		return Frame{}, fmt.Errorf("%w: v is not %d", ErrProtocol, Version)
	}
	if err := s.authenticate(sc, e); err != nil {
		return Frame{}, err
	}
	var f Frame
	if err := s.admit(&f, e, now.UnixMicro()); err != nil {
		return Frame{}, err
	}
	return f, f.fill(e, name)
}

// authenticate compares the frame's hmac with our own, in constant time.
func (s *Session) authenticate(sc *scanner, e envelope) error {
	var ours [2 * sha256.Size]byte
	claimed, ok := inside(e.hmac)
	if !ok || len(claimed) != len(ours) {
		return fmt.Errorf("%w: hmac is not %d hexadecimal digits", ErrSignature, len(ours))
	}
	sc.signed = sc.emit(sc.signed[:0], 0, int32(len(sc.out)), 0)
	s.in.Reset()
	s.in.Write(sc.signed)
	hex.Encode(ours[:], s.in.Sum(s.inSum[:0]))
	if subtle.ConstantTimeCompare(ours[:], claimed) != 1 {
		return ErrSignature
	}
	return nil
}

// admit checks that an authentic frame is new and of our time, and remembers it if so.
func (s *Session) admit(f *Frame, e envelope, now int64) error {
	seq, err := strconv.ParseInt(string(e.seq), 10, 64)
	if err != nil || seq < 1 {
		return fmt.Errorf("%w: seq is not an integer above 0", ErrReplay)
	}
	once, ok := inside(e.nonce)
	if !ok || len(once) == 0 {
		return fmt.Errorf("%w: no nonce", ErrReplay)
	}
	text, ok := inside(e.ts)
	if !ok {
		return fmt.Errorf("%w: no ts", ErrStale)
	}
	ts, ok := ParseTime(text)
	if !ok {
		return fmt.Errorf("%w: ts is not a time with a zone", ErrStale)
	}
	if skew := now - ts; skew > Window.Microseconds() || -skew > Window.Microseconds() {
		return &SkewError{Skew: time.Duration(max(min(skew, maxSkew), -maxSkew)) * time.Microsecond}
	}
	if seq <= s.last {
		return fmt.Errorf("%w: seq %d after %d", ErrReplay, seq, s.last)
	}
	hash := maphash.Bytes(s.seed, once)
	for _, n := range s.seen {
		if n.hash == hash && now-n.at <= nonceMemory.Microseconds() {
			return fmt.Errorf("%w: nonce seen before", ErrReplay)
		}
	}
	s.remember(nonce{hash, now})
	s.last = seq
	f.Seq, f.TS = seq, ts
	return nil
}

// maxSkew is what a time.Duration can say, in µs.
const maxSkew = int64(1<<63-1) / 1000

func (s *Session) remember(n nonce) {
	if len(s.seen) < maxNonces {
		s.seen = append(s.seen, n)
		return
	}
	s.seen[s.next] = n
	s.next = (s.next + 1) % maxNonces
}

// fill reads the rest of an admitted frame; name is its type in canonical spelling.
func (f *Frame) fill(e envelope, name []byte) error {
	var ok bool
	if f.Type = knownType(name); f.Type == "" {
		f.Type = unknownType(name)
	}
	if f.ID, ok = frameID(e.id); !ok {
		return fmt.Errorf("%w: id is not a text of 1 to %d characters", ErrContent, MaxID)
	}
	if knownType(name) == "" {
		return ErrUnknownType
	}
	switch {
	case len(e.payload) == 0 || string(e.payload) == "null":
	case e.payload[0] == '{':
		f.Payload = e.payload
	default:
		return fmt.Errorf("%w: payload is not an object", ErrContent)
	}
	return nil
}

// unknownType is a type of another time as text that a log can hold.
func unknownType(name []byte) string {
	const most = 80 // bytes; the longest known has 15
	text := appendValid(nil, appendUnescaped(nil, name[:min(len(name), 6*most)]))
	return string(appendValid(nil, text[:min(len(text), most)]))
}

// Sign appends a frame to dst, ready to be sent. The payload is the JSON of an object, nil for {}; it goes out in
// canonical spelling, so that what is signed is what is sent. Agents up to 1.5.0 refuse a payload that lacks a known
// key or has an unknown one. Nothing is counted if it fails. See Session for the lock.
func (s *Session) Sign(dst []byte, typ, id string, payload []byte, now time.Time) ([]byte, error) {
	if knownType([]byte(typ)) == "" {
		return dst, fmt.Errorf("sign %q: %w", typ, ErrUnknownType)
	}
	if id == "" || !utf8.ValidString(id) || utf8.RuneCountInString(id) > MaxID {
		return dst, fmt.Errorf("sign %s: %w: id is not a text of 1 to %d characters", typ, ErrContent, MaxID)
	}
	if payload == nil {
		payload = []byte("{}")
	}
	sc := newScanner(payload, true)
	defer sc.release()
	sc.space()
	if sc.at < len(payload) && payload[sc.at] != '{' {
		return dst, fmt.Errorf("sign %s: %w: payload is not an object", typ, ErrContent)
	}
	if err := sc.document(); err != nil {
		return dst, fmt.Errorf("sign %s: %w", typ, err)
	}
	sc.signed = sc.emit(sc.signed[:0], 0, int32(len(sc.out)), 0)
	return s.sign(dst, typ, id, sc, now)
}

// sign frames the canonical payload in sc.signed.
func (s *Session) sign(dst []byte, typ, id string, sc *scanner, now time.Time) ([]byte, error) {
	if _, err := io.ReadFull(s.random, s.nonce[:]); err != nil {
		return dst, fmt.Errorf("sign %s: nonce: %w", typ, err)
	}
	payload, seq, start := sc.signed, s.seq+1, len(dst)
	var buf [32]byte
	ts := AppendTime(buf[:0], now)
	env := sc.out[:0]
	env = append(append(env, '{'), s.bind.member(0)...)
	env = appendQuoted(append(env, `,"id":`...), id)
	env = base64.RawURLEncoding.AppendEncode(append(env, `,"nonce":"`...), s.nonce[:])
	env = append(append(env, `","payload":`...), payload...)
	env = append(append(env, ','), s.bind.member(1)...)
	env = strconv.AppendInt(append(env, `,"seq":`...), seq, 10)
	env = append(append(env, ','), s.bind.member(2)...)
	env = append(append(env, `,"ts":"`...), ts...)
	env = append(append(env, `","type":"`...), typ...)
	env = append(env, `","v":2}`...)
	sc.out = env
	s.out.Reset()
	s.out.Write(env)

	dst = appendQuoted(append(dst, `{"v":2,"id":`...), id)
	dst = append(append(dst, `,"ts":"`...), ts...)
	dst = base64.RawURLEncoding.AppendEncode(append(dst, `","nonce":"`...), s.nonce[:])
	dst = strconv.AppendInt(append(dst, `","seq":`...), seq, 10)
	dst = hex.AppendEncode(append(dst, `,"hmac":"`...), s.out.Sum(s.outSum[:0]))
	dst = append(append(dst, `","type":"`...), typ...)
	dst = append(append(dst, `","payload":`...), payload...)
	dst = append(dst, '}')
	if size := len(dst) - start; size > MaxFrame {
		return dst[:start], fmt.Errorf("sign %s: %w: %d bytes, want at most %d", typ, ErrTooLarge, size, MaxFrame)
	}
	s.seq = seq
	return dst, nil
}

// ErrTooLarge says that a frame would exceed MaxFrame.
var ErrTooLarge = errors.New("frame too large")

// Ack is what event_batch_ack says of a frame: Received events were looked at, Accepted were new, Rejected the rest.
type Ack struct {
	FrameID                      string
	Received, Accepted, Rejected int
}

// SignAck is Sign for an event_batch_ack. It is to be sent after the commit, for every copy of the frame, and only to
// agents that AckByID.
func (s *Session) SignAck(dst []byte, a Ack, now time.Time) ([]byte, error) {
	id := "eba_" + a.FrameID
	if len(id) > MaxID { // agents look at acked_id only
		cut := MaxID
		for !utf8.RuneStart(id[cut]) {
			cut--
		}
		id = id[:cut]
	}
	if a.FrameID == "" || !utf8.ValidString(a.FrameID) || utf8.RuneCountInString(a.FrameID) > MaxID {
		return dst, fmt.Errorf("sign ack: %w: acked id is not a text of 1 to %d characters", ErrContent, MaxID)
	}
	sc := newScanner(nil, true)
	defer sc.release()
	p := strconv.AppendInt(append(sc.signed[:0], `{"accepted":`...), int64(a.Accepted), 10)
	p = appendQuoted(append(p, `,"acked_id":`...), a.FrameID)
	p = strconv.AppendInt(append(p, `,"received":`...), int64(a.Received), 10)
	p = strconv.AppendInt(append(p, `,"rejected":`...), int64(a.Rejected), 10)
	sc.signed = append(p, '}')
	return s.sign(dst, TypeEventBatchAck, id, sc, now)
}
