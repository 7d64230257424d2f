package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestTimesOfTheLogAreFoundExactly, whatever the clock did: against a look at every row.
func TestTimesOfTheLogAreFoundExactly(t *testing.T) {
	const minute = int64(time.Minute / time.Microsecond)
	steady := []int64{1, 2, 2, 2, 3 * minute, 4 * minute, 3 * minute, 5 * minute} // one step back of less than five minutes
	ahead := slices.Concat(steady, []int64{9000 * minute, 9001 * minute, 6 * minute, 7 * minute, 8 * minute})
	for _, tt := range []struct {
		name  string
		clock []int64
		steps int
	}{
		{"it went on", steady, 0},
		{"it was ahead for a while", ahead, 1},
		{"it was behind for a while", slices.Concat(steady, []int64{-900 * minute, -899 * minute, 6 * minute, 7 * minute}), 1},
		{"it jumped about", slices.Concat(ahead, []int64{-90 * minute, 20 * minute, -80 * minute, 9000 * minute, -90 * minute, -90 * minute}), 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			storetest.EachURL(t, func(t *testing.T, url string) {
				s := storetest.Open(t, url)
				storetest.FillAuditBy(t, url, tt.clock)
				checkWindows(t, s, url, tt.steps)
				db := attack(t, url)
				mustExec(t, db, `DELETE FROM audit_log WHERE seq <= 3`) // as a prune does
				mustExec(t, db, `DELETE FROM audit_log WHERE seq = 7`)  // as nobody may
				checkWindows(t, s, url, tt.steps)
			})
		})
	}
}

func checkWindows(t *testing.T, s *store.Store, url string, steps int) {
	t.Helper()
	type row struct {
		seq int64
		ts  store.Time
	}
	var rows []row
	for _, e := range log(t, s, store.AuditFilter{Page: store.Page{Limit: 200}}) {
		rows = append(rows, row{e.Seq, e.TS})
	}
	slices.Reverse(rows)
	back := 0
	for i := range rows[1:] {
		if rows[i+1].ts.Before(rows[i].ts.Time) {
			back++
		}
	}
	if back != steps {
		t.Fatalf("time went back %d times, want %d: the test does not try what it says", back, steps)
	}
	for _, at := range rows {
		for _, by := range []time.Duration{-time.Microsecond, 0, time.Microsecond} {
			when := store.TimeOf(at.ts.Add(by))
			var first, last int64
			for _, r := range rows {
				if first == 0 && !r.ts.Before(when.Time) {
					first = r.seq
				}
				if r.ts.Before(when.Time) {
					last = r.seq
				}
			}
			gotFirst, gotLast, err := s.AuditWindow(t.Context(), &when, &when)
			if err != nil || gotFirst != first || gotLast != last {
				t.Errorf("first from %s: %d, last before: %d, %v; want %d, %d", when, gotFirst, gotLast, err, first, last)
			}
			since := log(t, s, store.AuditFilter{From: &when, Page: store.Page{Limit: 200}})
			before := log(t, s, store.AuditFilter{To: &when, Page: store.Page{Limit: 200}})
			if len(since)+len(before) != len(rows) {
				t.Errorf("%d entries since %s and %d before; want %d together", len(since), when, len(before), len(rows))
			}
		}
	}
}
