package cli_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/app/apptest"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// installation is one database with a brain, or with two replicas where the database can have them.
type installation struct {
	t      *testing.T
	homes  []string
	brains []*apptest.Brain
}

// install starts the brains of a fresh database; the first mints the secrets, the second gets a copy.
func install(t *testing.T, url string) *installation {
	t.Helper()
	in := &installation{t: t}
	replicas := 1
	if strings.HasPrefix(url, "postgres") {
		replicas = 2
	}
	for i := range replicas {
		home := filepath.Join(t.TempDir(), "home")
		if err := os.MkdirAll(home, 0o700); err != nil {
			t.Fatal(err)
		}
		text := "Z4J_BOOTSTRAP_ADMIN_EMAIL=" + apptest.Email + "\nZ4J_BOOTSTRAP_ADMIN_PASSWORD=" + apptest.Password + "\n"
		if replicas > 1 {
			text += "Z4J_DATABASE_URL='" + url + "'\n"
		}
		if err := os.WriteFile(filepath.Join(home, "config.env"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		in.homes, in.brains = append(in.homes, home), append(in.brains, nil)
		if i > 0 {
			in.copySecrets()
		}
		in.start(i)
	}
	return in
}

func (in *installation) start(i int) *apptest.Brain {
	in.t.Helper()
	in.brains[i] = apptest.Start(in.t, apptest.Options{Home: in.homes[i], Bare: true})
	return in.brains[i]
}

// restart restarts brain i with what its home says now.
func (in *installation) restart(i int) *apptest.Brain {
	in.t.Helper()
	if err := in.brains[i].Stop(context.WithoutCancel(in.t.Context())); err != nil {
		in.t.Fatal(err)
	}
	return in.start(i)
}

// copySecrets is what the operator does after a rotation.
func (in *installation) copySecrets() {
	in.t.Helper()
	text, err := os.ReadFile(filepath.Join(in.homes[0], "secret.env"))
	if err != nil {
		in.t.Fatal(err)
	}
	for _, home := range in.homes[1:] {
		if err := os.WriteFile(filepath.Join(home, "secret.env"), text, 0o600); err != nil {
			in.t.Fatal(err)
		}
	}
}

// last is the brain that is restarted last: the first one where there is one alone.
func (in *installation) last() int { return len(in.brains) - 1 }

// cli runs a command on the first home.
func (in *installation) cli(want int, args ...string) (stdout, stderr string) {
	in.t.Helper()
	code, stdout, stderr := run(in.t, append([]string{"--home", in.homes[0]}, args...)...)
	if code != want {
		in.t.Fatalf("%v: exit code %d, want %d\n%s%s", args, code, want, stdout, stderr)
	}
	return stdout, stderr
}

func (in *installation) client(i int) *apptest.Client {
	in.t.Helper()
	c := apptest.NewClient(in.t, in.brains[i].URL())
	c.Login(apptest.Email, apptest.Password)
	return c
}

// again is a client's browser at a brain that has another address since its restart.
func again(t *testing.T, c *apptest.Client, b *apptest.Brain) *apptest.Client {
	t.Helper()
	n := apptest.NewClient(t, b.URL())
	n.HTTP.Jar = c.HTTP.Jar // by host, whatever the port
	return n
}

// withKey asks a brain with an API key and returns the status.
func withKey(t *testing.T, b *apptest.Brain, key string) int {
	t.Helper()
	status, _, err := ask(t.Context(), http.MethodGet, b.URL()+"/api/v1/home/summary", "", key)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func event(task string) string {
	return `{"kind":"task.received","engine":"celery","task_id":"` + task + `","occurred_at":"` + time.Now().UTC().Format("2006-01-02T15:04:05.000000Z") + `","data":{"task_name":"shop.charge"}}`
}

// report sends an event of an agent to a brain and waits until it is committed and answered.
func report(p *apptest.Process, b *apptest.Brain, task string) {
	if p.Broken() {
		p.Connect(b.URL())
	}
	p.Send(event(task))
	p.Settle()
}

// TestLessonB24RotateTheMasterSecret: with live agents, replicas that are restarted one by one, and an API key.
func TestLessonB24RotateTheMasterSecret(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		in := install(t, url)
		admin := in.client(0)
		old := admin.Mint("default", "web", time.Now)
		p, q := old.Process(t, nil), old.Process(t, nil)
		p.Connect(in.brains[0].URL())
		q.Connect(in.brains[in.last()].URL())
		report(p, in.brains[0], "before")
		key := mintKey(in)
		unused := mintKey(in)

		stdout, _ := in.cli(0, "secrets", "rotate", "master")
		for _, want := range []string{"Z4J_SECRET has a new value in " + in.homes[0], "Store a copy", "restart every brain"} {
			if !strings.Contains(stdout, want) {
				t.Errorf("begin: got %q, want it to say %q", stdout, want)
			}
		}
		in.copySecrets()
		in.cli(3, "secrets", "rotate", "master", "--finish") // no brain has run with the new one
		report(p, in.brains[0], "begun")
		first := in.restart(0)
		report(reconnected(p, first), first, "restarted")
		if in.last() > 0 {
			report(q, in.brains[1], "at a replica with the old secret")
			if got := withKey(t, in.brains[1], key); got != 200 {
				t.Errorf("an API key at the replica with the old secret: got %d, want 200", got)
			}
			second := in.restart(1)
			report(reconnected(q, second), second, "restarted, too")
		}

		_, stderr := in.cli(3, "secrets", "rotate", "master", "--finish")
		if !strings.Contains(stderr, "1 agents and 2 API keys still need an earlier value") || !strings.Contains(stderr, "z4j-brain agents mint") {
			t.Errorf("finish too early: got %q, want who still needs it and the way out", stderr)
		}
		if got := withKey(t, first, key); got != 200 {
			t.Errorf("an API key after the restart: got %d, want 200", got)
		}
		next := again(t, admin, first).Mint("default", "web-2", time.Now)
		moved := next.Process(t, nil)
		moved.Connect(first.URL())
		report(moved, first, "moved over")
		in.cli(0, "agents", "revoke", "web", "--project", "default")
		apptest.Until(t, "the revoked agent's connections to be closed", func() bool { return p.Broken() && q.Broken() })

		_, stderr = in.cli(3, "secrets", "rotate", "master", "--finish")
		if !strings.Contains(stderr, "0 agents and 1 API keys") {
			t.Errorf("finish with a key that was not used: got %q, want it refused for that", stderr)
		}
		in.cli(0, "secrets", "rotate", "master", "--finish", "--force")
		in.cli(3, "secrets", "rotate", "master", "--finish")
		last := in.restart(0)
		report(reconnected(moved, last), last, "finished")
		if got := []int{withKey(t, last, key), withKey(t, last, unused)}; got[0] != 200 || got[1] != 401 {
			t.Errorf("API keys after the end: got %v, want the used one taken and the other not", got)
		}
		if err := p.TryConnect(last.URL()); err == nil {
			t.Error("the revoked agent connects, want 401")
		}
		in.cli(0, "audit", "verify")
	})
}

// reconnected is a process at a brain that was restarted elsewhere.
func reconnected(p *apptest.Process, b *apptest.Brain) *apptest.Process {
	p.Close()
	p.Connect(b.URL())
	return p
}

func mintKey(in *installation) string {
	in.t.Helper()
	stdout, _ := in.cli(0, "api-keys", "create", "--user", apptest.Email, "--name", "ci", "--scope", "home:read")
	return strings.TrimSpace(stdout)
}

// TestLessonA12RotateTheAuditSecret: replicas with the old and with the new secret alternate until the rotation is finished; then
// one that was not restarted can change nothing, and says so.
func TestLessonA12RotateTheAuditSecret(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		in := install(t, url)
		stdout, _ := in.cli(0, "secrets", "rotate", "audit", "--json")
		var begun struct {
			KID     string   `json:"kid"`
			OldKIDs []string `json:"old_kids"`
		}
		if err := json.Unmarshal([]byte(stdout), &begun); err != nil || begun.KID == "" || len(begun.OldKIDs) != 1 || begun.KID == begun.OldKIDs[0] {
			t.Fatalf("begin: got %s, %v; want both key ids", stdout, err)
		}
		in.copySecrets()
		in.client(0) // an entry of the brain that knows the old secret alone
		if in.last() > 0 {
			in.restart(0)
			for range 2 {
				in.client(0)
				in.client(1)
			}
		}
		in.cli(0, "audit", "verify")
		_, stderr := in.cli(0, "secrets", "rotate", "audit", "--finish")
		if !strings.Contains(stderr, begun.OldKIDs[0]) {
			t.Errorf("finish: got %q, want it to say that the old key signed lately", stderr)
		}
		late := apptest.NewClient(t, in.brains[in.last()].URL())
		status, _, body := late.Try(http.MethodPost, "/api/v1/auth/login", map[string]any{"email": apptest.Email, "password": apptest.Password})
		if status != 503 || !strings.Contains(string(body), "audit_key_unknown") {
			t.Errorf("a log-in at a brain with the retired key: got %d %s, want 503 audit_key_unknown", status, body)
		}
		in.restart(in.last())
		in.client(in.last())
		in.cli(3, "secrets", "rotate", "audit", "--finish")
		stdout, _ = in.cli(0, "audit", "verify", "--json")
		if strings.Contains(stdout, `"class"`) {
			t.Errorf("verify: got %s, want no fault", stdout)
		}
	})
}

