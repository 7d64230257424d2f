package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/z4j-go/z4j/internal/fold"
	"github.com/z4j-go/z4j/internal/id"
)

// Retention is how long the installation keeps what a project says nothing else of, in days.
type Retention struct {
	Tasks      int // tasks and all that belongs to them
	Failed     int // failed, rejected and lost tasks, where that is longer; 0: like the others
	Unfinished int // tasks that never ended, where that is longer; 0: for ever
	Events     int // where that is shorter; 0: like tasks
}

// Days of what no setting rules.
const (
	keepProcesses = 30  // agents' processes that went offline: every deployment leaves some
	keepHours     = 400 // rollups by hour: a year and a bit, so that months can be compared
	keepLeases    = 7   // leases that ended; the newest holder helps whoever looks into an incident
	keepSetup     = 1   // set-up tokens that are too old to be used
)

// A policy says what becomes of one table's rows in time.
type policy struct {
	table string
	kind  keeping
	why   string // what operators and developers are told

	// Of byAge: rows whose column is before the cut-off go, if cond holds. key is the primary key.
	key    string
	column string
	cond   string
	args   []any // of cond
	days   func(r *rule) int
	isID   bool // column is a UUIDv7, whose time counts
	global bool // of the whole installation: it has no project_id
}

// keeping is the way in which a table's rows go.
type keeping string

const (
	forEver  keeping = "for_ever"
	byAge    keeping = "by_age"    // rows, by the age of a column
	byTask   keeping = "by_task"   // tasks, by state and last activity
	byParent keeping = "by_parent" // together with the row that they belong to
	byDay    keeping = "by_day"    // events: whole partitions of a day where there are any, else rows
)

func fixed(days int) func(*rule) int { return func(*rule) int { return days } }
func taskDays(r *rule) int           { return r.tasks }

// policies has one line for every table. A test reads the schema and fails for a table without.
func policies() []policy {
	const lastSeen, kept = "last_seen_at", "the audit log is never deleted automatically"
	return []policy{
		{table: "events", kind: byDay, why: "by the day in which they occurred"},
		{table: "tasks", kind: byTask, why: "by state and last activity; an unfinished one has an age of its own"},
		{table: "attempts", kind: byParent, why: "with their task"},
		{table: "task_payloads", kind: byParent, why: "with their task"},
		{table: "dead_letters", kind: byAge, why: "by their arrival, like tasks", key: "project_id, id", column: "id", isID: true, days: taskDays},
		{table: "rollup_minutes", kind: byAge, why: "like tasks", key: rollupPrimary, column: "bucket", days: taskDays},
		{
			table: "rollup_hours", kind: byAge, why: "a year and a bit, or like tasks if that is longer; what counts the tasks that stand now has no age",
			key: rollupPrimary, column: "bucket", cond: "bucket <> ?", args: []any{TimeAt(allTime)}, days: func(r *rule) int { return max(keepHours, r.tasks) },
		},
		{table: "workers", kind: byAge, why: "by their last sign of life, like tasks", key: "project_id, engine, name", column: lastSeen, days: taskDays},
		{table: "queues", kind: byAge, why: "by their last sign of life, like tasks", key: "project_id, engine, name", column: lastSeen, days: taskDays},
		{
			table: "agent_workers", kind: byAge, why: "by their last sign of life, once offline",
			key: "project_id, agent_id, has_worker_id, worker_id", column: lastSeen, cond: "state <> 'online'", days: fixed(keepProcesses),
		},

		{table: "sessions", kind: byAge, why: "some time after they ran out", key: "id", column: "expires_at", days: fixed(int(keepEnded / day)), global: true},
		{table: "first_boot_tokens", kind: byAge, why: "once they are too old", key: "token_hash", column: "expires_at", days: fixed(keepSetup), global: true},
		{table: "leases", kind: byAge, why: "some time after they ended", key: "name", column: "until", days: fixed(keepLeases), global: true},

		{table: "users", kind: forEver, why: "accounts go when somebody takes them away"},
		{table: "projects", kind: forEver, why: "projects go when somebody takes them away"},
		{table: "memberships", kind: byParent, why: "with their account or project"},
		{table: "api_keys", kind: byParent, why: "with their account or project; those that ended are shown to their owner"},
		{table: "agents", kind: forEver, why: "events and the audit log name them, revoked ones too"},
		{table: "meta", kind: forEver, why: "the installation's own few values"},
		{table: "schema_migrations", kind: forEver, why: "which migrations were run"},
		{table: "retention_counts", kind: byParent, why: "each sweep empties it into its audit entry"},

		{table: "audit_log", kind: forEver, why: kept},
		{table: "audit_personal", kind: forEver, why: kept},
		{table: "audit_lock", kind: forEver, why: kept},
		{table: "audit_boundary", kind: forEver, why: kept},
		{table: "audit_kids", kind: forEver, why: kept},
		{table: "audit_generations", kind: forEver, why: kept},
		{table: "audit_hold", kind: forEver, why: kept},
		{table: "audit_place", kind: forEver, why: kept},
		{table: "audit_frontier", kind: forEver, why: kept},
		{table: "audit_checkpoints", kind: forEver, why: kept},
	}
}

