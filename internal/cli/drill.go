package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"text/tabwriter"
	"time"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
)

type drillCmd struct {
	opening

	From string `arg:"" optional:"" help:"An archive, or a place whose newest archive is meant. Without it: the newest of Z4J_BACKUP_TARGET."`
	Into string `help:"URL of a Postgres database; beside it a temporary one is made. Without it: a temporary SQLite file." placeholder:"URL"`
	Tmp  string `help:"Where the scratch is made. Without it: where temporary files are, and in Z4J_HOME if there is no room." placeholder:"DIR" type:"path"`
	JSON bool   `name:"json" help:"Print JSON."`
}

// exitMissed is of a drill that went well and was too slow, or whose backup is too old.
const exitMissed = 3

// Help is shown by `drill --help`.
func (drillCmd) Help() string {
	return `Restores into a scratch database, which is taken away at the end whatever happens, verifies the audit log against the anchors, starts
a brain on 127.0.0.1 that talks to nobody, logs in, lists tasks, counts agents, reads a page of everything, and writes once. Beside a
running brain, too. The live database gets one audit entry, drill.completed; nothing else outside the scratch changes, and anchors
are only read. Without a live database nothing is recorded.

Exit codes: 0 all went well, the backup is as new as Z4J_RPO wants, and it took no longer than Z4J_RTO; 1 a step failed; 2 wrong
arguments or settings; 3 all went well, but the backup is older, or it took longer.`
}

// Run drills.
func (d *drillCmd) Run(c *call) error {
	location, name := splitArchive(d.From)
	return c.withPlace(location, d.JSON, func(ctx context.Context, cfg *config.Config, s *store.Store, in target.Target) error {
		o := app.DrillOptions{
			Config: cfg, Version: c.version, Log: slog.New(slog.DiscardHandler), Now: time.Now, From: in, Name: name, Live: s, By: byOperator(), TempDir: d.Tmp,
		}
		if err := d.check(c, cfg, &o); err != nil {
			return exit(exitUsage, err)
		}
		if !d.JSON {
			o.Progress = c.backupProgress()
		}
		r := app.Drill(ctx, o)
		var missed error
		switch {
		case !r.OK:
			missed = quietly(exitFailed)
		case !r.RPOMet || !r.RTOMet:
			missed = quietly(exitMissed)
		}
		if d.JSON {
			return errors.Join(printJSON(c.stdout, r), missed)
		}
		return errors.Join(showDrill(c.stdout, &r), missed)
	})
}

func (d *drillCmd) check(c *call, cfg *config.Config, o *app.DrillOptions) (err error) {
	if err := cfg.SecretsError(); err != nil {
		return fmt.Errorf("a drill needs the secrets, as a restore does: %w", err)
	}
	if o.Identities, err = d.identities(c, cfg); err != nil || d.Into == "" {
		return err
	}
	u, err := config.ParseDatabaseURL(d.Into, workDir())
	if err != nil {
		return fmt.Errorf("--into %w", err)
	}
	if u.IsSQLite() {
		return errors.New("--into wants the URL of a Postgres database; without it the scratch is a SQLite file, which --tmp places")
	}
	o.Into = u.Reveal()
	return nil
}

func showDrill(out io.Writer, r *backup.DrillReport) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STEP\tRESULT\tSECONDS\tNOTE")
	for _, s := range r.Steps {
		result, note := "ok", s.Note
		if !s.OK {
			result, note = "FAILED", s.Error
		}
		fmt.Fprintf(w, "%s\t%s\t%.2f\t%s\n", s.Name, result, s.Seconds, note)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	if r.Snapshot != nil {
		line("backup", "%s of %s", r.Backup, r.Snapshot)
		line("rpo", "%s: it was %s old, and Z4J_RPO allows %s", met(r.RPOMet), seconds(r.Age), seconds(r.RPO))
	}
	if r.OK {
		line("rto", "%s: the drill took %s, %s of it until the brain served, and Z4J_RTO allows %s", met(r.RTOMet),
			seconds(r.Seconds), seconds(r.Restore), seconds(r.RTO))
	}
	for _, n := range r.Notes {
		line("note", "%s", n)
	}
	result := "all went well"
	if !r.OK {
		result = "step " + r.FailedStep + " failed"
	}
	line("result", "%s", result)
	return w.Flush()
}

func met(is bool) string {
	if is {
		return "met"
	}
	return "MISSED"
}

func seconds[N int64 | float64](n N) time.Duration {
	return time.Duration(float64(n) * float64(time.Second)).Round(10 * time.Millisecond)
}
