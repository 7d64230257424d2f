package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"

	"github.com/z4j-go/z4j/internal/config"
)

type configCmd struct {
	Show     configShowCmd     `cmd:"" help:"Print every setting with its source."`
	Validate configValidateCmd `cmd:"" help:"Say what is wrong with the settings."`
}

type configShowCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Help is shown by `config show --help`.
func (configShowCmd) Help() string {
	return `Secrets are never printed.

Exit codes: 0 shown, 2 shown as far as possible, but the settings are wrong.`
}

// Run prints the settings, also when some are wrong.
func (s *configShowCmd) Run(c *call) error {
	cfg, bad := c.load(s.JSON)
	if s.JSON {
		out := struct {
			Home     string         `json:"z4j_home"`
			Settings []config.Shown `json:"settings"`
			Warnings []string       `json:"warnings"`
		}{cfg.General.Home, cfg.Show(), append([]string{}, cfg.Warnings...)}
		return errors.Join(printJSON(c.stdout, out), bad)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	for _, one := range cfg.Show() {
		value := one.Value
		if value == "" {
			value = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t(%s)\n", one.Name, value, one.Source)
	}
	return errors.Join(w.Flush(), bad)
}

type configValidateCmd struct {
	Path string `arg:"" optional:"" help:"A file to validate in place of $Z4J_HOME/config.env."`
}

// Help is shown by `config validate --help`.
func (configValidateCmd) Help() string {
	return `Names in config.env that nobody reads are faults here; serve only warns about them.

Exit codes: 0 valid, 1 not valid, 2 wrong arguments.`
}

// Run says what is wrong.
func (v *configValidateCmd) Run(c *call) error {
	in := input(c.flags)
	if v.Path != "" {
		in.ConfigFile = filepath.Join(in.WorkDir, v.Path)
		if filepath.IsAbs(v.Path) {
			in.ConfigFile = v.Path
		}
	}
	cfg, err := config.Load(in)
	unsetPassword()
	for _, w := range cfg.Warnings {
		fmt.Fprintf(c.stderr, "z4j-brain: warning: %s\n", w)
	}
	var bad []config.Problem
	if invalid, ok := errors.AsType[*config.Invalid](err); ok {
		bad = invalid.Problems
	}
	bad = append(bad, cfg.Unknown()...)
	if !cfg.Secrets.None() && !cfg.Secrets.Complete() {
		bad = append(bad, config.Problem{Setting: "secrets", Reason: cfg.SecretsError().Error()})
	}
	if len(bad) > 0 {
		return exit(exitFailed, &config.Invalid{Problems: bad})
	}
	_, err = fmt.Fprintln(c.stdout, "ok")
	return err
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
