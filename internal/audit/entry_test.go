package audit_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/redact"
)

// seal makes the second row of a chain out of f.
func seal(t testing.TB, f audit.Facts) (audit.Row, []audit.Personal) {
	t.Helper()
	c := newChain(t, secretA)
	row := c.add(t, f)
	if r := walk(c.keys(), nil, c.rows, c.parts); r.Exit() != 0 {
		t.Errorf("%s does not verify: %+v", f.Action, r)
	}
	return row, c.parts[row.Seq]
}

func TestCatalogue(t *testing.T) {
	name := regexp.MustCompile(`^[a-z]+(_[a-z]+)*(\.[a-z_]+)+$`)
	file, err := parser.ParseFile(token.NewFileSet(), "catalogue.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if typ, ok := spec.Type.(*ast.Ident); !ok || typ.Name != "Action" {
			return true
		}
		n++
		text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		kind, ok := audit.Action(text).Kind()
		if !ok || kind.Target == "" || !name.MatchString(text) {
			t.Errorf("%s = %q: give it a line in the catalogue with its target, and a name like noun.verb", spec.Names[0].Name, text)
		}
		details := map[string]any{}
		for _, d := range append(kind.Details, kind.Personal...) {
			details[d] = "x"
			if redact.Key(d) {
				t.Errorf("%s: the detail %q has the name of a secret and would be masked", text, d)
			}
		}
		c := newChain(t, secretA)
		row := c.add(t, audit.Facts{Action: audit.Action(text), Actor: audit.Actor{Kind: audit.CLI}, Target: audit.Target{Label: "who"}, Details: details})
		parts := c.parts[row.Seq]
		if kind.Person == row.TargetLabel.Set {
			t.Errorf("%s: target_label %v; want it only where the target is no person", text, row.TargetLabel)
		}
		if kind.Person && (len(parts) != 1 || parts[0].Role != audit.RoleTarget || !strings.Contains(parts[0].JSON.S, `"label":"who"`)) {
			t.Errorf("%s: personal parts %+v; want the label of the target", text, parts)
		}
		return true
	})
	if n < 20 {
		t.Errorf("found %d actions, want at least 20", n)
	}
}

