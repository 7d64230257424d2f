package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/z4j-go/z4j/internal/fold"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/metrics"
	"github.com/z4j-go/z4j/internal/store"
)

// Options of a Writer; zero values work.
type Options struct {
	Log     *slog.Logger
	Now     func() time.Time // required
	Metrics *metrics.Metrics

	// Writers is how many groups are written at once; tasks are spread over them by key. 0: two on Postgres (a second
	// one gives half as much again, there is no third core), one on SQLite.
	Writers int
	// Group is the largest number of events in a transaction; 0: 2,000.
	Group int
	// Memory bounds the payload bytes that wait or are being written; a full queue stops the reading of sockets. 0: 64 MiB.
	Memory int64
	// Horizon is how far back events are taken; older ones are dead letters. 0: 90 days.
	Horizon time.Duration
	// Horizons is the horizon of each project; nil: Horizon for all.
	Horizons func(project id.ID) time.Duration
}

// Stats are counters since the start, for metrics.
type Stats struct {
	Frames, Events, Accepted, DeadLetters, Groups, Retries atomic.Int64
	QueuedBytes, QueuedFrames                              atomic.Int64
	LastCommit                                             atomic.Int64 // µs
}

// ErrClosed says that the writer takes nothing more.
var ErrClosed = errors.New("ingest is closed")

// Writer takes frames and commits what they say.
type Writer struct {
	Stats Stats

	store   *store.Store
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics.Metrics
	group   int
	horizon func(project id.ID) time.Duration
	memory  *semaphore.Weighted
	limit   int64
	shards  []chan *part
	beats   *beats
	clocks  *clocks
	seen    *lastTouches

	stop     context.CancelFunc // gives up waiting for the database
	stopping chan struct{}      // closed when no frame is taken any more
	drained  chan struct{}      // closed when the writers ended
	submits  sync.WaitGroup     // Submit calls under way
	writers  sync.WaitGroup
	closing  sync.Once
}

// queuedParts bounds a shard's channel; the memory bound is what limits frames of usual size first.
const queuedParts = 16384

// New returns a writer into st that does nothing before Start.
func New(st *store.Store, o Options) *Writer {
	w := &Writer{
		store: st, log: o.Log, now: o.Now, metrics: o.Metrics, group: o.Group, horizon: o.Horizons, limit: o.Memory,
		beats: newBeats(), clocks: newClocks(), seen: newLastTouches(), stopping: make(chan struct{}), drained: make(chan struct{}),
	}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	if w.group == 0 {
		w.group = 2000
	}
	if w.limit == 0 {
		w.limit = 64 << 20
	}
	if w.horizon == nil {
		usual := cmp.Or(o.Horizon, 90*24*time.Hour)
		w.horizon = func(id.ID) time.Duration { return usual }
	}
	n := o.Writers
	if n == 0 {
		n = 2
		if st.Dialect() == "sqlite" {
			n = 1
		}
	}
	w.memory = semaphore.NewWeighted(w.limit)
	for range n {
		w.shards = append(w.shards, make(chan *part, queuedParts))
	}
	return w
}

// Start begins to write. Close ends it.
func (w *Writer) Start(ctx context.Context) {
	ctx, w.stop = context.WithCancel(context.WithoutCancel(ctx))
	for _, shard := range w.shards {
		w.writers.Go(func() { w.write(ctx, shard) })
	}
	w.writers.Go(func() { w.writeBeats(ctx) })
}

// Close takes no more frames, writes those that it has, and returns when they are answered; when ctx ends first, the
// rest is given up (their agents send them again).
func (w *Writer) Close(ctx context.Context) error {
	w.closing.Do(func() {
		close(w.stopping)
		go func() { // waited for below: ends when the writers end
			w.submits.Wait()
			for _, shard := range w.shards {
				close(shard)
			}
			w.writers.Wait()
			close(w.drained)
		}()
	})
	select {
	case <-w.drained:
		return nil
	case <-ctx.Done():
		w.stop()
		<-w.drained
		return fmt.Errorf("drain ingest: %w", ctx.Err())
	}
}

// job is one frame on its way; its parts are written by different writers.
type job struct {
	frame    *Frame
	size     int64
	left     atomic.Int32 // parts not written yet
	received int
	accepted atomic.Int32
	failed   atomic.Pointer[error]
}

// part is what one writer has to do for a job.
type part struct {
	job    *job
	events []event
	dead   []store.DeadLetter
}

// size is how many rows of events or dead letters the part brings.
func (p *part) size() int { return len(p.events) + len(p.dead) }

// halves makes two parts of one; the job waits for both.
func (p *part) halves() [2]*part {
	p.job.left.Add(1)
	n := len(p.events) / 2
	return [2]*part{{job: p.job, events: p.events[:n]}, {job: p.job, events: p.events[n:], dead: p.dead}}
}

