package fold_test

import (
	"bytes"
	"cmp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/z4j-go/z4j/internal/fold"
)

// TestWhatWasHeardWholeIsToldAsItWas draws tasks whose tries follow one another, on workers whose clocks are fast, each
// event stamped by several agents whose clocks differ by less than half a second; every agent hears everything.
func TestWhatWasHeardWholeIsToldAsItWas(t *testing.T) {
	ends := map[fold.Kind]fold.State{
		fold.Failed: fold.StateFailure, fold.Retried: fold.StateRetry, fold.Rejected: fold.StateRejected, fold.Succeeded: fold.StateSuccess, fold.Revoked: fold.StateRevoked,
	}
	rapid.Check(t, func(t *rapid.T) {
		leads, offsets := map[string]int64{}, map[uint64]int64{}
		for _, w := range []string{"w1", "w2", "w3", "w4"} {
			leads[w] = rapid.SampledFrom([]int64{0, 0, sec, 600 * sec, 7200 * sec}).Draw(t, "lead")
		}
		senders := rapid.Uint64Range(1, 3).Draw(t, "senders")
		for id := range senders {
			offsets[id] = rapid.Int64Range(0, 450*ms).Draw(t, "offset")
		}
		var marks []fold.Mark
		stamp := func(kind fold.Kind, worker string, when int64) {
			for id := range senders {
				at := when + leads[worker] + offsets[id]
				marks = append(marks, fold.Mark{Kind: kind, Worker: worker, At: at, Heard: when + ms, Sender: fold.Sender{ID: id + 1, Started: t0 - 3600*sec}})
				if kind == fold.Received {
					return // from the worker itself
				}
			}
		}
		now, retries := t0, int32(0)
		var states []fold.State
		var workers []string
		for range rapid.IntRange(1, 5).Draw(t, "tries") {
			worker := rapid.SampledFrom([]string{"w1", "w2", "w3", "w4"}).Draw(t, "worker")
			end := rapid.SampledFrom([]fold.Kind{fold.Failed, fold.Retried, fold.Rejected, fold.Succeeded, fold.Revoked}).Draw(t, "end")
			stamp(fold.Received, worker, now)
			stamp(fold.Started, worker, now+10*sec)
			stamp(end, worker, now+80*sec)
			now += 7200 * sec
			if n := len(states); n > 0 {
				switch states[n-1] {
				case fold.StateRetry, fold.StateFailure:
					retries++
				default:
					retries = 0
				}
			}
			states, workers = append(states, ends[end]), append(workers, worker)
		}
		if states[len(states)-1] == fold.StateRetry {
			retries++
		}
		b := newBrain("celery", "x", nil)
		for _, m := range rapid.Permutation(marks).Draw(t, "order") {
			b.take(t, []fold.Mark{m})
		}
		r := &b.result
		if len(r.Attempts) != len(states) || int(r.Task.Deliveries) != len(states) || r.Task.State != states[len(states)-1] || r.Task.RetryCount != retries {
			t.Fatalf("got %d attempts, %d deliveries, %v, %d retries; want %d of both, %v, %d\nin %+v",
				len(r.Attempts), r.Task.Deliveries, r.Task.State, r.Task.RetryCount, len(states), states[len(states)-1], retries, r)
		}
		for i := range r.Attempts {
			a := &r.Attempts[i]
			if a.State != states[i] || a.Worker != workers[i] || a.RuntimeUS < 69*sec || a.RuntimeUS > 71*sec || a.WaitUS < 9*sec || a.WaitUS > 11*sec {
				t.Fatalf("attempt %d: got %v on %s, ran %d after %d µs; want %v on %s, 70 s after 10 s", a.Number, a.State, a.Worker, a.RuntimeUS, a.WaitUS, states[i], workers[i])
			}
		}
		for _, n := range r.Notes {
			if n.Remark != fold.RemarkCopy {
				t.Fatalf("got the remark %v on %v, want copies only", n.Remark, n.Mark)
			}
		}
	})
}

// TestFieldsAreOfTheNewest chooses the fields from the whole list, as the specification says it.
func TestFieldsAreOfTheNewest(t *testing.T) {
	class := func(m *fold.Mark) int {
		if m.Kind == fold.Sent || m.Kind == fold.Received {
			return 1
		}
		return 0
	}
	newer := func(a, b *fold.Mark, f fold.FieldSet) int {
		ka, kb, va, vb := a.Key(), b.Key(), value(a.Fields, f), value(b.Fields, f)
		return cmp.Or(cmp.Compare(class(a), class(b)), cmp.Compare(ka.At, kb.At), cmp.Compare(ka.Kind, kb.Kind), strings.Compare(ka.Worker, kb.Worker),
			bytes.Compare(ka.Event[:], kb.Event[:]), cmp.Compare(len(va), len(vb)), strings.Compare(va, vb))
	}
	taken := func(v string, f fold.FieldSet) bool {
		return v != "" && v != "null" && (f != fold.FieldName || !strings.HasPrefix(v, "<unknown")) && (f != fold.FieldParent || v != "x")
	}
	texts := rapid.SampledFrom([]string{"", "x", "y", "null", "<unknown:x>", "long one", "long two", "longer, other from the first letters", "Longer, other from the first letters"})
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		marks := w.reports(rapid.IntRange(1, 8).Draw(t, "reports"), sec)
		best := map[fold.FieldSet]*fold.Mark{}
		for i := range marks {
			m := &marks[i]
			text := func() string { return texts.Draw(t, "text") }
			m.Fields = &fold.Fields{Name: text(), Queue: text(), Priority: text(), Parent: text(), Root: text(), Args: []byte(text()), Kwargs: []byte(text()), Tags: []byte(text())}
			for f := fold.FieldName; f != 0; f <<= 1 {
				v := value(m.Fields, f)
				json := f == fold.FieldArgs || f == fold.FieldKwargs || f == fold.FieldTags
				if (taken(v, f) || v == "null" && !json) && (best[f] == nil || newer(m, best[f], f) > 0) {
					best[f] = m
				}
			}
		}
		b := newBrain("rq", "x", nil)
		for _, m := range rapid.Permutation(marks).Draw(t, "order") {
			b.take(t, []fold.Mark{m})
		}
		for f := fold.FieldName; f != 0; f <<= 1 {
			want := ""
			if best[f] != nil {
				want = value(best[f].Fields, f)
			}
			if b.fields[f] != want {
				t.Fatalf("field %b: got %q, want %q", f, b.fields[f], want)
			}
		}
	})
}
