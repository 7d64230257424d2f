package store

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/z4j-go/z4j/internal/id"
)

// events deletes events that are too old.
func (w *sweeper) events(ctx context.Context) error {
	if w.pool == nil {
		return w.eventsSQLite(ctx)
	}
	return w.eventsPostgres(ctx)
}

// partition is a partition of events, as the catalogue has it: a name can lie.
type partition struct {
	name      string
	isDefault bool
	from, to  Time // of the default partition: none
	estimate  int64
}

var boundForm = regexp.MustCompile(`^FOR VALUES FROM \('([^']+)'\) TO \('([^']+)'\)$`)

// eventPartitions lists the partitions of events, the oldest first, the default one last.
func (s *Store) eventPartitions(ctx context.Context, q querier) ([]partition, error) {
	type row struct {
		name, bound string
		estimate    int64
	}
	rows, err := q.QueryContext(ctx, `SELECT c.relname, pg_get_expr(c.relpartbound, c.oid), CAST(c.reltuples AS bigint)
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = to_regclass(quote_ident(current_schema()) || '.events')`)
	list, err := collect(rows, err, func(r *row) []any { return []any{&r.name, &r.bound, &r.estimate} })
	if err != nil {
		return nil, err
	}
	var out []partition
	for _, r := range list {
		p := partition{name: r.name, estimate: r.estimate, isDefault: r.bound == "DEFAULT"}
		if !p.isDefault {
			if p.from, p.to, err = parseBound(r.bound); err != nil {
				return nil, fmt.Errorf("partition %s: %w", r.name, err)
			}
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b partition) int {
		if a.isDefault != b.isDefault {
			return btoi(a.isDefault) - btoi(b.isDefault)
		}
		return a.from.Compare(b.from.Time)
	})
	return out, nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func parseBound(text string) (from, to Time, err error) {
	m := boundForm.FindStringSubmatch(text)
	if m == nil {
		return from, to, fmt.Errorf("its bounds %q are not those of a day", text)
	}
	for i, t := range []*Time{&from, &to} {
		at, err := time.Parse("2006-01-02 15:04:05-07", m[i+1])
		if err != nil {
			return from, to, fmt.Errorf("its bounds %q can't be read: %w", text, err)
		}
		*t = TimeOf(at)
	}
	return from, to, nil
}

// fate is what becomes of one partition under rules.
type fate struct {
	partition
	drop bool
	keep []id.ID // projects whose rows in it have to stay; they may have none
}

// fateOf decides by time alone. A partition goes whole when every project's events of its days are too old; due says that
// at least those of one are.
func fateOf(p partition, rules []rule, now Time, otherwise int) (f fate, due bool) {
	f = fate{partition: p}
	due = !p.to.After(eventCut(now, otherwise).Time) // events of no project that exists
	for i := range rules {
		r := &rules[i]
		switch {
		case r.held() || p.to.After(eventCut(now, r.events).Time):
			f.keep = append(f.keep, r.project)
		default:
			due = true
		}
	}
	return f, due
}

// dueEvents tells which partitions go whole, and which have to be cleared row by row, because projects that keep their
// events longer, or are held, have some in them.
func (s *Store) dueEvents(ctx context.Context, q querier, rules []rule, now Time, otherwise int) (whole, rows []fate, err error) {
	all, err := s.eventPartitions(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range all {
		if p.isDefault {
			rows = append(rows, fate{partition: p})
			continue
		}
		f, due := fateOf(p, rules, now, otherwise)
		if !due {
			continue
		}
		has, err := hasEvents(ctx, q, p.name, f.keep)
		if err != nil {
			return nil, nil, err
		}
		if f.drop = !has; f.drop {
			whole = append(whole, f)
		} else {
			rows = append(rows, f)
		}
	}
	return whole, rows, nil
}

// hasEvents reports whether a partition has an event of one of projects; one look into an index for each.
func hasEvents(ctx context.Context, q querier, name string, projects []id.ID) (bool, error) {
	for part := range slices.Chunk(projects, projectsAtOnce) {
		var w where
		in(&w, "project_id", part)
		rows, err := q.QueryContext(ctx, `SELECT 1 FROM `+pgx.Identifier{name}.Sanitize()+w.sql.String()+` LIMIT 1`, w.args...)
		list, err := collect(rows, err, func(n *int) []any { return []any{n} })
		if err != nil || len(list) > 0 {
			return len(list) > 0, err
		}
	}
	return false, nil
}

func (w *sweeper) eventsPostgres(ctx context.Context) error {
	whole, rest, err := w.dueEvents(ctx, w.read, w.rules, w.now, w.o.Keep.rule(&Project{}).events)
	if err != nil {
		return err
	}
	for i := range whole {
		if err := w.drop(ctx, &whole[i]); err != nil {
			return err
		}
	}
	if len(rest) == 0 {
		return nil
	}
	return w.each(ctx, func(ctx context.Context, r *rule) error {
		for i := range rest {
			if err := w.deleteEvents(ctx, r, rest[i].rangeOf(r, w.now)); err != nil {
				return err
			}
		}
		return nil
	})
}

// rangeOf is what of a partition goes of a project.
func (f *fate) rangeOf(r *rule, now Time) eventRange {
	until := eventCut(now, r.events)
	if f.isDefault {
		return eventRange{pgx.Identifier{f.name}.Sanitize(), TimeAt(0), until}
	}
	if f.to.Before(until.Time) {
		until = f.to
	}
	return eventRange{"events", f.from, until}
}

// drop drops a partition. Whoever writes events waits behind the lock on their table, so it is asked for a tenth of a
// second at a time, with pauses, and kept for little more than the look that nothing is lost.
func (w *sweeper) drop(ctx context.Context, f *fate) error {
	count, exact, err := w.countPartition(ctx, &f.partition)
	if err != nil {
		return err
	}
	dropped := false
	err = w.transaction(ctx, &rule{}, func(ctx context.Context, tx *Tx) (err error) {
		if dropped, err = w.dropNow(ctx, tx, f); err != nil || !dropped {
			return err
		}
		return tx.countSwept(ctx, id.ID{}, "events", count, 1, !exact)
	})
	if outOfLocks(err) {
		w.out.Busy = append(w.out.Busy, f.name)
		w.log.WarnContext(ctx, "events partition is in use and stays until the next sweep", "partition", f.name)
		return nil
	}
	if err != nil || !dropped {
		return err
	}
	w.partitions.Delete(f.name)
	w.out.Partitions = append(w.out.Partitions, f.name)
	w.deleted("events", count)
	w.out.Estimated = w.out.Estimated || !exact
	return nil
}

// dropNow drops the partition under locks that no writer gets past, unless a project has come to need it meanwhile.
func (w *sweeper) dropNow(ctx context.Context, tx *Tx, f *fate) (bool, error) {
	table := pgx.Identifier{f.name}.Sanitize()
	if _, err := tx.ExecContext(ctx, `LOCK TABLE ONLY events IN ACCESS EXCLUSIVE MODE`); err != nil {
		return false, err
	}
	if _, err := tx.ExecContext(ctx, `SET LOCAL lock_timeout = '50ms'`); err != nil { // now others wait for us
		return false, err
	}
	if _, err := tx.ExecContext(ctx, `LOCK TABLE `+table+` IN ACCESS EXCLUSIVE MODE`); err != nil {
		return false, err
	}
	rules, err := w.o.Keep.rules(ctx, w.Store, tx)
	if err != nil {
		return false, err
	}
	again, due := fateOf(f.partition, rules, w.now, w.o.Keep.rule(&Project{}).events)
	if !due {
		return false, nil
	}
	if has, err := hasEvents(ctx, tx, f.name, again.keep); err != nil || has {
		return false, err
	}
	_, err = tx.ExecContext(ctx, `DROP TABLE `+table)
	return err == nil, err
}

// countedRows is up to how many rows are counted one by one.
const countedRows = 20_000

// countPartition counts the rows of a partition, or, of a large one, gives the database's estimate.
func (s *Store) countPartition(ctx context.Context, p *partition) (n int64, exact bool, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT count(*) FROM (SELECT 1 FROM `+pgx.Identifier{p.name}.Sanitize()+` LIMIT $1) AS some_rows`, countedRows+1).Scan(&n)
	if err != nil || n <= countedRows {
		return n, err == nil, err
	}
	return max(n, p.estimate), false, nil
}

// DefaultEvents counts, up to a bound, the events in a default partition, which is none of ours: they can't go by
// partition, and hinder the making of their days' ones.
func (s *Store) DefaultEvents(ctx context.Context) (int64, error) {
	if s.pool == nil {
		return 0, nil
	}
	all, err := s.eventPartitions(ctx, s.read)
	if err != nil || len(all) == 0 || !all[len(all)-1].isDefault {
		return 0, wrap("look for a default partition", err)
	}
	n, _, err := s.countPartition(ctx, &all[len(all)-1])
	return n, wrap("count the default partition", err)
}

// partitionGone reports whether an event found no partition: another brain's sweep dropped the one that this one knew.
func partitionGone(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "23514" && pg.TableName == "events" && pg.ConstraintName == ""
}
