package store

import (
	"context"
	"slices"

	"github.com/z4j-go/z4j/internal/id"
)

// Fleet counts a project's agents and engine workers; online by the one rule of OnlineFor.
type Fleet struct {
	Project       id.ID
	AgentsOnline  int64
	AgentsTotal   int64
	WorkersOnline int64
	WorkersTotal  int64
}

// projectsAtOnce is how many projects one statement names: far below SQLite's limit of parameters.
const projectsAtOnce = 500

const countWorkers = `SELECT project_id, 0, 0, count(CASE WHEN stopped_at IS NULL AND last_seen_at >= $1 THEN 1 END), count(*) FROM workers`

// countAgents: an agent is online while one of its processes is.
const countAgents = `SELECT project_id, count(CASE WHEN EXISTS (SELECT 1 FROM agent_workers w WHERE w.project_id = agents.project_id
	AND w.agent_id = agents.id AND w.state = 'online' AND w.last_seen_at >= $1) THEN 1 END), count(*), 0, 0 FROM agents`

// Fleets counts the agents and workers of projects at now. A project that has none is in the map too.
func (s *Store) Fleets(ctx context.Context, projects []id.ID, now Time) (map[id.ID]Fleet, error) {
	out := make(map[id.ID]Fleet, len(projects))
	for _, p := range projects {
		out[p] = Fleet{Project: p}
	}
	for part := range slices.Chunk(projects, projectsAtOnce) {
		for _, q := range []struct{ head, condition string }{{countWorkers, ""}, {countAgents, "revoked_at IS NULL"}} {
			w := where{args: []any{onlineSince(now)}}
			in(&w, "project_id", part)
			if q.condition != "" {
				w.and(q.condition)
			}
			rows, err := s.read.QueryContext(ctx, q.head+w.sql.String()+` GROUP BY project_id`, w.args...)
			found, err := collect(rows, err, func(f *Fleet) []any {
				return []any{&f.Project, &f.AgentsOnline, &f.AgentsTotal, &f.WorkersOnline, &f.WorkersTotal}
			})
			if err != nil {
				return nil, wrap("count agents and workers", err)
			}
			for _, f := range found {
				sum := out[f.Project]
				sum.AgentsOnline += f.AgentsOnline
				sum.AgentsTotal += f.AgentsTotal
				sum.WorkersOnline += f.WorkersOnline
				sum.WorkersTotal += f.WorkersTotal
				out[f.Project] = sum
			}
		}
	}
	return out, nil
}

// onlineSince is the earliest sign of life that counts at now.
func onlineSince(now Time) Time { return TimeOf(now.Add(-OnlineFor)) }

// liveness is the rule for one row.
func liveness(seen Time, ended bool, now Time) string {
	if ended || seen.Before(onlineSince(now).Time) {
		return Offline
	}
	return Online
}

// AgentWorkerFilter says which of a project's agent processes are wanted; zero values mean any.
type AgentWorkerFilter struct {
	Project id.ID
	State   string // Online or Offline
	Role    string // "other": none of those that have a name
	Page    Page
}

// agentRoles are the roles that have a name.
var agentRoles = []string{"web", "task", "scheduler", "beat"}

var freshAgentWorkers = listing{tag: 'p', columns: "last_seen_at, id", kinds: "ti", desc: true}

// AgentWorkerPage lists agent processes, those heard from last first, and within a page those online at now before the others.
func (s *Store) AgentWorkerPage(ctx context.Context, f AgentWorkerFilter, now Time) (Slice[AgentWorker], error) {
	q, err := freshAgentWorkers.page(f.Page)
	if err != nil {
		return Slice[AgentWorker]{}, wrap("list agent workers", err)
	}
	q.and("project_id = ?", f.Project)
	q.arg(onlineSince(now)) // $2 of agentWorkerColumns
	switch f.State {
	case Online:
		q.and("state = 'online' AND last_seen_at >= $2")
	case Offline:
		q.and("NOT (state = 'online' AND last_seen_at >= $2)")
	}
	switch f.Role {
	case "":
	case "other":
		q.and("(role IS NULL OR role NOT IN (?, ?, ?, ?))", anys(agentRoles)...)
	default:
		q.and("role = ?", f.Role)
	}
	out, err := readPage(ctx, s, q, `SELECT `+agentWorkerColumns+` FROM agent_workers`, (*AgentWorker).fields,
		func(w *AgentWorker) []any { return []any{w.LastSeenAt, w.ID} })
	slices.SortStableFunc(out.Items, func(a, b AgentWorker) int { return boolCompare(a.State != Online, b.State != Online) })
	return out, wrap("list agent workers", err)
}
