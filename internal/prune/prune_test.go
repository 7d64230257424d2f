package prune_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/prune"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/target"
)

func open(ctx context.Context, location string) (target.Target, error) {
	return target.Open(ctx, location, target.Options{})
}

func options(s *store.Store, place string, through int64) prune.Options {
	return prune.Options{
		Store: s, Open: open, Place: place, Format: audit.NDJSON, Through: through, Now: time.Now,
		By: store.By{Actor: audit.Actor{Kind: audit.CLI, ID: "uid:0", Label: "root"}, Via: "cli"},
	}
}

func mustPrune(t testing.TB, o prune.Options) prune.Result {
	t.Helper()
	r, err := prune.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func verified(t testing.TB, s *store.Store, when string) audit.Report {
	t.Helper()
	r, err := s.VerifyAudit(t.Context(), store.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Exit() != 0 {
		t.Errorf("%s: verify: exit %d, %+v, %+v; want 0", when, r.Exit(), r.First, r.Unprovable)
	}
	return r
}

func key(t testing.TB) audit.Key {
	t.Helper()
	k, err := audit.NewKey(storetest.Secrets.Audit)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// rows are the numbers and HMACs of the log and of all archives in a directory, and fails where two say different things.
func rows(t testing.TB, url, dir string) map[int64]string {
	t.Helper()
	out := map[int64]string{}
	add := func(seq int64, mac string) {
		if have, ok := out[seq]; ok && have != mac {
			t.Errorf("row %d is %s and %s", seq, have, mac)
		}
		out[seq] = mac
	}
	for _, r := range storetest.Rows(t, storetest.DB(t, url), `SELECT seq, row_hmac FROM audit_log`) {
		seq, err := strconv.ParseInt(r[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		add(seq, r[1])
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.ndjson"))
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r, err := audit.VerifyFile(f, []audit.Key{key(t)}, func(r *audit.FileRecord) error { add(r.Seq, r.RowHMAC); return nil })
		if err != nil || r.Exit() != 0 {
			t.Errorf("archive %s: exit %d, %s, %v; want 0", name, r.Exit(), r.Summary, err)
		}
	}
	return out
}

// whole fails unless rows 1 to the last are all somewhere.
func whole(t testing.TB, url, dir, when string) {
	t.Helper()
	all := rows(t, url, dir)
	for seq := int64(1); seq <= int64(len(all)); seq++ {
		if all[seq] == "" {
			t.Errorf("%s: row %d is neither in the log nor in an archive", when, seq)
			return
		}
	}
}

// TestLessonA2A3TwoPrunesOverTheYears: the log verifies after each, the second takes the first one's entry away, and
// what it says replaces it. The archives are proved by themselves, and by docs/verify_audit.py.
func TestLessonA2A3TwoPrunesOverTheYears(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		dir := t.TempDir()
		s := storetest.Open(t, url)
		storetest.FillAudit(t, url, 3000)
		first := mustPrune(t, options(s, dir, 1500))
		if first.First != 1 || first.Last != 1500 || first.Rows != 1500 || !strings.HasSuffix(first.Archive, "-1-1500.ndjson") {
			t.Errorf("the first prune: %+v, want rows 1 to 1500", first)
		}
		r := verified(t, s, "after the first")
		if r.From != 1501 {
			t.Errorf("the log begins with row %d, want 1501", r.From)
		}
		second := mustPrune(t, options(s, dir, 3003)) // with the first one's entries
		if second.First != 1501 || second.Last != 3003 || second.Finished != 0 {
			t.Errorf("the second prune: %+v, want rows 1501 to 3003", second)
		}
		verified(t, s, "after the second")
		p, err := s.NewestPruned(t.Context())
		if err != nil || p.Through != 3003 || len(p.Archives) != 2 || p.Archives[0].SHA256 != first.SHA256 || !p.Completed || p.Peaks == "" || len(p.Generations) != 1 || len(p.Kids) != 1 {
			t.Errorf("the newest boundary: %+v, %v; want rows to 3003, both archives, the key, the generation and the tree", p, err)
		}
		whole(t, url, dir, "after both")
		again := storetest.Open(t, url) // the entry that introduced its key is gone
		if err := again.AuditErr(); err != nil {
			t.Errorf("a start after the prunes: %v, want a key that may sign", err)
		}
		files, _ := filepath.Glob(filepath.Join(dir, "*"))
		if len(files) != 4 {
			t.Errorf("files: %q, want two archives with their manifests", files)
		}
		for _, name := range files {
			if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: mode %v, %v; want 0600", name, info.Mode(), err)
			}
		}
		secret := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(secret, storetest.Secrets.Audit, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "python3", "../../docs/verify_audit.py", second.Archive, "--secret-file", secret).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "complete from 1501 to 3003, follows row_hmac") {
			t.Errorf("docs/verify_audit.py of the second archive: %v, %s", err, out)
		}
		tree, err := s.VerifyPrefix(t.Context(), 3005, nil)
		if err != nil || tree.Peaks == nil {
			t.Errorf("the tree goes on behind the boundary: %v, %v", tree.Peaks, err)
		}
		if _, err := prune.Run(t.Context(), options(s, dir, 3003)); !errors.Is(err, prune.ErrNothing) {
			t.Errorf("once more: %v, want ErrNothing", err)
		}
	})
}

// TestPruneByAge: the prefix ends before the first row that is not older.
func TestPruneByAge(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		storetest.FillAudit(t, url, 20)
		page, err := s.AuditLog(t.Context(), store.AuditFilter{})
		if err != nil {
			t.Fatal(err)
		}
		var at store.Time
		want := int64(0)
		for _, e := range page.Items { // the newest first
			if e.Seq >= 12 {
				at = e.TS
			}
		}
		for _, e := range page.Items {
			if e.TS.Before(at.Time) {
				want = max(want, e.Seq)
			}
		}
		o := options(s, t.TempDir(), 0)
		o.Before = &at
		if r := mustPrune(t, o); r.Last != want {
			t.Errorf("older than %s: got rows to %d, want to %d", at, r.Last, want)
		}
		verified(t, s, "after it")
		o.Before = new(store.TimeAt(0))
		if _, err := prune.Run(t.Context(), o); !errors.Is(err, prune.ErrNothing) {
			t.Errorf("older than the epoch: %v, want ErrNothing", err)
		}
	})
}

