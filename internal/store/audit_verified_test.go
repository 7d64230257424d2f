package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// found is a verification that ended n hours after noon.
func found(hours int, full bool, exit int, more ...func(*store.Verified)) store.Verified {
	at := store.TimeOf(time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC).Add(time.Duration(hours) * time.Hour))
	v := store.Verified{Result: audit.Verdict(exit), Exit: exit, Full: full, Began: at, Ended: at}
	switch exit {
	case audit.ExitTampered:
		v.First = &audit.Fault{Seq: 7, Class: audit.Edited, Why: "it was"}
	case audit.ExitBehind:
		v.First = &audit.Fault{Seq: 9, Class: audit.CutTail, Why: "it was"}
	}
	for _, change := range more {
		change(&v)
	}
	return v
}

func unprovable(from, to int64) func(*store.Verified) {
	return func(v *store.Verified) {
		v.Unprovable = []audit.Range{{From: from, To: to, Class: audit.UnknownKey, Why: "key x was not given"}}
		v.UnprovableRows = to - from + 1
	}
}

// TestAuditStateAfter: a fault that was found is told until every row was read without finding it again.
func TestAuditStateAfter(t *testing.T) {
	yes, no := true, false
	for _, tt := range []struct {
		name   string
		found  []store.Verified
		ok     *bool
		result string
		since  int // hours after noon; -1: not broken
	}{
		{"nothing yet", nil, nil, "", -1},
		{"proved", []store.Verified{found(0, true, 0)}, &yes, "proved", -1},
		{"proved behind a checkpoint only", []store.Verified{found(0, false, 0)}, &yes, "proved", -1},
		{"not provable is no fault", []store.Verified{found(0, true, 3)}, &yes, "not provable", -1},
		{"what could not be proved is told though the rest was proved since", []store.Verified{found(0, true, 3), found(1, false, 0)}, &yes, "not provable", -1},
		{"not provable behind a checkpoint", []store.Verified{found(0, true, 0), found(1, false, 3)}, &yes, "not provable", -1},
		{"tampered", []store.Verified{found(0, true, 0), found(1, true, 1)}, &no, "tampered", 1},
		{"behind", []store.Verified{found(0, true, 0), found(1, false, 4)}, &no, "behind", 1},
		{"tampered, and nothing wrong behind a checkpoint", []store.Verified{found(1, true, 1), found(2, false, 0)}, &no, "tampered", 1},
		{"tampered twice: since the first", []store.Verified{found(1, true, 1), found(2, false, 0), found(3, true, 1)}, &no, "tampered", 1},
		{"tampered, then behind", []store.Verified{found(1, true, 1), found(2, false, 4)}, &no, "behind", 1},
		{"mended", []store.Verified{found(1, true, 1), found(2, true, 0)}, &yes, "proved", -1},
		{"mended, and tampered again", []store.Verified{found(1, true, 1), found(2, true, 0), found(3, false, 1)}, &no, "tampered", 3},
		{"the row can not be proved any more", []store.Verified{found(1, true, 1), found(2, true, 3, unprovable(5, 8))}, &no, "tampered", 1},
		{"other rows can not be proved", []store.Verified{found(1, true, 1), found(2, true, 3, unprovable(10, 12))}, &yes, "not provable", -1},
	} {
		var a store.AuditState
		for _, v := range tt.found {
			a = a.After(v)
		}
		since := -1
		if a.BrokenSince != nil {
			since = a.BrokenSince.Hour() - 12
		}
		if diff := cmp.Diff(tt.ok, a.OK()); diff != "" || a.Result() != tt.result || since != tt.since || (a.Broken != nil) != (since >= 0) {
			t.Errorf("%s: %q, broken since hour %d; want %q, %d; ok (-want +got):\n%s", tt.name, a.Result(), since, tt.result, tt.since, diff)
		}
		if n := len(tt.found); n > 0 && a.Last.Ended != tt.found[n-1].Ended {
			t.Errorf("%s: the last is of %v, want %v", tt.name, a.Last.Ended, tt.found[n-1].Ended)
		}
	}
}

