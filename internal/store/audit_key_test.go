package store_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

var (
	oldSecret   = string(storetest.Secrets.Audit)
	newSecret   = "new-audit-secret-new-audit-secret-0000001"
	otherSecret = "other-audit-secret-other-audit-secret-001"
)

// openWith opens url with an audit secret and previous ones; serve says that it may write while starting.
func openWith(t testing.TB, url string, serve bool, secret string, previous ...string) *store.Store {
	t.Helper()
	o := storetest.Options(url)
	o.Migrate = serve
	o.Secrets = func(context.Context, bool) (store.Secrets, error) {
		s := store.Secrets{Master: storetest.Secrets.Master, Audit: []byte(secret)}
		for _, p := range previous {
			s.PreviousAudit = append(s.PreviousAudit, []byte(p))
		}
		return s, nil
	}
	s, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func refusedKey(t testing.TB, name string, s *store.Store) {
	t.Helper()
	err := record(t.Context(), s, note(name))
	if !errors.Is(err, store.ErrAuditKeyUnknown) || !strings.Contains(err.Error(), "Z4J_AUDIT_SECRETS_PREVIOUS") || !strings.Contains(err.Error(), "audit adopt-key --lost") {
		t.Errorf("%s: %v, want ErrAuditKeyUnknown with the ways out", name, err)
	}
	if !errors.Is(s.AuditErr(), store.ErrAuditKeyUnknown) {
		t.Errorf("%s: health says %v, want ErrAuditKeyUnknown", name, s.AuditErr())
	}
	if _, err := s.AuditLog(t.Context(), store.AuditFilter{}); err != nil {
		t.Errorf("%s: reading: %v", name, err)
	}
}

// TestRotationWhileReplicasRestart: with the old secret at hand a new one enters the chain, and both sign.
func TestRotationWhileReplicasRestart(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		a := openWith(t, url, true, oldSecret)
		mustRecord(t, a, 2)
		command := openWith(t, url, false, newSecret, oldSecret)
		refusedKey(t, "a command introduces nothing", command)
		b := openWith(t, url, true, newSecret, otherSecret, oldSecret)
		mustRecord(t, b, 1)
		mustRecord(t, a, 1) // not restarted yet
		mustRecord(t, b, 1)
		mustRecord(t, command, 1) // it is in now
		again := openWith(t, url, true, newSecret, oldSecret)
		mustRecord(t, again, 1)
		alone := openWith(t, url, true, newSecret)
		mustRecord(t, alone, 1)
		if got := len(log(t, b, store.AuditFilter{Action: string(audit.KeyIntroduced)})); got != 1 {
			t.Errorf("the key was introduced %d times, want once", got)
		}
		if r := verifyStore(t, b, store.VerifyOptions{}); r.Exit() != 0 || r.Exist != 10 {
			t.Errorf("with both secrets: exit %d, %d rows; want 0, 10; %+v", r.Exit(), r.Exist, r.First)
		}
		if r := verifyStore(t, alone, store.VerifyOptions{}); r.Exit() != audit.ExitUnprovable || r.First != nil {
			t.Errorf("with the new one alone: exit %d, %+v; want 3 and nothing bad", r.Exit(), r.First)
		}
		if r := verifyStore(t, alone, store.VerifyOptions{Secrets: [][]byte{[]byte(oldSecret)}}); r.Exit() != 0 {
			t.Errorf("the old one given to verify: exit %d, want 0", r.Exit())
		}
		if r := verifyStore(t, b, store.VerifyOptions{From: 6}); r.Exit() != 0 || r.From != 6 || r.Checked != 5 {
			t.Errorf("from row 6: exit %d, from %d, %d checked; want 0, 6, 5; %+v", r.Exit(), r.From, r.Checked, r.First)
		}
	})
}

