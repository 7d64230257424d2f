package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// note is an entry that means nothing.
func note(reason any) audit.Entry {
	return audit.New(audit.Facts{
		Action: audit.AuthLogin, Actor: audit.Actor{Kind: audit.User, ID: "u1", Label: "ann@example.org", IP: "203.0.113.7", UserAgent: "curl/8"},
		Target: audit.Target{ID: "u1", Label: "ann@example.org"}, Details: map[string]any{"reason": reason}, RequestID: "r1",
	})
}

func record(ctx context.Context, s *store.Store, entries ...audit.Entry) error {
	return s.Update(ctx, func(tx *store.Tx) error {
		for _, e := range entries {
			tx.Record(e)
		}
		return nil
	})
}

func mustRecord(t testing.TB, s *store.Store, n int) {
	t.Helper()
	for i := range n {
		if err := record(t.Context(), s, note(i)); err != nil {
			t.Fatal(err)
		}
	}
}

func verifyStore(t testing.TB, s *store.Store, o store.VerifyOptions) audit.Report {
	t.Helper()
	r, err := s.VerifyAudit(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestChainBegins(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		r := verifyStore(t, s, store.VerifyOptions{})
		if r.Exit() != 0 || r.Exist != 1 || r.Checked != 1 {
			t.Errorf("a new installation: exit %d, %d rows, %d checked; want 0, 1, 1; %+v", r.Exit(), r.Exist, r.Checked, r)
		}
		again := storetest.Open(t, url)
		mustRecord(t, again, 2)
		if r := verifyStore(t, again, store.VerifyOptions{}); r.Exit() != 0 || r.Exist != 3 {
			t.Errorf("opened again: exit %d, %d rows; want 0, 3; %+v", r.Exit(), r.Exist, r)
		}
	})
}

func TestUnauditedChangeDoesNotCommit(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		put := func(value string) func(*store.Tx) error {
			return func(tx *store.Tx) error {
				_, err := tx.ExecContext(t.Context(), `INSERT INTO meta (key, value, updated_at) VALUES ('k', $1, $2)`, value, tx.Now())
				return err
			}
		}
		if err := s.Update(t.Context(), put("a")); err == nil {
			t.Error("a change without entry: no error")
		}
		bad := audit.New(audit.Facts{Action: "no.such", Actor: audit.Actor{Kind: audit.User}})
		if err := s.Update(t.Context(), func(tx *store.Tx) error { tx.Record(bad); return put("b")(tx) }); err == nil {
			t.Error("a change with an entry that the catalogue doesn't know: no error")
		}
		if _, err := s.Meta(t.Context(), "k"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("after them: %v, want ErrNotFound", err)
		}
		if err := s.Update(t.Context(), func(tx *store.Tx) error { tx.Record(note(1)); return put("c")(tx) }); err != nil {
			t.Fatal(err)
		}
		if v, err := s.Meta(t.Context(), "k"); v != "c" {
			t.Errorf("an audited change: %q, %v; want c", v, err)
		}
	})
}

// TestLessonA5OneUnbrokenChain, A7 and A8: 64 writers in four processes make one chain, whatever the order.
func TestLessonA5OneUnbrokenChain(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		const processes, writers, each = 4, 16, 5
		stores := make([]*store.Store, processes)
		for i := range stores {
			stores[i] = storetest.Open(t, url)
		}
		var wg sync.WaitGroup
		errs := make(chan error, processes*writers*each)
		for i := range processes * writers {
			wg.Go(func() {
				for j := range each {
					errs <- record(t.Context(), stores[i%processes], note(fmt.Sprint(i, j)), note("second"))
				}
			})
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			if err != nil {
				t.Error(err)
			}
		}
		r := verifyStore(t, stores[0], store.VerifyOptions{})
		if want := int64(1 + 2*processes*writers*each); r.Exit() != 0 || r.Exist != want || r.Checked != want {
			t.Errorf("exit %d, %d rows, %d checked; want 0, %d, all; %+v", r.Exit(), r.Exist, r.Checked, want, r)
		}
	})
}

