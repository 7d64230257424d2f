package fold_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/z4j-go/z4j/internal/fold"
)

// attempt is what the tables say of an attempt.
type attempt struct {
	Worker            string
	State             fold.State
	Started, Finished int64
}

func attempts(r *fold.Result) []attempt {
	var all []attempt
	for i := range r.Attempts {
		a := &r.Attempts[i]
		all = append(all, attempt{a.Worker, a.State, a.StartedAt, a.FinishedAt})
	}
	return all
}

func want(t testing.TB, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s: got %v, want %v:\n%s", what, got, want, diff)
	}
}

// count adds up a measure over all buckets.
func count(r *fold.Result, measure uint16) (n int64) {
	for _, c := range fold.Contributions(nil, r, "", "") {
		if c.Measure == measure {
			n += c.Count
		}
	}
	return n
}

func TestF01RedeliveryWhileWaitingIsOneTaskWithItsFirstReceipt(t *testing.T) {
	f := about(fold.Fields{Name: "pub.export", Queue: "slow", Args: []byte("[7]"), Kwargs: []byte("{}")})
	b := anyOrder(t, "celery", "a1", []fold.Mark{
		mark(fold.Received, "celery@n1", at(t, "8:00:00"), f),
		mark(fold.Received, "celery@n2", at(t, "9:00:00"), f),
		mark(fold.Received, "celery@n1", at(t, "10:00:00"), f),
		mark(fold.Started, "celery@n2", at(t, "10:05:00")),
		mark(fold.Started, "celery@n1", at(t, "10:06:00")),
		mark(fold.Succeeded, "celery@n2", at(t, "10:45:00"), result(`"ok"`)),
		mark(fold.Succeeded, "celery@n1", at(t, "10:47:00"), result(`"ok"`)),
	})
	r := &b.result
	want(t, "state", r.Task.State, fold.StateSuccess)
	want(t, "received_at", r.Task.ReceivedAt, at(t, "8:00:00"))
	want(t, "deliveries", r.Task.Deliveries, int32(3))
	want(t, "attempts", attempts(r), []attempt{
		{"celery@n2", fold.StateSuccess, at(t, "10:05:00"), at(t, "10:45:00")},
		{"celery@n1", fold.StateSuccess, at(t, "10:06:00"), at(t, "10:47:00")},
	})
	want(t, "wait of attempt 1", r.Attempts[0].WaitUS, 125*60*sec)
	want(t, "wait of attempt 2", r.Attempts[1].WaitUS, int64(-1))
	want(t, "tasks counted", count(r, fold.MeasureTask+uint16(fold.StateSuccess)), int64(1))
	want(t, "deliveries counted", count(r, fold.MeasureDeliveries), int64(3))
	want(t, "retry_count", r.Task.RetryCount, int32(0))
}

func TestF03OnlyTheEndWasHeard(t *testing.T) {
	end := mark(fold.Succeeded, "celery@n1", at(t, "8:10:00"), result("3"), runtime(250*ms))
	b := anyOrder(t, "celery", "a3", []fold.Mark{end})
	want(t, "state before", b.result.Task.State, fold.StateSuccess)
	want(t, "fields before", b.fields, map[fold.FieldSet]string{})
	want(t, "attempts before", attempts(&b.result), []attempt{{"celery@n1", fold.StateSuccess, 0, at(t, "8:10:00")}})
	want(t, "run time", b.result.Attempts[0].RuntimeUS, 250*ms)
	want(t, "result", string(b.attempts[1].Result), "3")
	b = anyOrder(t, "celery", "a3", []fold.Mark{end, mark(fold.Received, "celery@n1", at(t, "8:09:59"),
		about(fold.Fields{Name: "calc.add", Queue: "math", Args: []byte("[1,2]"), Kwargs: []byte("{}")}))})
	want(t, "fields after", b.fields, map[fold.FieldSet]string{fold.FieldName: "calc.add", fold.FieldQueue: "math", fold.FieldArgs: "[1,2]", fold.FieldKwargs: "{}"})
	want(t, "state after", b.result.Task.State, fold.StateSuccess)
	want(t, "received_at", b.result.Task.ReceivedAt, at(t, "8:09:59"))
	want(t, "finished_at", b.result.Task.FinishedAt, at(t, "8:10:00"))
	want(t, "started_at", b.result.Task.StartedAt, int64(0))
}

