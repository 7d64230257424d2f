package backup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
)

func TestCronIsReadInItsZone(t *testing.T) {
	t.Parallel()
	at := func(text string) time.Time {
		parsed, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	for _, tt := range []struct{ name, cron, now, last, next string }{
		{"daily", "0 3 * * *", "2026-03-14T09:00:00Z", "2026-03-14T03:00:00Z", "2026-03-15T03:00:00Z"},
		{"at its minute", "0 3 * * *", "2026-03-14T03:00:20Z", "2026-03-14T03:00:00Z", "2026-03-15T03:00:00Z"},
		{"every ten minutes", "*/10 * * * *", "2026-03-14T09:26:53Z", "2026-03-14T09:20:00Z", "2026-03-14T09:30:00Z"},
		{"of another zone", "CRON_TZ=Europe/Berlin 0 3 * * *", "2026-07-14T09:00:00Z", "2026-07-14T01:00:00Z", "2026-07-15T01:00:00Z"},
		{"weekly", "30 4 * * 0", "2026-03-14T09:00:00Z", "2026-03-08T04:30:00Z", "2026-03-15T04:30:00Z"},
	} {
		c, err := backup.ParseCron(tt.cron)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if last, next := c.Last(at(tt.now)), c.Next(at(tt.now)); !last.Equal(at(tt.last)) || !next.Equal(at(tt.next)) {
			t.Errorf("%s: got last %v and next %v, want %s and %s", tt.name, last, next, tt.last, tt.next)
		}
	}
	for _, bad := range []string{"0 3 * *", "0 3 * * * *", "61 * * * *", "daily", "@daily", "CRON_TZ=Nowhere/City 0 3 * * *", "CRON_TZ=Local 0 3 * * *", "0 3 31 2 *"} {
		if c, err := backup.ParseCron(bad); err == nil {
			t.Errorf("%q: got %v, want it refused", bad, c)
		}
	}
	if c, err := backup.ParseCron(" "); err != nil || !c.IsZero() || !c.Next(time.Now()).IsZero() || !c.Last(time.Now()).IsZero() {
		t.Errorf("nothing: got %v, %v, want never", c, err)
	}
}

func TestKeepChoosesTheNewestOfEachPeriod(t *testing.T) {
	t.Parallel()
	var times []time.Time
	start := time.Date(2026, 3, 14, 3, 0, 0, 0, time.UTC) // a Saturday
	for day := range 100 {
		times = append(times, start.AddDate(0, 0, -day), start.AddDate(0, 0, -day).Add(12*time.Hour))
	}
	for _, tt := range []struct {
		rules string
		want  []string
	}{
		{"last=2", []string{"03-14T15", "03-14T03"}},
		{"daily=3", []string{"03-14T15", "03-13T15", "03-12T15"}},
		{"weekly=2", []string{"03-14T15", "03-08T15"}},
		{"monthly=3", []string{"03-14T15", "02-28T15", "01-31T15"}},
		{"yearly=2", []string{"03-14T15", "12-31T15"}},
		{"daily=2,monthly=2", []string{"03-14T15", "03-13T15", "02-28T15"}},
		{"hourly=2", []string{"03-14T15", "03-14T03"}},
	} {
		k, err := backup.ParseKeep(tt.rules)
		if err != nil || k.String() != tt.rules {
			t.Errorf("%s: read as %q, %v, want it as it is", tt.rules, k, err)
		}
		var got []string
		for i, kept := range k.Choose(times) {
			if kept {
				got = append(got, times[i].Format("01-02T15"))
			}
		}
		slices.Sort(got)
		slices.Sort(tt.want)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.rules, got, tt.want)
		}
	}
	if kept := (backup.Keep{}).Choose(times); slices.Contains(kept, false) {
		t.Error("no rules: got some removed, want all kept")
	}
	if kept := (backup.Keep{Yearly: 1}).Choose(times[150:]); !kept[0] && !kept[1] {
		t.Error("the newest of all: got it removed, want it kept")
	}
	for _, bad := range []string{"", "daily", "daily=0", "daily=-1", "daily=x", "fortnightly=2", "daily=1,daily=2", "daily=7;weekly=5"} {
		if k, err := backup.ParseKeep(bad); err == nil {
			t.Errorf("%q: got %v, want it refused", bad, k)
		}
	}
}

