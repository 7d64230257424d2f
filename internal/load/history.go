package load

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/z4j-go/z4j/internal/fold"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

// History says what history is made up. The same values give the same tasks.
type History struct {
	Tasks     int64
	Days      int // before Until
	Projects  int
	Engines   []string // one agent of each in every project
	Seed      uint64
	EventSize int // bytes of an event's data, about
	Until     time.Time
}

// Limits of a history.
const (
	maxDays     = 3650
	maxProjects = 1000
	maxTasks    = 10_000_000_000
	minEvent    = 100
	maxEvent    = 8000 // longer texts are cut by the brain
)

func (h *History) check() error {
	switch {
	case h.Tasks < 1 || h.Tasks > maxTasks:
		return fmt.Errorf("--tasks must be 1 to %d", int64(maxTasks))
	case h.Days < 1 || h.Days > maxDays:
		return fmt.Errorf("--days must be 1 to %d", maxDays)
	case h.Projects < 1 || h.Projects > maxProjects:
		return fmt.Errorf("--projects must be 1 to %d", maxProjects)
	case h.EventSize < minEvent || h.EventSize > maxEvent:
		return fmt.Errorf("--event-size must be %d to %d bytes", minEvent, maxEvent)
	case len(h.Engines) == 0:
		return fmt.Errorf("--engines must name one at least")
	}
	return nil
}

// partTasks is how many tasks are made up, written and committed at once: some 10 MB.
const partTasks = 5000

// workersEach is how many workers an agent tells of.
const workersEach = 12

// past is a history that can be written part by part.
type past struct {
	History

	from, until int64 // µs
	projects    []store.Project
	agents      []store.FilledAgent
	reporters   []*reporter
	picks       []int     // a reporter's index as often as it comes
	minutes     []float64 // how much of the tasks has come by the end of each minute, 0 to 1
	words       []byte
}

// pastNames is the namespace of a filled database's projects and agents: who fills it again finds them there.
var pastNames = id.ID{0x5d, 0x2a, 0x1f, 0x0c, 0x7e, 0x31, 0x4b, 0x86, 0x9a, 0x44, 0x0e, 0x93, 0x6c, 0x58, 0x21, 0xd7}

func newPast(h History) (*past, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	p := &past{History: h, until: h.Until.UnixMicro(), words: words(h.Seed)}
	p.from = h.Until.AddDate(0, 0, -h.Days).UnixMicro()
	for i := range h.Projects {
		slug := fmt.Sprintf("fill-%d", i+1)
		project := store.Project{
			ID: id.Named(pastNames, []byte(slug)), Slug: slug, Name: fmt.Sprintf("Filled %d", i+1), Environment: "production", Timezone: "UTC", IsActive: true,
			DefaultSchedulerOwner: "z4j-scheduler", CreatedAt: store.TimeAt(p.from), UpdatedAt: store.TimeAt(p.from),
		}
		p.projects = append(p.projects, project)
		for _, name := range h.Engines {
			e, err := engineOf(name)
			if err != nil {
				return nil, err
			}
			r := newReporter(i, e, workersEach)
			r.project, r.agent = project.ID, id.Named(project.ID, []byte(name))
			for range max(1, 12/(i+1)) { // the first project is the largest
				p.picks = append(p.picks, len(p.reporters))
			}
			p.reporters = append(p.reporters, r)
			p.agents = append(p.agents, store.FilledAgent{ID: r.agent, Project: project.ID, Name: slug + "-" + name, Engine: name, Created: p.from, Seen: p.until})
		}
	}
	p.spread()
	return p, nil
}

// spread makes days and weeks: a trough at night, half as much on weekends, and minutes that differ.
func (p *past) spread() {
	const minute = 60_000_000
	n := int((p.until - p.from) / minute)
	p.minutes = make([]float64, n)
	total := 0.0
	noise := newTeller(p.Seed, math.MaxUint64, p.words, 0)
	for i := range p.minutes {
		at := time.UnixMicro(p.from + int64(i)*minute).UTC()
		hour := float64(at.Hour()) + float64(at.Minute())/60
		weight := 1 + 0.7*math.Sin((hour-9)/24*2*math.Pi)
		if day := at.Weekday(); day == time.Saturday || day == time.Sunday {
			weight /= 2
		}
		total += weight * (0.8 + 0.4*noise.random.Float64())
		p.minutes[i] = total
	}
	for i := range p.minutes {
		p.minutes[i] /= total
	}
}

// at is when the share of all tasks has come.
func (p *past) at(share float64) int64 {
	const minute = 60_000_000
	i := min(sort.SearchFloat64s(p.minutes, share), len(p.minutes)-1)
	before := 0.0
	if i > 0 {
		before = p.minutes[i-1]
	}
	return p.from + int64(i)*minute + int64((share-before)/(p.minutes[i]-before)*(minute-1))
}

func (p *past) parts() int { return int((p.Tasks + partTasks - 1) / partTasks) }

