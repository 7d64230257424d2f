package wire

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"unicode/utf8"
)

// ErrProtocol says that a frame is none: not JSON, not an object, of another version, or larger than a frame may be.
var ErrProtocol = errors.New("not a frame of this protocol")

// Canonical appends the canonical form of the JSON text raw to dst: the bytes that a signature covers. It refuses with
// ErrProtocol what is not JSON, nests deeper than MaxDepth, or can't be said in UTF-8 and float64: invalid bytes,
// lone surrogates, numbers that overflow.
//
// Keys are sorted by code point and the last of equal ones wins; integers keep their digits, other numbers are
// written as the shortest decimal that reads back the same.
func Canonical(dst, raw []byte) ([]byte, error) {
	s := newScanner(raw, true)
	defer s.release()
	if err := s.document(); err != nil {
		return dst, err
	}
	return s.emit(dst, 0, int32(len(s.out)), 0), nil
}

// A scanner reads a JSON text once and writes its values to out in canonical spelling, in the order in which they came.
// Of objects whose keys came unsorted it keeps the members' places; emit then copies out in the right order.
// So no byte is parsed twice, and none is copied more than twice however deep the objects nest. Text that is canonical
// as it stands is copied to out in long pieces: raw[from:at] is what still waits for that.
type scanner struct {
	raw      []byte
	from, at int
	strict   bool // refuse what is no Unicode and no float64

	out     []byte
	signed  []byte   // what emit makes of a frame
	objects []object // in the order in which they begin
	members []member // of the unsorted objects, sorted, each object's side by side
	open    []member // of the objects being read

	// For frames: what the signature binds, members already in canonical spelling; and what the envelope holds.
	bind *binding
	top  []topMember

	number [32]byte // a float64 in canonical spelling has at most 24 bytes
}

// object is one that has to be sorted, or holds one; start and end are its place in out.
type object struct {
	start, end  int32
	first, last int32 // its members
	next        int32 // the object that begins after it
	unsorted    bool
}

// member is a "key":value in out; the key lies between the quotes at start and colon-1.
type member struct {
	prefix            uint64 // the first eight bytes of what the key says, filled up with zeros: most keys differ there
	start, colon, end int32
	object            int32 // the first object that begins within it
	escaped           bool
}

// topMember is a member of the outermost object: its key and value in canonical spelling, and the value as it came.
type topMember struct {
	member
	rawStart, rawEnd int
}

// binding is the ids of a session as the three last members of an envelope.
type binding struct {
	text   []byte
	places [3]member // relative to text
}

// scanners keeps buffers between frames, so that an idle connection holds none. It is the package's only variable
// that changes, and has no state that anyone could observe.
var scanners = sync.Pool{New: func() any { return new(scanner) }}

// keep is the size, in bytes, of a buffer beyond which it is left to the collector: the frames of one event are under
// 1 KB, those of a heartbeat under 64.
const keep = 256 << 10

// maxText keeps places within 32 bits: 1e15 takes four bytes and eighteen in canonical spelling. Frames are far smaller.
const maxText = 64 << 20

func newScanner(raw []byte, strict bool) *scanner {
	s := scanners.Get().(*scanner)
	s.raw, s.from, s.at, s.strict = raw, 0, 0, strict
	return s
}

func (s *scanner) release() {
	s.raw, s.bind = nil, nil
	if cap(s.out) > keep || cap(s.signed) > keep || cap(s.objects)+cap(s.members)+cap(s.open) > keep/32 {
		return
	}
	s.out, s.objects, s.members, s.open, s.top = s.out[:0], s.objects[:0], s.members[:0], s.open[:0], s.top[:0]
	scanners.Put(s)
}

func (s *scanner) fail(what string) error {
	return fmt.Errorf("%w: %s at byte %d", ErrProtocol, what, s.at)
}

// document reads the one value of the text.
func (s *scanner) document() error {
	if len(s.raw) > maxText {
		return s.fail("a text of more than " + strconv.Itoa(maxText) + " bytes")
	}
	s.space()
	if err := s.value(0); err != nil {
		return err
	}
	s.space()
	if s.at < len(s.raw) {
		return s.fail("text after the value")
	}
	s.flush()
	return nil
}

// place is where in out the next byte of raw will stand.
func (s *scanner) place() int32 { return int32(len(s.out) + s.at - s.from) }

// flush copies to out what waits.
func (s *scanner) flush() {
	s.out = append(s.out, s.raw[s.from:s.at]...)
	s.from = s.at
}

