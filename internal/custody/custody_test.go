package custody_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/target/targettest"
)

// lab is a brain's database and home, for which brains come and go.
type lab struct {
	url, home string
	anchors   []string
}

// each runs fn with an empty database of each kind.
func each(t *testing.T, fn func(t *testing.T, l *lab)) {
	t.Helper()
	storetest.EachURL(t, func(t *testing.T, url string) { fn(t, &lab{url: url, home: t.TempDir()}) })
}

// brain is a store and what watches it.
type brain struct {
	*store.Store
	*custody.Custody
}

// start opens the database as a brain does.
func (l *lab) start(t testing.TB, o ...func(*custody.Options)) brain {
	t.Helper()
	s := storetest.Open(t, l.url)
	opts := custody.Options{Store: s, Now: time.Now, Home: l.home, Anchors: l.anchors}
	for _, change := range o {
		change(&opts)
	}
	c := custody.New(opts)
	if err := c.Examine(t.Context()); err != nil {
		t.Fatal(err)
	}
	return brain{s, c}
}

// run is a brain that ran: it made n changes, and signed.
func (l *lab) run(t testing.TB, n int) brain {
	t.Helper()
	b := l.start(t)
	b.change(t, n)
	b.sign(t)
	return b
}

func (b brain) change(t testing.TB, n int) {
	t.Helper()
	for range n {
		if err := b.try(t); err != nil {
			t.Fatal(err)
		}
	}
}

func (b brain) try(t testing.TB) error {
	t.Helper()
	return b.record(t.Context(), audit.Facts{Action: audit.ProjectChanged, Actor: audit.Actor{Kind: audit.User, ID: "u1", Label: "ann@example.org"}, Target: audit.Target{ID: "p1"}})
}

func (b brain) record(ctx context.Context, f audit.Facts) error {
	return b.Update(ctx, func(tx *store.Tx) error { tx.Record(audit.New(f)); return nil })
}

