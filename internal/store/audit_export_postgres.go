package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/z4j-go/z4j/internal/audit"
)

// exportRowsPostgres is auditRows in the bytes that the database sends, which takes half the time.
func (s *Store) exportRowsPostgres(ctx context.Context, tail string, args ...any) ([]audit.Row, error) {
	rows, err := s.pool.Query(ctx, s.sql(`SELECT `+auditColumns+` FROM audit_log `+tail), append([]any{pgx.QueryResultFormats{pgx.BinaryFormatCode}}, args...)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for _, f := range rows.FieldDescriptions() {
		if f.Format != pgx.BinaryFormatCode { // a URL that asks for the simple protocol
			rows.Close()
			if err := rows.Err(); err != nil {
				return nil, err
			}
			return s.auditRows(ctx, s.read, tail, args...)
		}
	}
	out := []audit.Row{}
	for rows.Next() {
		c, err := columnsPostgres(rows.RawValues())
		if err != nil {
			return nil, errors.Join(err, rows.Err())
		}
		out = append(out, c.Row())
	}
	return out, rows.Err()
}
