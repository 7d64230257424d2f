package fold

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
)

// version is the first byte of the stored form. A change that an older brain could misread takes the next number.
const version = 1

// ErrBlob says that a stored history cannot be read: damaged, or written by a newer brain.
var ErrBlob = errors.New("unreadable history")

// The second byte.
const (
	headDropped byte = 1 << iota
	headLost
	headFields
	headGuesses
)

// A mark's first byte is its kind less one and these.
const (
	markWorker byte = 1 << (3 + iota)
	markSender
	markPayload
	markRuntime
	markMore // a second byte follows
)

// A mark's second byte.
const (
	moreExpired byte = 1 << iota
	moreTerminated
	moreWillRetry
	moreRetries
	moreRetryCount
	moreETA
	moreEvent
	moreSenders
)

// Append appends the history and the guesses in their stored form, from which Decode makes them again. Equal sets give
// equal bytes. Store it whenever Add or a guess changed anything.
func (h *History) Append(dst []byte, guesses []Guess) []byte {
	// Mostly enough: a few texts and keys, and less than 20 bytes a mark.
	dst = slices.Grow(dst, 96+20*len(h.marks))
	e := encoder{dst: dst, workers: h.work.workers[:0], senders: h.work.senders[:0]}
	var head byte
	if h.dropped {
		head |= headDropped
	}
	if h.lost {
		head |= headLost
	}
	var fields byte
	for i := range h.fields {
		if h.fields[i].kind != 0 {
			fields |= 1 << i
			head |= headFields
		}
	}
	if len(guesses) > 0 {
		head |= headGuesses
		guesses = SortGuesses(guesses)
	}
	e.dst = append(e.dst, version, head)
	e.tables(h, guesses)
	e.uint(uint64(len(h.marks)))
	for i := range h.marks {
		e.mark(&h.marks[i])
	}
	if fields != 0 {
		e.dst = append(e.dst, fields)
	}
	for i := range h.fields {
		if f := &h.fields[i]; f.kind != 0 {
			e.key(h, MarkKey{Kind: f.kind, At: f.at, Worker: f.worker, Event: f.event})
			e.uint(uint64(f.size))
			var text [8]byte
			binary.BigEndian.PutUint64(text[:], f.text)
			e.dst = append(e.dst, text[:min(f.size, len(text))]...)
		}
	}
	if len(guesses) > 0 {
		e.uint(uint64(len(guesses)))
	}
	for _, g := range guesses {
		e.key(h, g.Start)
		e.dst = append(e.dst, byte(g.Reason))
		e.int(g.At - e.base)
	}
	h.work.workers, h.work.senders = e.workers, e.senders
	return e.dst
}

// SortGuesses returns the guesses in order, with one for each start: of several the first by time, then by reason. It
// leaves its argument as it is.
func SortGuesses(guesses []Guess) []Guess {
	if len(guesses) <= 1 {
		return guesses
	}
	order := func(a, b Guess) int {
		return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.At, b.At), cmp.Compare(a.Reason, b.Reason))
	}
	same := func(a, b Guess) bool { return a.Start == b.Start }
	guesses = slices.Clone(guesses)
	slices.SortFunc(guesses, order)
	return slices.CompactFunc(guesses, same)
}

type encoder struct {
	dst     []byte
	workers []string
	senders []Sender
	base    int64 // the time that others are told from
	last    int64 // time of the mark before
}

func (e *encoder) uint(n uint64) { e.dst = binary.AppendUvarint(e.dst, n) }
func (e *encoder) int(n int64)   { e.dst = binary.AppendVarint(e.dst, n) }

// tables collects and writes the texts and senders that the rest refers to by number, in the order of first use.
func (e *encoder) tables(h *History, guesses []Guess) {
	for i := range h.marks {
		m := &h.marks[i]
		e.addWorker(m.worker)
		if m.sender.ID != 0 {
			e.addSender(m.sender)
		}
		for _, s := range m.more {
			e.addSender(s)
		}
	}
	for i := range h.fields {
		e.addWorker(h.fields[i].worker)
	}
	for _, g := range guesses {
		e.addWorker(g.Start.Worker)
	}
	if len(h.marks) > 0 {
		e.base = h.marks[0].at
	}
	e.last = e.base
	e.int(e.base)
	e.uint(uint64(len(e.workers)))
	for _, w := range e.workers {
		e.uint(uint64(len(w)))
		e.dst = append(e.dst, w...)
	}
	e.uint(uint64(len(e.senders)))
	for _, s := range e.senders {
		e.dst = binary.BigEndian.AppendUint64(e.dst, s.ID)
		e.int(s.Started - e.base)
	}
}

