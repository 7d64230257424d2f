package fold

// Kind is what a mark says. The order of the numbers decides between marks of one time; they are stored.
type Kind uint8

// The kinds of marks.
const (
	Sent Kind = 1 + iota
	Received
	Started
	Failed
	Retried
	Rejected
	Succeeded
	Revoked
)

// State is the state of a task or of an attempt. The numbers are stored and never change. An attempt is StateStarted
// (open), StateSuccess, StateFailure, StateRetry, StateRevoked, StateRejected or StateLost.
type State int16

// The states.
const (
	StateUnknown  State = 0
	StatePending  State = 1
	StateReceived State = 2
	StateStarted  State = 3
	StateSuccess  State = 4
	StateFailure  State = 5
	StateRetry    State = 6
	StateRevoked  State = 7
	StateRejected State = 8
	StateLost     State = 9
)

// Reason is why a task or an attempt is revoked or lost. The numbers are stored and never change.
type Reason uint8

// The reasons.
const (
	NoReason          Reason = 0
	ReasonRevoked     Reason = 1  // revoked: somebody cancelled it
	ReasonTerminated  Reason = 2  // revoked: and its process was ended
	ReasonExpired     Reason = 3  // revoked: it waited beyond its expiry
	ReasonStopped     Reason = 4  // lost: its worker's process said goodbye after it began
	ReasonRestarted   Reason = 5  // lost: its worker started anew after it began
	ReasonSilent      Reason = 6  // lost: its worker is silent beyond its limit
	ReasonNotRunning  Reason = 7  // lost: the engine says that it does not run it
	ReasonLaterEnded  Reason = 8  // lost: a later attempt on the same worker ended
	ReasonLaterWon    Reason = 9  // lost: a later attempt succeeded
	ReasonBeyondBound Reason = 10 // lost: its end may be among the marks that the bound dropped
)

// Number is a number that a report may lack; the zero Number is unknown.
type Number struct {
	Value int64
	Known bool
}

// Num is a known Number.
func Num(n int64) Number { return Number{Value: n, Known: true} }

// Sender is the agent process that reported a mark; the zero Sender is unknown.
type Sender struct {
	// ID names the process: 8 bytes of a hash over the agent, its worker_id, and its worker_started_at where hello has it.
	// Two processes with one ID are taken for one, so that their reports of one broker event look like two events.
	ID uint64
	// Started is worker_started_at of its hello, else the connection's first sight. Several values for one ID are one
	// process: the earliest counts.
	Started int64
}

// Mark is one report of a life-cycle fact.
type Mark struct {
	Kind   Kind
	At     int64    // as sent; where it was missing or unreadable the receive time, and Event is set
	Heard  int64    // receive time
	Worker string   // "" for unknown
	Sender Sender   // who reported it
	Event  [16]byte // the agent's event id, only where the time was missing or unreadable

	Retries    Number // retries
	RetryCount Number // retry_count
	RuntimeUS  Number // runtime_ms in µs; outside 0…10 years it counts as unknown
	ETA        int64

	Expired    bool // revoked
	Terminated bool // revoked
	WillRetry  bool // failed

	Payload *Payload // what an end carries; nil for nothing
	Fields  *Fields  // what describes the task; nil for nothing
}

// Payload is what an end carries: redacted and capped by the caller. nil and "" are unknown; a result of null is known.
type Payload struct {
	Result                                         []byte // raw JSON
	Exception, ExceptionMessage, Traceback, Reason string
}

// Fields describe a task. "" is unknown, and so are nil and null. Values that fold.md refuses (a placeholder for a name,
// a parent that is the task itself, …) may be passed; they are left out.
type Fields struct {
	Name, Queue, Priority, Parent, Root string
	Args, Kwargs, Tags                  []byte // raw JSON
}

// FieldSet is a set of Fields.
type FieldSet uint8

// The members of a FieldSet.
const (
	FieldName FieldSet = 1 << iota
	FieldQueue
	FieldPriority
	FieldParent
	FieldRoot
	FieldArgs
	FieldKwargs
	FieldTags
)

// Has reports whether f is in the set.
func (s FieldSet) Has(f FieldSet) bool { return s&f != 0 }

// MarkKey names a mark of a task. Marks whose time was missing have their event id in place of the time.
type MarkKey struct {
	Kind   Kind
	At     int64
	Worker string
	Event  [16]byte
}

