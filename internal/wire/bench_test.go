package wire_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/wire"
)

var benchKeys = wire.Keys{
	Secret: bytes.Repeat([]byte("k"), 32), AgentID: "8f6b1c1e-3a0f-4c55-9a57-0d6b5f3c2a11",
	ProjectID: "3c9d7e52-7b1a-4f0e-8f4d-6a2b91c0de77", SessionID: "b7a4a2d0-5a2e-4e0b-9c1d-2f3e4d5c6b7a",
}

func benchEvent(i int) string {
	return fmt.Sprintf(`{"id":"0b8f7a52-51f0-4d5e-9d0c-%012d","kind":"task.received","engine":"celery","task_id":"6f1c0f1e-aaaa-4bbb-8ccc-%012d",`+
		`"occurred_at":"2026-03-14T09:26:53.100000+00:00","data":{"task_name":"shop.tasks.charge","queue":"default","worker":"celery@web-1",`+
		`"args":[%d,"order"],"kwargs":{"retry":true,"amount":19.99},"eta":null,"parent_task_id":null,"root_task_id":"6f1c0f1e-aaaa-4bbb-8ccc-%012d"}}`, i, i, i, i)
}

// asAgent gives a frame the order of keys that agents send, which is not the canonical one.
func asAgent(b testing.TB, s *wire.Session, events int, now time.Time) []byte {
	b.Helper()
	var list []string
	for i := range events {
		list = append(list, benchEvent(i))
	}
	payload := `{"events":[` + strings.Join(list, ",") + `]}`
	signed, err := s.Sign(nil, wire.TypeEventBatch, "ev_5b1f0c9d2e3a4b5c6d7e8f9011223344", []byte(payload), now)
	if err != nil {
		b.Fatal(err)
	}
	head, _, _ := bytes.Cut(signed, []byte(`"payload":`))
	return append(append(bytes.Clone(head), `"payload":`...), payload+"}"...)
}

func benchVerify(b *testing.B, events int) {
	now := time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)
	frame := asAgent(b, session(b, benchKeys), events, now)
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	s := session(b, benchKeys)
	for b.Loop() {
		wire.ResetReplay(s)
		if _, err := s.Verify(frame, now); err != nil {
			b.Fatal(err)
		}
	}
}

// One event a frame is what published agents send.
func BenchmarkVerify600B(b *testing.B)  { benchVerify(b, 1) }
func BenchmarkVerify115KB(b *testing.B) { benchVerify(b, 200) }

func BenchmarkSignAck(b *testing.B) {
	s := session(b, benchKeys)
	now := time.Date(2026, 3, 14, 9, 26, 53, 1000, time.UTC)
	ack := wire.Ack{FrameID: "ev_5b1f0c9d2e3a4b5c6d7e8f9011223344", Received: 1, Accepted: 1}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = s.SignAck(dst[:0], ack, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEvents(b *testing.B) {
	payload := []byte(`{"events":[` + benchEvent(1) + `]}`)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for e, err := range wire.Events(payload) {
			if err != nil {
				b.Fatal(err)
			}
			for key, value := range wire.Members(e.Data) {
				if string(key) == "queue" {
					n += len(value)
				}
			}
		}
		if n == 0 {
			b.Fatal("no queue")
		}
	}
}
