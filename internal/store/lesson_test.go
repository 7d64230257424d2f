package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// odd is an instant with microseconds, and more that no database keeps, in a zone that is no whole hour from UTC.
var odd = time.Date(2026, 3, 14, 15, 11, 53, 589793777, time.FixedZone("Kathmandu", 5*3600+45*60))

// openOdd opens url with the clock at odd, which moves with the pointer.
func openOdd(t *testing.T, url string) (*store.Store, *time.Time) {
	t.Helper()
	now := odd
	o := storetest.Options(url)
	o.Now = func() time.Time { return now }
	s, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, &now
}

// micros is the SQL that gives a column's µs since the epoch.
func micros(s *store.Store, column string) string {
	if s.Dialect() == "postgres" {
		return `(extract(epoch FROM ` + column + `) * 1000000)::bigint`
	}
	return column
}

// TestLessonC5ASessionLivesFromItsFirstMoment: its times are the brain's own, to the microsecond, on both databases, so
// that it is neither dead at once nor a moment longer alive than it should be.
func TestLessonC5ASessionLivesFromItsFirstMoment(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s, _ := openOdd(t, url)
		made := session(t, s, account(t, s, "ann@example.com").ID)
		read, _, err := s.SessionUser(t.Context(), made.ID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(made, read); diff != "" {
			t.Errorf("as made (-) and as read (+):\n%s", diff)
		}
		begin := odd.Truncate(time.Microsecond)
		for _, tt := range []struct {
			name string
			at   time.Time
			idle time.Duration
			want bool
		}{
			{"at once", begin, time.Minute, true},
			{"a µs before it has idled too long", begin.Add(time.Minute - time.Microsecond), time.Minute, true},
			{"when it has idled too long", begin.Add(time.Minute), time.Minute, false},
			{"a µs before its end", begin.Add(time.Hour - time.Microsecond), 2 * time.Hour, true},
			{"at its end", begin.Add(time.Hour), 2 * time.Hour, false},
		} {
			if got := read.Live(store.TimeOf(tt.at), tt.idle); got != tt.want {
				t.Errorf("%s: live %v, want %v; %+v", tt.name, got, tt.want, read)
			}
		}
	})
}

// TestLessonC6ExpiryIsTheSameInEveryZone: the database compares instants, whatever the zone of the brain's clock.
func TestLessonC6ExpiryIsTheSameInEveryZone(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s, _ := openOdd(t, url)
		user := account(t, s, "ann@example.com").ID
		session(t, s, user)
		for _, zone := range []*time.Location{time.UTC, odd.Location(), time.FixedZone("Samoa", -11*3600)} {
			for _, tt := range []struct {
				after time.Duration
				want  int
			}{{0, 1}, {time.Hour - time.Microsecond, 1}, {time.Hour, 0}, {14 * time.Hour, 0}} {
				at := odd.Truncate(time.Microsecond).Add(tt.after).In(zone)
				list, err := s.Sessions(t.Context(), user, store.Time{Time: at})
				if err != nil || len(list) != tt.want {
					t.Errorf("sessions at %s: %d, %v; want %d", at, len(list), err, tt.want)
				}
			}
		}
	})
}

// TestLessonF19BothDatabasesKeepTheSameInstant: a time of any zone is stored as the same µs and comes back in UTC.
// Postgres runs these tests in a zone of its own.
func TestLessonF19BothDatabasesKeepTheSameInstant(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s, _ := openOdd(t, url)
		n := session(t, s, account(t, s, "ann@example.com").ID)
		want := "2026-03-14T09:26:53.589793Z"
		if n.IssuedAt.Location() != time.UTC || n.IssuedAt.String() != want {
			t.Errorf("issued at %v, want %s", n.IssuedAt.Time, want)
		}
		rows := storetest.Rows(t, storetest.DB(t, url), `SELECT `+micros(s, "issued_at")+` FROM sessions`)
		if diff := cmp.Diff([][]string{{fmt.Sprint(odd.UnixMicro())}}, rows); diff != "" {
			t.Errorf("stored µs (- want, + got):\n%s", diff)
		}

		project, agent := enrol(t, url, "hash")
		mustConnect(t, s, connect(project, agent, "w", "s1", odd))
		got, err := s.AgentWorkers(t.Context(), project, "", store.TimeOf(odd), 10)
		if err != nil || len(got) != 1 || got[0].LastConnectAt.String() != want {
			t.Errorf("the agent's process: %+v, %v; want one, connected at %s", got, err, want)
		}
	})
}

