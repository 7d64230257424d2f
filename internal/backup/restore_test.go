package backup_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/target"
)

// site is an installation: a database, a home with anchors, and a place for backups.
type site struct {
	*lab

	home string
}

func eachSite(t *testing.T, fn func(t *testing.T, s *site)) {
	t.Helper()
	eachLab(t, func(t *testing.T, l *lab) {
		s := &site{lab: l, home: t.TempDir()}
		s.watch(t)
		fn(t, s)
	})
}

func watches(home string) func(*store.Store) *custody.Custody {
	return func(s *store.Store) *custody.Custody {
		key, err := audit.NewKey(storetest.Secrets.Audit)
		if err != nil {
			panic(err) // of a constant
		}
		return custody.New(custody.Options{Store: s, Keys: []audit.Key{key}, Home: home, Now: time.Now, ReadOnly: s == nil})
	}
}

// watch lets custody look, so that the anchors know everything.
func (s *site) watch(t testing.TB) {
	t.Helper()
	c := watches(s.home)(s.Store)
	if err := errors.Join(c.Examine(t.Context()), c.Watch(t.Context()), c.Checkpoint(t.Context())); err != nil {
		t.Fatal(err)
	}
}

func (s *site) backup(t testing.TB) backup.Result {
	t.Helper()
	r, err := backup.Make(t.Context(), s.options(t))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fresh names a database that is not there, of the other kind if other.
func (s *site) fresh(t testing.TB, other bool) string {
	t.Helper()
	if (s.Dialect() == "sqlite") != other {
		return "sqlite:" + filepath.Join(t.TempDir(), "new", "brain.db")
	}
	return storetest.Postgres(t)
}

func (s *site) restoring(t testing.TB, name, into string) backup.RestoreOptions {
	t.Helper()
	o := s.options(t)
	return backup.RestoreOptions{
		From: s.place, Name: name, Into: into, Secrets: storetest.Secrets, Keys: o.Keys, By: store.By{Actor: o.Actor, Via: "cli"}, Now: time.Now,
		Custody: watches(s.home), Live: s.Store,
	}
}

func plan(t testing.TB, o backup.RestoreOptions) *backup.Restore {
	t.Helper()
	r, err := backup.PlanRestore(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() }) // again, which does nothing
	return r
}

// run restores and opens the database as a brain does.
func run(t testing.TB, o backup.RestoreOptions) (*backup.Restore, backup.Restored, *store.Store) {
	t.Helper()
	r := plan(t, o)
	done, err := r.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return r, done, storetest.Open(t, o.Into)
}

// minted makes a project with an agent in it.
func (s *site) minted(t testing.TB) (store.Project, store.Agent) {
	t.Helper()
	by := store.By{Actor: audit.Actor{Kind: audit.CLI, ID: "uid:0"}}
	p, err := s.CreateProject(t.Context(), store.Project{Slug: "shop", Name: "Shop", Environment: "production", Timezone: "UTC", DefaultSchedulerOwner: "beat"}, by)
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.MintAgent(t.Context(), p, "web", "hash", "", by)
	if err != nil {
		t.Fatal(err)
	}
	return p, a
}

// TestRestoreBringsTheWholeInstallationBack: into the other kind of database, with what was revoked after the backup
// revoked, a new history that the anchors know, and no doubt when the brain starts.
func TestRestoreBringsTheWholeInstallationBack(t *testing.T) {
	for name, other := range map[string]bool{"into the same": false, "into the other": true} {
		t.Run(name, func(t *testing.T) { eachSite(t, func(t *testing.T, s *site) { bringBack(t, s, other) }) })
	}
}

