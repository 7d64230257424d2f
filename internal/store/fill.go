package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/z4j-go/z4j/internal/id"
)

// FillOptions is history that somebody made up, for a database to measure with: rows as ingest would have written them,
// in parts by time.
type FillOptions struct {
	Projects []Project     // those that are not there yet are made, with their ids
	Agents   []FilledAgent // so are these
	Parts    int
	From, To int64 // µs: all events lie between

	// Since is the time, in µs, before which nothing of the part, or of a later one, counts.
	Since func(part int) int64
	// Maker gives a writer's goroutine what makes a part: new tasks with all of theirs; rollups in no order; workers and
	// queues with their first and last signs of life. What it puts into w is written before the next call.
	Maker func() func(part int, w *IngestWrites)

	Add    bool                    // though there are tasks
	Vacuum bool                    // Postgres: leave nothing to autovacuum
	Told   func(phase string)      // nil, or hears what is done now; from one goroutine at a time
	Done   func(tasks, rows int64) // nil, or hears how far it is; from one goroutine at a time
}

// FilledAgent is an agent whose token nobody has.
type FilledAgent struct {
	ID, Project   id.ID
	Name, Engine  string
	Created, Seen int64 // µs
}

// Filled is what Fill wrote.
type Filled struct {
	Tasks    int64 `json:"tasks"`
	Events   int64 `json:"events"`
	Attempts int64 `json:"attempts"`
	Rollups  int64 `json:"rollup_rows"`
}

// filler is a Fill under way.
type filler struct {
	*FillOptions

	store *Store
	empty bool // there were no tasks, events or rollups

	mu      sync.Mutex
	next    int
	going   map[int]bool // parts under way
	minutes map[rollupKey]rollupSum
	hours   map[rollupKey]rollupSum
	workers map[lifeKey]life
	queues  map[lifeKey]life
	filled  Filled
}

type rollupKey struct {
	project     id.ID
	bucket      int64
	measure     int16
	name, queue string
}

type rollupSum struct{ count, sum int64 }

func (s rollupSum) plus(d *RollupDelta) rollupSum { return rollupSum{s.count + d.Count, s.sum + d.Sum} }

type lifeKey struct {
	project      id.ID
	engine, name string
}

type life struct {
	first, last int64
	offset      *int64
}

// Fill writes made-up history. It is for measuring: no operator decides it and no brain may run, so it is not audited.
// ErrNotEmpty and ErrInUse say why it did not begin. It can't be resumed: after an error the database is good, and holds a
// part of the history.
func (s *Store) Fill(ctx context.Context, o FillOptions) (Filled, error) {
	f := &filler{
		FillOptions: &o, store: s, going: map[int]bool{}, minutes: map[rollupKey]rollupSum{}, hours: map[rollupKey]rollupSum{},
		workers: map[lifeKey]life{}, queues: map[lifeKey]life{},
	}
	if o.Told == nil {
		f.Told = func(string) {}
	}
	if o.Done == nil {
		f.Done = func(int64, int64) {}
	}
	err := f.mend(ctx)
	if err == nil {
		err = f.begin(ctx)
	}
	if err == nil && s.pool != nil {
		err = f.postgres(ctx)
	} else if err == nil {
		err = f.sqlite(ctx)
	}
	if err = wrap("fill", err); errors.Is(err, ErrConflict) {
		err = fmt.Errorf("%w: the database holds tasks of this seed, choose another", err)
	}
	return f.filled, err
}

// begin looks whether the database may be filled, and makes projects and agents.
func (f *filler) begin(ctx context.Context) error {
	s := f.store
	now, err := s.leaseTime(ctx, s.write, TimeOf(s.now()))
	if err != nil {
		return err
	}
	var used bool
	if err := s.write.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM leases WHERE until > $1)`, now).Scan(&used); err != nil {
		return err
	}
	if used {
		return fmt.Errorf("%w: stop it, and wait for half a minute if it was killed", ErrInUse)
	}
	var some bool
	err = s.write.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM tasks) OR EXISTS (SELECT 1 FROM events) OR EXISTS (SELECT 1 FROM attempts)
		OR EXISTS (SELECT 1 FROM rollup_minutes) OR EXISTS (SELECT 1 FROM rollup_hours)`).Scan(&some)
	if err != nil {
		return err
	}
	if f.empty = !some; some && !f.Add {
		return fmt.Errorf("%w: it has tasks", ErrNotEmpty)
	}
	return s.transact(ctx, func(tx *Tx) error {
		for _, p := range f.Projects {
			_, err := tx.ExecContext(ctx, `INSERT INTO projects (id, slug, name, environment, timezone, is_active, default_scheduler_owner, created_at, updated_at)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO NOTHING`,
				p.ID, p.Slug, p.Name, p.Environment, p.Timezone, p.IsActive, p.DefaultSchedulerOwner, p.CreatedAt, p.UpdatedAt)
			if err != nil {
				return fmt.Errorf("make project %s: %w", p.Slug, err)
			}
		}
		for _, a := range f.Agents {
			token := sha256.Sum256(a.ID[:]) // of no token
			_, err := tx.ExecContext(ctx, `INSERT INTO agents (id, project_id, name, token_hash, protocol_version, framework_adapter, engine_adapters, agent_version,
				last_seen_at, last_connect_at, created_at) VALUES ($1, $2, $3, $4, '2', 'bare', $5, '1.13.0', $6, $7, $7) ON CONFLICT (id) DO NOTHING`,
				a.ID, a.Project, a.Name, hex.EncodeToString(token[:]), `["`+a.Engine+`"]`, TimeAt(a.Seen), TimeAt(a.Created))
			if err != nil {
				return fmt.Errorf("make agent %s: %w", a.Name, err)
			}
		}
		return nil
	})
}

