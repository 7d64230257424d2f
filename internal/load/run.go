package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/z4j-go/z4j/internal/wire"
)

// RunOptions say what agents do.
type RunOptions struct {
	URL     string // of the brain
	Account Account
	Tokens  []Credential // nil: agents are minted by the account

	Agents, Processes, Projects int // each agent's processes share its token
	Engines                     []string
	Rate                        float64       // events a second of all; 0: as fast as acks allow
	Batch                       int           // events a frame
	Window                      int           // frames that a process may have without ack
	Order                       string        // Interleaved or Completed
	EventSize                   int           // bytes of an event's data, about
	Duration                    time.Duration // 0: until ctx ends
	Events                      int64         // 0: no bound
	Samples                     float64       // tasks a second whose way into GET tasks is timed
	Idle                        bool          // agents connect and say nothing
	Keep                        bool          // leaves the minted agents
	Seed                        uint64
	Goal                        float64

	Now    func() time.Time
	ID     string                                          // of the run: part of names
	Minted func([]Credential) error                        // nil, or gets what was minted
	Told   func(seconds float64, events int64, online int) // nil, or hears once a second how far it is
}

// Limits of a run.
const (
	maxAgents    = 100_000
	maxWindow    = 4096
	unackedBytes = 8 << 20 // of one process's frames: what it keeps to send again
	dialsAtOnce  = 256
	drainWithin  = 15 * time.Second
)

func (o *RunOptions) check() error {
	switch {
	case o.Agents < 1 || o.Agents > maxAgents:
		return fmt.Errorf("--agents must be 1 to %d", maxAgents)
	case o.Processes < 1 || o.Processes > wire.MaxWorkersPerAgent:
		return fmt.Errorf("--processes must be 1 to %d", wire.MaxWorkersPerAgent)
	case o.Projects < 1 || o.Projects > maxProjects:
		return fmt.Errorf("--projects must be 1 to %d", maxProjects)
	case len(o.Engines) == 0:
		return errors.New("--engines must name one at least")
	case o.Rate < 0:
		return errors.New("--rate must not be negative")
	case o.Batch < 1 || o.Batch > wire.MaxEvents:
		return fmt.Errorf("--batch must be 1 to %d events", wire.MaxEvents)
	case o.Window < 1 || o.Window > maxWindow:
		return fmt.Errorf("--window must be 1 to %d frames", maxWindow)
	case o.Order != Interleaved && o.Order != Completed:
		return fmt.Errorf("--order must be %s or %s", Interleaved, Completed)
	case o.EventSize < minEvent || o.EventSize > maxEvent:
		return fmt.Errorf("--event-size must be %d to %d bytes", minEvent, maxEvent)
	case o.Batch*(o.EventSize*2+400) > wire.MaxFrame:
		return fmt.Errorf("--batch %d of --event-size %d does not fit a frame of %d bytes", o.Batch, o.EventSize, wire.MaxFrame)
	case o.Duration < 0 || o.Events < 0 || o.Samples < 0 || o.Goal < 0:
		return errors.New("--duration, --events, --samples and --goal must not be negative")
	case o.Account.none() && o.Tokens == nil:
		return errors.New("give an account (--email with --password, or --api-key), or a file of --tokens")
	}
	return nil
}

// runner is a run under way.
type runner struct {
	o       *RunOptions
	id      string
	now     func() time.Time
	started time.Time
	client  *client
	meter   meter
	sampler sampler
	dials   chan struct{}
	slots   []chan struct{} // by process: its frames without ack
	pace    time.Duration   // between two frames of a process; 0: none
	stop    chan struct{}   // closed when nothing new is to be sent
	once    sync.Once
	claimed atomic.Int64 // events that frames were made for
}

// Run lets agents report until the time or the events are over, or ctx ends, and says what came of it. An error says that
// it could not begin; a run that ctx ended has none.
func Run(ctx context.Context, o RunOptions) (Summary, error) {
	if err := o.check(); err != nil {
		return Summary{}, err
	}
	r := &runner{o: &o, id: o.ID, now: o.Now, started: o.Now(), dials: make(chan struct{}, dialsAtOnce), stop: make(chan struct{})}
	r.sampler = sampler{run: r, queue: make(chan sample, maxSamples)}
	var err error
	if r.client, err = newClient(o.URL, o.Account); err != nil {
		return Summary{}, err
	}
	defer r.client.close()
	minted, err := r.enroll(ctx)
	defer func() { r.leave(ctx, minted) }()
	if err != nil {
		return Summary{}, err
	}
	agents, err := r.cast()
	if err != nil {
		return Summary{}, err
	}
	r.work(ctx, agents)
	s := r.meter.summary()
	s.EventsAFrame, s.Window, s.Interrupted, s.Goal = o.Batch, o.Window, ctx.Err() != nil, o.Goal
	s.Met = o.Goal > 0 && s.Rate >= o.Goal
	return s, nil
}

