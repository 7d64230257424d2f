package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/target"
)

const (
	killURL   = "Z4J_TEST_BACKUP_URL"
	killDir   = "Z4J_TEST_BACKUP_DIR"
	killTmp   = "Z4J_TEST_BACKUP_TMP"
	killPhase = "Z4J_TEST_BACKUP_PHASE"
	killFrom  = "Z4J_TEST_BACKUP_FROM" // an archive: a restore is killed
)

// at kills this process if the phase is the one to be killed in.
func at(phase string) {
	if os.Getenv(killPhase) == phase {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // it comes
	}
}

// TestBackupUntilKilled is what TestKilledBackupLeavesNothingThatLooksGood runs as another process.
func TestBackupUntilKilled(t *testing.T) {
	url := os.Getenv(killURL)
	if url == "" || os.Getenv(killFrom) != "" {
		t.Skip("runs in the process that TestKilledBackupLeavesNothingThatLooksGood starts")
	}
	l := &lab{Store: storetest.Open(t, url), url: url, dir: os.Getenv(killDir)}
	o := l.options(t)
	o.TempDir = os.Getenv(killTmp)
	o.Open = func(ctx context.Context) (target.Target, error) {
		at("leased")
		to, err := target.Open(ctx, l.dir, target.Options{})
		return deadly{to}, err
	}
	o.Progress = func(phase string, done, total int64) {
		if phase == "verified" && done == total {
			at("verified")
		}
	}
	_, err := backup.Make(t.Context(), o)
	fmt.Println("ended", err)
}

// deadly is a target that kills its user.
type deadly struct{ target.Target }

func (d deadly) Create(ctx context.Context, name string) (target.Writer, error) {
	at("snapshot taken")
	w, err := d.Target.Create(ctx, name)
	return &deadlyWriter{Writer: w}, err
}

func (d deadly) Open(ctx context.Context, name string) (target.Reader, error) {
	at("verifying")
	return d.Target.Open(ctx, name)
}

type deadlyWriter struct {
	target.Writer

	writes int
}

func (d *deadlyWriter) Write(p []byte) (int, error) {
	if d.writes++; d.writes == 9 {
		at("chunks")
	}
	if bytes.Contains(p, []byte(backup.Format)) {
		at("manifest")
	}
	n, err := d.Writer.Write(p)
	if bytes.HasPrefix(p, []byte("z4j/")) || bytes.Contains(p, []byte("manifest.sig")) {
		at("signature")
	}
	return n, err
}

func (d *deadlyWriter) Commit() error {
	at("written")
	err := d.Writer.Commit()
	at("committed")
	return err
}

// phases are those to be killed in; every night in the others, too.
func phases(always []string, nightly ...string) []string {
	if os.Getenv("Z4J_NIGHTLY") == "1" {
		return append(always, nightly...)
	}
	return always
}

// killedIn runs a test of this package as another process, which kills itself in a phase.
func killedIn(t *testing.T, test, phase string, env ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+test+"$", "-test.count=1", "-test.v")
	cmd.Env = append(append(os.Environ(), killPhase+"="+phase), env...)
	out, err := cmd.CombinedOutput()
	if err == nil || strings.Contains(string(out), "ended") || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("killed in %s: it was not: %v\n%s", phase, err, out)
	}
}

// TestKilledBackupLeavesNothingThatLooksGood: killed in any phase, no archive is there that the audit log knows, and none at all
// that is not whole; the next backup waits for the end of the lease, works, and leaves nothing of the killed one's copies.
func TestKilledBackupLeavesNothingThatLooksGood(t *testing.T) {
	t.Parallel()
	eachLab(t, func(t *testing.T, l *lab) {
		tmp := t.TempDir()
		later := time.Now()
		for _, phase := range phases([]string{"chunks", "committed", "verified"}, "leased", "snapshot taken", "manifest", "signature", "written", "verifying") {
			killedIn(t, "TestBackupUntilKilled", phase, killURL+"="+l.url, killDir+"="+l.dir, killTmp+"="+tmp)
			l.afterKill(t, phase, tmp, &later)
		}
	})
}

