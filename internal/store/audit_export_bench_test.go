package store_test

import (
	"database/sql"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// exportBenchEnv is how many rows BenchmarkExport writes; a million is what the goal is about.
const exportBenchEnv = "Z4J_BENCH_EXPORT_ROWS"

// BenchmarkExport writes the audit log as CSV and as NDJSON, and has Postgres copy the same rows out, by turns in one run:
// an export takes no longer than one and a half times as long. Run it with -benchtime 1x.
func BenchmarkExport(b *testing.B) {
	n := 20_000
	if text := os.Getenv(exportBenchEnv); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	url := database(b, "export_"+strings.ToLower(time.Now().Format("150405_000000")))
	s := storetest.Open(b, url)
	storetest.FillAudit(b, url, n)
	db := storetest.DB(b, url)
	measure := func(do func() error) time.Duration {
		b.Helper()
		begin := time.Now()
		if err := do(); err != nil {
			b.Fatal(err)
		}
		return time.Since(begin)
	}
	const turns = 3
	for b.Loop() {
		var took [3]time.Duration
		for range turns {
			for i, format := range []audit.Format{audit.CSV, audit.NDJSON} {
				took[i] += measure(func() error {
					return beginExport(b, s, format, store.ExportFilter{}).Write(b.Context(), io.Discard, nil)
				})
			}
			took[2] += measure(func() error { return copyOut(b, db) })
		}
		b.ReportMetric(float64(took[0])/float64(took[2]), "csv/copy")
		b.ReportMetric(float64(took[1])/float64(took[2]), "ndjson/copy")
		b.ReportMetric(float64(n*turns)/took[0].Seconds(), "rows/s")
	}
}

// copyOut has Postgres write the columns that an export holds.
func copyOut(b *testing.B, db *sql.DB) error {
	conn, err := db.Conn(b.Context())
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(driver any) error {
		pg := driver.(*stdlib.Conn).Conn()
		_, err := pg.PgConn().CopyTo(b.Context(), io.Discard, `COPY (SELECT l.*, a.salt, a.json, a.erased_by, t.salt, t.json, t.erased_by FROM audit_log l
			LEFT JOIN audit_personal a ON a.seq = l.seq AND a.role = 'actor' LEFT JOIN audit_personal t ON t.seq = l.seq AND t.role = 'target'
			ORDER BY l.seq) TO STDOUT WITH (FORMAT csv)`)
		return err
	})
}
