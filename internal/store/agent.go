package store

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
)

// Agent is a name with a token: any number of processes may use it. The token's hash is no field.
type Agent struct {
	ID                id.ID           `json:"id"`
	Project           id.ID           `json:"project_id"`
	Name              string          `json:"name"`
	State             string          `json:"state"` // Online, Offline, Unknown
	ProtocolVersion   string          `json:"protocol_version"`
	FrameworkAdapter  string          `json:"framework_adapter"`
	EngineAdapters    []string        `json:"engine_adapters"`
	SchedulerAdapters []string        `json:"scheduler_adapters"`
	Capabilities      json.RawMessage `json:"capabilities"`
	LastSeenAt        *Time           `json:"last_seen_at"`
	LastConnectAt     *Time           `json:"last_connect_at"`
	CreatedAt         Time            `json:"created_at"`
	IsOutdated        bool            `json:"is_outdated"` // it connected with a protocol that is not today's
	HostName          *string         `json:"host_name"`
	AgentVersion      *string         `json:"agent_version"`
	VersionStatus     *string         `json:"version_status"` // null when the version is not known
}

const agentColumns = `id, project_id, name, protocol_version, framework_adapter, engine_adapters, scheduler_adapters, capabilities, last_seen_at,
	last_connect_at, created_at, host_name, agent_version`

func (a *Agent) fields() []any {
	return []any{
		&a.ID, &a.Project, &a.Name, &a.ProtocolVersion, &a.FrameworkAdapter,
		parsedJSON{&a.EngineAdapters},
		parsedJSON{&a.SchedulerAdapters},
		rawJSON{&a.Capabilities},
		&a.LastSeenAt, &a.LastConnectAt, &a.CreatedAt, &a.HostName, &a.AgentVersion,
	}
}

const agentProtocol = "2" // of today's agents

// settle computes what is not stored, from what the agent's processes say.
func (a *Agent) settle(p AgentPresence) {
	a.State = Unknown
	if p.State != "" {
		a.State = p.State
	}
	if a.LastSeenAt == nil || p.LastSeenAt.After(a.LastSeenAt.Time) {
		if p.State != "" {
			a.LastSeenAt = &p.LastSeenAt
		}
	}
	a.IsOutdated = a.LastConnectAt != nil && a.ProtocolVersion != agentProtocol
	if a.AgentVersion != nil {
		status := versionStatus(*a.AgentVersion)
		a.VersionStatus = &status
	}
}

// The published agents that this brain was tried with.
var (
	oldestAgent = [3]int{1, 4, 0}
	newestAgent = [3]int{1, 13, 0}
)

// versionStatus says how an agent's version stands to those that this brain knows.
func versionStatus(version string) string {
	v, ok := readVersion(version)
	switch {
	case !ok:
		return "unknown"
	case less(v, oldestAgent):
		return "incompatible"
	case less(v, newestAgent):
		return "outdated"
	case less(newestAgent, v):
		return "newer_than_known"
	}
	return "current"
}

// readVersion reads the numbers of 1.13.0, 1.13 and 1.13.0rc1 alike.
func readVersion(text string) (v [3]int, ok bool) {
	for i, part := range strings.SplitN(text, ".", 3) {
		digits := part[:len(part)-len(strings.TrimLeft(part, "0123456789"))]
		n, err := strconv.Atoi(digits)
		if err != nil || i < 2 && digits != part {
			return v, false
		}
		v[i] = n
	}
	return v, strings.Contains(text, ".")
}

func less(a, b [3]int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

var newestAgents = listing{tag: 'g', columns: "created_at, id", kinds: "ti", desc: true}

// Agents lists the agents of a project that are not revoked, the newest first, as they are at now.
func (s *Store) Agents(ctx context.Context, project id.ID, p Page, now Time) (Slice[Agent], error) {
	q, err := newestAgents.page(p)
	if err != nil {
		return Slice[Agent]{}, err
	}
	q.and("project_id = ?", project)
	q.and("revoked_at IS NULL")
	list, err := readPage(ctx, s, q, `SELECT `+agentColumns+` FROM agents`, (*Agent).fields, func(a *Agent) []any { return []any{a.CreatedAt, a.ID} })
	if err != nil {
		return list, wrap("list agents", err)
	}
	presences, err := s.AgentPresences(ctx, project, now)
	if err != nil {
		return list, err
	}
	for i := range list.Items {
		list.Items[i].settle(presences[list.Items[i].ID])
	}
	return list, nil
}

// CountAgents counts the agents of all projects, and those that are not revoked.
func (s *Store) CountAgents(ctx context.Context) (all, live int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT count(*), count(*) FILTER (WHERE revoked_at IS NULL) FROM agents`).Scan(&all, &live)
	return all, live, wrap("count agents", err)
}

// MintAgent makes an agent whose token has the given hash under the master secret of an id; ErrConflict says that its
// name is taken.
func (s *Store) MintAgent(ctx context.Context, project Project, name, tokenHash, secretID string, by By) (a Agent, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		err := tx.QueryRowContext(ctx, `INSERT INTO agents (id, project_id, name, token_hash, secret_id, created_at) VALUES ($1, $2, $3, $4, $5, $6) RETURNING `+agentColumns,
			id.New(tx.now.Time), project.ID, name, tokenHash, textOrNull(secretID), tx.now).Scan(a.fields()...)
		if err != nil {
			return wrap("mint agent", err)
		}
		tx.Record(by.entry(audit.AgentMinted, project.Audited(), audit.Target{ID: a.ID.String(), Label: name}, map[string]any{"name": name}))
		return nil
	})
	a.settle(AgentPresence{})
	return a, err
}

// AgentOf returns an agent that is not revoked by its id or its name, and its project; ErrNotFound says that there is
// none. A project of the zero id is any, but then only an id names an agent.
func (s *Store) AgentOf(ctx context.Context, project id.ID, named string) (a Agent, p Project, err error) {
	var w where
	w.and("revoked_at IS NULL")
	if agent, e := id.Parse(named); e == nil {
		w.and("id = ?", agent)
	} else {
		w.and("name = ?", named)
		w.and("project_id = ?", project)
	}
	if !project.IsZero() {
		w.and("project_id = ?", project)
	}
	err = s.read.QueryRowContext(ctx, `SELECT `+agentColumns+` FROM agents`+w.sql.String(), w.args...).Scan(a.fields()...)
	if err != nil {
		return a, p, wrap("agent", err)
	}
	err = s.read.QueryRowContext(ctx, `SELECT `+projectColumns+` FROM projects WHERE id = $1`, a.Project).Scan(p.fields()...)
	return a, p, wrap("project of an agent", err)
}

const revokeAgent = `UPDATE agents SET revoked_at = $1 WHERE project_id = $2 AND id = $3 AND revoked_at IS NULL RETURNING name`

// RevokeAgent ends an agent's token and frees its name, and tells every brain when that is committed. Its row stays, because its events name it. ErrNotFound says that
// the project has no such agent, or that it is revoked already.
func (s *Store) RevokeAgent(ctx context.Context, project Project, agent id.ID, by By) error {
	return s.Update(ctx, func(tx *Tx) error {
		var name string
		err := tx.QueryRowContext(ctx, revokeAgent, tx.now, project.ID, agent).Scan(&name)
		if err != nil {
			return wrap("revoke agent", err)
		}
		if err := tx.announceRevoked(ctx, agent); err != nil {
			return err
		}
		tx.Record(by.entry(audit.AgentRevoked, project.Audited(), audit.Target{ID: agent.String(), Label: name}, map[string]any{"name": name}))
		return nil
	})
}
