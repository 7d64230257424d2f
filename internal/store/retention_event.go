package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/z4j-go/z4j/internal/id"
)

// eventRange is a stretch of time of the events of one table: the table events, or a default partition.
type eventRange struct {
	table    string
	from, to Time // to is outside
}

// deleteEvents deletes the events of a project in a range, the oldest first, in batches whose end is looked up before
// anything is locked.
func (w *sweeper) deleteEvents(ctx context.Context, r *rule, e eventRange) error {
	for {
		end, last, err := w.endOfBatch(ctx, r.project, &e)
		if err != nil {
			return err
		}
		var c where
		c.and("project_id = ?", r.project)
		c.and("occurred_at >= ?", e.from)
		c.and("occurred_at < ?", e.to)
		if !last {
			c.and("occurred_at <= ?", end.at)
			c.and("(occurred_at, id) < (?, ?)", end.at, end.id)
		}
		rows := int64(0)
		err = w.transaction(ctx, r, func(ctx context.Context, tx *Tx) error {
			res, err := tx.ExecContext(ctx, `DELETE FROM `+e.table+c.sql.String(), c.args...)
			if err != nil {
				return err
			}
			if rows, err = res.RowsAffected(); err != nil || rows == 0 {
				return err
			}
			return tx.countSwept(ctx, r.project, "events", rows, 0, false)
		})
		if err != nil {
			return err
		}
		w.deleted("events", rows)
		if last {
			return nil
		}
		e.from = end.at
	}
}

// eventKey is the place of an event among those of its project.
type eventKey struct {
	at Time
	id id.ID
}

// endOfBatch finds the first event after a batch; last says that there is none.
func (w *sweeper) endOfBatch(ctx context.Context, project id.ID, e *eventRange) (end eventKey, last bool, err error) {
	err = w.read.QueryRowContext(ctx, `SELECT occurred_at, id FROM `+e.table+` WHERE project_id = $1 AND occurred_at >= $2 AND occurred_at < $3
		ORDER BY occurred_at, id LIMIT 1 OFFSET $4`, project, e.from, e.to, w.batch).Scan(&end.at, &end.id)
	if errors.Is(err, sql.ErrNoRows) {
		return end, true, nil
	}
	return end, false, err
}
