package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// attack opens url as somebody who can write the tables, with the guards taken away.
func attack(t testing.TB, url string) *sql.DB {
	t.Helper()
	driver, dsn := "pgx", url
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		driver, dsn = "sqlite3", "file:"+path+"?_pragma=busy_timeout(10000)"
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for _, trigger := range []string{"audit_log_update", "audit_log_delete", "audit_log_insert", "audit_personal_update", "audit_personal_delete", "audit_log_truncate"} {
		if driver == "sqlite3" {
			mustExec(t, db, `DROP TRIGGER IF EXISTS `+trigger)
			continue
		}
		table := "audit_log"
		if strings.HasPrefix(trigger, "audit_personal") {
			table = "audit_personal"
		}
		mustExec(t, db, `DROP TRIGGER IF EXISTS `+trigger+` ON `+table)
	}
	return db
}

func mustExec(t testing.TB, db *sql.DB, text string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), text); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

// cut deletes all entries behind seq.
func cut(t testing.TB, db *sql.DB, seq int) {
	t.Helper()
	mustExec(t, db, fmt.Sprintf(`DELETE FROM audit_log WHERE seq > %d`, seq))
	mustExec(t, db, fmt.Sprintf(`DELETE FROM audit_personal WHERE seq > %d`, seq))
}

// TestRollbackIsNoticed: a tail that this process saw committed is gone; changes stop on every replica, and no restart and
// no hand that takes the hold away lets them go on; who acknowledges does, and begins a new history.
func TestRollbackIsNoticed(t *testing.T) {
	for _, tt := range []struct {
		name string
		fork int64
		do   func(t testing.TB, db *sql.DB, url string)
	}{
		{"the tail is cut", 4, func(t testing.TB, db *sql.DB, _ string) { cut(t, db, 4) }},
		{"the tail is cut, and its personal parts are left", 4, func(t testing.TB, db *sql.DB, _ string) { mustExec(t, db, `DELETE FROM audit_log WHERE seq > 4`) }},
		{"it is cut and grows again", 4, func(t testing.TB, db *sql.DB, url string) {
			cut(t, db, 4)
			mustRecord(t, storetest.Open(t, url), 9)
		}},
		{"one row inside is gone: the newest of this process", 5, func(t testing.TB, db *sql.DB, url string) {
			mustRecord(t, storetest.Open(t, url), 2)
			mustExec(t, db, `DELETE FROM audit_log WHERE seq = 6`)
		}},
		{"everything is gone", -1, func(t testing.TB, db *sql.DB, _ string) { cut(t, db, 0) }},
		{"the boundary's table says that it was pruned, and no entry does", 4, func(t testing.TB, db *sql.DB, _ string) {
			cut(t, db, 4)
			mustExec(t, db, `UPDATE audit_boundary SET through = 100`)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			storetest.EachURL(t, func(t *testing.T, url string) {
				s := storetest.Open(t, url)
				mustRecord(t, s, 5)
				db := attack(t, url)
				tt.do(t, db, url)
				err := record(t.Context(), s, change())
				if !errors.Is(err, store.ErrHistoryInDoubt) || !strings.Contains(err.Error(), "acknowledge-rollback") || !strings.Contains(err.Error(), "entry 6") {
					t.Fatalf("a change: %v, want ErrHistoryInDoubt, naming entry 6 and the way out", err)
				}
				mustBeHeld(t, s, "the one that noticed")
				h, err := s.Hold(t.Context())
				if err != nil || h == nil || h.LostSeq != 6 || (h.Fork == nil) != (tt.fork < 0) || h.Fork != nil && *h.Fork != tt.fork {
					t.Errorf("hold: %+v, %v; want entry 6 lost and fork %d", h, err, tt.fork)
				}
				found := log(t, s, store.AuditFilter{Action: string(audit.HistoryInDoubt)})
				if len(found) != 1 || !strings.Contains(string(found[0].Details), `"lost_seq":6`) {
					t.Errorf("recorded: %+v, want one entry that names the lost one", found)
				}
				other := storetest.Open(t, url)
				mustBeHeld(t, other, "after a restart")
				mustExec(t, db, `DELETE FROM audit_hold`)
				mustBeHeld(t, s, "when its row was taken away")
				mustBeHeld(t, storetest.Open(t, url), "when its row was taken away, after a restart")

				verified := verifyStore(t, s, store.VerifyOptions{})
				before := verified.Exit()
				if _, err := other.StartGeneration(t.Context(), store.NewGeneration{Cause: "acknowledged", Reason: "it was me", Fork: max(tt.fork, 0), Defuse: &store.Revival{}}); err != nil {
					t.Fatal(err)
				}
				for name, one := range map[string]*store.Store{"who acknowledged": other, "the other replica": s, "a new one": storetest.Open(t, url)} {
					if err := record(t.Context(), one, change()); err != nil || one.AuditErr() != nil {
						t.Errorf("%s, after it was acknowledged: %v, %v", name, err, one.AuditErr())
					}
				}
				verified = verifyStore(t, s, store.VerifyOptions{})
				if after := verified.Exit(); after != before || before != 0 && tt.fork == 4 {
					t.Errorf("verified: exit %d, then %d; want the same, and 0 where nothing is missing inside", before, after)
				}
			})
		})
	}
}

