package api

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

// UserPublic is an account as others see it.
type UserPublic struct {
	ID          id.ID      `json:"id"`
	Email       string     `json:"email"`
	FirstName   *string    `json:"first_name"`
	LastName    *string    `json:"last_name"`
	DisplayName *string    `json:"display_name" doc:"as given, else made of first and last name, else of the address"`
	IsAdmin     bool       `json:"is_admin"`
	Timezone    string     `json:"timezone"`
	CreatedAt   store.Time `json:"created_at"`
}

func publicOf(u store.User) UserPublic {
	name := displayName(u)
	return UserPublic{
		ID: u.ID, Email: u.Email, FirstName: u.FirstName, LastName: u.LastName, DisplayName: &name, IsAdmin: u.IsAdmin, Timezone: u.Timezone, CreatedAt: u.CreatedAt,
	}
}

func displayName(u store.User) string {
	if u.DisplayName != nil && *u.DisplayName != "" {
		return *u.DisplayName
	}
	var parts []string
	for _, part := range []*string{u.FirstName, u.LastName} {
		if part != nil && *part != "" {
			parts = append(parts, *part)
		}
	}
	if len(parts) > 0 {
		return strings.Join(parts, " ")
	}
	local, _, _ := strings.Cut(u.Email, "@")
	return local
}

// readEmail gives an address the one form in which accounts have it.
func readEmail(where, text string) (string, error) {
	email, err := auth.Email(text)
	if err != nil {
		return "", invalidFor(where, "invalid_email", "The e-mail address needs one @ and a domain with a dot.")
	}
	return email, nil
}

// newPassword makes the hash of a new password, or says which rule it breaks.
func (s *Server) newPassword(ctx context.Context, where, password string) (string, error) {
	hash, err := s.Passwords.New(ctx, password)
	if weak, ok := errors.AsType[*auth.WeakPassword](err); ok {
		return "", invalidFor(where, weak.Code, weak.Message)
	}
	return hash, err
}

type loginInput struct {
	Body struct {
		Email      string `json:"email" minLength:"3" maxLength:"320"`
		Password   string `json:"password" minLength:"1" maxLength:"256"`
		RememberMe bool   `json:"remember_me,omitempty" doc:"the session lives longer and has no idle limit"`
	}
}

type loginResult struct {
	User                  UserPublic  `json:"user"`
	MFARequired           bool        `json:"mfa_required"`
	MFAEnrollmentRequired bool        `json:"mfa_enrollment_required"`
	MFAEnrollmentDeadline *store.Time `json:"mfa_enrollment_deadline"`
}

// How failed log-ins are slowed down: the answer to the n-th waits half a second, doubled each time.
const (
	firstBackoff    = 500 * time.Millisecond
	maxBackoff      = 5 * time.Second
	maxBackoffSteps = 5 // doublings until maxBackoff
	backoffMemory   = 15 * time.Minute
)

func (s *Server) login(ctx context.Context, in *loginInput) (*reply[loginResult], error) {
	email, err := readEmail("body.email", in.Body.Email)
	if err != nil {
		return nil, err
	}
	began := s.Now()
	user, session, err := s.tryLogin(ctx, email, in.Body.Password, in.Body.RememberMe)
	least := s.Settings.LoginMin - s.Now().Sub(began)
	if err != nil {
		failed, ok := errors.AsType[*loginFailure](err)
		if !ok {
			return nil, err
		}
		s.Pause(ctx, max(least, 0)+s.backoff(email))
		p := unauthenticated("invalid_credentials", because("invalid_credentials"))
		p.reason = failed.reason
		return nil, p
	}
	s.Pause(ctx, max(least, 0))
	s.failures.Forget(email)
	s.setCookies(ctx, &session)
	return &reply[loginResult]{loginResult{User: publicOf(user)}}, nil
}

// backoff counts a failed log-in and returns how long its answer waits. It knows the address that was given and not
// whether an account has it, so it is the same for both.
func (s *Server) backoff(email string) time.Duration {
	now := s.Now()
	before := s.failures.Count(email, now)
	s.failures.Take(email, now)
	return min(firstBackoff<<before, maxBackoff)
}

// loginFailure is a log-in that failed. The client never learns why.
type loginFailure struct{ reason string }

// Error gives the reason.
func (f *loginFailure) Error() string { return f.reason }

