package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/store"
)

// TestWhyABackupIsNotVerified: doctor tells one that was not read from one that holds what is wrong or cannot be proved.
func TestWhyABackupIsNotVerified(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string][2]string{
		"": {"was not read back", "--no-verify"},
		"content: its audit log is not proved: row 2 is edited":       {"what it holds is not right: content: its audit log", "audit verify"},
		"not provable: rows 1 to 4 of the audit log: key x is wanted": {"could not be proved: not provable: rows 1 to 4", "Z4J_AUDIT_SECRETS_PREVIOUS"},
	} {
		if says, do := unverified(&backup.Record{Reason: reason}); !strings.Contains(says, want[0]) || !strings.Contains(do, want[1]) {
			t.Errorf("reason %q: got %q, %q, want %q", reason, says, do, want)
		}
	}
}

// TestWhatALossWouldCost: doctor's line about it, for each set-up.
func TestWhatALossWouldCost(t *testing.T) {
	t.Parallel()
	now := time.Now()
	six, err := backup.ParseCron("0 */6 * * *")
	if err != nil {
		t.Fatal(err)
	}
	made := func(ago time.Duration) *backup.Record { return &backup.Record{Snapshot: store.TimeOf(now.Add(-ago))} }
	failed := store.TimeOf(now)
	minute := &store.Durability{ArchivesWAL: true, ArchiveTimeout: time.Minute}
	for _, tt := range []struct {
		name   string
		at     backup.Cron
		newest *backup.Record
		d      *store.Durability
		by     string
		want   time.Duration // negative: nothing bounds it
		says   string
	}{
		{"nothing at all", backup.Cron{}, nil, &store.Durability{}, "none", -1, "none yet"},
		{"backups by hand", backup.Cron{}, made(3 * time.Hour), &store.Durability{}, "none", -1, "3 hours old"},
		{"a schedule", six, made(time.Hour), &store.Durability{}, "schedule", 6 * time.Hour, "6 hours at most"},
		{"a schedule that fails", six, made(72 * time.Hour), &store.Durability{}, "schedule", 72 * time.Hour, "3 days at most"},
		{"WAL archiving", six, made(time.Hour), minute, "wal", time.Minute, "60 seconds at most"},
		{"WAL archiving without a time-out", six, made(time.Hour), &store.Durability{ArchivesWAL: true}, "wal", -1, "16 MiB"},
		{"WAL archiving that fails", six, made(time.Hour), &store.Durability{ArchivesWAL: true, ArchiveTimeout: time.Minute, ArchiveFailed: &failed}, "schedule", 6 * time.Hour, "6 hours"},
	} {
		o := loss(tt.at, tt.newest, tt.d, now)
		got := time.Duration(-1)
		if o.Seconds != nil {
			got = time.Duration(*o.Seconds) * time.Second
		}
		if o.By != tt.by || got != tt.want || !strings.Contains(o.Says, tt.says) {
			t.Errorf("%s: by %s, %v, %q; want %s, %v, %q", tt.name, o.By, got, o.Says, tt.by, tt.want, tt.says)
		}
	}
}
