package redact_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/z4j-go/z4j/internal/redact"
)

// Things that look like secrets, put together here so that no scanner takes this file for a leak.
var (
	jwt    = "eyJhbGciOiJIUzI1NiJ9" + "." + "eyJzdWIiOiIxMjM0In0" + "." + "dozjgNryP4J3jVmNHl0w5N"
	stripe = "sk_" + "live_" + "4eC39HqLyjWDarjtT1zdp7dc"
	slack  = "xox" + "b-123456789012-abcdefghij"
	github = "gh" + "p_" + strings.Repeat("a1B2", 9)
	aws    = "AKIA" + "IOSFODNN7EXAMPLE"
	google = "AIza" + strings.Repeat("Sy5D", 8) + "abc"
	twilio = "SK" + strings.Repeat("0a1b", 8)
	grid   = "SG." + strings.Repeat("ab", 11) + "." + strings.Repeat("cd", 21)
	hook   = "https://hooks.slack" + ".com/services/T000/B000/XXXX"
	ours   = "z4k_" + strings.Repeat("Ab-_1", 8) + "xyz"
	pem    = "-----BEGIN RSA " + "PRIVATE KEY-----"
)

func TestEvent(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", ``, ``},
		{"an ordinary event stays as it is", `{"task_name":"shop.charge", "args":[1, "b-c_d"]}`, `{"task_name":"shop.charge", "args":[1, "b-c_d"]}`},
		{"a secret key loses its text", `{"kwargs":{"password":"hunter2","n":1}}`, `{"kwargs":{"password":"[REDACTED]","n":1}}`},
		{"whatever the type", `{"token":[1,{"a":2}],"auth":null,"cvc":123,"secret":{}}`, `{"token":"[REDACTED]","auth":"[REDACTED]","cvc":"[REDACTED]","secret":"[REDACTED]"}`},
		{"in any case, with a hyphen too", `{"Set-Cookie":"a","X-API-KEY":"b","PassWord":"c"}`, `{"Set-Cookie":"[REDACTED]","X-API-KEY":"[REDACTED]","PassWord":"[REDACTED]"}`},
		{"also with an escape in its name", `{"pass\u0077ord":"a"}`, `{"pass\u0077ord":"[REDACTED]"}`},
		{"a name that only contains one stays", `{"passwords_seen":1,"tokens":2,"authority":"x"}`, `{"passwords_seen":1,"tokens":2,"authority":"x"}`},
		{"JWT", `["` + jwt + `"]`, `["[REDACTED]"]`},
		{"the whole text goes", `["see ` + jwt + ` there"]`, `["[REDACTED]"]`},
		{"bearer", `["Authorization: bearer abcdefghijklmnop1234"]`, `["[REDACTED]"]`},
		{"a bearer of bad news stays", `["the bearer of bad news"]`, `["the bearer of bad news"]`},
		{"Stripe", `["` + stripe + `"]`, `["[REDACTED]"]`},
		{"Slack", `["` + slack + `"]`, `["[REDACTED]"]`},
		{"Slack webhook", `["` + hook + `"]`, `["[REDACTED]"]`},
		{"GitHub", `["` + github + `"]`, `["[REDACTED]"]`},
		{"our API keys", `["use ` + ours + `","z4k_abcd"]`, `["[REDACTED]","z4k_abcd"]`},
		{"AWS", `["key ` + aws + `"]`, `["[REDACTED]"]`},
		{"Google", `["` + google + `"]`, `["[REDACTED]"]`},
		{"Twilio", `["` + twilio + `"]`, `["[REDACTED]"]`},
		{"SendGrid", `["` + grid + `"]`, `["[REDACTED]"]`},
		{"PEM", `["` + pem + `\nMIIE"]`, `["[REDACTED]"]`},
		{"a URL with a password", `["postgresql://app:pw@db/x","redis://:pw@r:6379/0","amqp://guest:guest@mq//"]`, `["[REDACTED]","[REDACTED]","[REDACTED]"]`},
		{"a URL without one stays", `["postgresql://app@db/x","https://example.com:8080/a@b"]`, `["postgresql://app@db/x","https://example.com:8080/a@b"]`},
		{"e-mail", `["ann@example.org"]`, `["[REDACTED]"]`},
		{"e-mail with an escaped @", `["ann\u0040example.org"]`, `["[REDACTED]"]`},
		{"social security number", `["it is 123-45-6789."]`, `["[REDACTED]"]`},
		{"a UUID and a date stay", `["6f1c0f1e-1234-4bbb-8ccc-0123456789ab","2026-03-14"]`, `["6f1c0f1e-1234-4bbb-8ccc-0123456789ab","2026-03-14"]`},
		{"a secret as a key", `{"kwargs":{"ann@example.org":1,"bob@example.org":2}}`, `{"kwargs":{"[REDACTED]":1,"[REDACTED 2]":2}}`},
		{"masked before", `{"password":"[REDACTED]"}`, `{"password":"[REDACTED]"}`},
		{"digits stay", `[7205759403792793601,-9007199254740993,1.10,1e400,0.30000000000000004,123456789012345678901234567890]`, `[7205759403792793601,-9007199254740993,1.10,1e400,0.30000000000000004,123456789012345678901234567890]`},
		{"no JSON is masked whole", `{"password":"hunter2"`, `"[REDACTED]"`},
		{"no number", `[01]`, `"[REDACTED]"`},
		{"no escape", `["\x"]`, `"[REDACTED]"`},
	} {
		if got := string(redact.Event([]byte(tt.in))); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
		if got := redact.Event(redact.Event([]byte(tt.in))); string(got) != tt.want {
			t.Errorf("%s, twice: got %s, want %s", tt.name, got, tt.want)
		}
	}
	if redact.Event(nil) != nil {
		t.Error("nil: want nil")
	}
}

