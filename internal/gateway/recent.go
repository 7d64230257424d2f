package gateway

import "crypto/sha256"

// Frames whose commit a connection remembers. Agents from 1.7 have at most 256 batches under way; those of 1.5 and 1.6
// read up to 500 rows of their buffer at once, again and again.
const (
	recentFrames     = 256
	recentSpinFrames = 1024
)

// frameKey stands for a frame's id: 16 bytes of its hash, which nobody can make collide, in a third of the memory.
type frameKey [16]byte

func keyOf(id string) frameKey {
	sum := sha256.Sum256([]byte(id))
	return frameKey(sum[:16])
}

// committed is what is remembered of a frame that is in the database.
type committed struct {
	received int32 // events in it
	late     int64 // µs on the agent's clock: a copy signed after that shows that the ack was not processed
}

// recent remembers the newest committed frames. The zero value remembers none.
type recent struct {
	ring  []frameKey
	next  int
	known map[frameKey]committed
}

// add remembers a frame, forgetting the oldest beyond most.
func (r *recent) add(key frameKey, c committed, most int) {
	if r.known == nil {
		r.known = map[frameKey]committed{}
	}
	if _, known := r.known[key]; known {
		r.known[key] = c
		return
	}
	if len(r.ring) < most {
		r.ring = append(r.ring, key)
	} else {
		delete(r.known, r.ring[r.next])
		r.ring[r.next] = key
		r.next = (r.next + 1) % most
	}
	r.known[key] = c
}

func (r *recent) get(key frameKey) (committed, bool) {
	c, ok := r.known[key]
	return c, ok
}
