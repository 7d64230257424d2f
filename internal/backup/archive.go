// Package backup makes archives of the whole database, verifies, lists and prunes them.
//
// An archive is a tar file, encrypted with age if recipients or a passphrase are given. Its members are chunks of tables,
// each compressed by itself; then the manifest, which says what there must be, and the manifest's signature. Nothing is
// left to chance in its bytes: whatever else stands anywhere in it, it does not verify. An archive without its end is none.
package backup

import (
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/z4j-go/z4j/internal/store"
)

// What can be wrong with an archive.
var (
	ErrDamaged    = errors.New("the archive is damaged")
	ErrIncomplete = errors.New("the archive has no end: it was cut, or never finished")
	ErrFormat     = errors.New("the archive's form is another")
	ErrNoIdentity = errors.New("the archive is encrypted, and what was given does not open it")
	ErrUnsigned   = errors.New("the archive is signed with an audit secret that is not at hand")
)

// Format names this form of archives in manifests.
const Format = "z4j-backup-1"

const (
	manifestName  = "manifest.json"
	signatureName = "manifest.sig"
	chunkSuffix   = ".zst"

	maxManifest = 1 << 20 // bytes; a manifest has about 150 a table
)

// Manifest says what an archive is of, and what it must hold.
type Manifest struct {
	Format      string     `json:"format"`
	ID          string     `json:"id"`
	Application string     `json:"application"` // version of the program
	Schema      int64      `json:"schema"`
	Backend     string     `json:"backend"`
	Server      string     `json:"server"` // version of the database
	Instance    string     `json:"instance"`
	Generation  string     `json:"generation"`
	Place       string     `json:"place"`
	StartedAt   store.Time `json:"started_at"`
	SnapshotAt  store.Time `json:"snapshot_at"` // the moment that the archive is of, by the database's clock
	FinishedAt  store.Time `json:"finished_at"`
	Without     []string   `json:"without"` // tables whose rows were left out
	Hold        *Hold      `json:"hold"`    // the history was in doubt when it was made; null: it was not
	Tables      []Table    `json:"tables"`
	Audit       Chain      `json:"audit"`
	Keys        KeyIDs     `json:"keys"`
	Content     Content    `json:"content"`
}

// Table is what there is of one table.
type Table struct {
	Name   string `json:"name"`
	Rows   int64  `json:"rows"`
	Chunks int    `json:"chunks"`
	Bytes  int64  `json:"bytes"`  // raw
	SHA256 string `json:"sha256"` // over the SHA-256 of its raw chunks, in order
}

// Hold says why nothing left the brain when a backup was made: it may hold less than there was.
type Hold struct {
	Since  store.Time `json:"since"`
	Reason string     `json:"reason"`
}

// Chain is what an archive has of the audit log.
type Chain struct {
	Size       int64      `json:"size"` // number of the last entry
	RowHMAC    string     `json:"row_hmac"`
	At         store.Time `json:"at"`
	Boundary   int64      `json:"boundary"` // entries up to here were pruned
	Root       string     `json:"root"`     // of the Merkle tree, hexadecimal; empty if the tree's beginning was not known
	Checkpoint string     `json:"checkpoint"`
}

// KeyIDs name the secrets that a restore needs.
type KeyIDs struct {
	Master string   `json:"master"` // fingerprint of Z4J_SECRET
	Audit  []string `json:"audit"`  // of Z4J_AUDIT_SECRET and those before it
}

// Content is every byte of the tar file before the manifest.
type Content struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Rows is the sum of all tables.
func (m *Manifest) Rows() int64 {
	n := int64(0)
	for _, t := range m.Tables {
		n += t.Rows
	}
	return n
}

// Table returns what the manifest says of a table.
func (m *Manifest) Table(name string) (Table, bool) {
	for _, t := range m.Tables {
		if t.Name == name {
			return t, true
		}
	}
	return Table{}, false
}

const (
	namePrefix   = "z4j-"
	nameTime     = "20060102T150405Z"
	plainSuffix  = ".tar"
	sealedSuffix = ".tar.age"
)

// archiveName is the shape of names that NewName makes: instance, time, id.
var archiveName = regexp.MustCompile(`^z4j-([0-9a-z]{1,12})-(\d{8}T\d{6}Z)-([0-9a-f]{12})\.tar(\.age)?$`)

// NewName names the archive of an instance. Names of one instance sort by time.
func NewName(instance, id string, at time.Time, encrypted bool) string {
	suffix := plainSuffix
	if encrypted {
		suffix = sealedSuffix
	}
	compact := strings.ReplaceAll(id, "-", "")
	return namePrefix + shortInstance(instance) + "-" + at.UTC().Format(nameTime) + "-" + compact[len(compact)-12:] + suffix
}

// shortInstance is what a name tells of an instance.
func shortInstance(instance string) string {
	if instance == "" {
		return "unnamed"
	}
	return instance[:min(len(instance), 8)]
}

// parseName says what a name tells; ok is false for files that are no archives of ours.
func parseName(name string) (instance string, at time.Time, ok bool) {
	part := archiveName.FindStringSubmatch(name[strings.LastIndexByte(name, '/')+1:])
	if part == nil {
		return "", time.Time{}, false
	}
	at, err := time.Parse(nameTime, part[2])
	return part[1], at, err == nil
}
