package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/z4j-go/z4j/internal/id"
)

const (
	revokedChannel = "z4j_agent_revoked" // carries ids only: what is heard is looked up
	listenPing     = 30 * time.Second    // without a notification until the connection is tried
	listenAnswer   = 5 * time.Second
)

// announceRevoked tells every brain, when tx commits, that an agent was revoked.
func (tx *Tx) announceRevoked(ctx context.Context, agent id.ID) error {
	if tx.store.pool == nil {
		return nil // brains of one SQLite file look every second
	}
	_, err := tx.ExecContext(ctx, `SELECT pg_notify($1, $2)`, revokedChannel, agent.String())
	return wrap("announce revocation", err)
}

// HearRevoked calls heard with each agent that a process revokes, from the moment on in which it calls listening, until
// ctx ends or the connection breaks; whoever calls it looks with RevokedSince for what it missed, and comes back. It has a
// connection of its own. On SQLite, and behind a pooler that keeps no session, nothing is ever heard.
func (s *Store) HearRevoked(ctx context.Context, listening func(), heard func(id.ID)) error {
	if s.pool == nil {
		listening()
		<-ctx.Done()
		return ctx.Err()
	}
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig.Copy())
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // what it was for is over
	if _, err := conn.Exec(ctx, `LISTEN `+revokedChannel); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	listening()
	for {
		wait, cancel := context.WithTimeout(ctx, listenPing)
		n, err := conn.WaitForNotification(wait)
		cancel()
		switch {
		case err == nil:
			if agent, err := id.Parse(n.Payload); err == nil {
				heard(agent)
			}
			continue
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(err, context.DeadlineExceeded):
			return fmt.Errorf("listen: %w", err)
		}
		ping, cancel := context.WithTimeout(ctx, listenAnswer)
		err = conn.Ping(ping)
		cancel()
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
	}
}
