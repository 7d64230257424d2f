package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/wire"
)

func TestCanonical(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"escapes that need none", `"\/\u00e9\ud83d\ude00\u0041"`, "\"/é\U0001f600A\""},
		{"escapes that stay", `"\u0022\u005c\u0009\u000A\u001F\u0000"`, `"\"\\\t\n\u001f\u0000"`},
		{"what looks like an escape", `"\\u0000 \\\\n"`, `"\\u0000 \\\\n"`},
		{"empty things", ` [ { } , [ ] , "" , { "" : "" } ] `, `[{},[],"",{"":""}]`},
		{"keys of equal beginning", `{"abcdefghij":1,"abcdefgh":2,"abcdefg":3,"abcdefghi":4,"":5}`, `{"":5,"abcdefg":3,"abcdefgh":2,"abcdefghi":4,"abcdefghij":1}`},
		{"a key below the quote that ends another", `{"a!":1,"a":2}`, `{"a":2,"a!":1}`},
		{"keys with escapes sort by what they say", `{"A":1,"\n":2,"\\":3,"[":4,"]":5,"\u0000":6,"":7}`, `{"":7,"\u0000":6,"\n":2,"A":1,"[":4,"\\":3,"]":5}`},
		{"one key spelled twice", `{"\u0061":1,"b":2,"a":{"d":1,"c":2}}`, `{"a":{"c":2,"d":1},"b":2}`},
		{"a dropped value that was unsorted", `{"a":{"y":1,"x":2},"b":{"q":1,"p":2},"a":[{"d":1,"c":2}]}`, `{"a":[{"c":2,"d":1}],"b":{"p":2,"q":1}}`},
		{"unsorted within sorted within unsorted", `{"b":[{"a":{"z":1,"y":[{"d":{},"c":{}}]},"b":1}],"a":0}`, `{"a":0,"b":[{"a":{"y":[{"c":{},"d":{}}],"z":1},"b":1}]}`},
		{"duplicates in a sorted object", `{"a":1,"b":1,"b":2,"c":3}`, `{"a":1,"b":2,"c":3}`},
		{"more members than are sorted by hand", manyKeys(100, false), manyKeys(100, true)},
		{"integers keep their digits", `[-0,0,-7,12345678901234567890123]`, `[0,0,-7,12345678901234567890123]`},
		{
			"floats", `[0.0,-0.0,-0e5,1E2,1e-7,0.00001,0.0001,1e15,1e16,123e-2,1e-400,4.9e-324,9007199254740993.0]`,
			`[0.0,-0.0,-0.0,100.0,1e-07,1e-05,0.0001,1000000000000000.0,1e+16,1.23,0.0,5e-324,9007199254740992.0]`,
		},
		{
			"short decimals", `[0.0001,0.00010,0.00001,0.0000,-0.5,1.50,19.99,123456789012.345,123456789012345.6,1234567890123456.7,0.00012345678901,100000000000000.0,9999999999999.99]`,
			`[0.0001,0.0001,1e-05,0.0,-0.5,1.5,19.99,123456789012.345,123456789012345.6,1234567890123456.8,0.00012345678901,100000000000000.0,9999999999999.99]`,
		},
		{"words", `[true,false,null]`, `[true,false,null]`},
	}
	for _, tt := range tests {
		got, err := wire.Canonical([]byte("kept"), []byte(tt.in))
		if err != nil || string(got) != "kept"+tt.want {
			t.Errorf("%s: got %s, %v, want kept%s", tt.name, got, err, tt.want)
		}
	}
}

