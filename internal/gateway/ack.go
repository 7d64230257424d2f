package gateway

import (
	"slices"
	"sync"

	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/wire"
)

// inflight is a frame that waits for its commit.
type inflight struct {
	copies int // received, each of which is acked
	size   int // bytes
}

// dueAck is a frame's answer that waits to be written.
type dueAck struct {
	id     string
	copies int
	size   int
	out    ingest.Outcome
}

// late is how long after an ack a copy must have been signed to prove that the agent did not process the ack, µs.
const late = 250_000

// settled is a frame's Done: it remembers the commit and lets the answer be written.
func (c *conn) settled(frame string, key frameKey, out ingest.Outcome) {
	now := c.server.Now().UnixMicro()
	c.mu.Lock()
	f := c.inflight[key]
	delete(c.inflight, key)
	if out.Err != nil {
		c.refused = true
		c.shrink(f.copies, f.size)
		c.mu.Unlock()
		return
	}
	most := recentFrames
	if c.spins {
		most = recentSpinFrames
	}
	c.recent.add(key, committed{received: int32(out.Received), late: now - c.lag.Load() + late}, most)
	if c.closed || !c.acks {
		c.shrink(f.copies, f.size)
		c.mu.Unlock()
		return
	}
	c.due = append(c.due, dueAck{id: frame, copies: f.copies, size: f.size, out: out})
	start := !c.writing
	c.writing = true
	c.mu.Unlock()
	if start {
		c.beside(c.writeAcks)
	}
}

// shrink counts answered frames out; c.mu is held.
func (c *conn) shrink(frames, size int) {
	c.waiting -= frames
	c.bytes -= size
	if c.waiting == 0 && c.quiet != nil {
		close(c.quiet)
		c.quiet = nil
	}
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// ackGroup is how many acks leave with one system call: about 20 KiB.
const ackGroup = 64

// writeAcks writes what is due until nothing is. What waits is bounded: frames count against the window until then.
func (c *conn) writeAcks() {
	for {
		c.mu.Lock()
		list := c.due
		c.due = nil
		if len(list) == 0 {
			c.writing = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		for group := range slices.Chunk(list, ackGroup) {
			c.writeGroup(group)
			c.mu.Lock()
			for _, a := range group {
				c.shrink(a.copies, a.size)
			}
			c.mu.Unlock()
		}
	}
}

func (c *conn) writeGroup(group []dueAck) {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	c.net.cork()
	for _, a := range group {
		for range a.copies {
			c.sendLocked(c.signAck(a.id, a.out))
			a.out.Accepted, a.out.Rejected = 0, a.out.Received // of a copy nothing is new
		}
	}
	c.watchdog.Reset(c.server.WriteTimeout)
	defer c.watchdog.Stop()
	if err := c.net.uncork(); err != nil && !c.ending.Load() {
		c.cut()
	}
}

// ack answers one copy of a frame that is committed.
func (c *conn) ack(frame string, out ingest.Outcome) { c.send(c.signAck(frame, out)) }

func (c *conn) signAck(frame string, out ingest.Outcome) func([]byte) ([]byte, error) {
	a := wire.Ack{FrameID: frame, Received: out.Received, Accepted: out.Accepted, Rejected: out.Rejected}
	return func(dst []byte) ([]byte, error) { return c.wire.SignAck(dst, a, c.server.Now()) }
}

// outgoing holds the buffers that messages are signed into.
var outgoing = sync.Pool{New: func() any { return new([]byte) }}

// send signs and writes a message under one lock, so that numbers rise on the wire.
func (c *conn) send(sign func(dst []byte) ([]byte, error)) {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	c.sendLocked(sign)
}

// sendLocked is send for whoever holds sendMu.
func (c *conn) sendLocked(sign func(dst []byte) ([]byte, error)) {
	if c.ending.Load() {
		return
	}
	buf := outgoing.Get().(*[]byte)
	defer outgoing.Put(buf)
	raw, err := sign((*buf)[:0])
	if err != nil {
		c.server.Log.Error("frame not signed", "agent", c.agent, "err", err)
		c.end(wire.CloseInternal, "internal error")
		return
	}
	*buf = raw
	if err := c.write(raw); err != nil && !c.ending.Load() {
		c.cut()
	}
}