const (
	killURL  = "Z4J_TEST_PRUNE_URL"
	killDir  = "Z4J_TEST_PRUNE_DIR"
	killStep = "Z4J_TEST_PRUNE_STEP"
)

// TestPruneUntilKilled is what TestKilledPruneIsFinished runs as another process: it kills itself behind a step.
func TestPruneUntilKilled(t *testing.T) {
	url := os.Getenv(killURL)
	if url == "" {
		t.Skip("runs in the process that TestKilledPruneIsFinished starts")
	}
	step, through, _ := strings.Cut(os.Getenv(killStep), " ")
	n, err := strconv.ParseInt(through, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	o := options(storetest.Open(t, url), os.Getenv(killDir), n)
	o.LeaseFor = 200 * time.Millisecond
	o.Step = func(name string) {
		if name == step {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // it comes
		}
	}
	_, err = prune.Run(t.Context(), o)
	fmt.Println("ended", err)
}

// killAt prunes in another process until it is killed behind a step.
func killAt(t testing.TB, url, dir, step string, through int64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPruneUntilKilled$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), killURL+"="+url, killDir+"="+dir, killStep+"="+step+" "+fmt.Sprint(through))
	out, err := cmd.CombinedOutput()
	if err == nil || strings.Contains(string(out), "ended") {
		t.Fatalf("killed behind %s: it was not: %v\n%s", step, err, out)
	}
}

