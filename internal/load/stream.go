package load

import (
	"time"

	"github.com/z4j-go/z4j/internal/wire"
)

// Orders in which the events of tasks come.
const (
	Interleaved = "interleaved" // of many tasks at once, as workers report them
	Completed   = "completed"   // a task's all, then the next task's
)

// width is how many tasks of one connection are under way at once when they interleave.
const width = 200

// stream is the endless events of one process. It belongs to one goroutine.
type stream struct {
	teller   *teller
	reporter *reporter
	width    int
	now      func() time.Time

	tasks []telling
	task  int // whose turn it is
	round int
	last  int64
	id    [16]byte
}

// telling is a task that is being told.
type telling struct {
	id    string
	steps []step
}

func newStream(t *teller, r *reporter, order string, now func() time.Time) *stream {
	s := &stream{teller: t, reporter: r, width: width, now: now}
	if order == Completed {
		s.width = 1
	}
	return s
}

// append appends the next event as JSON. first is the task's id if it is the task's first event, else "".
func (s *stream) append(dst []byte) (out []byte, first string) {
	for {
		if s.task == len(s.tasks) {
			s.task = 0
			s.round++
			if len(s.tasks) == 0 || s.done() {
				s.begin()
			}
		}
		t := &s.tasks[s.task]
		s.task++
		if s.round >= len(t.steps) {
			continue
		}
		if s.round == 0 {
			first = t.id
		}
		return s.event(dst, t.id, &t.steps[s.round]), first
	}
}

// done reports whether all tasks are told.
func (s *stream) done() bool {
	for i := range s.tasks {
		if s.round < len(s.tasks[i].steps) {
			return false
		}
	}
	return true
}

// begin makes up the next tasks.
func (s *stream) begin() {
	t := s.teller
	t.arena = t.arena[:0]
	if s.tasks == nil {
		s.tasks = make([]telling, s.width)
	}
	s.round = 0
	for i := range s.tasks {
		one := &s.tasks[i]
		var id [36]byte
		one.id = string(t.taskID(id[:0]))
		t.tell(s.reporter, one.id, 0)
		one.steps = append(one.steps[:0], t.steps[:t.n]...)
	}
}

// event appends one event. It happens now: two of one process never at the same time.
func (s *stream) event(dst []byte, taskID string, one *step) []byte {
	at := max(s.now().UnixMicro(), s.last+1)
	s.last = at
	putUint64(s.id[:8], s.teller.random.Uint64())
	putUint64(s.id[8:], s.teller.random.Uint64())
	dst = append(dst, `{"id":"`...)
	dst = appendUUID(dst, s.id)
	dst = append(dst, `","kind":"`...)
	dst = append(dst, one.kind.String()...)
	dst = append(dst, `","engine":"`...)
	dst = append(dst, s.reporter.engine.name...)
	dst = append(dst, `","task_id":"`...)
	dst = append(dst, taskID...)
	dst = append(dst, `","occurred_at":"`...)
	dst = wire.AppendTime(dst, time.UnixMicro(at))
	dst = append(dst, `","data":`...)
	dst = append(dst, one.data...)
	return append(dst, '}')
}
