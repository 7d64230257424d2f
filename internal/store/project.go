package store

import (
	"context"
	"reflect"
	"slices"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
)

// Project is a tenant: agents report into it and members see it.
type Project struct {
	ID                    id.ID    `json:"id"`
	Slug                  string   `json:"slug"`
	Name                  string   `json:"name"`
	Description           *string  `json:"description"`
	Environment           string   `json:"environment"`
	Timezone              string   `json:"timezone"`
	IsActive              bool     `json:"is_active"`
	DefaultSchedulerOwner string   `json:"default_scheduler_owner"`
	AllowedSchedulers     []string `json:"allowed_schedulers" nullable:"true"` // null: any
	TaskRetentionDays     *int64   `json:"task_retention_days" doc:"how long its tasks are kept; null: as the installation says"`
	FailedRetentionDays   *int64   `json:"failed_retention_days" doc:"of failed, rejected and lost tasks, where longer"`
	EventRetentionDays    *int64   `json:"event_retention_days" doc:"of events, where shorter"`
	HoldSince             *Time    `json:"hold_since" doc:"of a legal hold: nothing of the project is deleted while it stands"`
	HoldReason            *string  `json:"hold_reason"`
	CreatedAt             Time     `json:"created_at"`
	UpdatedAt             Time     `json:"updated_at"`
}

const projectColumns = `projects.id, slug, name, description, environment, projects.timezone, projects.is_active, default_scheduler_owner, allowed_schedulers, ` +
	`task_retention_days, failed_retention_days, event_retention_days, hold_since, hold_reason, projects.created_at, projects.updated_at`

func (p *Project) fields() []any {
	return []any{
		&p.ID, &p.Slug, &p.Name, &p.Description, &p.Environment, &p.Timezone, &p.IsActive, &p.DefaultSchedulerOwner,
		parsedJSON{&p.AllowedSchedulers},
		&p.TaskRetentionDays, &p.FailedRetentionDays, &p.EventRetentionDays, &p.HoldSince, &p.HoldReason,
		&p.CreatedAt, &p.UpdatedAt,
	}
}

// Audited is how entries name the project.
func (p *Project) Audited() audit.Project { return audit.Project{ID: p.ID.String(), Label: p.Slug} }

var namedProjects = listing{tag: 'j', columns: "name{C}, projects.id", kinds: "si"}

// Sight is who looks for projects: every way to one goes through it, so that an API key which is bound to a project finds
// no other, whatever its owner sees.
type Sight struct {
	User id.ID
	All  bool    // a global administrator's: no membership is asked for
	Only id.Null // the one project that there is; zero: no such limit
}

// bound makes w name what lies within the limit of who looks.
func (w *where) bound(who Sight) {
	if !who.Only.IsZero() {
		w.and("projects.id = ?", who.Only.ID)
	}
}

// visible makes w name the active projects that who sees: those of memberships, or, with All, every one.
func (w *where) visible(who Sight) {
	w.and("projects.is_active")
	w.bound(who)
	if !who.All {
		w.and("EXISTS (SELECT 1 FROM memberships m WHERE m.project_id = projects.id AND m.user_id = ?)", who.User)
	}
}

// ProjectPage lists the active projects that who sees, by name.
func (s *Store) ProjectPage(ctx context.Context, who Sight, p Page) (Slice[Project], error) {
	q, err := namedProjects.page(p)
	if err != nil {
		return Slice[Project]{}, err
	}
	q.visible(who)
	list, err := readPage(ctx, s, q, `SELECT `+projectColumns+` FROM projects`, (*Project).fields, func(p *Project) []any { return []any{p.Name, p.ID} })
	return list, wrap("list projects", err)
}

// Projects returns what ProjectPage lists, all of it: sums over a part would be wrong without saying so.
func (s *Store) Projects(ctx context.Context, who Sight) ([]Project, error) {
	w := where{}
	w.visible(who)
	rows, err := s.read.QueryContext(ctx, s.sql(`SELECT `+projectColumns+` FROM projects`+w.sql.String()+namedProjects.order(false)), w.args...)
	list, err := collect(rows, err, (*Project).fields)
	return list, wrap("all projects", err)
}

// ProjectOf returns the project of a slug, active or not, and the role that who has in it as a member, "" for none.
// ErrNotFound says that there is no such project, or that it is beyond the limit of who.
func (s *Store) ProjectOf(ctx context.Context, slug string, who Sight) (p Project, role string, err error) {
	var w where
	user := w.arg(who.User)
	w.and("slug = ?", slug)
	w.bound(who)
	err = s.read.QueryRowContext(ctx, `SELECT `+projectColumns+`, coalesce((SELECT role FROM memberships m WHERE m.project_id = projects.id AND m.user_id = `+user+`), '')
		FROM projects`+w.sql.String(), w.args...).Scan(append(p.fields(), &role)...)
	return p, role, wrap("project", err)
}