func bringBack(t *testing.T, s *site, other bool) {
	project, agent := s.minted(t)
	made := s.backup(t)
	s.watch(t)
	if err := s.RevokeAgent(t.Context(), project, agent.ID, store.By{Actor: audit.Actor{Kind: audit.CLI, ID: "uid:0"}}); err != nil {
		t.Fatal(err)
	}
	s.watch(t)
	into := s.fresh(t, other)
	r, done, next := run(t, s.restoring(t, made.Name, into))
	p := &r.Plan
	if len(p.Gone) != 1 || p.Gone[0].Action != audit.AgentRevoked || !p.Gone[0].Again || p.Anchors != 1 || len(p.Behind) != 2 || p.Behind[0].Entries < 1 {
		t.Errorf("plan: gone %+v, %d anchors, behind %+v; want one revocation, one anchor, behind both", p.Gone, p.Anchors, p.Behind)
	}
	if done.Rows != made.Rows || done.Revoked != 1 || done.Suspended {
		t.Errorf("restored %+v, want %d rows and one revocation", done, made.Rows)
	}
	if _, _, err := next.AgentOf(t.Context(), id.ID{}, agent.ID.String()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an agent that was revoked after the backup: %v, want ErrNotFound", err)
	}
	watch := watches(s.home)(next)
	if err := watch.Examine(t.Context()); err != nil {
		t.Fatal(err)
	}
	if held, err := next.Hold(t.Context()); err != nil || held != nil {
		t.Errorf("at the start of the restored brain: hold %+v, %v; want none", held, err)
	}
	witnesses, err := watch.Witnesses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	report, err := next.VerifyAudit(t.Context(), store.VerifyOptions{Witnesses: witnesses})
	if err != nil || report.Exit() != 0 {
		t.Errorf("verify against the anchors: exit %d, %v, %+v", report.Exit(), err, report.First)
	}
	again := &site{lab: &lab{Store: next, url: into, db: storetest.DB(t, into), place: s.place, dir: s.dir}, home: s.home}
	second := again.backup(t)
	run(t, again.restoring(t, second.Name, again.fresh(t, other)))
}

// TestRestoreWithoutAnchorsSuspendsKeys: where nobody can tell what was revoked, API keys wait.
func TestRestoreWithoutAnchorsSuspendsKeys(t *testing.T) {
	eachSite(t, func(t *testing.T, s *site) {
		project, agent := s.minted(t)
		by := store.By{Actor: audit.Actor{Kind: audit.CLI, ID: "uid:0"}}
		revoked, err := s.MintAgent(t.Context(), project, "gone", "another hash", "", by)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.RevokeAgent(t.Context(), project, revoked.ID, by); err != nil {
			t.Fatal(err)
		}
		if _, err := s.CreateUser(t.Context(), store.NewUser{Email: "ann@example.org", PasswordHash: "x", IsAdmin: true}, by); err != nil {
			t.Fatal(err)
		}
		made := s.backup(t)
		o := s.restoring(t, made.Name, s.fresh(t, false))
		o.Custody, o.Live = watches(t.TempDir()), nil
		r, done, next := run(t, o)
		look := done.LookAt
		if look == nil || len(look.Users) != 1 || look.Users[0].Email != "ann@example.org" || !look.Users[0].Admin || len(look.Agents) != 1 || look.Agents[0].ID != agent.ID ||
			look.Agents[0].Project != "shop" || look.MoreUsers != 0 || look.MoreAgents != 0 {
			t.Errorf("to look at: got %+v, want the account and the agent that is not revoked", look)
		}
		if !done.Suspended || r.Plan.Anchors != 0 || !strings.Contains(strings.Join(r.Plan.Warnings, "\n"), "restore release --keys") {
			t.Errorf("restored %+v with warnings %q; want keys suspended and the way out", done, r.Plan.Warnings)
		}
		if h, err := next.RestoreHeld(t.Context()); err != nil || !h.Keys || !h.Outgoing || h.Backup != made.ID {
			t.Errorf("held: %+v, %v", h, err)
		}
	})
}

