package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ErrSchemaChanged says that the schema is not the one that this program works with.
var ErrSchemaChanged = errors.New("the schema is being changed")

// SnapshotOptions say what of the database is read, and how.
type SnapshotOptions struct {
	TempDir  string        // SQLite: where the copy is made that is read; "": where there is room
	TempDirs []string      // SQLite: directories to try for it, in this order, before the one beside the database
	Without  []string      // tables whose rows are left out
	Readers  int           // connections that read; 0: two
	LockWait time.Duration // how long a table may be locked by another before that is an error; 0: 30 s
}

// SnapshotInfo says what a snapshot is of.
type SnapshotInfo struct {
	Backend    string // "postgres" or "sqlite"
	Server     string // its version
	Schema     int64  // number of the newest migration
	Instance   string // "": the database has no name yet
	Generation string // of the audit chain
	Place      string // identifier of the cluster and the database, or of the file; "": not recorded
	AuditSize  int64  // number of the newest entry
	Head       string // row_hmac of the newest entry
	HeadTime   Time
	Boundary   int64 // entries up to here were pruned
	Time       Time  // of the database, when the snapshot was taken
}

// Snapshot is the database at one moment.
type Snapshot struct {
	store  *Store
	info   SnapshotInfo
	tables []shape
	source snapshotSource
}

// snapshotSource is what reads a snapshot of one of the databases.
type snapshotSource interface {
	readers() int

	// pieces cuts tables into parts that can be read at the same time, the largest first.
	pieces(ctx context.Context, tables []shape) ([]piece, error)

	// read reads one piece with one of the readers.
	read(ctx context.Context, reader int, p piece, out *chunkWriter) error
	close() error
}

// piece is a part of a table.
type piece struct {
	table *shape
	query string // SELECT of the columns in their order
	bytes int64  // about
}

const (
	snapshotReaders  = 2
	snapshotLockWait = 30 * time.Second
)

// Snapshot takes the database as it is at this moment. What is read from it has every commit before and none after, and
// nobody waits for it. It has to be closed.
func (s *Store) Snapshot(ctx context.Context, o SnapshotOptions) (*Snapshot, error) {
	if o.Readers <= 0 {
		o.Readers = snapshotReaders
	}
	if o.LockWait <= 0 {
		o.LockWait = snapshotLockWait
	}
	tables, err := dumped(o.Without)
	if err != nil {
		return nil, wrap("take snapshot", err)
	}
	snap := &Snapshot{store: s, tables: tables, info: SnapshotInfo{Backend: s.dialect.name}}
	if s.pool != nil {
		err = s.snapshotPostgres(ctx, snap, o)
	} else {
		err = s.snapshotSQLite(ctx, snap, o)
	}
	if err == nil {
		err = s.currentSchema(snap.info.Schema)
	}
	if err != nil {
		if snap.source != nil {
			err = errors.Join(err, snap.source.close())
		}
		return nil, fmt.Errorf("take snapshot: %w", err)
	}
	s.snapshots.begin(snap, s.now())
	return snap, nil
}

// currentSchema refuses a schema that is not this program's: it would leave out tables that it doesn't know.
func (s *Store) currentSchema(have int64) error {
	p, err := s.provider()
	if err != nil {
		return err
	}
	sources := p.ListSources()
	if known := sources[len(sources)-1].Version; have != known {
		return fmt.Errorf("%w: the database has number %d, this program %d: run the program that migrated it", ErrSchemaChanged, have, known)
	}
	return nil
}

// Info says what the snapshot is of.
func (s *Snapshot) Info() SnapshotInfo { return s.info }

// Tables are the tables that Read reads, with those that have no rows.
func (s *Snapshot) Tables() []string {
	names := make([]string, len(s.tables))
	for i := range s.tables {
		names[i] = s.tables[i].name
	}
	return names
}

// Close gives up the snapshot.
func (s *Snapshot) Close() error {
	s.store.snapshots.end(s)
	return wrap("close snapshot", s.source.close())
}

// Read reads every table and gives emit its rows, from up to parallel goroutines. Chunks of a table are numbered as they
// come; those of the audit log are in its order. A table that can't be read whole is an error, and so is an error of emit.
func (s *Snapshot) Read(ctx context.Context, parallel int, emit func(Chunk) error) error {
	if err := s.read(ctx, parallel, emit); err != nil {
		return err
	}
	have, _, err := s.store.SchemaVersion(ctx)
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	return wrap("read snapshot", s.store.currentSchema(have))
}

func (s *Snapshot) read(ctx context.Context, parallel int, emit func(Chunk) error) error {
	numbers := make(map[string]*atomic.Int64, len(s.tables))
	for i := range s.tables {
		numbers[s.tables[i].name] = new(atomic.Int64)
	}
	bufs := make([][]byte, s.source.readers()) // each reader fills the same one again
	return s.each(ctx, parallel, func(ctx context.Context, reader int, p piece) error {
		name, number := p.table.name, numbers[p.table.name]
		out := newChunkWriter(name, p.table.columns, bufs[reader], func(rows int64, raw []byte) error {
			return emit(Chunk{Table: name, N: int(number.Add(1)) - 1, Rows: rows, Raw: raw})
		})
		err := s.source.read(ctx, reader, p, out)
		bufs[reader] = out.buf
		return err
	})
}

// each gives every piece to do, the largest first, from up to parallel goroutines.
func (s *Snapshot) each(ctx context.Context, parallel int, do func(ctx context.Context, reader int, p piece) error) error {
	pieces, err := s.source.pieces(ctx, s.tables)
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	slices.SortStableFunc(pieces, func(a, b piece) int { return int(min(max(b.bytes-a.bytes, -1), 1)) })
	next := make(chan piece, len(pieces)) // all of them, so that nobody has to hand them out
	for _, p := range pieces {
		next <- p
	}
	close(next)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var readers sync.WaitGroup
	for reader := range max(1, min(parallel, s.source.readers())) {
		readers.Go(func() {
			for p := range next {
				if ctx.Err() != nil {
					return
				}
				if err := do(ctx, reader, p); err != nil {
					cancel(fmt.Errorf("read table %s: %w", p.table.name, err))
					return
				}
			}
		})
	}
	readers.Wait()
	return context.Cause(ctx)
}

// snapshots are those that are open in this process.
type snapshots struct {
	mu   sync.Mutex
	open map[*Snapshot]time.Time
}

func (s *snapshots) begin(snap *Snapshot, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*Snapshot]time.Time{}
	}
	s.open[snap] = now
}

func (s *snapshots) end(snap *Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, snap)
}

// OldestSnapshot is how long the oldest open snapshot of this process is held; 0: none is. What it holds keeps the
// database from giving back room.
func (s *Store) OldestSnapshot() time.Duration {
	s.snapshots.mu.Lock()
	defer s.snapshots.mu.Unlock()
	var oldest time.Duration
	for _, since := range s.snapshots.open {
		oldest = max(oldest, s.now().Sub(since))
	}
	return oldest
}

// content adds up what every table has.
func (s *Snapshot) content(ctx context.Context, parallel int) (map[string]Content, error) {
	var mu sync.Mutex
	out := map[string]Content{}
	err := s.each(ctx, parallel, func(ctx context.Context, reader int, p piece) error {
		w := newChunkWriter(p.table.name, p.table.columns, nil, nil)
		w.sum = &Content{}
		if err := s.source.read(ctx, reader, p, w); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		all := out[p.table.name]
		all.Merge(*w.sum)
		out[p.table.name] = all
		return nil
	})
	return out, err
}