// CreateProject makes p, whose id and times are given here; ErrConflict says that its slug is taken.
func (s *Store) CreateProject(ctx context.Context, p Project, by By) (out Project, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		if out, err = tx.createProject(ctx, p); err != nil {
			return err
		}
		tx.Record(by.entry(audit.ProjectCreated, out.Audited(), audit.Target{ID: out.ID.String(), Label: out.Slug},
			map[string]any{"slug": out.Slug, "environment": out.Environment}))
		return nil
	})
	return out, err
}

func (tx *Tx) createProject(ctx context.Context, p Project) (Project, error) {
	var out Project
	err := tx.QueryRowContext(ctx, `
		INSERT INTO projects (id, slug, name, description, environment, timezone, default_scheduler_owner, allowed_schedulers,
			task_retention_days, failed_retention_days, event_retention_days, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12) RETURNING `+projectColumns,
		id.New(tx.now.Time), p.Slug, p.Name, p.Description, p.Environment, p.Timezone, p.DefaultSchedulerOwner, listOrNull(p.AllowedSchedulers),
		p.TaskRetentionDays, p.FailedRetentionDays, p.EventRetentionDays, tx.now).
		Scan(out.fields()...)
	return out, wrap("create project", err)
}

// ChangeProject reads the project of a slug, lets change alter it, writes and records it. ErrNotFound is ProjectOf's;
// ErrConflict says that a new slug is taken; an error of change is returned as it is.
func (s *Store) ChangeProject(ctx context.Context, slug string, who Sight, change func(*Project) error, by By) (out Project, err error) {
	var w where
	w.and("slug = ?", slug)
	w.bound(who)
	err = s.Update(ctx, func(tx *Tx) error {
		var p Project
		if err := tx.QueryRowContext(ctx, `SELECT `+projectColumns+` FROM projects`+w.sql.String()+s.dialect.forUpdate, w.args...).Scan(p.fields()...); err != nil {
			return wrap("change project", err)
		}
		was := p
		was.AllowedSchedulers = slices.Clone(p.AllowedSchedulers) // change may write into the list
		if err := change(&p); err != nil {
			return err
		}
		err = tx.QueryRowContext(ctx, `UPDATE projects SET slug = $1, name = $2, description = $3, environment = $4, timezone = $5,
			default_scheduler_owner = $6, allowed_schedulers = $7, task_retention_days = $8, failed_retention_days = $9,
			event_retention_days = $10, updated_at = $11 WHERE id = $12 RETURNING `+projectColumns,
			p.Slug, p.Name, p.Description, p.Environment, p.Timezone, p.DefaultSchedulerOwner, listOrNull(p.AllowedSchedulers),
			p.TaskRetentionDays, p.FailedRetentionDays, p.EventRetentionDays, tx.now, p.ID).
			Scan(out.fields()...)
		if err != nil {
			return wrap("change project", err)
		}
		tx.Record(by.entry(audit.ProjectChanged, out.Audited(), audit.Target{ID: out.ID.String(), Label: out.Slug},
			map[string]any{"slug": out.Slug, "previous_slug": slug, "environment": out.Environment, "changes": projectChanges(&was, &out)}))
		return nil
	})
	return out, err
}

// projectChanges says what an operator changed: each field by its name in the API, with what it was and what it is.
func projectChanges(was, is *Project) map[string]any {
	return changesOf([]change{
		{"slug", was.Slug, is.Slug},
		{"name", was.Name, is.Name},
		{"description", textOrNil(was.Description), textOrNil(is.Description)},
		{"environment", was.Environment, is.Environment},
		{"timezone", was.Timezone, is.Timezone},
		{"default_scheduler_owner", was.DefaultSchedulerOwner, is.DefaultSchedulerOwner},
		{"allowed_schedulers", listOrNil(was.AllowedSchedulers), listOrNil(is.AllowedSchedulers)},
		{"task_retention_days", daysOrNil(was.TaskRetentionDays), daysOrNil(is.TaskRetentionDays)},
		{"failed_retention_days", daysOrNil(was.FailedRetentionDays), daysOrNil(is.FailedRetentionDays)},
		{"event_retention_days", daysOrNil(was.EventRetentionDays), daysOrNil(is.EventRetentionDays)},
	})
}

// change is a field by its name in the API, with what it was and what it is.
type change struct {
	name     string
	from, to any
}

// changesOf is the detail "changes" of an entry: the fields that differ.
func changesOf(fields []change) map[string]any {
	changes := map[string]any{}
	for _, f := range fields {
		if !reflect.DeepEqual(f.from, f.to) {
			changes[f.name] = map[string]any{"old": f.from, "new": f.to}
		}
	}
	return changes
}

func textOrNil(text *string) any {
	if text == nil {
		return nil
	}
	return *text
}

func daysOrNil(days *int64) any {
	if days == nil {
		return nil
	}
	return *days
}

// listOrNil tells "any" from "none" in an entry.
func listOrNil(list []string) any {
	if list == nil {
		return nil
	}
	return list
}

func listOrNull(list []string) any {
	if list == nil {
		return nil
	}
	return jsonList(list)
}
