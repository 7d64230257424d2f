package api

import (
	"context"
	"errors"

	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

func (s *Server) listMemberships(ctx context.Context, in *bareQuery) (*rows[store.Membership], error) {
	list, err := s.Store.Memberships(ctx, projectOf(ctx).ID, in.page())
	if err != nil {
		return nil, pageError(err)
	}
	return rowsOf(list), nil
}

type newMembership struct {
	Body struct {
		UserID string `json:"user_id" maxLength:"64"`
		Role   string `json:"role" maxLength:"20" doc:"viewer, auditor, operator or admin"`
	}
}

func (s *Server) addMembership(ctx context.Context, in *newMembership) (*reply[store.Membership], error) {
	user, err := id.Parse(in.Body.UserID)
	if err != nil {
		return nil, invalid("body.user_id", "must be a UUID")
	}
	requestOf(ctx).target.Subject = user.String()
	role, ok := auth.ProjectRole(in.Body.Role)
	if !ok {
		return nil, conflict("there is no such role; there are viewer, auditor, operator and admin", "unknown_role")
	}
	m, err := s.Store.AddMembership(ctx, projectOf(ctx), user, string(role), byCaller(ctx))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, notFound("there is no such account, or it is not active")
	case errors.Is(err, store.ErrConflict):
		return nil, conflict("this account is a member of the project already", "already_member")
	}
	return &reply[store.Membership]{m}, err
}
