package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
)

type restoreCmd struct {
	From    restoreFromCmd    `cmd:"" default:"withargs" help:"Restore a backup into an empty database."`
	Release restoreReleaseCmd `cmd:"" help:"Let go what a restore held: schedules' fires, notifications, API keys."`
}

type restoreFromCmd struct {
	opening

	Archive           string   `arg:"" optional:"" help:"An archive, or a place whose newest archive is meant. Without it: the newest of Z4J_BACKUP_TARGET."`
	Into              string   `help:"The database: empty, or not there yet. Without it: Z4J_DATABASE_URL, where a password is better kept." placeholder:"URL"`
	Plan              bool     `help:"Say what would be done, and do nothing."`
	Yes               bool     `help:"Don't ask."`
	KnownHead         string   `help:"The row_hmac of an audit entry that you know: an archive without it is refused." placeholder:"ROW_HMAC"`
	AcceptTampered    bool     `help:"Accept an archive whose content is not right, such as an audit log that was tampered with; it is recorded."`
	AcceptUnsigned    bool     `help:"Accept an archive that was signed with an audit secret that is not at hand."`
	WithoutGeneration []string `help:"Leave out what was revoked and erased in this history, such as a drill's; may be given several times." placeholder:"ID"`
	JSON              bool     `name:"json" help:"Print JSON."`
}

// Exit codes of a restore.
const exitTaken = 4 // the target is not empty, or in use

// Help is shown by `restore --help`.
func (restoreFromCmd) Help() string {
	return `Needs the archive and the secrets (Z4J_SECRET, Z4J_AUDIT_SECRET, Z4J_SESSION_SECRET), nothing else: a file or a database that is
missing is made. Verifies the archive first, looks at the target, asks the anchors what happened after the backup, and says all
that before it begins. Never writes over data. Sessions, set-up tokens and leases are void afterwards; what was revoked or erased
after the backup is revoked and erased again; schedules and notifications wait for ` + "`z4j-brain restore release`" + `. Interrupted or
killed, nothing is left that would be served, and the next run begins anew.

Exit codes: 0 restored, or planned; 1 could not, or the archive is damaged or not right; 2 wrong arguments or settings, or not
accepted; 3 a secret or key is missing; 4 the target is not empty, or a brain or another restore works on it.`
}

// Run restores.
func (r *restoreFromCmd) Run(c *call) error {
	location, name := splitArchive(r.Archive)
	return c.withPlace(location, r.JSON, func(ctx context.Context, cfg *config.Config, s *store.Store, in target.Target) error {
		o, err := r.options(c, cfg)
		if err != nil {
			return exit(exitUsage, err)
		}
		o.From, o.Name, o.Live = in, name, s
		if s != nil {
			app.RestoreBeside(&o, cfg)
		}
		if name == "" {
			if o.Name, err = newestIn(ctx, in, s); err != nil {
				return err
			}
		}
		planned, err := backup.PlanRestore(ctx, o)
		if err != nil {
			return restoreError(err)
		}
		defer func() { _ = planned.Close() }() // it was read to its end
		if !r.JSON || r.Plan {
			if err := r.show(c, cfg, planned); err != nil || r.Plan {
				return err
			}
		}
		if err := r.accept(c); err != nil {
			return exit(exitUsage, err)
		}
		done, err := planned.Run(ctx)
		if err != nil {
			return restoreError(err)
		}
		if r.JSON {
			return printJSON(c.stdout, struct {
				Plan     backup.RestorePlan `json:"plan"`
				Restored backup.Restored    `json:"restored"`
			}{planned.Plan, done})
		}
		return showRestored(c.stdout, &done, planned.Plan.Prune)
	})
}

func (r *restoreFromCmd) options(c *call, cfg *config.Config) (o backup.RestoreOptions, err error) {
	if err := cfg.SecretsError(); err != nil {
		return o, fmt.Errorf("a restore needs the secrets that are kept apart from the backups: %w", err)
	}
	if r.Into != "" {
		u, err := config.ParseDatabaseURL(r.Into, workDir())
		if err != nil {
			return o, fmt.Errorf("--into %w", err)
		}
		cfg.Database.URL = u
	}
	log := slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if o, err = app.RestoreOptions(cfg, log, time.Now); err != nil {
		return o, err
	}
	if o.Identities, err = r.identities(c, cfg); err != nil {
		return o, err
	}
	o.By, o.KnownHead, o.Unsigned, o.WithoutGenerations = byOperator(), strings.TrimSpace(r.KnownHead), r.AcceptUnsigned, r.WithoutGeneration
	o.Tampered = r.AcceptTampered
	if !r.JSON {
		o.Progress = c.backupProgress()
	}
	return o, nil
}

// accept asks on a terminal.
func (r *restoreFromCmd) accept(c *call) error {
	if r.Yes {
		return nil
	}
	in, ok := c.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) || r.JSON {
		return errors.New("nothing was done: look at the plan (--plan) and accept it with --yes")
	}
	fmt.Fprint(c.stderr, "Type restore to go on: ")
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(answer) != "restore" {
		return errors.New("nothing was done")
	}
	return nil
}

