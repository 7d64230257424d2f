package ingest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/z4j-go/z4j/internal/fold"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

// event is one event as read from its frame, ready to be folded or stored.
type event struct {
	ref    store.TaskRef
	taskID string
	isMark bool
	mark   fold.Mark
	row    store.EventRow
	part   int // index of its part in the group
	worker store.WorkerTouch
	queue  store.QueueTouch
}

// applier folds one group. It keeps its buffers from task to task, and when the group has to be written again.
type applier struct {
	history       fold.History
	before, after fold.Result
	was, is, diff []fold.Contribution

	events   []*event // all
	marks    []*event // those that are marks, by task
	refs     []store.TaskRef
	accepted []int
	writes   *store.IngestWrites
	rollups  []store.RollupDelta
	arena    []byte // marks of this group's tasks
}

// attemptWithin is how long one attempt to write a group may take: many statements that take all that the store gives
// one. A database that was cut off without a word ends none of them.
const attemptWithin = time.Minute

// attempt writes the group once and returns how many events of each part were new.
func (w *Writer) attempt(ctx context.Context, group []*part) ([]int, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptWithin)
	defer cancel()
	began := w.now()
	a := &applier{accepted: make([]int, len(group))}
	a.gather(group)
	err := w.store.Ingest(ctx, func(tx *store.IngestTx) error {
		a.reset()
		stored, err := tx.Tasks(ctx, a.refs)
		if err != nil {
			return err
		}
		if err := a.fold(ctx, tx, stored); err != nil {
			return err
		}
		a.rest(w, group)
		return tx.Write(ctx, a.writes)
	})
	if err != nil {
		return nil, err
	}
	w.seen.written(a.writes)
	w.Stats.Events.Add(int64(len(a.events)))
	w.Stats.Accepted.Add(int64(a.writes.AcceptedEvents))
	w.Stats.DeadLetters.Add(int64(len(a.writes.DeadLetters)))
	show(w.metrics, a.writes, w.now().Sub(began))
	return a.accepted, nil
}

// gather sorts the group's marks by task and names the tasks.
func (a *applier) gather(group []*part) {
	n := 0
	for _, p := range group {
		n += len(p.events)
	}
	a.events, a.marks = make([]*event, 0, n), make([]*event, 0, n)
	for i, p := range group {
		for j := range p.events {
			e := &p.events[j]
			e.part = i
			a.events = append(a.events, e)
			if e.isMark {
				a.marks = append(a.marks, e)
			}
		}
	}
	slices.SortStableFunc(a.marks, func(x, y *event) int { return x.ref.Compare(y.ref) })
	for _, e := range a.marks {
		if len(a.refs) == 0 || a.refs[len(a.refs)-1] != e.ref {
			a.refs = append(a.refs, e.ref)
		}
	}
}

func (a *applier) reset() {
	a.writes = &store.IngestWrites{Events: make([]store.EventRow, 0, len(a.events))}
	a.rollups = a.rollups[:0]
	clear(a.accepted)
}

// fold folds each task's marks into its stored history and collects what changed.
func (a *applier) fold(ctx context.Context, tx *store.IngestTx, stored []store.StoredTask) error {
	at := 0
	for i := range stored {
		end := at
		for end < len(a.marks) && a.marks[end].ref == stored[i].TaskRef {
			end++
		}
		if err := a.task(ctx, tx, &stored[i], a.marks[at:end]); err != nil {
			return fmt.Errorf("task %s: %w", stored[i].Key, err)
		}
		at = end
	}
	return nil
}

// update is what one group says of one task.
type update struct {
	old      *store.StoredTask
	events   []*event
	row      store.TaskRow
	payloads map[fold.MarkKey]*heard // of this group's marks; nil where none carries one
}

// heard is a payload that came in this group.
type heard struct {
	fold.Payload
	whole bool // the mark is new: nothing of it is stored
}

