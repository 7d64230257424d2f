package app_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/app/apptest"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// The field cases are faults that people met with task queues and their monitors. Each is played through the front door:
// an agent's process sends the case's events as signed frames over a WebSocket, and the REST API is asked what came of
// them. The events are written as the cases write them, one JSON object a line.

func TestMain(m *testing.M) { os.Exit(apptest.Main(m)) }

// noon is when the field cases are played: most happen in the hours before.
var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// field is a brain in which cases are played.
type field struct {
	*apptest.Brain // nil where the brain is a process of its own

	Client   *apptest.Client
	Clock    *apptest.Clock
	Base     string // where the brain listens
	Database string // its URL
	lanes    int
}

func (f *field) dialect() string {
	kind, _, _ := strings.Cut(f.Database, ":")
	return kind
}

// play runs fn on a fresh brain on each database, with a clock that shows at.
func play(t *testing.T, at time.Time, fn func(t *testing.T, f *field)) {
	t.Helper()
	playWith(t, at, nil, fn)
}

func playWith(t *testing.T, at time.Time, environ []string, fn func(t *testing.T, f *field)) {
	t.Helper()
	t.Parallel()
	storetest.EachURL(t, func(t *testing.T, url string) {
		clock := apptest.NewClock(at)
		b := apptest.Start(t, apptest.Options{Database: url, Environ: append([]string{"Z4J_METRICS_PUBLIC=true"}, environ...), Now: clock.Now})
		f := &field{Brain: b, Client: b.Client, Clock: clock, Base: b.URL(), Database: url}
		f.Client.Login(apptest.Email, apptest.Password)
		fn(t, f)
	})
}

// lane is a project of its own in which one order of a case is played.
type lane struct {
	*apptest.Process
	slug  string
	t     testing.TB
	field *field
}

// lane makes a project with an agent and connects one process of it.
func (f *field) lane(t testing.TB, hello map[string]any) *lane {
	t.Helper()
	f.lanes++
	slug := "lane-" + strconv.Itoa(f.lanes)
	f.Client.Project(slug)
	l := &lane{Process: f.Client.Mint(slug, "agent", f.Clock.Now).Process(t, hello), slug: slug, t: t, field: f}
	l.Connect(f.Base)
	return l
}

// at moves the clock to a time of the case, and if it went far, process and client connect anew.
func (l *lane) at(at time.Time) {
	l.t.Helper()
	far := at.Sub(l.field.Clock.Now()) > 10*time.Second
	l.field.Clock.Set(at)
	if far {
		l.field.Client.Login(apptest.Email, apptest.Password)
		l.Connect(l.field.Base)
	}
}

// tell sends lines as one batch and waits for the ack.
func (l *lane) tell(lines string) {
	l.t.Helper()
	l.Send(events(l.t, lines, noon)...)
	l.Settle()
}

// events makes wire events of a case's lines. T is what T+n counts from.
func events(t testing.TB, lines string, start time.Time) []string {
	t.Helper()
	var all []string
	for line := range strings.Lines(lines) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		all = append(all, event(t, line, start))
	}
	return all
}

func event(t testing.TB, line string, start time.Time) string {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		t.Fatalf("%v in %s", err, line)
	}
	top := map[string]json.RawMessage{"engine": json.RawMessage(`"celery"`), "task_id": json.RawMessage(`""`)}
	data := map[string]json.RawMessage{}
	for key, value := range m {
		switch key {
		case "kind", "engine", "task_id":
			top[key] = value
		case "name":
			data["task_name"] = value
		case "at":
			top["occurred_at"] = quoted(moment(t, string(value), start).Format("2006-01-02T15:04:05.000000-07:00"))
		case "eta", "expires":
			data[key] = quoted(moment(t, string(value), start).Format("2006-01-02T15:04:05.000000-07:00"))
		default:
			data[key] = value
		}
	}
	top["id"] = quoted(id.Random().String())
	top["data"] = object(data)
	return string(object(top))
}

