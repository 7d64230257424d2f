package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/ncruces/go-sqlite3"
)

// Unavailable reports whether err says that the database can't be reached, or can't work now: that nothing is wrong with
// what was asked, and asking again later may help.
func Unavailable(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		// 08: connection; 53: no disk, no memory, too many connections; 57P: shutting down or starting; 25006: a standby;
		// 57014 and 55P03: our own time-outs.
		return strings.HasPrefix(pg.Code, "08") || strings.HasPrefix(pg.Code, "53") || strings.HasPrefix(pg.Code, "57P") ||
			pg.Code == "25006" || pg.Code == "57014" || pg.Code == "55P03"
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok || died(err) {
		return true
	}
	if _, ok := errors.AsType[*net.OpError](err); ok { // not net.Error: SQLite's errors of every kind are ones
		return true
	}
	return errors.Is(err, sql.ErrConnDone) || errors.Is(err, ErrDatabaseGone) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, sqlite3.BUSY) || errors.Is(err, sqlite3.FULL) || errors.Is(err, sqlite3.IOERR) || errors.Is(err, sqlite3.READONLY)
}

// died reports whether err says that a connection of a pool was found dead before it did anything, as all of them are
// when the database went away and came back. Another one may live.
func died(err error) bool {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return false // there is no other one
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code == "57P01" || pg.Code == "57P02" // the server's last word on it, read only now
	}
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || pgconn.SafeToRetry(err)
}
