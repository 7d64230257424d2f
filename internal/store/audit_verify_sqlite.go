package store

import (
	"context"
	"fmt"

	"github.com/ncruces/go-sqlite3"
	sqlitedriver "github.com/ncruces/go-sqlite3/driver"

	"github.com/z4j-go/z4j/internal/audit"
)

// countAuditSQLite counts the rows after a number up to another along the smallest index: the table would be read whole.
func (s *Store) countAuditSQLite(ctx context.Context, after, through int64) (n int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT count(*) FROM audit_log WHERE seq + 0 > $1 AND seq + 0 <= $2`, after, through).Scan(&n)
	return n, err
}

// readPageSQLite checks the rows of a page where the database has them in memory, without copying them.
func (s *Store) readPageSQLite(ctx context.Context, p *pageChecker) error {
	conn, err := s.read.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(driver any) error {
		lite, err := liteConn(driver)
		if err != nil {
			return err
		}
		defer lite.SetInterrupt(lite.SetInterrupt(ctx))
		stmt, _, err := lite.Prepare(numberParameters(selectPage))
		if err != nil {
			return err
		}
		defer stmt.Close()
		if err := stmt.BindInt64(1, p.page.after); err != nil {
			return err
		}
		if err := stmt.BindInt64(2, p.page.through); err != nil {
			return err
		}
		for stmt.Step() {
			r := columnsSQLite(stmt)
			p.columns(&r)
		}
		return stmt.Err()
	})
}

func liteConn(driver any) (*sqlite3.Conn, error) {
	switch n := driver.(type) {
	case watchedConn:
		driver = n.Conn
	case numberedConn:
		driver = n.Conn
	}
	c, ok := driver.(sqlitedriver.Conn)
	if !ok {
		return nil, fmt.Errorf("the driver is %T", driver)
	}
	return c.Raw(), nil
}

// columnsSQLite sorts the columns of selectPage. SQLite stores any value in any column, so types are looked at.
func columnsSQLite(stmt *sqlite3.Stmt) audit.Columns {
	column := func(i int, want sqlite3.Datatype) []byte {
		var value []byte
		switch stmt.ColumnType(i) {
		case sqlite3.NULL:
			return nil
		case want:
			value = stmt.ColumnRawBlob(i)
		default:
			return audit.Odd(stmt.ColumnRawBlob(i))
		}
		if value == nil {
			value = []byte{}
		}
		return value
	}
	text := func(i int) []byte { return column(i, sqlite3.TEXT) }
	r := audit.Columns{
		Seq: stmt.ColumnInt64(0), ID: column(1, sqlite3.BLOB), TS: notSigned,
		ActorKind: text(3), ActorID: text(4), ProjectID: text(5), ProjectLabel: text(6), Action: text(7), TargetType: text(8), TargetID: text(9),
		TargetLabel: text(10), Outcome: text(11), Details: text(12), RequestID: text(13), KID: text(14), ActorPersonal: text(15), TargetPersonal: text(16),
		Body: column(17, sqlite3.BLOB), PrevRowHMAC: text(18), RowHMAC: text(19),
	}
	if stmt.ColumnType(2) == sqlite3.INTEGER {
		r.TS = stmt.ColumnInt64(2)
	}
	return r
}