// since is the time before which nothing of a part, or of a later one, counts.
func (p *past) since(part int) int64 {
	if part >= p.parts() {
		return math.MaxInt64
	}
	return p.at(float64(int64(part)*partTasks) / float64(p.Tasks))
}

// process names an agent's one process; its start.
func (p *past) process(r *reporter) (workerID string, started int64) {
	return r.engine.name + "-1", p.from - 60_000_000
}

// senderOf names the process to the fold as ingest does.
func (p *past) senderOf(r *reporter) fold.Sender {
	h := fnv.New64a()
	worker, started := p.process(r)
	h.Write(r.agent[:])
	h.Write([]byte(worker))
	return fold.Sender{ID: h.Sum64(), Started: started}
}

// counter names a row of the rollups within a part.
type counter struct {
	bucket         int64
	reporter, kind int32
	measure        uint16
}

type counted struct {
	count, sum  int64
	name, queue string
}

// maker makes parts. It belongs to one goroutine; a part's rows are good until the next one is made.
type maker struct {
	past *past

	teller   *teller
	history  fold.History
	result   fold.Result
	adds     []fold.Contribution
	counters map[counter]*counted
	spare    []counted
	senders  []fold.Sender
	seen     [][]span // by reporter and worker
	ids      []byte
	marks    []byte
	find     func(fold.MarkKey) *fold.Payload
}

// span is from the first sign of life to the last, in µs; zero for none.
type span struct{ first, last int64 }

func newMaker(p *past) *maker {
	m := &maker{past: p, counters: map[counter]*counted{}}
	for _, r := range p.reporters {
		m.senders = append(m.senders, p.senderOf(r))
		m.seen = append(m.seen, make([]span, len(r.workers)+len(r.kinds))) // its workers, then its kinds' queues
	}
	m.find = m.payload
	return m
}

// payload finds what the end of a name carries, in the steps of the task at hand.
func (m *maker) payload(k fold.MarkKey) *fold.Payload {
	for i := range m.teller.n {
		if s := &m.teller.steps[i]; s.kind == k.Kind && s.at == k.At {
			return &s.payload
		}
	}
	return nil
}

// part makes up a part. What w holds is written over.
func (m *maker) part(part int, w *store.IngestWrites) {
	p := m.past
	first := int64(part) * partTasks
	n := int(min(partTasks, p.Tasks-first))
	arena := []byte(nil)
	if m.teller != nil {
		arena = m.teller.arena[:0]
	}
	m.teller = newTeller(p.Seed, uint64(part), p.words, p.EventSize)
	m.teller.arena = arena
	*w = store.IngestWrites{Events: w.Events[:0], NewTasks: w.NewTasks[:0], Attempts: w.Attempts[:0], Rollups: w.Rollups[:0], Workers: w.Workers[:0], Queues: w.Queues[:0]}
	m.marks = m.marks[:0]
	clear(m.counters)
	m.spare = m.spare[:0]
	for i := range m.seen {
		clear(m.seen[i])
	}
	m.ids = m.ids[:0]
	for range n {
		m.ids = m.teller.taskID(m.ids)
	}
	ids := string(m.ids) // one text for all
	for i := range n {
		share := (float64(first) + float64(i) + m.teller.random.Float64()) / float64(p.Tasks)
		m.task(w, ids[i*36:(i+1)*36], p.at(share))
	}
	m.sums(w)
	slices.SortFunc(w.Events, byTime)
}

// byTime is the order in which ingest writes events.
func byTime(x, y store.EventRow) int {
	if c := bytes.Compare(x.Project[:], y.Project[:]); c != 0 {
		return c
	}
	if x.Occurred != y.Occurred {
		return cmp.Compare(x.Occurred, y.Occurred)
	}
	return bytes.Compare(x.ID[:], y.ID[:])
}

