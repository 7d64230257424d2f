package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

// sqliteTarget is a file that is being filled, beside the one that it becomes.
type sqliteTarget struct {
	path   string // of the database that is wanted
	file   string // of the one that is being filled
	lock   *os.File
	later  []string   // indexes, which come after the rows
	mu     sync.Mutex // the file has one writer
	vfs    string     // that conn goes through; "": none yet
	conn   *sqlite3.Conn
	insert map[string]*sqlite3.Stmt
	begun  int // rows of the open transaction
}

const (
	restoringSuffix = "-restoring"
	loadCache       = 24 << 10 // KiB: primary keys come in no order
	indexCache      = 16 << 10 // KiB, and as much again to sort in: indexes are written in theirs
	analysisLimit   = 1000     // rows of an index that are looked at for each number that the planner wants
	loadCommit      = 100_000  // rows between two commits, so that what is not on the disk stays bounded
)

// sqliteBeside are the files that SQLite keeps beside a database.
var sqliteBeside = []string{"-wal", "-shm", "-journal"}

func openSQLiteTarget(path string) (_ *sqliteTarget, err error) {
	if _, err := checkSQLiteTarget(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	t := &sqliteTarget{path: path, file: path + restoringSuffix, insert: map[string]*sqlite3.Stmt{}}
	if t.lock, err = lockRestore(path + "-restore-lock"); err != nil {
		return nil, err
	}
	return t, nil
}

// checkSQLiteTarget is CheckTarget.
func checkSQLiteTarget(path string) (note string, err error) {
	if err := refuseLiveFile(path); err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && info.Mode().IsRegular() && info.Size() == 0:
	case err != nil:
		return "", err
	default:
		return "", fmt.Errorf("%w: a restore never writes over data: move %s and the files beside it away first, or name another file with --into", ErrNotEmpty, path)
	}
	for _, suffix := range sqliteBeside {
		if _, err := os.Lstat(path + suffix); err == nil {
			note = path + suffix + " is of an earlier database: it will be moved aside"
		}
	}
	return note, nil
}

// roomFor refuses a directory without room for so many bytes.
func roomFor(path string, need int64) error {
	dir := filepath.Dir(path)
	for { // the directory may have to be made
		free, err := freeBytes(dir)
		if errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
			continue
		}
		if err == nil && free < uint64(max(need, 0)) {
			err = fmt.Errorf("%w: the database needs about %d MiB and %s has %d MiB", ErrNoRoom, need>>20+1, dir, free>>20)
		}
		return err
	}
}

// lockRestore makes and locks the file that says that a restore runs.
func lockRestore(path string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Clean(path), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	mine, err1 := f.Stat()
	there, err2 := os.Stat(path)
	if err != nil || err1 != nil || err2 != nil || !os.SameFile(mine, there) { // who held it may have removed it just now
		return nil, errors.Join(fmt.Errorf("%w: another restore is running on it", ErrInUse), f.Close())
	}
	return f, nil
}

