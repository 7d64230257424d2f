package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
)

// MaxAPIKeys is how many keys that are not revoked one account may have.
const MaxAPIKeys = 100

// Why an API key is not made.
var (
	ErrTooManyKeys = errors.New("the account has too many API keys")
	ErrInactive    = errors.New("the account is not active")
)

// APIKey acts for its owner, within its scopes. Its text is nowhere and its hash no field.
type APIKey struct {
	ID            id.ID    `json:"id"`
	Name          string   `json:"name"`
	Prefix        string   `json:"prefix" doc:"the first 8 characters"`
	User          id.ID    `json:"user_id" doc:"the owner"`
	UserEmail     string   `json:"user_email"`
	Scopes        []string `json:"scopes"`
	Project       id.Null  `json:"project_id" doc:"the only project that it reaches; null: all that its owner sees"`
	ProjectSlug   *string  `json:"project_slug"`
	AllowedCIDRs  []string `json:"allowed_cidrs" nullable:"true" doc:"networks that it works from; null: every one"`
	LastUsedAt    *Time    `json:"last_used_at" doc:"to the minute"`
	LastUsedIP    *string  `json:"last_used_ip"`
	ExpiresAt     *Time    `json:"expires_at" doc:"null: never"`
	RevokedAt     *Time    `json:"revoked_at"`
	RevokedReason *string  `json:"revoked_reason"`
	SuspendedAt   *Time    `json:"suspended_at" doc:"a restore suspends keys until somebody releases them"`
	CreatedAt     Time     `json:"created_at"`
}

const (
	apiKeyColumns = `api_keys.id, api_keys.name, prefix, api_keys.user_id, users.email, scopes, api_keys.project_id, slug, allowed_cidrs,
	last_used_at, last_used_ip, expires_at, revoked_at, revoked_reason, suspended_at, api_keys.created_at`
	apiKeyTables = ` FROM api_keys JOIN users ON users.id = api_keys.user_id LEFT JOIN projects ON projects.id = api_keys.project_id`
)

func (k *APIKey) fields() []any {
	return []any{
		&k.ID, &k.Name, &k.Prefix, &k.User, &k.UserEmail,
		textList{&k.Scopes},
		&k.Project, &k.ProjectSlug,
		textList{&k.AllowedCIDRs},
		&k.LastUsedAt, &k.LastUsedIP, &k.ExpiresAt, &k.RevokedAt, &k.RevokedReason, &k.SuspendedAt, &k.CreatedAt,
	}
}

// textList scans a JSON list of texts; NULL is nil. What it can't read is an error: of a list of limits, none is no limit.
type textList struct{ to *[]string }

// Scan implements sql.Scanner.
func (l textList) Scan(src any) error {
	text, err := textOf(src)
	*l.to = nil
	if err != nil || text == nil {
		return err
	}
	return json.Unmarshal(text, l.to)
}

// Ended says why the key is no longer good at now, in a word; "" says that it is.
func (k *APIKey) Ended(now Time) string {
	switch {
	case k.RevokedAt != nil:
		return "revoked"
	case k.ExpiresAt != nil && !now.Before(k.ExpiresAt.Time):
		return "expired"
	case k.SuspendedAt != nil:
		return "suspended"
	}
	return ""
}

// APIKeyCredential is what stands behind the text of a key.
type APIKeyCredential struct {
	Key   APIKey
	Owner User
	Hash  string // the one of those asked for that it was found by
}

// APIKeyCredential finds the key whose text has one of the given hashes, good or not, or returns ErrNotFound.
func (s *Store) APIKeyCredential(ctx context.Context, hashes []string) (c APIKeyCredential, err error) {
	var w where
	in(&w, "token_hash", hashes)
	err = s.read.QueryRowContext(ctx, `SELECT token_hash, `+apiKeyColumns+`, `+userColumns+apiKeyTables+w.sql.String(), w.args...).
		Scan(append(append([]any{&c.Hash}, c.Key.fields()...), c.Owner.fields()...)...)
	return c, wrap("API key", err)
}

var newestKeys = listing{tag: 'k', columns: "api_keys.created_at, api_keys.id", kinds: "ti", desc: true}

// APIKeyFilter says which keys are wanted.
type APIKeyFilter struct {
	User  id.Null // the owner; zero: whoever
	Ended bool    // revoked ones too
	Page  Page
}

