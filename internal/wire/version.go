package wire

import "strings"

// AckByID reports whether an agent of this version takes event_batch_ack frames, which name the acked frame by id.
// Older ones than 1.5.0 fail to verify them and reconnect for each; a version that says nothing counts as modern.
func AckByID(agentVersion string) bool {
	major, minor, ok := majorMinor(agentVersion)
	return !ok || major > 1 || major == 1 && minor >= 5
}

// Spins reports whether an agent of this version sends unacked batches again without a pause (1.5.0 to 1.6.x), so
// that each copy has to be acked before the next is read.
func Spins(agentVersion string) bool {
	major, minor, ok := majorMinor(agentVersion)
	return ok && major == 1 && (minor == 5 || minor == 6)
}

// majorMinor reads the first two numbers of a version; ok is false for one that says nothing ("", "0.0.0", other text).
func majorMinor(version string) (major, minor int, ok bool) {
	version = strings.TrimPrefix(strings.TrimSpace(version), "v")
	if version == "0.0.0" {
		return 0, 0, false
	}
	first, rest, found := strings.Cut(version, ".")
	if !found {
		return 0, 0, false
	}
	if end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		rest = rest[:end]
	}
	if len(first) > 4 || len(rest) > 4 { // no version, but a number of something else
		return 0, 0, false
	}
	major, ok1 := number([]byte(first))
	minor, ok2 := number([]byte(rest))
	return major, minor, ok1 && ok2
}
