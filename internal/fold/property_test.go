package fold_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/z4j-go/z4j/internal/fold"
)

// known is a set of reports as several agents may have sent them.
type known struct {
	engine  string
	marks   []fold.Mark
	guesses []fold.Guess
}

// world draws reports of one task: up to four workers whose clocks are apart, several senders, copies, redeliveries,
// retries, revokes and losses, most of them close enough in time to meet in the rules.
type world struct {
	t      *rapid.T
	skew   map[string]int64
	lives  [5]int64 // when the senders' processes began
	celery bool
}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, skew: map[string]int64{}, celery: rapid.Bool().Draw(t, "celery")}
	for _, name := range []string{"", "w1", "w2", "w3", "w4"} {
		w.skew[name] = rapid.SampledFrom([]int64{0, 0, 0, 0, 7 * sec, -7 * sec, 3600 * sec, -3600 * sec, 90 * sec}).Draw(t, "skew")
	}
	for i := range w.lives {
		w.lives[i] = t0 + rapid.SampledFrom([]int64{-3600 * sec, -3600 * sec, -sec, sec, 30 * sec}).Draw(t, "life")
	}
	return w
}

func (w *world) engine() string {
	if w.celery {
		return "celery"
	}
	return "rq"
}

// report draws one report that truly happened at when.
func (w *world) report(kind fold.Kind, worker string, when int64) fold.Mark {
	t := w.t
	m := fold.Mark{Kind: kind, Worker: worker, At: when + w.skew[worker], Heard: when + rapid.SampledFrom([]int64{0, 20 * ms, sec, 3600 * sec}).Draw(t, "delay")}
	if id := rapid.Uint64Range(0, 4).Draw(t, "sender"); id > 0 {
		m.Sender = fold.Sender{ID: id, Started: w.lives[id] + rapid.SampledFrom([]int64{0, 0, 0, sec}).Draw(t, "sight")}
	}
	draw := func(name string, values ...int64) fold.Number {
		n := rapid.SampledFrom(append([]int64{-2, -2, -2, -1}, values...)).Draw(t, name)
		return fold.Number{Value: n, Known: n > -2}
	}
	if kind == fold.Received || kind == fold.Sent {
		m.Retries = draw("retries", 0, 1, 2)
		m.ETA = rapid.SampledFrom([]int64{0, 0, m.At + sec, m.At - sec}).Draw(t, "eta")
	}
	if kind == fold.Retried {
		m.RetryCount = draw("retry_count", 0, 1, 2)
	}
	if kind >= fold.Failed {
		m.RuntimeUS = draw("runtime", 200*ms, 400*ms, sec, 2*sec, 90*sec)
		m.Expired = rapid.Bool().Draw(t, "expired")
		if rapid.Bool().Draw(t, "payload") {
			text := rapid.SampledFrom([]string{"", "a", "b", "ab"})
			m.Payload = &fold.Payload{Exception: text.Draw(t, "exception"), Traceback: text.Draw(t, "traceback"), Reason: text.Draw(t, "reason")}
			if result := text.Draw(t, "result"); result != "" {
				m.Payload.Result = []byte(result)
			}
		}
	}
	if rapid.IntRange(0, 2).Draw(t, "described") == 0 {
		text := rapid.SampledFrom([]string{"", "x", "y", "<unknown:x>", "longer name", "longer nice"})
		m.Fields = &fold.Fields{Name: text.Draw(t, "name"), Queue: text.Draw(t, "queue"), Parent: text.Draw(t, "parent"), Args: []byte(text.Draw(t, "args"))}
	}
	if rapid.IntRange(0, 19).Draw(t, "timeless") == 0 {
		m.Event = [16]byte{9, byte(rapid.IntRange(1, 3).Draw(t, "event"))}
		m.At = m.Heard
	}
	return m
}

// reports draws n reports without any sense.
func (w *world) reports(n int, span int64) []fold.Mark {
	var all []fold.Mark
	for range n {
		kind := fold.Kind(rapid.IntRange(int(fold.Sent), int(fold.Revoked)).Draw(w.t, "kind"))
		worker := rapid.SampledFrom([]string{"", "w1", "w1", "w2", "w3", "w4"}).Draw(w.t, "worker")
		all = append(all, w.report(kind, worker, t0+rapid.Int64Range(0, span/(200*ms)).Draw(w.t, "when")*200*ms))
	}
	return all
}

