package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

// Exit codes of the commands about retention.
const (
	exitWaits     = 3 // run: something stands in the way; hold: one stands already; release: none stands; compact: not SQLite
	exitNoProject = 4
)

type retentionCmd struct {
	Show    retentionShowCmd    `cmd:"" default:"withargs" hidden:"" help:"Say what a sweep would delete now."`
	Run     retentionRunCmd     `cmd:"" help:"Delete now what is older than it is kept."`
	Hold    retentionHoldCmd    `cmd:"" help:"Let nothing be deleted, of a project or at all."`
	Release retentionReleaseCmd `cmd:"" help:"End a hold."`
	Compact retentionCompactCmd `cmd:"" help:"SQLite: write the file anew, without free pages."`
}

type retentionShowCmd struct {
	Plan bool `help:"Say what a sweep would delete now, and delete nothing. That is what happens without a command, too."`
	JSON bool `name:"json" help:"Print JSON."`
}

// Help is shown by `retention --help`.
func (retentionShowCmd) Help() string {
	return `Counts up to 100,000 rows of each table and project, and then says "at least"; rows of large partitions are the
database's estimate.

Exit codes: 0 shown, 1 could not, 2 wrong arguments or settings.`
}

// Run shows the plan.
func (k *retentionShowCmd) Run(c *call) error {
	return c.withStore(func(ctx context.Context, cfg *config.Config, s *store.Store) error {
		plan, err := s.PlanRetention(ctx, app.Keep(cfg))
		if err != nil {
			return err
		}
		if k.JSON {
			return printJSON(c.stdout, plan)
		}
		return showPlan(c.stdout, &plan, cfg)
	})
}

