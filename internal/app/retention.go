package app

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/metrics"
	"github.com/z4j-go/z4j/internal/store"
)

// Keep is how long the settings say that things are kept.
func Keep(c *config.Config) store.Retention {
	r := &c.Retention
	return store.Retention{Tasks: r.TaskDays, Failed: r.FailedDays, Unfinished: r.UnfinishedDays, Events: r.EventDays}
}

// horizons knows how far back events of each project are taken in. A change of a project is known to every brain within
// the period of the job that reads it.
type horizons struct {
	usual time.Duration
	own   atomic.Pointer[map[id.ID]time.Duration]
}

func (h *horizons) read(ctx context.Context, s *store.Store, keep store.Retention) error {
	own, err := s.Horizons(ctx, keep)
	if err != nil {
		return err
	}
	h.own.Store(&own)
	return nil
}

// of is the horizon of a project.
func (h *horizons) of(project id.ID) time.Duration {
	if own := h.own.Load(); own != nil {
		if d, ok := (*own)[project]; ok {
			return d
		}
	}
	return h.usual
}

// startHorizons reads them for the first time, so that no event is judged by a wrong one.
func (b *Brain) startHorizons(ctx context.Context) error {
	b.horizons.usual = time.Duration(b.Config.Retention.TaskDays) * 24 * time.Hour
	return b.horizons.read(ctx, b.Store, Keep(b.Config))
}

// SweepTurn is the newest time at or before now at which a sweep is due.
func SweepTurn(now time.Time, at time.Duration) time.Time {
	turn := now.UTC().Truncate(24 * time.Hour).Add(at)
	if turn.After(now) {
		turn = turn.AddDate(0, 0, -1)
	}
	return turn
}

// sweep runs the daily sweep when its time has come and none has run since. One that has to wait is tried again.
func (b *Brain) sweep(ctx context.Context) error {
	turn := SweepTurn(b.Now(), b.Config.Retention.SweepAt())
	last, err := b.Store.LastSweep(ctx)
	if errors.Is(err, store.ErrNotFound) { // a new installation, or one that comes from a version without sweeps: it has time until the next turn
		b.Log.InfoContext(ctx, "retention begins", "first_sweep", turn.AddDate(0, 0, 1))
		return b.Store.PutLastSweep(ctx, b.Now())
	}
	if err != nil || !last.Before(turn) {
		return err
	}
	out, err := b.Store.Sweep(ctx, store.SweepOptions{
		Keep: Keep(b.Config), Holder: b.holder, By: store.By{Actor: audit.Actor{Kind: audit.System, ID: "retention"}, Via: "daily"},
	})
	waits := store.Waits(err)
	counted := metrics.Sweep{Deleted: out.Rows, Took: out.Took, Longest: out.LongestLock, Busy: len(out.Busy)}
	if err == nil {
		counted.Ended = b.Now()
	}
	b.counts.Swept(&counted)
	switch {
	case waits:
		b.Log.InfoContext(ctx, "retention waits", "why", err, "deleted", out.Total())
		return nil
	case err != nil:
		return err
	}
	b.Log.InfoContext(ctx, "retention swept", "deleted", out.Total(), "rows", out.Rows, "partitions", out.Partitions, "estimated", out.Estimated,
		"busy", out.Busy, "took", out.Took, "longest_lock", out.LongestLock, "freed_bytes", out.FreedBytes)
	return b.Store.PutLastSweep(ctx, b.Now())
}

// partitions makes those of the next days, and looks for events that found none.
func (b *Brain) partitions(ctx context.Context) error {
	err := b.Store.EnsurePartitions(ctx, b.Now(), partitionsAhead)
	n, e := b.Store.DefaultEvents(ctx)
	if e == nil {
		b.counts.DefaultEvents(n)
	}
	if n > 0 {
		b.Log.WarnContext(ctx, "events stand in a default partition, which this program did not make; they go row by row", "rows", n)
	}
	return errors.Join(err, e)
}