// TestMistypedSecretNeverRotates, and stops neither the start nor reading.
func TestMistypedSecretNeverRotates(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		a := openWith(t, url, true, oldSecret)
		mustRecord(t, a, 2)
		for name, s := range map[string]*store.Store{
			"another secret":                      openWith(t, url, true, otherSecret),
			"another, a previous one never in":    openWith(t, url, true, otherSecret, newSecret),
			"a command":                           openWith(t, url, false, otherSecret),
			"a command with the right old secret": openWith(t, url, false, otherSecret, oldSecret),
		} {
			refusedKey(t, name, s)
		}
		none := openWith(t, url, true, "")
		if err := record(t.Context(), none, note(1)); !errors.Is(err, store.ErrAuditKeyUnknown) {
			t.Errorf("no secret: %v, want ErrAuditKeyUnknown", err)
		}
		mustRecord(t, a, 1)
		if r := verifyStore(t, a, store.VerifyOptions{}); r.Exit() != 0 || r.Exist != 4 {
			t.Errorf("afterwards: exit %d, %d rows; want 0, 4", r.Exit(), r.Exist)
		}
	})
}

func TestAdoptLostKey(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		a := openWith(t, url, true, oldSecret)
		mustRecord(t, a, 2)
		by := audit.Actor{Kind: audit.CLI, ID: "root"}
		if err := a.AdoptAuditKey(t.Context(), by, "why not"); !errors.Is(err, store.ErrConflict) {
			t.Errorf("a key that signs: %v, want ErrConflict", err)
		}
		running := openWith(t, url, true, newSecret)
		refusedKey(t, "before", running)
		command := openWith(t, url, false, newSecret)
		if err := command.AdoptAuditKey(t.Context(), by, ""); err == nil {
			t.Error("without a reason: no error")
		}
		if err := command.AdoptAuditKey(t.Context(), by, "the disk burnt"); err != nil {
			t.Fatal(err)
		}
		mustRecord(t, command, 1)
		mustRecord(t, running, 1) // without a restart
		if err := running.AuditErr(); err != nil {
			t.Errorf("health afterwards: %v", err)
		}
		got := log(t, running, store.AuditFilter{Action: string(audit.KeyAdopted)})
		if len(got) != 1 || !strings.Contains(string(got[0].Details), "the disk burnt") || *got[0].ActorID != "root" {
			t.Errorf("the entry: %+v, want who and why", got)
		}
		r := verifyStore(t, running, store.VerifyOptions{})
		if r.Exit() != audit.ExitUnprovable || r.First != nil || r.UnprovableRows != 4 {
			t.Errorf("verify: exit %d, %d rows unprovable, %+v; want 3, the 3 of the lost key and the one of the adoption", r.Exit(), r.UnprovableRows, r.Unprovable)
		}
	})
}

// TestKeyTablesProveNothing: the table of keys may stop a key, never let one in.
func TestKeyTablesProveNothing(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		a := openWith(t, url, true, oldSecret)
		mustRecord(t, a, 2)
		db := attack(t, url)
		k, err := audit.NewKey([]byte(newSecret))
		if err != nil {
			t.Fatal(err)
		}
		mustExec(t, db, `INSERT INTO audit_kids (kid, public_key, introduced) VALUES ('`+k.KID()+`', 'x', 2)`)
		refusedKey(t, "let in by the table", openWith(t, url, true, newSecret))
		mustExec(t, db, `UPDATE audit_kids SET retired = 2 WHERE kid <> '`+k.KID()+`'`)
		refusedKey(t, "stopped by the table", a)
		mustExec(t, db, `DELETE FROM audit_kids`)
		again := openWith(t, url, true, oldSecret)
		mustRecord(t, again, 1)
		if r := verifyStore(t, again, store.VerifyOptions{}); r.Exit() != 0 {
			t.Errorf("exit %d, want 0", r.Exit())
		}
	})
}

func TestShortAuditSecretIsRefused(t *testing.T) {
	o := storetest.Options(storetest.SQLite(t))
	o.Secrets = func(context.Context, bool) (store.Secrets, error) {
		return store.Secrets{Audit: []byte("too short")}, nil
	}
	if s, err := store.Open(t.Context(), o); !errors.Is(err, audit.ErrShortSecret) {
		_ = s.Close()
		t.Errorf("got %v, want ErrShortSecret", err)
	}
}

