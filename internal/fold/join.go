package fold

import (
	"cmp"
	"math"
	"slices"
)

const (
	second = 1_000_000 // µs
	minute = 60 * second
	// leadIgnored is the lead of a clock that needs no correction: the network and a queue take as long.
	leadIgnored = 5 * second
	// senderClocks is how far apart agents' clocks may be that stamp one broker event.
	senderClocks = 60 * second
)

// step is a mark in the walk: reports that are one mark are one step.
type step struct {
	head, tail int32 // members of h.marks, chained by folder.next; head names the step
	guess      int32 // index of the guess that speaks of it, or -1
	copyOf     int32 // the step that it is a copy of, or -1
	run        int32 // the run that it belongs to, or -1
	kind       Kind
	remark     Remark
	flags      flags
	late       bool // it came after the gap
	at, heard  int64
	order      int64
	worker     string
	retries    int64
	retryCount int64
	runtime    int64
	eta        int64
}

// folder is one fold at work. Its memory is used again by the next.
type folder struct {
	h       *History
	owner   []int32 // of h.marks: the step it belongs to
	next    []int32 // of h.marks: the next member of its step, or -1
	steps   []step
	runs    []run
	senders []Sender // those of the marks, each with the earliest start of its process; Celery only
	workers []string // for the codec

	received  bool  // some mark is received; else sent delivers
	delivered int32 // the newest delivery in the walk so far, or -1
	revoked   int32 // the revoke that ends the task without an attempt, or -1
}

// join makes the steps: unknown workers join the known ones of the same kind and time, and (Celery) the stamps of several
// senders on one broker event join one another.
func (f *folder) join() {
	marks := f.h.marks
	f.gatherSenders()
	unnamed := int32(-1) // a mark without a worker that is one with the mark named
	named := int32(-1)
	for i := range marks {
		m := &marks[i]
		f.owner = append(f.owner, -1)
		f.next = append(f.next, -1)
		if m.worker == "" && !m.timeless() {
			if j := f.namesake(i); j >= 0 {
				unnamed, named = int32(i), j
				continue
			}
		}
		s := step{
			head: int32(i), tail: int32(i), guess: -1, copyOf: -1, run: -1, kind: m.kind, flags: m.flags, at: m.at, heard: m.heard,
			worker: m.worker, retries: m.retries, retryCount: m.retryCount, runtime: m.runtime, eta: m.eta,
		}
		if named == int32(i) {
			f.absorb(&s, unnamed)
			named = -1
		}
		if into := f.broadcast(&s); into >= 0 {
			f.unite(into, &s)
			continue
		}
		f.steps = append(f.steps, s)
		f.own(int32(len(f.steps) - 1))
	}
}

// namesake returns the index of the mark that mark i, whose worker is unknown, is one with; -1 for none. Of several
// workers the least by name is taken.
func (f *folder) namesake(i int) int32 {
	marks := f.h.marks
	for j := i + 1; j < len(marks) && marks[j].at == marks[i].at && marks[j].kind == marks[i].kind; j++ {
		if marks[j].worker != "" && !marks[j].timeless() {
			return int32(j)
		}
	}
	return -1
}

// absorb makes mark i a member of s. Of two different values the greater is kept.
func (f *folder) absorb(s *step, i int32) {
	m := &f.h.marks[i]
	f.next[s.tail] = i
	s.tail = i
	s.flags |= m.flags
	s.heard = min(s.heard, m.heard)
	s.retries = max(s.retries, m.retries)
	s.retryCount = max(s.retryCount, m.retryCount)
	s.runtime = max(s.runtime, m.runtime)
	s.eta = max(s.eta, m.eta)
}

// own notes in owner that the members of step k are its.
func (f *folder) own(k int32) {
	for i := f.steps[k].head; i >= 0; i = f.next[i] {
		f.owner[i] = k
	}
}

// unite makes the members of s members of step k.
func (f *folder) unite(k int32, s *step) {
	for i := s.head; i >= 0; {
		next := f.next[i]
		f.next[i] = -1
		f.absorb(&f.steps[k], i)
		i = next
	}
	f.own(k)
}

