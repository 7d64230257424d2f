package fold_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/z4j-go/z4j/internal/fold"
)

func TestSlots(t *testing.T) {
	for _, tt := range []struct {
		us   int64
		slot int
	}{
		{0, 0},
		{999, 0},
		{1000, 1},
		{1413, 1},
		{1414, 2},
		{1999, 2},
		{2000, 3},
		{1_000_000, 20},
		{3600 * sec, 44},
		{30 * 24 * 3600 * sec, 63},
		{36 * 24 * 3600 * sec, 64},
		{math.MaxInt64, 64},
	} {
		if got := fold.Slot(tt.us); got != tt.slot {
			t.Errorf("Slot(%d): got %d, want %d", tt.us, got, tt.slot)
		}
	}
	for i := range fold.Slots {
		low, high := fold.SlotBounds(i)
		if fold.Slot(low) != i || fold.Slot(high-1) != i {
			t.Errorf("slot %d from %d to %d: got slots %d and %d of its ends, want itself", i, low, high, fold.Slot(low), fold.Slot(high-1))
		}
		if ratio := float64(high) / float64(low); i > 0 && i < fold.Slots-1 && math.Abs(ratio-math.Sqrt2) > 0.002 {
			t.Errorf("slot %d: got a width of %.4f, want two to an octave", i, ratio)
		}
	}
}

func TestQuantilesAreNear(t *testing.T) {
	if us, ok := fold.Quantile(&[fold.Slots]int64{}, 0.5); ok {
		t.Errorf("of nothing: got %d, want none", us)
	}
	rapid.Check(t, func(t *rapid.T) {
		us := rapid.Int64Range(1000, 30*24*3600*sec).Draw(t, "us")
		var counts [fold.Slots]int64
		counts[fold.Slot(us)] = rapid.Int64Range(1, 1000).Draw(t, "count")
		for _, q := range []float64{0, 0.5, 0.95, 1} {
			got, ok := fold.Quantile(&counts, q)
			if off := float64(got) / float64(us); !ok || off < 1/1.19-0.001 || off > 1.19+0.001 {
				t.Fatalf("quantile %v of %d: got %d %v, want within 19 %%", q, us, got, ok)
			}
		}
	})
	var counts [fold.Slots]int64
	counts[fold.Slot(10*ms)], counts[fold.Slot(sec)], counts[0], counts[fold.Slots-1] = 94, 5, 0, 1
	for q, want := range map[float64]int64{0.5: 10 * ms, 0.94: 10 * ms, 0.95: sec, 0.99: sec} {
		if got, _ := fold.Quantile(&counts, q); fold.Slot(got) != fold.Slot(want) {
			t.Errorf("quantile %v: got %d, want the slot of %d", q, got, want)
		}
	}
	if got, _ := fold.Quantile(&counts, 1); got < 35*24*3600*sec {
		t.Errorf("the greatest: got %d, want at least 35 days", got)
	}
}

func TestContributions(t *testing.T) {
	b := anyOrder(t, "rq", "x", []fold.Mark{
		received("w", 0, about(fold.Fields{Name: "n", Queue: "q"})), started("w", 2), retried("w", 5), received("w", 6), started("w", 70), succeeded("w", 130, runtime(59*sec)),
	})
	minute := func(n int64) int64 { return t0 + n*60*sec }
	c := func(bucket int64, measure uint16, count, sum int64) fold.Contribution {
		return fold.Contribution{Bucket: bucket, Measure: measure, Name: "n", Queue: "q", Count: count, Sum: sum}
	}
	wait := func(us int64) uint16 { return fold.MeasureWait + uint16(fold.Slot(us)) }
	run := func(us int64) uint16 { return fold.MeasureRun + uint16(fold.Slot(us)) }
	want(t, "contributions", fold.Contributions(nil, &b.result, "n", "q"), []fold.Contribution{
		c(minute(0), fold.MeasureDeliveries, 2, 0),
		c(minute(0), fold.MeasureStarted, 1, 0),
		c(minute(0), fold.MeasureTask+uint16(fold.StateSuccess), 1, 0),
		c(minute(0), fold.MeasureOutcome+uint16(fold.StateRetry), 1, 0),
		c(minute(0), wait(2*sec), 1, 2*sec),
		c(minute(0), run(3*sec), 1, 3*sec),
		c(minute(1), fold.MeasureStarted, 1, 0),
		c(minute(1), wait(64*sec), 1, 64*sec),
		c(minute(2), fold.MeasureOutcome+uint16(fold.StateSuccess), 1, 0),
		c(minute(2), run(59*sec), 1, 59*sec),
	})
	kept := []fold.Contribution{c(0, 1, 1, 1)}
	if got := fold.Contributions(kept, &b.result, "n", "q"); len(got) != 11 || got[0] != kept[0] {
		t.Errorf("appended to one: got %v, want it and ten more", got)
	}
}

