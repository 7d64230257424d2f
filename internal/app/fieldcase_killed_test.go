package app_test

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/z4j-go/z4j/internal/app/apptest"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// mortal is a field whose brain is a process of its own, which a test may kill.
type mortal struct {
	*field
	t      testing.TB
	home   string
	server *apptest.Server
}

// playMortal is play with a brain that can be killed.
func playMortal(t *testing.T, at time.Time, fn func(t *testing.T, m *mortal)) {
	t.Helper()
	t.Parallel()
	storetest.EachURL(t, func(t *testing.T, url string) {
		m := &mortal{field: &field{Clock: apptest.NewClock(at), Database: url}, t: t, home: filepath.Join(t.TempDir(), "home")}
		m.start()
		fn(t, m)
	})
}

func (m *mortal) start() {
	m.t.Helper()
	m.server = apptest.Serve(m.t, apptest.Options{Database: m.Database, Home: m.home, Environ: []string{"Z4J_METRICS_PUBLIC=true"}}, m.Clock)
	m.Base, m.Client = m.server.URL, m.server.Client
	m.Client.Login(apptest.Email, apptest.Password)
}

// restart kills the brain hard and starts another one on the same database.
func (m *mortal) restart() {
	m.t.Helper()
	m.server.Kill()
	m.start()
}

func TestFieldCaseF24KilledWhileTasksRun(t *testing.T) {
	playMortal(t, noon, func(t *testing.T, m *mortal) {
		l := m.lane(t, nil)
		l.tell(`{"kind":"task.started","task_id":"k1","name":"long.one","queue":"slow","worker":"celery@w2","at":"T+0"}`)
		m.server.Kill()
		if err := l.Ended(); err == nil {
			t.Error("the connection stands, want it broken")
		}
		l.Close()
		buffer := events(t, `
{"kind":"task.succeeded","task_id":"k1","worker":"celery@w2","at":"T+30","result":"done"}
{"kind":"worker.heartbeat","worker":"celery@w2","at":"T+31"}`, noon)
		l.Send(buffer...)
		m.Clock.Set(noon.Add(60 * time.Second))
		m.start()
		l.task("k1", `{"state":"started","worker_name":"celery@w2","attempt_count":1}`)
		l.agree()
		l.Connect(m.Base)
		l.Send(buffer...)
		l.Settle()
		l.task("k1", `{"state":"success","result":"done","finished_at":"T+30","attempt_count":1,"attempts":[{"runtime_ms":30000}]}`)
		has(t, "stats", l.get("/stats"), `{"tasks_succeeded_24h":1,"tasks_by_state":{"success":1},"workers_online":1}`)
		has(t, "home", l.home(), `{"tasks_24h":1,"workers_online":1}`)
		worker, _ := l.bare("/workers")[0].(map[string]any)
		if seen := fmt.Sprint(worker["last_heartbeat"]); seen < when("T+59") {
			t.Errorf("the worker was last seen at %s, want the time of receipt, T+60", seen)
		}
		l.agree()
	})
}

func TestFieldCaseF57NumbersAreThoseOfRows(t *testing.T) {
	playMortal(t, noon.Add(minute), func(t *testing.T, m *mortal) {
		l := m.lane(t, nil)
		running := func(want ...string) {
			l.found("state=started", want...)
			has(t, "stats", l.get("/stats"), `{"tasks_by_state":{"started":`+strconv.Itoa(len(want))+`}}`)
			l.agree()
		}
		const (
			m4     = `{"kind":"task.started","task_id":"m4","name":"j","worker":"celery@n1","at":"T+5"}`
			failed = `{"kind":"task.failed","task_id":"m4","worker":"celery@n1","at":"T+9","exception":"E"}`
		)
		l.tell(`{"kind":"task.succeeded","task_id":"m1","name":"j","worker":"celery@n1","at":"T+0"}`)
		running()
		l.tell(`{"kind":"task.started","task_id":"m2","name":"j","worker":"celery@n1","at":"T+1"}`)
		running("m2")
		l.tell(`{"kind":"task.revoked","task_id":"m2","worker":"celery@n1","at":"T+2","terminated":true,"signum":15}`)
		running()
		l.tell(`{"kind":"task.started","task_id":"m3","name":"j","worker":"celery@n1","at":"T+3"}`)
		running("m3")
		l.tell(`{"kind":"task.retried","task_id":"m3","worker":"celery@n1","at":"T+4","retry_count":1}`)
		running()
		l.tell(m4)
		running("m4")
		m.restart()
		l.Connect(m.Base)
		running("m4")
		for range 3 {
			l.tell(m4)
			running("m4")
		}
		l.tell(failed)
		l.tell(failed)
		running()
		has(t, "stats", l.get("/stats"), `{"tasks_by_state":{"started":0,"success":1,"revoked":1,"retry":1,"failure":1},"tasks_total":4,"tasks_failed_24h":1,"tasks_succeeded_24h":1}`)
		has(t, "home", l.home(), `{"tasks_24h":4,"failures_24h":1}`)
		attempts := 0
		for _, task := range []string{"m1", "m2", "m3", "m4"} {
			attempts += len(l.items(taskPath("celery", task) + "/attempts"))
		}
		if attempts != 4 {
			t.Errorf("attempts: %d, want 4", attempts)
		}
		l.found("worker=celery@n1", "m1", "m2", "m3", "m4")
	})
}

