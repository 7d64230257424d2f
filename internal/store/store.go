// Package store holds every SQL statement of the brain and the row types they fill.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/z4j-go/z4j/internal/audit"
)

// What a caller can tell apart; every other error is the database's.
var (
	ErrNotFound      = errors.New("not found")
	ErrConflict      = errors.New("already exists")
	ErrFutureSchema  = errors.New("the database belongs to a newer z4j-brain")
	ErrForeignSecret = errors.New("the database belongs to another Z4J_SECRET")
	ErrNoSchema      = errors.New("the database has no z4j tables")
	errUnrecorded    = errors.New("store: a change must be recorded in the audit log")
)

// Secrets are the keys that the store itself needs; none of them is ever stored.
type Secrets struct {
	Master          []byte   // Z4J_SECRET; the database keeps its fingerprint
	PreviousMasters [][]byte // Z4J_PREVIOUS_SECRETS
	Audit           []byte   // Z4J_AUDIT_SECRET
	PreviousAudit   [][]byte // Z4J_AUDIT_SECRETS_PREVIOUS
}

// Options say which database to open and how.
type Options struct {
	URL string // "postgres://…" or "sqlite:PATH"
	Log *slog.Logger
	Now func() time.Time // required

	// Grace is what an ordinary failover may lose of the audit log; the zero Grace holds changes after each.
	Grace Grace

	// Migrate brings the schema up to date, under a lock. Without it an older or missing schema is refused.
	Migrate bool

	// Secrets is asked once, under the migration lock, before anything is written. empty says that the database
	// has no table of ours; only then may the callee mint new secrets.
	Secrets func(ctx context.Context, empty bool) (Secrets, error)

	restoring bool // a restore's own: opens what nothing else may, and leaves its first entry to the restore
}

// Store reads and writes the brain's database, Postgres or SQLite.
type Store struct {
	read    *sql.DB // many connections
	write   *sql.DB // on SQLite exactly one; on Postgres the pool of audited changes
	dialect dialect
	pool    *pgxpool.Pool // Postgres only: behind read
	audited *pgxpool.Pool // Postgres only: behind write
	ingests *pgxpool.Pool // Postgres only: of ingest alone, so that it waits for no reader
	log     *slog.Logger
	now     func() time.Time
	path    string // SQLite only: the file
	file    *fileWatch
	opened  Options
	live    liveFile

	chain     chain // the audit chain as this process knows it
	snapshots snapshots

	stretch    int      // rows of a search between two looks at the clock; 0 is scanRows
	partitions sync.Map // Postgres only: days (YYYY_MM_DD) whose partition of events is known to be there
}

// Tx is a Store bound to one transaction of audited changes.
type Tx struct {
	*sql.Tx
	conn    *sql.Conn // that the transaction runs on
	store   *Store
	now     Time
	entries []audit.Entry
}

// Now is the transaction's one time.
func (tx *Tx) Now() Time { return tx.now }

// Record puts e into the audit log when the transaction commits. Every Update needs at least one.
func (tx *Tx) Record(e audit.Entry) { tx.entries = append(tx.entries, e) }

// dialect is the complete list of fragments that differ between the two databases.
type dialect struct {
	name       string
	skipLocked string // claims rows without waiting
	forUpdate  string // locks the rows that a SELECT finds until the end of the transaction
	byteOrder  string // follows a text that is compared, ordered or lowered byte by byte, whatever the database's locale
	stepped    string // is true of an entry before which the clock went back, as the index audit_log_clock_step has it
	txOptions  *sql.TxOptions
}

var (
	postgresDialect = dialect{
		name: "postgres", skipLocked: " FOR UPDATE SKIP LOCKED", forUpdate: " FOR UPDATE", byteOrder: ` COLLATE "C"`,
		stepped: `position('\x22636c6f636b5f73746570223a6e756c6c2c2264657461696c73223a'::bytea in body) = 0`, txOptions: &sql.TxOptions{Isolation: sql.LevelReadCommitted},
	}
	sqliteDialect = dialect{name: "sqlite", stepped: `instr(body, x'22636c6f636b5f73746570223a6e756c6c2c2264657461696c73223a') = 0`} // its write transactions are exclusive already
)

// Open connects to o.URL, migrates it when asked to, and checks that the secrets are the database's own.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{log: o.Log, now: o.Now, opened: o}
	s.chain.queue = make(chan struct{}, 1)
	s.chain.news = make(chan struct{}, 1)
	s.chain.grace = o.Grace
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if path, ok := strings.CutPrefix(o.URL, "sqlite:"); ok {
		err = s.openSQLite(ctx, path)
	} else {
		err = s.openPostgres(ctx, o.URL)
	}
	if err == nil {
		err = s.prepare(ctx, o)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", err), s.Close())
	}
	return s, nil
}

// Timeouts of a Postgres session, in milliseconds: a query that an index serves takes a hundredth of these.
const (
	statementTimeout = "10000"
	lockTimeout      = "3000"
	idleInTxTimeout  = "30000"
)

const (
	readConns    = 11 // reads of the API
	listenConns  = 1  // hears of revocations; of no pool
	auditedConns = 8  // reads and ingest never wait behind the audit chain
	ingestConns  = 4  // two writers, heartbeats, and a partition to be made
	sqliteReads  = 8
)

