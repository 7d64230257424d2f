// Package redact masks secrets and personal data in what is stored, shown and logged.
//
// It works on raw JSON and gives raw JSON: numbers keep their digits, members their order, and text in which nothing is
// masked comes back as it is, uncopied. In passing it makes strings and keys storable everywhere: U+0000, halves of
// surrogate pairs and bytes that are no UTF-8 become U+FFFD. A backslash that is itself escaped before something that
// looks like an escape stays as it is.
package redact

import (
	"bytes"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// Mask stands where something was taken out.
const Mask = "[REDACTED]"

const (
	maxString = 8192 // bytes of a string that are kept: what agents send, too
	maxDepth  = 64   // levels; nothing that means something is nested deeper
)

// rules say how a text is treated.
type rules struct {
	personal bool // e-mail addresses are masked, too
	cut      bool // long strings are cut
	depth    int
}

var (
	payloadRules = rules{personal: true, cut: true, depth: maxDepth}
	detailRules  = rules{depth: maxDepth}
)

// Event redacts an event, or its data alone. The fields that identify a task, a worker or a queue are exempt where they
// stand in the event or its data: a worker named celery@web-01.example.com is no e-mail address.
func Event(raw []byte) []byte { return run(raw, payloadRules, event) }

// JSON redacts any other JSON value that an agent sent.
func JSON(raw []byte) []byte { return run(raw, payloadRules, plain) }

// Details redacts the details of an audit entry: by the names of keys and the patterns of secrets, but e-mail addresses
// stay, and nothing is cut.
func Details(raw []byte) []byte { return run(raw, detailRules, plain) }

// Text redacts a text by its value, as JSON does with a string.
func Text(s string) string {
	w := walkers.Get().(*walker)
	defer walkers.Put(w)
	w.rules = payloadRules
	text, changed := clean([]byte(s))
	text, masked := w.masked(text, classOf(text))
	if !changed && !masked {
		return s
	}
	return string(text)
}

// place says what the members of an object are.
type place uint8

const (
	plain place = iota
	event       // members with an identity's name are exempt; so are those of the member "data"
)

// walker goes once over a text. dst holds what was written before the place done of src; nil as long as nothing changed.
type walker struct {
	rules
	src     []byte
	dst     []byte
	done    int
	masks   int    // keys that were masked
	scratch []byte // a decoded string
}

// walkers keeps the buffers of strings that had to be decoded.
var walkers = sync.Pool{New: func() any { return new(walker) }}

func run(raw []byte, r rules, at place) []byte {
	if len(raw) == 0 {
		return raw
	}
	w := walkers.Get().(*walker)
	w.rules, w.src, w.dst, w.done, w.masks = r, raw, nil, 0, 0
	out := w.text(at)
	w.src, w.dst = nil, nil
	if cap(w.scratch) > 1<<20 {
		w.scratch = nil
	}
	walkers.Put(w)
	return out
}

// text redacts the one value that src holds. What is no JSON is masked whole: nobody knows what it says.
func (w *walker) text(p place) []byte {
	end := w.value(w.space(0), 0, p, false)
	if end < 0 || w.space(end) != len(w.src) {
		return []byte(`"` + Mask + `"`)
	}
	if w.dst == nil {
		return w.src
	}
	return append(w.dst, w.src[w.done:]...)
}

// replace puts text in the place of src[from:to].
func (w *walker) replace(from, to int, text []byte) {
	if w.dst == nil {
		w.dst = make([]byte, 0, len(w.src)+len(text)-(to-from)+64)
	}
	w.dst = append(w.dst, w.src[w.done:from]...)
	w.dst = append(w.dst, text...)
	w.done = to
}

var quotedMask = []byte(`"` + Mask + `"`)

// mask masks src[from:to], unless it is masked already.
func (w *walker) mask(from, to int) {
	if !bytes.Equal(w.src[from:to], quotedMask) {
		w.replace(from, to, quotedMask)
	}
}

func (w *walker) space(at int) int {
	for at < len(w.src) && (w.src[at] == ' ' || w.src[at] == '\n' || w.src[at] == '\r' || w.src[at] == '\t') {
		at++
	}
	return at
}

// value redacts the value at at and returns the place behind it, -1 if there is none.
func (w *walker) value(at, depth int, p place, exempt bool) int {
	if at >= len(w.src) {
		return -1
	}
	if depth >= w.depth {
		end := skip(w.src, at)
		if end >= 0 {
			w.mask(at, end)
		}
		return end
	}
	switch w.src[at] {
	case '{':
		return w.object(at, depth, p)
	case '[':
		return w.array(at, depth)
	case '"':
		return w.stringValue(at, exempt)
	}
	return scalar(w.src, at)
}

func (w *walker) array(at, depth int) int {
	at = w.space(at + 1)
	if at < len(w.src) && w.src[at] == ']' {
		return at + 1
	}
	for {
		end := w.value(at, depth+1, plain, false)
		if end < 0 {
			return -1
		}
		at = w.space(end)
		if at >= len(w.src) {
			return -1
		}
		switch w.src[at] {
		case ']':
			return at + 1
		case ',':
			at = w.space(at + 1)
		default:
			return -1
		}
	}
}

func (w *walker) object(at, depth int, p place) int {
	at = w.space(at + 1)
	if at < len(w.src) && w.src[at] == '}' {
		return at + 1
	}
	for {
		if at = w.member(at, depth, p); at < 0 {
			return -1
		}
		at = w.space(at)
		if at >= len(w.src) {
			return -1
		}
		switch w.src[at] {
		case '}':
			return at + 1
		case ',':
			at = w.space(at + 1)
		default:
			return -1
		}
	}
}

// member redacts the member whose key begins at at and returns the place behind its value.
func (w *walker) member(at, depth int, p place) int {
	if at >= len(w.src) || w.src[at] != '"' {
		return -1
	}
	end, key := w.key(at, p)
	if end < 0 {
		return -1
	}
	at = w.space(end)
	if at >= len(w.src) || w.src[at] != ':' {
		return -1
	}
	at = w.space(at + 1)
	if isSecret(key) {
		if end = skip(w.src, at); end >= 0 {
			w.mask(at, end)
		}
		return end
	}
	inner, exempt := plain, false
	if p == event {
		exempt = isIdentity(key)
		if string(key) == "data" {
			inner = event
		}
	}
	return w.value(at, depth+1, inner, exempt)
}

// key redacts the key at at; it returns the place behind it and what it says, which is valid until the next string.
func (w *walker) key(at int, p place) (end int, key []byte) {
	end, has := scanString(w.src, at)
	if end < 0 {
		return -1, nil
	}
	key = w.src[at+1 : end-1]
	changed := false
	if has&odd != 0 {
		if key, changed = w.decode(key); key == nil {
			return -1, nil
		}
		has = classOf(key)
	}
	if p == plain && w.hit(key, has) {
		w.masks++
		name := Mask
		if w.masks > 1 { // so that no two members of an object get one name
			name = "[REDACTED " + strconv.Itoa(w.masks) + "]"
		}
		w.replace(at, end, []byte(`"`+name+`"`))
		return end, key
	}
	if changed {
		w.replace(at, end, appendQuoted(nil, key))
	}
	return end, key
}

// stringValue redacts the string at at.
func (w *walker) stringValue(at int, exempt bool) int {
	end, has := scanString(w.src, at)
	if end < 0 {
		return -1
	}
	text, changed := w.src[at+1:end-1], false
	if has&odd != 0 {
		if text, changed = w.decode(text); text == nil {
			return -1
		}
		has = classOf(text)
	}
	masked := false
	if !exempt {
		text, masked = w.masked(text, has)
	}
	if changed || masked {
		w.replace(at, end, appendQuoted(nil, text))
	}
	return end
}

// masked applies the rules of values to a text.
func (w *walker) masked(text []byte, has class) (out []byte, changed bool) {
	if w.hit(text, has) {
		return []byte(Mask), true
	}
	if w.cut && len(text) > maxString {
		return cut(text)
	}
	return text, false
}

const cutHead, cutTail = "[...", " more bytes truncated]"

// cut shortens text to maxString bytes, never inside a character, and says by how much. One that was cut before stays.
func cut(text []byte) (out []byte, changed bool) {
	if before, ok := bytes.CutSuffix(text, []byte(cutTail)); ok {
		at := bytes.LastIndex(before, []byte(cutHead))
		if at >= 0 && at <= maxString && isDigits(before[at+len(cutHead):]) {
			return text, false
		}
	}
	end := maxString
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	out = append(make([]byte, 0, end+48), text[:end]...)
	out = append(out, cutHead...)
	out = strconv.AppendInt(out, int64(len(text)-end), 10)
	return append(out, cutTail...), true
}

func isDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0 && len(b) < 12
}

// Clean makes a text storable and masks nothing.
func Clean(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	out, _ := clean([]byte(s))
	return string(out)
}
