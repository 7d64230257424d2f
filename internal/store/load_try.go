package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/ncruces/go-sqlite3"

	"github.com/z4j-go/z4j/internal/id"
)

// freshTries are the rows that TryWrites writes, by table and column.
type freshTries map[string]map[string]any

// TryWrites writes a row into every table and takes it all back: a table that reads well may still refuse its first
// write, if a generator stands behind the rows, a trigger is broken, or a permission is missing.
func (s *Store) TryWrites(ctx context.Context) error {
	tables, err := shapes(newestSchema())
	if err != nil {
		return wrap("try writes", err)
	}
	refs, err := s.references(ctx)
	if err != nil {
		return wrap("try writes", err)
	}
	tx, err := s.begin(ctx)
	if err != nil {
		return wrap("try writes", err)
	}
	defer tx.end()
	if s.pool != nil {
		if err := s.EnsurePartitions(ctx, tx.now.Time, 0); err != nil {
			return wrap("try writes", err)
		}
	}
	fresh := freshTries{}
	for len(tables) > 0 {
		left := len(tables)
		tables = slices.DeleteFunc(tables, func(t shape) bool {
			ready := !slices.ContainsFunc(refs[t.name], func(r reference) bool { return fresh[r.table] == nil && r.table != t.name })
			if ready && err == nil {
				err = fresh.try(ctx, tx, &t, refs[t.name])
			}
			return ready
		})
		if err != nil {
			return fmt.Errorf("try writes: %w", err)
		}
		if len(tables) == left {
			return fmt.Errorf("try writes: %s and others refer to each other", tables[0].name)
		}
	}
	return nil
}

// reference is a foreign key's column and what it refers to.
type reference struct{ column, table, to string }

// try writes a row into t: like one that is there, with a new key and new rows behind its foreign keys.
func (f freshTries) try(ctx context.Context, tx *Tx, t *shape, refs []reference) error {
	row, found, err := anyRow(ctx, tx, t)
	if err != nil {
		return fmt.Errorf("read table %s: %w", t.name, err)
	}
	keys, err := tx.store.keyColumns(ctx, tx, t.name)
	if err != nil {
		return fmt.Errorf("read the keys of %s: %w", t.name, err)
	}
	for i, c := range t.columns {
		if !found || slices.Contains(keys, c.Name) {
			if row[i], err = freshValue(ctx, tx, t, c); err != nil {
				return fmt.Errorf("read table %s: %w", t.name, err)
			}
		}
		for _, r := range refs {
			if r.column == c.Name && (r.table != t.name) {
				row[i] = f[r.table][r.to]
			}
		}
	}
	f[t.name] = map[string]any{}
	for i, c := range t.columns {
		f[t.name][c.Name] = row[i]
	}
	if _, err := tx.ExecContext(ctx, `SAVEPOINT try`); err != nil {
		return err
	}
	numbers := make([]string, len(row))
	for i := range row {
		numbers[i] = fmt.Sprintf("$%d", i+1)
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO `+quoted(t.name)+` (`+quotedList(t.names())+`) VALUES (`+strings.Join(numbers, ", ")+`)`, row...)
	if err == nil || !refusedByCheck(err) {
		return wrap("write into table "+t.name, err)
	}
	// A table of one row, or one whose values are bounded: what is there can be written again.
	if _, err := tx.ExecContext(ctx, `ROLLBACK TO SAVEPOINT try`); err != nil {
		return err
	}
	last := quoted(t.columns[len(t.columns)-1].Name)
	_, err = tx.ExecContext(ctx, `UPDATE `+quoted(t.name)+` SET `+last+` = `+last)
	return wrap("write into table "+t.name, err)
}

// anyRow is a row of t, or as many nils.
func anyRow(ctx context.Context, tx *Tx, t *shape) (row []any, found bool, err error) {
	row = make([]any, len(t.columns))
	rows, err := tx.QueryContext(ctx, `SELECT `+quotedList(t.names())+` FROM `+quoted(t.name)+` LIMIT 1`)
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	if !rows.Next() {
		return row, false, rows.Err()
	}
	into := make([]any, len(row))
	for i := range into {
		into[i] = &row[i]
	}
	return row, true, rows.Scan(into...)
}

// freshValue is a value that no row has.
func freshValue(ctx context.Context, tx *Tx, t *shape, c Column) (any, error) {
	switch c.Kind {
	case KindBool:
		return true, nil
	case KindInt:
		var next int64
		err := tx.QueryRowContext(ctx, `SELECT coalesce(max(`+quoted(c.Name)+`), 0) + 1 FROM `+quoted(t.name)).Scan(&next)
		return next, err
	case KindTime:
		return tx.now, nil
	case KindBytes:
		u := id.Random()
		return u[:], nil
	case KindUUID:
		return id.Random(), nil
	case KindText:
		return id.Random().String(), nil
	}
	return nil, fmt.Errorf("column %s has no kind", c.Name)
}

// references are the foreign keys of each table.
func (s *Store) references(ctx context.Context) (map[string][]reference, error) {
	q := `SELECT m.name, f."from", f."table", coalesce(f."to", '') FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table'`
	if s.pool != nil {
		q = `SELECT c.relname, a.attname, r.relname, b.attname FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class r ON r.oid = k.confrelid,
			unnest(k.conkey, k.confkey) AS u (x, y), pg_attribute a, pg_attribute b
			WHERE k.contype = 'f' AND k.conparentid = 0 AND k.connamespace = current_schema()::regnamespace
			AND a.attrelid = k.conrelid AND a.attnum = u.x AND b.attrelid = k.confrelid AND b.attnum = u.y`
	}
	type line struct {
		table string
		ref   reference
	}
	rows, err := s.write.QueryContext(ctx, q)
	lines, err := collect(rows, err, func(l *line) []any { return []any{&l.table, &l.ref.column, &l.ref.table, &l.ref.to} })
	out := map[string][]reference{}
	for _, l := range lines {
		out[l.table] = append(out[l.table], l.ref)
	}
	return out, wrap("read foreign keys", err)
}

// keyColumns are the columns of a table's primary key and unique indexes.
func (s *Store) keyColumns(ctx context.Context, tx *Tx, table string) ([]string, error) {
	q := `SELECT DISTINCT i.name FROM pragma_index_list($1) l JOIN pragma_index_info(l.name) i WHERE l."unique" = 1
		UNION SELECT name FROM pragma_table_info($1) WHERE pk > 0`
	if s.pool != nil {
		q = `SELECT DISTINCT a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
			WHERE i.indisunique AND c.relname = $1 AND c.relnamespace = current_schema()::regnamespace`
	}
	rows, err := tx.QueryContext(ctx, q, table)
	return collect(rows, err, func(name *string) []any { return []any{name} })
}

func refusedByCheck(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23514" || errors.Is(err, sqlite3.CONSTRAINT_CHECK)
}

// checkForeignKeys finds rows whose foreign key leads nowhere. Postgres has checked them when it made the constraints.
func (s *Store) checkForeignKeys(ctx context.Context) error {
	if s.pool != nil {
		return nil
	}
	type lost struct{ table, parent string }
	rows, err := s.write.QueryContext(ctx, `SELECT DISTINCT "table", parent FROM pragma_foreign_key_check()`)
	found, err := collect(rows, err, func(l *lost) []any { return []any{&l.table, &l.parent} })
	if err != nil || len(found) == 0 {
		return wrap("check foreign keys", err)
	}
	return fmt.Errorf("check foreign keys: rows of %s refer to rows of %s that are not there", found[0].table, found[0].parent)
}
