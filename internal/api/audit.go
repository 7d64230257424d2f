package api

import (
	"context"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

type auditList struct {
	PageQuery

	ActionPrefix string `query:"action_prefix" maxLength:"80" doc:"what the action begins with, such as auth."`
	Action       string `query:"action" maxLength:"80"`
	Outcome      string `query:"outcome" maxLength:"20"`
	UserID       string `query:"user_id" doc:"the account that acted"`
	TargetID     string `query:"target_id" maxLength:"200"`
	Since        string `query:"since" doc:"at or after"`
	Until        string `query:"until" doc:"before"`
}

func (s *Server) listAudit(ctx context.Context, in *auditList) (*reply[store.Slice[store.AuditEntry]], error) {
	project := projectOf(ctx).ID
	f := store.AuditFilter{
		Project: &project, Prefix: in.ActionPrefix, Action: in.Action, Outcome: in.Outcome, Actor: in.UserID, Target: in.TargetID, Page: in.page(),
	}
	if in.UserID != "" {
		user, err := id.Parse(in.UserID)
		if err != nil {
			return nil, invalid("query.user_id", "must be a UUID")
		}
		f.Actor = user.String()
	}
	var err error
	if f.From, err = readTime("since", in.Since); err != nil {
		return nil, err
	}
	if f.To, err = readTime("until", in.Until); err != nil {
		return nil, err
	}
	out, err := s.Store.AuditLog(ctx, f)
	return &reply[store.Slice[store.AuditEntry]]{out}, pageError(err)
}
