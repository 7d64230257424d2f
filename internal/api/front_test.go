package api_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/api"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestLessonI18EveryAnswerHasTheHeaders: also those that are refused before anybody looks at them.
func TestLessonI18EveryAnswerHasTheHeaders(t *testing.T) {
	b := start(t, storetest.SQLite(t), func(o *api.Options) { o.Settings.MaxBody = 1000; o.Settings.HSTSSubdomains = true })
	for _, tt := range []struct {
		name   string
		send   func(c *client) answer
		status int
	}{
		{"an answer", func(c *client) answer { return c.get("/auth/policy") }, 200},
		{"a wrong host", func(c *client) answer {
			return c.do("GET", "/api/v1/auth/policy", nil, func(r *http.Request) { r.Host = "evil.test" })
		}, 400},
		{"a large body", func(c *client) answer { return c.post("/auth/login", strings.Repeat("x", 1001)) }, 413},
		{"no such address", func(c *client) answer { return c.get("/nothing") }, 404},
		{"a wrong method", func(c *client) answer { return c.do("PUT", "/api/v1/projects", nil) }, 405},
		{"no session", func(c *client) answer { return c.get("/projects") }, 401},
		{"a page", func(c *client) answer { return c.do("GET", "/setup", nil) }, 404},
	} {
		got := tt.send(b.client()).must(t, tt.name, tt.status)
		want := map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin", "Strict-Transport-Security": "max-age=3600; includeSubDomains", "Cache-Control": "no-store",
		}
		have := map[string]string{}
		for name := range want {
			have[name] = got.header.Get(name)
		}
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("%s: (- want, + got)\n%s", tt.name, diff)
		}
		if p := got.header.Get("Permissions-Policy"); strings.Count(p, "=()") != 8 {
			t.Errorf("%s: got %q, want eight features off", tt.name, p)
		}
		if id := got.header.Get("X-Request-Id"); id == "" || tt.status >= 400 && got.body != nil && got.body["request_id"] != id {
			t.Errorf("%s: got the request id %q in the header and %v in the body", tt.name, id, got.body["request_id"])
		}
	}
	dev := start(t, storetest.SQLite(t), func(o *api.Options) { o.Settings.Dev = true })
	if got := dev.client().get("/auth/policy").header.Get("Strict-Transport-Security"); got != "" {
		t.Errorf("in dev: got HSTS %q, want none", got)
	}
}

func TestRequestIDs(t *testing.T) {
	b := start(t, storetest.SQLite(t), nil)
	for _, tt := range []struct {
		given string
		kept  bool
	}{
		{"abc-123", true},
		{strings.Repeat("x", 64), true},
		{strings.Repeat("x", 65), false},
		{"with space", false},
		{"ünicode", false},
		{"tab\there", false},
		{"", false},
	} {
		got := b.client().do("GET", "/api/v1/projects", nil, func(r *http.Request) { r.Header.Set("X-Request-Id", tt.given) })
		id := got.header.Get("X-Request-Id")
		if (id == tt.given) != tt.kept && tt.given != "" || !tt.kept && (!strings.HasPrefix(id, "req_") || len(id) != 20) || got.body["request_id"] != id {
			t.Errorf("%q: got %q, want kept %t", tt.given, id, tt.kept)
		}
	}
}

// TestLessonB14B15B17Hosts: a wrong or malformed host is refused with a short answer that tells nothing; health is exempt.
func TestLessonB14B15B17Hosts(t *testing.T) {
	b := start(t, storetest.SQLite(t), nil)
	for _, tt := range []struct {
		host string
		want int
	}{
		{"brain.test", 200},
		{"BRAIN.test:8443", 200},
		{"example.com", 200},
		{"", 200},
		{"evil.test", 400},
		{"evil/admin:80", 400},
		{"[::1]x", 400},
		{"brain.test:x", 400},
		{"brain.test@evil.test", 400},
	} {
		got := b.client().do("GET", "/api/v1/auth/policy", nil, func(r *http.Request) { r.Host = tt.host })
		if got.status != tt.want {
			t.Errorf("%q: got %d, want %d", tt.host, got.status, tt.want)
		}
		if got.status == 400 && (got.code() != "invalid_host" || strings.Contains(got.text, "brain.test") || tt.host != "" && strings.Contains(got.text, tt.host)) {
			t.Errorf("%q: got %s, want invalid_host and no names", tt.host, got.text)
		}
		health := b.client().do("GET", "/api/v1/health/ready", nil, func(r *http.Request) { r.Host = tt.host })
		if health.status == 400 {
			t.Errorf("%q: health got 400, want it exempt", tt.host)
		}
	}
}