func TestIdentityIsExempt(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"in an event", `{"task_id":"a@b.org","engine":"celery","data":{"worker":"celery@web-01.example.com","queue":"q@x.org","task_name":"t@x.org"}}`, ""},
		{"in its data alone", `{"worker":"celery@web-01.example.com","parent_task_id":"p@x.org"}`, ""},
		{"but not in what the task was given", `{"kwargs":{"worker":"ann@example.com"}}`, `{"kwargs":{"worker":"[REDACTED]"}}`},
		{"nor in a list of them", `{"worker":["ann@example.com"]}`, `{"worker":["[REDACTED]"]}`},
		{"nor by another name", `{"reason":"ann@example.com"}`, `{"reason":"[REDACTED]"}`},
		{"they are made storable", `{"worker":"celery@\u0000.example.com"}`, `{"worker":"celery@` + "\ufffd" + `.example.com"}`},
	} {
		want := tt.want
		if want == "" {
			want = tt.in
		}
		if got := string(redact.Event([]byte(tt.in))); got != want {
			t.Errorf("%s: got %s, want %s", tt.name, got, want)
		}
	}
	if got := string(redact.JSON([]byte(`{"worker":"ann@example.com"}`))); got != `{"worker":"[REDACTED]"}` {
		t.Errorf("outside of events nothing is exempt: got %s", got)
	}
}