func (a *applier) task(ctx context.Context, tx *store.IngestTx, old *store.StoredTask, events []*event) error {
	guesses, err := a.history.Decode(old.Engine, events[0].taskID, old.Marks)
	if err != nil {
		return fmt.Errorf("read marks: %w", err)
	}
	fresh := old.Marks == nil
	fold.FoldInto(&a.before, &a.history, guesses)
	u := update{old: old, events: events, row: store.TaskRow{TaskRef: old.TaskRef, TaskID: events[0].taskID, Name: old.Name, Queue: old.Queue}}
	changed := false
	for _, e := range events {
		changed = a.add(&u, e) || changed
	}
	if !changed && !fresh {
		return nil
	}
	fold.FoldInto(&a.after, &a.history, guesses)
	at := len(a.arena)
	a.arena = a.history.Append(a.arena, guesses)
	u.row.Marks = a.arena[at:len(a.arena):len(a.arena)]
	a.fill(&u, fresh)
	if fresh {
		a.writes.NewTasks = append(a.writes.NewTasks, u.row)
	} else {
		a.writes.ChangedTasks = append(a.writes.ChangedTasks, u.row)
	}
	if err := a.attempts(ctx, tx, &u, fresh); err != nil {
		return err
	}
	a.count(&u, fresh)
	return nil
}

// add takes one event's mark into the history and reports whether the task has to be folded again.
func (a *applier) add(u *update, e *event) bool {
	added := a.history.Add(&e.mark)
	if added.Novelty == fold.New || added.Novelty == fold.Beyond {
		a.writes.Events = append(a.writes.Events, e.row)
		a.accepted[e.part]++
	}
	if f := e.mark.Fields; f != nil {
		takeFields(&u.row, f, added.Fields)
	}
	if added.Payload && e.mark.Payload != nil {
		if u.payloads == nil {
			u.payloads = map[fold.MarkKey]*heard{}
		}
		k := e.mark.Key()
		if h := u.payloads[k]; h != nil {
			h.Payload = fold.MergePayload(h.Payload, *e.mark.Payload)
		} else {
			u.payloads[k] = &heard{*e.mark.Payload, added.Novelty == fold.New}
		}
	}
	return added.Novelty != fold.Nothing || added.Fields != 0 || added.Payload
}

func takeFields(row *store.TaskRow, f *fold.Fields, which fold.FieldSet) {
	for _, t := range []struct {
		field fold.FieldSet
		to    *string
		from  string
	}{
		{fold.FieldName, &row.Name, f.Name},
		{fold.FieldQueue, &row.Queue, f.Queue},
		{fold.FieldPriority, &row.Priority, f.Priority},
		{fold.FieldParent, &row.Parent, f.Parent},
		{fold.FieldRoot, &row.Root, f.Root},
	} {
		if which.Has(t.field) {
			*t.to = t.from
		}
	}
	for _, t := range []struct {
		field fold.FieldSet
		to    *[]byte
		from  []byte
	}{{fold.FieldArgs, &row.Args, f.Args}, {fold.FieldKwargs, &row.Kwargs, f.Kwargs}, {fold.FieldTags, &row.Tags, f.Tags}} {
		if which.Has(t.field) {
			*t.to = t.from
		}
	}
}

// fill puts the fold's outcome into the task's row.
func (a *applier) fill(u *update, fresh bool) {
	t, r := &a.after.Task, &u.row
	heard := u.events[0].mark.Heard
	r.Created, r.ID = heard, u.old.ID
	for _, e := range u.events {
		heard = max(heard, e.mark.Heard)
	}
	r.Updated = heard
	if fresh {
		r.ID = id.At(t.FirstAt)
	} else {
		r.Created = u.old.Created
	}
	if t.RerunAt > r.ID.Micros() {
		r.ID = id.At(t.RerunAt)
	}
	r.Take(t)
}

// attempts collects the attempts that differ, and where their payloads go.
func (a *applier) attempts(ctx context.Context, tx *store.IngestTx, u *update, fresh bool) error {
	upsert, remove := fold.DiffAttempts(&a.before, &a.after)
	for _, n := range remove {
		a.writes.GoneAttempts = append(a.writes.GoneAttempts, store.AttemptRef{TaskRef: u.old.TaskRef, Number: n})
	}
	src := payloadSource{applier: a, update: u, fresh: fresh}
	for i := range a.after.Attempts {
		at := &a.after.Attempts[i]
		differs := slices.Contains(upsert, at.Number)
		news := src.news(at.Payloads)
		if !differs && !news {
			continue
		}
		row := attemptRow(u.old.TaskRef, at)
		if !news && fold.SamePayload(&a.before, &a.after, at.Number) {
			row.KeepPayload = true
		} else {
			p, err := src.payload(ctx, tx, at)
			if err != nil {
				return err
			}
			row.Payload = store.Payload(p)
		}
		a.writes.Attempts = append(a.writes.Attempts, row)
	}
	return a.looseEnds(ctx, tx, u, &src)
}

