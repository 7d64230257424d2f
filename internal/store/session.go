package store

import (
	"context"
	"database/sql"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/z4j-go/z4j/internal/id"
)

// Why a session ended before its time.
const (
	RevokedByLogout   = "logout"
	RevokedByUser     = "revoked"
	RevokedByPassword = "password_changed"
)

// Session is one log-in of an account. Its CSRF token is in no answer.
type Session struct {
	ID         id.ID   `json:"id"`
	User       id.ID   `json:"-"`
	CSRF       string  `json:"-"`
	Remembered bool    `json:"-"` // it has no idle limit
	IssuedAt   Time    `json:"issued_at"`
	ExpiresAt  Time    `json:"-"`
	LastSeenAt Time    `json:"last_seen_at"`
	RevokedAt  *Time   `json:"-"`
	IP         *string `json:"ip_at_issue"`
	UserAgent  *string `json:"user_agent_at_issue"`
}

const sessionColumns = `sessions.id, user_id, csrf_token, remembered, issued_at, expires_at, last_seen_at, revoked_at, ip, user_agent`

func (n *Session) fields() []any {
	return []any{&n.ID, &n.User, &n.CSRF, &n.Remembered, &n.IssuedAt, &n.ExpiresAt, &n.LastSeenAt, &n.RevokedAt, &n.IP, &n.UserAgent}
}

// Live reports whether the session is good at now: not ended, not too old, and, unless it is remembered, used within idle.
func (n *Session) Live(now Time, idle time.Duration) bool {
	return n.RevokedAt == nil && now.Before(n.ExpiresAt.Time) && (n.Remembered || now.Before(n.LastSeenAt.Add(idle)))
}

// SessionUser returns a session, live or not, and its account, or ErrNotFound.
func (s *Store) SessionUser(ctx context.Context, session id.ID) (Session, User, error) {
	var n Session
	var u User
	err := s.read.QueryRowContext(ctx, `SELECT `+sessionColumns+`, `+userColumns+` FROM sessions JOIN users ON users.id = user_id WHERE sessions.id = $1`, session).
		Scan(append(n.fields(), u.fields()...)...)
	return n, u, wrap("session", err)
}

const maxSessions = 100 // of a list; more log-ins at once are a script's

// Sessions returns an account's sessions that are neither ended nor too old, the newest first.
func (s *Store) Sessions(ctx context.Context, user id.ID, now Time) ([]Session, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT `+sessionColumns+` FROM sessions WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2
		ORDER BY issued_at DESC, id DESC LIMIT $3`, user, now, maxSessions)
	list, err := collect(rows, err, (*Session).fields)
	return list, wrap("list sessions", err)
}

// NewSession is a log-in.
type NewSession struct {
	User       id.ID
	CSRF       string
	Lifetime   time.Duration
	Remembered bool
	IP         string
	UserAgent  string
}

const (
	maxUserAgent = 256 // bytes; browsers send about 120

	// keepEnded is how long a session that is over stays, for whoever looks into an incident.
	keepEnded = 30 * 24 * time.Hour
)

// CreateSession makes a session and takes away the account's long ended ones.
func (tx *Tx) CreateSession(ctx context.Context, n NewSession) (Session, error) {
	if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE user_id = $1 AND expires_at < $2`, n.User, TimeOf(tx.now.Add(-keepEnded))); err != nil {
		return Session{}, wrap("delete old sessions", err)
	}
	var out Session
	err := tx.QueryRowContext(ctx, `INSERT INTO sessions (id, user_id, csrf_token, remembered, issued_at, expires_at, last_seen_at, ip, user_agent)
		VALUES ($1, $2, $3, $4, $5, $6, $5, $7, $8) RETURNING `+sessionColumns,
		id.New(tx.now.Time), n.User, n.CSRF, n.Remembered, tx.now, TimeOf(tx.now.Add(n.Lifetime)), textOrNull(fitting(n.IP, maxUserAgent)),
		textOrNull(fitting(n.UserAgent, maxUserAgent))).Scan(out.fields()...)
	return out, wrap("create session", err)
}

// RevokeSession ends one live session of an account, or returns ErrNotFound.
func (tx *Tx) RevokeSession(ctx context.Context, user, session id.ID, reason string) error {
	res, err := tx.ExecContext(ctx, `UPDATE sessions SET revoked_at = $1, revocation_reason = $2 WHERE id = $3 AND user_id = $4 AND revoked_at IS NULL`,
		tx.now, reason, session, user)
	return changed("revoke session", res, err)
}

// RevokeSessions ends all sessions of an account and returns how many there were, but for those to keep.
func (tx *Tx) RevokeSessions(ctx context.Context, user id.ID, reason string, keep ...id.ID) (int64, error) {
	w := where{args: []any{tx.now, reason}}
	w.and("user_id = ?", user)
	w.and("revoked_at IS NULL")
	for _, k := range keep {
		w.and("id <> ?", k)
	}
	res, err := tx.ExecContext(ctx, `UPDATE sessions SET revoked_at = $1, revocation_reason = $2`+w.sql.String(), w.args...)
	if err != nil {
		return 0, wrap("revoke sessions", err)
	}
	return res.RowsAffected()
}

// TouchSession notes that a live session is used. It is a side note with a statement and a transaction of its own, so
// that it lasts whatever becomes of the request.
func (s *Store) TouchSession(ctx context.Context, session id.ID, now Time) error {
	_, err := s.write.ExecContext(ctx, `UPDATE sessions SET last_seen_at = $1 WHERE id = $2 AND last_seen_at < $1 AND revoked_at IS NULL`, now, session)
	return wrap("touch session", err)
}

// fitting is text as both databases take it, cut to most bytes.
func fitting(text string, most int) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	if len(text) <= most {
		return text
	}
	for !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}

// changed turns a statement that found no row into ErrNotFound.
func changed(op string, res sql.Result, err error) error {
	if err != nil {
		return wrap(op, err)
	}
	n, err := res.RowsAffected()
	if err == nil && n == 0 {
		err = sql.ErrNoRows
	}
	return wrap(op, err)
}
