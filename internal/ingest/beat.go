package ingest

import (
	"context"
	"encoding/json"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/redact"
	"github.com/z4j-go/z4j/internal/store"
)

// beatInterval is how often heartbeats are written: all agents' in one transaction.
const beatInterval = time.Second

// beats holds the newest heartbeat of each session until the next flush.
type beats struct {
	mu      sync.Mutex
	waiting map[*Session]Beat
	hashes  map[workerKey]uint64 // of the metadata that stands in the database
	seed    maphash.Seed
}

// maxHashes bounds the memory of what was written; past it everything is written once more.
const maxHashes = 50_000

func newBeats() *beats {
	return &beats{waiting: map[*Session]Beat{}, hashes: map[workerKey]uint64{}, seed: maphash.MakeSeed()}
}

type workerKey struct {
	project      id.ID
	engine, name string
}

// Beat takes a heartbeat; it is written within a second or so. It never blocks.
func (w *Writer) Beat(b Beat) {
	w.beats.mu.Lock()
	defer w.beats.mu.Unlock()
	if old, ok := w.beats.waiting[b.Session]; ok {
		if b.Queues == nil {
			b.Queues = old.Queues
		}
		if b.Workers == nil {
			b.Workers = old.Workers
		}
	}
	w.beats.waiting[b.Session] = b
}

// writeBeats flushes until ctx ends or the writer closes.
func (w *Writer) writeBeats(ctx context.Context) {
	tick := time.NewTicker(beatInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			w.flushBeats(ctx)
		case <-w.stopping:
			w.flushBeats(ctx)
			return
		case <-ctx.Done():
			return
		}
	}
}

// flushBeats writes what waits. A failure is logged and forgotten: the next heartbeats say the same.
func (w *Writer) flushBeats(ctx context.Context) {
	writes := w.beats.take()
	if len(writes.WorkerBeats)+len(writes.QueueBeats) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, attemptWithin)
	defer cancel()
	err := w.store.Ingest(ctx, func(tx *store.IngestTx) error { return tx.Write(ctx, writes) })
	if err != nil {
		w.beats.forget(writes)
		w.log.WarnContext(ctx, "heartbeats not written", "err", err)
	}
}

// take turns what waits into writes, sorted by key, each worker and queue once: the newest word counts.
func (b *beats) take() *store.IngestWrites {
	b.mu.Lock()
	waiting := b.waiting
	b.waiting = map[*Session]Beat{}
	b.mu.Unlock()
	workers := map[workerKey]store.WorkerBeat{}
	queues := map[workerKey]store.QueueBeat{}
	for s, beat := range waiting {
		for i := range beat.Workers {
			d := &beat.Workers[i]
			k := workerKey{s.Project, d.Engine, d.Name}
			if old, ok := workers[k]; !ok || old.Seen < beat.Received {
				workers[k] = b.worker(s, beat.Received, d)
			}
		}
		for _, q := range beat.Queues {
			k := workerKey{s.Project, q.Engine, q.Name}
			if old, ok := queues[k]; ok && old.Seen >= beat.Received {
				continue
			}
			row := store.QueueBeat{Project: s.Project, Engine: q.Engine, Name: q.Name, Seen: beat.Received, Pending: -1}
			if q.Pending != nil {
				row.Pending = *q.Pending
			}
			queues[k] = row
		}
	}
	out := &store.IngestWrites{}
	for _, k := range sortedKeys(workers) {
		out.WorkerBeats = append(out.WorkerBeats, workers[k])
	}
	for _, k := range sortedKeys(queues) {
		out.QueueBeats = append(out.QueueBeats, queues[k])
	}
	return out
}

func (b *beats) worker(s *Session, received int64, d *WorkerDetail) store.WorkerBeat {
	row := store.WorkerBeat{Project: s.Project, Agent: s.Agent, Engine: d.Engine, Name: d.Name, Seen: received, PID: -1, Concurrency: -1, Active: -1}
	for _, f := range []struct {
		to   *int64
		from *int64
	}{{&row.PID, d.PID}, {&row.Concurrency, d.Concurrency}, {&row.Active, d.ActiveTasks}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	row.Queues = marshal(d.Queues, d.Queues == nil)
	row.LoadAverage = marshal(d.LoadAverage, d.LoadAverage == nil)
	k := workerKey{s.Project, d.Engine, d.Name}
	if h := maphash.Bytes(b.seed, d.Metadata); d.Metadata != nil && b.hashes[k] != h {
		if len(b.hashes) >= maxHashes {
			clear(b.hashes)
		}
		b.hashes[k] = h
		row.Metadata = redact.JSON(d.Metadata) // arguments of running tasks and addresses of brokers stand there
	}
	return row
}

// forget makes sure that what failed to be written is written next time.
func (b *beats) forget(w *store.IngestWrites) {
	for i := range w.WorkerBeats {
		delete(b.hashes, workerKey{w.WorkerBeats[i].Project, w.WorkerBeats[i].Engine, w.WorkerBeats[i].Name})
	}
}

func marshal(v any, unknown bool) []byte {
	if unknown {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil // NaN in a load average: unknown
	}
	return b
}

func sortedKeys[V any](m map[workerKey]V) []workerKey {
	keys := make([]workerKey, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, workerKey.compare)
	return keys
}

func (a workerKey) compare(b workerKey) int {
	if c := slices.Compare(a.project[:], b.project[:]); c != 0 {
		return c
	}
	if c := strings.Compare(a.engine, b.engine); c != 0 {
		return c
	}
	return strings.Compare(a.name, b.name)
}
