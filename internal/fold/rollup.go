package fold

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// The measures of the rollups. The numbers are stored and never change. A range of measures begins at a number: add a
// state or a histogram's slot.
const (
	MeasureDeliveries uint16 = 1   // deliveries, at their time
	MeasureStarted    uint16 = 2   // attempts whose start was heard, at their start
	MeasureRevoked    uint16 = 3   // tasks that were revoked without an attempt, at their end
	MeasureExpired    uint16 = 4   // revokes because of expiry, of attempts and tasks, at their end
	MeasureTask       uint16 = 16  // + State: tasks by the state they are in now, at their first mark
	MeasureOutcome    uint16 = 32  // + State: attempts by outcome, at their end; lost ones at their start
	MeasureWait       uint16 = 128 // + slot: waits of attempts, at their start
	MeasureRun        uint16 = 256 // + slot: run times of attempts that ended for real, at their end
)

// Slots is the number of slots of a histogram. Slot 0 is below 1 ms, slot i from 1 ms·2^((i-1)/2) to 1 ms·2^(i/2), and the
// last from 35 days on: a value read from a slot's middle is at most 19 % off.
const Slots = 65

// Slot returns the slot of a duration in µs.
func Slot(us int64) int {
	i, _ := slices.BinarySearchFunc(slotEdges[:], us, func(edge, us int64) int {
		if edge <= us {
			return -1
		}
		return 1
	})
	return i
}

// SlotBounds returns the durations in µs that a slot holds: from low on, and below high.
func SlotBounds(slot int) (low, high int64) {
	high = math.MaxInt64
	if slot > 0 {
		low = slotEdges[min(slot, Slots-1)-1]
	}
	if slot < Slots-1 {
		high = slotEdges[max(slot, 0)]
	}
	return low, high
}

// slotEdges are the lower bounds of the slots from 1 on.
var slotEdges = edges()

func edges() (e [Slots - 1]int64) {
	for i := range e {
		base := int64(1_000_000_000) // 1 ms in ps, and 1 ms·√2, doubled by shifting and then rounded to µs
		if i%2 == 1 {
			base = 1_414_213_562
		}
		// Beyond 2^32 ms the shift would overflow in ps: the last edge is 2^31.5 ms.
		whole, part := base/1_000_000, base%1_000_000
		e[i] = whole<<(i/2) + part<<(i/2)/1_000_000
	}
	return e
}

// Quantile reads the q-quantile in µs, q from 0 to 1, from the counts of a histogram's slots; ok is false if all are 0.
func Quantile(counts *[Slots]int64, q float64) (us int64, ok bool) {
	total := int64(0)
	for _, n := range counts {
		total += max(n, 0)
	}
	if total == 0 {
		return 0, false
	}
	rank := min(max(int64(math.Ceil(q*float64(total))), 1), total)
	slot := 0
	for rank -= max(counts[0], 0); rank > 0; rank -= max(counts[slot], 0) {
		slot++
	}
	low, high := SlotBounds(slot)
	switch slot {
	case 0:
		return high / 2, true
	case Slots - 1:
		return low, true
	default:
		return int64(math.Sqrt(float64(low) * float64(high))), true
	}
}

// Contribution is what a task adds to one row of the rollups.
type Contribution struct {
	Bucket      int64 // the minute, by order time
	Measure     uint16
	Name, Queue string // "" for unknown
	Count       int64
	Sum         int64 // µs, of the histograms
}

func (c *Contribution) compare(o *Contribution) int {
	if c.Bucket != o.Bucket {
		return compareInt(c.Bucket, o.Bucket)
	}
	if c.Measure != o.Measure {
		return int(c.Measure) - int(o.Measure)
	}
	return cmp.Or(strings.Compare(c.Name, o.Name), strings.Compare(c.Queue, o.Queue))
}

// Contributions appends what a task counts for in the rollups, in order, one for each row. Hearsay counts in no rate: an
// attempt whose outcome it is counts as lost.
func Contributions(dst []Contribution, r *Result, name, queue string) []Contribution {
	if len(dst) > 0 {
		return append(dst, Contributions(nil, r, name, queue)...)
	}
	add := func(at int64, measure uint16, sum int64) {
		dst = append(dst, Contribution{Bucket: floorMinute(at), Measure: measure, Name: name, Queue: queue, Count: 1, Sum: sum})
	}
	if r.Task.State != StateUnknown {
		add(r.Task.FirstAt, MeasureTask+uint16(r.Task.State), 0)
	}
	for _, at := range r.Deliveries {
		add(at, MeasureDeliveries, 0)
	}
	for i := range r.Attempts {
		a := &r.Attempts[i]
		if a.Start.Kind != 0 {
			add(a.BeganAt, MeasureStarted, 0)
		}
		if a.WaitUS >= 0 {
			add(a.BeganAt, MeasureWait+uint16(Slot(a.WaitUS)), a.WaitUS)
		}
		switch {
		case a.State == StateStarted:
			continue
		case a.Hearsay:
			add(a.EndAt, MeasureOutcome+uint16(StateLost), 0)
			continue
		}
		add(a.EndAt, MeasureOutcome+uint16(a.State), 0)
		if a.RuntimeUS >= 0 && a.End.Kind.isEnd() {
			add(a.EndAt, MeasureRun+uint16(Slot(a.RuntimeUS)), a.RuntimeUS)
		}
		if a.Reason == ReasonExpired {
			add(a.EndAt, MeasureExpired, 0)
		}
	}
	if r.Revoke.Kind != 0 {
		add(r.RevokedAt, MeasureRevoked, 0)
		if r.Task.Reason == ReasonExpired {
			add(r.RevokedAt, MeasureExpired, 0)
		}
	}
	return gather(dst)
}

// gather sorts one task's contributions, which share name and queue, and makes those to one row one.
func gather(all []Contribution) []Contribution {
	slices.SortFunc(all, func(a, b Contribution) int {
		if a.Bucket != b.Bucket {
			return compareInt(a.Bucket, b.Bucket)
		}
		return int(a.Measure) - int(b.Measure)
	})
	out := all[:0]
	for i := range all {
		if n := len(out); n > 0 && out[n-1].Bucket == all[i].Bucket && out[n-1].Measure == all[i].Measure {
			out[n-1].Count += all[i].Count
			out[n-1].Sum += all[i].Sum
			continue
		}
		out = append(out, all[i])
	}
	return out
}

// floorMinute returns the start of the minute that holds at.
func floorMinute(at int64) int64 {
	rest := at % minute
	if rest < 0 {
		rest += minute
	}
	return at - rest
}

// Difference appends what has to be added to the rollups where a task counted for before and counts for after now. Both
// are as Contributions gave them; so is what is appended, without rows that do not change.
func Difference(dst, before, after []Contribution) []Contribution {
	for len(before) > 0 || len(after) > 0 {
		order := 0
		switch {
		case len(before) == 0:
			order = 1
		case len(after) == 0:
			order = -1
		default:
			order = before[0].compare(&after[0])
		}
		var c Contribution
		if order <= 0 {
			c = before[0]
			c.Count, c.Sum = -c.Count, -c.Sum
			before = before[1:]
		}
		if order >= 0 {
			one := after[0]
			one.Count, one.Sum = one.Count+c.Count, one.Sum+c.Sum
			c = one
			after = after[1:]
		}
		if c.Count != 0 || c.Sum != 0 {
			dst = append(dst, c)
		}
	}
	return dst
}
