package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/z4j-go/z4j/internal/id"
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

// QueueDepth is the number of waiting messages of a queue, as its agent measured it.
type QueueDepth struct {
	Project      id.ID
	Engine, Name string
	Pending      int64
}

// QueueDepths returns the depths of up to limit queues of all projects, where they are known.
func (s *Store) QueueDepths(ctx context.Context, limit int) ([]QueueDepth, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT project_id, engine, name, pending_count FROM queues WHERE pending_count IS NOT NULL
		ORDER BY project_id, engine, name LIMIT $1`, limit)
	list, err := collect(rows, err, func(q *QueueDepth) []any { return []any{&q.Project, &q.Engine, &q.Name, &q.Pending} })
	return list, wrap("queue depths", err)
}

// Connections returns how many connections to the database are open, and how many of them are in use.
func (s *Store) Connections() (open, used int) {
	if s.pool == nil {
		for _, db := range []*sql.DB{s.read, s.write} {
			open += db.Stats().OpenConnections
			used += db.Stats().InUse
		}
		return open, used
	}
	for _, p := range []*pgxpool.Pool{s.pool, s.audited, s.ingests} {
		stat := p.Stat()
		open += int(stat.TotalConns())
		used += int(stat.AcquiredConns())
	}
	return open, used
}
