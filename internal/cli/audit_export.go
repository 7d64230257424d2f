package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/prune"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
)

// Exit codes of audit export --delete beside the general ones.
const (
	exitUnproved = 3 // rows are not proved
	exitArchive  = 4 // the archive is not as it was
	exitBusy     = 5
)

type auditExportCmd struct {
	Format           string `help:"csv or ndjson; csv unless --delete is given." placeholder:"FORMAT"`
	From             string `help:"From the first entry at this time or later: a date (midnight in UTC) or RFC 3339." placeholder:"TIME"`
	To               string `help:"To the last entry before this time." placeholder:"TIME"`
	OlderThan        string `help:"Only entries older than this: a number with d, w, mo or y, such as 1y." placeholder:"AGE"`
	Through          *int64 `help:"To the entry with this number." placeholder:"SEQ"`
	Project          string `help:"Only entries of this project." placeholder:"SLUG"`
	Action           string `help:"Only entries of this action." placeholder:"ACTION"`
	Actor            string `help:"Only entries of this actor." placeholder:"ID"`
	Outcome          string `help:"Only entries with this outcome: allow, deny or error." placeholder:"OUTCOME"`
	Out              string `help:"File that is written: a path, s3://bucket/name, or - for standard output, which is the default." placeholder:"FILE"`
	Delete           bool   `help:"Delete the entries once the file is proved."`
	Yes              bool   `help:"Do not ask before entries are deleted."`
	AcceptUnprovable bool   `help:"Delete also entries whose key is lost; it is recorded."`
	JSON             bool   `name:"json" help:"Print JSON about what was deleted."`
}

// Help is shown by `audit export --help`.
func (auditExportCmd) Help() string {
	return `Writes the audit log as a file that can be proved without z4j (docs/operations/audit.md). Its last record is the entry of the
export itself, which says which entries have to be in it. The file is written under a temporary name, flushed and renamed,
and only its owner can read it.

With --delete, which takes --older-than or --through, the oldest entries are archived and then deleted: they are proved, the
archive is written, read back and proved, it is recorded that they go, and only then are they deleted. A run that was killed
is finished by the next one. Without --out the archive is $Z4J_HOME/archives/audit-<generation>-<first>-<last>.ndjson. Nothing
else ever deletes entries.

Exit codes: 0 done (also when no entry is old enough); 1 could not; 2 wrong arguments or settings. With --delete also: 3 the
entries are not proved; 4 the archive that an interrupted run left is not there as it was; 5 another one is running. Of 1 to 5
nothing was deleted that is not in an archive.`
}

// Run exports.
func (e *auditExportCmd) Run(c *call) error {
	if err := e.check(c); err != nil {
		return exit(exitUsage, err)
	}
	f, err := e.filter(time.Now())
	if err != nil {
		return exit(exitUsage, err)
	}
	return c.withChanges(func(ctx context.Context, cfg *config.Config, s *store.Store) error {
		if e.Delete {
			return e.prune(ctx, c, cfg, s, f)
		}
		if e.Project != "" {
			p, _, err := s.ProjectOf(ctx, e.Project, store.Sight{All: true})
			if errors.Is(err, store.ErrNotFound) {
				return exit(exitUsage, fmt.Errorf("--project: there is no project %q", e.Project))
			}
			if err != nil {
				return err
			}
			f.Project = &p
		}
		if head, err := s.AuditHead(ctx); err != nil || head.Seq < f.Through {
			return cmp.Or(err, exit(exitUsage, fmt.Errorf("--through: the newest entry is %d", head.Seq)))
		}
		return e.export(ctx, c, cfg, s, f)
	})
}