func (b brain) sign(t testing.TB) {
	t.Helper()
	if err := b.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Watch(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// mustHold checks whether changes are held, and why.
func (b brain) mustHold(t testing.TB, when, why string) {
	t.Helper()
	h, err := b.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	switch err := b.try(t); {
	case why == "" && (h != nil || err != nil):
		t.Errorf("%s: hold %+v, change %v; want none and made", when, h, err)
	case why != "" && (h == nil || !strings.Contains(h.Reason, why) || !errors.Is(err, store.ErrHistoryInDoubt)):
		t.Errorf("%s: hold %+v, change %v; want it held because %q", when, h, err, why)
	}
}

// mustProve checks that the whole log verifies, against all anchors.
func (b brain) mustProve(t testing.TB, when string, exit int) {
	t.Helper()
	w, err := b.Witnesses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.VerifyAudit(t.Context(), store.VerifyOptions{Witnesses: w})
	if err != nil || r.Exit() != exit {
		t.Errorf("%s: verified with exit %d, %+v, %v; want %d", when, r.Exit(), r.First, err, exit)
	}
}

// unguarded is the database without the triggers of the audit log.
func (l *lab) unguarded(t testing.TB) *sql.DB {
	t.Helper()
	db := storetest.DB(t, l.url)
	if !l.isFile() {
		l.exec(t, `ALTER TABLE audit_log DISABLE TRIGGER USER`, `ALTER TABLE audit_personal DISABLE TRIGGER USER`)
		return db
	}
	for _, row := range storetest.Rows(t, db, `SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name LIKE 'audit%'`) {
		l.exec(t, `DROP TRIGGER "`+row[0]+`"`)
	}
	return db
}

func (l *lab) exec(t testing.TB, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if _, err := storetest.DB(t, l.url).ExecContext(t.Context(), text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}

func (l *lab) cut(t testing.TB, seq int) {
	t.Helper()
	l.unguarded(t)
	l.exec(t, fmt.Sprintf(`DELETE FROM audit_personal WHERE seq > %d`, seq), fmt.Sprintf(`DELETE FROM audit_log WHERE seq > %d`, seq))
}

func (l *lab) isFile() bool { return strings.HasPrefix(l.url, "sqlite:") }

func (l *lab) path() string { return strings.TrimPrefix(l.url, "sqlite:") }

// copyFile copies a SQLite database that nobody has open.
func copyFile(t testing.TB, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, rest := range []string{"-wal", "-shm"} {
		if err := os.RemoveAll(to + rest); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(to+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to+".new", to); err != nil {
		t.Fatal(err)
	}
}

func (b brain) stop(t testing.TB) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestLessonL6RollbackWhileNoBrainRan: whatever is done to the log between a stop and a start, the anchor in the home
// knows more.
func TestLessonL6RollbackWhileNoBrainRan(t *testing.T) {
	for _, tt := range []struct {
		name, why string
		do        func(t testing.TB, l *lab)
	}{
		{"nothing", "", func(testing.TB, *lab) {}},
		{"the tail is cut", "it was set back", func(t testing.TB, l *lab) { l.cut(t, 4) }},
		{"the tail is cut, and older state with it", "it was set back", func(t testing.TB, l *lab) {
			l.cut(t, 4)
			l.exec(t, `DELETE FROM audit_checkpoints`, `DELETE FROM audit_frontier`, `DELETE FROM audit_place WHERE 1 = 0`)
		}},
		{"it is cut and grows again", "is another one than the anchor", func(t testing.TB, l *lab) {
			l.cut(t, 4)
			brain{Store: storetest.Open(t, l.url)}.change(t, 9)
		}},
		{"it is wiped", "the history", func(t testing.TB, l *lab) {
			l.cut(t, 0)
			l.exec(t, `DELETE FROM audit_generations`, `DELETE FROM audit_checkpoints`)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, func(t *testing.T, l *lab) {
				l.run(t, 6)
				tt.do(t, l)
				b := l.start(t)
				b.mustHold(t, "after the start", tt.why)
				l.start(t).mustHold(t, "after another start", tt.why)
				if tt.why == "" {
					return
				}
				other := brain{storetest.Open(t, l.url), nil}
				other.mustHold(t, "on another replica", tt.why)
				if err := b.Checkpoint(t.Context()); err != nil {
					t.Error(err)
				}
				done, err := b.Acknowledge(t.Context(), custody.Acknowledgement{By: audit.Actor{Kind: audit.CLI, ID: "root"}, Reason: "it was me"})
				if err != nil {
					t.Fatal(err)
				}
				for when, one := range map[string]brain{"who acknowledged": b, "another replica": other, "a start after it": l.start(t)} {
					one.mustHold(t, when, "")
				}
				b.sign(t)
				b.mustProve(t, "after all", 0)
				l.start(t).mustHold(t, "a start after a checkpoint of the new history", "")
				if _, err := b.Acknowledge(t.Context(), custody.Acknowledgement{By: audit.Actor{Kind: audit.CLI}, Reason: "again"}); !errors.Is(err, custody.ErrNoHold) {
					t.Errorf("acknowledged twice: %v, want ErrNoHold", err)
				}
				list, err := b.Generations(t.Context())
				if err != nil || list[len(list)-1].ID != done.Generation || list[len(list)-1].Previous != done.Previous {
					t.Errorf("generations %+v, %v; want %+v as the last", list, err, done)
				}
			})
		})
	}
}

// TestOlderCopyRestored: a file that was copied back, with the home it belongs to and with an empty one.
func TestOlderCopyRestored(t *testing.T) {
	for _, tt := range []struct {
		name, why string
		home      bool
		changes   int
	}{
		{"with its home", "it was set back", true, 5},
		{"with an empty home", "instance.json is missing", false, 5},
		{"the newest copy with an empty home", "instance.json is missing", false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := &lab{url: storetest.SQLite(t), home: t.TempDir()}
			l.run(t, 3).stop(t)
			copyFile(t, l.path(), l.path()+".copy")
			b := l.run(t, tt.changes)
			b.stop(t)
			copyFile(t, l.path()+".copy", l.path())
			if !tt.home {
				l.home = t.TempDir()
			}
			b = l.start(t)
			b.mustHold(t, "a copy", tt.why)
			if _, err := b.Acknowledge(t.Context(), custody.Acknowledgement{By: audit.Actor{Kind: audit.CLI}, Reason: "restored on purpose"}); err != nil {
				t.Fatal(err)
			}
			b.mustHold(t, "acknowledged", "")
			b.sign(t)
			l.start(t).mustHold(t, "after a restart", "")
			copyFile(t, l.path()+".copy", l.path()+".again")
			l.url = "sqlite:" + l.path() + ".again"
			l.start(t).mustHold(t, "the same copy once more, elsewhere", "the database is another one")
		})
	}
}

// TestPostgresWithAnEmptyHome is one more replica, as far as anybody can tell, unless an anchor elsewhere knows more.
func TestPostgresWithAnEmptyHome(t *testing.T) {
	shared := t.TempDir()
	for _, tt := range []struct {
		name, why string
		anchors   []string
		cut       bool
	}{
		{"and nothing lost", "", []string{shared}, false},
		{"and a shared anchor that is ahead", "it was set back", []string{shared}, true},
		{"and no anchor", "", nil, true},
		{"and a shared anchor that can't be reached", "", []string{"/nonexistent/anchor"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := &lab{url: storetest.Postgres(t), home: t.TempDir(), anchors: []string{shared}}
			l.run(t, 5)
			if tt.cut {
				l.cut(t, 3)
				l.exec(t, `DELETE FROM audit_checkpoints`)
			}
			l.home, l.anchors = t.TempDir(), tt.anchors
			b := l.start(t)
			b.mustHold(t, "an empty home", tt.why)
			if tt.why != "" {
				return
			}
			if _, err := b.RestoreHeld(t.Context()); err != nil {
				t.Errorf("no brain's lease, so what goes out waits: %v", err)
			}
			page, err := b.AuditLog(t.Context(), store.AuditFilter{Action: string(audit.AnchorStarted)})
			if err != nil || len(page.Items) != 1 {
				t.Errorf("%d entries say that an anchor began, %v; want 1", len(page.Items), err)
			}
		})
	}
}

// TestMovedOrAnother: a place that changed is noted where the anchor agrees, and holds where it does not.
func TestMovedOrAnother(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		l.run(t, 3)
		l.exec(t, `UPDATE audit_place SET identifier = 'elsewhere'`)
		b := l.start(t)
		b.mustHold(t, "elsewhere, and the anchor agrees", "")
		if p, err := b.RecordedPlace(t.Context()); err != nil || p.Identifier == "elsewhere" {
			t.Errorf("recorded place: %+v, %v; want where it is", p, err)
		}
		b.sign(t)
		l.exec(t, `UPDATE audit_place SET identifier = 'elsewhere'`)
		l.cut(t, 3)
		l.start(t).mustHold(t, "elsewhere, and behind", "the database is another one")
	})
}

