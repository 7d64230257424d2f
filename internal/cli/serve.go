package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"reflect"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/z4j-go/z4j/internal/app"
)

type serveCmd struct {
	kong.Plugins

	settings reflect.Value
}

// Help is shown by `serve --help`.
func (serveCmd) Help() string {
	return `On an empty home with an empty database it makes the secrets and prints a one-time URL for the first account.
SIGTERM and SIGINT stop it within 20 seconds; a second one at once.

Exit codes: 0 stopped, 1 could not start or go on, 2 wrong arguments or settings.`
}

// Run runs the brain until a signal comes.
func (s *serveCmd) Run(c *call) error {
	maps.Copy(c.flags, given(s.settings))
	cfg, err := c.load(true) // they are logged
	if err != nil {
		return err
	}
	syscall.Umask(0o077) // what the brain makes is its owner's alone, the database above all
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	log := app.Logger(c.stderr, cfg)
	brain, err := app.Start(ctx, app.Options{Config: cfg, Version: c.version, Log: log, Banner: c.stdout})
	if err != nil {
		if ctx.Err() != nil {
			return exit(exitFailed, errors.New("stopped before it was ready"))
		}
		return err
	}
	var broken error
	select {
	case <-ctx.Done():
		log.Info("stopping")
	case broken = <-brain.Failed():
	}
	cancel() // from here on a second signal ends the process as signals do
	err = errors.Join(broken, brain.Stop(context.Background()))
	if err != nil {
		return fmt.Errorf("run the brain: %w", err)
	}
	log.Info("stopped", "pid", os.Getpid())
	return nil
}
