package api

import (
	"context"
	"errors"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

func (s *Server) listAgents(ctx context.Context, in *bareQuery) (*rows[store.Agent], error) {
	list, err := s.Store.Agents(ctx, projectOf(ctx).ID, in.page(), store.TimeOf(s.Now()))
	if err != nil {
		return nil, pageError(err)
	}
	return rowsOf(list), nil
}

type newAgent struct {
	Body struct {
		Name string `json:"name" minLength:"1" maxLength:"200"`
	}
}

// mintedAgent is the one answer that holds an agent's secrets.
type mintedAgent struct {
	Agent      store.Agent `json:"agent"`
	Token      string      `json:"token" doc:"Z4J_TOKEN of the agent; shown once, the brain keeps a keyed hash"`
	HMACSecret string      `json:"hmac_secret" doc:"Z4J_HMAC_SECRET of the agent: signs the frames of the project"`
}

func (s *Server) mintAgent(ctx context.Context, in *newAgent) (*reply[mintedAgent], error) {
	name := clean(in.Body.Name)
	if name == "" {
		return nil, invalid("body.name", "must not be empty")
	}
	requestOf(ctx).target = audit.Target{Label: name}
	project := projectOf(ctx)
	token := auth.NewToken()
	a, err := s.Store.MintAgent(ctx, project, name, auth.AgentTokenHash(s.Master, token), s.masters[0].id, byCaller(ctx))
	if errors.Is(err, store.ErrConflict) {
		return nil, conflict("the project has an agent of this name; names of revoked agents are free", "name_taken")
	}
	if err != nil {
		return nil, err
	}
	return &reply[mintedAgent]{mintedAgent{Agent: a, Token: token, HMACSecret: s.SigningSecret(project.ID)}}, nil
}

type agentPath struct {
	AgentID string `path:"agent_id"`
}

// revokeAgent commits first: a connection that is closed may come back at once, and must meet the revocation.
func (s *Server) revokeAgent(ctx context.Context, in *agentPath) (*nothing, error) {
	agent, err := id.Parse(in.AgentID)
	if err != nil {
		return nil, invalid("path.agent_id", "must be a UUID")
	}
	requestOf(ctx).target = audit.Target{ID: agent.String()}
	if err := s.Store.RevokeAgent(ctx, projectOf(ctx), agent, byCaller(ctx)); err != nil {
		return nil, err
	}
	s.Agents.Revoked(agent)
	return &nothing{}, nil
}
