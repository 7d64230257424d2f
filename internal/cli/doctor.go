package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/store"
)

type doctorCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Help is shown by `doctor --help`.
func (doctorCmd) Help() string {
	return `Runs check, and then says what is wrong or risky with this installation and what to do about it. Changes nothing.

Exit codes: 0 the checks are good, whatever risks and advice there are; otherwise those of check.`
}

// advice is one thing that doctor found.
type advice struct {
	ID    string `json:"id"`    // stays the same between versions
	Level string `json:"level"` // risk: data or evidence may be lost, or somebody gets in; advice: it would be better otherwise
	Says  string `json:"says"`
	Do    string `json:"do"`
}

const (
	levelRisk   = "risk"
	levelAdvice = "advice"
)

// Run examines.
func (k *doctorCmd) Run(c *call) error {
	ctx := context.Background()
	checks := c.check(ctx)
	code := firstWrong(checks)
	found := []advice{}
	var incomplete error
	var cost *outlook
	if code == 0 {
		found, cost, incomplete = c.examine(ctx)
	}
	if k.JSON {
		out := map[string]any{"ok": code == 0, "checks": checks, "advice": found}
		if cost != nil {
			out["rpo"], out["rto"] = cost.RPO, cost.RTO
		}
		return errors.Join(printJSON(c.stdout, out), incomplete, quietly(code))
	}
	return errors.Join(c.showDoctor(checks, found, cost, code), incomplete, quietly(code))
}

func (c *call) showDoctor(checks []finding, found []advice, cost *outlook, code int) error {
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	showFindings(w, checks)
	if err := w.Flush(); err != nil {
		return err
	}
	slices.SortStableFunc(found, func(a, b advice) int { return cmp.Compare(b.Level, a.Level) }) // risks first
	for i, a := range found {
		fmt.Fprintf(c.stdout, "\n%d. %s: %s\n   %s [%s]\n", i+1, a.Level, a.Says, a.Do, a.ID)
	}
	var err error
	switch {
	case code != 0:
		_, err = fmt.Fprintln(c.stdout, "\nMend what is WRONG first; the rest was not looked at.")
	case len(found) == 0:
		_, err = fmt.Fprintln(c.stdout, "\nNothing to advise.")
	}
	if cost != nil {
		_, err = fmt.Fprintf(c.stdout, "\n%s\n%s\n", cost.RPO.Says, cost.RTO.Says)
	}
	return err
}

// examine looks at what works and is risky all the same.
func (c *call) examine(ctx context.Context) (found []advice, cost *outlook, err error) {
	found = []advice{}
	cfg, err := c.load(true)
	if err != nil {
		return found, nil, err
	}
	s, err := c.openStore(ctx, cfg, false)
	if err != nil {
		return found, nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	found = append(found, adviseSettings(cfg)...)
	d, err := s.Durability(ctx)
	if err != nil {
		return found, nil, err
	}
	found = append(found, adviseDatabase(&d)...)
	g, err := s.Gaps(ctx)
	if err != nil {
		return found, nil, err
	}
	found = append(found, adviseGaps(&g)...)
	l, o, err := adviseBackups(ctx, cfg, s, &d, time.Now())
	if err != nil {
		return found, nil, err
	}
	return append(found, l...), &o, nil
}

// list collects what holds of a number of pieces of advice.
type list []advice

func (l *list) add(holds bool, level, id, says, do string) {
	if holds {
		*l = append(*l, advice{ID: id, Level: level, Says: says, Do: do})
	}
}

func adviseSettings(cfg *config.Config) []advice {
	var l list
	for _, w := range cfg.Warnings {
		l.add(true, levelAdvice, "setting", w, "`z4j-brain config show` tells where each setting comes from.")
	}
	l.add(cfg.Observe.MetricsPublic, levelRisk, "metrics-public", "everybody who reaches the brain may read /metrics: names of projects and queues, and how much work there is",
		"Take Z4J_METRICS_PUBLIC away and give your Prometheus Z4J_METRICS_AUTH_TOKEN.")
	l.add(len(cfg.Secrets.PreviousMaster) > 0, levelAdvice, "secret-not-finished", "Z4J_PREVIOUS_SECRETS holds earlier values of Z4J_SECRET: a rotation was begun and not finished",
		"`z4j-brain secrets rotate master --finish` tells who still needs them.")
	l.add(len(cfg.Secrets.PreviousSession) > 0, levelAdvice, "session-secret-not-finished", "cookies of earlier values of Z4J_SESSION_SECRET are accepted: a rotation was begun and not finished",
		"`z4j-brain secrets rotate session --finish`")
	path := filepath.Join(cfg.General.Home, "secret.env")
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		l.add(true, levelAdvice, "secrets-unreadable", err.Error(), "Run doctor as the account that runs the brain.")
	default:
		l.add(info.Mode().Perm()&0o077 != 0, levelRisk, "secrets-readable", fmt.Sprintf("%s can be read by other accounts of this machine (mode %04o)", path, info.Mode().Perm()), "chmod 600 "+path)
		l.add(true, levelAdvice, "secrets-copy", "the secrets stand in "+path+" and in no backup: without them a restored database is of no use",
			"Keep a copy apart from the database and its backups, for example in a password manager.")
	}
	return l
}