// TestKilledPruneIsFinished: killed between any two steps the log verifies, and the next run finishes; no row is lost.
func TestKilledPruneIsFinished(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		dir := t.TempDir()
		for i, step := range []string{"verified", "exported", "written", "recorded", "compared", "deleted", "emptied"} {
			storetest.FillAudit(t, url, 1300)
			sub := filepath.Join(dir, fmt.Sprint(i))
			if err := os.Mkdir(sub, 0o700); err != nil {
				t.Fatal(err)
			}
			head, err := s.AuditHead(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			killAt(t, url, sub, step, head.Seq-100)
			verified(t, s, "killed behind "+step)
			o := options(s, sub, head.Seq-100)
			for {
				_, err = prune.Run(t.Context(), o)
				if !errors.Is(err, prune.ErrBusy) { // the killed one's lease ends soon
					break
				}
			}
			if err != nil {
				t.Fatalf("killed behind %s: the next run: %v", step, err)
			}
			r := verified(t, s, "finished after "+step)
			p, err := s.NewestPruned(t.Context())
			if err != nil || p.Through != head.Seq-100 || !p.Completed || r.From != p.Through+1 {
				t.Errorf("killed behind %s and finished: %+v, %v, the log begins with %d; want rows to %d gone", step, p, err, r.From, head.Seq-100)
			}
		}
		all := t.TempDir()
		for i := range 7 {
			files, _ := filepath.Glob(filepath.Join(dir, fmt.Sprint(i), "*.ndjson"))
			if len(files) != 1 {
				t.Errorf("run %d left %q, want one archive", i, files)
			}
			for _, f := range files {
				if err := os.Link(f, filepath.Join(all, filepath.Base(f))); err != nil {
					t.Fatal(err)
				}
			}
		}
		whole(t, url, all, "after all")
	})
}

// TestHoldStopsAPruneUnderWay: no batch is deleted any more once the history is in doubt.
func TestHoldStopsAPruneUnderWay(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s, other := storetest.Open(t, url), storetest.Open(t, url)
		storetest.FillAudit(t, url, 2500)
		o, deleted := options(s, t.TempDir(), 2400), 0
		o.Step = func(name string) {
			if name != "deleted" {
				return
			}
			if deleted++; deleted == 1 {
				if err := other.PutHold(t.Context(), store.Doubt{Cause: "rolled_back", Reason: "a test", Fork: 2400}); err != nil {
					t.Error(err)
				}
			}
		}
		if _, err := prune.Run(t.Context(), o); !errors.Is(err, store.ErrHistoryInDoubt) {
			t.Errorf("a hold while rows are deleted: %v, want ErrHistoryInDoubt", err)
		}
		if p, err := s.NewestPruned(t.Context()); err != nil || deleted != 1 || p.Lowest != 1001 || p.Completed {
			t.Errorf("%d batches went, the log begins with row %d, %v; want one, and row 1001", deleted, p.Lowest, err)
		}
	})
}

// TestTwoPrunesAtOnce: the second is told, and nothing of it is done.
func TestTwoPrunesAtOnce(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		dir := t.TempDir()
		s, other := storetest.Open(t, url), storetest.Open(t, url)
		storetest.FillAudit(t, url, 500)
		o := options(s, dir, 300)
		o.Step = func(name string) {
			if name != "verified" && name != "compared" {
				return
			}
			if _, err := prune.Run(t.Context(), options(other, dir, 300)); !errors.Is(err, prune.ErrBusy) {
				t.Errorf("beside one that is at %s: %v, want ErrBusy", name, err)
			}
		}
		mustPrune(t, o)
		verified(t, s, "after one of two")
		mustPrune(t, options(other, dir, 400)) // the lease is free at once
	})
}

// TestNothingIsDeletedWithoutItsArchive: a run that finishes another compares the archive first.
func TestNothingIsDeletedWithoutItsArchive(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		dir := t.TempDir()
		s := storetest.Open(t, url)
		storetest.FillAudit(t, url, 300)
		killAt(t, url, dir, "recorded", 200)
		files, _ := filepath.Glob(filepath.Join(dir, "*.ndjson"))
		if len(files) != 1 {
			t.Fatalf("archives: %q, want one", files)
		}
		data, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		o := options(s, t.TempDir(), 250) // elsewhere: what counts is what the entry names
		attempt := func(name string, want error) {
			t.Helper()
			for {
				_, err := prune.Run(t.Context(), o)
				if errors.Is(err, prune.ErrBusy) {
					continue
				}
				if !errors.Is(err, want) || want != nil && !strings.Contains(err.Error(), files[0]) {
					t.Errorf("%s: %v, want %v with the name of the file", name, err, want)
				}
				break
			}
			if r := verified(t, s, name); want != nil && r.From != 1 {
				t.Errorf("%s: the log begins with row %d, want 1", name, r.From)
			}
		}
		if err := os.Rename(files[0], files[0]+".away"); err != nil {
			t.Fatal(err)
		}
		attempt("without the archive", prune.ErrArchive)
		changed := bytes.Clone(data)
		changed[len(changed)/2] ^= 1
		if err := os.WriteFile(files[0], changed, 0o600); err != nil {
			t.Fatal(err)
		}
		attempt("with a changed archive", prune.ErrArchive)
		if err := os.Rename(files[0]+".away", files[0]); err != nil {
			t.Fatal(err)
		}
		attempt("with the archive", nil)
		if r := verified(t, s, "in the end"); r.From != 251 {
			t.Errorf("in the end the log begins with row %d, want 251: both prunes are done", r.From)
		}
	})
}

