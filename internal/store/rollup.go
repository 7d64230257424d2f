package store

import (
	"context"
	"slices"
	"time"

	"github.com/z4j-go/z4j/internal/fold"
	"github.com/z4j-go/z4j/internal/id"
)

// counts are sums of rollups by project and measure of package fold.
type counts map[id.ID]map[uint16]int64

// counted is a sum of rollups.
type counted struct {
	project id.ID
	measure int64
	sum     int64
}

// count sums the measures of projects from since on, to the minute. Only measures below the histograms can be asked for.
func (s *Store) count(ctx context.Context, projects []id.ID, measures []uint16, since Time) (counts, error) {
	minute, hour := since.Truncate(time.Minute), since.Truncate(time.Hour)
	if hour.Before(minute) {
		hour = hour.Add(time.Hour) // the first whole hour; the minutes before it are added one by one
	}
	out := counts{}
	for part := range slices.Chunk(projects, projectsAtOnce) {
		err := s.addCounts(ctx, out, "rollup_hours", part, measures, func(w *where) { w.and("bucket >= ?", TimeOf(hour)) })
		if err == nil && minute.Before(hour) {
			err = s.addCounts(ctx, out, "rollup_minutes", part, measures, func(w *where) { w.and("bucket >= ? AND bucket < ?", TimeOf(minute), TimeOf(hour)) })
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// countNow sums measures of tasks by state, as they stand now, of one project; narrow may add conditions on name and queue.
func (s *Store) countNow(ctx context.Context, project id.ID, measures []uint16, narrow func(*where)) (map[uint16]int64, error) {
	out := counts{}
	err := s.addCounts(ctx, out, "rollup_hours", []id.ID{project}, measures, func(w *where) {
		w.and("bucket = ?", TimeAt(allTime))
		narrow(w)
	})
	return out[project], err
}

func (s *Store) addCounts(ctx context.Context, out counts, table string, projects []id.ID, measures []uint16, narrow func(*where)) error {
	var w where
	in(&w, "project_id", projects)
	in(&w, "measure", int64s(measures))
	w.and("measure < 128") // the partial index rollup_hours_counts
	narrow(&w)
	rows, err := s.read.QueryContext(ctx, `SELECT project_id, measure, CAST(sum(count) AS bigint) FROM `+table+w.sql.String()+` GROUP BY project_id, measure`, w.args...)
	found, err := collect(rows, err, func(c *counted) []any { return []any{&c.project, &c.measure, &c.sum} })
	for _, c := range found {
		if out[c.project] == nil {
			out[c.project] = map[uint16]int64{}
		}
		out[c.project][uint16(c.measure)] += c.sum
	}
	return err
}

func int64s(list []uint16) []int64 {
	out := make([]int64, len(list))
	for i, v := range list {
		out[i] = int64(v)
	}
	return out
}

// taskStates are the measures of tasks by state.
func taskStates() []uint16 {
	var list []uint16
	for state := fold.StateUnknown; state <= fold.StateLost; state++ {
		list = append(list, fold.MeasureTask+uint16(state))
	}
	return list
}

// TasksByState counts the tasks of a project by the name of the state that they are in now; every state is there.
func (s *Store) TasksByState(ctx context.Context, project id.ID) (map[string]int64, error) {
	n, err := s.countNow(ctx, project, taskStates(), func(*where) {})
	if err != nil {
		return nil, wrap("count tasks by state", err)
	}
	out := map[string]int64{}
	for state := fold.StateUnknown; state <= fold.StateLost; state++ {
		out[state.String()] = n[fold.MeasureTask+uint16(state)]
	}
	return out, nil
}

// Traffic is what went on in a project since a time.
type Traffic struct {
	Tasks     int64 // first heard of
	Failed    int64 // attempts that failed, without hearsay
	Succeeded int64 // attempts that succeeded
}

// FailureRate is the part of the attempts that failed, of those that failed or succeeded; 0 where there were none.
func (t Traffic) FailureRate() float64 {
	if t.Failed+t.Succeeded == 0 {
		return 0
	}
	return float64(t.Failed) / float64(t.Failed+t.Succeeded)
}

// Traffics counts what went on in projects since a time, to the minute, from the rollups.
func (s *Store) Traffics(ctx context.Context, projects []id.ID, since Time) (map[id.ID]Traffic, error) {
	failed, succeeded := fold.MeasureOutcome+uint16(fold.StateFailure), fold.MeasureOutcome+uint16(fold.StateSuccess)
	n, err := s.count(ctx, projects, append(taskStates(), failed, succeeded), since)
	if err != nil {
		return nil, wrap("count traffic", err)
	}
	out := make(map[id.ID]Traffic, len(projects))
	for _, p := range projects {
		t := Traffic{Failed: n[p][failed], Succeeded: n[p][succeeded]}
		for _, m := range taskStates() {
			t.Tasks += n[p][m]
		}
		out[p] = t
	}
	return out, nil
}

// LastActivities returns, for those of projects in which anything ever happened, the minute of the newest fact about a task.
func (s *Store) LastActivities(ctx context.Context, projects []id.ID) (map[id.ID]Time, error) {
	type row struct {
		project id.ID
		last    *Time
	}
	out := map[id.ID]Time{}
	for part := range slices.Chunk(projects, projectsAtOnce) {
		var w where
		in(&w, "id", part)
		rows, err := s.read.QueryContext(ctx, `SELECT id, (SELECT max(bucket) FROM rollup_minutes WHERE project_id = projects.id) FROM projects`+w.sql.String(), w.args...)
		found, err := collect(rows, err, func(r *row) []any { return []any{&r.project, &r.last} })
		if err != nil {
			return nil, wrap("last activities", err)
		}
		for _, r := range found {
			if r.last != nil {
				out[r.project] = *r.last
			}
		}
	}
	return out, nil
}

// CountTasks counts what f finds, from the rollups; nil where they cannot tell: with a search, a worker, a priority or a
// time. f's page counts for nothing.
func (s *Store) CountTasks(ctx context.Context, f TaskFilter) (*int64, error) {
	if f.Search != "" || f.Worker != "" || len(f.Priorities) > 0 || f.Since != nil || f.Until != nil {
		return nil, nil //nolint:nilnil // unknown is an answer here
	}
	measures := taskStates()
	if f.State != nil {
		measures = []uint16{fold.MeasureTask + uint16(*f.State)}
	}
	var names []string
	if f.Name != "" {
		var complete bool
		var err error
		if names, complete, err = s.taskNames(ctx, f.Project, f.Name); err != nil || !complete || len(names) > projectsAtOnce {
			return nil, wrap("count tasks", err)
		}
	}
	n, err := s.countNow(ctx, f.Project, measures, func(w *where) {
		if f.Name != "" {
			in(w, "name", names)
		}
		if f.Queue != "" {
			w.and("queue = ?", f.Queue)
		}
	})
	if err != nil {
		return nil, wrap("count tasks", err)
	}
	total := int64(0)
	for _, v := range n {
		total += v
	}
	return &total, nil
}

// StateCount reports whether a row of rollup_hours, with this bucket in µs and this measure, counts the tasks that are in
// a state now, and in which.
func StateCount(bucket, measure int64) (state int64, is bool) {
	state = measure - int64(fold.MeasureTask)
	return state, bucket == allTime && state >= int64(fold.StateUnknown) && state <= int64(fold.StateLost)
}