// take gives the next part to make.
func (f *filler) take() (part int, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.next >= f.Parts {
		return 0, false
	}
	part = f.next
	f.next++
	f.going[part] = true
	return part, true
}

// written adds a part that is committed, and returns the minutes that no part adds to any more.
func (f *filler) written(part int, w *IngestWrites) []RollupDelta {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.going, part)
	for i := range w.Rollups {
		d := &w.Rollups[i]
		k := rollupKey{d.Project, d.Minute, d.Measure, d.Name, d.Queue}
		f.minutes[k] = f.minutes[k].plus(d)
	}
	for i := range w.Workers {
		t := &w.Workers[i]
		lead := *t.Offset
		f.live(f.workers, lifeKey{t.Project, t.Engine, t.Name}, t.Seen, &lead)
	}
	for i := range w.Queues {
		f.live(f.queues, lifeKey{w.Queues[i].Project, w.Queues[i].Engine, w.Queues[i].Name}, w.Queues[i].Seen, nil)
	}
	f.filled.Tasks += int64(len(w.NewTasks))
	f.filled.Events += int64(len(w.Events))
	f.filled.Attempts += int64(len(w.Attempts))
	f.Done(f.filled.Tasks, f.filled.Events)
	oldest := f.next
	for k := range f.going {
		oldest = min(oldest, k)
	}
	return f.settled(oldest)
}

func (f *filler) live(all map[lifeKey]life, k lifeKey, seen int64, offset *int64) {
	l, ok := all[k]
	if !ok || seen < l.first {
		l.first = seen
	}
	l.last, l.offset = max(l.last, seen), offset
	all[k] = l
}

// settleRows is how many rows of minutes wait before they are looked through for those that are settled: some 50 MB.
const settleRows = 200_000

// settled takes out the minutes before the oldest part that is not written, when there are many.
func (f *filler) settled(oldest int) []RollupDelta {
	since := int64(math.MaxInt64)
	if oldest < f.Parts {
		if len(f.minutes) < settleRows {
			return nil
		}
		since = f.Since(oldest) - 60_000_000
	}
	var out []RollupDelta
	for k, sum := range f.minutes {
		if k.bucket < since {
			out = append(out, RollupDelta{Project: k.project, Minute: k.bucket, Measure: k.measure, Name: k.name, Queue: k.queue, Count: sum.count, Sum: sum.sum})
			delete(f.minutes, k)
		}
	}
	slices.SortFunc(out, RollupDelta.Compare)
	f.filled.Rollups += int64(len(out))
	return out
}

// addHours adds settled minutes to their hours, as byHour does.
func (f *filler) addHours(minutes []RollupDelta) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range minutes {
		d := &minutes[i]
		k := rollupKey{d.Project, d.Minute - d.Minute%hourMicros, d.Measure, d.Name, d.Queue}
		f.hours[k] = f.hours[k].plus(d)
		if countsTasks(d.Measure) {
			k.bucket = allTime
			f.hours[k] = f.hours[k].plus(d)
		}
	}
}

// rollupsAtOnce is how many rows of minutes one transaction adds to those that may be there.
const rollupsAtOnce = 20_000

// addRollups adds settled minutes, and their hours, to what may be there.
func (f *filler) addRollups(ctx context.Context, minutes []RollupDelta) error {
	for part := range slices.Chunk(minutes, rollupsAtOnce) {
		w := IngestWrites{Rollups: part}
		if err := f.store.Ingest(ctx, func(tx *IngestTx) error { return tx.Write(ctx, &w) }); err != nil {
			return fmt.Errorf("write rollups: %w", err)
		}
	}
	return nil
}

// allHours are the hours of everything, in the order of the table's key.
func (f *filler) allHours() []RollupDelta {
	out := make([]RollupDelta, 0, len(f.hours))
	for k, sum := range f.hours {
		out = append(out, RollupDelta{Project: k.project, Minute: k.bucket, Measure: k.measure, Name: k.name, Queue: k.queue, Count: sum.count, Sum: sum.sum})
	}
	slices.SortFunc(out, RollupDelta.Compare)
	f.filled.Rollups += int64(len(out))
	return out
}

// signs writes workers and queues as ingest does: their first signs of life make them, the last ones touch them.
func (f *filler) signs(ctx context.Context) error {
	for _, last := range []bool{false, true} {
		var w IngestWrites
		for k, l := range f.workers {
			t := WorkerTouch{Project: k.project, Engine: k.engine, Name: k.name, Seen: l.first, Offset: l.offset}
			if last {
				t.Seen = l.last
			}
			w.Workers = append(w.Workers, t)
		}
		for k, l := range f.queues {
			t := QueueTouch{Project: k.project, Engine: k.engine, Name: k.name, Seen: l.first}
			if last {
				t.Seen = l.last
			}
			w.Queues = append(w.Queues, t)
		}
		if err := f.store.Ingest(ctx, func(tx *IngestTx) error { return tx.Write(ctx, &w) }); err != nil {
			return fmt.Errorf("write workers and queues: %w", err)
		}
	}
	return nil
}