// TestDrillByHandWithTheSharedAnchor: a copy that runs with production's settings stops nobody but itself.
func TestDrillByHandWithTheSharedAnchor(t *testing.T) {
	bucket, o, _ := targettest.Bucket(t)
	for _, location := range []string{t.TempDir(), bucket} {
		t.Run(strings.SplitN(location, ":", 2)[0], func(t *testing.T) {
			reach := func(c *custody.Options) { c.Target = o }
			l := &lab{url: storetest.SQLite(t), home: t.TempDir(), anchors: []string{location}}
			production := l.start(t, reach)
			production.change(t, 4)
			production.sign(t)
			copied := &lab{url: "sqlite:" + filepath.Join(t.TempDir(), "drill.db"), home: t.TempDir(), anchors: l.anchors}
			l.exec(t, `VACUUM INTO '`+copied.path()+`'`)
			production.change(t, 3)
			production.sign(t)

			drill := copied.start(t, reach)
			drill.mustHold(t, "the drill", "instance.json is missing")
			if _, err := drill.Acknowledge(t.Context(), custody.Acknowledgement{By: audit.Actor{Kind: audit.CLI}, Reason: "a drill"}); err != nil {
				t.Fatal(err)
			}
			drill.change(t, 9)
			drill.sign(t)

			production.sign(t)
			production.mustHold(t, "production", "")
			again := l.start(t, reach)
			again.mustHold(t, "production after a restart", "")
			again.sign(t)
			if text := fmt.Sprint(again.Troubles()); !strings.Contains(text, "does not name") {
				t.Errorf("troubles: %s; want an alert about a history that production does not name", text)
			}
			again.mustProve(t, "production", 0)
		})
	}
}

