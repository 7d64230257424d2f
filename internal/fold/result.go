package fold

import (
	"cmp"
	"math"
	"slices"
)

// hour is how much later than the last end a re-run begins that gives the task a new place in the lists.
const hour = 3600 * second

// Fold folds a history. It is a pure function: it keeps nothing of its arguments, and changes nothing but memory that h
// uses again.
func Fold(h *History, guesses []Guess) Result {
	var r Result
	FoldInto(&r, h, guesses)
	return r
}

// FoldInto is Fold into a result whose slices are used again.
func FoldInto(r *Result, h *History, guesses []Guess) {
	f := &h.work
	f.h, f.received = h, false
	f.owner, f.next, f.steps, f.runs = f.owner[:0], f.next[:0], f.steps[:0], f.runs[:0]
	f.join()
	f.arrange()
	f.guess(guesses)
	f.walk()
	r.Task = Task{RuntimeUS: -1, WaitUS: -1}
	r.Attempts, r.Notes, r.Deliveries = r.Attempts[:0], r.Notes[:0], r.Deliveries[:0]
	r.Revoke, r.RevokedAt, r.RevokePayload = MarkKey{}, 0, false
	if len(f.steps) == 0 {
		return
	}
	byRetries := f.attempts(r, guesses)
	f.task(r, byRetries)
	f.notes(r)
}

// guess gives each start the guess that speaks of it.
func (f *folder) guess(guesses []Guess) {
	for g := range guesses {
		for i := range f.h.marks {
			m := &f.h.marks[i]
			if m.kind != Started || m.key() != guesses[g].Start {
				continue
			}
			s := &f.steps[f.owner[i]]
			if s.guess < 0 || guesses[g].before(&guesses[s.guess]) {
				s.guess = int32(g)
			}
		}
	}
}

func (g *Guess) before(o *Guess) bool {
	return cmp.Or(cmp.Compare(g.At, o.At), cmp.Compare(g.Reason, o.Reason)) < 0
}

// attempts makes the attempts of the runs and numbers them.
func (f *folder) attempts(r *Result, guesses []Guess) (byRetries bool) {
	before := int32(-1) // the step at which the run before began
	for i := range f.runs {
		one := &f.runs[i]
		f.findRetries(one)
		one.wait = f.wait(one, before)
		before = one.pos
		if one.revoke >= 0 && one.end >= 0 {
			overruled := &f.steps[one.revoke]
			overruled.remark, overruled.copyOf = RemarkWeak, one.end
		}
	}
	byRetries = f.number()
	for i := range f.runs {
		var refs []PayloadRef
		if len(r.Attempts) < cap(r.Attempts) {
			refs = r.Attempts[:i+1][i].Payloads[:0]
		}
		r.Attempts = append(r.Attempts, f.attempt(&f.runs[i], guesses, refs))
		r.Attempts[i].Number = int32(i) + 1
	}
	return byRetries
}

// findRetries finds the retries of a run whose own marks lack it: that of the newest delivery before its start on its
// worker or on an unknown one, else the retry_count of its retried less one.
func (f *folder) findRetries(one *run) {
	for k := one.start - 1; k >= 0 && one.retries < 0; k-- {
		if s := &f.steps[k]; f.delivers(s) && (s.worker == one.worker || s.worker == "") {
			one.retries = s.retries
			break
		}
	}
	if one.retries < 0 && one.outcome == StateRetry && one.retryCount > 0 {
		one.retries = one.retryCount - 1
	}
}

// wait returns how long the run's delivery waited for its start: the first one since the run before it began, which the
// step before did, or that delivery's eta if it is later. Waits are told on the one line of order times, by which also a
// retry on a slow clock is one that came first.
func (f *folder) wait(one *run, before int32) int64 {
	if one.start < 0 {
		return -1
	}
	d := f.delivery(before, one.start)
	if d < 0 {
		return -1
	}
	start, s := &f.steps[one.start], &f.steps[d]
	wait := start.order - s.order
	if s.eta > s.at {
		wait -= s.eta - s.at // the eta is told by the delivery's clock
	}
	return max(wait, -1)
}

