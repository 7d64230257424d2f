package backup

import (
	"fmt"
	"hash/maphash"
	"slices"

	"github.com/z4j-go/z4j/internal/store"
)

// agreement checks, in whatever order rows come and with little memory, that every attempt has its task and every task as
// many attempts as it says, and that the counts of tasks by state are those of the tasks.
//
// Sets too large to keep are compared by sums of hashes with a seed of this process: a missing or strange row changes them
// but for a chance of 2^-64, and since the seed is not known, not even somebody who tries hits it.
type agreement struct {
	seed     maphash.Seed
	tasks    uint64 // sum over tasks of attempts × hash of the task
	attempts uint64 // sum over attempts of the hash of their task
	said     int64  // attempts, as the tasks say
	found    int64  // attempts
	states   map[stateOf]int64
	counted  map[stateOf]int64
}

// stateOf is a state of tasks in a project.
type stateOf struct {
	project [16]byte
	state   int64
}

func newAgreement(seed maphash.Seed) *agreement {
	return &agreement{seed: seed, states: map[stateOf]int64{}, counted: map[stateOf]int64{}}
}

func (a *agreement) merge(b *agreement) {
	a.tasks += b.tasks
	a.attempts += b.attempts
	a.said += b.said
	a.found += b.found
	for k, n := range b.states {
		a.states[k] += n
	}
	for k, n := range b.counted {
		a.counted[k] += n
	}
}

// rows returns what takes the rows of a table; nil: it tells nothing.
func (a *agreement) rows(table string, columns []store.Column) func(cells []store.Cell) {
	at := func(name string) int { return columnOf(columns, name) }
	project, key, engine := at("project_id"), at("task_key"), at("engine")
	switch table {
	case "tasks":
		attempts, state := at("attempts"), at("state")
		if min(project, key, engine, attempts, state) < 0 {
			return nil
		}
		return func(cells []store.Cell) {
			n := cells[attempts].Int
			a.said += n
			a.tasks += uint64(n) * a.task(cells[project].Bytes, cells[key].Bytes, cells[engine].Bytes)
			a.states[stateOf{projectOf(&cells[project]), cells[state].Int}]++
		}
	case "attempts":
		if min(project, key, engine) < 0 {
			return nil
		}
		return func(cells []store.Cell) {
			a.found++
			a.attempts += a.task(cells[project].Bytes, cells[key].Bytes, cells[engine].Bytes)
		}
	case "rollup_hours":
		bucket, measure, count := at("bucket"), at("measure"), at("count")
		if min(project, bucket, measure, count) < 0 {
			return nil
		}
		return func(cells []store.Cell) {
			if state, is := store.StateCount(cells[bucket].Int, cells[measure].Int); is {
				a.counted[stateOf{projectOf(&cells[project]), state}] += cells[count].Int
			}
		}
	}
	return nil
}

// projectOf gives the id in a cell; what is none gives zeros.
func projectOf(c *store.Cell) (project [16]byte) {
	copy(project[:], c.Bytes)
	return project
}

func (a *agreement) task(parts ...[]byte) uint64 {
	var h maphash.Hash
	h.SetSeed(a.seed)
	for _, p := range parts {
		_ = h.WriteByte(byte(len(p)))
		_, _ = h.Write(p)
	}
	return h.Sum64()
}

// check says what does not agree.
func (a *agreement) check(without []string) []string {
	left := func(table string) bool { return slices.Contains(without, table) }
	var out []string
	if !left("tasks") && !left("attempts") && (a.tasks != a.attempts || a.said != a.found) {
		out = append(out, fmt.Sprintf("the tasks say that they have %d attempts; there are %d, or they are of other tasks", a.said, a.found))
	}
	if left("tasks") || left("rollup_hours") {
		return out
	}
	for k, n := range a.states {
		if counted := a.counted[k]; counted != n {
			out = append(out, fmt.Sprintf("project %x has %d tasks in state %d, and %d are counted", k.project, n, k.state, counted))
		}
		delete(a.counted, k)
	}
	for k, n := range a.counted {
		if n != 0 {
			out = append(out, fmt.Sprintf("project %x has no task in state %d, and %d are counted", k.project, k.state, n))
		}
	}
	slices.Sort(out)
	const most = 20 // of a broken database a few say enough
	return out[:min(len(out), most)]
}
