package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/store"
)

// Exit codes of the commands about accounts.
const (
	exitAlready = 3 // createsuperuser: there is an account; users create: the address has one
	exitPolicy  = 3 // changepassword: the password is not good enough
	exitNoUser  = 4
)

// password is the flag of every command that takes one.
type password struct {
	PasswordStdin bool `help:"Read the password from standard input; a line end at its end is no part of it."`
}

const maxPassword = 4096 // bytes that are read; the longest that an account can have is far shorter

// read reads the password from standard input, or asks for it twice on a terminal. There is no flag for the password
// itself: arguments of a process can be read by others.
func (p password) read(c *call) (string, error) {
	if p.PasswordStdin {
		b, err := io.ReadAll(io.LimitReader(c.stdin, maxPassword))
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		return nonEmpty(strings.TrimRight(string(b), "\r\n"))
	}
	f, ok := c.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return "", exit(exitUsage, errors.New("say --password-stdin and give the password on standard input"))
	}
	var both [2]string
	for i, prompt := range []string{"Password: ", "Again: "} {
		fmt.Fprint(c.stderr, prompt)
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(c.stderr)
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		both[i] = string(b)
	}
	if both[0] != both[1] {
		return "", exit(exitUsage, errors.New("the two passwords differ"))
	}
	return nonEmpty(both[0])
}

func nonEmpty(password string) (string, error) {
	if password == "" {
		return "", exit(exitUsage, errors.New("the password is empty"))
	}
	return password, nil
}

// byOperator is who makes a change on the command line, for the audit log.
func byOperator() store.By {
	a := audit.Actor{Kind: audit.CLI, ID: "unknown"}
	if u, err := user.Current(); err == nil {
		a.ID, a.Label = "uid:"+u.Uid, u.Username
	}
	return store.By{Actor: a, Via: "cli"}
}

// withStore runs fn with the database of the settings.
func (c *call) withStore(fn func(context.Context, *config.Config, *store.Store) error) error {
	return c.withDatabase(context.Background(), false, false, fn)
}

// withDatabase runs fn with the database of the settings; quiet keeps back warnings about these, migrate brings its schema up
// to date.
func (c *call) withDatabase(ctx context.Context, quiet, migrate bool, fn func(context.Context, *config.Config, *store.Store) error) (err error) {
	cfg, err := c.load(quiet)
	if err != nil {
		return err
	}
	s, err := c.openStore(ctx, cfg, migrate)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return fn(ctx, cfg, s)
}

// withChanges is withStore for commands that change something.
func (c *call) withChanges(fn func(context.Context, *config.Config, *store.Store) error) error {
	return c.withStore(func(ctx context.Context, cfg *config.Config, s *store.Store) error {
		return c.changing(ctx, cfg, s, fn)
	})
}

// changing runs fn, which changes something: before it finds out whether the database is the one that the home's anchor
// knows, and holds changes if not; after it the anchors learn what was done. What is wrong with them is told and is no
// fault of the command.
func (c *call) changing(ctx context.Context, cfg *config.Config, s *store.Store, fn func(context.Context, *config.Config, *store.Store) error) (err error) {
	if c.anchors, err = app.Custody(cfg, s, slog.New(slog.DiscardHandler), time.Now).Before(ctx); err != nil {
		return fmt.Errorf("find out whether the database is the one it was: %w", err)
	}
	err = fn(ctx, cfg, s)
	if e := c.anchors.After(ctx); e != nil {
		fmt.Fprintf(c.stderr, "z4j-brain: warning: the audit anchors do not know yet what was done; a brain tells them when it runs: %s\n", e)
	}
	for _, t := range c.anchors.Troubles() {
		fmt.Fprintf(c.stderr, "z4j-brain: warning: audit anchor %s\n", t.String())
	}
	return err
}

// hashed makes the hash of a new password; weak is the exit code if the policy refuses it.
func hashed(ctx context.Context, cfg *config.Config, password string, weak int) (string, error) {
	hash, err := app.Passwords(cfg).New(ctx, password)
	if _, ok := errors.AsType[*auth.WeakPassword](err); ok {
		return "", exit(weak, err)
	}
	return hash, err
}

func readEmail(text string) (string, error) {
	email, err := auth.Email(text)
	if err != nil {
		return "", exit(exitUsage, fmt.Errorf("%q: %w: it needs one @ and a domain with a dot", text, err))
	}
	return email, nil
}

func optional(text string) *string {
	if text = strings.TrimSpace(text); text == "" {
		return nil
	}
	return &text
}

