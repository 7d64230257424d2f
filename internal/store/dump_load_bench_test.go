package store_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// benchRows is how many tasks a benchmark of backups has, with three events each: Z4J_BENCH_ROWS, or a few thousand.
func benchRows(b testing.TB) int {
	b.Helper()
	text := os.Getenv("Z4J_BENCH_ROWS")
	if text == "" {
		return 20_000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// fillWork puts n tasks with an attempt and three events each into a database, by statements of the server's own.
func fillWork(t testing.TB, url string, n int) {
	t.Helper()
	db := storetest.DB(t, url)
	if !strings.HasPrefix(url, "postgres") {
		for _, q := range fillSQLite {
			mustExec(t, db, strings.ReplaceAll(q, "{n}", strconv.Itoa(n)))
		}
		return
	}
	for _, q := range fillPostgres {
		mustExec(t, db, strings.ReplaceAll(q, "{n}", strconv.Itoa(n)))
	}
}

var fillPostgres = []string{
	`INSERT INTO tasks (project_id, task_key, id, created_at, updated_at, last_at, received_at, started_at, finished_at, wait_us, runtime_us, state, deciding, attempts, deliveries,
		engine, task_id, name, queue, worker, args, kwargs, marks)
	 SELECT '00000000-0000-7000-8000-000000000001', md5('k' || i)::uuid, md5('i' || i)::uuid, t, t, t, t, t, t, i, i * 7, 4, 1, 1, 1, 'celery', md5('k' || i)::uuid::text,
		'shop.tasks.number_' || i % 40, 'orders', 'celery@web-' || i % 8, '[' || i || ', "order ' || i || '"]', '{"customer": ' || i * 31 || ', "note": "' || repeat('as usual ', i % 12) || '"}',
		decode(md5('m' || i) || md5('n' || i) || md5('o' || i), 'hex')
	 FROM generate_series(1, {n}) i, LATERAL (SELECT date_trunc('day', now()) + i * interval '1 millisecond' AS t) x`,
	`INSERT INTO attempts (project_id, task_key, number, state, started_at, finished_at, wait_us, runtime_us, retries, engine, worker, result)
	 SELECT project_id, task_key, 1, 4, started_at, finished_at, wait_us, runtime_us, 0, engine, worker, '{"ok": true, "total": ' || wait_us || '}' FROM tasks`,
	`INSERT INTO events (project_id, id, agent_id, task_key, occurred_at, received_at, engine, task_id, kind, worker, payload)
	 SELECT project_id, md5(task_id || k)::uuid, id, task_key, created_at + k * interval '1 second', created_at, engine, task_id, (ARRAY['task.received', 'task.started', 'task.succeeded'])[k], worker,
		'{"task_name": "' || name || '", "queue": "' || queue || '", "runtime": 0.' || wait_us || '}' FROM tasks, generate_series(1, 3) k`,
}

var fillSQLite = []string{
	`WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {n})
	 INSERT INTO tasks (project_id, task_key, id, created_at, updated_at, last_at, received_at, started_at, finished_at, wait_us, runtime_us, state, deciding, attempts, deliveries,
		engine, task_id, name, queue, worker, args, kwargs, marks)
	 SELECT zeroblob(16), randomblob(16), randomblob(16), i, i, i, i, i, i, i, i * 7, 4, 1, 1, 1, 'celery', hex(randomblob(16)), 'shop.tasks.number_' || i % 40, 'orders', 'celery@web-' || i % 8,
		'[' || i || ', "order ' || i || '"]', '{"customer": ' || i * 31 || ', "note": "' || substr('as usual as usual as usual as usual', 1, i % 30) || '"}', randomblob(48) FROM s`,
	`INSERT INTO attempts (project_id, task_key, number, state, started_at, finished_at, wait_us, runtime_us, retries, engine, worker, result)
	 SELECT project_id, task_key, 1, 4, started_at, finished_at, wait_us, runtime_us, 0, engine, worker, '{"ok": true, "total": ' || wait_us || '}' FROM tasks`,
	`INSERT INTO events (project_id, id, agent_id, task_key, occurred_at, received_at, engine, task_id, kind, worker, payload)
	 SELECT project_id, randomblob(16), id, task_key, created_at + k.column1, created_at, engine, task_id, 'task.started', worker,
		'{"task_name": "' || name || '", "queue": "' || queue || '", "runtime": 0.' || wait_us || '}' FROM tasks, (VALUES (1), (2), (3)) k`,
}

// packed reads a snapshot and compresses it as an archive does.
func packed(t testing.TB, s *store.Store, dir string) (raw, size int64, chunks []store.Chunk) {
	t.Helper()
	snap, err := s.Snapshot(t.Context(), store.SnapshotOptions{TempDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	f, err := os.Create(filepath.Join(dir, "packed"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var writing sync.Mutex
	var sum atomic.Int64
	pool := sync.Pool{New: func() any {
		z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
		if err != nil {
			panic(err) // of constant options
		}
		return z
	}}
	err = snap.Read(t.Context(), 2, func(c store.Chunk) error {
		z := pool.Get().(*zstd.Encoder)
		defer pool.Put(z)
		out := z.EncodeAll(c.Raw, nil)
		sum.Add(int64(len(c.Raw)))
		writing.Lock()
		defer writing.Unlock()
		size += int64(len(out))
		c.Raw = out
		chunks = append(chunks, c)
		_, err := f.Write(out)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum.Load(), size, chunks
}

func unpacked(t testing.TB, chunks []store.Chunk, schema int64, url string) {
	t.Helper()
	l, err := store.OpenLoader(t.Context(), store.LoadOptions{URL: url, Schema: schema, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	next := make(chan store.Chunk, len(chunks))
	for _, c := range chunks {
		next <- c
	}
	close(next)
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
			if err != nil {
				t.Error(err)
				return
			}
			defer z.Close()
			for c := range next {
				raw, err := z.DecodeAll(c.Raw, nil)
				if err == nil {
					_, err = l.Load(t.Context(), c.Table, raw)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	workers.Wait()
	s, err := l.Finish(t.Context(), storetest.Secrets)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(t.Context(), noted(t, s)); err != nil {
		t.Fatal(err)
	}
}

func timed(fn func()) time.Duration {
	began := time.Now()
	fn()
	return time.Since(began)
}

// BenchmarkDumpAndLoad compares a backup and a restore with the database's own tools, in one run: pg_dump -Fd -j2 -Z1 and
// pg_restore -j2, or VACUUM INTO and a copy. Z4J_BENCH_ROWS=10000000 is the size that counts.
func BenchmarkDumpAndLoad(b *testing.B) {
	for _, tt := range []struct {
		name string
		url  func(testing.TB) string
	}{{"sqlite", storetest.SQLite}, {"postgres", storetest.Postgres}} {
		b.Run(tt.name, func(b *testing.B) {
			url := tt.url(b)
			s := storetest.Open(b, url)
			fillWork(b, url, benchRows(b))
			if s.Dialect() == "postgres" {
				mustExec(b, storetest.DB(b, url), `VACUUM ANALYZE`)
			}
			for b.Loop() {
				dir := b.TempDir()
				var raw, size int64
				var chunks []store.Chunk
				dump := timed(func() { raw, size, chunks = packed(b, s, dir) })
				have, _, err := s.SchemaVersion(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				next := tt.url(b)
				load := timed(func() { unpacked(b, chunks, have, next) })
				theirDump, theirLoad, theirSize := native(b, url, dir)
				b.ReportMetric(float64(raw)/dump.Seconds()/1e6, "dump_MB/s")
				b.ReportMetric(theirDump.Seconds()/dump.Seconds(), "dump_ratio")
				b.ReportMetric(theirLoad.Seconds()/load.Seconds(), "load_ratio")
				b.ReportMetric(float64(size)/float64(theirSize), "size_ratio")
			}
		})
	}
}

// native does the same with the database's own tools.
func native(b *testing.B, url, dir string) (dump, load time.Duration, size int64) {
	b.Helper()
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		copied := filepath.Join(dir, "copied.db")
		dump = timed(func() { mustExec(b, storetest.DB(b, url), `VACUUM INTO '`+copied+`'`) })
		load = timed(func() { mustExec(b, storetest.DB(b, "sqlite:"+copied), `VACUUM INTO '`+copied+`.again'`) })
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		return dump, load, info.Size()
	}
	for _, tool := range []string{"pg_dump", "pg_restore"} {
		if _, err := exec.LookPath(tool); err != nil {
			b.Skip(tool + " is not on this machine")
		}
	}
	schema := storetest.Rows(b, storetest.DB(b, url), `SELECT current_schema()`)[0][0]
	plain, _, _ := strings.Cut(url, "?")
	plain += "?sslmode=disable"
	out := filepath.Join(dir, "pg")
	dump = timed(func() { command(b, "pg_dump", "-Fd", "-j2", "-Z1", "-n", schema, "-f", out, plain) })
	files, err := filepath.Glob(filepath.Join(out, "*"))
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			b.Fatal(err)
		}
		size += info.Size()
	}
	db := storetest.DB(b, plain)
	fresh := "bench_" + schema
	mustExec(b, db, `CREATE DATABASE `+fresh)
	b.Cleanup(func() {
		if _, err := db.ExecContext(context.WithoutCancel(b.Context()), `DROP DATABASE IF EXISTS `+fresh+` WITH (FORCE)`); err != nil {
			b.Error(err)
		}
	})
	load = timed(func() {
		command(b, "pg_restore", "-j2", "-d", strings.Replace(plain, "/postgres?", "/"+fresh+"?", 1), out)
	})
	mustExec(b, db, `DROP DATABASE `+fresh+` WITH (FORCE)`)
	return dump, load, size
}

func command(b *testing.B, name string, args ...string) {
	b.Helper()
	if out, err := exec.CommandContext(b.Context(), name, args...).CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// TestBackupAndRestoreInBoundedMemory: 200 MB of rows go through in a few chunks' room, whatever their number.
func TestBackupAndRestoreInBoundedMemory(t *testing.T) {
	if os.Getenv("Z4J_NIGHTLY") != "1" {
		t.Skip("Z4J_NIGHTLY=1 runs it: it copies 200 MB")
	}
	const most = 150 << 20
	for _, tt := range []struct {
		name string
		url  func(testing.TB) string
	}{{"sqlite", storetest.SQLite}, {"postgres", storetest.Postgres}} {
		t.Run(tt.name, func(t *testing.T) {
			url := tt.url(t)
			s := storetest.Open(t, url)
			fillWork(t, url, 200_000)
			snap, err := s.Snapshot(t.Context(), store.SnapshotOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer snap.Close()
			l, err := store.OpenLoader(t.Context(), store.LoadOptions{URL: tt.url(t), Schema: snap.Info().Schema, Now: time.Now})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			var peak, raw atomic.Uint64
			err = snap.Read(t.Context(), 2, func(c store.Chunk) error {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				for {
					was := peak.Load()
					if m.HeapInuse <= was || peak.CompareAndSwap(was, m.HeapInuse) {
						break
					}
				}
				raw.Add(uint64(len(c.Raw)))
				_, err := l.Load(t.Context(), c.Table, c.Raw)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Finish(t.Context(), storetest.Secrets); err != nil {
				t.Fatal(err)
			}
			if got := peak.Load(); got > most || raw.Load() < 150<<20 {
				t.Errorf("%d MiB of rows took %d MiB of heap, want more than 150 and at most %d", raw.Load()>>20, got>>20, most>>20)
			}
		})
	}
}
