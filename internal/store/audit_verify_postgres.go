package store

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/z4j-go/z4j/internal/audit"
)

// countStep is how many rows one statement counts: far less than what the time limit of a statement allows.
const countStep = 200_000

// countAuditPostgres counts the rows after a number up to another, in steps.
func (s *Store) countAuditPostgres(ctx context.Context, after, through int64) (total int64, err error) {
	for {
		var n int64
		var last *int64
		err := s.read.QueryRowContext(ctx, `SELECT count(*), max(seq) FROM (SELECT seq FROM audit_log WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3) AS step`,
			after, through, countStep).Scan(&n, &last)
		if err != nil || n == 0 {
			return total, err
		}
		total, after = total+n, *last
	}
}

// readPagePostgres checks the rows of a page in the bytes that the database sends, without copying them.
func (s *Store) readPagePostgres(ctx context.Context, p *pageChecker) error {
	parts, err := s.personalPage(ctx, p.page.after, p.page.through)
	if err != nil {
		return err
	}
	p.parts = parts
	rows, err := s.pool.Query(ctx, selectPage, pgx.QueryResultFormats{pgx.BinaryFormatCode}, p.page.after, p.page.through)
	if err != nil {
		return err
	}
	defer rows.Close()
	for _, f := range rows.FieldDescriptions() {
		if f.Format != pgx.BinaryFormatCode { // a URL that asks for the simple protocol
			rows.Close()
			return errors.Join(rows.Err(), s.readPageSlowly(ctx, p))
		}
	}
	for rows.Next() {
		r, err := columnsPostgres(rows.RawValues())
		if err != nil {
			return err
		}
		p.columns(&r)
	}
	return rows.Err()
}

// readPageSlowly is for connections that send text.
func (s *Store) readPageSlowly(ctx context.Context, p *pageChecker) error {
	rows, err := s.auditRows(ctx, s.read, `WHERE seq > $1 AND seq <= $2 ORDER BY seq`, p.page.after, p.page.through)
	if err != nil {
		return err
	}
	for i := range rows {
		p.page.rows = append(p.page.rows, p.c.Stored(&rows[i], p.before(rows[i].Seq)))
	}
	return nil
}

// columnsPostgres sorts the columns of selectPage, which are in binary form.
func columnsPostgres(raw [][]byte) (r audit.Columns, err error) {
	if len(raw) != 20 || len(raw[0]) != 8 {
		return r, errors.New("audit_log has another form than it was made with")
	}
	r = audit.Columns{
		Seq: int64(binary.BigEndian.Uint64(raw[0])), ID: raw[1], TS: notSigned,
		ActorKind: raw[3], ActorID: raw[4], ProjectID: raw[5], ProjectLabel: raw[6], Action: raw[7], TargetType: raw[8], TargetID: raw[9],
		TargetLabel: raw[10], Outcome: raw[11], Details: raw[12], RequestID: raw[13], KID: raw[14], ActorPersonal: raw[15], TargetPersonal: raw[16],
		Body: raw[17], PrevRowHMAC: raw[18], RowHMAC: raw[19],
	}
	if len(raw[2]) == 8 {
		r.TS = int64(binary.BigEndian.Uint64(raw[2])) + epoch2000 // infinity overflows to what was never signed
	}
	return r, nil
}
