package gateway

import (
	"context"
	"sync"
	"time"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

const (
	revokedSkew  = time.Minute     // by which clocks of those who revoke may differ
	listenAgain  = time.Second     // after a connection that listens broke
	revokedLimit = 5 * time.Second // of one look
)

// revocations closes connections of agents that another process revoked: at once where the database tells, and by
// looking every RevokedEvery where it does not or a notification was lost.
type revocations struct {
	server *Server

	mu    sync.Mutex
	since store.Time // of the newest revocation that is known, less revokedSkew
}

func (r *revocations) run(ctx context.Context) {
	var listener sync.WaitGroup
	listener.Go(func() { r.listen(ctx) })
	defer listener.Wait()
	tick := time.NewTicker(r.server.RevokedEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.look(ctx)
		case <-ctx.Done():
			return
		}
	}
}

func (r *revocations) listen(ctx context.Context) {
	for ctx.Err() == nil {
		err := r.server.Store.HearRevoked(ctx, func() { r.look(ctx) }, r.server.Revoked)
		if ctx.Err() != nil {
			return
		}
		if r.server.notices.due(id.ID{}, "listen", r.server.Now().UnixMicro()) {
			r.server.Log.Warn("revocations elsewhere are looked for, not heard", "err", err)
		}
		select {
		case <-time.After(listenAgain):
		case <-ctx.Done():
		}
	}
}

// look closes the connections of agents that were revoked since the last look.
func (r *revocations) look(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, revokedLimit)
	defer cancel()
	list, err := r.server.Store.RevokedSince(ctx, r.since)
	if err != nil {
		if r.server.notices.due(id.ID{}, "revoked", r.server.Now().UnixMicro()) && ctx.Err() == nil {
			r.server.Log.Warn("revoked agents not looked for", "err", err)
		}
		return
	}
	for _, one := range list {
		r.server.Revoked(one.Agent)
		if before := store.TimeOf(one.At.Add(-revokedSkew)); r.since.Before(before.Time) {
			r.since = before
		}
	}
}
