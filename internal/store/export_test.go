package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/z4j-go/z4j/internal/id"
)

// ExplainTasks gives the plan of a page of tasks.
func (s *Store) ExplainTasks(ctx context.Context, f TaskFilter) (string, error) {
	q, err := newestTasks.page(f.Page)
	if err != nil {
		return "", err
	}
	search, err := s.taskSearch(ctx, &f)
	if err != nil {
		return "", err
	}
	var place, bound *id.ID
	if q.begun {
		at := q.at.key[0].(id.ID)
		place = &at
	}
	if search.rest != "" {
		bound = &id.ID{}
	}
	text, args := search.page(q, place, bound, q.limit+1)
	return s.Explain(ctx, text, args...)
}

// Explain gives the plan of a statement; on Postgres with sequential scans made dear, as they are on a grown table.
func (s *Store) Explain(ctx context.Context, text string, args ...any) (string, error) {
	text = s.sql(text)
	conn, err := s.read.Conn(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	explain, before := `EXPLAIN QUERY PLAN `, 3
	if s.pool != nil {
		explain, before = `EXPLAIN `, 0
		if _, err := conn.ExecContext(ctx, `SET enable_seqscan = off`); err != nil {
			return "", err
		}
		defer func() { _, _ = conn.ExecContext(context.WithoutCancel(ctx), `RESET enable_seqscan`) }()
	}
	type line struct {
		before [3]any
		text   string
	}
	rows, err := conn.QueryContext(ctx, explain+text, args...)
	lines, err := collect(rows, err, func(l *line) []any {
		return append([]any{&l.before[0], &l.before[1], &l.before[2]}[:before:before], &l.text)
	})
	var plan strings.Builder
	for _, l := range lines {
		plan.WriteString(l.text + "\n")
	}
	return plan.String(), err
}

// Analyze brings the planner's statistics up to date.
func (s *Store) Analyze(ctx context.Context) error {
	_, err := s.write.ExecContext(ctx, `ANALYZE`)
	return err
}

// ExplainEvents gives the plan of a page of a task's events.
func (s *Store) ExplainEvents(ctx context.Context, project id.ID, engine, taskID string) (string, error) {
	q, _, err := s.eventQuery(ctx, project, engine, taskID, Page{})
	if err != nil {
		return "", err
	}
	return s.Explain(ctx, `SELECT `+eventColumns+` FROM events`+q.conditions()+q.end(), q.args...)
}

// SearchBy makes searches look at the clock after each rows rows.
func (s *Store) SearchBy(rows int) { s.stretch = rows }

// TaskCursor is the cursor at a task.
func TaskCursor(task id.ID, back bool) string {
	return newestTasks.encode(cursor{back: back, key: []any{task}})
}

// PostgresConns is how many connections a brain has to Postgres at most.
const PostgresConns = readConns + auditedConns + ingestConns + listenConns

// ListenConns is how many of them are of no pool.
const ListenConns = listenConns

// Pool is one of a store's sets of connections.
type Pool struct {
	*sql.DB
	Name string
	Most int // connections
}

// Pools are all connections of the store. On Postgres they are a second view of the pools, for the caller to close.
func (s *Store) Pools() []Pool {
	if s.pool == nil {
		return []Pool{{s.read, "read", sqliteReads}, {s.write, "write", 1}}
	}
	return []Pool{
		{stdlib.OpenDBFromPool(s.pool), "read", int(s.pool.Config().MaxConns)},
		{stdlib.OpenDBFromPool(s.audited), "audited", int(s.audited.Config().MaxConns)},
		{stdlib.OpenDBFromPool(s.ingests), "ingest", int(s.ingests.Config().MaxConns)},
	}
}

// APIKeyLookup finds a key by two hashes.
const APIKeyLookup = `SELECT token_hash, ` + apiKeyColumns + `, ` + userColumns + apiKeyTables + ` WHERE token_hash IN ($1, $2)`

// SetTimeline makes a Postgres tell another timeline: an expression of SQL.
func (s *Store) SetTimeline(sql string) { s.chain.timeline = sql }

// What revoking an agent runs, and what brains ask for afterwards.
const (
	RevokeAgentText  = revokeAgent
	RevokedSinceText = revokedSince
)

// PolicyTables are the tables that have a policy, in its order, with the way in which their rows go.
func PolicyTables() (names, kinds []string) {
	for _, p := range policies() {
		names, kinds = append(names, p.table), append(kinds, string(p.kind))
	}
	return names, kinds
}

// What Hold and AuditLineEntries ask.
const (
	NewestOfAction = newestOfAction
	SpanOfAction   = spanOfAction
	ClockSteps     = clockSteps
	RowFrom        = rowFrom
	RowUpTo        = rowUpTo
)

// RefuseLiveFile is what a restore asks before it replaces a SQLite file.
func RefuseLiveFile(path string) error { return refuseLiveFile(path) }

// AuditWindow returns the numbers of the first entry of from or later, and of the last before to; 0: there is none.
func (s *Store) AuditWindow(ctx context.Context, from, to *Time) (first, last int64, err error) {
	lowest, highest, err := s.auditEnds(ctx)
	if err != nil {
		return 0, 0, err
	}
	return s.auditWindow(ctx, lowest, highest, from, to)
}

// SnapshotIn is Snapshot with SQLite's copy in dir, whether there is room or not.
func (s *Store) SnapshotIn(ctx context.Context, dir string) error {
	snap := &Snapshot{store: s}
	err := s.snapshotIn(ctx, snap, SnapshotOptions{Readers: 1}, dir)
	if snap.source == nil {
		return err
	}
	return errors.Join(err, snap.source.close())
}
