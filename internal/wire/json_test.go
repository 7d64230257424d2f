package wire_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"github.com/z4j-go/z4j/internal/wire"
)

func TestMembers(t *testing.T) {
	tests := []struct {
		name, raw string
		want      []string
	}{
		{"all kinds of values", ` { "a" : 1 , "b":[{"x":"]}"},2],"c":{"d":"\"}"},"e":"x\\","f":null } `, []string{"a=1", `b=[{"x":"]}"},2]`, `c={"d":"\"}"}`, `e="x\\"`, "f=null"}},
		{"keys with escapes and without ASCII", `{"\u0061\n":1,"ü":2,"\ud83d":3}`, []string{"a\n=1", "ü=2", "\ufffd=3"}},
		{"equal keys, as they came", `{"a":1,"a":2}`, []string{"a=1", "a=2"}},
		{"none", `{}`, nil},
		{"a list", `[1]`, nil},
		{"nothing", ``, nil},
		{"text that ends early", `{"a":1,"b":[`, []string{"a=1"}},
	}
	for _, tt := range tests {
		var got []string
		for key, value := range wire.Members([]byte(tt.raw)) {
			got = append(got, string(key)+"="+string(value))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	for range wire.Members([]byte(`{"a":1,"b":2}`)) {
		break // must end the walk
	}
}

func TestMembersAllocateNothing(t *testing.T) {
	raw := []byte(`{"task_name":"shop.charge","queue":"default","worker":"celery@web-1","runtime_ms":12,"result":{"a":[1,2]}}`)
	total := 0
	if n := testing.AllocsPerRun(100, func() {
		for key, value := range wire.Members(raw) {
			if string(key) == "runtime_ms" {
				ms, _ := wire.Int(value)
				total += int(ms)
			}
			total += len(value)
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
	if total == 0 {
		t.Error("nothing was read")
	}
}

func TestElements(t *testing.T) {
	var got []string
	for e := range wire.Elements([]byte(` [ 1 , "a,b" , [2] , {} , null ] `)) {
		got = append(got, string(e))
	}
	if want := []string{"1", `"a,b"`, "[2]", "{}", "null"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for e := range wire.Elements([]byte(`{"a":1}`)) {
		t.Errorf("of an object: got %s, want none", e)
	}
}

func TestScalars(t *testing.T) {
	ints := map[string]string{
		"0": "0", "-0": "0", "3.0": "3", "3e2": "300", "-5": "-5", "9223372036854775807": "9223372036854775807", "9007199254740993": "9007199254740993",
		"3.7": "?", "9223372036854775808": "?", "1e300": "?", "-1e300": "?", "1e400": "?", `"12"`: "?", "null": "?", "true": "?", "": "?", "Inf": "?", "0x10": "?", "1_0": "?", "+1": "?", "[1]": "?", "1 ": "?",
	}
	for raw, want := range ints {
		got := "?"
		if n, ok := wire.Int([]byte(raw)); ok {
			got = fmt.Sprint(n)
		}
		if got != want {
			t.Errorf("Int(%s): got %s, want %s", raw, got, want)
		}
	}
	floats := map[string]string{"0.4": "0.4", "-5": "-5", "1e-400": "0", "12": "12", "1e400": "?", `"12.5"`: "?", "null": "?", "NaN": "?", "inf": "?", "0x1p4": "?", strings.Repeat("1", 500): "?"}
	for raw, want := range floats {
		got := "?"
		if f, ok := wire.Float([]byte(raw)); ok {
			got = fmt.Sprint(f)
		}
		if got != want {
			t.Errorf("Float(%.20s): got %s, want %s", raw, got, want)
		}
	}
	texts := map[string]string{`""`: "", `"a"`: "a", `"\"\\\/\b\f\n\r\t\u00fc\ud83d\ude00"`: "\"\\/\b\f\n\r\tü\U0001f600", `"ü"`: "ü", "\"\xff\"": "\ufffd", `null`: "?", `7`: "?", ``: "?", `"`: "?", `["a"]`: "?"}
	for raw, want := range texts {
		got := "?"
		if s, ok := wire.String([]byte(raw)); ok {
			got = s
		}
		if got != want {
			t.Errorf("String(%s): got %q, want %q", raw, got, want)
		}
	}
	for raw, want := range map[string][2]bool{"true": {true, true}, "false": {false, true}, "null": {}, `"true"`: {}, "1": {}} {
		if b, ok := wire.Bool([]byte(raw)); b != want[0] || ok != want[1] {
			t.Errorf("Bool(%s): got %v, %v, want %v", raw, b, ok, want)
		}
	}
}

func TestClean(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"nothing to do", `{"a":["b",1.10,7205759403792793601,1e400,"ü","\u00fc\n"]}`, `{"a":["b",1.10,7205759403792793601,1e400,"ü","\u00fc\n"]}`},
		{"NUL", `["spec\u0000ial",{"k\u0000ey":1}]`, `["spec` + "\ufffd" + `ial",{"k` + "\ufffd" + `ey":1}]`},
		{"half a pair", `["low \ud83d alone","\ude00\ud83d","\ud83d\ud83d\ude00"]`, `["low ` + "\ufffd" + ` alone","` + "\ufffd\ufffd" + `","` + "\ufffd" + `\ud83d\ude00"]`},
		{"what only looks like it", `["shown \\u0000","\\\\ud83d","\\\u0000"]`, `["shown \\u0000","\\\\ud83d","\\` + "\ufffd" + `"]`},
		{"invalid bytes", "[\"a\xff\xedb\",\"\xed\xa0\xbd\",\"\xc0\x80\"]", "[\"a\ufffd\ufffdb\",\"\ufffd\",\"\ufffd\ufffd\"]"},
	}
	for _, tt := range tests {
		got := wire.Clean([]byte(tt.in))
		if string(got) != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
		if again := wire.Clean(got); string(again) != tt.want {
			t.Errorf("%s, again: got %s, want %s", tt.name, again, tt.want)
		}
	}
	in := []byte(`{"a":1}`)
	if got := wire.Clean(in); &got[0] != &in[0] {
		t.Error("clean text: got a copy, want the same")
	}
}

func TestParseTime(t *testing.T) {
	tests := []struct{ text, want string }{
		{"2026-03-14T09:26:53Z", "2026-03-14T09:26:53Z"},
		{"2026-03-14T09:26:53.5Z", "2026-03-14T09:26:53.5Z"},
		{"2026-03-14T09:26:53.123456789Z", "2026-03-14T09:26:53.123456Z"},
		{"2026-03-14t09:26:53.000001z", "2026-03-14T09:26:53.000001Z"},
		{"2026-03-14 09:26:53+00:00", "2026-03-14T09:26:53Z"},
		{"2026-03-14T09:26:53,25-0330", "2026-03-14T12:56:53.25Z"},
		{"2026-03-14T00:26:53+14", "2026-03-13T10:26:53Z"},
		{"2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"},
		{"1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"},
		{"0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"},
		{"9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"},
		{"2026-03-14T09:26:53", ""},
		{"2026-03-14T09:26:53.Z", ""},
		{"2026-03-14T09:26:53.1234567890Z", ""},
		{"2026-03-14T09:26Z", ""},
		{"2026-03-14", ""},
		{"2025-02-29T00:00:00Z", ""},
		{"2026-13-01T00:00:00Z", ""},
		{"2026-04-31T00:00:00Z", ""},
		{"2026-03-00T00:00:00Z", ""},
		{"2026-03-14T24:00:00Z", ""},
		{"2026-03-14T09:60:00Z", ""},
		{"2026-03-14T09:26:60Z", ""},
		{"0000-01-01T00:00:00Z", ""},
		{"2026-03-14T09:26:53+24:00", ""},
		{"2026-03-14T09:26:53+01:60", ""},
		{"2026-03-14T09:26:53+1:00", ""},
		{"2026-03-14T09:26:53+01:00x", ""},
		{"2026-03-14T09:26:53Zulu", ""},
		{"-026-03-14T09:26:53Z", ""},
		{"", ""},
	}
	for _, tt := range tests {
		got := ""
		if micros, ok := wire.ParseTime([]byte(tt.text)); ok {
			got = time.UnixMicro(micros).UTC().Format(time.RFC3339Nano)
		}
		if got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.text, got, tt.want)
		}
	}
	roundTrip := func(n int64) bool {
		n %= 253402300800000000 // to the year 9999
		if n < 0 {
			n = -n - 62135596800000000%1000 // and some before the epoch
		}
		got, ok := wire.ParseTime(wire.AppendTime(nil, time.UnixMicro(n)))
		return ok && got == n
	}
	if err := quick.Check(roundTrip, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
	for day := -719162; day < 2932896; day += 97 { // each month of each year is met
		want := time.Unix(int64(day)*86400, 0).UTC()
		if got, ok := wire.ParseTime([]byte(want.Format(time.RFC3339))); !ok || got != want.UnixMicro() {
			t.Fatalf("%v: got %d, %v, want %d", want, got, ok, want.UnixMicro())
		}
	}
}

func TestVersions(t *testing.T) {
	tests := []struct {
		version    string
		ack, spins bool
	}{
		{"1.0.6", false, false},
		{"1.4.0", false, false},
		{"1.4.9", false, false},
		{"1.4.0rc1", false, false},
		{"0.9.0", false, false},
		{"1.5.0", true, true},
		{"1.5.1", true, true},
		{"1.6.7", true, true},
		{"1.6", true, true},
		{"v1.6.7", true, true},
		{"1.7.0", true, false},
		{"1.10.0", true, false},
		{"1.13.0", true, false},
		{"2.0.0", true, false},
		{"2.4.0", true, false},
		{"9.9.9", true, false},
		{"", true, false},
		{"0.0.0", true, false},
		{"unknown", true, false},
		{"1", true, false},
		{"1.x", true, false},
		{"+1.4", true, false},
		{"1.99999999999999999999", true, false},
	}
	for _, tt := range tests {
		if got := wire.AckByID(tt.version); got != tt.ack {
			t.Errorf("AckByID(%q): got %v, want %v", tt.version, got, tt.ack)
		}
		if got := wire.Spins(tt.version); got != tt.spins {
			t.Errorf("Spins(%q): got %v, want %v", tt.version, got, tt.spins)
		}
	}
}

func TestTokensAndSecrets(t *testing.T) {
	if got, err := wire.NewToken(strings.NewReader(strings.Repeat("\xff", 32))); err != nil || got != strings.Repeat("_", 42)+"8" {
		t.Errorf("token of known bytes: got %s, %v, want 42 underscores and an 8", got, err)
	}
	if got, err := wire.NewToken(strings.NewReader("short")); err == nil {
		t.Errorf("token of 5 bytes: got %s, want an error", got)
	}
	one, err1 := wire.NewToken(nil)
	two, err2 := wire.NewToken(nil)
	if err1 != nil || err2 != nil || len(one) != 43 || one == two {
		t.Errorf("two tokens: got %q, %q, %v, %v, want two of 43 characters", one, two, err1, err2)
	}
	for header, want := range map[string]string{
		"Bearer abc": "abc", "bearer\t abc ": "abc", "  BEARER abc": "abc", "Bearer a b": "a b", "Bearer": "", "Bearer  ": "", "": "", "Basic abc": "", "abc": "", "Bearerabc": "",
	} {
		if got := wire.Bearer(header); got != want {
			t.Errorf("header %q: got %q, want %q", header, got, want)
		}
	}
	for _, bad := range []string{"", "short", strings.Repeat("!", 44), strings.Repeat("A", 42)} {
		got, err := wire.DecodeSecret(bad)
		if err == nil {
			t.Errorf("secret %q: got %x, want an error", bad, got)
			continue
		}
		if bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("secret %q: error %q quotes it", bad, err)
		}
	}
}