// TestFieldCaseF07NULAndLoneSurrogates and F53: what can't be stored becomes U+FFFD, what only looks like it stays.
func TestFieldCaseF07NULAndLoneSurrogates(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"NUL", `["spec\u0000ial"]`, "[\"spec\ufffdial\"]"},
		{"a lone high half", `["low \ud83d alone"]`, "[\"low \ufffd alone\"]"},
		{"a lone low half", `["\uDE00"]`, "[\"\ufffd\"]"},
		{"two high halves and a low one", `["\ud83d\ud83d\ude00"]`, "[\"\ufffd😀\"]"},
		{"a pair stays as it is spelled", `["\ud83d\ude00"]`, `["\ud83d\ude00"]`},
		{"text that looks like NUL", `["shown \\u0000 as text"]`, `["shown \\u0000 as text"]`},
		{"an escaped backslash before an escape", `["\\\u0000"]`, "[\"\\\\\ufffd\"]"},
		{"a key", `{"k\u0000ey":1}`, "{\"k\ufffdey\":1}"},
		{"a surrogate in three bytes", "[\"imp\xed\xa0\xbdort\"]", "[\"imp\ufffdort\"]"},
		{"lone bytes", "[\"Bad\xcb\",\"\xd8 end\xc0\x80\"]", "[\"Bad\ufffd\",\"\ufffd end\ufffd\ufffd\"]"},
		{"newlines beside it", `["a\n\u0000\t\u0001\"\\"]`, "[\"a\\n\ufffd\\t\\u0001\\\"\\\\\"]"},
		{"other escapes stay", `["a\n\u00e9\/"]`, `["a\n\u00e9\/"]`},
	} {
		if got := string(redact.Event([]byte(tt.in))); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestLongStringsAreCut(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"8192 bytes stay", strings.Repeat("a", 8192), strings.Repeat("a", 8192)},
		{"one more is cut", strings.Repeat("a", 8193), strings.Repeat("a", 8192) + "[...1 more bytes truncated]"},
		{"not inside a character", strings.Repeat("a", 8190) + "€uro", strings.Repeat("a", 8190) + "[...6 more bytes truncated]"},
		{"cut by the agent", strings.Repeat("b", 8190) + "[...77 more bytes truncated]", strings.Repeat("b", 8190) + "[...77 more bytes truncated]"},
		{"a tail that lies", strings.Repeat("b", 9000) + "[...77 more bytes truncated]", strings.Repeat("b", 8192) + "[...836 more bytes truncated]"},
	} {
		in, err := json.Marshal(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if err := json.Unmarshal(redact.JSON(in), &got); err != nil || got != tt.want {
			t.Errorf("%s: got %d bytes ending in %q, %v; want %d ending in %q", tt.name, len(got), tail(got), err, len(tt.want), tail(tt.want))
		}
		if got := redact.Text(tt.in); got != tt.want {
			t.Errorf("%s, as text: got %q, want %q", tt.name, tail(got), tail(tt.want))
		}
		if got := string(redact.Details(in)); got != string(in) {
			t.Errorf("%s: details are never cut here, got %d bytes, want %d", tt.name, len(got), len(in))
		}
	}
}

func tail(s string) string { return s[max(0, len(s)-40):] }

func TestDepth(t *testing.T) {
	nest := func(n int, in string) string { return strings.Repeat("[", n) + in + strings.Repeat("]", n) }
	if in := nest(63, "1"); string(redact.JSON([]byte(in))) != in {
		t.Error("63 levels: want them unchanged")
	}
	if got, want := string(redact.JSON([]byte(nest(64, `{"a":[1]}`)))), nest(64, `"[REDACTED]"`); got != want {
		t.Errorf("64 levels: got %s, want %s", got, want)
	}
	deep := nest(200_000, "1")
	if got, want := string(redact.JSON([]byte(deep))), nest(64, `"[REDACTED]"`); got != want {
		t.Errorf("200,000 levels: got %d bytes, want %d", len(got), len(want))
	}
}

