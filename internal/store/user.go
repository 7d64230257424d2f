package store

import (
	"context"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
)

// User is an account. Its password's hash is no field: see Credential.
type User struct {
	ID          id.ID   `json:"id"`
	Email       string  `json:"email"` // canonical
	FirstName   *string `json:"first_name"`
	LastName    *string `json:"last_name"`
	DisplayName *string `json:"display_name"`
	IsAdmin     bool    `json:"is_admin"` // of the whole installation
	IsActive    bool    `json:"is_active"`
	Timezone    string  `json:"timezone"`
	LastLoginAt *Time   `json:"last_login_at"`
	CreatedAt   Time    `json:"created_at"`
	UpdatedAt   Time    `json:"updated_at"`
}

const userColumns = `users.id, email, first_name, last_name, display_name, is_admin, users.is_active, users.timezone, last_login_at, users.created_at, users.updated_at`

func (u *User) fields() []any {
	return []any{
		&u.ID, &u.Email, &u.FirstName, &u.LastName, &u.DisplayName, &u.IsAdmin, &u.IsActive, &u.Timezone, &u.LastLoginAt, &u.CreatedAt, &u.UpdatedAt,
	}
}

// Credential is what a log-in is checked against. It is never part of an answer.
type Credential struct {
	User         User
	PasswordHash string
	LockedUntil  *Time
}

// Locked reports whether too many failed log-ins lock the account at now.
func (c *Credential) Locked(now Time) bool {
	return c.LockedUntil != nil && c.LockedUntil.After(now.Time)
}

// NewUser is an account to be made. Email is in the form of auth.Email, PasswordHash comes from auth.Passwords.
type NewUser struct {
	Email        string
	PasswordHash string
	FirstName    *string
	LastName     *string
	DisplayName  *string
	IsAdmin      bool
	Timezone     string // "" is UTC
}

// By is who makes a change, for the audit log.
type By struct {
	Actor     audit.Actor
	RequestID string
	Via       string // "api", "cli", "environment"
}

// entry makes the entry of an allowed action of b.
func (b By) entry(action audit.Action, project audit.Project, target audit.Target, details map[string]any) audit.Entry {
	return audit.New(audit.Facts{Action: action, Actor: b.Actor, Project: project, Target: target, Details: details, RequestID: b.RequestID})
}

// User returns an account, or ErrNotFound.
func (s *Store) User(ctx context.Context, user id.ID) (User, error) {
	var u User
	err := s.read.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users WHERE id = $1`, user).Scan(u.fields()...)
	return u, wrap("user", err)
}

// Users returns accounts, the newest first.
func (s *Store) Users(ctx context.Context, limit, offset int) ([]User, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT `+userColumns+` FROM users ORDER BY created_at DESC, id DESC LIMIT $1 OFFSET $2`, limit, offset)
	list, err := collect(rows, err, (*User).fields)
	return list, wrap("list users", err)
}

// HasUsers reports whether there is any account.
func (s *Store) HasUsers(ctx context.Context) (bool, error) {
	var has bool
	err := s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM users)`).Scan(&has)
	return has, wrap("look for users", err)
}

// Credential returns what a log-in with a canonical e-mail address is checked against, or ErrNotFound.
func (s *Store) Credential(ctx context.Context, email string) (Credential, error) {
	var c Credential
	err := s.read.QueryRowContext(ctx, `SELECT `+userColumns+`, password_hash, locked_until FROM users WHERE email = $1`, email).
		Scan(append(c.User.fields(), &c.PasswordHash, &c.LockedUntil)...)
	return c, wrap("credential", err)
}

// CreateUser makes an account; ErrConflict says that its e-mail address has one.
func (s *Store) CreateUser(ctx context.Context, n NewUser, by By) (u User, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		if u, err = tx.createUser(ctx, n); err != nil {
			return err
		}
		tx.Record(by.entry(audit.UserCreated, audit.Project{}, audit.Target{ID: u.ID.String(), Label: u.Email}, userDetails(u, by)))
		return nil
	})
	return u, err
}

func userDetails(u User, by By) map[string]any {
	details := map[string]any{"is_admin": u.IsAdmin, "via": by.Via}
	if u.DisplayName != nil {
		details["display_name"] = *u.DisplayName
	}
	return details
}

func (tx *Tx) createUser(ctx context.Context, n NewUser) (User, error) {
	if n.Timezone == "" {
		n.Timezone = "UTC"
	}
	var u User
	err := tx.QueryRowContext(ctx, `
		INSERT INTO users (id, email, password_hash, first_name, last_name, display_name, is_admin, timezone, password_changed_at, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $9) RETURNING `+userColumns,
		id.New(tx.now.Time), n.Email, n.PasswordHash, n.FirstName, n.LastName, n.DisplayName, n.IsAdmin, n.Timezone, tx.now).Scan(u.fields()...)
	return u, wrap("create user", err)
}

// ChangePassword gives the account of an e-mail address a new password, unlocks it and ends all of its sessions.
// ErrNotFound says that there is no such account.
func (s *Store) ChangePassword(ctx context.Context, email, hash string, by By) (u User, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		if err := tx.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users WHERE email = $1`, email).Scan(u.fields()...); err != nil {
			return wrap("change password", err)
		}
		return tx.SetPassword(ctx, u, hash, by)
	})
	return u, err
}

