package api

import (
	"context"
	"slices"
	"strings"

	"github.com/z4j-go/z4j/internal/store"
)

type taskList struct {
	PageQuery

	State        string `query:"state" doc:"unknown, pending, received, started, success, failure, retry, revoked, rejected or lost"`
	Priority     string `query:"priority" maxLength:"100" doc:"comma list of critical, high, normal and low"`
	Name         string `query:"name" maxLength:"200" doc:"contained in the name; the case counts"`
	Search       string `query:"search" maxLength:"200" doc:"contained in name, queue, worker or task id, whatever the case of ASCII letters; a whole UUID finds the task of that id at once"`
	Queue        string `query:"queue" maxLength:"500"`
	Worker       string `query:"worker" maxLength:"500"`
	Since        string `query:"since" doc:"received at or after"`
	Until        string `query:"until" doc:"received at or before"`
	IncludeTotal bool   `query:"include_total" doc:"fills total_count"`
}

// taskPage is a page of tasks.
type taskPage struct {
	store.Slice[store.Task]

	TotalCount *int64 `json:"total_count" doc:"how many tasks the filter finds; null when not asked for, and where only reading them all could tell: with search, worker, priority, since or until"`
}

var priorities = []string{"critical", "high", "normal", "low"}

func (in *taskList) filter() (f store.TaskFilter, err error) {
	f = store.TaskFilter{Name: in.Name, Search: in.Search, Queue: in.Queue, Worker: in.Worker, Page: in.page()}
	if in.State != "" {
		state, ok := store.ParseState(in.State)
		if !ok {
			return f, invalid("query.state", "must be one of "+strings.Join(store.StateNames(), ", "))
		}
		f.State = &state
	}
	for part := range strings.SplitSeq(in.Priority, ",") {
		switch part = strings.TrimSpace(part); {
		case part == "":
		case !slices.Contains(priorities, part):
			return f, invalid("query.priority", "must be a comma list of "+strings.Join(priorities, ", "))
		default:
			f.Priorities = append(f.Priorities, part)
		}
	}
	if f.Since, err = readTime("since", in.Since); err != nil {
		return f, err
	}
	f.Until, err = readTime("until", in.Until)
	return f, err
}

func (s *Server) listTasks(ctx context.Context, in *taskList) (*reply[taskPage], error) {
	f, err := in.filter()
	if err != nil {
		return nil, err
	}
	f.Project = projectOf(ctx).ID
	var out taskPage
	if out.Slice, err = s.Store.Tasks(ctx, f); err != nil {
		return nil, pageError(err)
	}
	if in.IncludeTotal {
		if out.TotalCount, err = s.Store.CountTasks(ctx, f); err != nil {
			return nil, err
		}
	}
	return &reply[taskPage]{out}, nil
}

// TaskPath names a task. The task id is one segment of the path, escaped by the client: a slash in it is %2F.
type TaskPath struct {
	Engine string `path:"engine" maxLength:"100"`
	TaskID string `path:"task_id" maxLength:"1000"`
}

func (s *Server) showTask(ctx context.Context, in *TaskPath) (*reply[store.TaskDetail], error) {
	t, err := s.Store.Task(ctx, projectOf(ctx).ID, in.Engine, in.TaskID)
	return &reply[store.TaskDetail]{t}, err
}

type attemptList struct {
	TaskPath
	PageQuery
}

func (s *Server) listAttempts(ctx context.Context, in *attemptList) (*reply[store.Slice[store.Attempt]], error) {
	out, err := s.Store.Attempts(ctx, projectOf(ctx).ID, in.Engine, in.TaskID, in.page())
	return &reply[store.Slice[store.Attempt]]{out}, pageError(err)
}

type eventList struct {
	PageQuery

	Engine string `query:"engine" needed:"true" maxLength:"100" doc:"of the task"`
	TaskID string `query:"task_id" needed:"true" maxLength:"1000"`
}

func (s *Server) listEvents(ctx context.Context, in *eventList) (*reply[store.Slice[store.Event]], error) {
	for name, value := range map[string]string{"engine": in.Engine, "task_id": in.TaskID} {
		if value == "" {
			return nil, invalidFields("validation_failed", fieldError{"query." + name, "missing", "is required"})
		}
	}
	out, err := s.Store.Events(ctx, projectOf(ctx).ID, in.Engine, in.TaskID, in.page())
	return &reply[store.Slice[store.Event]]{out}, pageError(err)
}

type refusedEventList struct {
	PageQuery

	Reason string `query:"reason" maxLength:"100"`
}

func (s *Server) listRefusedEvents(ctx context.Context, in *refusedEventList) (*reply[store.Slice[store.RefusedEvent]], error) {
	out, err := s.Store.RefusedEvents(ctx, projectOf(ctx).ID, in.Reason, in.page())
	return &reply[store.Slice[store.RefusedEvent]]{out}, pageError(err)
}
