package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestForkIsNotAboveTheCommonEntries: brains saw entries in turn, the tail is cut, and perhaps others write in the place of
// what was lost before one of them looks. What it finds lets the others go on when it was acknowledged.
func TestForkIsNotAboveTheCommonEntries(t *testing.T) {
	for _, tt := range []struct {
		name  string
		keep  int
		grown int
		fork  int64
	}{
		{"the head is below all that one saw", 2, 0, 2},
		{"the entry before the first that is gone was another's", 3, 0, 3},
		{"the log has grown again", 3, 4, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			storetest.EachURL(t, func(t *testing.T, url string) {
				a, b := storetest.Open(t, url), storetest.Open(t, url)
				mustRecord(t, a, 1) // entry 2
				mustRecord(t, b, 2) // 3 and 4
				mustRecord(t, a, 1) // 5
				cut(t, attack(t, url), tt.keep)
				if tt.grown > 0 {
					mustRecord(t, storetest.Open(t, url), tt.grown)
				}
				if err := record(t.Context(), a, change()); !errors.Is(err, store.ErrHistoryInDoubt) {
					t.Fatalf("a change: %v, want ErrHistoryInDoubt", err)
				}
				h, err := a.Hold(t.Context())
				if err != nil || h == nil || h.Fork == nil || *h.Fork != tt.fork {
					t.Fatalf("hold %+v, %v; want fork %d", h, err, tt.fork)
				}
				if _, err := a.StartGeneration(t.Context(), store.NewGeneration{Cause: "acknowledged", Reason: "a test", Fork: *h.Fork}); err != nil {
					t.Fatal(err)
				}
				for name, s := range map[string]*store.Store{"who noticed": a, "who saw entry 4": b} {
					if err := record(t.Context(), s, change()); err != nil || s.AuditErr() != nil {
						t.Errorf("%s, after it was acknowledged: %v, %v; want it to go on", name, err, s.AuditErr())
					}
				}
			})
		})
	}
}

// TestFailoverOfTwoReplicas: both lost entries that they saw committed; one begins the new history, and the other follows.
func TestFailoverOfTwoReplicas(t *testing.T) {
	url := storetest.Postgres(t)
	open := func() *store.Store {
		o := storetest.Options(url)
		o.Grace = store.Grace{Time: time.Minute, Entries: 10}
		s, err := store.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		s.SetTimeline("'00000001'")
		return s
	}
	a, b := open(), open()
	mustRecord(t, a, 2) // entries 2 and 3
	mustRecord(t, b, 2) // 4 and 5
	mustRecord(t, a, 1) // 6
	cut(t, attack(t, url), 4)
	for _, s := range []*store.Store{a, b} {
		s.SetTimeline("'0000000A'")
		if err := record(t.Context(), s, change()); err != nil {
			t.Errorf("after the failover: %v, want the change made", err)
		}
	}
	list, err := a.Generations(t.Context())
	if err != nil || len(list) != 2 || list[1].Fork != 4 {
		t.Errorf("generations %+v, %v; want a second one that forks at 4", list, err)
	}
	if found := log(t, a, store.AuditFilter{Action: string(audit.HistoryInDoubt)}); len(found) != 1 {
		t.Errorf("%d entries of doubt, want 1", len(found))
	}
}

// TestLaterForkCorrectsAnEarlierOne: a fork was recorded too high; one that lies before it says so.
func TestLaterForkCorrectsAnEarlierOne(t *testing.T) {
	list := []store.Generation{
		{ID: "a", Started: 1},
		{ID: "b", Started: 14, Previous: "a", Fork: 12},
		{ID: "c", Started: 17, Previous: "b", Fork: 11},
		{ID: "d", Started: 30, Previous: "c", Fork: 29},
	}
	for id, want := range map[string]int64{"a": 11, "b": 11, "c": 29} {
		if size, ended := store.End(list, id); size != want || !ended {
			t.Errorf("history %s ended at %d, %t; want %d", id, size, ended, want)
		}
	}
	if size, ended := store.End(list, "d"); ended {
		t.Errorf("the present history ended at %d, want that it goes on", size)
	}
}
