package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
)

// Plan is what a brain does about backups.
type Plan struct {
	Options // of every backup, but for Actor, Progress and Target; Open opens that

	Place       string // the target's name, without secrets
	Cron        string // as it was written
	Schedule    Cron
	Keep        Keep
	MaxDuration time.Duration
	RPO         time.Duration
	Drills      Drills
	Seen        func(Standing) // told of every look at how things stand; may be nil
}

// Brain makes backups by schedule and on demand. Make one with NewBrain.
type Brain struct {
	p      Plan
	cancel context.CancelFunc
	ctx    context.Context //nolint:containedctx // of backups that somebody asked for; ends with Close.
	wg     sync.WaitGroup
	made   chan struct{}

	mu      sync.Mutex
	running *Running
	late    bool
	drill   bool // the newest good drill is too old
}

// Running is a backup that this brain makes now.
type Running struct {
	Since store.Time `json:"since"`
	Rows  int64      `json:"rows"` // that were written
	Phase string     `json:"phase"`
}

// Standing is how things stand.
type Standing struct {
	Schedule    string      `json:"schedule" doc:"cron expression; empty: none"`
	Target      string      `json:"target"`
	Encrypted   bool        `json:"encrypted"`
	Keep        string      `json:"keep"`
	Next        *store.Time `json:"next_at" doc:"when the next backup is due"`
	Running     *Running    `json:"running" doc:"what this brain makes now"`
	LastSuccess *Record     `json:"last_success" doc:"the newest that was verified, is complete and lies in the target"`
	LastFailure *Record     `json:"last_failure" doc:"if it is newer than the last success"`
	AgeSeconds  *int64      `json:"age_seconds" doc:"since the moment that the newest good backup is of"`
	RPOSeconds  int64       `json:"rpo_seconds"`
	Late        bool        `json:"late" doc:"there is a schedule and no good backup as new as the RPO wants"`

	Drill DrillStanding `json:"drill"`
}

// retryAfter is the wait after a failed backup: the next time of the schedule may be a day away.
const retryAfter = 15 * time.Minute

// NewBrain returns a Brain; it starts nothing.
func NewBrain(ctx context.Context, p Plan) *Brain {
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	b := &Brain{p: p, made: make(chan struct{}, 1)}
	b.ctx, b.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return b
}

// Close ends what is under way and waits for it until ctx ends.
func (b *Brain) Close(ctx context.Context) error {
	b.cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.wg.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Made gives a value when this brain has made a backup: a drill may have waited for it.
func (b *Brain) Made() <-chan struct{} { return b.made }

// Tick makes a backup if one is due. Of several brains one calls it at a time.
func (b *Brain) Tick(ctx context.Context) error {
	now := b.p.Now()
	due := b.p.Schedule.Last(now)
	if due.IsZero() {
		return nil
	}
	s, err := b.Status(ctx)
	if err != nil {
		return err
	}
	// One that holds what is wrong in the database is none that counts, and another one would be no better.
	made, err := newestMade(ctx, b.p.Store, func(r *Record) bool { return b.counts(r) || b.own(r) && r.Reason != "" })
	switch {
	case err == nil && !made.Started.Before(due):
		return nil
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return err
	}
	if s.LastFailure != nil && now.Sub(s.LastFailure.At.Time) < retryAfter {
		return nil
	}
	m, err := b.prepare(ctx, audit.Actor{Kind: audit.System})
	if errors.Is(err, ErrBusy) {
		return nil // somebody makes one by hand
	}
	if err == nil {
		err = b.finish(m)
	}
	if err != nil {
		return fmt.Errorf("scheduled backup: %w", err)
	}
	return nil
}

// Begin begins a backup that somebody asked for, and returns its id. ErrBusy says that one is being made.
func (b *Brain) Begin(ctx context.Context, actor audit.Actor) (id string, err error) {
	if err := b.ctx.Err(); err != nil {
		return "", err
	}
	lives, cancel := context.WithCancel(b.ctx)
	stop := context.AfterFunc(ctx, cancel) // who asks may leave while it is refused or begun, not later
	m, err := b.prepare(lives, actor)
	stop()
	if err != nil {
		cancel()
		return "", err
	}
	b.wg.Go(func() {
		defer cancel()
		if err := b.finish(m); err != nil {
			b.p.Log.ErrorContext(lives, "backup failed", "backup", m.r.ID, "err", err)
		}
	})
	return m.r.ID, nil
}

func (b *Brain) prepare(ctx context.Context, actor audit.Actor) (*making, error) {
	o := b.p.Options
	o.Actor = actor
	o.Progress = b.progress
	return prepare(ctx, o)
}

// finish makes the backup, and prunes by the rules.
func (b *Brain) finish(m *making) error {
	m.limit(b.p.MaxDuration)
	b.mu.Lock()
	b.running = &Running{Since: store.TimeOf(b.p.Now()), Phase: "rows"}
	b.mu.Unlock()
	r, err := m.finish()
	b.mu.Lock()
	b.running = nil
	b.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case b.made <- struct{}{}:
	default: // it is told already
	}
	b.p.Log.InfoContext(b.ctx, "backup made", "backup", r.ID, "file", r.Name, "target", r.Target, "bytes", r.Bytes, "rows", r.Rows, "verified", r.Verified)
	if b.p.Keep == (Keep{}) {
		return nil
	}
	p, err := Prune(b.ctx, m.o, b.p.Keep, false)
	if err != nil {
		return fmt.Errorf("prune backups: %w", err)
	}
	if len(p.Removed) > 0 {
		b.p.Log.InfoContext(b.ctx, "backups pruned", "removed", len(p.Removed), "keep", b.p.Keep.String())
	}
	return nil
}

