package store

import (
	"context"

	"github.com/z4j-go/z4j/internal/id"
)

// RefusedEvent is a dead letter of ingest: what could not be taken, and why.
type RefusedEvent struct {
	ID         id.ID  `json:"id"`
	ProjectID  id.ID  `json:"project_id"`
	AgentID    id.ID  `json:"agent_id"`
	ReceivedAt Time   `json:"received_at"`
	FrameID    string `json:"frame_id"`
	Reason     string `json:"reason"`
	Detail     string `json:"detail"`
	Size       int64  `json:"size" doc:"bytes as received"`
	Body       string `json:"body" doc:"redacted and cut; it need not be JSON"`
}

const refusedEventColumns = `id, project_id, agent_id, received_at, frame_id, reason, detail, size, body`

func (r *RefusedEvent) fields() []any {
	return []any{&r.ID, &r.ProjectID, &r.AgentID, &r.ReceivedAt, &r.FrameID, &r.Reason, &r.Detail, &r.Size, &r.Body}
}

var refusedEvents = listing{tag: 'd', columns: "id", kinds: "i", desc: true}

// RefusedEvents lists a project's dead letters, newest first; reason "" is any.
func (s *Store) RefusedEvents(ctx context.Context, project id.ID, reason string, p Page) (Slice[RefusedEvent], error) {
	q, err := refusedEvents.page(p)
	if err != nil {
		return Slice[RefusedEvent]{}, err
	}
	q.and("project_id = ?", project)
	if reason != "" {
		q.and("reason = ?", reason)
	}
	out, err := readPage(ctx, s, q, `SELECT `+refusedEventColumns+` FROM dead_letters`, (*RefusedEvent).fields,
		func(r *RefusedEvent) []any { return []any{r.ID} })
	return out, wrap("list refused events", err)
}