// task makes up one task and everything that ingest would have made of its events.
func (m *maker) task(w *store.IngestWrites, taskID string, at int64) {
	p, t := m.past, m.teller
	which := p.picks[t.random.IntN(len(p.picks))]
	r := p.reporters[which]
	kind := t.tell(r, taskID, at)
	ref := store.TaskRef{Project: r.project, Engine: r.engine.name, Key: fold.TaskKey(r.engine.name, taskID)}
	row := store.TaskRow{TaskRef: ref, TaskID: taskID}
	_, _ = m.history.Decode(ref.Engine, taskID, nil) // an empty one can always be read
	for i := range t.n {
		s := &t.steps[i]
		heard := max(t.heard(s), row.Updated) // an agent sends in order
		if heard > p.until {
			t.n = i // what is not over yet
			break
		}
		mark := fold.Mark{Kind: s.kind, At: s.at, Heard: heard, Worker: s.worker, Sender: m.senders[which], RuntimeUS: s.runtime, Fields: &s.fields}
		if !s.payload.IsZero() {
			mark.Payload = &s.payload
		}
		added := m.history.Add(&mark)
		take(&row, &s.fields, added.Fields)
		if i == 0 {
			row.Created = heard
		}
		row.Updated = heard
		m.alive(which, s, heard)
		w.Events = append(w.Events, store.EventRow{
			Project: r.project, ID: fold.EventID(r.project, ref.Engine, taskID, mark.Key()), Agent: r.agent, HasTask: true, TaskKey: ref.Key,
			Occurred: s.at, Received: heard, Engine: ref.Engine, TaskID: taskID, Kind: s.kind.String(), Worker: s.worker, Payload: s.data,
		})
	}
	if t.n == 0 {
		return
	}
	fold.FoldInto(&m.result, &m.history, nil)
	from := len(m.marks)
	m.marks = m.history.Append(m.marks, nil)
	row.Marks = m.marks[from:len(m.marks):len(m.marks)]
	m.fill(&row)
	w.NewTasks = append(w.NewTasks, row)
	for i := range m.result.Attempts {
		a := &m.result.Attempts[i]
		w.Attempts = append(w.Attempts, store.AttemptRow{
			TaskRef: ref, Number: a.Number, State: int16(a.State), Started: a.StartedAt, Finished: a.FinishedAt, WaitUS: a.WaitUS, RuntimeUS: a.RuntimeUS,
			Retries: int32(a.Retries), Worker: a.Worker, Payload: store.Payload(a.Payload(m.find)),
		})
	}
	m.count(which, kind, &row)
}

// take puts the fields that a mark replaces into the row.
func take(row *store.TaskRow, f *fold.Fields, which fold.FieldSet) {
	if which.Has(fold.FieldName) {
		row.Name = f.Name
	}
	if which.Has(fold.FieldQueue) {
		row.Queue = f.Queue
	}
	if which.Has(fold.FieldRoot) {
		row.Root = f.Root
	}
	if which.Has(fold.FieldArgs) {
		row.Args = f.Args
	}
	if which.Has(fold.FieldKwargs) {
		row.Kwargs = f.Kwargs
	}
}

// fill puts the fold's outcome into the row.
func (m *maker) fill(row *store.TaskRow) {
	t := &m.result.Task
	var random [10]byte
	binary.BigEndian.PutUint64(random[2:], m.teller.random.Uint64())
	random[0], random[1] = random[3], random[4]
	row.ID = id.With(t.FirstAt, random)
	row.Take(t)
}

// count adds the task to the part's rollups.
func (m *maker) count(which, kind int, row *store.TaskRow) {
	m.adds = fold.Contributions(m.adds[:0], &m.result, row.Name, row.Queue)
	for i := range m.adds {
		c := &m.adds[i]
		k := counter{bucket: c.Bucket, reporter: int32(which), kind: int32(kind), measure: c.Measure}
		sum := m.counters[k]
		if sum == nil {
			if len(m.spare) == cap(m.spare) {
				m.spare = make([]counted, 0, 4096) // the full one lives on in the map
			}
			m.spare = append(m.spare, counted{name: c.Name, queue: c.Queue})
			sum = &m.spare[len(m.spare)-1]
			m.counters[k] = sum
		}
		sum.count += c.Count
		sum.sum += c.Sum
	}
}

// alive notes the worker and the queue that a step names.
func (m *maker) alive(which int, s *step, heard int64) {
	r := m.past.reporters[which]
	note := func(i int) {
		at := &m.seen[which][i]
		if at.first == 0 || heard < at.first {
			at.first = heard
		}
		at.last = max(at.last, heard)
	}
	if s.worker != "" {
		note(slices.Index(r.workers, s.worker))
	}
	if s.fields.Queue != "" {
		note(len(r.workers) + slices.IndexFunc(r.kinds, func(k kind) bool { return k.queue == s.fields.Queue }))
	}
}

// sums puts the part's rollups and signs of life into w, the first sign and the last of each.
func (m *maker) sums(w *store.IngestWrites) {
	for k, c := range m.counters {
		w.Rollups = append(w.Rollups, store.RollupDelta{
			Project: m.past.reporters[k.reporter].project, Minute: k.bucket, Measure: int16(k.measure), Name: c.name, Queue: c.queue, Count: c.count, Sum: c.sum,
		})
	}
	for i, r := range m.past.reporters {
		for j, at := range m.seen[i] {
			for _, when := range []int64{at.first, at.last} {
				switch {
				case when == 0:
				case j < len(r.workers):
					lead := -r.lags[j]
					w.Workers = append(w.Workers, store.WorkerTouch{Project: r.project, Engine: r.engine.name, Name: r.workers[j], Seen: when, Offset: &lead})
				default:
					w.Queues = append(w.Queues, store.QueueTouch{Project: r.project, Engine: r.engine.name, Name: r.kinds[j-len(r.workers)].queue, Seen: when})
				}
			}
		}
	}
}
