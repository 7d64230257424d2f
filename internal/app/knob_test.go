package app_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/app/apptest"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// knobless are the settings whose effect no test here sees, with the reason.
func knobless() map[string]string {
	return map[string]string{
		"WS_IDLE_TIMEOUT_SECONDS": "its smallest value is 15 s; the gateway's own tests see a shorter one",
		"REQUIRE_DB_SSL":          "decides in config.Load, whose tests see it",
		"AUDIT_FAILOVER_GRACE":    "needs a standby that takes over; the tests of store and custody see it",
		"ALLOW_HTTP_PUBLIC_URL":   "decides in config.Load, whose tests see it",
		"BACKUP_MAX_DURATION":     "its smallest value is a minute; package backup's own tests see a shorter one",
	}
}

// TestLessonB22NoDeadKnobs changes every setting and sees what it changes, or has a reason why not.
func TestLessonB22NoDeadKnobs(t *testing.T) {
	checks, reasons := knobs(), knobless()
	for _, s := range config.Settings() {
		check, seen := checks[s.Name]
		why, excused := reasons[s.Name]
		if seen == excused {
			t.Errorf("%s: has a check: %v, has a reason (%q): %v; want exactly one of them", s.Var(), seen, why, excused)
			continue
		}
		delete(checks, s.Name)
		delete(reasons, s.Name)
		if seen {
			t.Run(s.Name, func(t *testing.T) { t.Parallel(); check(t) })
		}
	}
	for name := range checks {
		t.Errorf("%s: is no setting any more", name)
	}
	for name := range reasons {
		t.Errorf("%s: is no setting any more", name)
	}
}

// with starts a brain with settings.
func with(t *testing.T, settings ...string) *apptest.Brain {
	t.Helper()
	return apptest.Start(t, apptest.Options{Environ: settings})
}

// loggedIn is with, and logs the client in.
func loggedIn(t *testing.T, settings ...string) *apptest.Brain {
	t.Helper()
	b := with(t, settings...)
	b.Client.Login(apptest.Email, apptest.Password)
	return b
}

// login tries to log in and returns the answer.
func login(b *apptest.Brain, password string) (int, http.Header) {
	status, header, _ := b.Client.Try(http.MethodPost, "/api/v1/auth/login", map[string]any{"email": apptest.Email, "password": password})
	return status, header
}

func status(b *apptest.Brain, path string) int {
	code, _, _ := b.Client.Try(http.MethodGet, path, nil)
	return code
}

// request sends one with a header.
func request(t *testing.T, b *apptest.Brain, method, path, body string, change func(*http.Request)) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, b.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	change(req)
	res, err := b.Client.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// contains wants a text in another.
func contains(t *testing.T, what, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("%s: got %q, want it to contain %q", what, got, want)
	}
}

// hash is the stored password hash of the account.
func hash(t *testing.T, b *apptest.Brain) string {
	t.Helper()
	c, err := b.Store.Credential(t.Context(), apptest.Email)
	if err != nil {
		t.Fatal(err)
	}
	return c.PasswordHash
}

const (
	production = "Z4J_ENVIRONMENT=production"
	httpsURL   = "Z4J_PUBLIC_URL=https://brain.example.com"
	another    = "another-secret-another-secret-another-01"
)

// knobs is a check for each setting.
func knobs() map[string]func(*testing.T) {
	all := map[string]func(*testing.T){}
	for _, part := range []map[string]func(*testing.T){generalKnobs(), networkKnobs(), databaseKnobs(), secretKnobs(), accountKnobs(), agentKnobs(), retentionKnobs(), observeKnobs(), backupKnobs()} {
		for name, check := range part {
			all[name] = check
		}
	}
	return all
}

