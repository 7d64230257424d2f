package api

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/z4j-go/z4j/internal/store"
)

type userList struct {
	Limit  int `query:"limit" minimum:"1" maximum:"5000" default:"100" doc:"above 500 is cut to 500"`
	Offset int `query:"offset" minimum:"0" maximum:"1000000" default:"0"`
}

func (s *Server) listUsers(ctx context.Context, in *userList) (*reply[[]store.User], error) {
	list, err := s.Store.Users(ctx, min(in.Limit, store.MaxPage), in.Offset)
	return &reply[[]store.User]{list}, err
}

type newUser struct {
	Body struct {
		Email       string  `json:"email" minLength:"3" maxLength:"320"`
		FirstName   *string `json:"first_name,omitempty" maxLength:"100" nullable:"true"`
		LastName    *string `json:"last_name,omitempty" maxLength:"100" nullable:"true"`
		DisplayName *string `json:"display_name,omitempty" maxLength:"200" nullable:"true"`
		Password    string  `json:"password" minLength:"1" maxLength:"256" doc:"see /auth/policy"`
		IsAdmin     bool    `json:"is_admin,omitempty" doc:"global administrator"`
		Timezone    string  `json:"timezone,omitempty" maxLength:"64" default:"UTC" doc:"IANA name"`
	}
}

func (s *Server) createUser(ctx context.Context, in *newUser) (*reply[store.User], error) {
	email, err := readEmail("body.email", in.Body.Email)
	if err != nil {
		return nil, err
	}
	requestOf(ctx).target.Label = email
	if err := checkTimezone(in.Body.Timezone); err != nil {
		return nil, err
	}
	hash, err := s.newPassword(ctx, "body.password", in.Body.Password)
	if err != nil {
		return nil, err
	}
	u, err := s.Store.CreateUser(ctx, store.NewUser{
		Email: email, PasswordHash: hash, FirstName: trimmed(in.Body.FirstName), LastName: trimmed(in.Body.LastName),
		DisplayName: trimmed(in.Body.DisplayName), IsAdmin: in.Body.IsAdmin, Timezone: in.Body.Timezone,
	}, byCaller(ctx))
	if errors.Is(err, store.ErrConflict) {
		return nil, conflict("this e-mail address has an account already", "email_in_use")
	}
	return &reply[store.User]{u}, err
}

// checkTimezone takes the names of the IANA database; "Local" is some machine's.
func checkTimezone(name string) error {
	if _, err := time.LoadLocation(name); err != nil || name == "" || name == "Local" {
		return invalid("body.timezone", "must be the name of a time zone like Europe/Berlin")
	}
	return nil
}

// trimmed takes space off both ends; what is empty then is absent. U+0000, which no database keeps, becomes U+FFFD.
func trimmed(text *string) *string {
	if text == nil {
		return nil
	}
	return nonEmpty(strings.TrimSpace(strings.ReplaceAll(*text, "\x00", "\uFFFD")))
}

func nonEmpty(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
