package gateway

import (
	"bytes"
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails if a test leaves a goroutine behind: every goroutine here has someone who waits for it (lesson E8).
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestLessonE9RecentFramesAreBounded: the newest frames are known, older ones are forgotten, and the memory stays.
func TestLessonE9RecentFramesAreBounded(t *testing.T) {
	var r recent
	const most = 256
	key := func(i int) frameKey { return keyOf(string(rune('a'+i%26)) + string(bytes.Repeat([]byte("x"), i))) }
	for i := range 3 * most {
		r.add(key(i), committed{received: int32(i)}, most)
		r.add(key(i), committed{received: int32(i + 1)}, most) // again: it takes no second place
	}
	for i := range 3 * most {
		got, known := r.get(key(i))
		if want := i >= 2*most; known != want || known && got.received != int32(i+1) {
			t.Fatalf("frame %d of %d: known %v (%d), want %v", i, 3*most, known, got.received, want)
		}
	}
	if len(r.known) != most || len(r.ring) != most {
		t.Errorf("%d frames known, ring of %d; want %d", len(r.known), len(r.ring), most)
	}
}

// TestLessonE9NoticesAreBounded: one line per agent, kind and minute, whatever the number of agents.
func TestLessonE9NoticesAreBounded(t *testing.T) {
	var n notices
	const minute = 60_000_000
	for _, tt := range []struct {
		name string
		kind string
		at   int64
		want bool
	}{
		{"the first is due", "skew", minute, true},
		{"the next within the minute is not", "skew", 2*minute - 1, false},
		{"another kind is", "fault", 2*minute - 1, true},
		{"a minute later it is", "skew", 2 * minute, true},
		{"a clock that goes back does not silence it", "skew", minute, true},
	} {
		if got := n.due([16]byte{1}, tt.kind, tt.at); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	for i := range 3 * maxNotices {
		n.due([16]byte{byte(i), byte(i >> 8), byte(i >> 16)}, "skew", minute)
	}
	if len(n.last) > maxNotices {
		t.Errorf("%d notices kept, want at most %d", len(n.last), maxNotices)
	}
}