// linked is a task's event with its parent and root.
func linked(task, parent, root string, at time.Time) string {
	return event("task.received", task, "w", at, fmt.Sprintf(`,"task_name":"j","parent_task_id":%q,"root_task_id":%q`, parent, root))
}

// TestLessonD2LinksStayInTheirProject: whatever two projects send about the same ids, each task has the links that its own
// project told, honest ones are never dropped, and what a link leads to is its own project's or nothing.
func TestLessonD2LinksStayInTheirProject(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		w := startWriter(t, s, noon)
		ids := []string{"t0", "t1", "t2", "t3"}
		rapid.Check(t, func(rt *rapid.T) {
			type task struct{ parent, root string }
			projects := []id.ID{id.Random(), id.Random()}
			told := []map[string]task{{}, {}}
			events := [][]string{nil, nil}
			for i := range rapid.IntRange(1, 10).Draw(rt, "events") {
				p := rapid.IntRange(0, 1).Draw(rt, "project")
				own := rapid.SampledFrom(ids).Draw(rt, "task")
				if _, again := told[p][own]; again {
					continue // which of two claims wins is the fold's affair
				}
				parent := rapid.SampledFrom(ids).Filter(func(x string) bool { return x != own }).Draw(rt, "parent")
				root := rapid.SampledFrom(ids).Draw(rt, "root")
				told[p][own] = task{parent, root}
				events[p] = append(events[p], linked(own, parent, root, noon.Add(time.Duration(i)*time.Second)))
			}
			for p, project := range projects {
				tell(rt, w, project, noon, events[p]...)
			}
			for p, project := range projects {
				for _, one := range ids {
					got, err := s.Task(t.Context(), project, "celery", one)
					want, there := told[p][one]
					if !there {
						if !errors.Is(err, store.ErrNotFound) {
							rt.Errorf("a task of the other project only: %v, want ErrNotFound", err)
						}
						continue
					}
					if err != nil || got.ParentTaskID == nil || got.RootTaskID == nil || *got.ParentTaskID != want.parent || *got.RootTaskID != want.root {
						rt.Errorf("task %s: %+v, %v; want the links %+v", one, got.Task, err, want)
					}
				}
			}
		})
	})
}

// hold takes all connections of the pools but those of one name until the end of the test.
func hold(t *testing.T, s *store.Store, but string) {
	t.Helper()
	for _, p := range s.Pools() {
		if p.Name == but {
			continue
		}
		for range p.Most {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			c, err := p.Conn(ctx)
			cancel()
			if err != nil {
				t.Fatalf("a connection of the pool %s: %v", p.Name, err)
			}
			t.Cleanup(func() { _ = c.Close() })
		}
	}
}

// TestLessonF10ReadersNeverStarveIngest: each use of the database has a budget of connections of its own; with all the
// others taken, events are still committed.
func TestLessonF10ReadersNeverStarveIngest(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		project := id.Random()
		w := startWriter(t, s, noon)
		own := "ingest"
		if s.Dialect() == "sqlite" {
			own = "write"
		}
		hold(t, s, own)
		tell(t, w, project, noon, event("task.received", "t", "w", noon, `,"task_name":"j"`))
		rows := storetest.Rows(t, storetest.DB(t, url), `SELECT task_id FROM tasks`)
		if diff := cmp.Diff([][]string{{"t"}}, rows); diff != "" {
			t.Errorf("tasks (- want, + got):\n%s", diff)
		}
	})
}

