package wire

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// plain has the bytes that stand for themselves in a string, in raw and in canonical text alike.
var plain = func() (t [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// skipPlain returns the place of the first byte from at on that does not stand for itself.
func skipPlain(b []byte, at int) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for at+8 <= len(b) {
		x := binary.LittleEndian.Uint64(b[at:])
		quote, slash := x^(ones*'"'), x^(ones*'\\')
		// The high bit of each byte that is a control, a quote, a backslash or not ASCII; beyond the lowest it may err.
		special := ((x-ones*' ')&^x | (quote-ones)&^quote | (slash-ones)&^slash | x) & highs
		if special != 0 {
			return at + bits.TrailingZeros64(special)/8
		}
		at += 8
	}
	for at < len(b) && plain[b[at]] {
		at++
	}
	return at
}

func isSurrogate(r rune) bool { return r >= 0xd800 && r < 0xe000 }

// unescape reads the escape, or the two of a surrogate pair, that b begins with; n is its length, 0 if it is none.
// Half of a pair comes back as itself.
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
	r = hex4(b[2:])
	if r < 0 {
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

// appendRune writes a character of a string in canonical spelling.
func appendRune(dst []byte, r rune) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(dst, '\\', byte(r))
	case r >= ' ':
		return appendUTF8(dst, r)
	}
	switch r {
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	case '\f':
		return append(dst, '\\', 'f')
	case '\b':
		return append(dst, '\\', 'b')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[r>>4], hexDigits[r&15])
}

// appendUTF8 is utf8.AppendRune, but for surrogates: three bytes of their own kind.
func appendUTF8(dst []byte, r rune) []byte {
	if isSurrogate(r) {
		return append(dst, 0xe0|byte(r>>12), 0x80|byte(r>>6)&0x3f, 0x80|byte(r)&0x3f)
	}
	return utf8.AppendRune(dst, r)
}

// appendQuoted writes text as a canonical JSON string; what is no UTF-8 becomes U+FFFD.
func appendQuoted(dst []byte, text string) []byte {
	dst = append(dst, '"')
	usual := 0
	for usual < len(text) && plain[text[usual]] {
		usual++
	}
	dst = append(dst, text[:usual]...)
	for _, r := range text[usual:] {
		dst = appendRune(dst, r)
	}
	return append(dst, '"')
}

// compareEscaped compares two keys in canonical spelling by what they say.
func compareEscaped(a, b []byte) int {
	for len(a) > 0 && len(b) > 0 {
		var x, y byte
		x, a = firstByte(a)
		y, b = firstByte(b)
		if x != y {
			return int(x) - int(y)
		}
	}
	return len(a) - len(b)
}

// firstByte splits the first byte that a canonical string says from the rest: there each escape stands for one byte.
func firstByte(inside []byte) (byte, []byte) {
	if inside[0] != '\\' {
		return inside[0], inside[1:]
	}
	r, n := unescape(inside)
	return byte(r), inside[n:]
}

// appendUnescaped writes what the inside of a JSON string says, invalid bytes and lone surrogates as they are. The
// string must be one that a scanner took.
func appendUnescaped(dst, inside []byte) []byte {
	for {
		at := bytes.IndexByte(inside, '\\')
		if at < 0 {
			return append(dst, inside...)
		}
		dst = append(dst, inside[:at]...)
		r, n := unescape(inside[at:])
		if n == 0 { // no JSON: keep what is there
			return append(dst, inside[at:]...)
		}
		dst = appendUTF8(dst, r)
		inside = inside[at+n:]
	}
}

// appendValid writes text with U+FFFD for each byte that is no UTF-8 and for each surrogate spelled in three bytes.
func appendValid(dst, text []byte) []byte {
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		if r == utf8.RuneError && n == 1 {
			if isSurrogateBytes(text) {
				n = 3
			}
			dst = utf8.AppendRune(dst, utf8.RuneError)
			text = text[n:]
			continue
		}
		dst = append(dst, text[:n]...)
		text = text[n:]
	}
	return dst
}

// isSurrogateBytes reports whether text begins with a surrogate spelled in three bytes.
func isSurrogateBytes(text []byte) bool {
	return len(text) >= 3 && text[0] == 0xed && text[1]&0xe0 == 0xa0 && text[2]&0xc0 == 0x80
}
