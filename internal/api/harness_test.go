package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/api"
	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/wire"
)

const (
	master   = "test-master-secret-test-master-secret-0001"
	password = "Correct-Horse-9-Battery"
)

// brain is the API over a fresh database, with a clock that stands until a test moves it.
type brain struct {
	t      *testing.T
	server *api.Server
	store  *store.Store
	url    string // of the database
	http   http.Handler

	mu       sync.Mutex
	now      time.Time
	pauses   []time.Duration
	revoked  []id.ID
	refusals []audit.Facts
	networks int // that a test came from so far
}

// each runs fn on both databases; tweak may be nil.
func each(t *testing.T, tweak func(*api.Options), fn func(*testing.T, *brain)) {
	t.Helper()
	storetest.EachURL(t, func(t *testing.T, url string) { fn(t, start(t, url, tweak)) })
}

func start(t *testing.T, url string, tweak func(*api.Options)) *brain {
	t.Helper()
	b := &brain{t: t, url: url, now: time.Date(2026, 3, 14, 9, 26, 53, 589793000, time.UTC)}
	o := storetest.Options(url)
	o.Now = b.Now
	var err error
	if b.store, err = store.Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.store.Close(); err != nil {
			t.Error(err)
		}
	})
	hosts, err := auth.NewHosts([]string{"brain.test", "example.com"})
	if err != nil {
		t.Fatal(err)
	}
	opts := api.Options{
		Store: b.store, Now: b.Now, Passwords: auth.NewPasswords(auth.Policy{MinLength: 12}, auth.Cost{Time: 1, Memory: 8, Threads: 1}, 4),
		Sessions: auth.SessionKeys{Current: []byte("test-session-secret-test-session-secret-1")}, Master: []byte(master), Hosts: hosts,
		Proxies: auth.Proxies{netip.MustParsePrefix("10.0.0.0/8")}, Agents: b, Refusals: b, Version: "test",
		SigningSecret: func(p id.ID) string { return wire.EncodeSecret(wire.ProjectSecret(master, p)) },
		Pause:         func(_ context.Context, d time.Duration) { b.mu.Lock(); b.pauses = append(b.pauses, d); b.mu.Unlock() },
		Settings:      api.Settings{PublicURL: "https://brain.test", LoginMin: 300 * time.Millisecond, HSTSMaxAge: time.Hour},
	}
	opts.Backups = b.backups(t)
	if tweak != nil {
		tweak(&opts)
	}
	b.server = api.New(opts)
	b.http = b.server.Handler()
	return b
}

func (b *brain) Now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *brain) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

// Revoked notes that connections of an agent were closed.
func (b *brain) Revoked(agent id.ID) { b.revoked = append(b.revoked, agent) }

// Record notes a refusal.
func (b *brain) Record(_ context.Context, f audit.Facts) {
	e := audit.New(f)
	if err := e.Err(); err != nil {
		b.t.Errorf("refusal %v: %v", f, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refusals = append(b.refusals, f)
}

// client is a browser: it keeps cookies and repeats the CSRF token.
type client struct {
	b       *brain
	address string
	cookies map[string]*http.Cookie
}

func (b *brain) client() *client {
	return &client{b: b, address: "192.0.2.10:4000", cookies: map[string]*http.Cookie{}}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	text   string
	body   map[string]any // if it is an object
}

// code is the error's code.
func (a answer) code() string { s, _ := a.body["error"].(string); return s }

// reason is the error's reason.
func (a answer) reason() string {
	d, _ := a.body["details"].(map[string]any)
	s, _ := d["reason"].(string)
	return s
}

func (c *client) do(method, path string, body any, change ...func(*http.Request)) answer {
	c.b.t.Helper()
	var r io.Reader
	if body != nil {
		text, isText := body.(string)
		if !isText {
			j, err := json.Marshal(body)
			if err != nil {
				c.b.t.Fatal(err)
			}
			text = string(j)
		}
		r = strings.NewReader(text)
	}
	req := httptest.NewRequestWithContext(c.b.t.Context(), method, path, r)
	req.RemoteAddr = c.address
	req.Host = "brain.test"
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, k := range c.cookies {
		req.AddCookie(k)
		if strings.HasSuffix(k.Name, "z4j_csrf") {
			req.Header.Set("X-CSRF-Token", k.Value)
		}
	}
	for _, ch := range change {
		ch(req)
	}
	w := httptest.NewRecorder()
	c.b.http.ServeHTTP(w, req)
	res := w.Result()
	for _, k := range res.Cookies() {
		if k.MaxAge < 0 {
			delete(c.cookies, k.Name)
		} else {
			c.cookies[k.Name] = k
		}
	}
	a := answer{status: w.Code, header: w.Header(), text: w.Body.String()}
	if bytes.HasPrefix(w.Body.Bytes(), []byte("{")) && w.Header().Get("Content-Type") != "application/x-ndjson" {
		if err := json.Unmarshal(w.Body.Bytes(), &a.body); err != nil {
			c.b.t.Fatalf("%s %s: %v in %s", method, path, err, a.text)
		}
	}
	return a
}

func (c *client) get(path string) answer {
	c.b.t.Helper()
	return c.do("GET", "/api/v1"+path, nil)
}

func (c *client) post(path string, body any) answer {
	c.b.t.Helper()
	return c.do("POST", "/api/v1"+path, body)
}

func (c *client) patch(path string, body any) answer {
	c.b.t.Helper()
	return c.do("PATCH", "/api/v1"+path, body)
}

func (c *client) del(path string) answer {
	c.b.t.Helper()
	return c.do("DELETE", "/api/v1"+path, nil)
}

// must fails the test unless the answer has the status.
func (a answer) must(t *testing.T, what string, status int) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("%s: got %d %s, want %d", what, a.status, a.text, status)
	}
	return a
}

type object = map[string]any

// token makes a set-up token as serve does at its start.
func (b *brain) token() string {
	b.t.Helper()
	token := auth.NewToken()
	if _, err := b.store.PutSetupToken(b.t.Context(), auth.SetupTokenHash([]byte(master), token), 15*time.Minute); err != nil {
		b.t.Fatal(err)
	}
	return token
}

// setUp makes the first account and returns its browser.
func (b *brain) setUp() *client {
	b.t.Helper()
	c := b.client()
	c.post("/setup/complete", object{"token": b.token(), "email": "root@example.com", "password": password}).must(b.t, "set-up", 200)
	return c
}

// user makes an account, a member of the default project if role is not "", and returns its browser and its id.
func (b *brain) user(root *client, email, role string) (*client, string) {
	b.t.Helper()
	made := root.post("/users", object{"email": email, "password": password}).must(b.t, "create user", 201)
	user, _ := made.body["id"].(string)
	if role != "" {
		root.post("/projects/default/memberships", object{"user_id": user, "role": role}).must(b.t, "add membership", 201)
	}
	c := b.client()
	c.post("/auth/login", object{"email": email, "password": password}).must(b.t, "login", 200)
	return c, user
}
