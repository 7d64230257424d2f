package store_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"

	"github.com/z4j-go/z4j/internal/store"
)

// TestTemporaryFilesLieBesideTheDatabase: an index that does not fit into the cache is sorted in the directory that was named, and
// nothing of that is left.
func TestTemporaryFilesLieBesideTheDatabase(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "temporary", "x.db")
	name, err := store.RegisterTempVFS(path)
	if err != nil {
		t.Fatal(err)
	}
	defer vfs.Unregister(name)
	c, err := sqlite3.Open("file:" + filepath.Join(dir, "x.db") + "?vfs=" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.Exec(`PRAGMA temp_store = FILE; PRAGMA cache_size = -256; CREATE TABLE t (a blob);
		WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 20000) INSERT INTO t SELECT randomblob(100) FROM s`)
	if err != nil {
		t.Fatal(err)
	}
	const index = `CREATE INDEX t_a ON t (a)`
	if err := c.Exec(index); err == nil {
		t.Error("the directory of temporary files is not there, and an index larger than the cache was made: where was it sorted?")
	}
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.Exec(index); err != nil {
		t.Errorf("with the directory: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v; want nothing", left, err)
	}
}
