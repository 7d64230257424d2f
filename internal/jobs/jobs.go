// Package jobs runs the brain's periodic work, and starts again what must always run.
//
// A shared job runs on one brain at a time: whoever holds its lease. A job that fails is tried again soon and then ever
// later; one that panics fails. Nothing that a job does can end the process or the other jobs.
package jobs

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"
)

// A Job is something to do again and again.
type Job struct {
	Name  string
	Every time.Duration
	// Run does the job once. Its context ends when the brain stops or, for a shared job, when the lease could not be
	// kept.
	Run func(context.Context) error
	// Local says that every brain does it, without a lease.
	Local bool
	// Wake does it at once, beside its period; nil: nothing does.
	Wake <-chan struct{}
}

// A Leaser decides which brain may run a shared job.
type Leaser interface {
	Lease(ctx context.Context, name, holder string, now, until time.Time) (bool, error)
	ReleaseLease(ctx context.Context, name, holder string) error
}

// Options are what a Runner needs.
type Options struct {
	Log    *slog.Logger
	Leases Leaser           // may be nil when every job is local
	Holder string           // this brain's name in leases
	Now    func() time.Time // required
	Failed func(job string, failed bool)
}

// Runner runs jobs.
type Runner struct{ o Options }

// backoff is the wait before a failed job or loop is tried again; the last step repeats.
var backoff = []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second}

const (
	leaseMin    = 30 * time.Second // a lease outlives a stop of the garbage collector, a slow disk, a failover
	longHealthy = time.Minute      // a loop that ran this long starts its back-off anew
	releaseIn   = 2 * time.Second  // giving leases back must not hold up the stop
)

// New returns a Runner; it starts nothing.
func New(o Options) *Runner {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Failed == nil {
		o.Failed = func(string, bool) {}
	}
	return &Runner{o: o}
}

// Run runs every job, first soon after the start and then at its period, until ctx ends; it returns when those under
// way have returned.
func (r *Runner) Run(ctx context.Context, list []Job) {
	var wg sync.WaitGroup
	for _, job := range list {
		wg.Go(func() { r.repeat(ctx, job) })
	}
	wg.Wait()
}

func (r *Runner) repeat(ctx context.Context, job Job) {
	failures := 0
	timer := time.NewTimer(jitter(min(job.Every, 5*time.Second)))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			r.release(ctx, job)
			return
		case <-timer.C:
		case <-job.Wake:
		}
		ran, err := r.once(ctx, job)
		switch {
		case err == nil:
			failures = 0
			if ran {
				r.o.Failed(job.Name, false)
			}
			timer.Reset(spread(job.Every))
		case ctx.Err() != nil: // the stop made it fail
		default:
			r.o.Failed(job.Name, true)
			r.o.Log.ErrorContext(ctx, "job failed", "job", job.Name, "failures", failures+1, "err", err)
			timer.Reset(min(spread(pause(failures)), max(job.Every, time.Second)))
			failures++
		}
	}
}

// once runs job if it is this brain's turn, and says whether it was.
func (r *Runner) once(ctx context.Context, job Job) (ran bool, err error) {
	if job.Local || r.o.Leases == nil {
		return true, safely(ctx, job.Run)
	}
	term := max(leaseMin, 2*job.Every)
	mine, err := r.lease(ctx, job, term)
	if err != nil || !mine {
		return false, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() { r.keep(ctx, cancel, job, term, done) })
	err = safely(ctx, job.Run)
	close(done)
	wg.Wait()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%w (%w)", err, cause)
	}
	cancel(nil)
	return true, err
}

// keep renews the lease while the job runs, and ends the job when another brain has it.
func (r *Runner) keep(ctx context.Context, cancel context.CancelCauseFunc, job Job, term time.Duration, done <-chan struct{}) {
	tick := time.NewTicker(term / 3)
	defer tick.Stop()
	until := r.o.Now().Add(term)
	for {
		select {
		case <-done:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		mine, err := r.lease(ctx, job, term)
		switch {
		case err == nil && mine:
			until = r.o.Now().Add(term)
		case err == nil:
			cancel(fmt.Errorf("lease of job %s went to another brain", job.Name))
			return
		case r.o.Now().After(until):
			cancel(fmt.Errorf("lease of job %s ran out: %w", job.Name, err))
			return
		}
	}
}

func (r *Runner) lease(ctx context.Context, job Job, term time.Duration) (bool, error) {
	now := r.o.Now()
	mine, err := r.o.Leases.Lease(ctx, "job/"+job.Name, r.o.Holder, now, now.Add(term))
	if err != nil {
		return false, fmt.Errorf("lease of job %s: %w", job.Name, err)
	}
	return mine, nil
}

func (r *Runner) release(ctx context.Context, job Job) {
	if job.Local || r.o.Leases == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseIn)
	defer cancel()
	if err := r.o.Leases.ReleaseLease(ctx, "job/"+job.Name, r.o.Holder); err != nil {
		r.o.Log.DebugContext(ctx, "lease not given back", "job", job.Name, "err", err) // it ends by itself
	}
}

// Supervise runs loop until ctx ends. When loop returns or panics before that, it is started again, ever later while it
// keeps failing.
func (r *Runner) Supervise(ctx context.Context, name string, loop func(context.Context) error) {
	for failures := 0; ctx.Err() == nil; failures++ {
		began := r.o.Now()
		err := safely(ctx, loop)
		if ctx.Err() != nil {
			return
		}
		if r.o.Now().Sub(began) >= longHealthy {
			failures = 0
		}
		wait := spread(pause(failures))
		r.o.Failed(name, true)
		r.o.Log.ErrorContext(ctx, "loop ended and is started again", "loop", name, "in", wait, "err", err)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
			r.o.Failed(name, false)
		}
		timer.Stop()
	}
}

// safely turns a panic into an error that carries the stack.
func safely(ctx context.Context, run func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return run(ctx)
}

func pause(failures int) time.Duration { return backoff[min(failures, len(backoff)-1)] }

// spread takes up to a tenth off d, so that brains that started together drift apart.
func spread(d time.Duration) time.Duration { return d - jitter(d/10) }

func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d) //nolint:gosec // a spread, not a secret.
}