// manyKeys is an object of n members in order, or with the order of a bad shuffle and each key twice.
func manyKeys(n int, sorted bool) string {
	var parts []string
	for i := range n {
		if sorted {
			parts = append(parts, fmt.Sprintf(`"key-%05d":%d`, i, i))
			continue
		}
		j := i * 37 % n
		parts = append(parts, fmt.Sprintf(`"key-%05d":"first"`, j), fmt.Sprintf(`"key-%05d":%d`, j, j))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func TestCanonicalRefuses(t *testing.T) {
	for _, raw := range []string{
		``, ` `, `{`, `[`, `"`, `{"a"}`, `{"a":}`, `{"a":1,}`, `[1,]`, `{a:1}`, `[1 2]`, `{"a":1 "b":2}`, `tru`, `nul`, `{}{}`, `]`, `,`, `:`,
		`"\x"`, `"\u12"`, `"\u12g4"`, `"\`, "\"a\nb\"", "\"\x00\"", `"\ud800"`, `"\udc00\ud800"`, `"\ud83d\u0041"`, "\"\xff\"", "\"\xed\xa0\xbd\"", "\"\xc0\x80\"",
		"\xef\xbb\xbf{}", strings.Repeat("[", 513) + strings.Repeat("]", 513), strings.Repeat(`{"a":`, 513) + "1" + strings.Repeat("}", 513),
	} {
		if got, err := wire.Canonical([]byte("kept"), []byte(raw)); !errors.Is(err, wire.ErrProtocol) || string(got) != "kept" {
			t.Errorf("%.40q: got %q, %v, want %v", raw, got, err, wire.ErrProtocol)
		}
	}
	deepest := strings.Repeat("[", 512) + strings.Repeat("]", 512)
	if got, err := wire.Canonical(nil, []byte(deepest)); err != nil || string(got) != deepest {
		t.Errorf("512 deep: got %.20s, %v, want it as it is", got, err)
	}
}

// nested is an object of that many levels, unsorted each, around a long text.
func nested(depth int) []byte {
	return []byte(strings.Repeat(`{"b":`, depth) + `"` + strings.Repeat("x", 64<<10) + `"` + strings.Repeat(`,"a":1}`, depth))
}

func TestCanonicalOfDeepNesting(t *testing.T) {
	raw := nested(500)
	want := strings.Repeat(`{"a":1,"b":`, 500) + `"` + strings.Repeat("x", 64<<10) + `"` + strings.Repeat("}", 500)
	if got, err := wire.Canonical(nil, raw); err != nil || string(got) != want {
		t.Errorf("got %.60s… of %d bytes, %v, want %.60s… of %d", got, len(got), err, want, len(want))
	}
}

// Five hundred levels must not cost five hundred copies: compare with BenchmarkCanonicalFlat.
func BenchmarkCanonicalNested(b *testing.B) { benchCanonical(b, nested(500)) }
func BenchmarkCanonicalFlat(b *testing.B)   { benchCanonical(b, nested(1)) }

func benchCanonical(b *testing.B, raw []byte) {
	dst := make([]byte, 0, 2*len(raw))
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wire.Canonical(dst, raw); err != nil {
			b.Fatal(err)
		}
	}
}

// A frame may say what is no Unicode. Its signature covers the bytes as they came, and reading gives U+FFFD.
func TestFieldCaseF07AndF53SignedTextThatIsNotUnicode(t *testing.T) {
	k := benchKeys
	tests := []struct {
		name, text, canonical, want string
	}{
		{"half a pair, escaped", `low \ud83d alone`, "low \xed\xa0\xbd alone", "low \ufffd alone"},
		{"the other half", `\ude00`, "\xed\xb8\x80", "\ufffd"},
		{"halves in the wrong order", `\ude00\ud83d`, "\xed\xb8\x80\xed\xa0\xbd", "\ufffd\ufffd"},
		{"half a pair in three bytes", "imp\xed\xa0\xbdort", "imp\xed\xa0\xbdort", "imp\ufffdort"},
		{"a byte that begins nothing", "Bad\xcb", "Bad\xcb", "Bad\ufffd"},
		{"a byte that only continues, and an overlong NUL", "\xd8 end\xc0\x80", "\xd8 end\xc0\x80", "\ufffd end\ufffd\ufffd"},
		{"a byte order mark is a character", "\ufeffx", "\ufeffx", "\ufeffx"},
		{"NUL is kept", `spec\u0000ial`, `spec\u0000ial`, "spec\x00ial"},
		{"what only looks like NUL", `shown \\u0000`, `shown \\u0000`, `shown \u0000`},
	}
	for _, tt := range tests {
		payload := `{"events":[{"data":{"name":"` + tt.text + `"},"kind":"task.failed","task_id":"u53"},{"kind":"task.failed","task_id":"u54"}]}`
		canonical := strings.Replace(payload, tt.text, tt.canonical, 1)
		raw := signedBy(t, k, `"id":"a","nonce":"n","payload":`+payload+`,"seq":1,"ts":`+testTS+`,"type":"event_batch","v":2`,
			`{"agent_id":"$agent","id":"a","nonce":"n","payload":`+canonical+`,"project_id":"$project","seq":1,"session_id":"$session","ts":`+testTS+`,"type":"event_batch","v":2}`)
		f, err := session(t, k).Verify(raw, testNow)
		if err != nil {
			t.Errorf("%s: got %v, want a frame", tt.name, err)
			continue
		}
		var got []string
		for e, err := range wire.Events(f.Payload) {
			if err != nil {
				t.Errorf("%s: got %v, want an event", tt.name, err)
			}
			got = append(got, e.TaskID)
			for key, value := range wire.Members(e.Data) {
				if text, ok := wire.String(value); !ok || string(key) != "name" || text != tt.want {
					t.Errorf("%s: %s got %q, %v, want %q", tt.name, key, text, ok, tt.want)
				}
			}
		}
		if !slices.Equal(got, []string{"u53", "u54"}) {
			t.Errorf("%s: got events %q, want both", tt.name, got)
		}
	}
}

// A number beyond float64 is no number to sign with, but a frame that has one is signed as it is spelled.
func TestFieldCaseF11DigitsSurvive(t *testing.T) {
	k := benchKeys
	args := `[7205759403792793601,-9007199254740993,1.10,1e400,0.30000000000000004]`
	canonical := `[7205759403792793601,-9007199254740993,1.1,1e400,0.30000000000000004]`
	raw := signedBy(t, k, `"id":"a","nonce":"n","payload":{"args":`+args+`},"seq":1,"ts":`+testTS+`,"type":"event_batch","v":2`,
		`{"agent_id":"$agent","id":"a","nonce":"n","payload":{"args":`+canonical+`},"project_id":"$project","seq":1,"session_id":"$session","ts":`+testTS+`,"type":"event_batch","v":2}`)
	f, err := session(t, k).Verify(raw, testNow)
	if err != nil || string(f.Payload) != `{"args":`+args+`}` {
		t.Errorf("got %s, %v, want every digit", f.Payload, err)
	}
}

// oracle is the canonical form by another road: decoded into values, then written.
func oracle(raw []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var value any
	if err := dec.Decode(&value); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text after the value")
	}
	var out bytes.Buffer
	err := oracleWrite(&out, value)
	return out.Bytes(), err
}

func oracleWrite(out *bytes.Buffer, value any) error {
	switch v := value.(type) {
	case nil:
		out.WriteString("null")
	case bool:
		fmt.Fprint(out, v)
	case string:
		oracleText(out, v)
	case json.Number:
		text, err := oracleNumber(v.String())
		out.WriteString(text)
		return err
	case []any:
		out.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := oracleWrite(out, e); err != nil {
				return err
			}
		}
		out.WriteByte(']')
	case map[string]any:
		var keys []string
		for key := range v {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		out.WriteByte('{')
		for i, key := range keys {
			if i > 0 {
				out.WriteByte(',')
			}
			oracleText(out, key)
			out.WriteByte(':')
			if err := oracleWrite(out, v[key]); err != nil {
				return err
			}
		}
		out.WriteByte('}')
	}
	return nil
}

func oracleText(out *bytes.Buffer, text string) {
	out.WriteByte('"')
	for _, r := range text {
		short := map[rune]string{'"': `\"`, '\\': `\\`, '\n': `\n`, '\r': `\r`, '\t': `\t`, '\f': `\f`, '\b': `\b`}[r]
		switch {
		case short != "":
			out.WriteString(short)
		case r < 0x20:
			fmt.Fprintf(out, `\u%04x`, r)
		default:
			out.WriteRune(r)
		}
	}
	out.WriteByte('"')
}

func oracleNumber(text string) (string, error) {
	if !strings.ContainsAny(text, ".eE") {
		if text == "-0" {
			return "0", nil
		}
		return text, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return "", err
	}
	if f == 0 && math.Signbit(f) {
		return "-0.0", nil
	}
	e := strconv.FormatFloat(f, 'e', -1, 64)
	_, exponent, _ := strings.Cut(e, "e")
	if x, _ := strconv.Atoi(exponent); x < -4 || x >= 16 {
		return e, nil
	}
	if f == math.Trunc(f) {
		return strconv.FormatFloat(f, 'f', 1, 64), nil
	}
	return strconv.FormatFloat(f, 'f', -1, 64), nil
}

func TestCanonicalDecimalsAgreeWithTheOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		raw := strconv.FormatInt(r.Int64N(1e6)*r.Int64N(3), 10) + "." + fmt.Sprintf("%0*d", 1+r.IntN(12), r.Int64N(100000))
		got, err := wire.Canonical(nil, []byte(raw))
		want, oracleErr := oracle([]byte(raw))
		if err != nil || oracleErr != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: got %s, %v, want %s, %v", raw, got, err, want, oracleErr)
		}
	}
}

func FuzzCanonical(f *testing.F) {
	for _, c := range loadVectors(f).Canonical {
		f.Add([]byte(c.Input))
	}
	for _, p := range loadVectors(f).Positive {
		f.Add([]byte(p.Frame))
	}
	for _, seed := range []string{
		`{"\n":1,"A":2,"\u0000":3,"":4}`, `{"b":{"d":1,"c":[{"f":1,"e":2}]},"a":1,"b":2}`, `[1e400]`, `["\ud800"]`, "[\"\xff\"]", `{"a":[{}],"a":[[]]}`,
		`[1.5E-7,-0.0,123456789012345678,1e22]`, manyKeys(20, false),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := wire.Canonical(nil, raw)
		want, oracleErr := oracle(raw)
		if err != nil {
			if oracleErr == nil && !strings.Contains(err.Error(), "UTF-8") && !strings.Contains(err.Error(), "surrogate") && !strings.Contains(err.Error(), "deeper") {
				t.Fatalf("%q: got %v, want %q", raw, err, want)
			}
			return
		}
		if oracleErr != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q: got %q, want %q (%v)", raw, got, want, oracleErr)
		}
		again, err := wire.Canonical(nil, got)
		if err != nil || !bytes.Equal(again, got) {
			t.Fatalf("%q: canonical form of %q: got %q, %v, want itself", raw, got, again, err)
		}
		if !wire.Valid(raw) {
			t.Fatalf("%q: has a canonical form, want it valid", raw)
		}
	})
}