func TestErrors(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		viewer, _ := b.user(root, "viewer@example.com", "viewer")
		root.post("/projects/default/agents", object{"name": "web"}).must(t, "agent", 201)
		secret := "Sup3r-Secret-Value!"
		for _, tt := range []struct {
			name         string
			by           *client
			method, path string
			body         any
			status       int
			code         string
			has          string
		}{
			{"no such address", root, "GET", "/nothing", nil, 404, "not_found", `"detail":"Not Found"`},
			{"wrong method", root, "DELETE", "/projects", nil, 405, "method_not_allowed", `"detail":"Method Not Allowed"`},
			{"no credentials", b.client(), "GET", "/projects", nil, 401, "unauthenticated", `"details":{}`},
			{"no JSON", root, "POST", "/projects", `{"slug":`, 422, "validation_failed", `"loc":["body"]`},
			{"no JSON is seen before the session", b.client(), "POST", "/projects", `{"slug":`, 422, "validation_failed", `"json_invalid"`},
			{"no body", root, "POST", "/projects", "", 422, "validation_failed", `"missing"`},
			{"a list", root, "POST", "/projects", `[]`, 422, "validation_failed", `expected object`},
			{"a field missing", root, "POST", "/projects", object{"name": "x"}, 422, "validation_failed", `{"loc":["body","slug"],"msg":"is required","type":"missing"}`},
			{"a field too many", root, "POST", "/projects", object{"slug": "xyz", "name": "x", "colour": "y"}, 422, "validation_failed", `{"loc":["body","colour"],"msg":"is not a field of this request","type":"extra_forbidden"}`},
			{"a field in another case", root, "POST", "/projects", object{"slug": "xyz", "name": "x", "Name": "y"}, 422, "validation_failed", `["body","Name"]`},
			{"a wrong type", root, "POST", "/projects", object{"slug": "xyz", "name": 5}, 422, "validation_failed", `{"loc":["body","name"],"msg":"expected string","type":"value_error"}`},
			{"a retired field", root, "POST", "/projects", object{"slug": "retired", "name": "x", "retention_days": "any"}, 201, "", `"slug":"retired"`},
			{"the fields come before the role", viewer, "POST", "/projects/default/agents", object{"nam": "x"}, 422, "validation_failed", `["body","name"]`},
			{"then the role", viewer, "POST", "/projects/default/agents", object{"name": "x"}, 403, "forbidden", `"details":{"have":"viewer","need":"agents:manage"}`},
			{"a project that is not there", root, "GET", "/projects/none", nil, 404, "not_found", `no member`},
			{"a path that no database takes", root, "GET", "/projects/%00", nil, 422, "validation_failed", `["path"]`},
			{"an agent that is there", root, "POST", "/projects/default/agents", object{"name": "web "}, 409, "conflict", `"reason":"name_taken"`},
			{"an agent without name", root, "POST", "/projects/default/agents", object{"name": "  "}, 422, "validation_failed", `["body","name"]`},
			{"an agent that is not there", root, "DELETE", "/projects/default/agents/00000000-0000-4000-8000-000000000000", nil, 404, "not_found", ``},
			{"an agent id that is none", root, "DELETE", "/projects/default/agents/x", nil, 422, "validation_failed", `["path","agent_id"]`},
			{"a slug that is taken", root, "POST", "/projects", object{"slug": "default", "name": "x"}, 409, "conflict", `"reason":"slug_taken"`},
			{"a bad slug", root, "POST", "/projects", object{"slug": "-x-", "name": "x"}, 409, "conflict", `"reason":"bad_slug"`},
			{"a bad time zone", root, "POST", "/projects", object{"slug": "zone", "name": "x", "timezone": "Mars/Base"}, 422, "validation_failed", `["body","timezone"]`},
			{"a bad environment", root, "POST", "/projects", object{"slug": "zone", "name": "x", "environment": "Prod!"}, 422, "validation_failed", `["body","environment"]`},
			{"an owner who is not allowed", root, "POST", "/projects", object{"slug": "zone", "name": "x", "allowed_schedulers": []string{"beat"}}, 409, "conflict", `"reason":"owner_not_allowed"`},
			{"an address that is taken", root, "POST", "/users", object{"email": "VIEWER@example.com", "password": password}, 409, "conflict", `"reason":"email_in_use"`},
			{"a bad address", root, "POST", "/users", object{"email": "a b@example.com", "password": password}, 422, "validation_error", `["body","email"]`},
			{"a weak password", root, "POST", "/users", object{"email": "x@example.com", "password": "Sup3r-Sec"}, 422, "validation_error", `"reason":"password_too_short"`},
			{"a password of the wrong type", root, "POST", "/users", `{"email":"x@example.com","password":["` + secret + `"]}`, 422, "validation_failed", `["body","password"]`},
			{"a password too long", root, "POST", "/users", object{"email": "x@example.com", "password": strings.Repeat(secret, 20)}, 422, "validation_failed", `["body","password"]`},
			{"a role that is not there", root, "POST", "/projects/default/memberships", object{"user_id": "00000000-0000-4000-8000-000000000000", "role": "owner"}, 409, "conflict", `"reason":"unknown_role"`},
			{"a member that is not there", root, "POST", "/projects/default/memberships", object{"user_id": "00000000-0000-4000-8000-000000000000", "role": "viewer"}, 404, "not_found", ``},
			{"a member that is no id", root, "POST", "/projects/default/memberships", object{"user_id": "x", "role": "viewer"}, 422, "validation_failed", `["body","user_id"]`},
			{"a number that is none", root, "GET", "/users?offset=x", nil, 422, "validation_failed", `["query","offset"]`},
		} {
			got := tt.by.do(tt.method, "/api/v1"+tt.path, tt.body)
			if got.status != tt.status || got.code() != tt.code || !strings.Contains(got.text, tt.has) {
				t.Errorf("%s: got %d %s, want %d %s with %s", tt.name, got.status, got.text, tt.status, tt.code, tt.has)
			}
			if strings.Contains(got.text, secret) {
				t.Errorf("%s: the answer repeats the password (B7)", tt.name)
			}
			if got.status < 400 {
				continue
			}
			for _, field := range []string{"error", "message", "request_id", "details"} {
				if got.body[field] == nil {
					t.Errorf("%s: got %s, want the field %s", tt.name, got.text, field)
				}
			}
			if ct := got.header.Get("Content-Type"); ct != "application/json" {
				t.Errorf("%s: got Content-Type %q, want application/json", tt.name, ct)
			}
		}
	})
}

