package auth

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// cheap is a cost that tests can pay often.
var cheap = Cost{Time: 1, Memory: 8, Threads: 1}

func TestNoMoreHashesAtOnceThanAllowed(t *testing.T) {
	p := NewPasswords(Policy{}, cheap, 2)
	running, most := 0, 0
	var mu sync.Mutex
	p.derived = func() {
		mu.Lock()
		defer mu.Unlock()
		running = len(p.slots)
		most = max(most, running)
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if err := p.VerifyNobody(t.Context(), "x"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most > 2 {
		t.Errorf("hashes at once: got %d, want at most 2", most)
	}
}

func TestAWaiterForAHashGivesUpWithItsRequest(t *testing.T) {
	p := NewPasswords(Policy{}, cheap, 1)
	p.slots <- struct{}{} // somebody else computes
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.VerifyNobody(ctx, "x"); err == nil {
		t.Error("got nil, want the end of the request")
	}
}

func TestTooManyWaitersAreTurnedAway(t *testing.T) {
	p := NewPasswords(Policy{}, cheap, 1)
	p.slots <- struct{}{} // somebody computes for ever
	p.queue <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range maxWaiting {
		wg.Go(func() {
			if err := p.VerifyNobody(ctx, "x"); !errors.Is(err, context.Canceled) {
				t.Errorf("a waiter: got %v, want the end of its request", err)
			}
		})
	}
	for len(p.queue) < cap(p.queue) {
		runtime.Gosched()
	}
	if err := p.VerifyNobody(ctx, "x"); !errors.Is(err, ErrBusy) {
		t.Errorf("one more: got %v, want ErrBusy", err)
	}
	cancel()
	wg.Wait()
}

// TestLessonC11: an account that does not exist costs exactly the work of one that does.
func TestLessonC11NobodyCostsAsMuchAsSomebody(t *testing.T) {
	p := NewPasswords(Policy{}, cheap, 1)
	hash, err := p.Rehash(t.Context(), "Correct-Horse-9-Battery")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		work func() error
	}{
		{"a wrong password", func() error { _, _, err := p.Verify(t.Context(), hash, "wrong"); return err }},
		{"nobody", func() error { return p.VerifyNobody(t.Context(), "wrong") }},
	} {
		before := p.Computed()
		if err := tt.work(); err != nil || p.Computed() != before+1 {
			t.Errorf("%s: got %d hashes and %v, want 1 and no error", tt.name, p.Computed()-before, err)
		}
	}
	before := p.Computed()
	if _, _, err := p.Verify(t.Context(), "!locked", "wrong"); err == nil || p.Computed() != before+1 {
		t.Errorf("an unreadable hash: got %d hashes and %v, want 1 and an error", p.Computed()-before, err)
	}
	got, _, _, err := decodeHash(p.nobody)
	if err != nil || got != cheap {
		t.Errorf("cost of nobody's hash: got %v, %v; want %v", got, err, cheap)
	}
	if len(p.nobody) != len(hash) || !strings.HasPrefix(p.nobody, hash[:strings.LastIndex(hash[:len(hash)-50], "$")]) {
		t.Errorf("nobody's hash: got %s, want the shape of %s", p.nobody, hash)
	}
}

func TestALimiterForgetsAndStaysSmall(t *testing.T) {
	l := NewLimiter(Limit{Count: 2, Per: time.Minute})
	l.keys = 10
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i := range 1000 {
		l.Take(strings.Repeat("k", i), now)
	}
	if n := len(l.newer) + len(l.older); n > 20 {
		t.Errorf("keys after 1000 strangers: got %d, want at most 20", n)
	}
	now = now.Add(3 * time.Minute)
	l.Take("a", now)
	now = now.Add(3 * time.Minute)
	l.Take("b", now)
	if n := len(l.newer) + len(l.older); n > 2 {
		t.Errorf("keys after quiet minutes: got %d, want at most 2", n)
	}
}
