package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"filippo.io/age"
	"golang.org/x/term"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
)

type backupCmd struct {
	Create backupCreateCmd `cmd:"" default:"withargs" help:"Make a backup, read it back whole and record it."`
	List   backupListCmd   `cmd:"" help:"List the backups of a place, as the audit log knows them."`
	Verify backupVerifyCmd `cmd:"" help:"Read a backup whole and prove it."`
	Prune  backupPruneCmd  `cmd:"" help:"Remove backups that the rules don't keep."`
}

// exitUnprovable is for a backup of which nothing can be said with the keys at hand.
const exitUnprovable = backup.ExitUnprovable

type backupCreateCmd struct {
	To             string   `help:"A directory, a file that is not there, s3://bucket/prefix, or - for standard output. Without it: Z4J_BACKUP_TARGET." placeholder:"PLACE"`
	Recipient      []string `help:"Encrypt to this public key (age1…); may be given several times. Instead of the settings." placeholder:"AGE1"`
	PassphraseFile string   `help:"Encrypt with the passphrase that is the first line of this file; - is standard input. Instead of the settings." placeholder:"FILE"`
	Without        []string `help:"Leave out the rows of these tables, such as events." placeholder:"TABLE"`
	Tmp            string   `help:"SQLite: where the copy is made that is read. Without it: Z4J_BACKUP_TMP, or where there is room: in the target if that is a directory, else in Z4J_HOME, else beside the database." placeholder:"DIR"`
	NoVerify       bool     `help:"Don't read the archive back."`
	JSON           bool     `name:"json" help:"Print JSON."`
}

// Help is shown by `backup --help`.
func (backupCreateCmd) Help() string {
	return `Makes one archive of the whole database as it is at one moment, while the brain runs. It holds no secrets: the command says
which ones a restore needs. Nothing is left behind under the archive's name unless it is whole.

Exit codes: 0 made, verified and recorded; 1 could not (nothing is left that looks like a backup), or made and not recorded, or
made of a database that is not right, as the message says; 2 wrong arguments or settings; 3 made and recorded, but its audit log
cannot be proved with the secrets at hand, so that it does not count; 5 another backup or prune is under way.`
}

// Run makes a backup.
func (b *backupCreateCmd) Run(c *call) error {
	return c.withBackups(b.JSON || b.To == "-", func(ctx context.Context, cfg *config.Config, s *store.Store) error {
		o, err := b.options(ctx, c, cfg)
		if err != nil {
			return exit(exitUsage, err)
		}
		o.Store, o.Actor = s, byOperator().Actor
		if !b.JSON || b.To == "-" {
			o.Progress = c.backupProgress()
		}
		if len(o.Recipients) == 0 && o.Passphrase == "" {
			fmt.Fprintln(c.stderr, "z4j-brain: warning: the backup is not encrypted; it holds names, addresses and what tasks were called with (--recipient, --passphrase-file)")
		}
		r, err := backup.Make(ctx, o)
		if errors.Is(err, backup.ErrBusy) {
			return exit(exitBusy, err)
		}
		if err != nil && !errors.Is(err, backup.ErrUnrecorded) {
			return err
		}
		out := c.stdout
		if b.To == "-" {
			out = c.stderr
		}
		switch {
		case r.Unproved:
			why := fmt.Errorf("the backup is made, but does not count as verified: %s; give the secrets of all keys (Z4J_AUDIT_SECRETS_PREVIOUS) and make another", r.Reason)
			if err == nil {
				why = exit(exitUnprovable, why)
			}
			err = errors.Join(err, why)
		case r.Reason != "":
			err = errors.Join(err, fmt.Errorf("the backup holds what the database holds, and that is not right, so that a restore refuses it unless that is accepted: %s", r.Reason))
		}
		if b.JSON {
			return errors.Join(err, printJSON(out, r))
		}
		return errors.Join(err, showBackup(out, &r))
	})
}

func (b *backupCreateCmd) options(ctx context.Context, c *call, cfg *config.Config) (o backup.Options, err error) {
	if len(b.Recipient) > 0 || b.PassphraseFile != "" {
		cfg.Backup.Recipients, cfg.Backup.Passphrase = b.Recipient, config.Secret{}
	}
	if o, err = app.BackupOptions(cfg); err != nil {
		return o, err
	}
	if b.PassphraseFile != "" {
		if len(b.Recipient) > 0 {
			return o, errors.New("--recipient and --passphrase-file are both given: an archive is encrypted with one of the two")
		}
		if o.Passphrase, err = c.passphrase(b.PassphraseFile); err != nil {
			return o, err
		}
	}
	if err := store.MayLeaveOut(b.Without); err != nil {
		return o, fmt.Errorf("--without: %w", err)
	}
	o.Version, o.Now, o.Log, o.Without, o.Unverified = c.version, time.Now, slog.New(slog.NewTextHandler(c.stderr, nil)), b.Without, b.NoVerify
	if b.Tmp != "" {
		o.TempDir = b.Tmp
	}
	if b.To == "-" {
		if f, ok := c.stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return o, errors.New("standard output is a terminal: send it to a file or another program")
		}
		signal.Ignore(syscall.SIGPIPE) // a reader that leaves is an error to record, not the end of this process
		o.Stream = c.stdout
		return o, nil
	}
	o.Target, o.Name, err = b.place(ctx, cfg)
	return o, err
}

