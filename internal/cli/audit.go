package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/store"
)

type auditCmd struct {
	Verify      auditVerifyCmd      `cmd:"" help:"Prove the audit log: read every row and say what is wrong."`
	Export      auditExportCmd      `cmd:"" help:"Write the audit log as a file that can be proved without z4j; with --delete archive and delete the oldest entries."`
	Prove       auditProveCmd       `cmd:"" help:"Write a proof that an entry is in the audit log."`
	CheckProof  auditCheckProofCmd  `cmd:"" name:"check-proof" help:"Check such a proof, without a database or a secret."`
	Acknowledge auditAcknowledgeCmd `cmd:"" name:"acknowledge-rollback" help:"Let changes be made again after the database was found set back."`
	AdoptKey    auditAdoptKeyCmd    `cmd:"" name:"adopt-key" help:"Let the configured audit secret in although the old one is lost."`
}

type auditVerifyCmd struct {
	From int64  `help:"Number of the first row to look at." placeholder:"SEQ"`
	File string `help:"Verify an exported file instead: by itself, and against the log if there is a database." placeholder:"EXPORT"`
	JSON bool   `name:"json" help:"Print JSON."`
}

// Help is shown by `audit verify --help`.
func (auditVerifyCmd) Help() string {
	return `Reads every row from the first that was not pruned to the last, never a sample. Old secrets are taken from
Z4J_AUDIT_SECRETS_PREVIOUS.

Exit codes: 0 every row is proved; 1 tampered; 2 wrong arguments or settings; 3 not provable (a secret is missing, there is
no row, or rows could not be read); 4 behind or against what was remembered elsewhere.`
}

// Run verifies.
func (v *auditVerifyCmd) Run(c *call) (err error) {
	if v.From < 0 {
		return exit(exitUsage, errors.New("--from counts from 1"))
	}
	if v.File != "" {
		if v.From != 0 {
			return exit(exitUsage, errors.New("--from belongs to the log, not to --file"))
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
	report, err := s.VerifyAudit(ctx, store.VerifyOptions{From: v.From, Progress: c.progress("verified")})
	if err != nil {
		return exit(audit.ExitUnprovable, err)
	}
	code := report.Exit()
	if v.JSON {
		out := struct {
			Result string `json:"result"`
			Exit   int    `json:"exit_code"`
			audit.Report
		}{verdict(code), code, report}
		return errors.Join(printJSON(c.stdout, out), quietly(code))
	}
	return errors.Join(showReport(c.stdout, &report, code), quietly(code))
}

func verdict(code int) string {
	switch code {
	case audit.ExitProved:
		return "proved"
	case audit.ExitTampered:
		return "tampered"
	case audit.ExitBehind:
		return "behind"
	}
	return "not provable"
}

// shownRanges is how many unprovable ranges are printed; --json has more.
const shownRanges = 20

func showReport(out io.Writer, r *audit.Report, code int) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	line("rows that exist", "%d", r.Exist)
	line("rows checked", "%d", r.Checked)
	if r.Checked > 0 {
		line("range", "%d to %d", r.From, r.To)
		line("head", "%s", r.Head)
	}
	line("personal parts", "%d present, %d erased", r.PersonalPresent, r.PersonalErased)
	line("anchors", "none: a tail that was cut while no brain ran can't be noticed")
	if r.First != nil {
		line("first bad row", "%d: %s: %s", r.First.Seq, r.First.Class, r.First.Why)
	}
	for _, class := range slices.Sorted(maps.Keys(r.Faults)) {
		line("rows "+string(class), "%d", r.Faults[class])
	}
	for _, u := range r.Unprovable[:min(len(r.Unprovable), shownRanges)] {
		line("not provable", "rows %d to %d: %s", u.From, u.To, u.Why)
	}
	if more := len(r.Unprovable) - shownRanges; more > 0 {
		line("not provable", "%d further ranges (--json shows them)", more)
	}
	for _, n := range r.Notes {
		line("note", "%s", n)
	}
	line("result", "%s", verdict(code))
	return w.Flush()
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
			fmt.Fprintf(f, "\r%s %d of %d%s", what, done, total, strings.Repeat("\n", btoi(done >= total)))
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

type auditAdoptKeyCmd struct {
	Lost   bool   `required:"" help:"Say that the old secret is lost. If it is not, give it in Z4J_AUDIT_SECRETS_PREVIOUS instead."`
	Reason string `required:"" help:"Why; it is recorded." placeholder:"TEXT"`
}

// Help is shown by `audit adopt-key --help`.
func (auditAdoptKeyCmd) Help() string {
	return `From then on the configured Z4J_AUDIT_SECRET signs. A verification says that nothing is provable across that row.

Exit codes: 0 adopted, 1 could not, 2 wrong arguments or settings, 3 the key signs already or was retired.`
}

// Run adopts the key.
func (a *auditAdoptKeyCmd) Run(c *call) error {
	if strings.TrimSpace(a.Reason) == "" {
		return exit(exitUsage, errors.New("--reason is empty"))
	}
	return c.withStore(func(ctx context.Context, _ *config.Config, s *store.Store) error {
		err := s.AdoptAuditKey(ctx, byOperator().Actor, a.Reason)
		if errors.Is(err, store.ErrConflict) {
			return exit(exitAlready, err)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.stdout, "adopted: the configured Z4J_AUDIT_SECRET signs from now on; the loss is recorded")
		return err
	})
}
