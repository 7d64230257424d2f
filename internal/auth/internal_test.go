package auth

import (
	"bytes"
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

// FuzzDecodeHash: whatever stands in the database, a hash costs no more than the bounds, and what is read is written and
// read again as itself.
func FuzzDecodeHash(f *testing.F) {
	for _, hash := range []string{
		"", "$", "$$$$$", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA", "$argon2id$v=16$m=8,t=1,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA",
		"$argon2id$v=19$m=4294967296,t=1,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA", "$argon2id$v=19$m=8,t=-1,p=256$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA",
		"$argon2id$v=19$m=008,t=+1,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA", "$argon2id$v=19$m=8,t=1,p=1,x=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA",
		"$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ=$c29tZXNhbHRzb21lc2FsdB", "$argon2id$v=19$m=8,t=1,p=1$c29t\nZXNhbHQ$c29tZXNhbHRzb21lc2FsdA",
	} {
		f.Add(hash)
	}
	f.Fuzz(func(t *testing.T, hash string) {
		c, salt, key, err := decodeHash(hash)
		if err != nil {
			if !errors.Is(err, ErrHash) || salt != nil || key != nil {
				t.Errorf("%q: got %v with a salt of %d bytes and a key of %d, want ErrHash alone", hash, err, len(salt), len(key))
			}
			return
		}
		if c.Memory < 8 || c.Memory > maxMemory || c.Time < 1 || c.Time > maxTime || c.Threads < 1 || len(salt) < 8 || len(salt) > 64 || len(key) < 16 || len(key) > 64 {
			t.Errorf("%q: got %+v, a salt of %d bytes and a key of %d, out of bounds", hash, c, len(salt), len(key))
		}
		c2, salt2, key2, err := decodeHash(encodeHash(c, salt, key))
		if err != nil || c2 != c || !bytes.Equal(salt2, salt) || !bytes.Equal(key2, key) {
			t.Errorf("%q: got %+v %x %x, which reads back as %+v %x %x, %v", hash, c, salt, key, c2, salt2, key2, err)
		}
	})
}
