package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"sync"
)

// ErrDatabaseGone says that the file of the database is not the one that was opened: it was deleted, moved, or another one
// was put in its place. Nothing is answered as written, since it may have gone into a file that nobody can find any more.
var ErrDatabaseGone = errors.New("the database file is not the one that was opened")

// fileWatch knows which file a SQLite store works on.
type fileWatch struct {
	path string

	mu   sync.Mutex
	file os.FileInfo // nil: not known yet
	gone error
}

// see makes the file that is at the path now the one to work on.
func (w *fileWatch) see() error {
	info, err := os.Stat(w.path)
	if err != nil {
		return fmt.Errorf("look at the database file: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.file, w.gone = info, nil
	return nil
}

// check returns an ErrDatabaseGone if the path leads to another file, or to none; and goes on to do so when the file comes
// back, until see was called.
func (w *fileWatch) check() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil || w.gone != nil {
		return w.gone
	}
	info, err := os.Stat(w.path)
	switch {
	case err != nil:
		w.gone = fmt.Errorf("%w: %w", ErrDatabaseGone, err)
	case !os.SameFile(info, w.file):
		w.gone = fmt.Errorf("%w: another one lies at %s", ErrDatabaseGone, w.path)
	}
	return w.gone
}

// FileErr returns an ErrDatabaseGone while the file of a SQLite database is not the one that was opened.
func (s *Store) FileErr() error {
	if s.file == nil {
		return nil
	}
	return s.file.check()
}

// committed is what a commit of SQLite is worth: err, or that the file is gone that it went into.
func (s *Store) committed(err error) error {
	if err != nil {
		return err
	}
	return s.FileErr()
}

// Reopen opens the file that lies where the database was, as at a start. Until then nothing is read or written. Entries that
// this process saw committed and that are not in that file begin a hold.
func (s *Store) Reopen(ctx context.Context) error {
	if s.file == nil {
		return nil
	}
	if _, err := os.Stat(s.path); err != nil {
		return fmt.Errorf("%w: %w", ErrDatabaseGone, err)
	}
	s.log.ErrorContext(ctx, "another database file lies where the one that was opened was; it is opened as at a start", "path", s.path)
	seen := s.chain.forget()
	if err := s.file.see(); err != nil {
		return err
	}
	if err := s.prepare(ctx, s.opened); err != nil {
		err = fmt.Errorf("open the database that lies there now: %w", err)
		s.chain.recall(seen) // for the next one
		s.file.lose(err)
		return err
	}
	s.compareMemory(ctx, seen)
	return nil
}

// compareMemory compares what this process saw of one file with the other that it opened in its place. Whoever appends next
// does it again.
func (s *Store) compareMemory(ctx context.Context, seen []seenEntry) {
	opened := s.chain.recall(seen)
	switch err := s.TryAudit(ctx); {
	case err == nil:
		s.chain.see(opened) // the same history, which may have grown
	case !errors.Is(err, ErrHistoryInDoubt):
		s.log.ErrorContext(ctx, "what was seen of the file before is not compared yet", "err", err)
	}
}

// lose makes check fail again.
func (w *fileWatch) lose(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = fmt.Errorf("%w: %w", ErrDatabaseGone, err)
}

// forget drops what this process knows of another database, and returns what it saw.
func (c *chain) forget() (seen []seenEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen = c.seen
	c.seen, c.held, c.keyErr, c.generation = nil, nil, nil, ""
	return seen
}

// recall remembers what forget returned instead of the newest entry of now, which it returns.
func (c *chain) recall(seen []seenEntry) (newest seenEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.seen); n > 0 {
		newest = c.seen[n-1]
	}
	if len(seen) > 0 {
		c.seen = seen
	}
	return newest
}

// see remembers an entry that is newer than what was seen.
func (c *chain) see(e seenEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.seen); n > 0 && c.seen[n-1].seq < e.seq {
		c.seen = append(c.seen, e)
	}
}

// watchedConn is a connection to the file of a fileWatch. One to another file is thrown away before it is used again.
type watchedConn struct {
	numberedConn

	watch *fileWatch
	file  os.FileInfo
}

// ResetSession refuses a connection to a file that is not there any more.
func (c watchedConn) ResetSession(ctx context.Context) error {
	if err := c.watch.check(); err != nil {
		return errors.Join(driver.ErrBadConn, err)
	}
	c.watch.mu.Lock()
	same := c.watch.file == nil || c.file != nil && os.SameFile(c.file, c.watch.file)
	c.watch.mu.Unlock()
	if !same {
		return driver.ErrBadConn
	}
	if r, ok := c.Conn.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}
