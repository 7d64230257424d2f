package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/store"
)

// outlook is what a loss of the database would cost with the present set-up.
type outlook struct {
	RPO lossOutlook `json:"rpo"`
	RTO timeOutlook `json:"rto"`
}

// lossOutlook says what would be lost.
type lossOutlook struct {
	Says    string `json:"says"`
	By      string `json:"by"`                        // what bounds it: wal, schedule, none
	Seconds *int64 `json:"seconds"`                   // at most; null: nothing bounds it
	Age     *int64 `json:"newest_backup_age_seconds"` // null: there is no backup
}

// timeOutlook says how long it would take.
type timeOutlook struct {
	Says    string      `json:"says"`
	Seconds *float64    `json:"seconds"` // until the brain served, in the newest good drill
	At      *store.Time `json:"drilled_at"`
}

// adviseBackups looks at backups, drills and anchors.
func adviseBackups(ctx context.Context, cfg *config.Config, s *store.Store, d *store.Durability, now time.Time) (l list, o outlook, err error) {
	at, _, err := app.BackupRules(cfg)
	if err != nil {
		return nil, o, err
	}
	newest, err := found(backup.Last(ctx, s, audit.BackupCompleted))
	if err != nil {
		return nil, o, err
	}
	drill, err := found(backup.LastDrill(ctx, s, true))
	if err != nil {
		return nil, o, err
	}
	l.add(at.IsZero(), levelRisk, "no-backup-schedule", "the brain makes no backups by itself", "Set Z4J_BACKUP_SCHEDULE, such as 0 3 * * *, and Z4J_BACKUP_TARGET, or let something else call `z4j-brain backup` daily.")
	if newest == nil {
		l.add(true, levelRisk, "backup-too-old", "there is no backup of which the audit log knows", "z4j-brain backup")
	} else {
		age := now.Sub(newest.Snapshot.Time)
		l.add(age > cfg.Backup.RPO, levelRisk, "backup-too-old", fmt.Sprintf("the newest backup is %s old, and Z4J_RPO allows %s", longTime(age), longTime(cfg.Backup.RPO)),
			"Run `z4j-brain backup`, and find out why the schedule does not: `z4j-brain health`, the log, and the entries backup.failed of the audit log.")
		says, do := unverified(newest)
		l.add(!newest.Verified, levelRisk, "backup-unverified", says, do)
	}
	l.add(unencrypted(cfg, newest), levelAdvice, "backup-unencrypted", "backups are not encrypted: whoever reads one has names, addresses and what tasks were called with",
		"Set Z4J_BACKUP_RECIPIENTS to a public key that age-keygen makes, and keep its secret key apart.")
	l.add(beside(cfg), levelRisk, "backup-beside-database", "backups in "+app.BackupPlace(cfg)+" lie on the same disk as "+besideWhat(cfg)+": what takes one takes both",
		"Set Z4J_BACKUP_TARGET to a directory of another machine or to s3://bucket/prefix.")
	l.add(drill == nil || now.Sub(drill.Finished.Time) > backup.DrillEvery, levelAdvice, "no-drill", noDrill(drill, now), "Run `z4j-brain drill`, and set Z4J_DRILL_SCHEDULE, such as 0 4 1 */3 *.")
	l.add(len(cfg.Audit.Anchors) == 0, levelAdvice, "anchor-missing-outside", "the checkpoints of the audit log are kept on this machine only: whoever can write it can cut the log and what remembers it",
		"Set Z4J_AUDIT_ANCHORS to a directory of another machine or to s3://bucket/prefix.")
	troubles, local, err := app.AnchorTroubles(ctx, cfg, s, func() time.Time { return now })
	if err != nil {
		return nil, o, err
	}
	l.add(local.Missing, levelAdvice, "anchor-missing", local.Path+" is not there, though the audit log has entries: what is cut off until a brain begins it anew nobody notices", "Start the brain; if one runs, or ran here before, find out who took it away.")
	l.add(local.OnVolume, levelAdvice, "anchor-beside-database", local.Path+" lies on the volume of the database: a snapshot that is put back sets back both", "Set Z4J_AUDIT_ANCHORS to a place on another volume.")
	for i := range troubles {
		l.add(true, levelRisk, "anchor-"+strings.ReplaceAll(string(troubles[i].Fault), "_", "-"), "the anchor in "+troubles[i].String(),
			"Mend it: what happens meanwhile only the other anchors know. docs/operations/audit.md tells the faults.")
	}
	return l, outlook{loss(at, newest, d, now), took(drill)}, nil
}

