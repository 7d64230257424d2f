package fold

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
)

const (
	earliest = 32  // marks kept from a task's beginning
	latest   = 352 // marks kept from its end; with the earliest, 384 marks are some 6 kB
	// maxSenders bounds the processes remembered of one mark: more copies than that prove nothing new.
	maxSenders = 16
	// longestRun is the greatest run time that is believed: ten years, in µs.
	longestRun = 3652 * 24 * 3600 * 1_000_000
	// most is the greatest retries that is believed.
	most = 1<<31 - 1
	// celery is the engine whose events many agents hear.
	celery = "celery"
)

// mark is what the history keeps of a mark: all reports of it, joined.
type mark struct {
	kind       Kind
	flags      flags
	payload    uint32 // fingerprint; of several payloads the greatest
	at, heard  int64
	worker     string
	event      [16]byte // zero unless the time was missing
	retries    int64    // -1 unknown, as the next two
	retryCount int64
	runtime    int64
	eta        int64    // 0 unknown
	sender     Sender   // the one of the least id; ID 0 for none
	more       []Sender // the others, by id
}

// flags are what a mark says with yes or no. A yes of any report counts.
type flags uint8

const (
	flagExpired flags = 1 << iota
	flagTerminated
	flagWillRetry
	flagPayload // it carries one
)

// History is the set of marks known of one task, bounded, with the keys of its descriptive fields. The zero History is
// an empty one of a task without engine and id; Decode with a nil blob makes an empty one of a task. A History that is
// used again by another Decode brings its memory along. It belongs to one goroutine, and is not to be copied.
type History struct {
	celery  bool
	taskID  string
	marks   []mark // by compareMarks
	fields  [fieldCount]fieldKey
	dropped bool // marks with a time were dropped: there is a gap after the earliest ones
	lost    bool // marks without a time were dropped
	work    folder
}

// Len returns the number of marks that are kept.
func (h *History) Len() int { return len(h.marks) }

// Truncated reports whether marks were dropped by the bound.
func (h *History) Truncated() bool { return h.dropped || h.lost }

// AppendKeys appends the names of the marks that are kept, in the order of time as sent.
func (h *History) AppendKeys(dst []MarkKey) []MarkKey {
	for i := range h.marks {
		dst = append(dst, h.marks[i].key())
	}
	return dst
}

func (m *mark) timeless() bool { return m.event != [16]byte{} }

func (m *mark) key() MarkKey {
	if m.timeless() {
		return MarkKey{Kind: m.kind, Worker: m.worker, Event: m.event}
	}
	return MarkKey{Kind: m.kind, At: m.at, Worker: m.worker}
}

// is reports whether m and o are reports of one mark.
func (m *mark) is(o *mark) bool {
	return m.kind == o.kind && m.worker == o.worker && m.event == o.event && (m.at == o.at || m.timeless())
}

func compareMarks(a, b *mark) int {
	if a.at != b.at {
		return compareInt(a.at, b.at)
	}
	if a.kind != b.kind {
		return int(a.kind) - int(b.kind)
	}
	if c := strings.Compare(a.worker, b.worker); c != 0 {
		return c
	}
	return bytes.Compare(a.event[:], b.event[:])
}

// Add takes a report into the set and says what it added. A mark of an unknown kind is not taken.
func (h *History) Add(m *Mark) Added {
	var added Added
	if m.Kind < Sent || m.Kind > Revoked {
		return added
	}
	if m.Fields != nil {
		added.Fields = h.describe(m)
	}
	in := read(m)
	if i := h.find(&in); i >= 0 {
		known := &h.marks[i]
		added.Payload = in.flags&flagPayload != 0 && (known.flags&flagPayload == 0 || known.payload != in.payload)
		if known.join(&in) {
			added.Novelty = Filled
		}
		if known.timeless() {
			h.settle(i)
		}
		return added
	}
	added.Novelty = Beyond
	if h.insert(in) {
		added.Novelty = New
		added.Payload = in.flags&flagPayload != 0
	}
	return added
}

// read makes a mark of one report.
func read(m *Mark) mark {
	in := mark{
		kind: m.Kind, at: m.At, heard: m.Heard, worker: m.Worker, event: m.Event, eta: m.ETA,
		retries: within(m.Retries, most), retryCount: within(m.RetryCount, most), runtime: within(m.RuntimeUS, longestRun),
	}
	if in.heard == 0 {
		in.heard = in.at
	}
	if in.timeless() && in.at == 0 {
		in.at = in.heard
	}
	if m.Sender.ID != 0 {
		in.sender = m.Sender
	}
	if m.Expired {
		in.flags |= flagExpired
	}
	if m.Terminated {
		in.flags |= flagTerminated
	}
	if m.WillRetry {
		in.flags |= flagWillRetry
	}
	if m.Kind >= Failed && !m.Payload.IsZero() {
		in.flags |= flagPayload
		in.payload = m.Payload.sum()
	}
	return in
}

func within(n Number, limit int64) int64 {
	if !n.Known || n.Value < 0 || n.Value > limit {
		return -1
	}
	return n.Value
}

// find returns the index of the mark that in reports, or -1.
func (h *History) find(in *mark) int {
	// News is mostly at the end.
	for i := len(h.marks) - 1; i >= 0; i-- {
		m := &h.marks[i]
		if m.is(in) {
			return i
		}
		if m.at < in.at && !in.timeless() {
			break
		}
	}
	return -1
}

