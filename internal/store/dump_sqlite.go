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
	"slices"
	"syscall"
	"time"

	"github.com/ncruces/go-sqlite3"
)

// sqliteSnapshot reads a copy of the database: a long reader of the live file would let its WAL grow without end.
type sqliteSnapshot struct {
	conns []*sqlite3.Conn
	drop  func() error // removes the copy
}

const (
	copyPattern  = "z4j-snapshot-*.tmp"
	copyPieces   = 200_000                // rows of a table that are read as one piece
	maxPieces    = 1 << 12                // of a table, whatever its numbers are
	truncateWait = 200 * time.Millisecond // for readers that keep the WAL from being cut: ingest waits as long
)

func (s *Store) snapshotSQLite(ctx context.Context, snap *Snapshot, o SnapshotOptions) error {
	dir, err := s.dirForCopy(ctx, o)
	if err != nil {
		return err
	}
	return s.snapshotIn(ctx, snap, o, dir)
}

// dirForCopy chooses where the copy is made, and clears away what killed backups left in each place.
func (s *Store) dirForCopy(ctx context.Context, o SnapshotOptions) (string, error) {
	dirs := append(slices.Clip(o.TempDirs), filepath.Dir(s.path))
	if o.TempDir != "" {
		dirs = []string{o.TempDir}
	}
	for _, dir := range dirs {
		if err := removeStaleCopies(dir); err != nil {
			return "", err
		}
	}
	var full []error
	for i, dir := range dirs {
		last := i == len(dirs)-1
		err := s.roomForCopy(ctx, dir, !last)
		if err == nil {
			return dir, nil
		}
		full = append(full, err)
	}
	return "", errors.Join(full...)
}

// snapshotIn takes the snapshot with a copy in dir.
func (s *Store) snapshotIn(ctx context.Context, snap *Snapshot, o SnapshotOptions, dir string) error {
	path, drop, err := lockedCopy(dir)
	if err != nil {
		return err
	}
	source := &sqliteSnapshot{drop: drop}
	snap.source = source
	snap.info.Time = TimeOf(s.now())
	if err := s.vacuumInto(ctx, path); isFull(err, dir) {
		return fmt.Errorf("%w for the copy that a backup reads: %s is full, and nothing is left of the copy; name a directory with room in --tmp or Z4J_BACKUP_TMP", ErrNoRoom, dir)
	} else if err != nil {
		return fmt.Errorf("copy the database into %s: %w", dir, err)
	}
	s.truncateWAL(ctx)
	for range o.Readers {
		c, err := sqlite3.OpenFlags("file:"+(&url.URL{Path: path}).EscapedPath()+"?immutable=1", sqlite3.OPEN_READONLY|sqlite3.OPEN_URI)
		if err != nil {
			return fmt.Errorf("open the copy: %w", err)
		}
		source.conns = append(source.conns, c)
	}
	if err := source.describe(&snap.info); err != nil {
		return err
	}
	return source.dropCopy() // who has it open reads on; a kill leaves nothing behind
}

// roomForCopy refuses what would fill the disk. With ample half as much again has to be free, for the archive: it may be
// written to the same disk, and others of dirForCopy's may be larger.
func (s *Store) roomForCopy(ctx context.Context, dir string, ample bool) error {
	var need uint64
	err := s.read.QueryRowContext(ctx, `SELECT (page_count - freelist_count) * page_size
		FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()`).Scan(&need)
	if err != nil {
		return wrap("size of the database", err)
	}
	if ample {
		need += need / 2
	}
	free, err := freeBytes(dir)
	if err != nil {
		return err
	}
	if free < need {
		return fmt.Errorf("%w for the copy that a backup reads: it needs %d MiB and %s has %d MiB; name a directory with room in --tmp or Z4J_BACKUP_TMP",
			ErrNoRoom, need>>20+1, dir, free>>20)
	}
	return nil
}