// TestVerifyBehindAPrune: what an authentic entry says was pruned may be missing, and nothing more.
func TestVerifyBehindAPrune(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := openWith(t, url, true, oldSecret)
		mustRecord(t, s, 5)
		entries := log(t, s, store.AuditFilter{})
		through := entries[len(entries)-4] // row 4
		k, err := audit.NewKey([]byte(oldSecret))
		if err != nil {
			t.Fatal(err)
		}
		err = record(t.Context(), s, audit.New(audit.Facts{Action: audit.Pruned, Actor: audit.Actor{Kind: audit.CLI}, Details: map[string]any{
			"through": through.Seq, "row_hmac": through.RowHMAC, "kids": []any{map[string]any{"kid": k.KID(), "introduced": 1, "retired": 0}},
		}}))
		if err != nil {
			t.Fatal(err)
		}
		db := attack(t, url)
		for _, tt := range []struct{ seq, exit int }{{1, 0}, {2, 0}, {3, 0}, {4, 0}, {5, 1}} {
			mustExec(t, db, `DELETE FROM audit_personal WHERE seq <= `+string(rune('0'+tt.seq)))
			mustExec(t, db, `DELETE FROM audit_log WHERE seq <= `+string(rune('0'+tt.seq)))
			if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != tt.exit {
				t.Errorf("gone up to row %d: exit %d, want %d; %+v", tt.seq, r.Exit(), tt.exit, r)
			}
		}
		mustExec(t, db, `UPDATE audit_boundary SET through = 4`)
		again := openWith(t, url, true, oldSecret)
		mustRecord(t, again, 1) // the key's introduction was pruned, and the entry of the prune vouches for it
	})
}

// TestLessonA12AMissingKeyOfAPruneIsNotTampering: who was not given the key that signed the prune can't check what is behind
// it; that is not the same as rows that are missing for no reason.
func TestLessonA12AMissingKeyOfAPruneIsNotTampering(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := openWith(t, url, true, oldSecret)
		mustRecord(t, s, 3)
		entries := log(t, s, store.AuditFilter{})
		through := entries[len(entries)-3] // row 3
		k, err := audit.NewKey([]byte(oldSecret))
		if err != nil {
			t.Fatal(err)
		}
		err = record(t.Context(), s, audit.New(audit.Facts{Action: audit.Pruned, Actor: audit.Actor{Kind: audit.CLI}, Details: map[string]any{
			"through": through.Seq, "row_hmac": through.RowHMAC, "kids": []any{map[string]any{"kid": k.KID(), "introduced": 1, "retired": 0}},
		}}))
		if err != nil {
			t.Fatal(err)
		}
		rotated := openWith(t, url, true, newSecret, oldSecret)
		mustRecord(t, rotated, 1)
		db := attack(t, url)
		for _, tt := range []struct {
			name, delete string
			both, only   int
			missing      bool
		}{
			{"the prune was killed", `seq <= 2`, audit.ExitProved, audit.ExitUnprovable, false},
			{"the prune was done", `seq <= 3`, audit.ExitProved, audit.ExitUnprovable, false},
			{"more is gone than the entry says", `seq <= 4`, audit.ExitTampered, audit.ExitTampered, true},
		} {
			mustExec(t, db, `DELETE FROM audit_personal WHERE `+tt.delete)
			mustExec(t, db, `DELETE FROM audit_log WHERE `+tt.delete)
			if r := verifyStore(t, rotated, store.VerifyOptions{}); r.Exit() != tt.both {
				t.Errorf("%s, both secrets given: exit %d, want %d; %+v", tt.name, r.Exit(), tt.both, r)
			}
			r := verifyStore(t, openWith(t, url, false, newSecret), store.VerifyOptions{})
			if r.Exit() != tt.only || (r.Faults[audit.MissingInside] > 0) != tt.missing {
				t.Errorf("%s, only the new secret given: exit %d, want %d; %+v", tt.name, r.Exit(), tt.only, r)
			}
		}
	})
}
