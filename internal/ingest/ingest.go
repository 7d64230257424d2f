// Package ingest turns agents' events into task states.
//
// Frames of all connections flow through one bounded queue into writers, which group them by time and size, fold the
// marks of the tasks they touch, and commit each group as one transaction. A frame is answered only after
// its commit.
package ingest

import (
	"github.com/z4j-go/z4j/internal/id"
)

// Session is what a connection knows of its agent process; its frames share it and nobody changes it.
type Session struct {
	ID             string // session_id of hello_ack
	Project        id.ID
	Agent          id.ID
	HasWorkerID    bool     // false: the slot of agents that name no worker_id
	WorkerID       string   // of the agent process, as hello names it
	Engines        []string // of hello
	ProcessStarted int64    // µs: worker_started_at of hello, else the time of the connection's first frame
}

// Frame is one verified event_batch on its way into the database.
type Frame struct {
	Session  *Session
	ID       string // the frame's id: what is acked
	Payload  []byte // raw JSON of the payload; Submit takes it over
	Received int64  // µs
	// Done is called exactly once, after the commit or when the frame can't be taken now (Outcome.Err; it stays with
	// the agent). It is called from a writer's goroutine and must not block.
	Done func(Outcome)
}

// Outcome says what became of a frame's events: Received were looked at, Accepted were new, Rejected are the rest.
type Outcome struct {
	Received, Accepted, Rejected int
	Err                          error
}

// Beat is what a heartbeat tells, in the brain's units. Of one slot's beats that wait, only the newest is written.
type Beat struct {
	Session  *Session
	Received int64 // µs
	Queues   []QueueDepth
	Workers  []WorkerDetail
}

// QueueDepth is the number of waiting messages that an agent measured; nil is "unknown".
type QueueDepth struct {
	Engine, Name string
	Pending      *int64
}

// WorkerDetail is an engine worker as the agent's inspection shows it; nil fields are unknown.
type WorkerDetail struct {
	Engine, Name string
	Concurrency  *int64
	PID          *int64
	ActiveTasks  *int64
	Queues       []string // nil: unknown
	LoadAverage  []float64
	Metadata     []byte // JSON, conf reduced to the allow-list
}