func (b *Brain) progress(phase string, done, _ int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running == nil {
		return
	}
	b.running.Phase = phase
	if phase == "rows" {
		b.running.Rows = done
	}
}

// own reports whether a backup lies where the brain's are kept.
func (b *Brain) own(r *Record) bool { return r.Target == target.NameOf(b.p.Place) }

// counts reports whether a backup is one to rely on: verified, complete, and where the brain's are kept.
func (b *Brain) counts(r *Record) bool { return b.own(r) && r.good() }

// Status says how things stand, by the audit log.
func (b *Brain) Status(ctx context.Context) (Standing, error) {
	now := b.p.Now()
	s := Standing{Schedule: b.p.Cron, Target: b.p.Place, Encrypted: b.p.encrypts(), Keep: b.p.Keep.String(), RPOSeconds: int64(b.p.RPO / time.Second)}
	if next := b.p.Schedule.Next(now); !next.IsZero() {
		at := store.TimeOf(next)
		s.Next = &at
	}
	b.mu.Lock()
	if b.running != nil {
		running := *b.running
		s.Running = &running
	}
	b.mu.Unlock()
	ok, err := newestMade(ctx, b.p.Store, b.counts)
	switch {
	case err == nil:
		s.LastSuccess = &ok
		age := int64(now.Sub(ok.Snapshot.Time) / time.Second)
		s.AgeSeconds = &age
	case !errors.Is(err, store.ErrNotFound):
		return s, err
	}
	bad, err := Last(ctx, b.p.Store, audit.BackupFailed)
	switch {
	case err == nil && (s.LastSuccess == nil || bad.Seq > ok.Seq):
		s.LastFailure = &bad
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return s, err
	}
	s.Late = !b.p.Schedule.IsZero() && (s.AgeSeconds == nil || *s.AgeSeconds > s.RPOSeconds)
	s.Drill, err = b.drillStanding(ctx, !b.p.Schedule.IsZero())
	return s, err
}

// Watch looks how things stand, and says so in the log when that changes.
func (b *Brain) Watch(ctx context.Context) error {
	s, err := b.Status(ctx)
	if err != nil {
		return err
	}
	b.mu.Lock()
	was, drilled := b.late, !b.drill
	b.late, b.drill = s.Late, s.Drill.Late
	b.mu.Unlock()
	if s.Drill.Late && drilled {
		b.p.Log.WarnContext(ctx, "no drill of the last 90 days went well: run z4j-brain drill, or set Z4J_DRILL_SCHEDULE")
	}
	switch {
	case s.Late && !was:
		b.p.Log.WarnContext(ctx, "the newest good backup is older than Z4J_RPO allows", "age_seconds", s.AgeSeconds, "rpo_seconds", s.RPOSeconds)
	case was && !s.Late:
		b.p.Log.InfoContext(ctx, "the newest good backup is as new as Z4J_RPO wants again")
	}
	if b.p.Seen != nil {
		b.p.Seen(s)
	}
	return nil
}

// Late reports whether the newest good backup was older than the RPO when Watch last looked.
func (b *Brain) Late() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.late
}

// DrillLate reports whether no drill of the last 90 days had gone well when Watch last looked, though backups are scheduled.
func (b *Brain) DrillLate() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.drill
}
