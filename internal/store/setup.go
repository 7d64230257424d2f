package store

import (
	"context"
	"errors"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
)

// Why a set-up token is not taken.
var (
	ErrNoSetupToken      = errors.New("there is no set-up token")
	ErrSetupTokenExpired = errors.New("the set-up token is too old")
	ErrSetupTokenWrong   = errors.New("another set-up token is expected")
)

// PutSetupToken makes the token with the given hash the only one that sets up the brain, until its lifetime is over.
// It reports false and keeps nothing if there is an account already.
func (s *Store) PutSetupToken(ctx context.Context, hash string, lifetime time.Duration) (first bool, err error) {
	err = s.transact(ctx, func(tx *Tx) error {
		if first, err = tx.lockFirstAccount(ctx); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM first_boot_tokens`); err != nil || !first {
			return wrap("delete set-up tokens", err)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO first_boot_tokens (token_hash, expires_at, created_at) VALUES ($1, $2, $3)`, hash, TimeOf(tx.now.Add(lifetime)), tx.now)
		return wrap("keep set-up token", err)
	})
	return first, err
}

// SetupOpen reports whether a set-up token is kept that is not too old at now.
func (s *Store) SetupOpen(ctx context.Context, now Time) (bool, error) {
	var open bool
	err := s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM first_boot_tokens WHERE expires_at > $1) AND NOT EXISTS (SELECT 1 FROM users)`, now).Scan(&open)
	return open, wrap("look for set-up token", err)
}

// CheckSetupToken returns nil if hash is the kept token's and there is no account; else ErrConflict for an account, or
// one of the three errors above.
func (s *Store) CheckSetupToken(ctx context.Context, hash string, now Time) error {
	has, err := s.HasUsers(ctx)
	if err != nil {
		return err
	}
	if has {
		return ErrConflict
	}
	rows, err := s.read.QueryContext(ctx, `SELECT token_hash, expires_at FROM first_boot_tokens`)
	kept, err := collect(rows, err, (*setupToken).fields)
	if err != nil {
		return wrap("set-up token", err)
	}
	return judgeSetupToken(kept, hash, now)
}

type setupToken struct {
	hash    string
	expires Time
}

func (t *setupToken) fields() []any { return []any{&t.hash, &t.expires} }

func judgeSetupToken(kept []setupToken, hash string, now Time) error {
	if len(kept) == 0 {
		return ErrNoSetupToken
	}
	for _, t := range kept {
		if t.hash == hash { // keyed hashes: their comparison tells nothing of the token
			if !now.Before(t.expires.Time) {
				return ErrSetupTokenExpired
			}
			return nil
		}
	}
	return ErrSetupTokenWrong
}

// DefaultProject is the slug of the project that the first account gets.
const DefaultProject = "default"

// FirstAccount is what set-up makes.
type FirstAccount struct {
	User    User
	Project Project
	Session *Session // if one was asked for
}

// CreateFirstAccount makes the first account, a global administrator, and the project "default" with it as admin.
// With a token hash it uses that token up, whatever else happens at the same moment. A session is made unless its
// lifetime is 0. ErrConflict says that there is an account.
func (s *Store) CreateFirstAccount(ctx context.Context, n NewUser, tokenHash string, login NewSession, by By) (out FirstAccount, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		if first, err := tx.lockFirstAccount(ctx); err != nil || !first {
			return errors.Join(err, conflictUnless(first))
		}
		if tokenHash != "" {
			res, err := tx.ExecContext(ctx, `DELETE FROM first_boot_tokens WHERE token_hash = $1 AND expires_at > $2`, tokenHash, tx.now)
			if err := changed("use set-up token", res, err); errors.Is(err, ErrNotFound) {
				return ErrNoSetupToken
			} else if err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM first_boot_tokens`); err != nil {
			return wrap("delete set-up tokens", err)
		}
		return tx.createFirstAccount(ctx, n, login, by, &out)
	})
	return out, err
}

func conflictUnless(first bool) error {
	if first {
		return nil
	}
	return ErrConflict
}

func (tx *Tx) createFirstAccount(ctx context.Context, n NewUser, login NewSession, by By, out *FirstAccount) (err error) {
	n.IsAdmin = true
	if out.User, err = tx.createUser(ctx, n); err != nil {
		return err
	}
	out.Project, err = tx.createProject(ctx, Project{
		Slug: DefaultProject, Name: "Default", Environment: "production", Timezone: "UTC", DefaultSchedulerOwner: DefaultSchedulerOwner,
	})
	if err != nil {
		return err
	}
	if _, err := tx.addMembership(ctx, out.Project.ID, out.User.ID, "admin"); err != nil {
		return err
	}
	if login.Lifetime > 0 {
		login.User = out.User.ID
		session, err := tx.CreateSession(ctx, login)
		if err != nil {
			return err
		}
		out.Session = &session
	}
	tx.Record(by.entry(audit.SetupCompleted, out.Project.Audited(), audit.Target{ID: out.User.ID.String(), Label: out.User.Email},
		map[string]any{"project_id": out.Project.ID, "project_slug": out.Project.Slug, "via": by.Via}))
	return nil
}

// DefaultSchedulerOwner is the scheduler that a project's schedules belong to unless it says otherwise.
const DefaultSchedulerOwner = "z4j-scheduler"

// lockFirstAccount keeps every other set-up waiting until the end of the transaction, and reports whether there is no
// account yet.
func (tx *Tx) lockFirstAccount(ctx context.Context) (first bool, err error) {
	_, err = tx.ExecContext(ctx, `INSERT INTO meta (key, value, updated_at) VALUES ('first_account', '', $1)
		ON CONFLICT (key) DO UPDATE SET updated_at = EXCLUDED.updated_at`, tx.now)
	if err != nil {
		return false, wrap("lock set-up", err)
	}
	err = tx.QueryRowContext(ctx, `SELECT NOT EXISTS (SELECT 1 FROM users)`).Scan(&first)
	return first, wrap("look for users", err)
}