func generalKnobs() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"HOME": func(t *testing.T) {
			home := filepath.Join(t.TempDir(), "elsewhere")
			b := apptest.Start(t, apptest.Options{Home: home, Bare: true})
			want(t, "database", b.Config.Database.URL.Path(), filepath.Join(home, "z4j.db"))
		},
		"ENVIRONMENT": func(t *testing.T) {
			_, header := login(with(t), apptest.Password)
			contains(t, "cookies in dev", strings.Join(header.Values("Set-Cookie"), "; "), "; z4j_csrf=")
			_, header = login(with(t, production, httpsURL), apptest.Password)
			contains(t, "cookies in production", strings.Join(header.Values("Set-Cookie"), "; "), "__Host-z4j_session=")
			contains(t, "cookies in production", strings.Join(header.Values("Set-Cookie"), "; "), "Secure")
		},
		"LOG_LEVEL": func(t *testing.T) {
			var quiet, loud strings.Builder
			app.Logger(&quiet, configured(t)).Debug("x")
			app.Logger(&loud, configured(t, "Z4J_LOG_LEVEL=debug")).Debug("x")
			want(t, "debug line by default", quiet.String(), "")
			contains(t, "debug line", loud.String(), "level=DEBUG")
		},
		"LOG_FORMAT": func(t *testing.T) {
			var text, asJSON strings.Builder
			app.Logger(&text, configured(t)).Info("x", "password", "hunter2")
			app.Logger(&asJSON, configured(t, "Z4J_LOG_FORMAT=json")).Info("x", "password", "hunter2")
			contains(t, "text", text.String(), "msg=x")
			contains(t, "json", asJSON.String(), `"msg":"x"`)
			if strings.Contains(text.String()+asJSON.String(), "hunter2") {
				t.Error("a password is logged, want it redacted")
			}
		},
	}
}

// configured are settings without a brain.
func configured(t *testing.T, settings ...string) *config.Config {
	t.Helper()
	c, err := config.Load(config.Input{Environ: append(settings, "Z4J_HOME="+t.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func networkKnobs() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"BIND_HOST": func(t *testing.T) { contains(t, "URL", with(t, "Z4J_BIND_HOST=127.0.0.2").URL(), "http://127.0.0.2:") },
		"BIND_PORT": func(t *testing.T) {
			l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			port := l.Addr().(*net.TCPAddr).Port
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			want(t, "URL", with(t, "Z4J_BIND_PORT="+strconv.Itoa(port)).URL(), fmt.Sprintf("http://127.0.0.1:%d", port))
		},
		"PUBLIC_URL": func(t *testing.T) {
			b := apptest.Start(t, apptest.Options{Bare: true, Environ: []string{httpsURL}})
			contains(t, "banner", b.Output(), "https://brain.example.com/setup#token=")
			bare := apptest.Start(t, apptest.Options{Bare: true})
			contains(t, "banner without", bare.Output(), bare.URL()+"/setup#token=")
		},
		"ALLOWED_HOSTS": func(t *testing.T) {
			named := func(r *http.Request) { r.Host = "brain.lan:7700" }
			want(t, "not allowed", request(t, with(t), http.MethodGet, "/api/v1/setup/status", "", named).StatusCode, http.StatusBadRequest)
			b := with(t, "Z4J_ALLOWED_HOSTS=brain.lan")
			want(t, "allowed", request(t, b, http.MethodGet, "/api/v1/setup/status", "", named).StatusCode, http.StatusUnauthorized)
			want(t, "LessonB17: health whatever the name", request(t, with(t), http.MethodGet, "/api/v1/health", "", named).StatusCode, http.StatusOK)
		},
		"TRUSTED_PROXIES": func(t *testing.T) {
			for setting, ip := range map[string]string{"Z4J_TRUSTED_PROXIES=": "127.0.0.1", "Z4J_TRUSTED_PROXIES=127.0.0.0/8": "203.0.113.9"} {
				b := with(t, setting)
				body := fmt.Sprintf(`{"email":%q,"password":%q}`, apptest.Email, apptest.Password)
				want(t, "login", request(t, b, http.MethodPost, "/api/v1/auth/login", body, func(r *http.Request) { r.Header.Set("X-Forwarded-For", "203.0.113.9") }).StatusCode, http.StatusOK)
				var sessions []struct {
					IP string `json:"ip_at_issue"`
				}
				b.Client.Do(http.MethodGet, "/api/v1/auth/sessions", nil, http.StatusOK, &sessions)
				want(t, setting, sessions[0].IP, ip)
			}
		},
		"HSTS_MAX_AGE_SECONDS": func(t *testing.T) {
			want(t, "header", request(t, with(t, production, httpsURL, "Z4J_HSTS_MAX_AGE_SECONDS=60"), http.MethodGet, "/api/v1/health", "", nop).Header.Get("Strict-Transport-Security"), "max-age=60; includeSubDomains")
			want(t, "header of 0", request(t, with(t, production, httpsURL, "Z4J_HSTS_MAX_AGE_SECONDS=0"), http.MethodGet, "/api/v1/health", "", nop).Header.Get("Strict-Transport-Security"), "")
		},
		"HSTS_INCLUDE_SUBDOMAINS": func(t *testing.T) {
			want(t, "header", request(t, with(t, production, httpsURL, "Z4J_HSTS_INCLUDE_SUBDOMAINS=false"), http.MethodGet, "/api/v1/health", "", nop).Header.Get("Strict-Transport-Security"), "max-age=31536000")
		},
		"MAX_PAYLOAD_SIZE_BYTES": func(t *testing.T) {
			body := `{"email":"` + strings.Repeat("x", 2000) + `","password":"x"}`
			want(t, "small limit", request(t, with(t, "Z4J_MAX_PAYLOAD_SIZE_BYTES=1024"), http.MethodPost, "/api/v1/auth/login", body, nop).StatusCode, http.StatusRequestEntityTooLarge)
			want(t, "usual limit", request(t, with(t), http.MethodPost, "/api/v1/auth/login", body, nop).StatusCode, http.StatusUnprocessableEntity)
		},
	}
}

func nop(*http.Request) {}

func databaseKnobs() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"DATABASE_URL": func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "other.db")
			want(t, "database", with(t, "Z4J_DATABASE_URL=sqlite://"+file).Config.Database.URL.Path(), file)
		},
		"AUTO_MIGRATE": func(t *testing.T) {
			_, err := apptest.TryStart(t, apptest.Options{Environ: []string{"Z4J_AUTO_MIGRATE=false"}})
			want(t, "an empty database is refused", errors.Is(err, store.ErrNoSchema), true)
		},
	}
}

