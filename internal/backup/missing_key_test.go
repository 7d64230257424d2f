package backup_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestAMissingKeyIsNotTampering: of a log whose audit secret was rotated, without the old one not all can be proved, which is said
// and is no fault, also when the entry that says where a pruned log begins is one of the old secret. Without the new one nobody
// can go on with the log, and a restore says which secret is missing.
func TestAMissingKeyIsNotTampering(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		pruned int64
		from   int64 // the first row that is there
		left   string
	}{
		"a whole log": {0, 1, ""}, "a pruned log": {200, 201, ""}, "a log whose prune was not finished": {200, 121, `seq <= 120`},
	} {
		t.Run(name, func(t *testing.T) {
			eachSite(t, func(t *testing.T, s *site) {
				storetest.FillAudit(t, s.url, 300)
				s.watch(t)
				switch {
				case tt.left != "":
					s.halfPruned(t, tt.pruned, tt.left)
				case tt.pruned > 0:
					s.prune(t, tt.pruned)
				}
				s.missing(t, tt.from)
			})
		})
	}
}

// missing rotates the audit secret, and verifies and restores a backup with one of the two.
func (s *site) missing(t *testing.T, from int64) {
	t.Helper()
	rotated := store.Secrets{Master: storetest.Secrets.Master, Audit: []byte("test-audit-secret-test-audit-secret-000002"), PreviousAudit: [][]byte{storetest.Secrets.Audit}}
	old, fresh := mustKey(t, storetest.Secrets.Audit), mustKey(t, rotated.Audit)
	so := storetest.Options(s.url)
	so.Secrets = func(context.Context, bool) (store.Secrets, error) { return rotated, nil }
	next, err := store.Open(t.Context(), so)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	after := &site{lab: &lab{Store: next}}
	after.minted(t) // entries of the new key alone: its introduction needs both
	o := s.options(t)
	o.Store, o.Keys = next, []audit.Key{fresh, old}
	made, err := backup.Make(t.Context(), o)
	if err != nil || !made.Verified {
		t.Fatalf("with both keys: got %+v, %v, want a backup that is verified", made, err)
	}
	lacking := o
	lacking.Keys = []audit.Key{fresh}
	doubtful, err := backup.Make(t.Context(), lacking)
	if err != nil || doubtful.Verified || !doubtful.Unproved || !strings.Contains(doubtful.Reason, "was not given") {
		t.Errorf("without the old key: got verified %t, %q, %v, want a backup that is not verified, and why", doubtful.Verified, doubtful.Reason, err)
	}
	last, err := backup.Last(t.Context(), next, audit.BackupCompleted)
	if err != nil || last.ID != doubtful.ID || last.Verified || !last.Unproved() {
		t.Errorf("recorded: got %+v, %v, want it not verified, and why", last, err)
	}
	for name, keys := range map[string][]audit.Key{"without the old key": {fresh}, "without the new key": {old}} {
		a, err := backup.Open(t.Context(), s.place, made.Name, backup.ReadOptions{Keys: keys, Unsigned: true})
		if err != nil {
			t.Fatal(err)
		}
		report, err := a.Verify(t.Context(), keys, nil)
		if err != nil || report.Exit() != backup.ExitUnprovable || report.Audit.First != nil || report.Fault() != "" {
			t.Errorf("%s: verify: got exit %d, %q, %+v, %v, want that it can't be checked, and no fault", name, report.Exit(), report.Fault(), report.Audit.First, err)
		}
		if name == "without the old key" && report.Audit.From != from {
			t.Errorf("%s: verify: got rows from %d, want %d", name, report.Audit.From, from)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r := s.restoring(t, made.Name, s.fresh(t, false))
	r.Live, r.Keys, r.Unsigned = nil, []audit.Key{old}, true
	if _, err := backup.PlanRestore(t.Context(), r); !errors.Is(err, backup.ErrNoKey) || !strings.Contains(err.Error(), fresh.KID()) {
		t.Errorf("restore without the new key: got %v, want ErrNoKey with its id", err)
	}
	home := t.TempDir()
	r.Keys, r.Unsigned, r.Secrets = []audit.Key{fresh}, false, store.Secrets{Master: rotated.Master, Audit: rotated.Audit}
	r.Custody = func(s *store.Store) *custody.Custody {
		return custody.New(custody.Options{Store: s, Keys: []audit.Key{fresh}, Home: home, Now: time.Now, ReadOnly: s == nil})
	}
	planned := plan(t, r)
	if !strings.Contains(strings.Join(planned.Plan.Warnings, "\n"), "an audit secret is missing") {
		t.Errorf("restore without the old key: got %q, want a warning", planned.Plan.Warnings)
	}
	if _, err := planned.Run(t.Context()); err != nil {
		t.Errorf("restore without the old key: %v", err)
	}
}

// TestALostKeyThatIsOnRecordSpoilsNoBackup: what it signed can never be proved again, and what came since can.
func TestALostKeyThatIsOnRecordSpoilsNoBackup(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		so := storetest.Options(s.url)
		now := store.Secrets{Master: storetest.Secrets.Master, Audit: []byte("test-audit-secret-test-audit-secret-000002")}
		so.Secrets = func(context.Context, bool) (store.Secrets, error) { return now, nil }
		next, err := store.Open(t.Context(), so)
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		if err := next.AdoptAuditKey(t.Context(), audit.Actor{Kind: audit.CLI, ID: "uid:0"}, "the disk burnt"); err != nil {
			t.Fatal(err)
		}
		o := s.options(t)
		o.Store, o.Keys = next, []audit.Key{mustKey(t, now.Audit)}
		if made, err := backup.Make(t.Context(), o); err != nil || !made.Verified || made.Reason != "" {
			t.Errorf("got verified %t, %q, %v, want it verified", made.Verified, made.Reason, err)
		}
	})
}

func mustKey(t *testing.T, secret []byte) audit.Key {
	t.Helper()
	k, err := audit.NewKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