// TestOnlyWhoKnowsWhatWasLostTells: an anchor that ends before the backup, one whose lines can't be read, and the home of a
// first restore know nothing of what was revoked after the backup.
func TestOnlyWhoKnowsWhatWasLostTells(t *testing.T) {
	eachSite(t, func(t *testing.T, s *site) {
		stale := t.TempDir()
		if err := os.CopyFS(stale, os.DirFS(s.home)); err != nil {
			t.Fatal(err)
		}
		s.minted(t)
		s.watch(t)
		made := s.backup(t)
		s.watch(t)
		torn := t.TempDir()
		if err := os.CopyFS(torn, os.DirFS(s.home)); err != nil {
			t.Fatal(err)
		}
		lines, err := filepath.Glob(filepath.Join(torn, "anchors", "z4j", "*", "*", "lines.notes"))
		if err != nil {
			t.Fatal(err)
		}
		if len(lines) == 0 {
			checkpoints, err := filepath.Glob(filepath.Join(torn, "anchors", "z4j", "*", "*"))
			if err != nil || len(checkpoints) != 1 {
				t.Fatal(checkpoints, err)
			}
			lines = []string{filepath.Join(checkpoints[0], "lines.notes")}
		}
		for _, path := range lines {
			if err := errors.Join(os.RemoveAll(path), os.Mkdir(path, 0o700)); err != nil {
				t.Fatal(err)
			}
		}
		first := t.TempDir()
		o := s.restoring(t, made.Name, s.fresh(t, false))
		o.Custody = watches(first)
		run(t, o)
		for name, tt := range map[string]struct {
			home string
			want int
		}{
			"it ends before the backup": {stale, 0}, "its lines can't be read": {torn, 0}, "the home of a first restore": {first, 0}, "the home": {s.home, 1},
		} {
			o := s.restoring(t, made.Name, s.fresh(t, false))
			o.Custody = watches(tt.home)
			if r := plan(t, o); r.Plan.Anchors != tt.want {
				t.Errorf("%s: %d anchors tell, want %d; %q", name, r.Plan.Anchors, tt.want, r.Plan.Warnings)
			}
		}
	})
}

// TestTheLiveDatabaseOfAnotherInstallationIsNotCompared: that its log is longer says nothing of the archive.
func TestTheLiveDatabaseOfAnotherInstallationIsNotCompared(t *testing.T) {
	eachSite(t, func(t *testing.T, s *site) {
		made := s.backup(t)
		s.minted(t)
		url := storetest.SQLite(t)
		other := storetest.Open(t, url)
		storetest.FillAudit(t, url, 50)
		for _, tt := range []struct {
			name    string
			live    *store.Store
			behind  int // whether the live database is among what the archive is behind
			foreign bool
		}{
			{"its own", s.Store, 1, false},
			{"another's", other, 0, true},
		} {
			o := s.restoring(t, made.Name, s.fresh(t, false))
			o.Custody, o.Live = watches(t.TempDir()), tt.live
			p := plan(t, o).Plan
			warned := strings.Contains(strings.Join(p.Warnings, "\n"), "another installation")
			if len(p.Behind) != tt.behind || warned != tt.foreign {
				t.Errorf("%s: behind %+v, warnings %q; want behind %d, and a warning: %v", tt.name, p.Behind, p.Warnings, tt.behind, tt.foreign)
			}
		}
	})
}

