package store

import (
	"context"
	"errors"

	"github.com/pressly/goose/v3"

	"github.com/z4j-go/z4j/internal/audit"
)

// startNews is what a start changes in a database that was there before.
type startNews struct {
	from, to int64 // schema; equal: nothing
	secret   bool  // Z4J_SECRET is another one
}

// startNews finds out what this start is about to change.
func (s *Store) startNews(ctx context.Context, p *goose.Provider, have bool, secrets Secrets) (n startNews, err error) {
	if !have {
		return n, nil
	}
	if n.from, err = p.GetDBVersion(ctx); err != nil {
		return n, wrap("schema version", err)
	}
	sources := p.ListSources()
	n.to = sources[len(sources)-1].Version
	was, err := s.Meta(ctx, fingerprintKey)
	if errors.Is(err, ErrNotFound) || len(secrets.Master) == 0 {
		return n, nil
	}
	if err != nil {
		return n, err
	}
	is, err := fingerprint(secrets.Master)
	n.secret = was != is
	return n, err
}

// recordNews writes what this start changed into the audit log. The change is made: where no entry can be written it is
// logged alone.
func (s *Store) recordNews(ctx context.Context, n startNews) {
	var entries []audit.Entry
	add := func(action audit.Action, details map[string]any) {
		entries = append(entries, audit.New(audit.Facts{Action: action, Actor: audit.Actor{Kind: audit.System}, Details: details}))
	}
	if n.from != n.to {
		add(audit.SystemMigrated, map[string]any{"from": n.from, "to": n.to})
	}
	if n.secret {
		add(audit.SystemSecretChanged, map[string]any{"setting": "Z4J_SECRET"})
	}
	if len(entries) == 0 {
		return
	}
	err := s.Update(ctx, func(tx *Tx) error {
		for _, e := range entries {
			tx.Record(e)
		}
		return nil
	})
	if err != nil {
		s.log.WarnContext(ctx, "start not recorded", "err", err, "schema_from", n.from, "schema_to", n.to, "secret_changed", n.secret)
	}
}
