package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/store"
)

type auditVerifyCmd struct {
	From          int64    `help:"Number of the first row to look at." placeholder:"SEQ"`
	File          string   `help:"Verify an exported file instead: by itself, and against the log if there is a database." placeholder:"EXPORT"`
	Checkpoint    []string `help:"A signed checkpoint that was kept elsewhere; compare the log with it. Or a file checkpoints-*.notes of an anchor. May be given more than once." placeholder:"FILE" type:"path"`
	SinceLast     bool     `help:"Begin behind the newest own checkpoint that agrees."`
	Restored      bool     `help:"The database is a restored copy: say how far it is behind, instead of ending with 4."`
	RequireAnchor bool     `help:"End with 3 unless a checkpoint from beyond this machine agrees."`
	JSON          bool     `name:"json" help:"Print JSON."`
}

// Help is shown by `audit verify --help`.
func (auditVerifyCmd) Help() string {
	return `Reads every row from the first that was not pruned to the last, never a sample. Old secrets are taken from
Z4J_AUDIT_SECRETS_PREVIOUS. What is found health, metrics, check and status tell as well, but for --from, --since-last, --restored,
--require-anchor and --checkpoint; if it is a fault, a running brain looks for itself at once.

Exit codes: 0 every row is proved; 1 tampered; 2 wrong arguments or settings; 3 not provable (a secret is missing, there is
no row, rows could not be read, or no anchor with --require-anchor); 4 behind or against what was remembered elsewhere.`
}

