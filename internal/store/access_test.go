package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

var operator = store.By{Actor: audit.Actor{Kind: audit.CLI, Label: "root@host"}, Via: "cli"}

func account(t *testing.T, s *store.Store, email string) store.User {
	t.Helper()
	u, err := s.CreateUser(t.Context(), store.NewUser{Email: email, PasswordHash: "hash of " + email}, operator)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestTheCommandLineIsAudited: what an operator does on the machine is written as what it is.
func TestTheCommandLineIsAudited(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		first, err := s.CreateFirstAccount(t.Context(), store.NewUser{Email: "root@example.com", PasswordHash: "x"}, "", store.NewSession{}, operator)
		if err != nil || !first.User.IsAdmin || first.Session != nil || first.Project.Slug != store.DefaultProject {
			t.Fatalf("first account: got %+v, %v; want a global admin, the default project and no session", first, err)
		}
		if _, err := s.CreateFirstAccount(t.Context(), store.NewUser{Email: "eve@example.com", PasswordHash: "x"}, "", store.NewSession{}, operator); !errors.Is(err, store.ErrConflict) {
			t.Errorf("a second first account: got %v, want ErrConflict", err)
		}
		account(t, s, "ann@example.com")
		if _, err := s.CreateUser(t.Context(), store.NewUser{Email: "ann@example.com", PasswordHash: "x"}, operator); !errors.Is(err, store.ErrConflict) {
			t.Errorf("the same address: got %v, want ErrConflict", err)
		}
		if _, err := s.ChangePassword(t.Context(), "ann@example.com", "new", operator); err != nil {
			t.Error(err)
		}
		if _, err := s.ChangePassword(t.Context(), "nobody@example.com", "new", operator); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("nobody's password: got %v, want ErrNotFound", err)
		}
		rows := storetest.Rows(t, storetest.DB(t, url), `SELECT action, outcome, actor_kind FROM audit_log WHERE actor_kind = 'cli' ORDER BY seq`)
		want := [][]string{{"setup.completed", "allow", "cli"}, {"user.created", "allow", "cli"}, {"auth.password_changed", "allow", "cli"}}
		if diff := cmp.Diff(want, rows); diff != "" {
			t.Errorf("entries: (- want, + got)\n%s", diff)
		}
	})
}

// TestLessonC4ANewPasswordEndsEverySession: and unlocks the account, however it came about.
func TestLessonC4ANewPasswordEndsEverySession(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		ann, bob := account(t, s, "ann@example.com"), account(t, s, "bob@example.com")
		sessions := map[id.ID]id.ID{}
		for _, u := range []id.ID{ann.ID, ann.ID, bob.ID} {
			n := session(t, s, u)
			sessions[n.ID] = u
		}
		for range 3 {
			if err := s.LoginFailed(t.Context(), ann.ID, 3, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		c, err := s.Credential(t.Context(), "ann@example.com")
		if err != nil || !c.Locked(store.TimeOf(time.Now())) {
			t.Fatalf("after three failures: got %+v, %v; want the account locked", c, err)
		}
		if _, err := s.ChangePassword(t.Context(), "ann@example.com", "new hash", operator); err != nil {
			t.Fatal(err)
		}
		for n, u := range sessions {
			row, _, err := s.SessionUser(t.Context(), n)
			if err != nil || (row.RevokedAt != nil) != (u == ann.ID) {
				t.Errorf("session: got %+v, %v; want ended %t", row, err, u == ann.ID)
			}
		}
		if c, err = s.Credential(t.Context(), "ann@example.com"); err != nil || c.Locked(store.TimeOf(time.Now())) || c.PasswordHash != "new hash" {
			t.Errorf("afterwards: got %+v, %v; want it unlocked with the new hash", c, err)
		}
	})
}

