package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/store"
)

// Exit codes of check, by what is wrong.
const (
	exitSettings = 1 // also secrets and the audit log
	exitDatabase = 2
	exitSchema   = 3
)

type checkCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Help is shown by `check --help`.
func (checkCmd) Help() string {
	return `Changes nothing.

Exit codes: 0 all is well; 1 settings, secrets or audit log; 2 database; 3 schema.`
}

// finding is one line of check.
type finding struct {
	Check   string `json:"check"`
	OK      bool   `json:"ok"`
	Message string `json:"message"`

	code int
}

// Run checks one thing after the other; what needs something that is wrong is not looked at.
func (k *checkCmd) Run(c *call) error {
	found := c.check(context.Background())
	code := firstWrong(found)
	if k.JSON {
		if err := printJSON(c.stdout, map[string]any{"ok": code == 0, "checks": found}); err != nil {
			return err
		}
		return exit(code, nil)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	showFindings(w, found)
	if code == 0 {
		fmt.Fprintln(w, "all green")
	}
	return errors.Join(w.Flush(), quietly(code))
}

// firstWrong is the exit code of the first finding that is wrong, 0 for none.
func firstWrong(found []finding) int {
	for _, f := range found {
		if !f.OK {
			return f.code
		}
	}
	return 0
}

func showFindings(w io.Writer, found []finding) {
	for _, f := range found {
		mark := "ok"
		if !f.OK {
			mark = "WRONG"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Check, mark, f.Message)
	}
}

func quietly(code int) error {
	if code == 0 {
		return nil
	}
	return exit(code, nil)
}

func (c *call) check(ctx context.Context) []finding {
	var found []finding
	add := func(check string, code int, ok string, err error) bool {
		f := finding{Check: check, OK: err == nil, Message: ok, code: code}
		if err != nil {
			f.Message = err.Error()
		}
		found = append(found, f)
		return f.OK
	}
	cfg, err := c.load(true)
	if !add("settings", exitSettings, warnings(cfg), err) {
		return found
	}
	if !add("secrets", exitSettings, "all three are there", cfg.SecretsError()) {
		return found
	}
	s, err := c.openStore(ctx, cfg, false)
	switch {
	case errors.Is(err, store.ErrForeignSecret), errors.Is(err, config.ErrSecrets):
		add("secrets", exitSettings, "", err)
		return found
	case errors.Is(err, errNoFile):
		add("database", exitDatabase, "", err)
		return found
	case errors.Is(err, store.ErrNoSchema), errors.Is(err, store.ErrFutureSchema), errors.Is(err, store.ErrOldSchema), errors.Is(err, errNoDatabase):
		add("database", exitDatabase, cfg.Database.URL.String(), nil)
		add("schema", exitSchema, "", err)
		return found
	case err != nil:
		add("database", exitDatabase, "", err)
		return found
	}
	add("database", exitDatabase, cfg.Database.URL.String(), nil)
	have, _, err := s.SchemaVersion(ctx)
	add("schema", exitSchema, fmt.Sprintf("%d, up to date", have), err)
	add("audit", exitSettings, "changes can be recorded; `z4j-brain audit verify` proves what is there", s.AuditErr())
	say, err := auditChain(ctx, s)
	add("audit chain", exitSettings, say, err)
	say, err = anchorsSay(ctx, cfg, s)
	add("anchors", exitSettings, say, err)
	if err := s.Close(); err != nil {
		add("database", exitDatabase, "", err)
	}
	return found
}

// anchorsSay tells what is wrong with anchors, which is no fault of the installation: nothing waits for them. Only when the
// one in the home contradicts, the database is at fault.
func anchorsSay(ctx context.Context, cfg *config.Config, s *store.Store) (string, error) {
	troubles, _, err := app.AnchorTroubles(ctx, cfg, s, time.Now)
	if err != nil || len(troubles) == 0 {
		return "all can be read and agree", err
	}
	var texts []string
	for i := range troubles {
		if t := &troubles[i]; t.Fault == custody.Contradicts && t.Anchor == custody.Home {
			return "", fmt.Errorf("%s; a brain that starts, and any command that changes something, holds changes until `z4j-brain audit acknowledge-rollback --reason …`", t.Detail)
		}
		texts = append(texts, troubles[i].String())
	}
	return "need attention: " + strings.Join(texts, "; "), nil
}

// auditChain says what the brains' verifications found: the same as health says.
func auditChain(ctx context.Context, s *store.Store) (say string, err error) {
	a, err := s.AuditState(ctx)
	switch {
	case err != nil:
		return "", err
	case a.Broken != nil:
		return "", fmt.Errorf("%s since %s: %s; `z4j-brain audit verify` shows all of it", a.Broken.Result, a.BrokenSince, a.Broken.Why())
	case a.Last == nil:
		return "no brain has verified it yet", nil
	case a.Result() != audit.Verdict(audit.ExitProved):
		return fmt.Sprintf("no fault up to row %d at %s; %s", a.Last.To, a.Last.Ended, unproved(&a)), nil
	}
	return fmt.Sprintf("no fault up to row %d at %s", a.Last.To, a.Last.Ended), nil
}

func unproved(a *store.AuditState) string {
	if a.Full != nil && a.Full.UnprovableRows > 0 {
		return a.Full.Why()
	}
	return a.Last.Why()
}

func warnings(cfg *config.Config) string {
	switch n := len(cfg.Warnings); n {
	case 0:
		return "valid"
	case 1:
		return "valid; " + cfg.Warnings[0]
	default:
		return fmt.Sprintf("valid; %d warnings, the first: %s", n, cfg.Warnings[0])
	}
}