func TestOnlyJSONIsRead(t *testing.T) {
	b := start(t, storetest.SQLite(t), nil)
	body := `{"email":"root@example.com","password":"wrong"}`
	for kind, want := range map[string]int{
		"application/json": 401, "application/json; charset=utf-8": 401, "text/plain": 422, "application/x-www-form-urlencoded": 422, "": 422, "application/problem+json": 422,
	} {
		got := b.client().do("POST", "/api/v1/auth/login", body, func(r *http.Request) { r.Header.Set("Content-Type", kind) })
		if got.status != want {
			t.Errorf("%q: got %d %s, want %d", kind, got.status, got.text, want)
		}
	}
}

func TestBodiesHaveALimit(t *testing.T) {
	b := start(t, storetest.SQLite(t), func(o *api.Options) { o.Settings.MaxBody = 100 })
	for _, tt := range []struct {
		name   string
		body   string
		length int64 // as declared
		status int
		reason string
	}{
		{"declared too long", strings.Repeat(" ", 101), 101, 413, "content_length_exceeded"},
		{"streamed too long", strings.Repeat(" ", 101), -1, 413, "streamed_body_exceeded"},
		{"at the limit", `{"email":"root@example.com","password":"` + strings.Repeat("x", 58) + `"}`, 100, 401, "invalid_credentials"},
	} {
		got := b.client().do("POST", "/api/v1/auth/login", "x", func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader(tt.body))
			r.ContentLength = tt.length
		})
		if got.status != tt.status || got.reason() != tt.reason {
			t.Errorf("%s: got %d %s, want %d %s", tt.name, got.status, got.text, tt.status, tt.reason)
		}
	}
}