// life draws the reports of a task that is delivered, started and ended again and again, some of them lost, some copied.
func (w *world) life(tries int) []fold.Mark {
	t, now := w.t, t0
	var all []fold.Mark
	say := func(kind fold.Kind, worker string) {
		for range rapid.SampledFrom([]int{0, 1, 1, 1, 2, 3}).Draw(t, "copies") {
			all = append(all, w.report(kind, worker, now))
			now += rapid.SampledFrom([]int64{0, 0, 3 * ms}).Draw(t, "apart")
		}
	}
	for range tries {
		worker := rapid.SampledFrom([]string{"w1", "w2", "w3", "w4"}).Draw(t, "worker")
		step := func() {
			now += rapid.SampledFrom([]int64{5 * ms, 300 * ms, 2 * sec, 61 * sec, 7200 * sec}).Draw(t, "pause")
		}
		say(rapid.SampledFrom([]fold.Kind{fold.Received, fold.Received, fold.Sent}).Draw(t, "delivery"), rapid.SampledFrom([]string{"", worker}).Draw(t, "teller"))
		step()
		say(fold.Started, worker)
		step()
		if rapid.IntRange(0, 4).Draw(t, "crash") == 0 {
			continue
		}
		say(fold.Kind(rapid.IntRange(int(fold.Failed), int(fold.Revoked)).Draw(t, "end")), rapid.SampledFrom([]string{worker, worker, worker, ""}).Draw(t, "teller"))
		step()
	}
	return all
}

// guess draws guesses about some of the starts.
func (w *world) guess(marks []fold.Mark) []fold.Guess {
	var guesses []fold.Guess
	for i := range marks {
		if marks[i].Kind == fold.Started && rapid.IntRange(0, 2).Draw(w.t, "lost") == 0 {
			guesses = append(guesses, fold.Guess{
				Start: marks[i].Key(), At: t0 + rapid.Int64Range(0, 2).Draw(w.t, "guessed"), Reason: fold.Reason(rapid.IntRange(4, 9).Draw(w.t, "reason")),
			})
		}
	}
	return guesses
}

func draw(t *rapid.T) known {
	w := newWorld(t)
	k := known{engine: w.engine()}
	if rapid.Bool().Draw(t, "sensible") {
		k.marks = w.life(rapid.IntRange(1, 4).Draw(t, "tries"))
	} else {
		k.marks = w.reports(rapid.IntRange(1, 12).Draw(t, "reports"), rapid.SampledFrom([]int64{2 * sec, 5 * sec, 200 * sec}).Draw(t, "span"))
	}
	k.guesses = w.guess(k.marks)
	return k
}

// split takes the marks in a drawn order, in drawn batches, some of them again, with the guesses somewhere between.
func split(t *rapid.T, k *known) *brain {
	early := rapid.IntRange(0, len(k.guesses)).Draw(t, "early guesses")
	b := newBrain(k.engine, "x", k.guesses[:early])
	order := rapid.Permutation(k.marks).Draw(t, "order")
	var batch []fold.Mark
	for _, m := range order {
		batch = append(batch, m)
		if rapid.IntRange(0, 3).Draw(t, "again") == 0 {
			batch = append(batch, rapid.SampledFrom(order).Draw(t, "which"))
		}
		if rapid.Bool().Draw(t, "cut") {
			b.take(t, batch)
			batch = nil
			if late := k.guesses[early:]; len(late) > 0 && rapid.Bool().Draw(t, "guess") {
				b.suppose(t, late[:1])
				early++
			}
		}
	}
	b.take(t, batch)
	b.suppose(t, k.guesses[early:])
	return b
}

func TestAnyOrderSplitAndRepetitionGiveTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := draw(t)
		all := whole(t, k.engine, "x", k.marks, k.guesses)
		sensible(t, &all.result, k.marks)
		split(t, &k).equal(t, all, "in another order")
		all.take(t, k.marks)
		all.equal(t, whole(t, k.engine, "x", k.marks, k.guesses), "everything again")
	})
}

func TestEveryOrderOfAFewGivesTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		k := known{engine: w.engine(), marks: w.reports(rapid.IntRange(2, 4).Draw(t, "reports"), 2*sec)}
		k.guesses = w.guess(k.marks)
		all := whole(t, k.engine, "x", k.marks, k.guesses)
		order := make([]int, len(k.marks))
		for i := range order {
			order[i] = i
		}
		permute(order, 0, func(order []int) {
			b := newBrain(k.engine, "x", k.guesses)
			for _, i := range order {
				b.take(t, k.marks[i:i+1])
			}
			b.equal(t, all, fmt.Sprint("order ", order))
		})
	})
}

// TestTheBoundDoesNotDependOnOrder folds more marks than are kept.
func TestTheBoundDoesNotDependOnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		k := known{engine: w.engine()}
		n := rapid.IntRange(370, 450).Draw(t, "marks")
		random := rand.New(rand.NewPCG(1, rapid.Uint64().Draw(t, "seed"))) // a thousand draws would be slow
		now := t0
		for i := range n {
			now += []int64{5 * ms, 400 * ms, 3 * sec}[random.IntN(3)]
			worker := []string{"w1", "w2", "", "w3"}[i%4]
			m := fold.Mark{Kind: fold.Kind(1 + i*7%8), Worker: worker, At: now + w.skew[worker], Heard: now}
			m.Sender = fold.Sender{ID: uint64(1 + i%3), Started: w.lives[i%3]}
			k.marks = append(k.marks, m)
		}
		all := whole(t, k.engine, "x", k.marks, nil)
		sensible(t, &all.result, k.marks)
		b := newBrain(k.engine, "x", nil)
		order := slices.Clone(k.marks)
		random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for len(order) > 0 {
			size := min(len(order), rapid.IntRange(20, 300).Draw(t, "batch"))
			b.take(t, order[:size])
			order = order[size:]
		}
		b.equal(t, all, "in another order")
	})
}

// sensible fails where a result contradicts itself.
func sensible(t *rapid.T, r *fold.Result, marks []fold.Mark) {
	fail := func(format string, args ...any) { t.Fatalf(format+"\nin %+v", append(args, r)...) }
	open := int32(0)
	ends := map[fold.MarkKey]bool{}
	for i := range r.Attempts {
		a := &r.Attempts[i]
		switch {
		case a.Number != int32(i)+1:
			fail("attempt %d has number %d", i+1, a.Number)
		case a.WaitUS < -1 || a.RuntimeUS < -1 || a.Retries < -1:
			fail("attempt %d waits %d and runs %d µs", a.Number, a.WaitUS, a.RuntimeUS)
		case (a.State == fold.StateStarted || a.State == fold.StateLost) != (a.End.Kind == 0):
			fail("attempt %d is %v with the end %v", a.Number, a.State, a.End)
		case a.Start.Kind == 0 && a.StartedAt != 0:
			fail("attempt %d began without a start", a.Number)
		case a.End.Kind != 0 && ends[a.End]:
			fail("attempt %d has the end of another one", a.Number)
		case a.State != fold.StateStarted && a.EndAt < a.BeganAt:
			fail("attempt %d ended before it began", a.Number)
		}
		ends[a.End] = true
		if a.State == fold.StateStarted {
			open = a.Number
		}
	}
	task := &r.Task
	if (open > 0) != (task.State == fold.StateStarted) || open > 0 && task.Deciding != open {
		fail("the task is %v by attempt %d while %d is the last that is open", task.State, task.Deciding, open)
	}
	if task.Deciding > 0 {
		a := &r.Attempts[task.Deciding-1]
		if a.State != task.State || a.StartedAt != task.StartedAt || a.FinishedAt != task.FinishedAt || a.Worker != task.Worker || a.RuntimeUS != task.RuntimeUS {
			fail("the task is not what attempt %d says", task.Deciding)
		}
	}
	starts := 0
	for i := range marks {
		if marks[i].Kind == fold.Started {
			starts++
		}
	}
	begun := 0
	for i := range r.Attempts {
		if r.Attempts[i].Start.Kind != 0 {
			begun++
		}
	}
	if begun > starts {
		fail("%d attempts began with %d starts", begun, starts)
	}
	if len(marks) > 0 && (task.State == fold.StateUnknown || task.FirstAt > task.LastAt) {
		fail("the task is %v from %d to %d", task.State, task.FirstAt, task.LastAt)
	}
}
