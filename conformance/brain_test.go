package conformance_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/store/storetest"
)

const (
	adminEmail    = "admin@example.com"
	adminPassword = "Correct-Horse-9-Battery"
	project       = "default"
)

// brain is the built binary, running on a database of its own.
type brain struct {
	home, base, logPath string
	postgres            string // its database's URL, if that is no SQLite
	env                 []string
	cmd                 *exec.Cmd
	client              *http.Client
	csrf                string
}

// newBrain starts a brain whose first account comes from the environment, and logs in.
func newBrain(t testing.TB, database string) *brain {
	t.Helper()
	home, port := t.TempDir(), freePort(t)
	b := &brain{home: home, base: fmt.Sprintf("http://127.0.0.1:%d", port), logPath: filepath.Join(home, "brain.log")}
	b.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "Z4J_HOME=" + home,
		"Z4J_BIND_HOST=127.0.0.1", "Z4J_BIND_PORT=" + strconv.Itoa(port),
		"Z4J_BOOTSTRAP_ADMIN_EMAIL=" + adminEmail, "Z4J_BOOTSTRAP_ADMIN_PASSWORD=" + adminPassword,
	}
	switch database {
	case "sqlite": // what a fresh home gives
	case "postgres":
		b.postgres = storetest.Postgres(t)
		b.env = append(b.env, "Z4J_DATABASE_URL="+b.postgres)
	default:
		t.Fatalf("database %q: want sqlite or postgres", database)
	}
	b.start(t)
	t.Cleanup(func() { b.kill() })
	b.login(t)
	return b
}

func (b *brain) start(t testing.TB) {
	t.Helper()
	out := logFile(t, b.home, "brain.log")
	b.cmd = exec.Command(filepath.Join(root(t), "bin", "z4j-brain"), "serve")
	b.cmd.Env, b.cmd.Dir, b.cmd.Stdout, b.cmd.Stderr, b.cmd.SysProcAttr = b.env, b.home, out, out, ownGroup()
	if err := b.cmd.Start(); err != nil {
		t.Fatalf("start the brain (is it built? `make build`): %v", err)
	}
	eventually(t, "brain ready", func() (bool, string) {
		resp, err := http.Get(b.base + "/api/v1/health/ready")
		if err != nil {
			return false, err.Error() + "\n" + tail(b.logPath, 2000)
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK, resp.Status
	})
}

// kill is kill -9.
func (b *brain) kill() {
	if b.cmd != nil {
		_ = b.cmd.Process.Kill()
		_ = b.cmd.Wait()
		b.cmd = nil
	}
}

// stop asks the brain to end and says how long it took.
func (b *brain) stop(t testing.TB) time.Duration {
	t.Helper()
	begin := time.Now()
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := b.cmd.Wait(); err != nil {
		t.Errorf("brain after SIGTERM: got %v, want exit code 0", err)
	}
	b.cmd = nil
	return time.Since(begin)
}

// run runs a command of the binary against the same home and database.
func (b *brain) run(t testing.TB, args ...string) (stdout string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(root(t), "bin", "z4j-brain"), args...)
	var out, errs bytes.Buffer
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = b.env, b.home, &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	t.Logf("$ z4j-brain %s   # exit %d\n%s%s", strings.Join(args, " "), cmd.ProcessState.ExitCode(), &out, &errs)
	return out.String(), cmd.ProcessState.ExitCode()
}

func (b *brain) login(t testing.TB) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b.client = &http.Client{Jar: jar, Timeout: 30 * time.Second}
	b.call(t, http.MethodPost, "/auth/login", map[string]any{"email": adminEmail, "password": adminPassword}, http.StatusOK, nil)
	base, err := url.Parse(b.base)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range jar.Cookies(base) {
		if strings.HasSuffix(c.Name, "z4j_csrf") {
			b.csrf = c.Value
		}
	}
	if b.csrf == "" {
		t.Fatalf("login: got cookies %v, want one for CSRF", jar.Cookies(base))
	}
}

