package wire_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/wire"
)

// beat is a heartbeat whose adapter_health has these values, documents within text.
func beat(t testing.TB, health map[string]string) wire.Heartbeat {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"buffer_size": 3, "adapter_health": health})
	if err != nil {
		t.Fatal(err)
	}
	return wire.ParseHeartbeat(raw)
}

func TestParseHeartbeat(t *testing.T) {
	h := wire.ParseHeartbeat([]byte(`{"buffer_size":3,"last_flush_at":"2026-03-14T09:26:53.589793Z","dropped_events":0,"adapter_health":{
		"celery.broker_type":"redis","celery.broker_connected":"True","error":"provider timed out",
		"rq.queue_depths":"{\"mails\": 0, \"default\": 12}","celery.queue_depths":"{}"},
		"telemetry_loss":{"buffer_id":"b","runtime_id":"f:1","capacity_evicted_frames":1,"content_rejected_frames":2,"event_records":3,"command_results":4,
		"other_frames":5,"unclassified_frames":9007199254740991,"adapter_events":{"celery":6,"x":-1,"y":"n"}}}`))
	want := wire.Heartbeat{
		BufferSize: ptr(int64(3)), DroppedEvents: ptr(int64(0)), LastFlushAt: testNow.UnixMicro(),
		Health: []wire.Health{{"", "error", "provider timed out"}, {"celery", "broker_connected", "True"}, {"celery", "broker_type", "redis"}},
		Queues: []wire.QueueDepth{{"rq", "default", ptr(int64(12))}, {"rq", "mails", ptr(int64(0))}},
		TelemetryLoss: &wire.TelemetryLoss{
			BufferID: "b", RuntimeID: "f:1", CapacityEvicted: ptr(int64(1)), ContentRejected: ptr(int64(2)), EventRecords: ptr(int64(3)),
			CommandResults: ptr(int64(4)), OtherFrames: ptr(int64(5)), Unclassified: ptr(int64(9007199254740991)), AdapterEvents: map[string]int64{"celery": 6},
		},
	}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Errorf("heartbeat (-want +got):\n%s", diff)
	}
	for _, empty := range []string{``, `{}`, `{"adapter_health":null,"telemetry_loss":null,"buffer_size":null}`} {
		if diff := cmp.Diff(wire.Heartbeat{}, wire.ParseHeartbeat([]byte(empty))); diff != "" {
			t.Errorf("payload %q (-want +got):\n%s", empty, diff)
		}
	}
}

func TestFieldCaseF43WhatCannotBeReadIsUnknown(t *testing.T) {
	h := beat(t, map[string]string{
		"rq.queue_depths":       `{"default":null,"low":"n/a","high":-1,"mid":3.7,"big":9223372036854775808,"ok":7,"whole":3.0}`,
		"celery.worker_details": `{"celery@n1":{"pool":{"max-concurrency":"N/A"},"loadavg":null,"total":"many"},"celery@n2":"gone"}`,
	})
	want := []wire.QueueDepth{
		{"rq", "big", nil},
		{"rq", "default", nil},
		{"rq", "high", nil},
		{"rq", "low", nil},
		{"rq", "mid", nil},
		{"rq", "ok", ptr(int64(7))},
		{"rq", "whole", ptr(int64(3))},
	}
	if diff := cmp.Diff(want, h.Queues); diff != "" {
		t.Errorf("queues (-want +got):\n%s", diff)
	}
	workers := []wire.WorkerDetail{{Engine: "celery", Name: "celery@n1", Metadata: []byte(`{}`)}, {Engine: "celery", Name: "celery@n2"}}
	if diff := cmp.Diff(workers, h.Workers); diff != "" {
		t.Errorf("workers (-want +got):\n%s", diff)
	}
	if h.Unreadable != 7 || h.Dropped != 0 || *h.BufferSize != 3 {
		t.Errorf("got %d unreadable, %d dropped, buffer %d, want 5 queues and 2 of the workers, 0, and the rest taken", h.Unreadable, h.Dropped, *h.BufferSize)
	}
	odd := wire.ParseHeartbeat([]byte(`{"buffer_size":"3","dropped_events":-1,"last_flush_at":7,"telemetry_loss":[],"adapter_health":{"a.b":true,"a.queue_depths":"nope","a.worker_details":"[]"}}`))
	if odd.Unreadable != 7 || odd.BufferSize != nil || odd.DroppedEvents != nil || odd.LastFlushAt != 0 || odd.TelemetryLoss != nil || len(odd.Health) != 0 {
		t.Errorf("wrong types: got %+v, want 7 unreadable fields", odd)
	}
	if all := wire.ParseHeartbeat([]byte(`{"adapter_health":"x"}`)); all.Unreadable != 1 {
		t.Errorf("health that is text: got %d unreadable, want 1", all.Unreadable)
	}
}

