package fold_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/fold"
)

// frame is a line of a recorded session: what an unmodified agent sent, without signatures.
type frame struct {
	Conn    int
	Session string
	TS      string
	Type    string
	Payload struct {
		WorkerID        string `json:"worker_id"`
		WorkerStartedAt string `json:"worker_started_at"`
		Events          []struct {
			Kind, Engine string
			TaskID       string `json:"task_id"`
			OccurredAt   string `json:"occurred_at"`
			Data         data
		}
	}
}

type data struct {
	TaskName         string `json:"task_name"`
	Queue, Worker    string
	Args, Kwargs     json.RawMessage
	Root             string `json:"root_task_id"`
	Parent           string `json:"parent_task_id"`
	Result           json.RawMessage
	RuntimeMS        *float64 `json:"runtime_ms"`
	Exception        string
	ExceptionMessage string `json:"exception_message"`
	Traceback        string
	Reason           string
	Terminated       bool
	Expired          bool
}

// session reads a recorded session into the marks of its tasks.
func session(t *testing.T, path string) map[string][]fold.Mark {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tasks := map[string][]fold.Mark{}
	senders := map[string]fold.Sender{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var f frame
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		conn := fmt.Sprint(f.Conn, f.Session)
		if f.Type == "hello" {
			senders[conn] = fold.Sender{ID: hashOf(f.Payload.WorkerID), Started: micros(t, f.Payload.WorkerStartedAt)}
			continue
		}
		if _, known := senders[conn]; !known {
			senders[conn] = fold.Sender{ID: hashOf("long poll"), Started: micros(t, f.TS)}
		}
		for _, e := range f.Payload.Events {
			kind, ok := fold.ParseKind(e.Kind)
			if !ok {
				t.Fatalf("%s: kind %q", path, e.Kind)
			}
			m := fold.Mark{
				Kind: kind, At: micros(t, e.OccurredAt), Heard: micros(t, f.TS), Worker: e.Data.Worker, Sender: senders[conn],
				Expired: e.Data.Expired, Terminated: e.Data.Terminated,
				Fields: &fold.Fields{
					Name: e.Data.TaskName, Queue: e.Data.Queue, Parent: e.Data.Parent, Root: e.Data.Root, Args: e.Data.Args, Kwargs: e.Data.Kwargs,
				},
			}
			if kind >= fold.Failed {
				m.Payload = &fold.Payload{
					Result: e.Data.Result, Exception: e.Data.Exception, ExceptionMessage: e.Data.ExceptionMessage,
					Traceback: e.Data.Traceback, Reason: e.Data.Reason,
				}
			}
			if e.Data.RuntimeMS != nil {
				m.RuntimeUS = fold.Num(int64(*e.Data.RuntimeMS * 1000))
			}
			tasks[e.TaskID] = append(tasks[e.TaskID], m)
		}
	}
	return tasks
}

func micros(t *testing.T, s string) int64 {
	t.Helper()
	v, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return v.UnixMicro()
}

func hashOf(s string) uint64 {
	h := fnv.New128a()
	h.Write([]byte(s))
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// shape says in a word what the fold made of a task: its attempts' states, and the task's.
func shape(b *brain) string {
	var words []string
	for _, a := range b.result.Attempts {
		words = append(words, a.State.String())
	}
	return strings.Join(append(words, "= "+b.result.Task.State.String()), " ")
}

func TestRecordedSessions(t *testing.T) {
	lab := map[string]int{
		"success = success": 6, "failure = failure": 1, "retry success = success": 1, "revoked = revoked": 1, "= received": 1,
	}
	for name, shapes := range map[string]map[string]int{
		"celery-1.6.6-ws":      lab,
		"celery-1.8-ws":        lab,
		"celery-1.10-ws":       lab,
		"celery-1.13-ws":       {"success = success": 8, "failure = failure": 1, "retry success = success": 1, "revoked = revoked": 1, "= received": 2},
		"celery-1.13-longpoll": {"success = success": 6, "failure = failure": 2, "retry success = success": 1, "revoked = revoked": 1, "= received": 1},
		"reconnect-1012-1.13":  {"success = success": 35, "started = started": 1},
		"reconnect-kill-1.13":  {"success = success": 24},
	} {
		t.Run(name, func(t *testing.T) {
			got := map[string]int{}
			for id, marks := range session(t, filepath.Join("testdata", "sessions", name+".jsonl")) {
				b := recorded(t, id, marks)
				got[shape(b)]++
				if n := b.fields[fold.FieldName]; strings.HasPrefix(n, "<unknown") {
					t.Errorf("task %s: got the name %q, want none that begins with <unknown", id, n)
				}
				for i := range b.result.Attempts {
					if a := &b.result.Attempts[i]; a.Worker == "" || a.StartedAt == 0 {
						t.Errorf("task %s: got attempt %d on worker %q from %d, want both known", id, a.Number, a.Worker, a.StartedAt)
					}
				}
			}
			want(t, "tasks by what became of them", got, shapes)
		})
	}
}

// recorded folds a task's marks forwards, backwards and twice, mark by mark, and fails unless all give the same.
func recorded(t *testing.T, id string, marks []fold.Mark) *brain {
	t.Helper()
	all := whole(t, "celery", id, marks, nil)
	each := func(how string, orders ...[]fold.Mark) {
		b := newBrain("celery", id, nil)
		for _, order := range orders {
			for i := range order {
				b.take(t, order[i:i+1])
			}
		}
		b.equal(t, all, how)
	}
	backwards := slices.Clone(marks)
	slices.Reverse(backwards)
	each("forwards", marks)
	each("backwards", backwards)
	each("twice", marks, marks)
	each("forwards and backwards", marks, backwards)
	return all
}
