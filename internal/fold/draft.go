package fold

// History is the set of marks known of one task, bounded, with the keys of its descriptive fields. The zero History is
// not ready: call Decode, with a nil blob for a new task. It may be reused for another task by another Decode.
type History struct{}

// Decode makes h the history that blob holds, of a task of an engine; a nil blob is a new task's. The guesses are those
// that were stored with it.
func (h *History) Decode(engine, taskID string, blob []byte) ([]Guess, error) { panic("unfinished") }

// Add takes a report into the set and says what it added.
func (h *History) Add(m *Mark) Added { panic("unfinished") }

// Append appends the history and the guesses in their stored form. Equal sets give equal bytes.
func (h *History) Append(dst []byte, guesses []Guess) []byte { panic("unfinished") }

// Fold folds a history. It does not keep or change its arguments.
func Fold(h *History, guesses []Guess) Result { panic("unfinished") }

// FoldInto is Fold that reuses r's slices.
func FoldInto(r *Result, h *History, guesses []Guess) { panic("unfinished") }

// DiffAttempts returns the numbers of after's attempts that before lacks or has otherwise, and of before's that are gone.
func DiffAttempts(before, after *Result) (upsert, remove []int32) { panic("unfinished") }

// MergePayload joins two payloads of one mark: of two values the longer, then the greater text.
func MergePayload(a, b Payload) Payload { panic("unfinished") }

// Payload joins the payloads of an attempt's marks; get returns nil where a mark's payload is not stored.
func (a *Attempt) Payload(get func(MarkKey) *Payload) Payload { panic("unfinished") }

// ParseKind reads "task.sent" and its like.
func ParseKind(s string) (Kind, bool) { panic("unfinished") }

// Key returns the name of the mark that m reports.
func (m *Mark) Key() MarkKey { panic("unfinished") }

// Append appends the key's stored form, the column task_payloads.mark.
func (k MarkKey) Append(dst []byte) []byte { panic("unfinished") }

// TaskKey is the 16 bytes that stand for a task id: the UUID itself in its canonical form, else a hash with the engine.
func TaskKey(engine, taskID string) [16]byte { panic("unfinished") }

// EventID is the identity of a mark's event row within a project.
func EventID(project [16]byte, engine, taskID string, k MarkKey) [16]byte { panic("unfinished") }

// AgentEventID is the identity of an event without a task or a time: by the agent's event id.
func AgentEventID(project, event [16]byte) [16]byte { panic("unfinished") }

// Contribution is what a task adds to one rollup row.
type Contribution struct {
	Bucket      int64 // the minute, by order time
	Measure     uint16
	Name, Queue string
	Count       int64
	Sum         int64 // µs, of the histograms
}

// Contributions appends what a task's result counts for in the rollups, sorted by bucket, measure, name and queue.
func Contributions(dst []Contribution, r *Result, name, queue string) []Contribution {
	panic("unfinished")
}

// Difference appends what has to be added to the rollups when before becomes after. Both are sorted.
func Difference(dst, before, after []Contribution) []Contribution { panic("unfinished") }
