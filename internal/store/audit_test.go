package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/z4j-go/z4j/internal/audit"
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