type createSuperuserCmd struct {
	password

	Email       string `required:"" help:"E-mail address of the account." placeholder:"ADDRESS"`
	DisplayName string `help:"Name of the account."`
}

// Help is shown by `createsuperuser --help`.
func (createSuperuserCmd) Help() string {
	return `Makes the first account, a global administrator, and the project "default". The brain may run meanwhile.

Exit codes: 0 made, 1 could not, 2 wrong arguments, settings or password, 3 there is an account already.`
}

// Run makes the first account.
func (a *createSuperuserCmd) Run(c *call) error {
	email, err := readEmail(a.Email)
	if err != nil {
		return err
	}
	password, err := a.read(c)
	if err != nil {
		return err
	}
	return c.withChanges(func(ctx context.Context, cfg *config.Config, s *store.Store) error {
		if has, err := s.HasUsers(ctx); err != nil || has {
			return errors.Join(err, already(has))
		}
		hash, err := hashed(ctx, cfg, password, exitUsage)
		if err != nil {
			return err
		}
		first, err := s.CreateFirstAccount(ctx, store.NewUser{Email: email, PasswordHash: hash, DisplayName: optional(a.DisplayName)}, "", store.NewSession{}, byOperator())
		if errors.Is(err, store.ErrConflict) {
			return already(true)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.stdout, "%s is global administrator; project %q made\n", first.User.Email, first.Project.Slug)
		return err
	})
}

func already(has bool) error {
	if !has {
		return nil
	}
	return exit(exitAlready, errors.New("there is an account already: log in, or make another with `z4j-brain users create`"))
}

type usersCmd struct {
	Create usersCreateCmd `cmd:"" help:"Make an account."`
}

type usersCreateCmd struct {
	password

	Email       string `required:"" help:"E-mail address of the account." placeholder:"ADDRESS"`
	DisplayName string `help:"Name of the account."`
	Admin       bool   `help:"Make it a global administrator."`
	JSON        bool   `name:"json" help:"Print the account as JSON."`
}

// Help is shown by `users create --help`.
func (usersCreateCmd) Help() string {
	return `Exit codes: 0 made, 1 could not, 2 wrong arguments, settings or password, 3 the address has an account.`
}

// Run makes an account.
func (a *usersCreateCmd) Run(c *call) error {
	email, err := readEmail(a.Email)
	if err != nil {
		return err
	}
	password, err := a.read(c)
	if err != nil {
		return err
	}
	return c.withChanges(func(ctx context.Context, cfg *config.Config, s *store.Store) error {
		has, err := s.HasUsers(ctx)
		if err != nil {
			return err
		}
		if !has && !a.Admin {
			return exit(exitFailed, errors.New("the first account has to be an administrator's: use `z4j-brain createsuperuser`, or add --admin"))
		}
		hash, err := hashed(ctx, cfg, password, exitUsage)
		if err != nil {
			return err
		}
		u, err := s.CreateUser(ctx, store.NewUser{Email: email, PasswordHash: hash, DisplayName: optional(a.DisplayName), IsAdmin: a.Admin}, byOperator())
		if errors.Is(err, store.ErrConflict) {
			return exit(exitAlready, fmt.Errorf("%s has an account already", email))
		}
		if err != nil {
			return err
		}
		if a.JSON {
			return printJSON(c.stdout, u)
		}
		_, err = fmt.Fprintf(c.stdout, "%s made\n", u.Email)
		return err
	})
}

type changePasswordCmd struct {
	password

	Email string `arg:"" help:"E-mail address of the account."`
}

// Help is shown by `changepassword --help`.
func (changePasswordCmd) Help() string {
	return `Gives the account a new password, unlocks it and ends all of its sessions.

Exit codes: 0 changed, 1 could not, 2 wrong arguments or settings, 3 the password is not good enough, 4 no such account.`
}

// Run changes the password.
func (a *changePasswordCmd) Run(c *call) error {
	email, err := readEmail(a.Email)
	if err != nil {
		return err
	}
	password, err := a.read(c)
	if err != nil {
		return err
	}
	return c.withChanges(func(ctx context.Context, cfg *config.Config, s *store.Store) error {
		hash, err := hashed(ctx, cfg, password, exitPolicy)
		if err != nil {
			return err
		}
		u, err := s.ChangePassword(ctx, email, hash, byOperator())
		if errors.Is(err, store.ErrNotFound) {
			return exit(exitNoUser, fmt.Errorf("no account has the address %s", email))
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.stdout, "password of %s changed; its sessions are ended\n", u.Email)
		return err
	})
}