func (e *encoder) addWorker(w string) {
	if w != "" && !slices.Contains(e.workers, w) {
		e.workers = append(e.workers, w)
	}
}

func (e *encoder) addSender(s Sender) {
	if !slices.Contains(e.senders, s) {
		e.senders = append(e.senders, s)
	}
}

func (e *encoder) worker(w string) { e.uint(uint64(slices.Index(e.workers, w))) }
func (e *encoder) sender(s Sender) { e.uint(uint64(slices.Index(e.senders, s))) }

func (e *encoder) mark(m *mark) {
	first := byte(m.kind - 1)
	set := func(to *byte, bit byte, yes bool) {
		if yes {
			*to |= bit
		}
	}
	var more byte
	set(&more, moreExpired, m.flags&flagExpired != 0)
	set(&more, moreTerminated, m.flags&flagTerminated != 0)
	set(&more, moreWillRetry, m.flags&flagWillRetry != 0)
	set(&more, moreRetries, m.retries >= 0)
	set(&more, moreRetryCount, m.retryCount >= 0)
	set(&more, moreETA, m.eta != 0)
	set(&more, moreEvent, m.timeless())
	set(&more, moreSenders, len(m.more) > 0)
	set(&first, markWorker, m.worker != "")
	set(&first, markSender, m.sender.ID != 0)
	set(&first, markPayload, m.flags&flagPayload != 0)
	set(&first, markRuntime, m.runtime >= 0)
	set(&first, markMore, more != 0)
	e.dst = append(e.dst, first)
	if more != 0 {
		e.dst = append(e.dst, more)
	}
	e.int(m.at - e.last)
	e.last = m.at
	e.int(m.heard - m.at)
	if m.worker != "" {
		e.worker(m.worker)
	}
	if m.sender.ID != 0 {
		e.sender(m.sender)
	}
	if len(m.more) > 0 {
		e.uint(uint64(len(m.more)))
		for _, s := range m.more {
			e.sender(s)
		}
	}
	if m.flags&flagPayload != 0 {
		e.dst = binary.BigEndian.AppendUint32(e.dst, m.payload)
	}
	for _, n := range [...]int64{m.runtime, m.retries, m.retryCount} {
		if n >= 0 {
			e.uint(uint64(n))
		}
	}
	if m.eta != 0 {
		e.int(m.eta - m.at)
	}
	if m.timeless() {
		e.dst = append(e.dst, m.event[:]...)
	}
}

// key writes the name of a mark: its number where it is kept, else the name itself after a 0.
func (e *encoder) key(h *History, k MarkKey) {
	for i := range h.marks {
		m := &h.marks[i]
		if m.kind == k.Kind && m.worker == k.Worker && m.event == k.Event && (m.at == k.At || m.timeless()) {
			e.uint(uint64(i) + 1)
			return
		}
	}
	e.uint(0)
	first := byte(k.Kind)
	if k.Worker != "" {
		first |= 0x10
	}
	if k.Event != [16]byte{} {
		first |= 0x20
	}
	e.dst = append(e.dst, first)
	if k.Event != [16]byte{} {
		e.dst = append(e.dst, k.Event[:]...)
	} else {
		e.int(k.At - e.base)
	}
	if k.Worker != "" {
		e.worker(k.Worker)
	}
}

