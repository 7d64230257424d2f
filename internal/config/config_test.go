package config_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/config"
)

var update = flag.Bool("update", false, "write golden files anew")

const (
	master  = "master-secret-master-secret-master-01"
	session = "session-secret-session-secret-sess-01"
	auditor = "audit-secret-audit-secret-audit-se-01"
)

// load loads with the given environment on an empty home.
func load(t *testing.T, environ ...string) (*config.Config, error) {
	t.Helper()
	home := t.TempDir()
	return config.Load(config.Input{Environ: append([]string{"Z4J_HOME=" + home}, environ...), WorkDir: "/work-dir", UserHome: "/home/ann", Hostname: "box"})
}

func must(t *testing.T, environ ...string) *config.Config {
	t.Helper()
	c, err := load(t, environ...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLessonB19NothingHasToBeSet(t *testing.T) {
	c, err := config.Load(config.Input{UserHome: "/home/ann", WorkDir: "/", Hostname: "box"})
	if err != nil {
		t.Fatal(err)
	}
	type facts struct {
		Home, Env, Bind, URL, DB, Level, Format string
		Port                                    int
		Hosts                                   []string
	}
	got := facts{
		c.General.Home, c.General.Environment, c.Network.BindHost, c.Network.PublicURL, c.Database.URL.Reveal(),
		c.General.LogLevel, c.General.LogFormat, c.Network.BindPort, c.Network.AllowedHosts,
	}
	want := facts{
		"/home/ann/.z4j", "dev", "127.0.0.1", "http://127.0.0.1:7700", "sqlite:/home/ann/.z4j/z4j.db", "info", "text", 7700,
		[]string{"localhost", "127.0.0.1", "::1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(c.Warnings) > 0 {
		t.Errorf("warnings: %q, want none", c.Warnings)
	}
}

func TestTheHighestSourceWins(t *testing.T) {
	home := t.TempDir()
	write(t, filepath.Join(home, "config.env"), "Z4J_BIND_PORT=3\nexport z4j_log_level='debug'\nZ4J_PASSWORD_MIN_LENGTH=14\nZ4J_SESSION_SECRET="+session+"\n")
	write(t, filepath.Join(home, "secret.env"), "Z4J_SECRET="+master+"\nZ4J_BIND_PORT=4\nZ4J_SESSION_SECRET=other-"+session+"\nZ4J_FIRST_BOOT_ATTEMPTS_PER_IP=7\n")
	token := filepath.Join(home, "token")
	write(t, token, "a-metrics-token-from-a-file\r\n")
	c, err := config.Load(config.Input{
		Flags:   map[string]string{"BIND_PORT": "1"},
		Environ: []string{"Z4J_HOME=" + home, "Z4J_BIND_PORT=2", "z4j_password_min_length=16", "Z4J_METRICS_AUTH_TOKEN_FILE=" + token, "Z4J_LOG_FORMAT="},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range c.Show() {
		switch s.Name {
		case "Z4J_BIND_PORT", "Z4J_LOG_LEVEL", "Z4J_PASSWORD_MIN_LENGTH", "Z4J_SESSION_SECRET", "Z4J_FIRST_BOOT_ATTEMPTS_PER_IP", "Z4J_METRICS_AUTH_TOKEN",
			"Z4J_LOG_FORMAT", "Z4J_SECRET", "Z4J_PUBLIC_URL":
			got[s.Name] = s.Value + " from " + s.Source
		}
	}
	want := map[string]string{
		"Z4J_BIND_PORT":                  "1 from --bind-port",
		"Z4J_PASSWORD_MIN_LENGTH":        "16 from env z4j_password_min_length",
		"Z4J_LOG_LEVEL":                  "debug from config.env z4j_log_level",
		"Z4J_SESSION_SECRET":             "[redacted] from config.env Z4J_SESSION_SECRET",
		"Z4J_SECRET":                     "[redacted] from secret.env Z4J_SECRET",
		"Z4J_FIRST_BOOT_ATTEMPTS_PER_IP": "7 from secret.env Z4J_FIRST_BOOT_ATTEMPTS_PER_IP",
		"Z4J_METRICS_AUTH_TOKEN":         "[redacted] from env Z4J_METRICS_AUTH_TOKEN_FILE: " + token,
		"Z4J_LOG_FORMAT":                 "text from default",
		"Z4J_PUBLIC_URL":                 "http://127.0.0.1:1 from derived",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := string(c.Secrets.Metrics.Reveal()); got != "a-metrics-token-from-a-file" {
		t.Errorf("token of the file: %q, want it without its line end", got)
	}
	if got := string(c.Secrets.Session.Reveal()); got != session {
		t.Errorf("session secret: %q, want that of config.env", got)
	}
}

func TestEnvironmentFollowsFromTheBind(t *testing.T) {
	for _, tt := range []struct {
		name, bind string
		environ    []string
		env, url   string
		hosts      []string
	}{
		{"loopback is dev", "127.0.0.2", nil, "dev", "http://127.0.0.2:7700", []string{"localhost", "127.0.0.1", "::1", "127.0.0.2"}},
		{"IPv6 loopback is dev", "[::1]", nil, "dev", "http://[::1]:7700", []string{"localhost", "127.0.0.1", "::1"}},
		{"localhost is dev", "localhost", nil, "dev", "http://localhost:7700", []string{"localhost", "127.0.0.1", "::1"}},
		{"every address is production", "0.0.0.0", nil, "production", "http://box:7700", []string{"localhost", "127.0.0.1", "::1", "box", "10.1.2.3"}},
		{"one address is production", "10.1.2.3", nil, "production", "http://10.1.2.3:7700", []string{"10.1.2.3"}},
		{
			"loopback can be production", "127.0.0.1",
			[]string{"Z4J_ENVIRONMENT=production", "Z4J_PUBLIC_URL=https://brain.example.com/"},
			"production",
			"https://brain.example.com",
			[]string{"localhost", "127.0.0.1", "::1", "brain.example.com"},
		},
		{
			"given hosts, and always that of the public URL", "::",
			[]string{"Z4J_PUBLIC_URL=https://Brain.example.com", `Z4J_ALLOWED_HOSTS=["a.example","[2001:db8::1]"]`},
			"production",
			"https://Brain.example.com",
			[]string{"a.example", "2001:db8::1", "brain.example.com"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := config.Load(config.Input{
				Environ: append([]string{"Z4J_HOME=" + t.TempDir(), "Z4J_BIND_HOST=" + tt.bind}, tt.environ...), Hostname: "box",
				Addresses: []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("::1")},
			})
			if err != nil {
				t.Fatal(err)
			}
			if c.General.Environment != tt.env || c.Network.PublicURL != tt.url {
				t.Errorf("%s and %s, want %s and %s", c.General.Environment, c.Network.PublicURL, tt.env, tt.url)
			}
			if diff := cmp.Diff(tt.hosts, c.Network.AllowedHosts); diff != "" {
				t.Error("allowed hosts:", diff)
			}
		})
	}
}

func TestWhatIsRefusedNamesTheSettingAndTheWayOut(t *testing.T) {
	public := "Z4J_BIND_HOST=0.0.0.0"
	for _, tt := range []struct {
		name    string
		environ []string
		want    []string // of the message; none: accepted
	}{
		{"LessonB11: dev on every address", []string{public, "Z4J_ENVIRONMENT=dev"}, []string{"Z4J_ENVIRONMENT (env Z4J_ENVIRONMENT)", "127.0.0.1", "production"}},
		{"LessonB12: development relaxes nothing", []string{public, "Z4J_ENVIRONMENT=development", "Z4J_PUBLIC_URL=http://b.example"}, []string{"Z4J_PUBLIC_URL", "Z4J_ALLOW_HTTP_PUBLIC_URL"}},
		{"LessonB12: Dev relaxes nothing", []string{"Z4J_ENVIRONMENT=Dev", "Z4J_PUBLIC_URL=http://b.example"}, []string{"Z4J_PUBLIC_URL", "https"}},
		{"http that is asked for", []string{public, "Z4J_PUBLIC_URL=http://b.example", "Z4J_ALLOW_HTTP_PUBLIC_URL=yes"}, nil},
		{"http to localhost", []string{public, "Z4J_PUBLIC_URL=http://localhost:7700"}, nil},
		{"LessonB18: a line end in the public URL", []string{"Z4J_PUBLIC_URL=https://b.example\nevil"}, []string{"Z4J_PUBLIC_URL", "control character"}},
		{"LessonB18: a user in the public URL", []string{"Z4J_PUBLIC_URL=https://brain.example.com@evil.example"}, []string{"Z4J_PUBLIC_URL", "user name"}},
		{"LessonB18: a backslash in the public URL", []string{`Z4J_PUBLIC_URL=https://evil.example\@b.example`}, []string{"Z4J_PUBLIC_URL", "backslash"}},
		{"another scheme", []string{"Z4J_PUBLIC_URL=javascript:alert(1)"}, []string{"Z4J_PUBLIC_URL", "https://"}},
		{"a path in the public URL", []string{"Z4J_PUBLIC_URL=https://b.example/z4j"}, []string{"Z4J_PUBLIC_URL", "root"}},
		{"LessonB20: a zone in a proxy", []string{"Z4J_TRUSTED_PROXIES=fe80::1%eth0/64"}, []string{"Z4J_TRUSTED_PROXIES", "zone"}},
		{"LessonB20: no network", []string{"Z4J_TRUSTED_PROXIES=10.0.0.0/8,proxy"}, []string{"Z4J_TRUSTED_PROXIES", `"proxy"`}},
		{"bits behind the mask", []string{"Z4J_TRUSTED_PROXIES=10.1.2.3/8"}, []string{"10.0.0.0/8"}},
		{"an address is a network", []string{"Z4J_TRUSTED_PROXIES=10.1.2.3, ::1"}, nil},
		{"a sweep at no time of day", []string{"Z4J_RETENTION_TIME=25:00"}, []string{"Z4J_RETENTION_TIME", "03:30"}},
		{"a wildcard host", []string{"Z4J_ALLOWED_HOSTS=*"}, []string{"Z4J_ALLOWED_HOSTS", "wildcard"}},
		{"a host with a port", []string{"Z4J_ALLOWED_HOSTS=a.example:7700"}, []string{"Z4J_ALLOWED_HOSTS", "port"}},
		{"a port that is none", []string{"Z4J_BIND_PORT=http"}, []string{"Z4J_BIND_PORT (env Z4J_BIND_PORT)", `"http"`}},
		{"a port out of range", []string{"Z4J_BIND_PORT=70000"}, []string{"Z4J_BIND_PORT", "65535"}},
		{"a level that nobody knows", []string{"Z4J_LOG_LEVEL=loud"}, []string{"debug, info, warn, error"}},
		{"a level of the reference", []string{"Z4J_LOG_LEVEL=WARNING"}, nil},
		{"a boolean that is none", []string{"Z4J_METRICS_PUBLIC=perhaps"}, []string{"Z4J_METRICS_PUBLIC", "true nor false"}},
		{"Postgres in the clear, elsewhere, in production", []string{public, "Z4J_DATABASE_URL=postgres://u:geheim@db.example/z"}, []string{"Z4J_DATABASE_URL", "sslmode=verify-full", "Z4J_REQUIRE_DB_SSL"}},
		{"sslmode=prefer may be in the clear", []string{public, "Z4J_DATABASE_URL=postgres://u:geheim@db.example/z?sslmode=prefer"}, []string{"Z4J_DATABASE_URL"}},
		{"one host of two elsewhere", []string{public, "Z4J_DATABASE_URL=postgres://u:geheim@/z?host=/run/pg,db.example"}, []string{"Z4J_DATABASE_URL"}},
		{"Postgres with TLS", []string{public, "Z4J_DATABASE_URL=postgres://u:geheim@db.example/z?sslmode=require"}, nil},
		{"Postgres without TLS that is asked for", []string{public, "Z4J_DATABASE_URL=postgres://u:geheim@db/z", "Z4J_REQUIRE_DB_SSL=false"}, nil},
		{"Postgres on this machine", []string{public, "Z4J_DATABASE_URL=postgres://u:geheim@127.0.0.1:5433/z"}, nil},
		{"Postgres by a socket", []string{public, "Z4J_DATABASE_URL=postgres://u@/z?host=/var/run/postgresql"}, nil},
		{"Postgres elsewhere in dev", []string{"Z4J_DATABASE_URL=postgres://u:geheim@db.example/z"}, nil},
		{"a short secret", []string{"Z4J_SECRET=geheim"}, []string{"Z4J_SECRET", "6 bytes", "at least 32", "openssl rand"}},
		{"a short secret in a list", []string{"Z4J_PREVIOUS_SECRETS=" + master + ",geheim"}, []string{"Z4J_PREVIOUS_SECRETS", "number 2", "32"}},
		{"a list that is no JSON", []string{`Z4J_PREVIOUS_SECRETS=["geheim`}, []string{"Z4J_PREVIOUS_SECRETS", "JSON"}},
		{"a secret and its file", []string{"Z4J_SECRET=" + master, "Z4J_SECRET_FILE=/run/secret"}, []string{"Z4J_SECRET", "remove one"}},
		{"an alias with another value", []string{"Z4J_AUDIT_SECRET=" + auditor, "Z4J_AUDIT_CHAIN_SECRET=x" + auditor}, []string{"Z4J_AUDIT_SECRET", "remove one"}},
		{"an alias with the same value", []string{"Z4J_AUDIT_SECRET=" + auditor, "Z4J_AUDIT_CHAIN_SECRET=" + auditor}, nil},
		{"a secret's file that is not there", []string{"Z4J_SECRET_FILE=/nowhere/secret"}, []string{"Z4J_SECRET (env Z4J_SECRET_FILE: /nowhere/secret)", "no such file"}},
		{"all faults at once", []string{"Z4J_BIND_PORT=a", "Z4J_LOG_LEVEL=b"}, []string{"2 faults", "Z4J_BIND_PORT", "Z4J_LOG_LEVEL"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.environ...)
			if tt.want == nil {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			var invalid *config.Invalid
			if !errors.As(err, &invalid) {
				t.Fatalf("error %v, want an *Invalid", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("message %q lacks %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "geheim") || strings.Contains(err.Error(), master) {
				t.Errorf("message %q holds a secret", err)
			}
		})
	}
}

func TestDatabaseURLs(t *testing.T) {
	for _, tt := range []struct {
		text, want, shown string // want "": refused
	}{
		{"sqlite:///var/lib/z4j.db", "sqlite:/var/lib/z4j.db", "sqlite:/var/lib/z4j.db"},
		{"sqlite:////var/lib/z4j.db", "sqlite:/var/lib/z4j.db", "sqlite:/var/lib/z4j.db"},
		{"sqlite:/var/lib/z4j.db", "sqlite:/var/lib/z4j.db", "sqlite:/var/lib/z4j.db"},
		{"sqlite:data/z4j.db", "sqlite:/cwd/data/z4j.db", "sqlite:/cwd/data/z4j.db"},
		{"sqlite:./z4j 100%.db", "sqlite:/cwd/z4j 100%.db", "sqlite:/cwd/z4j 100%.db"},
		{"sqlite+aiosqlite:////var/lib/z4j.db", "sqlite:/var/lib/z4j.db", "sqlite:/var/lib/z4j.db"},
		{"sqlite+aiosqlite:///data/z4j.db", "sqlite:/cwd/data/z4j.db", "sqlite:/cwd/data/z4j.db"},
		{"sqlite://z4j.db", "", ""},
		{"sqlite:", "", ""},
		{"sqlite::memory:", "", ""},
		{"sqlite:///data/", "", ""},
		{"sqlite:///a.db?mode=ro", "", ""},
		{"postgres://u:p%40w@h:5433/z?sslmode=require", "postgres://u:p%40w@h:5433/z?sslmode=require", "postgres://u:***@h:5433/z?sslmode=require"},
		{"postgresql://u:pw@h/z", "postgres://u:pw@h/z", "postgres://u:***@h/z"},
		{"postgresql+asyncpg://u:pw@h/z?ssl=verify-full", "postgres://u:pw@h/z?sslmode=verify-full", "postgres://u:***@h/z?sslmode=verify-full"},
		{"postgresql+asyncpg://u:pw@h/z?ssl=true", "postgres://u:pw@h/z?sslmode=require", "postgres://u:***@h/z?sslmode=require"},
		{"postgres://u@/z?host=/run/pg&password=pw", "postgres://u@/z?host=/run/pg&password=pw", "postgres://u@/z?host=%2Frun%2Fpg&password=***"},
		{" postgres://u@h/z\n", "postgres://u@h/z", "postgres://u@h/z"},
		{"postgres://u:pw@h", "", ""},
		{"postgres:///z", "", ""},
		{"postgres://u:pw@h/z?sslmode=always", "", ""},
		{"postgres://u:p w@h:port/z", "", ""},
		{"postgres://u:pw#1@h/z", "", ""},
		{"mysql://u:pw@h/z", "", ""},
		{"z4j.db", "", ""},
		{"", "", ""},
	} {
		u, err := config.ParseDatabaseURL(tt.text, "/cwd")
		if (err == nil) != (tt.want != "") || u.Reveal() != tt.want || u.String() != tt.shown {
			t.Errorf("%q: %q shown as %q, error %v; want %q shown as %q", tt.text, u.Reveal(), u, err, tt.want, tt.shown)
		}
		if err != nil && (strings.Contains(err.Error(), "pw") || strings.Contains(err.Error(), "p w")) {
			t.Errorf("%q: error %q holds the password", tt.text, err)
		}
	}
}

func TestLessonB7SecretsNeverPrint(t *testing.T) {
	const value = "hunter2-hunter2-hunter2-hunter2-hunter2"
	s := config.NewSecret(value + "\r\n")
	if string(s.Reveal()) != value {
		t.Fatalf("revealed %q, want %q", s.Reveal(), value)
	}
	inside := struct {
		Shown  config.Secret
		hidden config.Secret
		list   config.Secrets
	}{s, s, config.Secrets{s}}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", s, "inside", inside)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", s, "inside", inside)
	asJSON, err := json.Marshal(map[string]any{"s": s, "i": inside, "l": config.Secrets{s}})
	if err != nil {
		t.Fatal(err)
	}
	c := must(t, "Z4J_SECRET="+value, "Z4J_PREVIOUS_SECRETS="+value+","+value+"2", "Z4J_DATABASE_URL=postgres://u:"+value+"@localhost/z?sslpassword="+value)
	everything, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := json.Marshal(c.Show())
	if err != nil {
		t.Fatal(err)
	}
	outputs := []string{log.String(), string(asJSON), string(everything), string(shown)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
		for _, v := range []any{s, &s, inside, &inside, *c, c, []any{s}, map[string]config.Secret{"k": s}, c.Database} {
			outputs = append(outputs, fmt.Sprintf(verb, v))
		}
	}
	for _, out := range outputs {
		if strings.Contains(out, "hunter2") || strings.Contains(out, fmt.Sprintf("%x", "hunter2")) || strings.Contains(out, fmt.Sprintf("%X", "hunter2")) {
			t.Errorf("a secret is shown: %s", out)
		}
	}
	if got := fmt.Sprint(s); got != "[redacted]" {
		t.Errorf("printed %q, want [redacted]", got)
	}
}

func TestLessonL12UnknownNamesAreNamed(t *testing.T) {
	for _, tt := range []struct{ environ, want string }{
		{"Z4J_AUDIT_SECRETE=x", "Is Z4J_AUDIT_SECRET meant?"},
		{"Z4J_BINDHOST=x", "Is Z4J_BIND_HOST meant?"},
		{"Z4J_DATABSE_URL=x", "Is Z4J_DATABASE_URL meant?"},
		{"z4j_sessoin_secret=x", "z4j_sessoin_secret (env) is no setting of z4j; it is ignored. Is Z4J_SESSION_SECRET meant?"},
		{"Z4J_QQQQQQQQQQQQQQQQQQ=x", "Z4J_QQQQQQQQQQQQQQQQQQ (env) is no setting of z4j; it is ignored"},
		{"Z4J_AUDIT_RETENTION_DAYS=90", "accepted and ignored: the audit log is never deleted automatically"},
		{"Z4J_OTEL_PROTOCOL=grpc", "Z4J_OTEL_PROTOCOL (env) is accepted and ignored"},
	} {
		c := must(t, tt.environ)
		if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], tt.want) {
			t.Errorf("%s: warnings %q, want one with %q", tt.environ, c.Warnings, tt.want)
		}
	}
	if c := must(t, "Z4J_TEST_CACHE=x", "PATH=/bin"); len(c.Warnings) != 0 {
		t.Errorf("warnings %q, want none for the tests' own names", c.Warnings)
	}
}

// TestEveryNameOfTheReferenceIsKnown keeps existing environments from being called misspelt.
func TestEveryNameOfTheReferenceIsKnown(t *testing.T) {
	text, err := os.ReadFile("testdata/reference_names.txt")
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(string(text))
	if len(names) < 185 {
		t.Fatalf("testdata/reference_names.txt has %d names, want all", len(names))
	}
	settings := map[string]bool{}
	for _, s := range config.Settings() {
		for _, n := range append([]string{s.Name}, s.Aliases...) {
			settings["Z4J_"+n] = true
		}
	}
	for _, name := range names {
		if settings[name] {
			continue
		}
		c := must(t, name+"=1")
		if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "accepted and ignored") {
			t.Errorf("%s: warnings %q, want one that says why it is ignored", name, c.Warnings)
		}
	}
}

func TestFilesSayWhereTheyAreWrong(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"Z4J_SECRET\n", "config.env: line 1 is not NAME=value"},
		{"# fine\n\nZ4J_SECRET='geheim\n", "line 3: the quote is not closed"},
		{"Z4J_BIND_PORT=1\nz4j_bind_port=2\n", "line 2 sets Z4J_BIND_PORT again, which line 1 sets"},
		{"Z4J_BIND_PORT=\"1\"geheim\n", "line 1: something follows"},
		{"Z4J_BIND_PORT=\xff\n", "UTF-8"},
	} {
		home := t.TempDir()
		write(t, filepath.Join(home, "config.env"), tt.text)
		_, err := config.Load(config.Input{Environ: []string{"Z4J_HOME=" + home}})
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%q: %v, want %q and nothing secret", tt.text, err, tt.want)
		}
	}
	home := t.TempDir()
	write(t, filepath.Join(home, "config.env"), "Z4J_HOME=/elsewhere\nPATH=/bin\nZ4J_BNID_HOST=1\n")
	if err := os.Chmod(filepath.Join(home, "config.env"), 0o644); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(home, "secret.env"), "")
	if err := os.Chmod(filepath.Join(home, "secret.env"), 0o644); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(home, ".env"), "Z4J_BIND_PORT=9\n")
	c, err := config.Load(config.Input{Environ: []string{"Z4J_HOME=" + home}, WorkDir: home})
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(c.Warnings, "\n")
	for _, want := range []string{"line 1: Z4J_HOME is ignored", "line 2: PATH is no setting", "Is Z4J_BIND_HOST meant?", "chmod 600", ".env holds settings of z4j and is not read"} {
		if !strings.Contains(all, want) {
			t.Errorf("warnings %q lack %q", all, want)
		}
	}
	if len(c.Unknown()) != 1 {
		t.Errorf("unknown names in files: %v, want the one", c.Unknown())
	}
	if c.Network.BindPort != 7700 {
		t.Errorf("port %d, want 7700: .env is not read", c.Network.BindPort)
	}
}

