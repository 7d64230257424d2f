package store

import (
	"bytes"
	"cmp"
	"strings"
)

// Compare orders refs by project, engine and key.
func (a TaskRef) Compare(b TaskRef) int {
	return cmp.Or(bytes.Compare(a.Project[:], b.Project[:]), strings.Compare(a.Engine, b.Engine), bytes.Compare(a.Key[:], b.Key[:]))
}
