package gateway

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
)

// Buffers of a connection, bytes: frames of one event have about 1 KiB, acks 350 bytes.
const (
	readBuffer  = 4096
	writeBuffer = 512
)

// hijacker keeps the network connection that an upgrade takes over, and gives it buffers of our sizes.
type hijacker struct {
	http.ResponseWriter
	conn net.Conn
}

// Hijack takes the connection over from the HTTP server.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.conn = conn
	early, err := rw.Reader.Peek(rw.Reader.Buffered()) // what the client sent right behind its request
	if err != nil {
		return nil, nil, err
	}
	r := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(early)), conn), max(readBuffer, len(early)))
	if _, err := r.Peek(len(early)); err != nil {
		return nil, nil, err
	}
	return conn, bufio.NewReadWriter(r, bufio.NewWriterSize(conn, writeBuffer)), nil
}

// shrink makes the kernel's receive buffer small, so that an agent that re-sends without reading feels it soon.
func (h *hijacker) shrink() {
	c := h.conn
	if t, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		c = t.NetConn()
	}
	if t, ok := c.(interface{ SetReadBuffer(bytes int) error }); ok {
		_ = t.SetReadBuffer(64 << 10) // a socket that refuses keeps its size: only slower to be felt
	}
}