func TestF05ACleanUpDoesNotUndoASuccess(t *testing.T) {
	b := anyOrder(t, "rq", "a5", []fold.Mark{
		mark(fold.Started, "w-1", at(t, "8:00:00"), named("up.store")),
		mark(fold.Succeeded, "w-1", at(t, "8:00:04"), result(`"stored"`)),
		mark(fold.Failed, "w-6", at(t, "8:05:10"), exception("AbandonedJobError: moved by registry clean-up")),
	})
	r := &b.result
	want(t, "state", r.Task.State, fold.StateSuccess)
	want(t, "finished_at", r.Task.FinishedAt, at(t, "8:00:04"))
	want(t, "attempts", len(r.Attempts), 1)
	want(t, "result", string(b.attempts[1].Result), `"stored"`)
	want(t, "exception", b.attempts[1].Exception, "")
	want(t, "notes", r.Notes, []fold.Note{{Mark: fold.MarkKey{Kind: fold.Failed, At: at(t, "8:05:10"), Worker: "w-6"}, Remark: fold.RemarkHearsay, Payload: true}})
	want(t, "failures counted", count(r, fold.MeasureOutcome+uint16(fold.StateFailure)), int64(0))
	want(t, "side rows", len(b.side), 1)
}

func TestF09RetriesTravelInTheNextReceipt(t *testing.T) {
	f := about(fold.Fields{Name: "pay.poll", Queue: "pay"})
	timeout := carries(fold.Payload{Reason: "Timeout()"})
	b := anyOrder(t, "celery", "a9", []fold.Mark{
		mark(fold.Sent, "", at(t, "8:00:00"), retries(0), f),
		mark(fold.Received, "celery@p1", at(t, "8:00:00.1"), retries(0), f),
		mark(fold.Started, "celery@p1", at(t, "8:00:00.2")),
		mark(fold.Retried, "celery@p1", at(t, "8:00:01"), timeout),
		mark(fold.Received, "celery@p2", at(t, "8:00:01.1"), retries(1), eta(at(t, "8:00:31")), f),
		mark(fold.Started, "celery@p2", at(t, "8:00:31")),
		mark(fold.Retried, "celery@p2", at(t, "8:00:32"), timeout),
		mark(fold.Received, "celery@p1", at(t, "8:00:32.1"), retries(2), eta(at(t, "8:01:32")), f),
		mark(fold.Started, "celery@p1", at(t, "8:01:32")),
		mark(fold.Succeeded, "celery@p1", at(t, "8:01:33")),
	})
	r := &b.result
	want(t, "state", r.Task.State, fold.StateSuccess)
	want(t, "retry_count", r.Task.RetryCount, int32(2))
	want(t, "attempts", attempts(r), []attempt{
		{"celery@p1", fold.StateRetry, at(t, "8:00:00.2"), at(t, "8:00:01")},
		{"celery@p2", fold.StateRetry, at(t, "8:00:31"), at(t, "8:00:32")},
		{"celery@p1", fold.StateSuccess, at(t, "8:01:32"), at(t, "8:01:33")},
	})
	want(t, "reason of attempt 2", b.attempts[2].Reason, "Timeout()")
	want(t, "wait of attempt 2, from its eta", r.Attempts[1].WaitUS, int64(0))
	want(t, "retries counted", count(r, fold.MeasureOutcome+uint16(fold.StateRetry)), int64(2))
	want(t, "tasks counted", count(r, fold.MeasureTask+uint16(fold.StateSuccess)), int64(1))
}

func TestF15HardLimitReportedByTheParent(t *testing.T) {
	soft := anyOrder(t, "celery", "s15", []fold.Mark{
		mark(fold.Started, "celery@n1", at(t, "8:00:00"), named("job.soft")),
		mark(fold.Succeeded, "celery@n1", at(t, "8:01:02"), result(`"partial"`)),
	})
	want(t, "s15", soft.result.Task.State, fold.StateSuccess)
	hard := anyOrder(t, "celery", "h15", []fold.Mark{
		mark(fold.Started, "celery@n1", at(t, "8:00:00"), named("job.hard")),
		mark(fold.Failed, "", at(t, "8:02:00"), named("<unknown:job.hard>"), exception("TimeLimitExceeded(120,)")),
	})
	want(t, "h15", attempts(&hard.result), []attempt{{"celery@n1", fold.StateFailure, at(t, "8:00:00"), at(t, "8:02:00")}})
	want(t, "name", hard.fields[fold.FieldName], "job.hard")
	want(t, "exception", hard.attempts[1].Exception, "TimeLimitExceeded(120,)")
	want(t, "run time", hard.result.Task.RuntimeUS, 120*sec)
}

