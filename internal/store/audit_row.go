package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"math"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
)

// querier is what reads: the store's pools, or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// auditRows reads rows of the chain as they are stored; tail is what follows FROM audit_log.
func (s *Store) auditRows(ctx context.Context, q querier, tail string, args ...any) ([]audit.Row, error) {
	rows, err := q.QueryContext(ctx, s.sql(`SELECT `+auditColumns+` FROM audit_log `+tail), args...)
	return collect(rows, err, auditFields)
}

// auditRow reads one row, or gives ErrNotFound.
func (s *Store) auditRow(ctx context.Context, q querier, tail string, args ...any) (audit.Row, error) {
	rows, err := s.auditRows(ctx, q, tail, args...)
	if err != nil {
		return audit.Row{}, err
	}
	if len(rows) == 0 {
		return audit.Row{}, ErrNotFound
	}
	return rows[0], nil
}

// auditFields scans auditColumns.
func auditFields(r *audit.Row) []any {
	return []any{
		&r.Seq,
		storedID{&r.ID},
		storedTime{&r.TS},
		&r.ActorKind, &r.ActorID, &r.ProjectID, &r.ProjectLabel, &r.Action, &r.TargetType, &r.TargetID,
		&r.TargetLabel, &r.Outcome, &r.Details, &r.RequestID, &r.KID, &r.ActorPersonal, &r.TargetPersonal, &r.Body, &r.PrevRowHMAC, &r.RowHMAC,
	}
}

// storedID scans an identifier as text; one that is none becomes a text that was never signed, so that a
// verification goes on and says so.
type storedID struct{ to *string }

// Scan implements sql.Scanner.
func (s storedID) Scan(src any) error {
	var u id.ID
	if err := u.Scan(src); err == nil {
		*s.to = u.String()
		return nil
	}
	*s.to = "not an id"
	if b, ok := src.([]byte); ok {
		*s.to += " " + hex.EncodeToString(b)
	}
	return nil
}

// notSigned is a time that was never signed.
const notSigned = math.MinInt64

// storedTime scans a time as µs; what is none becomes one that was never signed.
type storedTime struct{ to *int64 }

// Scan implements sql.Scanner.
func (s storedTime) Scan(src any) error {
	switch v := src.(type) {
	case int64:
		*s.to = v
	case time.Time:
		*s.to = v.UnixMicro()
	default:
		*s.to = notSigned
	}
	return nil
}

// storedNumber scans a number; what is none becomes notSigned.
type storedNumber struct{ to *int64 }

// Scan implements sql.Scanner.
func (s storedNumber) Scan(src any) error {
	n, ok := src.(int64)
	if !ok {
		n = notSigned
	}
	*s.to = n
	return nil
}

// personalFields scans personalColumns.
func personalFields(p *audit.Personal) []any {
	return []any{&p.Seq, &p.Role, &p.Subject, &p.Salt, &p.JSON, orZero{&p.ErasedBy}}
}

// orZero scans NULL as 0, and 0 as what was never written.
type orZero struct{ to *int64 }

// Scan implements sql.Scanner.
func (z orZero) Scan(src any) error {
	if src == nil {
		*z.to = 0
		return nil
	}
	if err := storedNumber(z).Scan(src); err != nil || *z.to != 0 {
		return err
	}
	*z.to = notSigned
	return nil
}

// boundary returns what the newest audit.pruned says that our keys prove; the zero Boundary if there is none.
func (s *Store) boundary(ctx context.Context, q querier) (audit.Boundary, error) {
	rows, err := s.auditRows(ctx, q, `WHERE action{C} = $1 ORDER BY seq DESC LIMIT 8`, string(audit.Pruned))
	if err != nil {
		return audit.Boundary{}, wrap("read prune boundary", err)
	}
	for i := range rows {
		if b, ok := audit.ReadBoundary(&rows[i], s.chain.given()); ok {
			return b, nil
		}
	}
	return audit.Boundary{}, nil
}

// claimedBoundary is what the newest audit.pruned says whose key was not given; Through is 0 if there is none.
func (s *Store) claimedBoundary(ctx context.Context, q querier) (audit.Boundary, error) {
	rows, err := s.auditRows(ctx, q, `WHERE action{C} = $1 ORDER BY seq DESC LIMIT 8`, string(audit.Pruned))
	if err != nil {
		return audit.Boundary{}, wrap("read prune boundary", err)
	}
	for i := range rows {
		if b, ok := audit.ClaimedBoundary(&rows[i], s.chain.given()); ok {
			return b, nil
		}
	}
	return audit.Boundary{}, nil
}

func (c *chain) given() []audit.Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys
}

// authentic returns what r says if key signed it.
func authentic(r *audit.Row, key audit.Key) (audit.Body, bool) {
	body, err := audit.ParseBody(r.Body)
	if err != nil || body.KID != key.KID() || body.Differs(r) != "" || !key.Proves(r.Body, r.RowHMAC) {
		return audit.Body{}, false
	}
	return body, true
}

// noneIsZero makes ErrNotFound no error.
func noneIsZero[T any](v T, err error) (T, error) {
	if errors.Is(err, ErrNotFound) {
		var zero T
		return zero, nil
	}
	return v, err
}
