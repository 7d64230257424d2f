package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

// HomeCounters are the numbers of one project, or of all of them.
type HomeCounters struct {
	Tasks         int64   `json:"tasks_24h" doc:"tasks first heard of"`
	Failures      int64   `json:"failures_24h" doc:"attempts that failed"`
	FailureRate   float64 `json:"failure_rate_24h" doc:"failed / (failed + succeeded)"`
	WorkersOnline int64   `json:"workers_online"`
	WorkersTotal  int64   `json:"workers_total"`
	AgentsOnline  int64   `json:"agents_online"`
	AgentsTotal   int64   `json:"agents_total"`
	StuckCommands int64   `json:"stuck_commands"`

	succeeded int64
}

func (c *HomeCounters) add(o HomeCounters) {
	c.Tasks += o.Tasks
	c.Failures += o.Failures
	c.succeeded += o.succeeded
	c.WorkersOnline += o.WorkersOnline
	c.WorkersTotal += o.WorkersTotal
	c.AgentsOnline += o.AgentsOnline
	c.AgentsTotal += o.AgentsTotal
	c.FailureRate = store.Traffic{Failed: c.Failures, Succeeded: c.succeeded}.FailureRate()
}

type homeProject struct {
	HomeCounters

	ID             id.ID       `json:"id"`
	Slug           string      `json:"slug"`
	Name           string      `json:"name"`
	Environment    string      `json:"environment"`
	Role           *string     `json:"role" doc:"the caller's; null for a global admin who is no member"`
	LastActivityAt *store.Time `json:"last_activity_at" doc:"minute of the newest fact about a task"`
	Health         string      `json:"health" enum:"offline,degraded,idle,healthy"`
}

// attention is something that somebody should look at.
type attention struct {
	Kind        string `json:"kind" enum:"agent_offline,high_failure_rate,stuck_commands"`
	Severity    string `json:"severity" enum:"critical,warning"`
	ProjectID   id.ID  `json:"project_id"`
	ProjectSlug string `json:"project_slug"`
	ProjectName string `json:"project_name"`
	Message     string `json:"message"`
	Count       *int64 `json:"count"`
}

type homeUser struct {
	ID          id.ID  `json:"id"`
	Email       string `json:"email"`
	DisplayName string `json:"display_name"`
	IsAdmin     bool   `json:"is_admin"`
}

type homeSummary struct {
	User      homeUser      `json:"user"`
	Aggregate HomeCounters  `json:"aggregate"`
	Projects  []homeProject `json:"projects"`
	Attention []attention   `json:"attention"`
	Audit     auditState    `json:"audit"`

	DataGaps []store.DataGap `json:"data_gaps" doc:"times of which events may be missing, since a backup was restored"`
}

// auditState says whether changes can be made, as health does.
type auditState struct {
	State  string `json:"state" enum:"ok,history_in_doubt,audit_key_unknown,failed"`
	Detail string `json:"detail" doc:"what to do about it; empty when all is well"`
}

// When a failure rate asks for attention.
const (
	warnFailureRate     = 0.05
	criticalFailureRate = 0.2
	fewTasks            = 20 // a rate over fewer tasks says nothing
)

// visibleProject is a project that the caller sees, with the own role there.
type visibleProject struct {
	store.Project

	Role *string
}

func (s *Server) visibleProjects(ctx context.Context) ([]visibleProject, error) {
	user := requestOf(ctx).user
	projects, err := s.Store.Projects(ctx, requestOf(ctx).sight())
	if err != nil {
		return nil, err
	}
	memberships, err := s.Store.UserProjects(ctx, user.ID)
	if err != nil {
		return nil, err
	}
	roles := make(map[id.ID]*string, len(memberships))
	for i := range memberships {
		roles[memberships[i].Project] = &memberships[i].Role
	}
	out := make([]visibleProject, len(projects))
	for i := range projects {
		out[i] = visibleProject{projects[i], roles[projects[i].ID]}
	}
	return out, nil
}

func (s *Server) showHome(ctx context.Context, _ *struct{}) (*reply[homeSummary], error) {
	visible, err := s.visibleProjects(ctx)
	if err != nil {
		return nil, err
	}
	ids := make([]id.ID, len(visible))
	for i := range visible {
		ids[i] = visible[i].ID
	}
	now := store.TimeOf(s.Now())
	traffics, err := s.Store.Traffics(ctx, ids, store.TimeOf(now.Add(-24*time.Hour)))
	if err != nil {
		return nil, err
	}
	fleets, err := s.Store.Fleets(ctx, ids, now)
	if err != nil {
		return nil, err
	}
	last, err := s.Store.LastActivities(ctx, ids)
	if err != nil {
		return nil, err
	}
	gaps, err := s.Store.DataGaps(ctx)
	if err != nil {
		return nil, err
	}
	out := homeSummary{DataGaps: gaps, User: homeUserOf(requestOf(ctx).user), Projects: []homeProject{}, Attention: []attention{}}
	for _, p := range visible {
		h := homeOf(p, traffics[p.ID], fleets[p.ID])
		if at, ok := last[p.ID]; ok {
			h.LastActivityAt = &at
		}
		out.Aggregate.add(h.HomeCounters)
		out.Projects = append(out.Projects, h)
		out.Attention = append(out.Attention, attentionsOf(h)...)
	}
	slices.SortFunc(out.Projects, func(a, b homeProject) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Slug, b.Slug)) })
	slices.SortStableFunc(out.Attention, func(a, b attention) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.ProjectName, b.ProjectName))
	})
	var state status
	state.describe(s.Audit.Err())
	out.Audit = auditState{state.Audit, state.Detail}
	return &reply[homeSummary]{out}, nil
}