func TestF32RunAgainByHandWithAnotherError(t *testing.T) {
	day := 24 * 3600 * sec
	marks := []fold.Mark{
		mark(fold.Started, "w1", at(t, "8:00:00")-day, named("sync")),
		mark(fold.Failed, "w1", at(t, "8:00:05")-day, carries(fold.Payload{Exception: "ConnectionRefused: db1", Traceback: "tb-one"})),
		mark(fold.Received, "w2", at(t, "9:00:00"), about(fold.Fields{Name: "sync", Queue: "default"})),
		mark(fold.Started, "w2", at(t, "9:00:01")),
	}
	b := anyOrder(t, "rq", "m32", marks)
	want(t, "question 1: state", b.result.Task.State, fold.StateStarted)
	want(t, "question 1: started_at", b.result.Task.StartedAt, at(t, "9:00:01"))
	want(t, "question 1: finished_at", b.result.Task.FinishedAt, int64(0))
	want(t, "question 1: exception of the attempt that decides", b.attempts[b.result.Task.Deciding].Exception, "")
	want(t, "a re-run more than an hour later", b.result.Task.RerunAt, at(t, "9:00:01"))
	b = anyOrder(t, "rq", "m32", append(marks, mark(fold.Failed, "w2", at(t, "9:00:02"), exception("KeyError: 'sku'"))))
	r := &b.result
	want(t, "question 2: state", r.Task.State, fold.StateFailure)
	want(t, "question 2: exception", b.attempts[r.Task.Deciding], fold.Payload{Exception: "KeyError: 'sku'"})
	want(t, "question 2: exception of attempt 1", b.attempts[1].Traceback, "tb-one")
	want(t, "question 2: run time", r.Task.RuntimeUS, sec)
	want(t, "question 2: wait", r.Task.WaitUS, sec)
	want(t, "question 2: received_at", r.Task.ReceivedAt, at(t, "9:00:00"))
	want(t, "question 2: attempts", attempts(r), []attempt{
		{"w1", fold.StateFailure, at(t, "8:00:00") - day, at(t, "8:00:05") - day},
		{"w2", fold.StateFailure, at(t, "9:00:01"), at(t, "9:00:02")},
	})
	want(t, "failures counted", count(r, fold.MeasureOutcome+uint16(fold.StateFailure)), int64(2))
}

func TestF34CrashLoop(t *testing.T) {
	var marks []fold.Mark
	var guesses []fold.Guess
	for i := range int64(6) {
		m := mark(fold.Started, "d-"+string(rune('1'+i)), t0+20*sec*i, named("render"))
		marks = append(marks, m)
		if i < 5 {
			guesses = append(guesses, fold.Guess{Start: m.Key(), Reason: fold.ReasonSilent, At: t0 + 300*sec})
		}
	}
	b := anyOrder(t, "dramatiq", "boom", marks, guesses...)
	r := &b.result
	want(t, "state", r.Task.State, fold.StateStarted)
	want(t, "started_at", r.Task.StartedAt, t0+100*sec)
	want(t, "attempts", r.Task.Attempts, int32(6))
	want(t, "without an end", r.Task.Lost, int32(5))
	want(t, "retry_count", r.Task.RetryCount, int32(5))
	b = anyOrder(t, "dramatiq", "boom", marks, append(guesses, fold.Guess{Start: marks[5].Key(), Reason: fold.ReasonSilent, At: t0 + 7200*sec})...)
	want(t, "later", b.result.Task.State, fold.StateLost)
	want(t, "later: reason", b.result.Task.Reason, fold.ReasonSilent)
}

