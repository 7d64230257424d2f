package app

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"filippo.io/age"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/target"
)

// TargetOptions say how the places for files of c are reached.
func TargetOptions(c *config.Config) target.Options {
	o := &c.ObjectStore
	return target.Options{S3: target.S3{
		Endpoint: o.Endpoint, Region: o.Region, AccessKeyID: string(o.KeyID.Reveal()), SecretAccessKey: string(o.SecretKey.Reveal()),
	}}
}

// OpenBackups opens a place for backups; "" is that of c.
func OpenBackups(ctx context.Context, c *config.Config, location string) (target.Target, error) {
	o := TargetOptions(c)
	o.Unread = true // backups are read whole anyway
	if location == "" {
		location = BackupPlace(c)
		o.Make = c.Backup.Target == ""
	}
	return target.Open(ctx, location, o)
}

// BackupPlace is where backups of c are kept.
func BackupPlace(c *config.Config) string {
	if c.Backup.Target != "" {
		return c.Backup.Target
	}
	return filepath.Join(c.General.Home, "backups")
}

// AuditKeys are the keys of c's audit secrets; the first signs.
func AuditKeys(c *config.Config) ([]audit.Key, error) {
	var keys []audit.Key
	for i, secret := range append([][]byte{c.Secrets.Audit.Reveal()}, c.Secrets.PreviousAudit.Reveal()...) {
		k, err := audit.NewKey(secret)
		if err != nil {
			return nil, fmt.Errorf("audit secret number %d: %w", i+1, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Recipients reads public keys of age.
func Recipients(list []string) ([]age.Recipient, error) {
	var out []age.Recipient
	for _, text := range list {
		found, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("%.80q is no recipient (age1…, as age-keygen prints it): %w", text, err)
		}
		out = append(out, found...)
	}
	return out, nil
}

// BackupOptions are what every backup by the settings of c is made with, but for store, actor and target.
func BackupOptions(c *config.Config) (o backup.Options, err error) {
	if o.Keys, err = AuditKeys(c); err != nil {
		return o, err
	}
	if o.Recipients, err = Recipients(c.Backup.Recipients); err != nil {
		return o, fmt.Errorf("Z4J_BACKUP_RECIPIENTS: %w", err)
	}
	o.TempDir, o.TempDirs = c.Backup.Tmp, []string{c.General.Home}
	o.Passphrase = string(c.Backup.Passphrase.Reveal())
	if o.Passphrase != "" && len(o.Recipients) > 0 {
		return o, fmt.Errorf("%sBACKUP_RECIPIENTS and %sBACKUP_PASSPHRASE are both given: an archive is encrypted with one of the two", config.Prefix, config.Prefix)
	}
	return o, nil
}

// BackupRules reads schedule and rules of keeping of c.
func BackupRules(c *config.Config) (at backup.Cron, keep backup.Keep, err error) {
	if at, err = backup.ParseCron(c.Backup.Schedule); err != nil {
		return at, keep, fmt.Errorf("%sBACKUP_SCHEDULE: %w", config.Prefix, err)
	}
	if c.Backup.Keep != "" {
		if keep, err = backup.ParseKeep(c.Backup.Keep); err != nil {
			return at, keep, fmt.Errorf("%sBACKUP_KEEP: %w", config.Prefix, err)
		}
	}
	return at, keep, nil
}

// CheckBackups says what is wrong with the settings of backups.
func CheckBackups(c *config.Config) error {
	if _, _, err := BackupRules(c); err != nil {
		return err
	}
	if _, err := backup.ParseCron(c.Backup.DrillSchedule); err != nil {
		return fmt.Errorf("%sDRILL_SCHEDULE: %w", config.Prefix, err)
	}
	if _, err := Identities(c); err != nil {
		return err
	}
	if c.Secrets.Audit.IsZero() {
		return nil // its absence is said elsewhere
	}
	_, err := BackupOptions(c)
	return err
}

// backups makes what makes the backups of this brain.
func (b *Brain) makeBackups(ctx context.Context, seen func(backup.Standing)) (*backup.Brain, error) {
	c := b.Config
	o, err := BackupOptions(c)
	if err != nil {
		return nil, err
	}
	at, keep, err := BackupRules(c)
	if err != nil {
		return nil, err
	}
	drills, err := b.drills()
	if err != nil {
		return nil, err
	}
	o.Store, o.Version, o.Now, o.Log = b.Store, b.Version, b.Now, b.Log
	o.Open = func(ctx context.Context) (target.Target, error) { return OpenBackups(ctx, c, "") }
	return backup.NewBrain(ctx, backup.Plan{
		Options: o, Place: BackupPlace(c), Cron: c.Backup.Schedule, Schedule: at, Keep: keep, MaxDuration: c.Backup.MaxDuration, RPO: c.Backup.RPO, Seen: seen, Drills: drills,
	}), nil
}