// check refuses what can be refused without the database.
func (e *auditExportCmd) check(c *call) error {
	if e.Format == "" {
		e.Format = string(audit.CSV)
		if e.Delete {
			e.Format = string(audit.NDJSON)
		}
	}
	if _, ok := audit.ParseFormat(e.Format); !ok {
		return fmt.Errorf("--format is csv or ndjson, not %q", e.Format)
	}
	switch e.Outcome {
	case "", string(audit.Allow), string(audit.Deny), string(audit.Failed):
	default:
		return fmt.Errorf("--outcome is allow, deny or error, not %q", e.Outcome)
	}
	switch {
	case e.Through != nil && *e.Through < 1:
		return errors.New("--through counts from 1")
	case e.OlderThan != "" && e.To != "":
		return errors.New("--older-than and --to both say where the export ends; give one")
	case !e.Delete && (e.Yes || e.AcceptUnprovable):
		return errors.New("--yes and --accept-unprovable belong to --delete")
	case !e.Delete:
		return nil
	case e.OlderThan == "" && e.Through == nil:
		return errors.New("--delete takes --older-than or --through, so that nobody deletes everything by mistake")
	case e.From != "" || e.To != "" || e.Project != "" || e.Action != "" || e.Actor != "" || e.Outcome != "":
		return errors.New("--delete takes entries from the beginning of the log on, all of them: only --older-than and --through can say which")
	case e.Out == "-":
		return errors.New("--delete needs a file that can be read back, not standard output")
	case !e.Yes && !isTerminal(c.stdin):
		return errors.New("--delete asks before it deletes, and there is no terminal: say --yes")
	}
	if info, err := os.Stat(e.Out); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("--delete needs a file that can be read back: %s is none", e.Out)
	}
	return nil
}

func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (e *auditExportCmd) filter(now time.Time) (f store.ExportFilter, err error) {
	f = store.ExportFilter{Action: e.Action, Actor: e.Actor, Outcome: e.Outcome}
	if e.Through != nil {
		f.Through = *e.Through
	}
	if f.From, err = when("--from", e.From); err != nil {
		return f, err
	}
	if f.To, err = when("--to", e.To); err != nil {
		return f, err
	}
	if e.OlderThan != "" {
		t, err := before(now, e.OlderThan)
		if err != nil {
			return f, err
		}
		f.To = new(store.TimeOf(t))
	}
	if f.From != nil && f.To != nil && f.From.After(f.To.Time) {
		return f, errors.New("--from is after the end of the export")
	}
	return f, nil
}

// when reads a date, which begins at midnight in UTC, or a time of RFC 3339.
func when(flag, text string) (*store.Time, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // what was not given is no error.
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339Nano} {
		if t, err := time.Parse(layout, text); err == nil && t.UTC().Year() > 0 && t.UTC().Year() < 10000 {
			return new(store.TimeOf(t)), nil
		}
	}
	return nil, fmt.Errorf("%s: %q is neither a date like 2026-01-31 nor a time like 2026-01-31T12:00:00Z", flag, text)
}

var agePattern = regexp.MustCompile(`^([1-9][0-9]{0,3})(d|w|mo|y)$`)

// before is the time that is a duration like 90d, 12w, 6mo or 1y before now, by the calendar.
func before(now time.Time, text string) (time.Time, error) {
	m := agePattern.FindStringSubmatch(text)
	if m == nil {
		return time.Time{}, fmt.Errorf("--older-than: %q is no age: give a number with d, w, mo or y, such as 1y", text)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return time.Time{}, err
	}
	now = now.UTC()
	switch m[2] {
	case "d":
		now = now.AddDate(0, 0, -n)
	case "w":
		now = now.AddDate(0, 0, -7*n)
	case "mo":
		now = now.AddDate(0, -n, 0)
	default:
		now = now.AddDate(-n, 0, 0)
	}
	if now.Year() < 1 {
		return time.Time{}, fmt.Errorf("--older-than: %q is longer than anything was", text)
	}
	return now, nil
}

// export writes the file. Whatever goes wrong, no part of one stays under its name.
func (e *auditExportCmd) export(ctx context.Context, c *call, cfg *config.Config, s *store.Store, f store.ExportFilter) (err error) {
	out, err := e.open(ctx, c, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	export, err := s.ExportAudit(ctx, audit.Format(e.Format), f, byOperator())
	if err != nil {
		return err
	}
	if err := export.Write(ctx, out, c.progress("exported")); err != nil {
		return fmt.Errorf("write %s: %w", e.name(), err)
	}
	if err := out.Commit(); err != nil {
		return fmt.Errorf("write %s: %w", e.name(), err)
	}
	return nil
}

func (e *auditExportCmd) name() string {
	if e.Out == "" || e.Out == "-" {
		return "standard output"
	}
	return e.Out
}

// open opens what is written to.
func (e *auditExportCmd) open(ctx context.Context, c *call, cfg *config.Config) (target.Writer, error) {
	if e.Out == "" || e.Out == "-" {
		return stream{c.stdout, nil}, nil
	}
	info, err := os.Stat(e.Out)
	switch {
	case err == nil && info.Mode().IsRegular():
		return nil, exit(exitUsage, fmt.Errorf("%s is there already: move it away or choose another name", e.Out))
	case err == nil && info.IsDir():
		return nil, exit(exitUsage, fmt.Errorf("%s is a directory: name a file", e.Out))
	case err == nil:
		f, err := os.OpenFile(e.Out, os.O_WRONLY, 0)
		return stream{f, f}, err
	}
	place, name, err := locate(e.Out)
	if err != nil {
		return nil, exit(exitUsage, err)
	}
	dir, err := target.Open(ctx, place, app.TargetOptions(cfg))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, exit(exitUsage, err)
	}
	if err != nil {
		return nil, err
	}
	return dir.Create(ctx, name)
}

