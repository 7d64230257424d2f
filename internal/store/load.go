package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// What makes a database no target of a restore.
var (
	ErrNotEmpty     = errors.New("the database is not empty")
	ErrInUse        = errors.New("a brain is running on the database")
	ErrHalfRestored = errors.New("a restore into this database has not ended")
	ErrNoRoom       = errors.New("no room")
)

// restoringTable is there as long as a restore is not done; nothing opens a database that has it. It comes before the
// schema does and goes with the restore's last transaction.
const restoringTable = "z4j_restoring"

const (
	loadConns    = 2
	loadLockWait = 30 * time.Second
)

// LoadOptions say where a backup's rows go.
type LoadOptions struct {
	URL         string // of an empty database, or of one that is not there yet
	Schema      int64  // number of the newest migration that the rows know
	Connections int    // Postgres: that load at the same time; 0: two
	Log         *slog.Logger
	Now         func() time.Time // required
}

// Loader fills an empty database. Until Release nothing else opens what it fills, and Close before it leaves nothing of it.
type Loader struct {
	o        LoadOptions
	shapes   map[string]*shape // of the tables that are loaded
	target   loadTarget
	store    *Store // after Finish
	released bool

	mu     sync.Mutex
	loaded map[string]Content
}

// loadTarget is what is filled: one of the databases.
type loadTarget interface {
	// begin makes the schema of the rows, without what slows loading down.
	begin(ctx context.Context, schema int64, tables []*shape) error

	// load writes the rows and adds them to c; it is called from several goroutines.
	load(ctx context.Context, t *shape, r *Rows, c *Content) error

	// finish makes what begin left out.
	finish(ctx context.Context) error

	// content reads everything back.
	content(ctx context.Context, tables []*shape) (map[string]Content, error)

	// url is the database as it is while it is being filled.
	url() string

	// release puts it in place, drop takes it away.
	release(ctx context.Context) error
	drop(ctx context.Context) error
}

// OpenLoader begins to fill o.URL. It refuses, and leaves as it is, what has anything in it, unless a restore that did
// not end has put it there: that is cleared away.
func OpenLoader(ctx context.Context, o LoadOptions) (_ *Loader, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Connections <= 0 {
		o.Connections = loadConns
	}
	if known := newestSchema(); o.Schema > known {
		return nil, fmt.Errorf("load: %w: the backup's schema is number %d and this program knows up to %d; install the newer z4j-brain", ErrFutureSchema, o.Schema, known)
	}
	tables, err := shapes(o.Schema)
	if err != nil || len(tables) == 0 {
		return nil, fmt.Errorf("load: schema %d: %w", o.Schema, errors.Join(err, ErrNoSchema))
	}
	l := &Loader{o: o, shapes: map[string]*shape{}, loaded: map[string]Content{}}
	all := make([]*shape, len(tables))
	for i := range tables {
		all[i] = &tables[i]
		if leftOut[tables[i].name] == "" {
			l.shapes[tables[i].name] = &tables[i]
		}
	}
	if path, ok := strings.CutPrefix(o.URL, "sqlite:"); ok {
		l.target, err = openSQLiteTarget(path)
	} else {
		l.target, err = openPostgresTarget(ctx, o)
	}
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	if err := l.target.begin(ctx, o.Schema, all); err != nil {
		return nil, fmt.Errorf("load: make the schema: %w", errors.Join(err, l.Close()))
	}
	return l, nil
}

// CheckTarget refuses, as OpenLoader would, a database that can't be restored into, and changes nothing. bytes is how large
// the rows are, 0 for unknown. note says what OpenLoader will do there first, if anything.
func CheckTarget(ctx context.Context, url string, bytes int64) (note string, err error) {
	path, ok := strings.CutPrefix(url, "sqlite:")
	if !ok {
		note, err = checkPostgresTarget(ctx, url)
	} else if note, err = checkSQLiteTarget(path); err == nil {
		err = roomFor(path, bytes+bytes/2) // and indexes
	}
	return note, wrap("look at the target", err)
}

func (l *Loader) tables() []*shape {
	return slices.SortedFunc(maps.Values(l.shapes), func(a, b *shape) int { return strings.Compare(a.name, b.name) })
}

