package custody

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
	"github.com/z4j-go/z4j/internal/target/targettest"
)

var someHistory = history{strings.Repeat("a", 32), strings.Repeat("b", 32)}

// anchors makes one of each kind.
func anchors(t *testing.T) map[string]anchor {
	t.Helper()
	location, o, _ := targettest.Bucket(t)
	bucket, err := target.Open(t.Context(), location, o)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]anchor{
		"home":      &fileAnchor{dir: filepath.Join(t.TempDir(), "anchors"), make: true},
		"directory": &fileAnchor{dir: t.TempDir()},
		"bucket":    &bucketAnchor{Target: bucket},
	}
}

func noteOf(size int) string {
	return fmt.Sprintf("z4j/x/y\n%d\n%s\n\n— x y\n", size, strings.Repeat("r", 400))
}

func anyNote(string) bool { return true }

func largest(notes []string) (size int64) {
	for _, n := range notes {
		size = max(size, sizeOf(n))
	}
	return size
}

// TestAnchorsGiveTheNewest whatever was written before it, also of a history that went on beyond its end.
func TestAnchorsGiveTheNewest(t *testing.T) {
	const month = 31 * 24 * time.Hour
	begin := time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)
	for name, a := range anchors(t) {
		ctx := context.Background()
		if notes, err := a.checkpoints(ctx, someHistory, 1<<50, anyNote); err != nil || len(notes) != 0 {
			t.Errorf("%s, empty: %d notes, %v; want none", name, len(notes), err)
		}
		count := 300 // more than the tail of a file holds
		if name == "bucket" {
			count = 12
		}
		for i := 1; i <= count; i++ {
			at := begin.Add(time.Duration(i) * month / time.Duration(count))
			if err := a.putCheckpoint(ctx, someHistory, int64(i), at, noteOf(i)); err != nil {
				t.Fatal(err)
			}
		}
		for _, most := range []int{count + 5, count, count - 1, 5, 1} {
			notes, err := a.checkpoints(ctx, someHistory, int64(most), anyNote)
			if want := int64(min(most, count)); err != nil || largest(notes) != want {
				t.Errorf("%s, at most %d: %d, %v; want %d", name, most, largest(notes), err, want)
			}
		}
		if notes, err := a.checkpoints(ctx, someHistory, 0, anyNote); err != nil || len(notes) != 0 {
			t.Errorf("%s, at most 0: %d notes, %v; want none", name, len(notes), err)
		}
		found, err := a.histories(ctx, someHistory.instance)
		if err != nil || !slices.Equal(found, []history{someHistory}) {
			t.Errorf("%s: histories %v, %v; want one", name, found, err)
		}
	}
}

// TestAnchorsKeepLines by the number of their entry.
func TestAnchorsKeepLines(t *testing.T) {
	for name, a := range anchors(t) {
		ctx := context.Background()
		for _, l := range []struct{ seq, part int }{{3, 0}, {70, 0}, {70, 1}, {1200, 0}} {
			note := fmt.Sprintf("z4j-line/x/y\n%d\npart %d\n\n— x y\n", l.seq, l.part)
			if err := a.putLine(ctx, someHistory, int64(l.seq), l.part, note); err != nil {
				t.Fatal(err)
			}
		}
		if last, err := a.lastLine(ctx, someHistory, anyNote); err != nil || last != 1200 {
			t.Errorf("%s: the last line is of %d, %v; want 1200", name, last, err)
		}
		for after, want := range map[int64]int{0: 4, 3: 3, 70: 1, 1200: 0} {
			if notes, err := a.lines(ctx, someHistory, after); err != nil || len(notes) != want {
				t.Errorf("%s: %d lines behind %d, %v; want %d", name, len(notes), after, err, want)
			}
		}
	}
}

