package api

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/z4j-go/z4j/internal/store"
)

func (s *Server) listProjects(ctx context.Context, in *bareQuery) (*rows[store.Project], error) {
	list, err := s.Store.ProjectPage(ctx, requestOf(ctx).sight(), in.page())
	if err != nil {
		return nil, pageError(err)
	}
	return rowsOf(list), nil
}

func (s *Server) showProject(ctx context.Context, _ *struct{}) (*reply[store.Project], error) {
	return &reply[store.Project]{projectOf(ctx)}, nil
}

// retired is a field that clients of earlier versions still send. It is taken, whatever it holds, and means nothing.
type retired struct{}

// UnmarshalJSON takes anything.
func (*retired) UnmarshalJSON([]byte) error { return nil }

// Schema permits anything.
func (retired) Schema(huma.Registry) *huma.Schema { return &huma.Schema{} }

type newProject struct {
	Body struct {
		RetentionDays retired `json:"retention_days,omitzero" hidden:"true"`

		Slug                  string   `json:"slug" minLength:"2" maxLength:"63" doc:"3 to 50 lower-case letters, digits and hyphens, none of these at the edge"`
		Name                  string   `json:"name" minLength:"1" maxLength:"200"`
		Description           *string  `json:"description,omitempty" maxLength:"2000" nullable:"true"`
		Environment           string   `json:"environment,omitempty" maxLength:"40" default:"production"`
		Timezone              string   `json:"timezone,omitempty" maxLength:"64" default:"UTC" doc:"IANA name"`
		DefaultSchedulerOwner string   `json:"default_scheduler_owner,omitempty" maxLength:"40" default:"z4j-scheduler"`
		AllowedSchedulers     []string `json:"allowed_schedulers,omitempty" maxItems:"32" nullable:"true" doc:"null: any"`
		TaskRetentionDays     dayCount `json:"task_retention_days,omitzero" doc:"null: as the installation says"`
		FailedRetentionDays   dayCount `json:"failed_retention_days,omitzero" doc:"of failed, rejected and lost tasks, where longer"`
		EventRetentionDays    dayCount `json:"event_retention_days,omitzero" doc:"of events, where shorter"`
	}
}

func (s *Server) createProject(ctx context.Context, in *newProject) (*reply[store.Project], error) {
	b := &in.Body
	p := store.Project{
		Slug: b.Slug, Name: clean(b.Name), Description: trimmed(b.Description), Environment: b.Environment, Timezone: b.Timezone,
		DefaultSchedulerOwner: b.DefaultSchedulerOwner, AllowedSchedulers: b.AllowedSchedulers,
		TaskRetentionDays: b.TaskRetentionDays.days, FailedRetentionDays: b.FailedRetentionDays.days, EventRetentionDays: b.EventRetentionDays.days,
	}
	requestOf(ctx).target.Label = p.Slug
	if err := checkProject(&p); err != nil {
		return nil, err
	}
	p, err := s.Store.CreateProject(ctx, p, byCaller(ctx))
	return &reply[store.Project]{p}, slugTaken(err)
}

func slugTaken(err error) error {
	if errors.Is(err, store.ErrConflict) {
		return conflict("this slug is taken", "slug_taken")
	}
	return err
}

type projectChange struct {
	Body struct {
		RetentionDays retired `json:"retention_days,omitzero" hidden:"true"`

		Slug                  *string    `json:"slug,omitempty" minLength:"2" maxLength:"63" nullable:"true"`
		Name                  *string    `json:"name,omitempty" minLength:"1" maxLength:"200" nullable:"true"`
		Description           *string    `json:"description,omitempty" maxLength:"2000" nullable:"true"`
		Environment           *string    `json:"environment,omitempty" maxLength:"40" nullable:"true"`
		Timezone              *string    `json:"timezone,omitempty" maxLength:"64" nullable:"true"`
		DefaultSchedulerOwner *string    `json:"default_scheduler_owner,omitempty" maxLength:"40" nullable:"true"`
		AllowedSchedulers     schedulers `json:"allowed_schedulers,omitzero" doc:"null removes the limit; absent leaves it"`
		TaskRetentionDays     dayCount   `json:"task_retention_days,omitzero" doc:"null: as the installation says; absent leaves it"`
		FailedRetentionDays   dayCount   `json:"failed_retention_days,omitzero" doc:"of failed, rejected and lost tasks, where longer"`
		EventRetentionDays    dayCount   `json:"event_retention_days,omitzero" doc:"of events, where shorter"`
	}
}

