package store

import (
	"context"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
)

// Membership is an account's role in a project.
type Membership struct {
	ID              id.ID   `json:"id"`
	User            id.ID   `json:"user_id"`
	Project         id.ID   `json:"project_id"`
	UserEmail       string  `json:"user_email"`
	UserDisplayName *string `json:"user_display_name"`
	Role            string  `json:"role"`
	CreatedAt       Time    `json:"created_at"`
}

const membershipColumns = `memberships.id, user_id, project_id, email, display_name, role, memberships.created_at`

func (m *Membership) fields() []any {
	return []any{&m.ID, &m.User, &m.Project, &m.UserEmail, &m.UserDisplayName, &m.Role, &m.CreatedAt}
}

// UserProject is a membership as its own account sees it.
type UserProject struct {
	Project id.ID  `json:"project_id"`
	Slug    string `json:"project_slug"`
	Role    string `json:"role"`
}

var oldestMembers = listing{tag: 'm', columns: "memberships.created_at, memberships.id", kinds: "ti"}

// Memberships lists the members of a project, the oldest first.
func (s *Store) Memberships(ctx context.Context, project id.ID, p Page) (Slice[Membership], error) {
	q, err := oldestMembers.page(p)
	if err != nil {
		return Slice[Membership]{}, err
	}
	q.and("project_id = ?", project)
	list, err := readPage(ctx, s, q, `SELECT `+membershipColumns+` FROM memberships JOIN users ON users.id = user_id`, (*Membership).fields,
		func(m *Membership) []any { return []any{m.CreatedAt, m.ID} })
	return list, wrap("list memberships", err)
}

// UserProjects returns all active projects that an account is a member of, with its roles.
func (s *Store) UserProjects(ctx context.Context, user id.ID) ([]UserProject, error) {
	rows, err := s.read.QueryContext(ctx, s.sql(`SELECT projects.id, slug, role FROM memberships JOIN projects ON projects.id = project_id
		WHERE user_id = $1 AND projects.is_active ORDER BY slug{C}`), user)
	list, err := collect(rows, err, func(p *UserProject) []any { return []any{&p.Project, &p.Slug, &p.Role} })
	return list, wrap("projects of a user", err)
}

// AddMembership makes an active account a member of a project. ErrNotFound says that there is no such account,
// ErrConflict that it is a member already.
func (s *Store) AddMembership(ctx context.Context, project Project, user id.ID, role string, by By) (m Membership, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		if m, err = tx.addMembership(ctx, project.ID, user, role); err != nil {
			return err
		}
		tx.Record(by.entry(audit.MembershipGranted, project.Audited(), audit.Target{ID: m.ID.String(), Label: m.UserEmail, Subject: m.User.String()},
			map[string]any{"role": role, "user_id": m.User}))
		return nil
	})
	return m, err
}

func (tx *Tx) addMembership(ctx context.Context, project, user id.ID, role string) (Membership, error) {
	m := Membership{ID: id.New(tx.now.Time), User: user, Project: project, Role: role, CreatedAt: tx.now}
	err := tx.QueryRowContext(ctx, `SELECT email, display_name FROM users WHERE id = $1 AND is_active`, user).Scan(&m.UserEmail, &m.UserDisplayName)
	if err != nil {
		return Membership{}, wrap("member", err)
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO memberships (id, project_id, user_id, role, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5)`,
		m.ID, project, user, role, tx.now)
	if err != nil {
		return Membership{}, wrap("add membership", err)
	}
	return m, nil
}
