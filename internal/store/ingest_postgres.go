package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/z4j-go/z4j/internal/id"
)

// statement is one prepared text; every parameter is an array, one element a row.
type statement struct {
	name, sql string
	oids      []uint32 // element types of its arrays
}

var (
	readTasks = statement{
		"z4j_read_tasks", `
		SELECT t.project_id, t.engine, t.task_key, t.id, t.created_at, t.name, t.queue, t.marks
		FROM unnest($1::uuid[], $2::text[], $3::uuid[]) AS k (project_id, engine, task_key)
		JOIN tasks t ON t.project_id = k.project_id AND t.engine = k.engine AND t.task_key = k.task_key
		ORDER BY t.project_id, t.engine COLLATE "C", t.task_key
		FOR UPDATE OF t`,
		[]uint32{oidUUID, oidText, oidUUID},
	}

	insertEvents = statement{
		"z4j_insert_events", `
		INSERT INTO events (project_id, id, agent_id, task_key, occurred_at, received_at, engine, task_id, kind, worker, payload)
		SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::timestamptz[], $6::timestamptz[], $7::text[], $8::text[],
			$9::text[], $10::text[], $11::text[])
		ON CONFLICT DO NOTHING`,
		[]uint32{oidUUID, oidUUID, oidUUID, oidUUID, oidTimestamptz, oidTimestamptz, oidText, oidText, oidText, oidText, oidText},
	}

	taskOIDs = []uint32{
		oidUUID, oidText, oidUUID, oidUUID, oidTimestamptz, oidTimestamptz, oidTimestamptz, oidTimestamptz, oidTimestamptz, oidTimestamptz,
		oidTimestamptz, oidInt8, oidInt8, oidInt2, oidInt2, oidInt4, oidInt4, oidInt4, oidInt4, oidBool, oidText, oidText, oidText, oidText, oidText,
		oidText, oidText, oidText, oidText, oidText, oidText, oidBytea,
	}

	insertTasks = statement{"z4j_insert_tasks", `
		INSERT INTO tasks (` + taskWriteColumns + `)
		SELECT * FROM ` + taskUnnest, taskOIDs}

	updateTasks = statement{"z4j_update_tasks", `
		UPDATE tasks AS t SET ` + taskAssignments + `
		FROM ` + taskUnnest + ` AS u (` + taskWriteColumns + `)
		WHERE t.project_id = u.project_id AND t.engine = u.engine AND t.task_key = u.task_key`, taskOIDs}

	attemptOIDs = []uint32{
		oidUUID, oidText, oidUUID, oidInt4, oidInt2, oidTimestamptz, oidTimestamptz, oidInt8, oidInt8, oidInt4, oidText,
		oidText, oidText, oidText, oidText, oidText,
	}

	upsertAttempts = statement{"z4j_upsert_attempts", `
		INSERT INTO attempts (` + attemptWriteColumns + `)
		SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::integer[], $5::smallint[], $6::timestamptz[], $7::timestamptz[], $8::bigint[],
			$9::bigint[], $10::integer[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[])
		ON CONFLICT (project_id, engine, task_key, number) DO UPDATE SET ` + attemptAssignments, attemptOIDs}

	touchAttempts = statement{"z4j_touch_attempts", `
		UPDATE attempts AS a SET state = u.state, started_at = u.started_at, finished_at = u.finished_at, wait_us = u.wait_us,
			runtime_us = u.runtime_us, retries = u.retries, worker = u.worker
		FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::integer[], $5::smallint[], $6::timestamptz[], $7::timestamptz[], $8::bigint[],
			$9::bigint[], $10::integer[], $11::text[])
			AS u (project_id, engine, task_key, number, state, started_at, finished_at, wait_us, runtime_us, retries, worker)
		WHERE a.project_id = u.project_id AND a.engine = u.engine AND a.task_key = u.task_key AND a.number = u.number`, attemptOIDs[:11]}

	deleteAttempts = statement{
		"z4j_delete_attempts", `
		DELETE FROM attempts WHERE (project_id, engine, task_key, number) IN (SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::integer[]))`,
		[]uint32{oidUUID, oidText, oidUUID, oidInt4},
	}

	upsertPayloads = statement{
		"z4j_upsert_payloads", `
		INSERT INTO task_payloads (project_id, engine, task_key, mark, payload)
		SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bytea[], $5::text[])
		ON CONFLICT (project_id, engine, task_key, mark) DO UPDATE SET payload = excluded.payload`,
		[]uint32{oidUUID, oidText, oidUUID, oidBytea, oidText},
	}

	deletePayloads = statement{
		"z4j_delete_payloads", `
		DELETE FROM task_payloads WHERE (project_id, engine, task_key, mark) IN (SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bytea[]))`,
		[]uint32{oidUUID, oidText, oidUUID, oidBytea},
	}

	upsertMinutes = statement{"z4j_upsert_minutes", rollupUpsert("rollup_minutes"), rollupOIDs}
	upsertHours   = statement{"z4j_upsert_hours", rollupUpsert("rollup_hours"), rollupOIDs}
	rollupOIDs    = []uint32{oidUUID, oidTimestamptz, oidInt2, oidText, oidText, oidInt8, oidInt8}

	touchWorkers = statement{
		"z4j_touch_workers", `
		INSERT INTO workers (project_id, engine, name, id, last_seen_at, created_at, stopped_at, offset_us)
		SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[], $8::bigint[])
		ON CONFLICT (project_id, engine, name) DO UPDATE SET ` + workerTouchAssignments,
		[]uint32{oidUUID, oidText, oidText, oidUUID, oidTimestamptz, oidTimestamptz, oidTimestamptz, oidInt8},
	}

	touchQueues = statement{
		"z4j_touch_queues", `
		INSERT INTO queues (project_id, engine, name, id, last_seen_at, created_at)
		SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::timestamptz[], $6::timestamptz[])
		ON CONFLICT (project_id, engine, name) DO UPDATE SET last_seen_at = excluded.last_seen_at
		WHERE queues.last_seen_at < excluded.last_seen_at`,
		[]uint32{oidUUID, oidText, oidText, oidUUID, oidTimestamptz, oidTimestamptz},
	}

	beatWorkers = statement{
		"z4j_beat_workers", `
		INSERT INTO workers (project_id, agent_id, engine, name, id, last_seen_at, created_at, pid, concurrency, active_tasks, queues, load_average, metadata)
		SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::timestamptz[], $7::timestamptz[], $8::bigint[], $9::bigint[],
			$10::bigint[], $11::text[], $12::text[], $13::text[])
		ON CONFLICT (project_id, engine, name) DO UPDATE SET ` + workerBeatAssignments,
		[]uint32{oidUUID, oidUUID, oidText, oidText, oidUUID, oidTimestamptz, oidTimestamptz, oidInt8, oidInt8, oidInt8, oidText, oidText, oidText},
	}

	beatQueues = statement{
		"z4j_beat_queues", `
		INSERT INTO queues (project_id, engine, name, id, last_seen_at, created_at, pending_at, pending_count)
		SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[], $8::bigint[])
		ON CONFLICT (project_id, engine, name) DO UPDATE SET ` + queueBeatAssignments,
		[]uint32{oidUUID, oidText, oidText, oidUUID, oidTimestamptz, oidTimestamptz, oidTimestamptz, oidInt8},
	}

	insertDeadLetters = statement{
		"z4j_insert_dead_letters", `
		INSERT INTO dead_letters (project_id, id, agent_id, received_at, frame_id, reason, detail, size, body)
		SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::text[], $6::text[], $7::text[], $8::integer[], $9::text[])
		ON CONFLICT DO NOTHING`,
		[]uint32{oidUUID, oidUUID, oidUUID, oidTimestamptz, oidText, oidText, oidText, oidInt4, oidText},
	}
)