// TestRotateTheSessionSecret: nobody is logged out by its beginning; its end logs out who was not there meanwhile.
func TestRotateTheSessionSecret(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		in := install(t, url)
		present, away := in.client(0), in.client(0)
		in.cli(0, "secrets", "rotate", "session")
		in.copySecrets()
		for i := range in.brains {
			in.restart(i)
		}
		again(t, present, in.brains[0]).Do(http.MethodGet, "/api/v1/auth/me", nil, http.StatusOK, nil)
		stdout, _ := in.cli(0, "secrets", "rotate", "session", "--finish")
		if !strings.Contains(stdout, "logs in again") {
			t.Errorf("finish: got %q, want it to say who is logged out", stdout)
		}
		in.cli(3, "secrets", "rotate", "session", "--finish")
		last := in.restart(0)
		again(t, present, last).Do(http.MethodGet, "/api/v1/auth/me", nil, http.StatusOK, nil)
		again(t, away, last).Do(http.MethodGet, "/api/v1/auth/me", nil, http.StatusUnauthorized, nil)
		rows := storetest.Rows(t, storetest.DB(t, database(in, url)), `SELECT details FROM audit_log WHERE action = 'system.secret_changed' ORDER BY seq`)
		if len(rows) != 2 || !strings.Contains(rows[0][0], `"Z4J_SESSION_SECRET"`) || !strings.Contains(rows[1][0], `"Z4J_PREVIOUS_SESSION_SECRETS"`) {
			t.Errorf("entries: got %v, want both steps", rows)
		}
	})
}

func database(in *installation, url string) string {
	if strings.HasPrefix(url, "postgres") {
		return url
	}
	return "sqlite:" + filepath.Join(in.homes[0], "z4j.db")
}
