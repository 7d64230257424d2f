package fold_test

import (
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/fold"
)

func TestDeliveriesAndLosses(t *testing.T) {
	rules(t, []rule{
		{
			sentence: "5: received opens nothing: each is a delivery",
			marks:    []fold.Mark{received("w", 0), received("w", 1), received("", 2)},
			state:    fold.StateReceived,
			check:    func(t *testing.T, b *brain) { want(t, "deliveries", b.result.Task.Deliveries, int32(3)) },
		},
		{
			sentence: "5: a start on another worker while an attempt is open is a redelivery: each closes by its own end",
			marks:    []fold.Mark{started("w", 0), started("v", 1), failed("w", 2), succeeded("v", 3)},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateFailure, s(0), s(2)}, {"v", fold.StateSuccess, s(1), s(3)}},
		},
		{
			sentence: "6: an attempt that is lost counts as ended when it began, so that any real mark after it decides",
			marks:    []fold.Mark{started("w", 0), started("v", 1), retried("v", 2)},
			guesses:  []fold.Guess{lost("w", 0)},
			state:    fold.StateRetry, attempts: []attempt{{"w", fold.StateLost, s(0), 0}, {"v", fold.StateRetry, s(1), s(2)}},
		},
		{
			sentence: "6: the guess speaks of the start mark, also of a copy of it",
			engine:   "celery",
			marks:    []fold.Mark{started("w", 0, by(1, 1)), started("w", 5, by(2, 1)), started("w", 0.5, by(1, 1))},
			guesses:  []fold.Guess{lost("w", 5)},
			state:    fold.StateLost, attempts: []attempt{{"w", fold.StateLost, s(0), 0}},
			check: func(t *testing.T, b *brain) { want(t, "reason", b.result.Task.Reason, fold.ReasonSilent) },
		},
		{
			sentence: "6: a guess about a start that isn't known does nothing",
			marks:    []fold.Mark{started("w", 0)},
			guesses:  []fold.Guess{lost("w", 1), lost("v", 0)},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateStarted, s(0), 0}},
		},
		{
			sentence: "an attempt's retries: its own start's",
			marks:    []fold.Mark{received("w", -1, retries(7)), started("w", 0, retries(3)), succeeded("w", 1, retries(4))},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(1)}},
			check: func(t *testing.T, b *brain) { want(t, "retries", b.result.Attempts[0].Retries, int64(3)) },
		},
		{
			sentence: "or its end's",
			marks:    []fold.Mark{received("w", -1, retries(7)), started("w", 0), succeeded("w", 1, retries(4))},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(1)}},
			check: func(t *testing.T, b *brain) { want(t, "retries", b.result.Attempts[0].Retries, int64(4)) },
		},
		{
			sentence: "else that of the newest delivery before its start (same worker, or none)",
			marks:    []fold.Mark{received("w", -3, retries(5)), received("", -2, retries(6)), received("v", -1, retries(7)), started("w", 0), received("w", 1, retries(8))},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateStarted, s(0), 0}},
			check: func(t *testing.T, b *brain) { want(t, "retries", b.result.Attempts[0].Retries, int64(6)) },
		},
		{
			sentence: "retry_count of another end or of 0 says nothing of it",
			marks:    []fold.Mark{started("w", 0), failed("w", 1, retryCount(3)), started("w", 2), retried("w", 3, retryCount(0)), started("w", 4), retried("w", 5)},
			state:    fold.StateRetry,
			attempts: []attempt{{"w", fold.StateFailure, s(0), s(1)}, {"w", fold.StateRetry, s(2), s(3)}, {"w", fold.StateRetry, s(4), s(5)}},
			check: func(t *testing.T, b *brain) {
				want(t, "retries", []int64{b.result.Attempts[0].Retries, b.result.Attempts[1].Retries, b.result.Attempts[2].Retries}, []int64{-1, -1, -1})
				want(t, "retry_count", b.result.Task.RetryCount, int32(3))
			},
		},
		{
			sentence: "else retry_count less one of its retried",
			marks:    []fold.Mark{started("w", 0), retried("w", 1, retryCount(3))},
			state:    fold.StateRetry, attempts: []attempt{{"w", fold.StateRetry, s(0), s(1)}},
			check: func(t *testing.T, b *brain) { want(t, "retries", b.result.Attempts[0].Retries, int64(2)) },
		},
	})
}