func TestBucketsBeforeTheEpoch(t *testing.T) {
	b := anyOrder(t, "rq", "x", []fold.Mark{mark(fold.Received, "w", -1)})
	want(t, "bucket", fold.Contributions(nil, &b.result, "", "")[0].Bucket, -60*sec)
}

func TestDifference(t *testing.T) {
	c := func(bucket int64, name string, count, sum int64) fold.Contribution {
		return fold.Contribution{Bucket: bucket, Measure: 1, Name: name, Count: count, Sum: sum}
	}
	for _, tt := range []struct {
		name                string
		before, after, want []fold.Contribution
	}{
		{"nothing becomes nothing", nil, nil, nil},
		{"what is new is added", nil, []fold.Contribution{c(1, "a", 1, 5)}, []fold.Contribution{c(1, "a", 1, 5)}},
		{"what is gone is taken back", []fold.Contribution{c(1, "a", 1, 5)}, nil, []fold.Contribution{c(1, "a", -1, -5)}},
		{"what stays is left out", []fold.Contribution{c(1, "a", 2, 5)}, []fold.Contribution{c(1, "a", 2, 5)}, nil},
		{"a name that becomes known moves it", []fold.Contribution{c(1, "", 1, 5)}, []fold.Contribution{c(1, "a", 1, 5)}, []fold.Contribution{c(1, "", -1, -5), c(1, "a", 1, 5)}},
		{
			"in order",
			[]fold.Contribution{c(1, "b", 1, 0), c(3, "a", 1, 7)},
			[]fold.Contribution{c(0, "z", 1, 0), c(3, "a", 3, 6)},
			[]fold.Contribution{c(0, "z", 1, 0), c(1, "b", -1, 0), c(3, "a", 2, -1)},
		},
	} {
		want(t, tt.name, fold.Difference(nil, tt.before, tt.after), tt.want)
	}
}

func TestAReplacedGuessIsTakenBack(t *testing.T) {
	b := newBrain("rq", "x", nil)
	b.take(t, []fold.Mark{started("w", 0)})
	b.suppose(t, []fold.Guess{lost("w", 0)})
	want(t, "lost", count(&b.result, fold.MeasureOutcome+uint16(fold.StateLost)), int64(1))
	b.take(t, []fold.Mark{succeeded("w", 9)})
	b.equal(t, whole(t, "rq", "x", []fold.Mark{started("w", 0), succeeded("w", 9)}, []fold.Guess{lost("w", 0)}), "guess, then end")
	want(t, "state", b.result.Task.State, fold.StateSuccess)
	want(t, "lost no more", count(&b.result, fold.MeasureOutcome+uint16(fold.StateLost)), int64(0))
}