// unverified says why a backup does not count as verified, and what to do.
func unverified(r *backup.Record) (says, do string) {
	switch {
	case r.Unproved():
		return "the newest backup was read, and its audit log could not be proved: " + r.Reason, "Give the secrets of all keys (Z4J_AUDIT_SECRETS_PREVIOUS) to the brain and to whatever makes backups, and make another one."
	case r.Reason != "":
		return "the newest backup was read, and what it holds is not right: " + r.Reason, "Run `z4j-brain audit verify`, mend the database or restore an older backup, and make another one."
	}
	return "the newest backup was not read back when it was made", "`z4j-brain backup verify`, and make backups without --no-verify."
}

// found turns ErrNotFound into nil.
func found[T any](v T, err error) (*T, error) {
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil //nolint:nilnil // there is none, which is no fault here.
	}
	return &v, err
}

func unencrypted(cfg *config.Config, newest *backup.Record) bool {
	set := len(cfg.Backup.Recipients) > 0 || !cfg.Backup.Passphrase.IsZero()
	if newest == nil {
		return !set && cfg.Backup.Schedule != ""
	}
	return !newest.Encrypted
}

func besideWhat(cfg *config.Config) string {
	if cfg.Database.URL.IsSQLite() {
		return "the database"
	}
	return "Z4J_HOME"
}

// beside reports whether backups lie on the disk that they are to outlive.
func beside(cfg *config.Config) bool {
	place := app.BackupPlace(cfg)
	if strings.Contains(place, "://") {
		return false
	}
	from := cfg.General.Home
	if cfg.Database.URL.IsSQLite() {
		from = cfg.Database.URL.Path()
	}
	a, ok1 := device(place)
	b, ok2 := device(from)
	return ok1 && ok2 && a == b
}

// device is the file system of a path, or of what is there of it.
func device(path string) (uint64, bool) {
	for {
		info, err := os.Stat(path)
		if err == nil {
			st, ok := info.Sys().(*syscall.Stat_t)
			if !ok {
				return 0, false
			}
			return uint64(st.Dev), true //nolint:unconvert // it is signed on some systems.
		}
		up := filepath.Dir(path)
		if up == path {
			return 0, false
		}
		path = up
	}
}

func noDrill(drill *backup.DrillRecord, now time.Time) string {
	if drill == nil {
		return "no drill has gone well yet: nobody knows whether the backups can be restored"
	}
	return fmt.Sprintf("the newest drill that went well was %s ago", longTime(now.Sub(drill.Finished.Time)))
}

// loss says how much would be lost with the database at most.
func loss(at backup.Cron, newest *backup.Record, d *store.Durability, now time.Time) (o lossOutlook) {
	bound := func(by string, most time.Duration) {
		seconds := int64(most / time.Second)
		o.By, o.Seconds = by, &seconds
	}
	since := "and there is none yet"
	if newest != nil {
		age := int64(now.Sub(newest.Snapshot.Time) / time.Second)
		o.Age = &age
		since = "now " + longTime(time.Duration(age)*time.Second) + " old"
	}
	switch {
	case d.ArchivesWAL && d.ArchiveFailed == nil && d.ArchiveTimeout > 0:
		bound("wal", d.ArchiveTimeout)
		o.Says = "lost with the database: " + longTime(d.ArchiveTimeout) + " at most, by archiving of WAL (archive_timeout), as long as there is a base backup to begin from"
	case d.ArchivesWAL && d.ArchiveFailed == nil:
		o.By, o.Says = "wal", "lost with the database: what fits into a WAL segment of 16 MiB, however long that takes (archive_timeout is 0)"
	case !at.IsZero():
		most := at.Longest(now)
		if newest != nil {
			most = max(most, now.Sub(newest.Snapshot.Time))
		}
		bound("schedule", most)
		o.Says = "lost with the database: " + longTime(most) + " at most, as backups are scheduled; what is newer than the newest backup, " + since
	default:
		o.By, o.Says = "none", "lost with the database: everything since the newest backup, "+since+"; nothing makes the next one"
	}
	return o
}

func took(drill *backup.DrillRecord) (o timeOutlook) {
	if drill == nil {
		o.Says = "until the brain serves again: unknown: run z4j-brain drill"
		return o
	}
	o.Seconds, o.At = &drill.RestoreSeconds, &drill.Finished
	o.Says = fmt.Sprintf("until the brain serves again: %s, as the drill of %s took", seconds(drill.RestoreSeconds), drill.Finished)
	return o
}

// longTime writes a time as people say it.
func longTime(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%d days", d/day)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", d/time.Minute)
	}
	return fmt.Sprintf("%d seconds", max(d, 0)/time.Second)
}
