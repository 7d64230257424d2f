package store

import (
	"context"

	"github.com/z4j-go/z4j/internal/id"
)

// touchSQLite returns the sessions that still hold their slots.
func (tx *Tx) touchSQLite(ctx context.Context, touches []SlotTouch, agents map[id.ID]Time) (map[string]bool, error) {
	slot, err := tx.PrepareContext(ctx, `
		UPDATE agent_workers SET state = 'online', last_seen_at = CASE WHEN last_seen_at > $1 THEN last_seen_at ELSE $1 END,
			status = coalesce($2, status), updated_at = $1
		WHERE project_id = $3 AND agent_id = $4 AND has_worker_id = $5 AND worker_id = $6 AND session_id = $7`)
	if err != nil {
		return nil, err
	}
	defer slot.Close()
	held := make(map[string]bool, len(touches))
	for i := range touches {
		t := &touches[i]
		res, err := slot.ExecContext(ctx, t.Seen, textOrNull(string(t.Status)), t.Project, t.Agent, t.Named, t.WorkerID, t.Session)
		if err != nil {
			return nil, err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return nil, err
		}
		held[t.Session] = n == 1
	}
	agent, err := tx.PrepareContext(ctx, `UPDATE agents SET last_seen_at = $1 WHERE id = $2 AND (last_seen_at IS NULL OR last_seen_at < $1)`)
	if err != nil {
		return nil, err
	}
	defer agent.Close()
	for a, seen := range agents {
		if _, err := agent.ExecContext(ctx, seen, a); err != nil {
			return nil, err
		}
	}
	return held, nil
}