func TestPayloads(t *testing.T) {
	text := rapid.SampledFrom([]string{"", "a", "b", "aa"})
	draw := rapid.Custom(func(t *rapid.T) fold.Payload {
		p := fold.Payload{Exception: text.Draw(t, "e"), ExceptionMessage: text.Draw(t, "m"), Traceback: text.Draw(t, "t"), Reason: text.Draw(t, "r")}
		if result := rapid.SampledFrom([]string{"", "null", "12", "7"}).Draw(t, "result"); result != "" {
			p.Result = []byte(result)
		}
		return p
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := draw.Draw(t, "a"), draw.Draw(t, "b"), draw.Draw(t, "c")
		same := func(law string, x, y fold.Payload) {
			if string(x.Result) != string(y.Result) || (x.Result == nil) != (y.Result == nil) || x.Exception != y.Exception ||
				x.ExceptionMessage != y.ExceptionMessage || x.Traceback != y.Traceback || x.Reason != y.Reason {
				t.Fatalf("%s: got %+v, want %+v", law, x, y)
			}
		}
		same("merging is commutative", fold.MergePayload(a, b), fold.MergePayload(b, a))
		same("and associative", fold.MergePayload(a, fold.MergePayload(b, c)), fold.MergePayload(fold.MergePayload(a, b), c))
		same("and idempotent", fold.MergePayload(a, a), a)
		same("nothing adds nothing", fold.MergePayload(a, fold.Payload{}), a)
		same("filling with nothing", fold.FillPayload(a, fold.Payload{}), a)
		same("filling nothing", fold.FillPayload(fold.Payload{}, a), a)
	})
	got := fold.FillPayload(fold.Payload{Exception: "x"}, fold.Payload{Exception: "longer", Result: []byte("null")})
	want(t, "filling keeps what is there", got, fold.Payload{Exception: "x", Result: []byte("null")})
}

// TestJoinedCopiesOfAnEndMakeOnePayload: three stamps on one broker event merge, and a copy beside fills what they lack.
func TestJoinedCopiesOfAnEndMakeOnePayload(t *testing.T) {
	b := anyOrder(t, "celery", "x", []fold.Mark{
		started("w", 0, by(1, 1)),
		failed("w", 5, by(1, 1), carries(fold.Payload{Exception: "short"})),
		failed("w", 5.1, by(2, 1), carries(fold.Payload{Exception: "longer one"})),
		failed("w", 5.2, by(1, 1), carries(fold.Payload{Exception: "a copy's is the longest", Traceback: "tb"})),
	})
	want(t, "attempts", attempts(&b.result), []attempt{{"w", fold.StateFailure, s(0), s(5)}})
	want(t, "payload", b.attempts[1], fold.Payload{Exception: "longer one", Traceback: "tb"})
	want(t, "each keeps its own in a side row", len(b.side), 3)
	want(t, "payload of", b.result.PayloadOf(key(failed("w", 5.2))), int32(1))
	want(t, "payload of none", b.result.PayloadOf(key(started("w", 0))), int32(0))
}

func TestDiffAttempts(t *testing.T) {
	whole := func(marks ...fold.Mark) *fold.Result { return &whole(t, "rq", "x", marks, nil).result }
	one := whole(started("w", 0))
	two := whole(started("w", 0), started("v", 5), failed("v", 6, exception("E")))
	earlier := whole(started("u", -5), started("w", 0), started("v", 5), failed("v", 6, exception("E")))
	for _, tt := range []struct {
		name           string
		before, after  *fold.Result
		upsert, remove []int32
	}{
		{"the same", two, two, nil, nil},
		{"from nothing", &fold.Result{}, one, []int32{1}, nil},
		{"one more", one, two, []int32{2}, nil},
		{"one less", two, one, nil, []int32{2}},
		{"one before", two, earlier, []int32{1, 2, 3}, nil},
	} {
		upsert, remove := fold.DiffAttempts(tt.before, tt.after)
		want(t, tt.name+": to write", upsert, tt.upsert)
		want(t, tt.name+": to remove", remove, tt.remove)
	}
	want(t, "payload of attempt 1 is the same", fold.SamePayload(one, two, 1), true)
	want(t, "payload of attempt 2 moved to 3", fold.SamePayload(two, earlier, 2), false)
	want(t, "there is no attempt 4", fold.SamePayload(two, earlier, 4), false)
}