func TestTheTask(t *testing.T) {
	rules(t, []rule{
		{
			sentence: "state: any open attempt that isn't lost is started; of several the highest number gives the times",
			marks:    []fold.Mark{started("w", 0), started("v", 1), started("u", 2), failed("u", 3)},
			state:    fold.StateStarted,
			attempts: []attempt{{"w", fold.StateStarted, s(0), 0}, {"v", fold.StateStarted, s(1), 0}, {"u", fold.StateFailure, s(2), s(3)}},
			check: func(t *testing.T, b *brain) {
				want(t, "worker", b.result.Task.Worker, "v")
				want(t, "started_at", b.result.Task.StartedAt, s(1))
				want(t, "finished_at", b.result.Task.FinishedAt, int64(0))
			},
		},
		{
			sentence: "else the attempt that ended last decides",
			marks:    []fold.Mark{started("w", 0), started("v", 1), failed("v", 2), succeeded("w", 3)},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(3)}, {"v", fold.StateFailure, s(1), s(2)}},
			check: func(t *testing.T, b *brain) { want(t, "deciding", b.result.Task.Deciding, int32(1)) },
		},
		{
			sentence: "by retries order where that numbers them",
			marks:    []fold.Mark{started("w", 0, retries(0)), started("v", 1, retries(1)), failed("v", 2), retried("w", 3)},
			state:    fold.StateFailure, attempts: []attempt{{"w", fold.StateRetry, s(0), s(3)}, {"v", fold.StateFailure, s(1), s(2)}},
		},
		{
			sentence: "and by time where two have the same retries",
			marks:    []fold.Mark{started("w", 0, retries(0)), started("v", 1, retries(0)), failed("v", 2), succeeded("w", 3)},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(3)}, {"v", fold.StateFailure, s(1), s(2)}},
		},
		{
			sentence: "a task-level revoke later than that is revoked",
			marks:    []fold.Mark{started("w", 0), retried("w", 1), revoked("", 2)},
			state:    fold.StateRevoked, attempts: []attempt{{"w", fold.StateRetry, s(0), s(1)}},
		},
		{
			sentence: "no attempt is received",
			marks:    []fold.Mark{mark(fold.Sent, "", s(0)), received("w", 1)},
			state:    fold.StateReceived,
		},
		{
			sentence: "or pending",
			marks:    []fold.Mark{mark(fold.Sent, "", s(0), eta(s(60)))},
			state:    fold.StatePending,
			check: func(t *testing.T, b *brain) {
				want(t, "without any received, sent is the delivery", b.result.Task.ReceivedAt, s(0))
				want(t, "eta", b.result.Task.ETA, s(60))
				want(t, "deliveries are received", b.result.Task.Deliveries, int32(0))
			},
		},
		{
			sentence: "result, exception and the rest come from the attempt that decides: no success with an exception",
			marks:    []fold.Mark{started("w", 0), failed("w", 1, exception("E"), runtime(sec)), started("v", 2), succeeded("v", 3, result("1"))},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateFailure, s(0), s(1)}, {"v", fold.StateSuccess, s(2), s(3)}},
			check: func(t *testing.T, b *brain) {
				want(t, "payload", b.attempts[b.result.Task.Deciding], fold.Payload{Result: []byte("1")})
				want(t, "worker", b.result.Task.Worker, "v")
				want(t, "run time", b.result.Task.RuntimeUS, sec)
			},
		},
		{
			sentence: "a run begins with each attempt that starts after all earlier ones ended in success, failure, rejected or revoked",
			marks: []fold.Mark{
				received("w", 0), started("w", 1), failed("w", 2), received("w", 3), received("w", 4), started("w", 5), retried("w", 6),
				received("w", 6.5), started("w", 7), succeeded("w", 8),
			},
			state:    fold.StateSuccess,
			attempts: []attempt{{"w", fold.StateFailure, s(1), s(2)}, {"w", fold.StateRetry, s(5), s(6)}, {"w", fold.StateSuccess, s(7), s(8)}},
			check: func(t *testing.T, b *brain) {
				want(t, "received_at is the first delivery of the current run", b.result.Task.ReceivedAt, s(3))
				want(t, "no new place in the lists", b.result.Task.RerunAt, int64(0))
			},
		},
		{
			sentence: "received_at is null if no delivery of the current run was heard",
			marks:    []fold.Mark{received("w", 0), started("w", 1), succeeded("w", 2), started("w", 5)},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateSuccess, s(1), s(2)}, {"w", fold.StateStarted, s(5), 0}},
			check: func(t *testing.T, b *brain) { want(t, "received_at", b.result.Task.ReceivedAt, int64(0)) },
		},
		{
			sentence: "the row's place changes only when a re-run begins more than an hour after the last end",
			marks:    []fold.Mark{started("w", 0), succeeded("w", 1), started("w", 3602), failed("w", 3603), started("w", 7203), failed("w", 7204)},
			state:    fold.StateFailure,
			attempts: []attempt{{"w", fold.StateSuccess, s(0), s(1)}, {"w", fold.StateFailure, s(3602), s(3603)}, {"w", fold.StateFailure, s(7203), s(7204)}},
			check:    func(t *testing.T, b *brain) { want(t, "rerun", b.result.Task.RerunAt, s(3602)) },
		},
		{
			sentence: "the wait is the start less the first delivery since the attempt before it began",
			marks:    []fold.Mark{received("w", 0), received("w", 1), started("w", 4), received("v", 5), retried("w", 6), received("v", 7), started("v", 9)},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateRetry, s(4), s(6)}, {"v", fold.StateStarted, s(9), 0}},
			check: func(t *testing.T, b *brain) {
				want(t, "wait of attempt 1", b.result.Attempts[0].WaitUS, 4*sec)
				want(t, "wait of attempt 2", b.result.Attempts[1].WaitUS, 4*sec)
			},
		},
		{
			sentence: "or that delivery's eta if later; unknown when there is none",
			marks:    []fold.Mark{received("w", 0, eta(s(3))), started("w", 4), failed("w", 5), started("w", 6)},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateFailure, s(4), s(5)}, {"w", fold.StateStarted, s(6), 0}},
			check: func(t *testing.T, b *brain) {
				want(t, "wait of attempt 1", b.result.Attempts[0].WaitUS, sec)
				want(t, "wait of attempt 2", b.result.Attempts[1].WaitUS, int64(-1))
			},
		},
		{
			sentence: "retry_count looks back to the last success, rejection or revocation",
			marks: []fold.Mark{
				started("w", 0), retried("w", 1, retryCount(9)), started("w", 2), succeeded("w", 3), started("w", 4), failed("w", 5),
				started("w", 6), started("v", 7), retried("v", 8),
			},
			guesses: []fold.Guess{lost("w", 6)},
			state:   fold.StateRetry,
			attempts: []attempt{
				{"w", fold.StateRetry, s(0), s(1)},
				{"w", fold.StateSuccess, s(2), s(3)},
				{"w", fold.StateFailure, s(4), s(5)},
				{"w", fold.StateLost, s(6), 0},
				{"v", fold.StateRetry, s(7), s(8)},
			},
			check: func(t *testing.T, b *brain) {
				want(t, "retry_count: a failure and a loss with a later one, and the retry itself", b.result.Task.RetryCount, int32(3))
			},
		},
		{
			sentence: "a greater number sent in that stretch wins",
			marks: []fold.Mark{
				received("v", -1, retries(9)), started("w", 0), succeeded("w", 1), received("w", 2, retries(4)), started("w", 3), retried("w", 4, retryCount(2)),
			},
			state: fold.StateRetry, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(1)}, {"w", fold.StateRetry, s(3), s(4)}},
			check: func(t *testing.T, b *brain) { want(t, "retry_count", b.result.Task.RetryCount, int32(4)) },
		},
		{
			sentence: "a failure without a later attempt is no retry",
			marks:    []fold.Mark{started("w", 0), failed("w", 1)},
			state:    fold.StateFailure, attempts: []attempt{{"w", fold.StateFailure, s(0), s(1)}},
			check: func(t *testing.T, b *brain) { want(t, "retry_count", b.result.Task.RetryCount, int32(0)) },
		},
		{
			sentence: "rejected is final: no retry and a new run after it",
			marks:    []fold.Mark{rejected("w", 0), received("w", 1), started("w", 2), failed("w", 3)},
			state:    fold.StateFailure, attempts: []attempt{{"w", fold.StateRejected, 0, s(0)}, {"w", fold.StateFailure, s(2), s(3)}},
			check: func(t *testing.T, b *brain) {
				want(t, "retry_count", b.result.Task.RetryCount, int32(0))
				want(t, "received_at", b.result.Task.ReceivedAt, s(1))
			},
		},
	})
}