// TestPersonalPartsOfNoEntryStopNothing: what stands where the parts of the next entries belong makes way for them, and only
// that may go.
func TestPersonalPartsOfNoEntryStopNothing(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		mustRecord(t, s, 3)
		db := storetest.DB(t, url)
		for ahead := 1; ahead <= 2; ahead++ {
			mustExec(t, db, fmt.Sprintf(`INSERT INTO audit_personal (seq, role, subject, json) SELECT max(seq) + %d, 'actor', 'mallory', '{}' FROM audit_log`, ahead))
		}
		if found := verifyStore(t, s, store.VerifyOptions{}); found.Exit() == 0 {
			t.Error("verified with parts of no entry: exit 0, want a finding")
		}
		mustRecord(t, s, 3)
		if found := verifyStore(t, s, store.VerifyOptions{}); found.Exit() != 0 {
			t.Errorf("verified afterwards: %+v, want exit 0", found)
		}
		if _, err := db.ExecContext(t.Context(), `DELETE FROM audit_personal WHERE seq = (SELECT max(seq) FROM audit_log)`); err == nil {
			t.Error("the parts of the newest entry were deleted, want that refused")
		}
	})
}

// TestUnsignedEntriesHideNothing: whoever can write the tables puts unsigned entries behind the ones that count, as many as
// he likes: the hold stands, and the log begins where it did.
func TestUnsignedEntriesHideNothing(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		mustRecord(t, s, 5)
		prefix, err := s.VerifyPrefix(t.Context(), 4, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.RecordPruned(t.Context(), store.Prune{Prefix: prefix, By: store.By{Actor: audit.Actor{Kind: audit.CLI}}}); err != nil {
			t.Fatal(err)
		}
		p, err := s.NewestPruned(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.DeletePruned(t.Context(), p, func(int64) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if err := s.PutHold(t.Context(), store.Doubt{Cause: "rolled_back", Reason: "a test", Fork: 4}); err != nil {
			t.Fatal(err)
		}
		generation, err := s.Generation(t.Context())
		if err != nil || generation == "" {
			t.Fatalf("generation %q, %v; want the first", generation, err)
		}
		db := attack(t, url)
		columns := `ts, actor_kind, target_type, outcome, details, kid, body, prev_row_hmac`
		for i, action := range []audit.Action{audit.HistoryInDoubt, audit.GenerationStarted, audit.Pruned, audit.PruneCompleted} {
			for n := range 12 {
				seq := 1000 + 100*i + n
				mustExec(t, db, fmt.Sprintf(`INSERT INTO audit_log (seq, id, action, row_hmac, %s) SELECT %d, '%s', '%s', '%064x', %s FROM audit_log WHERE seq = 5`,
					columns, seq, id.Random(), action, seq, columns))
			}
		}
		mustExec(t, db, `DELETE FROM audit_hold`)
		mustBeHeld(t, s, "its row is gone, and unsigned entries stand behind its entry")
		mustBeHeld(t, storetest.Open(t, url), "after a restart")
		again, err := s.NewestPruned(t.Context())
		if err != nil || again.Seq != p.Seq || again.Through != 4 || again.Completed {
			t.Errorf("pruned: entry %d, to %d, completed %t, %v; want entry %d, to 4, not completed", again.Seq, again.Through, again.Completed, err, p.Seq)
		}
		if g, err := s.Generation(t.Context()); err != nil || g != generation {
			t.Errorf("generation %q, %v; want %q, which the prune names", g, err, generation)
		}
	})
}

// change is an entry that waits while the history is in doubt.
func change() audit.Entry {
	return audit.New(audit.Facts{Action: audit.ProjectChanged, Actor: audit.Actor{Kind: audit.User, ID: "u1"}, Target: audit.Target{ID: "p1"}})
}

// mustBeHeld checks that s makes no change, and goes on with what a hold lets go on.
func mustBeHeld(t testing.TB, s *store.Store, when string) {
	t.Helper()
	if err := record(t.Context(), s, change()); !errors.Is(err, store.ErrHistoryInDoubt) {
		t.Errorf("%s: a change: %v, want ErrHistoryInDoubt", when, err)
	}
	if err := s.AuditErr(); !errors.Is(err, store.ErrHistoryInDoubt) {
		t.Errorf("%s: AuditErr: %v, want ErrHistoryInDoubt", when, err)
	}
	if err := s.TryAudit(t.Context()); !errors.Is(err, store.ErrHistoryInDoubt) {
		t.Errorf("%s: TryAudit: %v, want ErrHistoryInDoubt", when, err)
	}
	login := audit.Facts{Action: audit.AuthLogin, Actor: audit.Actor{Kind: audit.User, ID: "u1"}, Target: audit.Target{ID: "u1"}}
	refused := audit.Facts{Action: audit.ProjectCreated, Outcome: audit.Deny, Actor: audit.Actor{Kind: audit.User, ID: "u1"}}
	if err := record(t.Context(), s, audit.New(login), audit.New(refused)); err != nil {
		t.Errorf("%s: a log-in and a refusal: %v, want them recorded", when, err)
	}
	if err := record(t.Context(), s, audit.New(login), change()); !errors.Is(err, store.ErrHistoryInDoubt) {
		t.Errorf("%s: a change beside a log-in: %v, want ErrHistoryInDoubt", when, err)
	}
}

// TestLessonL6LostInAnEndedHistory: who remembers an entry of a history that ended before it forgets it; one from before
// the fork that is gone is another roll-back.
func TestLessonL6LostInAnEndedHistory(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s, other := storetest.Open(t, url), storetest.Open(t, url)
		mustRecord(t, other, 3)
		mustRecord(t, s, 5)
		db := attack(t, url)
		cut(t, db, 7)
		acknowledging := storetest.Open(t, url)
		if err := acknowledging.PutHold(t.Context(), store.Doubt{Cause: "rolled_back", Reason: "a test", Fork: 7}); err != nil {
			t.Fatal(err)
		}
		if _, err := acknowledging.StartGeneration(t.Context(), store.NewGeneration{Cause: "acknowledged", Fork: 7}); err != nil {
			t.Fatal(err)
		}
		if err := record(t.Context(), s, change()); err != nil {
			t.Errorf("who saw entry 9 of a history that ended at 7: %v, want it to go on", err)
		}
		if err := record(t.Context(), other, change()); err != nil {
			t.Errorf("who saw entry 4, which is there: %v", err)
		}
		late := storetest.Open(t, url)
		mustExec(t, db, `DELETE FROM audit_log WHERE seq >= 5`)
		if err := record(t.Context(), late, change()); !errors.Is(err, store.ErrHistoryInDoubt) {
			t.Errorf("rows of before the fork and the present history gone: %v, want ErrHistoryInDoubt", err)
		}
	})
}

