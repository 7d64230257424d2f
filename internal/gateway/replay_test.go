package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coder/websocket"

	"github.com/z4j-go/z4j/internal/gateway"
	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/wire"
)

// recordedDay is when the sessions in wire's testdata were recorded; the tests' clock goes on from the day after.
var recordedDay = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)

// clock is a clock that starts at at.
func clock(at time.Time) func() time.Time {
	began := time.Now()
	return func() time.Time { return at.Add(time.Since(began)) }
}

// frame is what a recording has of an agent's frame.
type frame struct {
	conn    int
	Type    string          `json:"type"`
	ID      string          `json:"id"`
	Payload json.RawMessage `json:"payload"`
}

// recording returns the agent's frames, connection by connection; long-poll has no hello.
func recording(t *testing.T, path string) (conns [][]frame) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	last := ""
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var l struct {
			Dir, Transport, Kind, Raw string
			Conn                      int
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		if l.Kind != "frame" || l.Dir != "agent>brain" {
			continue
		}
		one := frame{conn: l.Conn}
		if err := json.Unmarshal([]byte(l.Raw), &one); err != nil {
			t.Fatalf("%s: %v", l.Raw, err)
		}
		if at := fmt.Sprint(l.Transport, l.Conn); l.Transport == "ws" && at != last || len(conns) == 0 {
			conns = append(conns, nil)
			last = at
		}
		conns[len(conns)-1] = append(conns[len(conns)-1], one)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return conns
}

// startWhole is start with the real ingest, on a clock.
func startWhole(t *testing.T, url string, now func() time.Time) *brain {
	t.Helper()
	st := storetest.Open(t, url)
	w := ingest.New(st, ingest.Options{Now: now})
	w.Start(t.Context())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if err := w.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	b := start(t, url, gateway.Options{Ingest: w, Now: now})
	b.now = now
	return b
}

// replay sends a connection's frames, signed anew, and returns the acks: each frame's, as often as it was sent.
func (b *brain) replay(t *testing.T, frames []frame) (acks map[string][]ackPayload) {
	t.Helper()
	ws, status := b.upgrade(t, b.token)
	if ws == nil {
		t.Fatalf("upgrade: %d", status)
	}
	h := newHello("longpoll")
	if frames[0].Type == wire.TypeHello {
		h = hello{}
		if err := json.Unmarshal(frames[0].Payload, &h); err != nil {
			t.Fatal(err)
		}
		frames = frames[1:]
	}
	p := b.greet(t, ws, h)
	if p.wire == nil {
		t.Fatalf("the recorded hello was refused with %d", p.refused)
	}
	want := 0
	for _, f := range frames {
		if f.Type == wire.TypeEventBatch {
			want++
		}
	}
	acks = map[string][]ackPayload{}
	var reader sync.WaitGroup
	reader.Go(func() {
		for range want {
			f, err := p.answer()
			if err != nil {
				t.Errorf("after %d acks of %d: %v", len(acks), want, err)
				return
			}
			var a ackPayload
			unmarshal(t, f.Payload, &a)
			acks[a.AckedID] = append(acks[a.AckedID], a)
		}
	})
	for _, f := range frames {
		p.send(f.Type, f.ID, string(f.Payload))
	}
	reader.Wait()
	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("close: %v", err)
	}
	return acks
}

