package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/wire"
)

func TestEvents(t *testing.T) {
	const good = `{"kind":"task.started","task_id":"t"}`
	tests := []struct {
		name, event string
		want        wire.Event
		reason      string // "": the event is taken
	}{
		{
			"all fields",
			` {"id":"e","kind":"task.sent","engine":"rq","task_id":"t","occurred_at":"1970-01-01T01:00:01.5+01:00","data":{"a": 1},"x":[]} `,
			wire.Event{ID: "e", Kind: "task.sent", Engine: "rq", TaskID: "t", OccurredAt: 1500000, HasTime: true, Data: []byte(`{"a": 1}`)},
			"",
		},
		{"only a kind, an unknown one", `{"kind":"task.dreamt"}`, wire.Event{Kind: "task.dreamt"}, ""},
		{"nulls", `{"kind":"worker.online","id":null,"engine":null,"task_id":null,"occurred_at":null,"data":null}`, wire.Event{Kind: "worker.online"}, ""},
		{
			"keys and values with escapes", `{"k\u0069nd":"t\u0061sk.sent","task_id":"\u00fc\n","occurred_at":"1970-01-01T00:00:01\u005a"}`,
			wire.Event{Kind: "task.sent", TaskID: "ü\n", OccurredAt: 1000000, HasTime: true},
			"",
		},
		{"the last of equal keys", `{"kind":7,"kind":"task.sent","data":[],"data":{}}`, wire.Event{Kind: "task.sent", Data: []byte(`{}`)}, ""},
		{"a naive time", `{"kind":"task.sent","occurred_at":"2026-03-14T09:26:53"}`, wire.Event{Kind: "task.sent"}, ""},
		{"a time that is a number", `{"kind":"task.sent","occurred_at":1773480413}`, wire.Event{Kind: "task.sent"}, ""},
		{"an id that is a number", `{"kind":"task.sent","id":7}`, wire.Event{Kind: "task.sent"}, ""},
		{"200 characters of task id", `{"kind":"task.sent","task_id":"` + strings.Repeat("ü", 200) + `"}`, wire.Event{Kind: "task.sent", TaskID: strings.Repeat("ü", 200)}, ""},
		{"201 characters of task id", `{"kind":"task.sent","task_id":"` + strings.Repeat("ü", 201) + `"}`, wire.Event{}, "task_id is longer than 200 characters"},
		{"a long engine", `{"kind":"task.sent","engine":"` + strings.Repeat("e", 41) + `"}`, wire.Event{}, "engine is longer than 40 characters"},
		{"a task id that is a number", `{"kind":"task.sent","task_id":7}`, wire.Event{}, "task_id is not text"},
		{"an engine that is an object", `{"kind":"task.sent","engine":{}}`, wire.Event{}, "engine is not text"},
		{"no kind", `{"task_id":"t"}`, wire.Event{}, "kind is missing"},
		{"an empty kind", `{"kind":""}`, wire.Event{}, "kind is missing"},
		{"a kind that is a list", `{"kind":["task.sent"]}`, wire.Event{}, "kind is not text"},
		{"data that is a list", `{"kind":"task.sent","data":[1]}`, wire.Event{}, "data is not an object"},
		{"a number", `7`, wire.Event{}, "not an object"},
		{"null", `null`, wire.Event{}, "not an object"},
		{"text", `"task.sent"`, wire.Event{}, "not an object"},
		{"a list", `[{"kind":"task.sent"}]`, wire.Event{}, "not an object"},
	}
	for _, tt := range tests {
		payload := `{"events":[` + good + `,` + tt.event + `,` + good + `]}`
		var neighbours int
		i := 0
		for e, err := range wire.Events([]byte(payload)) {
			if i++; i != 2 {
				if err != nil || e.TaskID != "t" {
					t.Errorf("%s: neighbour got %+v, %v, want it unharmed", tt.name, e, err)
				}
				neighbours++
				continue
			}
			if string(e.Raw) != strings.TrimSpace(tt.event) {
				t.Errorf("%s: raw got %s, want %s", tt.name, e.Raw, tt.event)
			}
			if tt.reason != "" {
				if !errors.Is(err, wire.ErrEvent) || !strings.HasSuffix(err.Error(), ": "+tt.reason) {
					t.Errorf("%s: got %v, want %s", tt.name, err, tt.reason)
				}
				continue
			}
			if err != nil || e.ID != tt.want.ID || e.Kind != tt.want.Kind || e.Engine != tt.want.Engine || e.TaskID != tt.want.TaskID ||
				e.OccurredAt != tt.want.OccurredAt || e.HasTime != tt.want.HasTime || !bytes.Equal(e.Data, tt.want.Data) {
				t.Errorf("%s: got %+v, %v, want %+v", tt.name, e, err, tt.want)
			}
		}
		if neighbours != 2 || wire.EventCount([]byte(payload)) != 3 {
			t.Errorf("%s: got %d neighbours, counted %d, want 2 of 3", tt.name, neighbours, wire.EventCount([]byte(payload)))
		}
	}
}

