package store

import (
	"time"
)

// SnapshotOptions say what of the database is read, and how.
type SnapshotOptions struct {
	TempDir  string        // SQLite: where the copy is made that is read; "": beside the database
	Without  []string      // tables whose rows are left out
	Readers  int           // connections that read; 0: two
	LockWait time.Duration // how long a table may be locked by another before that is an error; 0: 30 s
}

// SnapshotInfo says what a snapshot is of.
type SnapshotInfo struct {
	Backend    string // "postgres" or "sqlite"
	Server     string // its version
	Schema     int64  // number of the newest migration
	Instance   string // "": the database has no name yet
	Generation string // of the audit chain
	Place      string // identifier of the cluster and the database, or of the file; "": not recorded
	AuditSize  int64  // number of the newest entry
	Head       string // row_hmac of the newest entry
	HeadTime   Time
	Boundary   int64 // entries up to here were pruned
	Time       Time  // of the database, when the snapshot was taken
}
