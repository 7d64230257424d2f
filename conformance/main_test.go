package conformance_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience is how long a scenario waits for what takes about a second, or minutes with agents before 1.7 on a busy machine: they do
// nothing else while they ask Celery for its health.
const patience = 4 * time.Minute

// TestCelery walks through every scenario with every agent version on every database.
func TestCelery(t *testing.T) {
	if os.Getenv("CONFORMANCE") != "1" {
		t.Skip("needs CONFORMANCE=1 and what `make conformance` prepares")
	}
	for _, version := range listed(t, "Z4J_AGENTS") {
		for _, database := range listed(t, "Z4J_DATABASES") {
			t.Run(version+"/"+database, func(t *testing.T) {
				t.Parallel()
				l := newLab(t, version, database)
				for _, step := range []struct {
					name string
					run  func(*lab, *testing.T)
				}{
					{"success", (*lab).success},
					{"failure", (*lab).failure},
					{"retry", (*lab).retry},
					{"revoke", (*lab).revoke},
					{"unicode", (*lab).unicode},
					{"secrets in arguments", (*lab).secrets},
					{"several queues", (*lab).queues},
					{"worker stops and returns", (*lab).workerReturns},
					{"brain killed under load", (*lab).killedUnderLoad},
					{"token revoked", (*lab).tokenRevoked},
					{"audit proves it all", (*lab).audited},
					{"stop within 20 s", (*lab).stopped},
				} {
					if !t.Run(step.name, func(t *testing.T) { step.run(l, t) }) {
						l.explain(t)
					}
				}
			})
		}
	}
}

// listed reads a list from the environment that make sets.
func listed(t testing.TB, name string) []string {
	t.Helper()
	list := strings.Fields(os.Getenv(name))
	if len(list) == 0 {
		t.Fatalf("%s is empty; run `make conformance`", name)
	}
	return list
}

// eventually asks until ok, and fails with the last reason that it heard.
func eventually(t testing.TB, what string, ask func() (ok bool, reason string)) {
	t.Helper()
	within(t, patience, what, ask)
}

func within(t testing.TB, limit time.Duration, what string, ask func() (ok bool, reason string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, reason := ask()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v; last seen: %s", what, limit, reason)
		}
	}
}

// root is the directory of the module.
func root(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func freePort(t testing.TB) int {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// logFile is where a process writes; it is shown when a scenario fails.
func logFile(t testing.TB, dir, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// tail is the end of a file.
func tail(path string, most int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}