// isFull reports whether err, of writing into dir, is for want of room: what the system said of a failed write is lost on
// the way through SQLite.
func isFull(err error, dir string) bool {
	const nothing = 1 << 20 // bytes: too little for the next pages
	if !errors.Is(err, sqlite3.IOERR) {
		return errors.Is(err, sqlite3.FULL)
	}
	free, err := freeBytes(dir)
	return err == nil && free < nothing
}

// freeBytes is how much an unprivileged user may write into dir.
func freeBytes(dir string) (uint64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}

// lockedCopy makes an empty file in dir that is locked as long as it is there, so that another run leaves it alone.
func lockedCopy(dir string) (path string, drop func() error, err error) {
	var f *os.File
	for {
		if f, err = os.CreateTemp(dir, copyPattern); err != nil {
			return "", nil, err
		}
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil && !errors.Is(err, syscall.EWOULDBLOCK) {
			return "", nil, errors.Join(err, os.Remove(f.Name()), f.Close())
		}
		mine, err1 := f.Stat()
		there, err2 := os.Stat(f.Name())
		if err == nil && err1 == nil && err2 == nil && os.SameFile(mine, there) {
			break
		}
		_ = f.Close() // another run cleared it away before it was locked
	}
	return f.Name(), func() error {
		err := os.Remove(f.Name())
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return errors.Join(err, os.RemoveAll(f.Name()+"-journal"), f.Close())
	}, nil
}

// removeStaleCopies clears away what a killed backup left in dir.
func removeStaleCopies(dir string) error {
	found, err := filepath.Glob(filepath.Join(dir, copyPattern))
	if err != nil {
		return err
	}
	for _, path := range found {
		f, err := os.OpenFile(filepath.Clean(path), os.O_RDWR, 0)
		if err != nil {
			continue // gone, or another's
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			err = errors.Join(os.Remove(path), os.RemoveAll(path+"-journal"))
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("remove the copy of a backup that was killed: %w", err)
		}
	}
	return nil
}

