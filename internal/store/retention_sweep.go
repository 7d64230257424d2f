package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
)

// SweepOptions say what a sweep deletes, and for whom.
type SweepOptions struct {
	Keep   Retention
	By     By
	Holder string // this process, in leases; required

	// Batch is how many rows the first batch has; later ones have more or fewer, by the time that they take. 0: 200.
	Batch int
}

// Swept is what a sweep did.
type Swept struct {
	Rows        map[string]int64 `json:"rows"`       // by table
	Partitions  []string         `json:"partitions"` // dropped whole
	Estimated   bool             `json:"estimated"`  // rows of dropped partitions are the database's estimate
	Busy        []string         `json:"busy"`       // partitions that others kept using; the next sweep tries again
	Batches     int64            `json:"batches"`
	LongestLock time.Duration    `json:"longest_lock_ns"` // of one transaction
	Took        time.Duration    `json:"took_ns"`
	FreedBytes  int64            `json:"freed_bytes"` // given back to the file system; SQLite only
}

// Total is the number of all rows that went.
func (s *Swept) Total() int64 {
	n := int64(0)
	for _, v := range s.Rows {
		n += v
	}
	return n
}

// Bounds of a sweep.
const (
	sweepTerm  = 2 * time.Minute // of its lease; each batch renews it
	firstBatch = 200             // rows
	leastBatch = 20
	mostBatch  = 2000
	longBatch  = 30 * time.Millisecond // a third of what a lock may take: the next batch is so much smaller
	shortBatch = 10 * time.Millisecond // the next batch is larger
	lockTries  = 40                    // for a batch, or a partition, that others hold
	sweepLocks = `SET LOCAL lock_timeout = '100ms'`
)

var (
	errSweepLost    = errors.New("the lease of the sweep was lost")
	errProjectHeld  = errors.New("the project is held")
	errNothingSwept = errors.New("nothing was deleted")
)

// sweeper is one sweep under way.
type sweeper struct {
	*Store
	o     SweepOptions
	now   Time
	rules []rule
	batch int
	out   Swept
}

// Sweep deletes what is older than it is kept, in short transactions, and records in the audit log what that was. It
// runs in one process at a time. An error for which Waits is true says that it has to wait for something; what it deleted
// before that is in Swept, and recorded.
func (s *Store) Sweep(ctx context.Context, o SweepOptions) (out Swept, err error) {
	w := &sweeper{Store: s, o: o, now: TimeOf(s.now()), batch: cmp.Or(o.Batch, firstBatch), out: Swept{Rows: map[string]int64{}, Partitions: []string{}, Busy: []string{}}}
	if err := s.maySweep(ctx, w.now); err != nil {
		return w.out, fmt.Errorf("sweep: %w", err)
	}
	if err := s.TryAudit(ctx); err != nil {
		return w.out, fmt.Errorf("sweep: nothing is deleted that can't be recorded: %w", err)
	}
	mine, err := s.Lease(ctx, sweepLease, o.Holder, w.now, TimeOf(w.now.Add(sweepTerm)))
	if err != nil {
		return w.out, err
	}
	if !mine {
		return w.out, fmt.Errorf("sweep: %w", ErrSweepRuns)
	}
	defer func() {
		free, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		err = errors.Join(err, s.ReleaseLease(free, sweepLease, o.Holder))
	}()
	err = w.run(ctx)
	if e := w.record(ctx); e != nil {
		err = errors.Join(err, e)
	}
	w.out.Took = s.now().Sub(w.now.Time)
	return w.out, wrap("sweep", err)
}

// maySweep is mayDelete that also asks the chain itself whether its history is in doubt.
func (s *Store) maySweep(ctx context.Context, now Time) error {
	doubt, err := s.Hold(ctx)
	if err != nil {
		return err
	}
	if doubt != nil {
		return &HeldError{Hold: *doubt}
	}
	if now, err = s.leaseTime(ctx, s.read, now); err != nil {
		return err
	}
	return s.mayDelete(ctx, s.read, now)
}

func (w *sweeper) run(ctx context.Context) (err error) {
	if w.rules, err = w.o.Keep.rules(ctx, w.Store, w.read); err != nil {
		return err
	}
	for _, p := range policies() {
		w.batch = min(w.batch, cmp.Or(w.o.Batch, firstBatch)) // a row of another table costs something else
		switch p.kind {
		case byDay:
			err = w.events(ctx)
		case byTask:
			err = w.each(ctx, w.tasks)
		case byAge:
			err = w.aged(ctx, &p)
		case forEver, byParent:
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.table, err)
		}
	}
	return w.shrink(ctx)
}

// each runs fn for every project of which something may be deleted; one that is held meanwhile is left alone.
func (w *sweeper) each(ctx context.Context, fn func(context.Context, *rule) error) error {
	for i := range w.rules {
		r := &w.rules[i]
		if r.held() {
			continue
		}
		if err := fn(ctx, r); errors.Is(err, errProjectHeld) {
			r.hold = "held since the sweep began"
		} else if err != nil {
			return err
		}
	}
	return nil
}

