package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

func TestLease(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		t0 := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for _, tt := range []struct {
			name, holder string
			after        time.Duration
			want         bool
		}{
			{"a free lease is given", "a", 0, true},
			{"a held one is not", "b", 30 * time.Second, false},
			{"its holder renews it", "a", 40 * time.Second, true},
			{"the renewal counts", "b", 90 * time.Second, false},
			{"one that ended is given", "b", 101 * time.Second, true},
			{"and is gone for the first", "a", 102 * time.Second, false},
		} {
			now := store.TimeOf(t0.Add(tt.after))
			got, err := s.Lease(t.Context(), "prune", tt.holder, now, store.TimeOf(now.Add(time.Minute)))
			if err != nil || got != tt.want {
				t.Errorf("%s: %v, %v; want %v", tt.name, got, err, tt.want)
			}
		}
		if err := s.ReleaseLease(t.Context(), "prune", "b"); err != nil {
			t.Fatal(err)
		}
		now := store.TimeOf(t0.Add(103 * time.Second))
		if got, err := s.Lease(t.Context(), "prune", "a", now, now); err != nil || !got {
			t.Errorf("a released lease: %v, %v; want true", got, err)
		}
	})
}

func TestMeta(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		for _, want := range []string{"one", "two", "two"} {
			if err := s.PutMeta(t.Context(), "k", want); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Meta(t.Context(), "k"); err != nil || got != want {
				t.Errorf("meta: %q, %v; want %q", got, err, want)
			}
		}
	})
}

// errorIs is errors.Is that takes nil as "no error".
func errorIs(err, want error) bool {
	if want == nil {
		return err == nil
	}
	return errors.Is(err, want)
}