func TestFields(t *testing.T) {
	long := strings.Repeat("ä", 200)
	rules(t, []rule{
		{
			sentence: "newest non-empty by at from received and sent",
			marks: []fold.Mark{
				mark(fold.Sent, "", s(0), about(fold.Fields{Name: "old", Queue: "q0", Priority: "low", Args: []byte("[0]")})),
				received("w", 1, about(fold.Fields{Name: "new", Queue: "", Args: []byte("null")})),
				started("w", 2, about(fold.Fields{Name: "from the start", Queue: "q2", Kwargs: []byte("{}")})),
			},
			state: fold.StateStarted, attempts: []attempt{{"w", fold.StateStarted, s(2), 0}},
			check: func(t *testing.T, b *brain) {
				want(t, "fields", b.fields, map[fold.FieldSet]string{
					fold.FieldName: "new", fold.FieldQueue: "q0", fold.FieldPriority: "low", fold.FieldArgs: "[0]", fold.FieldKwargs: "{}",
				})
			},
		},
		{
			sentence: "then kind rank, worker; else from any mark",
			marks: []fold.Mark{
				started("a", 0, named("started a")), started("b", 0, named("started b")), failed("a", 0, about(fold.Fields{Queue: "failed a"})),
				started("c", 0, about(fold.Fields{Queue: "started c"})),
			},
			state:    fold.StateStarted,
			attempts: []attempt{{"a", fold.StateFailure, s(0), s(0)}, {"b", fold.StateStarted, s(0), 0}, {"c", fold.StateStarted, s(0), 0}},
			check: func(t *testing.T, b *brain) {
				want(t, "fields", b.fields, map[fold.FieldSet]string{fold.FieldName: "started b", fold.FieldQueue: "failed a"})
			},
		},
		{
			sentence: "a parent or root is taken only if it is at most 200 characters, has no NUL and (parent) is not its own, decided before the newest is chosen",
			marks: []fold.Mark{
				received("w", 0, about(fold.Fields{Parent: long, Root: "x"})), received("w", 1, about(fold.Fields{Parent: long + "a", Root: long + "a"})),
				received("w", 2, about(fold.Fields{Parent: "a\x00b", Root: "a\x00b"})), received("w", 3, about(fold.Fields{Parent: "x"})),
			},
			state: fold.StateReceived,
			check: func(t *testing.T, b *brain) {
				want(t, "fields", b.fields, map[fold.FieldSet]string{fold.FieldParent: long, fold.FieldRoot: "x"})
			},
		},
		{
			sentence: "a name that begins with <unknown never replaces a name and is never listed",
			marks:    []fold.Mark{started("w", 0, named("real")), received("w", 1, named("<unknown:x>")), succeeded("w", 2, named("<unknown>"))},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(2)}},
			check: func(t *testing.T, b *brain) { want(t, "name", b.fields[fold.FieldName], "real") },
		},
		{
			sentence: "an empty list is a value, null is not",
			marks:    []fold.Mark{received("w", 0, about(fold.Fields{Args: []byte("[]"), Kwargs: []byte("null"), Tags: []byte(`["a"]`)}))},
			state:    fold.StateReceived,
			check: func(t *testing.T, b *brain) {
				want(t, "fields", b.fields, map[fold.FieldSet]string{fold.FieldArgs: "[]", fold.FieldTags: `["a"]`})
			},
		},
		{
			sentence: "a mark without a time describes nothing that one with a time does",
			marks: []fold.Mark{
				received("w", 0, named("timed")), mark(fold.Received, "w", s(9), timeless(1), named("timeless")), mark(fold.Received, "w", s(99), timeless(1), named("timeless")),
			},
			state: fold.StateReceived,
			check: func(t *testing.T, b *brain) { want(t, "name", b.fields[fold.FieldName], "timed") },
		},
	})
}