// TestFailoverWithinTheGrace: a standby that lost little took over; the log goes on in a new history by itself. Any other
// loss holds.
func TestFailoverWithinTheGrace(t *testing.T) {
	grace := store.Grace{Time: time.Minute, Entries: 3}
	for _, tt := range []struct {
		name     string
		grace    store.Grace
		timeline string
		keep     int
		held     bool
	}{
		{"two entries lost on a new timeline", grace, "'0000000A'", 5, false},
		{"four entries lost on a new timeline", grace, "'0000000A'", 3, true},
		{"two entries lost on the same timeline", grace, "'00000001'", 5, true},
		{"two entries lost without a grace", store.Grace{}, "'0000000A'", 5, true},
		{"all that was seen lost on a new timeline", store.Grace{Time: time.Minute, Entries: 100}, "'0000000A'", 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := storetest.Postgres(t)
			o := storetest.Options(url)
			o.Grace = tt.grace
			s, err := store.Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			s.SetTimeline("'00000001'")
			was, err := s.Generation(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			mustRecord(t, s, 6)
			cut(t, attack(t, url), tt.keep)
			s.SetTimeline(tt.timeline)
			err = record(t.Context(), s, change())
			if errors.Is(err, store.ErrHistoryInDoubt) != tt.held || !tt.held && err != nil {
				t.Fatalf("got %v, want a hold: %t", err, tt.held)
			}
			if tt.held {
				mustBeHeld(t, s, "after the failover")
				return
			}
			list, err := s.Generations(t.Context())
			if err != nil || len(list) != 2 || list[1].Previous != was || list[1].Fork != int64(tt.keep) || list[1].Cause != "failover" {
				t.Errorf("generations: %+v, %v; want a second one that forks at %d", list, err, tt.keep)
			}
			if found := log(t, s, store.AuditFilter{Action: string(audit.HistoryInDoubt)}); len(found) != 1 {
				t.Errorf("%d entries of doubt, want 1", len(found))
			}
			mustRecord(t, s, 2)
			if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != 0 {
				t.Errorf("verified: exit %d, %+v; want 0", r.Exit(), r.First)
			}
		})
	}
}

