package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// postgresSnapshot is one moment that several connections see. Each holds every table's ACCESS SHARE lock from the start:
// one that locked later could wait behind a waiting DROP, which waits for us.
type postgresSnapshot struct {
	conns []*pgx.Conn
}

// piecePages is how much of a table is read as one piece, in pages of 8 KiB: enough pieces for several readers to end together.
const piecePages = 32768

func (s *Store) snapshotPostgres(ctx context.Context, snap *Snapshot, o SnapshotOptions) error {
	source := &postgresSnapshot{}
	snap.source = source
	for range o.Readers {
		c, err := s.ownConn(ctx, "z4j-brain backup", o.LockWait)
		if err != nil {
			return err
		}
		source.conns = append(source.conns, c)
	}
	if err := refusePooler(ctx, source.conns); err != nil {
		return err
	}
	var exported string
	for i, c := range source.conns {
		if _, err := c.Exec(ctx, `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`); err != nil {
			return err
		}
		if i > 0 {
			if _, err := c.Exec(ctx, `SET TRANSACTION SNAPSHOT '`+exported+`'`); err != nil {
				return fmt.Errorf("share the snapshot: %w", err)
			}
		}
		for _, t := range snap.tables { // LOCK takes no snapshot: that comes after, so that no table changes in between
			if _, err := c.Exec(ctx, `LOCK TABLE `+pgx.Identifier{t.name}.Sanitize()+` IN ACCESS SHARE MODE`); err != nil {
				return fmt.Errorf("lock table %s: %w", t.name, lockError(err, o.LockWait))
			}
		}
		if i > 0 {
			continue
		}
		if err := c.QueryRow(ctx, `SELECT pg_export_snapshot()`).Scan(&exported); err != nil {
			return fmt.Errorf("export the snapshot: %w", err)
		}
		if strings.ContainsAny(exported, `'\`) {
			return fmt.Errorf("export the snapshot: %q is no name of one", exported)
		}
	}
	return source.describe(ctx, &snap.info)
}

// ownConn opens a connection without time-outs that belongs to no pool.
func (s *Store) ownConn(ctx context.Context, application string, lockWait time.Duration) (*pgx.Conn, error) {
	return ownConn(ctx, s.pool.Config().ConnConfig, application, lockWait)
}

func ownConn(ctx context.Context, like *pgx.ConnConfig, application string, lockWait time.Duration) (*pgx.Conn, error) {
	c := like.Copy()
	c.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	p := c.RuntimeParams
	p["application_name"] = application
	p["statement_timeout"], p["idle_in_transaction_session_timeout"] = "0", "0"
	p["lock_timeout"] = strconv.FormatInt(lockWait.Milliseconds(), 10)
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	_, err = conn.Exec(ctx, `SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'`) // since Postgres 17
	if err != nil {
		return nil, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	}
	return conn, nil
}

// refusePooler refuses a PgBouncer that pools transactions: one backend would answer two of our connections, and time-outs
// that we switch off are another's. Telling by the numbers of the backends sees it unless the pool is busy just then.
func refusePooler(ctx context.Context, conns []*pgx.Conn) error {
	seen := map[int64]int{}
	for i, c := range conns {
		for range 2 {
			var pid int64
			if err := c.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&pid); err != nil {
				return err
			}
			if other, ok := seen[pid]; ok && other != i {
				return errors.New("the database is reached through a pooler of transactions (PgBouncer): a backup needs its own sessions; " +
					"name the server itself in Z4J_DATABASE_URL of the command, or pool sessions")
			}
			seen[pid] = i
		}
	}
	return nil
}

func lockError(err error, wait time.Duration) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "55P03" {
		return fmt.Errorf("another session keeps it locked, for %v now: find it in pg_locks, or try again later: %w", wait, err)
	}
	return err
}

func (s *postgresSnapshot) describe(ctx context.Context, info *SnapshotInfo) error {
	var clock, ts time.Time
	err := s.conns[0].QueryRow(ctx, describeSnapshot(`current_setting('server_version')`, `now()`, `'epoch'::timestamptz`)).Scan(
		&info.Server, &clock, &info.Schema, &info.Instance, &info.Generation, &info.Place, &info.Boundary, &info.AuditSize, &info.Head, &ts)
	info.Time, info.HeadTime = TimeOf(clock), TimeOf(ts)
	return wrap("describe the snapshot", err)
}

