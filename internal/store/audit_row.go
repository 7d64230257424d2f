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
	_, b, err := s.boundaryEntry(ctx, q)
	return b, err
}

// boundaryEntry also returns the audit.pruned that says so.
func (s *Store) boundaryEntry(ctx context.Context, q querier) (r audit.Row, b audit.Boundary, err error) {
	r, err = s.newest(ctx, q, audit.Pruned, func(r *audit.Row) (ok bool) {
		b, ok = audit.ReadBoundary(r, s.chain.given())
		return ok
	})
	return r, b, wrap("read prune boundary", err)
}

// claimedBoundary is what the newest audit.pruned says whose key was not given; Through is 0 if there is none.
func (s *Store) claimedBoundary(ctx context.Context, q querier) (audit.Boundary, error) {
	var b audit.Boundary
	_, err := s.newest(ctx, q, audit.Pruned, func(r *audit.Row) (ok bool) {
		b, ok = audit.ClaimedBoundary(r, s.chain.given())
		return ok
	})
	return b, wrap("read prune boundary", err)
}

// newestSeq is the number of the newest entry of an action, proved or not; 0: there is none.
func (s *Store) newestSeq(ctx context.Context, q querier, action audit.Action) (int64, error) {
	rows, err := s.auditRows(ctx, q, newestOfAction, string(action), int64(math.MaxInt64), 1)
	if err != nil || len(rows) == 0 {
		return 0, wrap("read the newest "+string(action), err)
	}
	return rows[0].Seq, nil
}

const (
	newestOfAction = `WHERE action{C} = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3`
	spanOfAction   = `WHERE action{C} = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT $4`
)

// newestPage is how many entries are read at once to find the newest that counts: mostly it is the first.
const newestPage = 8

// newest returns the newest entry of an action that accept takes; the zero Row if there is none. It looks through all of
// them: whoever can write the table could otherwise hide the one that counts behind some that don't.
func (s *Store) newest(ctx context.Context, q querier, action audit.Action, accept func(*audit.Row) bool) (audit.Row, error) {
	for before, limit := int64(math.MaxInt64), newestPage; ; limit = 1000 {
		rows, err := s.auditRows(ctx, q, newestOfAction, string(action), before, limit)
		if err != nil {
			return audit.Row{}, err
		}
		for i := range rows {
			if accept(&rows[i]) {
				return rows[i], nil
			}
			before = rows[i].Seq
		}
		if len(rows) < limit {
			return audit.Row{}, nil
		}
	}
}

// newestProved is newest of what one of the keys at hand signed.
func (s *Store) newestProved(ctx context.Context, q querier, action audit.Action) (audit.Row, error) {
	return s.newest(ctx, q, action, func(r *audit.Row) bool { _, ok := s.proved(r); return ok })
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
