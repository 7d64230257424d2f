package fold_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/fold"
)

const (
	ms  = int64(1000)
	sec = int64(1_000_000)
	t0  = int64(1_772_438_400_000_000) // 2026-03-02T08:00:00Z
)

// at reads a time of 2026-03-02, "8:00:15.5", as µs.
func at(t testing.TB, clock string) int64 {
	t.Helper()
	v, err := time.Parse("2006-01-02 15:04:05", "2026-03-02 "+clock)
	if err != nil {
		t.Fatal(err)
	}
	return v.UnixMicro()
}

// mark is a report heard 50 ms after it happened, by one sender for each worker.
func mark(kind fold.Kind, worker string, at int64, with ...func(*fold.Mark)) fold.Mark {
	m := fold.Mark{Kind: kind, Worker: worker, At: at, Heard: at + 50*ms}
	for _, w := range with {
		w(&m)
	}
	return m
}

func heard(at int64) func(*fold.Mark)     { return func(m *fold.Mark) { m.Heard = at } }
func runtime(us int64) func(*fold.Mark)   { return func(m *fold.Mark) { m.RuntimeUS = fold.Num(us) } }
func retries(n int64) func(*fold.Mark)    { return func(m *fold.Mark) { m.Retries = fold.Num(n) } }
func retryCount(n int64) func(*fold.Mark) { return func(m *fold.Mark) { m.RetryCount = fold.Num(n) } }
func eta(at int64) func(*fold.Mark)       { return func(m *fold.Mark) { m.ETA = at } }
func by(id uint64, started int64) func(*fold.Mark) {
	return func(m *fold.Mark) { m.Sender = fold.Sender{ID: id, Started: started} }
}
func carries(p fold.Payload) func(*fold.Mark) { return func(m *fold.Mark) { m.Payload = &p } }
func exception(s string) func(*fold.Mark)     { return carries(fold.Payload{Exception: s}) }
func result(s string) func(*fold.Mark)        { return carries(fold.Payload{Result: []byte(s)}) }
func about(f fold.Fields) func(*fold.Mark)    { return func(m *fold.Mark) { m.Fields = &f } }
func named(name string) func(*fold.Mark)      { return about(fold.Fields{Name: name}) }
func expired(m *fold.Mark)                    { m.Expired = true }
func terminated(m *fold.Mark)                 { m.Terminated = true }
func timeless(id byte) func(*fold.Mark) {
	return func(m *fold.Mark) { m.Event = [16]byte{1, id}; m.Heard = m.At }
}

// tb is what a test of either kind can do.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
}

// brain keeps a task as ingest does: the blob, what stands in rows, and rollups that only ever take differences.
type brain struct {
	engine, id string
	blob       []byte
	fields     map[fold.FieldSet]string
	side       map[fold.MarkKey]fold.Payload
	attempts   map[int32]fold.Payload
	rollup     map[string][2]int64
	events     map[fold.MarkKey]bool
	result     fold.Result
}

func newBrain(engine, id string, guesses []fold.Guess) *brain {
	b := &brain{
		engine: engine, id: id, fields: map[fold.FieldSet]string{}, side: map[fold.MarkKey]fold.Payload{},
		attempts: map[int32]fold.Payload{}, rollup: map[string][2]int64{}, events: map[fold.MarkKey]bool{},
	}
	if len(guesses) > 0 {
		var h fold.History
		b.blob = h.Append(nil, guesses)
	}
	return b
}