func secretKnobs() map[string]func(*testing.T) {
	// restarted starts a brain on a database that another one has made, with other settings.
	restarted := func(t *testing.T, settings ...string) (*apptest.Brain, error) {
		t.Helper()
		url := storetest.SQLite(t)
		b := apptest.Start(t, apptest.Options{Database: url})
		if err := b.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
		return apptest.TryStart(t, apptest.Options{Database: url, Environ: settings})
	}
	return map[string]func(*testing.T){
		"SECRET": func(t *testing.T) {
			_, err := restarted(t, "Z4J_SECRET="+another)
			want(t, "another one is refused", errors.Is(err, store.ErrForeignSecret), true)
		},
		"PREVIOUS_SECRETS": func(t *testing.T) {
			_, err := restarted(t, "Z4J_SECRET="+another, "Z4J_PREVIOUS_SECRETS="+string(storetest.Secrets.Master))
			want(t, "with the known one", err, nil)
		},
		"SESSION_SECRET":           func(t *testing.T) { TestANewSessionSecretLogsEverybodyOut(t) },
		"PREVIOUS_SESSION_SECRETS": func(t *testing.T) { TestANewSessionSecretLogsEverybodyOut(t) },
		"AUDIT_SECRET": func(t *testing.T) {
			b, err := restarted(t, "Z4J_AUDIT_SECRET="+another, "Z4J_METRICS_PUBLIC=true")
			if err != nil {
				t.Fatalf("%v, want a brain that serves reads", err)
			}
			want(t, "changes are refused", errors.Is(b.Store.AuditErr(), store.ErrAuditKeyUnknown), true)
			code, _ := login(b, apptest.Password)
			want(t, "log-in", code, http.StatusServiceUnavailable)
			want(t, "reads go on", status(b, "/api/v1/health/ready"), http.StatusOK)
			apptest.Until(t, "the metrics say that changes are refused", func() bool {
				_, _, text := b.Client.Try(http.MethodGet, "/metrics", nil)
				return strings.Contains(string(text), `z4j_background_task_error_active{task="audit"} 1`)
			})
		},
		"AUDIT_SECRETS_PREVIOUS": func(t *testing.T) {
			b, err := restarted(t, "Z4J_AUDIT_SECRET="+another, "Z4J_AUDIT_SECRETS_PREVIOUS="+string(storetest.Secrets.Audit))
			if err != nil {
				t.Fatal(err)
			}
			want(t, "changes", b.Store.AuditErr(), nil)
		},
		"METRICS_AUTH_TOKEN": func(t *testing.T) {
			b := with(t, "Z4J_METRICS_AUTH_TOKEN="+another)
			res := request(t, b, http.MethodGet, "/metrics", "", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+another) })
			want(t, "with the token", res.StatusCode, http.StatusOK)
			want(t, "without", status(b, "/metrics"), http.StatusUnauthorized)
		},
	}
}

