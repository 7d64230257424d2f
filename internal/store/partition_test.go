package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestPartitionsComeAndGoWhileABackupHoldsItsSnapshot, and no insert waits 200 ms for that by design: days are made beside
// writers and the snapshot; no drop is as much as asked for while the backup's lease lives, since it would wait for the
// snapshot and everybody behind it; and where the lease is gone and the snapshot is not, the drop gives its place in the
// queue up after a tenth of a second, comes again, and in the end (which takes long: every night) leaves the partition to the
// next sweep.
func TestPartitionsComeAndGoWhileABackupHoldsItsSnapshot(t *testing.T) {
	rounds, patient := 1, os.Getenv("Z4J_NIGHTLY") == "1"
	if patient {
		rounds = 4
	}
	url := storetest.Postgres(t)
	s := &swept{openOn(t, url), t, url}
	w := &insertsBeside{swept: s, db: storetest.DB(t, url), project: s.project("one", nil).ID, patient: patient, waits: map[string]bool{}}
	for round := range rounds {
		old := daysAgo(100 + round)
		s.heard(w.project, old, ran(fmt.Sprint("old", round), "task.succeeded", old)...)
		w.round(t, round, "events_"+old.Format("2006_01_02"))
	}
	t.Logf("%d inserts, of which the longest took %s; drops were seen waiting %d times, at most for %s", w.inserts, w.longest, len(w.waits), w.waited)
}

// insertsBeside writes events while something is done, and looks who waits for a lock that would stop all writers.
type insertsBeside struct {
	*swept

	db      *sql.DB
	project id.ID
	patient bool // a sweep is waited for until it gives up
	inserts int
	longest time.Duration   // of an insert
	waits   map[string]bool // for a lock that nobody gets past, by when each began
	waited  time.Duration   // for how long, at most
}

func (w *insertsBeside) round(t *testing.T, round int, old string) {
	t.Helper()
	ctx := t.Context()
	if ok, err := w.Lease(ctx, store.BackupLease, "there", store.TimeOf(sweepDay), store.TimeOf(sweepDay.Add(time.Hour))); err != nil || !ok {
		t.Fatal(ok, err)
	}
	snap, err := w.Snapshot(ctx, store.SnapshotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = snap.Close() }() // again, which does nothing bad
	events := storetest.Rows(t, w.db, `SELECT count(*) FROM events`)[0][0]

	days := len(w.partitionsOf())
	before := len(w.waits)
	w.while(t, "a backup", nil, func() error {
		for i := range 10 {
			if err := w.EnsurePartitions(ctx, sweepDay.AddDate(0, 0, 20*(round+1)+i), 1); err != nil {
				return err
			}
			if out, err := w.Sweep(ctx, sweeping); !errors.Is(err, store.ErrBackupRuns) || out.Total() != 0 {
				return fmt.Errorf("a sweep during a backup: %v, %s; want ErrBackupRuns and nothing deleted", out.Rows, fmt.Sprint(err))
			}
		}
		return nil
	})
	if made := len(w.partitionsOf()) - days; made < 10 || !slices.Contains(w.partitionsOf(), old) {
		t.Errorf("during the backup %d partitions were made, and of the old day there are %q; want at least 10 more, and the old one", made, w.partitionsOf())
	}
	if n := len(w.waits) - before; n != 0 {
		t.Errorf("during the backup somebody waited %d times for a lock that stops all writers, want never", n)
	}

	if _, err := w.db.ExecContext(ctx, `UPDATE leases SET until = now() - interval '1 second' WHERE name = 'backup'`); err != nil {
		t.Fatal(err)
	}
	ended := func() {
		w.same("events of the snapshot", w.inSnapshot(snap), events)
		if err := snap.Close(); err != nil {
			t.Error(err)
		}
	}
	var during func() bool // ends the snapshot at some time
	if !w.patient {
		during = func() bool {
			if len(w.waits)-before < 2 { // it gave its place up and came again
				return false
			}
			ended()
			return true
		}
	}
	w.while(t, "a snapshot whose lease is gone", during, func() error {
		out, err := w.Sweep(ctx, sweeping)
		if w.patient && (err != nil || !slices.Equal(out.Busy, []string{old})) {
			return fmt.Errorf("busy %q, dropped %q, %s; want %s left for the next sweep", out.Busy, out.Partitions, fmt.Sprint(err), old)
		}
		if !w.patient && (err != nil || !slices.Equal(out.Partitions, []string{old})) {
			return fmt.Errorf("busy %q, dropped %q, %s; want %s dropped once the snapshot has gone", out.Busy, out.Partitions, fmt.Sprint(err), old)
		}
		return nil
	})
	if !w.patient {
		return
	}
	ended()
	if out := w.sweep(sweeping); !slices.Equal(out.Partitions, []string{old}) {
		t.Errorf("after the backup: dropped %q, want %s", out.Partitions, old)
	}
}

// while writes events until do has come back. during, if there is one, is asked after each insert until it says true.
func (w *insertsBeside) while(t *testing.T, name string, during func() bool, do func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	for {
		began := time.Now()
		w.heard(w.project, sweepDay, ran(fmt.Sprint("new", w.inserts), "task.succeeded", sweepDay)...)
		w.longest = max(w.longest, time.Since(began))
		w.inserts++
		for _, r := range storetest.Rows(t, w.db, `SELECT waitstart, (1000 * extract(epoch FROM clock_timestamp() - waitstart))::int FROM pg_locks
			WHERE NOT granted AND waitstart IS NOT NULL AND mode = 'AccessExclusiveLock' AND relation IN (SELECT oid FROM pg_class WHERE relname LIKE 'events%' AND relnamespace = current_schema()::regnamespace)`) {
			var ms int64
			if _, err := fmt.Sscan(r[1], &ms); err != nil {
				t.Fatal(err)
			}
			w.waits[r[0]] = true
			w.waited = max(w.waited, time.Duration(ms)*time.Millisecond)
		}
		if during != nil && during() {
			during = nil
		}
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			return
		default:
		}
	}
}

// partitionsOf are the names of the partitions of events.
func (w *insertsBeside) partitionsOf() (names []string) {
	for _, r := range storetest.Rows(w.t, w.db, `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = (quote_ident(current_schema()) || '.events')::regclass ORDER BY 1`) {
		names = append(names, r[0])
	}
	return names
}

// inSnapshot counts the events that a snapshot reads.
func (w *insertsBeside) inSnapshot(snap *store.Snapshot) string {
	w.t.Helper()
	var rows atomic.Int64
	err := snap.Read(context.WithoutCancel(w.t.Context()), 2, func(c store.Chunk) error {
		if c.Table == "events" {
			rows.Add(c.Rows)
		}
		return nil
	})
	if err != nil {
		w.t.Error(err)
	}
	return fmt.Sprint(rows.Load())
}