func attemptRow(ref store.TaskRef, at *fold.Attempt) store.AttemptRow {
	row := store.AttemptRow{
		TaskRef: ref, Number: at.Number, State: int16(at.State), Started: at.StartedAt, Finished: at.FinishedAt,
		WaitUS: at.WaitUS, RuntimeUS: at.RuntimeUS, Retries: int32(at.Retries), Worker: at.Worker,
	}
	return row
}

// looseEnds keeps the payloads that don't stand in one attempt's row alone, each in a row of its own.
func (a *applier) looseEnds(ctx context.Context, tx *store.IngestTx, u *update, src *payloadSource) error {
	before, after := a.before.SidePayloads(nil), a.after.SidePayloads(nil)
	for _, k := range after {
		if !src.isNews(k) && slices.Contains(before, k) {
			continue
		}
		p, err := src.mark(ctx, tx, k)
		if err != nil {
			return err
		}
		if p == nil {
			continue
		}
		text, err := json.Marshal(sidePayload(*p))
		if err != nil {
			return fmt.Errorf("write payload: %w", err)
		}
		a.writes.Payloads = append(a.writes.Payloads, store.MarkPayload{TaskRef: u.old.TaskRef, Mark: k.Append(nil), Payload: text})
	}
	for _, k := range before {
		if !slices.Contains(after, k) {
			a.writes.Payloads = append(a.writes.Payloads, store.MarkPayload{TaskRef: u.old.TaskRef, Mark: k.Append(nil)})
		}
	}
	return nil
}

// sideRow is a payload's form in task_payloads.
type sideRow struct {
	Result           json.RawMessage `json:"result,omitempty"`
	Exception        string          `json:"exception,omitempty"`
	ExceptionMessage string          `json:"exception_message,omitempty"`
	Traceback        string          `json:"traceback,omitempty"`
	Reason           string          `json:"reason,omitempty"`
}

func sidePayload(p fold.Payload) sideRow {
	return sideRow{p.Result, p.Exception, p.ExceptionMessage, p.Traceback, p.Reason}
}

// payloadSource finds a mark's payload: in this group, or in what is stored, which is read at most once.
type payloadSource struct {
	applier *applier
	update  *update
	fresh   bool
	stored  *store.StoredPayloads
}

func (s *payloadSource) isNews(k fold.MarkKey) bool { return s.update.payloads[k] != nil }

// news reports whether this group brought something for one of refs.
func (s *payloadSource) news(refs []fold.PayloadRef) bool {
	return len(s.update.payloads) > 0 && slices.ContainsFunc(refs, func(r fold.PayloadRef) bool { return s.isNews(r.Mark) })
}

// payload joins the attempt's payload from its marks.
func (s *payloadSource) payload(ctx context.Context, tx *store.IngestTx, at *fold.Attempt) (fold.Payload, error) {
	var failed error
	p := at.Payload(func(k fold.MarkKey) *fold.Payload {
		p, err := s.mark(ctx, tx, k)
		failed = cmp.Or(failed, err)
		return p
	})
	return p, failed
}

// mark returns what is known of one mark's payload, nil for nothing.
func (s *payloadSource) mark(ctx context.Context, tx *store.IngestTx, k fold.MarkKey) (*fold.Payload, error) {
	h := s.update.payloads[k]
	if s.fresh || (h != nil && h.whole) {
		if h == nil {
			return nil, nil //nolint:nilnil // a mark without a payload is no error, and nil is what fold wants to hear
		}
		return &h.Payload, nil
	}
	if s.stored == nil {
		stored, err := tx.Payloads(ctx, s.update.old.TaskRef)
		if err != nil {
			return nil, err
		}
		s.stored = &stored
	}
	old, err := s.lookUp(k)
	if err != nil {
		return nil, err
	}
	switch {
	case h == nil:
		return old, nil
	case old == nil:
		return &h.Payload, nil
	}
	p := fold.MergePayload(*old, h.Payload)
	return &p, nil
}

