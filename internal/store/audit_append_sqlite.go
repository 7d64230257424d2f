package store

import (
	"context"
	"strings"
)

// sqliteHead is headText for SQLite: the clock is the host's, commits are durable by the connection's pragma, and there
// is no timeline.
var sqliteHead = strings.NewReplacer("{clock}", "0", "{durable}", "1", "{timeline}", "0").Replace(headText)

// lockHeadSQLite reads the head: the write transaction is the lock.
func (s *Store) lockHeadSQLite(ctx context.Context, tx *Tx, kid string, seen int64) (h head, err error) {
	var ts *Time
	err = tx.QueryRowContext(ctx, sqliteHead, kid, seen).
		Scan(append([]any{&h.seq, &h.rowHMAC, &ts, &h.clock, &h.durable, &h.timeline}, h.tail()...)...)
	h.ts, h.clock = ts.Micros(), TimeOf(s.now()).UnixMicro()
	return h, err
}

// insertAuditSQLite writes rows, and makes sure that each was written: a trigger may eat one.
func (s *Store) insertAuditSQLite(ctx context.Context, tx *Tx, rows []sealed) error {
	exec := func(text string, args []any) error {
		res, err := tx.ExecContext(ctx, text, args...)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return err
		}
		return inserted(n)
	}
	for i := range rows {
		if err := exec(insertAudit, rows[i].args()); err != nil {
			return err
		}
		for j := range rows[i].parts {
			if err := exec(insertPersonal, personalArgs(&rows[i].parts[j])); err != nil {
				return err
			}
		}
	}
	return nil
}