func TestReadings(t *testing.T) {
	rules(t, []rule{
		{
			sentence: "where the worker is unknown the clock is its sender's",
			marks: []fold.Mark{
				received("", 3600, by(1, 1), heard(s(0))), received("", 3605, by(1, 1), heard(s(400))), received("", 10, by(2, 1)), started("w", 20), succeeded("w", 21),
			},
			state: fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(20), s(21)}},
			check: func(t *testing.T, b *brain) {
				want(t, "order times of the deliveries", b.result.Deliveries, []int64{s(0), s(5), s(10)})
				want(t, "received_at, as sent", b.result.Task.ReceivedAt, s(3600))
				want(t, "wait, by order times", b.result.Task.WaitUS, 20*sec)
			},
		},
		{
			sentence: "what several senders stamped has the earliest of their times, and all their fields",
			engine:   "celery",
			marks: []fold.Mark{
				started("w", 30, by(1, 1)), started("w", 0, by(2, 1)), started("", 0, by(3, 1), heard(s(-1))), received("w", -9, retries(3)), received("", -9, eta(s(-8)), retries(2)), succeeded("w", 40, by(1, 1)), succeeded("w", 10, by(2, 1), runtime(9*sec)),
			},
			state: fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(10)}},
			check: func(t *testing.T, b *brain) {
				want(t, "retries", b.result.Attempts[0].Retries, int64(3))
				want(t, "run time", b.result.Task.RuntimeUS, 9*sec)
				want(t, "copies", len(b.result.Notes), 4)
				want(t, "wait from the eta of one of the two receipts", b.result.Task.WaitUS, 8*sec)
			},
		},
		{
			sentence: "a copy of an unknown sender does not stand between two stamps",
			engine:   "celery",
			marks:    []fold.Mark{started("w", 0, by(1, 1)), started("", 0), started("w", 5, by(2, 1)), started("", 5)},
			state:    fold.StateStarted, attempts: []attempt{{"w", fold.StateStarted, s(0), 0}},
		},
		{
			sentence: "unknown workers and senders are not taken for stamps on one event",
			engine:   "celery",
			marks:    []fold.Mark{started("", 0, by(1, 1)), started("", 5, by(2, 1)), started("w", 10), started("w", 15, by(2, 1)), started("w", 20)},
			state:    fold.StateStarted,
			attempts: []attempt{
				{"", fold.StateStarted, s(0), 0},
				{"", fold.StateStarted, s(5), 0},
				{"w", fold.StateStarted, s(10), 0},
				{"w", fold.StateStarted, s(15), 0},
				{"w", fold.StateStarted, s(20), 0},
			},
		},
		{
			sentence: "a copy of hearsay is a copy; another kind of end is hearsay of its own",
			marks:    []fold.Mark{started("w", 0), succeeded("w", 1), failed("v", 10), failed("v", 10.5), rejected("v", 10.6)},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(1)}},
			check: func(t *testing.T, b *brain) {
				want(t, "remarks", []fold.Remark{remark(b, failed("v", 10)), remark(b, failed("v", 10.5)), remark(b, rejected("v", 10.6))},
					[]fold.Remark{fold.RemarkHearsay, fold.RemarkCopy, fold.RemarkHearsay})
			},
		},
		{
			sentence: "hearsay has no reason of a loss",
			marks:    []fold.Mark{started("w", 0), failed("v", 20)},
			guesses:  []fold.Guess{lost("w", 0)},
			state:    fold.StateFailure, attempts: []attempt{{"w", fold.StateFailure, s(0), s(20)}},
			check: func(t *testing.T, b *brain) {
				want(t, "the task's reason", b.result.Task.Reason, fold.NoReason)
				want(t, "run time", b.result.Task.RuntimeUS, int64(-1))
				want(t, "without a seen end", b.result.Task.Lost, int32(1))
			},
		},
		{
			sentence: "the retries of a delivery are not those of an attempt whose start was lost",
			marks:    []fold.Mark{received("w", 0, retries(1)), retried("w", 1)},
			state:    fold.StateRetry, attempts: []attempt{{"w", fold.StateRetry, 0, s(1)}},
			check: func(t *testing.T, b *brain) { want(t, "retries", b.result.Attempts[0].Retries, int64(-1)) },
		},
		{
			sentence: "of two guesses about one attempt the first counts",
			engine:   "celery",
			marks:    []fold.Mark{started("w", 0), started("w", 0.5)},
			guesses: []fold.Guess{
				{Start: key(started("w", 0)), Reason: fold.ReasonSilent, At: s(9)},
				{Start: key(started("w", 0)), Reason: fold.ReasonStopped, At: s(8)},
				{Start: key(started("w", 0.5)), Reason: fold.ReasonLaterWon, At: s(7)},
			},
			state: fold.StateLost, attempts: []attempt{{"w", fold.StateLost, s(0), 0}},
			check: func(t *testing.T, b *brain) { want(t, "reason", b.result.Task.Reason, fold.ReasonStopped) },
		},
		{
			sentence: "also where they speak of two stamps on one start",
			engine:   "celery",
			marks:    []fold.Mark{started("w", 0, by(1, 1)), started("w", 5, by(2, 1)), started("w", 9, by(3, 1))},
			guesses: []fold.Guess{
				{Start: key(started("w", 0)), Reason: fold.ReasonStopped, At: s(17)},
				{Start: key(started("w", 5)), Reason: fold.ReasonSilent, At: s(19)},
				{Start: key(started("w", 9)), Reason: fold.ReasonSilent, At: s(18)},
			},
			state: fold.StateLost, attempts: []attempt{{"w", fold.StateLost, s(0), 0}},
			check: func(t *testing.T, b *brain) { want(t, "reason", b.result.Task.Reason, fold.ReasonStopped) },
		},
		{
			sentence: "last and first order times are those of the marks",
			marks:    []fold.Mark{mark(fold.Sent, "", s(-3)), started("w", 0), succeeded("w", 1), failed("v", 50)},
			state:    fold.StateSuccess, attempts: []attempt{{"w", fold.StateSuccess, s(0), s(1)}},
			check: func(t *testing.T, b *brain) {
				want(t, "first, last and end", []int64{b.result.Task.FirstAt, b.result.Task.LastAt, b.result.Task.EndAt}, []int64{s(-3), s(50), s(1)})
			},
		},
	})
}

