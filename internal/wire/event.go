package wire

import (
	"errors"
	"fmt"
	"iter"
	"unicode/utf8"
)

// ErrEvent says why an element of an event_batch can't be taken; its neighbours can.
var ErrEvent = errors.New("unusable event")

// Event is one element of an event_batch.
type Event struct {
	Raw []byte // the element as it came, also if it can't be taken

	ID     string // the agent's own, "" if it gave none
	Kind   string // never ""; not necessarily a known one
	Engine string // "" if none is given
	TaskID string // "" for what is about no task

	// OccurredAt is the time at the source in µs, valid if HasTime. Missing, unreadable and naive times have none: the
	// time of receipt takes their place.
	OccurredAt int64
	HasTime    bool

	Data []byte // raw JSON of an object, nil for none
}

// Events walks the events of an event_batch's payload. An element that can't be taken comes with an ErrEvent that says
// why, and with Raw; if events itself is no array, it comes as one such element. No payload, or one without events,
// has none.
func Events(payload []byte) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		var events []byte
		for key, value := range Members(payload) {
			if string(key) == "events" {
				events = value
			}
		}
		if IsNull(events) {
			return
		}
		if events[0] != '[' {
			yield(Event{Raw: events}, fmt.Errorf("%w: events is not a list", ErrEvent))
			return
		}
		for raw := range Elements(events) {
			if !yield(parseEvent(raw)) {
				return
			}
		}
	}
}

// EventCount returns how many elements Events walks.
func EventCount(payload []byte) (n int) {
	for key, value := range Members(payload) {
		if string(key) != "events" {
			continue
		}
		n = 0
		if !IsNull(value) && value[0] != '[' {
			n = 1
		}
		for range Elements(value) {
			n++
		}
	}
	return n
}

func parseEvent(raw []byte) (Event, error) {
	e := Event{Raw: raw}
	if !IsObject(raw) {
		return e, fmt.Errorf("%w: not an object", ErrEvent)
	}
	var id, kind, engine, task, at, data []byte
	for key, value := range Members(raw) {
		switch string(key) {
		case "id":
			id = value
		case "kind":
			kind = value
		case "engine":
			engine = value
		case "task_id":
			task = value
		case "occurred_at":
			at = value
		case "data":
			data = value
		}
	}
	var err error
	if e.Kind, err = eventText("kind", kind, MaxKind); err != nil {
		return e, err
	}
	if e.Kind == "" {
		return e, fmt.Errorf("%w: kind is missing", ErrEvent)
	}
	if e.Engine, err = eventText("engine", engine, MaxEngine); err != nil {
		return e, err
	}
	if e.TaskID, err = eventText("task_id", task, MaxTaskID); err != nil {
		return e, err
	}
	// An id that is no text or too long is as good as none: it only matters to events without a task or a time.
	e.ID, _ = eventText("id", id, MaxTaskID)
	e.OccurredAt, e.HasTime = Time(at)
	switch {
	case IsNull(data):
	case IsObject(data):
		e.Data = data
	default:
		return e, fmt.Errorf("%w: data is not an object", ErrEvent)
	}
	return e, nil
}

// eventText reads a text field of an event; null and absence are "".
func eventText(name string, raw []byte, most int) (string, error) {
	if IsNull(raw) {
		return "", nil
	}
	if s := commonText(raw); s != "" {
		return s, nil
	}
	text, ok := String(raw)
	if !ok {
		return "", fmt.Errorf("%w: %s is not text", ErrEvent, name)
	}
	if len(text) > most && utf8.RuneCountInString(text) > most {
		return "", fmt.Errorf("%w: %s is longer than %d characters", ErrEvent, name, most)
	}
	return text, nil
}

// commonText returns the constant for a JSON string that nearly every event holds, or "".
func commonText(raw []byte) string {
	switch string(raw) {
	case `"task.received"`:
		return "task.received"
	case `"task.started"`:
		return "task.started"
	case `"task.succeeded"`:
		return "task.succeeded"
	case `"task.failed"`:
		return "task.failed"
	case `"task.retried"`:
		return "task.retried"
	case `"task.revoked"`:
		return "task.revoked"
	case `"task.sent"`:
		return "task.sent"
	case `"task.rejected"`:
		return "task.rejected"
	case `"celery"`:
		return "celery"
	case `"rq"`:
		return "rq"
	case `"dramatiq"`:
		return "dramatiq"
	case `"huey"`:
		return "huey"
	case `"arq"`:
		return "arq"
	case `"taskiq"`:
		return "taskiq"
	}
	return ""
}
