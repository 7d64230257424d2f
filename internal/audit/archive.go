package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
)

// Archive is a file that holds rows which were deleted, as an audit.pruned names it.
type Archive struct {
	Location   string `json:"location"` // "" for several that are told as one
	First      int64  `json:"first"`
	Last       int64  `json:"last"`
	Generation string `json:"generation"`
	SHA256     string `json:"sha256"`
	Count      int64  `json:"count,omitempty"` // of several that are told as one
}

// mostArchives is how many archives an audit.pruned names: their list has to fit into its details.
const mostArchives = 60

// JoinArchives returns the list with one more. Of a list that grew too long the oldest are told as one: from where to
// where, how many, and a chain of SHA-256 over the line `first last sha256` of each.
func JoinArchives(list []Archive, newest Archive) []Archive {
	list = append(slices.Clip(list), newest)
	for len(list) > mostArchives {
		a, b := list[0], list[1]
		if a.Count == 0 {
			a.Count, a.SHA256 = 1, archiveSum("", &a)
		}
		joined := Archive{First: a.First, Last: b.Last, Generation: b.Generation, Count: a.Count + 1, SHA256: archiveSum(a.SHA256, &b)}
		list = append([]Archive{joined}, list[2:]...)
	}
	return list
}

// archiveSum continues a chain of digests, so that a list told as one can be told as one with the next.
func archiveSum(before string, a *Archive) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s%d %d %s\n", before, a.First, a.Last, a.SHA256))
	return hex.EncodeToString(sum[:])
}

// ArchiveDetails is how an entry tells of archives.
func ArchiveDetails(list []Archive) []any {
	out := make([]any, len(list))
	for i, a := range list {
		m := map[string]any{"location": a.Location, "first": a.First, "last": a.Last, "generation": a.Generation, "sha256": a.SHA256}
		if a.Count > 0 {
			m["count"] = a.Count
		}
		out[i] = m
	}
	return out
}