func homeUserOf(u *store.User) homeUser {
	return homeUser{ID: u.ID, Email: u.Email, DisplayName: displayName(*u), IsAdmin: u.IsAdmin}
}

func homeOf(p visibleProject, t store.Traffic, f store.Fleet) homeProject {
	h := homeProject{ID: p.ID, Slug: p.Slug, Name: p.Name, Environment: p.Environment, Role: p.Role}
	h.HomeCounters = HomeCounters{
		Tasks: t.Tasks, Failures: t.Failed, succeeded: t.Succeeded, FailureRate: t.FailureRate(),
		WorkersOnline: f.WorkersOnline, WorkersTotal: f.WorkersTotal, AgentsOnline: f.AgentsOnline, AgentsTotal: f.AgentsTotal,
	}
	switch {
	case f.AgentsTotal > 0 && f.AgentsOnline == 0:
		h.Health = "offline"
	case h.FailureRate > warnFailureRate || h.StuckCommands > 0 || f.AgentsOnline < f.AgentsTotal:
		h.Health = "degraded"
	case t.Tasks == 0 && f.WorkersOnline == 0:
		h.Health = "idle"
	default:
		h.Health = "healthy"
	}
	return h
}

func attentionsOf(p homeProject) []attention {
	var list []attention
	add := func(kind string, critical bool, count int64, message string) {
		a := attention{Kind: kind, Severity: "warning", ProjectID: p.ID, ProjectSlug: p.Slug, ProjectName: p.Name, Message: message, Count: &count}
		if critical {
			a.Severity = "critical"
		}
		list = append(list, a)
	}
	if off := p.AgentsTotal - p.AgentsOnline; off > 0 {
		add("agent_offline", p.AgentsOnline == 0, off, fmt.Sprintf("%d of %d agents are offline", off, p.AgentsTotal))
	}
	if p.FailureRate > warnFailureRate && p.Tasks > fewTasks {
		add("high_failure_rate", p.FailureRate > criticalFailureRate, p.Failures, fmt.Sprintf("%.1f %% of the attempts of 24 hours failed", 100*p.FailureRate))
	}
	return list
}

type failureList struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"5000" default:"50" doc:"above 200 is cut to 200"`
	Cursor string `query:"cursor" maxLength:"2000"`
}

type failure struct {
	ID          id.ID      `json:"id"`
	OccurredAt  store.Time `json:"occurred_at"`
	ProjectID   id.ID      `json:"project_id"`
	ProjectSlug string     `json:"project_slug"`
	ProjectName string     `json:"project_name"`
	Engine      string     `json:"engine"`
	TaskID      string     `json:"task_id"`
	TaskName    *string    `json:"task_name"`
	Worker      *string    `json:"worker"`
	Exception   *string    `json:"exception"`
	Priority    string     `json:"priority"`
}

// mostFailures is the most rows of recent failures: it is a panel of the home page.
const mostFailures = 200

func (s *Server) listRecentFailures(ctx context.Context, in *failureList) (*reply[store.Slice[failure]], error) {
	visible, err := s.visibleProjects(ctx)
	if err != nil {
		return nil, err
	}
	byID := map[id.ID]visibleProject{}
	ids := make([]id.ID, len(visible))
	for i, p := range visible {
		ids[i], byID[p.ID] = p.ID, p
	}
	tasks, err := s.Store.RecentFailures(ctx, ids, store.Page{Limit: min(in.Limit, mostFailures), Cursor: in.Cursor})
	if err != nil {
		return nil, pageError(err)
	}
	out := store.Slice[failure]{Items: []failure{}, Next: tasks.Next, Prev: tasks.Prev}
	for _, t := range tasks.Items {
		p := byID[t.ProjectID]
		f := failure{
			ID: t.ID, OccurredAt: t.UpdatedAt, ProjectID: p.ID, ProjectSlug: p.Slug, ProjectName: p.Name, Engine: t.Engine, TaskID: t.TaskID,
			TaskName: t.Name, Worker: t.WorkerName, Exception: t.Exception, Priority: t.Priority,
		}
		if t.FinishedAt != nil {
			f.OccurredAt = *t.FinishedAt
		}
		out.Items = append(out.Items, f)
	}
	return &reply[store.Slice[failure]]{out}, nil
}