// Novelty is what a report added to a history.
type Novelty uint8

// The novelties.
const (
	Nothing Novelty = iota // the mark was known, and all that the report says: no event row
	Filled                 // the mark was known, the report adds to it: no event row, but fold again
	New                    // a new mark: an event row
	Beyond                 // beyond the bound, so perhaps known: an event row unless its id exists
)

// Added says what Add did.
type Added struct {
	Novelty Novelty
	// Fields are those whose stored values this report's replace. It can be set whatever the Novelty.
	Fields FieldSet
	// Payload says that the report's payload may not be part yet of what is stored of its mark: merge it (MergePayload).
	Payload bool
}

// Guess is the brain's own opinion that an attempt is lost: the attempt that the mark Start began.
type Guess struct {
	Start  MarkKey
	Reason Reason
	At     int64 // when the brain came to it
}

// Task is a task's row as far as it follows from the marks.
type Task struct {
	State      State
	ReceivedAt int64 // first delivery of the current run, as sent
	StartedAt  int64 // as sent, like FinishedAt, Worker, RuntimeUS and WaitUS of the attempt that decides
	FinishedAt int64
	Worker     string
	RuntimeUS  int64
	WaitUS     int64
	ETA        int64  // of the newest delivery, where it has one
	Reason     Reason // why it is revoked or lost
	Deciding   int32  // number of the attempt that decides; 0 for none
	Attempts   int32
	Lost       int32 // attempts without a seen end that are lost
	RetryCount int32
	Deliveries int32
	Truncated  bool  // marks were dropped by the bound: counts are "at least"
	FirstAt    int64 // order time of the first mark
	LastAt     int64 // order time of the last mark
	EndAt      int64 // order time of the end; of a lost attempt, of its start
	// RerunAt is the order time at which the newest re-run began that came more than an hour after the last end, 0 for
	// none. When it changes to a later time than the row's id says, the row gets a new id of that time.
	RerunAt int64
}

// Attempt is one run of a task as far as it follows from the marks.
type Attempt struct {
	Number     int32
	State      State
	Worker     string
	StartedAt  int64 // as sent; 0: its start was not heard
	FinishedAt int64 // as sent; 0: open, or lost
	RuntimeUS  int64
	WaitUS     int64
	Retries    int64
	Reason     Reason
	WillRetry  bool    // its failure was announced to be tried again
	Hearsay    bool    // its outcome is hearsay: it counts as lost in the rollups
	Start      MarkKey // Kind 0: none
	End        MarkKey // of its real end, else of the revoke or the hearsay that gives the outcome; Kind 0: none
	BeganAt    int64   // order time of the start, without one of the end
	EndAt      int64   // order time of the end; of a lost attempt, of its start
	// Payloads names the marks whose payloads make the attempt's (method Payload); its first is End where End has one.
	Payloads []PayloadRef
}

// PayloadRef names a mark that carries a payload of an attempt.
type PayloadRef struct {
	Mark MarkKey
	// Fill begins another end of the same attempt, which only fills what the marks before it lack. Otherwise the mark is
	// one with the one before, and the longer value wins.
	Fill bool
}

// Remark is what is to be said of a mark that has no effect of its own.
type Remark uint8

// The remarks.
const (
	RemarkCopy    Remark = 1 + iota // the same fact as another mark
	RemarkHearsay                   // reported by somebody who did not run the task
	RemarkWeak                      // a revoke that ended nothing, or whose attempt ran to its end
)

// Note is the remark on a mark. Marks without a note stand for themselves.
type Note struct {
	Mark   MarkKey
	Remark Remark
	Of     MarkKey // of a copy: the mark that stands for it; of an overruled revoke: the real end
	// Payload says that the mark carries one, which belongs into a side row: it is not in an attempt's row alone.
	Payload bool
}

// Result is what a task's marks amount to.
type Result struct {
	Task     Task
	Attempts []Attempt // by number
	Notes    []Note    // by mark, in the order of time as sent
	// Deliveries are the order times of the marks that delivered the task.
	Deliveries []int64
	// Revoke is the mark that ended the task without an attempt, Kind 0 for none; RevokedAt is its order time, and
	// RevokePayload says that it carries a payload, which belongs into a side row.
	Revoke        MarkKey
	RevokedAt     int64
	RevokePayload bool
}