func TestEventsOfOddPayloads(t *testing.T) {
	tests := []struct {
		name, payload string
		good, bad     int
	}{
		{"none", ``, 0, 0},
		{"empty", `{}`, 0, 0},
		{"no events in it", `{"events":[]}`, 0, 0},
		{"null", `{"events":null}`, 0, 0},
		{"an object instead of a list", `{"events":{"kind":"task.sent"}}`, 0, 1},
		{"text instead of a list", `{"events":"x"}`, 0, 1},
		{"the last of equal keys", `{"events":[{"kind":"a"}],"events":[{"kind":"b"},7]}`, 1, 1},
	}
	for _, tt := range tests {
		good, bad := 0, 0
		for _, err := range wire.Events([]byte(tt.payload)) {
			if err != nil {
				bad++
				continue
			}
			good++
		}
		if good != tt.good || bad != tt.bad || wire.EventCount([]byte(tt.payload)) != good+bad {
			t.Errorf("%s: got %d good, %d bad, counted %d, want %d and %d", tt.name, good, bad, wire.EventCount([]byte(tt.payload)), tt.good, tt.bad)
		}
	}
	for range wire.Events([]byte(`{"events":[{"kind":"a"},{"kind":"b"}]}`)) {
		break // must end the walk
	}
}

func FuzzEvents(f *testing.F) {
	for _, p := range loadVectors(f).Positive {
		f.Add([]byte(p.Inputs.Payload))
	}
	for _, seed := range []string{
		`{"events":[1,null,{"kind":7},{"kind":"k","data":[]},{"kind":"k"}]}`, `{"events":{}}`, `{"events":[{"kind":"\ud83d","task_id":"\u0000"}]}`,
		`{"events":[`, `{"events":[{"kind":"a}`, `{"events":[[[[`, `{"a`, "{\"events\":[{\"kind\":\"\xff\",\"occurred_at\":\"2026-03-14T09:26:53Z\"}]}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		n := 0
		for e, err := range wire.Events(payload) {
			n++
			if err != nil && (!errors.Is(err, wire.ErrEvent) || e.Raw == nil) {
				t.Fatalf("%q: got %+v, %v, want an ErrEvent with its text", payload, e, err)
			}
			if err == nil && (e.Kind == "" || !json.Valid(quoteAny(e.TaskID))) {
				t.Fatalf("%q: got %+v, want a kind and valid text", payload, e)
			}
		}
		if !wire.Valid(payload) {
			return
		}
		if n != wire.EventCount(payload) {
			t.Fatalf("%q: got %d events, counted %d", payload, n, wire.EventCount(payload))
		}
		var want struct{ Events []json.RawMessage }
		dec := json.NewDecoder(bytes.NewReader(payload))
		if dec.Decode(&want) == nil && exactKey(payload) && want.Events != nil && n != len(want.Events) {
			t.Fatalf("%q: got %d events, want %d", payload, n, len(want.Events))
		}
	})
}

// exactKey reports whether no key but "events" could be taken for it by encoding/json, which ignores case.
func exactKey(payload []byte) bool {
	n := 0
	for key := range wire.Members(payload) {
		if strings.EqualFold(string(key), "events") {
			n++
			if string(key) != "events" {
				return false
			}
		}
	}
	return n == 1
}

func quoteAny(text string) []byte {
	b, err := json.Marshal(text)
	if err != nil {
		return nil
	}
	return b
}