// TestLessonL15AcknowledgingEndsSessions: what an older state brings back to life is void when a roll-back is acknowledged.
func TestLessonL15AcknowledgingEndsSessions(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		mustRecord(t, s, 1)
		if _, err := s.PutSetupToken(t.Context(), "hash", time.Hour); err != nil {
			t.Fatal(err)
		}
		now := store.TimeOf(time.Now())
		if _, err := s.Lease(t.Context(), "backup", "me", now, store.TimeOf(now.Add(time.Hour))); err != nil {
			t.Fatal(err)
		}
		for _, revival := range []*store.Revival{nil, {}} {
			defuse := revival != nil
			if _, err := s.StartGeneration(t.Context(), store.NewGeneration{Cause: "acknowledged", Reason: "a test", Fork: 2, Defuse: revival}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.RestoreHeld(t.Context()); (err == nil) != defuse {
				t.Errorf("defused %t: what waits for a release: %v", defuse, err)
			}
			if open, err := s.SetupOpen(t.Context(), now); err != nil || open == defuse {
				t.Errorf("defused %t: the set-up token works: %t, %v", defuse, open, err)
			}
			if free, err := s.Lease(t.Context(), "backup", "you", now, store.TimeOf(now.Add(time.Hour))); err != nil || free {
				t.Errorf("defused %t: the lease of a live brain's backup is free: %t, %v; want it held", defuse, free, err)
			}
		}
		found := log(t, s, store.AuditFilter{Action: string(audit.RollbackAccepted)})
		if len(found) != 2 || !strings.Contains(string(found[0].Details), `"defused":{"leases":0,"sessions":0,"setup_tokens":1}`) || strings.Contains(string(found[1].Details), "leases") {
			t.Errorf("recorded: %+v, want what was made void, once", found)
		}
	})
}