// TestLessonI14EveryLimitSaysWhenToComeBack: 429 names the bucket and the seconds, in the header, too.
func TestLessonI14EveryLimitSaysWhenToComeBack(t *testing.T) {
	b := start(t, storetest.SQLite(t), nil)
	try := func(address, forwarded string) answer {
		c := b.client()
		c.address = address
		return c.do("POST", "/api/v1/auth/login", object{"email": "root@example.com", "password": "wrong"}, func(r *http.Request) {
			if forwarded != "" {
				r.Header.Set("X-Forwarded-For", forwarded)
			}
		})
	}
	for i := range 20 {
		try("198.51.100.7:1", fmt.Sprintf("192.0.2.%d", i)).must(t, "within the limit; a stranger's header changes nothing", 401)
	}
	got := try("198.51.100.7:2", "").must(t, "the 21st", 429)
	if got.code() != "rate_limited" || got.header.Get("Retry-After") != "60" || !strings.Contains(got.text, "login") {
		t.Errorf("the 21st: got %s, Retry-After %q; want rate_limited, 60 and the bucket", got.text, got.header.Get("Retry-After"))
	}
	try("10.0.0.1:1", "198.51.100.7").must(t, "the same client through a proxy", 429)
	try("10.0.0.1:1", "198.51.100.8").must(t, "another client through a proxy", 401)
	try("198.51.100.9:1", "").must(t, "another client", 401)
	malformed := b.client()
	malformed.address = "198.51.100.7:1"
	malformed.post("/auth/login", "no JSON").must(t, "a throttled client, whatever the body is", 429)
}

// TestAFaultIsAnswered: what nobody expected is a 500 with the request's id and without its cause.
func TestAFaultIsAnswered(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		if _, err := storetest.DB(t, b.url).ExecContext(t.Context(), `DROP TABLE memberships`); err != nil {
			t.Fatal(err)
		}
		got := root.get("/projects/default/memberships").must(t, "a table that is gone", 500)
		if got.code() != "internal_error" || strings.Contains(got.text, "memberships") || got.body["request_id"] != got.header.Get("X-Request-Id") {
			t.Errorf("got %s, want internal_error and nothing of the cause", got.text)
		}
	})
}

func TestAPanicIsAnswered(t *testing.T) {
	b := start(t, storetest.SQLite(t), func(o *api.Options) { o.SigningSecret = nil })
	root := b.setUp()
	got := root.post("/projects/default/agents", object{"name": "web"}).must(t, "a handler that panics", 500)
	if got.code() != "internal_error" || strings.Contains(got.text, "nil pointer") {
		t.Errorf("got %s, want internal_error and nothing of the cause", got.text)
	}
}

// FuzzHeaders is lesson B16: no header that a client chooses breaks anything, and none gets past the host check.
func FuzzHeaders(f *testing.F) {
	f.Add("brain.test", "10.0.0.1:1", "1.2.3.4", "__Host-z4j_session=x", "req", "application/json")
	f.Add("[::1]x", "x", ",,", "a=b; a=c; ;", "\x00", "a/b; c=\"")
	s := api.New(api.Options{Now: time.Now})
	h := s.Handler()
	f.Fuzz(func(t *testing.T, host, peer, forwarded, cookie, id, kind string) {
		r := httptest.NewRequest(http.MethodPost, "/api/v1/auth/logout", nil)
		r.Host, r.RemoteAddr = host, peer
		r.Header = http.Header{"X-Forwarded-For": {forwarded}, "Cookie": {cookie}, "X-Request-Id": {id}, "Content-Type": {kind}}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if want := map[bool]int{true: 401, false: 400}[host == ""]; w.Code != want {
			t.Errorf("host %q: got %d %s, want %d", host, w.Code, w.Body, want)
		}
	})
}