func TestMintingMakesOneWholeFile(t *testing.T) {
	c := must(t)
	if !c.Secrets.None() || c.Secrets.Complete() {
		t.Fatal("a fresh home has secrets, want none")
	}
	if err := c.Mint(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.General.Home, "secret.env")
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode %v, want a plain file with 0600", info.Mode())
	}
	again, err := config.Load(config.Input{Environ: []string{"Z4J_HOME=" + c.General.Home}})
	if err != nil {
		t.Fatal(err)
	}
	if !again.Secrets.Complete() || !again.Secrets.Master.Equal(c.Secrets.Master) || !again.Secrets.Audit.Equal(c.Secrets.Audit) ||
		!again.Secrets.Session.Equal(c.Secrets.Session) || !again.Secrets.Metrics.Equal(c.Secrets.Metrics) || again.Secrets.Metrics.IsZero() {
		t.Error("the file's secrets are not those that were minted, want the same four")
	}
	if len(again.Warnings) > 0 {
		t.Errorf("warnings %q, want none", again.Warnings)
	}
	entries, err := os.ReadDir(c.General.Home)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("home holds %v, want secret.env alone", entries)
	}
}

func TestLessonB1MintingFollowsNoLinkAndReplacesNothing(t *testing.T) {
	for _, tt := range []struct {
		name string
		put  func(path, elsewhere string) error
	}{
		{"a link that leads nowhere", func(path, elsewhere string) error { return os.Symlink(elsewhere, path) }},
		{"an empty file", func(path, _ string) error { return os.WriteFile(path, nil, 0o600) }},
		{"a directory", func(path, _ string) error { return os.Mkdir(path, 0o700) }},
	} {
		c := must(t)
		path, elsewhere := filepath.Join(c.General.Home, "secret.env"), filepath.Join(t.TempDir(), "stolen")
		if err := tt.put(path, elsewhere); err != nil {
			t.Fatal(err)
		}
		if err := c.Mint(); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v, want that it exists", tt.name, err)
		}
		if _, err := os.Stat(elsewhere); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the link's target was written", tt.name)
		}
		if !c.Secrets.None() {
			t.Errorf("%s: secrets are in use that no file holds", tt.name)
		}
	}
}