// TestEveryBrainKeepsEveryCheckpoint: one replica signs, and each home has it.
func TestEveryBrainKeepsEveryCheckpoint(t *testing.T) {
	l := &lab{url: storetest.Postgres(t), home: t.TempDir()}
	one := l.run(t, 3)
	second := &lab{url: l.url, home: t.TempDir()}
	other := second.start(t)
	one.change(t, 1)
	one.sign(t)
	if err := other.Watch(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, err := one.Checkpoints(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := other.Checkpoints(t.Context())
	if err != nil || len(a) != 1 || len(b) != 1 || a[0] != b[0] {
		t.Errorf("checkpoints: %+v and %+v, %v; want the same one in both homes", a, b, err)
	}
	one.stop(t)
	l.cut(t, 3)
	second.start(t).mustHold(t, "the other replica, started after a cut", "it was set back")
}

// TestLessonL8TamperedRowsStopNoCheckpoint: a row that was edited or taken away is for a verification to tell.
func TestLessonL8TamperedRowsStopNoCheckpoint(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		b := l.run(t, 6)
		l.unguarded(t)
		l.exec(t, `UPDATE audit_log SET action = 'x', body = 'unreadable' WHERE seq = 3`, `DELETE FROM audit_log WHERE seq = 5`, `DELETE FROM audit_frontier`)
		b.change(t, 2)
		b.sign(t)
		again := l.start(t)
		again.mustHold(t, "after a restart", "")
		again.mustProve(t, "verified", audit.ExitTampered)
		list, err := again.Checkpoints(t.Context())
		if err != nil || len(list) == 0 || list[len(list)-1].Size != 9 {
			t.Errorf("checkpoints: %+v, %v; want one of 9 rows", list, err)
		}
	})
}

// TestCheckpointKilledBetweenItsSteps: what a process leaves behind at each step, the next one mends.
func TestCheckpointKilledBetweenItsSteps(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		l.run(t, 40)
		for _, tt := range []struct {
			name string
			do   []string
		}{
			{"before anything was kept", []string{`DELETE FROM audit_checkpoints`, `DELETE FROM audit_frontier`}},
			{"with the peaks of another tree", []string{`UPDATE audit_frontier SET size = 3`}},
			{"with peaks that are none", []string{`UPDATE audit_frontier SET size = 40`}},
			{"with the checkpoint lost", []string{`DELETE FROM audit_checkpoints`}},
		} {
			l.exec(t, tt.do...)
			next := l.start(t)
			next.change(t, 1)
			next.sign(t)
			list, err := next.Checkpoints(t.Context())
			if err != nil || len(list) == 0 {
				t.Fatalf("%s: %+v, %v; want a checkpoint", tt.name, list, err)
			}
			want := next.mustTree(t)
			if cp := list[len(list)-1]; cp.Size != want.Size() || cp.Root != want.Root() {
				t.Errorf("%s: a checkpoint of %d rows, want %d and the root of all rows", tt.name, cp.Size, want.Size())
			}
		}
		// Kept in the database and not in the anchor: the next look brings it.
		home := l.home
		l.home = t.TempDir()
		if note, err := os.ReadFile(filepath.Join(home, "instance.json")); err == nil {
			if err := os.WriteFile(filepath.Join(l.home, "instance.json"), note, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		b := l.start(t)
		b.change(t, 1)
		b.sign(t)
		l.home = home
		b = l.start(t)
		if err := b.Watch(t.Context()); err != nil {
			t.Fatal(err)
		}
		list, err := b.Checkpoints(t.Context())
		if err != nil || list[len(list)-1].Size != b.mustTree(t).Size() {
			t.Errorf("the anchor of the home ends at %+v, %v; want the newest", list, err)
		}
	})
}

