package store

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/ncruces/go-sqlite3"
)

// Refused reports whether the database will never take what it was given, however often it is asked: a value that it
// can't hold, a broken rule. ErrConflict is none of these: somebody else was first, and asking again helps.
func Refused(err error) bool {
	if err == nil || errors.Is(err, ErrConflict) {
		return false
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		// 22: data exception; 23: integrity; 54: program limit exceeded (a value or index row too large).
		return strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "23") || strings.HasPrefix(pg.Code, "54")
	}
	return errors.Is(err, sqlite3.TOOBIG) || errors.Is(err, sqlite3.CONSTRAINT) || errors.Is(err, sqlite3.MISMATCH)
}

// Code names a database's error without quoting what it is about: Postgres's SQLSTATE or SQLite's name for it.
func Code(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	if lite, ok := errors.AsType[*sqlite3.Error](err); ok {
		return lite.ExtendedCode().Error()
	}
	return "unknown"
}