// TestAuditStateDue: behind a checkpoint every interval, in full daily or, for many rows, weekly; a broken log always in full,
// and at once after a start and when somebody found fault.
func TestAuditStateDue(t *testing.T) {
	const many = 10_000_000
	last := found(0, true, 0)
	after := func(list ...store.Verified) (a store.AuditState) {
		for _, v := range list {
			a = a.After(v)
		}
		return a
	}
	for _, tt := range []struct {
		name      string
		state     store.AuditState
		hour      int
		rows      int64
		unseen    bool
		due, full bool
	}{
		{"never yet", after(), 0, 5, false, true, true},
		{"just now", after(found(0, true, 0)), 0, 5, false, false, false},
		{"before the interval ended", after(found(0, true, 0)), 1, 5, false, false, false},
		{"when it ended", after(found(0, true, 0)), 2, 5, false, true, false},
		{"a day later", after(found(0, true, 0), found(23, false, 0)), 25, 5, false, true, true},
		{"a day later, within the interval", after(found(0, true, 0), found(23, false, 0)), 24, 5, false, false, false},
		{"a day later, of many rows", after(found(0, true, 0), found(23, false, 0)), 25, many, false, true, false},
		{"a week later, of many rows", after(found(0, true, 0), found(167, false, 0)), 169, many, false, true, true},
		{"only ever behind a checkpoint", after(found(0, false, 0)), 2, 5, false, true, true},
		{"it is broken", after(found(0, true, 1)), 2, 5, false, true, true},
		{"it is broken, and the interval is not over", after(found(0, true, 1)), 1, 5, false, false, false},
		{"it is broken and has many rows", after(found(0, true, 1)), 2, many, false, true, false},
		{"the clock was set back", after(found(5, true, 0)), 3, 5, false, true, true},
		{"a start just after one", after(found(0, true, 0)), 0, 5, true, true, true},
		{"a start soon after one of many rows", after(found(0, true, 0)), 1, many, true, false, false},
		{"a start long after one of many rows", after(found(0, true, 0), found(24, false, 0)), 24, many, true, true, true},
		{"somebody found fault", store.AuditState{Last: &last, Full: &last, Wanted: 2, Looked: 1}, 0, many, false, true, true},
		{"what somebody found was looked at", store.AuditState{Last: &last, Full: &last, Wanted: 2, Looked: 2}, 0, 5, false, false, false},
	} {
		now := found(tt.hour, true, 0).Ended.Time
		if due, full := tt.state.Due(now, 2*time.Hour, tt.rows, tt.unseen); due != tt.due || full != tt.full {
			t.Errorf("%s: due %t, in full %t; want %t, %t", tt.name, due, full, tt.due, tt.full)
		}
	}
}

// TestAuditStateSeen: of the brains that start on a database one looks at every row, and the others see that.
func TestAuditStateSeen(t *testing.T) {
	var none store.AuditState
	one := none.After(found(0, true, 0))
	part, two := one.After(found(1, false, 0)), one.After(found(1, true, 0))
	for _, tt := range []struct {
		name       string
		before, is store.AuditState
		want       bool
	}{
		{"nothing yet", none, none, false},
		{"the first", none, one, true},
		{"the same as at the start", one, one, false},
		{"behind a checkpoint", one, part, false},
		{"another brain's", one, two, true},
		{"forgotten", one, none, false},
	} {
		if got := tt.is.Seen(&tt.before); got != tt.want {
			t.Errorf("%s: got %t, want %t", tt.name, got, tt.want)
		}
	}
}

// edited is the report of a full verification that found a fault.
func edited(seq int64) *audit.Report {
	return &audit.Report{Exist: 9, Checked: 9, From: 1, To: 9, First: &audit.Fault{Seq: seq, Class: audit.Edited, Why: "it was"}, Faults: map[audit.Class]int64{audit.Edited: 1}}
}

// proved is the report of a verification behind a checkpoint, or of every row if since is 0.
func proved(since int64) *audit.Report {
	return &audit.Report{Exist: 9, Checked: 9, From: since + 1, To: 9, Since: since}
}

// end ends a verification of s.
func end(t *testing.T, s *store.Store, v store.Verification, r *audit.Report) (was, is store.AuditState, kept bool) {
	t.Helper()
	was, is, kept, err := s.EndVerification(t.Context(), v, r)
	if err != nil {
		t.Fatal(err)
	}
	return was, is, kept
}

