package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// restoreLock is the advisory lock that a restore holds on its database.
const restoreLock = migrationLock + 1

// postgresTarget is a database that is being filled.
type postgresTarget struct {
	store   *Store // for migrations
	address string
	log     *slog.Logger
	made    string           // the database that had to be made; "": it was there
	lock    *pgx.Conn        // holds restoreLock
	conns   chan *pgx.Conn   // that load
	widths  map[string][]int // of each table's columns, in bytes; 0: as the kind says
	later   []definition

	days sync.Mutex // one at a time makes a partition
}

// definition is an index or a constraint that comes after the rows.
type definition struct {
	table      string
	name       string
	index      string // the text behind USING; "": it is a constraint
	constraint string // as pg_get_constraintdef says it
	unique     bool
	foreign    bool
}

func openPostgresTarget(ctx context.Context, o LoadOptions) (_ *postgresTarget, err error) {
	c, err := pgx.ParseConfig(o.URL)
	if err != nil {
		return nil, errors.New("the Postgres URL cannot be read") // the driver's error quotes the URL, password included
	}
	t := &postgresTarget{address: o.URL, log: o.Log, conns: make(chan *pgx.Conn, o.Connections), widths: map[string][]int{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close(), t.dropMade(context.WithoutCancel(ctx), c))
		}
	}()
	if t.lock, err = ownConn(ctx, c, "z4j-brain restore", loadLockWait); isNoDatabase(err) {
		if err = makeDatabase(ctx, c); err == nil {
			t.made = c.Database
			t.lock, err = ownConn(ctx, c, "z4j-brain restore", loadLockWait)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := t.claim(ctx); err != nil {
		return nil, err
	}
	for range o.Connections {
		conn, err := ownConn(ctx, c, "z4j-brain restore", loadLockWait)
		if err != nil {
			return nil, err
		}
		if _, err := conn.Exec(ctx, `SET synchronous_commit = off`); err != nil { // the last commit, which is not, waits for all
			return nil, err
		}
		t.conns <- conn
	}
	t.store = &Store{log: o.Log, now: o.Now}
	return t, t.store.openPostgres(ctx, o.URL)
}

func isNoDatabase(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "3D000"
}

// makeDatabase makes the database that c names, or says how to.
func makeDatabase(ctx context.Context, c *pgx.ConnConfig) error {
	conn, err := maintenanceConn(ctx, c)
	if err != nil {
		return fmt.Errorf("there is no database %s, and none to make it from: %w; run: createdb %s", c.Database, err, c.Database)
	}
	_, err = conn.Exec(ctx, `CREATE DATABASE `+quoted(c.Database)+` TEMPLATE template0 ENCODING 'UTF8'`)
	err = errors.Join(err, conn.Close(ctx))
	if err != nil {
		return fmt.Errorf("there is no database %s, and %s may not make it: %w; run as a superuser: createdb -T template0 -E UTF8 -O %s %s",
			c.Database, c.User, err, c.User, c.Database)
	}
	return nil
}

func maintenanceConn(ctx context.Context, c *pgx.ConnConfig) (*pgx.Conn, error) {
	other := c.Copy()
	other.Database = "postgres"
	return pgx.ConnectConfig(ctx, other)
}

func (t *postgresTarget) dropMade(ctx context.Context, c *pgx.ConnConfig) error {
	if t.made == "" {
		return nil
	}
	conn, err := maintenanceConn(ctx, c)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `DROP DATABASE IF EXISTS `+quoted(t.made))
	t.made = ""
	return errors.Join(err, conn.Close(ctx))
}