const (
	rollupPrimary = "project_id, bucket, measure, name, queue"
	day           = 24 * time.Hour
)

// rule is how long a project's work is kept, in days.
type rule struct {
	project                           id.ID // zero: what belongs to no project
	slug                              string
	tasks, failed, unfinished, events int    // unfinished 0: for ever
	hold                              string // why nothing of it may be deleted; "": it may
}

// held reports whether nothing of the project may be deleted.
func (r *rule) held() bool { return r.hold != "" }

// rule applies what the project says to what the installation says.
func (r Retention) rule(p *Project) rule {
	out := rule{project: p.ID, slug: p.Slug, tasks: max(r.Tasks, 1)}
	pick := func(own *int64, otherwise int) int {
		if own != nil {
			return int(*own)
		}
		return otherwise
	}
	out.tasks = pick(p.TaskRetentionDays, out.tasks)
	out.failed = max(out.tasks, pick(p.FailedRetentionDays, r.Failed))
	if r.Unfinished > 0 {
		out.unfinished = max(out.tasks, r.Unfinished)
	}
	if out.events = pick(p.EventRetentionDays, r.Events); out.events == 0 || out.events > out.tasks {
		out.events = out.tasks // events are not kept longer than their tasks
	}
	if p.HoldReason != nil {
		out.hold = *p.HoldReason
	}
	return out
}

// rules reads those of every project, archived ones too, by slug.
func (r Retention) rules(ctx context.Context, s *Store, q querier) ([]rule, error) {
	rows, err := q.QueryContext(ctx, s.sql(`SELECT `+projectColumns+` FROM projects ORDER BY slug{C}`))
	list, err := collect(rows, err, (*Project).fields)
	if err != nil {
		return nil, err
	}
	out := make([]rule, len(list))
	for i := range list {
		out[i] = r.rule(&list[i])
	}
	return out, nil
}

// Horizons returns, for each project, how far back its events are taken in: what retention removed does not come back.
func (s *Store) Horizons(ctx context.Context, r Retention) (map[id.ID]time.Duration, error) {
	rules, err := r.rules(ctx, s, s.read)
	if err != nil {
		return nil, wrap("horizons", err)
	}
	out := make(map[id.ID]time.Duration, len(rules))
	for i := range rules {
		out[rules[i].project] = time.Duration(rules[i].tasks) * day
	}
	return out, nil
}

// cut is the instant before which what is kept for a number of days goes.
func cut(now Time, days int) Time { return TimeOf(now.Add(-time.Duration(days) * day)) }

// eventCut is cut for events: whole days go, at the end of the last of them.
func eventCut(now Time, days int) Time { return TimeOf(cut(now, days).Truncate(day)) }

// idFloor is the smallest UUIDv7 of a time.
func idFloor(t Time) id.ID {
	u := id.At(t.UnixMicro())
	u[7] &^= 3
	u[8] = 0x80
	clear(u[9:])
	return u
}

// taskCuts are the cut-offs of a project's tasks by state.
type taskCuts struct{ ended, failed, unfinished Time }

func (r *rule) taskCuts(now Time) taskCuts {
	c := taskCuts{ended: cut(now, r.tasks), failed: cut(now, r.failed), unfinished: TimeAt(0)}
	if r.unfinished > 0 {
		c.unfinished = cut(now, r.unfinished)
	}
	return c
}