func showPlan(out io.Writer, plan *store.RetentionPlan, cfg *config.Config) error {
	r := &cfg.Retention
	fmt.Fprintf(out, "kept: tasks %d days%s%s, events %s; sweep daily at %s UTC\n", r.TaskDays, longer(r.FailedDays, r.TaskDays, ", failed ones %d"),
		unfinished(r), days(r.EventDays, r.TaskDays), r.SweepTime)
	if plan.Hold != nil {
		fmt.Fprintf(out, "legal hold of the whole installation since %s: %s\n", plan.Hold.Since, plan.Hold.Reason)
	}
	if plan.Waits != "" {
		fmt.Fprintf(out, "a sweep would wait: %s\n", plan.Waits)
	}
	if len(plan.Lines) == 0 {
		_, err := fmt.Fprintln(out, "nothing is older than it is kept")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TABLE\tPROJECT\tROWS\tBEFORE\tOLDEST\t")
	for _, l := range plan.Lines {
		rows := fmt.Sprint(l.Rows)
		switch {
		case l.AtLeast:
			rows = "at least " + rows
		case l.Estimated:
			rows = "about " + rows
		}
		oldest, note := "-", l.Held
		if l.Oldest != nil {
			oldest = minuteOf(*l.Oldest)
		}
		if n := len(l.Partitions); n > 0 {
			note = fmt.Sprintf("%d days whole: %s to %s", n, l.Partitions[0], l.Partitions[n-1])
		}
		project := l.Project
		if project == "" {
			project = "(all)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Table, project, rows, minuteOf(l.Before), oldest, note)
	}
	return w.Flush()
}

func minuteOf(t store.Time) string { return t.Format("2006-01-02 15:04") }

func longer(days, usual int, format string) string {
	if days <= usual {
		return ""
	}
	return fmt.Sprintf(format, days)
}

func unfinished(r *config.Retention) string {
	if r.UnfinishedDays == 0 {
		return ", unfinished ones for ever"
	}
	return longer(r.UnfinishedDays, r.TaskDays, ", unfinished ones %d")
}

func days(own, usual int) string {
	if own == 0 {
		own = usual
	}
	return fmt.Sprintf("%d days", own)
}

type retentionRunCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Help is shown by `retention run --help`.
func (retentionRunCmd) Help() string {
	return `Does what the daily sweep does. A brain may run meanwhile. What was deleted is recorded in the audit log.

Exit codes: 0 done, 1 could not, 2 wrong arguments or settings, 3 something stands in the way: a backup, another sweep, a
legal hold of the whole installation, or a history in doubt.`
}

// Run sweeps.
func (k *retentionRunCmd) Run(c *call) error {
	return c.withChanges(func(ctx context.Context, cfg *config.Config, s *store.Store) error {
		out, err := s.Sweep(ctx, store.SweepOptions{Keep: app.Keep(cfg), By: byOperator(), Holder: "cli/" + fmt.Sprint(os.Getpid()) + "/" + id.Random().String()})
		if store.Waits(err) {
			err = exit(exitWaits, err)
		}
		if k.JSON {
			return errors.Join(printJSON(c.stdout, out), err)
		}
		for _, table := range out.Tables() {
			if n := out.Rows[table]; n > 0 {
				fmt.Fprintf(c.stdout, "%s: %d\n", table, n)
			}
		}
		if len(out.Partitions) > 0 {
			fmt.Fprintf(c.stdout, "days of events dropped whole: %s\n", strings.Join(out.Partitions, ", "))
		}
		if len(out.Busy) > 0 {
			fmt.Fprintf(c.stdout, "in use, and left for the next sweep: %s\n", strings.Join(out.Busy, ", "))
		}
		_, e := fmt.Fprintf(c.stdout, "%d rows deleted in %s, no lock longer than %s\n", out.Total(), out.Took.Round(time.Millisecond), out.LongestLock.Round(time.Millisecond))
		return errors.Join(err, e)
	})
}

// scope says of what a hold is.
type scope struct {
	Project string `help:"Slug of the project." placeholder:"SLUG"`
	All     bool   `help:"The whole installation."`
}

func (s scope) check() error {
	if (s.Project == "") != s.All {
		return exit(exitUsage, errors.New("say either --project SLUG or --all"))
	}
	return nil
}

type retentionHoldCmd struct {
	scope

	Reason string `required:"" help:"Why; it is recorded and shown." placeholder:"TEXT"`
}

// Help is shown by `retention hold --help`.
func (retentionHoldCmd) Help() string {
	return `From then on no sweep deletes anything of the project. It holds until ` + "`retention release`" + `.

Exit codes: 0 held, 1 could not, 2 wrong arguments or settings, 3 a hold stands already, 4 no such project.`
}

// Run holds.
func (k *retentionHoldCmd) Run(c *call) error {
	if err := k.check(); err != nil {
		return err
	}
	reason := strings.TrimSpace(k.Reason)
	if reason == "" {
		return exit(exitUsage, errors.New("--reason is empty"))
	}
	return c.withChanges(func(ctx context.Context, _ *config.Config, s *store.Store) (err error) {
		if k.All {
			_, err = s.HoldInstallation(ctx, reason, byOperator())
		} else {
			_, err = s.HoldProject(ctx, k.Project, reason, byOperator())
		}
		return k.said(c, err, "held: nothing of %s is deleted until `z4j-brain retention release`")
	})
}

// said tells how it ended.
func (s scope) said(c *call, err error, format string) error {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return exit(exitNoProject, fmt.Errorf("there is no project %q", s.Project))
	case errors.Is(err, store.ErrLegalHoldStands), errors.Is(err, store.ErrNoLegalHold):
		return exit(exitWaits, err)
	case err != nil:
		return err
	}
	name := "project " + s.Project
	if s.All {
		name = "the whole installation"
	}
	_, err = fmt.Fprintf(c.stdout, format+"\n", name)
	return err
}

type retentionReleaseCmd struct {
	scope

	Reason string `help:"Why; it is recorded." placeholder:"TEXT"`
}

// Help is shown by `retention release --help`.
func (retentionReleaseCmd) Help() string {
	return `The next sweep deletes what was kept too long. --all ends the hold of the whole installation; those of projects stay.

Exit codes: 0 released, 1 could not, 2 wrong arguments or settings, 3 no hold stands, 4 no such project.`
}

// Run releases.
func (k *retentionReleaseCmd) Run(c *call) error {
	if err := k.check(); err != nil {
		return err
	}
	return c.withChanges(func(ctx context.Context, _ *config.Config, s *store.Store) (err error) {
		if k.All {
			err = s.ReleaseInstallation(ctx, strings.TrimSpace(k.Reason), byOperator())
		} else {
			_, err = s.ReleaseProject(ctx, k.Project, strings.TrimSpace(k.Reason), byOperator())
		}
		return k.said(c, err, "released: the next sweep deletes of %s what is older than it is kept")
	})
}

type retentionCompactCmd struct{}

// Help is shown by `retention compact --help`.
func (retentionCompactCmd) Help() string {
	return `A sweep leaves free pages in the file, and gives most of them back to the file system. A file that was made by a
version before 0.2 can't give any back until it was compacted once. Needs as much free room as the file has, and nobody can
write meanwhile: stop the brain first.

Exit codes: 0 done, 1 could not, 2 wrong arguments or settings, 3 the database is not SQLite.`
}

// Run compacts.
func (k *retentionCompactCmd) Run(c *call) error {
	return c.withStore(func(ctx context.Context, _ *config.Config, s *store.Store) error {
		if s.Dialect() != "sqlite" {
			return exit(exitWaits, errors.New("only SQLite has a file to compact; Postgres uses again what was freed by itself"))
		}
		before, after, err := s.Compact(ctx)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.stdout, "%d KiB before, %d KiB after\n", before.Pages*before.PageSize>>10, after.Pages*after.PageSize>>10)
		return err
	})
}