// broadcast returns the step that s is another stamp on, or -1: the earliest of the same kind and worker within a minute
// that none of its senders has stamped yet, unless it is older than one of their processes. Whose worker or sender is
// unknown is not known to be the same.
func (f *folder) broadcast(s *step) int32 {
	if !f.h.celery || s.kind <= Received || s.worker == "" {
		return -1
	}
	since, known := f.youngest(s)
	if !known {
		return -1
	}
	since = max(since, s.at-senderClocks)
	first := int32(-1)
	for k := len(f.steps) - 1; k >= 0 && f.steps[k].at >= since; k-- {
		other := &f.steps[k]
		if other.kind == s.kind && other.worker == s.worker && f.apart(other, s) {
			first = int32(k)
		}
	}
	return first
}

// youngest returns when the youngest of the step's senders began, and whether any is known.
func (f *folder) youngest(s *step) (began int64, known bool) {
	began = math.MinInt64
	for i := s.head; i >= 0; i = f.next[i] {
		m := &f.h.marks[i]
		if m.sender.ID != 0 {
			began, known = max(began, f.started(m.sender)), true
		}
		for _, one := range m.more {
			began = max(began, f.started(one))
		}
	}
	return began, known
}

// apart reports whether other has senders, and none that s has too.
func (f *folder) apart(other, s *step) bool {
	known := false
	for j := other.head; j >= 0; j = f.next[j] {
		o := &f.h.marks[j]
		known = known || o.sender.ID != 0
		for i := s.head; i >= 0; i = f.next[i] {
			if o.shares(&f.h.marks[i]) {
				return false
			}
		}
	}
	return known
}

// shares reports whether one process sent both marks.
func (m *mark) shares(o *mark) bool {
	if m.sender.ID == 0 || o.sender.ID == 0 {
		return false
	}
	if m.sender.ID == o.sender.ID || m.has(o.sender.ID) || o.has(m.sender.ID) {
		return true
	}
	return slices.ContainsFunc(m.more, func(s Sender) bool { return o.has(s.ID) })
}

func (m *mark) has(sender uint64) bool {
	return slices.ContainsFunc(m.more, func(s Sender) bool { return s.ID == sender })
}

// gatherSenders finds when each sender's process began: the earliest that any mark knows.
func (f *folder) gatherSenders() {
	f.senders = f.senders[:0]
	if !f.h.celery {
		return
	}
	for i := range f.h.marks {
		m := &f.h.marks[i]
		if m.sender.ID != 0 {
			f.gatherSender(m.sender)
		}
		for _, s := range m.more {
			f.gatherSender(s)
		}
	}
}

func (f *folder) gatherSender(one Sender) {
	for i := range f.senders {
		if s := &f.senders[i]; s.ID == one.ID {
			s.Started = min(s.Started, one.Started)
			return
		}
	}
	f.senders = append(f.senders, one)
}

// started returns the time at which the sender's process began.
func (f *folder) started(one Sender) int64 {
	for i := range f.senders {
		if s := &f.senders[i]; s.ID == one.ID {
			return s.Started
		}
	}
	return one.Started
}

// arrange gives every step its order time and sorts them by it.
func (f *folder) arrange() {
	gap := len(f.h.marks)
	if f.h.dropped {
		gap = f.h.nth(earliest)
	}
	fast := false
	for k := range f.steps {
		s := &f.steps[k]
		s.order = s.at
		s.late = int(s.head) >= gap
		fast = fast || s.at-s.heard > leadIgnored
	}
	if !fast {
		return
	}
	f.correct()
	slices.SortStableFunc(f.steps, func(a, b step) int {
		return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.kind, b.kind), cmp.Compare(a.worker, b.worker), cmp.Compare(a.head, b.head))
	})
	for k := range f.steps {
		f.own(int32(k))
	}
}

// clock names whose clock a mark's time was read from: its worker, and where that is unknown its sender.
type clock struct {
	worker string
	sender uint64
}

// correct takes each clock's lead off the order times of its marks. A clock's lead is the greatest lead over receipt of
// its marks in this task.
func (f *folder) correct() {
	leads := make(map[clock]int64)
	for k := range f.steps {
		s := &f.steps[k]
		if lead := s.at - s.heard; lead > leadIgnored {
			c := f.clock(s)
			leads[c] = max(leads[c], lead)
		}
	}
	for k := range f.steps {
		s := &f.steps[k]
		s.order = s.at - leads[f.clock(s)]
	}
}

func (f *folder) clock(s *step) clock {
	if s.worker != "" {
		return clock{worker: s.worker}
	}
	var least uint64
	for i := s.head; i >= 0; i = f.next[i] {
		if id := f.h.marks[i].sender.ID; id != 0 && (least == 0 || id < least) {
			least = id
		}
	}
	return clock{sender: least}
}