// claim makes the database this restore's own, if it is empty or a restore left it unfinished.
func (t *postgresTarget) claim(ctx context.Context) error {
	const soon = `SET lock_timeout = '3s'` // the server takes a moment to see that a killed restore is gone
	if _, err := t.lock.Exec(ctx, soon); err != nil {
		return fmt.Errorf("lock the database: %w", err)
	}
	if _, err := t.lock.Exec(ctx, `SELECT pg_advisory_lock($1, hashtext(current_schema()))`, restoreLock); err != nil {
		var pg *pgconn.PgError
		if errors.As(err, &pg) && pg.Code == "55P03" {
			return fmt.Errorf("%w: another restore is running on it", ErrInUse)
		}
		return fmt.Errorf("lock the database: %w", err)
	}
	if _, err := t.lock.Exec(ctx, fmt.Sprintf(`SET lock_timeout = %d`, loadLockWait.Milliseconds())); err != nil {
		return fmt.Errorf("lock the database: %w", err)
	}
	half, err := t.look(ctx)
	if err != nil {
		return err
	}
	if half {
		t.log.WarnContext(ctx, "clearing away what a restore left unfinished")
		if err := t.clear(ctx); err != nil {
			return err
		}
	}
	_, err = t.lock.Exec(ctx, `CREATE TABLE `+restoringTable+` (since timestamptz NOT NULL DEFAULT now())`)
	return wrap("mark the database as being restored", err)
}

// look refuses a database that has something in it; half says that it is a restore that did not end.
func (t *postgresTarget) look(ctx context.Context) (half bool, err error) {
	var tables, leases bool
	err = t.lock.QueryRow(ctx, `SELECT count(*) > 0, count(*) FILTER (WHERE relname = $1) > 0, count(*) FILTER (WHERE relname = 'leases') > 0
		FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')`, restoringTable).Scan(&tables, &half, &leases)
	switch {
	case err != nil:
		return false, fmt.Errorf("look into the database: %w", err)
	case half:
		return true, nil
	case leases:
		if err := t.refuseLive(ctx); err != nil {
			return false, err
		}
		return false, fmt.Errorf("%w: a restore never writes over data: name another database with --into, or drop this one first", ErrNotEmpty)
	case tables:
		return false, fmt.Errorf("%w: it has tables of something else: name another database with --into", ErrNotEmpty)
	}
	return false, nil
}

// checkPostgresTarget is CheckTarget.
func checkPostgresTarget(ctx context.Context, address string) (note string, err error) {
	c, err := pgx.ParseConfig(address)
	if err != nil {
		return "", errors.New("the Postgres URL cannot be read") // as in openPostgresTarget.
	}
	t := &postgresTarget{}
	t.lock, err = ownConn(ctx, c, "z4j-brain restore", loadLockWait)
	if isNoDatabase(err) {
		return "the database " + c.Database + " is not there and will be made", nil
	}
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	half, err := t.look(ctx)
	if half {
		note = "what a restore that did not end left there will be cleared away"
	}
	return note, err
}

func (t *postgresTarget) refuseLive(ctx context.Context) error {
	var holder string
	err := t.lock.QueryRow(ctx, `SELECT coalesce((SELECT substr(name, $2::int) FROM leases WHERE name LIKE $1 AND until > now() LIMIT 1), '')`,
		brainLease+"%", len(brainLease)+1).Scan(&holder)
	if err != nil || holder == "" {
		return wrap("look for brains", err)
	}
	return fmt.Errorf("%w: %s; stop it first", ErrInUse, holder)
}

// clear drops everything in the schema, the mark last.
func (t *postgresTarget) clear(ctx context.Context) error {
	rows, err := t.lock.Query(ctx, `SELECT 'DROP TABLE IF EXISTS ' || quote_ident(relname) || ' CASCADE' FROM pg_class
			WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> $1
		UNION ALL SELECT 'DROP FUNCTION IF EXISTS ' || p.oid::regprocedure || ' CASCADE' FROM pg_proc p
			WHERE pronamespace = current_schema()::regnamespace AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')`, restoringTable)
	if err != nil {
		return fmt.Errorf("clear the database: %w", err)
	}
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("clear the database: %w", err)
	}
	for _, text := range append(texts, `DROP TABLE IF EXISTS `+restoringTable) {
		if _, err := t.lock.Exec(ctx, text); err != nil {
			return fmt.Errorf("clear the database: %w", err)
		}
	}
	return nil
}