// tryLogin checks the password, whatever else is wrong, so that every failure costs the same work.
func (s *Server) tryLogin(ctx context.Context, email, password string, remember bool) (store.User, store.Session, error) {
	requestOf(ctx).target = audit.Target{Label: email}
	c, err := s.Store.Credential(ctx, email)
	known := err == nil
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return store.User{}, store.Session{}, err
	}
	ok, stale := false, false
	if known {
		requestOf(ctx).target.ID = c.User.ID.String()
		ok, stale, err = s.Passwords.Verify(ctx, c.PasswordHash, password)
	} else {
		err = s.Passwords.VerifyNobody(ctx, password)
	}
	if err != nil && !errors.Is(err, auth.ErrHash) {
		return store.User{}, store.Session{}, err
	}
	failure := &loginFailure{}
	switch {
	case known && c.Locked(store.TimeOf(s.Now())):
		failure.reason = "locked"
	case !known || !ok:
		failure.reason = "invalid_credentials"
	case !c.User.IsActive:
		failure.reason = "inactive"
	default:
		session, err := s.beginSession(ctx, c, password, stale, remember)
		if !errors.Is(err, store.ErrNotFound) {
			return c.User, session, err
		}
		failure.reason = "changed_meanwhile"
	}
	s.countFailure(ctx, c.User.ID)
	return store.User{}, store.Session{}, failure
}

// countFailure counts a failed log-in of an account; for the zero id it does the same work and counts nothing. That it
// can't be counted changes no answer, but it is an error of ours.
func (s *Server) countFailure(ctx context.Context, user id.ID) {
	if err := s.Store.LoginFailed(context.WithoutCancel(ctx), user, s.Settings.Lockout, s.Settings.LockFor); err != nil {
		s.Log.ErrorContext(ctx, "failed log-in not counted", "request_id", requestOf(ctx).id, "err", err)
	}
}

// beginSession makes the session of a log-in whose password is right, in one transaction with its entry.
func (s *Server) beginSession(ctx context.Context, c store.Credential, password string, stale, remember bool) (session store.Session, err error) {
	rehashed := ""
	if stale {
		if rehashed, err = s.Passwords.Rehash(ctx, password); err != nil {
			return session, err
		}
	}
	by := byCaller(ctx)
	by.Actor.Kind, by.Actor.ID, by.Actor.Label = audit.User, c.User.ID.String(), c.User.Email
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.LoginSucceeded(ctx, c.User.ID, c.PasswordHash, rehashed); err != nil {
			return err
		}
		if session, err = tx.CreateSession(ctx, s.newSession(ctx, c.User.ID, remember)); err != nil {
			return err
		}
		tx.Record(audit.New(audit.Facts{
			Action: audit.AuthLogin, Actor: by.Actor, Target: audit.Target{ID: c.User.ID.String(), Label: c.User.Email}, RequestID: by.RequestID,
			Details: map[string]any{"session_id": session.ID, "remembered": remember},
		}))
		return nil
	})
	return session, err
}

func (s *Server) logout(ctx context.Context, _ *struct{}) (*nothing, error) {
	q := requestOf(ctx)
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		err := tx.RevokeSession(ctx, q.user.ID, q.session.ID, store.RevokedByLogout)
		if err != nil && !errors.Is(err, store.ErrNotFound) { // another request was faster: it is over all the same
			return err
		}
		tx.Record(audit.New(audit.Facts{
			Action: audit.AuthLogout, Actor: q.actor(), Target: audit.Target{ID: q.user.ID.String(), Label: q.user.Email}, RequestID: q.id,
			Details: map[string]any{"session_id": q.session.ID},
		}))
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.clearCookies(ctx)
	return &nothing{}, nil
}

type passwordPolicy struct {
	MinLength       int      `json:"min_length"`
	RequiredClasses int      `json:"required_character_classes" doc:"of those below, in a password of less than 16 characters"`
	ClassNames      []string `json:"character_class_names"`
}

func (s *Server) passwordPolicy(context.Context, *struct{}) (*reply[passwordPolicy], error) {
	return &reply[passwordPolicy]{passwordPolicy{s.Passwords.Policy.Min(), auth.RequiredClasses, auth.ClassNames()}}, nil
}

// userMe is the account that is logged in.
type userMe struct {
	UserPublic

	Memberships []store.UserProject `json:"memberships" doc:"for a global admin every active project, as admin"`
}

