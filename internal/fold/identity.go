package fold

import (
	"bytes"
	"cmp"
	"crypto/sha1" //nolint:gosec // UUIDv5 is defined over SHA-1 (RFC 9562 §5.5); nothing secret depends on it.
	"crypto/sha256"
	"encoding/binary"
	"strings"
)

// Key returns the name of the mark that m reports.
func (m *Mark) Key() MarkKey {
	if m.Event != [16]byte{} {
		return MarkKey{Kind: m.Kind, Worker: m.Worker, Event: m.Event}
	}
	return MarkKey{Kind: m.Kind, At: m.At, Worker: m.Worker}
}

// Compare orders keys by time, kind, worker and event.
func (k MarkKey) Compare(o MarkKey) int {
	return cmp.Or(cmp.Compare(k.At, o.At), cmp.Compare(k.Kind, o.Kind), strings.Compare(k.Worker, o.Worker), bytes.Compare(k.Event[:], o.Event[:]))
}

// Append appends the key's stored form, the column task_payloads.mark.
func (k MarkKey) Append(dst []byte) []byte {
	if k.Event != [16]byte{} {
		dst = append(dst, byte(k.Kind)|0x80)
		dst = append(dst, k.Event[:]...)
	} else {
		dst = append(dst, byte(k.Kind))
		dst = binary.BigEndian.AppendUint64(dst, uint64(k.At))
	}
	return append(dst, k.Worker...)
}

// TaskKey is the 16 bytes that stand for a task id: the UUID itself where the id is one in lower-case hyphenated form,
// else the first 16 of SHA-256 over engine, NUL and id.
func TaskKey(engine, taskID string) [16]byte {
	if u, ok := canonicalUUID(taskID); ok {
		return u
	}
	buf := make([]byte, 0, 128)
	buf = append(buf, engine...)
	buf = append(buf, 0)
	buf = append(buf, taskID...)
	sum := sha256.Sum256(buf)
	return [16]byte(sum[:16])
}

func canonicalUUID(s string) (u [16]byte, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return u, false
	}
	n := 0
	for i := range len(s) {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			continue
		}
		var digit byte
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			digit = c - '0'
		case c >= 'a' && c <= 'f':
			digit = c - 'a' + 10
		default:
			return u, false
		}
		u[n/2] = u[n/2]<<4 | digit
		n++
	}
	return u, true
}

// EventID is the identity of a mark's event row: a UUIDv5 over project, engine, task id, kind, time and worker; where the
// mark's time was missing, over project and the agent's event id.
func EventID(project [16]byte, engine, taskID string, k MarkKey) [16]byte {
	if k.Event != [16]byte{} {
		return AgentEventID(project, k.Event)
	}
	buf := make([]byte, 0, 192)
	buf = append(buf, 'm')
	for _, s := range [...]string{engine, taskID, k.Kind.String()} {
		// With its length before each text no two sets of texts are the same bytes.
		buf = binary.AppendUvarint(buf, uint64(len(s)))
		buf = append(buf, s...)
	}
	buf = binary.BigEndian.AppendUint64(buf, uint64(k.At))
	buf = append(buf, k.Worker...)
	return uuid5(project, buf)
}

// AgentEventID is the identity of an event without a task id or a time: a UUIDv5 over project and the agent's event id.
func AgentEventID(project, event [16]byte) [16]byte {
	return uuid5(project, append([]byte{'a'}, event[:]...))
}

// uuid5 is the UUIDv5 of data within space.
func uuid5(space [16]byte, data []byte) [16]byte {
	h := sha1.New() //nolint:gosec // as above.
	h.Write(space[:])
	h.Write(data)
	var sum [sha1.Size]byte
	h.Sum(sum[:0])
	u := [16]byte(sum[:16])
	u[6] = u[6]&0x0f | 0x50
	u[8] = u[8]&0x3f | 0x80
	return u
}