// afterKill looks at what a killed backup left, and makes the next one.
func (l *lab) afterKill(t *testing.T, phase, tmp string, later *time.Time) {
	t.Helper()
	o := l.options(t)
	o.TempDir = tmp
	list, err := backup.List(t.Context(), l.place, l.Store, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.State == backup.StateUnrecorded {
			report, err := verify(t, o, e.Name)
			if err != nil || report.Exit() != backup.ExitGood || phase != "committed" && phase != "verifying" && phase != "verified" {
				t.Errorf("killed in %s: %s is there: %v, exit %d; want nothing, or an archive that is whole and not recorded", phase, e.Name, err, report.Exit())
			}
			if err := l.place.Remove(t.Context(), e.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := backup.Make(t.Context(), o); !errors.Is(err, backup.ErrBusy) {
		t.Errorf("killed in %s: at once: got %v, want ErrBusy", phase, err)
	}
	*later = later.Add(25 * time.Hour) // what is unfinished for so long is cleared away
	now := *later
	o.Now = func() time.Time { return now }
	if l.Dialect() == "postgres" { // leases go by its clock, which can't be set
		if _, err := l.db.ExecContext(t.Context(), `UPDATE leases SET until = now() - interval '1 second' WHERE name = 'backup'`); err != nil {
			t.Fatal(err)
		}
	}
	r, err := backup.Make(t.Context(), o)
	if err != nil || !r.Verified {
		t.Fatalf("killed in %s: the next backup when the lease has ended: got %+v, %v, want one", phase, r, err)
	}
	for _, dir := range []string{l.dir, tmp} {
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range left {
			if strings.HasPrefix(e.Name(), ".") || strings.Contains(e.Name(), "snapshot") {
				t.Errorf("killed in %s: after the next backup %s holds %s, want nothing of the killed one", phase, dir, e.Name())
			}
		}
	}
	if report, err := l.VerifyAudit(t.Context(), store.VerifyOptions{}); err != nil || report.Exit() != audit.ExitProved {
		t.Errorf("killed in %s: the audit log: got exit %d, %v, want it proved", phase, report.Exit(), err)
	}
}

// TestABackupKilledWhileItTakesItsSnapshot: on SQLite while it copies the database, on Postgres while it waits for a table.
func TestABackupKilledWhileItTakesItsSnapshot(t *testing.T) {
	t.Parallel()
	eachLab(t, func(t *testing.T, l *lab) {
		tmp := t.TempDir()
		taking := func() bool {
			found, err := filepath.Glob(filepath.Join(tmp, "z4j-snapshot-*"))
			return err == nil && len(found) > 0
		}
		if l.Dialect() == "postgres" {
			lock, err := l.db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = lock.Rollback() }() // again, which does nothing
			if _, err := lock.ExecContext(t.Context(), `LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE`); err != nil {
				t.Fatal(err)
			}
			taking = func() bool {
				return len(storetest.Rows(t, l.db, `SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessShareLock' AND relation = 'tasks'::regclass`)) > 0
			}
			defer func() {
				if err := lock.Rollback(); err != nil {
					t.Error(err)
				}
				later := time.Now()
				l.afterKill(t, "the snapshot", tmp, &later)
			}()
		} else {
			storetest.FillAudit(t, l.url, 10_000) // so that the copy takes a moment
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBackupUntilKilled$", "-test.count=1")
		cmd.Env = append(os.Environ(), killURL+"="+l.url, killDir+"="+l.dir, killTmp+"="+tmp)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for !taking() {
			select {
			case err := <-ended:
				t.Fatalf("the backup ended before it was seen taking its snapshot: %v", err)
			default:
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-ended
		if l.Dialect() == "sqlite" {
			if !taking() {
				t.Error("the copy is gone: it was not killed while it made it")
			}
			later := time.Now()
			l.afterKill(t, "the snapshot", tmp, &later)
		}
	})
}

// TestRestoreUntilKilled is what TestKilledRestoreOfAnArchiveStartsClean runs as another process.
func TestRestoreUntilKilled(t *testing.T) {
	name := os.Getenv(killFrom)
	if name == "" {
		t.Skip("runs in the process that TestKilledRestoreOfAnArchiveStartsClean starts")
	}
	s := &site{lab: &lab{dir: os.Getenv(killDir), url: os.Getenv(killURL)}, home: os.Getenv(killTmp)}
	s.place = open(t, s.dir, target.Options{})
	o := s.restoring(t, name, s.url)
	watch := o.Custody
	o.Custody = func(s *store.Store) *custody.Custody {
		if s != nil {
			at("proved")
		}
		return watch(s)
	}
	o.Progress = func(phase string, done, total int64) {
		at(phase)
		if done == total {
			at("all " + phase)
		}
	}
	r := plan(t, o)
	at("planned")
	if _, err := r.Run(t.Context()); err != nil {
		t.Fatal("ended", err)
	}
	at("done")
	fmt.Println("ended")
}

// TestKilledRestoreOfAnArchiveStartsClean: killed in any phase nothing is there that a brain would serve, and the next restore
// begins anew; killed behind its last transaction it is whole.
func TestKilledRestoreOfAnArchiveStartsClean(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		made := s.backup(t)
		into := s.fresh(t, false)
		home := t.TempDir()
		for _, phase := range phases([]string{"planned", "restored", "proved"}, "verified", "all restored") {
			killedIn(t, "TestRestoreUntilKilled", phase, killURL+"="+into, killDir+"="+s.dir, killTmp+"="+home, killFrom+"="+made.Name)
			if phase == "verified" || phase == "planned" {
				untouched(t, into)
				continue
			}
			if path, ok := strings.CutPrefix(into, "sqlite:"); ok {
				if _, err := os.Stat(path); !os.IsNotExist(err) {
					t.Errorf("killed when %s: there is a database: %v", phase, err)
				}
			} else if _, err := store.Open(t.Context(), storetest.Options(into)); !errors.Is(err, store.ErrHalfRestored) {
				t.Errorf("killed when %s: open: got %v, want ErrHalfRestored", phase, err)
			}
		}
		killedIn(t, "TestRestoreUntilKilled", "done", killURL+"="+into, killDir+"="+s.dir, killTmp+"="+home, killFrom+"="+made.Name)
		next := storetest.Open(t, into)
		if report, err := next.VerifyAudit(t.Context(), store.VerifyOptions{}); err != nil || report.Exit() != audit.ExitProved {
			t.Errorf("killed when done: the audit log: got exit %d, %v, want it proved", report.Exit(), err)
		}
		if n := storetest.Rows(t, storetest.DB(t, into), `SELECT count(*) FROM tasks`)[0][0]; n != "40" {
			t.Errorf("after the killed restores: got %s tasks, want 40", n)
		}
	})
}
