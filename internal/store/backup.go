package store

import (
	"context"
)

// BackupFacts are what a backup says of the database beside its rows.
type BackupFacts struct {
	Master     string   // fingerprint of Z4J_SECRET
	AuditKeys  []string // key ids of every audit secret that signed rows which are there
	Checkpoint string   // the newest signed checkpoint of at most size rows; "": none
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
	return f, wrap("read what a backup says of keys", err)
}