// delivery returns the first delivery between two steps, or -1.
func (f *folder) delivery(after, before int32) int32 {
	for k := after + 1; k < before; k++ {
		if f.delivers(&f.steps[k]) {
			return k
		}
	}
	return -1
}

// number puts the runs in the order of their numbers: by retries if every run has one and all differ, else as they began.
func (f *folder) number() (byRetries bool) {
	byOrder := func(a, b run) int { return cmp.Compare(a.retries, b.retries) }
	sorted := true
	for i := range f.runs {
		if f.runs[i].retries < 0 {
			return false
		}
		sorted = sorted && (i == 0 || f.runs[i-1].retries < f.runs[i].retries)
	}
	if sorted {
		return true
	}
	runs := slices.Clone(f.runs)
	slices.SortStableFunc(runs, byOrder)
	for i := 1; i < len(runs); i++ {
		if runs[i-1].retries == runs[i].retries {
			return false
		}
	}
	copy(f.runs, runs)
	return true
}

// attempt tells what a run amounts to.
func (f *folder) attempt(one *run, guesses []Guess, refs []PayloadRef) Attempt {
	a := Attempt{
		State: one.state(), Worker: one.shown, Retries: one.retries, WaitUS: one.wait, RuntimeUS: -1, BeganAt: f.steps[one.pos].order,
	}
	if one.start >= 0 {
		start := &f.steps[one.start]
		a.StartedAt, a.Start = start.at, f.key(start)
	}
	end := one.end
	switch {
	case one.end >= 0:
		a.RuntimeUS = one.runtime
		a.WillRetry = a.State == StateFailure && f.steps[end].flags&flagWillRetry != 0
	case one.revoke >= 0:
		end = one.revoke
		a.Reason = f.steps[end].reason()
	case one.lost():
		end = one.hearsay
		a.Hearsay = end >= 0
		a.EndAt = a.BeganAt
		a.Reason = ReasonBeyondBound
		if one.guess >= 0 {
			a.Reason = guesses[one.guess].Reason
		}
	}
	if end < 0 {
		return a
	}
	s := &f.steps[end]
	a.FinishedAt, a.End = s.at, f.key(s)
	if !a.Hearsay {
		a.EndAt = s.order
		if a.RuntimeUS < 0 && one.start >= 0 {
			a.RuntimeUS = max(s.at-a.StartedAt, -1)
		}
	}
	if refs = f.payloads(refs, one, end); len(refs) > 0 {
		a.Payloads = refs
	}
	return a
}

func (s *step) reason() Reason {
	switch {
	case s.flags&flagExpired != 0:
		return ReasonExpired
	case s.flags&flagTerminated != 0:
		return ReasonTerminated
	default:
		return ReasonRevoked
	}
}

func (f *folder) key(s *step) MarkKey { return f.h.marks[s.head].key() }

// payloads appends the marks that carry the payload of the run which step end ended: those that are one with it, then
// those of each copy.
func (f *folder) payloads(refs []PayloadRef, one *run, end int32) []PayloadRef {
	refs = f.carriers(refs, &f.steps[end])
	if !one.copies || end != one.end {
		return refs
	}
	for k := end + 1; int(k) < len(f.steps); k++ {
		s := &f.steps[k]
		if s.remark != RemarkCopy || s.copyOf != end {
			continue
		}
		first := len(refs)
		refs = f.carriers(refs, s)
		if first < len(refs) {
			refs[first].Fill = first > 0
		}
	}
	return refs
}

func (f *folder) carriers(refs []PayloadRef, s *step) []PayloadRef {
	for i := s.head; i >= 0; i = f.next[i] {
		if m := &f.h.marks[i]; m.flags&flagPayload != 0 {
			refs = append(refs, PayloadRef{Mark: m.key()})
		}
	}
	return refs
}

