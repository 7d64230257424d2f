package load

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strconv"

	"github.com/z4j-go/z4j/internal/fold"
)

// maxSteps is how many events a task has at most: two retries, of three events each, and the end.
const maxSteps = 9

// step is one event of a task.
type step struct {
	kind    fold.Kind
	at      int64 // µs: when it happened
	worker  string
	data    []byte // JSON, as the agent sends it
	fields  fold.Fields
	payload fold.Payload
	runtime fold.Number

	from int // where data begins in the arena
}

// teller makes up tasks. It belongs to one goroutine.
type teller struct {
	random *rand.Rand
	words  []byte
	size   int    // bytes of an event's data, about
	arena  []byte // what the steps' texts are parts of
	lag    int64  // µs from the last told task's events to their receipt, at the least
	steps  [maxSteps]step
	n      int
}

func newTeller(seed, stream uint64, text []byte, size int) *teller {
	return &teller{random: rand.New(rand.NewPCG(seed, stream)), words: text, size: size} //nolint:gosec // made-up tasks, the same for one seed
}

// taskID appends a UUIDv4.
func (t *teller) taskID(dst []byte) []byte {
	var raw [16]byte
	putUint64(raw[:8], t.random.Uint64())
	putUint64(raw[8:], t.random.Uint64())
	raw[6] = raw[6]&0x0f | 0x40
	raw[8] = raw[8]&0x3f | 0x80
	return appendUUID(dst, raw)
}

func putUint64(b []byte, n uint64) {
	for i := range 8 {
		b[i] = byte(n >> (56 - 8*i))
	}
}

func appendUUID(dst []byte, raw [16]byte) []byte {
	for i, part := range [...][]byte{raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:]} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, part)
	}
	return dst
}

// around draws a duration near a median: mostly within a third of it, now and then several times as long.
func (t *teller) around(median int64) int64 {
	d := float64(median) * math.Exp(0.3*t.random.NormFloat64())
	if t.random.IntN(100) == 0 {
		d *= 5
	}
	return min(max(int64(d), 200), 20*median)
}

// agentLag is what lies between an event and its receipt at the least where no worker is named, in µs.
const agentLag = 1_500

// heard draws when a step of the last told task is received.
func (t *teller) heard(s *step) int64 {
	late := agentLag
	if s.worker != "" {
		late = int(t.lag)
	}
	late += t.random.IntN(maxJitter)
	if t.random.IntN(200) == 0 {
		late += t.random.IntN(1_500_000) // a busy agent
	}
	return s.at + int64(late)
}

const maxJitter = 40_000 // µs

// tell makes up the task of an id, which begins at at, and returns its kind's index. The steps and their texts are the
// teller's until the arena is reset.
func (t *teller) tell(r *reporter, taskID string, at int64) int {
	which := r.picks[t.random.IntN(len(r.picks))]
	k, e := &r.kinds[which], &r.engine
	t.n, t.lag = 0, agentLag
	worker := ""
	if e.worker {
		i := t.random.IntN(len(r.workers))
		worker, t.lag = r.workers[i], r.lags[i]
	}
	fate := t.random.IntN(1000)
	revoked := e.receipts && e.retries && fate >= 997
	for try := 0; ; try++ {
		if e.receipts {
			t.receive(e, k, taskID, worker, at)
			at += t.around(k.wait)
		}
		if revoked {
			t.revoke(e, k, taskID, at)
			return which
		}
		t.start(e, k, taskID, worker, at)
		took := t.around(k.run)
		at += took
		again := e.retries && try < 2 && fate < 2*k.fails && fate&1 == 0
		switch {
		case again:
			t.retry(e, k, taskID, worker, at)
			at += 1_000_000 + t.around(4_000_000)
			fate = t.random.IntN(1000)
			continue
		case fate < k.fails:
			t.fail(e, k, taskID, worker, at)
		default:
			t.succeed(e, k, taskID, worker, at, took)
		}
		return which
	}
}

// open begins a step with what its engine tells of every event.
func (t *teller) open(kind fold.Kind, e *engine, k *kind, taskID, worker string, at int64) *step {
	s := &t.steps[t.n]
	t.n++
	*s = step{kind: kind, at: at, from: len(t.arena)}
	switch {
	case e.named:
		s.fields.Name = k.name
	case e.receipts && kind == fold.Received, kind == fold.Revoked:
		s.fields.Name = k.name
	case e.receipts:
		s.fields.Name = "<unknown:" + taskID[:8] + ">"
	}
	t.put(`{"task_name":"`)
	t.put(s.fields.Name)
	t.put(`"`)
	switch {
	case e.queue, e.name == celery && kind == fold.Received:
		s.fields.Queue = k.queue
		t.member("queue", k.queue)
	case e.name == celery:
		t.put(`,"queue":null`)
	}
	switch {
	case !e.worker:
	case e.name == celery && (kind == fold.Received || kind == fold.Revoked):
		t.put(`,"worker":null`)
	default:
		s.worker = worker
		t.member("worker", worker)
	}
	return s
}

// celery is the one engine whose events are heard on its broker, each with a part of what is known.
const celery = "celery"

func (t *teller) put(s string) { t.arena = append(t.arena, s...) }

func (t *teller) member(key, value string) {
	t.put(`,"`)
	t.put(key)
	t.put(`":"`)
	t.put(value)
	t.put(`"`)
}