func TestLessonL16OrderWithinASecondAndLateReceipts(t *testing.T) {
	b := anyOrder(t, "celery", "x", []fold.Mark{
		started("w", 0.1), retried("w", 0.2), started("w", 0.300001), succeeded("w", 0.300002),
		received("", 0.05, heard(s(500)), about(fold.Fields{Name: "late", Args: []byte("[1]")})), received("", 0.25, heard(s(500)), named("late")),
	})
	want(t, "attempts", attempts(&b.result), []attempt{{"w", fold.StateRetry, s(0.1), s(0.2)}, {"w", fold.StateSuccess, s(0.300001), s(0.300002)}})
	want(t, "the late receipt is merged", b.result.Task.ReceivedAt, s(0.05))
	want(t, "and described", b.fields, map[fold.FieldSet]string{fold.FieldName: "late", fold.FieldArgs: "[1]"})
}

func TestLessonF7NineAgentsHearOneBroadcast(t *testing.T) {
	var marks []fold.Mark
	for i := range 9 {
		apart := float64(i) * 0.004
		agent := by(uint64(i+1), s(-3600))
		marks = append(marks, started("celery@n1", 1+apart, agent), failed("celery@n1", 3+apart, agent, exception("E")))
	}
	b := anyOrder(t, "celery", "x", marks)
	want(t, "attempts", attempts(&b.result), []attempt{{"celery@n1", fold.StateFailure, s(1), s(3)}})
	want(t, "failures counted", count(&b.result, fold.MeasureOutcome+uint16(fold.StateFailure)), int64(1))
	want(t, "copies", len(b.result.Notes), 16)
}

