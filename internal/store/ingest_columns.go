package store

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"github.com/z4j-go/z4j/internal/fold"
)

// The column lists of what ingest writes, in the order of its parameters; both databases use them.
const (
	taskWriteColumns = `project_id, engine, task_key, id, created_at, updated_at, last_at, received_at, started_at, finished_at, eta,
		wait_us, runtime_us, state, rare_state, deciding, attempts, retry_count, deliveries, truncated, task_id, name, queue, worker,
		priority, parent_task_id, root_task_id, reason, args, kwargs, tags, marks`

	// taskAssignments leaves what was never replaced by nothing as it is: the fold does not read it back.
	taskAssignments = `id = u.id, updated_at = u.updated_at, last_at = u.last_at, received_at = u.received_at, started_at = u.started_at,
		finished_at = u.finished_at, eta = u.eta, wait_us = u.wait_us, runtime_us = u.runtime_us, state = u.state, rare_state = u.rare_state,
		deciding = u.deciding, attempts = u.attempts, retry_count = u.retry_count, deliveries = u.deliveries, truncated = u.truncated,
		name = u.name, queue = u.queue, worker = u.worker, priority = coalesce(u.priority, t.priority),
		parent_task_id = coalesce(u.parent_task_id, t.parent_task_id), root_task_id = coalesce(u.root_task_id, t.root_task_id),
		reason = u.reason, args = coalesce(u.args, t.args), kwargs = coalesce(u.kwargs, t.kwargs), tags = coalesce(u.tags, t.tags), marks = u.marks`

	attemptWriteColumns = `project_id, engine, task_key, number, state, started_at, finished_at, wait_us, runtime_us, retries, worker,
		result, exception, exception_message, traceback, reason`

	attemptAssignments = `state = excluded.state, started_at = excluded.started_at, finished_at = excluded.finished_at,
		wait_us = excluded.wait_us, runtime_us = excluded.runtime_us, retries = excluded.retries, worker = excluded.worker,
		result = excluded.result, exception = excluded.exception, exception_message = excluded.exception_message,
		traceback = excluded.traceback, reason = excluded.reason`

	// workerTouchAssignments: a goodbye stands until a later sign of life; an unknown offset leaves the known one.
	workerTouchAssignments = `stopped_at = CASE WHEN excluded.last_seen_at >= workers.last_seen_at THEN excluded.stopped_at ELSE workers.stopped_at END,
		last_seen_at = CASE WHEN excluded.last_seen_at > workers.last_seen_at THEN excluded.last_seen_at ELSE workers.last_seen_at END,
		offset_us = coalesce(excluded.offset_us, workers.offset_us)`
)

const (
	// workerBeatAssignments leave what a heartbeat could not tell.
	workerBeatAssignments = `agent_id = excluded.agent_id, stopped_at = NULL, pid = coalesce(excluded.pid, workers.pid),
		last_seen_at = CASE WHEN excluded.last_seen_at > workers.last_seen_at THEN excluded.last_seen_at ELSE workers.last_seen_at END,
		concurrency = coalesce(excluded.concurrency, workers.concurrency), active_tasks = excluded.active_tasks,
		queues = CASE WHEN excluded.queues = '' THEN workers.queues ELSE excluded.queues END,
		load_average = coalesce(excluded.load_average, workers.load_average),
		metadata = CASE WHEN excluded.metadata = '' THEN workers.metadata ELSE excluded.metadata END`

	queueBeatAssignments = `pending_count = excluded.pending_count, pending_at = excluded.pending_at, last_seen_at = excluded.last_seen_at`
)

// splitAttempts tells rows that are written whole from those whose payload stays.
func splitAttempts(all []AttemptRow) (whole, touched []*AttemptRow) {
	for i := range all {
		if all[i].KeepPayload {
			touched = append(touched, &all[i])
		} else {
			whole = append(whole, &all[i])
		}
	}
	return whole, touched
}

const hourMicros = 3600 * 1_000_000

// allTime is the hour under which tasks by state are counted once more over all hours: what stands now is asked for often,
// and a history of hours is long. It is no hour of any event's; 0 would be written as unknown.
const allTime = hourMicros

// byHour adds minutes up to hours; minutes are sorted by project, minute, measure, name, queue.
func byHour(minutes []RollupDelta) []RollupDelta {
	hours := make([]RollupDelta, 0, len(minutes))
	for _, m := range minutes {
		m.Minute -= m.Minute % hourMicros
		hours = append(hours, m)
		if countsTasks(m.Measure) {
			m.Minute = allTime
			hours = append(hours, m)
		}
	}
	slices.SortFunc(hours, RollupDelta.Compare)
	out := hours[:0]
	for _, h := range hours {
		if n := len(out); n > 0 && out[n-1].Compare(h) == 0 {
			out[n-1].Count += h.Count
			out[n-1].Sum += h.Sum
			continue
		}
		out = append(out, h)
	}
	return out
}

// countsTasks reports whether a measure is one of tasks by state.
func countsTasks(measure int16) bool {
	first := int16(fold.MeasureTask)
	return measure >= first && measure <= first+int16(fold.StateLost)
}

// Compare orders differences as the table's key does: project, bucket, measure, name, queue.
func (d RollupDelta) Compare(b RollupDelta) int {
	if c := bytes.Compare(d.Project[:], b.Project[:]); c != 0 {
		return c
	}
	if d.Minute != b.Minute {
		return cmp.Compare(d.Minute, b.Minute)
	}
	if d.Measure != b.Measure {
		return cmp.Compare(d.Measure, b.Measure)
	}
	if c := strings.Compare(d.Name, b.Name); c != 0 {
		return c
	}
	return strings.Compare(d.Queue, b.Queue)
}