// The states whose tasks are kept alike; the rest never ended.
var (
	endedStates  = []fold.State{fold.StateSuccess, fold.StateRevoked}
	failedStates = []fold.State{fold.StateFailure, fold.StateRejected, fold.StateLost}
)

// due reports whether a task may go.
func (c *taskCuts) due(state fold.State, last Time, eta *Time) bool {
	switch {
	case slices.Contains(endedStates, state):
		return last.Before(c.ended.Time)
	case slices.Contains(failedStates, state):
		return last.Before(c.failed.Time)
	}
	return last.Before(c.unfinished.Time) && (eta == nil || eta.Before(c.unfinished.Time))
}

// dueTasks makes w name the tasks that may go: due, in SQL.
func (w *where) dueTasks(c *taskCuts) {
	w.and(`CASE WHEN state IN (4, 7) THEN last_at < ? WHEN state IN (5, 8, 9) THEN last_at < ? ELSE last_at < ? AND (eta IS NULL OR eta < ?) END`,
		c.ended, c.failed, c.unfinished, c.unfinished)
}

// RetentionHold is a legal hold: nothing is deleted while it stands.
type RetentionHold struct {
	Since  Time   `json:"since"`
	Reason string `json:"reason"`
}

const holdKey = "retention_hold" // in meta: of the whole installation

// InstallationHold returns the hold of the whole installation, nil if there is none.
func (s *Store) InstallationHold(ctx context.Context) (*RetentionHold, error) {
	return installationHold(ctx, s.read)
}

func installationHold(ctx context.Context, q querier) (*RetentionHold, error) {
	rows, err := q.QueryContext(ctx, `SELECT updated_at, value FROM meta WHERE key = $1`, holdKey)
	list, err := collect(rows, err, func(h *RetentionHold) []any { return []any{&h.Since, &h.Reason} })
	if err != nil || len(list) == 0 {
		return nil, wrap("legal hold", err)
	}
	return &list[0], nil
}

// Why a sweep deletes nothing now, and tries again later; ErrHistoryInDoubt is another reason.
var (
	ErrLegalHold  = errors.New("a legal hold of the whole installation stands: `z4j-brain retention release` ends it")
	ErrBackupRuns = errors.New("a backup runs; the sweep waits for its end")
	ErrSweepRuns  = errors.New("another sweep runs")
)

// Waits reports whether err says that a sweep has to wait for something, and nothing is wrong with it.
func Waits(err error) bool {
	return errors.Is(err, ErrLegalHold) || errors.Is(err, ErrBackupRuns) || errors.Is(err, ErrSweepRuns) || errors.Is(err, ErrHistoryInDoubt)
}

// mayDelete returns what stands in the way of every deletion, nil for nothing. now is a time of leases.
func (s *Store) mayDelete(ctx context.Context, q querier, now Time) error {
	var backup, doubt, hold bool
	rows, err := q.QueryContext(ctx, `SELECT EXISTS (SELECT 1 FROM leases WHERE name = $1 AND until > $2), EXISTS (SELECT 1 FROM audit_hold),
		EXISTS (SELECT 1 FROM meta WHERE key = $3)`, BackupLease, now, holdKey)
	if err != nil {
		return wrap("may delete", err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&backup, &doubt, &hold); err != nil {
			return wrap("may delete", err)
		}
	}
	switch err := rows.Err(); {
	case err != nil:
		return wrap("may delete", err)
	case doubt:
		return ErrHistoryInDoubt
	case hold:
		return ErrLegalHold
	case backup:
		return ErrBackupRuns
	}
	return nil
}

const lastSweepKey = "retention_swept_at" // in meta

// LastSweep is when a sweep last came to its end, or ErrNotFound.
func (s *Store) LastSweep(ctx context.Context) (time.Time, error) {
	text, err := s.Meta(ctx, lastSweepKey)
	if err != nil {
		return time.Time{}, err
	}
	at, err := time.Parse(time.RFC3339, text)
	return at, wrap("last sweep", err)
}

// PutLastSweep notes when a sweep came to its end.
func (s *Store) PutLastSweep(ctx context.Context, at time.Time) error {
	return s.PutMeta(ctx, lastSweepKey, at.UTC().Format(time.RFC3339))
}

// The leases that a sweep knows.
const (
	BackupLease = "backup"    // lives as long as a backup holds its snapshot
	sweepLease  = "retention" // lives as long as a sweep runs
)