// TestLessonF12ConnectionsFitTheServer: a brain's connections are a number known before it starts, four brains fit a
// Postgres as it is delivered, and a lease holds none of them.
func TestLessonF12ConnectionsFitTheServer(t *testing.T) {
	const delivered = 100 - 3 // max_connections less superuser_reserved_connections
	if 4*store.PostgresConns > delivered {
		t.Errorf("four brains need %d connections, Postgres gives %d", 4*store.PostgresConns, delivered)
	}
	s := storetest.Open(t, storetest.Postgres(t))
	sum := 0
	for _, p := range s.Pools() {
		sum += p.Most
	}
	if sum += store.ListenConns; sum != store.PostgresConns {
		t.Errorf("the pools and the listener have %d connections, want the %d that are counted with", sum, store.PostgresConns)
	}
	hold(t, s, "")
	if open, used := s.Connections(); open != sum-store.ListenConns || used != open {
		t.Errorf("with all taken: %d open, %d used, want %d", open, used, sum-store.ListenConns)
	}
}

func TestLessonF12ALeaseHoldsNoConnection(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		now := store.TimeOf(noon)
		if ok, err := s.Lease(t.Context(), "job", "me", now, store.TimeOf(noon.Add(time.Hour))); err != nil || !ok {
			t.Fatalf("lease: %v, %v", ok, err)
		}
		if _, used := s.Connections(); used != 0 {
			t.Errorf("with a lease: %d connections used, want none", used)
		}
	})
}

// TestLessonF13SettingsOutliveARollback: what a session is opened with stays, however its transactions end.
func TestLessonF13SettingsOutliveARollback(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		settings := []string{"SHOW statement_timeout", "SHOW lock_timeout", "SHOW idle_in_transaction_session_timeout", "SHOW timezone", "SHOW synchronous_commit"}
		want := []string{"10s", "3s", "30s", "UTC", "on"}
		if s.Dialect() == "sqlite" {
			settings = []string{"PRAGMA busy_timeout", "PRAGMA journal_mode", "PRAGMA synchronous", "PRAGMA foreign_keys"}
			want = []string{"10000", "wal", "2", "1"}
		}
		for _, p := range s.Pools() {
			c, err := p.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, how := range []string{"at first", "after a rollback", "after an error"} {
				if how != "at first" {
					rollBack(t, c, how == "after an error")
				}
				var got []string
				for _, q := range settings {
					var value string
					if err := c.QueryRowContext(t.Context(), q).Scan(&value); err != nil {
						t.Fatalf("%s: %v", q, err)
					}
					got = append(got, value)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s, %s: %q (- want, + got):\n%s", p.Name, how, settings, diff)
				}
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// rollBack does and undoes a change on c, which may also fail.
func rollBack(t *testing.T, c *sql.Conn, fails bool) {
	t.Helper()
	tx, err := c.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `DELETE FROM leases`); err != nil {
		t.Error(err)
	}
	if fails {
		if _, err := tx.ExecContext(t.Context(), `SELECT no_such_column FROM leases`); err == nil {
			t.Error("a column that is not there was read")
		}
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
}

// TestLessonF14PartitionsComeWhileEventsAreWritten: a partition is attached beside a writer that is in the middle of its
// transaction, no partition takes what belongs into none, and nothing in the program drops one.
func TestLessonF14PartitionsComeWhileEventsAreWritten(t *testing.T) {
	url := storetest.Postgres(t)
	s := storetest.Open(t, url)
	db := storetest.DB(t, url)
	if err := s.EnsurePartitions(t.Context(), noon, 1); err != nil {
		t.Fatal(err)
	}
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(t.Context(), `LOCK TABLE events IN ROW EXCLUSIVE MODE`); err != nil { // as an INSERT does
		t.Fatal(err)
	}
	if err := s.EnsurePartitions(t.Context(), noon, 5); err != nil {
		t.Errorf("while a writer is at work: %v", err)
	}
	if err := s.EnsurePartitions(t.Context(), noon, 5); err != nil {
		t.Errorf("a second time: %v", err)
	}
	days := storetest.Rows(t, db, `SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) LIKE 'FOR VALUES FROM%' FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
		WHERE inhparent = 'events'::regclass ORDER BY 1`)
	days = slices.DeleteFunc(days, func(d []string) bool { // those that opening made, by the machine's clock
		return d[1] == "true" && (d[0] < "events_2026_03_13" || d[0] > "events_2026_03_18")
	})
	var want [][]string
	for day := range 6 {
		want = append(want, []string{"events_" + noon.AddDate(0, 0, day-1).Format("2006_01_02"), "true"})
	}
	if diff := cmp.Diff(want, days); diff != "" {
		t.Errorf("partitions, each of a range, none the default (- want, + got):\n%s", diff)
	}
}

// TestLessonL7NothingDeletesAuditRows: no statement of the program takes a row out of the log but that of a prune, which an
// operator asks for and which is recorded, and the database refuses who tries.
func TestLessonL7NothingDeletesAuditRows(t *testing.T) {
	takes := regexp.MustCompile(`(?is)(DELETE\s+FROM|TRUNCATE(\s+TABLE)?|DROP\s+TABLE(\s+IF\s+EXISTS)?|ALTER\s+TABLE)\s+"?audit_log\b`)
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d files, %v; want the package's", len(files), err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		allowed := 0
		if file == "audit_prune.go" {
			allowed = 1 // DeletePruned
		}
		if found := takes.FindAll(text, -1); len(found) != allowed {
			t.Errorf("%s: %q, want %d; the log is never deleted automatically", file, found, allowed)
		}
	}
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		mustRecord(t, s, 2)
		db := storetest.DB(t, url)
		for _, q := range []string{`DELETE FROM audit_log`, `DELETE FROM audit_log WHERE seq = 1`} {
			if _, err := db.ExecContext(t.Context(), q); err == nil {
				t.Errorf("%s: done, want it refused", q)
			}
		}
		if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != 0 || r.Exist != 3 {
			t.Errorf("afterwards: exit %d, %d rows; want 0, 3", r.Exit(), r.Exist)
		}
	})
}