func (t *postgresTarget) begin(ctx context.Context, schema int64, tables []*shape) error {
	p, err := t.store.provider()
	if err != nil {
		return err
	}
	if _, err := p.UpTo(ctx, schema); err != nil {
		return err
	}
	for _, table := range tables {
		if err := t.prepare(ctx, table); err != nil {
			return fmt.Errorf("table %s: %w", table.name, err)
		}
	}
	for _, foreign := range []bool{true, false} { // what refers goes before what is referred to
		for _, d := range t.later {
			if d.foreign != foreign {
				continue
			}
			text := `ALTER TABLE ` + quoted(d.table) + ` DROP CONSTRAINT ` + quoted(d.name)
			if d.index != "" {
				text = `DROP INDEX ` + quoted(d.name)
			}
			if _, err := t.lock.Exec(ctx, text); err != nil {
				return fmt.Errorf("put off %s: %w", d.name, err)
			}
		}
	}
	return nil
}

// prepare empties a table of what migrations wrote, and notes its columns' widths and what comes after its rows.
func (t *postgresTarget) prepare(ctx context.Context, table *shape) error {
	if _, err := t.lock.Exec(ctx, `DELETE FROM `+quoted(table.name)); err != nil {
		return err
	}
	rows, err := t.lock.Query(ctx, `SELECT attname, CASE WHEN atttypid IN (21, 23, 20) THEN attlen::int ELSE 0 END FROM pg_attribute
		WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped`, quoted(table.name))
	if err != nil {
		return err
	}
	widths := map[string]int{}
	var name string
	var width int
	if _, err := pgx.ForEachRow(rows, []any{&name, &width}, func() error { widths[name] = width; return nil }); err != nil {
		return err
	}
	for _, c := range table.columns {
		width, ok := widths[c.Name]
		if !ok || (c.Kind == KindInt) != (width > 0) {
			return fmt.Errorf("column %s is not what the migrations say", c.Name)
		}
		t.widths[table.name] = append(t.widths[table.name], width)
	}
	rows, err = t.lock.Query(ctx, `SELECT $1, conname, '', pg_get_constraintdef(oid), contype IN ('p', 'u'), contype = 'f' FROM pg_constraint
			WHERE conrelid = $2::regclass AND contype IN ('p', 'u', 'f')
		UNION ALL SELECT $1, c.relname, substring(pg_get_indexdef(c.oid) FROM ' USING .*'), '', i.indisunique, false
			FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
			WHERE i.indrelid = $2::regclass AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = c.oid AND k.conrelid = i.indrelid)`,
		table.name, quoted(table.name))
	if err != nil {
		return err
	}
	var d definition
	_, err = pgx.ForEachRow(rows, []any{&d.table, &d.name, &d.index, &d.constraint, &d.unique, &d.foreign}, func() error {
		t.later = append(t.later, d)
		return nil
	})
	return err
}

