package api

import (
	"context"
	"slices"
	"time"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

type statsQuery struct {
	Hours int `query:"hours" default:"24" doc:"what the fields named 24h look back over: 1, 6, 24, 72 or 168"`
}

// stats are a project's numbers. Those of tasks come from the rollups; a list with the same filter has as many rows.
type stats struct {
	TasksByState     map[string]int64 `json:"tasks_by_state" doc:"tasks by the state that they are in now"`
	TasksTotal       int64            `json:"tasks_total"`
	TasksFailed      int64            `json:"tasks_failed_24h" doc:"attempts that failed"`
	TasksSucceeded   int64            `json:"tasks_succeeded_24h" doc:"attempts that succeeded"`
	FailureRate      float64          `json:"failure_rate_24h" doc:"failed / (failed + succeeded)"`
	AgentsOnline     int64            `json:"agents_online"`
	AgentsOffline    int64            `json:"agents_offline"`
	WorkersOnline    int64            `json:"workers_online"`
	WorkersOffline   int64            `json:"workers_offline"`
	CommandsPending  int64            `json:"commands_pending"`
	CommandsComplete int64            `json:"commands_completed_24h"`
	CommandsFailed   int64            `json:"commands_failed_24h"`
	CommandsTimeout  int64            `json:"commands_timeout_24h"`
	QueueDepths      []queueDepth     `json:"queue_depths"`
	SystemHealth     systemHealth     `json:"system_health"`
	DataGaps         []store.DataGap  `json:"data_gaps" doc:"times of which events may be missing, since a backup was restored"`
}

type queueDepth struct {
	Name         string     `json:"name"`
	Engine       string     `json:"engine"`
	PendingCount *int64     `json:"pending_count" doc:"null: unknown"`
	BrokerType   *string    `json:"broker_type"`
	LastSeenAt   store.Time `json:"last_seen_at"`
}

type systemHealth struct {
	Status          string `json:"status" enum:"healthy,degraded,critical"`
	AgentsAllOnline bool   `json:"agents_all_online"`
	QueueDepthOK    bool   `json:"queue_depth_ok"`
	FailureRateOK   bool   `json:"failure_rate_ok"`
	BrainDBOK       bool   `json:"brain_db_ok"`
}

// What counts as well in a project's health.
const (
	fullQueues     = 10_000 // waiting messages in all
	badFailureRate = 0.1
)

func (s *Server) showStats(ctx context.Context, in *statsQuery) (*reply[stats], error) {
	if !slices.Contains([]int{1, 6, 24, 72, 168}, in.Hours) {
		return nil, invalid("query.hours", "must be 1, 6, 24, 72 or 168")
	}
	now := store.TimeOf(s.Now())
	project := projectOf(ctx).ID
	byState, err := s.Store.TasksByState(ctx, project)
	if err != nil {
		return nil, err
	}
	one := []id.ID{project}
	traffics, err := s.Store.Traffics(ctx, one, store.TimeOf(now.Add(-time.Duration(in.Hours)*time.Hour)))
	if err != nil {
		return nil, err
	}
	fleets, err := s.Store.Fleets(ctx, one, now)
	if err != nil {
		return nil, err
	}
	queues, err := s.Store.Queues(ctx, project, store.Page{})
	if err != nil {
		return nil, err
	}
	gaps, err := s.Store.DataGaps(ctx)
	if err != nil {
		return nil, err
	}
	t, f := traffics[project], fleets[project]
	out := stats{
		DataGaps:     gaps,
		TasksByState: byState, TasksFailed: t.Failed, TasksSucceeded: t.Succeeded, FailureRate: t.FailureRate(),
		AgentsOnline: f.AgentsOnline, AgentsOffline: f.AgentsTotal - f.AgentsOnline,
		WorkersOnline: f.WorkersOnline, WorkersOffline: f.WorkersTotal - f.WorkersOnline, QueueDepths: []queueDepth{},
	}
	for _, n := range byState {
		out.TasksTotal += n
	}
	waiting := int64(0)
	for _, q := range queues.Items {
		out.QueueDepths = append(out.QueueDepths, queueDepth{q.Name, q.Engine, q.PendingCount, q.BrokerType, q.LastSeenAt})
		if q.PendingCount != nil {
			waiting += *q.PendingCount
		}
	}
	out.SystemHealth = healthOf(f, waiting, out.FailureRate)
	return &reply[stats]{out}, nil
}

// healthOf judges a project: without any agent online nothing is known of it.
func healthOf(f store.Fleet, waiting int64, failureRate float64) systemHealth {
	h := systemHealth{
		Status: "healthy", AgentsAllOnline: f.AgentsOnline == f.AgentsTotal, QueueDepthOK: waiting < fullQueues,
		FailureRateOK: failureRate < badFailureRate, BrainDBOK: true, // it has just answered
	}
	switch {
	case f.AgentsOnline == 0:
		h.Status = "critical"
	case !h.AgentsAllOnline || !h.QueueDepthOK || !h.FailureRateOK:
		h.Status = "degraded"
	}
	return h
}