// aged deletes the rows of a table that are too old.
func (w *sweeper) aged(ctx context.Context, p *policy) error {
	now, err := w.timeOf(ctx, p, w.now)
	if err != nil {
		return err
	}
	one := func(ctx context.Context, r *rule) error {
		c := p.where(r, now)
		text := `DELETE FROM ` + p.table + c.sql.String() + ` AND (` + p.key + `) IN (SELECT ` + p.key + ` FROM ` + p.table + c.sql.String() +
			` LIMIT $` + fmt.Sprint(len(c.args)+1) + w.dialect.skipLocked + `)`
		return w.repeat(ctx, r, p.table, func(ctx context.Context, tx *Tx) (int64, error) {
			res, err := tx.ExecContext(ctx, text, append(slices.Clone(c.args), w.batch)...)
			if err != nil {
				return 0, err
			}
			return res.RowsAffected()
		})
	}
	if !p.global {
		return w.each(ctx, one)
	}
	return one(ctx, &rule{})
}

// timeOf is the time by which the rows of p are old: leases go by a clock of their own.
func (s *Store) timeOf(ctx context.Context, p *policy, now Time) (Time, error) {
	if p.table != "leases" {
		return now, nil
	}
	return s.leaseTime(ctx, s.read, now)
}

// where is the condition of what is too old under a rule.
func (p *policy) where(r *rule, now Time) *where {
	var c where
	if !p.global {
		c.and("project_id = ?", r.project)
	}
	before := cut(now, p.days(r))
	if p.isID {
		c.and(p.column+" < ?", idFloor(before))
	} else {
		c.and(p.column+" < ?", before)
	}
	if p.cond != "" {
		c.and(p.cond, p.args...)
	}
	return &c
}

// repeat runs a batch that deletes rows of a table until it finds none.
func (w *sweeper) repeat(ctx context.Context, r *rule, table string, delete func(context.Context, *Tx) (int64, error)) error {
	for {
		rows := int64(0)
		err := w.transaction(ctx, r, func(ctx context.Context, tx *Tx) (err error) {
			if rows, err = delete(ctx, tx); err != nil || rows == 0 {
				return err
			}
			return tx.countSwept(ctx, r.project, table, rows, 0, false)
		})
		if err != nil || rows == 0 {
			return err
		}
		w.deleted(table, rows)
	}
}

// deleted counts what was committed.
func (w *sweeper) deleted(table string, rows int64) {
	if rows > 0 {
		w.out.Rows[table] += rows
	}
}

// transaction runs a batch in a transaction of its own, again while others keep a lock that it needs, and then leaves the
// database to others for as long as it took.
func (w *sweeper) transaction(ctx context.Context, r *rule, do func(context.Context, *Tx) error) error {
	for try := 0; ; try++ {
		took, err := w.once(ctx, r, do)
		if err == nil {
			w.adapt(took)
			return pause(ctx, took)
		}
		if !outOfLocks(err) || try == lockTries {
			return err
		}
		if err := pause(ctx, jittered(try)); err != nil {
			return err
		}
	}
}

func (w *sweeper) once(ctx context.Context, r *rule, do func(context.Context, *Tx) error) (took time.Duration, err error) {
	tx, err := w.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer tx.end()
	began := w.Store.now()
	if err := w.guard(ctx, tx, r); err != nil {
		return 0, err
	}
	if err := do(ctx, tx); err != nil {
		return 0, err
	}
	if err := tx.Commit(); err != nil {
		return 0, err
	}
	took = w.Store.now().Sub(began)
	w.out.Batches++
	w.out.LongestLock = max(w.out.LongestLock, took)
	return took, nil
}

// guard renews the lease, and looks once more for what stands in the way: a hold that is set while the sweep runs
// waits for the batch under way, and no other one follows.
func (w *sweeper) guard(ctx context.Context, tx *Tx, r *rule) error {
	if w.pool != nil {
		if _, err := tx.ExecContext(ctx, sweepLocks); err != nil {
			return err
		}
	}
	now, err := w.leaseTime(ctx, tx, TimeOf(w.Store.now()))
	if err != nil {
		return err
	}
	res, err := tx.ExecContext(ctx, `UPDATE leases SET until = $1 WHERE name = $2 AND holder = $3`, TimeOf(now.Add(sweepTerm)), sweepLease, w.o.Holder)
	if err := changed("renew the sweep's lease", res, err); errors.Is(err, ErrNotFound) {
		return errSweepLost
	} else if err != nil {
		return err
	}
	if err := w.mayDelete(ctx, tx, now); err != nil || r.project.IsZero() {
		return err
	}
	var held bool
	share := ""
	if w.pool != nil {
		share = ` FOR SHARE`
	}
	if err := tx.QueryRowContext(ctx, `SELECT hold_since IS NOT NULL FROM projects WHERE id = $1`+share, r.project).Scan(&held); err != nil {
		return err
	}
	if held {
		return errProjectHeld
	}
	return nil
}

