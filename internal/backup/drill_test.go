package backup_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/store"
)

const day = 24 * time.Hour

// drills are recorded with a result that a test sets.
type drills struct {
	t    *testing.T
	l    *lab
	c    *clock
	bad  error
	done int
}

func (d *drills) run(ctx context.Context) (backup.DrillReport, error) {
	d.done++
	at := store.TimeOf(d.c.Now())
	r := backup.DrillReport{OK: d.bad == nil, Backup: "b-1", Started: at, Finished: at, Steps: []backup.DrillStep{{Name: backup.StepFind, OK: true}}}
	if d.bad != nil {
		r.FailedStep = backup.StepLoad
		r.Steps = append(r.Steps, backup.DrillStep{Name: backup.StepLoad, Error: d.bad.Error()})
	}
	return r, backup.RecordDrill(ctx, d.l.Store, &r, audit.Actor{Kind: audit.System})
}

// TestDrillsBySchedule: after the first backup, once when it is due, and again after a failure, but not at once; and who has
// backups and did not drill for 90 days is told.
func TestDrillsBySchedule(t *testing.T) {
	t.Parallel()
	eachLab(t, func(t *testing.T, l *lab) {
		began := time.Now()
		c := &clock{now: began}
		d := &drills{t: t, l: l, c: c}
		monthly, err := backup.ParseCron("0 4 1 * *")
		if err != nil {
			t.Fatal(err)
		}
		b, standing := l.brain(t, c, func(p *backup.Plan) {
			p.Drills = backup.Drills{Cron: "0 4 1 * *", Schedule: monthly, RTO: time.Hour, Run: d.run}
		})
		due := monthly.Next(began.Add(day))
		full := errors.New("the disk is full")
		for _, step := range []struct {
			name   string
			now    time.Time
			backup bool
			bad    error
			want   int
			late   bool
		}{
			{"there is no backup", began, false, nil, 0, false},
			{"there is one: what was due is made up for", began, true, nil, 1, false},
			{"it was done", began.Add(time.Hour), false, nil, 1, false},
			{"due, and it fails", due.Add(time.Minute), false, full, 2, false},
			{"not again at once", due.Add(time.Hour), false, full, 2, false},
			{"again later", due.Add(7 * time.Hour), false, full, 3, false},
			{"it fails for months", due.Add(91 * day), false, full, 4, true},
			{"it goes well", due.Add(92 * day), false, nil, 5, false},
		} {
			c.mu.Lock()
			c.now = step.now
			c.mu.Unlock()
			if step.backup {
				if err := b.Tick(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			d.bad = step.bad
			before := d.done
			if err := b.TickDrill(t.Context()); (err != nil) != (step.bad != nil && d.done > before) {
				t.Errorf("%s: %v, want an error only if a drill failed", step.name, err)
			}
			if err := b.Watch(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d.done != step.want || b.DrillLate() != step.late {
				t.Errorf("%s: %d drills, late %v; want %d, %v", step.name, d.done, b.DrillLate(), step.want, step.late)
			}
		}
		s := standing().Drill
		if s.Last == nil || s.LastSuccess == nil || !s.Last.OK || s.Last.Seq != s.LastSuccess.Seq || s.RTOSeconds != 3600 || s.Next == nil {
			t.Errorf("standing: %+v, want the last drill as the last success", s)
		}
	})
}

// TestNeverDrilled: an installation has 90 days from its first backup on.
func TestNeverDrilled(t *testing.T) {
	t.Parallel()
	eachLab(t, func(t *testing.T, l *lab) {
		c := &clock{now: time.Now()}
		b, standing := l.brain(t, c, nil)
		if err := b.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			after time.Duration
			want  bool
		}{{0, false}, {89 * day, false}, {91 * day, true}} {
			c.mu.Lock()
			c.now = time.Now().Add(tt.after)
			c.mu.Unlock()
			if got := standing().Drill.Late; got != tt.want {
				t.Errorf("%v after the first backup: late %v, want %v", tt.after, got, tt.want)
			}
		}
	})
}

// TestAFailedDrillNamesItsStep: in the audit log, with outcome error.
func TestAFailedDrillNamesItsStep(t *testing.T) {
	t.Parallel()
	eachLab(t, func(t *testing.T, l *lab) {
		d := &drills{t: t, l: l, c: &clock{now: time.Now()}, bad: errors.New("the disk is full")}
		if _, err := d.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		page, err := l.AuditLog(t.Context(), store.AuditFilter{Action: string(audit.DrillCompleted)})
		if err != nil || len(page.Items) != 1 || page.Items[0].Outcome != string(audit.Failed) {
			t.Fatalf("entries: %+v, %v; want one with outcome error", page.Items, err)
		}
		last, err := backup.LastDrill(t.Context(), l.Store, false)
		if err != nil || last.OK || last.FailedStep != backup.StepLoad || last.Reason != "step load: the disk is full" {
			t.Errorf("last drill: %+v, %v; want it failed at load, with the reason", last, err)
		}
		if good, err := backup.LastDrill(t.Context(), l.Store, true); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("last good drill: %+v, %v; want none", good, err)
		}
	})
}

func TestTheLongestWaitOfASchedule(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"": 0, "0 */6 * * *": 6 * time.Hour, "0 3 * * *": day, "0 3 * * 1-5": 3 * day, "0 3 1 * *": 31 * day} {
		c, err := backup.ParseCron(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Longest(time.Now()); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}
