package store

import (
	"cmp"
	"context"
	"slices"

	"github.com/z4j-go/z4j/internal/audit"
)

// What custody reads and writes: the rows as leaves of the tree, checkpoints, and the entries that anchors keep lines of.

// AuditKeys are the keys of the configured secrets; the first signs. None: no secret was given.
func (s *Store) AuditKeys() []audit.Key { return s.chain.given() }

// AuditHead returns the newest entry, as a row with number, time and HMAC only; the zero Row if there is none.
func (s *Store) AuditHead(ctx context.Context) (audit.Row, error) {
	rows, err := s.leaves(ctx, `ORDER BY seq DESC LIMIT 1`)
	if err != nil || len(rows) == 0 {
		return audit.Row{}, wrap("read the head of the audit log", err)
	}
	return rows[0], nil
}

// AuditLeaf returns entry seq as AuditHead does, or ErrNotFound.
func (s *Store) AuditLeaf(ctx context.Context, seq int64) (audit.Row, error) {
	rows, err := s.leaves(ctx, `WHERE seq = $1`, seq)
	if err == nil && len(rows) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return audit.Row{}, wrap("read entry", err)
	}
	return rows[0], nil
}

// AuditLeaves returns at most limit entries behind a number and up to another, in order: number, time, action, body, HMAC.
func (s *Store) AuditLeaves(ctx context.Context, after, through int64, limit int) ([]audit.Row, error) {
	rows, err := s.leaves(ctx, `WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3`, after, through, limit)
	return rows, wrap("read entries", err)
}

func (s *Store) leaves(ctx context.Context, tail string, args ...any) ([]audit.Row, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT seq, ts, action, body, row_hmac FROM audit_log `+tail, args...)
	return collect(rows, err, func(r *audit.Row) []any { return []any{&r.Seq, storedTime{&r.TS}, &r.Action, &r.Body, &r.RowHMAC} })
}

// AuditNewActions tells what the entries behind a number are about, as rows with number and action only.
func (s *Store) AuditNewActions(ctx context.Context, after int64, limit int) ([]audit.Row, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT seq, action FROM audit_log WHERE seq > $1 ORDER BY seq LIMIT $2`, after, limit)
	out, err := collect(rows, err, func(r *audit.Row) []any { return []any{&r.Seq, &r.Action} })
	return out, wrap("read new entries", err)
}

// AuditLineEntries returns the proved entries behind a number and up to another that anchors keep lines of; last is the
// number up to which it looked.
func (s *Store) AuditLineEntries(ctx context.Context, after, through int64, limit int) (entries []audit.Row, last int64, err error) {
	last = through
	var rows []audit.Row
	for _, action := range audit.Lines() {
		some, err := s.auditRows(ctx, s.read, spanOfAction, string(action), after, through, limit)
		if err != nil {
			return nil, after, wrap("read entries for anchors", err)
		}
		if len(some) == limit {
			last = min(last, some[limit-1].Seq)
		}
		rows = append(rows, some...)
	}
	slices.SortFunc(rows, func(a, b audit.Row) int { return cmp.Compare(a.Seq, b.Seq) })
	for i := range rows {
		if _, ok := s.proved(&rows[i]); ok && rows[i].Seq <= last {
			entries = append(entries, rows[i])
		}
	}
	return entries, last, nil
}

// ErasedBy lists the personal parts that an audit.erased took.
func (s *Store) ErasedBy(ctx context.Context, seq int64) ([]audit.ErasedPart, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT seq, role FROM audit_personal WHERE erased_by = $1 ORDER BY seq, role`, seq)
	out, err := collect(rows, err, func(p *audit.ErasedPart) []any { return []any{&p.Seq, &p.Role} })
	return out, wrap("read what was erased", err)
}

// PruneBoundary returns where the log begins, as its newest proved audit.pruned says; the zero Boundary if at row 1.
func (s *Store) PruneBoundary(ctx context.Context) (audit.Boundary, error) {
	return s.boundary(ctx, s.read)
}

// keptCheckpoints is how many checkpoints stay in the database: those of a month. The anchors keep all.
const keptCheckpoints = 50_000

// PutCheckpoint keeps a signed checkpoint, and the peaks of its tree for the next one.
func (s *Store) PutCheckpoint(ctx context.Context, c audit.Checkpoint, note string, peaks []byte) error {
	return s.transact(ctx, func(tx *Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO audit_checkpoints (generation, size, root, row_hmac, timeline, note, created_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (generation, size) DO NOTHING`, c.Generation, c.Size, c.Root[:], c.RowHMAC, c.Timeline, note, TimeAt(c.Time))
		if err != nil {
			return wrap("keep checkpoint", err)
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM audit_checkpoints WHERE generation = $1 AND size <= coalesce(
			(SELECT size FROM audit_checkpoints WHERE generation = $1 ORDER BY size DESC LIMIT 1 OFFSET $2), -1)`, c.Generation, keptCheckpoints)
		if err != nil {
			return wrap("delete old checkpoints", err)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO audit_frontier (id, generation, size, peaks) VALUES (1, $1, $2, $3)
			ON CONFLICT (id) DO UPDATE SET generation = excluded.generation, size = excluded.size, peaks = excluded.peaks`, c.Generation, c.Size, peaks)
		return wrap("keep the peaks of the tree", err)
	})
}

// Frontier is the tree where the newest checkpoint left it. Nothing but a signed root says that it is right.
type Frontier struct {
	Generation string
	Size       int64
	Peaks      []byte
}

// Frontier returns what PutCheckpoint kept last, or ErrNotFound.
func (s *Store) Frontier(ctx context.Context) (f Frontier, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT generation, size, peaks FROM audit_frontier`).Scan(&f.Generation, &f.Size, &f.Peaks)
	return f, wrap("read the peaks of the tree", err)
}

// NewestCheckpoint names the newest checkpoint that the database keeps, proved or not; the zero one if there is none.
func (s *Store) NewestCheckpoint(ctx context.Context) (c audit.Checkpoint, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT generation, size FROM audit_checkpoints
		WHERE generation = (SELECT generation FROM audit_generations ORDER BY started DESC, generation LIMIT 1) ORDER BY size DESC LIMIT 1`).Scan(&c.Generation, &c.Size)
	return noneIsZero(c, wrap("read newest checkpoint", err))
}

// CheckpointNotes returns the notes of a generation's checkpoints behind a size, in order.
func (s *Store) CheckpointNotes(ctx context.Context, generation string, after int64, limit int) ([]string, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT note FROM audit_checkpoints WHERE generation = $1 AND size > $2 ORDER BY size LIMIT $3`, generation, after, limit)
	out, err := collect(rows, err, func(n *string) []any { return []any{n} })
	return out, wrap("read checkpoints", err)
}

// NewestCheckpointNotes returns the notes of a generation's newest checkpoints, the newest first.
func (s *Store) NewestCheckpointNotes(ctx context.Context, generation string, limit int) ([]string, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT note FROM audit_checkpoints WHERE generation = $1 ORDER BY size DESC LIMIT $2`, generation, limit)
	out, err := collect(rows, err, func(n *string) []any { return []any{n} })
	return out, wrap("read checkpoints", err)
}