func TestLessonF8ASuccessFromTheFutureFreezesNothing(t *testing.T) {
	year := 365 * 24 * 3600.0
	b := anyOrder(t, "celery", "x", []fold.Mark{
		started("fast", year, heard(s(0))), succeeded("fast", year+1, heard(s(1))),
		received("w", 10), started("w", 11), failed("w", 12, exception("E")),
	})
	want(t, "state", b.result.Task.State, fold.StateFailure)
	want(t, "run time of the first", b.result.Attempts[0].RuntimeUS, sec)
	want(t, "order time of the first mark", b.result.Task.FirstAt, s(0))
}

func TestProposeByTheProcessThatReportedACopyOfTheStart(t *testing.T) {
	var h fold.History
	if _, err := h.Decode("celery", "x", nil); err != nil {
		t.Fatal(err)
	}
	for _, m := range []fold.Mark{started("w", 0, by(1, 1)), started("w", 0.2, by(2, 1)), started("w", 0.4, by(1, 1)), started("v", 0.1, by(3, 1))} {
		h.Add(&m)
	}
	for sender, lost := range map[uint64]bool{1: true, 2: true, 3: false, 4: false} {
		guesses := fold.Propose(&h, nil, &fold.Knowledge{Now: s(9), Signs: []fold.Sign{{Worker: "w", At: s(5), Sender: sender}}})
		if (len(guesses) == 1) != lost {
			t.Errorf("goodbye of process %d: got %v, want a guess: %v", sender, guesses, lost)
		}
	}
}

