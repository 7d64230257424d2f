package store

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/ncruces/go-sqlite3/vfs"
)

// tempVFS is the operating system's, but for SQLite's temporary files, which lie in dir: an index is sorted in as much room as it
// takes, and a machine's own directory for them may be small, or memory.
type tempVFS struct {
	vfs.VFSFilename

	dir string
}

// registerTempVFS makes a tempVFS known to SQLite, and returns its name, by which vfs.Unregister forgets it.
func registerTempVFS(path string) (name string, err error) {
	system, ok := vfs.Find("").(vfs.VFSFilename)
	if !ok {
		return "", errors.New("the driver's VFS has another form than expected")
	}
	name = "z4j-temp-" + path
	vfs.Register(name, tempVFS{system, filepath.Dir(path)})
	return name, nil
}

// OpenFilename opens a file; without a name a temporary one, which nobody else sees.
func (v tempVFS) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	if name != nil {
		return v.VFSFilename.OpenFilename(name, flags)
	}
	f, err := os.CreateTemp(v.dir, copyPattern)
	if err != nil {
		return nil, flags, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, flags, errors.Join(err, f.Close())
	}
	return tempFile{f}, flags, nil
}

// tempFile is a temporary file: it is gone with the process, and has one user.
type tempFile struct{ *os.File }

const tempSector = 4096 // bytes, of any disk of today

func (tempFile) Sync(vfs.SyncFlag) error          { return nil }
func (tempFile) Lock(vfs.LockLevel) error         { return nil }
func (tempFile) Unlock(vfs.LockLevel) error       { return nil }
func (tempFile) CheckReservedLock() (bool, error) { return false, nil }
func (tempFile) SectorSize() int                  { return tempSector }

func (tempFile) DeviceCharacteristics() vfs.DeviceCharacteristic { return 0 }

func (f tempFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
