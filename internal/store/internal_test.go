package store

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/id"
)

// FuzzCursor reads any text as a cursor: it is refused, or it is exactly what this place encodes to.
func FuzzCursor(f *testing.F) {
	l := listing{tag: 'x', kinds: "itns"}
	for _, c := range []cursor{
		{key: []any{id.ID{1, 2}, TimeAt(1_772_438_400_123_456), int64(7), "a name with | and ,"}},
		{back: true, key: []any{id.ID{}, TimeAt(0), int64(0), ""}},
	} {
		f.Add(l.encode(c))
	}
	for _, text := range []string{"", "AXg", "AXgA", "2026-03-02T08:00:00Z|00ff", "AXgC", "!!", "AXgAAQIAAAAAAAAAAAAAAAAAAAAGTGEAAA"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := l.decode(text)
		if err != nil {
			if !errors.Is(err, ErrCursor) {
				t.Errorf("%q: %v, want %v", text, err, ErrCursor)
			}
			return
		}
		again, err := l.decode(l.encode(c))
		if diff := cmp.Diff(c.key, again.key); err != nil || diff != "" || again.back != c.back {
			t.Errorf("%q: %v (-first +again):\n%s", text, err, diff)
		}
	})
}

// TestLessonF22CursorsKeepWhateverTheKeyHolds: separators, microseconds and empty texts come back as they were.
func TestLessonF22CursorsKeepWhateverTheKeyHolds(t *testing.T) {
	l := listing{tag: 'x', kinds: "ts"}
	for _, name := range []string{"", "|", "a|b", "ä\n", "' OR 1=1 --"} {
		want := cursor{back: true, key: []any{TimeAt(1_772_438_400_123_457), name}}
		got, err := l.decode(l.encode(want))
		if diff := cmp.Diff(want.key, got.key); err != nil || diff != "" || !got.back {
			t.Errorf("%q: %v (-want +got):\n%s", name, err, diff)
		}
	}
}
