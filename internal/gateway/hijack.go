package gateway

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"sync"
)

// Buffers of a connection, bytes: frames of one event have about 1 KiB, acks 350 bytes.
const (
	readBuffer  = 4096
	writeBuffer = 512
)

// hijacker keeps the network connection that an upgrade takes over, and gives it buffers of our sizes.
type hijacker struct {
	http.ResponseWriter
	conn *corkable
}

// Hijack takes the connection over from the HTTP server.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.conn = &corkable{Conn: conn}
	early, err := rw.Reader.Peek(rw.Reader.Buffered()) // what the client sent right behind its request
	if err != nil {
		return nil, nil, err
	}
	r := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(early)), h.conn), max(readBuffer, len(early)))
	if _, err := r.Peek(len(early)); err != nil {
		return nil, nil, err
	}
	return h.conn, bufio.NewReadWriter(r, bufio.NewWriterSize(h.conn, writeBuffer)), nil
}

// shrink makes the kernel's receive buffer small, so that an agent that re-sends without reading feels it soon.
func (h *hijacker) shrink() {
	c := h.conn.Conn
	if t, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		c = t.NetConn()
	}
	if t, ok := c.(interface{ SetReadBuffer(bytes int) error }); ok {
		_ = t.SetReadBuffer(64 << 10) // a socket that refuses keeps its size: only slower to be felt
	}
}

// corkable is a connection whose writes can be held back for a moment, so that many small messages cost one system call.
// Who corks it holds the connection's sendMu; pings and close frames of others then leave with the rest.
type corkable struct {
	net.Conn

	mu     sync.Mutex
	corked bool
	held   *[]byte // nil while nothing is held back: an idle connection keeps no buffer
}

// corks holds the buffers of held messages.
var corks = sync.Pool{New: func() any { return new([]byte) }}

// Write keeps b while corked, else sends it.
func (c *corkable) Write(b []byte) (int, error) {
	c.mu.Lock()
	if c.corked {
		if c.held == nil {
			c.held = corks.Get().(*[]byte)
		}
		*c.held = append(*c.held, b...)
		c.mu.Unlock()
		return len(b), nil
	}
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *corkable) cork() {
	c.mu.Lock()
	c.corked = true
	c.mu.Unlock()
}

// uncork sends what was held back.
func (c *corkable) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	held := c.held
	if held == nil {
		return nil
	}
	c.held = nil
	_, err := c.Conn.Write(*held)
	*held = (*held)[:0]
	corks.Put(held)
	return err
}
