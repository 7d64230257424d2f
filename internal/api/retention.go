package api

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/danielgtaylor/huma/v2"

	"github.com/z4j-go/z4j/internal/store"
)

// retention is what the installation says of what is deleted in time.
type retention struct {
	Hold      *store.RetentionHold `json:"hold" doc:"legal hold of the whole installation: nothing is deleted while it stands"`
	LastSweep *store.Time          `json:"last_sweep" doc:"when a sweep last came to its end; null: none has"`
}

func (s *Server) showRetention(ctx context.Context, _ *struct{}) (*reply[retention], error) {
	hold, err := s.Store.InstallationHold(ctx)
	if err != nil {
		return nil, err
	}
	out := retention{Hold: hold}
	last, err := s.Store.LastSweep(ctx)
	if err == nil {
		out.LastSweep = new(store.TimeOf(last))
	} else if !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	return &reply[retention]{out}, nil
}

type newHold struct {
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"500" doc:"shown in the project and recorded"`
	}
}

func (in *newHold) reason() (string, error) {
	if reason := clean(in.Body.Reason); reason != "" {
		return reason, nil
	}
	return "", invalid("body.reason", "must not be empty")
}

func (s *Server) holdProject(ctx context.Context, in *newHold) (*reply[store.Project], error) {
	q := requestOf(ctx)
	q.target.Label = q.slug
	reason, err := in.reason()
	if err != nil {
		return nil, err
	}
	p, err := s.Store.HoldProject(ctx, q.slug, reason, byCaller(ctx))
	return &reply[store.Project]{p}, holdError(err)
}

func (s *Server) releaseProject(ctx context.Context, _ *struct{}) (*reply[store.Project], error) {
	q := requestOf(ctx)
	q.target.Label = q.slug
	p, err := s.Store.ReleaseProject(ctx, q.slug, "", byCaller(ctx))
	return &reply[store.Project]{p}, holdError(err)
}

func (s *Server) holdInstallation(ctx context.Context, in *newHold) (*reply[store.RetentionHold], error) {
	reason, err := in.reason()
	if err != nil {
		return nil, err
	}
	h, err := s.Store.HoldInstallation(ctx, reason, byCaller(ctx))
	return &reply[store.RetentionHold]{h}, holdError(err)
}

func (s *Server) releaseInstallation(ctx context.Context, _ *struct{}) (*nothing, error) {
	return &nothing{}, holdError(s.Store.ReleaseInstallation(ctx, "", byCaller(ctx)))
}

func holdError(err error) error {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return noProject()
	case errors.Is(err, store.ErrLegalHoldStands):
		return conflict("a legal hold stands already", "already_held")
	case errors.Is(err, store.ErrNoLegalHold):
		return conflict("no legal hold stands", "not_held")
	}
	return err
}

const mostDays = 3650 // ten years, as in the settings

// dayCount is a number of days that tells null from absent.
type dayCount struct {
	set  bool
	days *int64
}

// UnmarshalJSON notes that the field was there.
func (d *dayCount) UnmarshalJSON(b []byte) error {
	d.set = true
	return json.Unmarshal(b, &d.days)
}

// Schema is a whole number or null.
func (d dayCount) Schema(huma.Registry) *huma.Schema {
	least, most := 1.0, float64(mostDays)
	return &huma.Schema{Type: huma.TypeInteger, Nullable: true, Minimum: &least, Maximum: &most}
}

// put puts the number into a project's field, if it was given.
func (d dayCount) put(to **int64) {
	if d.set {
		*to = d.days
	}
}
