package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/store"
)

type migrateCmd struct {
	Upgrade migrateUpgradeCmd `cmd:"" help:"Bring the schema up to date. serve does it at start unless Z4J_AUTO_MIGRATE=false."`
	Current migrateCurrentCmd `cmd:"" help:"Print the number of the schema."`
}

type migrateUpgradeCmd struct{}

// Help is shown by `migrate upgrade --help`.
func (migrateUpgradeCmd) Help() string {
	return `Makes no database and no secrets: the first start of serve does.

Exit codes: 0 up to date, 1 could not, 2 wrong arguments or settings.`
}

// Run migrates.
func (migrateUpgradeCmd) Run(c *call) error {
	return c.withDatabase(context.Background(), false, true, func(ctx context.Context, _ *config.Config, s *store.Store) error {
		have, _, err := s.SchemaVersion(ctx)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.stdout, "schema %d, up to date\n", have)
		return err
	})
}

type migrateCurrentCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Help is shown by `migrate current --help`.
func (migrateCurrentCmd) Help() string {
	return `Exit codes: 0 up to date, 1 older or newer than this program, or no schema, 2 wrong arguments or settings.`
}

// Run shows the schema's number.
func (m *migrateCurrentCmd) Run(c *call) (err error) {
	ctx := context.Background()
	cfg, err := c.load(m.JSON)
	if err != nil {
		return err
	}
	s, err := c.openStore(ctx, cfg, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	have, known, err := s.SchemaVersion(ctx)
	if err != nil {
		return err
	}
	if m.JSON {
		return printJSON(c.stdout, map[string]any{"schema": have, "known": known, "up_to_date": have == known})
	}
	_, err = fmt.Fprintf(c.stdout, "schema %d, this program knows %d\n", have, known)
	return err
}
