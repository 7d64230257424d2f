package fold_test

import (
	"math"
	"testing"

	"github.com/z4j-go/z4j/internal/fold"
)

// rule is a sentence of the fold's specification and a task that shows it.
type rule struct {
	sentence string
	engine   string
	marks    []fold.Mark
	guesses  []fold.Guess
	state    fold.State
	attempts []attempt
	check    func(*testing.T, *brain)
}

func (r *rule) run(t *testing.T) {
	t.Helper()
	if r.engine == "" {
		r.engine = "rq"
	}
	b := anyOrder(t, r.engine, "x", r.marks, r.guesses...)
	want(t, "state", b.result.Task.State, r.state)
	want(t, "attempts", attempts(&b.result), r.attempts)
	if r.check != nil {
		r.check(t, b)
	}
}

func rules(t *testing.T, all []rule) {
	t.Helper()
	for i := range all {
		t.Run(all[i].sentence, func(t *testing.T) { all[i].run(t) })
	}
}

// Short names for the tables: s is a second of the test's clock.
func s(n float64) int64 { return t0 + int64(math.Round(n*float64(sec))) }

func started(w string, n float64, with ...func(*fold.Mark)) fold.Mark {
	return mark(fold.Started, w, s(n), with...)
}

func received(w string, n float64, with ...func(*fold.Mark)) fold.Mark {
	return mark(fold.Received, w, s(n), with...)
}

func succeeded(w string, n float64, with ...func(*fold.Mark)) fold.Mark {
	return mark(fold.Succeeded, w, s(n), with...)
}

func failed(w string, n float64, with ...func(*fold.Mark)) fold.Mark {
	return mark(fold.Failed, w, s(n), with...)
}

func retried(w string, n float64, with ...func(*fold.Mark)) fold.Mark {
	return mark(fold.Retried, w, s(n), with...)
}

func rejected(w string, n float64, with ...func(*fold.Mark)) fold.Mark {
	return mark(fold.Rejected, w, s(n), with...)
}

func revoked(w string, n float64, with ...func(*fold.Mark)) fold.Mark {
	return mark(fold.Revoked, w, s(n), with...)
}

// lost is a guess about the start of a worker.
func lost(w string, n float64) fold.Guess {
	return fold.Guess{Start: fold.MarkKey{Kind: fold.Started, At: s(n), Worker: w}, Reason: fold.ReasonSilent, At: s(9999)}
}

func key(m fold.Mark) fold.MarkKey { return m.Key() }

// remark is what the result says of the mark.
func remark(b *brain, k fold.Mark) fold.Remark {
	for _, n := range b.result.Notes {
		if n.Mark == k.Key() {
			return n.Remark
		}
	}
	return 0
}