// vacuumInto copies what is committed at this moment.
func (s *Store) vacuumInto(ctx context.Context, path string) (err error) {
	c, err := sqlite3.OpenContext(ctx, sqliteDSN(s.path, "deferred", readCache))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	defer c.SetInterrupt(c.SetInterrupt(ctx))
	st, _, err := c.Prepare(`VACUUM INTO ?1`)
	if err != nil {
		return err
	}
	err = errors.Join(st.BindText(1, path), st.Exec(), st.Close())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// truncateWAL gives back the room that the WAL took while the copy was made, if no reader is in the way.
func (s *Store) truncateWAL(ctx context.Context) {
	c, err := sqlite3.OpenContext(ctx, sqliteDSN(s.path, "deferred", readCache))
	if err == nil {
		err = errors.Join(c.BusyTimeout(truncateWait), c.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`), c.Close())
	}
	if err != nil {
		s.log.DebugContext(ctx, "WAL not cut", "err", err)
	}
}

func (s *sqliteSnapshot) describe(info *SnapshotInfo) (err error) {
	st, _, err := s.conns[0].Prepare(describeSnapshot(`sqlite_version()`, `0`, `0`))
	if err != nil {
		return wrap("describe the snapshot", err)
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if !st.Step() {
		return fmt.Errorf("describe the snapshot: %w", errors.Join(errors.New("no row"), st.Err()))
	}
	info.Server, info.Schema = st.ColumnText(0), st.ColumnInt64(2)
	info.Instance, info.Generation, info.Place = st.ColumnText(3), st.ColumnText(4), st.ColumnText(5)
	info.Boundary, info.AuditSize, info.Head, info.HeadTime = st.ColumnInt64(6), st.ColumnInt64(7), st.ColumnText(8), TimeAt(st.ColumnInt64(9))
	return nil
}

func (s *sqliteSnapshot) readers() int { return len(s.conns) }

func (s *sqliteSnapshot) dropCopy() error {
	if s.drop == nil {
		return nil
	}
	err := s.drop()
	s.drop = nil
	return err
}

func (s *sqliteSnapshot) close() error {
	var errs []error
	for _, c := range s.conns {
		errs = append(errs, c.Close())
	}
	s.conns = nil
	return errors.Join(append(errs, s.dropCopy())...)
}

// pieces reads large tables by ranges of their row numbers.
func (s *sqliteSnapshot) pieces(_ context.Context, tables []shape) ([]piece, error) {
	var out []piece
	for i := range tables {
		t := &tables[i]
		query := `SELECT ` + quotedList(t.names()) + ` FROM ` + quoted(t.name)
		if order := keptInOrder[t.name]; order != "" {
			out = append(out, piece{table: t, query: query + ` ORDER BY ` + order, bytes: math.MaxInt64})
			continue
		}
		first, last, err := s.rowRange(t.name)
		if err != nil {
			return nil, fmt.Errorf("look at table %s: %w", t.name, err)
		}
		if last-first < copyPieces { // WITHOUT ROWID as well
			out = append(out, piece{table: t, query: query, bytes: last - first})
			continue
		}
		step := max(copyPieces, (last-first)/maxPieces+1)
		for at := first; at <= last; at += step {
			out = append(out, piece{table: t, query: fmt.Sprintf(`%s WHERE rowid BETWEEN %d AND %d`, query, at, min(at+step-1, last)), bytes: step})
		}
	}
	return out, nil
}

// rowRange returns the smallest and the largest row number of a table; zeros for one that has none.
func (s *sqliteSnapshot) rowRange(table string) (first, last int64, err error) {
	st, _, err := s.conns[0].Prepare(`SELECT count(*) FROM pragma_table_list(` + sqlite3.Quote(table) + `) WHERE wr = 1`)
	if err != nil {
		return 0, 0, err
	}
	st.Step()
	without := st.ColumnInt64(0) > 0
	if err := errors.Join(st.Err(), st.Close()); err != nil || without {
		return 0, 0, err
	}
	for query, to := range map[string]*int64{`SELECT min(rowid) FROM `: &first, `SELECT max(rowid) FROM `: &last} { // together they would scan
		st, _, err := s.conns[0].Prepare(query + quoted(table))
		if err != nil {
			return 0, 0, err
		}
		st.Step()
		*to = st.ColumnInt64(0)
		if err := errors.Join(st.Err(), st.Close()); err != nil {
			return 0, 0, err
		}
	}
	return first, last, nil
}

func (s *sqliteSnapshot) read(ctx context.Context, reader int, p piece, out *chunkWriter) (err error) {
	c := s.conns[reader]
	defer c.SetInterrupt(c.SetInterrupt(ctx))
	st, _, err := c.Prepare(p.query)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	for st.Step() {
		out.begin()
		for i := range p.table.columns {
			if err := out.sqliteColumn(st, i, p.table.columns[i]); err != nil {
				return err
			}
		}
		if err := out.end(); err != nil {
			return err
		}
	}
	if err := st.Err(); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return out.flush()
}

// sqliteColumn writes one value. SQLite stores any type in any column: what the other database could not hold is refused.
func (w *chunkWriter) sqliteColumn(st *sqlite3.Stmt, i int, col Column) error {
	have := st.ColumnType(i)
	switch {
	case have == sqlite3.NULL:
		w.null(i)
		return nil
	case col.Kind == KindText && have == sqlite3.TEXT:
		w.bytes(st.ColumnRawText(i))
		return st.Err()
	case col.Kind == KindBytes && have == sqlite3.BLOB:
		w.bytes(st.ColumnRawBlob(i))
		return st.Err()
	case col.Kind == KindUUID && have == sqlite3.BLOB:
		if v := st.ColumnRawBlob(i); len(v) == 16 {
			w.uuid(v)
			return nil
		}
	case have != sqlite3.INTEGER:
	case col.Kind == KindInt:
		w.int(st.ColumnInt64(i))
		return nil
	case col.Kind == KindTime:
		w.time(st.ColumnInt64(i))
		return nil
	case col.Kind == KindBool:
		if v := st.ColumnInt64(i); v == 0 || v == 1 {
			w.bool(byte(v))
			return nil
		}
	}
	return fmt.Errorf("column %s: a value of type %v that is no %s: the database was changed by another program", col.Name, have, col.Kind)
}