// TestUnreadableLineHidesNoOther: an object that can't be read is told, and what can be read counts.
func TestUnreadableLineHidesNoOther(t *testing.T) {
	location, o, _ := targettest.Bucket(t)
	var refuses atomic.Bool
	o = targettest.Proxy(t, o, func(w http.ResponseWriter, r *http.Request, forward func()) {
		if refuses.Load() && r.Method == http.MethodGet && strings.Contains(r.URL.Path, down(4)) {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		forward()
	})
	bucket, err := target.Open(t.Context(), location, o)
	if err != nil {
		t.Fatal(err)
	}
	a := &bucketAnchor{Target: bucket}
	for seq := 3; seq <= 5; seq++ {
		if err := a.putLine(t.Context(), someHistory, int64(seq), 0, fmt.Sprintf("z4j-line/x/y\n%d\nx\n\n— x y\n", seq)); err != nil {
			t.Fatal(err)
		}
	}
	refuses.Store(true)
	notes, err := a.lines(t.Context(), someHistory, 0)
	if err == nil || len(notes) != 2 || seqOf(notes[0]) != 5 || seqOf(notes[1]) != 3 {
		t.Errorf("lines %q, %v; want those of 5 and 3, and an error", notes, err)
	}
	if notes, err := a.lines(t.Context(), someHistory, 4); err != nil || len(notes) != 1 {
		t.Errorf("lines behind 4: %q, %v; want one", notes, err)
	}
}

// TestJunkHidesNoNote: what others put before ours, under any name, and copies of ours under other names are passed over.
func TestJunkHidesNoNote(t *testing.T) {
	line := func(n int) string { return fmt.Sprintf("z4j-line/x/y\n%d\nx\n\n— x y\n", n) }
	ours := func(note string) bool { return !strings.Contains(note, "junk") }
	for name, a := range anchors(t) {
		ctx, now := context.Background(), time.Now()
		for _, n := range []int{7, 8} {
			if err := errors.Join(a.putCheckpoint(ctx, someHistory, int64(n), now, noteOf(n)), a.putLine(ctx, someHistory, int64(n), 0, line(n))); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 130 {
			note := strings.Replace(noteOf(1000+i), "\n\n", "\njunk\n\n", 1)
			if i > 5 && name == "bucket" {
				break
			}
			if err := errors.Join(a.putCheckpoint(ctx, someHistory, int64(1000+i), now, note), a.putLine(ctx, someHistory, int64(1000+i), 0, strings.Replace(line(1000+i), "\nx\n", "\njunk\n", 1))); err != nil {
				t.Fatal(err)
			}
		}
		if b, ok := a.(*bucketAnchor); ok {
			for _, junk := range []string{"0", "0000000000000001", "a", down(2000)} {
				for _, kind := range []string{"/checkpoints/", "/lines/"} {
					if err := b.put(ctx, someHistory.path()+kind+junk, noteOf(7)); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if notes, err := a.checkpoints(ctx, someHistory, 1<<50, ours); err != nil || largest(notes) != 8 {
			t.Errorf("%s: the newest checkpoint is of %d, %v; want 8", name, largest(notes), err)
		}
		if last, err := a.lastLine(ctx, someHistory, ours); err != nil || last != 8 {
			t.Errorf("%s: the last line is of %d, %v; want 8", name, last, err)
		}
		notes, err := a.lines(ctx, someHistory, 6)
		for _, want := range []string{line(7), line(8)} {
			if err != nil || !slices.Contains(notes, want) {
				t.Errorf("%s: lines %q, %v; want ours among them", name, notes, err)
			}
		}
	}
}

// TestTornLineSpoilsNoOther: a write that a power cut ended half-way is passed over, and the next note stands for itself.
func TestTornLineSpoilsNoOther(t *testing.T) {
	a := &fileAnchor{dir: t.TempDir()}
	ctx, now := context.Background(), time.Now()
	if err := a.putCheckpoint(ctx, someHistory, 1, now, noteOf(1)); err != nil {
		t.Fatal(err)
	}
	files, err := a.files(someHistory)
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v; want one", files, err)
	}
	whole, err := json.Marshal(noteOf(2))
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) {
		if err := os.WriteFile(files[0], append(slices.Clone(before), whole[:cut]...), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := a.putCheckpoint(ctx, someHistory, 3, now, noteOf(3)); err != nil {
			t.Fatal(err)
		}
		notes, err := a.checkpoints(ctx, someHistory, 1<<50, anyNote)
		if err != nil || !slices.Equal(notes, []string{noteOf(3), noteOf(1)}) {
			t.Fatalf("a line cut after %d bytes: %d notes, %v; want the two whole ones", cut, len(notes), err)
		}
	}
	info, err := os.Stat(files[0])
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

// TestMissingDirectoryIsAnAlert: one that should be mounted is not made, so that nothing goes below the mount.
func TestMissingDirectoryIsAnAlert(t *testing.T) {
	a := &fileAnchor{dir: filepath.Join(t.TempDir(), "mount")}
	if err := a.putCheckpoint(context.Background(), someHistory, 1, time.Now(), noteOf(1)); err == nil {
		t.Error("written into a directory that is not there, want an error")
	}
	if _, err := a.checkpoints(context.Background(), someHistory, 9, anyNote); err == nil {
		t.Error("read from a directory that is not there, want an error")
	}
}

// TestGraceOfAFailover measures what is lost between the anchor and the log of the standby.
func TestGraceOfAFailover(t *testing.T) {
	const second = 1_000_000
	at := func(size, seconds int64) audit.Checkpoint {
		return audit.Checkpoint{Size: size, Time: seconds * second, Timeline: 1}
	}
	c := New(Options{Now: time.Now, Grace: store.Grace{Time: time.Minute, Entries: 1000}})
	for _, tt := range []struct {
		name           string
		local          opinion
		head, ts       int64
		timeline       int64
		higher, within bool
	}{
		{"ten entries of ten seconds", opinion{standing: Behind, newest: at(110, 1010)}, 100, 1000, 2, true, true},
		{"a thousand", opinion{standing: Behind, newest: at(1100, 1010)}, 100, 1000, 2, true, true},
		{"a thousand and one", opinion{standing: Behind, newest: at(1101, 1010)}, 100, 1000, 2, true, false},
		{"a minute", opinion{standing: Behind, newest: at(110, 1060)}, 100, 1000, 2, true, true},
		{"more than a minute", opinion{standing: Behind, newest: at(110, 1061)}, 100, 1000, 2, true, false},
		{"on the same timeline", opinion{standing: Behind, newest: at(110, 1010)}, 100, 1000, 1, false, true},
		{"grown again", opinion{standing: Against, newest: at(110, 1010), agreed: at(90, 990)}, 200, 1100, 2, true, true},
		{"grown again, and nothing known to agree", opinion{standing: Against, newest: at(110, 1010)}, 200, 1100, 2, true, false},
		{"of a history that is not named", opinion{standing: Unnamed, newest: at(110, 1010)}, 100, 1000, 2, true, false},
	} {
		var s Situation
		c.measure(&s, &tt.local, &chainState{head: audit.Row{Seq: tt.head, TS: tt.ts * second}}, store.Place{Timeline: tt.timeline})
		if s.Higher != tt.higher || s.Within != tt.within {
			t.Errorf("%s: higher %t, within %t; want %t, %t", tt.name, s.Higher, s.Within, tt.higher, tt.within)
		}
	}
}

// TestAnchorsOnTheVolumeOfTheDatabase: a second name for a file is the same volume, and what is not there is on none.
func TestAnchorsOnTheVolumeOfTheDatabase(t *testing.T) {
	home := t.TempDir()
	database := filepath.Join(home, "brain.db")
	for _, err := range []error{os.WriteFile(database, nil, 0o600), os.Symlink(database, filepath.Join(home, "link"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c := New(Options{Home: home, Now: time.Now})
	if l := c.Local(database); !l.Missing || l.OnVolume || l.Path != filepath.Join(home, "anchors") {
		t.Errorf("not begun: %+v, want missing", l)
	}
	if err := os.Mkdir(filepath.Join(home, "anchors"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, database string
		on             bool
	}{
		{"beside it", database, true},
		{"by another name", filepath.Join(home, "link"), true},
		{"a database that is no file", "", false},
		{"a file that is not there", filepath.Join(home, "none.db"), false},
		{"on another volume", "/proc/self/status", false},
	} {
		if l := c.Local(tt.database); l.Missing || l.OnVolume != tt.on {
			t.Errorf("%s: %+v, want %t", tt.name, l, tt.on)
		}
	}
	if l := New(Options{Now: time.Now}).Local(database); l != (Local{}) {
		t.Errorf("without a home: %+v, want nothing", l)
	}
}