// TestDefectsStopAPrune: a row that was edited, a file that is something else, a row that is not there; nothing changes.
func TestDefectsStopAPrune(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		dir := t.TempDir()
		s := storetest.Open(t, url)
		storetest.FillAudit(t, url, 300)
		o := options(s, dir, 200)
		o.Name = "mine.ndjson"
		if err := os.WriteFile(filepath.Join(dir, o.Name), []byte("something else\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := prune.Run(t.Context(), o); !errors.Is(err, prune.ErrExists) {
			t.Errorf("a file that is something else: %v, want ErrExists", err)
		}
		if _, err := prune.Run(t.Context(), options(s, dir, 2000)); err == nil {
			t.Error("a row that is not there: no error, want one")
		}
		if _, err := prune.Run(t.Context(), options(s, filepath.Join(dir, "nowhere"), 200)); err == nil {
			t.Error("a place that is not there: no error, want one")
		}
		declined := options(s, dir, 200)
		declined.Confirm = func(p prune.Plan) bool { return p.First != 1 || p.Last != 200 }
		if _, err := prune.Run(t.Context(), declined); !errors.Is(err, prune.ErrDeclined) {
			t.Errorf("declined: %v, want ErrDeclined", err)
		}
		if r := verified(t, s, "after all of them"); r.From != 1 || r.To != 301 {
			t.Errorf("after all of them: rows %d to %d, want 1 to 301", r.From, r.To)
		}
		db := storetest.DB(t, url)
		trigger := `DROP TRIGGER audit_log_update`
		if s.Dialect() == "postgres" {
			trigger += ` ON audit_log`
		}
		for _, text := range []string{trigger, `UPDATE audit_log SET request_id = 'edited' WHERE seq = 150`} {
			if _, err := db.ExecContext(t.Context(), text); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := prune.Run(t.Context(), options(s, dir, 200)); !errors.Is(err, prune.ErrUnproved) || !strings.Contains(err.Error(), "row 150") {
			t.Errorf("an edited row: %v, want ErrUnproved and its number", err)
		}
		mustPrune(t, options(s, dir, 149)) // what is before it may go
	})
}

// TestErasuresAreProvedBehindAPrune: the entry of a prune binds what earlier erasures took of the rows that stay, and the next
// prune takes that over; a part more or another one is no erasure's.
func TestErasuresAreProvedBehindAPrune(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		dir := t.TempDir()
		s := storetest.Open(t, url)
		storetest.FillAudit(t, url, 2000)
		o := options(s, dir, 800)
		forget := func(user string) int64 {
			done, err := s.EraseAudit(t.Context(), store.Person{User: id.Named(id.ID{}, []byte(user))}, "asked for", o.By)
			if err != nil || done.Parts == 0 {
				t.Fatalf("forget %s: %+v, %v; want some parts", user, done, err)
			}
			return done.Entries[0]
		}
		entry := forget("user 7")
		forget("user 8")
		proved := func(when string) {
			t.Helper()
			if r := verified(t, s, when); len(r.Notes) > 0 || r.PersonalErased == 0 {
				t.Errorf("%s: notes %q, %d parts erased; want none, some", when, r.Notes, r.PersonalErased)
			}
		}
		mustPrune(t, o)
		proved("after the first prune")
		forget("user 9")
		o.Through = 1200
		o.Step = func(name string) {
			if name == "written" { // between what was read of erasures and the entry, or before both
				forget("user 3")
			}
		}
		mustPrune(t, o)
		proved("after the second prune")

		db := storetest.DB(t, url)
		exec := func(text string, args ...any) {
			t.Helper()
			if _, err := db.ExecContext(t.Context(), text, args...); err != nil {
				t.Fatal(err)
			}
		}
		trigger := `DROP TRIGGER audit_personal_update`
		if s.Dialect() == "postgres" {
			trigger += ` ON audit_personal`
		}
		exec(trigger)
		exec(`UPDATE audit_personal SET subject = NULL, salt = NULL, json = NULL, erased_by = $1
			WHERE seq = (SELECT min(seq) FROM audit_personal WHERE erased_by IS NULL AND seq > 1300) AND role = 'actor'`, entry)
		r, err := s.VerifyAudit(t.Context(), store.VerifyOptions{})
		if err != nil || r.Exit() != audit.ExitTampered || r.First.Class != audit.PersonalMissing {
			t.Errorf("a part more that names an erasure: exit %d, %+v, %v; want 1", r.Exit(), r.First, err)
		}
		o.Through, o.Step = 1250, nil
		if _, err := prune.Run(t.Context(), o); !errors.Is(err, prune.ErrUnproved) || !errors.Is(err, store.ErrNotErased) {
			t.Errorf("a prune then: %v, want ErrUnproved", err)
		}
	})
}

