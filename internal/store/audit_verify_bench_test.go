package store_test

import (
	"database/sql"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// readColumns is what a verification reads.
const readColumns = `SELECT seq, id, ts, actor_kind, actor_id, project_id, project_label, action, target_type, target_id, target_label, outcome,
	details, request_id, kid, actor_personal, target_personal, body, prev_row_hmac, row_hmac FROM audit_log ORDER BY seq`

// verifyRows is how many rows the benchmarks of a verification have: a million by night.
func verifyRows() int {
	if os.Getenv("Z4J_NIGHTLY") == "1" {
		return 1_000_000
	}
	return 30_000
}

// BenchmarkVerify verifies a log and merely reads it in order, by turns in one run. By night the verification is no
// slower than half of the reading, in less than 100 MiB. Run it with -benchtime 1x.
func BenchmarkVerify(b *testing.B) {
	for _, bb := range []struct {
		name string
		url  func(testing.TB) string
		read func(testing.TB, *sql.DB) int
	}{{"sqlite", storetest.SQLite, readSQLite}, {"postgres", storetest.Postgres, readPostgres}} {
		b.Run(bb.name, func(b *testing.B) {
			url, n := bb.url(b), verifyRows()
			s := storetest.Open(b, url)
			storetest.FillAudit(b, url, n-1)
			db := storetest.DB(b, url)
			db.SetMaxOpenConns(1)
			bb.read(b, db) // both find the pages in the memory of the machine
			var read, verify time.Duration
			const turns = 3
			memory := watchMemory()
			for b.Loop() {
				for range turns {
					began := time.Now()
					if got := bb.read(b, db); got != n {
						b.Fatalf("read %d rows, want %d", got, n)
					}
					read += time.Since(began)
					began = time.Now()
					if r := verifyStore(b, s, store.VerifyOptions{}); r.Exit() != 0 || r.Checked != int64(n) {
						b.Fatalf("exit %d, %d rows: %+v", r.Exit(), r.Checked, r.First)
					}
					verify += time.Since(began)
				}
			}
			most := memory()
			ratio, rows := read.Seconds()/verify.Seconds(), float64(turns*n*b.N)
			b.ReportMetric(rows/verify.Seconds(), "rows/s")
			b.ReportMetric(rows/read.Seconds(), "read/s")
			b.ReportMetric(ratio, "ratio")
			b.ReportMetric(float64(most)/(1<<20), "MiB")
			if n >= 1_000_000 && ratio < 0.5 {
				b.Errorf("verified at %.2f of the rate of reading, want at least 0.5", ratio)
			}
			if most > 100<<20 {
				b.Errorf("%d MiB of memory, want less than 100", most>>20)
			}
		})
	}
}

// watchMemory returns what stops it and tells the most memory that Go held for objects.
func watchMemory() func() uint64 {
	runtime.GC()
	var most atomic.Uint64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most.Store(max(most.Load(), m.HeapInuse+m.StackInuse))
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	return func() uint64 { close(stop); <-done; return most.Load() }
}

// readPostgres reads every row in order as fast as the driver can: it decodes nothing.
func readPostgres(t testing.TB, db *sql.DB) (n int) {
	t.Helper()
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.Raw(func(driver any) error {
		rows, err := driver.(*stdlib.Conn).Conn().Query(t.Context(), readColumns, pgx.QueryResultFormats{pgx.BinaryFormatCode})
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			_ = rows.RawValues()
			n++
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// readSQLite reads every row in order into the driver's own memory.
func readSQLite(t testing.TB, db *sql.DB) (n int) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), readColumns)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	raw := make([]sql.RawBytes, strings.Count(readColumns, ",")+1)
	to := make([]any, len(raw))
	for i := range raw {
		to[i] = &raw[i]
	}
	for rows.Next() {
		if err := rows.Scan(to...); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}