func TestF36AWorkerStopsInOrder(t *testing.T) {
	b := anyOrder(t, "arq", "c36", []fold.Mark{
		mark(fold.Started, "arq-old", t0),
		mark(fold.Retried, "arq-old", t0+10*sec, retryCount(1), carries(fold.Payload{Reason: "CancelledError"})),
		mark(fold.Started, "arq-new", t0+30*sec),
		mark(fold.Succeeded, "arq-new", t0+60*sec),
	})
	want(t, "c36", attempts(&b.result), []attempt{{"arq-old", fold.StateRetry, t0, t0 + 10*sec}, {"arq-new", fold.StateSuccess, t0 + 30*sec, t0 + 60*sec}})
	want(t, "c36 state", b.result.Task.State, fold.StateSuccess)

	start := mark(fold.Started, "hw-old", t0, by(7, t0-sec))
	var h fold.History
	if _, err := h.Decode("huey", "i36", nil); err != nil {
		t.Fatal(err)
	}
	h.Add(&start)
	guesses := fold.Propose(&h, nil, &fold.Knowledge{Now: t0 + 12*sec, Signs: []fold.Sign{{Worker: "hw-old", At: t0 + 11*sec, Sender: 7}}})
	want(t, "i36 guesses", guesses, []fold.Guess{{Start: start.Key(), Reason: fold.ReasonStopped, At: t0 + 12*sec}})
	b = anyOrder(t, "huey", "i36", []fold.Mark{start}, guesses...)
	want(t, "i36", b.result.Task.State, fold.StateLost)
	want(t, "i36 reason", b.result.Task.Reason.String(), "worker stopped")
	b = anyOrder(t, "huey", "i36", []fold.Mark{start, mark(fold.Started, "hw-new", t0+40*sec)}, guesses...)
	want(t, "i36 started again", b.result.Task.Deciding, int32(2))
	want(t, "i36 started again", b.result.Task.State, fold.StateStarted)
}

func TestF37ClocksApart(t *testing.T) {
	slow := []fold.Mark{
		mark(fold.Started, "celery@w-ok", at(t, "8:00:00"), named("sync")),
		mark(fold.Retried, "celery@w-ok", at(t, "8:00:02"), retryCount(1)),
		mark(fold.Received, "celery@w-late", at(t, "7:00:03"), retries(1), heard(at(t, "8:00:03"))),
		mark(fold.Started, "celery@w-late", at(t, "7:00:05"), heard(at(t, "8:00:05"))),
	}
	b := anyOrder(t, "celery", "s37", slow)
	want(t, "question 1", b.result.Task.State, fold.StateStarted)
	want(t, "question 1: attempt", b.result.Task.Deciding, int32(2))
	want(t, "question 1: worker", b.result.Task.Worker, "celery@w-late")
	b = anyOrder(t, "celery", "s37", append(slow, mark(fold.Succeeded, "celery@w-late", at(t, "7:00:09"), heard(at(t, "8:00:09")), result("1"))))
	r := &b.result
	want(t, "question 2", r.Task.State, fold.StateSuccess)
	want(t, "question 2: attempts", attempts(r), []attempt{
		{"celery@w-ok", fold.StateRetry, at(t, "8:00:00"), at(t, "8:00:02")},
		{"celery@w-late", fold.StateSuccess, at(t, "7:00:05"), at(t, "7:00:09")},
	})
	want(t, "question 2: run time", r.Task.RuntimeUS, 4*sec)
	want(t, "question 2: retry_count", r.Task.RetryCount, int32(1))
	for i := range r.Attempts {
		if a := &r.Attempts[i]; a.WaitUS < -1 || a.RuntimeUS < -1 || a.WaitUS > 10*sec {
			t.Errorf("attempt %d: got wait %d and run time %d µs, want plausible or unknown ones", a.Number, a.WaitUS, a.RuntimeUS)
		}
	}
	fast := []fold.Mark{
		mark(fold.Started, "celery@w-fast", at(t, "9:00:00"), heard(at(t, "8:00:00"))),
		mark(fold.Failed, "celery@w-fast", at(t, "9:00:04"), heard(at(t, "8:00:04")), exception("E")),
		mark(fold.Started, "celery@w-fast", at(t, "9:00:00"), heard(at(t, "8:01:00"))),
		mark(fold.Failed, "celery@w-fast", at(t, "9:00:04"), heard(at(t, "8:01:04")), exception("E")),
	}
	b = anyOrder(t, "celery", "f37", fast)
	want(t, "f37", attempts(&b.result), []attempt{{"celery@w-fast", fold.StateFailure, at(t, "9:00:00"), at(t, "9:00:04")}})
	want(t, "f37: run time", b.result.Task.RuntimeUS, 4*sec)
	want(t, "f37: not in the future", b.result.Task.EndAt, at(t, "8:00:04"))
	want(t, "f37: failures counted", count(&b.result, fold.MeasureOutcome+uint16(fold.StateFailure)), int64(1))
	for _, c := range fold.Contributions(nil, &b.result, "", "") {
		if c.Bucket != at(t, "8:00:00") {
			t.Errorf("f37: got a bucket at %d, want all at %d", c.Bucket, at(t, "8:00:00"))
		}
	}
}

