package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// liveSuffix names the file that a brain locks beside its database: it tells of the brain also after the database was
// moved away under it, when the lease went along.
const liveSuffix = "-live"

// liveFile is that file, locked.
type liveFile struct {
	mu sync.Mutex
	f  *os.File
}

// hold locks the file, shared with other brains. It may be called again.
func (l *liveFile) hold(path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		return nil
	}
	f, err := os.OpenFile(filepath.Clean(path), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("%w: a restore looks at it", ErrInUse), f.Close())
	}
	l.f = f
	return nil
}

// release ends the lock. The file stays: another brain may hold it, and of one that was removed nobody would know.
func (l *liveFile) release() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}

// refuseLiveFile refuses the path of a database that a brain has open.
func refuseLiveFile(path string) error {
	f, err := os.OpenFile(filepath.Clean(path)+liveSuffix, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		err = fmt.Errorf("%w: stop it first", ErrInUse)
	}
	return errors.Join(err, f.Close())
}