// APIKeys lists keys, the newest first.
func (s *Store) APIKeys(ctx context.Context, f APIKeyFilter) (Slice[APIKey], error) {
	q, err := newestKeys.page(f.Page)
	if err != nil {
		return Slice[APIKey]{}, err
	}
	if !f.User.IsZero() {
		q.and("api_keys.user_id = ?", f.User.ID)
	}
	if !f.Ended {
		q.and("revoked_at IS NULL")
	}
	list, err := readPage(ctx, s, q, `SELECT `+apiKeyColumns+apiKeyTables, (*APIKey).fields, func(k *APIKey) []any { return []any{k.CreatedAt, k.ID} })
	return list, wrap("list API keys", err)
}

// NewAPIKey is a key to be made.
type NewAPIKey struct {
	User         id.ID
	Name         string
	Prefix       string
	Hash         string // of its text
	SecretID     string // of the master secret that Hash is made with
	Scopes       []string
	Project      *Project // nil: bound to none
	AllowedCIDRs []string // nil: from everywhere
	ExpiresAt    *Time
}

// CreateAPIKey makes a key. ErrNotFound and ErrInactive speak of the owner; ErrTooManyKeys says that it has MaxAPIKeys.
func (s *Store) CreateAPIKey(ctx context.Context, n NewAPIKey, by By) (k APIKey, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		if err := tx.mayOwnKey(ctx, n.User); err != nil {
			return err
		}
		var project id.Null
		if n.Project != nil {
			project.ID = n.Project.ID
		}
		key := id.New(tx.now.Time)
		_, err := tx.ExecContext(ctx, `INSERT INTO api_keys (id, user_id, project_id, name, prefix, token_hash, secret_id, scopes, allowed_cidrs, expires_at, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)`,
			key, n.User, project, n.Name, n.Prefix, n.Hash, n.SecretID, jsonList(n.Scopes), listOrNull(n.AllowedCIDRs), n.ExpiresAt, tx.now)
		if err != nil {
			return wrap("create API key", err)
		}
		if k, err = tx.apiKey(ctx, key); err != nil {
			return err
		}
		tx.Record(by.keyEntry(audit.APIKeyCreated, &k, map[string]any{
			"prefix": k.Prefix, "scopes": k.Scopes, "allowed_cidrs": listOrNil(k.AllowedCIDRs), "expires_at": timeOrNil(k.ExpiresAt),
		}))
		return nil
	})
	return k, err
}

// mayOwnKey looks whether an account may have one more key, and keeps others from making it one meanwhile.
func (tx *Tx) mayOwnKey(ctx context.Context, user id.ID) error {
	var active bool
	err := tx.QueryRowContext(ctx, `SELECT is_active FROM users WHERE id = $1`+tx.store.dialect.forUpdate, user).Scan(&active)
	if err != nil {
		return wrap("owner of an API key", err)
	}
	var have int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM api_keys WHERE user_id = $1 AND revoked_at IS NULL`, user).Scan(&have); err != nil {
		return wrap("count API keys", err)
	}
	switch {
	case !active:
		return ErrInactive
	case have >= MaxAPIKeys:
		return ErrTooManyKeys
	}
	return nil
}

func (tx *Tx) apiKey(ctx context.Context, key id.ID) (k APIKey, err error) {
	err = tx.QueryRowContext(ctx, `SELECT `+apiKeyColumns+apiKeyTables+` WHERE api_keys.id = $1`, key).Scan(k.fields()...)
	return k, wrap("API key", err)
}

// ChangeAPIKey lets change alter name, scopes, networks and expiry of a key that is not revoked, writes and records it.
// ErrNotFound says that there is none, or that it is not owner's; the zero owner is whoever. An error of change is
// returned as it is.
func (s *Store) ChangeAPIKey(ctx context.Context, owner id.Null, key id.ID, change func(*APIKey) error, by By) (k APIKey, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		if k, err = tx.ownKey(ctx, owner, key); err != nil {
			return err
		}
		was := k
		if err := change(&k); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE api_keys SET name = $1, scopes = $2, allowed_cidrs = $3, expires_at = $4, updated_at = $5 WHERE id = $6`,
			k.Name, jsonList(k.Scopes), listOrNull(k.AllowedCIDRs), k.ExpiresAt, tx.now, key)
		if err != nil {
			return wrap("change API key", err)
		}
		tx.Record(by.keyEntry(audit.APIKeyChanged, &k, map[string]any{"prefix": k.Prefix, "changes": keyChanges(&was, &k)}))
		return nil
	})
	return k, err
}

// ownKey reads a key that is not revoked, and keeps others from changing it meanwhile.
func (tx *Tx) ownKey(ctx context.Context, owner id.Null, key id.ID) (APIKey, error) {
	var w where
	w.and("id = ?", key)
	w.and("revoked_at IS NULL")
	if !owner.IsZero() {
		w.and("user_id = ?", owner.ID)
	}
	var one int
	if err := tx.QueryRowContext(ctx, `SELECT 1 FROM api_keys`+w.sql.String()+tx.store.dialect.forUpdate, w.args...).Scan(&one); err != nil {
		return APIKey{}, wrap("API key", err)
	}
	return tx.apiKey(ctx, key)
}

