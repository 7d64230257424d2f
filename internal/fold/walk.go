package fold

import "slices"

// run is an attempt in the making.
type run struct {
	start   int32 // steps; -1 for none
	end     int32 // its real end
	revoke  int32 // its weak end
	hearsay int32
	pos     int32 // the step that made it
	guess   int32 // index of the guess that it is lost, or -1
	copies  bool  // some steps are copies of its end
	early   bool  // its start came before the gap: no end after the gap is its own
	gone    bool  // and the gap came before its end: it is lost
	outcome State // of its real end

	worker     string // its start's, by which its end is found
	shown      string // the same, else what another of its marks knows
	retries    int64
	retryCount int64
	runtime    int64 // as sent
	wait       int64
}

func (r *run) ended() bool { return r.end >= 0 }
func (r *run) lost() bool  { return r.end < 0 && r.revoke < 0 && (r.guess >= 0 || r.gone) }

// reaches reports whether the run may go on to the step: a gap may hold its end.
func (r *run) reaches(s *step) bool { return !r.early || !s.late }

// idle reports whether nothing is known to run: it ended, was revoked or is lost.
func (r *run) idle() bool { return r.end >= 0 || r.revoke >= 0 || r.guess >= 0 || r.gone }

// walk takes the steps in their order and makes the runs.
func (f *folder) walk() {
	f.delivered, f.revoked = -1, -1
	for k := range f.steps {
		f.received = f.received || f.steps[k].kind == Received
	}
	gap := false
	for k := range f.steps {
		i := int32(k)
		if f.steps[k].late && !gap {
			gap = true
			f.loseEarly()
		}
		switch kind := f.steps[k].kind; {
		case kind <= Received:
			if f.delivers(&f.steps[k]) {
				f.delivered = i
			}
		case kind == Started:
			f.start(i)
		case kind == Revoked:
			f.revoke(i)
		default:
			f.end(i)
		}
	}
	f.loseEarly()
}

// loseEarly loses the runs from before the gap that are open: their ends may be among the marks that were dropped.
func (f *folder) loseEarly() {
	for i := range f.runs {
		f.runs[i].gone = f.runs[i].early
	}
}

// delivers reports whether the step is a delivery: received, and sent where no received was heard at all.
func (f *folder) delivers(s *step) bool {
	return s.kind == Received || s.kind == Sent && !f.received
}

// start opens a run (rule 1), or makes the step a copy of an open one's start.
func (f *folder) start(k int32) {
	s := &f.steps[k]
	if of := f.startedJustNow(s); of >= 0 {
		r := &f.runs[of]
		f.copyTo(k, r.start)
		if r.guess < 0 {
			r.guess = s.guess
		}
		return
	}
	f.runs = append(f.runs, run{
		start: k, end: -1, revoke: -1, hearsay: -1, pos: k, guess: s.guess, early: f.h.dropped && !s.late,
		worker: s.worker, shown: s.worker, retries: s.retries, retryCount: s.retryCount, runtime: -1,
	})
	s.run = int32(len(f.runs) - 1)
}

// startedJustNow returns the open run whose start the step is a copy of, or -1.
func (f *folder) startedJustNow(s *step) int32 {
	if !f.h.celery {
		return -1
	}
	for i := len(f.runs) - 1; i >= 0; i-- {
		r := &f.runs[i]
		if s.order-f.steps[r.pos].order > second {
			break // and so are all before
		}
		if !r.ended() && r.worker == s.worker {
			return int32(i)
		}
	}
	return -1
}

// copyTo makes step k a copy of step of: it has no effect but to fill what its run lacks.
func (f *folder) copyTo(k, of int32) {
	s, first := &f.steps[k], &f.steps[of]
	s.remark, s.copyOf, s.run = RemarkCopy, of, first.run
	if s.run < 0 {
		return // a copy of hearsay
	}
	f.fill(&f.runs[s.run], s)
	if s.kind != Started {
		f.runs[s.run].copies = true
	}
}

