package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"filippo.io/age"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
)

// DrillOptions say what is restored for a drill, and where.
type DrillOptions struct {
	Config     *config.Config
	Version    string
	Log        *slog.Logger
	Now        func() time.Time // required
	From       target.Target
	Name       string // of the archive; "": the newest
	Identities []age.Identity
	Live       *store.Store // the live database; nil: there is none to open
	By         store.By
	Into       string // a Postgres server, on which a database is made; "": a SQLite file
	TempDir    string // for that; "": where temporary files are, or else the home

	// Progress is told of bytes as RestoreOptions.Progress is.
	Progress func(phase string, done, total int64)
}

// removeIn is how long the scratch may take to go, after an interrupt too.
const removeIn = time.Minute

// drill is a drill under way.
type drill struct {
	DrillOptions
	report  backup.DrillReport
	step    string
	since   time.Time
	restore *backup.Restore
	brain   *Brain
	scratch scratch
}

// Drill restores a backup into a scratch database, starts a brain on it that talks to nobody, tries it as people do, and
// takes it all away. The live database gets an entry that tells of it, and nothing else of it changes. What went wrong
// stands in the report.
func Drill(ctx context.Context, o DrillOptions) backup.DrillReport {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d := &drill{DrillOptions: o}
	r := &d.report
	r.Target, r.File, r.Started, r.Scratch = o.From.String(), o.Name, store.TimeOf(o.Now()), "sqlite"
	r.RPO, r.RTO, r.Steps, r.Notes = int64(o.Config.Backup.RPO/time.Second), int64(o.Config.Backup.RTO/time.Second), []backup.DrillStep{}, []string{}
	if o.Into != "" {
		r.Scratch = "postgres"
	}
	err := d.run(ctx)
	if e := d.remove(context.WithoutCancel(ctx)); err == nil {
		err = e
	}
	r.OK = err == nil
	r.Finished = store.TimeOf(o.Now())
	r.Seconds = r.Finished.Sub(r.Started.Time).Seconds()
	r.RTOMet = r.OK && r.Seconds <= float64(r.RTO)
	if o.Live == nil {
		r.Notes = append(r.Notes, "there is no live database here: the drill is recorded in no audit log")
		return *r
	}
	if err := backup.RecordDrill(ctx, o.Live, r, o.By.Actor); err != nil {
		r.Notes = append(r.Notes, err.Error())
	} else {
		r.Recorded = true
	}
	return *r
}

// begin begins a step; the one before it went well.
func (d *drill) begin(name string) {
	d.end("", nil)
	d.step, d.since = name, d.Now()
}

// end ends the step under way, if there is one.
func (d *drill) end(note string, err error) {
	if d.step == "" {
		return
	}
	s := backup.DrillStep{Name: d.step, OK: err == nil, Seconds: d.Now().Sub(d.since).Seconds(), Note: note}
	if err != nil {
		s.Error = err.Error()
		if d.report.FailedStep == "" {
			d.report.FailedStep = d.step
		}
	}
	d.report.Steps, d.step = append(d.report.Steps, s), ""
}

// do is one step.
func (d *drill) do(ctx context.Context, name string, fn func(context.Context) (note string, err error)) error {
	d.begin(name)
	note, err := fn(ctx)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	d.end(note, err)
	return err
}

func (d *drill) run(ctx context.Context) error {
	if err := d.do(ctx, backup.StepFind, d.find); err != nil {
		return err
	}
	if err := d.do(ctx, backup.StepMake, d.make); err != nil {
		return err
	}
	if err := d.do(ctx, backup.StepVerify, d.plan); err != nil {
		return err
	}
	done, err := d.restore.Run(ctx)
	d.end("", err)
	if err != nil {
		return err
	}
	d.report.Rows = done.Rows
	if err := d.do(ctx, backup.StepStart, d.start); err != nil {
		return err
	}
	d.report.Restore = d.Now().Sub(d.report.Started.Time).Seconds()
	err = d.visit(ctx)
	if e := d.do(context.WithoutCancel(ctx), backup.StepStop, d.stop); err == nil {
		err = e
	}
	return err
}

func (d *drill) find(ctx context.Context) (note string, err error) {
	if d.Name != "" {
		return d.Name, nil
	}
	e, err := backup.Newest(ctx, d.From, d.Live, d.Now())
	d.Name, d.report.File = e.Name, e.Name
	return e.Name, err
}

func (d *drill) make(ctx context.Context) (note string, err error) {
	if d.scratch, err = newScratch(ctx, &d.DrillOptions, ""); err != nil {
		return "", err
	}
	return d.scratch.where, nil
}