// TestLessonL2RefusedRestoreChangesNothing: whatever is wrong is found before anything is touched.
func TestLessonL2RefusedRestoreChangesNothing(t *testing.T) {
	eachSite(t, func(t *testing.T, s *site) {
		made := s.backup(t)
		path := filepath.Join(s.dir, made.Name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		flipped := append([]byte(nil), whole...)
		flipped[len(flipped)/3] ^= 4
		for name, content := range map[string][]byte{"flipped.tar": flipped, "cut.tar": whole[:len(whole)/2], "picture.jpg": []byte("\xff\xd8\xff\xe0 not a backup")} {
			if err := os.WriteFile(filepath.Join(s.dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, tt := range []struct {
			name   string
			change func(o *backup.RestoreOptions)
			want   error // nil: any
		}{
			{"a mistyped path", func(o *backup.RestoreOptions) { o.Name = "nothing.tar" }, nil},
			{"a flipped bit", func(o *backup.RestoreOptions) { o.Name = "flipped.tar" }, backup.ErrDamaged},
			{"a cut archive", func(o *backup.RestoreOptions) { o.Name = "cut.tar" }, backup.ErrIncomplete},
			{"a file that is no archive", func(o *backup.RestoreOptions) { o.Name = "picture.jpg" }, backup.ErrIncomplete},
			{"over the live database", func(o *backup.RestoreOptions) { o.Into = s.url }, store.ErrNotEmpty},
			{"another Z4J_SECRET", func(o *backup.RestoreOptions) { o.Secrets.Master = []byte("another-master-secret-another-master-1") }, backup.ErrNoKey},
			{"another audit secret", func(o *backup.RestoreOptions) {
				o.Keys, o.Unsigned = []audit.Key{key(t, "x")}, true
			}, backup.ErrNoKey},
			{"an unknown signature", func(o *backup.RestoreOptions) { o.Keys = []audit.Key{key(t, "x")} }, backup.ErrUnsigned},
			{"a head that it lacks", func(o *backup.RestoreOptions) { o.KnownHead = strings.Repeat("ab", 32) }, backup.ErrUnknownHead},
		} {
			into := s.fresh(t, false)
			o := s.restoring(t, made.Name, into)
			tt.change(&o)
			r, err := backup.PlanRestore(t.Context(), o)
			if err == nil {
				_ = r.Close()
			}
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			}
			untouched(t, into)
		}
		if report, err := s.VerifyAudit(t.Context(), store.VerifyOptions{}); err != nil || report.Exit() != 0 {
			t.Errorf("the live database after refused restores: exit %d, %v", report.Exit(), err)
		}
		head := made.Manifest.Audit.RowHMAC
		o := s.restoring(t, made.Name, s.fresh(t, false))
		o.KnownHead = head
		plan(t, o)
	})
}

// untouched says that nothing was begun.
func untouched(t *testing.T, url string) {
	t.Helper()
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
			t.Errorf("the directory of %s: %v, want none", path, err)
		}
		return
	}
	if n := storetest.Rows(t, storetest.DB(t, url), `SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace`); len(n) > 0 {
		t.Errorf("the target has %v, want nothing", n)
	}
}

// TestFieldCaseF29ArchiveVanishesDuringARestore: what was begun is taken back, and the message names the archive.
func TestFieldCaseF29ArchiveVanishesDuringARestore(t *testing.T) {
	eachSite(t, func(t *testing.T, s *site) {
		made := s.backup(t)
		into := s.fresh(t, false)
		o := s.restoring(t, made.Name, into)
		gone := errors.New("the object is gone")
		breaks := &vanishing{Target: s.place, err: gone}
		o.From = breaks
		r := plan(t, o)
		pruned := o
		pruned.From = s.place
		breaks.now = true
		_, err := r.Run(t.Context())
		if !errors.Is(err, gone) || !strings.Contains(err.Error(), made.Name) {
			t.Errorf("got %v, want %v and the name of the archive", err, gone)
		}
		if path, ok := strings.CutPrefix(into, "sqlite:"); ok {
			if left, err := filepath.Glob(path + "*"); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v; want nothing", left, err)
			}
		} else {
			untouched(t, into)
		}
		run(t, pruned)
	})
}

// vanishing is a target whose files can't be read from some moment on.
type vanishing struct {
	target.Target

	now bool
	err error
}

func (v *vanishing) Open(ctx context.Context, name string) (target.Reader, error) {
	r, err := v.Target.Open(ctx, name)
	return &vanishingFile{r, v}, err
}

type vanishingFile struct {
	target.Reader

	of *vanishing
}

func (f *vanishingFile) ReadAt(p []byte, at int64) (int, error) {
	if f.of.now {
		return 0, f.of.err
	}
	return f.Reader.ReadAt(p, at)
}
