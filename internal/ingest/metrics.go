package ingest

import (
	"time"

	"github.com/z4j-go/z4j/internal/fold"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/metrics"
	"github.com/z4j-go/z4j/internal/store"
)

// eventKey is what events are counted by.
type eventKey struct {
	project      id.ID
	engine, kind string
}

// show counts what one group's commit changed. The states and run times are the differences that the rollups got, so that
// a repeated event counts once; a difference that takes something back can't be shown by a counter and is left out.
func show(m *metrics.Metrics, writes *store.IngestWrites, took time.Duration) {
	if m == nil {
		return
	}
	m.IngestCommit(took)
	events := map[eventKey]int{}
	for i := range writes.Events {
		e := &writes.Events[i]
		events[eventKey{e.Project, e.Engine, e.Kind}]++
	}
	for k, n := range events {
		m.EventIngested(k.project.String(), k.engine, k.kind, n)
	}
	for i := range writes.DeadLetters {
		m.DeadLetter(writes.DeadLetters[i].Project.String(), writes.DeadLetters[i].Reason)
	}
	for i := range writes.Rollups {
		d := &writes.Rollups[i]
		measure := uint16(d.Measure)
		switch {
		case d.Count <= 0:
		case measure >= fold.MeasureTask && measure < fold.MeasureOutcome:
			m.TaskState(d.Project.String(), d.Name, fold.State(measure-fold.MeasureTask).String(), int(d.Count))
		case measure >= fold.MeasureRun:
			m.TaskDuration(d.Project.String(), d.Name, time.Duration(d.Sum/d.Count)*time.Microsecond, int(d.Count))
		}
	}
}
