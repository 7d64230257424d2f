package store

import (
	"context"

	"github.com/z4j-go/z4j/internal/id"
)

// Queue is a queue that a task or an agent named.
type Queue struct {
	ID            id.ID   `json:"id"`
	ProjectID     id.ID   `json:"project_id"`
	Name          string  `json:"name"`
	Engine        string  `json:"engine"`
	BrokerType    *string `json:"broker_type"`
	BrokerURLHint *string `json:"broker_url_hint" doc:"always null: the brain keeps no broker address"`
	PendingCount  *int64  `json:"pending_count" doc:"waiting messages as its agent measured; null: unknown"`
	PendingAt     *Time   `json:"pending_at" doc:"when that was measured"`
	LastSeenAt    Time    `json:"last_seen_at"`
	CreatedAt     Time    `json:"created_at"`
}

const queueColumns = `id, project_id, name, engine, broker_type, pending_count, pending_at, last_seen_at, created_at`

func (q *Queue) fields() []any {
	return []any{&q.ID, &q.ProjectID, &q.Name, &q.Engine, &q.BrokerType, &q.PendingCount, &q.PendingAt, &q.LastSeenAt, &q.CreatedAt}
}

var namedQueues = listing{tag: 'q', columns: "name{C}, engine{C}", kinds: "ss"}

// Queues lists a project's queues by name.
func (s *Store) Queues(ctx context.Context, project id.ID, p Page) (Slice[Queue], error) {
	q, err := namedQueues.page(p)
	if err != nil {
		return Slice[Queue]{}, err
	}
	q.and("project_id = ?", project)
	out, err := readPage(ctx, s, q, `SELECT `+queueColumns+` FROM queues`, (*Queue).fields, func(q *Queue) []any { return []any{q.Name, q.Engine} })
	return out, wrap("list queues", err)
}