func TestAuditLog(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		project := id.Random()
		e := audit.New(audit.Facts{
			Action: audit.ProjectCreated, Actor: audit.Actor{Kind: audit.User, ID: "u1", Label: "ann@example.org", IP: "203.0.113.7", UserAgent: "curl/8"},
			Project: audit.Project{ID: project.String(), Label: "shop"}, Target: audit.Target{ID: project.String(), Label: "shop"},
			Details: map[string]any{"slug": "shop"}, RequestID: "r7",
		})
		deny := audit.New(audit.Facts{
			Action: audit.UserCreated, Outcome: audit.Deny, Actor: audit.Actor{Kind: audit.CLI, ID: "root"}, Target: audit.Target{ID: "u9", Label: "bob@example.org"},
		})
		if err := record(t.Context(), s, e, deny, note(1)); err != nil {
			t.Fatal(err)
		}
		got := log(t, s, store.AuditFilter{Project: &project})
		if len(got) != 1 {
			t.Fatalf("of the project: %d entries, want 1", len(got))
		}
		p := got[0]
		for _, tt := range []struct{ name, got, want string }{
			{"action", p.Action, "project.created"},
			{"actor_label", *p.ActorLabel, "ann@example.org"},
			{"ip", *p.IP, "203.0.113.7"},
			{"source_ip", *p.SourceIP, "203.0.113.7"},
			{"user_agent", *p.UserAgent, "curl/8"},
			{"target_label", *p.TargetLabel, "shop"},
			{"project_label", *p.ProjectLabel, "shop"},
			{"details", string(p.Details), `{"slug":"shop"}`},
			{"metadata", string(p.Metadata), `{"slug":"shop"}`},
			{"result", p.Result, "success"},
			{"user_id", *p.UserID, "u1"},
			{"request_id", *p.RequestID, "r7"},
			{"occurred_at", p.OccurredAt.String(), p.TS.String()},
		} {
			if tt.got != tt.want {
				t.Errorf("%s: got %q, want %q", tt.name, tt.got, tt.want)
			}
		}
		if part := p.Personal.Actor; part == nil || part.Salt == nil || len(*part.Salt) != 32 || part.JSON == nil || p.Personal.Target != nil {
			t.Errorf("personal: %+v, want the actor's part with its salt", p.Personal)
		}
		now, later := store.TimeOf(p.TS.Time), store.TimeOf(p.TS.AddDate(1, 0, 0))
		for _, tt := range []struct {
			name string
			f    store.AuditFilter
			want int
		}{
			{"all", store.AuditFilter{}, 4},
			{"an action", store.AuditFilter{Action: "user.created"}, 1},
			{"a prefix", store.AuditFilter{Prefix: "auth."}, 1},
			{"a prefix that is no text", store.AuditFilter{Prefix: "a\xff"}, 0},
			{"an actor with NUL", store.AuditFilter{Actor: "u1\x00"}, 0},
			{"a wildcard is no prefix", store.AuditFilter{Prefix: "au%"}, 0},
			{"an actor", store.AuditFilter{Actor: "u1"}, 2},
			{"an outcome", store.AuditFilter{Outcome: "deny"}, 1},
			{"a target", store.AuditFilter{Target: "u9"}, 1},
			{"since", store.AuditFilter{From: &later}, 0},
			{"until", store.AuditFilter{To: &now}, 1},
			{"two at once", store.AuditFilter{Actor: "u1", Action: "user.created"}, 0},
		} {
			if got := len(log(t, s, tt.f)); got != tt.want && !(tt.name == "until" && got < tt.want) { // in one µs with the first row
				t.Errorf("%s: %d entries, want %d", tt.name, got, tt.want)
			}
		}
		refused := log(t, s, store.AuditFilter{Outcome: "deny"})[0]
		if *refused.TargetLabel != "bob@example.org" || refused.Result != "failed" || refused.UserID != nil || string(refused.Metadata) != "{}" || refused.Details != nil {
			t.Errorf("a refusal: %+v, want the person's label, failed, no user, no details", refused)
		}
		if _, err := s.AuditLog(t.Context(), store.AuditFilter{Page: store.Page{Cursor: "AAAA"}}); !errors.Is(err, store.ErrCursor) {
			t.Errorf("a cursor of another list: %v, want ErrCursor", err)
		}
	})
}

func TestAuditLogPages(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		mustRecord(t, s, 24)
		var seqs []int64
		f := store.AuditFilter{Page: store.Page{Limit: 7}}
		for {
			page, err := s.AuditLog(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			mustRecord(t, s, 1) // what comes in meanwhile moves nothing
			for _, e := range page.Items {
				seqs = append(seqs, e.Seq)
			}
			if page.Next == nil {
				break
			}
			f.Cursor = *page.Next
		}
		for i, seq := range seqs {
			if want := int64(25 - i); seq != want || len(seqs) != 25 {
				t.Fatalf("union of the pages: %v, want 25 to 1", seqs)
			}
		}
	})
}