func TestWorkerDetailsKeepNoCredentials(t *testing.T) {
	h := beat(t, map[string]string{"celery.worker_details": `{"w1@lab":{"stats":{"pid":8190,"pool":{"max-concurrency":2,"processes":[1,2,3]},"loadavg":[0.5,1,2]},
		"active":[{"id":"t","args":[]}],"active_queues":[{"name":"default"},{"name":""},"plain",{"x":1}],"registered":["lab.add"],"other":1,
		"conf":{"broker_url":"redis://:hunter2@h/0","result_backend":"db://hunter2","timezone":"UTC","accept_content":["json"],"worker_concurrency":null,"broker_heartbeat":{"p":"hunter2"}}},
		"w2":{"stats":{"pool":{"processes":[1,2,3]}},"active":null}}`})
	want := []wire.WorkerDetail{
		{
			Engine: "celery", Name: "w1@lab", Concurrency: ptr(int64(2)), PID: ptr(int64(8190)), Active: ptr(int64(1)), Queues: []string{"default", "plain"},
			Registered: []string{"lab.add"}, LoadAverage: []float64{0.5, 1, 2},
			Metadata: []byte(`{"active":[{"id":"t","args":[]}],"active_queues":[{"name":"default"},{"name":""},"plain",{"x":1}],` +
				`"conf":{"timezone":"UTC","accept_content":["json"],"worker_concurrency":null},"registered":["lab.add"],` +
				`"stats":{"pid":8190,"pool":{"max-concurrency":2,"processes":[1,2,3]},"loadavg":[0.5,1,2]}}`),
		},
		{Engine: "celery", Name: "w2", Concurrency: ptr(int64(3)), Metadata: []byte(`{"stats":{"pool":{"processes":[1,2,3]}}}`)},
	}
	if diff := cmp.Diff(want, h.Workers); diff != "" {
		t.Errorf("workers (-want +got):\n%s", diff)
	}
	if h.Unreadable != 2 {
		t.Errorf("got %d unreadable, want 2 queues without a name", h.Unreadable)
	}
}

// Lists and texts within a heartbeat have caps, and what is beyond them is counted.
func TestLessonE17HeartbeatsAreCapped(t *testing.T) {
	depths := make(map[string]int)
	for i := range 1030 {
		depths[fmt.Sprintf("q%04d", i)] = i
	}
	depths[strings.Repeat("q", 201)] = 1
	doc, err := json.Marshal(depths)
	if err != nil {
		t.Fatal(err)
	}
	h := beat(t, map[string]string{"rq.queue_depths": string(doc), "celery.queue_depths": `{"one":1}`, "rq.note": strings.Repeat("x", 9000), strings.Repeat("e", 41) + ".x": ""})
	if len(h.Queues) != wire.MaxQueues || h.Queues[0].Engine != "celery" || h.Queues[1].Name != "q0000" || h.Dropped != 1030+1-1023+2 {
		t.Errorf("got %d queues from %+v on, %d dropped, want 1024 and 10", len(h.Queues), h.Queues[0], h.Dropped)
	}
	health := make(map[string]string)
	for i := range 300 {
		health[fmt.Sprintf("rq.%d", i)] = "x"
	}
	if h := beat(t, health); len(h.Health) != wire.MaxHealth || h.Dropped != 300-wire.MaxHealth {
		t.Errorf("got %d entries, %d dropped, want %d and the rest", len(h.Health), h.Dropped, wire.MaxHealth)
	}
	names := `["` + strings.TrimSuffix(strings.Repeat(`n","`, 1100), `","`) + `"]`
	if h := beat(t, map[string]string{"celery.worker_details": `{"w":{"registered":` + names + `}}`}); len(h.Workers[0].Registered) != wire.MaxNames || h.Dropped != 1100-wire.MaxNames {
		t.Errorf("got %d names, %d dropped, want %d and the rest", len(h.Workers[0].Registered), h.Dropped, wire.MaxNames)
	}
}

