package store

import (
	"context"
	"encoding/json"

	"github.com/z4j-go/z4j/internal/id"
)

// Worker is an engine's worker.
type Worker struct {
	ID            id.ID     `json:"id"`
	ProjectID     id.ID     `json:"project_id"`
	Engine        string    `json:"engine"`
	Name          string    `json:"name"`
	Hostname      *string   `json:"hostname"`
	PID           *int64    `json:"pid"`
	Concurrency   *int64    `json:"concurrency"`
	Queues        []string  `json:"queues"`
	State         string    `json:"state" enum:"online,offline" doc:"online: seen within 30 seconds and no goodbye since"`
	LastHeartbeat Time      `json:"last_heartbeat" doc:"receive time of its newest sign of life"`
	StoppedAt     *Time     `json:"stopped_at" doc:"when it said goodbye; null for a worker that runs or was lost"`
	LoadAverage   []float64 `json:"load_average" nullable:"true"`
	ActiveTasks   *int64    `json:"active_tasks" doc:"as its agent counted; null: unknown"`
	ClockOffsetMS *float64  `json:"clock_offset_ms" doc:"how far its clock is ahead of the brain's; null: unknown"`
	Processed     *int64    `json:"processed" doc:"always null: work is not counted by worker yet"`
	Failed        *int64    `json:"failed" doc:"as processed"`
	Succeeded     *int64    `json:"succeeded" doc:"as processed"`
	Retried       *int64    `json:"retried" doc:"as processed"`
	CreatedAt     Time      `json:"created_at"`
}

const workerColumns = `id, project_id, engine, name, hostname, pid, concurrency, queues, last_seen_at, stopped_at, load_average,
	active_tasks, offset_us, created_at`

func (w *Worker) fields() []any {
	w.Queues = []string{}
	return []any{
		&w.ID, &w.ProjectID, &w.Engine, &w.Name, &w.Hostname, &w.PID, &w.Concurrency,
		parsedJSON{&w.Queues},
		&w.LastHeartbeat, &w.StoppedAt,
		parsedJSON{&w.LoadAverage},
		&w.ActiveTasks,
		millis{&w.ClockOffsetMS},
		&w.CreatedAt,
	}
}

func (w *Worker) settle(now Time) {
	if w.Queues == nil {
		w.Queues = []string{}
	}
	w.State = liveness(w.LastHeartbeat, w.StoppedAt != nil, now)
}

// WorkerFilter says which of a project's workers are wanted.
type WorkerFilter struct {
	Project id.ID
	Engine  string
	State   string // Online, Offline or "" for all
	Search  string // contained in the name or the host's name, whatever the case of ASCII letters
	ByName  bool   // in the order of names, which no heartbeat changes; else the freshest first
	Page    Page
}

var (
	// freshWorkers: the living come first, and the dead never push them off the first page.
	freshWorkers = listing{tag: 'w', columns: "last_seen_at, id", kinds: "ti", desc: true}
	namedWorkers = listing{tag: 'W', columns: "name{C}, engine{C}", kinds: "ss"}
)

// Workers lists workers. In the order of freshness a worker heard from between two pages moves to the beginning; a walk
// that must miss none goes by name.
func (s *Store) Workers(ctx context.Context, f WorkerFilter, now Time) (Slice[Worker], error) {
	list, key := freshWorkers, func(w *Worker) []any { return []any{w.LastHeartbeat, w.ID} }
	if f.ByName {
		list, key = namedWorkers, func(w *Worker) []any { return []any{w.Name, w.Engine} }
	}
	q, err := list.page(f.Page)
	if err != nil {
		return Slice[Worker]{}, err
	}
	q.and("project_id = ?", f.Project)
	if f.Engine != "" {
		q.and("engine = ?", f.Engine)
	}
	switch f.State {
	case Online:
		q.and("stopped_at IS NULL AND last_seen_at >= ?", onlineSince(now))
	case Offline:
		q.and("(stopped_at IS NOT NULL OR last_seen_at < ?)", onlineSince(now))
	}
	if f.Search != "" {
		q.and("("+s.dialect.contains("name")+" OR "+s.dialect.contains("hostname")+")", pattern(f.Search), pattern(f.Search))
	}
	out, err := readPage(ctx, s, q, `SELECT `+workerColumns+` FROM workers`, (*Worker).fields, key)
	if err != nil {
		return Slice[Worker]{}, wrap("list workers", err)
	}
	for i := range out.Items {
		out.Items[i].settle(now)
	}
	return out, nil
}

// WorkerDetail is a worker with what its agent's inspection found.
type WorkerDetail struct {
	Worker

	AgentID  id.Null         `json:"agent_id" doc:"whose heartbeat reported it; null for a worker known from its events only"`
	Metadata json.RawMessage `json:"metadata"`
}

// Worker returns one worker of a project, or ErrNotFound.
func (s *Store) Worker(ctx context.Context, project, worker id.ID, now Time) (WorkerDetail, error) {
	var w WorkerDetail
	err := s.read.QueryRowContext(ctx, `SELECT `+workerColumns+`, agent_id, metadata FROM workers WHERE project_id = $1 AND id = $2`, project, worker).
		Scan(append(w.fields(), &w.AgentID, rawJSON{&w.Metadata})...)
	w.settle(now)
	return w, wrap("worker", err)
}