// plan verifies the archive. Where there is no room for its rows, they go to another directory.
func (d *drill) plan(ctx context.Context) (note string, err error) {
	err = d.tryPlan(ctx)
	if errors.Is(err, store.ErrNoRoom) && d.Into == "" && d.TempDir == "" {
		if err := d.scratch.drop(ctx); err != nil {
			return "", err
		}
		if d.scratch, err = newScratch(ctx, &d.DrillOptions, d.Config.General.Home); err != nil {
			return "", err
		}
		err = d.tryPlan(ctx)
	}
	if err != nil {
		return "", err
	}
	p := &d.restore.Plan
	m := &p.Archive.Manifest
	r := &d.report
	r.Backup, r.Snapshot, r.Rows = m.ID, &m.SnapshotAt, p.Archive.Rows
	r.Age = max(0, int64(r.Started.Sub(m.SnapshotAt.Time)/time.Second))
	r.RPOMet = r.Age <= r.RPO
	if m.Backend == "postgres" && r.Scratch == "sqlite" {
		r.Notes = append(r.Notes, "the backup is of Postgres and was tried on SQLite: --into tries it on a Postgres server")
	}
	r.Notes = append(r.Notes, p.Warnings...)
	return fmt.Sprintf("%d rows, audit log to entry %d, %d anchors", p.Archive.Rows, m.Audit.Size, p.Anchors), nil
}

func (d *drill) tryPlan(ctx context.Context) error {
	o, err := RestoreOptions(d.Config, slog.New(slog.DiscardHandler), d.Now)
	if err != nil {
		return err
	}
	anchors := o.Custody(nil)
	o.Custody = func(s *store.Store) *custody.Custody {
		if s == nil {
			return anchors // of production, which are asked and never written to
		}
		return custody.New(custody.Options{Store: s, Now: d.Now, Home: d.scratch.home}) // it writes into the scratch only
	}
	o.From, o.Name, o.Identities, o.Into, o.Live, o.By = d.From, d.Name, d.Identities, d.scratch.url, d.Live, d.By
	o.Progress, o.Step = d.Progress, d.begin
	d.restore, err = backup.PlanRestore(ctx, o)
	return err
}

func (d *drill) start(ctx context.Context) (note string, err error) {
	u, err := config.ParseDatabaseURL(d.scratch.url, "/")
	if err != nil {
		return "", err
	}
	d.brain, err = Start(ctx, Options{Config: d.Config.Scratch(d.scratch.home, u), Version: d.Version, Now: d.Now, Drill: true})
	if err != nil {
		return "", err
	}
	return d.brain.URL(), nil
}

func (d *drill) stop(ctx context.Context) (string, error) {
	err := d.brain.Stop(ctx)
	d.brain = nil
	return "", err
}

// remove takes away what the drill made, whatever happened before.
func (d *drill) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, removeIn)
	defer cancel()
	return d.do(ctx, backup.StepRemove, func(ctx context.Context) (string, error) {
		var errs []error
		if d.restore != nil {
			errs = append(errs, d.restore.Close())
		}
		if d.scratch.drop != nil {
			errs = append(errs, d.scratch.drop(ctx))
		}
		return "", errors.Join(errs...)
	})
}

// Identities are what opens the archives of c: its passphrase and its secret key.
func Identities(c *config.Config) (out []age.Identity, err error) {
	if text := string(c.Backup.Passphrase.Reveal()); text != "" {
		own, err := age.NewScryptIdentity(text)
		if err != nil {
			return nil, fmt.Errorf("open with the passphrase: %w", err)
		}
		out = append(out, own)
	}
	if text := string(c.Backup.Identity.Reveal()); text != "" {
		own, err := age.ParseX25519Identity(text)
		if err != nil {
			return nil, errors.New(config.Prefix + "BACKUP_IDENTITY is no secret key of age (AGE-SECRET-KEY-1…)") // the error could quote it
		}
		out = append(out, own)
	}
	return out, nil
}

// drills are those of this brain.
func (b *Brain) drills() (out backup.Drills, err error) {
	c := b.Config
	if out.Schedule, err = backup.ParseCron(c.Backup.DrillSchedule); err != nil {
		return out, fmt.Errorf("%sDRILL_SCHEDULE: %w", config.Prefix, err)
	}
	out.Cron, out.RTO = c.Backup.DrillSchedule, c.Backup.RTO
	out.Run = func(ctx context.Context) (backup.DrillReport, error) {
		o := DrillOptions{Config: c, Version: b.Version, Log: b.Log, Now: b.Now, Live: b.Store, By: store.By{Actor: audit.Actor{Kind: audit.System}, Via: "schedule"}}
		var err error
		if o.Identities, err = Identities(c); err != nil {
			return backup.DrillReport{}, err
		}
		if o.From, err = OpenBackups(ctx, c, ""); err != nil {
			return backup.DrillReport{}, err
		}
		return Drill(ctx, o), nil
	}
	return out, nil
}

// scratchDatabase names the SQLite file in a scratch directory.
func scratchDatabase(dir string) string { return "sqlite:" + filepath.Join(dir, "z4j.db") }