func (s *Server) showMe(ctx context.Context, _ *struct{}) (*reply[userMe], error) {
	user := *requestOf(ctx).user
	me := userMe{UserPublic: publicOf(user)}
	var err error
	if !user.IsAdmin {
		me.Memberships, err = s.Store.UserProjects(ctx, user.ID)
		return &reply[userMe]{me}, err
	}
	all, err := s.Store.Projects(ctx, requestOf(ctx).sight())
	if err != nil {
		return nil, err
	}
	me.Memberships = make([]store.UserProject, len(all))
	for i, p := range all {
		me.Memberships[i] = store.UserProject{Project: p.ID, Slug: p.Slug, Role: string(auth.Admin)}
	}
	return &reply[userMe]{me}, nil
}

type passwordChange struct {
	Body struct {
		Current string `json:"current_password" minLength:"1" maxLength:"256"`
		New     string `json:"new_password" minLength:"1" maxLength:"256" doc:"see /auth/policy"`
	}
}

func (s *Server) changePassword(ctx context.Context, in *passwordChange) (*reply[loginResult], error) {
	user := *requestOf(ctx).user
	requestOf(ctx).target = audit.Target{ID: user.ID.String(), Label: user.Email}
	c, err := s.Store.Credential(ctx, user.Email)
	if err != nil {
		return nil, err
	}
	ok, _, err := s.Passwords.Verify(ctx, c.PasswordHash, in.Body.Current)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, wrongPassword()
	}
	hash, err := s.newPassword(ctx, "body.new_password", in.Body.New)
	if err != nil {
		return nil, err
	}
	var session store.Session
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.HasPassword(ctx, user.ID, c.PasswordHash); errors.Is(err, store.ErrNotFound) {
			return wrongPassword() // somebody was faster
		} else if err != nil {
			return err
		}
		if err := tx.SetPassword(ctx, user, hash, byCaller(ctx)); err != nil {
			return err
		}
		session, err = tx.CreateSession(ctx, s.newSession(ctx, user.ID, requestOf(ctx).session.Remembered))
		return err
	})
	if err != nil {
		return nil, err
	}
	s.setCookies(ctx, &session)
	return &reply[loginResult]{loginResult{User: publicOf(user)}}, nil
}

func wrongPassword() *problem {
	return unauthenticated("the current password is another one", because("wrong_current_password"))
}

type sessionView struct {
	store.Session

	IsCurrent bool `json:"is_current"`
}

func (s *Server) listSessions(ctx context.Context, _ *struct{}) (*reply[[]sessionView], error) {
	q := requestOf(ctx)
	now := store.TimeOf(s.Now())
	list, err := s.Store.Sessions(ctx, q.user.ID, now)
	out := []sessionView{}
	for _, n := range list {
		if n.Live(now, s.Settings.SessionIdle) {
			out = append(out, sessionView{n, n.ID == q.session.ID})
		}
	}
	return &reply[[]sessionView]{out}, err
}

type sessionPath struct {
	SessionID string `path:"session_id"`
}

type revoked struct {
	Revoked bool `json:"revoked"`
}

func (s *Server) revokeSession(ctx context.Context, in *sessionPath) (*reply[revoked], error) {
	session, err := id.Parse(in.SessionID)
	if err != nil {
		return nil, invalid("path.session_id", "must be a UUID")
	}
	q := requestOf(ctx)
	q.target = audit.Target{ID: session.String()}
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		tx.Record(sessionsRevoked(q, q.target))
		return tx.RevokeSession(ctx, q.user.ID, session, store.RevokedByUser)
	})
	if err != nil {
		return nil, err
	}
	if session == q.session.ID {
		s.clearCookies(ctx)
	}
	return &reply[revoked]{revoked{true}}, nil
}

func (s *Server) revokeOtherSessions(ctx context.Context, _ *struct{}) (*reply[revoked], error) {
	q := requestOf(ctx)
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		tx.Record(sessionsRevoked(q, audit.Target{}))
		_, err := tx.RevokeSessions(ctx, q.user.ID, store.RevokedByUser, q.session.ID)
		return err
	})
	return &reply[revoked]{revoked{true}}, err
}

func sessionsRevoked(q *request, target audit.Target) audit.Entry {
	return audit.New(audit.Facts{
		Action: audit.AuthSessionRevoked, Actor: q.actor(), Target: target, RequestID: q.id,
		Details: map[string]any{"user_id": q.user.ID, "session_reason": store.RevokedByUser},
	})
}
