package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/store"
)

// errNoDatabase says that there is nothing to work on.
var errNoDatabase = errors.New("no database")

// errNoFile is an errNoDatabase of a file that is not there.
var errNoFile = fmt.Errorf("%w", errNoDatabase)

// openStore opens the database for a management command: it makes no database, no secret and, unless migrate says so, no
// change to the schema.
func (c *call) openStore(ctx context.Context, cfg *config.Config, migrate bool) (*store.Store, error) {
	if d := cfg.Database.URL; d.IsSQLite() {
		if _, err := os.Stat(d.Path()); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w at %s: start `z4j-brain serve` once, or name the right one with Z4J_HOME or Z4J_DATABASE_URL", errNoFile, d)
		}
	}
	if err := cfg.SecretsError(); err != nil {
		if cfg.Secrets.None() {
			err = fmt.Errorf("%w; if nothing was started here before, start `z4j-brain serve` once", err)
		}
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	s, err := store.Open(ctx, store.Options{
		URL: cfg.Database.URL.Reveal(), Log: log, Now: time.Now, Migrate: migrate,
		Secrets: func(_ context.Context, empty bool) (store.Secrets, error) {
			if empty {
				return store.Secrets{}, fmt.Errorf("%w of z4j at %s: start `z4j-brain serve` once", errNoDatabase, cfg.Database.URL)
			}
			return app.StoreSecrets(cfg), nil
		},
	})
	if errors.Is(err, store.ErrNoSchema) {
		err = fmt.Errorf("%w: start `z4j-brain serve` once", err)
	}
	return s, err
}