// TestLessonA10A11DeletedPersonsStayInTheLog: no foreign key touches what was signed; who acted can be deleted.
func TestLessonA10A11DeletedPersonsStayInTheLog(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		u, err := s.CreateUser(t.Context(), store.NewUser{Email: "ann@example.org", PasswordHash: "x"}, store.By{Actor: audit.Actor{Kind: audit.CLI, ID: "root"}, Via: "cli"})
		if err != nil {
			t.Fatal(err)
		}
		e := audit.New(audit.Facts{Action: audit.AuthLogout, Actor: audit.Actor{Kind: audit.User, ID: u.ID.String(), Label: u.Email}, Target: audit.Target{ID: u.ID.String()}})
		if err := record(t.Context(), s, e); err != nil {
			t.Fatal(err)
		}
		err = s.Update(t.Context(), func(tx *store.Tx) error {
			tx.Record(note("delete"))
			_, err := tx.ExecContext(t.Context(), `DELETE FROM users WHERE id = $1`, u.ID)
			return err
		})
		if err != nil {
			t.Errorf("delete a user who acted: %v", err)
		}
		if got := log(t, s, store.AuditFilter{Actor: u.ID.String()}); len(got) != 1 || *got[0].ActorLabel != "ann@example.org" {
			t.Errorf("the log afterwards: %+v, want the entry and the label of its time", got)
		}
		if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != 0 {
			t.Errorf("exit %d, want 0", r.Exit())
		}
	})
}

// TestStartIsRecorded: what a start changes in an old database stands in its log, once.
func TestStartIsRecorded(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		storetest.Open(t, url)
		o := storetest.Options(url)
		o.Secrets = func(context.Context, bool) (store.Secrets, error) {
			s := storetest.Secrets
			s.Master, s.PreviousMasters = []byte("another-master-secret-another-master-0001"), [][]byte{s.Master}
			return s, nil
		}
		for range 2 {
			s, err := store.Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			got := log(t, s, store.AuditFilter{})
			if len(got) != 2 || got[0].Action != string(audit.SystemSecretChanged) || string(got[0].Details) != `{"setting":"Z4J_SECRET"}` {
				t.Errorf("the log: %d entries, the newest %s %s; want that the secret changed behind the installation", len(got), got[0].Action, got[0].Details)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestConflictsAreTheChangesOwn: a change that meets a unique key says so, and leaves no entry.
func TestConflictsAreTheChangesOwn(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		n, by := store.NewUser{Email: "ann@example.org", PasswordHash: "x"}, store.By{Actor: audit.Actor{Kind: audit.CLI, ID: "root"}, Via: "cli"}
		if _, err := s.CreateUser(t.Context(), n, by); err != nil {
			t.Fatal(err)
		}
		if _, err := s.CreateUser(t.Context(), n, by); !errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrAuditFailed) {
			t.Errorf("the same address again: %v, want ErrConflict", err)
		}
		if got := len(log(t, s, store.AuditFilter{Action: string(audit.UserCreated)})); got != 1 {
			t.Errorf("%d entries, want 1", got)
		}
	})
}

// TestWhoWaitsForTheChainGivesUp: a stranger who holds the lock delays changes for some seconds, then they fail, and go on
// when it is free. Reads never wait.
func TestWhoWaitsForTheChainGivesUp(t *testing.T) {
	url := storetest.Postgres(t)
	s := storetest.Open(t, url)
	mustRecord(t, s, 1)
	db := attack(t, url)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `SELECT id FROM audit_lock FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	go func() { waits <- record(t.Context(), s, note("waits")) }()
	if got := len(log(t, s, store.AuditFilter{})); got != 2 {
		t.Errorf("reading meanwhile: %d entries, want 2", got)
	}
	if err := <-waits; !errors.Is(err, store.ErrAuditFailed) || errors.Is(err, store.ErrConflict) {
		t.Errorf("while the chain is held: %v, want ErrAuditFailed", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	mustRecord(t, s, 1)
	if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != 0 || r.Exist != 3 {
		t.Errorf("exit %d, %d rows; want 0, 3", r.Exit(), r.Exist)
	}
}

// TestDefaultIsolationOfTheDatabaseDoesNotMatter: the chain needs READ COMMITTED and asks for it.
func TestDefaultIsolationOfTheDatabaseDoesNotMatter(t *testing.T) {
	url := storetest.Postgres(t)
	strict := url + "&default_transaction_isolation=serializable"
	stores := []*store.Store{storetest.Open(t, strict), storetest.Open(t, strict)}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 5 {
				if err := record(t.Context(), stores[i%2], note(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if r := verifyStore(t, stores[0], store.VerifyOptions{}); r.Exit() != 0 || r.Exist != 41 {
		t.Errorf("exit %d, %d rows; want 0, 41", r.Exit(), r.Exist)
	}
}

// TestVerifyWhileChangesGoOn: rows that come in meanwhile are neither missing nor unread.
func TestVerifyWhileChangesGoOn(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		mustRecord(t, s, 5)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for ctx.Err() == nil {
					if err := record(t.Context(), s, note("meanwhile"), note("and more")); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for range 5 {
			if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != 0 || r.Exist != r.Checked || r.To != r.Checked {
				t.Errorf("exit %d, %d rows exist, %d checked, up to %d; %+v", r.Exit(), r.Exist, r.Checked, r.To, r.First)
			}
		}
		cancel()
		wg.Wait()
	})
}