// describe fills the data up to the size that is wanted.
func (t *teller) describe(s *step) {
	if more := t.size - (len(t.arena) - s.from) - len(`,"description":""}`); more >= leastText {
		t.put(`,"description":"`)
		t.text(more)
		t.put(`"`)
	}
}

const leastText = 16 // bytes; a shorter text is none

// text puts about n bytes of words; a third more or less.
func (t *teller) text(n int) {
	n = n*2/3 + t.random.IntN(n*2/3+1)
	n = min(n, len(t.words)/2)
	at := t.random.IntN(len(t.words) - n)
	t.arena = append(t.arena, t.words[at:at+n]...)
}

func (t *teller) close(s *step) {
	t.put("}")
	s.data = t.part(s.from)
}

// part is what stands in the arena from a place on.
func (t *teller) part(from int) []byte { return t.arena[from:len(t.arena):len(t.arena)] }

func (t *teller) number(n int) { t.arena = strconv.AppendInt(t.arena, int64(n), 10) }

func (t *teller) receive(e *engine, k *kind, taskID, worker string, at int64) {
	s := t.open(fold.Received, e, k, taskID, worker, at)
	if e.args {
		t.arguments(s, k)
	} else {
		t.describe(s)
	}
	if e.name == celery {
		s.fields.Root = taskID
		t.member("root_task_id", taskID)
	}
	t.close(s)
}

// arguments puts what the task was called with.
func (t *teller) arguments(s *step, k *kind) {
	order := t.random.IntN(2_000_000)
	t.put(`,"args":`)
	from := len(t.arena)
	t.put("[")
	t.number(order)
	t.put(`,"order-`)
	t.number(order)
	t.put(`"]`)
	s.fields.Args = t.part(from)
	t.put(`,"kwargs":`)
	from = len(t.arena)
	t.put(`{"currency":"EUR","amount_cents":`)
	t.number(t.random.IntN(40_000))
	t.put(`,"source":"`)
	t.put(k.queue)
	t.put(`"`)
	const rest = len(`,"note":""},"root_task_id":"00000000-0000-0000-0000-000000000000"}`)
	if more := t.size - (len(t.arena) - s.from) - rest; more >= leastText {
		t.put(`,"note":"`)
		t.text(more)
		t.put(`"`)
	}
	t.put("}")
	s.fields.Kwargs = t.part(from)
}

func (t *teller) start(e *engine, k *kind, taskID, worker string, at int64) {
	s := t.open(fold.Started, e, k, taskID, worker, at)
	if e.name == celery {
		t.put(`,"args":null,"kwargs":null`)
	}
	t.describe(s)
	t.close(s)
}

func (t *teller) succeed(e *engine, k *kind, taskID, worker string, at, took int64) {
	s := t.open(fold.Succeeded, e, k, taskID, worker, at)
	if !e.result {
		t.describe(s)
		t.close(s)
		return
	}
	t.put(`,"result":`)
	from := len(t.arena)
	t.put(`"{'ok': True, 'number': `)
	t.number(t.random.IntN(2_000_000))
	if more := t.size - (len(t.arena) - s.from) - len(`, 'text': ''}","runtime_ms":1000}`); more >= leastText {
		t.put(`, 'text': '`)
		t.text(more)
		t.put(`'`)
	}
	t.put(`}"`)
	s.payload.Result = t.part(from)
	t.put(`,"runtime_ms":`)
	t.number(int(took / 1000))
	s.runtime = fold.Num(took / 1000 * 1000)
	t.close(s)
}

// fail puts an end in an exception. Agents of Celery send its parts, others one text.
func (t *teller) fail(e *engine, k *kind, taskID, worker string, at int64) {
	s := t.open(fold.Failed, e, k, taskID, worker, at)
	line, order := 20+t.random.IntN(180), t.random.IntN(2_000_000)
	message := "ValueError('no such order: " + strconv.Itoa(order) + "')"
	if e.name != celery {
		s.payload.Exception = message
		t.member("exception", message)
		t.describe(s)
		t.close(s)
		return
	}
	s.payload.Exception, s.payload.ExceptionMessage = "RuntimeError", message
	s.payload.Traceback = "Traceback (most recent call last):\n  File \"/srv/app/lib/celery/app/trace.py\", line 564, in trace_task\n" +
		"    R = retval = fun(*args, **kwargs)\n  File \"/srv/app/tasks.py\", line " + strconv.Itoa(line) + ", in " + k.name + "\n" +
		"    raise ValueError(f'no such order: {order}')\nValueError: no such order: " + strconv.Itoa(order) + "\n"
	t.member("exception", s.payload.Exception)
	t.member("exception_message", message)
	t.put(`,"traceback":`)
	t.arena = appendJSON(t.arena, s.payload.Traceback)
	t.close(s)
}

func appendJSON(dst []byte, text string) []byte {
	quoted, err := json.Marshal(text)
	if err != nil {
		return append(dst, `""`...) // a text always has a JSON form
	}
	return append(dst, quoted...)
}

func (t *teller) retry(e *engine, k *kind, taskID, worker string, at int64) {
	s := t.open(fold.Retried, e, k, taskID, worker, at)
	if e.name == celery {
		s.payload.Reason = "ConnectionError('the other end hung up')"
		t.member("reason", s.payload.Reason)
	}
	t.close(s)
}

func (t *teller) revoke(e *engine, k *kind, taskID string, at int64) {
	s := t.open(fold.Revoked, e, k, taskID, "", at)
	if e.name == celery {
		t.put(`,"terminated":false,"signum":null,"expired":false`)
	}
	t.close(s)
}