func (t *postgresTarget) load(ctx context.Context, table *shape, r *Rows, c *Content) error {
	into := table.name
	if table.name == "events" {
		day, err := t.partitions(ctx, *r)
		if err != nil {
			return err
		}
		into = day
	}
	var conn *pgx.Conn
	select {
	case conn = <-t.conns:
		defer func() { t.conns <- conn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	w := newCopyWriter(r, c, t.widths[table.name])
	tag, err := conn.PgConn().CopyFrom(ctx, w, `COPY `+quoted(into)+` (`+quotedList(table.names())+`) FROM STDIN (FORMAT binary)`)
	select {
	case err = <-w.failed: // of which the server heard only the text
		return err
	default:
	}
	if err != nil {
		return copyError(err)
	}
	if tag.RowsAffected() != r.n {
		return fmt.Errorf("the database took %d of %d rows", tag.RowsAffected(), r.n)
	}
	return nil
}

// copyError adds where in the chunk the server found the fault; of the row it says nothing.
func copyError(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Where != "" {
		where, _, _ := strings.Cut(pg.Where, ": ")
		return fmt.Errorf("%w (%s)", err, where)
	}
	return err
}

// partitions makes those that the rows need, and returns where they go: into the one that they are all of, else by way
// of the table.
func (t *postgresTarget) partitions(ctx context.Context, r Rows) (into string, err error) {
	days, err := daysOf(r)
	if err != nil {
		return "", err
	}
	t.days.Lock()
	defer t.days.Unlock()
	into = "events"
	for day := range days {
		at := time.UnixMicro(day * dayMicros).UTC()
		if at.Year() < 1 || at.Year() > 9999 {
			return "", fmt.Errorf("a time is %d days from 1970: %w", day, ErrDamaged)
		}
		if err := t.store.ensurePartition(ctx, at); err != nil {
			return "", err
		}
		into = "events_" + at.Format(partitionDay)
	}
	if len(days) > 1 {
		into = "events"
	}
	return into, nil
}

// daysOf are the days since 1970 on which the events of r, a copy, occurred.
func daysOf(r Rows) (map[int64]bool, error) {
	r.cells = slices.Clone(r.cells)
	occurred := slices.IndexFunc(r.Columns, func(c Column) bool { return c.Name == "occurred_at" })
	days, last := map[int64]bool{}, int64(math.MinInt64)
	for r.Next() {
		day := r.cells[occurred].Int / dayMicros
		if r.cells[occurred].Int < day*dayMicros {
			day--
		}
		if day != last {
			days[day], last = true, day
		}
	}
	return days, r.Err()
}

// copyWriter turns a chunk into COPY's binary form, as it is read.
type copyWriter struct {
	rows   *Rows
	sum    *Content // gets the rows
	widths []int
	buf    []byte
	at     int        // of buf, what was read
	ended  bool       // buf has the end of the rows
	failed chan error // why a Read did not go on
}

// copyAhead is how many bytes are turned before they are read: more than is sent at once.
const copyAhead = 128 << 10

func newCopyWriter(r *Rows, sum *Content, widths []int) *copyWriter {
	w := &copyWriter{rows: r, sum: sum, widths: widths, buf: make([]byte, 0, copyAhead+copyAhead/2), failed: make(chan error, 1)}
	w.buf = append(w.buf, copySignature...)
	w.buf = append(w.buf, 0, 0, 0, 0, 0, 0, 0, 0)
	return w
}

// Read reads the next bytes.
func (w *copyWriter) Read(p []byte) (int, error) {
	if w.at == len(w.buf) {
		if w.ended {
			return 0, io.EOF
		}
		w.buf, w.at = w.buf[:0], 0
	}
	if w.at == 0 && !w.ended {
		if err := w.fill(); err != nil {
			w.failed <- err
			return 0, err
		}
	}
	n := copy(p, w.buf[w.at:])
	w.at += n
	return n, nil
}

func (w *copyWriter) fill() error {
	for len(w.buf) < copyAhead {
		r := w.rows
		if !r.Next() {
			w.buf, w.ended = append(w.buf, 0xff, 0xff), true
			return r.Err()
		}
		w.sum.row(r.at)
		w.buf = binary.BigEndian.AppendUint16(w.buf, uint16(len(r.Columns)))
		for i := range r.cells {
			if err := w.cell(&r.Columns[i], &r.cells[i], w.widths[i]); err != nil {
				return fmt.Errorf("row %d: column %s: %w", r.n, r.Columns[i].Name, err)
			}
		}
	}
	return nil
}

func (w *copyWriter) cell(col *Column, c *Cell, width int) error {
	if c.Null {
		w.buf = binary.BigEndian.AppendUint32(w.buf, math.MaxUint32)
		return nil
	}
	switch col.Kind {
	case KindText, KindBytes, KindUUID:
		w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(len(c.Bytes)))
		w.buf = append(w.buf, c.Bytes...)
		return nil
	case KindBool:
		w.buf = append(w.buf, 0, 0, 0, 1, byte(c.Int))
		return nil
	case KindTime:
		if c.Int < math.MinInt64+epoch2000 {
			return errors.New("a time before all times")
		}
		w.buf = append(w.buf, 0, 0, 0, 8)
		w.buf = binary.BigEndian.AppendUint64(w.buf, uint64(c.Int-epoch2000))
		return nil
	case KindInt:
		bits := 8 * width
		if c.Int>>(bits-1) != c.Int>>63 {
			return fmt.Errorf("%d does not fit into %d bits", c.Int, bits)
		}
		w.buf = append(w.buf, 0, 0, 0, byte(width))
		for i := bits - 8; i >= 0; i -= 8 {
			w.buf = append(w.buf, byte(c.Int>>i))
		}
		return nil
	}
	return ErrDamaged
}

// finish makes indexes and constraints, those of partitions first, several tables at once, and sets generators.
func (t *postgresTarget) finish(ctx context.Context) error {
	heaps, err := t.heaps(ctx)
	if err != nil {
		return fmt.Errorf("look for partitions: %w", err)
	}
	var rows, wholes, foreign [][]string
	for _, h := range heaps {
		var own []string
		for i := range t.later {
			switch d := &t.later[i]; {
			case d.foreign && d.table == h.Name:
				foreign = append(foreign, []string{d.make(d.table, true)})
			case d.foreign || d.table != h.Name && d.table != h.Parent:
			default:
				own = append(own, d.make(h.Name, d.table == h.Name))
			}
		}
		if h.Bytes < 0 {
			wholes = append(wholes, own)
			continue
		}
		rows = append(rows, own)
	}
	for _, step := range [][][]string{rows, wholes, foreign} {
		if err := t.all(ctx, step); err != nil {
			return err
		}
	}
	return t.generators(ctx)
}

// heap is a table, or a partition of one.
type heap struct {
	Name   string
	Parent string // of a partition
	Bytes  int64  // -1: it only has partitions
}

// heaps are all tables and partitions, the largest first.
func (t *postgresTarget) heaps(ctx context.Context) ([]heap, error) {
	rows, err := t.lock.Query(ctx, `SELECT c.relname, coalesce(p.relname, ''), CASE WHEN c.relkind = 'p' THEN -1 ELSE pg_table_size(c.oid) END
		FROM pg_class c LEFT JOIN pg_inherits ON inhrelid = c.oid LEFT JOIN pg_class p ON p.oid = inhparent
		WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 3 DESC, 1`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[heap])
}

// analyze tells the planner about what it finds rows by. The rest it finds out by itself: columns that are left out do not
// count as analyzed. Partitions come with their table.
func (t *postgresTarget) analyze(ctx context.Context) error {
	rows, err := t.lock.Query(ctx, `SELECT format('ANALYZE %I (%s)', relname, string_agg(quote_ident(attname), ', ' ORDER BY attnum))
		FROM (SELECT DISTINCT c.relname, c.relkind, a.attname, a.attnum FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
			WHERE c.relnamespace = current_schema()::regnamespace AND NOT c.relispartition) AS indexed
		GROUP BY relname, relkind ORDER BY relkind = 'p' DESC, relname`)
	if err != nil {
		return fmt.Errorf("analyze: %w", err)
	}
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("analyze: %w", err)
	}
	jobs := make([][]string, len(texts))
	for i, text := range texts {
		jobs[i] = []string{text}
	}
	return t.all(ctx, jobs)
}