func (s *Store) openPostgres(ctx context.Context, url string) (err error) {
	s.dialect = postgresDialect
	if s.pool, err = newPool(ctx, url, readConns); err != nil {
		return err
	}
	if s.audited, err = newPool(ctx, url, auditedConns); err != nil {
		return err
	}
	if s.ingests, err = newPool(ctx, url, ingestConns); err != nil {
		return err
	}
	s.read = stdlib.OpenDBFromPool(s.pool)
	s.write = stdlib.OpenDBFromPool(s.audited)
	return s.read.PingContext(ctx)
}

func newPool(ctx context.Context, url string, conns int32) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("the Postgres URL cannot be read") // the driver's error quotes the URL, password included
	}
	c.MaxConns = conns
	c.ConnConfig.ConnectTimeout = 10 * time.Second
	c.ConnConfig.StatementCacheCapacity = 128 // statements; ours are constant texts, so this is all of them
	p := c.ConnConfig.RuntimeParams
	p["application_name"] = "z4j-brain"
	p["timezone"] = "UTC"
	p["statement_timeout"] = statementTimeout
	p["lock_timeout"] = lockTimeout
	p["idle_in_transaction_session_timeout"] = idleInTxTimeout
	p["synchronous_commit"] = "on" // an answer is only given for what is on the disk
	return pgxpool.NewWithConfig(ctx, c)
}

// Dialect names the database: "postgres" or "sqlite".
func (s *Store) Dialect() string { return s.dialect.name }

// Ping reports whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	var one int
	return wrap("ping", s.read.QueryRowContext(ctx, `SELECT 1`).Scan(&one))
}

// Close releases every connection.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	for _, p := range []*pgxpool.Pool{s.pool, s.audited, s.ingests} {
		if p != nil {
			p.Close()
		}
	}
	return errors.Join(errs...)
}

// Update runs fn in a transaction and commits when fn returns nil and recorded what it did. The entries are numbered
// and signed last, under the chain's lock. fn may be called twice: what goes on while the history is in doubt is done once
// more when it was what noticed that.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	goesOn, err := s.update(ctx, fn)
	if goesOn && errors.Is(err, ErrHistoryInDoubt) {
		if _, again := s.update(ctx, fn); again == nil {
			return nil
		}
	}
	return err
}

// update is one try of Update. goesOn says that what fn recorded goes on while the history is in doubt.
func (s *Store) update(ctx context.Context, fn func(*Tx) error) (goesOn bool, err error) {
	tx, err := s.begin(ctx)
	if err != nil {
		return false, wrap("begin", err)
	}
	defer tx.end()
	if err := fn(tx); err != nil {
		return false, err
	}
	if len(tx.entries) == 0 {
		return false, errUnrecorded
	}
	goesOn = !slices.ContainsFunc(tx.entries, func(e audit.Entry) bool { return !e.Held() })
	release, err := s.appendAudit(ctx, tx)
	if err != nil {
		return goesOn, s.settle(ctx, tx, err)
	}
	err = s.committed(tx.Commit())
	release(err)
	return goesOn, wrap("commit", err)
}

// transact is Update for what the system does by itself and nobody answers for.
func (s *Store) transact(ctx context.Context, fn func(*Tx) error) error {
	tx, err := s.begin(ctx)
	if err != nil {
		return wrap("begin", err)
	}
	defer tx.end()
	if err := fn(tx); err != nil {
		return err
	}
	return wrap("commit", s.committed(tx.Commit()))
}

// begin starts a transaction on a connection of its own. Each statement sees what was committed before it. Connections
// that died while the database was away are passed over.
func (s *Store) begin(ctx context.Context) (*Tx, error) {
	for tries := auditedConns; ; tries-- {
		tx, err := s.beginOnce(ctx)
		if err == nil || tries == 0 || !died(err) {
			return tx, err
		}
	}
}

func (s *Store) beginOnce(ctx context.Context) (*Tx, error) {
	conn, err := s.write.Conn(ctx)
	if err != nil {
		return nil, err
	}
	tx, err := conn.BeginTx(ctx, s.dialect.txOptions)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &Tx{Tx: tx, conn: conn, store: s, now: TimeOf(s.now())}, nil
}

// end gives the connection back, and takes back what was not committed. It may be called twice.
func (tx *Tx) end() {
	_ = tx.Rollback()   // of a committed one it does nothing; of a broken one the server does it
	_ = tx.conn.Close() // gives it back to the pool
}

// collect scans every row with scan, which each row type brings along.
func collect[T any](rows *sql.Rows, err error, scan func(*T) []any) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := []T{}
	for rows.Next() {
		var v T
		if err := rows.Scan(scan(&v)...); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// wrap turns driver errors into the package's own.
func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	var pg *pgconn.PgError
	switch {
	case errors.Is(err, sql.ErrNoRows):
		err = ErrNotFound
	case errors.As(err, &pg) && pg.Code == "23505", isSQLiteUnique(err):
		err = ErrConflict
	}
	return fmt.Errorf("%s: %w", op, err)
}

// where collects conditions and their numbered arguments.
type where struct {
	sql  strings.Builder
	args []any
}

func (w *where) arg(v any) string {
	w.args = append(w.args, v)
	return fmt.Sprintf("$%d", len(w.args))
}

// and adds cond; every ? in it takes one of vs.
func (w *where) and(cond string, vs ...any) {
	if w.sql.Len() == 0 {
		w.sql.WriteString(" WHERE ")
	} else {
		w.sql.WriteString(" AND ")
	}
	for _, v := range vs {
		cond = strings.Replace(cond, "?", w.arg(v), 1)
	}
	w.sql.WriteString(cond)
}

// like makes the pattern "contains text" with the wildcards of text escaped by a backslash, for LIKE … ESCAPE '\'.
func like(text string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text) + "%"
}