// space leaves out white space.
func (s *scanner) space() {
	if s.at < len(s.raw) && s.raw[s.at] <= ' ' {
		s.flush()
		s.at = skipSpace(s.raw, s.at)
		s.from = s.at
	}
}

func (s *scanner) value(depth int) error {
	if s.at >= len(s.raw) {
		return s.fail("the text ends where a value should be")
	}
	switch c := s.raw[s.at]; c {
	case '{':
		return s.object(depth + 1)
	case '[':
		return s.array(depth + 1)
	case '"':
		_, err := s.text()
		return err
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	default:
		return s.numeral()
	}
}

func (s *scanner) word(w string) error {
	if len(s.raw)-s.at < len(w) || string(s.raw[s.at:s.at+len(w)]) != w {
		return s.fail("no JSON value")
	}
	s.at += len(w)
	return nil
}

func (s *scanner) array(depth int) error {
	if depth > MaxDepth {
		return s.fail("nesting deeper than " + strconv.Itoa(MaxDepth))
	}
	s.at++
	s.space()
	if s.at < len(s.raw) && s.raw[s.at] == ']' {
		s.at++
		return nil
	}
	for {
		s.space()
		if err := s.value(depth); err != nil {
			return err
		}
		s.space()
		if s.at >= len(s.raw) {
			return s.fail("the text ends within an array")
		}
		c := s.raw[s.at]
		if c != ',' && c != ']' {
			return s.fail("no comma between elements")
		}
		s.at++
		if c == ']' {
			return nil
		}
	}
}

func (s *scanner) object(depth int) error {
	if depth > MaxDepth {
		return s.fail("nesting deeper than " + strconv.Itoa(MaxDepth))
	}
	this, base := len(s.objects), len(s.open)
	s.objects = append(s.objects, object{start: s.place()})
	s.at++
	s.space()
	if s.at < len(s.raw) && s.raw[s.at] == '}' {
		s.at++
		s.close(this, base, depth)
		return nil
	}
	for {
		if err := s.member(depth); err != nil {
			return err
		}
		s.space()
		if s.at >= len(s.raw) {
			return s.fail("the text ends within an object")
		}
		c := s.raw[s.at]
		s.at++
		if c == '}' {
			s.close(this, base, depth)
			return nil
		}
		if c != ',' {
			s.at--
			return s.fail("no comma between members")
		}
	}
}

func (s *scanner) member(depth int) error {
	s.space()
	if s.at >= len(s.raw) || s.raw[s.at] != '"' {
		return s.fail("no key where a member should be")
	}
	m, key := member{start: s.place(), object: int32(len(s.objects))}, s.at+1
	how, err := s.text()
	if err != nil {
		return err
	}
	m.colon = s.place()
	if how == asItStands {
		m.prefix = prefix(s.raw[key:], s.at-1-key)
	} else {
		s.flush()
		m.escaped = how == withEscapes
		m.prefix = s.prefix(&m)
	}
	s.space()
	if s.at >= len(s.raw) || s.raw[s.at] != ':' {
		return s.fail("no colon after a key")
	}
	s.at++
	s.space()
	rawStart := s.at
	if err := s.value(depth); err != nil {
		return err
	}
	m.end = s.place()
	s.open = append(s.open, m)
	if depth == 1 && s.bind != nil {
		s.top = append(s.top, topMember{member: m, rawStart: rawStart, rawEnd: s.at})
	}
	return nil
}

// close ends the object that began as this; its members are the open ones from base on.
func (s *scanner) close(this, base, depth int) {
	if len(s.open) > base+1 { // keys may be compared
		s.flush()
	}
	if depth == 1 && s.bind != nil {
		s.flush()
		s.seal(base)
	}
	own := s.open[base:]
	if s.sorted(own) && (depth > 1 || s.bind == nil) {
		s.open = s.open[:base]
		if len(s.objects) == this+1 { // nothing unsorted within either
			s.objects = s.objects[:this]
		}
		return
	}
	s.sort(own)
	first := len(s.members)
	for i := range own {
		if i+1 < len(own) && own[i].prefix == own[i+1].prefix && s.compare(&own[i], &own[i+1]) == 0 {
			continue // a later one of the same key wins
		}
		s.members = append(s.members, own[i])
	}
	s.open = s.open[:base]
	o := &s.objects[this]
	o.end, o.first, o.last, o.next = s.place(), int32(first), int32(len(s.members)), int32(len(s.objects))
	o.unsorted = true
}

