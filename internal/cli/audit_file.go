package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/store"
)

// file verifies an exported file: by itself with the audit secrets of the settings, and against the live log if there is
// one.
func (v *auditVerifyCmd) file(c *call) (err error) {
	ctx := context.Background()
	cfg, err := c.load(v.JSON)
	if err != nil {
		return err
	}
	keys, err := auditKeys(cfg)
	if err != nil {
		return exit(exitUsage, err)
	}
	f, err := os.Open(v.File)
	if err != nil {
		return exit(exitUsage, err)
	}
	defer f.Close()
	s, noLog := c.openStore(ctx, cfg, false)
	var joiner *store.FileJoiner
	if noLog == nil {
		defer func() { err = errors.Join(err, s.Close()) }()
		if joiner, err = s.JoinFile(ctx); err != nil {
			return exit(audit.ExitUnprovable, err)
		}
	}
	report, err := audit.VerifyFile(f, keys, func(r *audit.FileRecord) error {
		if joiner == nil {
			return nil
		}
		return joiner.Take(ctx, r)
	})
	if err != nil {
		return exit(audit.ExitUnprovable, fmt.Errorf("%s: %w", v.File, err))
	}
	found := fileFindings{Result: audit.Verdict(report.Exit()), Exit: report.Exit(), File: report}
	if joiner != nil {
		join, err := joiner.Finish(ctx, report.Exported)
		if err != nil {
			return exit(audit.ExitUnprovable, err)
		}
		found.add(join)
	} else {
		found.NoLog = noLog.Error()
	}
	if v.JSON {
		return errors.Join(printJSON(c.stdout, found), quietly(found.Exit))
	}
	return errors.Join(found.show(c), quietly(found.Exit))
}

// auditKeys are the keys of the configured audit secrets.
func auditKeys(cfg *config.Config) ([]audit.Key, error) {
	secrets := app.StoreSecrets(cfg)
	var keys []audit.Key
	for _, secret := range append([][]byte{secrets.Audit}, secrets.PreviousAudit...) {
		if len(secret) == 0 {
			continue
		}
		k, err := audit.NewKey(secret)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("no audit secret is configured: give Z4J_AUDIT_SECRET, and older ones in Z4J_AUDIT_SECRETS_PREVIOUS")
	}
	return keys, nil
}

// fileFindings is what verify --file prints.
type fileFindings struct {
	Result string           `json:"result"`
	Exit   int              `json:"exit_code"`
	File   audit.FileReport `json:"file"`
	Log    *store.FileJoin  `json:"log"`
	NoLog  string           `json:"no_log,omitempty"` // why it was not compared with the live log
}

// add takes what the live log says; the worse of both counts.
func (f *fileFindings) add(join store.FileJoin) {
	f.Log = &join
	if code := join.Exit(); f.Exit == audit.ExitProved || f.Exit == audit.ExitUnprovable && code != audit.ExitProved {
		f.Exit = code
	}
	if f.File.Exit() == audit.ExitUnprovable && join.First == nil {
		f.Exit = audit.ExitUnprovable
	}
	f.Result = audit.Verdict(f.Exit)
}

func (f *fileFindings) show(c *call) error {
	w, line := pairs(c.stdout)
	r := &f.File
	line("file", "%s, %s", r.Format, r.Summary)
	line("rows checked", "%d", r.Checked)
	line("personal parts", "%d present, %d erased", r.PersonalPresent, r.PersonalErased)
	if r.First != nil {
		line("first bad row", "%d: %s: %s", r.First.Seq, r.First.Class, r.First.Why)
	}
	for _, u := range r.Unprovable[:min(len(r.Unprovable), shownRanges)] {
		line("not provable", "rows %d to %d: %s", u.From, u.To, u.Why)
	}
	for _, n := range r.Notes[:min(len(r.Notes), shownRanges)] {
		line("note", "%s", n)
	}
	if f.Log == nil {
		line("live log", "not compared: %s", f.NoLog)
	} else {
		line("live log", "%d rows compared, %d deleted by a prune", f.Log.Compared, f.Log.Deleted)
		for _, n := range f.Log.Notes {
			line("live log", "%s", n)
		}
		if f.Log.First != nil {
			line("first bad row", "%d: %s: %s", f.Log.First.Seq, f.Log.First.Class, f.Log.First.Why)
		}
	}
	line("result", "%s", f.Result)
	return w.Flush()
}
