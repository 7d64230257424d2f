package wire_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/wire"
)

// TestLessonD9WorkerConfIsAnAllowList: of a worker's settings only the harmless ones are kept, whatever else it sends.
func TestLessonD9WorkerConfIsAnAllowList(t *testing.T) {
	for _, tt := range []struct{ conf, want string }{
		{`{"timezone":"UTC","worker_concurrency":4}`, `{"conf":{"timezone":"UTC","worker_concurrency":4}}`},
		{`{"broker_url":"redis://:geheim@h/0","timezone":"UTC"}`, `{"conf":{"timezone":"UTC"}}`},
		{`{"BROKER_URL":"geheim","Timezone":"geheim","time_zone":"geheim"}`, `{"conf":{}}`},
		{`{"broker_read_url":"geheim","broker_write_url":"geheim","result_backend":"geheim","result_backend_transport_options":{"password":"geheim"}}`, `{"conf":{}}`},
		{`{"a_setting_of_tomorrow":"geheim","security_key_password":"geheim"}`, `{"conf":{}}`},
		{`{"broker_heartbeat":{"url":"geheim"},"task_time_limit":[1,2]}`, `{"conf":{"task_time_limit":[1,2]}}`},
		{`{"brok\u0065r_url":"geheim"}`, `{"conf":{}}`},
		{`"redis://:geheim@h/0"`, `{}`},
		{`["geheim"]`, `{}`},
	} {
		h := beat(t, map[string]string{"celery.worker_details": `{"celery@n1":{"conf":` + tt.conf + `}}`})
		if len(h.Workers) != 1 || string(h.Workers[0].Metadata) != tt.want {
			t.Errorf("conf %s: got %+v, want one worker with %s", tt.conf, h.Workers, tt.want)
		}
		for _, w := range h.Workers {
			if strings.Contains(string(w.Metadata), "geheim") {
				t.Errorf("conf %s: got %s, want nothing secret in it", tt.conf, w.Metadata)
			}
		}
	}
}

func FuzzStatus(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `null`, `[`, `{"buffer_depth":1e400,"buffer_oldest_age_seconds":-0.0}`,
		`{"auth_failure_streak":1,"last_successful_connect_at":"2026-03-14T09:26:53.589793Z","current_session_age_seconds":1613.5,"engines":["celery",7,"\u0000"]}`,
		`{"engines":"celery","schedulers":{"a":1},"telemetry_loss":{"event_records":1,"adapter_events":{"x":-1,"y":2}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if !wire.Valid(payload) {
			return // a frame's payload was read before
		}
		s := wire.ParseStatus(payload)
		for name, n := range map[string]*int64{"auth failures": s.AuthFailures, "protocol failures": s.ProtocolFailures, "connection failures": s.ConnectionFailures, "buffer": s.BufferDepth} {
			if n != nil && *n < 0 {
				t.Errorf("%q: %s %d, want no negative number", payload, name, *n)
			}
		}
		for name, age := range map[string]*float64{"session age": s.SessionAge, "buffer age": s.BufferOldestAge} {
			if age != nil && (*age < 0 || math.IsNaN(*age) || math.IsInf(*age, 0)) {
				t.Errorf("%q: %s %v, want a number of seconds", payload, name, *age)
			}
		}
		if len(s.Engines) > 32 || len(s.Schedulers) > 32 {
			t.Errorf("%q: %d engines, %d schedulers, want 32 at most", payload, len(s.Engines), len(s.Schedulers))
		}
		for _, text := range append(append([]string{s.AgentVersion, s.ProtocolVersion}, s.Engines...), s.Schedulers...) {
			if strings.ToValidUTF8(text, "") != text || strings.Contains(text, "\x00") {
				t.Errorf("%q: text %q, want what both databases take", payload, text)
			}
		}
	})
}

func FuzzTime(f *testing.F) {
	for _, seed := range []string{
		`"2026-03-14T09:26:53.589793Z"`, `"2026-03-14 09:26:53,5+0545"`, `"2024-02-29t23:59:59.123456789-12:00"`, `"0001-01-01T00:00:00+14:00"`,
		`"9999-12-31T23:59:59.999999Z"`, `"2026-03-14T09:26:53"`, `"2026-02-30T00:00:00Z"`, `"never"`, `7`, `"`, ``, `"2026-03-14T09:26:5\u0033Z"`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		micros, ok := wire.Time(raw)
		if !ok {
			if micros != 0 {
				t.Errorf("%q: not read, and yet %d", raw, micros)
			}
			return
		}
		at := time.UnixMicro(micros).UTC()
		if year := at.Year(); year < 0 || year > 10000 {
			t.Errorf("%q: the year %d, want one of four digits or its neighbour by an offset", raw, year)
		}
		if at.Year() < 1 || at.Year() > 9999 {
			return // cannot be written in four digits
		}
		again, ok := wire.Time(append(append([]byte{'"'}, wire.AppendTime(nil, at)...), '"'))
		if !ok || again != micros {
			t.Errorf("%q: %d, written and read again %d, %v; want the same", raw, micros, again, ok)
		}
		if std, err := time.Parse(time.RFC3339Nano, strings.Trim(string(raw), `"`)); err == nil && std.UnixMicro() != micros && !strings.Contains(string(raw), ",") {
			t.Errorf("%q: %d, the standard library reads %d", raw, micros, std.UnixMicro())
		}
	})
}
