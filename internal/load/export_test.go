package load

import "github.com/z4j-go/z4j/internal/store"

// Reporter is an agent's process in a made-up history.
type Reporter struct {
	Engine, WorkerID string
	Started          int64
}

// Parts makes up a whole history: its events, part by part, and the processes of its agents.
func Parts(h History) ([][]store.EventRow, map[[16]byte]Reporter, error) {
	p, err := newPast(h)
	if err != nil {
		return nil, nil, err
	}
	processes := map[[16]byte]Reporter{}
	for _, r := range p.reporters {
		worker, started := p.process(r)
		processes[r.agent] = Reporter{r.engine.name, worker, started}
	}
	var parts [][]store.EventRow
	for i := range p.parts() {
		var w store.IngestWrites
		newMaker(p).part(i, &w)
		parts = append(parts, w.Events)
	}
	return parts, processes, nil
}

// PartTasks is how many tasks a part has.
const PartTasks = partTasks

// Make makes up the first parts of a history.
func Make(h History, parts int) error {
	p, err := newPast(h)
	if err != nil {
		return err
	}
	m := newMaker(p)
	var w store.IngestWrites
	for i := range parts {
		m.part(i, &w)
	}
	return nil
}