// clock is set by a test.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, _ = time.Parse(time.RFC3339, text)
}

// brain is one that makes backups of l at three o'clock, by a clock of its own.
func (l *lab) brain(t *testing.T, c *clock, change func(*backup.Plan)) (*backup.Brain, func() backup.Standing) {
	t.Helper()
	o := l.options(t)
	o.Target, o.Now = nil, c.Now
	o.Open = func(context.Context) (target.Target, error) { return l.place, nil }
	daily, err := backup.ParseCron("0 3 * * *")
	if err != nil {
		t.Fatal(err)
	}
	p := backup.Plan{Options: o, Place: l.dir, Cron: "0 3 * * *", Schedule: daily, RPO: 25 * time.Hour}
	if change != nil {
		change(&p)
	}
	b := backup.NewBrain(t.Context(), p)
	t.Cleanup(func() {
		if err := b.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return b, func() backup.Standing {
		t.Helper()
		s, err := b.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func (l *lab) files(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestABrainMakesBackupsBySchedule(t *testing.T) {
	t.Parallel()
	eachLab(t, func(t *testing.T, l *lab) {
		c := &clock{}
		b, standing := l.brain(t, c, nil)
		for _, step := range []struct {
			name, now string
			want      int
		}{
			{"there is none: what was missed is made up for", "2026-03-14T09:00:00Z", 1},
			{"it is not due", "2026-03-14T09:01:00Z", 1},
			{"it is not due in the night either", "2026-03-15T02:59:59Z", 1},
			{"it is due", "2026-03-15T03:00:10Z", 2},
			{"it was made", "2026-03-15T03:01:00Z", 2},
			{"three were missed: one is made", "2026-03-18T12:00:00Z", 3},
		} {
			c.set(step.now)
			if err := b.Tick(t.Context()); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			if got := l.files(t); got != step.want {
				t.Errorf("%s: got %d backups, want %d", step.name, got, step.want)
			}
		}
		s := standing()
		if s.LastSuccess == nil || s.LastFailure != nil || s.Next == nil || s.Next.String() != "2026-03-19T03:00:00.000000Z" || s.LastSuccess.Actor != "system" {
			t.Errorf("standing: got %+v, want a success by the system and the next at three", s)
		}
	})
}

func TestABrainTriesAgainAndSaysThatItIsLate(t *testing.T) {
	t.Parallel()
	eachLab(t, func(t *testing.T, l *lab) {
		c := &clock{}
		broken := errors.New("the disk is away")
		var seen []backup.Standing
		b, standing := l.brain(t, c, func(p *backup.Plan) {
			p.Open = func(context.Context) (target.Target, error) { return l.place, broken }
			p.Seen = func(s backup.Standing) { seen = append(seen, s) }
		})
		c.set(time.Now().UTC().Truncate(time.Second).Format(time.RFC3339)) // entries have the database's time
		if err := b.Tick(t.Context()); !errors.Is(err, broken) {
			t.Errorf("the first try: got %v, want the error", err)
		}
		if err := b.Tick(t.Context()); err != nil {
			t.Errorf("a moment later: got %v, want that nothing is tried", err)
		}
		if s := standing(); s.LastFailure == nil || s.LastFailure.Reason != broken.Error() || s.LastSuccess != nil || !s.Late {
			t.Errorf("standing: got %+v, want a failure, and that it is late", s)
		}
		if err := b.Watch(t.Context()); err != nil || !b.Late() || len(seen) != 1 {
			t.Errorf("watch: got %v, late %v, seen %d, want it late and seen", err, b.Late(), len(seen))
		}
		broken = nil
		c.set(time.Now().UTC().Add(16 * time.Minute).Format(time.RFC3339))
		if err := b.Tick(t.Context()); err != nil {
			t.Errorf("a quarter of an hour later: %v", err)
		}
		if err := b.Watch(t.Context()); err != nil || b.Late() || l.files(t) != 1 {
			t.Errorf("afterwards: got %v, late %v, %d backups, want one and not late", err, b.Late(), l.files(t))
		}
	})
}

func TestABackupThatTakesTooLongFails(t *testing.T) {
	t.Parallel()
	eachLab(t, func(t *testing.T, l *lab) {
		c := &clock{}
		c.set("2026-03-14T09:00:00Z")
		b, standing := l.brain(t, c, func(p *backup.Plan) { p.MaxDuration = time.Nanosecond })
		if err := b.Tick(t.Context()); err == nil || !strings.Contains(err.Error(), "Z4J_BACKUP_MAX_DURATION") {
			t.Errorf("got %v, want an error that names the setting", err)
		}
		if s := standing(); s.LastFailure == nil || l.files(t) != 0 {
			t.Errorf("got %+v and %d files, want a failure and none", s.LastFailure, l.files(t))
		}
	})
}

func TestABrainPrunesAfterABackup(t *testing.T) {
	t.Parallel()
	eachLab(t, func(t *testing.T, l *lab) {
		c := &clock{}
		b, _ := l.brain(t, c, func(p *backup.Plan) { p.Keep = backup.Keep{Last: 2} })
		for day := 10; day < 14; day++ {
			c.set(fmt.Sprintf("2026-03-%dT09:00:00Z", day))
			if err := b.Tick(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := l.files(t); got != 2 {
			t.Errorf("got %d backups, want the last two", got)
		}
	})
}

func TestPruneLeavesWhatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	eachLab(t, func(t *testing.T, l *lab) {
		o := l.options(t)
		var made []backup.Result
		for range 4 {
			r, err := backup.Make(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			made = append(made, r)
		}
		put := func(name, content string) {
			if err := os.WriteFile(filepath.Join(l.dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		foreign := "z4j-0badcafe-20200101T000000Z-0123456789ab.tar"
		put(foreign, "of another installation")
		put("notes.txt", "not ours")
		put(made[1].Name, "cut")
		done := backup.Reading(t.Context(), l.place, made[0].Name)
		defer done()

		plan, err := backup.Prune(t.Context(), o, backup.Keep{Last: 1}, true)
		if err != nil || !slices.Equal(plan.Removed, []string{made[2].Name}) || !slices.Equal(plan.Left, []string{made[0].Name}) {
			t.Errorf("plan: got %q and left %q, %v, want %q and %q", plan.Removed, plan.Left, err, made[2].Name, made[0].Name)
		}
		if got, err := backup.Prune(t.Context(), o, backup.Keep{Last: 1}, false); err != nil || !slices.Equal(got.Removed, plan.Removed) {
			t.Errorf("prune: got %q, %v, want what was planned", got.Removed, err)
		}
		for name, want := range map[string]bool{made[0].Name: true, made[1].Name: true, made[2].Name: false, made[3].Name: true, foreign: true, "notes.txt": true} {
			if _, err := os.Stat(filepath.Join(l.dir, name)); (err == nil) != want {
				t.Errorf("%s: got there %v, want %v", name, err == nil, want)
			}
		}
		list, err := backup.List(t.Context(), l.place, l.Store, time.Now())
		if err != nil || len(list) != 4 {
			t.Fatalf("list: got %+v, %v, want four", list, err)
		}
		for _, e := range list {
			want := map[string]string{foreign: backup.StateUnrecorded, made[1].Name: backup.StateDiffers}[e.Name]
			if want == "" {
				want = backup.StateRecorded
			}
			if e.State != want || e.Reading != (e.Name == made[0].Name) {
				t.Errorf("%s: got %s, being read %v, want %s", e.Name, e.State, e.Reading, want)
			}
		}
		page, err := l.AuditLog(t.Context(), store.AuditFilter{Action: string(audit.BackupPruned)})
		if err != nil || len(page.Items) != 1 || !strings.Contains(string(page.Items[0].Details), made[2].Name) {
			t.Errorf("recorded: got %+v, %v, want one entry that names the file", page.Items, err)
		}
		done()
		if again, err := backup.Prune(t.Context(), o, backup.Keep{Last: 1}, false); err != nil || !slices.Equal(again.Removed, []string{made[0].Name}) {
			t.Errorf("when nobody reads any more: got %q, %v, want %q", again.Removed, err, made[0].Name)
		}
	})
}
