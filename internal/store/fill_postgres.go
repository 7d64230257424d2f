package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// fillWriters is how many parts are made and written at once: one waits for Postgres while another one is made.
const fillWriters = 2

// postgres writes parts with COPY. Tables that were empty get their indexes when all rows are there: that takes a third of
// the time of rows that come in the order of no index.
func (f *filler) postgres(ctx context.Context) error {
	for day := time.UnixMicro(f.From).UTC(); ; day = day.AddDate(0, 0, 1) {
		if err := f.store.ensurePartition(ctx, day); err != nil {
			return err
		}
		if day.UnixMicro() > f.To {
			break
		}
	}
	if f.empty {
		if err := f.setAside(ctx); err != nil {
			return err
		}
	}
	f.Told("write tasks")
	err := f.copyParts(ctx)
	if f.empty {
		f.Told("build indexes")
		// Whatever ended the copying: without its indexes the database is of no use.
		err = errors.Join(err, f.mend(context.WithoutCancel(ctx)))
	}
	if err == nil {
		err = f.signs(ctx)
	}
	if err != nil {
		return err
	}
	return f.analyze(ctx)
}

func (f *filler) analyze(ctx context.Context) error {
	conn, err := f.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	text := `ANALYZE `
	if f.Vacuum {
		text = `VACUUM (ANALYZE) `
	}
	f.Told("analyze")
	_, err = conn.Exec(ctx, text+`events, tasks, attempts, rollup_minutes, rollup_hours`)
	return err
}

// connect opens a connection for work that takes its time.
func (f *filler) connect(ctx context.Context) (*pgx.Conn, error) {
	pooled, err := f.store.ingests.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	conn := pooled.Hijack()
	for _, set := range []string{
		`SET statement_timeout = 0`, `SET idle_in_transaction_session_timeout = 0`, `SET synchronous_commit = off`, `SET maintenance_work_mem = '512MB'`,
	} {
		if _, err := conn.Exec(ctx, set); err != nil {
			return nil, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
		}
	}
	return conn, nil
}

func (f *filler) copyParts(ctx context.Context) error {
	g, within := errgroup.WithContext(ctx)
	for range fillWriters {
		g.Go(func() error { return f.copyWriter(within) })
	}
	if err := g.Wait(); err != nil || !f.empty {
		return err
	}
	conn, err := f.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return (&copier{conn: conn}).rollups(ctx, "rollup_hours", f.allHours())
}

// copyWriter makes and writes parts until there are no more.
func (f *filler) copyWriter(ctx context.Context) error {
	conn, err := f.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	c := copier{conn: conn}
	maker := f.Maker()
	var w IngestWrites
	for {
		part, ok := f.take()
		if !ok {
			return nil
		}
		maker(part, &w)
		if err := c.tasks(ctx, &w); err != nil {
			return err
		}
		minutes := f.written(part, &w)
		if !f.empty {
			if err := f.addRollups(ctx, minutes); err != nil {
				return err
			}
			continue
		}
		f.addHours(minutes)
		if err := c.rollups(ctx, "rollup_minutes", minutes); err != nil {
			return err
		}
	}
}

// copier writes rows with binary COPY: the fields are those of ingest's arrays, one after the other.
type copier struct {
	conn   *pgx.Conn
	fields []array
	buf    []byte
}

const copyHeader = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// tasks writes a part in one transaction.
func (c *copier) tasks(ctx context.Context, w *IngestWrites) error {
	return pgx.BeginFunc(ctx, c.conn, func(pgx.Tx) error {
		err := c.rows(ctx, "events (project_id, id, agent_id, task_key, occurred_at, received_at, engine, task_id, kind, worker, payload)", 11,
			len(w.Events), func(f []array, i int) { putEvent(f, &w.Events[i]) })
		if err != nil {
			return err
		}
		err = c.rows(ctx, "tasks ("+taskWriteColumns+")", len(taskOIDs), len(w.NewTasks), func(f []array, i int) { putTask(f, &w.NewTasks[i]) })
		if err != nil {
			return err
		}
		return c.rows(ctx, "attempts ("+attemptWriteColumns+")", len(attemptOIDs), len(w.Attempts), func(f []array, i int) { putAttempt(f, &w.Attempts[i], true) })
	})
}

func (c *copier) rollups(ctx context.Context, table string, all []RollupDelta) error {
	return c.rows(ctx, table+" (project_id, bucket, measure, name, queue, count, sum)", len(rollupOIDs), len(all), func(f []array, i int) { putRollup(f, &all[i]) })
}