// Submit reads the frame and queues it. It waits while the queue is full, which is the back-pressure to the socket, and
// answers an error only if ctx ends or the writer is closed; the frame's Done is not called then.
func (w *Writer) Submit(ctx context.Context, f *Frame) error {
	w.submits.Add(1)
	defer w.submits.Done()
	select {
	case <-w.stopping:
		return ErrClosed
	default:
	}
	j := &job{frame: f, size: min(w.limit, int64(len(f.Payload))*2+256)} // twice: what is read of it lives beside it
	if err := w.memory.Acquire(ctx, j.size); err != nil {
		return fmt.Errorf("wait for room in the ingest queue: %w", err)
	}
	w.Stats.QueuedBytes.Add(j.size)
	w.Stats.QueuedFrames.Add(1)
	w.Stats.Frames.Add(1)
	parts := w.read(j)
	for i, p := range parts {
		if p == nil {
			continue
		}
		select {
		case w.shards[i] <- p:
		case <-ctx.Done():
			w.finish(p, 0, ctx.Err()) // the frame fails with its part, and the agent sends it again
		}
	}
	return nil
}

// finish answers the job when its last part is done.
func (w *Writer) finish(p *part, accepted int, err error) {
	j := p.job
	j.accepted.Add(int32(accepted))
	if err != nil {
		j.failed.Store(&err)
	}
	if j.left.Add(-1) > 0 {
		return
	}
	w.memory.Release(j.size)
	w.Stats.QueuedBytes.Add(-j.size)
	w.Stats.QueuedFrames.Add(-1)
	o := Outcome{Received: j.received, Accepted: int(j.accepted.Load())}
	o.Rejected = max(0, o.Received-o.Accepted)
	if e := j.failed.Load(); e != nil {
		o = Outcome{Err: *e}
	}
	if j.frame.Done != nil {
		j.frame.Done(o)
	}
}

// lull is how long a writer with a small group waits for more: a commit costs more than that.
const lull = 3 * time.Millisecond

// enough events make a group that is not worth waiting for.
const enough = 200

// write takes groups from shard until it is closed and empty.
func (w *Writer) write(ctx context.Context, shard <-chan *part) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for first := range shard {
		w.commit(ctx, w.collect(shard, first, timer))
	}
}

// collect groups first with what waits behind it, and with what comes within a lull.
func (w *Writer) collect(shard <-chan *part, first *part, timer *time.Timer) []*part {
	group, n := []*part{first}, first.size()
	timer.Reset(lull)
	for n < w.group {
		var p *part
		var ok bool
		select {
		case p, ok = <-shard:
		default:
			if n >= enough {
				return group
			}
			select {
			case p, ok = <-shard:
			case <-timer.C:
				return group
			}
		}
		if !ok {
			return group
		}
		group = append(group, p)
		n += p.size()
	}
	return group
}

// commit writes the group, however often it takes. A group that the database refuses for what is in it is halved until
// the event that is to blame stands alone and goes to the dead letters.
func (w *Writer) commit(ctx context.Context, group []*part) {
	for try := 0; ; try++ {
		accepted, err := w.attempt(ctx, group)
		switch {
		case err == nil:
			w.Stats.Groups.Add(1)
			w.Stats.LastCommit.Store(w.now().UnixMicro())
			for i, p := range group {
				w.finish(p, accepted[i], nil)
			}
			return
		case ctx.Err() != nil:
			for _, p := range group {
				w.finish(p, 0, ctx.Err())
			}
			return
		case hopeless(err) && len(group) > 1:
			w.commit(ctx, group[:len(group)/2])
			w.commit(ctx, group[len(group)/2:])
			return
		case hopeless(err) && len(group[0].events) > 1:
			for _, half := range group[0].halves() {
				w.commit(ctx, []*part{half})
			}
			return
		case hopeless(err):
			p := group[0]
			code := store.Code(err)
			if errors.Is(err, fold.ErrBlob) {
				code = "unreadable marks"
			}
			w.log.ErrorContext(ctx, "event can not be taken", "code", code, "agent", p.job.frame.Session.Agent)
			if w.bury(p, code) {
				try = -1
				continue
			}
			w.finish(p, 0, nil) // not even its dead letters can be kept: said above, and nothing behind it waits
			return
		}
		w.Stats.Retries.Add(1)
		if errors.Is(err, store.ErrConflict) && try < 10 {
			continue
		}
		w.pause(ctx, try, err)
	}
}

// hopeless reports whether trying again can't help: the database refuses what it is given, or a task's stored marks can't
// be read (damaged, or written by a newer brain).
func hopeless(err error) bool { return store.Refused(err) || errors.Is(err, fold.ErrBlob) }

// pause waits before the next try, longer each time, at most five seconds, and says so once in a while.
func (w *Writer) pause(ctx context.Context, try int, err error) {
	if try == 1 || try%20 == 19 {
		w.log.WarnContext(ctx, "ingest waits for the database", "err", err, "tries", try+1)
	}
	timer := time.NewTimer(min(5*time.Second, 20*time.Millisecond<<min(try, 10)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
