package fold

import "slices"

// graceful is how long after a task's newest mark the slower guesses wait: news of it may be on the way.
const graceful = 2 * minute

// Knowledge is what the brain knows beside a task's marks, for Propose. All of it is optional.
type Knowledge struct {
	Now   int64
	Signs []Sign
	// Silent lists workers that are silent beyond their limit.
	Silent []string
	// NotRunning says that the engine was asked and does not run the task.
	NotRunning bool
}

// Sign is news of a worker.
type Sign struct {
	Worker string
	At     int64  // when it was so, by the source's clock
	Anew   bool   // it started anew, and not beside another of its name; else it said goodbye
	Sender uint64 // the ID of the process that said goodbye: it speaks of what it reported itself
}

// Propose returns the guesses of have and those that follow for a task's open attempts from what is known. It is a pure
// function; the caller stores what it gives, and folds again.
//
// At once lost is an attempt whose worker started anew after it began, or said goodbye by the process that reported its
// start. Two minutes after the newest mark it is lost if its worker is silent, the engine doesn't run the task, a later
// attempt on the same worker ended or a later one anywhere succeeded.
func Propose(h *History, have []Guess, k *Knowledge) []Guess {
	r := Fold(h, have)
	guesses := have
	for i := range r.Attempts {
		a := &r.Attempts[i]
		if a.State != StateStarted {
			continue
		}
		if reason := k.reason(h, &r, a); reason != NoReason {
			guesses = append(slices.Clip(guesses), Guess{Start: a.Start, Reason: reason, At: k.Now})
		}
	}
	return SortGuesses(guesses)
}

func (k *Knowledge) reason(h *History, r *Result, a *Attempt) Reason {
	for i := range k.Signs {
		s := &k.Signs[i]
		if s.Worker == "" || s.Worker != a.Worker || s.At <= a.StartedAt {
			continue
		}
		if s.Anew {
			return ReasonRestarted
		}
		if h.reported(r, a.Start, s.Sender) {
			return ReasonStopped
		}
	}
	if k.Now-r.Task.LastAt < graceful {
		return NoReason
	}
	for _, w := range k.Silent {
		if w != "" && w == a.Worker {
			return ReasonSilent
		}
	}
	if k.NotRunning {
		return ReasonNotRunning
	}
	for i := range r.Attempts {
		later := &r.Attempts[i]
		if later.Number <= a.Number || !later.End.Kind.isEnd() || later.Hearsay {
			continue
		}
		if later.State == StateSuccess {
			return ReasonLaterWon
		}
		if later.Worker != "" && later.Worker == a.Worker {
			return ReasonLaterEnded
		}
	}
	return NoReason
}

// reported reports whether the sender reported the start, or a copy of it. An unknown sender speaks of no mark.
func (h *History) reported(r *Result, start MarkKey, sender uint64) bool {
	for i := range h.marks {
		m := &h.marks[i]
		if m.kind == Started && sender != 0 && (m.sender.ID == sender || m.has(sender)) && r.original(m.key()) == start {
			return true
		}
	}
	return false
}

// original returns the mark that stands for k: itself unless it is a copy.
func (r *Result) original(k MarkKey) MarkKey {
	for i := range r.Notes {
		if n := &r.Notes[i]; n.Mark == k && n.Remark == RemarkCopy {
			return r.original(n.Of) // a copy's original may be a copy of another start; it is never a copy of this one
		}
	}
	return k
}
