package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/z4j-go/z4j/internal/redact"
)

const (
	maxInteger = 1<<53 - 1 // beyond it, readers that know only float64 are wrong
	maxNesting = 16
	timeLayout = "2006-01-02T15:04:05.000000Z"
)

// encodeDetails writes details as they are signed: redacted, keys sorted, no space; "" for none. Details of more than
// 32 KiB are replaced by their hash, their size and how they begin.
func encodeDetails(m map[string]any) (string, error) {
	if len(m) == 0 {
		return "", nil
	}
	b, err := appendObject(nil, m, 0)
	if err != nil {
		return "", err
	}
	b = redact.Details(b)
	if len(b) <= maxDetails {
		return string(b), nil
	}
	sum := sha256.Sum256(b)
	short := map[string]any{"excerpt": final(string(b[:maxExcerpt]), maxExcerpt), "sha256": hex.EncodeToString(sum[:]), "size": len(b)}
	for _, name := range []string{ownerDetail, userDetail} { // whose personal parts these are stays to be told
		if who, ok := m[name].(string); ok {
			short[name] = final(who, maxID)
		}
	}
	b, err = appendObject(nil, short, 0)
	return string(b), err
}

func appendValue(dst []byte, v any, depth int) ([]byte, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("details are nested more than %d deep", maxNesting)
	}
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case string:
		return appendString(dst, redact.Clean(v)), nil
	case float64: // a number that isn't an integer goes in as text
		return appendString(dst, strconv.FormatFloat(v, 'g', -1, 64)), nil
	case time.Time:
		return appendString(dst, formatTime(v.UnixMicro())), nil
	case []string:
		return appendList(dst, v, depth)
	case []any:
		return appendList(dst, v, depth)
	case map[string]any:
		return appendObject(dst, v, depth)
	case fmt.Stringer:
		return appendString(dst, redact.Clean(v.String())), nil
	}
	switch r := reflect.ValueOf(v); {
	case r.Kind() == reflect.String:
		return appendString(dst, redact.Clean(r.String())), nil
	case r.CanInt():
		return appendInt(dst, r.Int()), nil
	}
	return nil, fmt.Errorf("a detail is of type %T", v)
}

func appendInt(dst []byte, n int64) []byte {
	if n > maxInteger || n < -maxInteger {
		return appendString(dst, strconv.FormatInt(n, 10))
	}
	return strconv.AppendInt(dst, n, 10)
}

func appendList[T any](dst []byte, list []T, depth int) (_ []byte, err error) {
	dst = append(dst, '[')
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = appendValue(dst, v, depth+1); err != nil {
			return nil, err
		}
	}
	return append(dst, ']'), nil
}

func appendObject(dst []byte, m map[string]any, depth int) (_ []byte, err error) {
	dst = append(dst, '{')
	for i, name := range slices.Sorted(maps.Keys(m)) {
		if !isName(name) {
			return nil, fmt.Errorf("%q is no name of a detail: only a to z, digits, _ and . are", name)
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, name), ':')
		if dst, err = appendValue(dst, m[name], depth+1); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

func isName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '.' {
			return false
		}
	}
	return s != ""
}

// appendString writes valid UTF-8 as JSON: only quotes, backslashes and control characters are escaped.
func appendString(dst []byte, s string) []byte {
	const hexDigits = "0123456789abcdef"
	dst = append(dst, '"')
	for _, c := range []byte(s) {
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
		case c == '\b':
			dst = append(dst, '\\', 'b')
		case c == '\f':
			dst = append(dst, '\\', 'f')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(dst, '"')
}

// formatTime writes µs since the epoch as RFC 3339 in UTC with six digits.
func formatTime(micros int64) string { return time.UnixMicro(micros).UTC().Format(timeLayout) }
