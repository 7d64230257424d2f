package store

import (
	"context"
	"strings"
)

// ExplainTasks gives the plan of a page of tasks.
func (s *Store) ExplainTasks(ctx context.Context, f TaskFilter) (string, error) {
	text, q, err := s.taskQuery(ctx, &f)
	if err != nil {
		return "", err
	}
	return s.Explain(ctx, text, q.args...)
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

// EventColumns are what a list of events reads.
const EventColumns = eventColumns