// describeSnapshot is the statement that fills a SnapshotInfo.
func describeSnapshot(version, clock, never string) string {
	return `SELECT ` + version + `, ` + clock + `, coalesce((SELECT max(version_id) FROM ` + versionTable + `), 0),
		coalesce((SELECT value FROM meta WHERE key = 'instance'), ''),
		coalesce((SELECT generation FROM audit_generations ORDER BY started DESC, generation LIMIT 1), ''),
		coalesce((SELECT identifier FROM audit_place), ''), coalesce((SELECT through FROM audit_boundary), 0),
		coalesce(h.seq, 0), coalesce(h.row_hmac, ''), coalesce(h.ts, ` + never + `)
		FROM (SELECT 1 AS one) AS one LEFT JOIN (SELECT seq, row_hmac, ts FROM audit_log ORDER BY seq DESC LIMIT 1) AS h ON one.one = 1`
}

func (s *postgresSnapshot) readers() int { return len(s.conns) }

func (s *postgresSnapshot) close() error {
	var errs []error
	for _, c := range s.conns {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) // of a database that is away
		errs = append(errs, c.Close(ctx))
		cancel()
	}
	s.conns = nil
	return errors.Join(errs...)
}

// pieces reads each partition of events by itself, and large tables by ranges of their pages.
func (s *postgresSnapshot) pieces(ctx context.Context, tables []shape) ([]piece, error) {
	var out []piece
	for i := range tables {
		t := &tables[i]
		columns := quotedList(t.names())
		if order := keptInOrder[t.name]; order != "" {
			out = append(out, piece{table: t, query: `SELECT ` + columns + ` FROM ` + quoted(t.name) + ` ORDER BY ` + order, bytes: math.MaxInt64})
			continue
		}
		rows, err := s.conns[0].Query(ctx, `SELECT c.relname, pg_relation_size(c.oid) / 8192, pg_table_size(c.oid) FROM pg_partition_tree($1::regclass) p
			JOIN pg_class c ON c.oid = p.relid WHERE p.isleaf UNION ALL SELECT c.relname, pg_relation_size(c.oid) / 8192, pg_table_size(c.oid)
			FROM pg_class c WHERE c.oid = $1::regclass AND c.relkind = 'r' AND NOT EXISTS (SELECT 1 FROM pg_partition_tree($1::regclass))
			ORDER BY 1`, quoted(t.name))
		if err != nil {
			return nil, fmt.Errorf("look at table %s: %w", t.name, err)
		}
		leaves, err := pgx.CollectRows(rows, pgx.RowToStructByPos[leaf])
		if err != nil {
			return nil, fmt.Errorf("look at table %s: %w", t.name, err)
		}
		for _, l := range leaves {
			out = append(out, l.pieces(t, columns)...)
		}
	}
	return out, nil
}

// leaf is a table, or a partition of one, that has rows.
type leaf struct {
	Name  string
	Pages int64
	Bytes int64
}

func (l leaf) pieces(t *shape, columns string) []piece {
	from := `SELECT ` + columns + ` FROM ONLY ` + quoted(l.Name)
	if l.Pages <= piecePages {
		return []piece{{table: t, query: from, bytes: l.Bytes}}
	}
	var out []piece
	for at := int64(0); at < l.Pages; at += piecePages {
		where := fmt.Sprintf(` WHERE ctid >= '(%d,0)' AND ctid < '(%d,0)'`, at, at+piecePages)
		if at+piecePages >= l.Pages { // pages that were added meanwhile have nothing of ours, but it costs nothing to be sure
			where = fmt.Sprintf(` WHERE ctid >= '(%d,0)'`, at)
		}
		out = append(out, piece{table: t, query: from + where, bytes: l.Bytes * piecePages / l.Pages})
	}
	return out
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }

func quotedList(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = quoted(n)
	}
	return strings.Join(out, ", ")
}

