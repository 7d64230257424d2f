// Package custody keeps watch over the audit log from outside of its database.
//
// A chain of signed rows alone can't show that its tail was cut, that it was wiped, or that the whole database was set
// back to an older state. So the brain signs a checkpoint of the whole log every minute and keeps it in anchors, which
// are places that whoever can write the database can't write: a directory of this machine, other directories, S3
// buckets. When it starts, when the database comes back, and before it signs again it compares. What does not fit holds
// changes on every replica until somebody says what happened (Decide).
package custody

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"strings"
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
}

// Custody watches one audit log. Make one with New.
type Custody struct {
	o     Options
	local anchor // nil: there is no home
	grave chan struct{}

	examining sync.Mutex // held by whoever compares and decides
	mu        sync.Mutex // of what follows
	shared    []anchor
	opened    bool
	troubles  map[string]string // by anchor or subject: what is wrong and holds nothing
	place     store.Place       // where the database was at the last look
	away      bool              // the last look failed
	begun     bool              // the local anchor was looked at, and is begun where there was none
	scanned   int64             // number of the newest entry that was looked at for lines and grave actions
	scannedAs string            // its HMAC, "" if that is not known
	lines     map[cursor]mark   // up to which entry an anchor has the lines of a generation
	mirrored  map[string]int64  // up to which size the local anchor has the checkpoints of a generation
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
	c := &Custody{o: o, grave: make(chan struct{}, 1), troubles: map[string]string{}, lines: map[cursor]mark{}, mirrored: map[string]int64{}}
	if o.Home != "" {
		c.local = &fileAnchor{dir: filepath.Join(o.Home, "anchors"), make: !o.ReadOnly}
	}
	return c
}

// Grave gives a value when a checkpoint shall be signed at once.
func (c *Custody) Grave() <-chan struct{} { return c.grave }

// sharedAnchors are those beside the local one, which are opened when they are first needed. One that can't be is tried
// again the next time.
func (c *Custody) sharedAnchors(ctx context.Context) []anchor {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opened {
		return c.shared
	}
	c.shared, c.opened = nil, true
	for _, location := range c.o.Anchors {
		a, err := c.open(ctx, location)
		if err != nil {
			c.opened = false
			c.noteLocked(ctx, location, err)
			continue
		}
		c.shared = append(c.shared, a)
	}
	return c.shared
}

func (c *Custody) open(ctx context.Context, location string) (anchor, error) {
	if !strings.Contains(location, "://") {
		return &fileAnchor{dir: location, make: false}, nil
	}
	t, err := target.Open(ctx, location, c.o.Target)
	if err != nil {
		return nil, fmt.Errorf("open anchor: %w", err)
	}
	return &bucketAnchor{Target: t}, nil
}

// note remembers that something is wrong which holds nothing, or, with nil, that it is right again. A change is logged.
func (c *Custody) note(ctx context.Context, subject string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noteLocked(ctx, subject, err)
}

func (c *Custody) noteLocked(ctx context.Context, subject string, err error) {
	was, bad := c.troubles[subject]
	switch {
	case err == nil && bad:
		delete(c.troubles, subject)
		c.o.Log.InfoContext(ctx, "audit anchor is right again", "anchor", subject)
	case err != nil && was != err.Error():
		c.troubles[subject] = err.Error()
		c.o.Log.WarnContext(ctx, "audit anchor needs attention", "anchor", subject, "err", err)
	}
}

// Troubles tells, by anchor, what is wrong with anchors and holds nothing.
func (c *Custody) Troubles() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]string, len(c.troubles))
	maps.Copy(out, c.troubles)
	return out
}

// publicKeys are those whose notes are our own.
func (c *Custody) publicKeys() []string {
	var out []string
	keys := c.o.Keys
	if c.o.Store != nil {
		keys = c.o.Store.AuditKeys()
	}
	for _, k := range keys {
		out = append(out, k.PublicKey())
	}
	return out
}

// signer is the key that signs, or none.
func (c *Custody) signer() audit.Key {
	if keys := c.o.Store.AuditKeys(); len(keys) > 0 {
		return keys[0]
	}
	return audit.Key{}
}
