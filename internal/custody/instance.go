package custody

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/z4j-go/z4j/internal/store"
)

// instanceFile stands in Z4J_HOME and names the SQLite file that belongs to it: a copy put in the place of another, and a
// home that is not the file's, are known by it.
const instanceFile = "instance.json"

// instanceNote is what instanceFile holds. Previous covers a stop between writing it and the database.
type instanceNote struct {
	Database string `json:"database"`
	Previous string `json:"previous,omitempty"`
	File     string `json:"file,omitempty"` // where the database was
}

// defaultFile is the database of a home that names no other.
const defaultFile = "z4j.db"

// Owns reports whether a database that is restored takes the place of the one that a home knows: file is where it will be,
// "" on a server. Of that a home can't tell which one is its own, so it is none where another was watched.
func Owns(home, file string) bool {
	c := New(Options{Home: home})
	own := filepath.Join(home, defaultFile)
	n, err := c.readInstance()
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false
	case n.Database != "" && file != "":
		return file == cmp.Or(n.File, own)
	}
	return file == own || c.Local("").Missing
}

func (c *Custody) instancePath() string { return filepath.Join(c.o.Home, instanceFile) }

func (c *Custody) readInstance() (n instanceNote, err error) {
	text, err := os.ReadFile(c.instancePath())
	if err != nil {
		return n, fmt.Errorf("read %s: %w", instanceFile, err)
	}
	if err := json.Unmarshal(text, &n); err != nil {
		return n, fmt.Errorf("read %s: %w", c.instancePath(), err)
	}
	return n, nil
}

// writeInstance replaces the file whole.
func (c *Custody) writeInstance(n instanceNote) (err error) {
	text, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("write %s: %w", instanceFile, err)
	}
	if err := os.MkdirAll(c.o.Home, 0o700); err != nil {
		return fmt.Errorf("write %s: %w", instanceFile, err)
	}
	part := c.instancePath() + ".part"
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) //nolint:gosec // in the home.
	if err != nil {
		return fmt.Errorf("write %s: %w", instanceFile, err)
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(part, c.instancePath())
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", instanceFile, err)
	}
	return syncDir(c.o.Home)
}

// whereabouts tells where the database is and whether it was there before; known is false when nothing recorded it yet.
func (c *Custody) whereabouts(ctx context.Context) (w Whereabouts, present store.Place, known bool, err error) {
	s := c.o.Store
	recorded, err := s.RecordedPlace(ctx)
	known = err == nil
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Same, present, false, err
	}
	if present, err = s.PresentPlace(ctx); err != nil {
		return Same, present, known, err
	}
	if s.Dialect() != "sqlite" {
		if known && (recorded.Identifier != present.Identifier || recorded.Location != present.Location) {
			return Other, present, known, nil
		}
		return Same, present, known, nil
	}
	present.Identifier = recorded.Identifier
	if !known {
		return Same, present, false, nil
	}
	n, err := c.readInstance()
	switch {
	case c.o.Home == "" || errors.Is(err, fs.ErrNotExist):
		return Missing, present, known, nil
	case err != nil:
		return Missing, present, known, err
	case recorded.Identifier != n.Database && recorded.Identifier != n.Previous:
		return Other, present, known, nil
	}
	if recorded.Identifier == n.Database && n.Previous != "" { // the database took the new name
		err = c.writeInstance(instanceNote{Database: n.Database, File: present.Location})
	}
	return Same, present, known, err
}

// newPlace is where the database lives from now on. For SQLite it gets a new name, so that the file that it was copied
// from is another one.
func (c *Custody) newPlace(ctx context.Context) (store.Place, error) {
	p, err := c.o.Store.PresentPlace(ctx)
	if err != nil || c.o.Store.Dialect() != "sqlite" {
		return p, err
	}
	was, err := c.o.Store.RecordedPlace(ctx)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return p, err
	}
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	p.Identifier = hex.EncodeToString(random[:])
	if c.o.Home == "" {
		return p, nil
	}
	if c.o.ReadOnly {
		if _, err := c.readInstance(); !c.o.Beside || !errors.Is(err, fs.ErrNotExist) {
			return p, nil
		}
	}
	return p, c.writeInstance(instanceNote{Database: p.Identifier, Previous: was.Identifier, File: p.Location})
}
