package ingest

import (
	"sync"

	"github.com/z4j-go/z4j/internal/store"
)

// touchInterval is how old the last written sign of life of a worker or queue may be, in µs: below it nothing is written.
const touchInterval = 2_000_000

// maxTouches bounds the memory of what was written; past it everything is written once more.
const maxTouches = 50_000

// lastTouches remembers when workers and queues were last written, so that a busy worker costs one update in two seconds.
type lastTouches struct {
	mu      sync.Mutex
	workers map[workerKey]int64
	queues  map[workerKey]int64
}

func newLastTouches() *lastTouches {
	return &lastTouches{workers: map[workerKey]int64{}, queues: map[workerKey]int64{}}
}

// due reports whether a touch at seen is worth writing.
func (l *lastTouches) due(m map[workerKey]int64, k workerKey, seen int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, ok := m[k]
	return !ok || seen-last >= touchInterval
}

// written remembers what a committed group touched.
func (l *lastTouches) written(w *store.IngestWrites) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.workers) > maxTouches {
		clear(l.workers)
	}
	if len(l.queues) > maxTouches {
		clear(l.queues)
	}
	for i := range w.Workers {
		t := &w.Workers[i]
		k := workerKey{t.Project, t.Engine, t.Name}
		if t.Stopped {
			delete(l.workers, k) // its next sign of life is news
			continue
		}
		l.workers[k] = t.Seen
	}
	for i := range w.Queues {
		l.queues[workerKey{w.Queues[i].Project, w.Queues[i].Engine, w.Queues[i].Name}] = w.Queues[i].Seen
	}
}

// clocks measures how far each worker's clock is ahead of ours.
type clocks struct {
	mu      sync.Mutex
	workers map[workerKey]clock
}

// clock is what the leads of a worker's events over their receipt were in one window. The event that was the least
// delayed shows the offset best.
type clock struct {
	from, to    int64 // µs: receipt of the first and of the newest event
	least, most int64 // µs: leads
}

const (
	clockWindow = 60_000_000 // µs
	// A time ahead of its receipt, or just behind, speaks for itself. One far behind may be old news, delivered late: only
	// events that come one after the other, all as far behind, show a clock.
	plainLead    = -2_000_000 // µs
	steadyFor    = 1_000_000  // µs
	steadyWithin = 5_000_000  // µs
)

func newClocks() *clocks { return &clocks{workers: map[workerKey]clock{}} }

// observe takes an event's time and its receipt and returns how far the worker's clock is ahead as known now, in µs; ok
// is false as long as that can't be told.
func (c *clocks) observe(k workerKey, at, heard int64) (lead int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	lead = at - heard
	m, found := c.workers[k]
	if !found || heard-m.from > clockWindow {
		if len(c.workers) > maxTouches {
			clear(c.workers)
		}
		m = clock{from: heard, least: lead, most: lead}
	}
	m.to, m.least, m.most = max(m.to, heard), min(m.least, lead), max(m.most, lead)
	c.workers[k] = m
	return m.most, m.most > plainLead || (m.to-m.from >= steadyFor && m.most-m.least <= steadyWithin)
}