// Load writes the rows of a chunk of table. It may be called from several goroutines. After an error there is nothing
// left to do but Close.
func (l *Loader) Load(ctx context.Context, table string, raw []byte) (rows int64, err error) {
	t, ok := l.shapes[table]
	if !ok {
		return 0, fmt.Errorf("load table %s: %w: schema %d has no such table", table, ErrDamaged, l.o.Schema)
	}
	r, err := DecodeRows(raw)
	if err != nil {
		return 0, fmt.Errorf("load table %s: %w", table, err)
	}
	if r.Table != table || !slices.Equal(r.Columns, t.columns) {
		return 0, fmt.Errorf("load table %s: %w: the rows are of table %s, or have other columns than schema %d", table, ErrDamaged, r.Table, l.o.Schema)
	}
	var c Content
	if err := l.target.load(ctx, t, r, &c); err != nil {
		return 0, fmt.Errorf("load table %s: %w", table, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := l.loaded[table]
	sum.Merge(c)
	l.loaded[table] = sum
	return c.Rows, nil
}

// Content is what was loaded, by table.
func (l *Loader) Content() map[string]Content {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.loaded)
}

// Finish makes indexes and constraints, compares every row with what was loaded, brings the schema up to date, and tries
// a write into every table. What it returns is open for the restore's own last steps.
func (l *Loader) Finish(ctx context.Context, secrets Secrets) (*Store, error) {
	if err := l.target.finish(ctx); err != nil {
		return nil, fmt.Errorf("finish loading: %w", err)
	}
	have, err := l.target.content(ctx, l.tables())
	if err != nil {
		return nil, fmt.Errorf("read back what was loaded: %w", err)
	}
	want := l.Content()
	for name := range l.shapes {
		if have[name] != want[name] {
			return nil, fmt.Errorf("read back what was loaded: table %s has %v, want %v", name, have[name], want[name])
		}
	}
	l.store, err = Open(ctx, Options{
		URL: l.target.url(), Log: l.o.Log, Now: l.o.Now, Migrate: true, restoring: true,
		Secrets: func(context.Context, bool) (Secrets, error) { return secrets, nil },
	})
	if err != nil {
		return nil, fmt.Errorf("finish loading: %w", err)
	}
	if err := l.store.checkForeignKeys(ctx); err != nil {
		return nil, fmt.Errorf("finish loading: %w", err)
	}
	if err := l.store.TryWrites(ctx); err != nil {
		return nil, fmt.Errorf("finish loading: %w", err)
	}
	return l.store, nil
}

// Release lets commit make the last transaction, in which it has to call last: with that the database becomes one like
// any other.
func (l *Loader) Release(ctx context.Context, commit func(last func(*Tx) error) error) error {
	if l.store == nil {
		return errors.New("release: loading was not finished")
	}
	err := commit(func(tx *Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM leases`); err != nil {
			return wrap("empty the leases", err)
		}
		_, err := tx.ExecContext(ctx, `DROP TABLE `+restoringTable)
		return wrap("end the restore", err)
	})
	if err == nil {
		err = l.store.refuseHalfRestored(ctx)
	}
	if err != nil {
		return fmt.Errorf("release: %w", err)
	}
	l.released = true // it is whole: whatever fails from here on, nothing takes it away
	s := l.store
	l.store = nil
	if err := errors.Join(s.Close(), l.target.release(ctx)); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return nil
}

// Close ends loading. What was not released is gone.
func (l *Loader) Close() error {
	var err error
	if l.store != nil {
		err = l.store.Close()
		l.store = nil
	}
	if l.released {
		return err
	}
	l.released = true
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // also after an interrupt
	defer cancel()
	return errors.Join(err, wrap("take away what was loaded", l.target.drop(ctx)))
}

// newestSchema is the number of the newest migration that this program knows.
func newestSchema() int64 {
	entries, err := migrations.ReadDir("migrations/postgres")
	if err != nil {
		return 0
	}
	var newest int64
	for _, e := range entries {
		var n int64
		if _, err := fmt.Sscanf(e.Name(), "%d_", &n); err == nil {
			newest = max(newest, n)
		}
	}
	return newest
}

// refuseHalfRestored refuses to open what a restore has not ended.
func (s *Store) refuseHalfRestored(ctx context.Context) error {
	half, err := s.hasTable(ctx, restoringTable)
	if err != nil || !half {
		return err
	}
	return fmt.Errorf("%w: it was cut off, or still runs; run `z4j-brain restore` again, which begins anew", ErrHalfRestored)
}
