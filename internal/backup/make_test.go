package backup_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/target"
	"github.com/z4j-go/z4j/internal/target/targettest"
)

// lab is a database with some tasks, and a place for its backups.
type lab struct {
	*store.Store

	url   string
	db    *sql.DB
	place target.Target
	dir   string
}

func eachLab(t *testing.T, fn func(t *testing.T, l *lab)) {
	t.Helper()
	storetest.EachURL(t, func(t *testing.T, url string) {
		l := &lab{Store: storetest.Open(t, url), url: url, db: storetest.DB(t, url), dir: t.TempDir()}
		l.place = open(t, l.dir, target.Options{})
		l.ingest(t, 40)
		fn(t, l)
	})
}

func open(t testing.TB, location string, o target.Options) target.Target {
	t.Helper()
	p, err := target.Open(t.Context(), location, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ingest takes events of n tasks: some retried, some failed, some that run.
func (l *lab) ingest(t testing.TB, n int) {
	t.Helper()
	now := time.Now().Add(-time.Minute)
	w := ingest.New(l.Store, ingest.Options{Now: time.Now})
	w.Start(t.Context())
	var events []string
	for i := range n {
		task := id.Random().String()
		for at, kind := range [][]string{{"received", "started", "succeeded"}, {"received", "started", "retried", "started", "failed"}, {"received", "started"}}[i%3] {
			events = append(events, fmt.Sprintf(`{"kind":"task.%s","engine":"celery","task_id":"%s","occurred_at":"%s","data":{"task_name":"shop.ship","queue":"orders","runtime":0.25,"retries":%d}}`,
				kind, task, now.Add(time.Duration(i)*time.Millisecond+time.Duration(at)*time.Second).UTC().Format(time.RFC3339Nano), at/2))
		}
	}
	done := make(chan ingest.Outcome, 1)
	s := &ingest.Session{ID: "s", Project: id.Random(), Agent: id.Random(), Engines: []string{"celery"}, HasWorkerID: true, WorkerID: "w-1", ProcessStarted: now.UnixMicro()}
	err := w.Submit(t.Context(), &ingest.Frame{
		Session: s, ID: "ev_1", Payload: []byte(`{"events":[` + strings.Join(events, ",") + `]}`), Received: time.Now().UnixMicro(),
		Done: func(o ingest.Outcome) { done <- o },
	})
	if err != nil {
		t.Fatal(err)
	}
	if o := <-done; o.Err != nil {
		t.Fatal(o.Err)
	}
	if err := w.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	tasks := 0
	if err := l.db.QueryRowContext(t.Context(), `SELECT count(*) FROM tasks`).Scan(&tasks); err != nil || tasks < n {
		t.Fatalf("tasks: got %d, %v, want at least %d, or this test shows nothing", tasks, err, n)
	}
}

// options are those of a plain backup.
func (l *lab) options(t testing.TB) backup.Options {
	t.Helper()
	k, err := audit.NewKey(storetest.Secrets.Audit)
	if err != nil {
		t.Fatal(err)
	}
	return backup.Options{
		Store: l.Store, Keys: []audit.Key{k}, Version: "test", Actor: audit.Actor{Kind: audit.CLI, ID: "uid:0"}, Now: time.Now, Target: l.place, TempDir: t.TempDir(),
	}
}

// verify reads an archive.
func verify(t testing.TB, o backup.Options, name string, identities ...age.Identity) (backup.Report, error) {
	t.Helper()
	a, err := backup.Open(t.Context(), o.Target, name, backup.ReadOptions{Keys: o.Keys, Identities: identities})
	if err != nil {
		return backup.Report{}, err
	}
	defer a.Close()
	return a.Verify(t.Context(), o.Keys, nil)
}

func TestABackupIsWholeVerifiedAndRecorded(t *testing.T) {
	t.Parallel()
	me, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	eachLab(t, func(t *testing.T, l *lab) {
		for _, tt := range []struct {
			name     string
			change   func(o *backup.Options)
			identity []age.Identity
		}{
			{"plain", func(*backup.Options) {}, nil},
			{"to a recipient", func(o *backup.Options) { o.Recipients = []age.Recipient{me.Recipient()} }, []age.Identity{me}},
			{"without events", func(o *backup.Options) { o.Without = []string{"events"} }, nil},
		} {
			o := l.options(t)
			tt.change(&o)
			r, err := backup.Make(t.Context(), o)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			if !r.Verified || r.Encrypted != (tt.identity != nil) || r.Rows < 100 {
				t.Errorf("%s: got %+v, want it verified, with more than 100 rows", tt.name, r)
			}
			report, err := verify(t, o, r.Name, tt.identity...)
			if err != nil || report.Exit() != backup.ExitGood {
				t.Errorf("%s: verify: got %v, exit %d: %+v, want it good", tt.name, err, report.Exit(), report)
			}
			if report.SHA256 != r.SHA256 || report.Bytes != r.Bytes || report.Rows != r.Rows || report.Audit.To != r.Manifest.Audit.Size || r.Manifest.Audit.Root == "" {
				t.Errorf("%s: verify: got %+v, want what was made: %+v", tt.name, report, r)
			}
			events, _ := r.Manifest.Table("events")
			if (events.Rows == 0) != (o.Without != nil) {
				t.Errorf("%s: got %d events, want none only without them", tt.name, events.Rows)
			}
			last, err := backup.Last(t.Context(), l.Store, audit.BackupCompleted)
			if err != nil || last.ID != r.ID || last.SHA256 != r.SHA256 || last.Bytes != r.Bytes || last.RowHMAC != r.Manifest.Audit.RowHMAC || !last.Verified {
				t.Errorf("%s: recorded: got %+v, %v, want what was made", tt.name, last, err)
			}
			info, err := os.Stat(filepath.Join(l.dir, r.Name))
			if err != nil || info.Mode().Perm() != 0o600 || info.Size() != r.Bytes {
				t.Errorf("%s: file: got %v, %v, want mode 0600 and %d bytes", tt.name, info, err, r.Bytes)
			}
		}
		list, err := backup.List(t.Context(), l.place, l.Store, time.Now())
		if err != nil || len(list) != 3 || slices.ContainsFunc(list, func(e backup.Entry) bool { return e.State != backup.StateRecorded }) {
			t.Errorf("list: got %+v, %v, want three that are recorded", list, err)
		}
		report, err := l.VerifyAudit(t.Context(), store.VerifyOptions{})
		if err != nil || report.Exit() != audit.ExitProved {
			t.Errorf("the audit log after it: got %+v, %v, want it proved", report, err)
		}
	})
}

func TestABackupGoesToAnS3Server(t *testing.T) {
	t.Parallel()
	location, so, _ := targettest.Bucket(t)
	eachLab(t, func(t *testing.T, l *lab) {
		o := l.options(t)
		so := so
		so.Unread = true
		o.Target = open(t, location+"/"+l.Dialect(), so)
		if l.Dialect() == "sqlite" {
			o.Passphrase = "correct horse battery" // once: to be slow is what makes it safe
		}
		r, err := backup.Make(t.Context(), o)
		if err != nil || !r.Verified || r.Encrypted != (o.Passphrase != "") {
			t.Fatalf("got %+v, %v, want a verified backup", r, err)
		}
		list, err := backup.List(t.Context(), o.Target, l.Store, time.Now())
		if err != nil || len(list) != 1 || list[0].State != backup.StateRecorded || list[0].Bytes != r.Bytes {
			t.Errorf("list: got %+v, %v, want the one backup", list, err)
		}
	})
}

func TestABackupStreams(t *testing.T) {
	t.Parallel()
	eachLab(t, func(t *testing.T, l *lab) {
		var out bytes.Buffer
		o := l.options(t)
		o.Target, o.Stream = nil, &out
		r, err := backup.Make(t.Context(), o)
		if err != nil || r.Verified || r.Bytes != int64(out.Len()) {
			t.Fatalf("got %+v, %v, want a backup of %d bytes that nobody verified", r, err, out.Len())
		}
		o.Target = memory{content: out.Bytes()}
		if report, err := verify(t, o, "x"); err != nil || report.Exit() != backup.ExitGood || report.SHA256 != r.SHA256 {
			t.Errorf("verify the stream: got %+v, %v, want it good", report, err)
		}
		for _, room := range []int{0, 500, out.Len() / 2, out.Len() - 1} {
			o.Target, o.Stream = nil, &bounded{room: room}
			if _, err := backup.Make(t.Context(), o); err == nil {
				t.Errorf("a stream that closes after %d bytes: got no error, want one", room)
			}
		}
		failures, err := backup.History(t.Context(), l.Store, audit.BackupFailed, 10)
		if err != nil || len(failures) != 4 || failures[0].Reason == "" {
			t.Errorf("recorded failures: got %+v, %v, want four with a reason", failures, err)
		}
	})
}

// TestLessonI12BackupsAreWholeOrNotThere: whatever breaks, nothing is left that looks like a backup.
func TestLessonI12BackupsAreWholeOrNotThere(t *testing.T) {
	t.Parallel()
	eachLab(t, func(t *testing.T, l *lab) {
		good := l.options(t)
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		for _, tt := range []struct {
			name   string
			ctx    context.Context
			change func(o *backup.Options)
		}{
			{"a target that is full", t.Context(), func(o *backup.Options) { o.Target = full{o.Target, 2000} }},
			{"a target that is full at its end", t.Context(), func(o *backup.Options) { o.Target = full{o.Target, 20000} }},
			{"a target that changes a byte", t.Context(), func(o *backup.Options) { o.Target = lossy{o.Target, l.dir} }},
			{"a table that is none", t.Context(), func(o *backup.Options) { o.Without = []string{"nothing"} }},
			{"recipients and a passphrase", t.Context(), func(o *backup.Options) { o.Passphrase, o.Recipients = "x", make([]age.Recipient, 1) }},
			{"a stop", canceled, func(*backup.Options) {}},
		} {
			o := good
			tt.change(&o)
			r, err := backup.Make(tt.ctx, o)
			if err == nil {
				t.Fatalf("%s: got a backup, want an error", tt.name)
			}
			if errors.Is(err, backup.ErrUnrecorded) {
				t.Errorf("%s: got %v, want another error", tt.name, err)
			}
			if entries, err := os.ReadDir(l.dir); err != nil || len(entries) > 0 {
				t.Errorf("%s: got %v, %v left in the target, want nothing", tt.name, entries, err)
			}
			last, err := backup.Last(t.Context(), l.Store, audit.BackupFailed)
			if tt.ctx.Err() == nil && (err != nil || last.ID != r.ID || last.Reason == "") {
				t.Errorf("%s: recorded: got %+v, %v, want the failure", tt.name, last, err)
			}
		}
		if _, err := backup.Last(t.Context(), l.Store, audit.BackupCompleted); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("completed: got %v, want none", err)
		}
		if _, err := backup.Make(t.Context(), good); err != nil {
			t.Errorf("afterwards: got %v, want a backup: leases and locks are given back", err)
		}
	})
}

// full takes so many bytes of a file.
type full struct {
	target.Target

	room int
}

func (f full) Create(ctx context.Context, name string) (target.Writer, error) {
	w, err := f.Target.Create(ctx, name)
	return &fullWriter{w, bounded{f.room}}, err
}

type fullWriter struct {
	target.Writer

	room bounded
}

func (f *fullWriter) Write(p []byte) (int, error) {
	n, err := f.room.Write(p)
	if err != nil {
		return n, err
	}
	return f.Writer.Write(p)
}

// lossy changes a byte of what was committed.
type lossy struct {
	target.Target

	dir string
}

func (l lossy) Create(ctx context.Context, name string) (target.Writer, error) {
	w, err := l.Target.Create(ctx, name)
	return lossyWriter{w, filepath.Join(l.dir, name)}, err
}

type lossyWriter struct {
	target.Writer

	path string
}

func (l lossyWriter) Commit() error {
	if err := l.Writer.Commit(); err != nil {
		return err
	}
	content, err := os.ReadFile(l.path)
	if err != nil {
		return err
	}
	content[len(content)/3] ^= 4
	return os.WriteFile(l.path, content, 0o600)
}

func TestTwoBackupsAtOnceAreRefused(t *testing.T) {
	t.Parallel()
	eachLab(t, func(t *testing.T, l *lab) {
		o := l.options(t)
		second := errors.New("not tried")
		o.Progress = func(string, int64, int64) {
			if second.Error() == "not tried" {
				again := l.options(t)
				_, second = backup.Make(t.Context(), again)
				if second == nil {
					second = errors.New("made")
				}
				if mine, err := l.Lease(t.Context(), backup.LeaseName, "retention", store.TimeOf(time.Now()), store.TimeOf(time.Now())); mine || err != nil {
					t.Errorf("the lease for others: got %v, %v, want it held", mine, err)
				}
			}
		}
		if _, err := backup.Make(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(second, backup.ErrBusy) {
			t.Errorf("the second: got %v, want ErrBusy", second)
		}
		if failures, err := backup.History(t.Context(), l.Store, audit.BackupFailed, 5); err != nil || len(failures) > 0 {
			t.Errorf("failures: got %+v, %v, want none: a refused command changes nothing", failures, err)
		}
	})
}

func TestWhatIsWrongInTheDatabaseIsSeenInItsBackup(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, change, want string
	}{
		{"a task counts an attempt too much", `UPDATE tasks SET attempts = attempts + 1 WHERE id = (SELECT id FROM tasks ORDER BY id LIMIT 1)`, "attempts"},
		{"attempts of other tasks", `UPDATE attempts SET engine = 'rq' WHERE number = 2`, "attempts"},
		{"a state that is not the counted one", `UPDATE tasks SET state = state + 1 WHERE id = (SELECT id FROM tasks ORDER BY id LIMIT 1)`, "counted"},
		{"a count too much", `UPDATE rollup_hours SET count = count + 1 WHERE bucket = (SELECT min(bucket) FROM rollup_hours)`, "counted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			eachLab(t, func(t *testing.T, l *lab) {
				if res, err := l.db.ExecContext(t.Context(), tt.change); err != nil {
					t.Fatal(err)
				} else if n, err := res.RowsAffected(); err != nil || n == 0 {
					t.Fatalf("changed %d rows, %v, want some", n, err)
				}
				o := l.options(t)
				r, err := backup.Make(t.Context(), o)
				if err != nil {
					t.Fatalf("got %v, want a backup all the same: it is as good as the database", err)
				}
				last, err := backup.Last(t.Context(), l.Store, audit.BackupCompleted)
				if r.Verified || err != nil || last.Verified || !strings.Contains(last.Reason, tt.want) {
					t.Errorf("got verified %v, recorded %+v, %v, want it not verified, and why", r.Verified, last, err)
				}
				report, err := verify(t, o, r.Name)
				if err != nil || report.Exit() != backup.ExitBad || !strings.Contains(strings.Join(report.Disagree, "\n"), tt.want) {
					t.Errorf("verify: got %q, %v, want it to say %q", report.Disagree, err, tt.want)
				}
			})
		})
	}
}