func TestLessonB4AndB25TheSetIsWholeOrRefused(t *testing.T) {
	all := []string{"Z4J_SECRET=" + master, "Z4J_SESSION_SECRET=" + session, "Z4J_AUDIT_CHAIN_SECRET=" + auditor}
	c := must(t, all...)
	if err := c.SecretsError(); err != nil {
		t.Errorf("a complete set from outside: %v, want no error", err)
	}
	for i, name := range []string{"Z4J_SECRET", "Z4J_SESSION_SECRET", "Z4J_AUDIT_SECRET"} {
		c := must(t, slices.Concat(all[:i], all[i+1:])...)
		for _, err := range []error{c.SecretsError(), c.Mint()} {
			if !errors.Is(err, config.ErrSecrets) || !strings.Contains(err.Error(), name+" is neither set nor in "+c.General.Home) || !strings.Contains(err.Error(), "openssl") {
				t.Errorf("without %s: %v, want an error that names it and the way out", name, err)
			}
		}
		if entries, err := os.ReadDir(c.General.Home); err != nil || len(entries) > 0 {
			t.Errorf("home holds %v (%v), want nothing", entries, err)
		}
	}
	if err := must(t).SecretsError(); !errors.Is(err, config.ErrSecrets) || !strings.Contains(err.Error(), "z4j.db") {
		t.Errorf("no secret at all: %v, want an error that names the database", err)
	}
}