// locate takes a file's location apart: its directory or bucket, and its name there.
func locate(out string) (place, name string, err error) {
	if strings.Contains(out, "://") {
		at := strings.LastIndexByte(out, '/')
		if place, name = out[:at], out[at+1:]; name == "" || strings.HasSuffix(place, "/") {
			return "", "", fmt.Errorf("%s names no file: give s3://bucket/name", out)
		}
		return place, name, nil
	}
	full, err := filepath.Abs(out)
	if err != nil {
		return "", "", fmt.Errorf("find %s: %w", out, err)
	}
	return filepath.Dir(full), filepath.Base(full), nil
}

// stream is a place that takes bytes as they come: a pipe, a device.
type stream struct {
	io.Writer
	file *os.File // to be closed; nil: standard output
}

// Commit does nothing: what was written is gone.
func (stream) Commit() error { return nil }

// Close closes the device.
func (s stream) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// prune archives and deletes the oldest entries.
func (e *auditExportCmd) prune(ctx context.Context, c *call, cfg *config.Config, s *store.Store, f store.ExportFilter) error {
	place, name, own := filepath.Join(cfg.General.Home, "archives"), "", true
	if e.Out != "" {
		var err error
		if place, name, err = locate(e.Out); err != nil {
			return exit(exitUsage, err)
		}
		own = false
	}
	shown := map[string]func(done, total int64){}
	r, err := prune.Run(ctx, prune.Options{
		Store: s, Place: place, Name: name, Format: audit.Format(e.Format), Before: f.To, Through: f.Through, AcceptUnprovable: e.AcceptUnprovable,
		By: byOperator(), Now: time.Now, Confirm: e.confirm(c), Anchor: c.anchors.Settle,
		Open: func(ctx context.Context, location string) (target.Target, error) {
			o := app.TargetOptions(cfg)
			o.Make = own && location == place
			return target.Open(ctx, location, o)
		},
		Progress: func(what string, done, total int64) {
			if shown[what] == nil {
				shown[what] = c.progress(what)
			}
			if show := shown[what]; show != nil {
				show(done, total)
			}
		},
	})
	if r.Finished > 0 && !e.JSON {
		fmt.Fprintf(c.stdout, "finished an earlier run: the entries up to %d are deleted\n", r.Finished)
	}
	switch {
	case errors.Is(err, prune.ErrNothing):
		err = nil
	case errors.Is(err, prune.ErrUnproved):
		return exit(exitUnproved, err)
	case errors.Is(err, prune.ErrArchive):
		return exit(exitArchive, err)
	case errors.Is(err, prune.ErrBusy):
		return exit(exitBusy, err)
	}
	if err != nil {
		return err
	}
	if e.JSON {
		return printJSON(c.stdout, r)
	}
	if r.Last == 0 {
		_, err = fmt.Fprintln(c.stdout, "no entry is old enough: nothing was deleted")
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "archived and deleted the entries %d to %d\narchive  %s\nSHA-256  %s\n", r.First, r.Last, r.Archive, r.SHA256)
	return err
}

// confirm asks on the terminal, unless --yes was said.
func (e *auditExportCmd) confirm(c *call) func(prune.Plan) bool {
	if e.Yes {
		return nil
	}
	return func(p prune.Plan) bool {
		fmt.Fprintf(c.stderr, "The entries %d to %d (until %s) will be written to %s and then deleted.\nType yes to go on: ", p.First, p.Last, p.Until, p.Archive)
		line, _ := bufio.NewReader(c.stdin).ReadString('\n') // what ends early is no yes
		return strings.TrimSpace(line) == "yes"
	}
}