func restoreError(err error) error {
	switch {
	case errors.Is(err, store.ErrNotEmpty), errors.Is(err, store.ErrInUse):
		return exit(exitTaken, err)
	case errors.Is(err, backup.ErrNoKey), errors.Is(err, backup.ErrUnsigned), errors.Is(err, backup.ErrNoIdentity), errors.Is(err, store.ErrForeignSecret),
		errors.Is(err, store.ErrAuditKeyUnknown):
		return exit(exitUnprovable, err)
	}
	return err
}

func (r *restoreFromCmd) show(c *call, cfg *config.Config, planned *backup.Restore) error {
	p := &planned.Plan
	p.Target = cfg.Database.URL.String()
	if r.JSON {
		return printJSON(c.stdout, p)
	}
	w, line := pairs(c.stdout)
	m := &p.Archive.Manifest
	line("backup", "%s of %s, %s, %d rows, audit log to entry %d", m.ID, m.SnapshotAt, m.Backend, p.Archive.Rows, m.Audit.Size)
	line("into", "%s", p.Target)
	if p.Note != "" {
		line("first", "%s", p.Note)
	}
	if p.Migrates {
		line("schema", "%d, migrated to %d", m.Schema, p.Schema)
	}
	for _, b := range p.Behind {
		line("behind", "%s by %d entries and %s", b.Of, b.Entries, time.Duration(b.Seconds)*time.Second)
	}
	showGone(line, p.Gone)
	showPrune(line, p.Prune)
	line("void", "sessions and set-up tokens; events that were acknowledged after %s are gone", m.SnapshotAt)
	for _, text := range p.Warnings {
		line("warning", "%s", text)
	}
	return w.Flush()
}

// showGone says what the anchors know that the log lacks.
func showGone(line func(name, format string, args ...any), gone []custody.Gone) {
	for i := range gone {
		g := &gone[i]
		what := string(g.Action)
		if g.TargetID != "" {
			what += " " + g.TargetID
		}
		then := ""
		switch {
		case g.Again:
			then = ", done again"
		case g.LeftOut:
			then = ", left out"
		}
		line("after it", "%s (entry %d of generation %s, %s)%s", what, g.Seq, g.Generation, g.Time, then)
	}
}

// showPrune offers a prune of the audit log that the state which came back does not know, or that was interrupted in it.
func showPrune(line func(name, format string, args ...any), through int64) {
	if through > 0 {
		line("prune", "run again: z4j-brain audit export --through %d --delete", through)
	}
}

// showAdmitted lists who gets in.
func showAdmitted(line func(name, format string, args ...any), a *store.Admitted) {
	if a == nil {
		return
	}
	when := func(t *store.Time) string {
		if t == nil {
			return "never"
		}
		return t.String()
	}
	for _, u := range a.Users {
		what := fmt.Sprintf("member of %d projects", u.Projects)
		if u.Admin {
			what = "administrator"
		}
		line("look at user", "%s, %s, last login: %s", u.Email, what, when(u.LastLoginAt))
	}
	if a.MoreUsers > 0 {
		line("", "and %d more users", a.MoreUsers)
	}
	for _, g := range a.Agents {
		line("look at agent", "%s of project %s (%s), last seen: %s", g.Name, g.Project, g.ID, when(g.LastSeenAt))
	}
	if a.MoreAgents > 0 {
		line("", "and %d more agents", a.MoreAgents)
	}
}

func showRestored(out io.Writer, done *backup.Restored, prune int64) error {
	w, line := pairs(out)
	line("restored", "%d rows in %s", done.Rows, time.Duration(done.Seconds*float64(time.Second)).Round(time.Millisecond))
	line("generation", "%s", done.Generation)
	line("done again", "%d revocations, %d erasures", done.Revoked, done.Erased)
	next := "start the brain, look around, then run `z4j-brain restore release`"
	if done.Suspended {
		next = "start the brain, look through API keys, users and agents, then run `z4j-brain restore release --keys`"
	}
	showAdmitted(line, done.LookAt)
	showPrune(line, prune)
	line("next", "%s", next)
	return w.Flush()
}

type restoreReleaseCmd struct {
	Keys bool `help:"API keys too, which were suspended since no anchor could tell which were revoked after the backup."`
	JSON bool `name:"json" help:"Print JSON."`
}

// Help is shown by `restore release --help`.
func (restoreReleaseCmd) Help() string {
	return `Exit codes: 0 released, 1 nothing waits, or could not, 2 wrong arguments or settings.`
}

// Run releases.
func (r *restoreReleaseCmd) Run(c *call) error {
	return c.withChanges(func(ctx context.Context, _ *config.Config, s *store.Store) error {
		n, err := s.ReleaseRestore(ctx, r.Keys, byOperator())
		if err != nil {
			return err
		}
		held, err := s.RestoreHeld(ctx)
		if err != nil && !errors.Is(err, store.ErrNotHeld) {
			return err
		}
		if r.JSON {
			return printJSON(c.stdout, map[string]any{"keys_released": n, "keys_suspended": held.Keys})
		}
		if held.Keys {
			_, err = fmt.Fprintln(c.stdout, "released; API keys stay suspended until --keys")
			return err
		}
		_, err = fmt.Fprintf(c.stdout, "released, with %d API keys\n", n)
		return err
	})
}
