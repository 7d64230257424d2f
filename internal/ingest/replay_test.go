package ingest_test

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// recorded returns the events of a recorded session, batch by batch, and the time of its last frame.
func recorded(t *testing.T, file string) (batches [][]string, last time.Time) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var line struct {
			Dir, Kind, Raw string
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		if line.Dir != "agent>brain" || line.Kind != "frame" {
			continue
		}
		var frame struct {
			Type    string
			TS      time.Time
			Payload struct{ Events []json.RawMessage }
		}
		if err := json.Unmarshal([]byte(line.Raw), &frame); err != nil || frame.Type != "event_batch" {
			continue
		}
		var batch []string
		for _, e := range frame.Payload.Events {
			batch = append(batch, string(e))
		}
		batches, last = append(batches, batch), frame.TS
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return batches, last
}

// TestRecordedSessions takes what real agents sent forwards, backwards and twice: the rows are the same.
func TestRecordedSessions(t *testing.T) {
	files, err := filepath.Glob("../wire/testdata/sessions/*.jsonl")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d recordings, %v", len(files), err)
	}
	eachLab(t, func(t *testing.T, l *lab) {
		for _, file := range files {
			batches, last := recorded(t, file)
			if len(batches) == 0 {
				continue
			}
			forwards := session("celery")
			l.send(forwards, last, batches...)
			want := l.rowsOf(forwards)

			backwards := session("celery")
			backwards.Agent = forwards.Agent
			turned := slices.Clone(batches)
			slices.Reverse(turned)
			l.send(backwards, last, turned...)
			if diff := cmp.Diff(want, l.rowsOf(backwards)); diff != "" {
				t.Errorf("%s backwards (- forwards, + backwards):\n%s", filepath.Base(file), diff)
			}

			for i, o := range l.send(forwards, last, batches...) {
				if o.Accepted > 0 && !strings.Contains(strings.Join(batches[i], ""), `"schedule.`) {
					t.Errorf("%s again: frame %d adds %d events", filepath.Base(file), i, o.Accepted)
				}
			}
			if diff := cmp.Diff(want, l.rowsOf(forwards)); diff != "" {
				t.Errorf("%s twice (- once, + twice):\n%s", filepath.Base(file), diff)
			}
		}
	})
}