// TestRevocationThatNoticesARollBackIsMade: what goes on in a hold does so, too, when it is what begins the hold.
func TestRevocationThatNoticesARollBackIsMade(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		p, err := s.CreateProject(t.Context(), store.Project{Slug: "shop", Name: "Shop", Environment: "production", Timezone: "UTC", DefaultSchedulerOwner: "beat"}, operator)
		if err != nil {
			t.Fatal(err)
		}
		user := id.Random()
		for _, tt := range []struct {
			name string
			do   func(agent id.ID) error
			want string // the entry behind the one that says why
		}{
			{"a revocation", func(agent id.ID) error { return s.RevokeAgent(t.Context(), p, agent, operator) }, string(audit.AgentRevoked)},
			{"an erasure", func(id.ID) error {
				_, err := s.EraseAudit(t.Context(), store.Person{User: user}, "asked for it", operator)
				return err
			}, string(audit.Erased)},
		} {
			a, err := s.MintAgent(t.Context(), p, "web", "hash of "+tt.name, "", operator)
			if err != nil {
				t.Fatal(err)
			}
			err = s.Update(t.Context(), func(tx *store.Tx) error {
				tx.Record(audit.New(audit.Facts{Action: audit.AuthLogin, Actor: audit.Actor{Kind: audit.User, ID: user.String(), Label: "ann@example.org"}, Target: audit.Target{ID: user.String(), Label: "ann@example.org"}}))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			mustRecord(t, s, 2)
			head, err := s.AuditHead(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, table := range []string{"audit_personal", "audit_log"} {
				mustExec(t, attack(t, url), fmt.Sprintf(`DELETE FROM %s WHERE seq > %d`, table, head.Seq-2))
			}
			if err := tt.do(a.ID); err != nil {
				t.Errorf("%s that notices: %v, want it made", tt.name, err)
			}
			if h, err := s.Hold(t.Context()); err != nil || h == nil {
				t.Errorf("%s: hold %+v, %v; want one", tt.name, h, err)
			}
			list := log(t, s, store.AuditFilter{})
			if list[0].Action != tt.want || list[1].Action != string(audit.HistoryInDoubt) {
				t.Errorf("%s: recorded %s behind %s", tt.name, list[0].Action, list[1].Action)
			}
			if err := record(t.Context(), s, audit.New(audit.Facts{Action: audit.ProjectChanged, Actor: operator.Actor})); !errors.Is(err, store.ErrHistoryInDoubt) {
				t.Errorf("another change after %s: %v, want ErrHistoryInDoubt", tt.name, err)
			}
			if _, err := s.StartGeneration(t.Context(), store.NewGeneration{Cause: "acknowledged", Reason: "a test", Fork: head.Seq - 2}); err != nil {
				t.Fatal(err)
			}
			_ = s.RevokeAgent(t.Context(), p, a.ID, operator) // its name is free again
		}
	})
}

func TestLossIsMeasured(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		mustRecord(t, s, 8)
		at := log(t, s, store.AuditFilter{})[3].TS
		db := attack(t, url)
		mustExec(t, db, `DELETE FROM audit_log WHERE seq > 5`)
		err := record(t.Context(), s, change())
		if want := fmt.Sprintf("; 4 entries since %s are gone", at); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	})
}

