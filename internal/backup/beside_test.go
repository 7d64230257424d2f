package backup_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/target"
)

// TestABackupOfALockedTableFails: whoever keeps a table for himself is waited for, but not for ever, and nothing is left out.
func TestABackupOfALockedTableFails(t *testing.T) {
	t.Parallel()
	eachLab(t, func(t *testing.T, l *lab) {
		if l.Dialect() == "sqlite" {
			t.Skip("has no locks of tables")
		}
		lock, err := l.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = lock.Rollback() }() // again, which does nothing
		if _, err := lock.ExecContext(t.Context(), `LOCK TABLE attempts IN ACCESS EXCLUSIVE MODE`); err != nil {
			t.Fatal(err)
		}
		o := l.options(t)
		o.LockWait = 100 * time.Millisecond
		r, err := backup.Make(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), "lock table attempts: another session keeps it locked") {
			t.Errorf("got %v, want an error that names the table", err)
		}
		last, err := backup.Last(t.Context(), l.Store, audit.BackupFailed)
		if err != nil || last.ID != r.ID || !strings.Contains(last.Reason, "attempts") {
			t.Errorf("recorded: got %+v, %v, want the failure with its reason", last, err)
		}
		if rows := storetest.Rows(t, l.db, `SELECT outcome FROM audit_log WHERE action LIKE 'backup.%'`); len(rows) != 1 || rows[0][0] != "error" {
			t.Errorf("entries: got %v, want one with outcome error", rows)
		}
		if left, err := os.ReadDir(l.dir); err != nil || len(left) > 0 {
			t.Errorf("the target: got %v, %v, want nothing", left, err)
		}
		if err := lock.Rollback(); err != nil {
			t.Fatal(err)
		}
		if _, err := backup.Make(t.Context(), o); err != nil {
			t.Errorf("when it is unlocked: got %v, want a backup", err)
		}
	})
}

// stream ingests events of tasks that come and end until its context ends, and counts the frames.
func (l *lab) stream(ctx context.Context, t *testing.T) (wait func() int) {
	t.Helper()
	w := ingest.New(l.Store, ingest.Options{Now: time.Now})
	w.Start(t.Context())
	s := &ingest.Session{ID: "stream", Project: id.Random(), Agent: id.Random(), Engines: []string{"celery"}, HasWorkerID: true, WorkerID: "w-9", ProcessStarted: time.Now().UnixMicro()}
	var wg sync.WaitGroup
	frames := 0
	wg.Go(func() {
		pace := time.NewTicker(25 * time.Millisecond) // or the database grows faster than it is copied
		defer pace.Stop()
		for ; ctx.Err() == nil; frames++ {
			<-pace.C
			var events []string
			for range 5 {
				task := id.Random().String()
				for at, kind := range []string{"received", "started", "retried", "started", "succeeded"} {
					events = append(events, fmt.Sprintf(`{"kind":"task.%s","engine":"celery","task_id":"%s","occurred_at":"%s","data":{"task_name":"shop.ship","retries":%d}}`,
						kind, task, time.Now().Add(time.Duration(at)*time.Microsecond).UTC().Format(time.RFC3339Nano), at/3))
				}
			}
			done := make(chan ingest.Outcome, 1) // one answer
			err := w.Submit(t.Context(), &ingest.Frame{
				Session: s, ID: fmt.Sprintf("ev_%d", frames), Payload: []byte(`{"events":[` + strings.Join(events, ",") + `]}`), Received: time.Now().UnixMicro(),
				Done: func(o ingest.Outcome) { done <- o },
			})
			if err != nil {
				t.Error(err)
				return
			}
			if o := <-done; o.Err != nil {
				t.Error(o.Err)
				return
			}
		}
	})
	return func() int {
		wg.Wait()
		if err := w.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		return frames
	}
}

// TestFieldCaseF30BackupsUnderIngest: one after the other while events come in; each is of one moment, in which tasks, attempts and
// counts agree, and is so when it was restored.
func TestFieldCaseF30BackupsUnderIngest(t *testing.T) {
	t.Parallel()
	rounds := 2
	if os.Getenv("Z4J_NIGHTLY") == "1" {
		rounds = 50
	}
	eachLab(t, func(t *testing.T, l *lab) {
		ctx, stop := context.WithCancel(t.Context())
		wait := l.stream(ctx, t)
		before := int64(0)
		for i := range rounds {
			o := l.options(t)
			r, err := backup.Make(t.Context(), o)
			if err != nil {
				t.Errorf("backup %d: %v", i, err)
				break
			}
			report, err := verify(t, o, r.Name)
			if err != nil || report.Exit() != backup.ExitGood {
				t.Errorf("backup %d: verify: got exit %d, %q, %v; want it good", i, report.Exit(), report.Disagree, err)
			}
			tasks, _ := r.Manifest.Table("tasks")
			if tasks.Rows <= before {
				t.Errorf("backup %d has %d tasks, and the one before %d: want more, or this test shows nothing", i, tasks.Rows, before)
			}
			before = tasks.Rows
			l.restored(t, r)
		}
		stop()
		if frames := wait(); frames < rounds {
			t.Errorf("got %d frames during %d backups, want more", frames, rounds)
		}
	})
}

// restored restores a backup, and makes one of what was restored, whose verification says whether all agrees there.
func (l *lab) restored(t *testing.T, made backup.Result) {
	t.Helper()
	s := &site{lab: l, home: t.TempDir()}
	into := s.fresh(t, false)
	o := s.restoring(t, made.Name, into)
	o.Live = nil
	_, done, next := run(t, o)
	if done.Rows != made.Rows {
		t.Errorf("restored %d rows, want %d", done.Rows, made.Rows)
	}
	if report, err := next.VerifyAudit(t.Context(), store.VerifyOptions{}); err != nil || report.Exit() != audit.ExitProved {
		t.Errorf("the restored audit log: got exit %d, %v, want it proved", report.Exit(), err)
	}
	dir := t.TempDir()
	again := &lab{Store: next, url: into, dir: dir, place: open(t, dir, target.Options{})}
	second, err := backup.Make(t.Context(), again.options(t))
	if err != nil {
		t.Fatal(err)
	}
	if report, err := verify(t, again.options(t), second.Name); err != nil || report.Exit() != backup.ExitGood {
		t.Errorf("the restored database: got exit %d, %q, %v; want that all agrees", report.Exit(), report.Disagree, err)
	}
	if err := os.Remove(filepath.Join(dir, second.Name)); err != nil {
		t.Fatal(err)
	}
}
