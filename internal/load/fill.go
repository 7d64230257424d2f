package load

import (
	"context"

	"github.com/z4j-go/z4j/internal/store"
)

// FillOptions is a history for a database.
type FillOptions struct {
	History

	Add    bool                      // to what is there
	Vacuum bool                      // Postgres: vacuum, so that autovacuum does not work into a measurement
	Told   func(phase string)        // nil, or hears what is done now
	Done   func(tasks, events int64) // nil, or hears how far it is
}

// Fill writes the history into the database. store.ErrNotEmpty says that there are tasks, and Add was not wished.
func Fill(ctx context.Context, s *store.Store, o FillOptions) (store.Filled, error) {
	p, err := newPast(o.History)
	if err != nil {
		return store.Filled{}, err
	}
	return s.Fill(ctx, store.FillOptions{
		Projects: p.projects, Agents: p.agents, Parts: p.parts(), From: p.from, To: p.until, Since: p.since, Add: o.Add, Vacuum: o.Vacuum, Told: o.Told, Done: o.Done,
		Maker: func() func(int, *store.IngestWrites) { return newMaker(p).part },
	})
}