func session(t *testing.T, s *store.Store, user id.ID) store.Session {
	t.Helper()
	var n store.Session
	err := s.Update(t.Context(), func(tx *store.Tx) (err error) {
		n, err = tx.CreateSession(t.Context(), store.NewSession{User: user, CSRF: "c", Lifetime: time.Hour, UserAgent: "bad \xff\x00 " + strings.Repeat("ü", 500)})
		tx.Record(audit.New(audit.Facts{Action: audit.AuthLogin, Actor: operator.Actor}))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestALogInMeetsAChange: between the check of the password and its use the account may have changed.
func TestALogInMeetsAChange(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		for _, tt := range []struct {
			name   string
			change func(u store.User) error
			want   error
		}{
			{"nothing", func(store.User) error { return nil }, nil},
			{"another password", func(u store.User) error {
				_, err := s.ChangePassword(t.Context(), u.Email, "new", operator)
				return err
			}, store.ErrNotFound},
			{"locked", func(u store.User) error { return s.LoginFailed(t.Context(), u.ID, 1, time.Hour) }, store.ErrNotFound},
		} {
			u := account(t, s, fmt.Sprintf("%s@example.com", strings.ReplaceAll(tt.name, " ", "-")))
			if err := tt.change(u); err != nil {
				t.Fatal(err)
			}
			err := s.Update(t.Context(), func(tx *store.Tx) error {
				tx.Record(audit.New(audit.Facts{Action: audit.AuthLogin, Actor: operator.Actor}))
				return tx.LoginSucceeded(t.Context(), u.ID, "hash of "+u.Email, "")
			})
			if !errors.Is(err, tt.want) {
				t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
			}
			err = s.Update(t.Context(), func(tx *store.Tx) error {
				tx.Record(audit.New(audit.Facts{Action: audit.AuthLogin, Actor: operator.Actor}))
				return tx.HasPassword(t.Context(), u.ID, "hash of "+u.Email)
			})
			if same := tt.name != "another password"; same != (err == nil) || !same && !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: got %v, want the password to be the same %t", tt.name, err, same)
			}
		}
	})
}

// TestLessonC12NoFailureIsLost: the counter is moved in one statement.
func TestLessonC12NoFailureIsLost(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		u := account(t, s, "ann@example.com")
		const many = 24
		errs := make(chan error)
		for range many {
			go func() { errs <- s.LoginFailed(t.Context(), u.ID, 1000, time.Hour) }()
		}
		for range many {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if got := storetest.Rows(t, storetest.DB(t, url), `SELECT failed_login_count FROM users`)[0][0]; got != fmt.Sprint(many) {
			t.Errorf("count: got %s, want %d", got, many)
		}
	})
}

// TestSetUpAtOnce: the token, the environment and the command line race, and one account comes out.
func TestSetUpAtOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		if first, err := s.PutSetupToken(t.Context(), "hash", time.Hour); err != nil || !first {
			t.Fatalf("token: got %t, %v; want it kept", first, err)
		}
		results := make(chan error)
		for i, hash := range []string{"hash", "", "", "hash", ""} {
			go func() {
				_, err := s.CreateFirstAccount(t.Context(), store.NewUser{Email: fmt.Sprintf("u%d@example.com", i), PasswordHash: "x"}, hash, store.NewSession{}, operator)
				results <- err
			}()
		}
		made := 0
		for range 5 {
			switch err := <-results; {
			case err == nil:
				made++
			case !errors.Is(err, store.ErrConflict):
				t.Errorf("got %v, want ErrConflict", err)
			}
		}
		if made != 1 {
			t.Errorf("accounts made: got %d, want 1", made)
		}
		if first, err := s.PutSetupToken(t.Context(), "hash", time.Hour); err != nil || first {
			t.Errorf("a token afterwards: got %t, %v; want none kept", first, err)
		}
		if open, err := s.SetupOpen(t.Context(), store.TimeOf(time.Now())); err != nil || open {
			t.Errorf("set-up afterwards: got open %t, %v; want it closed", open, err)
		}
	})
}