// task tells what the attempts and the steps without one amount to.
func (f *folder) task(r *Result, byRetries bool) {
	t := &r.Task
	t.Truncated = f.h.Truncated()
	t.FirstAt, t.LastAt = f.steps[0].order, f.steps[len(f.steps)-1].order
	t.Attempts = int32(len(f.runs))
	for i := range f.runs {
		if f.runs[i].lost() {
			t.Lost++
		}
	}
	for k := range f.steps {
		if f.steps[k].kind == Received {
			r.Deliveries = append(r.Deliveries, f.steps[k].order)
		}
	}
	t.Deliveries = int32(len(r.Deliveries))
	if f.delivered >= 0 {
		t.ETA = f.steps[f.delivered].eta
	}
	decides, open := f.decides(byRetries)
	ended := int32(-1)
	if decides >= 0 && !open {
		ended = f.runs[decides].endPos()
	}
	t.RetryCount = f.retryCount(r, decides)
	f.current(r)
	switch {
	case !open && f.revoked > ended:
		s := &f.steps[f.revoked]
		s.remark = 0
		t.State, t.FinishedAt, t.EndAt, t.Reason = StateRevoked, s.at, s.order, s.reason()
		r.Revoke, r.RevokedAt, r.RevokePayload = f.key(s), s.order, f.h.marks[s.head].flags&flagPayload != 0
	case decides >= 0:
		a := &r.Attempts[decides]
		t.State, t.Worker, t.Deciding = a.State, a.Worker, a.Number
		if !a.Hearsay {
			t.Reason = a.Reason
		}
		t.StartedAt, t.FinishedAt, t.EndAt, t.RuntimeUS, t.WaitUS = a.StartedAt, a.FinishedAt, a.EndAt, a.RuntimeUS, a.WaitUS
	case f.received:
		t.State = StateReceived
	default:
		t.State = StatePending
	}
}

// decides returns the index of the run that decides, and whether it is open: of open ones that of the highest number, else
// the one that ended last. It is -1 without any.
func (f *folder) decides(byRetries bool) (i int, open bool) {
	for i := len(f.runs) - 1; i >= 0; i-- {
		if f.runs[i].state() == StateStarted {
			return i, true
		}
	}
	if byRetries {
		return len(f.runs) - 1, false
	}
	last, _ := f.lastEnded()
	return int(last), false
}

// retryCount looks back from the run that decides to the last success, rejection or revocation before it, and counts the
// runs that ended in retry, or in failure or lost with a later one; a greater number that was sent in that stretch wins.
func (f *folder) retryCount(r *Result, decides int) int32 {
	count, sent := int64(0), int64(0)
	after, before := int32(-1), int32(len(f.steps)) // the stretch's deliveries
	if decides >= 0 {
		before = f.runs[decides].pos
		if f.runs[decides].endPos() >= 0 && f.revoked > f.runs[decides].endPos() {
			before = f.revoked
		}
	}
	for i := decides; i >= 0; i-- {
		one := &f.runs[i]
		state := r.Attempts[i].State
		if i < decides && (state == StateSuccess || state == StateRejected || state == StateRevoked) {
			after = one.pos
			break
		}
		if state == StateRetry || i < decides && (state == StateFailure || state == StateLost) {
			count++
		}
		sent = max(sent, one.retries, one.retryCount)
	}
	for k := after + 1; k < before; k++ {
		if s := &f.steps[k]; f.delivers(s) {
			sent = max(sent, s.retries, s.retryCount)
		}
	}
	return int32(max(count, sent))
}

