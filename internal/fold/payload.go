package fold

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// longestID is the number of characters above which a parent or root id is not taken; task ids end there too.
const longestID = 200

// IsZero reports whether the payload carries nothing.
func (p *Payload) IsZero() bool {
	return p == nil || p.Result == nil && p.Exception == "" && p.ExceptionMessage == "" && p.Traceback == "" && p.Reason == ""
}

// MergePayload joins two payloads of one mark: what one lacks is filled from the other, and of two different values the
// longer, then the greater text, is kept. Neither order nor repetition matters.
func MergePayload(a, b Payload) Payload {
	if a.Result == nil || b.Result != nil && greater(len(b.Result)-len(a.Result), bytes.Compare(b.Result, a.Result)) {
		a.Result = b.Result
	}
	a.Exception = longer(a.Exception, b.Exception)
	a.ExceptionMessage = longer(a.ExceptionMessage, b.ExceptionMessage)
	a.Traceback = longer(a.Traceback, b.Traceback)
	a.Reason = longer(a.Reason, b.Reason)
	return a
}

// FillPayload gives a what it lacks and b has: a failure reported by two ends keeps the first one's values.
func FillPayload(a, b Payload) Payload {
	if a.Result == nil {
		a.Result = b.Result
	}
	fill := func(have *string, other string) {
		if *have == "" {
			*have = other
		}
	}
	fill(&a.Exception, b.Exception)
	fill(&a.ExceptionMessage, b.ExceptionMessage)
	fill(&a.Traceback, b.Traceback)
	fill(&a.Reason, b.Reason)
	return a
}

func longer(a, b string) string {
	if greater(len(b)-len(a), strings.Compare(b, a)) {
		return b
	}
	return a
}

func greater(length, text int) bool { return length > 0 || length == 0 && text > 0 }

// Payload joins the payloads of the attempt's marks. get returns nil where a mark's payload is not stored.
func (a *Attempt) Payload(get func(MarkKey) *Payload) Payload {
	var whole, end Payload
	for _, ref := range a.Payloads {
		if ref.Fill {
			whole, end = FillPayload(whole, end), Payload{}
		}
		if p := get(ref.Mark); p != nil {
			end = MergePayload(end, *p)
		}
	}
	return FillPayload(whole, end)
}

// sum is a fingerprint of the payload, by which an exact repetition is known without reading what is stored.
func (p *Payload) sum() uint32 {
	h := hash(1, p.Result)
	if p.Result == nil {
		h = 2
	}
	h = hash(h, p.Exception)
	h = hash(h, p.ExceptionMessage)
	h = hash(h, p.Traceback)
	h = hash(h, p.Reason)
	return uint32(h >> 32)
}

// hash mixes a value into h. Its results are stored, so it never changes. It resists accidents, not intent: who forges a
// repetition of a mark of his own loses his own payload.
func hash[T string | []byte](h uint64, v T) uint64 {
	const odd = 0x9e3779b97f4a7c15 // 2^64 over the golden ratio
	h = (h ^ uint64(len(v))) * odd
	i := 0
	for ; i+8 <= len(v); i += 8 {
		w := uint64(v[i]) | uint64(v[i+1])<<8 | uint64(v[i+2])<<16 | uint64(v[i+3])<<24 |
			uint64(v[i+4])<<32 | uint64(v[i+5])<<40 | uint64(v[i+6])<<48 | uint64(v[i+7])<<56
		h = (h ^ w) * odd
		h ^= h >> 29
	}
	for ; i < len(v); i++ {
		h = (h ^ uint64(v[i])) * odd
	}
	h ^= h >> 32
	return h * odd
}

// fieldCount is the number of descriptive fields; field i is the FieldSet 1<<i.
const fieldCount = 8

// fieldKey is what is remembered of a descriptive field's value: the mark that gave it, and enough of the value to tell
// which of two from one mark is kept. The zero fieldKey is that of an unknown field.
type fieldKey struct {
	kind   Kind
	at     int64
	worker string
	event  [16]byte
	size   int    // bytes
	text   uint64 // see textRank
}

// compare orders field keys: of received and sent before others, then by time, kind, worker, event, length and text.
func (k *fieldKey) compare(o *fieldKey) int {
	if k.kind == o.kind && k.at == o.at && k.worker == o.worker && k.event == o.event {
		if k.size != o.size {
			return k.size - o.size
		}
		return compareUint(k.text, o.text)
	}
	if a, b := k.rank(), o.rank(); a != b {
		return a - b
	}
	if k.at != o.at {
		return compareInt(k.at, o.at)
	}
	if k.kind != o.kind {
		return int(k.kind) - int(o.kind)
	}
	if c := strings.Compare(k.worker, o.worker); c != 0 {
		return c
	}
	return bytes.Compare(k.event[:], o.event[:])
}

func (k *fieldKey) rank() int {
	switch k.kind {
	case 0:
		return 0
	case Sent, Received:
		return 2
	default:
		return 1
	}
}

func compareInt(a, b int64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

func compareUint(a, b uint64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// textRank orders values of one length: by their text up to eight bytes. Longer ones that agree in the first four bytes
// are ordered by a hash, which is as good a rule without an order of arrival and keeps the values out of the blob.
func textRank[T string | []byte](v T) uint64 {
	var head [8]byte
	copy(head[:], v)
	rank := binary.BigEndian.Uint64(head[:])
	if len(v) > len(head) {
		rank = rank&^0xffffffff | hash(0, v)>>32
	}
	return rank
}

// takenText returns the length and rank of a text that a field accepts, 0 for an unknown or refused one.
func takenText(f FieldSet, v, taskID string) (size int, rank uint64) {
	link := f == FieldParent || f == FieldRoot
	switch {
	case f == FieldName && strings.HasPrefix(v, "<unknown"):
		return 0, 0
	case f == FieldParent && v == taskID:
		return 0, 0
	case link && len(v) > longestID && utf8.RuneCountInString(v) > longestID:
		return 0, 0
	case link && strings.IndexByte(v, 0) >= 0:
		return 0, 0
	case v == "":
		return 0, 0
	}
	return len(v), textRank(v)
}

// takenJSON is takenText for raw JSON.
func takenJSON(v []byte) (size int, rank uint64) {
	if len(v) == 0 || string(v) == "null" {
		return 0, 0
	}
	return len(v), textRank(v)
}
