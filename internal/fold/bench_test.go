package fold_test

import (
	"testing"

	"github.com/z4j-go/z4j/internal/fold"
)

// common is what a Celery task mostly is: three marks in one or two batches.
func common() []fold.Mark {
	fields := &fold.Fields{
		Name: "shop.charge", Queue: "default", Args: []byte(`[1, "a customer"]`), Kwargs: []byte(`{}`),
		Root: "fc4e4370-0146-4aaf-b83e-c8db5b4081a6",
	}
	sender := by(0x1234567890abcdef, t0-3600*sec)
	return []fold.Mark{
		mark(fold.Received, "", t0, sender, func(m *fold.Mark) { m.Fields = fields }),
		mark(fold.Started, "celery@web-1", t0+12*ms, sender, named("<unknown:fc4e4370>")),
		mark(fold.Succeeded, "celery@web-1", t0+33*ms, sender, runtime(21*ms), result(`"3"`)),
	}
}

const taskID = "fc4e4370-0146-4aaf-b83e-c8db5b4081a6"

// way is the way of a batch, with everything reused that ingest can reuse.
type way struct {
	h             fold.History
	before, after fold.Result
	counted, now  []fold.Contribution
	diff          []fold.Contribution
}

func (w *way) run(b *testing.B, blob []byte, marks []fold.Mark) []byte {
	guesses, err := w.h.Decode("celery", taskID, blob)
	if err != nil {
		b.Fatal(err)
	}
	fold.FoldInto(&w.before, &w.h, guesses)
	for i := range marks {
		w.h.Add(&marks[i])
	}
	fold.FoldInto(&w.after, &w.h, guesses)
	w.counted = fold.Contributions(w.counted[:0], &w.before, "shop.charge", "default")
	w.now = fold.Contributions(w.now[:0], &w.after, "shop.charge", "default")
	w.diff = fold.Difference(w.diff[:0], w.counted, w.now)
	return w.h.Append(nil, guesses)
}

func BenchmarkNewTaskOfThreeMarks(b *testing.B) {
	marks := common()
	var w way
	b.ReportAllocs()
	for b.Loop() {
		w.run(b, nil, marks)
	}
}

func BenchmarkThirdMarkOfAKnownTask(b *testing.B) {
	marks := common()
	var w way
	blob := w.run(b, nil, marks[:2])
	b.ReportAllocs()
	for b.Loop() {
		w.run(b, blob, marks[2:])
	}
}

func BenchmarkRepetitionOfThreeMarks(b *testing.B) {
	marks := common()
	var w way
	blob := w.run(b, nil, marks)
	b.ReportAllocs()
	for b.Loop() {
		w.run(b, blob, marks)
	}
}

func BenchmarkFoldOfThreeMarks(b *testing.B) {
	var h fold.History
	for _, m := range common() {
		h.Add(&m)
	}
	var r fold.Result
	b.ReportAllocs()
	for b.Loop() {
		fold.FoldInto(&r, &h, nil)
	}
}

func BenchmarkDecodeOfThreeMarks(b *testing.B) {
	var w way
	blob := w.run(b, nil, common())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.h.Decode("celery", taskID, blob); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendOfThreeMarks(b *testing.B) {
	var h fold.History
	for _, m := range common() {
		h.Add(&m)
	}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = h.Append(buf[:0], nil)
	}
}

// BenchmarkFoldOfAFullHistory is the worst that one task can ask for: a crash loop with a new worker for each start.
func BenchmarkFoldOfAFullHistory(b *testing.B) {
	var h fold.History
	if _, err := h.Decode("celery", taskID, nil); err != nil {
		b.Fatal(err)
	}
	for i := range int64(400) {
		m := mark(fold.Started, "d-"+string(rune('a'+i%26))+string(rune('a'+i/26)), t0+100*ms*i, by(uint64(1+i%3), t0-sec))
		h.Add(&m)
	}
	var r fold.Result
	b.ReportAllocs()
	for b.Loop() {
		fold.FoldInto(&r, &h, nil)
	}
}
