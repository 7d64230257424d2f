package store

import (
	"context"

	"github.com/z4j-go/z4j/internal/id"
)

// Revocation is an agent that was revoked.
type Revocation struct {
	Agent id.ID
	At    Time
}

// RevokedSince returns which agents were revoked at or after a time, in that order. Times are those of whoever revoked.
func (s *Store) RevokedSince(ctx context.Context, at Time) ([]Revocation, error) {
	rows, err := s.read.QueryContext(ctx, revokedSince, at)
	list, err := collect(rows, err, func(r *Revocation) []any { return []any{&r.Agent, &r.At} })
	return list, wrap("look for revoked agents", err)
}

const revokedSince = `SELECT id, revoked_at FROM agents WHERE revoked_at >= $1 ORDER BY revoked_at`