func adviseDatabase(d *store.Durability) []advice {
	var l list
	l.add(!d.Flushed, levelRisk, "not-flushed", "the database answers before a commit is on the disk (fsync or synchronous_commit is off): a power cut loses acknowledged events and audit rows",
		"Set fsync = on and synchronous_commit = on.")
	l.add(!d.WholePages, levelRisk, "torn-pages", "full_page_writes is off: a power cut can leave half-written pages", "Set full_page_writes = on, unless the file system writes whole pages by itself.")
	if d.Backend == "sqlite" {
		return l
	}
	l.add(!d.Checksums, levelAdvice, "no-checksums", "this cluster has no data checksums: pages that the disk damages are not noticed", "With the server stopped: pg_checksums --enable.")
	l.add(d.Superuser, levelRisk, "superuser", "the brain's role is a superuser of Postgres: whoever gets its password can switch off the guards of the audit log and read every database",
		"Give the brain a role of its own, without SUPERUSER, that owns its database.")
	l.add(!d.ArchivesWAL, levelAdvice, "no-wal-archive", "WAL is not archived, so a restore goes back to the last backup, whatever happened since",
		"For a loss of minutes instead of hours archive the WAL: docs/operations/recipes/postgres-pitr.sh shows how.")
	if d.ArchivesWAL && d.ArchiveFailed != nil {
		l.add(true, levelRisk, "wal-archive-fails", "the archiving of WAL fails since "+d.ArchiveFailed.String()+": nothing newer can be restored to, and pg_wal fills the disk",
			"Look for archive_command in the log of Postgres.")
	}
	l.add(d.ArchivesWAL && d.ArchiveTimeout == 0, levelAdvice, "no-archive-timeout", "WAL is archived when a segment of 16 MiB is full, which takes long on a quiet day",
		"Set archive_timeout = 60s: that is then the most that a point-in-time restore loses.")
	return l
}

func adviseGaps(g *store.Gaps) []advice {
	var l list
	l.add(g.Accounts == 0, levelAdvice, "no-account", "there is no account yet", "Open the set-up URL that `z4j-brain serve` prints, or run `z4j-brain createsuperuser`.")
	l.add(len(g.ProjectsEmpty) > 0, levelAdvice, "project-without-agent", "no agent reports into "+strings.Join(g.ProjectsEmpty, ", "),
		"Mint one with `z4j-brain agents mint`, and see docs/agents/.")
	l.add(len(g.NoMembers) > 0, levelAdvice, "account-without-project", "these accounts are in no project and see nothing: "+strings.Join(g.NoMembers, ", "),
		"Add them to a project.")
	l.add(g.SigningKeys > 1, levelAdvice, "audit-key-not-retired", fmt.Sprintf("%d audit keys may sign: a rotation was begun and not finished", g.SigningKeys),
		"When every replica runs with the new Z4J_AUDIT_SECRET: `z4j-brain secrets rotate audit --finish`.")
	return l
}
