package store

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/z4j-go/z4j/internal/fold"
	"github.com/z4j-go/z4j/internal/id"
)

// walkedTasks is how many tasks one look reads.
const walkedTasks = 2000

// oldTask is a task that is looked at.
type oldTask struct {
	id     id.ID
	engine string
	key    id.ID
	state  int64
	last   Time
	eta    *Time
}

// tasks deletes a project's tasks with their attempts and payloads. It walks the list in its order: an index by last
// activity would cost every update of a task more than this costs in a day. What is not due is read and left.
func (w *sweeper) tasks(ctx context.Context, r *rule) error {
	cuts := r.taskCuts(w.now)
	after, gone := id.ID{}, false
	for {
		list, err := w.oldTasks(ctx, r, &cuts, after)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			break
		}
		after = list[len(list)-1].id
		list = slices.DeleteFunc(list, func(t oldTask) bool { return !cuts.due(fold.State(t.state), t.last, t.eta) })
		slices.SortStableFunc(list, func(a, b oldTask) int { return strings.Compare(a.engine, b.engine) })
		for len(list) > 0 {
			n := sameEngine(list, w.batch)
			if err := w.deleteTasks(ctx, r, &cuts, list[:n]); err != nil {
				return err
			}
			list, gone = list[n:], true
		}
	}
	if !gone {
		return nil
	}
	return w.emptyCounters(ctx, r)
}

// oldTasks reads the next tasks of a project that were first heard of before the youngest cut-off.
func (w *sweeper) oldTasks(ctx context.Context, r *rule, cuts *taskCuts, after id.ID) ([]oldTask, error) {
	rows, err := w.read.QueryContext(ctx, `SELECT id, engine, task_key, state, last_at, eta FROM tasks
		WHERE project_id = $1 AND id > $2 AND id < $3 ORDER BY id LIMIT $4`, r.project, after, idFloor(cuts.ended), walkedTasks)
	return collect(rows, err, func(t *oldTask) []any { return []any{&t.id, &t.engine, &t.key, &t.state, &t.last, &t.eta} })
}

// sameEngine is how many tasks at the beginning of list, at most most, have one engine.
func sameEngine(list []oldTask, most int) int {
	n := 1
	for n < min(len(list), most, maxTaskKeys) && list[n].engine == list[0].engine {
		n++
	}
	return n
}

const maxTaskKeys = 2048 // of one statement

// deletedTask is a task that is locked for its end.
type deletedTask struct {
	key         id.ID
	state       int64
	name, queue string
}

// deleteTasks deletes those of list, all of one engine, that are still due; one that ingest writes right now is left for
// the next sweep. The counters of the tasks that stand now come last, since ingest waits for them.
func (w *sweeper) deleteTasks(ctx context.Context, r *rule, cuts *taskCuts, list []oldTask) error {
	counts := map[string]int64{}
	err := w.transaction(ctx, r, func(ctx context.Context, tx *Tx) error {
		clear(counts)
		gone, err := w.lockTasks(ctx, tx, r, cuts, list)
		if err != nil || len(gone) == 0 {
			return err
		}
		var c where
		c.and("project_id = ?", r.project)
		c.and("engine = ?", list[0].engine)
		in(&c, "task_key", padded(gone, func(t deletedTask) id.ID { return t.key }))
		for _, table := range []string{"attempts", "task_payloads", "tasks"} {
			res, err := tx.ExecContext(ctx, `DELETE FROM `+table+c.sql.String(), c.args...)
			if err != nil {
				return err
			}
			if counts[table], err = res.RowsAffected(); err != nil {
				return err
			}
		}
		for table, n := range counts {
			if n == 0 {
				continue
			}
			if err := tx.countSwept(ctx, r.project, table, n, 0, false); err != nil {
				return err
			}
		}
		return tx.uncount(ctx, r.project, gone)
	})
	if err != nil {
		return err
	}
	for table, n := range counts {
		w.deleted(table, n)
	}
	return nil
}

func (w *sweeper) lockTasks(ctx context.Context, tx *Tx, r *rule, cuts *taskCuts, list []oldTask) ([]deletedTask, error) {
	var c where
	c.and("project_id = ?", r.project)
	c.and("engine = ?", list[0].engine)
	in(&c, "task_key", padded(list, func(t oldTask) id.ID { return t.key }))
	c.and("id < ?", idFloor(cuts.ended))
	c.dueTasks(cuts)
	rows, err := tx.QueryContext(ctx, `SELECT task_key, state, coalesce(name, ''), coalesce(queue, '') FROM tasks`+c.sql.String()+w.dialect.skipLocked, c.args...)
	return collect(rows, err, func(t *deletedTask) []any { return []any{&t.key, &t.state, &t.name, &t.queue} })
}

// padded gives the keys of list, the last one repeated up to a power of two: so there are few statements to prepare.
func padded[T any](list []T, key func(T) id.ID) []id.ID {
	n := 1
	for n < len(list) {
		n *= 2
	}
	out := make([]id.ID, n)
	for i := range out {
		out[i] = key(list[min(i, len(list)-1)])
	}
	return out
}

// uncount takes tasks out of the counters of what stands now, in the order in which ingest writes them.
func (tx *Tx) uncount(ctx context.Context, project id.ID, gone []deletedTask) error {
	type counter struct {
		measure     int64
		name, queue string
	}
	sums := map[counter]int64{}
	for _, t := range gone {
		if t.state != int64(fold.StateUnknown) {
			sums[counter{int64(fold.MeasureTask) + t.state, t.name, t.queue}]++
		}
	}
	list := make([]counter, 0, len(sums))
	for c := range sums {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b counter) int {
		return cmp.Or(cmp.Compare(a.measure, b.measure), cmp.Compare(a.name, b.name), cmp.Compare(a.queue, b.queue))
	})
	for part := range slices.Chunk(list, countersAtOnce) {
		var w where
		text := strings.Builder{}
		for _, c := range part {
			text.WriteString(", (" + w.arg(project) + ", " + w.arg(TimeAt(allTime)) + ", " + w.arg(c.measure) + ", " + w.arg(c.name) + ", " + w.arg(c.queue) +
				", " + w.arg(-sums[c]) + ", 0)")
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO rollup_hours (project_id, bucket, measure, name, queue, count, sum) VALUES `+text.String()[2:]+`
			ON CONFLICT (project_id, bucket, measure, name, queue) DO UPDATE SET count = rollup_hours.count + excluded.count`, w.args...)
		if err != nil {
			return err
		}
	}
	return nil
}

const countersAtOnce = 100

// emptyCounters takes away the counters of names and queues of which no task is left.
func (w *sweeper) emptyCounters(ctx context.Context, r *rule) error {
	text := `DELETE FROM rollup_hours WHERE project_id = $1 AND bucket = $2 AND count = 0 AND (` + rollupPrimary + `) IN (
		SELECT ` + rollupPrimary + ` FROM rollup_hours WHERE project_id = $1 AND bucket = $2 AND count = 0 LIMIT $3` + w.dialect.skipLocked + `)`
	for {
		rows := int64(0)
		err := w.transaction(ctx, r, func(ctx context.Context, tx *Tx) error {
			res, err := tx.ExecContext(ctx, text, r.project, TimeAt(allTime), w.batch)
			if err != nil {
				return err
			}
			rows, err = res.RowsAffected()
			return err
		})
		if err != nil || rows == 0 {
			return err
		}
	}
}
