package store

import (
	"context"

	"github.com/z4j-go/z4j/internal/id"
)

// Admitted are those who get in: whom an operator looks through when nobody can tell who was revoked.
type Admitted struct {
	Users  []AdmittedUser  `json:"users"`  // that are active, administrators first
	Agents []AdmittedAgent `json:"agents"` // that are not revoked

	MoreUsers  int64 `json:"more_users"` // that are not listed
	MoreAgents int64 `json:"more_agents"`
}

// AdmittedUser is an account that can log in.
type AdmittedUser struct {
	Email       string `json:"email"`
	Admin       bool   `json:"is_admin"`
	Projects    int64  `json:"projects"` // that it is a member of
	LastLoginAt *Time  `json:"last_login_at"`
}

// AdmittedAgent is an agent whose token is taken.
type AdmittedAgent struct {
	ID         id.ID  `json:"id"`
	Project    string `json:"project"`
	Name       string `json:"name"`
	LastSeenAt *Time  `json:"last_seen_at"`
}

// Admitted lists who gets in, at most limit of each kind.
func (s *Store) Admitted(ctx context.Context, limit int) (a Admitted, err error) {
	rows, err := s.read.QueryContext(ctx, s.sql(`SELECT email, is_admin, (SELECT count(*) FROM memberships WHERE user_id = users.id), last_login_at
		FROM users WHERE is_active ORDER BY is_admin DESC, email {C} LIMIT $1`), limit)
	a.Users, err = collect(rows, err, func(u *AdmittedUser) []any { return []any{&u.Email, &u.Admin, &u.Projects, &u.LastLoginAt} })
	if err != nil {
		return a, wrap("list who can log in", err)
	}
	rows, err = s.read.QueryContext(ctx, s.sql(`SELECT agents.id, slug, agents.name, last_seen_at FROM agents JOIN projects ON projects.id = project_id
		WHERE revoked_at IS NULL ORDER BY slug {C}, agents.name {C} LIMIT $1`), limit)
	a.Agents, err = collect(rows, err, func(g *AdmittedAgent) []any { return []any{&g.ID, &g.Project, &g.Name, &g.LastSeenAt} })
	if err != nil {
		return a, wrap("list agents that get in", err)
	}
	err = s.read.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM users WHERE is_active), (SELECT count(*) FROM agents WHERE revoked_at IS NULL)`).Scan(&a.MoreUsers, &a.MoreAgents)
	a.MoreUsers, a.MoreAgents = a.MoreUsers-int64(len(a.Users)), a.MoreAgents-int64(len(a.Agents))
	return a, wrap("count who gets in", err)
}