// make is the statement that makes the definition on a table; a partition's has no name, as the server gives it one.
func (d *definition) make(table string, named bool) string {
	switch {
	case d.index == "" && named:
		return `ALTER TABLE ` + quoted(table) + ` ADD CONSTRAINT ` + quoted(d.name) + ` ` + d.constraint
	case d.index == "":
		return `ALTER TABLE ` + quoted(table) + ` ADD ` + d.constraint
	}
	text := `CREATE `
	if d.unique {
		text += `UNIQUE `
	}
	text += `INDEX `
	if named {
		text += quoted(d.name) + ` `
	}
	return text + `ON ` + quoted(table) + d.index
}

// all runs jobs over all connections, the statements of each one by one: those of a table would wait for each other.
func (t *postgresTarget) all(ctx context.Context, jobs [][]string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	todo := make(chan []string, len(jobs))
	for _, job := range jobs {
		todo <- job
	}
	close(todo)
	var workers sync.WaitGroup
	for range cap(t.conns) {
		workers.Go(func() {
			conn := <-t.conns
			defer func() { t.conns <- conn }()
			for job := range todo {
				for _, text := range job {
					if ctx.Err() != nil {
						return
					}
					if _, err := conn.Exec(ctx, text); err != nil {
						cancel(fmt.Errorf("%s: %w", text, err))
					}
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// generators sets every generator of numbers behind the largest that was loaded.
func (t *postgresTarget) generators(ctx context.Context) error {
	// OFFSET 0 keeps the function from being asked about tables of other schemas, which are not found by name.
	rows, err := t.lock.Query(ctx, `SELECT format('SELECT setval(%L, greatest(coalesce(max(%I), 0), 1), max(%I) IS NOT NULL) FROM %I', generator, column_name, column_name, table_name)
		FROM (SELECT table_name, column_name, pg_get_serial_sequence(quote_ident(table_name), column_name) AS generator
			FROM (SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema() OFFSET 0) AS own) AS named
		WHERE generator IS NOT NULL`)
	if err != nil {
		return fmt.Errorf("look for generators: %w", err)
	}
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for generators: %w", err)
	}
	for _, text := range texts {
		if _, err := t.lock.Exec(ctx, text); err != nil {
			return fmt.Errorf("set generator: %w", err)
		}
	}
	return nil
}

// content reads everything back, while the server analyzes it.
func (t *postgresTarget) content(ctx context.Context, tables []*shape) (map[string]Content, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var analyzing sync.WaitGroup
	analyzing.Go(func() {
		if err := t.analyze(ctx); err != nil {
			cancel(err)
		}
	})
	out, err := t.readBack(ctx, tables)
	if err != nil {
		cancel(err)
	}
	analyzing.Wait()
	return out, context.Cause(ctx)
}

func (t *postgresTarget) readBack(ctx context.Context, tables []*shape) (_ map[string]Content, err error) {
	snap := &Snapshot{store: t.store}
	for _, table := range tables {
		snap.tables = append(snap.tables, *table)
	}
	err = t.store.snapshotPostgres(ctx, snap, SnapshotOptions{Readers: cap(t.conns), LockWait: loadLockWait})
	if snap.source != nil {
		defer func() { err = errors.Join(err, snap.source.close()) }()
	}
	if err != nil {
		return nil, err
	}
	return snap.content(ctx, cap(t.conns))
}

func (t *postgresTarget) url() string { return t.address }

func (t *postgresTarget) release(context.Context) error {
	t.made = ""
	return t.close()
}

func (t *postgresTarget) drop(ctx context.Context) error {
	config := t.lock.Config()
	var err error
	if t.made == "" {
		if t.lock.IsClosed() { // an interrupted statement ends its connection
			if t.lock, err = ownConn(ctx, config, "z4j-brain restore", loadLockWait); err != nil {
				return errors.Join(err, t.close())
			}
		}
		err = t.clear(ctx)
	}
	return errors.Join(err, t.close(), t.dropMade(ctx, config))
}

func (t *postgresTarget) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var errs []error
	if t.store != nil {
		errs = append(errs, t.store.Close())
		t.store = nil
	}
	for len(t.conns) > 0 {
		errs = append(errs, (<-t.conns).Close(ctx))
	}
	if t.lock != nil {
		errs = append(errs, t.lock.Close(ctx))
	}
	return errors.Join(errs...)
}