// enroll logs in and mints what is not given.
func (r *runner) enroll(ctx context.Context) (minted []Credential, err error) {
	if !r.o.Account.none() {
		if err := r.client.login(ctx); err != nil {
			return nil, err
		}
		if r.o.Samples > 0 && !r.o.Idle {
			r.sampler.every = time.Duration(float64(time.Second) / r.o.Samples)
		}
	}
	if r.o.Tokens != nil {
		r.o.Agents = min(r.o.Agents, len(r.o.Tokens))
		return nil, nil
	}
	for i := range min(r.o.Projects, r.o.Agents) {
		if err := r.client.project(ctx, slugOf(i)); err != nil {
			return nil, err
		}
	}
	for i := range r.o.Agents {
		c, err := r.client.mint(ctx, slugOf(i%r.o.Projects), fmt.Sprintf("loadgen-%s-%d", r.id, i+1))
		if err != nil {
			return minted, err
		}
		minted = append(minted, c)
	}
	r.o.Tokens = minted
	if r.o.Minted != nil {
		return minted, r.o.Minted(minted)
	}
	return minted, nil
}

func slugOf(project int) string { return fmt.Sprintf("load-%d", project+1) }

// leave takes back what was minted.
func (r *runner) leave(ctx context.Context, minted []Credential) {
	if r.o.Keep {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	for _, c := range minted {
		if err := r.client.revoke(ctx, c); err != nil {
			r.meter.failed(cut(err.Error()))
			return
		}
	}
}

// cast makes the processes.
func (r *runner) cast() ([]*agent, error) {
	text := words(r.o.Seed)
	r.o.Window = max(1, min(r.o.Window, unackedBytes/(r.o.Batch*(r.o.EventSize+200))))
	n := r.o.Agents * r.o.Processes
	if r.o.Rate > 0 {
		r.pace = max(1, time.Duration(float64(n*r.o.Batch)/r.o.Rate*float64(time.Second)))
	}
	var agents []*agent
	for i := range n {
		which := i / r.o.Processes
		e, err := engineOf(r.o.Engines[which/r.o.Projects%len(r.o.Engines)])
		if err != nil {
			return nil, err
		}
		c := r.o.Tokens[which]
		secret, err := wire.DecodeSecret(c.Secret)
		if err != nil {
			return nil, fmt.Errorf("signing secret of agent %d: %w", which+1, err)
		}
		const workers = 2
		rep := newReporter(which%r.o.Projects, e, workers)
		for w := range rep.workers {
			rep.workers[w] = fmt.Sprintf("%s-%d", rep.workers[w], i+1)
		}
		a := &agent{
			run: r, number: i, cred: c, secret: secret, workerID: fmt.Sprintf("bare-%d-%s", i+1, r.id), pending: map[uint64]*frame{}, quiet: make(chan struct{}, 1),
			stream: newStream(newTeller(r.o.Seed^uint64(r.started.UnixNano()), uint64(i), text, r.o.EventSize), rep, r.o.Order, r.now),
		}
		agents = append(agents, a)
		r.slots = append(r.slots, make(chan struct{}, r.o.Window))
	}
	return agents, nil
}

// work runs the processes to their end.
func (r *runner) work(ctx context.Context, agents []*agent) {
	// What is on its way when ctx ends is still waited for.
	giveUp, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var asking, working, watching sync.WaitGroup
	for range askers {
		asking.Go(func() { r.sampler.ask(giveUp) })
	}
	for _, a := range agents {
		working.Go(func() { a.live(giveUp) })
	}
	done := make(chan struct{})
	watching.Go(func() { r.watch(ctx, done, cancel) })
	working.Wait()
	r.halt()
	close(r.sampler.queue)
	asking.Wait()
	close(done)
	watching.Wait()
}

// watch ends the run when it is time, and gives up what is not acked long after that.
func (r *runner) watch(ctx context.Context, done <-chan struct{}, giveUp func()) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var end <-chan time.Time
	if r.o.Duration > 0 {
		timer := time.NewTimer(r.o.Duration)
		defer timer.Stop()
		end = timer.C
	}
	var late <-chan time.Time
	stop, ended := r.stop, ctx.Done()
	for {
		select {
		case <-done:
			return
		case <-end:
			r.halt()
		case <-ended:
			ended = nil
			r.halt()
		case <-stop:
			stop = nil
			timer := time.NewTimer(drainWithin)
			defer timer.Stop()
			late = timer.C
		case <-late:
			giveUp()
		case now := <-tick.C:
			if r.o.Told != nil {
				s := r.meter.summary()
				r.meter.mu.Lock()
				online := r.meter.now
				r.meter.mu.Unlock()
				r.o.Told(now.Sub(r.started).Seconds(), s.Acked, online)
			}
		}
	}
}

// halt says that nothing new is to be sent.
func (r *runner) halt() { r.once.Do(func() { close(r.stop) }) }

func (r *runner) stopping() bool {
	select {
	case <-r.stop:
		return true
	default:
		return false
	}
}

// claim takes the events of a frame from those that are to be sent; false says that there are none left.
func (r *runner) claim() bool {
	if r.o.Events == 0 {
		return true
	}
	if r.claimed.Add(int64(r.o.Batch)) <= r.o.Events {
		return true
	}
	r.halt()
	return false
}