func TestF43RunTimesThatAreNone(t *testing.T) {
	for _, tt := range []struct {
		name    string
		runtime fold.Number
		want    int64
	}{
		{"negative is unknown", fold.Num(-5 * ms), -1},
		{"no number is unknown", fold.Number{}, -1},
		{"0.4 ms is one", fold.Num(400), 400},
		{"none at all is one", fold.Num(0), 0},
		{"ten years is one", fold.Num(3652 * 24 * 3600 * sec), 3652 * 24 * 3600 * sec},
		{"more than ten years is unknown", fold.Num(3653 * 24 * 3600 * sec), -1},
	} {
		b := anyOrder(t, "celery", "n43", []fold.Mark{mark(fold.Succeeded, "celery@n1", t0, func(m *fold.Mark) { m.RuntimeUS = tt.runtime })})
		want(t, tt.name, b.result.Task.State, fold.StateSuccess)
		want(t, tt.name, b.result.Task.RuntimeUS, tt.want)
		runs := int64(0)
		for slot := range fold.Slots {
			runs += count(&b.result, fold.MeasureRun+uint16(slot))
		}
		want(t, tt.name+", counted", runs == 1, tt.want >= 0)
	}
}

func TestF45ARetryWithANewID(t *testing.T) {
	b := anyOrder(t, "taskiq", "n1", []fold.Mark{
		mark(fold.Started, "tq-1", t0, named("pull")),
		mark(fold.Failed, "tq-1", t0+sec, exception("Timeout"), func(m *fold.Mark) { m.WillRetry = true }),
	})
	want(t, "n1", b.result.Task.State, fold.StateFailure)
	want(t, "n1 will be retried", b.result.Attempts[0].WillRetry, true)
	b = anyOrder(t, "taskiq", "n2", []fold.Mark{
		mark(fold.Received, "tq-1", t0+6*sec, about(fold.Fields{Name: "pull", Parent: "n1", Root: "n1"}), retries(1)),
		mark(fold.Started, "tq-1", t0+6*sec),
		mark(fold.Succeeded, "tq-1", t0+7*sec),
	})
	want(t, "n2", b.result.Task.State, fold.StateSuccess)
	want(t, "n2: retry_count", b.result.Task.RetryCount, int32(1))
	want(t, "n2: retries of its attempt", b.result.Attempts[0].Retries, int64(1))
	want(t, "n2: parent and root", b.fields[fold.FieldParent]+b.fields[fold.FieldRoot], "n1n1")
}

func TestF56Expiry(t *testing.T) {
	revoke := mark(fold.Revoked, "celery@c1", at(t, "8:00:15"), expired)
	b := anyOrder(t, "celery", "x1", []fold.Mark{revoke})
	want(t, "x1 at once", b.result.Task.State, fold.StateRevoked)
	want(t, "x1 reason", b.result.Task.Reason.String(), "expired")
	b = anyOrder(t, "celery", "x1", []fold.Mark{revoke, mark(fold.Sent, "", at(t, "8:00:00"), about(fold.Fields{Name: "tick", Queue: "cron"}), heard(at(t, "9:00:00")))})
	r := &b.result
	want(t, "x1 later", r.Task.State, fold.StateRevoked)
	want(t, "x1 finished", r.Task.FinishedAt, at(t, "8:00:15"))
	want(t, "x1 attempts", len(r.Attempts), 0)
	want(t, "x1 name", b.fields[fold.FieldName], "tick")
	want(t, "x1 expired counted", count(r, fold.MeasureExpired), int64(1))
	want(t, "x1 failures counted", count(r, fold.MeasureOutcome+uint16(fold.StateFailure)), int64(0))
	b = anyOrder(t, "celery", "x2", []fold.Mark{
		mark(fold.Received, "celery@c1", at(t, "8:00:19"), about(fold.Fields{Name: "tick", Queue: "cron"})),
		mark(fold.Started, "celery@c1", at(t, "8:00:26")),
		mark(fold.Succeeded, "celery@c1", at(t, "8:00:27"), result("null")),
	})
	want(t, "x2", b.result.Task.State, fold.StateSuccess)
	want(t, "x2: null is a result", string(b.attempts[1].Result), "null")
}

