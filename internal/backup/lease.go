package backup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

// LeaseName is the lease that whoever makes or prunes backups holds. While it is held nothing changes the shape of tables.
const LeaseName = "backup"

// ErrBusy says that somebody else makes or prunes backups of this database.
var ErrBusy = errors.New("another backup or prune of backups is under way; one that was killed gives way after a minute")

const (
	leaseTerm  = time.Minute
	leaseRenew = 10 * time.Second
)

// lease is held until release, or until it could not be renewed, which ends its context.
type lease struct {
	o      *Options
	holder string
	cancel context.CancelCauseFunc
	ctx    context.Context //nolint:containedctx // the one that it ends.
	wg     sync.WaitGroup
}

func takeLease(ctx context.Context, o *Options) (*lease, context.Context, error) {
	l := &lease{o: o, holder: "backup-" + id.Random().String()}
	until, mine, err := l.renew(ctx)
	if err != nil {
		return nil, nil, err
	}
	if !mine {
		return nil, nil, ErrBusy
	}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	l.wg.Go(func() { l.keep(until) })
	return l, l.ctx, nil
}

func (l *lease) renew(ctx context.Context) (until time.Time, mine bool, err error) {
	now := l.o.Now()
	until = now.Add(leaseTerm)
	mine, err = l.o.Store.Lease(ctx, LeaseName, l.holder, store.TimeOf(now), store.TimeOf(until))
	return until, mine, err
}

func (l *lease) keep(until time.Time) {
	tick := time.NewTicker(leaseRenew)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
		}
		next, mine, err := l.renew(l.ctx)
		switch {
		case err == nil && mine:
			until = next
		case err == nil:
			l.cancel(fmt.Errorf("the lease %s went to somebody else", LeaseName))
		case l.o.Now().After(until):
			l.cancel(fmt.Errorf("the lease %s could not be renewed: %w", LeaseName, err))
		}
	}
}

// release gives the lease back.
func (l *lease) release() {
	l.cancel(nil)
	l.wg.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), recordIn)
	defer cancel()
	if err := l.o.Store.ReleaseLease(ctx, LeaseName, l.holder); err != nil {
		l.o.Log.DebugContext(ctx, "lease not given back", "lease", LeaseName, "err", err) // it ends by itself
	}
}
