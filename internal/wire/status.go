package wire

import "unicode/utf8"

// Status is what an agent_status tells, read like a Heartbeat: what can't be read is unknown.
type Status struct {
	AuthFailures       *int64 // in a row, likewise the next two
	ProtocolFailures   *int64
	ConnectionFailures *int64
	LastConnectAt      int64    // µs, 0 if unknown
	SessionAge         *float64 // seconds
	BufferDepth        *int64
	BufferOldestAge    *float64 // seconds
	AgentVersion       string
	ProtocolVersion    string
	Engines            []string
	Schedulers         []string
	TelemetryLoss      *TelemetryLoss
}

// maxStatusNames is the number of engines, and of schedulers, that an agent_status lists, as the schema has it.
const maxStatusNames = 32

// ParseStatus reads an agent_status's payload; nil is one without any field.
func ParseStatus(payload []byte) Status {
	f := fields(payload)
	s := Status{
		AuthFailures: counter(f["auth_failure_streak"]), ProtocolFailures: counter(f["protocol_failure_streak"]),
		ConnectionFailures: counter(f["connection_failure_streak"]),
		SessionAge:         seconds(f["current_session_age_seconds"]), BufferDepth: counter(f["buffer_depth"]),
		BufferOldestAge: seconds(f["buffer_oldest_age_seconds"]),
		AgentVersion:    shortText(f["agent_version"]), ProtocolVersion: shortText(f["protocol_version"]),
		Engines: shortTexts(f["engines"]), Schedulers: shortTexts(f["schedulers"]),
		TelemetryLoss: parseLoss(f["telemetry_loss"]),
	}
	s.LastConnectAt, _ = Time(f["last_successful_connect_at"])
	return s
}

func seconds(raw []byte) *float64 {
	f, ok := Float(raw)
	if !ok || f < 0 {
		return nil
	}
	return &f
}

// shortTexts reads a list of names and leaves out what is none.
func shortTexts(raw []byte) (list []string) {
	for element := range Elements(raw) {
		text, ok := String(element)
		if ok && utf8.RuneCountInString(text) <= maxAdapterName && len(list) < maxStatusNames {
			list = append(list, label(text))
		}
	}
	return list
}
