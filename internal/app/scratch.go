package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/z4j-go/z4j/internal/store"
)

// scratch is where a drill restores to.
type scratch struct {
	url   string // of the database
	home  string // of the brain
	where string // for people
	drop  func(context.Context) error
}

const (
	scratchPattern = "z4j-drill-*"
	scratchLock    = "lock"
	scratchYoung   = time.Minute // a directory without a lock may be of a drill that begins just now
)

// newScratch makes a scratch directory, and a database on the server if one was named. dir overrules where.
func newScratch(ctx context.Context, o *DrillOptions, dir string) (s scratch, err error) {
	for _, one := range []string{o.TempDir, os.TempDir()} {
		if dir == "" {
			dir = one
		}
	}
	sweepScratches(dir, o.Now())
	path, unlock, err := lockedDir(dir)
	if err != nil {
		return s, fmt.Errorf("make a scratch directory: %w; name one with --tmp", err)
	}
	remove := func(context.Context) error { return errors.Join(os.RemoveAll(path), unlock()) }
	s = scratch{url: scratchDatabase(path), home: filepath.Join(path, "home"), where: path, drop: remove}
	if o.Into == "" {
		return s, nil
	}
	url, drop, err := store.NewScratch(ctx, o.Into, o.Now())
	if err != nil {
		return scratch{}, errors.Join(err, remove(ctx))
	}
	s.url, s.where = url, "a database of its own on the server"
	s.drop = func(ctx context.Context) error { return errors.Join(drop(ctx), remove(ctx)) }
	return s, nil
}

// lockedDir makes a directory that nobody else may read, and that is locked until unlock.
func lockedDir(parent string) (path string, unlock func() error, err error) {
	if path, err = os.MkdirTemp(parent, scratchPattern); err != nil {
		return "", nil, err
	}
	f, err := os.OpenFile(filepath.Join(path, scratchLock), os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // a directory that was just made.
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(path))
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return "", nil, errors.Join(err, f.Close(), os.RemoveAll(path))
	}
	return path, f.Close, nil
}

// sweepScratches removes what killed drills left in a directory. What can't be removed is no fault of the drill that
// begins.
func sweepScratches(parent string, now time.Time) {
	found, err := filepath.Glob(filepath.Join(parent, scratchPattern))
	if err != nil {
		return
	}
	for _, path := range found {
		info, err := os.Lstat(path)
		if err != nil || !info.IsDir() {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
			continue
		}
		f, err := os.OpenFile(filepath.Join(path, scratchLock), os.O_RDWR|syscall.O_NOFOLLOW, 0) //nolint:gosec // of this account, as was just seen.
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if now.Sub(info.ModTime()) > scratchYoung {
				_ = os.RemoveAll(path)
			}
		case err == nil:
			if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
				_ = os.RemoveAll(path)
			}
			_ = f.Close()
		}
	}
}
