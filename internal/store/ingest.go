package store

import (
	"context"
	"database/sql"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/z4j-go/z4j/internal/fold"
	"github.com/z4j-go/z4j/internal/id"
)

// TaskRef is the key of a task's row.
type TaskRef struct {
	Project id.ID
	Engine  string
	Key     id.ID // package fold: TaskKey
}

// StoredTask is what the fold needs of a task's row. Marks is nil where there is no row yet.
type StoredTask struct {
	TaskRef
	ID      id.ID
	Created int64 // µs
	Name    string
	Queue   string
	Marks   []byte
}

// TaskRow is a task's row as ingest writes it. Times are µs, 0 for unknown; durations are µs, -1 for unknown; "" and nil
// are unknown and leave a stored value of priority, parent, root, args, kwargs and tags as it is.
type TaskRow struct {
	TaskRef
	ID                                         id.ID
	Created, Updated, LastAt                   int64
	Received, Started, Finished, ETA           int64
	WaitUS, RuntimeUS                          int64
	State, Rare                                int16 // Rare: State where it is rare, else 0
	Deciding, Attempts, RetryCount, Deliveries int32
	Truncated                                  bool
	TaskID, Name, Queue, Worker, Reason        string
	Priority, Parent, Root                     string
	Args, Kwargs, Tags                         []byte
	Marks                                      []byte
}

// reasons are what the API says of package fold's reasons.
var reasons = map[fold.Reason]string{
	fold.ReasonRevoked:     "revoked",
	fold.ReasonTerminated:  "terminated",
	fold.ReasonExpired:     "expired",
	fold.ReasonStopped:     "worker stopped",
	fold.ReasonRestarted:   "worker restarted",
	fold.ReasonSilent:      "worker silent",
	fold.ReasonNotRunning:  "not running",
	fold.ReasonLaterEnded:  "a later attempt on the same worker ended",
	fold.ReasonLaterWon:    "a later attempt succeeded",
	fold.ReasonBeyondBound: "its end is beyond what is kept",
}

// Take puts what the fold says of a task into its row. ID, Created and Updated are the caller's.
func (r *TaskRow) Take(t *fold.Task) {
	r.LastAt = t.LastAt
	r.Received, r.Started, r.Finished, r.ETA = t.ReceivedAt, t.StartedAt, t.FinishedAt, t.ETA
	r.WaitUS, r.RuntimeUS = t.WaitUS, t.RuntimeUS
	r.State, r.Rare = int16(t.State), 0
	if rareState(t.State) {
		r.Rare = r.State
	}
	r.Deciding, r.Attempts, r.RetryCount, r.Deliveries = t.Deciding, t.Attempts, t.RetryCount, t.Deliveries
	r.Truncated, r.Worker, r.Reason = t.Truncated, t.Worker, reasons[t.Reason]
}

// AttemptRow is an attempt's row as ingest writes it, in the units of TaskRow; Retries is -1 for unknown.
type AttemptRow struct {
	TaskRef
	Number            int32
	State             int16
	Started, Finished int64
	WaitUS, RuntimeUS int64
	Retries           int32
	Worker            string
	KeepPayload       bool // leaves the stored payload as it is; else Payload replaces it whole
	Payload           Payload
}

// Payload is what an attempt's end carries; nil and "" are unknown.
type Payload struct {
	Result                                         []byte // JSON
	Exception, ExceptionMessage, Traceback, Reason string
}

// AttemptRef is the key of an attempt's row.
type AttemptRef struct {
	TaskRef
	Number int32
}

// MarkPayload is the payload of an end that closes no attempt.
type MarkPayload struct {
	TaskRef
	Mark    []byte // package fold: the mark's key
	Payload []byte // JSON; nil takes the row away
}

// EventRow is an event as ingest writes it; times are µs.
type EventRow struct {
	Project            id.ID
	ID                 id.ID
	Agent              id.ID
	HasTask            bool
	TaskKey            id.ID
	Occurred, Received int64
	Engine, TaskID     string
	Kind, Worker       string
	Payload            []byte // JSON
}

// RollupDelta is a difference of a minute's counters; the hour's follow from it.
type RollupDelta struct {
	Project     id.ID
	Minute      int64 // µs
	Measure     int16 // package fold
	Name, Queue string
	Count, Sum  int64
}

// WorkerTouch is a sign of life of an engine's worker.
type WorkerTouch struct {
	Project      id.ID
	Engine, Name string
	Seen         int64  // µs, receive time
	Offset       *int64 // µs that its clock is ahead of ours
	Stopped      bool   // it said goodbye
}

// QueueTouch is a sign that a queue exists.
type QueueTouch struct {
	Project      id.ID
	Engine, Name string
	Seen         int64 // µs, receive time
}

// WorkerBeat is a worker as a heartbeat describes it; nil, "" and -1 are unknown and leave what is stored.
type WorkerBeat struct {
	Project, Agent           id.ID
	Engine, Name             string
	Seen                     int64 // µs, receive time
	PID, Concurrency, Active int64
	Queues, LoadAverage      []byte // JSON lists
	Metadata                 []byte // JSON
}

// QueueBeat is a queue's depth as a heartbeat tells it; Pending is -1 for unknown.
type QueueBeat struct {
	Project      id.ID
	Engine, Name string
	Seen         int64 // µs, receive time
	Pending      int64
}

// DeadLetter is what could not be taken, with the reason.
type DeadLetter struct {
	Project  id.ID
	ID       id.ID
	Agent    id.ID
	Received int64 // µs
	FrameID  string
	Reason   string
	Detail   string
	Size     int32
	Body     string
}

// IngestWrites is all that one group of frames changes. Slices are sorted by their keys, so that two writers never wait
// for one another in a circle.
type IngestWrites struct {
	Events         []EventRow
	NewTasks       []TaskRow
	ChangedTasks   []TaskRow
	Attempts       []AttemptRow
	GoneAttempts   []AttemptRef
	Payloads       []MarkPayload
	Rollups        []RollupDelta
	Workers        []WorkerTouch
	Queues         []QueueTouch
	DeadLetters    []DeadLetter
	WorkerBeats    []WorkerBeat
	QueueBeats     []QueueBeat
	AcceptedEvents int // filled by Write: rows of Events that were new
}

// IngestTx is one group's transaction.
type IngestTx struct {
	store *Store
	conn  *pgxpool.Conn // Postgres
	lite  *sql.Tx       // SQLite
}

// Ingest runs fn in one transaction and commits. ErrConflict says that another brain made a row first: run it again.
func (s *Store) Ingest(ctx context.Context, fn func(*IngestTx) error) error {
	if s.pool != nil {
		return s.ingestPostgres(ctx, fn)
	}
	return s.ingestSQLite(ctx, fn)
}

// Tasks reads and locks the rows of refs, which are sorted and distinct; the answer has one element for each.
func (tx *IngestTx) Tasks(ctx context.Context, refs []TaskRef) ([]StoredTask, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	if tx.conn != nil {
		return tx.tasksPostgres(ctx, refs)
	}
	return tx.tasksSQLite(ctx, refs)
}

// Write writes w; on Postgres it also commits, in the same round trip. It is the last call.
func (tx *IngestTx) Write(ctx context.Context, w *IngestWrites) error {
	if tx.conn != nil {
		return tx.writePostgres(ctx, w)
	}
	return tx.writeSQLite(ctx, w)
}