func accountKnobs() map[string]func(*testing.T) {
	// idle logs in and says whether the session is still good after a while.
	after := func(t *testing.T, remember bool, wait time.Duration, settings ...string) int {
		t.Helper()
		clock := apptest.NewClock(time.Now())
		b := apptest.Start(t, apptest.Options{Environ: settings, Now: clock.Now})
		b.Client.Do(http.MethodPost, "/api/v1/auth/login", map[string]any{"email": apptest.Email, "password": apptest.Password, "remember_me": remember}, http.StatusOK, nil)
		want(t, "session at once", status(b, "/api/v1/auth/me"), http.StatusOK)
		clock.Set(clock.Now().Add(wait))
		return status(b, "/api/v1/auth/me")
	}
	return map[string]func(*testing.T){
		"BOOTSTRAP_ADMIN_EMAIL": func(t *testing.T) {
			b := with(t, "Z4J_BOOTSTRAP_ADMIN_EMAIL=bob@example.com")
			b.Client.Login("bob@example.com", apptest.Password)
		},
		"BOOTSTRAP_ADMIN_PASSWORD": func(t *testing.T) {
			b := with(t, "Z4J_BOOTSTRAP_ADMIN_PASSWORD=Another-Horse-7-Stable")
			b.Client.Login(apptest.Email, "Another-Horse-7-Stable")
		},
		"BOOTSTRAP_ADMIN_DISPLAY_NAME": func(t *testing.T) {
			_, _, me := loggedIn(t, "Z4J_BOOTSTRAP_ADMIN_DISPLAY_NAME=Ann of Ops").Client.Try(http.MethodGet, "/api/v1/auth/me", nil)
			contains(t, "me", string(me), "Ann of Ops")
		},
		"FIRST_BOOT_TOKEN_TTL_SECONDS": func(t *testing.T) {
			contains(t, "banner", apptest.Start(t, apptest.Options{Bare: true, Environ: []string{"Z4J_FIRST_BOOT_TOKEN_TTL_SECONDS=120"}}).Output(), "within 2 minutes")
			clock := apptest.NewClock(time.Now())
			b := apptest.Start(t, apptest.Options{Bare: true, Environ: []string{"Z4J_FIRST_BOOT_TOKEN_TTL_SECONDS=90"}, Now: clock.Now})
			contains(t, "banner", b.Output(), "within 90 seconds")
			want(t, "page", status(b, "/setup"), http.StatusOK)
			clock.Set(clock.Now().Add(91 * time.Second))
			want(t, "page later", status(b, "/setup"), http.StatusNotFound)
		},
		"FIRST_BOOT_ATTEMPTS_PER_IP": func(t *testing.T) {
			b := apptest.Start(t, apptest.Options{Bare: true, Environ: []string{"Z4J_FIRST_BOOT_ATTEMPTS_PER_IP=2"}})
			for i, code := range []int{http.StatusNotFound, http.StatusNotFound, http.StatusTooManyRequests} {
				got, _, _ := b.Client.Try(http.MethodPost, "/api/v1/setup/complete", map[string]any{"token": "wrong-token-wrong", "email": apptest.Email, "password": apptest.Password})
				want(t, "try "+strconv.Itoa(i+1), got, code)
			}
		},
		"PASSWORD_MIN_LENGTH": func(t *testing.T) {
			_, _, policy := with(t, "Z4J_PASSWORD_MIN_LENGTH=20").Client.Try(http.MethodGet, "/api/v1/auth/policy", nil)
			contains(t, "policy", string(policy), "20")
			_, err := apptest.TryStart(t, apptest.Options{Environ: []string{"Z4J_PASSWORD_MIN_LENGTH=40"}})
			want(t, "the bootstrap password is too short", err != nil, true)
		},
		"LOGIN_LOCKOUT_THRESHOLD": func(t *testing.T) {
			b := with(t, "Z4J_LOGIN_LOCKOUT_THRESHOLD=3")
			for range 3 {
				login(b, "wrong")
			}
			code, _ := login(b, apptest.Password)
			want(t, "right password when locked", code, http.StatusUnauthorized)
		},
		"LOGIN_LOCKOUT_DURATION_SECONDS": func(t *testing.T) {
			clock := apptest.NewClock(time.Now())
			b := apptest.Start(t, apptest.Options{Environ: []string{"Z4J_LOGIN_LOCKOUT_THRESHOLD=3", "Z4J_LOGIN_LOCKOUT_DURATION_SECONDS=60"}, Now: clock.Now})
			for range 3 {
				login(b, "wrong")
			}
			code, _ := login(b, apptest.Password)
			want(t, "locked", code, http.StatusUnauthorized)
			clock.Set(clock.Now().Add(61 * time.Second))
			code, _ = login(b, apptest.Password)
			want(t, "a minute later", code, http.StatusOK)
		},
		"LOGIN_MIN_DURATION_MS": func(t *testing.T) {
			b := with(t, "Z4J_LOGIN_MIN_DURATION_MS=900")
			began := time.Now()
			login(b, apptest.Password)
			if took := time.Since(began); took < 900*time.Millisecond {
				t.Errorf("log-in took %v, want at least 900ms", took)
			}
		},
		"SESSION_IDLE_TIMEOUT_SECONDS": func(t *testing.T) {
			want(t, "a minute later", after(t, false, 61*time.Second), http.StatusOK)
			want(t, "beyond the limit", after(t, false, 61*time.Second, "Z4J_SESSION_IDLE_TIMEOUT_SECONDS=60"), http.StatusUnauthorized)
		},
		"SESSION_ABSOLUTE_LIFETIME_SECONDS": func(t *testing.T) {
			want(t, "beyond the limit", after(t, false, 61*time.Second, "Z4J_SESSION_ABSOLUTE_LIFETIME_SECONDS=60"), http.StatusUnauthorized)
		},
		"SESSION_REMEMBER_ME_LIFETIME_SECONDS": func(t *testing.T) {
			want(t, "an hour later", after(t, true, time.Hour), http.StatusOK)
			want(t, "beyond the limit", after(t, true, 61*time.Second, "Z4J_SESSION_REMEMBER_ME_LIFETIME_SECONDS=60"), http.StatusUnauthorized)
		},
		"SESSION_COOKIE_SAMESITE": func(t *testing.T) {
			for setting, site := range map[string]string{"lax": "SameSite=Lax", "strict": "SameSite=Strict"} {
				_, header := login(with(t, "Z4J_SESSION_COOKIE_SAMESITE="+setting), apptest.Password)
				for _, cookie := range header.Values("Set-Cookie") {
					if strings.HasPrefix(cookie, "z4j_session=") {
						contains(t, setting, cookie, site)
					}
				}
			}
		},
		"ARGON2_TIME_COST":   func(t *testing.T) { contains(t, "hash", hash(t, with(t, "Z4J_ARGON2_TIME_COST=2")), "t=2") },
		"ARGON2_MEMORY_COST": func(t *testing.T) { contains(t, "hash", hash(t, with(t, "Z4J_ARGON2_MEMORY_COST=9000")), "m=9000") },
		"ARGON2_PARALLELISM": func(t *testing.T) { contains(t, "hash", hash(t, with(t, "Z4J_ARGON2_PARALLELISM=3")), "p=3") },
	}
}

