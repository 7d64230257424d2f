package store_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// restored restores k into url as a restore does, and opens it.
func restored(t *testing.T, k *kept, url string, r store.Restoration) *store.Store {
	t.Helper()
	l, err := k.open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range k.chunks {
		if _, err := l.Load(t.Context(), c.Table, c.Raw); err != nil {
			t.Fatal(err)
		}
	}
	s, err := l.Finish(t.Context(), storetest.Secrets)
	if err != nil {
		t.Fatal(err)
	}
	if r.Place, err = s.PresentPlace(t.Context()); err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(r.Place.Location, "-restoring") {
		t.Errorf("the place is %s, which is not where the database will be", r.Place.Location)
	}
	err = l.Release(t.Context(), func(last func(*store.Tx) error) error {
		_, err := s.EndRestore(t.Context(), r, last)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return storetest.Open(t, url)
}

// TestLessonL15NothingComesBackToLife: sessions, tokens to set up, and what was revoked or erased after the backup stay
// void; the lost window is told; the chain goes on at head + 1 in a new generation.
func TestLessonL15NothingComesBackToLife(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		first := storetest.Open(t, url)
		fillOdd(t, first, url)
		k := keep(t, first)
		agents := storetest.Rows(t, storetest.DB(t, url), idsOf("agents", url))
		keys := storetest.Rows(t, storetest.DB(t, url), idsOf("api_keys", url))
		next := storetest.SQLite(t)
		if strings.HasPrefix(url, "postgres") {
			next = storetest.Postgres(t)
		}
		agent, key := mustID(t, agents[0][0]), mustID(t, keys[0][0])
		s := restored(t, &k, next, store.Restoration{
			Backup: "b1", SnapshotAt: k.info.Time, HeadSeq: k.info.AuditSize, HeadHMAC: k.info.Head, By: store.By{Actor: audit.Actor{Kind: audit.CLI}},
			Lost: audit.Row{Seq: 99, RowHMAC: strings.Repeat("ab", 32), TS: time.Now().UnixMicro()},
			Revival: store.Revival{
				Agents: []id.ID{agent, id.Random()}, Keys: []id.ID{key}, SuspendKeys: true,
				Erasures: []store.Erasure{{Reason: "erased again", Parts: []audit.ErasedPart{{Seq: 3, Role: audit.RoleActor}, {Seq: 2, Role: audit.RoleTarget}, {Seq: 77, Role: audit.RoleActor}}}},
			},
		})
		db := storetest.DB(t, next)
		for _, tt := range []struct{ sentence, q, want string }{
			{"no session lives", `SELECT count(*) FROM sessions WHERE revoked_at IS NULL`, "0"},
			{"no token sets the brain up", `SELECT count(*) FROM first_boot_tokens`, "0"},
			{"no lease is held", `SELECT count(*) FROM leases`, "0"},
			{"no API key works", `SELECT count(*) FROM api_keys WHERE revoked_at IS NULL AND suspended_at IS NULL`, "0"},
			{"two personal parts are gone", `SELECT count(*) FROM audit_personal WHERE erased_by IS NOT NULL AND json IS NULL AND salt IS NULL AND subject IS NULL`, "2"},
			{"the place is known", `SELECT count(*) FROM audit_place`, "1"},
			{"the restore is the entry at head + 1", `SELECT seq FROM audit_log WHERE action = 'system.restored'`, "5"},
		} {
			if got := storetest.Rows(t, db, tt.q)[0][0]; got != tt.want {
				t.Errorf("%s: %s gives %s, want %s", tt.sentence, tt.q, got, tt.want)
			}
		}
		for table, one := range map[string]id.ID{"agents": agent, "api_keys": key} {
			if got := storetest.Rows(t, db, idsOf(table, next)+` WHERE revoked_at IS NULL`); len(got) > 0 && contains(t, got, one) {
				t.Errorf("%s %v was revoked after the backup and lives", table, one)
			}
		}
		if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != 0 {
			t.Errorf("verify: exit %d, %+v", r.Exit(), r.First)
		}
		list, err := s.Generations(t.Context())
		if err != nil || len(list) != 2 || list[1].Fork != k.info.AuditSize || list[1].Previous != list[0].ID {
			t.Errorf("generations %+v, %v; want a second from %d on", list, err, k.info.AuditSize)
		}
		gaps, err := s.DataGaps(t.Context())
		if err != nil || len(gaps) != 1 || gaps[0].Backup != "b1" || !gaps[0].From.Equal(k.info.Time.Time) || gaps[0].Until != nil {
			t.Errorf("gaps %+v, %v; want one of b1 that is open", gaps, err)
		}
		release(t, s)
	})
}

// release lets go what a restore held, in two steps. The gap ends with the first.
func release(t *testing.T, s *store.Store) {
	t.Helper()
	ends := func() string {
		t.Helper()
		gaps, err := s.DataGaps(t.Context())
		if err != nil || len(gaps) != 1 || gaps[0].Until == nil || !gaps[0].Until.After(gaps[0].From.Time) {
			t.Fatalf("gaps after a release: %+v, %v; want the one, with its end", gaps, err)
		}
		return gaps[0].Until.String()
	}
	by := store.By{Actor: audit.Actor{Kind: audit.CLI}}
	if n, err := s.ReleaseRestore(t.Context(), false, by); err != nil || n != 0 {
		t.Errorf("release: %d keys, %v; want none", n, err)
	}
	if h, err := s.RestoreHeld(t.Context()); err != nil || h.Outgoing || !h.Keys {
		t.Errorf("after a release without keys: %+v, %v; want the keys held", h, err)
	}
	end := ends()
	if n, err := s.ReleaseRestore(t.Context(), true, by); err != nil || n == 0 {
		t.Errorf("release with keys: %d, %v; want some", n, err)
	}
	if again := ends(); again != end {
		t.Errorf("the gap ends at %s after the keys' release, want %s as before", again, end)
	}
	if _, err := s.RestoreHeld(t.Context()); !errors.Is(err, store.ErrNotHeld) {
		t.Errorf("after both: %v, want ErrNotHeld", err)
	}
	if _, err := s.ReleaseRestore(t.Context(), true, by); !errors.Is(err, store.ErrNotHeld) {
		t.Errorf("a third time: %v, want ErrNotHeld", err)
	}
}

func idsOf(table, url string) string {
	if strings.HasPrefix(url, "postgres") {
		return `SELECT id FROM ` + table
	}
	return `SELECT lower(substr(hex(id),1,8) || '-' || substr(hex(id),9,4) || '-' || substr(hex(id),13,4) || '-' || substr(hex(id),17,4) || '-' || substr(hex(id),21)) FROM ` + table
}

func mustID(t *testing.T, text string) id.ID {
	t.Helper()
	u, err := id.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func contains(t *testing.T, rows [][]string, one id.ID) bool {
	t.Helper()
	for _, row := range rows {
		if mustID(t, row[0]) == one {
			return true
		}
	}
	return false
}
