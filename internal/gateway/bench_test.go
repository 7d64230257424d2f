package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/z4j-go/z4j/internal/gateway"
	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/wire"
)

// mute is an ingest that commits without doing anything: what is left is the connection's own cost.
type mute struct{}

func (mute) Submit(_ context.Context, f *ingest.Frame) error {
	f.Done(ingest.Outcome{Received: 1, Accepted: 1})
	return nil
}
func (mute) Beat(ingest.Beat) {}

// BenchmarkFrames is one connection that sends batches of one event, as published agents do, and reads their acks.
func BenchmarkFrames(b *testing.B) {
	br := start(b, storetest.SQLite(b), gateway.Options{Ingest: mute{}})
	p := br.dial(b, newHello("a"))
	frames := make([][]byte, b.N)
	for i := range frames {
		frames[i] = p.sign(wire.TypeEventBatch, fmt.Sprintf("ev_%012d", i), event(i))
	}
	b.SetBytes(int64(len(frames[0])))
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for _, f := range frames {
			if p.ws.Write(context.Background(), websocket.MessageBinary, f) != nil {
				return
			}
		}
	}()
	for range b.N {
		if _, err := p.read(); err != nil {
			b.Fatal(err)
		}
	}
}

// bare is a connection of which this process has nothing but the socket: no buffers, no goroutine.
type bare struct{ net.Conn }

func (c bare) line(b *testing.B) string {
	var text []byte
	for one := make([]byte, 1); len(text) == 0 || text[len(text)-1] != '\n'; text = append(text, one[0]) {
		if _, err := c.Read(one); err != nil {
			b.Fatal(err)
		}
	}
	return string(text)
}

// write sends a binary message, masked with zeros.
func (c bare) write(b *testing.B, payload []byte) {
	head := []byte{0x82, 0x80 | 126, byte(len(payload) >> 8), byte(len(payload)), 0, 0, 0, 0}
	if _, err := c.Write(append(head, payload...)); err != nil {
		b.Fatal(err)
	}
}

// read returns a message of 126 to 65,535 bytes, which is what hello_ack and acks are.
func (c bare) read(b *testing.B) []byte {
	head := make([]byte, 4)
	if _, err := io.ReadFull(c, head); err != nil || head[0] != 0x82 || head[1] != 126 {
		b.Fatalf("head of a message: %x, %v", head, err)
	}
	payload := make([]byte, int(head[2])<<8|int(head[3]))
	if _, err := io.ReadFull(c, payload); err != nil {
		b.Fatal(err)
	}
	return payload
}

// BenchmarkIdleConnections reports the memory of a connection that has said a little and goes on beating.
func BenchmarkIdleConnections(b *testing.B) {
	br := start(b, storetest.SQLite(b), gateway.Options{Ingest: mute{}, Limits: gateway.Limits{SlotCap: -1}})
	const n = 500
	memory := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	for range b.N {
		before := memory()
		for i := range n {
			nc, err := net.Dial("tcp", strings.TrimPrefix(br.url, "http://"))
			if err != nil {
				b.Fatal(err)
			}
			defer nc.Close()
			c := bare{nc}
			fmt.Fprintf(c, "GET /ws/agent HTTP/1.1\r\nHost: brain\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer %s\r\n\r\n", br.token)
			for c.line(b) != "\r\n" {
			}
			c.write(b, newHello(fmt.Sprint("w", i)).frame(b))
			ack, err := wire.ParseHelloAck(c.read(b))
			if err != nil {
				b.Fatal(err)
			}
			s, err := wire.NewSession(wire.Keys{Secret: br.secret, AgentID: ack.AgentID, ProjectID: ack.ProjectID, SessionID: ack.SessionID})
			if err != nil {
				b.Fatal(err)
			}
			for _, f := range []struct{ typ, payload string }{{wire.TypeHeartbeat, `{"adapter_health":{}}`}, {wire.TypeEventBatch, event(1)}} {
				raw, err := s.Sign(nil, f.typ, "ev_1", []byte(f.payload), time.Now())
				if err != nil {
					b.Fatal(err)
				}
				c.write(b, raw)
			}
			c.read(b)
		}
		b.ReportMetric(float64(memory()-before)/n/1024, "KiB/conn")
	}
}

// BenchmarkHandshakes is how many agents can come back in a second.
func BenchmarkHandshakes(b *testing.B) {
	br := start(b, storetest.SQLite(b), gateway.Options{Ingest: mute{}, Limits: gateway.Limits{SlotCap: -1}})
	b.SetParallelism(32)
	began := time.Now()
	var n int
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			p := br.dial(b, newHello(fmt.Sprintf("%p-%d", pb, i)))
			if err := p.ws.CloseNow(); err != nil {
				b.Error(err)
			}
		}
	})
	n = b.N
	b.ReportMetric(float64(n)/time.Since(began).Seconds(), "agents/s")
}