// TestLessonL10AStartReadsOnlyTheEndOfTheLog: rows that a reader must stumble over, all but the last, keep no start from
// succeeding and are found by who verifies.
func TestLessonL10AStartReadsOnlyTheEndOfTheLog(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		mustRecord(t, s, 20)
		mustExec(t, attack(t, url), `UPDATE audit_log SET body = 'unreadable', details = 'unreadable', kid = 'unknown' WHERE seq BETWEEN 2 AND 19`)
		again := storetest.Open(t, url)
		if err := again.AuditErr(); err != nil {
			t.Errorf("after a start: %v; a start verifies nothing but the end", err)
		}
		mustRecord(t, again, 1)
		if r := verifyStore(t, again, store.VerifyOptions{}); r.Exit() != audit.ExitTampered || r.First.Seq != 2 {
			t.Errorf("verified: exit %d, %+v; want 1 at row 2", r.Exit(), r.First)
		}
	})
}

// TestLessonF9AHeartbeatIsOneUpsert: sixty workers are one statement, not sixty.
func TestLessonF9AHeartbeatIsOneUpsert(t *testing.T) {
	url := storetest.Postgres(t)
	s := storetest.Open(t, url)
	project, agent := enrol(t, url, "hash")
	var slots []store.SlotConnect
	var touches []store.SlotTouch
	for i := range 60 {
		c := connect(project, agent, fmt.Sprintf("w%02d", i), fmt.Sprint("s", i), noon)
		slots = append(slots, c)
		touches = append(touches, store.SlotTouch{Slot: c.Slot, Session: c.Session, Seen: store.TimeOf(noon.Add(time.Second))})
	}
	mustConnect(t, s, slots...)
	if _, err := s.TouchSlots(t.Context(), touches); err != nil {
		t.Fatal(err)
	}
	// cmin is the number of the statement in its transaction that wrote a row.
	rows := storetest.Rows(t, storetest.DB(t, url), `SELECT count(*), count(DISTINCT (xmin::text, cmin::text)) FROM agent_workers`)
	if diff := cmp.Diff([][]string{{"60", "1"}}, rows); diff != "" {
		t.Errorf("rows and statements (- want, + got):\n%s", diff)
	}
}