// TestEverySettingCanBeChanged sets each to something else and sees it in Show, so that no tag is misspelt.
func TestEverySettingCanBeChanged(t *testing.T) {
	other := map[string]string{
		"HOME": t.TempDir(), "ENVIRONMENT": "staging", "LOG_LEVEL": "error", "LOG_FORMAT": "json", "BIND_HOST": "::1", "PUBLIC_URL": "https://b.example",
		"ALLOWED_HOSTS": "b.example", "TRUSTED_PROXIES": "10.0.0.0/8", "DATABASE_URL": "sqlite:/other.db", "BOOTSTRAP_ADMIN_EMAIL": "ann@example.com",
		"BOOTSTRAP_ADMIN_DISPLAY_NAME": "Ann", "SESSION_COOKIE_SAMESITE": "strict", "OPENAPI_VISIBILITY": "private", "EVENT_RETENTION_DAYS": "30", "RETENTION_TIME": "04:45",
		"AUDIT_ANCHORS":   "/mnt/anchor,s3://bucket/prefix",
		"BACKUP_SCHEDULE": "0 3 * * *", "BACKUP_TARGET": "s3://bucket/z4j", "BACKUP_RECIPIENTS": "age1x", "BACKUP_KEEP": "daily=7", "BACKUP_TMP": "/var/tmp", "DRILL_SCHEDULE": "0 4 1 */3 *", "S3_ENDPOINT": "https://s3.example", "S3_REGION": "eu",
	}
	base := map[string]string{}
	for _, s := range must(t).Show() {
		base[s.Name] = s.Value
	}
	for _, s := range config.Settings() {
		value, ok := other[s.Name]
		switch {
		case ok:
		case s.Bool:
			value = map[string]string{"true": "false", "false": "true"}[s.Default]
		case s.Secret:
			value = strings.Repeat("s", 40)
		default:
			value = s.Max
		}
		if value == "" || s.Help == "" || s.Section == "" {
			t.Errorf("%s: value %q, help %q: want both", s.Name, value, s.Help)
		}
		c := must(t, s.Var()+"="+value)
		for _, shown := range c.Show() {
			if shown.Name == s.Var() && (shown.Value == base[s.Var()] || !c.Given(s.Name)) {
				t.Errorf("%s=%s: shown as %q from %s, want it changed from %q", s.Var(), value, shown.Value, shown.Source, base[s.Var()])
			}
		}
	}
	if c := must(t, "Z4J_SESSION_IDLE_TIMEOUT_SECONDS=90", "Z4J_LOGIN_MIN_DURATION_MS=250"); c.Accounts.SessionIdle != 90*time.Second || c.Accounts.LoginMin != 250*time.Millisecond {
		t.Errorf("units: %v and %v, want 1m30s and 250ms", c.Accounts.SessionIdle, c.Accounts.LoginMin)
	}
	if c := must(t, "Z4J_BACKUP_MAX_DURATION=90m", "Z4J_RPO=2d"); c.Backup.MaxDuration != 90*time.Minute || c.Backup.RPO != 48*time.Hour {
		t.Errorf("spelled durations: %v and %v, want 1h30m and 48h", c.Backup.MaxDuration, c.Backup.RPO)
	}
}

func TestDocumentationIsGenerated(t *testing.T) {
	const path = "../../docs/configuration.md"
	want := config.Documentation()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(have)); diff != "" {
		t.Errorf("docs/configuration.md is not what the settings say; run `go test ./internal/config -update`:\n%s", diff)
	}
}
