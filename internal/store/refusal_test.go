package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// clock is a clock that a test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func openAt(t testing.TB, url string, c *clock) *store.Store {
	t.Helper()
	o := storetest.Options(url)
	o.Now = c.now
	s, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// refusing runs a writer; the returned function stops it and waits.
func refusing(t testing.TB, s *store.Store) (r *store.Refusals, stop func()) {
	t.Helper()
	r = store.NewRefusals(s)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return r, stop
}

func failedLogin(ip, email string) audit.Facts {
	return audit.Facts{
		Action: audit.AuthLogin, Outcome: audit.Deny, Actor: audit.Actor{Kind: audit.Anonymous, IP: ip}, Target: audit.Target{Label: email},
		Details: map[string]any{"reason": "invalid_credentials", "status": 401},
	}
}

func log(t testing.TB, s *store.Store, f store.AuditFilter) []store.AuditEntry {
	t.Helper()
	page, err := s.AuditLog(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return page.Items
}

// TestLessonA28RefusalsAreCounted and A15: the first is written before the answer, the rest become one row.
func TestLessonA28RefusalsAreCounted(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		c := newClock()
		s := openAt(t, url, c)
		r, stop := refusing(t, s)
		r.Record(t.Context(), failedLogin("203.0.113.7", "ann@example.org"))
		if got := log(t, s, store.AuditFilter{Action: string(audit.AuthLogin)}); len(got) != 1 || got[0].Outcome != "deny" || *got[0].TargetLabel != "ann@example.org" {
			t.Errorf("when Record returned: %d rows %+v, want the first refusal", len(got), got)
		}
		for range 50 {
			c.add(time.Second)
			r.Record(t.Context(), failedLogin("203.0.113.7", "bob@example.org"))
		}
		r.Record(t.Context(), failedLogin("203.0.113.8", "ann@example.org"))
		if got := log(t, s, store.AuditFilter{Action: string(audit.AuthLogin)}); len(got) != 2 {
			t.Errorf("after 50 repetitions and another address: %d rows, want 2", len(got))
		}
		c.add(10 * time.Minute)
		r.Record(t.Context(), failedLogin("203.0.113.7", "ann@example.org"))
		stop()
		got := log(t, s, store.AuditFilter{Action: string(audit.AuthLogin)})
		var counts []string
		for _, e := range got {
			var d struct {
				Count       int64
				First, Last string
			}
			if err := json.Unmarshal(e.Details, &d); err != nil {
				t.Fatal(err)
			}
			counts = append(counts, fmt.Sprintf("%d %s %s", d.Count, d.First, d.Last))
		}
		want := fmt.Sprint([]string{"0  ", "50 2026-01-02T03:04:06.000000Z 2026-01-02T03:04:55.000000Z", "0  ", "0  "})
		if fmt.Sprint(counts) != want {
			t.Errorf("at the end: %q, want a row for the repetitions with their count and times, and three firsts", counts)
		}
		if rep := verifyStore(t, s, store.VerifyOptions{}); rep.Exit() != 0 {
			t.Errorf("exit %d, want 0", rep.Exit())
		}
	})
}

func TestRefusalKeys(t *testing.T) {
	s := storetest.Open(t, storetest.SQLite(t))
	r, stop := refusing(t, s)
	deny := func(action audit.Action, kind audit.ActorKind, id, ip, target string) {
		r.Record(t.Context(), audit.Facts{Action: action, Outcome: audit.Deny, Actor: audit.Actor{Kind: kind, ID: id, IP: ip}, Target: audit.Target{ID: target}})
	}
	deny(audit.AgentMinted, audit.User, "u1", "203.0.113.7", "a")
	deny(audit.AgentMinted, audit.User, "u1", "203.0.113.8", "a") // another address, the same actor
	deny(audit.AgentMinted, audit.User, "u1", "203.0.113.7", "b")
	deny(audit.AgentRevoked, audit.User, "u1", "203.0.113.7", "a")
	deny(audit.AgentMinted, audit.User, "u2", "203.0.113.7", "a")
	deny(audit.AccessRefused, audit.Anonymous, "", "2001:db8:1:2::1", "a")
	deny(audit.AccessRefused, audit.Anonymous, "", "2001:db8:1:2:ffff::9", "b") // the same /64
	deny(audit.AccessRefused, audit.Anonymous, "", "2001:db8:1:3::1", "a")
	deny(audit.AccessRefused, audit.Anonymous, "", "::ffff:203.0.113.7", "a")
	deny(audit.AccessRefused, audit.Anonymous, "", "203.0.113.7", "a") // the same address
	stop()
	if got := len(log(t, s, store.AuditFilter{Outcome: "deny"})); got != 7+3 {
		t.Errorf("%d rows, want 7 firsts and 3 of repetitions", got)
	}
}

// TestFloodOfRefusals: a flood neither grows without bound nor stands in the way of changes, and nothing is uncounted.
func TestFloodOfRefusals(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		r, stop := refusing(t, s)
		const flood = 20_000
		begin := time.Now()
		for i := range flood {
			r.Record(t.Context(), audit.Facts{Action: audit.AccessRefused, Actor: audit.Actor{Kind: audit.Anonymous, IP: fmt.Sprintf("10.%d.%d.1", i>>8, i&255)}})
		}
		if d := time.Since(begin); d > 20*time.Second {
			t.Errorf("recording took %v: nobody anonymous waits", d)
		}
		mustRecord(t, s, 5)
		stop()
		var total int64
		entries := 0
		f := store.AuditFilter{Outcome: "deny"}
		for {
			page, err := s.AuditLog(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page.Items {
				var d struct{ Count int64 }
				_ = json.Unmarshal(e.Metadata, &d)
				total += max(d.Count, 1)
				entries++
			}
			if page.Next == nil {
				break
			}
			f.Cursor = *page.Next
		}
		if total != flood || entries > 2100 {
			t.Errorf("%d refusals in %d rows, want %d in at most 2,100", total, entries, flood)
		}
	})
}

// TestLessonA16RefusalsNeverAlterTheAnswer: without a database that works Record still returns, and soon.
func TestLessonA16RefusalsNeverAlterTheAnswer(t *testing.T) {
	s, err := store.Open(t.Context(), storetest.Options(storetest.SQLite(t)))
	if err != nil {
		t.Fatal(err)
	}
	r, stop := refusing(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	r.Record(t.Context(), failedLogin("203.0.113.7", "ann@example.org"))
	r.Record(t.Context(), audit.Facts{Action: "no.such", Actor: audit.Actor{Kind: audit.User, ID: "u"}})
	r.Record(t.Context(), audit.Facts{Action: audit.AuthLogin, Actor: audit.Actor{Kind: "nobody"}})
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("Record took %v, want about a second", d)
	}
	stop()
}