const taskUnnest = `unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[],
	$8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::bigint[], $13::bigint[], $14::smallint[], $15::smallint[],
	$16::integer[], $17::integer[], $18::integer[], $19::integer[], $20::boolean[], $21::text[], $22::text[], $23::text[], $24::text[], $25::text[],
	$26::text[], $27::text[], $28::text[], $29::text[], $30::text[], $31::text[], $32::bytea[])`

func rollupUpsert(table string) string {
	return `INSERT INTO ` + table + ` (project_id, bucket, measure, name, queue, count, sum)
		SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::smallint[], $4::text[], $5::text[], $6::bigint[], $7::bigint[])
		ON CONFLICT (project_id, bucket, measure, name, queue) DO UPDATE
		SET count = ` + table + `.count + excluded.count, sum = ` + table + `.sum + excluded.sum`
}

func (s *Store) ingestPostgres(ctx context.Context, fn func(*IngestTx) error) (err error) {
	conn, err := s.ingests.Acquire(ctx)
	if err != nil {
		return wrap("ingest", err)
	}
	defer conn.Release()
	tx := &IngestTx{store: s, conn: conn}
	if err := fn(tx); err != nil {
		if conn.Conn().PgConn().TxStatus() != 'I' {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			_, e := conn.Exec(ctx, `ROLLBACK`)
			err = errors.Join(err, e)
		}
		if partitionGone(err) {
			s.partitions.Clear()
			err = fmt.Errorf("%w: %w", ErrConflict, err)
		}
		return wrap("ingest", err)
	}
	return nil
}