func TestDetails(t *testing.T) {
	in := `{"email":"ann@example.org","password":"x","url":"` + hook + `","note":"hi"}`
	want := `{"email":"ann@example.org","password":"[REDACTED]","url":"[REDACTED]","note":"hi"}`
	if got := string(redact.Details([]byte(in))); got != want {
		t.Errorf("details: got %s, want %s", got, want)
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"plain", "ValueError: 3", "ValueError: 3"},
		{"secret", "bad key " + stripe, "[REDACTED]"},
		{"NUL", "a\x00b", "a\ufffdb"},
		{"broken", "Bad\xcb", "Bad\ufffd"},
	} {
		if got := redact.Text(tt.in); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestAttr(t *testing.T) {
	for _, tt := range []struct {
		name string
		attr slog.Attr
		want string
	}{
		{"a secret's name", slog.String("token", "abc"), "token=[REDACTED]"},
		{"a number under one", slog.Int("password", 12), "password=[REDACTED]"},
		{"a name that ends in one", slog.String("audit_secret", "abc"), "audit_secret=[REDACTED]"},
		{"another name", slog.String("agent", "abc"), "agent=abc"},
		{"a counter", slog.Int("tokens", 3), "tokens=3"},
		{"a URL with a password", slog.String("url", "see postgres://a:b@c/d"), "url=see [REDACTED]c/d"},
		{"an error that quotes one", slog.Any("err", errors.New("post "+hook+": refused")), "err=post https://[REDACTED] refused"},
		{"an address", slog.String("peer", "ann@example.org"), "peer=ann@example.org"},
		{"a nil error", slog.Any("err", error(nil)), "err=<nil>"},
	} {
		if got := redact.Attr(nil, tt.attr).String(); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func FuzzEvent(f *testing.F) {
	for _, s := range []string{
		`{"task_id":"a","data":{"args":["ann@example.org",1e400,"\ud83d\u0000"],"kwargs":{"password":{"a":[1]}}}}`,
		`["` + jwt + `"]`, `"\\u0000"`, "[\"\xed\xa0\xbd\xc0\x80\"]", `[[[[]]],{"":{}}]`, `{"a@b.cd":1,"a\u0040b.cd":2}`, ` [ -0.0E+1 , null ] `,
		`{"token":[}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		before := bytes.Clone(in)
		out := redact.Event(in)
		if !bytes.Equal(before, in) {
			t.Fatalf("the input was written to: %q", in)
		}
		if len(in) == 0 {
			return
		}
		if !json.Valid(out) || !utf8.Valid(out) {
			t.Fatalf("%q: got %q, want valid JSON in valid UTF-8", in, out)
		}
		if again := redact.Event(out); !bytes.Equal(again, out) {
			t.Fatalf("%q: twice gives %q, once %q", in, again, out)
		}
		if json.Valid(in) && string(out) == `"[REDACTED]"` && bytes.ContainsAny(in[:1], "{[") {
			t.Fatalf("%q: valid JSON was masked whole", in)
		}
		var v any
		if err := json.Unmarshal(out, &v); err == nil && hasNUL(v) {
			t.Fatalf("%q: got %q, which holds U+0000", in, out)
		}
	})
}

func hasNUL(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.ContainsRune(v, 0)
	case []any:
		for _, e := range v {
			if hasNUL(e) {
				return true
			}
		}
	case map[string]any:
		for k, e := range v {
			if hasNUL(k) || hasNUL(e) {
				return true
			}
		}
	}
	return false
}

// usual is an event of 500 bytes as Celery's agent sends it.
const usual = `{"task_name":"shop.tasks.charge_customer","queue":"payments","worker":"celery@web-01.example.com","args":[7205759403792793601,"order-2026-0012","a longer text, with some words and punctuation in it"],"kwargs":{"amount":"12.50","currency":"EUR","customer_id":"0b8f7a52-51f0-4d5e-9d0c-7a1c2b3d4e5f","retry":false},"parent_task_id":"6f1c0f1e-aaaa-4bbb-8ccc-0123456789ab","root_task_id":"6f1c0f1e-aaaa-4bbb-8ccc-0123456789ab","eta":null,"retries":0,"priority":"normal","tags":["billing","eu-west-1"],"x":1}`

func BenchmarkEvent(b *testing.B) {
	for _, bb := range []struct{ name, in string }{
		{"usual", usual},
		{"masked", strings.Replace(usual, `"EUR"`, `"ann@example.org"`, 1)},
		{"decorators", `{"traceback":"` + strings.Repeat(`  see https://docs.example.com/x\n    @app.task\n    raise ValueError(x)\n`, 50) + `"}`},
		{"traceback", `{"traceback":"` + strings.Repeat(`  File \"/srv/app/tasks.py\", line 12, in charge\n    raise ValueError(x)\n`, 50) + `"}`},
	} {
		in := []byte(bb.in)
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				redact.Event(in)
			}
		})
	}
}

func TestNothingIsAllocatedWhenNothingMatches(t *testing.T) {
	in := []byte(usual)
	if n := testing.AllocsPerRun(100, func() { redact.Event(in) }); n != 0 {
		t.Errorf("an ordinary event: %v allocations, want 0", n)
	}
}
