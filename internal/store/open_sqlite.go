package store

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// pragmas of every SQLite connection. synchronous FULL: NORMAL loses acknowledged commits in a power cut.
var pragmas = []string{
	"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)",
	"cache_size(-65536)", "wal_autocheckpoint(4000)", "temp_store(MEMORY)",
}

func (s *Store) openSQLite(ctx context.Context, path string) (err error) {
	s.dialect = sqliteDialect
	s.path = path
	if s.read, err = openSQLiteFile(path, nil); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(sqliteReads)
	s.read.SetMaxIdleConns(sqliteReads)
	if s.write, err = openSQLiteFile(path, url.Values{"_txlock": {"immediate"}}); err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	return s.write.PingContext(ctx)
}

func openSQLiteFile(path string, q url.Values) (*sql.DB, error) {
	if q == nil {
		q = url.Values{}
	}
	q["_pragma"] = pragmas
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}
	return sql.Open("sqlite", u.String())
}

func isSQLiteUnique(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

// lockSQLite holds the lock file beside the database until release is called, so that two processes never migrate at once.
func lockSQLite(path string) (release func() error, err error) {
	f, err := os.OpenFile(filepath.Clean(path)+"-lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil // closing ends the lock
}