// seal makes an envelope's members those that a signature covers: without hmac, and with the session's ids, which
// replace what the frame says of them.
func (s *scanner) seal(base int) {
	kept := s.open[:base]
	for i := base; i < len(s.open); i++ {
		if m := &s.open[i]; m.prefix != hmacPrefix || string(s.key(m)) != "hmac" {
			kept = append(kept, *m)
		}
	}
	at := int32(len(s.out))
	s.out = append(s.out, s.bind.text...)
	for _, m := range s.bind.places {
		m.start, m.colon, m.end, m.object = at+m.start, at+m.colon, at+m.end, int32(len(s.objects))
		kept = append(kept, m)
	}
	s.open = kept
}

const hmacPrefix = 'h'<<56 | 'm'<<48 | 'a'<<40 | 'c'<<32

// key is a member's key in canonical spelling, without its quotes.
func (s *scanner) key(m *member) []byte { return s.out[m.start+1 : m.colon-1] }

func (s *scanner) prefix(m *member) uint64 {
	key := s.key(m)
	if !m.escaped {
		return prefix(key, len(key))
	}
	var b [8]byte
	for i := 0; i < len(b) && len(key) > 0; i++ {
		b[i], key = firstByte(key)
	}
	return binary.BigEndian.Uint64(b[:])
}

// prefix is that of a key of n bytes at the beginning of b.
func prefix(b []byte, n int) uint64 {
	if len(b) < 8 {
		var short [8]byte
		copy(short[:], b[:n])
		return binary.BigEndian.Uint64(short[:])
	}
	x := binary.BigEndian.Uint64(b)
	if n < 8 {
		x &^= 1<<(64-8*n) - 1
	}
	return x
}

// compare orders members by what their keys say.
func (s *scanner) compare(a, b *member) int {
	if a.prefix != b.prefix {
		return cmp.Compare(a.prefix, b.prefix)
	}
	if a.escaped || b.escaped {
		return compareEscaped(s.key(a), s.key(b))
	}
	return bytes.Compare(s.key(a), s.key(b))
}

func (s *scanner) sorted(own []member) bool {
	for i := 1; i < len(own); i++ {
		if a, b := &own[i-1], &own[i]; a.prefix >= b.prefix && (a.prefix > b.prefix || s.compare(a, b) >= 0) {
			return false
		}
	}
	return true
}

// sort orders members by key, equal keys as they came.
func (s *scanner) sort(own []member) {
	if len(own) > 16 {
		slices.SortFunc(own, func(a, b member) int { return cmp.Or(s.compare(&a, &b), cmp.Compare(a.start, b.start)) })
		return
	}
	for i := 1; i < len(own); i++ { // most objects are small
		m, j := own[i], i
		for ; j > 0; j-- {
			if p := own[j-1].prefix; p < m.prefix || p == m.prefix && s.compare(&own[j-1], &m) <= 0 {
				break
			}
			own[j] = own[j-1]
		}
		own[j] = m
	}
}

// emit appends out[start:end] to dst with the members of unsorted objects in order; at is the first object that may
// begin there.
func (s *scanner) emit(dst []byte, start, end, at int32) []byte {
	for int(at) < len(s.objects) && s.objects[at].start < end {
		o := &s.objects[at]
		if !o.unsorted {
			at++
			continue
		}
		dst = append(dst, s.out[start:o.start]...)
		dst = append(dst, '{')
		for i := o.first; i < o.last; i++ {
			if i > o.first {
				dst = append(dst, ',')
			}
			m := &s.members[i]
			dst = s.emit(dst, m.start, m.end, m.object)
		}
		dst = append(dst, '}')
		start, at = o.end, o.next
	}
	return append(dst, s.out[start:end]...)
}

// numeral reads a number: an integer keeps its digits, the rest goes through float64.
func (s *scanner) numeral() error {
	start := s.at
	integer, ok := s.grammar()
	if !ok {
		s.at = start
		return s.fail("no JSON value")
	}
	digits := s.raw[start:s.at]
	if integer {
		if string(digits) == "-0" {
			s.respell(start, digits[1:])
		}
		return nil
	}
	if isShortDecimal(digits) {
		return nil
	}
	f, err := strconv.ParseFloat(string(digits), 64)
	if err != nil { // it has the form of a number, so it is too large
		if s.strict {
			s.at = start
			return s.fail("number too large for a float64")
		}
		return nil
	}
	if text := appendFloat(s.number[:0], f); string(text) != string(digits) {
		s.respell(start, text)
	}
	return nil
}