// join takes another report of the mark in and reports whether that changed what the fold sees. It is a union: of two
// different values the greater, so neither order nor repetition matters.
func (m *mark) join(in *mark) bool {
	before := *m
	m.flags |= in.flags
	m.payload = max(m.payload, in.payload)
	m.heard = min(m.heard, in.heard)
	if m.timeless() {
		m.at = min(m.at, in.at)
	}
	m.retries = max(m.retries, in.retries)
	m.retryCount = max(m.retryCount, in.retryCount)
	m.runtime = max(m.runtime, in.runtime)
	m.eta = max(m.eta, in.eta)
	sender := in.sender.ID != 0 && m.addSender(in.sender)
	return sender || m.flags != before.flags || m.heard != before.heard || m.at != before.at || m.eta != before.eta ||
		m.retries != before.retries || m.retryCount != before.retryCount || m.runtime != before.runtime
}

// addSender takes a sender into the mark's set and reports whether that changed it.
func (m *mark) addSender(s Sender) bool {
	if m.sender.ID == 0 {
		m.sender = s
		return true
	}
	if m.sender.ID == s.ID {
		earlier := s.Started < m.sender.Started
		m.sender.Started = min(m.sender.Started, s.Started)
		return earlier
	}
	if s.ID < m.sender.ID {
		m.sender, s = s, m.sender
		m.more = slices.Insert(m.more, 0, s)
		m.more = m.more[:min(len(m.more), maxSenders-1)]
		return true
	}
	i, found := slices.BinarySearchFunc(m.more, s, func(have, s Sender) int { return cmp.Compare(have.ID, s.ID) })
	switch {
	case found:
		earlier := s.Started < m.more[i].Started
		m.more[i].Started = min(m.more[i].Started, s.Started)
		return earlier
	case i >= maxSenders-1:
		return false
	default:
		m.more = slices.Insert(m.more, i, s)
		m.more = m.more[:min(len(m.more), maxSenders-1)]
		return true
	}
}

// insert puts a new mark in its place, drops what is beyond the bound, and reports whether the mark is still there.
//
// Marks with a time are bounded by it: the earliest and the latest stay. The time of those without one is their receive
// time, which an earlier receipt still changes, so they are bounded apart, by their event id.
func (h *History) insert(in mark) bool {
	if h.marks == nil {
		h.marks = make([]mark, 0, 4) // what a task mostly has
	}
	h.marks = append(h.marks, in)
	i := len(h.marks) - 1
	for ; i > 0 && compareMarks(&h.marks[i], &h.marks[i-1]) < 0; i-- {
		h.marks[i], h.marks[i-1] = h.marks[i-1], h.marks[i]
	}
	if len(h.marks) <= earliest+latest {
		return true
	}
	timeless := 0
	for k := range h.marks {
		if h.marks[k].timeless() {
			timeless++
		}
	}
	var drop int
	switch {
	case in.timeless() && timeless > earliest+latest:
		h.lost = true
		drop = h.lastEvent()
	case !in.timeless() && len(h.marks)-timeless > earliest+latest:
		h.dropped = true
		drop = h.nth(earliest)
	default:
		return true
	}
	h.marks = slices.Delete(h.marks, drop, drop+1)
	return drop != i
}

// lastEvent returns the index of the mark without a time whose event id is the greatest.
func (h *History) lastEvent() int {
	last := -1
	for k := range h.marks {
		m := &h.marks[k]
		if !m.timeless() {
			continue
		}
		if last < 0 || cmp.Or(bytes.Compare(m.event[:], h.marks[last].event[:]), cmp.Compare(m.kind, h.marks[last].kind),
			strings.Compare(m.worker, h.marks[last].worker)) > 0 {
			last = k
		}
	}
	return last
}

// nth returns the index of the mark that has n marks with a time before it and a time itself; len(h.marks) for none.
func (h *History) nth(n int) int {
	for k := range h.marks {
		if h.marks[k].timeless() {
			continue
		}
		if n == 0 {
			return k
		}
		n--
	}
	return len(h.marks)
}

// settle moves a mark whose time was set back to its place.
func (h *History) settle(i int) {
	for ; i > 0 && compareMarks(&h.marks[i], &h.marks[i-1]) < 0; i-- {
		h.marks[i], h.marks[i-1] = h.marks[i-1], h.marks[i]
	}
}

// describe takes the report's descriptive fields and returns those whose stored values they replace: the newest of
// received and sent, else of any mark.
func (h *History) describe(m *Mark) FieldSet {
	// A mark without a time has none here, so any that has one is newer: its receive time would change with repetition.
	name := m.Key()
	key := fieldKey{kind: name.Kind, at: name.At, worker: name.Worker, event: name.Event}
	var set FieldSet
	for i := range h.fields {
		f := FieldSet(1) << i
		switch f {
		case FieldName:
			key.size, key.text = takenText(f, m.Fields.Name, h.taskID)
		case FieldQueue:
			key.size, key.text = takenText(f, m.Fields.Queue, h.taskID)
		case FieldPriority:
			key.size, key.text = takenText(f, m.Fields.Priority, h.taskID)
		case FieldParent:
			key.size, key.text = takenText(f, m.Fields.Parent, h.taskID)
		case FieldRoot:
			key.size, key.text = takenText(f, m.Fields.Root, h.taskID)
		case FieldArgs:
			key.size, key.text = takenJSON(m.Fields.Args)
		case FieldKwargs:
			key.size, key.text = takenJSON(m.Fields.Kwargs)
		case FieldTags:
			key.size, key.text = takenJSON(m.Fields.Tags)
		}
		if key.size > 0 && key.compare(&h.fields[i]) > 0 {
			h.fields[i] = key
			set |= f
		}
	}
	return set
}