func TestF57NumbersAreOfRows(t *testing.T) {
	states := map[fold.State]int{}
	all := 0
	for id, marks := range map[string][]fold.Mark{
		"m1": {mark(fold.Succeeded, "celery@n1", t0)},
		"m2": {mark(fold.Started, "celery@n1", t0+sec), mark(fold.Revoked, "celery@n1", t0+2*sec, terminated)},
		"m3": {mark(fold.Started, "celery@n1", t0+3*sec), mark(fold.Retried, "celery@n1", t0+4*sec, retryCount(1))},
		"m4": {
			mark(fold.Started, "celery@n1", t0+5*sec), mark(fold.Started, "celery@n1", t0+5*sec, heard(t0+90*sec)),
			mark(fold.Failed, "celery@n1", t0+9*sec, exception("E")), mark(fold.Failed, "celery@n1", t0+9*sec, exception("E")),
		},
	} {
		b := anyOrder(t, "celery", id, marks)
		states[b.result.Task.State]++
		all += len(b.result.Attempts)
		want(t, id+" counts once", count(&b.result, fold.MeasureTask+uint16(b.result.Task.State)), int64(1))
	}
	want(t, "states", states, map[fold.State]int{fold.StateSuccess: 1, fold.StateRevoked: 1, fold.StateRetry: 1, fold.StateFailure: 1})
	want(t, "attempts", all, 4)
}

func TestF61AChordWithoutItsBody(t *testing.T) {
	link := func(name string) func(*fold.Mark) {
		return about(fold.Fields{Name: name, Parent: "root", Root: "root"})
	}
	body := anyOrder(t, "celery", "body", []fold.Mark{mark(fold.Sent, "", t0, link("wf.end"))})
	want(t, "body", body.result.Task.State, fold.StatePending)
	want(t, "body: parent", body.fields[fold.FieldParent], "root")
	p3 := anyOrder(t, "celery", "p3", []fold.Mark{mark(fold.Revoked, "celery@n1", t0+3*sec, link(""))})
	want(t, "p3", p3.result.Task.State, fold.StateRevoked)
	root := anyOrder(t, "celery", "root", []fold.Mark{mark(fold.Succeeded, "celery@n1", t0, link("wf.begin"))})
	want(t, "root is not its own parent", root.fields, map[fold.FieldSet]string{fold.FieldName: "wf.begin", fold.FieldRoot: "root"})
}

func TestF24TheBufferComesTwice(t *testing.T) {
	start := mark(fold.Started, "celery@w2", t0, named("long.one"))
	end := mark(fold.Succeeded, "celery@w2", t0+30*sec, heard(t0+60*sec), result(`"done"`))
	again := mark(fold.Succeeded, "celery@w2", t0+30*sec, heard(t0+61*sec), result(`"done"`))
	b := anyOrder(t, "celery", "k1", []fold.Mark{start, end, again})
	want(t, "k1", attempts(&b.result), []attempt{{"celery@w2", fold.StateSuccess, t0, t0 + 30*sec}})
	want(t, "events", len(b.events), 2)
}

func TestF67CancelledTooLate(t *testing.T) {
	b := anyOrder(t, "celery", "c67", []fold.Mark{
		mark(fold.Started, "celery@n1", t0), mark(fold.Succeeded, "celery@n1", t0+1001*ms, result("1")),
		mark(fold.Revoked, "", t0+1200*ms, terminated), mark(fold.Revoked, "celery@n1", t0+1201*ms, terminated),
	})
	want(t, "state", b.result.Task.State, fold.StateSuccess)
	want(t, "attempts", attempts(&b.result), []attempt{{"celery@n1", fold.StateSuccess, t0, t0 + 1001*ms}})
}
