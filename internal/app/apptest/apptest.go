// Package apptest starts whole brains for tests.
package apptest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// The account that every brain begins with.
const (
	Email    = "admin@example.com"
	Password = "Correct-Horse-9-Battery"
)

// SessionSecret signs the cookies of every test brain.
const SessionSecret = "test-session-secret-test-session-secret-01"

// Options say what differs from the usual.
type Options struct {
	Database string   // as storetest gives it; "" is a fresh SQLite file
	Environ  []string // further settings, NAME=value; they win
	Home     string   // "" is a fresh directory, or for a SQLite file always the same one beside it
	Bare     bool     // no secrets and no account are given, so that the brain mints and prints its set-up URL

	Now func() time.Time // nil: the machine's clock
}

// Brain is a whole brain on a free port.
type Brain struct {
	*app.Brain
	Client *Client // not logged in

	out *lockedBuffer // banner and log
}

// Start starts a brain and stops it when the test ends.
func Start(t testing.TB, o Options) *Brain {
	t.Helper()
	b, err := TryStart(t, o)
	if err != nil {
		t.Fatalf("start brain: %v", err)
	}
	return b
}

// TryStart is Start for brains that may not start.
func TryStart(t testing.TB, o Options) (*Brain, error) {
	t.Helper()
	c, err := config.Load(config.Input{Environ: Environ(t, o), WorkDir: t.TempDir(), Hostname: "apptest"})
	if err != nil {
		return nil, err
	}
	out := &lockedBuffer{}
	brain, err := app.Start(t.Context(), app.Options{Config: c, Version: "1.2.3-test", Now: o.Now, Log: slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})), Banner: out})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := brain.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("stop brain: %v", err)
		}
		if t.Failed() {
			t.Logf("the brain's log:\n%s", tail(out.String(), 20_000))
		}
	})
	return &Brain{Brain: brain, Client: NewClient(t, brain.URL()), out: out}, nil
}

// Environ are the settings that Start starts with: a port of its own, cheap passwords, no wait at log-in, and, unless
// o.Bare, secrets and the first account.
func Environ(t testing.TB, o Options) []string {
	t.Helper()
	if path, ok := strings.CutPrefix(o.Database, "sqlite:"); ok && o.Home == "" {
		o.Home = path + ".home"
	}
	if o.Home == "" {
		o.Home = filepath.Join(t.TempDir(), "home")
	}
	environ := []string{
		"Z4J_HOME=" + o.Home, "Z4J_BIND_PORT=0", "Z4J_ARGON2_TIME_COST=1", "Z4J_ARGON2_MEMORY_COST=8192", "Z4J_ARGON2_PARALLELISM=1", "Z4J_LOGIN_MIN_DURATION_MS=0",
	}
	if o.Database != "" {
		environ = append(environ, "Z4J_DATABASE_URL="+o.Database)
	}
	if !o.Bare {
		environ = append(environ, "Z4J_SECRET="+string(storetest.Secrets.Master), "Z4J_AUDIT_SECRET="+string(storetest.Secrets.Audit), "Z4J_SESSION_SECRET="+SessionSecret,
			"Z4J_BOOTSTRAP_ADMIN_EMAIL="+Email, "Z4J_BOOTSTRAP_ADMIN_PASSWORD="+Password)
	}
	out := make([]string, 0, len(environ)+len(o.Environ))
	for _, have := range environ {
		name, _, _ := strings.Cut(have, "=")
		replaced := false
		for _, want := range o.Environ {
			replaced = replaced || strings.HasPrefix(want, name+"=")
		}
		if !replaced {
			out = append(out, have)
		}
	}
	return append(out, o.Environ...)
}

// Output is what the brain has printed and logged so far.
func (b *Brain) Output() string { return b.out.String() }

// Client talks to a brain as a browser does.
type Client struct {
	Base string
	HTTP *http.Client

	t testing.TB
}

// NewClient returns a client that is not logged in.
func NewClient(t testing.TB, base string) *Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &Client{Base: base, t: t, HTTP: &http.Client{
		Jar: jar, Transport: transport, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Login logs the client in.
func (c *Client) Login(email, password string) {
	c.t.Helper()
	c.Do(http.MethodPost, "/api/v1/auth/login", map[string]any{"email": email, "password": password}, http.StatusOK, nil)
}

// Do sends body as JSON unless it is nil, wants the status, and reads the answer into into unless that is nil. It
// returns the answer's header.
func (c *Client) Do(method, path string, body any, want int, into any) http.Header {
	c.t.Helper()
	status, header, answer := c.Try(method, path, body)
	if status != want {
		c.t.Fatalf("%s %s: status %d, want %d: %s", method, path, status, want, answer)
	}
	if into == nil {
		return header
	}
	if err := json.Unmarshal(answer, into); err != nil {
		c.t.Fatalf("%s %s: %v in %s", method, path, err, answer)
	}
	return header
}

// Try is Do for answers of any status.
func (c *Client) Try(method, path string, body any) (status int, header http.Header, answer []byte) {
	c.t.Helper()
	var r io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			c.t.Fatal(err)
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.Base+path, r)
	if err != nil {
		c.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if csrf := c.cookie("z4j_csrf"); csrf != "" {
		req.Header.Set("X-CSRF-Token", csrf)
	}
	res, err := c.HTTP.Do(req)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	if answer, err = io.ReadAll(res.Body); err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return res.StatusCode, res.Header, answer
}

// cookie is the value of the cookie whose name ends so.
func (c *Client) cookie(suffix string) string {
	u, err := url.Parse(c.Base)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, k := range c.HTTP.Jar.Cookies(u) {
		if strings.HasSuffix(k.Name, suffix) {
			return k.Value
		}
	}
	return ""
}

// lockedBuffer keeps what many goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write keeps p.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is all that was written.
func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func tail(s string, most int) string { return s[max(0, len(s)-most):] }
