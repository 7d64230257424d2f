package wire

import (
	"bytes"
	"iter"
	"strconv"
	"unicode/utf8"
)

// Members walks the members of a JSON object as they stand there: the key as text, the value as raw JSON, both parts
// of raw (a key with escapes is a copy). Of equal keys the last is the one that counts, so a caller who overwrites does
// right. Raw text that is no object has no members, and text that is no JSON ends the walk.
func Members(raw []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		walkMembers(raw, yield)
	}
}

func walkMembers(raw []byte, yield func(key, value []byte) bool) {
	at := skipSpace(raw, 0)
	if at >= len(raw) || raw[at] != '{' {
		return
	}
	for at++; ; at++ {
		at = skipSpace(raw, at)
		if at >= len(raw) || raw[at] != '"' {
			return
		}
		end := skipString(raw, at)
		if end < 0 {
			return
		}
		key := keyText(raw[at+1 : end-1])
		at = skipSpace(raw, end)
		if at >= len(raw) || raw[at] != ':' {
			return
		}
		at = skipSpace(raw, at+1)
		end = skipValue(raw, at)
		if end < 0 || !yield(key, raw[at:end]) {
			return
		}
		at = skipSpace(raw, end)
		if at >= len(raw) || raw[at] != ',' {
			return
		}
	}
}

// keyText is what the inside of a key says, without a copy in the usual case.
func keyText(inside []byte) []byte {
	if asIs(inside) {
		return inside
	}
	return decode(inside)
}

// asIs reports whether the inside of a JSON string is already what it says.
func asIs(inside []byte) bool {
	i := skipPlain(inside, 0)
	return i == len(inside) || bytes.IndexByte(inside[i:], '\\') < 0 && utf8.Valid(inside[i:])
}

// decode is what the inside of a JSON string says, as valid UTF-8.
func decode(inside []byte) []byte {
	text := appendUnescaped(make([]byte, 0, len(inside)), inside)
	if utf8.Valid(text) {
		return text
	}
	return appendValid(make([]byte, 0, len(text)+8), text)
}

// Elements walks the elements of a JSON array, each as raw JSON. Raw text that is no array has none.
func Elements(raw []byte) iter.Seq[[]byte] {
	return func(yield func(value []byte) bool) {
		walkElements(raw, yield)
	}
}

func walkElements(raw []byte, yield func(value []byte) bool) {
	at := skipSpace(raw, 0)
	if at >= len(raw) || raw[at] != '[' {
		return
	}
	for at++; ; at++ {
		at = skipSpace(raw, at)
		end := skipValue(raw, at)
		if end < 0 || !yield(raw[at:end]) {
			return
		}
		at = skipSpace(raw, end)
		if at >= len(raw) || raw[at] != ',' {
			return
		}
	}
}

func skipSpace(raw []byte, at int) int {
	for at < len(raw) && (raw[at] == ' ' || raw[at] == '\n' || raw[at] == '\r' || raw[at] == '\t') {
		at++
	}
	return at
}