// peak is the most memory that the brain ever had, in bytes; 0 where the system does not tell.
func (m *mortal) peak() int64 {
	m.t.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(m.server.PID()) + "/status")
	if err != nil {
		m.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "VmHWM:")
	fields := strings.Fields(after)
	kilobytes, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		m.t.Fatal(err)
	}
	return kilobytes << 10
}

// raceDetector reports whether this test runs with it.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

func TestFieldCaseF20LargePayloads(t *testing.T) {
	const (
		size        = 900_000
		connections = 4
		each        = 2 // tasks of a connection and round, two frames each
	)
	playMortal(t, noon.Add(time.Hour), func(t *testing.T, m *mortal) {
		l := m.lane(t, nil)
		var processes []*apptest.Process
		for range connections {
			hello := maps.Clone(l.Hello)
			delete(hello, "worker_id")
			p := l.Agent.Process(t, hello)
			p.Connect(m.Base)
			processes = append(processes, p)
		}
		base64 := strings.Repeat("QUJD", size/4)
		deep := strings.Repeat("[", 2000) + strings.Repeat("]", 2000)
		round := func(round int) (slowest time.Duration) {
			var wg sync.WaitGroup
			for c, p := range processes {
				wg.Go(func() {
					for i := range each {
						task := fmt.Sprintf("big-%d-%d-%d", round, c, i)
						p.Send(event(t, `{"kind":"task.received","task_id":"`+task+`","name":"img.seg","queue":"img","worker":"celery@i1","at":"T+1","args":["`+base64+`"],"kwargs":{"deep":"`+deep+`"}}`, noon))
						p.Send(event(t, `{"kind":"task.succeeded","task_id":"`+task+`","worker":"celery@i1","at":"T+2","result":"`+strings.Repeat("é", size/2)+`"}`, noon))
					}
					p.Settle()
				})
			}
			done := make(chan struct{})
			go func() { wg.Wait(); close(done) }()
			for i := 0; ; i++ {
				select {
				case <-done:
					return slowest
				default:
					began := time.Now()
					l.tell(fmt.Sprintf(`{"kind":"task.received","task_id":"small-%d-%d","name":"small","at":"T+1"}`, round, i))
					slowest = max(slowest, time.Since(began))
				}
			}
		}
		slowest := round(1)
		if first := m.peak(); !raceDetector() { // it makes everything ten times as slow and as large
			slowest = max(slowest, round(2), round(3), round(4))
			if grown, sent := m.peak()-first, int64(3*connections*each*2*size); grown > sent*3/4 {
				t.Errorf("another %d MB made the brain's memory grow by %d MB, want less: nothing of them is kept", sent>>20, grown>>20)
			}
		}
		if slowest > 10*time.Second {
			t.Errorf("a small event on another connection waited %v for its ack, want far less", slowest)
		}
		task := l.get(taskPath("celery", "big-1-2-1"))
		has(t, "the one task", task, `{"state":"success","name":"img.seg"}`)
		arg := fmt.Sprint(task["args"].([]any)[0])
		if !strings.HasPrefix(arg, "QUJDQUJD") || !strings.HasSuffix(arg, " more bytes truncated]") || len(arg) > 10_000 {
			t.Errorf("args: %d bytes that end with %q, want a cut text with a mark", len(arg), arg[max(0, len(arg)-60):])
		}
		cut, mark, _ := strings.Cut(arg, "[...")
		if more, _, _ := strings.Cut(mark, " "); more != strconv.Itoa(size-len(cut)) {
			t.Errorf("the mark says %q bytes more after %d, want %d", more, len(cut), size-len(cut))
		}
		result := fmt.Sprint(task["result"])
		cut, _, _ = strings.Cut(result, "[...")
		if strings.Trim(cut, "é") != "" {
			t.Errorf("result: cut inside a character: it ends with %q", cut[len(cut)-4:])
		}
		_, _, raw := m.Client.Try(http.MethodGet, "/api/v1/projects/"+l.slug+"/tasks?limit=500", nil)
		if len(raw) > 500*1024 {
			t.Errorf("list of 500 tasks: %d bytes, want a few hundred KB", len(raw))
		}
		l.items("/events?engine=celery&task_id=big-1-2-1")

		over := processes[0]
		over.SendOdd(odd([]string{event(t, `{"kind":"task.received","task_id":"over","name":"j","at":"T+1","args":["`+strings.Repeat("x", 1<<20)+`"]}`, noon)}, func(s string) string { return s }))
		if err := over.Ended(); websocket.CloseStatus(err) != 4400 {
			t.Errorf("a frame over the limit: %v, want close code 4400", err)
		}
		next := l.Agent.Process(t, maps.Clone(over.Hello)) // the agent drops what is too large, and goes on
		next.Connect(m.Base)
		next.Send(event(t, `{"kind":"task.received","task_id":"next","name":"next","at":"T+1"}`, noon))
		next.Settle()
		l.found("name=next", "next")
		if slices.ContainsFunc(l.items("/refused-events"), func(any) bool { return true }) {
			t.Error("refused events: some, want none")
		}
	})
}
