package api

import (
	"context"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

type workerList struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"5000" default:"500" doc:"above 500 is cut to 500"`
	Cursor string `query:"cursor" maxLength:"2000" doc:"X-Next-Cursor or X-Prev-Cursor of an earlier answer"`
	State  string `query:"state" enum:"online,offline"`
	Engine string `query:"engine" maxLength:"100"`
	Search string `query:"search" maxLength:"200" doc:"contained in the name or the host's name"`
	Sort   string `query:"sort" enum:"last_heartbeat,name" default:"last_heartbeat" doc:"by name no row moves while pages are read"`
}

func (s *Server) listWorkers(ctx context.Context, in *workerList) (*rows[store.Worker], error) {
	out, err := s.Store.Workers(ctx, store.WorkerFilter{
		Project: projectOf(ctx).ID, Engine: in.Engine, State: in.State, Search: in.Search, ByName: in.Sort == "name",
		Page: store.Page{Limit: in.Limit, Cursor: in.Cursor},
	}, store.TimeOf(s.Now()))
	if err != nil {
		return nil, pageError(err)
	}
	return rowsOf(out), nil
}

type workerPath struct {
	WorkerID string `path:"worker_id"`
}

func (s *Server) showWorker(ctx context.Context, in *workerPath) (*reply[store.WorkerDetail], error) {
	worker, err := id.Parse(in.WorkerID)
	if err != nil {
		return nil, invalid("path.worker_id", "must be a UUID")
	}
	w, err := s.Store.Worker(ctx, projectOf(ctx).ID, worker, store.TimeOf(s.Now()))
	return &reply[store.WorkerDetail]{w}, err
}

type queueList struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"5000" default:"500" doc:"above 500 is cut to 500"`
	Cursor string `query:"cursor" maxLength:"2000" doc:"X-Next-Cursor or X-Prev-Cursor of an earlier answer"`
}

func (s *Server) listQueues(ctx context.Context, in *queueList) (*rows[store.Queue], error) {
	out, err := s.Store.Queues(ctx, projectOf(ctx).ID, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, pageError(err)
	}
	return rowsOf(out), nil
}

type agentWorkerList struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"5000" default:"200" doc:"above 500 is cut to 500"`
	Cursor string `query:"cursor" maxLength:"2000" doc:"X-Next-Cursor or X-Prev-Cursor of an earlier answer"`
	State  string `query:"state" enum:"online,offline"`
	Role   string `query:"role" enum:"web,task,scheduler,beat,other"`
}

func (s *Server) listAgentWorkers(ctx context.Context, in *agentWorkerList) (*rows[store.AgentWorker], error) {
	out, err := s.Store.AgentWorkerPage(ctx, store.AgentWorkerFilter{
		Project: projectOf(ctx).ID, State: in.State, Role: in.Role, Page: store.Page{Limit: in.Limit, Cursor: in.Cursor},
	}, store.TimeOf(s.Now()))
	if err != nil {
		return nil, pageError(err)
	}
	return rowsOf(out), nil
}