func TestParseStatus(t *testing.T) {
	s := wire.ParseStatus([]byte(`{"auth_failure_streak":1,"protocol_failure_streak":2,"connection_failure_streak":3,"last_successful_connect_at":"2026-03-14T09:26:53.589793Z",
		"current_session_age_seconds":1613.5,"buffer_depth":4,"buffer_oldest_age_seconds":null,"agent_version":"1.6.7","protocol_version":"2",
		"engines":["celery",7],"schedulers":[],"telemetry_loss":{"event_records":1},"later":1}`))
	want := wire.Status{
		AuthFailures: ptr(int64(1)), ProtocolFailures: ptr(int64(2)), ConnectionFailures: ptr(int64(3)), LastConnectAt: testNow.UnixMicro(), SessionAge: ptr(1613.5),
		BufferDepth: ptr(int64(4)), AgentVersion: "1.6.7", ProtocolVersion: "2", Engines: []string{"celery"}, TelemetryLoss: &wire.TelemetryLoss{EventRecords: ptr(int64(1))},
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	for _, odd := range []string{
		``, `{}`, `{"auth_failure_streak":-1,"current_session_age_seconds":"1","buffer_depth":null,"agent_version":7,"engines":"celery","telemetry_loss":"x","last_successful_connect_at":"never"}`,
	} {
		if diff := cmp.Diff(wire.Status{}, wire.ParseStatus([]byte(odd))); diff != "" {
			t.Errorf("payload %q (-want +got):\n%s", odd, diff)
		}
	}
}

func FuzzHeartbeat(f *testing.F) {
	for _, p := range loadVectors(f).Positive {
		if strings.Contains(p.Name, "heartbeat") || strings.Contains(p.Name, "status") {
			f.Add([]byte(p.Inputs.Payload))
		}
	}
	for _, file := range recordings(f) {
		for _, r := range readRecording(f, file) {
			if strings.Contains(r.Raw, "worker_details") {
				var frame envelope
				if err := json.Unmarshal([]byte(r.Raw), &frame); err == nil {
					f.Add([]byte(frame.Payload))
					break
				}
			}
		}
	}
	f.Add([]byte(`{"adapter_health":{"rq.queue_depths":"{\"a\":null,\"b\":-1,\"\\ud83d\":3.7}","x.worker_details":"{\"w\":{\"pool\":{\"processes\":{}},\"conf\":[],\"active\":7}}"}}`))
	f.Add([]byte(`{"adapter_health":{"a.worker_details":"{\"w\":{\"stats\":","b.queue_depths":"{\"\\u0000\":1}"}}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		h := wire.ParseHeartbeat(payload)
		wire.ParseStatus(payload)
		if len(h.Health) > wire.MaxHealth || len(h.Queues) > wire.MaxQueues || len(h.Workers) > wire.MaxWorkers {
			t.Fatalf("%q: got %d, %d, %d entries, want no more than the caps", payload, len(h.Health), len(h.Queues), len(h.Workers))
		}
		if !slices.IsSortedFunc(h.Queues, func(a, b wire.QueueDepth) int { return strings.Compare(a.Engine+"\x00"+a.Name, b.Engine+"\x00"+b.Name) }) {
			t.Fatalf("%q: got %+v, want the queues in order", payload, h.Queues)
		}
		for _, q := range h.Queues {
			if q.Name == "" || !utf8.ValidString(q.Name) || strings.Contains(q.Name, "\x00") || q.Pending != nil && *q.Pending < 0 {
				t.Fatalf("%q: got queue %+v, want a valid name and no negative number", payload, q)
			}
		}
		for _, w := range h.Workers {
			if w.Metadata != nil && (!json.Valid(w.Metadata) || !utf8.Valid(w.Metadata) || bytes.ContainsRune(w.Metadata, 0)) {
				t.Fatalf("%q: got metadata %q, want valid JSON", payload, w.Metadata)
			}
		}
	})
}