func TestMarks(t *testing.T) {
	rules(t, []rule{
		{
			sentence: "same kind, at and worker is the same mark, whoever delivers it",
			marks:    []fold.Mark{started("w", 0, by(1, 1)), started("w", 0, by(2, 2), heard(s(9))), succeeded("w", 1)},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(1)}},
			check: func(t *testing.T, b *brain) { want(t, "events", len(b.events), 2) },
		},
		{
			sentence: "a copy that knows no worker is the same mark as one of that kind and time that does",
			marks:    []fold.Mark{started("", 0), started("w", 0), failed("", 1), failed("w", 1)},
			state:    fold.StateFailure, attempts: []attempt{{"w", fold.StateFailure, s(0), s(1)}},
			check: func(t *testing.T, b *brain) {
				want(t, "remark on the one without a worker", remark(b, started("", 0)), fold.RemarkCopy)
			},
		},
		{
			sentence: "fields that one copy lacks are filled from the other",
			marks: []fold.Mark{
				failed("w", 1, carries(fold.Payload{Exception: "E"}), named("n")),
				failed("w", 1, carries(fold.Payload{Traceback: "tb"}), about(fold.Fields{Queue: "q"}), runtime(3*ms)),
			},
			state: fold.StateFailure, attempts: []attempt{{"w", fold.StateFailure, 0, s(1)}},
			check: func(t *testing.T, b *brain) {
				want(t, "payload", b.attempts[1], fold.Payload{Exception: "E", Traceback: "tb"})
				want(t, "name and queue", b.fields[fold.FieldName]+b.fields[fold.FieldQueue], "nq")
				want(t, "run time", b.result.Task.RuntimeUS, 3*ms)
			},
		},
		{
			sentence: "numbers and times that one copy lacks are filled from the other, and the greater of two is kept",
			marks: []fold.Mark{
				received("w", 0), received("w", 0, eta(s(5)), retries(1)), received("w", 0, eta(s(4)), retries(2)), started("w", 9),
				retried("w", 10, retryCount(4)), retried("w", 10, retryCount(5), runtime(sec)), retried("w", 10, runtime(2*sec)),
			},
			state: fold.StateRetry, attempts: []attempt{{"w", fold.StateRetry, s(9), s(10)}},
			check: func(t *testing.T, b *brain) {
				want(t, "eta", b.result.Task.ETA, s(5))
				want(t, "wait", b.result.Task.WaitUS, 4*sec)
				want(t, "retries", b.result.Attempts[0].Retries, int64(2))
				want(t, "retry_count", b.result.Task.RetryCount, int32(5))
				want(t, "run time", b.result.Task.RuntimeUS, 2*sec)
			},
		},
		{
			sentence: "of two different values the one with the longer JSON, then the greater text, is kept",
			marks: []fold.Mark{
				failed("w", 1, carries(fold.Payload{Exception: "zz", Traceback: "a", Result: []byte("[1]")}), about(fold.Fields{Name: "zz", Args: []byte("[1]")})),
				failed("w", 1, carries(fold.Payload{Exception: "aaa", Traceback: "b", Result: []byte("[2]")}), about(fold.Fields{Name: "aaa", Args: []byte("[2]")})),
			},
			state: fold.StateFailure, attempts: []attempt{{"w", fold.StateFailure, 0, s(1)}},
			check: func(t *testing.T, b *brain) {
				want(t, "payload", b.attempts[1], fold.Payload{Exception: "aaa", Traceback: "b", Result: []byte("[2]")})
				want(t, "fields", b.fields[fold.FieldName]+b.fields[fold.FieldArgs], "aaa[2]")
			},
		},
		{
			sentence: "Celery only: the same broker event stamped by several senders is one mark",
			engine:   "celery",
			marks: []fold.Mark{
				started("w", 0, by(1, 1)), started("w", 3, by(2, 1)), started("w", 50, by(3, 1)),
				succeeded("w", 55, by(1, 1)), succeeded("w", 58, by(2, 1)), succeeded("w", 60, by(3, 1)),
			},
			state: fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(55)}},
		},
		{
			sentence: "other engines: several senders' starts with different times are attempts",
			marks:    []fold.Mark{started("w", 0, by(1, 1)), started("w", 3, by(2, 1))},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateStarted, s(0), 0}, {"w", fold.StateStarted, s(3), 0}},
		},
		{
			sentence: "not sent or received",
			engine:   "celery",
			marks:    []fold.Mark{received("w", 0, by(1, 1)), received("w", 3, by(2, 1))},
			state:    fold.StateReceived,
			check:    func(t *testing.T, b *brain) { want(t, "deliveries", b.result.Task.Deliveries, int32(2)) },
		},
		{
			sentence: "within 60 s",
			engine:   "celery",
			marks:    []fold.Mark{started("w", 0, by(1, 1)), started("w", 61, by(2, 1))},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateStarted, s(0), 0}, {"w", fold.StateStarted, s(61), 0}},
		},
		{
			sentence: "the k-th of one is the earliest of the others' that has none of this sender yet",
			engine:   "celery",
			marks: []fold.Mark{
				started("w", 0, by(1, 1)), failed("w", 1, by(1, 1)), started("w", 10, by(1, 1)), failed("w", 11, by(1, 1)),
				started("w", 5, by(2, 1)), failed("w", 6, by(2, 1)), started("w", 15, by(2, 1)), failed("w", 16, by(2, 1)),
			},
			state: fold.StateFailure, attempts: []attempt{{"w", fold.StateFailure, s(0), s(1)}, {"w", fold.StateFailure, s(10), s(11)}},
		},
		{
			sentence: "the senders are part of the mark: who stamped it with another has stamped it",
			engine:   "celery",
			marks:    []fold.Mark{started("w", 0, by(1, 1)), started("w", 0, by(2, 1)), started("w", 5, by(2, 1))},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateStarted, s(0), 0}, {"w", fold.StateStarted, s(5), 0}},
		},
		{
			sentence: "also the other way round, and of those that both name second",
			engine:   "celery",
			marks: []fold.Mark{
				started("w", 0, by(2, 1)), started("w", 5, by(1, 1)), started("w", 5, by(2, 1)), failed("w", 9, by(1, 1)), failed("w", 9, by(3, 1)),
				failed("w", 12, by(2, 1)), failed("w", 12, by(3, 1)),
			},
			state: fold.StateFailure, attempts: []attempt{{"w", fold.StateFailure, s(0), s(12)}, {"w", fold.StateFailure, s(5), s(9)}},
		},
		{
			sentence: "never older than any of its senders' processes",
			engine:   "celery",
			marks:    []fold.Mark{started("w", 0, by(1, 1)), started("w", 5, by(2, 1)), started("w", 5, by(3, s(2)))},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateStarted, s(0), 0}, {"w", fold.StateStarted, s(5), 0}},
		},
		{
			sentence: "never a copy of something older than its sender's process",
			engine:   "celery",
			marks:    []fold.Mark{started("w", 0, by(1, 1)), started("w", 10, by(2, s(5)))},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateStarted, s(0), 0}, {"w", fold.StateStarted, s(10), 0}},
		},
		{
			sentence: "of several first sights of one process the earliest counts",
			engine:   "celery",
			marks:    []fold.Mark{started("w", 0, by(1, 1)), started("w", 10, by(2, s(5))), failed("w", 20, by(2, s(-5)))},
			state:    fold.StateFailure, attempts: []attempt{{"w", fold.StateFailure, s(0), s(20)}},
		},
		{
			sentence: "retries is used where it is sent: numbers go by it if every attempt has one and they all differ",
			marks: []fold.Mark{
				received("a", 0, retries(1)), started("a", 1), succeeded("a", 2), received("b", 10, retries(0)), started("b", 11), retried("b", 12),
			},
			state: fold.StateSuccess, attempts: []attempt{{"b", fold.StateRetry, s(11), s(12)}, {"a", fold.StateSuccess, s(1), s(2)}},
		},
		{
			sentence: "else by order time",
			marks: []fold.Mark{
				received("a", 0, retries(1)), started("a", 1), succeeded("a", 2), started("b", 11), failed("b", 12),
			},
			state: fold.StateFailure, attempts: []attempt{{"a", fold.StateSuccess, s(1), s(2)}, {"b", fold.StateFailure, s(11), s(12)}},
		},
		{
			sentence: "a time ahead of its own receipt proves a fast clock: its worker's marks are ordered by at less its lead",
			marks: []fold.Mark{
				started("fast", 3600, heard(s(0))), failed("fast", 3601, heard(s(500))), started("w", 60), succeeded("w", 61),
			},
			state: fold.StateSuccess, attempts: []attempt{{"fast", fold.StateFailure, s(3600), s(3601)}, {"w", fold.StateSuccess, s(60), s(61)}},
			check: func(t *testing.T, b *brain) { want(t, "order time of its end", b.result.Attempts[0].EndAt, s(1)) },
		},
		{
			sentence: "a lead of 5 s is no lead",
			marks:    []fold.Mark{started("fast", 5, heard(s(0))), failed("w", 4)},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateFailure, 0, s(4)}, {"fast", fold.StateStarted, s(5), 0}},
		},
		{
			sentence: "a time behind its receipt proves nothing",
			marks:    []fold.Mark{started("w", 0, heard(s(7200))), failed("w", 5, heard(s(7200))), started("v", 100), succeeded("v", 101)},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateFailure, s(0), s(5)}, {"v", fold.StateSuccess, s(100), s(101)}},
		},
		{
			sentence: "inside one attempt differences use at",
			marks:    []fold.Mark{started("fast", 3600, heard(s(0))), succeeded("fast", 3604, heard(s(4)))},
			state:    fold.StateSuccess, attempts: []attempt{{"fast", fold.StateSuccess, s(3600), s(3604)}},
			check: func(t *testing.T, b *brain) { want(t, "run time", b.result.Task.RuntimeUS, 4*sec) },
		},
		{
			sentence: "a wait or run time that would be negative is unknown",
			marks: []fold.Mark{
				received("v", 0), started("w", 10), failed("", 11, by(1, 1)), received("w", 20, eta(s(99))), started("w", 21),
				received("", 3600, by(2, 1), heard(s(22))), succeeded("w", 30),
			},
			state: fold.StateSuccess, attempts: []attempt{{"w", fold.StateFailure, s(10), s(11)}, {"w", fold.StateSuccess, s(21), s(30)}},
			check: func(t *testing.T, b *brain) { want(t, "wait before its eta", b.result.Attempts[1].WaitUS, int64(-1)) },
		},
		{
			sentence: "time missing: receive time, and the agent's event id is the identity",
			marks: []fold.Mark{
				mark(fold.Started, "w", s(0), timeless(1)), mark(fold.Started, "w", s(30), timeless(1)), mark(fold.Succeeded, "w", s(40), timeless(2)),
			},
			state: fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(40)}},
			check: func(t *testing.T, b *brain) { want(t, "events", len(b.events), 2) },
		},
	})
}

