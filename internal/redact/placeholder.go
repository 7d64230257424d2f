// Package redact is being written; its author deletes this file. Ingest calls Event.
package redact

// Event stands in for the real one: it redacts an event's data, raw JSON to raw JSON, and returns nil for nil.
func Event(data []byte) []byte { return data }
