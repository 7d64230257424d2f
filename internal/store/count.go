package store

import (
	"context"
	"errors"
)

// Counts is how much there is. -1 says that counting took too long.
type Counts struct {
	Users          int64 `json:"users"`
	ActiveSessions int64 `json:"active_sessions"`
	Projects       int64 `json:"projects"`
	Agents         int64 `json:"agents"` // not revoked
	Tasks          int64 `json:"tasks"`
	Events         int64 `json:"events"`
	DeadLetters    int64 `json:"dead_letters"`
	AuditRows      int64 `json:"audit_rows"`
}

// Counts counts everything at now, exactly: it reads whole tables.
func (s *Store) Counts(ctx context.Context, now Time) (Counts, error) {
	var c Counts
	var errs []error
	count := func(to *int64, query string, args ...any) {
		err := s.read.QueryRowContext(ctx, query, args...).Scan(to)
		if err != nil {
			*to = -1
			errs = append(errs, wrap("count", err))
		}
	}
	count(&c.Users, `SELECT count(*) FROM users`)
	count(&c.ActiveSessions, `SELECT count(*) FROM sessions WHERE revoked_at IS NULL AND expires_at > $1`, now)
	count(&c.Projects, `SELECT count(*) FROM projects`)
	count(&c.Agents, `SELECT count(*) FROM agents WHERE revoked_at IS NULL`)
	count(&c.Tasks, `SELECT count(*) FROM tasks`)
	count(&c.Events, `SELECT count(*) FROM events`)
	count(&c.DeadLetters, `SELECT count(*) FROM dead_letters`)
	count(&c.AuditRows, `SELECT count(*) FROM audit_log`)
	return c, errors.Join(errs...)
}