// TestTriggerThatEatsRows: a change whose entry the database swallows does not commit.
func TestTriggerThatEatsRows(t *testing.T) {
	url := storetest.Postgres(t)
	s := storetest.Open(t, url)
	mustRecord(t, s, 2)
	db := attack(t, url)
	mustExec(t, db, `CREATE FUNCTION eat() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF NEW.actor_id = ''u1'' THEN RETURN NULL; END IF; RETURN NEW; END'`)
	mustExec(t, db, `CREATE TRIGGER eat BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION eat()`)
	if err := record(t.Context(), s, note("eaten")); !errors.Is(err, store.ErrAuditFailed) {
		t.Errorf("a swallowed entry: %v, want ErrAuditFailed", err)
	}
	mustExec(t, db, `DROP TRIGGER eat ON audit_log`)
	mustExec(t, db, `CREATE FUNCTION vanish() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM audit_log WHERE seq = NEW.seq; RETURN NEW; END'`)
	mustExec(t, db, `CREATE CONSTRAINT TRIGGER vanish AFTER INSERT ON audit_log INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION vanish()`)
	if err := record(t.Context(), s, note("vanishes at commit")); err != nil {
		t.Fatal(err)
	}
	if err := record(t.Context(), s, note("next")); !errors.Is(err, store.ErrHistoryInDoubt) {
		t.Errorf("the change after one whose entry vanished at commit: %v, want ErrHistoryInDoubt", err)
	}
}

// TestUnsureCommitIsNotRemembered: an entry whose COMMIT was not answered is not missed.
func TestUnsureCommitIsNotRemembered(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		mustRecord(t, s, 2)
		ctx, cancel := context.WithCancel(t.Context())
		err := s.Update(ctx, func(tx *store.Tx) error { tx.Record(note("gone")); cancel(); return nil })
		if err == nil {
			t.Error("a cancelled change: no error")
		}
		mustRecord(t, s, 2)
		if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != 0 || r.Exist != 5 {
			t.Errorf("exit %d, %d rows; want 0, 5", r.Exit(), r.Exist)
		}
	})
}