// take is what ingest does with one batch.
func (b *brain) take(t tb, batch []fold.Mark) {
	t.Helper()
	var h fold.History
	guesses, err := h.Decode(b.engine, b.id, b.blob)
	if err != nil {
		t.Fatalf("decode what Append wrote: %v", err)
	}
	before := fold.Fold(&h, guesses)
	counted := fold.Contributions(nil, &before, b.fields[fold.FieldName], b.fields[fold.FieldQueue])
	news := map[fold.MarkKey]fold.Payload{}
	changed := b.blob == nil
	for i := range batch {
		m := &batch[i]
		added := h.Add(m)
		changed = changed || added != fold.Added{}
		if added.Novelty == fold.New || added.Novelty == fold.Beyond {
			b.events[m.Key()] = true
		}
		if added.Payload {
			news[m.Key()] = fold.MergePayload(news[m.Key()], *m.Payload)
		}
		for f := fold.FieldName; f != 0; f <<= 1 {
			if added.Fields.Has(f) {
				b.fields[f] = value(m.Fields, f)
			}
		}
	}
	if !changed && b.result.Task.State != fold.StateUnknown {
		return // what Add doesn't say is not written
	}
	b.result = fold.Fold(&h, guesses)
	b.place(&before, news)
	counts := fold.Contributions(nil, &b.result, b.fields[fold.FieldName], b.fields[fold.FieldQueue])
	addRollups(b.rollup, fold.Difference(nil, counted, counts))
	b.blob = h.Append(nil, guesses)
}

// suppose is what a sweep does with new guesses.
func (b *brain) suppose(t tb, more []fold.Guess) {
	t.Helper()
	var h fold.History
	guesses, err := h.Decode(b.engine, b.id, b.blob)
	if err != nil {
		t.Fatalf("decode what Append wrote: %v", err)
	}
	before := fold.Fold(&h, guesses)
	guesses = append(guesses, more...)
	b.result = fold.Fold(&h, guesses)
	b.place(&before, nil)
	name, queue := b.fields[fold.FieldName], b.fields[fold.FieldQueue]
	addRollups(b.rollup, fold.Difference(nil, fold.Contributions(nil, &before, name, queue), fold.Contributions(nil, &b.result, name, queue)))
	b.blob = h.Append(nil, guesses)
}

// place puts the payloads where they belong: alone in an attempt's row, or in side rows.
func (b *brain) place(before *fold.Result, news map[fold.MarkKey]fold.Payload) {
	stored := map[fold.MarkKey]fold.Payload{}
	for i := range before.Attempts {
		if a := &before.Attempts[i]; len(a.Payloads) == 1 {
			stored[a.Payloads[0].Mark] = b.attempts[a.Number]
		}
	}
	maps.Copy(stored, b.side)
	for k, p := range news {
		stored[k] = fold.MergePayload(stored[k], p)
	}
	get := func(k fold.MarkKey) *fold.Payload {
		if p, ok := stored[k]; ok {
			return &p
		}
		return nil
	}
	b.side, b.attempts = map[fold.MarkKey]fold.Payload{}, map[int32]fold.Payload{}
	for _, k := range b.result.SidePayloads(nil) {
		b.side[k] = *get(k)
	}
	for i := range b.result.Attempts {
		if a := &b.result.Attempts[i]; len(a.Payloads) > 0 {
			b.attempts[a.Number] = a.Payload(get)
		}
	}
}

func addRollups(to map[string][2]int64, all []fold.Contribution) {
	for _, c := range all {
		key := fmt.Sprint(c.Bucket, c.Measure, c.Name, c.Queue)
		sum := to[key]
		sum[0] += c.Count
		sum[1] += c.Sum
		to[key] = sum
		if sum == [2]int64{} {
			delete(to, key)
		}
	}
}

func value(f *fold.Fields, set fold.FieldSet) string {
	switch set {
	case fold.FieldName:
		return f.Name
	case fold.FieldQueue:
		return f.Queue
	case fold.FieldPriority:
		return f.Priority
	case fold.FieldParent:
		return f.Parent
	case fold.FieldRoot:
		return f.Root
	case fold.FieldArgs:
		return string(f.Args)
	case fold.FieldKwargs:
		return string(f.Kwargs)
	default:
		return string(f.Tags)
	}
}