// fill gives the run what it lacks and the step knows.
func (f *folder) fill(r *run, s *step) {
	if r.shown == "" {
		r.shown = s.worker
	}
	if r.retries < 0 {
		r.retries = s.retries
	}
	if r.runtime < 0 {
		r.runtime = s.runtime
	}
	r.retryCount = max(r.retryCount, s.retryCount)
}

// end finds the run that the step ends (rules 2 and 3).
func (f *folder) end(k int32) {
	s := &f.steps[k]
	i := f.open(k, s.worker)
	if i < 0 && s.worker != "" {
		i = f.open(k, "")
	}
	startLost := i >= 0 && f.foreign(&f.runs[i], s)
	if i >= 0 && !startLost {
		f.close(i, k)
		return
	}
	if f.repeats(k) || s.kind == Retried && f.retries(k) { // 3a, 3b
		return
	}
	if s.worker == "" && !startLost { // 3c
		if i := f.newest(func(r *run) bool { return !r.ended() && r.reaches(s) }); i >= 0 {
			f.close(i, k)
			return
		}
	}
	if startLost || f.standsAlone(s) { // 3d
		f.runs = append(f.runs, f.alone(k))
		f.close(int32(len(f.runs)-1), k)
		return
	}
	s.remark = RemarkHearsay // 3e
	if i := f.newest(func(r *run) bool { return r.lost() && r.hearsay < 0 && r.reaches(s) }); i >= 0 {
		f.runs[i].hearsay = k
	}
}

// open returns the open run of a worker that step k can end, or -1: the one whose start is nearest to the end less its run
// time where that was sent, else the newest.
func (f *folder) open(k int32, worker string) int32 {
	s := &f.steps[k]
	best, distance := int32(-1), int64(0)
	for i := len(f.runs) - 1; i >= 0; i-- {
		r := &f.runs[i]
		if r.ended() || r.worker != worker || !r.reaches(s) {
			continue
		}
		if s.runtime < 0 {
			return int32(i)
		}
		away := s.at - s.runtime - f.steps[r.start].at
		if away < 0 {
			away = -away
		}
		if best < 0 || away < distance {
			best, distance = int32(i), away
		}
	}
	return best
}

// foreign reports whether the end cannot be the run's own: by its run time it began over a minute later, and a delivery
// came in between.
func (f *folder) foreign(r *run, s *step) bool {
	return s.runtime >= 0 && s.at-s.runtime-f.steps[r.start].at > minute && f.delivered > r.pos
}

func (f *folder) close(i, k int32) {
	r, s := &f.runs[i], &f.steps[k]
	r.end, r.outcome = k, s.kind.outcome()
	s.run = i
	f.fill(r, s)
}

// alone is a run whose start was not heard.
func (f *folder) alone(k int32) run {
	return run{start: -1, end: -1, revoke: -1, hearsay: -1, pos: k, guess: -1, retries: -1, retryCount: -1, runtime: -1}
}

// repeats makes the step a copy if the same end was heard within a second before it.
func (f *folder) repeats(k int32) bool {
	s := &f.steps[k]
	for j := k - 1; j >= 0 && s.order-f.steps[j].order <= second; j-- {
		first := &f.steps[j]
		if first.kind == s.kind && first.remark != RemarkCopy && sameOrUnknown(first.worker, s.worker) {
			f.copyTo(k, j)
			return true
		}
	}
	return false
}

// retries makes the retried k one end with the failure within a second before it, if no start lies between.
func (f *folder) retries(k int32) bool {
	s := &f.steps[k]
	for j := k - 1; j >= 0 && s.order-f.steps[j].order <= second; j-- {
		first := &f.steps[j]
		if first.kind == Started && first.remark != RemarkCopy {
			return false
		}
		if first.kind != Failed || first.remark == RemarkCopy || !sameOrUnknown(first.worker, s.worker) {
			continue
		}
		if first.remark == RemarkHearsay {
			// Who retries has run it: what looked like hearsay is the end of a run whose start was lost.
			for i := range f.runs {
				if f.runs[i].hearsay == j {
					f.runs[i].hearsay = -1
				}
			}
			first.remark = 0
			f.close(f.insert(j), j)
		}
		f.runs[first.run].outcome = StateRetry
		f.copyTo(k, j)
		return true
	}
	return false
}