// TestLostKeyHoldsAPruneUp until somebody accepts it, which is recorded.
func TestLostKeyHoldsAPruneUp(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		old := storetest.Open(t, url)
		storetest.FillAudit(t, url, 50)
		o := storetest.Options(url)
		o.Secrets = func(context.Context, bool) (store.Secrets, error) {
			return store.Secrets{Master: storetest.Secrets.Master, Audit: []byte("another-audit-secret-another-audit-se-1")}, nil
		}
		s, err := store.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		by := options(old, "", 0).By
		if err := s.AdoptAuditKey(t.Context(), by.Actor, "lost"); err != nil {
			t.Fatal(err)
		}
		p := options(s, t.TempDir(), 40)
		if _, err := prune.Run(t.Context(), p); !errors.Is(err, prune.ErrUnproved) || !strings.Contains(err.Error(), "--accept-unprovable") {
			t.Errorf("rows of a lost key: %v, want ErrUnproved with the way out", err)
		}
		p.AcceptUnprovable = true
		mustPrune(t, p)
		r, err := s.VerifyAudit(t.Context(), store.VerifyOptions{})
		if err != nil || r.First != nil || r.From != 41 {
			t.Errorf("after it: %+v, rows from %d, %v; want no fault, rows from 41", r.First, r.From, err)
		}
		entries := storetest.Rows(t, storetest.DB(t, url), `SELECT details FROM audit_log WHERE action = 'audit.pruned'`)
		if len(entries) != 1 || !strings.Contains(entries[0][0], `"unprovable":40`) {
			t.Errorf("the entry: %v, want 40 rows accepted as not provable", entries)
		}
	})
}

// TestFullPlaceLeavesTheLogAsItWas: an archive that finds no room is not there, and no row goes.
func TestFullPlaceLeavesTheLogAsItWas(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		dir := t.TempDir()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Skipf("a small file system can't be mounted here: %v", err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
		s := storetest.Open(t, url)
		storetest.FillAudit(t, url, 1000)
		if _, err := prune.Run(t.Context(), options(s, dir, 900)); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("a full place: %v, want ENOSPC", err)
		}
		if r := verified(t, s, "after it"); r.From != 1 {
			t.Errorf("the log begins with row %d, want 1", r.From)
		}
		if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) != 0 {
			t.Errorf("files: %q, want none", files)
		}
	})
}

// TestAnchorsKnowBeforeRowsGo: it is recorded and no row is gone when the anchors are told, and without that none goes.
func TestAnchorsKnowBeforeRowsGo(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		storetest.FillAudit(t, url, 5)
		o := options(s, t.TempDir(), 3)
		broken := errors.New("no checkpoint")
		o.Anchor = func(ctx context.Context) error {
			p, err := s.NewestPruned(ctx)
			if err != nil || p.Through != 3 || p.Lowest != 1 {
				t.Errorf("when the anchors are told: through %d from %d, %v; want 3 from 1", p.Through, p.Lowest, err)
			}
			return broken
		}
		if _, err := prune.Run(t.Context(), o); !errors.Is(err, broken) {
			t.Errorf("a prune that no anchor knows: %v, want %v", err, broken)
		}
		if p, err := s.NewestPruned(t.Context()); err != nil || p.Lowest != 1 {
			t.Errorf("then the lowest row is %d, %v; want 1", p.Lowest, err)
		}
	})
}