// arraysPool keeps the buffers of one statement's parameters.
var arraysPool = sync.Pool{New: func() any { return new([]array) }}

// pipeline sends statements without waiting for their answers.
type pipeline struct {
	ctx  context.Context
	tx   *IngestTx
	pipe *pgconn.Pipeline
	sent []string
	used []*[]array
}

var binary1 = []int16{1} // one format code for all parameters or columns: binary

// prepareAll makes the statements known to the connection, once in its life.
func (tx *IngestTx) prepareAll(ctx context.Context, sts []*statement) error {
	for _, st := range sts {
		if _, err := tx.conn.Conn().Prepare(ctx, st.name, st.sql); err != nil {
			return fmt.Errorf("prepare %s: %w", st.name, err)
		}
	}
	return nil
}

func (tx *IngestTx) pipeline(ctx context.Context) *pipeline {
	return &pipeline{ctx: ctx, tx: tx, pipe: tx.conn.Conn().PgConn().StartPipeline(ctx)}
}

func (p *pipeline) plain(sql string) {
	p.pipe.SendQueryParams(sql, nil, nil, nil, nil)
	p.sent = append(p.sent, sql)
}

// rows sends st with one array a column; add appends row i to the arrays.
func (p *pipeline) rows(st *statement, n int, add func(c []array, i int)) {
	if n == 0 {
		return
	}
	ref := arraysPool.Get().(*[]array)
	for len(*ref) < len(st.oids) {
		*ref = append(*ref, array{})
	}
	c := (*ref)[:len(st.oids)]
	for i := range c {
		c[i].reset()
	}
	for i := range n {
		add(c, i)
	}
	values := make([][]byte, len(c))
	for i := range c {
		values[i] = c[i].done(st.oids[i])
	}
	p.pipe.SendQueryPrepared(st.name, values, binary1, binary1)
	p.sent = append(p.sent, st.name)
	p.used = append(p.used, ref)
}

