package audit_test

import (
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/audit"
)

// TestBodiesAreReadStrictly: of one entry there is one spelling; any other is no body, and none is a crash.
func TestBodiesAreReadStrictly(t *testing.T) {
	const good = `{"action":"auth.login","actor_id":"a\"\u0001é","actor_kind":"user","actor_personal":null,"clock_step":7,"details":{"a":[1,{}]},` +
		`"id":"019b7c00-0000-7000-8000-000000000002","kid":"00","outcome":"allow","prev_row_hmac":"00","project_id":null,"project_label":null,` +
		`"request_id":null,"seq":2,"target_id":null,"target_label":null,"target_personal":null,"target_type":"user","ts":"2026-01-02T03:04:06.000007Z","v":1}`
	body, err := audit.ParseBody([]byte(good))
	if err != nil || body.ActorID.S != "a\"\x01é" || body.Seq != 2 || body.ClockStep != 7 || body.Details.S != `{"a":[1,{}]}` || body.TS != "2026-01-02T03:04:06.000007Z" || body.ProjectID.Set {
		t.Fatalf("the good one: %+v, %v", body, err)
	}
	for _, tt := range []struct{ name, from, to string }{
		{"another spelling of a letter", `"user"`, `"\u0075ser"`},
		{"an escape that needs none", `é`, `\u00e9`},
		{"half of a surrogate pair", `é`, `\ud800`},
		{"an escape that is none", `\u0001`, `\x01`},
		{"a control character", `\u0001`, "\x01"},
		{"bytes that are no text", `é`, "\xff"},
		{"an empty text", `"user"`, `""`},
		{"a text that does not end", `"v":1}`, `"v":"1}`},
		{"a number for a text", `"user"`, `1`},
		{"a text for a number", `"seq":2`, `"seq":"2"`},
		{"no number", `"seq":2`, `"seq":null`},
		{"a leading zero", `"seq":2`, `"seq":02`},
		{"a fraction", `"seq":2`, `"seq":2.0`},
		{"an exponent", `"seq":2`, `"seq":2e0`},
		{"minus nothing", `"seq":2`, `"seq":-0`},
		{"two signs", `"seq":2`, `"seq":--2`},
		{"beyond 2^53", `"seq":2`, `"seq":9007199254740992`},
		{"beyond it below", `"seq":2`, `"seq":-9007199254740992`},
		{"beyond 2^63", `"seq":2`, `"seq":92233720368547758080`},
		{"a step of nothing", `"clock_step":7`, `"clock_step":0`},
		{"details that are a list", `{"a":[1,{}]}`, `[1]`},
		{"details that are a text", `{"a":[1,{}]}`, `"a"`},
		{"details that are no JSON", `{"a":[1,{}]}`, `{"a":[1,{}}}`},
		{"details that are no JSON inside", `{"a":[1,{}]}`, `{"a":[1,,{}]}`},
		{"details that do not end", `{"a":[1,{}]}`, `{"a":[1,{}]`},
		{"details with a text that does not end", `{"a":[1,{}]}`, `{"a}`},
		{"a space", `"seq":2`, `"seq": 2`},
		{"another version", `"v":1`, `"v":2`},
		{"a field twice", `"seq":2`, `"seq":2,"seq":2`},
		{"a field more", `"v":1`, `"v":1,"w":1`},
		{"another name", `"seq"`, `"sequence"`},
		{"another order", `"kid":"00","outcome":"allow"`, `"outcome":"allow","kid":"00"`},
		{"something behind", `"v":1}`, `"v":1}{}`},
		{"something before", `{"action"`, ` {"action"`},
	} {
		bad := strings.Replace(good, tt.from, tt.to, 1)
		if bad == good {
			t.Fatalf("%s: nothing was replaced", tt.name)
		}
		if b, err := audit.ParseBody([]byte(bad)); err == nil {
			t.Errorf("%s: taken as %+v", tt.name, b)
		}
	}
	for i := range good {
		if _, err := audit.ParseBody([]byte(good[:i])); err == nil {
			t.Errorf("the first %d bytes: taken", i)
		}
	}
}