// SetPassword gives an account a new password, unlocks it, ends all of its sessions and records that: every way to a new
// password comes through here.
func (tx *Tx) SetPassword(ctx context.Context, u User, hash string, by By) error {
	res, err := tx.ExecContext(ctx, `UPDATE users SET password_hash = $1, password_changed_at = $2, failed_login_count = 0, locked_until = NULL,
		updated_at = $2 WHERE id = $3`, hash, tx.now, u.ID)
	if err := changed("set password", res, err); err != nil {
		return err
	}
	ended, err := tx.RevokeSessions(ctx, u.ID, RevokedByPassword)
	if err != nil {
		return err
	}
	tx.Record(by.entry(audit.AuthPasswordChanged, audit.Project{}, audit.Target{ID: u.ID.String(), Label: u.Email},
		map[string]any{"revoked_sessions": ended, "via": by.Via}))
	return nil
}

// HasPassword returns ErrNotFound unless the account's password still has the given hash; then nobody changes it until
// the transaction ends.
func (tx *Tx) HasPassword(ctx context.Context, user id.ID, hash string) error {
	var one int
	err := tx.QueryRowContext(ctx, `SELECT 1 FROM users WHERE id = $1 AND password_hash = $2`+tx.store.dialect.forUpdate, user, hash).Scan(&one)
	return wrap("check password", err)
}

// LoginSucceeded notes a log-in whose password fits hash, and replaces that by rehashed unless it is "". ErrNotFound says
// that the account is meanwhile locked, inactive, gone, or has another password: then the log-in failed after all.
func (tx *Tx) LoginSucceeded(ctx context.Context, user id.ID, hash, rehashed string) error {
	if rehashed == "" {
		rehashed = hash
	}
	res, err := tx.ExecContext(ctx, `UPDATE users SET failed_login_count = 0, locked_until = NULL, last_login_at = $1, password_hash = $2
		WHERE id = $3 AND password_hash = $4 AND is_active AND (locked_until IS NULL OR locked_until <= $1)`, tx.now, rehashed, user, hash)
	return changed("log in", res, err)
}

// LoginFailed counts a failed log-in and locks the account for a while when there were threshold of them. It is one
// statement, so that none is lost, and of its own transaction. While the account is locked nothing is counted: who goes
// on trying does not lock it for longer.
func (s *Store) LoginFailed(ctx context.Context, user id.ID, threshold int, lock time.Duration) error {
	now := TimeOf(s.now())
	_, err := s.write.ExecContext(ctx, `UPDATE users SET last_failed_login_at = $1,
		failed_login_count = CASE WHEN locked_until IS NULL THEN failed_login_count + 1 ELSE 1 END,
		locked_until = CASE WHEN locked_until IS NULL AND failed_login_count + 1 >= $2 THEN $3 ELSE nullif(locked_until, locked_until) END
		WHERE id = $4 AND (locked_until IS NULL OR locked_until <= $1)`, now, threshold, TimeOf(now.Add(lock)), user)
	return wrap("count failed log-in", err)
}