func TestEntryRefusesWhatTheCatalogueDoesNotKnow(t *testing.T) {
	ok := audit.Facts{Action: audit.AuthLogin, Actor: audit.Actor{Kind: audit.User}}
	for _, tt := range []struct {
		name   string
		change func(*audit.Facts)
		want   string
	}{
		{"nothing wrong", func(*audit.Facts) {}, ""},
		{"action", func(f *audit.Facts) { f.Action = "auth.logon" }, "no action"},
		{"actor", func(f *audit.Facts) { f.Actor.Kind = "" }, "kind of actor"},
		{"outcome", func(f *audit.Facts) { f.Outcome = "success" }, "outcome"},
		{"detail", func(f *audit.Facts) { f.Details = map[string]any{"sesion_id": 1} }, `no detail "sesion_id"`},
		{"nested name", func(f *audit.Facts) { f.Details = map[string]any{"reason": map[string]any{"A b": 1}} }, "no name"},
		{"type", func(f *audit.Facts) { f.Details = map[string]any{"reason": struct{}{}} }, "type struct"},
		{"depth", func(f *audit.Facts) {
			var v any = 1
			for range 20 {
				v = []any{v}
			}
			f.Details = map[string]any{"reason": v}
		}, "nested"},
	} {
		f := ok
		tt.change(&f)
		e := audit.New(f)
		if err := e.Err(); tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

type role string

func TestDetails(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6789, time.FixedZone("odd", 3600))
	for _, tt := range []struct {
		name string
		in   any
		want string
	}{
		{"text", "é<&>\u2028", `"é<&>` + "\u2028" + `"`},
		{"named text", role("admin"), `"admin"`},
		{"integer", 12, `12`},
		{"largest integer", int64(1<<53 - 1), `9007199254740991`},
		{"beyond it", int64(1 << 53), `"9007199254740992"`},
		{"beyond it below", int64(-1 << 53), `"-9007199254740992"`},
		{"number", 1.5, `"1.5"`},
		{"truth", true, `true`},
		{"nothing", nil, `null`},
		{"time", at, `"2026-01-02T02:04:05.000006Z"`},
		{"list", []string{"a", "b"}, `["a","b"]`},
		{"object, sorted", map[string]any{"b": 1, "a": []any{nil}}, `{"a":[null],"b":1}`},
		{"NUL and broken bytes", "a\x00\xff", "\"a\ufffd\ufffd\""},
		{"secret", "Bearer abcdefghijklmnopqrst", `"[REDACTED]"`},
		{"secret's name", map[string]any{"token": "x"}, `{"token":"[REDACTED]"}`},
		{"e-mail stays", "ann@example.org", `"ann@example.org"`},
	} {
		row, _ := seal(t, audit.Facts{Action: audit.AuthLogin, Actor: audit.Actor{Kind: audit.System}, Details: map[string]any{"reason": tt.in}})
		if want := `{"reason":` + tt.want + `}`; row.Details.S != want {
			t.Errorf("%s: got %s, want %s", tt.name, row.Details.S, want)
		}
	}
	row, _ := seal(t, audit.Facts{Action: audit.AuthLogin, Actor: audit.Actor{Kind: audit.System}, Details: map[string]any{"reason": strings.Repeat("é", 1<<20)}})
	var big struct {
		Excerpt, SHA256 string
		Size            int
	}
	if err := json.Unmarshal([]byte(row.Details.S), &big); err != nil || big.Size != 2<<20+len(`{"reason":""}`) || len(big.SHA256) != 64 ||
		!utf8.ValidString(big.Excerpt) || len(row.Details.S) > 2000 {
		t.Errorf("2 MiB of details: %v, %d bytes, size %d; want hash, size and how they begin", err, len(row.Details.S), big.Size)
	}
}

// TestHeadersOfEveryByteValue: whatever stands in a header, the row can be written and verifies.
func TestHeadersOfEveryByteValue(t *testing.T) {
	c := newChain(t, secretA)
	for b := range 256 {
		text := "a" + string([]byte{byte(b)}) + "z"
		f := login(1)
		f.Actor.UserAgent, f.Actor.ID, f.RequestID, f.Actor.IP, f.Target.Label = text, text, text, text, text
		f.Details = map[string]any{"reason": text}
		c.add(t, f)
	}
	if r := walk(c.keys(), nil, c.rows, c.parts); r.Exit() != 0 {
		t.Errorf("exit %d, want 0; %+v", r.Exit(), r.First)
	}
	for i := range c.rows {
		if b := c.rows[i].Body; !utf8.Valid(b) || strings.Contains(string(b), "\x00") {
			t.Errorf("row %d can't be stored everywhere: %q", i, b)
		}
	}
}

func TestPersonalPartsAreNotSigned(t *testing.T) {
	f := login(1)
	f.Action = audit.UserCreated
	f.Target = audit.Target{ID: user(2), Label: "Bob@Example.org"}
	f.Details = map[string]any{"is_admin": false, "display_name": "Bob Builder"}
	f.Actor.IP = "::ffff:203.0.113.7"
	row, parts := seal(t, f)
	for _, secret := range []string{"user1@", "Bob", "203.0.113.7", "curl"} {
		if strings.Contains(string(row.Body), secret) {
			t.Errorf("%q stands in the signed body: %s", secret, row.Body)
		}
	}
	want := []struct{ role, subject, json string }{
		{audit.RoleActor, user(1), `{"ip":"203.0.113.7","label":"user1@example.org","user_agent":"curl/8"}`},
		{audit.RoleTarget, user(2), `{"details":{"display_name":"Bob Builder"},"label":"Bob@Example.org"}`},
	}
	if len(parts) != len(want) {
		t.Fatalf("got %d parts, want 2: %+v", len(parts), parts)
	}
	for i, w := range want {
		if p := parts[i]; p.Role != w.role || p.Subject.S != w.subject || p.JSON.S != w.json {
			t.Errorf("part %d: got %s %s %s, want %+v", i, p.Role, p.Subject.S, p.JSON.S, w)
		}
	}
	_, parts = seal(t, audit.Facts{Action: audit.AuthLogin, Outcome: audit.Deny, Actor: audit.Actor{Kind: audit.Anonymous}, Target: audit.Target{Label: "Nobody@Example.org"}})
	if len(parts) != 1 || parts[0].Subject.S != "nobody@example.org" {
		t.Errorf("an account that there is not: %+v; want its address as the subject", parts)
	}
}

// TestLessonA31ClockSteps: a clock that steps back never stops the chain; the order is the number's.
func TestLessonA31ClockSteps(t *testing.T) {
	const minute = 60_000_000
	for _, tt := range []struct {
		name                      string
		clock, before, want, step int64
	}{
		{"forwards", 200, 100, 200, 0},
		{"standing", 100, 100, 100, 0},
		{"a little back", 100, 100 + 5*minute, 100 + 5*minute, 0},
		{"far back", 100, 101 + 5*minute, 100, 5*minute + 1},
		{"the first row", 100, 0, 100, 0},
	} {
		if ts, step := audit.Stamp(tt.clock, tt.before); ts != tt.want || step != tt.step {
			t.Errorf("%s: got %d, step %d; want %d, %d", tt.name, ts, step, tt.want, tt.step)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	c := newChain(b, secretA)
	for i := range 1000 {
		c.add(b, login(byte(i)))
	}
	for b.Loop() {
		if r := walk(c.keys(), nil, c.rows, c.parts); r.Exit() != 0 {
			b.Fatal(r)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1001, "µs/row")
}

func BenchmarkSeal(b *testing.B) {
	k := newKey(b, secretA)
	for b.Loop() {
		e := audit.New(login(1))
		k.Seal(&e, audit.Link{Seq: 2})
	}
}