func agentKnobs() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"WS_MAX_FRAME_BYTES": func(t *testing.T) {
			contains(t, "hello_ack", helloAck(t, loggedIn(t, "Z4J_WS_MAX_FRAME_BYTES=2097152")), `"max_frame_size_bytes":2097152`)
			contains(t, "hello_ack by default", helloAck(t, loggedIn(t)), `"max_frame_size_bytes":1048576`)
		},
		"WS_PER_AGENT_CONCURRENCY_CAP": func(t *testing.T) {
			b := loggedIn(t, "Z4J_WS_PER_AGENT_CONCURRENCY_CAP=1")
			agent := b.Client.Mint("default", "shop", time.Now)
			agent.Process(t, map[string]any{"worker_id": "one"}).Connect(b.URL())
			if err := agent.Process(t, map[string]any{"worker_id": "two"}).TryConnect(b.URL()); err == nil {
				t.Error("a second process connected, want it refused")
			}
		},
		"AUDIT_ANCHORS": func(t *testing.T) {
			dir := t.TempDir()
			loggedIn(t, "Z4J_AUDIT_ANCHORS="+dir, "Z4J_AUDIT_CHECKPOINT_INTERVAL=1")
			apptest.Until(t, "a checkpoint in the anchor", func() bool { return len(checkpointsIn(t, dir)) > 0 })
		},
		"AUDIT_CHECKPOINT_INTERVAL": func(t *testing.T) {
			dir := t.TempDir()
			b := loggedIn(t, "Z4J_AUDIT_ANCHORS="+dir, "Z4J_AUDIT_CHECKPOINT_INTERVAL=1")
			apptest.Until(t, "a first checkpoint", func() bool { return len(checkpointsIn(t, dir)) > 0 })
			b.Client.Mint("default", "shop", time.Now)
			apptest.Until(t, "a second checkpoint, long before a minute is over", func() bool { return len(checkpointsIn(t, dir)) > 1 })
		},
		"TASK_RETENTION_DAYS": func(t *testing.T) {
			for days, tasks := range map[string]int{"1": 0, "90": 1} {
				b := loggedIn(t, "Z4J_TASK_RETENTION_DAYS="+days)
				p := b.Client.Mint("default", "shop", time.Now).Process(t, nil)
				p.Connect(b.URL())
				p.Send(told(1, "task.received", "t-1", time.Now().Add(-50*time.Hour), ""))
				p.Settle()
				var page taskPage
				b.Client.Do(http.MethodGet, "/api/v1/projects/default/tasks", nil, http.StatusOK, &page)
				want(t, "tasks of two days ago with "+days+" days", len(page.Items), tasks)
			}
		},
	}
}

