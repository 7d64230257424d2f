package redact

import (
	"bytes"
	"unicode/utf8"
)

// class says which kinds of bytes a text has, so that most patterns need not look at it.
type class uint8

const (
	odd   class = 1 << iota // an escape or a byte above ASCII: the text has to be decoded
	stop                    // a quote or a control character
	at                      // @
	dash                    // -
	under                   // _
	upper                   // A to Z
	slash                   // /
	space                   // a space
)

var classes = func() (t [256]class) {
	for c := range t {
		switch {
		case c < ' ', c == '"':
			t[c] = stop
		case c == '\\', c >= utf8.RuneSelf:
			t[c] = odd
		case 'A' <= c && c <= 'Z':
			t[c] = upper
		}
	}
	t['@'], t['-'], t['_'], t['/'], t[' '] = at, dash, under, slash, space
	return t
}()

func classOf(text []byte) (has class) {
	for _, c := range text {
		has |= classes[c]
	}
	return has
}

// scanString returns the place behind the string that begins at from, and the classes of its inside; -1 if it is none.
func scanString(src []byte, from int) (end int, has class) {
	for i := from + 1; i < len(src); i++ {
		c := classes[src[i]]
		if c&(odd|stop) == 0 {
			has |= c
			continue
		}
		if c == stop {
			if src[i] != '"' {
				return -1, 0
			}
			return i + 1, has
		}
		has |= odd
		if src[i] == '\\' {
			i++
		}
	}
	return -1, 0
}

// decode gives what the inside of a string says, fit to be stored: it is nil if an escape is none, and changed tells
// whether something had to become U+FFFD. The text is valid until the next call.
func (w *walker) decode(inside []byte) (text []byte, changed bool) {
	dst := w.scratch[:0]
	if dst == nil {
		dst = make([]byte, 0, 512)
	}
	for len(inside) > 0 {
		at := bytes.IndexByte(inside, '\\')
		if at < 0 {
			at = len(inside)
		}
		dst = append(dst, inside[:at]...)
		if inside = inside[at:]; len(inside) == 0 {
			break
		}
		r, n := unescape(inside)
		if n == 0 {
			return nil, false
		}
		if r == 0 || isSurrogate(r) {
			r, changed = utf8.RuneError, true
		}
		dst = utf8.AppendRune(dst, r)
		inside = inside[n:]
	}
	w.scratch = dst
	if utf8.Valid(dst) {
		return dst, changed
	}
	dst, _ = clean(dst)
	return dst, true
}

// clean puts U+FFFD in the place of U+0000, of each byte that is no UTF-8, and of each surrogate spelled in three bytes.
func clean(text []byte) (out []byte, changed bool) {
	if utf8.Valid(text) && bytes.IndexByte(text, 0) < 0 {
		return text, false
	}
	out = make([]byte, 0, len(text)+16)
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && n == 1:
			if isSurrogateBytes(text) {
				n = 3
			}
			out = utf8.AppendRune(out, utf8.RuneError)
		case r == 0:
			out = utf8.AppendRune(out, utf8.RuneError)
		default:
			out = append(out, text[:n]...)
		}
		text = text[n:]
	}
	return out, true
}

func isSurrogate(r rune) bool { return r >= 0xd800 && r < 0xe000 }

func isSurrogateBytes(b []byte) bool {
	return len(b) >= 3 && b[0] == 0xed && b[1]&0xe0 == 0xa0 && b[2]&0xc0 == 0x80
}

// unescape reads the escape, or the two of a surrogate pair, that b begins with; n is its length, 0 if it is none.
func unescape(b []byte) (r rune, n int) {
	if len(b) < 2 {
		return 0, 0
	}
	switch b[1] {
	case '"', '\\', '/':
		return rune(b[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
	default:
		return 0, 0
	}
	if r = hex4(b[2:]); r < 0 {
		return 0, 0
	}
	if r >= 0xd800 && r < 0xdc00 && len(b) >= 12 && b[6] == '\\' && b[7] == 'u' {
		if low := hex4(b[8:]); low >= 0xdc00 && low < 0xe000 {
			return 0x10000 + (r-0xd800)<<10 + (low - 0xdc00), 12
		}
	}
	return r, 6
}

// hex4 reads four hexadecimal digits, or returns -1.
func hex4(b []byte) rune {
	if len(b) < 4 {
		return -1
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

const hexDigits = "0123456789abcdef"

// appendQuoted writes text, which is valid UTF-8, as a JSON string.
func appendQuoted(dst, text []byte) []byte {
	dst = append(dst, '"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= ' ':
			dst = append(dst, c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(dst, '"')
}

// skip returns the place behind the value at from, however deep it is, or -1.
func skip(src []byte, from int) int {
	if from >= len(src) {
		return -1
	}
	switch src[from] {
	case '"':
		end, _ := scanString(src, from)
		return end
	case '{', '[':
	default:
		return scalar(src, from)
	}
	depth := 0
	for i := from; i < len(src); i++ {
		switch src[i] {
		case '"':
			end, _ := scanString(src, i)
			if end < 0 {
				return -1
			}
			i = end - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// scalar returns the place behind the number or word at from, or -1.
func scalar(src []byte, from int) int {
	for _, word := range [...]string{"null", "true", "false"} {
		if bytes.HasPrefix(src[from:], []byte(word)) {
			return from + len(word)
		}
	}
	i := from
	if i < len(src) && src[i] == '-' {
		i++
	}
	start := i
	if i = digits(src, i); i == start || src[start] == '0' && i > start+1 {
		return -1
	}
	if i < len(src) && src[i] == '.' {
		start = i + 1
		if i = digits(src, start); i == start {
			return -1
		}
	}
	if i < len(src) && (src[i] == 'e' || src[i] == 'E') {
		if i++; i < len(src) && (src[i] == '+' || src[i] == '-') {
			i++
		}
		start = i
		if i = digits(src, start); i == start {
			return -1
		}
	}
	return i
}

func digits(src []byte, at int) int {
	for at < len(src) && src[at] >= '0' && src[at] <= '9' {
		at++
	}
	return at
}