func TestStartsAndEnds(t *testing.T) {
	rules(t, []rule{
		{
			sentence: "1: started opens an attempt on its worker",
			marks:    []fold.Mark{started("w", 0)},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateStarted, s(0), 0}},
		},
		{
			sentence: "1: two starts with different times are two attempts",
			marks:    []fold.Mark{started("w", 0), started("w", 0.000001)},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateStarted, s(0), 0}, {"w", fold.StateStarted, s(0.000001), 0}},
		},
		{
			sentence: "1: Celery only: a second start of the same worker within 1 s of one that has not ended is a copy",
			engine:   "celery",
			marks:    []fold.Mark{started("w", 0), started("w", 1), succeeded("w", 2)},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(2)}},
		},
		{
			sentence: "1: Celery: not beyond 1 s",
			engine:   "celery",
			marks:    []fold.Mark{started("w", 0), started("w", 1.000001)},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateStarted, s(0), 0}, {"w", fold.StateStarted, s(1.000001), 0}},
		},
		{
			sentence: "1: Celery: not of one that has ended",
			engine:   "celery",
			marks:    []fold.Mark{started("w", 0), retried("w", 0.1), started("w", 0.2)},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateRetry, s(0), s(0.1)}, {"w", fold.StateStarted, s(0.2), 0}},
		},
		{
			sentence: "1: Celery: not of another worker's",
			engine:   "celery",
			marks:    []fold.Mark{started("w", 0), started("v", 0.1)},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateStarted, s(0), 0}, {"v", fold.StateStarted, s(0.1), 0}},
		},
		{
			sentence: "2: an end closes an open attempt of its own worker",
			marks:    []fold.Mark{started("w", 0), started("v", 1), succeeded("w", 2)},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(2)}, {"v", fold.StateStarted, s(1), 0}},
		},
		{
			sentence: "2: that began at or before it",
			marks:    []fold.Mark{started("w", 0), failed("w", 0)},
			state:    fold.StateFailure, attempts: []attempt{{"w", fold.StateFailure, s(0), s(0)}},
		},
		{
			sentence: "2: the one whose start is nearest to end less runtime_ms",
			marks:    []fold.Mark{started("w", 0), started("w", 10), succeeded("w", 13, runtime(12*sec))},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(13)}, {"w", fold.StateStarted, s(10), 0}},
		},
		{
			sentence: "2: else the newest",
			marks:    []fold.Mark{started("w", 0), started("w", 10), succeeded("w", 13)},
			guesses:  []fold.Guess{lost("w", 0)},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateLost, s(0), 0}, {"w", fold.StateSuccess, s(10), s(13)}},
		},
		{
			sentence: "2: failing that, one whose worker is unknown",
			marks:    []fold.Mark{started("", 0), started("v", 1), succeeded("w", 2)},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(2)}, {"v", fold.StateStarted, s(1), 0}},
		},
		{
			sentence: "2: if the best start lies over a minute too early and a delivery came after it, its start was lost",
			marks:    []fold.Mark{started("w", 0), received("w", 100), succeeded("w", 200, runtime(sec)), succeeded("w", 200.5, runtime(sec))},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateStarted, s(0), 0}, {"w", fold.StateSuccess, 0, s(200)}},
		},
		{
			sentence: "2: over a minute too early without a delivery it is its own",
			marks:    []fold.Mark{received("w", 0), started("w", 0), succeeded("w", 200, runtime(sec))},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(200)}},
			check: func(t *testing.T, b *brain) { want(t, "run time as sent", b.result.Task.RuntimeUS, sec) },
		},
		{
			sentence: "2: a minute is not over a minute",
			marks:    []fold.Mark{started("w", 0), received("w", 30), succeeded("w", 61, runtime(sec))},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(61)}},
		},
		{
			sentence: "3a: the same end of the same worker within 1 s before it is a copy that fills gaps",
			marks: []fold.Mark{
				started("w", 0), failed("w", 1, carries(fold.Payload{Exception: "first"})),
				failed("w", 2, carries(fold.Payload{Exception: "the second", Traceback: "tb"}), runtime(5*ms)),
			},
			state: fold.StateFailure, attempts: []attempt{{"w", fold.StateFailure, s(0), s(1)}},
			check: func(t *testing.T, b *brain) {
				want(t, "payload", b.attempts[1], fold.Payload{Exception: "first", Traceback: "tb"})
				want(t, "run time", b.result.Task.RuntimeUS, 5*ms)
				want(t, "remark", remark(b, failed("w", 2)), fold.RemarkCopy)
			},
		},
		{
			sentence: "3a: or of an unknown one",
			marks:    []fold.Mark{started("w", 0), failed("", 1), failed("w", 1.5), failed("", 1.9)},
			state:    fold.StateFailure, attempts: []attempt{{"w", fold.StateFailure, s(0), s(1)}},
		},
		{
			sentence: "3b: a retried within 1 s after a failed, with no start between, is one end: retry, with the failure's exception",
			marks: []fold.Mark{
				started("w", 0), failed("w", 1, carries(fold.Payload{Exception: "E"})), retried("w", 2, carries(fold.Payload{Exception: "longer", Reason: "why"}), retryCount(1)),
			},
			state: fold.StateRetry, attempts: []attempt{{"w", fold.StateRetry, s(0), s(1)}},
			check: func(t *testing.T, b *brain) {
				want(t, "payload", b.attempts[1], fold.Payload{Exception: "E", Reason: "why"})
				want(t, "retry_count", b.result.Task.RetryCount, int32(1))
				want(t, "failures counted", count(&b.result, fold.MeasureOutcome+uint16(fold.StateFailure)), int64(0))
			},
		},
		{
			sentence: "3a and 3b also where no start was heard",
			marks:    []fold.Mark{failed("w", 0, exception("E")), failed("w", 0.4), retried("w", 1), retried("", 1)},
			state:    fold.StateRetry, attempts: []attempt{{"w", fold.StateRetry, 0, s(0)}},
		},
		{
			sentence: "3b: a retried later than that is an end of its own",
			marks:    []fold.Mark{started("w", -1), failed("w", 0), retried("w", 1.000001)},
			state:    fold.StateRetry, attempts: []attempt{{"w", fold.StateFailure, s(-1), s(0)}, {"w", fold.StateRetry, 0, s(1.000001)}},
		},
		{
			sentence: "3a: the same end later than that is not a copy",
			marks:    []fold.Mark{started("w", -1), succeeded("w", 0), succeeded("w", 1.000001)},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(-1), s(0)}, {"w", fold.StateSuccess, 0, s(1.000001)}},
		},
		{
			sentence: "3b: a start between makes two ends",
			marks:    []fold.Mark{started("w", 0), failed("w", 1), started("v", 1.5), retried("w", 2)},
			state:    fold.StateStarted,
			attempts: []attempt{{"w", fold.StateFailure, s(0), s(1)}, {"v", fold.StateStarted, s(1.5), 0}, {"w", fold.StateRetry, 0, s(2)}},
		},
		{
			sentence: "3b: what looked like hearsay is the failure of who retries",
			marks:    []fold.Mark{started("w", 0), succeeded("w", 1), failed("v", 10, exception("E")), retried("v", 10.5)},
			state:    fold.StateRetry, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(1)}, {"v", fold.StateRetry, 0, s(10)}},
			check: func(t *testing.T, b *brain) { want(t, "exception", b.attempts[2].Exception, "E") },
		},
		{
			sentence: "3c: its worker is unknown and an attempt is open: it closes the newest",
			marks:    []fold.Mark{started("w", 0), started("v", 1), failed("", 2)},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateStarted, s(0), 0}, {"v", fold.StateFailure, s(1), s(2)}},
		},
		{
			sentence: "3d: it makes an attempt without a start if the task has none yet",
			marks:    []fold.Mark{rejected("w", 0)},
			state:    fold.StateRejected, attempts: []attempt{{"w", fold.StateRejected, 0, s(0)}},
		},
		{
			sentence: "3d: if it is succeeded or retried: its start was lost",
			marks:    []fold.Mark{started("w", 0), failed("w", 1), retried("v", 10, runtime(2*sec)), succeeded("u", 20, runtime(3*sec))},
			state:    fold.StateSuccess,
			attempts: []attempt{{"w", fold.StateFailure, s(0), s(1)}, {"v", fold.StateRetry, 0, s(10)}, {"u", fold.StateSuccess, 0, s(20)}},
			check:    func(t *testing.T, b *brain) { want(t, "run time", b.result.Task.RuntimeUS, 3*sec) },
		},
		{
			sentence: "3d: if the attempt that ended last ended in retry",
			marks:    []fold.Mark{started("w", 0), retried("w", 1), failed("w", 10)},
			state:    fold.StateFailure, attempts: []attempt{{"w", fold.StateRetry, s(0), s(1)}, {"w", fold.StateFailure, 0, s(10)}},
		},
		{
			sentence: "3d: or if a delivery came after the one that began last began",
			marks:    []fold.Mark{started("w", 0), succeeded("w", 1), received("v", 10), failed("v", 20)},
			state:    fold.StateFailure, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(1)}, {"v", fold.StateFailure, 0, s(20)}},
		},
		{
			sentence: "3e: otherwise it is hearsay: it never undoes an end and opens nothing",
			marks:    []fold.Mark{received("w", -1), started("w", 0), succeeded("w", 1), failed("v", 20, exception("E")), rejected("u", 21)},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(1)}},
			check: func(t *testing.T, b *brain) {
				want(t, "remark", remark(b, failed("v", 20)), fold.RemarkHearsay)
				want(t, "side rows", b.side[key(failed("v", 20))].Exception, "E")
			},
		},
		{
			sentence: "3e: it gives an outcome to the newest attempt that is lost, and counts in no rate",
			marks:    []fold.Mark{started("w", 0), started("w", 5), failed("v", 20, exception("E"))},
			guesses:  []fold.Guess{lost("w", 0), lost("w", 5)},
			state:    fold.StateFailure, attempts: []attempt{{"w", fold.StateLost, s(0), 0}, {"w", fold.StateFailure, s(5), s(20)}},
			check: func(t *testing.T, b *brain) {
				want(t, "exception", b.attempts[2].Exception, "E")
				want(t, "hearsay", b.result.Attempts[1].Hearsay, true)
				want(t, "remark", remark(b, failed("v", 20)), fold.RemarkHearsay)
				want(t, "failures counted", count(&b.result, fold.MeasureOutcome+uint16(fold.StateFailure)), int64(0))
				want(t, "lost counted", count(&b.result, fold.MeasureOutcome+uint16(fold.StateLost)), int64(2))
			},
		},
		{
			sentence: "3e: a real end still replaces it",
			marks:    []fold.Mark{started("w", 0), failed("v", 20, exception("E")), succeeded("w", 30)},
			guesses:  []fold.Guess{lost("w", 0)},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(30)}},
			check: func(t *testing.T, b *brain) { want(t, "exception", b.attempts[1].Exception, "") },
		},
		{
			sentence: "in 1-3 an attempt that is revoked or lost is open: a real end replaces both",
			marks:    []fold.Mark{started("w", 0), revoked("w", 1), succeeded("w", 2), started("v", 10), failed("v", 11)},
			guesses:  []fold.Guess{lost("v", 10)},
			state:    fold.StateFailure, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(2)}, {"v", fold.StateFailure, s(10), s(11)}},
		},
	})
}