func TestPropose(t *testing.T) {
	for _, tt := range []struct {
		name  string
		marks []fold.Mark
		k     fold.Knowledge
		want  fold.Reason
	}{
		{"nothing known", []fold.Mark{started("w", 0)}, fold.Knowledge{Now: s(9999)}, fold.NoReason},
		{"goodbye of its process, late news too", []fold.Mark{started("w", 0, by(1, 1))}, fold.Knowledge{Now: s(1), Signs: []fold.Sign{{Worker: "w", At: s(0.5), Sender: 1}}}, fold.ReasonStopped},
		{"goodbye before it began", []fold.Mark{started("w", 1, by(1, 1))}, fold.Knowledge{Now: s(9), Signs: []fold.Sign{{Worker: "w", At: s(0.5), Sender: 1}}}, fold.NoReason},
		{"goodbye of another process of that name", []fold.Mark{started("w", 0, by(1, 1))}, fold.Knowledge{Now: s(9), Signs: []fold.Sign{{Worker: "w", At: s(1), Sender: 2}}}, fold.NoReason},
		{"goodbye of a process that is not known", []fold.Mark{started("w", 0)}, fold.Knowledge{Now: s(9), Signs: []fold.Sign{{Worker: "w", At: s(1)}}}, fold.NoReason},
		{"goodbye of another worker heard by its process", []fold.Mark{started("w", 0, by(1, 1))}, fold.Knowledge{Now: s(9), Signs: []fold.Sign{{Worker: "v", At: s(1), Sender: 1}}}, fold.NoReason},
		{"its worker started anew", []fold.Mark{started("w", 0)}, fold.Knowledge{Now: s(2), Signs: []fold.Sign{{Worker: "w", At: s(1), Anew: true}}}, fold.ReasonRestarted},
		{"silent for long", []fold.Mark{started("w", 0)}, fold.Knowledge{Now: s(120), Silent: []string{"w"}}, fold.ReasonSilent},
		{"silent, but its newest mark is fresh", []fold.Mark{started("w", 0), received("v", 1)}, fold.Knowledge{Now: s(120), Silent: []string{"w"}}, fold.NoReason},
		{"another is silent", []fold.Mark{started("w", 0)}, fold.Knowledge{Now: s(120), Silent: []string{"v"}}, fold.NoReason},
		{"the engine does not run it", []fold.Mark{started("w", 0)}, fold.Knowledge{Now: s(120), NotRunning: true}, fold.ReasonNotRunning},
		{"a later attempt on the same worker ended", []fold.Mark{started("w", 0), started("w", 1), failed("w", 2)}, fold.Knowledge{Now: s(122)}, fold.ReasonLaterEnded},
		{"a later attempt on another worker failed", []fold.Mark{started("w", 0), started("v", 1), failed("v", 2)}, fold.Knowledge{Now: s(122)}, fold.NoReason},
		{"a later one anywhere succeeded", []fold.Mark{started("w", 0), started("v", 1), succeeded("v", 2)}, fold.Knowledge{Now: s(122)}, fold.ReasonLaterWon},
		{"too early for that", []fold.Mark{started("w", 0), started("v", 1), succeeded("v", 2)}, fold.Knowledge{Now: s(121)}, fold.NoReason},
		{"an earlier attempt on the same worker ended", []fold.Mark{started("w", 5), started("w", 1), failed("w", 2)}, fold.Knowledge{Now: s(999)}, fold.NoReason},
		{"an earlier one succeeded", []fold.Mark{started("w", 5), started("v", 1), succeeded("v", 2)}, fold.Knowledge{Now: s(999)}, fold.NoReason},
		{"a later one was revoked", []fold.Mark{started("w", 0), received("v", 1), started("v", 2), revoked("v", 3)}, fold.Knowledge{Now: s(999)}, fold.NoReason},
		{"it has ended", []fold.Mark{started("w", 0), succeeded("w", 1)}, fold.Knowledge{Now: s(999), Silent: []string{"w"}, NotRunning: true}, fold.NoReason},
	} {
		var h fold.History
		for i := range tt.marks {
			h.Add(&tt.marks[i])
		}
		guesses := fold.Propose(&h, nil, &tt.k)
		if tt.want == fold.NoReason {
			want(t, tt.name, guesses, []fold.Guess(nil))
			continue
		}
		want(t, tt.name, guesses, []fold.Guess{{Start: key(tt.marks[0]), Reason: tt.want, At: tt.k.Now}})
		r := fold.Fold(&h, guesses)
		want(t, tt.name+": the attempt", r.Attempts[0].State, fold.StateLost)
		want(t, tt.name+": asked again", fold.Propose(&h, guesses, &tt.k), guesses)
	}
}