// rows copies n rows into a table, named with its columns; put appends one row's fields.
func (c *copier) rows(ctx context.Context, table string, columns, n int, put func(f []array, i int)) error {
	if n == 0 {
		return nil
	}
	for len(c.fields) < columns {
		c.fields = append(c.fields, array{buf: make([]byte, arrayHeader)})
	}
	fields := c.fields[:columns]
	c.buf = append(c.buf[:0], copyHeader...)
	for i := range n {
		for j := range fields {
			fields[j].buf = fields[j].buf[:arrayHeader]
		}
		put(fields, i)
		c.buf = binary.BigEndian.AppendUint16(c.buf, uint16(columns))
		for j := range fields {
			c.buf = append(c.buf, fields[j].buf[arrayHeader:]...)
		}
	}
	c.buf = append(c.buf, 0xff, 0xff)
	if _, err := c.conn.PgConn().CopyFrom(ctx, bytes.NewReader(c.buf), `COPY `+table+` FROM STDIN (FORMAT binary)`); err != nil {
		name, _, _ := strings.Cut(table, " ")
		return fmt.Errorf("copy %s: %w", name, err)
	}
	return nil
}

// asideKey is where the definitions of indexes stand while they are gone.
const asideKey = "fill_indexes_set_aside"

// aside is an index that is gone for a while.
type aside struct {
	Table string `json:"table"`
	Drop  string `json:"-"`
	Make  string `json:"make"`
	Name  string `json:"name"`
}

// setAside drops the indexes of the large tables and notes, in the same transaction, how they are made again.
func (f *filler) setAside(ctx context.Context) error {
	conn, err := f.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT t.relname, i.relname, pg_get_indexdef(i.oid), coalesce(pg_get_constraintdef(c.oid), '')
			FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
			LEFT JOIN pg_constraint c ON c.conindid = i.oid AND c.contype IN ('p', 'u')
			WHERE t.relnamespace = current_schema()::regnamespace AND t.relname IN ('events', 'tasks', 'attempts')
			ORDER BY t.relname, c.contype NULLS LAST, i.relname`)
		if err != nil {
			return err
		}
		list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (aside, error) {
			var a aside
			var index, constraint string
			if err := row.Scan(&a.Table, &a.Name, &index, &constraint); err != nil {
				return a, err
			}
			table, name := pgx.Identifier{a.Table}.Sanitize(), pgx.Identifier{a.Name}.Sanitize()
			a.Drop, a.Make = `DROP INDEX `+name, strings.Replace(index, " ON ONLY ", " ON ", 1)
			if constraint != "" {
				a.Drop, a.Make = `ALTER TABLE `+table+` DROP CONSTRAINT `+name, `ALTER TABLE `+table+` ADD CONSTRAINT `+name+` `+constraint
			}
			return a, nil
		})
		if err != nil {
			return err
		}
		for _, a := range list {
			if _, err := tx.Exec(ctx, a.Drop); err != nil {
				return fmt.Errorf("set index %s aside: %w", a.Name, err)
			}
		}
		note, err := json.Marshal(list)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO meta (key, value, updated_at) VALUES ($1, $2, $3)`, asideKey, string(note), f.store.now())
		return err
	})
}

// mend makes the indexes that are set aside, by this fill or by one that was killed. On SQLite there are none.
func (f *filler) mend(ctx context.Context) error {
	if f.store.pool == nil {
		return nil
	}
	note, err := f.store.Meta(ctx, asideKey)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var list []aside
	if err := json.Unmarshal([]byte(note), &list); err != nil {
		return fmt.Errorf("read which indexes are missing: %w", err)
	}
	g, within := errgroup.WithContext(ctx)
	for _, events := range []bool{true, false} { // half of the rows are events
		g.Go(func() error { return f.makeIndexes(within, list, events) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	_, err = f.store.write.ExecContext(ctx, `DELETE FROM meta WHERE key = $1`, asideKey)
	return err
}

// makeIndexes makes those of the list that are on events, or those that are not.
func (f *filler) makeIndexes(ctx context.Context, list []aside, events bool) error {
	conn, err := f.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, a := range list {
		if (a.Table == "events") != events {
			continue
		}
		var there bool
		err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relname = $1)`, a.Name).Scan(&there)
		if err != nil || there {
			if err != nil {
				return err
			}
			continue
		}
		if _, err := conn.Exec(ctx, a.Make); err != nil {
			return fmt.Errorf("make index %s: %w", a.Name, err)
		}
	}
	return nil
}
