package store

import (
	"bytes"
	"context"
	"errors"
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
		err = stepSQLite(lite, selectPersonal, p.page.after, p.page.through, func(stmt *sqlite3.Stmt) { p.parts = append(p.parts, personalSQLite(stmt)) })
		if err != nil {
			return err
		}
		return stepSQLite(lite, selectPage, p.page.after, p.page.through, func(stmt *sqlite3.Stmt) {
			r := columnsSQLite(stmt)
			p.columns(&r)
		})
	})
}

// stepSQLite gives the rows of a page to row, one by one.
func stepSQLite(lite *sqlite3.Conn, query string, after, through int64, row func(*sqlite3.Stmt)) error {
	stmt, _, err := lite.Prepare(numberParameters(query))
	if err != nil {
		return err
	}
	defer stmt.Close()
	if err := errors.Join(stmt.BindInt64(1, after), stmt.BindInt64(2, through)); err != nil {
		return err
	}
	for stmt.Step() {
		row(stmt)
	}
	return stmt.Err()
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

// columnSQLite returns the bytes of a column, nil for NULL. SQLite stores any value in any column, so types are looked at.
func columnSQLite(stmt *sqlite3.Stmt, i int, want sqlite3.Datatype) []byte {
	switch stmt.ColumnType(i) {
	case sqlite3.NULL:
		return nil
	case want:
		if value := stmt.ColumnRawBlob(i); value != nil {
			return value
		}
		return []byte{}
	default:
		return audit.Odd(stmt.ColumnRawBlob(i))
	}
}

// personalSQLite sorts the columns of selectPersonal.
func personalSQLite(stmt *sqlite3.Stmt) audit.Personal {
	text := func(i int) audit.Text {
		b := columnSQLite(stmt, i, sqlite3.TEXT)
		return audit.Text{S: string(b), Set: b != nil}
	}
	p := audit.Personal{Seq: stmt.ColumnInt64(0), Subject: text(2), Salt: bytes.Clone(columnSQLite(stmt, 3, sqlite3.BLOB)), JSON: text(4)}
	switch role := columnSQLite(stmt, 1, sqlite3.TEXT); string(role) {
	case audit.RoleActor:
		p.Role = audit.RoleActor
	case audit.RoleTarget:
		p.Role = audit.RoleTarget
	default:
		p.Role = string(role)
	}
	if kind := stmt.ColumnType(5); kind != sqlite3.NULL {
		p.ErasedBy = stmt.ColumnInt64(5)
		if kind != sqlite3.INTEGER || p.ErasedBy == 0 {
			p.ErasedBy = notSigned
		}
	}
	return p
}

// columnsSQLite sorts the columns of selectPage.
func columnsSQLite(stmt *sqlite3.Stmt) audit.Columns {
	column := func(i int, want sqlite3.Datatype) []byte { return columnSQLite(stmt, i, want) }
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
