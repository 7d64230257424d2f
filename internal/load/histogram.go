package load

import "math/bits"

// histogram counts durations in µs in slots of which each is 1/32 of a power of two wide: what is read from it is at most
// 3 % off, and it never grows.
type histogram struct {
	slots [64 * 32]uint64
	n     uint64
	most  int64
}

func (h *histogram) add(us int64) {
	us = max(us, 0)
	h.slots[slotOf(us)]++
	h.n++
	h.most = max(h.most, us)
}

func slotOf(us int64) int {
	if us < 32 {
		return int(us)
	}
	shift := bits.Len64(uint64(us)) - 6 // leaves six bits, of which the first is a one
	return shift*32 + int(us>>shift)
}

// quantile returns the upper end of the slot that holds the q-quantile, 0 for none.
func (h *histogram) quantile(q float64) int64 {
	if h.n == 0 {
		return 0
	}
	rank := uint64(q*float64(h.n-1)) + 1
	for i := range h.slots {
		if h.slots[i] >= rank {
			return min(upperOf(i), h.most)
		}
		rank -= h.slots[i]
	}
	return h.most
}

func upperOf(slot int) int64 {
	if slot < 64 {
		return int64(slot)
	}
	shift := slot/32 - 1
	return (int64(slot-shift*32)+1)<<shift - 1
}
