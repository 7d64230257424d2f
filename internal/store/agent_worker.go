package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/z4j-go/z4j/internal/id"
)

// OnlineFor is how long a process counts as online after its last sign of life: three heartbeats.
const OnlineFor = 30 * time.Second

// States of agents and of their processes.
const (
	Online  = "online"
	Offline = "offline"
	Unknown = "unknown" // an agent that never connected
)

// Slot is the place of one process of an agent: at most one connection holds it. Processes that name no worker id
// share a slot of their own, which no worker id can be.
type Slot struct {
	Project, Agent id.ID
	WorkerID       string
	Named          bool // hello had a worker id
}

func (a Slot) compare(b Slot) int {
	return cmp.Or(slices.Compare(a.Project[:], b.Project[:]), slices.Compare(a.Agent[:], b.Agent[:]), boolCompare(a.Named, b.Named),
		cmp.Compare(a.WorkerID, b.WorkerID))
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// SlotConnect is a connection that takes its slot, and what its hello said. Texts must be free of U+0000.
type SlotConnect struct {
	Slot
	Session string // the connection's session id
	At      Time   // of receipt

	SecretID string // of the master secret that token and signatures are of; "" leaves what is known

	Role, Framework string
	PID             *int64
	Started         *Time

	ProtocolVersion string
	AgentVersion    string // "" for unknown: the known one stays
	Engines         []string
	Schedulers      []string
	Capabilities    map[string][]string
	HostName        string
}

// SlotEnd is the end of a connection.
type SlotEnd struct {
	Slot
	Session string
	At      Time
	Seen    Time   // receipt of its last frame; the zero time leaves what is known
	Status  []byte // newest agent_status as JSON; nil for none since the last touch
}

// SlotTouch says that a connection showed life.
type SlotTouch struct {
	Slot
	Session string
	Seen    Time   // receipt of its newest frame
	Status  []byte // newest agent_status as JSON; nil for none since the last touch
}

// SlotLoss says why a connection that showed life no longer holds its slot.
type SlotLoss int

// What TouchSlots found of a slot.
const (
	SlotHeld    SlotLoss = iota
	SlotTaken            // a newer connection, perhaps at another brain, holds it
	SlotRevoked          // its agent is revoked, or its project inactive or gone
)

// AgentWorker is one process of an agent.
type AgentWorker struct {
	ID            id.ID           `json:"id"`
	Agent         id.ID           `json:"agent_id"`
	Project       id.ID           `json:"project_id"`
	WorkerID      *string         `json:"worker_id"`
	Role          *string         `json:"role"`
	Framework     *string         `json:"framework"`
	PID           *int64          `json:"pid"`
	StartedAt     *Time           `json:"started_at"`
	State         string          `json:"state"`
	LastSeenAt    Time            `json:"last_seen_at"`
	LastConnectAt Time            `json:"last_connect_at"`
	Status        json.RawMessage `json:"status"` // its newest agent_status; null for none
	CreatedAt     Time            `json:"created_at"`
	UpdatedAt     Time            `json:"updated_at"`
}

const agentWorkerColumns = `id, agent_id, project_id, CASE WHEN has_worker_id THEN worker_id END, role, framework, pid, started_at,
	CASE WHEN state = 'online' AND last_seen_at >= $2 THEN 'online' ELSE 'offline' END, last_seen_at, last_connect_at, status, created_at, updated_at`

func (w *AgentWorker) fields() []any {
	return []any{
		&w.ID, &w.Agent, &w.Project, &w.WorkerID, &w.Role, &w.Framework, &w.PID, &w.StartedAt, &w.State, &w.LastSeenAt, &w.LastConnectAt,
		(*nullableJSON)(&w.Status), &w.CreatedAt, &w.UpdatedAt,
	}
}

// nullableJSON scans a nullable text of JSON.
type nullableJSON json.RawMessage

// Scan reads what either database gives.
func (j *nullableJSON) Scan(src any) error {
	var text sql.NullString
	if err := text.Scan(src); err != nil {
		return err
	}
	*j = nil
	if text.Valid {
		*j = nullableJSON(text.String)
	}
	return nil
}

// AgentPresence is what its slots say of an agent.
type AgentPresence struct {
	State      string
	LastSeenAt Time
	Online     int // processes online now
}

// ConnectSlots gives each connection its slot, keeps what its hello said of the agent, and answers per connection
// whether it was taken: false if the agent is revoked or its project not active. It is one transaction, so that many
// agents that come back at once cost one commit.
func (s *Store) ConnectSlots(ctx context.Context, connects []SlotConnect) ([]bool, error) {
	taken := make([]bool, len(connects))
	order := make([]int, len(connects)) // by slot: two brains lock rows in the same order
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return connects[a].compare(connects[b].Slot) })
	err := s.transact(ctx, func(tx *Tx) error {
		agent, err := tx.PrepareContext(ctx, updateGreetedAgent)
		if err != nil {
			return err
		}
		defer agent.Close()
		slot, err := tx.PrepareContext(ctx, upsertSlot)
		if err != nil {
			return err
		}
		defer slot.Close()
		for _, i := range order {
			if taken[i], err = connectSlot(ctx, agent, slot, &connects[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return taken, wrap("connect slots", err)
}

const (
	updateGreetedAgent = `
		UPDATE agents SET protocol_version = $1, framework_adapter = $2, engine_adapters = $3, scheduler_adapters = $4, capabilities = $5,
			host_name = coalesce($6, host_name), agent_version = coalesce($7, agent_version), last_connect_at = $8,
			last_seen_at = CASE WHEN last_seen_at > $8 THEN last_seen_at ELSE $8 END, secret_id = coalesce($11, secret_id)
		WHERE id = $9 AND project_id = $10 AND revoked_at IS NULL
			AND EXISTS (SELECT 1 FROM projects WHERE projects.id = agents.project_id AND is_active)`
	upsertSlot = `
		INSERT INTO agent_workers (project_id, agent_id, worker_id, has_worker_id, id, session_id, role, framework, pid, started_at, state,
			last_seen_at, last_connect_at, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'online', $11, $11, $11, $11)
		ON CONFLICT (project_id, agent_id, has_worker_id, worker_id) DO UPDATE SET session_id = excluded.session_id, role = excluded.role,
			framework = excluded.framework, pid = excluded.pid, started_at = excluded.started_at, state = 'online',
			last_seen_at = CASE WHEN agent_workers.last_seen_at > excluded.last_seen_at THEN agent_workers.last_seen_at ELSE excluded.last_seen_at END,
			last_connect_at = excluded.last_connect_at, updated_at = excluded.updated_at`
)

func connectSlot(ctx context.Context, agent, slot *sql.Stmt, c *SlotConnect) (bool, error) {
	res, err := agent.ExecContext(ctx, c.ProtocolVersion, cmp.Or(c.Framework, "unknown"), jsonList(c.Engines), jsonList(c.Schedulers),
		jsonLists(c.Capabilities), textOrNull(c.HostName), textOrNull(c.AgentVersion), c.At, c.Agent, c.Project, textOrNull(c.SecretID))
	if err != nil {
		return false, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	_, err = slot.ExecContext(ctx, c.Project, c.Agent, c.WorkerID, c.Named, id.New(c.At.Time), c.Session, textOrNull(c.Role),
		textOrNull(c.Framework), c.PID, c.Started, c.At)
	return err == nil, err
}

// DisconnectSlots marks slots offline whose connections ended. A slot that a newer connection took meanwhile stays as
// it is.
func (s *Store) DisconnectSlots(ctx context.Context, ends []SlotEnd) error {
	ends = slices.Clone(ends)
	slices.SortFunc(ends, func(a, b SlotEnd) int { return a.compare(b.Slot) })
	err := s.transact(ctx, func(tx *Tx) error {
		end, err := tx.PrepareContext(ctx, `
			UPDATE agent_workers SET state = 'offline', updated_at = $1,
				last_seen_at = CASE WHEN last_seen_at > $2 THEN last_seen_at ELSE $2 END, status = coalesce($3, status)
			WHERE project_id = $4 AND agent_id = $5 AND has_worker_id = $6 AND worker_id = $7 AND session_id = $8 AND state = 'online'`)
		if err != nil {
			return err
		}
		defer end.Close()
		for _, e := range ends {
			if _, err := end.ExecContext(ctx, e.At, e.Seen, textOrNull(string(e.Status)), e.Project, e.Agent, e.Named, e.WorkerID, e.Session); err != nil {
				return err
			}
		}
		return nil
	})
	return wrap("disconnect slots", err)
}

// TouchSlots writes down when connections last showed life, never moving a time back, and says of each whether it still
// holds its slot.
func (s *Store) TouchSlots(ctx context.Context, touches []SlotTouch) ([]SlotLoss, error) {
	if len(touches) == 0 {
		return nil, nil
	}
	agents := map[id.ID]Time{}
	for i := range touches {
		if seen := touches[i].Seen; agents[touches[i].Agent].Before(seen.Time) {
			agents[touches[i].Agent] = seen
		}
	}
	var held map[string]bool
	err := s.transact(ctx, func(tx *Tx) (err error) {
		if s.pool == nil {
			held, err = tx.touchSQLite(ctx, touches, agents)
		} else {
			held, err = tx.touchPostgres(ctx, touches, agents)
		}
		return err
	})
	if err != nil {
		return nil, wrap("touch slots", err)
	}
	gone, err := s.goneAgents(ctx, agents)
	if err != nil {
		return nil, err
	}
	losses := make([]SlotLoss, len(touches))
	for i := range touches {
		switch {
		case gone[touches[i].Agent]:
			losses[i] = SlotRevoked
		case !held[touches[i].Session]:
			losses[i] = SlotTaken
		}
	}
	return losses, nil
}

// goneAgents returns those of agents that may not be connected.
func (s *Store) goneAgents(ctx context.Context, agents map[id.ID]Time) (map[id.ID]bool, error) {
	gone := make(map[id.ID]bool, len(agents))
	args := make([]any, 0, len(agents))
	for a := range agents {
		gone[a] = true
		args = append(args, a)
	}
	for chunk := range slices.Chunk(args, 500) {
		var list strings.Builder
		for i := range chunk {
			list.WriteString(", $" + strconv.Itoa(i+1))
		}
		rows, err := s.read.QueryContext(ctx, `SELECT agents.id FROM agents JOIN projects ON projects.id = agents.project_id
			WHERE revoked_at IS NULL AND is_active AND agents.id IN (`+list.String()[2:]+`)`, chunk...)
		live, err := collect(rows, err, func(u *id.ID) []any { return []any{u} })
		if err != nil {
			return nil, wrap("look for revoked agents", err)
		}
		for _, a := range live {
			delete(gone, a)
		}
	}
	return gone, nil
}

// AgentWorkers returns a project's agent processes, those online at now first, then the freshest; state "" is any.
func (s *Store) AgentWorkers(ctx context.Context, project id.ID, state string, now Time, limit int) ([]AgentWorker, error) {
	cut := TimeOf(now.Add(-OnlineFor))
	condition := map[string]string{
		Online:  ` AND state = 'online' AND last_seen_at >= $2`,
		Offline: ` AND NOT (state = 'online' AND last_seen_at >= $2)`,
	}[state]
	rows, err := s.read.QueryContext(ctx, `SELECT `+agentWorkerColumns+` FROM agent_workers WHERE project_id = $1`+condition+`
		ORDER BY CASE WHEN state = 'online' AND last_seen_at >= $2 THEN 0 ELSE 1 END, last_seen_at DESC, id LIMIT $3`, project, cut, limit)
	list, err := collect(rows, err, (*AgentWorker).fields)
	return list, wrap("list agent workers", err)
}

// AgentPresences returns, for the agents of a project that ever connected, what their slots say at now. An agent is
// online while one of its slots is; an agent that is not in the map never connected.
func (s *Store) AgentPresences(ctx context.Context, project id.ID, now Time) (map[id.ID]AgentPresence, error) {
	type row struct {
		agent id.ID
		AgentPresence
	}
	rows, err := s.read.QueryContext(ctx, `
		SELECT agent_id, max(last_seen_at), count(*) FILTER (WHERE state = 'online' AND last_seen_at >= $2)
		FROM agent_workers WHERE project_id = $1 GROUP BY agent_id`, project, TimeOf(now.Add(-OnlineFor)))
	list, err := collect(rows, err, func(r *row) []any { return []any{&r.agent, &r.LastSeenAt, &r.Online} })
	if err != nil {
		return nil, wrap("agent presences", err)
	}
	out := make(map[id.ID]AgentPresence, len(list))
	for _, r := range list {
		r.State = Offline
		if r.Online > 0 {
			r.State = Online
		}
		out[r.agent] = r.AgentPresence
	}
	return out, nil
}

// AgentCredential is what a bearer token stands for.
type AgentCredential struct {
	Agent, Project id.ID
	Name           string
	Revoked        bool
	ProjectActive  bool
}

// AgentCredential returns the agent whose token has the given hash, revoked or not, or ErrNotFound.
func (s *Store) AgentCredential(ctx context.Context, hash string) (AgentCredential, error) {
	var c AgentCredential
	err := s.read.QueryRowContext(ctx, `SELECT agents.id, agents.project_id, agents.name, revoked_at IS NOT NULL, is_active
		FROM agents JOIN projects ON projects.id = agents.project_id WHERE token_hash = $1`, hash).
		Scan(&c.Agent, &c.Project, &c.Name, &c.Revoked, &c.ProjectActive)
	return c, wrap("agent credential", err)
}

func textOrNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func jsonList(list []string) string {
	if len(list) == 0 {
		return "[]"
	}
	b, err := json.Marshal(list)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(b)
}

func jsonLists(lists map[string][]string) string {
	if len(lists) == 0 {
		return "{}"
	}
	b, err := json.Marshal(lists)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(b)
}
