package jobs_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/z4j-go/z4j/internal/jobs"
)

// leases is a lease table in memory: what the store keeps in a row.
type leases struct {
	mu     sync.Mutex
	holder map[string]string
	until  map[string]time.Time
	broken error
}

func newLeases() *leases {
	return &leases{holder: map[string]string{}, until: map[string]time.Time{}}
}

func (l *leases) Lease(_ context.Context, name, holder string, now, until time.Time) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return false, l.broken
	}
	if l.holder[name] != holder && l.until[name].After(now) {
		return false, nil
	}
	l.holder[name], l.until[name] = holder, until
	return true, nil
}

func (l *leases) ReleaseLease(_ context.Context, name, holder string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder[name] == holder {
		delete(l.holder, name)
		delete(l.until, name)
	}
	return nil
}

func (l *leases) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) add() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

func (c *counter) get() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func TestASharedJobRunsOnOneBrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		table := newLeases()
		var a, b counter
		job := func(c *counter) []jobs.Job {
			return []jobs.Job{{Name: "tidy", Every: time.Minute, Run: func(context.Context) error { c.add(); return nil }}}
		}
		var wg sync.WaitGroup
		wg.Go(func() { jobs.New(jobs.Options{Now: time.Now, Leases: table, Holder: "a"}).Run(ctx, job(&a)) })
		synctest.Wait()
		time.Sleep(10 * time.Second) // the bubble's clock: a has had its first turn
		wg.Go(func() { jobs.New(jobs.Options{Now: time.Now, Leases: table, Holder: "b"}).Run(ctx, job(&b)) })
		time.Sleep(30 * time.Minute)
		if got := a.get(); got < 29 || got > 35 {
			t.Errorf("brain a ran the job %d times in half an hour, want about 30", got)
		}
		if got := b.get(); got != 0 {
			t.Errorf("brain b ran the job %d times beside a, want 0", got)
		}
		cancel()
		wg.Wait()
		if len(table.holder) != 0 {
			t.Errorf("leases after the stop: %v, want none", table.holder)
		}
	})
}

func TestALocalJobRunsOnEveryBrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		table := newLeases()
		var a, b counter
		var wg sync.WaitGroup
		for name, c := range map[string]*counter{"a": &a, "b": &b} {
			wg.Go(func() {
				jobs.New(jobs.Options{Now: time.Now, Leases: table, Holder: name}).Run(ctx, []jobs.Job{
					{Name: "mine", Every: time.Minute, Local: true, Run: func(context.Context) error { c.add(); return nil }},
				})
			})
		}
		wg.Wait()
		if a.get() < 9 || b.get() < 9 {
			t.Errorf("runs in ten minutes: %d and %d, want at least 9 each", a.get(), b.get())
		}
	})
}

func TestAFailingJobIsTriedAgainEverLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		var at []time.Duration
		states := []bool{}
		began := time.Now()
		r := jobs.New(jobs.Options{Now: time.Now, Failed: func(_ string, failed bool) { states = append(states, failed) }})
		r.Run(ctx, []jobs.Job{{Name: "sick", Every: time.Hour, Run: func(context.Context) error {
			at = append(at, time.Since(began))
			switch len(at) {
			case 1:
				panic("first")
			case 2, 3:
				return errors.New("again")
			}
			return nil
		}}})
		if len(at) != 4 {
			t.Fatalf("tries in 5 minutes: %d (%v), want 4: three failures, then the period of an hour", len(at), at)
		}
		for i, most := range []time.Duration{time.Second, 2 * time.Second, 5 * time.Second} {
			if gap := at[i+1] - at[i]; gap > most || gap < most*9/10 {
				t.Errorf("wait after failure %d: %v, want between %v and %v", i+1, gap, most*9/10, most)
			}
		}
		if want := []bool{true, true, true, false}; len(states) != 4 || states[0] != want[0] || states[3] != want[3] {
			t.Errorf("told as failed: %v, want %v", states, want)
		}
	})
}

func TestALostLeaseEndsTheJobUnderWay(t *testing.T) {
	for _, tt := range []struct {
		name string
		lose func(*leases)
	}{
		{"another brain has it", func(l *leases) {
			l.set(func() { l.holder["job/long"], l.until["job/long"] = "other", time.Now().Add(time.Hour) })
		}},
		{"the database is gone for longer than the lease", func(l *leases) {
			l.set(func() { l.broken = errors.New("gone") })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				table := newLeases()
				ended := make(chan time.Duration, 1)
				var wg sync.WaitGroup
				wg.Go(func() {
					jobs.New(jobs.Options{Now: time.Now, Leases: table, Holder: "me"}).Run(ctx, []jobs.Job{
						{Name: "long", Every: time.Second, Run: func(ctx context.Context) error {
							began := time.Now()
							<-ctx.Done()
							select {
							case ended <- time.Since(began):
							default:
							}
							return ctx.Err()
						}},
					})
				})
				time.Sleep(5 * time.Second)
				tt.lose(table)
				if got := <-ended; got > time.Minute {
					t.Errorf("job ended after %v, want within a minute of losing its lease", got)
				}
				cancel()
				wg.Wait()
			})
		})
	}
}

func TestALoopThatEndsIsStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var starts counter
		jobs.New(jobs.Options{Now: time.Now}).Supervise(ctx, "listener", func(ctx context.Context) error {
			if starts.add() == 4 {
				<-ctx.Done()
				return nil
			}
			panic("lost")
		})
		if got := starts.get(); got != 4 {
			t.Errorf("starts: %d, want 4", got)
		}
	})
}

func TestStopWaitsForTheJobUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		finished := false
		var wg sync.WaitGroup
		wg.Go(func() {
			jobs.New(jobs.Options{Now: time.Now}).Run(ctx, []jobs.Job{{Name: "slow", Every: time.Minute, Run: func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Second)
				finished = true
				return nil
			}}})
		})
		time.Sleep(10 * time.Second)
		cancel()
		wg.Wait()
		if !finished {
			t.Error("Run returned before its job did, want after")
		}
	})
}