// equal fails unless both brains know the same and count the same.
func (b *brain) equal(t tb, want *brain, how string) {
	t.Helper()
	for _, part := range []struct {
		name      string
		got, want any
	}{
		{"result", b.result, want.result},
		{"blob", b.blob, want.blob},
		{"fields", b.fields, want.fields},
		{"side rows", b.side, want.side},
		{"attempts' payloads", b.attempts, want.attempts},
		{"rollups", b.rollup, want.rollup},
		{"events", b.events, want.events},
	} {
		if reflect.DeepEqual(part.want, part.got) {
			continue
		}
		if diff := cmp.Diff(part.want, part.got); diff != "" {
			t.Fatalf("%s: %s differ (-in order +now):\n%s", how, part.name, diff)
		}
	}
}

// whole folds the marks at once, and checks that its rollups are a recount.
func whole(t tb, engine, id string, marks []fold.Mark, guesses []fold.Guess) *brain {
	t.Helper()
	b := newBrain(engine, id, guesses)
	b.take(t, marks)
	recount := map[string][2]int64{}
	addRollups(recount, fold.Contributions(nil, &b.result, b.fields[fold.FieldName], b.fields[fold.FieldQueue]))
	if diff := cmp.Diff(recount, b.rollup); diff != "" {
		t.Fatalf("rollups differ from a recount (-recount +rollups):\n%s", diff)
	}
	return b
}

// anyOrder folds the marks in every order (up to five of them, else in 100 orders), each split into random batches with
// random repetitions, and fails where one gives anything else than all at once. It returns that.
func anyOrder(t tb, engine, id string, marks []fold.Mark, guesses ...fold.Guess) *brain {
	t.Helper()
	want := whole(t, engine, id, marks, guesses)
	random := rand.New(rand.NewPCG(1, uint64(len(marks))))
	try := func(order []int) {
		b := newBrain(engine, id, guesses)
		var batch []fold.Mark
		for _, i := range order {
			batch = append(batch, marks[i])
			if random.IntN(3) == 0 {
				batch = append(batch, marks[order[random.IntN(len(order))]])
			}
			if random.IntN(2) == 0 {
				b.take(t, batch)
				batch = nil
			}
		}
		b.take(t, batch)
		b.equal(t, want, fmt.Sprint("order ", order))
	}
	order := make([]int, len(marks))
	for i := range order {
		order[i] = i
	}
	if len(marks) > 5 {
		slices.Reverse(order)
		try(order)
		for range 100 {
			random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			try(order)
		}
		return want
	}
	permute(order, 0, try)
	return want
}

func permute(order []int, from int, try func([]int)) {
	if from == len(order) {
		try(order)
		return
	}
	for i := from; i < len(order); i++ {
		order[from], order[i] = order[i], order[from]
		permute(order, from+1, try)
		order[from], order[i] = order[i], order[from]
	}
}

func TestAppendGivesWhatDecodeTakes(t *testing.T) {
	b := whole(t, "celery", "x", []fold.Mark{
		mark(fold.Received, "", t0, by(1, t0-3600*sec), about(fold.Fields{Name: "lab.add", Queue: "default", Args: []byte("[1,2]"), Kwargs: []byte("{}"), Root: "5f3c"})),
		mark(fold.Started, "w1@lab", t0+12*ms, by(1, t0-3600*sec)),
		mark(fold.Succeeded, "w1@lab", t0+36*ms, by(1, t0-3600*sec), runtime(21*ms), result("3")),
	}, nil)
	if len(b.blob) > 150 {
		t.Errorf("a history of three marks: got %d bytes, want at most 150", len(b.blob))
	}
	var h fold.History
	if _, err := h.Decode("celery", "x", b.blob); err != nil {
		t.Fatal(err)
	}
	if again := h.Append(nil, nil); !bytes.Equal(again, b.blob) {
		t.Errorf("decoded and appended again: got %x, want %x", again, b.blob)
	}
	t.Logf("%d bytes", len(b.blob))
}