// dump returns what the database knows of a project's work, as text.
func (b *brain) dump(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for table, columns := range map[string]string{
		"events":         "id, task_id, kind, engine, occurred_at, received_at, payload",
		"tasks":          "task_id, engine, id, state, name, queue, worker, received_at, started_at, finished_at, attempts, retry_count, deliveries, marks",
		"attempts":       "task_key, number, state, started_at, finished_at, worker, result, exception",
		"task_payloads":  "task_key, mark, payload",
		"rollup_minutes": "bucket, measure, name, queue, count, sum",
		"rollup_hours":   "bucket, measure, name, queue, count, sum",
		"dead_letters":   "reason, detail, frame_id",
	} {
		where := ` WHERE project_id = $1`
		if table == "events" { // an answer to a command that is not ours has the time of its signature
			where += ` AND kind NOT LIKE 'command.%'`
		}
		rows, err := b.sql.QueryContext(t.Context(), `SELECT `+columns+` FROM `+table+where+` ORDER BY `+columns, b.project)
		if err != nil {
			t.Fatal(err)
		}
		names := strings.Split(columns, ", ")
		for rows.Next() {
			values := make([]sql.RawBytes, len(names))
			to := make([]any, len(names))
			for i := range values {
				to[i] = &values[i]
			}
			if err := rows.Scan(to...); err != nil {
				t.Fatal(err)
			}
			var line strings.Builder
			for i, v := range values {
				fmt.Fprintf(&line, "%s=%q ", names[i], v)
			}
			out[table] = append(out[table], line.String())
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestRecordedSessions plays the agent's side of every recording against the real gateway and ingest, twice: every copy
// of every batch is acked by its id, and the second time adds nothing.
func TestRecordedSessions(t *testing.T) {
	files, err := filepath.Glob("../wire/testdata/sessions/*.jsonl")
	if err != nil || len(files) < 12 {
		t.Fatalf("%d recordings, %v; want 12", len(files), err)
	}
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := startWhole(t, url, clock(recordedDay))
		batches, events := 0, 0
		for _, file := range files {
			t.Run(filepath.Base(file), func(t *testing.T) {
				b.project, b.agent, b.token = b.enrol(t)
				b.secret = wire.ProjectSecret(string(storetest.Secrets.Master), b.project)
				var first map[string][]string
				for run := range 2 {
					for _, frames := range recording(t, file) {
						acks := b.replay(t, frames)
						sent, ofTask := map[string]int{}, map[string]bool{}
						for _, f := range frames {
							if f.Type == wire.TypeEventBatch {
								sent[f.ID]++
								ofTask[f.ID] = bytes.Contains(f.Payload, []byte(`"task.`))
								batches++
							}
						}
						for frame, n := range sent {
							if got := acks[frame]; len(got) != n {
								t.Errorf("run %d: %s was sent %d times and acked %d times", run+1, frame, n, len(got))
							}
							for _, a := range acks[frame] {
								if a.Received != a.Accepted+a.Rejected || run > 0 && ofTask[frame] && a.Accepted != 0 {
									t.Errorf("run %d: ack %+v; want received = accepted + rejected, and no event of a task accepted in the second run", run+1, a)
								}
							}
						}
						if len(acks) > len(sent) {
							t.Errorf("run %d: acks for %d ids, %d were sent", run+1, len(acks), len(sent))
						}
					}
					until(t, "the last answers of commands", func() bool { return b.answers(t, recording(t, file), run+1) })
					if run == 0 {
						first = b.dump(t)
						events += len(first["events"])
						continue
					}
					if diff := cmp.Diff(first, b.dump(t)); diff != "" {
						t.Errorf("the second run changed something (-first +second):\n%s", diff)
					}
				}
				if n := len(first["dead_letters"]); n != 0 {
					t.Errorf("%d dead letters, want none: %s", n, first["dead_letters"])
				}
			})
		}
		if batches < 500 || events < 300 {
			t.Errorf("%d batches and %d events in all recordings, want over 500 and 300: the recordings were not read", batches, events)
		}
	})
}

// answers reports whether every command's ack and result of a recording, played as often as runs says, stands among the
// events: nobody answers them, so a reader can't know.
func (b *brain) answers(t *testing.T, conns [][]frame, runs int) bool {
	t.Helper()
	want := 0
	for _, frames := range conns {
		for _, f := range frames {
			if f.Type == wire.TypeCommandAck || f.Type == wire.TypeCommandResult {
				want += runs
			}
		}
	}
	var n int
	err := b.sql.QueryRowContext(t.Context(), `SELECT count(*) FROM events WHERE project_id = $1 AND kind LIKE 'command.%'`, b.project).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n == want
}

// TestRecordedTasks looks at what one recording comes to: names, states, and the processes that were there.
func TestRecordedTasks(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := startWhole(t, url, clock(recordedDay))
		for _, frames := range recording(t, "../wire/testdata/sessions/celery-1.13-ws.jsonl") {
			b.replay(t, frames)
		}
		states := map[string]int{}
		rows, err := b.sql.QueryContext(t.Context(), `SELECT name, count(*) FROM tasks WHERE project_id = $1 GROUP BY name`, b.project)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var name sql.NullString
			var n int
			if err := rows.Scan(&name, &n); err != nil {
				t.Fatal(err)
			}
			if !name.Valid || strings.HasPrefix(name.String, "<unknown") {
				t.Errorf("a task is named %q, want its real name", name.String)
			}
			states[name.String] += n
		}
		if err := rows.Err(); err != nil || len(states) < 3 {
			t.Errorf("tasks by name: %v, %v; want those of the recording", states, err)
		}
		until(t, "the end of the connection with its newest status", func() bool {
			list, err := b.store.AgentWorkers(t.Context(), b.project, store.Offline, store.TimeOf(b.now()), 10)
			if err != nil {
				t.Fatal(err)
			}
			return len(list) == 1 && list[0].Status != nil
		})
	})
}

// TestResentAcrossRestart: what a brain that stopped had not acked comes again and is acked by the next; what it had
// acked is there.
func TestResentAcrossRestart(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		first := startWhole(t, url, time.Now)
		p := first.dial(t, newHello("a"))
		for i := range 50 {
			p.send(wire.TypeEventBatch, fmt.Sprint("ev_", i), event(i))
		}
		acked := map[string]bool{}
		for range 20 {
			f, err := p.answer()
			if err != nil {
				t.Fatal(err)
			}
			var a ackPayload
			unmarshal(t, f.Payload, &a)
			acked[a.AckedID] = true
		}
		if err := p.ws.CloseNow(); err != nil { // the agent loses the rest of the acks
			t.Fatal(err)
		}
		second := start(t, url, gateway.Options{Ingest: first.Options.Ingest})
		second.project, second.agent, second.token, second.secret = first.project, first.agent, first.token, first.secret
		p = second.dial(t, newHello("a"))
		for i := range 50 {
			if name := fmt.Sprint("ev_", i); !acked[name] {
				p.send(wire.TypeEventBatch, name, event(i))
			}
		}
		for len(acked) < 50 {
			f, err := p.answer()
			if err != nil {
				t.Fatal(err)
			}
			var a ackPayload
			unmarshal(t, f.Payload, &a)
			acked[a.AckedID] = true
		}
		var tasks int
		if err := first.sql.QueryRowContext(t.Context(), `SELECT count(*) FROM tasks WHERE project_id = $1`, second.project).Scan(&tasks); err != nil || tasks != 50 {
			t.Errorf("tasks: %d, %v; want 50", tasks, err)
		}
	})
}
