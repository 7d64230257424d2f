package storetest

import (
	"testing"
)

// ClusterDir is the directory of this process's cluster.
func ClusterDir(t testing.TB) string {
	t.Helper()
	c, err := started()
	if err != nil {
		t.Fatal(err)
	}
	return c.dir
}

// Choose is choose.
var Choose = choose

// RemoveStale is removeStale.
var RemoveStale = removeStale
