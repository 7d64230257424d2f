package store

import (
	"context"
	"time"

	"github.com/z4j-go/z4j/internal/id"
)

// touchPostgres returns the sessions that still hold their slots. It locks slots in their order, as connects and ends
// do, and leaves out rows of agents that somebody else is changing (the next touch finds them): two brains never wait
// for one another in a circle.
func (tx *Tx) touchPostgres(ctx context.Context, touches []SlotTouch, agents map[id.ID]Time) (map[string]bool, error) {
	var (
		projects, ids, names, sessions []string
		statuses                       []*string
		named                          []bool
		seen                           []time.Time
	)
	for i := range touches {
		t := &touches[i]
		projects, ids, names = append(projects, t.Project.String()), append(ids, t.Agent.String()), append(names, t.WorkerID)
		named, sessions, seen = append(named, t.Named), append(sessions, t.Session), append(seen, t.Seen.Time)
		var status *string
		if t.Status != nil {
			text := string(t.Status)
			status = &text
		}
		statuses = append(statuses, status)
	}
	rows, err := tx.QueryContext(ctx, `
		WITH t AS MATERIALIZED (
			SELECT w.project_id, w.agent_id, w.has_worker_id, w.worker_id, u.seen, u.status
			FROM unnest($1::uuid[], $2::uuid[], $3::boolean[], $4::text[], $5::text[], $6::timestamptz[], $7::text[])
				AS u (project_id, agent_id, has_worker_id, worker_id, session_id, seen, status)
			JOIN agent_workers AS w ON w.project_id = u.project_id AND w.agent_id = u.agent_id AND w.has_worker_id = u.has_worker_id
				AND w.worker_id = u.worker_id AND w.session_id = u.session_id
			ORDER BY w.project_id, w.agent_id, w.has_worker_id, w.worker_id COLLATE "C"
			FOR UPDATE OF w)
		UPDATE agent_workers AS w SET state = 'online', last_seen_at = greatest(w.last_seen_at, t.seen), status = coalesce(t.status, w.status),
			updated_at = t.seen
		FROM t WHERE w.project_id = t.project_id AND w.agent_id = t.agent_id AND w.has_worker_id = t.has_worker_id AND w.worker_id = t.worker_id
		RETURNING w.session_id`, projects, ids, named, names, sessions, seen, statuses)
	list, err := collect(rows, err, func(s *string) []any { return []any{s} })
	if err != nil {
		return nil, err
	}
	held := make(map[string]bool, len(list))
	for _, s := range list {
		held[s] = true
	}
	ids, seen = ids[:0], seen[:0]
	for a, at := range agents {
		ids, seen = append(ids, a.String()), append(seen, at.Time)
	}
	_, err = tx.ExecContext(ctx, `
		UPDATE agents AS a SET last_seen_at = t.seen
		FROM unnest($1::uuid[], $2::timestamptz[]) AS t (id, seen)
		WHERE a.id = t.id AND (a.last_seen_at IS NULL OR a.last_seen_at < t.seen)
			AND a.id IN (SELECT id FROM agents WHERE id = ANY($1::uuid[]) FOR UPDATE SKIP LOCKED)`, ids, seen)
	return held, err
}
