package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/z4j-go/z4j/internal/fold"
	"github.com/z4j-go/z4j/internal/id"
)

// Event is an event about a task as it was reported, with what the fold says of it.
type Event struct {
	ID         id.ID           `json:"id"`
	ProjectID  id.ID           `json:"project_id"`
	AgentID    id.ID           `json:"agent_id"`
	Engine     string          `json:"engine"`
	TaskID     string          `json:"task_id"`
	Kind       string          `json:"kind"`
	OccurredAt Time            `json:"occurred_at" doc:"as its source had it"`
	ReceivedAt Time            `json:"received_at"`
	WorkerName *string         `json:"worker_name"`
	Payload    json.RawMessage `json:"payload"`
	Remark     *string         `json:"remark" enum:"copy,hearsay,no_effect" doc:"copy: the same fact as another event; hearsay: reported by somebody who did not run the task; no_effect: a revoke that ended nothing"`
	RemarkOf   *id.ID          `json:"remark_of" doc:"the event that counts in this one's place"`
}

const eventColumns = `id, project_id, agent_id, engine, task_id, kind, occurred_at, received_at, worker, payload`

func (e *Event) fields() []any {
	return []any{
		&e.ID, &e.ProjectID, &e.AgentID, &e.Engine, &e.TaskID, &e.Kind, &e.OccurredAt, &e.ReceivedAt, &e.WorkerName, rawJSON{&e.Payload},
	}
}

// remarks are the API's names of the fold's remarks.
var remarks = map[fold.Remark]string{fold.RemarkCopy: "copy", fold.RemarkHearsay: "hearsay", fold.RemarkWeak: "no_effect"}

var newestEvents = listing{tag: 'e', columns: "occurred_at, id", kinds: "ti", desc: true}

// eventSlack is how long before a task's first mark another event of it may stand.
const eventSlack = 24 * time.Hour

// Events lists the events of one task, newest first.
func (s *Store) Events(ctx context.Context, project id.ID, engine, taskID string, p Page) (Slice[Event], error) {
	q, folded, err := s.eventQuery(ctx, project, engine, taskID, p)
	if err != nil {
		return Slice[Event]{}, wrap("list events", err)
	}
	out, err := readPage(ctx, s, q, `SELECT `+eventColumns+` FROM events`, (*Event).fields, func(e *Event) []any { return []any{e.OccurredAt, e.ID} })
	if err != nil || folded == nil {
		return out, wrap("list events", err)
	}
	notes := make(map[id.ID]*fold.Note, len(folded.Notes))
	eventID := func(k fold.MarkKey) id.ID { return fold.EventID(project, engine, taskID, k) }
	for i := range folded.Notes {
		notes[eventID(folded.Notes[i].Mark)] = &folded.Notes[i]
	}
	for i := range out.Items {
		note := notes[out.Items[i].ID]
		if note == nil {
			continue
		}
		if name, ok := remarks[note.Remark]; ok {
			out.Items[i].Remark = &name
		}
		if note.Of.Kind != 0 {
			of := eventID(note.Of)
			out.Items[i].RemarkOf = &of
		}
	}
	return out, nil
}

// eventQuery is a page of a task's events; folded is nil where there is no such task.
func (s *Store) eventQuery(ctx context.Context, project id.ID, engine, taskID string, p Page) (q *query, folded *fold.Result, err error) {
	if q, err = newestEvents.page(p); err != nil {
		return nil, nil, err
	}
	if folded, err = s.folded(ctx, project, engine, taskID); err != nil {
		return nil, nil, err
	}
	q.and("project_id = ?", project)
	q.and("task_key = ?", id.ID(fold.TaskKey(engine, taskID)))
	q.and("engine = ?", engine) // a UUID stands for itself in every engine
	if folded != nil && folded.Task.FirstAt != 0 {
		q.and("occurred_at >= ?", TimeOf(TimeAt(folded.Task.FirstAt).Add(-eventSlack))) // earlier partitions need no look
	}
	return q, folded, nil
}

// folded folds the marks of a task's row again; nil where there is no such task.
func (s *Store) folded(ctx context.Context, project id.ID, engine, taskID string) (*fold.Result, error) {
	var blob []byte
	err := s.read.QueryRowContext(ctx, `SELECT marks FROM tasks WHERE project_id = $1 AND engine = $2 AND task_key = $3`,
		project, engine, id.ID(fold.TaskKey(engine, taskID))).Scan(&blob)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // no task has no marks, and its events are listed all the same
	}
	if err != nil {
		return nil, err
	}
	var h fold.History
	guesses, err := h.Decode(engine, taskID, blob)
	if err != nil {
		return nil, err
	}
	r := fold.Fold(&h, guesses)
	return &r, nil
}
