package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
)

type backupVerifyCmd struct {
	opening

	Target string `arg:"" optional:"" help:"An archive, or a place whose newest archive is meant. Without it: the newest of Z4J_BACKUP_TARGET."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

// Help is shown by `backup verify --help`.
func (backupVerifyCmd) Help() string {
	return `Decrypts, decompresses, hashes and counts everything, checks the signature, proves the audit log inside, and looks whether tasks,
attempts and counts agree. It needs no database; with one it also compares the archive with what the audit log says was made.

Exit codes: 0 good; 1 damaged, cut, changed, or its content contradicts itself; 2 wrong arguments or settings; 3 nothing can be
said (no key opens it, the audit secret that signed it is missing, or it could not be read).`
}

// verified is what the command prints.
type verified struct {
	Result string         `json:"result"`
	Exit   int            `json:"exit_code"`
	Target string         `json:"target"`
	Record string         `json:"recorded"` // how it compares with the audit log
	Error  string         `json:"error,omitempty"`
	Report *backup.Report `json:"report"`
}

// Run verifies.
func (v *backupVerifyCmd) Run(c *call) error {
	location, name := splitArchive(v.Target)
	return c.withPlace(location, v.JSON, func(ctx context.Context, cfg *config.Config, s *store.Store, in target.Target) error {
		identities, err := v.identities(c, cfg)
		if err != nil {
			return exit(exitUsage, err)
		}
		var keys []audit.Key
		if !cfg.Secrets.Audit.IsZero() {
			if keys, err = app.AuditKeys(cfg); err != nil {
				return exit(exitUsage, err)
			}
		}
		if name == "" {
			if name, err = newestIn(ctx, in, s); err != nil {
				return err
			}
		}
		out := verified{Target: in.String(), Record: "not recorded"}
		done := backup.Reading(ctx, in, name)
		defer done()
		out.Report, err = verifyArchive(ctx, in, name, backup.ReadOptions{Identities: identities, Keys: keys, Unsigned: true}, c.backupProgress())
		if err != nil {
			code := backup.ExitOf(err)
			if code == 0 {
				return exit(exitUnprovable, err)
			}
			out.Exit, out.Error = code, err.Error()
		} else {
			out.Exit = out.Report.Exit()
			if err := out.compare(ctx, s); err != nil {
				return exit(exitUnprovable, err)
			}
		}
		out.Result = map[int]string{backup.ExitGood: "good", backup.ExitBad: "bad"}[out.Exit]
		if out.Result == "" {
			out.Result = "not provable"
		}
		if v.JSON {
			return errors.Join(printJSON(c.stdout, out), quietly(out.Exit))
		}
		return errors.Join(out.show(c.stdout, name), quietly(out.Exit))
	})
}

// splitArchive cuts the name of an archive off a place. A directory has no name.
func splitArchive(location string) (place, name string) {
	if scheme, rest, is := strings.Cut(location, "://"); is {
		at := strings.LastIndexByte(rest, '/')
		if at > 0 && (strings.HasSuffix(rest, ".tar") || strings.HasSuffix(rest, ".tar.age")) {
			return scheme + "://" + rest[:at], rest[at+1:]
		}
		return location, ""
	}
	if info, err := os.Stat(location); err == nil && !info.IsDir() {
		return filepath.Dir(location), filepath.Base(location)
	}
	return location, ""
}

func newestIn(ctx context.Context, in target.Target, s *store.Store) (string, error) {
	e, err := backup.Newest(ctx, in, s, time.Now())
	return e.Name, err
}

func verifyArchive(ctx context.Context, in target.Target, name string, o backup.ReadOptions, progress func(phase string, done, total int64)) (*backup.Report, error) {
	a, err := backup.Open(ctx, in, name, o)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	var tell func(done, total int64)
	if progress != nil {
		tell = func(done, total int64) { progress("read", done, total) }
	}
	r, err := a.Verify(ctx, o.Keys, tell)
	if err != nil {
		return nil, err
	}
	return &r, nil
}

// compare looks what the audit log says of the archive.
func (v *verified) compare(ctx context.Context, s *store.Store) error {
	if s == nil {
		v.Record = "not compared: there is no database"
		return nil
	}
	r, err := backup.Find(ctx, s, v.Report.Manifest.ID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	case r.SHA256 != v.Report.SHA256:
		v.Record = "another SHA-256 is recorded: " + r.SHA256
		v.Exit = max(v.Exit, backup.ExitBad)
	default:
		v.Record = fmt.Sprintf("as recorded in entry %d", r.Seq)
	}
	return nil
}

func (v *verified) show(out io.Writer, name string) error {
	w, line := pairs(out)
	line("file", "%s", strings.TrimSuffix(v.Target, "/")+"/"+name)
	if r := v.Report; r != nil {
		m := &r.Manifest
		line("backup", "%s", m.ID)
		line("of", "%s, %s %s, schema %d", m.SnapshotAt, m.Backend, m.Server, m.Schema)
		if m.Hold != nil {
			line("made in hold", "since %s: %s", m.Hold.Since, m.Hold.Reason)
		}
		line("rows", "%d in %d tables", r.Rows, len(m.Tables))
		line("sha256", "%s", r.SHA256)
		line("signed", "key id %s%s", r.KID, map[bool]string{true: "", false: ", which is not at hand"}[r.Signed])
		line("audit log", "%s: rows %d to %d", audit.Verdict(r.Audit.Exit()), r.Audit.From, r.Audit.To)
		if r.Audit.First != nil {
			line("first bad row", "%d: %s: %s", r.Audit.First.Seq, r.Audit.First.Class, r.Audit.First.Why)
		}
		for _, d := range r.Disagree {
			line("contradiction", "%s", d)
		}
		line("audit entry", "%s", v.Record)
	}
	if v.Error != "" {
		line("fault", "%s", v.Error)
	}
	line("result", "%s", v.Result)
	return w.Flush()
}

type backupPruneCmd struct {
	Target string `arg:"" optional:"" help:"A directory or s3://bucket/prefix. Without it: Z4J_BACKUP_TARGET."`
	Keep   string `help:"Rules, such as daily=7,weekly=5,monthly=12 (also last, hourly, yearly). Without it: Z4J_BACKUP_KEEP." placeholder:"RULES"`
	Plan   bool   `help:"Only say what would go."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

// Help is shown by `backup prune --help`.
func (backupPruneCmd) Help() string {
	return `Keeps the newest backup of each of the last so many days, weeks, months; the newest of all always stays. Only those count that
the audit log knows as complete and verified; another one goes when it is older than all that are kept. Backups of a database that
was not right are kept by the same rules, apart from the good ones. What is being read, what is not as it was recorded, backups of
other installations and other files are left alone. The removal is recorded.

Exit codes: 0 done; 1 could not; 2 wrong arguments or settings; 5 another backup or prune is under way.`
}

// Run prunes.
func (p *backupPruneCmd) Run(c *call) error {
	return c.withBackups(p.JSON, func(ctx context.Context, cfg *config.Config, s *store.Store) error {
		rules := p.Keep
		if rules == "" {
			rules = cfg.Backup.Keep
		}
		keep, err := backup.ParseKeep(rules)
		if err != nil {
			return exit(exitUsage, err)
		}
		in, err := app.OpenBackups(ctx, cfg, p.Target)
		if err != nil {
			return exit(exitUsage, err)
		}
		out, err := backup.Prune(ctx, backup.Options{Store: s, Actor: byOperator().Actor, Now: time.Now, Target: in}, keep, p.Plan)
		if errors.Is(err, backup.ErrBusy) {
			return exit(exitBusy, err)
		}
		if err != nil {
			return err
		}
		if p.JSON {
			return printJSON(c.stdout, out)
		}
		word := "removed"
		if p.Plan {
			word = "would remove"
		}
		for _, name := range out.Removed {
			fmt.Fprintf(c.stdout, "%s %s\n", word, name)
		}
		for _, name := range out.Left {
			fmt.Fprintf(c.stdout, "left, since it is being read: %s\n", name)
		}
		_, err = fmt.Fprintf(c.stdout, "%s %d of %d\n", word, len(out.Removed), len(out.Entries))
		return err
	})
}
