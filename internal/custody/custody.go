// Package custody keeps watch over the audit log from outside of its database.
//
// A chain of signed rows alone can't show that its tail was cut, that it was wiped, or that the whole database was set
// back to an older state. So the brain signs a checkpoint of the whole log every minute and keeps it in anchors, which
// are places that whoever can write the database can't write: a directory of this machine, other directories, S3
// buckets. When it starts, when the database comes back, and before it signs again it compares. What does not fit holds
// changes on every replica until somebody says what happened (Decide).
package custody

import (
	"log/slog"
	"sync"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
)

// Options are what a Custody needs.
type Options struct {
	Store *store.Store
	Keys  []audit.Key // of Known, where there is no Store
	Log   *slog.Logger
	Now   func() time.Time // required

	Home    string   // Z4J_HOME: anchors/ and instance.json lie there; "": there is none
	Anchors []string // further ones: directories, s3://bucket/prefix
	Target  target.Options
	Grace   store.Grace

	// ReadOnly never writes to an anchor, as a drill, a plan and a verification want it.
	ReadOnly bool

	// Beside is ReadOnly for a database that is not the home's own: no more is written than instance.json in a home that
	// has none.
	Beside bool
}

// Custody watches one audit log. Make one with New.
type Custody struct {
	o     Options
	local *post // nil: there is no home
	grave chan struct{}

	following *history // in which a command began; nil: of a brain

	examining sync.Mutex // held by whoever compares and decides
	mu        sync.Mutex // of what follows
	shared    []*post    // as Options.Anchors; nil: not open yet
	troubles  map[faulty]Trouble
	place     store.Place      // where the database was at the last look
	away      bool             // the last look failed
	begun     bool             // the local anchor was looked at, and is begun where there was none
	scanned   int64            // number of the newest entry that was looked at for lines and grave actions
	scannedAs string           // its HMAC, "" if that is not known
	lines     map[cursor]mark  // up to which entry an anchor has the lines of a generation
	mirrored  map[string]int64 // up to which size the local anchor has the checkpoints of a generation
}

type cursor struct{ anchor, generation string }

// mark is an entry of the log as it was when it was looked at: one that was set back and has grown again has another.
type mark struct {
	seq     int64
	rowHMAC string
}

// New returns a Custody; it reads and writes nothing yet.
func New(o Options) *Custody {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.ReadOnly = o.ReadOnly || o.Beside
	c := &Custody{o: o, grave: make(chan struct{}, 1), shared: make([]*post, len(o.Anchors)), troubles: map[faulty]Trouble{}, lines: map[cursor]mark{}, mirrored: map[string]int64{}}
	if o.Home != "" {
		c.local = localPost(o.Home)
	}
	return c
}

// Grave gives a value when a checkpoint shall be signed at once.
func (c *Custody) Grave() <-chan struct{} { return c.grave }

// publicKeys are those whose notes are our own.
func (c *Custody) publicKeys() []string {
	if c.o.Store != nil {
		return audit.PublicKeys(c.o.Store.AuditKeys())
	}
	return audit.PublicKeys(c.o.Keys)
}

// signer is the key that signs, or none.
func (c *Custody) signer() audit.Key {
	if keys := c.o.Store.AuditKeys(); len(keys) > 0 {
		return keys[0]
	}
	return audit.Key{}
}