// run sends what is left and gives each statement's result to each, in order.
func (p *pipeline) run(each func(name string, r *pgconn.ResultReader) error) (err error) {
	defer func() {
		err = errors.Join(err, p.pipe.Close())
		for _, ref := range p.used {
			arraysPool.Put(ref)
		}
	}()
	if err := p.pipe.Sync(); err != nil {
		return err
	}
	for _, name := range p.sent {
		result, err := p.pipe.GetResults()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		r, ok := result.(*pgconn.ResultReader)
		if !ok {
			return fmt.Errorf("%s: unexpected %T in the pipeline", name, result)
		}
		if each != nil {
			if err := each(name, r); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		if _, err := r.Close(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	_, err = p.pipe.GetResults() // the sync's own answer
	return err
}

// begin opens the transaction and reads and locks refs, in one round trip.
func (tx *IngestTx) tasksPostgres(ctx context.Context, refs []TaskRef) ([]StoredTask, error) {
	if err := tx.prepareAll(ctx, []*statement{&readTasks}); err != nil {
		return nil, err
	}
	out := make([]StoredTask, len(refs))
	for i, ref := range refs {
		out[i].TaskRef = ref
	}
	p := tx.pipeline(ctx)
	if tx.conn.Conn().PgConn().TxStatus() == 'I' {
		p.plain(`BEGIN`)
	}
	p.rows(&readTasks, len(refs), func(c []array, i int) {
		c[0].uuid(refs[i].Project)
		c[1].text(refs[i].Engine)
		c[2].uuid(refs[i].Key)
	})
	at := 0
	return out, p.run(func(name string, r *pgconn.ResultReader) error {
		if name != readTasks.name {
			return nil
		}
		for r.NextRow() {
			v := r.Values()
			ref := TaskRef{Project: id.ID(v[0]), Engine: string(v[1]), Key: id.ID(v[2])}
			for at < len(out) && out[at].TaskRef != ref {
				at++
			}
			if at == len(out) {
				return errors.New("rows come in another order than asked for")
			}
			t := &out[at]
			t.ID = id.ID(v[3])
			t.Created = int64(binary.BigEndian.Uint64(v[4])) + epoch2000
			t.Name, t.Queue = string(v[5]), string(v[6])
			t.Marks = append([]byte{}, v[7]...)
		}
		return nil
	})
}

func (tx *IngestTx) writePostgres(ctx context.Context, w *IngestWrites) error {
	if err := tx.prepareWrites(ctx, w); err != nil {
		return err
	}
	p := tx.pipeline(ctx)
	if tx.conn.Conn().PgConn().TxStatus() == 'I' {
		p.plain(`BEGIN`)
	}
	p.rows(&insertEvents, len(w.Events), func(c []array, i int) { putEvent(c, &w.Events[i]) })
	p.rows(&insertTasks, len(w.NewTasks), func(c []array, i int) { putTask(c, &w.NewTasks[i]) })
	p.rows(&updateTasks, len(w.ChangedTasks), func(c []array, i int) { putTask(c, &w.ChangedTasks[i]) })
	whole, touched := splitAttempts(w.Attempts)
	p.rows(&upsertAttempts, len(whole), func(c []array, i int) { putAttempt(c, whole[i], true) })
	p.rows(&touchAttempts, len(touched), func(c []array, i int) { putAttempt(c, touched[i], false) })
	p.rows(&deleteAttempts, len(w.GoneAttempts), func(c []array, i int) {
		putRef(c, w.GoneAttempts[i].TaskRef)
		c[3].int4(w.GoneAttempts[i].Number)
	})
	p.payloads(w.Payloads)
	p.rows(&insertDeadLetters, len(w.DeadLetters), func(c []array, i int) { putDeadLetter(c, &w.DeadLetters[i]) })
	p.rows(&touchQueues, len(w.Queues), func(c []array, i int) { putQueue(c, &w.Queues[i]) })
	p.rows(&touchWorkers, len(w.Workers), func(c []array, i int) { putWorker(c, &w.Workers[i]) })
	p.beats(w)
	hours := byHour(w.Rollups)
	p.rows(&upsertMinutes, len(w.Rollups), func(c []array, i int) { putRollup(c, &w.Rollups[i]) })
	p.rows(&upsertHours, len(hours), func(c []array, i int) { putRollup(c, &hours[i]) })
	p.plain(`COMMIT`)
	return p.run(func(name string, r *pgconn.ResultReader) error {
		if name == insertEvents.name {
			tag, err := r.Close()
			w.AcceptedEvents = int(tag.RowsAffected())
			return err
		}
		return nil
	})
}

// prepareWrites prepares what w needs and makes the partitions of its days, before the transaction's writes begin.
func (tx *IngestTx) prepareWrites(ctx context.Context, w *IngestWrites) error {
	all := []*statement{
		&insertEvents, &insertTasks, &updateTasks, &upsertAttempts, &touchAttempts, &deleteAttempts, &upsertPayloads, &deletePayloads,
		&insertDeadLetters, &touchQueues, &touchWorkers, &upsertMinutes, &upsertHours, &beatWorkers, &beatQueues,
	}
	if err := tx.prepareAll(ctx, all); err != nil {
		return err
	}
	last := int64(-1)
	for i := range w.Events {
		day := w.Events[i].Occurred / dayMicros
		if day == last {
			continue
		}
		last = day
		if err := tx.store.ensurePartition(ctx, time.UnixMicro(w.Events[i].Occurred)); err != nil {
			return err
		}
	}
	return nil
}

const dayMicros = 24 * 3600 * 1_000_000

func (p *pipeline) payloads(all []MarkPayload) {
	var put, gone []*MarkPayload
	for i := range all {
		if all[i].Payload != nil {
			put = append(put, &all[i])
		} else {
			gone = append(gone, &all[i])
		}
	}
	p.rows(&upsertPayloads, len(put), func(c []array, i int) {
		putRef(c, put[i].TaskRef)
		c[3].bytes(put[i].Mark)
		c[4].bytes(put[i].Payload)
	})
	p.rows(&deletePayloads, len(gone), func(c []array, i int) {
		putRef(c, gone[i].TaskRef)
		c[3].bytes(gone[i].Mark)
	})
}

func (p *pipeline) beats(w *IngestWrites) {
	p.rows(&beatQueues, len(w.QueueBeats), func(c []array, i int) {
		q := &w.QueueBeats[i]
		putQueue(c, &QueueTouch{Project: q.Project, Engine: q.Engine, Name: q.Name, Seen: q.Seen})
		c[6].time(q.Seen)
		c[7].duration(q.Pending)
	})
	p.rows(&beatWorkers, len(w.WorkerBeats), func(c []array, i int) {
		b := &w.WorkerBeats[i]
		c[0].uuid(b.Project)
		c[1].uuid(b.Agent)
		c[2].text(b.Engine)
		c[3].text(b.Name)
		c[4].uuid(id.At(b.Seen))
		c[5].time(b.Seen)
		c[6].time(b.Seen)
		c[7].duration(b.PID)
		c[8].duration(b.Concurrency)
		c[9].duration(b.Active)
		c[10].bytes(b.Queues)
		c[11].bytesOrNull(b.LoadAverage)
		c[12].bytes(b.Metadata)
	})
}

func putRef(c []array, ref TaskRef) {
	c[0].uuid(ref.Project)
	c[1].text(ref.Engine)
	c[2].uuid(ref.Key)
}

func putEvent(c []array, e *EventRow) {
	c[0].uuid(e.Project)
	c[1].uuid(e.ID)
	c[2].uuid(e.Agent)
	if e.HasTask {
		c[3].uuid(e.TaskKey)
	} else {
		c[3].null()
	}
	c[4].time(e.Occurred)
	c[5].time(e.Received)
	c[6].text(e.Engine)
	c[7].text(e.TaskID)
	c[8].text(e.Kind)
	c[9].textOrNull(e.Worker)
	c[10].bytes(e.Payload)
}

func putTask(c []array, t *TaskRow) {
	putRef(c, t.TaskRef)
	c[3].uuid(t.ID)
	for i, v := range [...]int64{t.Created, t.Updated, t.LastAt, t.Received, t.Started, t.Finished, t.ETA} {
		c[4+i].time(v)
	}
	c[11].duration(t.WaitUS)
	c[12].duration(t.RuntimeUS)
	c[13].int2(t.State)
	c[14].rare(t.Rare)
	for i, v := range [...]int32{t.Deciding, t.Attempts, t.RetryCount, t.Deliveries} {
		c[15+i].int4(v)
	}
	c[19].bool(t.Truncated)
	c[20].text(t.TaskID)
	for i, v := range [...]string{t.Name, t.Queue, t.Worker, t.Priority, t.Parent, t.Root, t.Reason} {
		c[21+i].textOrNull(v)
	}
	c[28].bytesOrNull(t.Args)
	c[29].bytesOrNull(t.Kwargs)
	c[30].bytesOrNull(t.Tags)
	c[31].bytes(t.Marks)
}

func putAttempt(c []array, a *AttemptRow, payload bool) {
	putRef(c, a.TaskRef)
	c[3].int4(a.Number)
	c[4].int2(a.State)
	c[5].time(a.Started)
	c[6].time(a.Finished)
	c[7].duration(a.WaitUS)
	c[8].duration(a.RuntimeUS)
	c[9].count(a.Retries)
	c[10].textOrNull(a.Worker)
	if payload {
		c[11].bytesOrNull(a.Payload.Result)
		c[12].textOrNull(a.Payload.Exception)
		c[13].textOrNull(a.Payload.ExceptionMessage)
		c[14].textOrNull(a.Payload.Traceback)
		c[15].textOrNull(a.Payload.Reason)
	}
}

func putRollup(c []array, r *RollupDelta) {
	c[0].uuid(r.Project)
	c[1].time(r.Minute)
	c[2].int2(r.Measure)
	c[3].text(r.Name)
	c[4].text(r.Queue)
	c[5].int8(r.Count)
	c[6].int8(r.Sum)
}

func putWorker(c []array, w *WorkerTouch) {
	c[0].uuid(w.Project)
	c[1].text(w.Engine)
	c[2].text(w.Name)
	c[3].uuid(id.At(w.Seen))
	c[4].time(w.Seen)
	c[5].time(w.Seen)
	if w.Stopped {
		c[6].time(w.Seen)
	} else {
		c[6].null()
	}
	if w.Offset == nil {
		c[7].null()
	} else {
		c[7].int8(*w.Offset)
	}
}

func putQueue(c []array, q *QueueTouch) {
	c[0].uuid(q.Project)
	c[1].text(q.Engine)
	c[2].text(q.Name)
	c[3].uuid(id.At(q.Seen))
	c[4].time(q.Seen)
	c[5].time(q.Seen)
}

func putDeadLetter(c []array, d *DeadLetter) {
	c[0].uuid(d.Project)
	c[1].uuid(d.ID)
	c[2].uuid(d.Agent)
	c[3].time(d.Received)
	c[4].text(d.FrameID)
	c[5].text(d.Reason)
	c[6].text(d.Detail)
	c[7].int4(d.Size)
	c[8].text(d.Body)
}
