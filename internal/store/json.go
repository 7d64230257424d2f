package store

import (
	"encoding/json"
	"fmt"
)

// rawJSON scans a column of JSON text as it is: no number in it passes through a float. NULL is nil, which is null in
// an answer. Text that is no JSON, which nothing of ours writes, becomes a JSON string, so that one bad value never
// spoils a whole answer.
type rawJSON struct{ to *json.RawMessage }

// Scan implements sql.Scanner.
func (r rawJSON) Scan(src any) error {
	text, err := textOf(src)
	if err != nil || text == nil {
		*r.to = nil
		return err
	}
	if !json.Valid(text) {
		if text, err = json.Marshal(string(text)); err != nil {
			return err
		}
	}
	*r.to = text
	return nil
}

// parsedJSON scans a column of JSON text into what it points to; NULL and what does not fit leave that as it is.
type parsedJSON struct{ to any }

// Scan implements sql.Scanner.
func (p parsedJSON) Scan(src any) error {
	text, err := textOf(src)
	if err != nil || text == nil {
		return err
	}
	_ = json.Unmarshal(text, p.to) // what an agent wrote; unknown is all that can be said of it
	return nil
}

func textOf(src any) ([]byte, error) {
	switch v := src.(type) {
	case nil:
		return nil, nil
	case string:
		return []byte(v), nil
	case []byte:
		return append([]byte(nil), v...), nil
	}
	return nil, fmt.Errorf("store: cannot read JSON from %T", src)
}

// millis scans a column of µs as milliseconds with their fraction; NULL is nil.
type millis struct{ to **float64 }

// Scan implements sql.Scanner.
func (m millis) Scan(src any) error {
	switch v := src.(type) {
	case nil:
		*m.to = nil
	case int64:
		ms := float64(v) / 1000
		*m.to = &ms
	default:
		return fmt.Errorf("store: cannot read a duration from %T", src)
	}
	return nil
}