// current finds the current run of the task: it began with the first attempt, or with one that started after all earlier
// ones had ended and the one that ended last had ended for good.
func (f *folder) current(r *Result) {
	t := &r.Task
	after := int32(-1)
	ended, last, open := int64(math.MinInt64), StateUnknown, false
	for i := range r.Attempts {
		a := &r.Attempts[i]
		if i > 0 && !open && ended <= a.BeganAt && last.Final() {
			after = f.runs[i-1].pos
			if a.BeganAt-ended > hour {
				t.RerunAt = a.BeganAt
			}
		}
		if a.State == StateStarted {
			open = true
		} else if a.EndAt >= ended {
			ended, last = a.EndAt, a.State
		}
	}
	if d := f.delivery(after, int32(len(f.steps))); d >= 0 {
		t.ReceivedAt = f.steps[d].at
	}
}

// notes remarks on the marks that have no effect of their own.
func (f *folder) notes(r *Result) {
	for i := range f.h.marks {
		m := &f.h.marks[i]
		s := &f.steps[f.owner[i]]
		note := Note{Mark: m.key(), Remark: s.remark, Payload: m.flags&flagPayload != 0}
		switch {
		case s.head != int32(i):
			note.Remark, note.Of = RemarkCopy, f.key(s)
		case s.remark == 0:
			continue
		case s.copyOf >= 0:
			note.Of = f.key(&f.steps[s.copyOf])
		}
		r.Notes = append(r.Notes, note)
	}
}

// SidePayloads appends the marks whose payloads have to stand in side rows: those that are in no attempt's row, and those
// that share one with others, so that they can be taken apart again when a mark is heard late. The payload of any other
// mark is that of the one attempt whose Payloads name it.
func (r *Result) SidePayloads(dst []MarkKey) []MarkKey {
	if r.RevokePayload {
		dst = append(dst, r.Revoke)
	}
	for i := range r.Notes {
		if r.Notes[i].Payload {
			dst = append(dst, r.Notes[i].Mark)
		}
	}
	for i := range r.Attempts {
		refs := r.Attempts[i].Payloads
		for j := range refs {
			if len(refs) > 1 && !slices.Contains(dst, refs[j].Mark) {
				dst = append(dst, refs[j].Mark)
			}
		}
	}
	return dst
}

// SamePayload reports whether the attempt of that number has its payload of the same marks in both results, so that its
// row's stays right unless Added.Payload said that one of them changed.
func SamePayload(before, after *Result, number int32) bool {
	n := int(number) - 1
	return n >= 0 && n < len(before.Attempts) && n < len(after.Attempts) && slices.Equal(before.Attempts[n].Payloads, after.Attempts[n].Payloads)
}

// PayloadOf returns the number of the attempt whose payload the mark is part of, 0 for none.
func (r *Result) PayloadOf(k MarkKey) int32 {
	for i := range r.Attempts {
		for j := range r.Attempts[i].Payloads {
			if r.Attempts[i].Payloads[j].Mark == k {
				return r.Attempts[i].Number
			}
		}
	}
	return 0
}

// DiffAttempts returns the numbers of after's attempts that before lacks or has otherwise, and of before's that are gone.
// An attempt of whose marks a payload changed is to be written too: PayloadOf names it.
func DiffAttempts(before, after *Result) (upsert, remove []int32) {
	for i := range after.Attempts {
		if i >= len(before.Attempts) || !before.Attempts[i].equal(&after.Attempts[i]) {
			upsert = append(upsert, after.Attempts[i].Number)
		}
	}
	for i := len(after.Attempts); i < len(before.Attempts); i++ {
		remove = append(remove, before.Attempts[i].Number)
	}
	return upsert, remove
}

func (a *Attempt) equal(b *Attempt) bool {
	return a.Number == b.Number && a.State == b.State && a.Worker == b.Worker && a.StartedAt == b.StartedAt && a.FinishedAt == b.FinishedAt &&
		a.RuntimeUS == b.RuntimeUS && a.WaitUS == b.WaitUS && a.Retries == b.Retries && a.Reason == b.Reason && a.WillRetry == b.WillRetry &&
		a.Hearsay == b.Hearsay && a.Start == b.Start && a.End == b.End && a.BeganAt == b.BeganAt && a.EndAt == b.EndAt &&
		slices.Equal(a.Payloads, b.Payloads)
}
