package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/metrics"
	"github.com/z4j-go/z4j/internal/store"
)

// graceEntries is how many entries an ordinary failover may lose: a second of the fastest log.
const graceEntries = 1000

// grace is what an ordinary failover may lose of the audit log.
func grace(c *config.Config) store.Grace {
	return store.Grace{Time: c.Audit.FailoverGrace, Entries: graceEntries}
}

// Custody returns what watches the audit log of s as configured; it starts nothing.
func Custody(c *config.Config, s *store.Store, log *slog.Logger, now func() time.Time) *custody.Custody {
	return custody.New(custody.Options{Store: s, Log: log, Now: now, Home: c.General.Home, Anchors: c.Audit.Anchors, Target: TargetOptions(c), Grace: grace(c)})
}

// anchorStates is what the metrics say of the anchors: of each every fault that there may be.
func (b *Brain) anchorStates() []metrics.AnchorState {
	bad := map[metrics.AnchorState]bool{}
	for _, t := range b.custody.Troubles() {
		bad[metrics.AnchorState{Anchor: t.Anchor, Fault: string(t.Fault)}] = true
	}
	var out []metrics.AnchorState
	for _, label := range b.custody.Labels() {
		for _, fault := range custody.Faults() {
			a := metrics.AnchorState{Anchor: label, Fault: string(fault)}
			a.Bad = bad[a]
			out = append(out, a)
		}
	}
	return out
}

// AnchorTroubles looks at every anchor and tells what is wrong with it; it writes nothing. Of the one in the home it tells
// what that is worth.
func AnchorTroubles(ctx context.Context, c *config.Config, s *store.Store, now func() time.Time) ([]custody.Trouble, custody.Local, error) {
	r := reader(c, s, nil, slog.New(slog.DiscardHandler), now)
	troubles, err := r.Look(ctx)
	return troubles, r.Local(c.Database.URL.Path()), err
}

// lastCheckpoint lets the anchors know of everything that was done until the end. Nothing else waits for it to succeed.
func (b *Brain) lastCheckpoint(ctx context.Context) error {
	if err := b.custody.Checkpoint(ctx); err != nil {
		b.Log.WarnContext(ctx, "no checkpoint of the last entries", "err", err)
	}
	return nil
}