func (s *postgresSnapshot) read(ctx context.Context, reader int, p piece, out *chunkWriter) error {
	in := &copyReader{columns: p.table.columns, out: out}
	tag, err := s.conns[reader].PgConn().CopyTo(ctx, in, `COPY (`+p.query+`) TO STDOUT (FORMAT binary)`)
	if err != nil {
		return err
	}
	if !in.ended || in.rows != tag.RowsAffected() {
		return fmt.Errorf("the server sent %d rows and says that it were %d", in.rows, tag.RowsAffected())
	}
	return in.out.flush()
}

// copyReader turns the binary form of COPY into chunks. It is written to: messages need not end where rows do.
type copyReader struct {
	columns []Column
	out     *chunkWriter
	pending []byte // of a row whose end has not come
	begun   bool
	ended   bool
	rows    int64
}

const copySignature = "PGCOPY\n\xff\r\n\x00"

// Write takes a part of the stream.
func (c *copyReader) Write(p []byte) (int, error) {
	n := len(p)
	if len(c.pending) > 0 {
		c.pending = append(c.pending, p...)
		p = c.pending
	}
	for len(p) > 0 {
		used, err := c.take(p)
		if err != nil {
			return 0, err
		}
		if used == 0 {
			break
		}
		p = p[used:]
	}
	c.pending = append(c.pending[:0], p...)
	return n, nil
}

// take reads the header or one row and returns how long it is; 0: its end is missing.
func (c *copyReader) take(p []byte) (used int, err error) {
	if !c.begun {
		const header = len(copySignature) + 8
		if len(p) < header {
			return 0, nil
		}
		if string(p[:len(copySignature)]) != copySignature || binary.BigEndian.Uint64(p[len(copySignature):]) != 0 {
			return 0, errors.New("the server sent no rows in COPY's binary form")
		}
		c.begun = true
		return header, nil
	}
	if len(p) < 2 {
		return 0, nil
	}
	fields := int16(binary.BigEndian.Uint16(p))
	if fields == -1 && !c.ended {
		c.ended = true
		return 2, nil
	}
	if int(fields) != len(c.columns) || c.ended {
		return 0, fmt.Errorf("the server sent a row of %d columns, not %d", fields, len(c.columns))
	}
	return c.row(p)
}

func (c *copyReader) row(p []byte) (used int, err error) {
	c.out.begin()
	at := 2
	for i := range c.columns {
		if len(p)-at < 4 {
			c.out.undo()
			return 0, nil
		}
		n := int(int32(binary.BigEndian.Uint32(p[at:])))
		at += 4
		if n < 0 {
			c.out.null(i)
			continue
		}
		if len(p)-at < n {
			c.out.undo()
			return 0, nil
		}
		if err := c.field(&c.columns[i], p[at:at+n]); err != nil {
			return 0, err
		}
		at += n
	}
	c.rows++
	return at, c.out.end()
}

func (c *copyReader) field(col *Column, v []byte) error {
	switch col.Kind {
	case KindText, KindBytes:
		c.out.bytes(v)
		return nil
	case KindUUID:
		if len(v) == 16 {
			c.out.uuid(v)
			return nil
		}
	case KindTime:
		if len(v) == 8 {
			t := int64(binary.BigEndian.Uint64(v))
			if t > math.MaxInt64-epoch2000 || t == math.MinInt64 {
				return fmt.Errorf("column %s: an infinite time can't be kept", col.Name)
			}
			c.out.time(t + epoch2000)
			return nil
		}
	case KindBool:
		if len(v) == 1 {
			c.out.bool(v[0])
			return nil
		}
	case KindInt:
		switch len(v) {
		case 2:
			c.out.int(int64(int16(binary.BigEndian.Uint16(v))))
			return nil
		case 4:
			c.out.int(int64(int32(binary.BigEndian.Uint32(v))))
			return nil
		case 8:
			c.out.int(int64(binary.BigEndian.Uint64(v)))
			return nil
		}
	}
	return fmt.Errorf("column %s: %d bytes are no %s", col.Name, len(v), col.Kind)
}
