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

// clock is the greatest lead of a worker's events over their receipt, over one window: the event that was the least
// delayed shows the offset best.
type clock struct {
	from int64 // µs, start of the window
	lead int64 // µs
}

const clockWindow = 60_000_000 // µs

func newClocks() *clocks { return &clocks{workers: map[workerKey]clock{}} }

// observe takes an event's time and its receipt and returns the worker's offset as known now, in µs.
func (c *clocks) observe(k workerKey, at, heard int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	lead := at - heard
	m, ok := c.workers[k]
	if !ok || heard-m.from > clockWindow {
		if len(c.workers) > maxTouches {
			clear(c.workers)
		}
		m = clock{from: heard, lead: lead}
	}
	m.lead = max(m.lead, lead)
	c.workers[k] = m
	return m.lead
}
