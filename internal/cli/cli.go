// Package cli is the command line of z4j-brain: one file per command.
package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/alecthomas/kong"

	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/custody"
)

// version is put in by the linker (see the Makefile): the one place that knows it.
var version string

// Exit codes that more than one command has.
const (
	exitFailed = 1 // the command could not do what it was asked for
	exitUsage  = 2 // wrong arguments or settings
)

// exitError is an error with an exit code of its own. A nil error ends quietly.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exit gives err an exit code.
func exit(code int, err error) error { return &exitError{code, err} }

// call is what every command gets.
type call struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	version        string
	flags          map[string]string // settings given as flags
	anchors        *custody.Command  // of a command that changes something
}

// grammar is every command.
type grammar struct {
	Home string `help:"State directory, instead of Z4J_HOME (~/.z4j)." placeholder:"DIR"`

	Serve           serveCmd           `cmd:"" help:"Run the brain."`
	Health          healthCmd          `cmd:"" help:"Ask the running brain whether it is ready."`
	Check           checkCmd           `cmd:"" help:"Check settings, database, schema and audit log without a running brain."`
	Doctor          doctorCmd          `cmd:"" help:"Say what is wrong or risky with this installation, and the way out."`
	Status          statusCmd          `cmd:"" help:"Show the version, the database and how much is in it."`
	Config          configCmd          `cmd:"" help:"Show or validate the settings."`
	Migrate         migrateCmd         `cmd:"" help:"Bring the schema up to date, or show which it is."`
	Audit           auditCmd           `cmd:"" help:"The audit log."`
	Retention       retentionCmd       `cmd:"" help:"What is deleted in time, and what is held."`
	Backup          backupCmd          `cmd:"" help:"Make, list, verify and prune backups."`
	Restore         restoreCmd         `cmd:"" help:"Restore a backup into an empty database, and let go what a restore held."`
	Drill           drillCmd           `cmd:"" help:"Restore a backup into a scratch database, try it, and say how long it took."`
	CreateSuperuser createSuperuserCmd `cmd:"" name:"createsuperuser" aliases:"bootstrap-admin" help:"Make the first account."`
	Users           usersCmd           `cmd:"" help:"Accounts."`
	APIKeys         apiKeysCmd         `cmd:"" name:"api-keys" help:"API keys."`
	Agents          agentsCmd          `cmd:"" help:"Agents."`
	Secrets         secretsCmd         `cmd:"" help:"Secrets."`
	ChangePassword  changePasswordCmd  `cmd:"" name:"changepassword" help:"Give an account a new password."`
	Version         versionCmd         `cmd:"" help:"Print the version."`
}

// Run runs the command that args name and returns the exit code of the process.
func Run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &call{stdin: stdin, stdout: stdout, stderr: stderr, version: buildVersion(), flags: map[string]string{}}
	if len(args) == 0 || len(args) == 1 && (args[0] == "--version" || args[0] == "-V") {
		args = []string{"version"}
	}
	code, err := c.run(args)
	if err != nil {
		fmt.Fprintf(stderr, "z4j-brain: %s\n", err)
	}
	return code
}

// ended is how kong's wish to end the process, after it printed its help, gets out of it.
type ended int

func (c *call) run(args []string) (code int, err error) {
	defer func() {
		if p := recover(); p != nil {
			end, is := p.(ended)
			if !is {
				panic(p)
			}
			code, err = int(end), nil
		}
	}()
	var g grammar
	g.Serve.settings = settingFlags()
	g.Serve.Plugins = kong.Plugins{g.Serve.settings.Interface()}
	k, err := kong.New(&g, kong.Name("z4j-brain"), kong.Description("The control plane for background tasks."),
		kong.Writers(c.stdout, c.stderr), kong.Exit(func(code int) { panic(ended(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: false}), kong.Bind(c))
	if err != nil {
		return exitFailed, fmt.Errorf("read the grammar of commands: %w", err)
	}
	ctx, err := k.Parse(args)
	if err != nil {
		return exitUsage, fmt.Errorf("%w (`z4j-brain --help` lists the commands)", err)
	}
	if g.Home != "" {
		c.flags["HOME"] = g.Home
	}
	return codeOf(ctx.Run())
}

// codeOf is where an error becomes an exit code.
func codeOf(err error) (int, error) {
	var with *exitError
	var invalid *config.Invalid
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &with):
		if with.err == nil {
			return with.code, nil
		}
		return with.code, err
	case errors.As(err, &invalid):
		return exitUsage, err
	}
	return exitFailed, err
}

// buildVersion is the linker's version, or what Go knows of a build without.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}

// workDir is where relative paths begin.
func workDir() string {
	dir, err := os.Getwd()
	if err != nil {
		return "/"
	}
	return dir
}