// skipString returns the place behind the string that begins at at, or -1 if it does not end.
func skipString(raw []byte, at int) int {
	for i := skipPlain(raw, at+1); i < len(raw); i = skipPlain(raw, i+1) {
		switch raw[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
	return -1
}

// skipValue returns the place behind the value that begins at at, or -1 if none does. It trusts that the text was
// once scanned, and never reads past its end if not.
func skipValue(raw []byte, at int) int {
	if at >= len(raw) {
		return -1
	}
	switch raw[at] {
	case '"':
		return skipString(raw, at)
	case '{', '[':
	case ',', ':', '}', ']':
		return -1
	default:
		end := at
		for end < len(raw) && !ends[raw[end]] {
			end++
		}
		return end
	}
	depth := 0
	for i := at; i < len(raw); i++ {
		switch raw[i] {
		case '"':
			end := skipString(raw, i)
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

// ends has the bytes that may follow a number or a word.
var ends = [256]bool{' ': true, '\n': true, '\r': true, '\t': true, ',': true, ':': true, '}': true, ']': true, '"': true, '{': true, '[': true}

// String reads a JSON string. What is no Unicode (invalid bytes, half a surrogate pair) becomes U+FFFD; U+0000 stays.
// Another value, null too, is not ok.
func String(raw []byte) (text string, ok bool) {
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return "", false
	}
	return string(keyText(raw[1 : len(raw)-1])), true
}

// Int reads a JSON number that is whole and fits int64, such as 3, 3.0 or 3e2; ok is false for another value.
func Int(raw []byte) (n int64, ok bool) {
	if !isNumber(raw) {
		return 0, false
	}
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	const exact = 1 << 53 // beyond it a float64 does not know which whole number it is
	if err != nil || f != float64(int64(max(min(f, exact), -exact))) {
		return 0, false
	}
	return int64(f), true
}

// Float reads a JSON number; ok is false for another value and for one too large for a float64.
func Float(raw []byte) (f float64, ok bool) {
	if !isNumber(raw) {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	return f, err == nil
}

// isNumber keeps out the spellings that strconv knows and JSON does not.
func isNumber(raw []byte) bool {
	if len(raw) == 0 || len(raw) > 400 { // no number that means something is longer
		return false
	}
	s := scanner{raw: raw}
	_, ok := s.grammar()
	return ok && s.at == len(raw)
}

// Time reads a JSON string that holds a time, in µs; see ParseTime.
func Time(raw []byte) (micros int64, ok bool) {
	if len(raw) < 2 || raw[0] != '"' || len(raw) > 200 {
		return 0, false
	}
	return ParseTime(keyText(raw[1 : len(raw)-1]))
}

// Bool reads true or false; ok is false for another value.
func Bool(raw []byte) (b, ok bool) {
	return string(raw) == "true", string(raw) == "true" || string(raw) == "false"
}

// IsNull reports whether raw is null or nothing at all.
func IsNull(raw []byte) bool { return len(raw) == 0 || string(raw) == "null" }

// IsObject reports whether raw is an object.
func IsObject(raw []byte) bool { return len(raw) > 0 && raw[0] == '{' }

// Valid reports whether raw is JSON that nests no deeper than MaxDepth. Members and the others take a part of a
// verified frame as it is; a document that came within a string has to be asked first.
func Valid(raw []byte) bool { return check(raw) == nil }

// Clean gives a JSON text the form in which it can be stored and shown everywhere: invalid UTF-8, halves of surrogate
// pairs and U+0000 become U+FFFD each. All else stays as it was spelled: digits, order, space, and a backslash that is
// itself escaped before something that looks like an escape. Text without such things comes back as it is, uncopied.
func Clean(raw []byte) []byte {
	at := firstUnclean(raw)
	if at < 0 {
		return raw
	}
	dst := append(make([]byte, 0, len(raw)+16), raw[:at]...)
	for at < len(raw) {
		c := raw[at]
		if c == '\\' {
			r, n := unescape(raw[at:])
			if n == 0 {
				n = 1
			}
			if r == 0 && n > 1 || isSurrogate(r) {
				dst = utf8.AppendRune(dst, utf8.RuneError)
			} else {
				dst = append(dst, raw[at:at+n]...)
			}
			at += n
			continue
		}
		r, n := utf8.DecodeRune(raw[at:])
		switch {
		case r == utf8.RuneError && n == 1:
			if isSurrogateBytes(raw[at:]) {
				n = 3
			}
			dst = utf8.AppendRune(dst, utf8.RuneError)
		case c == 0:
			dst = utf8.AppendRune(dst, utf8.RuneError)
		default:
			dst = append(dst, raw[at:at+n]...)
		}
		at += n
	}
	return dst
}

// firstUnclean returns where Clean has something to do, or -1.
func firstUnclean(raw []byte) int {
	for at := 0; at < len(raw); {
		c := raw[at]
		switch {
		case c == '\\':
			r, n := unescape(raw[at:])
			if n > 1 && (r == 0 || isSurrogate(r)) {
				return at
			}
			at += max(n, 1)
		case c == 0:
			return at
		case c < utf8.RuneSelf:
			at++
		default:
			r, n := utf8.DecodeRune(raw[at:])
			if r == utf8.RuneError && n == 1 {
				return at
			}
			at += n
		}
	}
	return -1
}
