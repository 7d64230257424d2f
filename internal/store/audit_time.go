package store

import (
	"context"
	"slices"
	"sort"
)

// Times of entries never go back from one number to the next, but where the clock did by more than some minutes, which
// the entry's body says and an index knows. So the log is some runs of numbers, mostly one, in each of which a time is
// found by halving, however long the log is.

const (
	clockSteps = `SELECT seq FROM audit_log WHERE {stepped} AND seq > $1 AND seq <= $2 ORDER BY seq`
	rowFrom    = `SELECT seq, ts FROM audit_log WHERE seq >= $1 ORDER BY seq LIMIT 1`
	rowUpTo    = `SELECT seq, ts FROM audit_log WHERE seq <= $1 ORDER BY seq DESC LIMIT 1`
)

// stamp is the number of an entry and its time. The zero stamp is of none.
type stamp struct {
	seq int64
	ts  Time
}

// auditTimes finds entries by their time.
type auditTimes struct {
	store  *Store
	begins []int64 // of the runs
	end    int64   // behind the last
}

// auditTimes reads where the runs begin, between the entries with these numbers.
func (s *Store) auditTimes(ctx context.Context, lowest, highest int64) (*auditTimes, error) {
	rows, err := s.read.QueryContext(ctx, s.sql(clockSteps), lowest, highest)
	steps, err := collect(rows, err, func(seq *int64) []any { return []any{seq} })
	return &auditTimes{store: s, begins: append([]int64{lowest}, steps...), end: highest + 1}, wrap("read where the clock went back", err)
}

// auditWindow returns, of the entries with these numbers, the first of from or later and the last before to; nil is no
// limit. 0: there is none.
func (s *Store) auditWindow(ctx context.Context, lowest, highest int64, from, to *Time) (first, last int64, err error) {
	first, last = lowest, highest
	times, err := s.auditTimes(ctx, lowest, highest)
	if err == nil && from != nil {
		first, err = times.first(ctx, *from)
	}
	if err == nil && to != nil {
		last, err = times.last(ctx, *to)
	}
	return first, last, err
}

// auditEnds are the numbers of the first and the last entry; 0: there is none.
func (s *Store) auditEnds(ctx context.Context) (lowest, highest int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT coalesce(min(seq), 0), coalesce(max(seq), 0) FROM audit_log`).Scan(&lowest, &highest)
	return lowest, highest, wrap("read the range of the audit log", err)
}

// first is the number of the first entry of t or later; 0: there is none.
func (a *auditTimes) first(ctx context.Context, t Time) (int64, error) {
	for i := range a.begins {
		seq, err := a.firstIn(ctx, i, t)
		if err != nil || seq != 0 {
			return seq, err
		}
	}
	return 0, nil
}

// last is the number of the last entry before t; 0: there is none.
func (a *auditTimes) last(ctx context.Context, t Time) (int64, error) {
	for i := range slices.Backward(a.begins) {
		from, through := a.run(i)
		first, err := a.at(ctx, rowFrom, from)
		if err != nil {
			return 0, err
		}
		if first.seq == 0 || first.seq > through || !first.ts.Before(t.Time) {
			continue
		}
		behind, err := a.firstIn(ctx, i, t)
		if err != nil {
			return 0, err
		}
		if behind == 0 {
			behind = through + 1
		}
		last, err := a.at(ctx, rowUpTo, behind-1)
		return last.seq, err
	}
	return 0, nil
}

// run is run i, from its first number through its last.
func (a *auditTimes) run(i int) (from, through int64) {
	if i+1 < len(a.begins) {
		return a.begins[i], a.begins[i+1] - 1
	}
	return a.begins[i], a.end - 1
}

// firstIn is first in run i.
func (a *auditTimes) firstIn(ctx context.Context, i int, t Time) (int64, error) {
	from, through := a.run(i)
	last, err := a.at(ctx, rowUpTo, through)
	if err != nil || last.seq < from || last.ts.Before(t.Time) {
		return 0, err
	}
	n := sort.Search(int(last.seq-from), func(n int) bool {
		if err != nil {
			return true
		}
		var row stamp
		row, err = a.at(ctx, rowFrom, from+int64(n)) // numbers may be missing
		return err != nil || !row.ts.Before(t.Time)
	})
	if err != nil {
		return 0, err
	}
	found, err := a.at(ctx, rowFrom, from+int64(n))
	return found.seq, err
}

func (a *auditTimes) at(ctx context.Context, text string, seq int64) (stamp, error) {
	rows, err := a.store.read.QueryContext(ctx, text, seq)
	found, err := collect(rows, err, func(r *stamp) []any { return []any{&r.seq, &r.ts} })
	if err != nil || len(found) == 0 { // a prune was faster
		return stamp{}, wrap("find the audit rows of a time", err)
	}
	return found[0], nil
}
