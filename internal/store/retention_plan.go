package store

import (
	"context"
	"fmt"
)

// RetentionPlan is what a sweep would do now.
type RetentionPlan struct {
	At    Time           `json:"at"`
	Hold  *RetentionHold `json:"hold"`  // of the whole installation
	Waits string         `json:"waits"` // what a sweep would wait for; "": nothing
	Lines []PlannedRows  `json:"lines"`
	Kept  []KeptTable    `json:"kept"` // tables of which nothing goes by itself
}

// PlannedRows are rows of one table, of one project or, with Project "", of nobody's in particular, that would go.
type PlannedRows struct {
	Table      string   `json:"table"`
	Project    string   `json:"project"`
	Rows       int64    `json:"rows"`
	AtLeast    bool     `json:"at_least"`   // counting stopped there
	Estimated  bool     `json:"estimated"`  // by the database's statistics
	Partitions []string `json:"partitions"` // that would be dropped whole
	Before     Time     `json:"before"`     // the cut-off
	Oldest     *Time    `json:"oldest"`     // of these rows
	Held       string   `json:"held"`       // why they stay all the same; "": they go
}

// KeptTable is a table whose rows have no age.
type KeptTable struct {
	Table string `json:"table"`
	Why   string `json:"why"`
}

// plannedRows is how many rows of a table and project are counted at most.
const plannedRows = 100_000

// PlanRetention tells what Sweep would do now, and changes nothing. It counts no table whole.
func (s *Store) PlanRetention(ctx context.Context, keep Retention) (out RetentionPlan, err error) {
	out = RetentionPlan{At: TimeOf(s.now()), Lines: []PlannedRows{}}
	if out.Hold, err = s.InstallationHold(ctx); err != nil {
		return out, err
	}
	if err := s.maySweep(ctx, out.At); Waits(err) {
		out.Waits = err.Error()
	} else if err != nil {
		return out, err
	}
	rules, err := keep.rules(ctx, s, s.read)
	if err != nil {
		return out, wrap("plan", err)
	}
	for _, p := range policies() {
		lines := []PlannedRows{}
		switch p.kind {
		case byDay:
			lines, err = s.planEvents(ctx, keep, rules, out.At)
		case byTask:
			lines, err = planned(rules, func(r *rule) (PlannedRows, error) { return s.planTasks(ctx, r, out.At) })
		case byAge:
			lines, err = s.planAged(ctx, &p, rules, out.At)
		case forEver, byParent:
			out.Kept = append(out.Kept, KeptTable{p.table, p.why})
		}
		if err != nil {
			return out, wrap("plan "+p.table, err)
		}
		for _, l := range lines {
			if l.Rows > 0 || len(l.Partitions) > 0 {
				l.Table = p.table
				out.Lines = append(out.Lines, l)
			}
		}
	}
	return out, nil
}

// planned asks one for every project.
func planned(rules []rule, one func(*rule) (PlannedRows, error)) ([]PlannedRows, error) {
	var out []PlannedRows
	for i := range rules {
		l, err := one(&rules[i])
		if err != nil {
			return nil, err
		}
		l.Project, l.Held = rules[i].slug, heldText(&rules[i])
		out = append(out, l)
	}
	return out, nil
}

func heldText(r *rule) string {
	if !r.held() {
		return ""
	}
	return "legal hold: " + r.hold
}

// bounded counts up to most rows that the query finds; it selects a time.
func (s *Store) bounded(ctx context.Context, query string, args ...any) (l PlannedRows, err error) {
	var oldest Time
	err = s.read.QueryRowContext(ctx, `SELECT count(*), min(at) FROM (`+query+` LIMIT $`+fmt.Sprint(len(args)+1)+`) AS some_rows`, append(args, plannedRows+1)...).
		Scan(&l.Rows, &oldest)
	if l.AtLeast = l.Rows > plannedRows; l.AtLeast {
		l.Rows = plannedRows
	}
	if l.Rows > 0 {
		l.Oldest = &oldest
	}
	return l, err
}

func (s *Store) planAged(ctx context.Context, p *policy, rules []rule, now Time) ([]PlannedRows, error) {
	now, err := s.timeOf(ctx, p, now)
	if err != nil {
		return nil, err
	}
	one := func(r *rule) (PlannedRows, error) {
		c, column := p.where(r, now), p.column
		if p.isID {
			column = "received_at"
		}
		l, err := s.bounded(ctx, `SELECT `+column+` AS at FROM `+p.table+c.sql.String(), c.args...)
		l.Before = cut(now, p.days(r))
		return l, err
	}
	if !p.global {
		return planned(rules, one)
	}
	l, err := one(&rule{})
	return []PlannedRows{l}, err
}

// planTasks walks a project's tasks as the sweep does, up to a bound.
func (s *Store) planTasks(ctx context.Context, r *rule, now Time) (l PlannedRows, err error) {
	cuts := r.taskCuts(now)
	var c where
	c.and("project_id = ?", r.project)
	c.and("id < ?", idFloor(cuts.ended))
	walk := `SELECT last_at, state, eta FROM tasks` + c.sql.String() + ` ORDER BY id LIMIT ` + c.arg(plannedRows+1)
	due := where{args: c.args}
	due.dueTasks(&cuts)
	var walked int64
	var oldest Time
	err = s.read.QueryRowContext(ctx, `WITH walk AS (`+walk+`) SELECT (SELECT count(*) FROM walk), count(*), min(last_at) FROM walk`+due.sql.String(),
		due.args...).Scan(&walked, &l.Rows, &oldest)
	if err == nil && l.Rows > 0 {
		l.Oldest = &oldest
	}
	l.AtLeast, l.Before = walked > plannedRows, cuts.ended
	return l, err
}

func (s *Store) planEvents(ctx context.Context, keep Retention, rules []rule, now Time) ([]PlannedRows, error) {
	rows := []fate{{}}
	var out []PlannedRows
	if s.pool != nil {
		otherwise := keep.rule(&Project{}).events
		whole, rest, err := s.dueEvents(ctx, s.read, rules, now, otherwise)
		if err != nil {
			return nil, err
		}
		l := PlannedRows{Before: eventCut(now, otherwise)}
		for i := range whole {
			if err := s.planPartition(ctx, &l, &whole[i].partition); err != nil {
				return nil, err
			}
		}
		out, rows = append(out, l), rest
	}
	for i := range rows {
		lines, err := planned(rules, func(r *rule) (PlannedRows, error) {
			e := eventRange{"events", TimeAt(0), eventCut(now, r.events)}
			if s.pool != nil {
				e = rows[i].rangeOf(r, now)
			}
			l, err := s.bounded(ctx, `SELECT occurred_at AS at FROM `+e.table+` WHERE project_id = $1 AND occurred_at >= $2 AND occurred_at < $3`, r.project, e.from, e.to)
			l.Before = e.to
			return l, err
		})
		if err != nil {
			return nil, err
		}
		out = append(out, lines...)
	}
	return out, nil
}

// planPartition adds a partition that goes whole to l.
func (s *Store) planPartition(ctx context.Context, l *PlannedRows, p *partition) error {
	n, exact, err := s.countPartition(ctx, p)
	if err != nil {
		return err
	}
	l.Rows += n
	l.Estimated = l.Estimated || !exact
	l.Partitions = append(l.Partitions, p.name)
	if l.Oldest == nil {
		l.Oldest = &p.from // to the day: the oldest partition comes first
	}
	return nil
}