// remove takes away the file that is being filled and what is beside it.
func (t *sqliteTarget) remove() error {
	var errs []error
	for _, suffix := range append([]string{"", "-lock"}, sqliteBeside...) {
		if err := os.Remove(t.file + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (t *sqliteTarget) begin(ctx context.Context, schema int64, tables []*shape) (err error) {
	if err := t.remove(); err != nil { // what a killed restore left
		return err
	}
	f, err := os.OpenFile(filepath.Clean(t.file), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	t.conn, err = sqlite3.OpenContext(ctx, "file:"+(&url.URL{Path: t.file}).EscapedPath())
	if err != nil {
		return err
	}
	if err := t.conn.Exec(`PRAGMA auto_vacuum = INCREMENTAL; CREATE TABLE ` + restoringTable + ` (since integer)`); err != nil {
		return err
	}
	if err := t.conn.Close(); err != nil {
		return err
	}
	t.conn = nil
	if err := t.migrate(ctx, schema); err != nil {
		return err
	}
	// The file is nothing until it is whole, so that nothing has to survive a crash before.
	if t.vfs, err = registerTempVFS(t.file); err != nil {
		return err
	}
	t.conn, err = sqlite3.OpenContext(ctx, fmt.Sprintf("file:%s?vfs=%s&_pragma=journal_mode(OFF)&_pragma=synchronous(OFF)&_pragma=locking_mode(EXCLUSIVE)"+
		"&_pragma=foreign_keys(OFF)&_pragma=temp_store(FILE)&_pragma=cache_size(-%d)", (&url.URL{Path: t.file}).EscapedPath(), url.QueryEscape(t.vfs), loadCache))
	if err != nil {
		return err
	}
	var drops []string
	st, _, err := t.conn.Prepare(`SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL`)
	if err != nil {
		return err
	}
	for st.Step() {
		drops = append(drops, `DROP INDEX `+quoted(st.ColumnText(0)))
		t.later = append(t.later, st.ColumnText(1))
	}
	if err := errors.Join(st.Err(), st.Close()); err != nil {
		return err
	}
	for _, table := range tables {
		drops = append(drops, `DELETE FROM `+quoted(table.name))
	}
	for _, text := range drops {
		if err := t.conn.Exec(text); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	return nil
}

// migrate makes the schema, with the file in the mode that bulk loading wants.
func (t *sqliteTarget) migrate(ctx context.Context, schema int64) (err error) {
	s := &Store{}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.openSQLite(ctx, t.file); err != nil {
		return err
	}
	p, err := s.provider()
	if err != nil {
		return err
	}
	_, err = p.UpTo(ctx, schema)
	return err
}

func (t *sqliteTarget) load(ctx context.Context, table *shape, r *Rows, c *Content) (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.conn.SetInterrupt(t.conn.SetInterrupt(ctx))
	st := t.insert[table.name]
	if st == nil {
		numbers := make([]byte, 0, 2*len(table.columns))
		for range table.columns {
			numbers = append(numbers, ',', '?')
		}
		st, _, err = t.conn.Prepare(`INSERT INTO ` + quoted(table.name) + ` (` + quotedList(table.names()) + `) VALUES (` + string(numbers[1:]) + `)`)
		if err != nil {
			return err
		}
		t.insert[table.name] = st
	}
	for r.Next() {
		c.row(r.at)
		if t.begun == 0 {
			if err := t.conn.Exec(`BEGIN`); err != nil {
				return err
			}
		}
		for i := range r.cells {
			if err := bindCell(st, i+1, r.Columns[i].Kind, &r.cells[i]); err != nil {
				return fmt.Errorf("row %d: column %s: %w", r.n, r.Columns[i].Name, err)
			}
		}
		if err := st.Exec(); err != nil {
			return errors.Join(ctx.Err(), fmt.Errorf("row %d: %w", r.n, err))
		}
		if t.begun++; t.begun >= loadCommit {
			if err := t.commit(); err != nil {
				return err
			}
		}
	}
	return r.Err()
}

func (t *sqliteTarget) commit() error {
	if t.begun == 0 {
		return nil
	}
	t.begun = 0
	return t.conn.Exec(`COMMIT`)
}

func bindCell(st *sqlite3.Stmt, param int, k Kind, c *Cell) error {
	switch {
	case c.Null:
		return st.BindNull(param)
	case k == KindText:
		return st.BindRawText(param, c.Bytes)
	case k == KindBytes || k == KindUUID:
		return st.BindBlob(param, c.Bytes)
	}
	return st.BindInt64(param, c.Int)
}

func (t *sqliteTarget) finish(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.conn.SetInterrupt(t.conn.SetInterrupt(ctx))
	if err := t.commit(); err != nil {
		return err
	}
	for _, st := range t.insert {
		if err := st.Close(); err != nil {
			return err
		}
	}
	t.insert = map[string]*sqlite3.Stmt{}
	smaller := fmt.Sprintf(`PRAGMA cache_size = -%d; PRAGMA shrink_memory`, indexCache)
	for _, text := range append([]string{smaller}, t.later...) {
		if err := t.conn.Exec(text); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	if err := t.conn.Exec(fmt.Sprintf(`PRAGMA analysis_limit = %d; ANALYZE`, analysisLimit)); err != nil {
		return fmt.Errorf("analyze: %w", err)
	}
	return errors.Join(t.disconnect(), syncFile(t.file))
}

// disconnect ends what fills the file.
func (t *sqliteTarget) disconnect() error {
	if t.conn == nil {
		return nil
	}
	err := t.conn.Close()
	t.conn = nil
	if t.vfs != "" {
		vfs.Unregister(t.vfs)
	}
	return err
}

func (t *sqliteTarget) content(ctx context.Context, tables []*shape) (map[string]Content, error) {
	source := &sqliteSnapshot{}
	snap := &Snapshot{source: source}
	for _, table := range tables {
		snap.tables = append(snap.tables, *table)
	}
	var err error
	for range snapshotReaders {
		var c *sqlite3.Conn
		if c, err = sqlite3.OpenFlags("file:"+(&url.URL{Path: t.file}).EscapedPath()+"?immutable=1", sqlite3.OPEN_READONLY|sqlite3.OPEN_URI); err != nil {
			break
		}
		source.conns = append(source.conns, c)
	}
	defer func() { err = errors.Join(err, source.close()) }()
	if err != nil {
		return nil, err
	}
	return snap.content(ctx, snapshotReaders)
}

func (t *sqliteTarget) url() string { return "sqlite:" + t.file }

// release puts the file in its place. A WAL that an earlier database left there would be replayed over it: it is moved aside.
func (t *sqliteTarget) release(context.Context) error {
	if err := syncFile(t.file); err != nil {
		return err
	}
	for _, suffix := range sqliteBeside {
		if info, err := os.Stat(t.file + suffix); err == nil && info.Size() > 0 && suffix == "-wal" {
			return fmt.Errorf("%s is not empty: the database is still open", t.file+suffix)
		}
		if err := os.Remove(t.file + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := setAside(t.path + suffix); err != nil {
			return err
		}
	}
	if err := os.Rename(t.file, t.path); err != nil {
		return err
	}
	return errors.Join(syncFile(filepath.Dir(t.path)), t.remove(), t.unlock())
}

// setAside renames a file that is in the way, and keeps it.
func setAside(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for n := range math.MaxInt16 {
		to := fmt.Sprintf("%s.before-restore-%d", path, n)
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			return os.Rename(path, to)
		}
	}
	return fmt.Errorf("move %s away: there are too many like it", path)
}

func syncFile(path string) error {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (t *sqliteTarget) unlock() error {
	if t.lock == nil {
		return nil
	}
	err := errors.Join(os.Remove(t.lock.Name()), t.lock.Close())
	t.lock = nil
	return err
}

func (t *sqliteTarget) drop(context.Context) error {
	var errs []error
	for _, st := range t.insert {
		_ = st.Close() // gives its last error once more
	}
	return errors.Join(append(errs, t.disconnect(), t.remove(), t.unlock())...)
}
