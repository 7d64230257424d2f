package store_test

import (
	"database/sql"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// appendAll makes n audited changes from 16 goroutines.
func appendAll(t testing.TB, s *store.Store, n int) {
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range n / 16 {
				if err := record(t.Context(), s, note("bench")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// database makes a database of its own in the test server: a snapshot holds back the clean-up of its database only.
func database(t testing.TB, name string) string {
	t.Helper()
	server := storetest.Server(t)
	db, err := sql.Open("pgx", server)
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, db, `CREATE DATABASE `+name)
	t.Cleanup(func() {
		_, _ = db.Exec(`DROP DATABASE ` + name + ` WITH (FORCE)`)
		_ = db.Close()
	})
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// BenchmarkAppendWhileASnapshotIsHeld makes 10,000 audited changes while a backup's snapshot is held, and as many
// without, by turns in one run: they are no slower than nine tenths. Run it with -benchtime 1x.
func BenchmarkAppendWhileASnapshotIsHeld(b *testing.B) {
	suffix := strings.ToLower(time.Now().Format("150405_000000"))
	held, free := database(b, "held_"+suffix), database(b, "free_"+suffix)
	holder, err := sql.Open("pgx", held)
	if err != nil {
		b.Fatal(err)
	}
	defer holder.Close()
	with, without := storetest.Open(b, held), storetest.Open(b, free)
	tx, err := holder.BeginTx(b.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		b.Fatal(err)
	}
	defer tx.Rollback()
	var n int
	if err := tx.QueryRowContext(b.Context(), `SELECT count(*) FROM audit_log`).Scan(&n); err != nil {
		b.Fatal(err)
	}
	const changes, turn = 10_000, 400
	measure := func(s *store.Store) time.Duration {
		begin := time.Now()
		appendAll(b, s, turn)
		return time.Since(begin)
	}
	for b.Loop() {
		var took [2]time.Duration
		var late [2]time.Duration // the last fifth, when there has been time for bloat
		for i := range changes / turn {
			for j := range 2 {
				which := (i + j) % 2
				d := measure([]*store.Store{with, without}[which])
				took[which] += d
				if i >= changes/turn*4/5 {
					late[which] += d
				}
			}
		}
		ratio, end := took[1].Seconds()/took[0].Seconds(), late[1].Seconds()/late[0].Seconds()
		b.ReportMetric(changes/took[0].Seconds(), "held/s")
		b.ReportMetric(changes/took[1].Seconds(), "free/s")
		b.ReportMetric(ratio, "ratio")
		b.ReportMetric(end, "ratio-at-end")
		if ratio < 0.9 {
			b.Errorf("with a snapshot held: %.2f of the speed without, want at least 0.9", ratio)
		}
	}
}

// BenchmarkAppend makes audited changes from 16 goroutines.
func BenchmarkAppend(b *testing.B) {
	for _, bb := range []struct {
		name string
		url  func(testing.TB) string
	}{{"sqlite", storetest.SQLite}, {"postgres", storetest.Postgres}} {
		b.Run(bb.name, func(b *testing.B) {
			s := storetest.Open(b, bb.url(b))
			for b.Loop() {
				appendAll(b, s, 160)
			}
			b.ReportMetric(160*float64(b.N)/b.Elapsed().Seconds(), "changes/s")
		})
	}
}
