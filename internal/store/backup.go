package store

import (
	"context"

	"github.com/z4j-go/z4j/internal/audit"
)

// BackupFacts are what a backup says of the database beside its rows.
type BackupFacts struct {
	Master     string   // fingerprint of Z4J_SECRET
	AuditKeys  []string // key ids of every audit secret that signed rows which are there
	Checkpoint string   // the newest signed checkpoint of at most size rows; "": none

	Pruned audit.Boundary // where the log begins, as its newest proved entry about a prune says
	Hold   *Hold          // nil: the history is not in doubt
}

// BackupFacts reads what the manifest of a backup whose audit log has size rows in this generation says of keys.
func (s *Store) BackupFacts(ctx context.Context, generation string, size int64) (BackupFacts, error) {
	var f BackupFacts
	err := s.read.QueryRowContext(ctx, `SELECT coalesce((SELECT value FROM meta WHERE key = $1), ''),
		coalesce((SELECT note FROM audit_checkpoints WHERE generation = $2 AND size <= $3 ORDER BY size DESC LIMIT 1), '')`,
		fingerprintKey, generation, size).Scan(&f.Master, &f.Checkpoint)
	if err != nil {
		return f, wrap("read what a backup says of keys", err)
	}
	rows, err := s.read.QueryContext(ctx, `SELECT kid FROM audit_kids ORDER BY introduced, kid`)
	f.AuditKeys, err = collect(rows, err, func(kid *string) []any { return []any{kid} })
	if err != nil {
		return f, wrap("read what a backup says of keys", err)
	}
	if f.Pruned, err = s.boundary(ctx, s.read); err != nil {
		return f, err
	}
	f.Hold, err = s.Hold(ctx)
	return f, err
}