// Decode makes h the history that blob holds, of a task of an engine, and returns the guesses that were stored with it; a
// nil blob is a new task's. It may be called again for another task. On an error (ErrBlob) h is empty.
func (h *History) Decode(engine, taskID string, blob []byte) ([]Guess, error) {
	h.reset(engine, taskID)
	if len(blob) == 0 {
		return nil, nil
	}
	d := decoder{src: blob, workers: h.work.workers[:0], senders: h.work.senders[:0]}
	guesses, err := d.history(h)
	h.work.workers, h.work.senders = d.workers, d.senders
	if err != nil {
		h.reset(engine, taskID)
		return nil, err
	}
	return guesses, nil
}

func (h *History) reset(engine, taskID string) {
	h.celery, h.taskID = engine == celery, taskID
	h.marks, h.fields = h.marks[:0], [fieldCount]fieldKey{}
	h.dropped, h.lost = false, false
}

type decoder struct {
	src     []byte
	text    string // src as a text: all workers are parts of one copy
	at      int
	bad     bool
	workers []string
	senders []Sender
	base    int64
	last    int64
}

func (d *decoder) byte() byte {
	if d.at >= len(d.src) {
		d.bad = true
		return 0
	}
	d.at++
	return d.src[d.at-1]
}

func (d *decoder) bytes(n uint64) []byte {
	if d.bad || n > uint64(len(d.src)-d.at) {
		d.bad = true
		return nil
	}
	d.at += int(n)
	return d.src[d.at-int(n) : d.at]
}

func (d *decoder) uint() uint64 {
	n, size := binary.Uvarint(d.src[d.at:])
	if size <= 0 {
		d.bad = true
		return 0
	}
	d.at += size
	return n
}

// number reads a number that is at most limit.
func (d *decoder) number(limit uint64) int64 {
	n := d.uint()
	if n > limit {
		d.bad = true
		return 0
	}
	return int64(n)
}

func (d *decoder) int() int64 {
	n, size := binary.Varint(d.src[d.at:])
	if size <= 0 {
		d.bad = true
		return 0
	}
	d.at += size
	return n
}

func (d *decoder) worker() string {
	i := d.uint()
	if i >= uint64(len(d.workers)) {
		d.bad = true
		return ""
	}
	return d.workers[i]
}

func (d *decoder) sender() Sender {
	i := d.uint()
	if i >= uint64(len(d.senders)) {
		d.bad = true
		return Sender{}
	}
	return d.senders[i]
}

func (d *decoder) history(h *History) ([]Guess, error) {
	if v := d.byte(); v != version {
		return nil, fmt.Errorf("%w: version %d, want %d", ErrBlob, v, version)
	}
	head := d.byte()
	h.dropped, h.lost = head&headDropped != 0, head&headLost != 0
	if head >= headGuesses<<1 {
		return nil, fmt.Errorf("%w: flags %#x", ErrBlob, head)
	}
	d.tables()
	if err := d.marks(h); err != nil {
		return nil, err
	}
	if head&headFields != 0 {
		d.fields(h)
	}
	var guesses []Guess
	if head&headGuesses != 0 {
		guesses = d.guesses(h)
	}
	if d.bad || d.at != len(d.src) {
		return nil, fmt.Errorf("%w: %d bytes, damaged near byte %d", ErrBlob, len(d.src), d.at)
	}
	return guesses, nil
}

func (d *decoder) tables() {
	d.base = d.int()
	d.last = d.base
	n := d.uint()
	if n > 0 {
		d.text = string(d.src)
	}
	for ; n > 0 && !d.bad; n-- {
		size := d.uint()
		from := d.at
		d.bytes(size)
		if !d.bad {
			d.workers = append(d.workers, d.text[from:d.at])
		}
	}
	for n = d.uint(); n > 0 && !d.bad; n-- {
		id := d.bytes(8)
		started := d.base + d.int()
		if !d.bad {
			d.senders = append(d.senders, Sender{ID: binary.BigEndian.Uint64(id), Started: started})
			d.bad = d.senders[len(d.senders)-1].ID == 0
		}
	}
}