// isShortDecimal reports whether a number with a point or exponent is canonical for certain: a decimal of at most 15
// digits, which no other of that length shares a float64 with, that needs no exponent and has no zeros to spare.
func isShortDecimal(digits []byte) bool {
	if digits[0] == '-' {
		digits = digits[1:]
	}
	point := bytes.IndexByte(digits, '.')
	if point < 0 || len(digits) > 16 || bytes.ContainsAny(digits, "eE") {
		return false
	}
	fraction := digits[point+1:]
	if len(fraction) == 1 {
		return true
	}
	small := digits[0] == '0' && len(bytes.TrimLeft(fraction[:min(4, len(fraction))], "0")) == 0
	return !small && fraction[len(fraction)-1] != '0'
}

// respell puts text in the place of raw[start:at].
func (s *scanner) respell(start int, text []byte) {
	s.out = append(append(s.out, s.raw[s.from:start]...), text...)
	s.from = s.at
}

// grammar moves behind the number that begins here and reports whether it is an integer, or no number at all.
func (s *scanner) grammar() (integer, ok bool) {
	if s.at < len(s.raw) && s.raw[s.at] == '-' {
		s.at++
	}
	switch n := s.digits(); {
	case n == 0:
		return false, false
	case n > 1 && s.raw[s.at-n] == '0':
		return false, false
	}
	integer = true
	if s.at < len(s.raw) && s.raw[s.at] == '.' {
		integer = false
		s.at++
		if s.digits() == 0 {
			return false, false
		}
	}
	if s.at < len(s.raw) && s.raw[s.at]|0x20 == 'e' {
		integer = false
		s.at++
		if s.at < len(s.raw) && (s.raw[s.at] == '+' || s.raw[s.at] == '-') {
			s.at++
		}
		if s.digits() == 0 {
			return false, false
		}
	}
	return integer, true
}

func (s *scanner) digits() (n int) {
	for s.at < len(s.raw) && s.raw[s.at]-'0' <= 9 {
		s.at++
		n++
	}
	return n
}

// appendFloat writes f as agents do: the shortest decimal that reads back as f, with an exponent of at least two digits
// if it is below -4 or above 15, else with a point.
func appendFloat(dst []byte, f float64) []byte {
	var scratch [32]byte
	text := strconv.AppendFloat(scratch[:0], f, 'e', -1, 64)
	e := bytes.IndexByte(text, 'e')
	exponent := 0
	for _, c := range text[e+2:] {
		exponent = exponent*10 + int(c-'0')
	}
	if text[e+1] == '-' {
		exponent = -exponent
	}
	if exponent < -4 || exponent >= 16 {
		return append(dst, text...)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
	if bytes.IndexByte(dst[start:], '.') < 0 {
		dst = append(dst, '.', '0')
	}
	return dst
}

// spelling is how a string stands in raw.
type spelling int

const (
	asItStands  spelling = iota // canonical already
	withoutNeed                 // with escapes, none of which is left in canonical spelling
	withEscapes                 // with escapes of which some are left
)

// text reads a string.
func (s *scanner) text() (how spelling, err error) {
	for s.at = skipPlain(s.raw, s.at+1); s.at < len(s.raw); s.at = skipPlain(s.raw, s.at) {
		c := s.raw[s.at]
		switch {
		case c == '"':
			s.at++
			return how, nil
		case c == '\\':
			s.flush()
			r, n := unescape(s.raw[s.at:])
			if n == 0 {
				return how, s.fail("no escape of JSON")
			}
			if s.strict && isSurrogate(r) {
				return how, s.fail("half of a surrogate pair")
			}
			s.at += n
			s.from = s.at
			before := len(s.out)
			s.out = appendRune(s.out, r)
			if how = max(how, withoutNeed); s.out[before] == '\\' {
				how = withEscapes
			}
		case c < ' ':
			return how, s.fail("control character in a string")
		default:
			for s.at < len(s.raw) && s.raw[s.at] >= utf8.RuneSelf {
				r, n := utf8.DecodeRune(s.raw[s.at:])
				if r == utf8.RuneError && n == 1 && s.strict {
					return how, s.fail("no UTF-8")
				}
				s.at += n
			}
		}
	}
	return how, s.fail("the text ends within a string")
}