func retentionKnobs() map[string]func(*testing.T) {
	knob := func(days int, at, setting, tasks string, events int) func(*testing.T) {
		return func(t *testing.T) {
			url := storetest.SQLite(t)
			sweptTo(t, aged(t, url)(days, at, setting), url, tasks, events)
		}
	}
	return map[string]func(*testing.T){
		"EVENT_RETENTION_DAYS":           knob(9, "12:00", "Z4J_EVENT_RETENTION_DAYS=7", "bad fine open", 0),
		"FAILED_TASK_RETENTION_DAYS":     knob(91, "12:00", "Z4J_FAILED_TASK_RETENTION_DAYS=92", "bad open", 0),
		"UNFINISHED_TASK_RETENTION_DAYS": knob(101, "12:00", "Z4J_UNFINISHED_TASK_RETENTION_DAYS=100", "", 0),
		"RETENTION_TIME":                 knob(1, "02:15", "Z4J_RETENTION_TIME=02:10", "bad fine open", 3), // by default it would come at 03:30
	}
}

// checkpointsIn lists the notes of checkpoints in an anchor.
func checkpointsIn(t *testing.T, dir string) (notes []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "z4j", "*", "*", "checkpoints-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			notes = append(notes, line)
		}
	}
	return notes
}

// helloAck is what the brain tells a new connection.
func helloAck(t *testing.T, b *apptest.Brain) string {
	t.Helper()
	agent := b.Client.Mint("default", "shop", time.Now)
	ws, _, err := websocket.Dial(t.Context(), b.URL()+"/ws/agent", &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + agent.Token}}})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	hello := `{"v":2,"id":"hello_1","ts":null,"type":"hello","payload":{"agent_version":"1.13.0","protocol_version":"2","framework":"bare"}}`
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(hello)); err != nil {
		t.Fatal(err)
	}
	_, raw, err := ws.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// state is what the brains of a database found of their audit log.
func state(t *testing.T, b *apptest.Brain) store.AuditState {
	t.Helper()
	a, err := b.Store.AuditState(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func observeKnobs() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"AUDIT_VERIFY_INTERVAL": func(t *testing.T) {
			interval := func(b *apptest.Brain) (seconds int) {
				var status struct {
					Interval int `json:"interval_seconds"`
				}
				b.Client.Do(http.MethodGet, "/api/v1/audit/status", nil, http.StatusOK, &status)
				return status.Interval
			}
			b := loggedIn(t, "Z4J_AUDIT_VERIFY_INTERVAL=1", "Z4J_METRICS_PUBLIC=true")
			want(t, "interval", interval(b), 1)
			var first store.AuditState
			apptest.Until(t, "a verification", func() bool { first = state(t, b); return first.Last != nil })
			apptest.Until(t, "the next one", func() bool { return state(t, b).Last.Ended.After(first.Last.Ended.Time) })
			want(t, "interval of 0", interval(loggedIn(t, "Z4J_AUDIT_VERIFY_INTERVAL=0")), 0)
		},
		"METRICS_PUBLIC": func(t *testing.T) {
			want(t, "public", status(with(t, "Z4J_METRICS_PUBLIC=true"), "/metrics"), http.StatusOK)
			want(t, "by default", status(with(t), "/metrics"), http.StatusUnauthorized)
		},
		"OPENAPI_VISIBILITY": func(t *testing.T) {
			for setting, code := range map[string]int{"public": http.StatusOK, "private": http.StatusUnauthorized, "disabled": http.StatusNotFound} {
				want(t, setting, status(with(t, "Z4J_OPENAPI_VISIBILITY="+setting), "/api/v1/openapi.json"), code)
			}
		},
	}
}
