package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const partitionDay = "2006_01_02"

// EnsurePartitions makes the day partitions of events from the day before now to days ahead of it; on SQLite, which has
// one table, it does nothing.
func (s *Store) EnsurePartitions(ctx context.Context, now time.Time, days int) error {
	if s.pool == nil {
		return nil
	}
	first := now.UTC().Truncate(24*time.Hour).AddDate(0, 0, -1)
	var errs []error
	for i := range days + 1 {
		errs = append(errs, s.ensurePartition(ctx, first.AddDate(0, 0, i))) // one bad day never stops the others
	}
	return errors.Join(errs...)
}

// ensurePartition makes the partition of the day that t lies in. It attaches a table made before, so that the parent is
// never locked against writers.
func (s *Store) ensurePartition(ctx context.Context, t time.Time) error {
	day := t.UTC().Truncate(24 * time.Hour)
	name := "events_" + day.Format(partitionDay)
	if _, ok := s.partitions.Load(name); ok {
		return nil
	}
	err := pgx.BeginFunc(ctx, s.ingests, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1, hashtext(current_schema() || $2))`, migrationLock, name); err != nil {
			return err
		}
		var there bool
		if err := tx.QueryRow(ctx, `SELECT to_regclass(quote_ident(current_schema()) || '.' || quote_ident($1)) IS NOT NULL`, name).Scan(&there); err != nil || there {
			return err
		}
		table := pgx.Identifier{name}.Sanitize()
		_, err := tx.Exec(ctx, `CREATE TABLE `+table+` (LIKE events INCLUDING ALL)`)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, fmt.Sprintf(`ALTER TABLE events ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')`,
			table, day.Format(time.RFC3339), day.AddDate(0, 0, 1).Format(time.RFC3339)))
		return err
	})
	var pg *pgconn.PgError
	switch {
	case !errors.As(err, &pg):
	case pg.Code == "42P07": // another brain made it
		err = nil
	case pg.Code == "23514": // somebody made a default partition, and it has events of the day: it takes the others, too
		s.log.WarnContext(ctx, "events have a default partition, which stands in the way of a day's own", "partition", name)
		err = nil
	}
	if err != nil {
		return wrap("make partition "+name, err)
	}
	s.partitions.Store(name, true)
	return nil
}