// object writes members as they are spelled: json.Marshal would mend what is to arrive broken.
func object(m map[string]json.RawMessage) []byte {
	var b bytes.Buffer
	for _, key := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, ",%q:%s", key, m[key])
	}
	if b.Len() == 0 {
		return []byte("{}")
	}
	return append(append([]byte("{"), b.Bytes()[1:]...), '}')
}

func quoted(s string) []byte { return []byte(strconv.Quote(s)) }

// moment reads a time of a case: RFC 3339, or T+n seconds.
func moment(t testing.TB, text string, start time.Time) time.Time {
	t.Helper()
	text = strings.Trim(text, `"`)
	if n, ok := strings.CutPrefix(text, "T"); ok {
		seconds, err := strconv.ParseFloat(n, 64)
		if err != nil {
			t.Fatalf("time %q: %v", text, err)
		}
		return start.Add(time.Duration(seconds * float64(time.Second)))
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return at.UTC()
}

// get asks for a path below the lane's project.
func (l *lane) get(path string) map[string]any {
	l.t.Helper()
	return get(l.t, l.field.Client, "/api/v1/projects/"+l.slug+path)
}

func get(t testing.TB, c *apptest.Client, path string) map[string]any {
	t.Helper()
	m, ok := answer(t, c, path).(map[string]any)
	if !ok {
		t.Fatalf("GET %s: no object", path)
	}
	return m
}

// answer reads an answer with its numbers digit for digit.
func answer(t testing.TB, c *apptest.Client, path string) any {
	t.Helper()
	status, _, raw := c.Try(http.MethodGet, path, nil)
	if status != http.StatusOK {
		t.Fatalf("GET %s: status %d, want 200: %s", path, status, raw)
	}
	return decode(t, raw)
}

func decode(t testing.TB, raw []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return v
}

func taskPath(engine, taskID string) string {
	return "/tasks/" + url.PathEscape(engine) + "/" + url.PathEscape(taskID)
}

// items are the rows of a whole list.
func (l *lane) items(path string) []any {
	l.t.Helper()
	var all []any
	join := "?"
	if strings.Contains(path, "?") {
		join = "&"
	}
	for cursor := ""; ; {
		page := l.get(path + join + "limit=500" + cursor)
		rows, _ := page["items"].([]any)
		all = append(all, rows...)
		next, ok := page["next_cursor"].(string)
		if !ok {
			return all
		}
		cursor = "&cursor=" + url.QueryEscape(next)
	}
}

// bare are the rows of a list that has no envelope.
func (l *lane) bare(path string) []any {
	l.t.Helper()
	rows, ok := answer(l.t, l.field.Client, "/api/v1/projects/"+l.slug+path).([]any)
	if !ok {
		l.t.Fatalf("GET %s: no list", path)
	}
	return rows
}

// has wants got to have every member of want, a JSON text, however deep; lists have to be equally long. Times may be
// written as in the cases.
func has(t testing.TB, what string, got any, want string) {
	t.Helper()
	var lacks []string
	compare(t, "", got, decode(t, []byte(want)), &lacks)
	if len(lacks) > 0 {
		text, err := json.MarshalIndent(got, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		t.Errorf("%s:\n%s\nin %s", what, strings.Join(lacks, "\n"), text)
	}
}

func compare(t testing.TB, path string, got, want any, lacks *[]string) {
	t.Helper()
	differs := func() { *lacks = append(*lacks, fmt.Sprintf("%s: got %v, want %v", path, got, want)) }
	switch want := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			differs()
			return
		}
		for _, key := range slices.Sorted(maps.Keys(want)) {
			value, ok := g[key]
			if !ok {
				value = "(no such member)"
			}
			compare(t, path+"."+key, value, want[key], lacks)
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(want) {
			differs()
			return
		}
		for i := range want {
			compare(t, path+"["+strconv.Itoa(i)+"]", g[i], want[i], lacks)
		}
	case string:
		if got != want && got != when(want) {
			differs()
		}
	default:
		if got != want {
			differs()
		}
	}
}

// when writes a time of a case as the API does; "" if text is none.
func when(text string) string {
	at, err := time.Parse(time.RFC3339Nano, text)
	if n, ok := strings.CutPrefix(text, "T+"); ok {
		var seconds float64
		seconds, err = strconv.ParseFloat(n, 64)
		at = noon.Add(time.Duration(seconds * float64(time.Second)))
	}
	if err != nil {
		return ""
	}
	return at.UTC().Format("2006-01-02T15:04:05.000000Z")
}

// order is one way to deliver a case's events.
type order struct {
	name   string
	change func([]string) []string
	size   int  // events in a frame
	wait   bool // for the ack of each frame, so that each is a commit of its own
	again  bool // everything once more, backwards
	two    bool // from two processes at once, each of which sees everything
}

func orders() []order {
	shuffled := func(seed uint64) func([]string) []string {
		return func(all []string) []string {
			rand.New(rand.NewPCG(seed, 5)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			return all
		}
	}
	same := func(all []string) []string { return all }
	back := func(all []string) []string { slices.Reverse(all); return all }
	return []order{
		{name: "as given, one frame", change: same, size: 1000},
		{name: "as given, a frame each", change: same, size: 1, wait: true},
		{name: "backwards, a frame each", change: back, size: 1, wait: true},
		{name: "shuffled, one frame, twice", change: shuffled(1), size: 1000, again: true},
		{name: "shuffled, two in a frame", change: shuffled(2), size: 2, wait: true},
		{name: "shuffled, a frame each, twice", change: shuffled(3), size: 1, again: true},
		{name: "shuffled, from two processes", change: shuffled(4), size: 1, two: true},
	}
}

func (l *lane) deliver(o order, all []string) {
	l.t.Helper()
	rounds := [][]string{o.change(slices.Clone(all))}
	if o.again {
		round := slices.Clone(rounds[0])
		slices.Reverse(round)
		rounds = append(rounds, round)
	}
	processes := []*apptest.Process{l.Process}
	if o.two {
		hello := maps.Clone(l.Hello)
		delete(hello, "worker_id")
		second := l.Agent.Process(l.t, hello)
		second.Connect(l.field.Base)
		processes = append(processes, second)
	}
	for _, round := range rounds {
		for batch := range slices.Chunk(round, o.size) {
			for _, p := range processes {
				p.Send(batch...)
				if o.wait {
					p.Settle()
				}
			}
		}
	}
	for _, p := range processes {
		p.Settle()
	}
}

// dumps holds what each database answered, to be compared.
type dumps struct {
	mu  sync.Mutex
	all map[string]string
}

func (d *dumps) put(database, dump string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil {
		d.all = map[string]string{}
	}
	d.all[database] = dump
}

// caseOf is a case whose outcome no order of its events may change.
type caseOf struct {
	at     time.Time // when it is played; zero is noon
	lines  string
	engine string // of the tasks; "" is celery
	tasks  []string
	right  func(t testing.TB, l *lane)
}

// anyOrder plays a case in every order on each database: the answers have to be right, and equal.
func anyOrder(t *testing.T, c caseOf) {
	t.Helper()
	if c.at.IsZero() {
		c.at = noon
	}
	if c.engine == "" {
		c.engine = "celery"
	}
	var heard dumps
	t.Cleanup(func() {
		if a, b := heard.all["sqlite"], heard.all["postgres"]; a != "" && b != "" && a != b {
			t.Errorf("the databases differ (-sqlite +postgres):\n%s", cmp.Diff(a, b))
		}
	})
	play(t, c.at, func(t *testing.T, f *field) {
		all := events(t, c.lines, noon)
		first := ""
		for i, o := range orders() {
			if len(all) == 1 && i > 0 {
				break
			}
			l := f.lane(t, nil)
			l.deliver(o, all)
			failed := t.Failed()
			c.right(t, l)
			dump := l.dump(c.engine, c.tasks)
			if i == 0 {
				first = dump
				heard.put(f.dialect(), dump)
			}
			if dump != first {
				t.Errorf("order changes the answers (-as given +%s):\n%s", o.name, cmp.Diff(first, dump))
			}
			if t.Failed() && !failed {
				t.Fatalf("order: %s", o.name)
			}
			l.Close()
		}
	})
}

// dump is all that the API says of tasks, less what is of this receipt.
func (l *lane) dump(engine string, tasks []string) string {
	l.t.Helper()
	var all []any
	for _, task := range tasks {
		heard := l.items("/events?engine=" + engine + "&task_id=" + url.QueryEscape(task))
		slices.SortFunc(heard, func(a, b any) int { // events of one instant are in the order of ids, in which the project's is
			x, y := a.(map[string]any), b.(map[string]any)
			return strings.Compare(fmt.Sprint(x["occurred_at"], x["kind"], x["worker_name"]), fmt.Sprint(y["occurred_at"], y["kind"], y["worker_name"]))
		})
		all = append(all, l.get(taskPath(engine, task)), heard, l.items(taskPath(engine, task)+"/attempts"))
	}
	stats := l.get("/stats?hours=168")
	all = append(all, stats["tasks_by_state"], stats["tasks_failed_24h"], stats["tasks_succeeded_24h"])
	home := l.home()
	all = append(all, home["tasks_24h"], home["failures_24h"])
	strip(all)
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		l.t.Fatal(err)
	}
	return string(text)
}

// strip takes out what belongs to a row, a project or a receipt, not to the facts.
func strip(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			strip(e)
		}
	case map[string]any:
		for _, key := range []string{"id", "project_id", "agent_id", "created_at", "updated_at", "remark_of"} {
			delete(v, key)
		}
		if v["kind"] != nil {
			delete(v, "received_at") // of an event: when it came
		}
		for _, e := range v {
			strip(e)
		}
	}
}