// TestChainIsDurable: a transaction that a crash could lose does not commit.
func TestChainIsDurable(t *testing.T) {
	t.Run("postgres", func(t *testing.T) {
		s := storetest.Open(t, storetest.Postgres(t))
		err := s.Update(t.Context(), func(tx *store.Tx) error {
			tx.Record(note("fast"))
			_, err := tx.ExecContext(t.Context(), `SET LOCAL synchronous_commit = off`)
			return err
		})
		if !errors.Is(err, store.ErrAuditFailed) || !strings.Contains(err.Error(), "synchronous_commit") {
			t.Errorf("synchronous_commit = off: %v, want it refused by name", err)
		}
	})
	t.Run("sqlite", func(t *testing.T) {
		s := storetest.Open(t, storetest.SQLite(t))
		err := s.Update(t.Context(), func(tx *store.Tx) error {
			tx.Record(note(1))
			var level int
			if err := tx.QueryRowContext(t.Context(), `PRAGMA synchronous`).Scan(&level); err != nil || level != 2 {
				t.Errorf("synchronous: %d, %v; want 2 (FULL)", level, err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// TestGuards: the triggers refuse what accidents do.
func TestGuards(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		mustRecord(t, s, 3)
		driver, dsn := "pgx", url
		if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
			driver, dsn = "sqlite3", "file:"+path
		}
		db, err := sql.Open(driver, dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		refused := []string{
			`UPDATE audit_log SET action = 'x' WHERE seq = 2`, `DELETE FROM audit_log WHERE seq = 2`, `DELETE FROM audit_log`,
			`UPDATE audit_personal SET json = '{}' WHERE seq = 2`, `DELETE FROM audit_personal WHERE seq = 2`,
		}
		if driver == "pgx" {
			refused = append(refused, `TRUNCATE audit_log`, `TRUNCATE audit_personal`)
		} else {
			refused = append(refused, `INSERT OR REPLACE INTO audit_log SELECT * FROM audit_log WHERE seq = 2`)
		}
		for _, text := range refused {
			if _, err := db.ExecContext(t.Context(), text); err == nil || !strings.Contains(err.Error(), "append-only") {
				t.Errorf("%s: %v, want it refused", text, err)
			}
		}
		for _, text := range []string{
			`UPDATE audit_personal SET subject = NULL, salt = NULL, json = NULL, erased_by = 9 WHERE seq = 2`,                            // an erasure
			`UPDATE audit_boundary SET through = 2`, `DELETE FROM audit_personal WHERE seq <= 2`, `DELETE FROM audit_log WHERE seq <= 2`, // a prune
		} {
			if _, err := db.ExecContext(t.Context(), text); err != nil {
				t.Errorf("%s: %v, want it allowed", text, err)
			}
		}
		if _, err := db.ExecContext(t.Context(), `DELETE FROM audit_log WHERE seq = 3`); err == nil {
			t.Error("a row beyond the boundary: deleted, want it refused")
		}
	})
}

// TestTamperingThroughTheDatabase flips each column of a row in the real tables: verify finds the row.
func TestTamperingThroughTheDatabase(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		mustRecord(t, s, 4)
		db := attack(t, url)
		lite := strings.HasPrefix(url, "sqlite:")
		value := func(postgres, sqlite string) string {
			if lite {
				return sqlite
			}
			return postgres
		}
		for _, tt := range []struct{ column, value string }{
			{"id", value(`'01890a5d-ac96-774b-bcce-b302099a8057'`, `x'01890a5dac96774bbcceb302099a8057'`)},
			{"ts", value(`ts + interval '1 microsecond'`, `ts + 1`)},
			{"actor_kind", `'cli'`},
			{"actor_id", `'u2'`},
			{"actor_id", `NULL`},
			{"project_id", `'p'`},
			{"project_label", `''`},
			{"action", `'auth.logout'`},
			{"target_type", `NULL`},
			{"target_id", `'u3'`},
			{"target_label", `'x'`},
			{"outcome", `'deny'`},
			{"details", `'{}'`},
			{"request_id", `'r2'`},
			{"kid", `'0000000000000000'`},
			{"actor_personal", `NULL`},
			{"target_personal", `'00'`},
			{"body", value(`body || ' '::bytea`, `x'7b7d'`)},
			{"prev_row_hmac", `NULL`},
			{"row_hmac", `'00'`},
		} {
			change := `UPDATE audit_log SET ` + tt.column + ` = ` + tt.value + ` WHERE seq = 3`
			mustExec(t, db, `CREATE TABLE before AS SELECT * FROM audit_log WHERE seq = 3`)
			mustExec(t, db, change)
			r := verifyStore(t, s, store.VerifyOptions{})
			if r.Exit() != audit.ExitTampered || r.First == nil || r.First.Seq != 3 {
				t.Errorf("%s: exit %d, first bad %+v; want 1 at row 3", change, r.Exit(), r.First)
			}
			mustExec(t, db, `DELETE FROM audit_log WHERE seq = 3`)
			mustExec(t, db, `INSERT INTO audit_log SELECT * FROM before`)
			mustExec(t, db, `DROP TABLE before`)
		}
		mustExec(t, db, `INSERT INTO audit_log SELECT -7, id, ts, actor_kind, actor_id, project_id, project_label, action, target_type, target_id, target_label, outcome,
			details, request_id, kid, actor_personal, target_personal, body, prev_row_hmac, row_hmac FROM audit_log WHERE seq = 3`)
		if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != audit.ExitTampered || r.First.Seq != -7 {
			t.Errorf("a row of number -7: exit %d, %+v; want 1", r.Exit(), r.First)
		}
		mustExec(t, db, `DELETE FROM audit_log WHERE seq = -7`)
		mustExec(t, db, `DELETE FROM audit_log`)
		if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != audit.ExitTampered || r.Faults[audit.PersonalEdited] != 1 {
			t.Errorf("a wiped log, and what it said of persons is still there: exit %d, %v; want 1", r.Exit(), r.Faults)
		}
		mustExec(t, db, `DELETE FROM audit_personal`)
		if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != audit.ExitUnprovable {
			t.Errorf("a wiped log: exit %d, want 3", r.Exit())
		}
	})
}

// TestLessonL8TamperedLogStarts: a broken row never keeps a brain from starting.
func TestLessonL8TamperedLogStarts(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		mustRecord(t, s, 3)
		db := attack(t, url)
		mustExec(t, db, `UPDATE audit_log SET action = 'x' WHERE seq = 2`)
		again := storetest.Open(t, url)
		mustRecord(t, again, 1)
		if r := verifyStore(t, again, store.VerifyOptions{}); r.Exit() != 1 || r.First.Seq != 2 {
			t.Errorf("exit %d, %+v; want 1 at row 2", r.Exit(), r.First)
		}
	})
}

// TestLessonA31ClocksOfTwoReplicas: SQLite's clock is the host's; a step back never stops the chain.
func TestLessonA31ClocksOfTwoReplicas(t *testing.T) {
	url := storetest.SQLite(t)
	c := newClock()
	s := openAt(t, url, c)
	for _, step := range []time.Duration{0, time.Second, -3 * time.Second, -time.Hour, 2 * time.Hour, -4 * time.Minute} {
		c.add(step)
		mustRecord(t, s, 1)
	}
	var got []string
	for _, e := range slices.Backward(log(t, s, store.AuditFilter{})) {
		got = append(got, e.TS.Format("15:04:05"))
	}
	want := "[03:04:05 03:04:05 03:04:06 03:04:06 02:04:03 04:04:03 04:04:03]"
	if fmt.Sprint(got) != want {
		t.Errorf("times: %v, want %s", got, want)
	}
	at := func(clock string) *store.Time {
		v, err := time.Parse("2006-01-02 15:04:05", "2026-01-02 "+clock)
		if err != nil {
			t.Fatal(err)
		}
		when := store.TimeOf(v)
		return &when
	}
	for _, tt := range []struct {
		from, to string
		want     []int64
	}{
		{"", "03:04:06", []int64{5, 2, 1}},
		{"02:04:03", "03:04:06", []int64{5, 2, 1}},
		{"03:04:06", "", []int64{7, 6, 4, 3}},
		{"04:04:04", "", nil},
		{"02:00:00", "02:30:00", []int64{5}},
		{"", "02:00:00", nil},
	} {
		var f store.AuditFilter
		if tt.from != "" {
			f.From = at(tt.from)
		}
		if tt.to != "" {
			f.To = at(tt.to)
		}
		var seqs []int64
		for _, e := range log(t, s, f) {
			seqs = append(seqs, e.Seq)
		}
		if !slices.Equal(seqs, tt.want) {
			t.Errorf("from %q to %q: entries %v, want %v", tt.from, tt.to, seqs, tt.want)
		}
	}
	if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != 0 {
		t.Errorf("exit %d, want 0", r.Exit())
	}
}

// TestHeadersOfEveryByteValue: whatever stands in a header, the change can be made, and the log verifies.
func TestHeadersOfEveryByteValue(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		var entries []audit.Entry
		for b := range 256 {
			text := "a" + string([]byte{byte(b)}) + "z"
			entries = append(entries, audit.New(audit.Facts{
				Action: audit.AuthLogin, Actor: audit.Actor{Kind: audit.User, ID: text, Label: text, IP: text, UserAgent: text},
				Target: audit.Target{ID: text, Label: text}, Details: map[string]any{"reason": text}, RequestID: text,
			}))
		}
		if err := record(t.Context(), s, entries...); err != nil {
			t.Fatal(err)
		}
		if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != 0 || r.Exist != 257 {
			t.Errorf("exit %d, %d rows; want 0, 257; %+v", r.Exit(), r.Exist, r.First)
		}
	})
}
