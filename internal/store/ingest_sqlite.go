package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/z4j-go/z4j/internal/id"
)

func (s *Store) ingestSQLite(ctx context.Context, fn func(*IngestTx) error) error {
	lite, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return wrap("ingest", err)
	}
	defer lite.Rollback()
	if err := fn(&IngestTx{store: s, lite: lite}); err != nil {
		return wrap("ingest", err)
	}
	return wrap("ingest", s.committed(lite.Commit()))
}

const readTaskSQLite = `SELECT id, created_at, coalesce(name, ''), coalesce(queue, ''), marks FROM tasks
	WHERE project_id = $1 AND engine = $2 AND task_key = $3`

func (tx *IngestTx) tasksSQLite(ctx context.Context, refs []TaskRef) ([]StoredTask, error) {
	read, err := tx.lite.PrepareContext(ctx, readTaskSQLite)
	if err != nil {
		return nil, err
	}
	defer read.Close()
	out := make([]StoredTask, len(refs))
	for i, ref := range refs {
		t := &out[i]
		t.TaskRef = ref
		err := read.QueryRowContext(ctx, ref.Project, ref.Engine, ref.Key).Scan(&t.ID, &t.Created, &t.Name, &t.Queue, &t.Marks)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, fmt.Errorf("read tasks: %w", err)
		}
	}
	return out, nil
}