func (d *decoder) marks(h *History) error {
	n := d.number(2 * (earliest + latest))
	if d.bad || n > int64(len(d.src)-d.at) { // a mark takes at least a byte
		return fmt.Errorf("%w: %d bytes for %d marks", ErrBlob, len(d.src), n)
	}
	h.marks = slices.Grow(h.marks, int(n)+2) // most decoded histories get another mark or two
	timeless := 0
	for i := range int(n) {
		h.marks = append(h.marks, mark{})
		m := &h.marks[i]
		d.mark(m)
		if m.timeless() {
			timeless++
		}
		if d.bad || i > 0 && compareMarks(&h.marks[i-1], m) >= 0 {
			return fmt.Errorf("%w: mark %d", ErrBlob, i)
		}
	}
	if timeless > earliest+latest || len(h.marks)-timeless > earliest+latest {
		return fmt.Errorf("%w: %d marks, of them %d without a time", ErrBlob, n, timeless)
	}
	return nil
}

func (d *decoder) mark(m *mark) {
	first := d.byte()
	var more byte
	if first&markMore != 0 {
		more = d.byte()
	}
	m.kind = Kind(first&7) + 1
	m.at = d.last + d.int()
	d.last = m.at
	m.heard = m.at + d.int()
	if first&markWorker != 0 {
		m.worker = d.worker()
	}
	if first&markSender != 0 {
		m.sender = d.sender()
	}
	if more&moreSenders != 0 {
		d.moreSenders(m)
	}
	if first&markPayload != 0 {
		m.flags |= flagPayload
		if sum := d.bytes(4); !d.bad {
			m.payload = binary.BigEndian.Uint32(sum)
		}
	}
	number := func(given bool, limit uint64) int64 {
		if !given {
			return -1
		}
		return d.number(limit)
	}
	m.runtime = number(first&markRuntime != 0, longestRun)
	m.retries = number(more&moreRetries != 0, most)
	m.retryCount = number(more&moreRetryCount != 0, most)
	if more&moreETA != 0 {
		m.eta = m.at + d.int()
	}
	if more&moreEvent != 0 {
		copy(m.event[:], d.bytes(16))
		d.bad = d.bad || !m.timeless()
	}
	m.flags |= flags(more & (moreExpired | moreTerminated | moreWillRetry))
}

func (d *decoder) moreSenders(m *mark) {
	n := d.number(maxSenders - 1)
	last := m.sender.ID
	for ; n > 0 && !d.bad; n-- {
		s := d.sender()
		d.bad = d.bad || s.ID <= last || last == 0
		last = s.ID
		m.more = append(m.more, s)
	}
}

// key reads the name of a mark.
func (d *decoder) key(h *History) MarkKey {
	i := d.uint()
	if i > uint64(len(h.marks)) {
		d.bad = true
		return MarkKey{}
	}
	if i > 0 {
		return h.marks[i-1].key()
	}
	var k MarkKey
	first := d.byte()
	k.Kind = Kind(first & 0x0f)
	if first&0x20 != 0 {
		copy(k.Event[:], d.bytes(16))
		d.bad = d.bad || k.Event == [16]byte{}
	} else {
		k.At = d.base + d.int()
	}
	if first&0x10 != 0 {
		k.Worker = d.worker()
	}
	d.bad = d.bad || k.Kind < Sent || k.Kind > Revoked || first >= 0x40
	return k
}

func (d *decoder) fields(h *History) {
	for set := d.byte(); set != 0 && !d.bad; set &= set - 1 {
		f := &h.fields[bits.TrailingZeros8(set)]
		k := d.key(h)
		f.kind, f.at, f.worker, f.event = k.Kind, k.At, k.Worker, k.Event
		f.size = int(d.number(1 << 40)) // longer than any value that a frame can hold
		var text [8]byte
		copy(text[:], d.bytes(uint64(min(f.size, len(text)))))
		f.text = binary.BigEndian.Uint64(text[:])
		d.bad = d.bad || f.size == 0
	}
}

func (d *decoder) guesses(h *History) []Guess {
	n := d.uint()
	if d.bad || n > uint64(len(d.src)-d.at) {
		d.bad = true
		return nil
	}
	guesses := make([]Guess, 0, n)
	for ; n > 0 && !d.bad; n-- {
		g := Guess{Start: d.key(h)}
		g.Reason = Reason(d.byte())
		g.At = d.base + d.int()
		guesses = append(guesses, g)
	}
	return guesses
}