// call asks the API and fails if the answer's status is another than wanted.
func (b *brain) call(t testing.TB, method, path string, body any, want int, into any) {
	t.Helper()
	status, text, err := b.try(method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if status != want {
		t.Fatalf("%s %s: got %d, want %d: %s", method, path, status, want, text)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatalf("%s %s: read the answer %s: %v", method, path, text, err)
		}
	}
}

func (b *brain) try(method, path string, body any) (int, []byte, error) {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, b.base+"/api/v1"+path, reader)
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if b.csrf != "" {
		req.Header.Set("X-CSRF-Token", b.csrf)
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, text, err
}

// agentKeys are what an operator gets when an agent is minted.
type agentKeys struct {
	Agent struct {
		ID    string `json:"id"`
		Name  string `json:"name"`
		State string `json:"state"`
	} `json:"agent"`
	Token      string `json:"token"`
	HMACSecret string `json:"hmac_secret"`
}

func (b *brain) mint(t testing.TB, name string) agentKeys {
	t.Helper()
	var keys agentKeys
	b.call(t, http.MethodPost, "/projects/"+project+"/agents", map[string]any{"name": name}, http.StatusCreated, &keys)
	return keys
}

// task is what the API says about one.
type task struct {
	TaskID     string          `json:"task_id"`
	Name       *string         `json:"name"`
	Queue      *string         `json:"queue"`
	State      string          `json:"state"`
	Args       json.RawMessage `json:"args"`
	Kwargs     json.RawMessage `json:"kwargs"`
	Result     json.RawMessage `json:"result"`
	Exception  *string         `json:"exception"`
	Traceback  *string         `json:"traceback"`
	RetryCount int             `json:"retry_count"`
	ReceivedAt *string         `json:"received_at"`
	StartedAt  *string         `json:"started_at"`
	FinishedAt *string         `json:"finished_at"`
	WorkerName *string         `json:"worker_name"`
	Attempts   []attempt       `json:"attempts"`
}

type attempt struct {
	State     string  `json:"state"`
	StartedAt *string `json:"started_at"`
}

type event struct {
	ID     string  `json:"id"`
	Kind   string  `json:"kind"`
	Remark *string `json:"remark"`
}

func text(s *string) string {
	if s == nil {
		return "<null>"
	}
	return *s
}

// task asks for one task; a task that the brain doesn't know yet has an empty state.
func (b *brain) task(id string) task {
	var one task
	status, answer, err := b.try(http.MethodGet, "/projects/"+project+"/tasks/celery/"+id, nil)
	if err != nil || status != http.StatusOK {
		return one
	}
	_ = json.Unmarshal(answer, &one) // a broken answer has no state either
	return one
}

// tasks pages through all of them.
func (b *brain) tasks(t testing.TB) map[string]task {
	t.Helper()
	all := map[string]task{}
	for cursor := ""; ; {
		var page struct {
			Items      []task  `json:"items"`
			NextCursor *string `json:"next_cursor"`
		}
		b.call(t, http.MethodGet, "/projects/"+project+"/tasks?limit=500&cursor="+url.QueryEscape(cursor), nil, http.StatusOK, &page)
		for _, one := range page.Items {
			if _, twice := all[one.TaskID]; twice {
				t.Errorf("task %s is listed twice", one.TaskID)
			}
			all[one.TaskID] = one
		}
		if page.NextCursor == nil || *page.NextCursor == "" {
			return all
		}
		cursor = *page.NextCursor
	}
}

func (b *brain) events(t testing.TB, id string) []event {
	t.Helper()
	var page struct {
		Items []event `json:"items"`
	}
	b.call(t, http.MethodGet, "/projects/"+project+"/events?engine=celery&limit=500&task_id="+url.QueryEscape(id), nil, http.StatusOK, &page)
	return page.Items
}