// schedulers is a list that tells null from absent.
type schedulers struct {
	set  bool
	list []string
}

// UnmarshalJSON notes that the field was there.
func (l *schedulers) UnmarshalJSON(b []byte) error {
	l.set = true
	return json.Unmarshal(b, &l.list)
}

// Schema is a list of names or null.
func (l schedulers) Schema(huma.Registry) *huma.Schema {
	most := 32
	return &huma.Schema{Type: huma.TypeArray, Nullable: true, MaxItems: &most, Items: &huma.Schema{Type: huma.TypeString}}
}

func (s *Server) changeProject(ctx context.Context, in *projectChange) (*reply[store.Project], error) {
	q := requestOf(ctx)
	q.target.Label = q.slug
	b := &in.Body
	p, err := s.Store.ChangeProject(ctx, q.slug, q.sight(), func(p *store.Project) error {
		for _, f := range []struct{ to, from *string }{
			{&p.Slug, b.Slug},
			{&p.Environment, b.Environment},
			{&p.Timezone, b.Timezone},
			{&p.DefaultSchedulerOwner, b.DefaultSchedulerOwner},
		} {
			if f.from != nil {
				*f.to = *f.from
			}
		}
		if b.Name != nil {
			p.Name = clean(*b.Name)
		}
		if b.Description != nil {
			p.Description = trimmed(b.Description)
		}
		if b.AllowedSchedulers.set {
			p.AllowedSchedulers = b.AllowedSchedulers.list
		}
		b.TaskRetentionDays.put(&p.TaskRetentionDays)
		b.FailedRetentionDays.put(&p.FailedRetentionDays)
		b.EventRetentionDays.put(&p.EventRetentionDays)
		return checkProject(p)
	}, byCaller(ctx))
	if errors.Is(err, store.ErrNotFound) {
		return nil, q.noProject()
	}
	return &reply[store.Project]{p}, slugTaken(err)
}

var (
	slugForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,48}[a-z0-9]$`)
	nameForm = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9._-]{0,38}[a-z0-9])?$`) // of environments and schedulers
)

func checkProject(p *store.Project) error {
	if !slugForm.MatchString(p.Slug) {
		return conflict("a slug has 3 to 50 lower-case letters, digits and hyphens, and no hyphen at its edges", "bad_slug")
	}
	if p.Name == "" {
		return invalid("body.name", "must not be empty")
	}
	if !nameForm.MatchString(p.Environment) {
		return invalid("body.environment", "must be up to 40 lower-case letters, digits, dots, hyphens and underscores")
	}
	if err := checkTimezone(p.Timezone); err != nil {
		return err
	}
	if !nameForm.MatchString(p.DefaultSchedulerOwner) {
		return invalid("body.default_scheduler_owner", "must be up to 40 lower-case letters, digits, dots, hyphens and underscores")
	}
	for _, name := range p.AllowedSchedulers {
		if !nameForm.MatchString(name) {
			return invalid("body.allowed_schedulers", "must be names of up to 40 lower-case letters, digits, dots, hyphens and underscores")
		}
	}
	if p.AllowedSchedulers != nil && !slices.Contains(p.AllowedSchedulers, p.DefaultSchedulerOwner) {
		return conflict("default_scheduler_owner is not among allowed_schedulers", "owner_not_allowed")
	}
	return nil
}

// clean is trimmed for a text that is always there.
func clean(text string) string {
	if t := trimmed(&text); t != nil {
		return strings.TrimSpace(*t)
	}
	return ""
}