// place opens where the archive goes, and tells its name if that was given.
func (b *backupCreateCmd) place(ctx context.Context, cfg *config.Config) (target.Target, string, error) {
	if b.To == "" || strings.Contains(b.To, "://") {
		t, err := app.OpenBackups(ctx, cfg, b.To)
		return t, "", err
	}
	info, err := os.Stat(b.To)
	if err == nil && info.IsDir() {
		t, err := app.OpenBackups(ctx, cfg, b.To)
		return t, "", err
	}
	if err == nil {
		return nil, "", fmt.Errorf("%s is there already: nothing is replaced; name a directory, or a file that is not there", b.To)
	}
	if !errors.Is(err, fs.ErrNotExist) || strings.HasSuffix(b.To, "/") {
		return nil, "", fmt.Errorf("look at the place for the backup: %w", err)
	}
	t, err := app.OpenBackups(ctx, cfg, filepath.Dir(filepath.Clean(b.To)))
	return t, filepath.Base(b.To), err
}

// showBackup tells of a backup, and what a restore needs beside it.
func showBackup(out io.Writer, r *backup.Result) error {
	w, line := pairs(out)
	line("backup", "%s", r.ID)
	if r.Name != "" {
		line("file", "%s", strings.TrimSuffix(r.Target, "/")+"/"+r.Name)
	}
	line("of", "%s", r.Manifest.SnapshotAt)
	if h := r.Manifest.Hold; h != nil {
		line("made in hold", "since %s: %s", h.Since, h.Reason)
	}
	line("size", "%d bytes (%d of rows)", r.Bytes, r.Raw)
	line("rows", "%d in %d tables", r.Rows, len(r.Manifest.Tables))
	line("sha256", "%s", r.SHA256)
	line("audit head", "%d %s", r.Manifest.Audit.Size, r.Manifest.Audit.RowHMAC)
	line("encrypted", "%s", yes(r.Encrypted))
	line("verified", "%s", yes(r.Verified))
	if r.Reason != "" {
		line("not right", "%s", r.Reason)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out, "\nA restore needs, beside the archive, these secrets. Keep them apart from it:")
	fmt.Fprintf(w, "  Z4J_SECRET\tfingerprint %s\n", r.Manifest.Keys.Master)
	fmt.Fprintf(w, "  Z4J_AUDIT_SECRET\tkey id %s\n", r.Manifest.Keys.Audit[len(r.Manifest.Keys.Audit)-1])
	for _, kid := range r.Manifest.Keys.Audit[:len(r.Manifest.Keys.Audit)-1] {
		fmt.Fprintf(w, "  Z4J_AUDIT_SECRETS_PREVIOUS\tkey id %s\n", kid)
	}
	if r.Encrypted {
		fmt.Fprintf(w, "  the secret key of a recipient, or the passphrase\t\n")
	}
	return w.Flush()
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

// withBackups is withStore for commands that take long: a signal ends them as an error does.
func (c *call) withBackups(quiet bool, fn func(context.Context, *config.Config, *store.Store) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return c.withDatabase(ctx, quiet, false, func(ctx context.Context, cfg *config.Config, s *store.Store) error {
		return c.changing(ctx, cfg, s, fn)
	})
}

// backupProgress shows on a terminal how far a backup is.
func (c *call) backupProgress() func(phase string, done, total int64) {
	f, ok := c.stderr.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	var last time.Time
	shown := ""
	return func(phase string, done, total int64) {
		now := time.Now()
		if now.Sub(last) < 200*time.Millisecond && (total == 0 || done < total) {
			return
		}
		if shown != "" && shown != phase {
			fmt.Fprintln(f)
		}
		last, shown = now, phase
		if total == 0 {
			fmt.Fprintf(f, "\r%d %s ", done, phase)
			return
		}
		fmt.Fprintf(f, "\r%s %d of %d bytes%s", phase, done, total, strings.Repeat("\n", btoi(done >= total)))
	}
}

// passphrase reads the first line of a file.
func (c *call) passphrase(file string) (string, error) {
	const longest = 4096 // bytes
	in := c.stdin
	if file != "-" {
		f, err := os.Open(file) //nolint:gosec // the operator names it.
		if err != nil {
			return "", fmt.Errorf("read the passphrase: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, longest))
	if err != nil {
		return "", fmt.Errorf("read the passphrase: %w", err)
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	const least = 12 // bytes, as the setting wants it
	if len(line) < least {
		return "", fmt.Errorf("the passphrase in %s has %d bytes and needs at least %d", file, len(line), least)
	}
	return string(line), nil
}

// opening is what opens archives.
type opening struct {
	Identity       []string `help:"A file with secret keys of age (AGE-SECRET-KEY-1…) that open the archive." placeholder:"FILE" type:"path"`
	PassphraseFile string   `help:"A file whose first line is the passphrase that opens the archive; - is standard input. Without it and --identity: Z4J_BACKUP_PASSPHRASE and Z4J_BACKUP_IDENTITY." placeholder:"FILE"`
}

func (o *opening) identities(c *call, cfg *config.Config) ([]age.Identity, error) {
	var out []age.Identity
	for _, file := range o.Identity {
		f, err := os.Open(file) //nolint:gosec // the operator names it.
		if err != nil {
			return nil, fmt.Errorf("read the identity: %w", err)
		}
		found, err := age.ParseIdentities(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("%s holds no identity of age (AGE-SECRET-KEY-1…)", file) // the error could quote it
		}
		out = append(out, found...)
	}
	if o.PassphraseFile != "" {
		text, err := c.passphrase(o.PassphraseFile)
		if err != nil {
			return nil, err
		}
		own, err := age.NewScryptIdentity(text)
		if err != nil {
			return nil, fmt.Errorf("open with the passphrase: %w", err)
		}
		out = append(out, own)
	}
	if len(out) > 0 {
		return out, nil
	}
	return app.Identities(cfg)
}

type backupListCmd struct {
	Target string `arg:"" optional:"" help:"A directory or s3://bucket/prefix. Without it: Z4J_BACKUP_TARGET."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

// Help is shown by `backup list --help`.
func (backupListCmd) Help() string {
	return `Compares names and sizes with what the audit log says was made. Without a database the list has no more than names and sizes.

Exit codes: 0 listed; 1 could not; 2 wrong arguments or settings; 3 a backup has another size than was recorded.`
}

// Run lists.
func (l *backupListCmd) Run(c *call) error {
	return c.withPlace(l.Target, l.JSON, func(ctx context.Context, _ *config.Config, s *store.Store, in target.Target) error {
		list, err := backup.List(ctx, in, s, time.Now())
		if err != nil {
			return err
		}
		var odd error
		if slices.ContainsFunc(list, func(e backup.Entry) bool { return e.State == backup.StateDiffers }) {
			odd = quietly(exitUnprovable)
		}
		if l.JSON {
			return errors.Join(printJSON(c.stdout, struct {
				Target  string         `json:"target"`
				Backups []backup.Entry `json:"backups"`
			}{in.String(), list}), odd)
		}
		return errors.Join(showBackups(c.stdout, in, list), odd)
	})
}

func showBackups(out io.Writer, in target.Target, list []backup.Entry) error {
	if len(list) == 0 {
		_, err := fmt.Fprintf(out, "no backup in %s\n", in)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MADE\tSIZE\tENCRYPTED\tSTATE\tNAME")
	for _, e := range list {
		state := e.State
		if e.Record != nil && e.Record.Verified {
			state += ", verified when made"
		}
		if e.Record != nil && e.Record.Held {
			state += ", made in hold"
		}
		if e.Record != nil && e.Record.Reason != "" {
			state += ", not right"
		}
		if e.Reading {
			state += ", being read"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", e.At.Format(time.RFC3339), e.Bytes, yes(e.Encrypted), state, e.Name)
	}
	return w.Flush()
}

// withPlace opens a place for backups and, if there is one, the database.
func (c *call) withPlace(location string, quiet bool, fn func(context.Context, *config.Config, *store.Store, target.Target) error) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	cfg, err := c.load(quiet)
	if err != nil {
		return err
	}
	in, err := app.OpenBackups(ctx, cfg, location)
	if err != nil {
		return exit(exitUsage, err)
	}
	s, err := c.openStore(ctx, cfg, false)
	if err != nil {
		if !quiet {
			fmt.Fprintf(c.stderr, "z4j-brain: warning: nothing is compared with the audit log: %s\n", err)
		}
		return fn(ctx, cfg, nil, in)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return fn(ctx, cfg, s, in)
}