// insert makes a run without a start of the earlier step j, in its place among the runs, and returns its index.
func (f *folder) insert(j int32) int32 {
	i := int32(len(f.runs))
	for i > 0 && f.runs[i-1].pos > j {
		i--
	}
	f.runs = slices.Insert(f.runs, int(i), f.alone(j))
	for k := range f.steps {
		if f.steps[k].run >= i {
			f.steps[k].run++
		}
	}
	return i
}

func sameOrUnknown(a, b string) bool { return a == b || a == "" || b == "" }

// standsAlone reports whether the end makes a run without a start (rule 3d).
func (f *folder) standsAlone(s *step) bool {
	if len(f.runs) == 0 || s.kind == Succeeded || s.kind == Retried {
		return true
	}
	return f.lastOutcome() == StateRetry || f.deliveredAgain()
}

// deliveredAgain reports whether a delivery came after the run that began last began.
func (f *folder) deliveredAgain() bool { return f.delivered > f.lastBegan() }

// lastBegan returns the step at which the run that began last began, -1 for none. The runs are in that order.
func (f *folder) lastBegan() int32 {
	if len(f.runs) == 0 {
		return -1
	}
	return f.runs[len(f.runs)-1].pos
}

// lastEnded returns the run that ended last and the step at which it did; -1 for none.
func (f *folder) lastEnded() (last, pos int32) {
	last, pos = -1, -1
	for i := range f.runs {
		if at := f.runs[i].endPos(); at >= 0 && at >= pos {
			last, pos = int32(i), at
		}
	}
	return last, pos
}

// endPos is the step at which the run ended, -1 for an open one. A lost run counts as ended when it began.
func (r *run) endPos() int32 {
	switch {
	case r.end >= 0:
		return r.end
	case r.revoke >= 0:
		return r.revoke
	case r.lost():
		return r.pos
	default:
		return -1
	}
}

func (f *folder) lastOutcome() State {
	last, _ := f.lastEnded()
	if last < 0 {
		return StateUnknown
	}
	return f.runs[last].state()
}

// state is the attempt's.
func (r *run) state() State {
	switch {
	case r.end >= 0:
		return r.outcome
	case r.revoke >= 0:
		return StateRevoked
	case r.lost() && r.hearsay >= 0:
		return StateFailure
	case r.lost():
		return StateLost
	default:
		return StateStarted
	}
}

// newest returns the run that began last of those that are so, or -1.
func (f *folder) newest(so func(*run) bool) int32 {
	for i := len(f.runs) - 1; i >= 0; i-- {
		if so(&f.runs[i]) {
			return int32(i)
		}
	}
	return -1
}

// revoke makes the step the weak end of a run, or of the task without one (rule 4).
func (f *folder) revoke(k int32) {
	s := &f.steps[k]
	s.remark = RemarkWeak // until it is known to have an effect
	i := f.newest(func(r *run) bool { return !r.idle() && (s.worker == "" || r.worker == s.worker) })
	if i < 0 && s.worker != "" {
		i = f.newest(func(r *run) bool { return !r.idle() && r.worker == "" })
	}
	if i >= 0 {
		s.remark, s.run = 0, i
		f.runs[i].revoke = k
		if f.runs[i].shown == "" {
			f.runs[i].shown = s.worker
		}
		return
	}
	if f.newest(func(r *run) bool { return !r.idle() }) >= 0 {
		return // of somebody who does not run it, while another does
	}
	if len(f.runs) > 0 && f.lastOutcome() != StateRetry && !f.deliveredAgain() {
		return
	}
	_, ended := f.lastEnded()
	if f.revoked > max(ended, f.lastBegan()) {
		return // not the first since then
	}
	f.revoked = k
}
