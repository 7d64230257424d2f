package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/ncruces/go-sqlite3"
	sqlitedriver "github.com/ncruces/go-sqlite3/driver"
)

// pragmas of every SQLite connection; the time-out comes first, as the others may meet a lock. auto_vacuum holds for new files only. synchronous FULL: NORMAL loses acknowledged commits in a power cut.
var pragmas = []string{
	"busy_timeout(10000)", "auto_vacuum(INCREMENTAL)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)", "wal_autocheckpoint(4000)", "temp_store(MEMORY)",
}

// Page caches, in KiB: one writer that goes all over the file, readers that follow an index.
const (
	writeCache = 32 << 10
	readCache  = 4 << 10
)

func (s *Store) openSQLite(ctx context.Context, path string) (err error) {
	s.dialect = sqliteDialect
	s.path, s.file = path, &fileWatch{path: path}
	if s.write, err = openSQLiteFile(path, "immediate", writeCache, s.file); err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	if s.read, err = openSQLiteFile(path, "deferred", readCache, s.file); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(sqliteReads)
	s.read.SetMaxIdleConns(sqliteReads)
	release, err := lockSQLite(path) // two that make a new file WAL at once: SQLite refuses one without waiting
	if err != nil {
		return err
	}
	if err = errors.Join(s.write.PingContext(ctx), release()); err != nil {
		return err
	}
	return s.file.see()
}

// sqliteDSN is the data source name for path, as SQLite's own URI syntax wants it, so that "#" and "?" are plain letters.
func sqliteDSN(path, txlock string, cacheKiB int) string {
	q := url.Values{"_pragma": append(slices.Clone(pragmas), "cache_size(-"+strconv.Itoa(cacheKiB)+")"), "_txlock": {txlock}}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

func openSQLiteFile(path, txlock string, cacheKiB int, watch *fileWatch) (*sql.DB, error) {
	c, err := (&sqlitedriver.SQLite{}).OpenConnector(sqliteDSN(path, txlock, cacheKiB))
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(numbered{c, watch}), nil
}

// numbered makes $1 in our one text mean SQLite's ?1: to SQLite itself $1 is a name, bound in order of appearance.
type numbered struct {
	driver.Connector

	watch *fileWatch // nil: whatever lies at the path is right
}

// Connect opens a connection that rewrites parameters.
func (n numbered) Connect(ctx context.Context) (driver.Conn, error) {
	if n.watch == nil {
		c, err := n.Connector.Connect(ctx)
		return numberedConn{c}, err
	}
	if err := n.watch.check(); err != nil { // or a new file would be made
		return nil, err
	}
	c, err := n.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	file, err := os.Stat(n.watch.path)
	if err != nil {
		file = nil // it is thrown away before it is used again
	}
	return watchedConn{numberedConn{c}, n.watch, file}, nil
}

type numberedConn struct{ driver.Conn }

// PrepareContext prepares query with its parameters rewritten.
func (c numberedConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if p, ok := c.Conn.(driver.ConnPrepareContext); ok {
		return p.PrepareContext(ctx, numberParameters(query))
	}
	return c.Prepare(numberParameters(query))
}

// BeginTx passes the options on.
func (c numberedConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	if b, ok := c.Conn.(driver.ConnBeginTx); ok {
		return b.BeginTx(ctx, o)
	}
	return nil, errors.New("the SQLite driver begins no transactions")
}

// ExecContext runs scripts of several statements, which have no parameters; the rest is prepared.
func (c numberedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	e, ok := c.Conn.(driver.ExecerContext)
	if !ok || len(args) > 0 {
		return nil, driver.ErrSkip
	}
	return e.ExecContext(ctx, query, args)
}

// numberParameters turns each $N outside of quotes and comments into ?N.
func numberParameters(q string) string {
	if !strings.Contains(q, "$") {
		return q
	}
	b := []byte(q)
	quote := byte(0)
	for i := range b {
		switch c := b[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '-' && i+1 < len(b) && b[i+1] == '-':
			quote = '\n'
		case c == '$' && i+1 < len(b) && b[i+1] >= '0' && b[i+1] <= '9':
			b[i] = '?'
		}
	}
	return string(b)
}

func isSQLiteUnique(err error) bool {
	return errors.Is(err, sqlite3.CONSTRAINT_UNIQUE) || errors.Is(err, sqlite3.CONSTRAINT_PRIMARYKEY)
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