func (tx *IngestTx) writeSQLite(ctx context.Context, w *IngestWrites) error {
	hours := byHour(w.Rollups)
	whole, touched := splitAttempts(w.Attempts)
	var put, gone []*MarkPayload
	for i := range w.Payloads {
		if w.Payloads[i].Payload != nil {
			put = append(put, &w.Payloads[i])
		} else {
			gone = append(gone, &w.Payloads[i])
		}
	}
	for _, step := range []struct {
		name, sql string
		n         int
		args      func(i int) []any
		affected  *int
	}{
		{"insert events", insertEventSQLite, len(w.Events), func(i int) []any { return eventArgs(&w.Events[i]) }, &w.AcceptedEvents},
		{"insert tasks", insertTaskSQLite, len(w.NewTasks), func(i int) []any { return taskArgs(&w.NewTasks[i]) }, nil},
		{"update tasks", updateTaskSQLite, len(w.ChangedTasks), func(i int) []any { return taskArgs(&w.ChangedTasks[i]) }, nil},
		{"upsert attempts", upsertAttemptSQLite, len(whole), func(i int) []any { return attemptArgs(whole[i], true) }, nil},
		{"touch attempts", touchAttemptSQLite, len(touched), func(i int) []any { return attemptArgs(touched[i], false) }, nil},
		{"delete attempts", deleteAttemptSQLite, len(w.GoneAttempts), func(i int) []any {
			g := &w.GoneAttempts[i]
			return []any{g.Project, g.Engine, g.Key, g.Number}
		}, nil},
		{"upsert payloads", upsertPayloadSQLite, len(put), func(i int) []any {
			return []any{put[i].Project, put[i].Engine, put[i].Key, put[i].Mark, string(put[i].Payload)}
		}, nil},
		{"delete payloads", deletePayloadSQLite, len(gone), func(i int) []any {
			return []any{gone[i].Project, gone[i].Engine, gone[i].Key, gone[i].Mark}
		}, nil},
		{"insert dead letters", insertDeadLetterSQLite, len(w.DeadLetters), func(i int) []any { return deadLetterArgs(&w.DeadLetters[i]) }, nil},
		{"touch queues", touchQueueSQLite, len(w.Queues), func(i int) []any {
			q := &w.Queues[i]
			return []any{q.Project, q.Engine, q.Name, id.At(q.Seen), q.Seen, q.Seen}
		}, nil},
		{"touch workers", touchWorkerSQLite, len(w.Workers), func(i int) []any { return workerArgs(&w.Workers[i]) }, nil},
		{"beat queues", beatQueueSQLite, len(w.QueueBeats), func(i int) []any {
			q := &w.QueueBeats[i]
			return []any{q.Project, q.Engine, q.Name, id.At(q.Seen), q.Seen, q.Seen, q.Seen, nullDuration(q.Pending)}
		}, nil},
		{"beat workers", beatWorkerSQLite, len(w.WorkerBeats), func(i int) []any { return beatArgs(&w.WorkerBeats[i]) }, nil},
		{"rollup minutes", rollupSQLite("rollup_minutes"), len(w.Rollups), func(i int) []any { return rollupArgs(&w.Rollups[i]) }, nil},
		{"rollup hours", rollupSQLite("rollup_hours"), len(hours), func(i int) []any { return rollupArgs(&hours[i]) }, nil},
	} {
		if err := tx.each(ctx, step.sql, step.n, step.args, step.affected); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// each runs one statement for n rows.
func (tx *IngestTx) each(ctx context.Context, q string, n int, args func(i int) []any, affected *int) error {
	if n == 0 {
		return nil
	}
	st, err := tx.lite.PrepareContext(ctx, q)
	if err != nil {
		return err
	}
	defer st.Close()
	for i := range n {
		res, err := st.ExecContext(ctx, args(i)...)
		if err != nil {
			return err
		}
		if affected != nil {
			k, err := res.RowsAffected()
			if err != nil {
				return err
			}
			*affected += int(k)
		}
	}
	return nil
}

var (
	insertEventSQLite = `INSERT INTO events (project_id, id, agent_id, task_key, occurred_at, received_at, engine, task_id, kind, worker, payload)
		VALUES (` + placeholders(11) + `) ON CONFLICT DO NOTHING`
	insertTaskSQLite = `INSERT INTO tasks (` + taskWriteColumns + `) VALUES (` + placeholders(32) + `)`
	updateTaskSQLite = `UPDATE tasks AS t SET ` + taskAssignments + `
		FROM (SELECT ` + aliased(taskWriteColumns) + `) AS u
		WHERE t.project_id = $1 AND t.engine = $2 AND t.task_key = $3`
	upsertAttemptSQLite = `INSERT INTO attempts (` + attemptWriteColumns + `) VALUES (` + placeholders(16) + `)
		ON CONFLICT (project_id, engine, task_key, number) DO UPDATE SET ` + attemptAssignments
	touchAttemptSQLite = `UPDATE attempts SET state = $5, started_at = $6, finished_at = $7, wait_us = $8, runtime_us = $9, retries = $10, worker = $11
		WHERE project_id = $1 AND engine = $2 AND task_key = $3 AND number = $4`
	deleteAttemptSQLite = `DELETE FROM attempts WHERE project_id = $1 AND engine = $2 AND task_key = $3 AND number = $4`
	upsertPayloadSQLite = `INSERT INTO task_payloads (project_id, engine, task_key, mark, payload) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (project_id, engine, task_key, mark) DO UPDATE SET payload = excluded.payload`
	deletePayloadSQLite    = `DELETE FROM task_payloads WHERE project_id = $1 AND engine = $2 AND task_key = $3 AND mark = $4`
	insertDeadLetterSQLite = `INSERT INTO dead_letters (project_id, id, agent_id, received_at, frame_id, reason, detail, size, body)
		VALUES (` + placeholders(9) + `) ON CONFLICT DO NOTHING`
	touchQueueSQLite = `INSERT INTO queues (project_id, engine, name, id, last_seen_at, created_at) VALUES (` + placeholders(6) + `)
		ON CONFLICT (project_id, engine, name) DO UPDATE SET last_seen_at = excluded.last_seen_at
		WHERE queues.last_seen_at < excluded.last_seen_at`
	touchWorkerSQLite = `INSERT INTO workers (project_id, engine, name, id, last_seen_at, created_at, stopped_at, offset_us)
		VALUES (` + placeholders(8) + `) ON CONFLICT (project_id, engine, name) DO UPDATE SET ` + workerTouchAssignments
	beatQueueSQLite = `INSERT INTO queues (project_id, engine, name, id, last_seen_at, created_at, pending_at, pending_count)
		VALUES (` + placeholders(8) + `) ON CONFLICT (project_id, engine, name) DO UPDATE SET ` + queueBeatAssignments
	beatWorkerSQLite = `INSERT INTO workers (project_id, agent_id, engine, name, id, last_seen_at, created_at, pid, concurrency, active_tasks, queues,
			load_average, metadata)
		VALUES (` + placeholders(13) + `) ON CONFLICT (project_id, engine, name) DO UPDATE SET ` + workerBeatAssignments
)

func rollupSQLite(table string) string {
	return `INSERT INTO ` + table + ` (project_id, bucket, measure, name, queue, count, sum) VALUES (` + placeholders(7) + `)
		ON CONFLICT (project_id, bucket, measure, name, queue) DO UPDATE
		SET count = ` + table + `.count + excluded.count, sum = ` + table + `.sum + excluded.sum`
}

// placeholders gives "$1, $2, …, $n".
func placeholders(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d", i+1)
	}
	return b.String()
}

// aliased gives "$1 AS first, $2 AS second, …" for a column list.
func aliased(columns string) string {
	var b strings.Builder
	for i, c := range strings.Split(columns, ",") {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d AS %s", i+1, strings.TrimSpace(c))
	}
	return b.String()
}

func nullTime(micros int64) any {
	if micros == 0 {
		return nil
	}
	return micros
}

func nullDuration[T int32 | int64](v T) any {
	if v < 0 {
		return nil
	}
	return int64(v)
}

func nullText(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func nullJSON(b []byte) any {
	if b == nil {
		return nil
	}
	return string(b)
}

func eventArgs(e *EventRow) []any {
	var key any
	if e.HasTask {
		key = e.TaskKey
	}
	return []any{e.Project, e.ID, e.Agent, key, e.Occurred, e.Received, e.Engine, e.TaskID, e.Kind, nullText(e.Worker), string(e.Payload)}
}

func taskArgs(t *TaskRow) []any {
	var rare any
	if t.Rare != 0 {
		rare = int64(t.Rare)
	}
	return []any{
		t.Project, t.Engine, t.Key, t.ID, t.Created, t.Updated, t.LastAt, nullTime(t.Received), nullTime(t.Started), nullTime(t.Finished), nullTime(t.ETA),
		nullDuration(t.WaitUS), nullDuration(t.RuntimeUS), int64(t.State), rare, int64(t.Deciding), int64(t.Attempts), int64(t.RetryCount),
		int64(t.Deliveries), t.Truncated, t.TaskID, nullText(t.Name), nullText(t.Queue), nullText(t.Worker), nullText(t.Priority), nullText(t.Parent),
		nullText(t.Root), nullText(t.Reason), nullJSON(t.Args), nullJSON(t.Kwargs), nullJSON(t.Tags), t.Marks,
	}
}

func attemptArgs(a *AttemptRow, payload bool) []any {
	args := []any{
		a.Project, a.Engine, a.Key, int64(a.Number), int64(a.State), nullTime(a.Started), nullTime(a.Finished), nullDuration(a.WaitUS),
		nullDuration(a.RuntimeUS), nullDuration(a.Retries), nullText(a.Worker),
	}
	if !payload {
		return args
	}
	p := &a.Payload
	return append(args, nullJSON(p.Result), nullText(p.Exception), nullText(p.ExceptionMessage), nullText(p.Traceback), nullText(p.Reason))
}

func rollupArgs(r *RollupDelta) []any {
	return []any{r.Project, r.Minute, int64(r.Measure), r.Name, r.Queue, r.Count, r.Sum}
}

func workerArgs(w *WorkerTouch) []any {
	var stopped, offset any
	if w.Stopped {
		stopped = w.Seen
	}
	if w.Offset != nil {
		offset = *w.Offset
	}
	return []any{w.Project, w.Engine, w.Name, id.At(w.Seen), w.Seen, w.Seen, stopped, offset}
}

func beatArgs(b *WorkerBeat) []any {
	return []any{
		b.Project, b.Agent, b.Engine, b.Name, id.At(b.Seen), b.Seen, b.Seen, nullDuration(b.PID), nullDuration(b.Concurrency), nullDuration(b.Active),
		string(b.Queues), nullJSON(b.LoadAverage), string(b.Metadata),
	}
}

func deadLetterArgs(d *DeadLetter) []any {
	return []any{d.Project, d.ID, d.Agent, d.Received, d.FrameID, d.Reason, d.Detail, d.Size, d.Body}
}
