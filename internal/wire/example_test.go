package wire_test

import (
	"bytes"
	"fmt"
	"time"

	"github.com/z4j-go/z4j/internal/wire"
)

// A connection from hello to the first ack, both ends in one place.
func ExampleSession() {
	now := time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)
	project := [16]byte{0x3c, 0x9d}
	secret := wire.ProjectSecret("a master secret of at least 32 bytes", project)

	// The agent introduces itself; the brain says under which names both sign.
	first := wire.Hello{ID: "hello_1", ProtocolVersion: "2", AgentVersion: "1.13.0", Framework: "bare", Engines: []string{"celery"}}.Append(nil)
	h, err := wire.ParseHello(first)
	if err != nil {
		fmt.Println(err)
		return
	}
	keys := wire.Keys{Secret: secret, AgentID: "an-agent", ProjectID: "a-project", SessionID: "fresh-for-each-connection"}
	answer := wire.HelloAck{BrainVersion: "1.13.0", AgentID: keys.AgentID, ProjectID: keys.ProjectID, SessionID: keys.SessionID}.Append(nil, now)
	fmt.Println(h.Engines, wire.AckByID(h.AgentVersion), bytes.Contains(answer, []byte("max_frame_size_bytes")))

	// From here on all frames are signed, by either end with a session of its own.
	agent, _ := wire.NewSession(keys)
	brain, _ := wire.NewSession(keys)
	payload := []byte(`{"events":[{"kind":"task.succeeded","task_id":"t-1","data":{"queue":"default"}},{"task_id":7}]}`)
	sent, _ := agent.Sign(nil, wire.TypeEventBatch, "ev_1", payload, now)
	frame, err := brain.Verify(sent, now.Add(time.Second))
	if err != nil {
		fmt.Println(err)
		return
	}
	for event, err := range wire.Events(frame.Payload) {
		if err != nil {
			fmt.Println("dead letter:", err)
			continue
		}
		for key, value := range wire.Members(event.Data) {
			if string(key) == "queue" {
				queue, _ := wire.String(value)
				fmt.Println(event.Kind, event.TaskID, queue)
			}
		}
	}
	// After the commit:
	ack, _ := brain.SignAck(nil, wire.Ack{FrameID: frame.ID, Received: 2, Accepted: 1, Rejected: 1}, now)
	back, err := agent.Verify(ack, now)
	fmt.Println(back.Type, back.Seq, err)
	// Output:
	// [celery] true true
	// task.succeeded t-1 default
	// dead letter: unusable event: kind is missing
	// event_batch_ack 1 <nil>
}