// adapt makes the next batch larger or smaller.
func (w *sweeper) adapt(took time.Duration) {
	switch {
	case took > longBatch:
		w.batch = max(int(int64(w.batch)*int64(longBatch)/int64(took)), leastBatch)
	case took < shortBatch:
		w.batch = min(w.batch*2, mostBatch)
	}
}

// outOfLocks reports whether a lock was not to be had in time, or a circle of waiting was broken.
func outOfLocks(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "55P03" || pg.Code == "40P01")
}

// jittered is a wait before the next try, so that what waits behind a lock gets through in between.
func jittered(try int) time.Duration {
	most := min(time.Second, 50*time.Millisecond<<min(try, 5))
	return most/2 + rand.N(most) //nolint:gosec // a spread, not a secret.
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// countSwept notes what the transaction deletes, until an entry of the audit log says it.
func (tx *Tx) countSwept(ctx context.Context, project id.ID, table string, rows, partitions int64, estimated bool) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO retention_counts (project_id, name, rows, partitions, estimated) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (project_id, name) DO UPDATE SET rows = retention_counts.rows + excluded.rows,
			partitions = retention_counts.partitions + excluded.partitions, estimated = retention_counts.estimated OR excluded.estimated`,
		project, table, rows, partitions, estimated)
	return err
}

// sweptCount is a row of retention_counts.
type sweptCount struct {
	project          id.ID
	table            string
	rows, partitions int64
	estimated        bool
}

const readCounts = `SELECT project_id, name, rows, partitions, estimated FROM retention_counts ORDER BY project_id, name`

func (c *sweptCount) fields() []any {
	return []any{&c.project, &c.table, &c.rows, &c.partitions, &c.estimated}
}

// record writes what was deleted, by this sweep and by one before it that was killed, as one entry; none if there was nothing.
func (w *sweeper) record(ctx context.Context) error {
	rows, err := w.read.QueryContext(ctx, readCounts)
	if list, err := collect(rows, err, (*sweptCount).fields); err != nil || len(list) == 0 {
		return wrap("look for what was swept", err)
	}
	err = w.Update(ctx, func(tx *Tx) error {
		rows, err := tx.QueryContext(ctx, readCounts)
		list, err := collect(rows, err, (*sweptCount).fields)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return errNothingSwept
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM retention_counts`); err != nil {
			return err
		}
		tx.Record(w.o.By.entry(audit.RetentionSwept, audit.Project{}, installation(), w.entry(list)))
		return nil
	})
	if errors.Is(err, errNothingSwept) {
		return nil
	}
	return wrap("record the sweep", err)
}

// maxSweptNames bounds what an entry names, so that it stays an entry: its details may have 32 KiB.
const maxSweptNames = 100

func (w *sweeper) entry(list []sweptCount) map[string]any {
	slugs := map[id.ID]string{}
	for i := range w.rules {
		slugs[w.rules[i].project] = w.rules[i].slug
	}
	tables, projects, estimated := map[string]any{}, map[string]any{}, false
	add := func(to map[string]any, table string, n int64) {
		have, _ := to[table].(int64)
		to[table] = have + n
	}
	for _, c := range list {
		add(tables, c.table, c.rows)
		estimated = estimated || c.estimated
		if c.project.IsZero() {
			continue
		}
		name := slugs[c.project]
		if _, there := projects[name]; !there && len(projects) >= maxSweptNames || name == "" {
			name = "(others)"
		}
		of, ok := projects[name].(map[string]any)
		if !ok {
			of = map[string]any{}
			projects[name] = of
		}
		add(of, c.table, c.rows)
	}
	keep := w.o.Keep.rule(&Project{})
	cuts := keep.taskCuts(w.now)
	cutoffs := map[string]any{"events": eventCut(w.now, keep.events), "tasks": cuts.ended, "failed_tasks": cuts.failed}
	if keep.unfinished > 0 {
		cutoffs["unfinished_tasks"] = cuts.unfinished
	}
	dropped := w.out.Partitions
	if len(dropped) > maxSweptNames {
		dropped = append(slices.Clone(dropped[:maxSweptNames]), fmt.Sprintf("and %d more", len(dropped)-maxSweptNames))
	}
	return map[string]any{
		"tables": tables, "projects": projects, "partitions": dropped, "estimated": estimated, "cutoffs": cutoffs, "via": w.o.By.Via,
	}
}

// Tables names the tables of which something went.
func (s *Swept) Tables() []string { return slices.Sorted(maps.Keys(s.Rows)) }
