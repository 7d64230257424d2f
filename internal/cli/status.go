package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/store"
)

type statusCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Help is shown by `status --help`.
func (statusCmd) Help() string {
	return `Counts exactly, by reading whole tables.

Exit codes: 0 shown, 1 could not, 2 wrong arguments or settings.`
}

// status is what the command shows.
type status struct {
	Version     string       `json:"version"`
	Schema      int64        `json:"schema"`
	Environment string       `json:"environment"`
	Home        string       `json:"z4j_home"`
	Database    string       `json:"database"`
	Counts      store.Counts `json:"counts"`
	AuditChain  string       `json:"audit_chain"`
	AuditOK     *bool        `json:"audit_chain_ok"` // null: no brain has verified it yet

	Anchors     []custody.Trouble  `json:"anchor_troubles"`
	DataGaps    []store.DataGap    `json:"data_gaps"`    // times of which events may be missing
	RestoreHeld *store.RestoreHeld `json:"restore_held"` // what waits for restore release
}

// Run shows what there is.
func (k *statusCmd) Run(c *call) error {
	return c.withStore(func(ctx context.Context, cfg *config.Config, s *store.Store) error {
		schema, _, err := s.SchemaVersion(ctx)
		if err != nil {
			return err
		}
		counts, incomplete := s.Counts(ctx, store.TimeOf(time.Now()))
		chain, err := auditChain(ctx, s)
		if err != nil {
			chain = err.Error()
		}
		state, err := s.AuditState(ctx)
		if err != nil {
			return err
		}
		out := status{c.version, schema, cfg.General.Environment, cfg.General.Home, cfg.Database.URL.String(), counts, chain, state.OK(), nil, nil, nil}
		if out.Anchors, _, err = app.AnchorTroubles(ctx, cfg, s, time.Now); err != nil {
			return err
		}
		if out.DataGaps, err = s.DataGaps(ctx); err != nil {
			return err
		}
		if held, err := s.RestoreHeld(ctx); err == nil {
			out.RestoreHeld = &held
		} else if !errors.Is(err, store.ErrNotHeld) {
			return err
		}
		if k.JSON {
			return errors.Join(printJSON(c.stdout, out), incomplete)
		}
		w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
		for _, line := range [][2]string{
			{"version", out.Version},
			{"schema", strconv.FormatInt(schema, 10)},
			{"environment", out.Environment},
			{"home", out.Home},
			{"database", out.Database},
			{"users", amount(counts.Users)},
			{"active sessions", amount(counts.ActiveSessions)},
			{"projects", amount(counts.Projects)},
			{"agents", amount(counts.Agents)},
			{"tasks", amount(counts.Tasks)},
			{"events", amount(counts.Events)},
			{"dead letters", amount(counts.DeadLetters)},
			{"audit rows", amount(counts.AuditRows)},
			{"audit chain", chain},
		} {
			fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
		}
		showTroubles(func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }, out.Anchors)
		for _, g := range out.DataGaps {
			why := "the database was set back"
			if g.Backup != "" {
				why = "backup " + g.Backup + " was restored"
			}
			until := "on, until `z4j-brain restore release`"
			if g.Until != nil {
				until = "to " + g.Until.String()
			}
			fmt.Fprintf(w, "events missing\tmaybe from %s %s: %s\n", g.From, until, why)
		}
		if h := out.RestoreHeld; h != nil {
			fmt.Fprintf(w, "held\tsince the restore of %s: run `z4j-brain restore release`%s\n", h.Since, map[bool]string{true: " --keys, API keys are suspended"}[h.Keys])
		}
		return errors.Join(w.Flush(), incomplete)
	})
}

func amount(n int64) string {
	if n < 0 {
		return "n/a"
	}
	return strconv.FormatInt(n, 10)
}
