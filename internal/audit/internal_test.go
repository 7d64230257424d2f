package audit

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestTimesAreWrittenAsTheyAreSigned: whatever the row before was of.
func TestTimesAreWrittenAsTheyAreSigned(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	times := []int64{0, -1, 1, day - 1, day, -day, -day - 1, 951_782_399_999_999, 951_782_400_000_000, -62_135_596_800_000_000, 253_402_300_799_999_999, 253_402_300_800_000_000, -1 << 62, 1<<62 + 5}
	for range 2000 {
		times = append(times, random.Int64N(4_000_000_000_000_000)-1_000_000_000_000_000)
	}
	c := &Checker{}
	for _, micros := range times {
		for _, at := range []int64{micros, micros + 1, micros + 3_600_000_001} {
			if got, want := string(c.appendTime(nil, at)), time.UnixMicro(at).UTC().Format(timeLayout); got != want {
				t.Errorf("%d µs: %s, want %s", at, got, want)
			}
		}
	}
}