func TestRevokes(t *testing.T) {
	rules(t, []rule{
		{
			sentence: "4: revoked is a weak end of its worker's newest open attempt",
			marks:    []fold.Mark{started("w", 0), started("w", 1), started("v", 2), revoked("w", 3, terminated)},
			state:    fold.StateStarted,
			attempts: []attempt{{"w", fold.StateStarted, s(0), 0}, {"w", fold.StateRevoked, s(1), s(3)}, {"v", fold.StateStarted, s(2), 0}},
			check: func(t *testing.T, b *brain) {
				want(t, "reason", b.result.Attempts[1].Reason, fold.ReasonTerminated)
			},
		},
		{
			sentence: "4: else of the newest one without a worker",
			marks:    []fold.Mark{started("", 0), started("v", 1), revoked("w", 3)},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateRevoked, s(0), s(3)}, {"v", fold.StateStarted, s(1), 0}},
		},
		{
			sentence: "4: if it names no worker, of the newest open one",
			marks:    []fold.Mark{started("w", 0), started("v", 1), revoked("", 3)},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateStarted, s(0), 0}, {"v", fold.StateRevoked, s(1), s(3)}},
		},
		{
			sentence: "4: until a real end of that attempt is heard: revoked but ran is success",
			marks:    []fold.Mark{started("w", 0), revoked("w", 1, carries(fold.Payload{Reason: "R"})), succeeded("w", 2)},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(2)}},
			check: func(t *testing.T, b *brain) {
				want(t, "remark", remark(b, revoked("w", 1)), fold.RemarkWeak)
				want(t, "its payload waits in a side row", b.side[key(revoked("w", 1))].Reason, "R")
			},
		},
		{
			sentence: "4: a second revoked changes nothing and the first keeps its time",
			marks:    []fold.Mark{started("w", 0), revoked("", 1), revoked("w", 1.5), revoked("w", 9)},
			state:    fold.StateRevoked, attempts: []attempt{{"w", fold.StateRevoked, s(0), s(1)}},
		},
		{
			sentence: "4: a revoke of who doesn't run it changes nothing while another does",
			marks:    []fold.Mark{received("w", -1), started("w", 0), received("v", 1), revoked("v", 2)},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateStarted, s(0), 0}},
		},
		{
			sentence: "4: with no open attempt it ends a task that has none; of several the first counts",
			marks:    []fold.Mark{received("w", 0), revoked("w", 1, carries(fold.Payload{Reason: "R"}), expired), revoked("", 2)},
			state:    fold.StateRevoked,
			check: func(t *testing.T, b *brain) {
				want(t, "finished_at", b.result.Task.FinishedAt, s(1))
				want(t, "worker", b.result.Task.Worker, "")
				want(t, "reason", b.result.Task.Reason, fold.ReasonExpired)
				want(t, "remark on the first", remark(b, revoked("w", 1)), fold.Remark(0))
				want(t, "remark on the second", remark(b, revoked("", 2)), fold.RemarkWeak)
				want(t, "revoked without an attempt counted", count(&b.result, fold.MeasureRevoked), int64(1))
			},
		},
		{
			sentence: "4: or whose last attempt ended in retry",
			marks:    []fold.Mark{started("w", 0), retried("w", 1), revoked("v", 2), revoked("v", 3)},
			state:    fold.StateRevoked, attempts: []attempt{{"w", fold.StateRetry, s(0), s(1)}},
			check: func(t *testing.T, b *brain) {
				want(t, "finished_at", b.result.Task.FinishedAt, s(2))
				want(t, "started_at", b.result.Task.StartedAt, int64(0))
				want(t, "deciding", b.result.Task.Deciding, int32(0))
				want(t, "retry_count", b.result.Task.RetryCount, int32(1))
			},
		},
		{
			sentence: "4: or that was delivered again since the last attempt began",
			marks:    []fold.Mark{started("w", 0), succeeded("w", 1), received("v", 2), revoked("v", 3)},
			state:    fold.StateRevoked, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(1)}},
		},
		{
			sentence: "4: it doesn't end a task that is over",
			marks:    []fold.Mark{received("w", 0), started("w", 0), succeeded("w", 1), revoked("", 3)},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(1)}},
		},
		{
			sentence: "4: a start after it is a run",
			marks:    []fold.Mark{received("w", 0), revoked("w", 1), started("w", 2), failed("w", 3)},
			state:    fold.StateFailure, attempts: []attempt{{"w", fold.StateFailure, s(2), s(3)}},
			check: func(t *testing.T, b *brain) { want(t, "remark", remark(b, revoked("w", 1)), fold.RemarkWeak) },
		},
		{
			sentence: "4: of several the first since then counts, after each attempt anew",
			marks:    []fold.Mark{received("w", 0), revoked("w", 1), started("w", 2), retried("w", 3), revoked("w", 4), revoked("w", 5)},
			state:    fold.StateRevoked, attempts: []attempt{{"w", fold.StateRetry, s(2), s(3)}},
			check: func(t *testing.T, b *brain) { want(t, "finished_at", b.result.Task.FinishedAt, s(4)) },
		},
		{
			sentence: "4: a lost attempt is not open",
			marks:    []fold.Mark{started("w", 0), revoked("w", 5)},
			guesses:  []fold.Guess{lost("w", 0)},
			state:    fold.StateLost, attempts: []attempt{{"w", fold.StateLost, s(0), 0}},
		},
	})
}