// lookUp finds a mark's stored payload: in its side row, else in the row of the attempt that it alone ends.
func (s *payloadSource) lookUp(k fold.MarkKey) (*fold.Payload, error) {
	if text, ok := s.stored.Marks[string(k.Append(nil))]; ok {
		var row sideRow
		if err := json.Unmarshal(text, &row); err != nil {
			return nil, fmt.Errorf("read payload: %w", err)
		}
		return &fold.Payload{Result: row.Result, Exception: row.Exception, ExceptionMessage: row.ExceptionMessage, Traceback: row.Traceback, Reason: row.Reason}, nil
	}
	for i := range s.applier.before.Attempts {
		b := &s.applier.before.Attempts[i]
		if len(b.Payloads) == 1 && b.Payloads[0].Mark == k {
			if p, ok := s.stored.Attempts[b.Number]; ok {
				q := fold.Payload(p)
				return &q, nil
			}
		}
	}
	return nil, nil //nolint:nilnil // nothing is stored of it
}

// count collects the differences of the rollups.
func (a *applier) count(u *update, fresh bool) {
	a.was = a.was[:0]
	if !fresh {
		a.was = fold.Contributions(a.was, &a.before, u.old.Name, u.old.Queue)
	}
	a.is = fold.Contributions(a.is[:0], &a.after, u.row.Name, u.row.Queue)
	a.diff = fold.Difference(a.diff[:0], a.was, a.is)
	for i := range a.diff {
		d := &a.diff[i]
		a.rollups = append(a.rollups, store.RollupDelta{
			Project: u.old.Project, Minute: d.Bucket, Measure: int16(d.Measure), Name: d.Name, Queue: d.Queue, Count: d.Count, Sum: d.Sum,
		})
	}
}

// rest collects what needs no fold: other events, dead letters, signs of life, and the summed rollups.
func (a *applier) rest(w *Writer, group []*part) {
	for _, e := range a.events {
		if !e.isMark {
			a.writes.Events = append(a.writes.Events, e.row)
			a.accepted[e.part]++
		}
	}
	for _, p := range group {
		a.writes.DeadLetters = append(a.writes.DeadLetters, p.dead...)
	}
	a.touch(w)
	a.writes.Rollups = sumRollups(a.rollups)
	slices.SortFunc(a.writes.Events, func(x, y store.EventRow) int {
		return cmp.Or(slices.Compare(x.Project[:], y.Project[:]), cmp.Compare(x.Occurred, y.Occurred), slices.Compare(x.ID[:], y.ID[:]))
	})
}

// touch collects each worker and queue once, with its newest sign of life, where that is worth writing.
func (a *applier) touch(w *Writer) {
	workers := map[workerKey]store.WorkerTouch{}
	queues := map[workerKey]store.QueueTouch{}
	for _, e := range a.events {
		if t := e.worker; t.Name != "" {
			k := workerKey{t.Project, t.Engine, t.Name}
			if old, ok := workers[k]; !ok || t.Seen > old.Seen || (t.Seen == old.Seen && t.Stopped) {
				workers[k] = t
			}
		}
		if t := e.queue; t.Name != "" {
			k := workerKey{t.Project, t.Engine, t.Name}
			if old, ok := queues[k]; !ok || t.Seen > old.Seen {
				queues[k] = t
			}
		}
	}
	for _, k := range sortedKeys(workers) {
		if t := workers[k]; t.Stopped || w.seen.due(w.seen.workers, k, t.Seen) {
			a.writes.Workers = append(a.writes.Workers, t)
		}
	}
	for _, k := range sortedKeys(queues) {
		if t := queues[k]; w.seen.due(w.seen.queues, k, t.Seen) {
			a.writes.Queues = append(a.writes.Queues, t)
		}
	}
}

// sumRollups adds differences of one counter up, in the order of the table's key.
func sumRollups(all []store.RollupDelta) []store.RollupDelta {
	slices.SortFunc(all, store.RollupDelta.Compare)
	var out []store.RollupDelta
	for _, d := range all {
		if n := len(out); n > 0 && out[n-1].Compare(d) == 0 {
			out[n-1].Count += d.Count
			out[n-1].Sum += d.Sum
			continue
		}
		out = append(out, d)
	}
	return slices.DeleteFunc(out, func(d store.RollupDelta) bool { return d.Count == 0 && d.Sum == 0 })
}
