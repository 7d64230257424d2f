package storetest_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/store/storetest"
)

func needPostgres(t *testing.T) {
	t.Helper()
	if os.Getenv("Z4J_TEST_SQLITE_ONLY") == "1" {
		t.Skip("Z4J_TEST_SQLITE_ONLY=1: Postgres is left out")
	}
}

func TestServerGivesASuperuserOfTheVersionAskedFor(t *testing.T) {
	needPostgres(t)
	db, err := sql.Open("pgx", storetest.Server(t))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var version int
	var super, zone string
	err = db.QueryRowContext(t.Context(),
		`SELECT current_setting('server_version_num')::int / 10000, current_setting('is_superuser'), current_setting('timezone')`).Scan(&version, &super, &zone)
	if err != nil {
		t.Fatal(err)
	}
	if super != "on" {
		t.Errorf("is_superuser: got %s, want on", super)
	}
	if want := os.Getenv("Z4J_TEST_POSTGRES_MAJOR"); want != "" && os.Getenv("Z4J_TEST_POSTGRES_URL") == "" && want != fmt.Sprint(version) {
		t.Errorf("version: got %d, want %s", version, want)
	}
	t.Logf("Postgres %d, time zone %s", version, zone)
}

func TestServerIsTheSameOneForTheWholeProcess(t *testing.T) {
	needPostgres(t)
	if first, second := storetest.Server(t), storetest.Server(t); first != second {
		t.Errorf("second call: got %s, want %s", second, first)
	}
}

// TestServerGoesWithAKilledProcess runs this test binary as a child that starts a cluster and is killed.
func TestServerGoesWithAKilledProcess(t *testing.T) {
	if os.Getenv("Z4J_TEST_CLUSTER_CHILD") == "1" {
		fmt.Printf("url %s dir %s\n", storetest.Server(t), storetest.ClusterDir(t))
		<-t.Context().Done() // the parent kills us
		return
	}
	needPostgres(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), exe, "-test.run=^TestServerGoesWithAKilledProcess$")
	child.Env = append(os.Environ(), "Z4J_TEST_CLUSTER_CHILD=1", "Z4J_TEST_POSTGRES_URL=")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var url, dir string
	for lines := bufio.NewScanner(out); url == "" && lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "url "); ok {
			url, dir, _ = strings.Cut(rest, " dir ")
		}
	}
	if url == "" || dir == "" {
		t.Fatal("the child did not start a cluster")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("directory of the child's cluster: %v", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(dir); os.IsNotExist(err) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: still there 30 s after its process was killed", dir)
		}
	}
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.PingContext(ctx); err == nil {
		t.Error("the killed process's Postgres still answers")
	}
}
