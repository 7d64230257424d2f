package bench_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// tasks is how large the databases of these benchmarks are.
func tasks(b *testing.B) int {
	b.Helper()
	text := os.Getenv("Z4J_BENCH_TASKS")
	if text == "" {
		return 20_000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		b.Fatalf("Z4J_BENCH_TASKS: %v", err)
	}
	return n
}

// brain is a built z4j-brain with a filled database.
type brain struct {
	b        *testing.B
	path     string // of the program
	tools    string // directory of pg_dump and the like
	database string // URL
	home     string
}

// newBrain builds the program and fills a database of a kind.
func newBrain(b *testing.B, kind string) *brain {
	b.Helper()
	x := &brain{b: b, path: filepath.Join(b.TempDir(), "z4j-brain"), home: b.TempDir()}
	if out, err := exec.CommandContext(b.Context(), "go", "build", "-o", x.path, "../cmd/z4j-brain").CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	x.database = x.empty(kind, "filled")
	s := storetest.Open(b, x.database)
	began := time.Now()
	fill(b, s, history{tasks: tasks(b), over: 30 * 24 * time.Hour})
	b.Logf("%s: filled with %d tasks in %.1f s", kind, tasks(b), time.Since(began).Seconds())
	return x
}

// empty names a database of a kind that is not there yet (SQLite) or empty (Postgres).
func (x *brain) empty(kind, name string) string {
	x.b.Helper()
	if kind == "sqlite" {
		return "sqlite:" + filepath.Join(x.b.TempDir(), name+".db")
	}
	server := storetest.Server(x.b)
	x.tools = pgTools(x.b)
	db := storetest.DB(x.b, server)
	name = fmt.Sprintf("bench_%s_%d", name, time.Now().UnixNano())
	if _, err := db.ExecContext(x.b.Context(), `CREATE DATABASE `+name); err != nil {
		x.b.Fatal(err)
	}
	x.b.Cleanup(func() {
		if _, err := db.ExecContext(context.WithoutCancel(x.b.Context()), `DROP DATABASE `+name+` WITH (FORCE)`); err != nil {
			x.b.Error(err)
		}
	})
	u, err := url.Parse(server)
	if err != nil {
		x.b.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// pgTools finds pg_dump and the like.
func pgTools(b *testing.B) string {
	b.Helper()
	if dir := os.Getenv("Z4J_TEST_POSTGRES_BIN"); dir != "" {
		return dir
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/pg_dump")
	if err == nil && len(found) > 0 {
		return filepath.Dir(found[len(found)-1])
	}
	path, err := exec.LookPath("pg_dump")
	if err != nil {
		b.Skip("pg_dump is not on this machine")
	}
	return filepath.Dir(path)
}

// usage is what a program took.
type usage struct {
	seconds float64
	rss     float64 // MiB, at most
}

// run runs a program to its end.
func (x *brain) run(name string, args ...string) usage {
	x.b.Helper()
	cmd := exec.CommandContext(x.b.Context(), name, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + x.home, "TMPDIR=" + os.TempDir()}, x.environ()...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	if err := cmd.Run(); err != nil {
		x.b.Fatalf("%s %v: %v\n%s", filepath.Base(name), args, err, out.String())
	}
	took := usage{seconds: time.Since(began).Seconds()}
	if r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		took.rss = float64(r.Maxrss) / 1024
	}
	return took
}

func (x *brain) environ() []string {
	return []string{
		"Z4J_HOME=" + x.home, "Z4J_ENVIRONMENT=dev", "Z4J_DATABASE_URL=" + x.database,
		"Z4J_SECRET=" + string(storetest.Secrets.Master), "Z4J_SESSION_SECRET=" + strings.Repeat("session-secret-", 3), "Z4J_AUDIT_SECRET=" + string(storetest.Secrets.Audit),
	}
}

// size is how many MiB a file, or everything below a directory, has.
func size(b *testing.B, path string) float64 {
	b.Helper()
	var bytes int64
	err := filepath.Walk(path, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			bytes += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return float64(bytes) / (1 << 20)
}

// BenchmarkBackup compares `backup` (verified after it was made) and `restore` with pg_dump -Fd -j2 -Z1 and pg_restore -j2, or with
// VACUUM INTO, of the same database in the same run. Run with -benchtime 1x.
func BenchmarkBackup(b *testing.B) {
	for _, kind := range []string{"postgres", "sqlite"} {
		b.Run(kind, func(b *testing.B) {
			x := newBrain(b, kind)
			for b.Loop() {
				x.compare(kind)
			}
		})
	}
}

func (x *brain) compare(kind string) {
	b := x.b
	dir := b.TempDir()
	archive := filepath.Join(dir, "z4j.backup")
	unverified := x.run(x.path, "backup", "--to", archive, "--no-verify")
	b.ReportMetric(unverified.seconds, "backup-s")
	b.ReportMetric(unverified.rss, "backup-rss-MiB")
	b.ReportMetric(size(b, archive), "archive-MiB")
	verified := x.run(x.path, "backup", "verify", archive)
	b.ReportMetric(verified.seconds, "verify-s")
	b.ReportMetric(verified.rss, "verify-rss-MiB")
	into := x.empty(kind, "restored")
	restored := x.run(x.path, "restore", archive, "--into", into, "--yes")
	b.ReportMetric(restored.seconds, "restore-s")
	b.ReportMetric(restored.rss, "restore-rss-MiB")

	if kind == "sqlite" {
		db, err := sql.Open("sqlite3", "file:"+strings.TrimPrefix(x.database, "sqlite:"))
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		began := time.Now()
		if _, err := db.ExecContext(b.Context(), `VACUUM INTO '`+filepath.Join(dir, "vacuumed.db")+`'`); err != nil {
			b.Fatal(err)
		}
		vacuumed := time.Since(began).Seconds()
		b.ReportMetric(vacuumed/unverified.seconds, "ratio-vacuum-into")
		b.ReportMetric(vacuumed/restored.seconds, "ratio-vacuum-into-restore")
		return
	}
	dump := filepath.Join(dir, "dump")
	dumped := x.run(filepath.Join(x.tools, "pg_dump"), "-Fd", "-j2", "-Z1", "-f", dump, x.database)
	b.ReportMetric(dumped.seconds, "pg_dump-s")
	b.ReportMetric(size(b, dump), "pg_dump-MiB")
	b.ReportMetric(dumped.seconds/unverified.seconds, "ratio-pg_dump")
	loaded := x.run(filepath.Join(x.tools, "pg_restore"), "-j2", "-d", x.empty(kind, "pg_restored"), dump)
	b.ReportMetric(loaded.seconds, "pg_restore-s")
	b.ReportMetric(loaded.seconds/restored.seconds, "ratio-pg_restore")
}

// BenchmarkIngestDuringBackup compares the rate of ingest while backups are made, one after the other, with that without.
func BenchmarkIngestDuringBackup(b *testing.B) {
	for _, kind := range []string{"postgres", "sqlite"} {
		b.Run(kind, func(b *testing.B) {
			x := newBrain(b, kind)
			s := storetest.Open(b, x.database)
			for b.Loop() {
				alone := x.ingestRate(s)
				stop := make(chan bool)
				ended := make(chan bool)
				go func() {
					defer close(ended)
					for n := 0; ; n++ {
						select {
						case <-stop:
							return
						default:
							x.run(x.path, "backup", "--to", filepath.Join(x.home, fmt.Sprintf("%d.backup", n)), "--no-verify")
						}
					}
				}()
				during := x.ingestRate(s)
				close(stop)
				<-ended
				b.ReportMetric(alone, "events/s-alone")
				b.ReportMetric(during, "events/s-during")
				b.ReportMetric(during/alone, "ratio")
			}
		})
	}
}

// ingestRate takes in events for a few seconds and returns how many a second.
func (x *brain) ingestRate(s *store.Store) float64 {
	w := ingest.New(s, ingest.Options{Now: time.Now, Horizon: 90 * 24 * time.Hour})
	w.Start(x.b.Context())
	began := time.Now()
	feed(x.b, w, 8*time.Second)
	if err := w.Close(context.WithoutCancel(x.b.Context())); err != nil {
		x.b.Fatal(err)
	}
	return float64(w.Stats.Events.Load()) / time.Since(began).Seconds()
}