// keyChanges says what was changed: each field by its name in the API, with what it was and what it is.
func keyChanges(was, is *APIKey) map[string]any {
	return changesOf([]change{
		{"name", was.Name, is.Name},
		{"scopes", was.Scopes, is.Scopes},
		{"allowed_cidrs", listOrNil(was.AllowedCIDRs), listOrNil(is.AllowedCIDRs)},
		{"expires_at", timeOrNil(was.ExpiresAt), timeOrNil(is.ExpiresAt)},
	})
}

func timeOrNil(t *Time) any {
	if t == nil {
		return nil
	}
	return t.Time
}

// RevokeAPIKey ends a key for good. ErrNotFound says that there is none, that it is revoked already, or that it is not
// owner's; the zero owner is whoever.
func (s *Store) RevokeAPIKey(ctx context.Context, owner id.Null, key id.ID, reason string, by By) (k APIKey, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		if _, err := tx.ownKey(ctx, owner, key); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE api_keys SET revoked_at = $1, revoked_reason = $2, updated_at = $1 WHERE id = $3`, tx.now, textOrNull(fitting(reason, maxReason)), key)
		if err != nil {
			return wrap("revoke API key", err)
		}
		if k, err = tx.apiKey(ctx, key); err != nil {
			return err
		}
		details := map[string]any{"prefix": k.Prefix}
		if k.RevokedReason != nil {
			details["reason"] = *k.RevokedReason
		}
		tx.Record(by.keyEntry(audit.APIKeyRevoked, &k, details))
		return nil
	})
	return k, err
}

const maxReason = 200 // bytes

// keyEntry makes the entry of an allowed action on a key.
func (b By) keyEntry(action audit.Action, k *APIKey, details map[string]any) audit.Entry {
	details["name"], details["user_id"], details["via"] = k.Name, k.User, b.Via
	var project audit.Project
	if k.ProjectSlug != nil {
		project = audit.Project{ID: k.Project.String(), Label: *k.ProjectSlug}
	}
	return b.entry(action, project, audit.Target{ID: k.ID.String(), Label: k.Name}, details)
}

// SuspendAPIKeys makes every key refused until ReleaseAPIKeys, and returns how many those are. The caller records it.
func (tx *Tx) SuspendAPIKeys(ctx context.Context) (int64, error) {
	res, err := tx.ExecContext(ctx, `UPDATE api_keys SET suspended_at = $1 WHERE suspended_at IS NULL AND revoked_at IS NULL`, tx.now)
	return affected("suspend API keys", res, err)
}

// ReleaseAPIKeys takes back what SuspendAPIKeys did, and returns for how many keys. The caller records it.
func (tx *Tx) ReleaseAPIKeys(ctx context.Context) (int64, error) {
	res, err := tx.ExecContext(ctx, `UPDATE api_keys SET suspended_at = NULL WHERE suspended_at IS NOT NULL`)
	return affected("release API keys", res, err)
}

func affected(op string, res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, wrap(op, err)
	}
	return res.RowsAffected()
}

// TouchAPIKey notes that a key was used from an address. It is a side note with a transaction of its own, so that it
// lasts and commits nothing else, whatever becomes of the request.
func (s *Store) TouchAPIKey(ctx context.Context, key id.ID, now Time, ip string) error {
	_, err := s.write.ExecContext(ctx, `UPDATE api_keys SET last_used_at = $1, last_used_ip = $2 WHERE id = $3 AND (last_used_at IS NULL OR last_used_at < $1)`,
		now, textOrNull(ip), key)
	return wrap("touch API key", err)
}

// RehashAPIKey replaces the hash of a key that was made under an earlier master secret.
func (s *Store) RehashAPIKey(ctx context.Context, key id.ID, from, to, secretID string) error {
	_, err := s.write.ExecContext(ctx, `UPDATE api_keys SET token_hash = $1, secret_id = $2 WHERE id = $3 AND token_hash = $4`, to, secretID, key, from)
	return wrap("rehash API key", err)
}

// SecretID tells one master secret from another and gives nothing of it away: keys and agents are marked with the one
// that they were made under.
func SecretID(master []byte) string {
	sum, err := fingerprint(master)
	if err != nil {
		panic(fmt.Errorf("store: fingerprint of a secret: %w", err)) // HKDF fails for absurd lengths only
	}
	return sum[:16]
}