func (b brain) mustTree(t testing.TB) *audit.Tree {
	t.Helper()
	rows, err := b.AuditLeaves(t.Context(), 0, 1<<40, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	var tree audit.Tree
	for _, r := range rows {
		tree.Append(r.Body, r.RowHMAC)
	}
	return &tree
}

// TestLinesForARestore: what was revoked stands in every anchor; while the history is in doubt only in that of the home.
func TestLinesForARestore(t *testing.T) {
	bucket, o, _ := targettest.Bucket(t)
	each(t, func(t *testing.T, l *lab) {
		l.anchors = []string{t.TempDir(), bucket + "/" + filepath.Base(t.TempDir()) + t.Name()[strings.LastIndex(t.Name(), "/"):]}
		reach := func(c *custody.Options) { c.Target = o }
		b := l.start(t, reach)
		b.change(t, 2)
		revoke := func(agent string) {
			t.Helper()
			err := b.record(t.Context(), audit.Facts{Action: audit.AgentRevoked, Actor: audit.Actor{Kind: audit.User, ID: "u1"}, Target: audit.Target{ID: agent}})
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-b.AuditNews():
			default:
				t.Error("a revocation: no news for the anchors")
			}
			if err := b.Watch(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		revoke("a1")
		if err := b.PutHold(t.Context(), store.Doubt{Cause: "rolled_back", Reason: "a test", Fork: 2}); err != nil {
			t.Fatal(err)
		}
		revoke("a2")
		instance, err := b.Instance(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for name, tt := range map[string]struct {
			home    string
			anchors []string
			want    string
		}{
			"the home": {l.home, nil, "[a1 a2]"}, "a directory": {"", l.anchors[:1], "[a1]"}, "a bucket": {"", l.anchors[1:], "[a1]"}, "all": {l.home, l.anchors, "[a1 a2]"},
		} {
			reader := custody.New(custody.Options{Store: b.Store, Now: time.Now, Home: tt.home, Anchors: tt.anchors, Target: o, ReadOnly: true})
			lines, err := reader.Lines(t.Context(), instance)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, line := range lines {
				got = append(got, line.Facts.TargetID)
			}
			if fmt.Sprint(got) != tt.want {
				t.Errorf("lines in %s: %v, want %s; %v", name, got, tt.want, reader.Troubles())
			}
		}
	})
}

// TestLinesOfALogThatWasSetBack: what is revoked in a hold stands in the home's anchor, though entries that were lost had
// lines with higher numbers, and takes no place of theirs; when the hold ends it comes to the other anchors.
func TestLinesOfALogThatWasSetBack(t *testing.T) {
	bucket, o, _ := targettest.Bucket(t)
	each(t, func(t *testing.T, l *lab) {
		l.anchors = []string{bucket + "/" + filepath.Base(t.TempDir()) + t.Name()[strings.LastIndex(t.Name(), "/"):]}
		reach := func(c *custody.Options) { c.Target = o }
		revoke := func(b brain, agents ...string) {
			t.Helper()
			for _, agent := range agents {
				err := b.record(t.Context(), audit.Facts{Action: audit.AgentRevoked, Actor: audit.Actor{Kind: audit.User, ID: "u1"}, Target: audit.Target{ID: agent}})
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := b.Watch(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		lines := func(when, home string, anchors []string, want string) {
			t.Helper()
			s := storetest.Open(t, l.url)
			defer s.Close()
			instance, err := s.Instance(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			reader := custody.New(custody.Options{Store: s, Now: time.Now, Home: home, Anchors: anchors, Target: o, ReadOnly: true})
			found, err := reader.Lines(t.Context(), instance)
			got := map[string]bool{}
			for _, line := range found {
				if line.Action == audit.AgentRevoked {
					got[line.Facts.TargetID] = true
				}
			}
			if err != nil || fmt.Sprint(got) != want {
				t.Errorf("%s: lines %v, %v; want %s; %v", when, got, err, want, reader.Troubles())
			}
		}
		b := l.start(t, reach)
		b.change(t, 2)
		revoke(b, "a1", "a2", "a3", "a4", "a5")
		b.sign(t)
		l.cut(t, 3)
		after := l.start(t, reach)
		after.mustHold(t, "after the cut", "it was set back")
		revoke(after, "b1")
		if err := b.try(t); !errors.Is(err, store.ErrHistoryInDoubt) { // a brain that goes on, and notices now
			t.Errorf("a change by a brain that goes on: %v, want ErrHistoryInDoubt", err)
		}
		revoke(b, "b2")
		lines("in the hold, at home", l.home, nil, "map[a1:true a2:true a3:true a4:true a5:true b1:true b2:true]")
		lines("in the hold, elsewhere", "", l.anchors, "map[a1:true a2:true a3:true a4:true a5:true]")
		if _, err := after.Acknowledge(t.Context(), custody.Acknowledgement{By: audit.Actor{Kind: audit.CLI, ID: "root"}, Reason: "it was me"}); err != nil {
			t.Fatal(err)
		}
		if err := after.Watch(t.Context()); err != nil {
			t.Fatal(err)
		}
		lines("after the hold, elsewhere", "", l.anchors, "map[a1:true a2:true a3:true a4:true a5:true b1:true b2:true]")
	})
}

// TestNewAnchorIsNotedUntilItIs: where the entry of a new anchor can't be written the next look writes it.
func TestNewAnchorIsNotedUntilItIs(t *testing.T) {
	l := &lab{url: storetest.SQLite(t), home: t.TempDir()}
	b := l.run(t, 3)
	if err := os.RemoveAll(filepath.Join(l.home, "anchors")); err != nil {
		t.Fatal(err)
	}
	l.exec(t, `CREATE TRIGGER refuse BEFORE INSERT ON audit_log BEGIN SELECT RAISE(ABORT, 'refused by a test'); END`)
	next := custody.New(custody.Options{Store: b.Store, Now: time.Now, Home: l.home})
	if err := next.Examine(t.Context()); err == nil {
		t.Error("nothing could be written: no error, want one")
	}
	l.exec(t, `DROP TRIGGER refuse`)
	for range 2 {
		if err := next.Examine(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	page, err := b.AuditLog(t.Context(), store.AuditFilter{Action: string(audit.AnchorStarted)})
	if err != nil || len(page.Items) != 1 {
		t.Errorf("%d entries say that an anchor began, %v; want 1", len(page.Items), err)
	}
}

// TestProof: the proof of any entry holds for whoever has the public key.
func TestProof(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		b := l.run(t, 5)
		b.change(t, 3) // not covered by a checkpoint yet
		key := b.AuditKeys()[0].PublicKey()
		for seq := int64(1); seq <= 9; seq++ {
			p, err := b.Prove(t.Context(), seq)
			if err != nil {
				t.Fatal(err)
			}
			if _, body, err := p.Check(key); err != nil || body.Seq != seq {
				t.Errorf("proof of %d: entry %d, %v", seq, body.Seq, err)
			}
		}
		for _, seq := range []int64{0, 10} {
			if _, err := b.Prove(t.Context(), seq); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("proof of %d: %v, want ErrNotFound", seq, err)
			}
		}
	})
}

// TestLessonL1SwappedFile: nothing is answered as written into a file that is not there any more; what lies there instead
// is opened as at a start, and holds.
func TestLessonL1SwappedFile(t *testing.T) {
	l := &lab{url: storetest.SQLite(t), home: t.TempDir()}
	l.run(t, 3).stop(t)
	copyFile(t, l.path(), l.path()+".copy")
	b := l.run(t, 5)
	if err := os.Remove(l.path()); err != nil {
		t.Fatal(err)
	}
	gone := func(when string) {
		t.Helper()
		if err := b.try(t); !errors.Is(err, store.ErrDatabaseGone) || !store.Unavailable(err) {
			t.Errorf("%s: a change: %v, want ErrDatabaseGone", when, err)
		}
		if err := b.Ingest(t.Context(), func(*store.IngestTx) error { return nil }); !errors.Is(err, store.ErrDatabaseGone) {
			t.Errorf("%s: events: %v, want ErrDatabaseGone", when, err)
		}
	}
	gone("the file was deleted")
	if err := b.Watch(t.Context()); !errors.Is(err, store.ErrDatabaseGone) {
		t.Errorf("a look at the deleted file: %v, want ErrDatabaseGone", err)
	}
	if _, err := os.Stat(l.path()); err == nil {
		t.Error("a new file was made, want none")
	}
	copyFile(t, l.path()+".copy", l.path())
	gone("an older copy lies there, and nobody looked yet")
	if err := b.Watch(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.mustHold(t, "the older copy", "does not hold entry 9")
	if err := b.Ingest(t.Context(), func(*store.IngestTx) error { return nil }); err != nil {
		t.Errorf("events while held: %v, want them taken", err)
	}
	if _, err := b.Acknowledge(t.Context(), custody.Acknowledgement{By: audit.Actor{Kind: audit.CLI}, Reason: "restored under the brain"}); err != nil {
		t.Fatal(err)
	}
	b.mustHold(t, "acknowledged", "")
	b.sign(t)
	b.mustProve(t, "acknowledged", 0)
}

// TestLessonL1SwappedInTheMiddleOfAChange: a change that began before the file was taken away is not answered as made.
func TestLessonL1SwappedInTheMiddleOfAChange(t *testing.T) {
	l := &lab{url: storetest.SQLite(t), home: t.TempDir()}
	b := l.run(t, 2)
	err := b.Update(t.Context(), func(tx *store.Tx) error {
		tx.Record(audit.New(audit.Facts{Action: audit.AuthLogout, Actor: audit.Actor{Kind: audit.User, ID: "u1"}}))
		return os.Rename(l.path(), l.path()+".away")
	})
	if !errors.Is(err, store.ErrDatabaseGone) {
		t.Errorf("got %v, want ErrDatabaseGone", err)
	}
}

// TestMistypedSecretStartsAndHoldsNothing: a key that may not sign knows no anchor, which is no roll-back.
func TestMistypedSecretStartsAndHoldsNothing(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		l.run(t, 3)
		o := storetest.Options(l.url)
		secrets := storetest.Secrets
		secrets.Audit = []byte("mistyped-audit-secret-mistyped-audit-secret")
		o.Secrets = func(context.Context, bool) (store.Secrets, error) { return secrets, nil }
		s, err := store.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		c := custody.New(custody.Options{Store: s, Now: time.Now, Home: l.home})
		for name, do := range map[string]func(context.Context) error{"examine": c.Examine, "watch": c.Watch, "checkpoint": c.Checkpoint} {
			if err := do(t.Context()); err != nil {
				t.Errorf("%s: %v, want none", name, err)
			}
		}
		if h, err := s.Hold(t.Context()); err != nil || h != nil {
			t.Errorf("hold %+v, %v; want none", h, err)
		}
		l.start(t).mustHold(t, "with the right secret", "")
	})
}

// TestPruneKeepsWhatWasAbandoned: a prune takes the entry away that names the histories of a lost log, and its own still
// names them: the home's anchor does not speak against the database again.
func TestPruneKeepsWhatWasAbandoned(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		l.run(t, 6)
		l.cut(t, 0)
		l.exec(t, `DELETE FROM audit_generations`, `DELETE FROM audit_checkpoints`)
		b := l.start(t)
		if _, err := b.Acknowledge(t.Context(), custody.Acknowledgement{By: audit.Actor{Kind: audit.CLI, ID: "root"}, Reason: "it was me"}); err != nil {
			t.Fatal(err)
		}
		b.change(t, 3)
		b.sign(t)
		for range 2 { // the second takes the first one's entry away
			head, err := b.AuditHead(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			prefix, err := b.VerifyPrefix(t.Context(), head.Seq, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.RecordPruned(t.Context(), store.Prune{Prefix: prefix, By: store.By{Actor: audit.Actor{Kind: audit.CLI}}}); err != nil {
				t.Fatal(err)
			}
			p, err := b.NewestPruned(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := b.DeletePruned(t.Context(), p, func(int64) error { return nil }); err != nil {
				t.Fatal(err)
			}
			l.start(t).mustHold(t, "after a prune", "")
			b.mustProve(t, "after a prune", 0)
		}
	})
}