// home is the lane's project on the home page.
func (l *lane) home() map[string]any {
	l.t.Helper()
	projects, _ := get(l.t, l.field.Client, "/api/v1/home/summary")["projects"].([]any)
	for _, p := range projects {
		if p, ok := p.(map[string]any); ok && p["slug"] == l.slug {
			return p
		}
	}
	l.t.Fatalf("the home page has no project %s", l.slug)
	return nil
}

// until waits for what the API is to show.
func (l *lane) until(what string, ok func() bool) {
	l.t.Helper()
	apptest.Until(l.t, what, ok)
}

// task wants a task to have every member of want.
func (l *lane) task(taskID, want string) {
	l.t.Helper()
	l.taskOf("celery", taskID, want)
}

func (l *lane) taskOf(engine, taskID, want string) {
	l.t.Helper()
	has(l.t, taskID, l.get(taskPath(engine, taskID)), want)
}

// found wants a list of tasks to have these task ids, in any order.
func (l *lane) found(query string, want ...string) {
	l.t.Helper()
	got := []string{}
	for _, row := range l.items("/tasks?" + query) {
		got = append(got, fmt.Sprint(row.(map[string]any)["task_id"]))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		l.t.Errorf("tasks?%s: got %v, want %v", query, got, want)
	}
}

// agree wants every number to be that of the rows behind it: by state, in the stats and in lists with that filter.
func (l *lane) agree() {
	l.t.Helper()
	stats := l.get("/stats?hours=168")
	byState, _ := stats["tasks_by_state"].(map[string]any)
	counted, total := map[string]int{}, 0
	for _, row := range l.items("/tasks") {
		counted[fmt.Sprint(row.(map[string]any)["state"])]++
		total++
	}
	for _, state := range []string{"unknown", "pending", "received", "started", "success", "failure", "retry", "revoked", "rejected", "lost"} {
		number := "0"
		if n, ok := byState[state].(json.Number); ok {
			number = n.String()
		}
		if want := strconv.Itoa(counted[state]); number != want {
			l.t.Errorf("stats say %s tasks are %s, want %s: the list has so many", number, state, want)
		}
		if rows := len(l.items("/tasks?state=" + state)); rows != counted[state] {
			l.t.Errorf("tasks?state=%s: %d rows, want %d", state, rows, counted[state])
		}
	}
	has(l.t, "stats", stats, fmt.Sprintf(`{"tasks_total":%d}`, total))
	has(l.t, "list with total", l.get("/tasks?include_total=true&limit=1"), fmt.Sprintf(`{"total_count":%d}`, total))
}