func begin(t *testing.T, s *store.Store) store.Verification {
	t.Helper()
	v, err := s.BeginVerification(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestAuditStateIsKept: every brain on a database tells the same, and what somebody else wrote there is no obstacle.
func TestAuditStateIsKept(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		if a, err := s.AuditState(t.Context()); err != nil || a.Last != nil {
			t.Errorf("before the first: %+v, %v; want nothing", a, err)
		}
		end(t, s, begin(t, s), edited(7))
		was, is, kept := end(t, storetest.Open(t, url), begin(t, s), proved(4))
		if !kept || was.Last.Exit != audit.ExitTampered || is.Last.Exit != audit.ExitProved || is.Broken == nil {
			t.Errorf("another verification: was %+v, is %+v, kept %t; want the one after the other", was, is, kept)
		}
		got, err := storetest.Open(t, url).AuditState(t.Context())
		if err != nil || got.Broken == nil || got.Broken.First.Seq != 7 || !got.BrokenSince.Equal(is.BrokenSince.Time) || got.Last.From != 5 {
			t.Errorf("another brain reads %+v, %v; want %+v", got, err, is)
		}
		if err := s.PutMeta(t.Context(), "audit_verification", "{"); err != nil {
			t.Fatal(err)
		}
		if a, err := s.AuditState(t.Context()); err != nil || a.Last != nil {
			t.Errorf("what is no state: %+v, %v; want nothing, and no error", a, err)
		}
		if _, is, kept := end(t, s, begin(t, s), proved(0)); !kept || is.Full == nil {
			t.Errorf("after what is no state: %+v, kept %t; want the new one", is, kept)
		}
	})
}

// TestAuditStateWanted: a fault that somebody found is looked for in every row by a verification that begins after that.
func TestAuditStateWanted(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		wanted := func() bool {
			a, err := s.AuditState(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return a.Wanted > a.Looked
		}
		slow := begin(t, s)
		if err := s.WantVerification(t.Context()); err != nil {
			t.Fatal(err)
		}
		if end(t, s, slow, proved(0)); !wanted() {
			t.Error("one that began before: nothing is wanted any more, want that it goes on")
		}
		if end(t, s, begin(t, s), proved(4)); !wanted() {
			t.Error("one behind a checkpoint: nothing is wanted any more, want that it goes on")
		}
		if end(t, s, begin(t, s), proved(0)); wanted() {
			t.Error("one of every row: it is wanted still")
		}
	})
}

// TestAuditStateEndsWithItsHistory: what was found before a roll-back was acknowledged or a backup restored is said of
// another log, also by a verification that was under way.
func TestAuditStateEndsWithItsHistory(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		end(t, s, begin(t, s), edited(1))
		slow := begin(t, s)
		if _, err := s.StartGeneration(t.Context(), store.NewGeneration{Cause: "acknowledged", Reason: "a test", Fork: 1}); err != nil {
			t.Fatal(err)
		}
		if a, err := s.AuditState(t.Context()); err != nil || a.OK() != nil || a.Result() != "" {
			t.Errorf("of the new history: %+v, %v; want nothing known", a, err)
		}
		if _, _, kept := end(t, s, slow, edited(1)); kept {
			t.Error("a verification that began before was kept")
		}
		if a, err := s.AuditState(t.Context()); err != nil || a.Last != nil {
			t.Errorf("after a verification of the history before: %+v, %v; want nothing known", a, err)
		}
		if due, full := new(store.AuditState).Due(time.Now(), time.Hour, 3, false); !due || !full {
			t.Errorf("due %t, full %t; want both", due, full)
		}
	})
}

// TestSeeHold: a process that makes no change sees that another one began a hold, and that it ended.
func TestSeeHold(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s, other := storetest.Open(t, url), storetest.Open(t, url)
		see := func(what string, want bool) {
			t.Helper()
			if err := s.SeeHold(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := errors.Is(s.AuditErr(), store.ErrHistoryInDoubt); got != want {
				t.Errorf("%s: held %t, want %t", what, got, want)
			}
		}
		see("at first", false)
		if err := other.PutHold(t.Context(), store.Doubt{Cause: "restored", Reason: "a test", Fork: 1}); err != nil {
			t.Fatal(err)
		}
		see("begun", true)
		if _, err := other.StartGeneration(t.Context(), store.NewGeneration{Cause: "acknowledged", Reason: "a test", Fork: 1}); err != nil {
			t.Fatal(err)
		}
		see("ended", false)
	})
}
