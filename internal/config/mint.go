package config

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrSecrets says that the secrets that a brain needs are not there.
var ErrSecrets = errors.New("secrets are missing")

// SecretsError says which secrets are missing and what to do. canMint says that the caller may make them.
func (c *Config) SecretsError() error {
	missing := c.Secrets.missing()
	if len(missing) == 0 {
		return nil
	}
	file := filepath.Join(c.General.Home, FromSecretFile)
	if len(missing) == 3 {
		return fmt.Errorf("%w: the database %s belongs to an installation whose Z4J_SECRET, Z4J_SESSION_SECRET and Z4J_AUDIT_SECRET are neither set nor in %s: "+
			"give them (each also as …_FILE), or put the secret.env of that installation there", ErrSecrets, c.Database.URL, file)
	}
	verb := "is"
	if len(missing) > 1 {
		verb = "are"
	}
	return fmt.Errorf("%w: %s %s neither set nor in %s, though the others are: give the one that belongs to this installation, or, if there never was one, make it: "+
		"printf '%s=%%s\\n' \"$(openssl rand -base64 48 | tr -d '\\n')\" >> %s", ErrSecrets, strings.Join(missing, " and "), verb, file, missing[0], file)
}

// Mint makes the secrets of a new installation, keeps them in secret.env, and puts them into c. Call it for serve only,
// and only while the database is known to be empty and locked. A secret.env that exists is never touched.
func (c *Config) Mint() error {
	if !c.Secrets.None() {
		return c.SecretsError()
	}
	made := Keys{Master: randomSecret(), Session: randomSecret(), Audit: randomSecret()}
	var b strings.Builder
	b.WriteString("# The secrets of this installation. Keep a copy with your backups: without them a backup is of no use.\n")
	fmt.Fprintf(&b, "Z4J_SECRET=%s\nZ4J_SESSION_SECRET=%s\nZ4J_AUDIT_SECRET=%s\n", made.Master.Reveal(), made.Session.Reveal(), made.Audit.Reveal())
	if c.Secrets.Metrics.IsZero() {
		made.Metrics = randomSecret()
		fmt.Fprintf(&b, "Z4J_METRICS_AUTH_TOKEN=%s\n", made.Metrics.Reveal())
	}
	path := filepath.Join(c.General.Home, FromSecretFile)
	if err := writeNew(path, b.String()); err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	o := Origin{Kind: FromSecretFile}
	c.Secrets.Master, c.Secrets.Session, c.Secrets.Audit = made.Master, made.Session, made.Audit
	for _, name := range []string{"SECRET", "SESSION_SECRET", "AUDIT_SECRET"} {
		c.origins[name] = o
	}
	if !made.Metrics.IsZero() {
		c.Secrets.Metrics = made.Metrics
		c.origins["METRICS_AUTH_TOKEN"] = o
	}
	return nil
}

func randomSecret() Secret {
	b := make([]byte, 48)
	if _, err := rand.Read(b); err != nil {
		panic(err) // crypto/rand never fails on the systems we run on
	}
	return NewSecret(base64.RawURLEncoding.EncodeToString(b))
}

// writeNew makes the file at path, readable by its owner only, whole and on the disk or not at all. It fails when there
// is anything at path, a link that leads nowhere included.
func writeNew(path, text string) (err error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fs.ErrExist, err)
	}
	temp := path + "." + strings.ToLower(rand.Text()) + ".tmp"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600) //nolint:gosec // the operator says which directory is ours.
	if err != nil {
		return err
	}
	defer func() {
		if e := os.Remove(temp); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}()
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	// A link never replaces what another brain put there meanwhile; a rename would.
	if err := os.Link(temp, path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := os.Rename(temp, path); err != nil { // this file system has no links
			return err
		}
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the operator says which directory is ours.
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// MakeHome makes the state directory, for its owner only. Only serve does.
func (c *Config) MakeHome() error {
	if err := os.MkdirAll(c.General.Home, 0o700); err != nil {
		return fmt.Errorf("make Z4J_HOME: %w", err)
	}
	return nil
}

// Unknown are the names in config.env and secret.env that nobody reads, for `config validate`.
func (c *Config) Unknown() []Problem { return c.unknown }