// TestLessonL14EveryNameThatIsTakenIsAConflict walks what must be unique among what people name.
func TestLessonL14EveryNameThatIsTakenIsAConflict(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		ctx := t.Context()
		project := store.Project{Slug: "shop", Name: "Shop", Environment: "production", Timezone: "UTC", DefaultSchedulerOwner: store.DefaultSchedulerOwner}
		var shop, other store.Project
		ann := account(t, s, "ann@example.com")
		for _, tt := range []struct {
			name string
			do   func() error
		}{
			{"slug", func() (err error) {
				p, err := s.CreateProject(ctx, project, operator)
				if err == nil {
					shop = p
				}
				return err
			}},
			{"member", func() error { _, err := s.AddMembership(ctx, shop, ann.ID, "viewer", operator); return err }},
			{"agent", func() error { _, err := s.MintAgent(ctx, shop, "web", id.Random().String(), "", operator); return err }},
		} {
			if err := tt.do(); err != nil {
				t.Errorf("%s, the first time: %v", tt.name, err)
			}
			if err := tt.do(); !errors.Is(err, store.ErrConflict) {
				t.Errorf("%s, the second time: got %v, want ErrConflict", tt.name, err)
			}
		}
		project.Slug = "other"
		other, err := s.CreateProject(ctx, project, operator)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.ChangeProject(ctx, "other", store.Sight{}, func(p *store.Project) error { p.Slug = "shop"; return nil }, operator); !errors.Is(err, store.ErrConflict) {
			t.Errorf("a slug that is changed to a taken one: got %v, want ErrConflict", err)
		}
		if _, err := s.MintAgent(ctx, other, "web", id.Random().String(), "", operator); err != nil {
			t.Errorf("the same name in another project: %v", err)
		}
	})
}

func TestAgentVersions(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		first, err := s.CreateFirstAccount(t.Context(), store.NewUser{Email: "root@example.com", PasswordHash: "x"}, "", store.NewSession{}, operator)
		if err != nil {
			t.Fatal(err)
		}
		now := store.TimeOf(time.Now())
		for _, tt := range []struct {
			version, protocol, status string
			outdated                  bool
		}{
			{"1.13.0", "2", "current", false},
			{"1.13", "2", "current", false},
			{"1.6.7", "2", "outdated", false},
			{"1.3.9", "1", "incompatible", true},
			{"1.14.0rc1", "2", "newer_than_known", false},
			{"2.0", "2", "newer_than_known", false},
			{"dev", "2", "unknown", false},
			{"x.y.z", "2", "unknown", false},
		} {
			a, err := s.MintAgent(t.Context(), first.Project, tt.version, id.Random().String(), "", operator)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.ConnectSlots(t.Context(), []store.SlotConnect{{
				Slot: store.Slot{Project: first.Project.ID, Agent: a.ID}, Session: tt.version, At: now, ProtocolVersion: tt.protocol, AgentVersion: tt.version, Engines: []string{"celery"},
			}})
			if err != nil {
				t.Fatal(err)
			}
			list, err := s.Agents(t.Context(), first.Project.ID, store.Page{}, now)
			if err != nil {
				t.Fatal(err)
			}
			for _, got := range list.Items {
				if got.ID != a.ID {
					continue
				}
				if *got.VersionStatus != tt.status || got.IsOutdated != tt.outdated || got.State != store.Online || len(got.EngineAdapters) != 1 {
					t.Errorf("%s: got %s, outdated %t, %s; want %s, %t, online", tt.version, *got.VersionStatus, got.IsOutdated, got.State, tt.status, tt.outdated)
				}
			}
			if later, err := s.Agents(t.Context(), first.Project.ID, store.Page{}, store.TimeOf(now.Add(time.Minute))); err != nil || later.Items[0].State != store.Offline {
				t.Errorf("%s, a minute later: got %v, %v; want offline", tt.version, later.Items[0].State, err)
			}
		}
	})
}
