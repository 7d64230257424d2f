package store

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"

	"github.com/z4j-go/z4j/internal/audit"
)

// Place says where a database lives, so that a copy of it is told from it.
type Place struct {
	Identifier string `json:"identifier"` // of the cluster, the database and the schema, or of the file
	Location   string `json:"location"`   // host, port and name, or the path
	Timeline   int64  `json:"timeline"`   // of Postgres, which rises with each promotion; 0 elsewhere
}

// RecordedPlace returns where the database says that it lives, or ErrNotFound.
func (s *Store) RecordedPlace(ctx context.Context) (p Place, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT identifier, location, timeline FROM audit_place`).Scan(&p.Identifier, &p.Location, &p.Timeline)
	return p, wrap("read place", err)
}

// PresentPlace returns where the database is reached now. Of SQLite it is only the path: what tells one file from
// another stands beside it.
func (s *Store) PresentPlace(ctx context.Context) (p Place, err error) {
	if s.pool == nil {
		return Place{Location: strings.TrimSuffix(s.path, restoringSuffix)}, nil // a restore fills a file beside it
	}
	var timeline string
	err = s.read.QueryRowContext(ctx, `SELECT `+s.chain.identity+` || '/' || (SELECT oid FROM pg_database WHERE datname = current_database()) || '/' || current_schema(), `+
		s.chain.timeline).Scan(&p.Identifier, &timeline)
	if err != nil {
		return p, wrap("look where the database is", err)
	}
	if p.Timeline, err = strconv.ParseInt(timeline, 16, 64); err != nil {
		return p, wrap("read timeline", err)
	}
	c := s.pool.Config().ConnConfig
	p.Location = net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))) + "/" + c.Database
	return p, nil
}

// PutPlace records where the database lives. A move is an entry of the audit log, a first record is not.
func (s *Store) PutPlace(ctx context.Context, p Place) error {
	was, err := s.RecordedPlace(ctx)
	if errors.Is(err, ErrNotFound) {
		return s.transact(ctx, func(tx *Tx) error { return tx.putPlace(ctx, p) })
	}
	if err != nil || was == p {
		return err
	}
	return s.Update(ctx, func(tx *Tx) error {
		tx.Record(audit.New(audit.Facts{Action: audit.PlaceChanged, Actor: audit.Actor{Kind: audit.System}, Details: map[string]any{
			"from": was.Identifier + " at " + was.Location, "to": p.Identifier, "location": p.Location, "timeline": p.Timeline,
		}}))
		return tx.putPlace(ctx, p)
	})
}

func (tx *Tx) putPlace(ctx context.Context, p Place) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO audit_place (id, identifier, location, timeline, updated_at) VALUES (1, $1, $2, $3, $4)
		ON CONFLICT (id) DO UPDATE SET identifier = excluded.identifier, location = excluded.location, timeline = excluded.timeline, updated_at = excluded.updated_at`,
		p.Identifier, p.Location, p.Timeline, tx.now)
	return wrap("record place", err)
}

// findIdentity finds out whether this Postgres tells the identifier of its cluster: some that only speak its protocol, and
// some roles, do not.
func (s *Store) findIdentity(ctx context.Context) {
	const identifier = `(SELECT system_identifier::text FROM pg_control_system())`
	var text string
	s.chain.identity = `'unknown'`
	if err := s.read.QueryRowContext(ctx, `SELECT `+identifier).Scan(&text); err == nil {
		s.chain.identity = identifier
	}
}

// BrainSeen returns until when a brain last meant to live, by its leases; the zero Time if none has one.
func (s *Store) BrainSeen(ctx context.Context) (t Time, err error) {
	var newest *Time
	err = s.read.QueryRowContext(ctx, `SELECT max(until) FROM leases`).Scan(&newest)
	if newest != nil {
		t = *newest
	}
	return t, wrap("look for brains", err)
}