// Run verifies.
func (v *auditVerifyCmd) Run(c *call) (err error) {
	switch {
	case v.From < 0:
		return exit(exitUsage, errors.New("--from counts from 1"))
	case v.From > 0 && v.SinceLast:
		return exit(exitUsage, errors.New("--from and --since-last both say where to begin: give one of them"))
	}
	if v.File != "" {
		if v.From != 0 || v.SinceLast || v.Restored || v.RequireAnchor || len(v.Checkpoint) > 0 {
			return exit(exitUsage, errors.New("--from, --since-last, --restored, --require-anchor and --checkpoint belong to the log, not to --file"))
		}
		return v.file(c)
	}
	ctx := context.Background()
	cfg, err := c.load(v.JSON)
	if err != nil {
		return err
	}
	s, err := c.openStore(ctx, cfg, false)
	switch {
	case errors.Is(err, errNoDatabase), errors.Is(err, config.ErrSecrets), errors.Is(err, store.ErrForeignSecret), errors.Is(err, store.ErrNoSchema),
		errors.Is(err, store.ErrOldSchema), errors.Is(err, store.ErrFutureSchema):
		return exit(exitUsage, err)
	case err != nil:
		return exit(audit.ExitUnprovable, err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	witnesses, err := v.brought(s)
	if err != nil {
		return exit(exitUsage, err)
	}
	anchors := app.Custody(cfg, s, slog.New(slog.DiscardHandler), time.Now)
	anchored, err := anchors.Witnesses(ctx)
	if err != nil {
		return exit(audit.ExitUnprovable, err)
	}
	witnesses = append(witnesses, anchored...)
	report, err := v.verify(ctx, c, s, store.VerifyOptions{
		From: v.From, SinceLast: v.SinceLast, Witnesses: witnesses, Restored: v.Restored, Anchored: v.RequireAnchor, Progress: c.progress("verified"),
	})
	if err != nil {
		return exit(audit.ExitUnprovable, err)
	}
	code := report.Exit()
	out := verifiedLog{audit.Verdict(code), code, report, anchors.Local(cfg.Database.URL.Path()), anchors.Troubles()}
	if v.JSON {
		return errors.Join(printJSON(c.stdout, out), quietly(code))
	}
	return errors.Join(out.show(c.stdout), quietly(code))
}

// verify verifies, and lets the brains know what was found.
func (v *auditVerifyCmd) verify(ctx context.Context, c *call, s *store.Store, o store.VerifyOptions) (audit.Report, error) {
	began, err := s.BeginVerification(ctx)
	if err != nil {
		return audit.Report{}, err
	}
	report, err := s.VerifyAudit(ctx, o)
	if err != nil {
		return report, err
	}
	asBrain := v.From == 0 && !v.SinceLast && !v.Restored && !v.RequireAnchor && len(v.Checkpoint) == 0
	if err := app.KeepVerified(ctx, s, began, &report, asBrain); err != nil {
		fmt.Fprintln(c.stderr, "z4j-brain: warning: what was found is not told to the brain:", err)
	}
	return report, nil
}

// verifiedLog is what a verification tells.
type verifiedLog struct {
	Result string `json:"result"`
	Exit   int    `json:"exit_code"`
	audit.Report

	Local    custody.Local     `json:"local_anchor"`
	Troubles []custody.Trouble `json:"anchor_troubles"`
}

// brought reads the checkpoints that were given as files. Whoever gives one says that it was kept elsewhere.
func (v *auditVerifyCmd) brought(s *store.Store) ([]audit.Witness, error) {
	public := audit.PublicKeys(s.AuditKeys())
	var list []audit.Witness
	for _, name := range v.Checkpoint {
		text, err := os.ReadFile(name) //nolint:gosec // the operator names it.
		if err != nil {
			return nil, fmt.Errorf("read checkpoint: %w", err)
		}
		cp, err := openCheckpoint(string(text), public)
		if err != nil {
			return nil, fmt.Errorf("%s: %w; if an older secret signed it, give that one in Z4J_AUDIT_SECRETS_PREVIOUS", name, err)
		}
		list = append(list, audit.Witness{Checkpoint: cp, Where: "file " + name, Outside: true})
	}
	return list, nil
}

// openCheckpoint reads a checkpoint as it was signed, or the newest in a file of an anchor, which has one in each line, as a
// string of JSON.
func openCheckpoint(text string, public []string) (audit.Checkpoint, error) {
	cp, err := audit.OpenCheckpoint(text, public...)
	if err == nil {
		return cp, nil
	}
	for line := range strings.Lines(text) {
		var note string
		if json.Unmarshal([]byte(line), &note) != nil {
			continue
		}
		if one, bad := audit.OpenCheckpoint(note, public...); bad == nil && (err != nil || one.Size > cp.Size) {
			cp, err = one, nil
		}
	}
	return cp, err
}

// shownRanges is how many unprovable ranges and checkpoints are printed; --json has more.
const shownRanges = 20

func (v *verifiedLog) show(out io.Writer) error {
	r := &v.Report
	w, line := pairs(out)
	line("rows that exist", "%d", r.Exist)
	line("rows checked", "%d", r.Checked)
	if r.Checked > 0 {
		line("range", "%d to %d", r.From, r.To)
		line("head", "%s", r.Head)
	}
	if r.Since > 0 {
		line("began", "behind the checkpoint of %d rows, which agrees", r.Since)
	}
	line("personal parts", "%d present, %d erased", r.PersonalPresent, r.PersonalErased)
	showCover(line, r)
	v.showAnchors(line)
	if r.First != nil {
		line("first bad row", "%d: %s: %s", r.First.Seq, r.First.Class, r.First.Why)
	}
	for _, class := range slices.Sorted(maps.Keys(r.Faults)) {
		line("rows "+string(class), "%d", r.Faults[class])
	}
	for _, u := range r.Unprovable[:min(len(r.Unprovable), shownRanges)] {
		if u.From == 0 {
			line("not provable", "%s", u.Why)
			continue
		}
		line("cannot check", "rows %d to %d: %s", u.From, u.To, u.Why)
	}
	if more := len(r.Unprovable) - shownRanges; more > 0 {
		line("cannot check", "%d further ranges (--json shows them)", more)
	}
	for _, n := range r.Notes {
		line("note", "%s", n)
	}
	line("result", "%s", v.Result)
	return w.Flush()
}

// showAnchors says what is wrong with anchors. It changes no exit code: an anchor that can't be read says nothing.
func (v *verifiedLog) showAnchors(line func(name, format string, args ...any)) {
	showTroubles(line, v.Troubles)
	switch {
	case v.Local.Path == "":
	case v.Local.Missing:
		line("local anchor", "%s is missing, though the log has rows: the next start of a brain begins it anew", v.Local.Path)
	case v.Local.OnVolume:
		line("local anchor", "%s lies on the volume of the database: a snapshot that is put back sets back both", v.Local.Path)
	}
}

// pairs writes lines of a name and what belongs to it, below each other, once w is flushed.
func pairs(out io.Writer) (w *tabwriter.Writer, line func(name, format string, args ...any)) {
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	return w, func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
}

// showTroubles says what is wrong with anchors and holds nothing.
func showTroubles(line func(name, format string, args ...any), troubles []custody.Trouble) {
	for i := range troubles {
		line("anchor trouble", "%s", troubles[i].String())
	}
}

// showCover says how far checkpoints speak for the log.
func showCover(line func(name, format string, args ...any), r *audit.Report) {
	newest, outside := r.Covered()
	if newest != nil {
		line("covered", "up to row %d at %s, by %s", newest.Size, newest.Time, newest.Where)
	}
	if outside != nil {
		line("anchors", "up to row %d at %s, by %s", outside.Size, outside.Time, outside.Where)
	} else {
		line("anchors", "none outside of this machine: whoever can write it can cut the tail and what remembers it")
	}
	if r.Behind > 0 {
		line("behind", "%d entries", r.Behind)
	}
	shown := 0
	for _, c := range r.Checkpoints {
		if c.Standing == audit.Agrees || c.Standing == audit.NotReached {
			continue
		}
		if shown++; shown > shownRanges {
			line("checkpoint", "further ones (--json shows them)")
			return
		}
		line("checkpoint", "%s: %d rows at %s, generation %s, %s", c.Standing, c.Size, c.Time, c.Generation, c.Where)
	}
}

// progress shows how far something is, on a terminal only.
func (c *call) progress(what string) func(done, total int64) {
	f, ok := c.stderr.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	const every = 200 * time.Millisecond
	var last time.Time
	return func(done, total int64) {
		if now := time.Now(); done >= total || now.Sub(last) >= every {
			last = now
			fmt.Fprintf(f, "\r%s %s %d of %d%s", what, bar(done, total), done, total, strings.Repeat("\n", btoi(done >= total)))
		}
	}
}

// bar draws a part of a whole.
func bar(done, total int64) string {
	const width = 30
	full := width
	if total > 0 {
		full = int(min(done, total) * width / total)
	}
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "]"
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
