package load

import (
	"context"
	"maps"
	"sync"
	"time"
)

// meter counts what the agents of a run see.
type meter struct {
	mu                         sync.Mutex
	first, last                int64 // µs: first frame sent, last one acked
	sentEvents, sentFrames     int64
	events, frames             int64 // acked
	accepted, rejected, resent int64
	now, most                  int // connections
	acks, visibles, connects   histogram
	errors                     map[string]int64
}

// maxReasons bounds the texts of errors.
const maxReasons = 50

func (m *meter) failed(reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.errors == nil {
		m.errors = map[string]int64{}
	}
	if _, known := m.errors[reason]; !known && len(m.errors) >= maxReasons {
		reason = "others"
	}
	m.errors[reason]++
}

func (m *meter) online(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now += n
	m.most = max(m.most, m.now)
}

func (m *meter) connected(us int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.connects.add(us)
}

func (m *meter) sent(at int64, events int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.first == 0 {
		m.first = at
	}
	m.sentEvents += int64(events)
	m.sentFrames++
}

func (m *meter) acked(at int64, f *frame, accepted, rejected int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = max(m.last, at)
	m.events += int64(f.events)
	m.frames++
	m.accepted += accepted
	m.rejected += rejected
	if f.again {
		m.resent++
		return
	}
	m.acks.add(at - f.sent)
}

func (m *meter) visible(us int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.visibles.add(us)
}

// Quantiles of durations, in milliseconds.
type Quantiles struct {
	N   uint64  `json:"n"`
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
}

func (h *histogram) quantiles() *Quantiles {
	if h.n == 0 {
		return nil
	}
	ms := func(us int64) float64 { return float64(us) / 1000 }
	return &Quantiles{N: h.n, P50: ms(h.quantile(0.50)), P99: ms(h.quantile(0.99)), Max: ms(h.most)}
}

// Summary is what a run came to.
type Summary struct {
	Connections     int              `json:"connections"` // at most, at one time
	EventsAFrame    int              `json:"events_a_frame"`
	Window          int              `json:"window"`  // frames that a process may have without ack
	Seconds         float64          `json:"seconds"` // from the first frame to the last ack
	Sent            int64            `json:"events_sent"`
	Acked           int64            `json:"events_acked"`
	Accepted        int64            `json:"events_accepted"` // the brain had not seen them before
	Rejected        int64            `json:"events_rejected"`
	Unacked         int64            `json:"events_without_ack"`
	FramesSentAgain int64            `json:"frames_sent_again"`
	Rate            float64          `json:"events_a_second"` // acked
	Ack             *Quantiles       `json:"ack"`
	Visible         *Quantiles       `json:"visible"` // from the sending of a task's first event to its place in GET tasks
	Connect         *Quantiles       `json:"connect"`
	Errors          map[string]int64 `json:"errors"`
	Goal            float64          `json:"goal,omitempty"`
	Met             bool             `json:"goal_met,omitempty"`
	Interrupted     bool             `json:"interrupted,omitempty"`
}

func (m *meter) summary() Summary {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Summary{
		Connections: m.most, Sent: m.sentEvents, Acked: m.events, Accepted: m.accepted, Rejected: m.rejected, Unacked: m.sentEvents - m.events,
		FramesSentAgain: m.resent, Ack: m.acks.quantiles(), Visible: m.visibles.quantiles(), Connect: m.connects.quantiles(), Errors: maps.Clone(m.errors),
	}
	if s.Seconds = float64(m.last-m.first) / 1e6; m.last > m.first {
		s.Rate = float64(m.events) / s.Seconds
	} else {
		s.Seconds = 0
	}
	return s
}

// sample is a task whose way into the list is timed.
type sample struct {
	project, task string
	sent          int64 // µs
}

// sampler chooses tasks and asks for them until the list shows them.
type sampler struct {
	run   *runner
	every time.Duration // 0: none
	queue chan sample
	mu    sync.Mutex
	next  time.Time
}

const (
	askers     = 4                     // samples that are asked for at one time
	askEvery   = 10 * time.Millisecond // how exact the time is
	askWithin  = 30 * time.Second
	maxSamples = 64 // that wait; more are not timed
)

// due reports whether it is time for another sample.
func (s *sampler) due(now time.Time) bool {
	if s.every == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.next) {
		return false
	}
	s.next = now.Add(s.every)
	return true
}

func (s *sampler) put(one sample) {
	select {
	case s.queue <- one:
	default:
	}
}

// ask times samples until the queue is closed.
func (s *sampler) ask(ctx context.Context) {
	for one := range s.queue {
		deadline := s.run.now().Add(askWithin)
		for {
			shown, err := s.run.client.shows(ctx, one.project, one.task)
			now := s.run.now()
			if ctx.Err() != nil {
				break
			}
			if shown {
				s.run.meter.visible(now.UnixMicro() - one.sent)
				break
			}
			if err != nil {
				s.run.meter.failed("GET tasks: " + cut(err.Error()))
			}
			if now.After(deadline) {
				s.run.meter.failed("a task did not show in GET tasks within 30 s")
				break
			}
			pause(ctx, askEvery)
		}
	}
}

// cut keeps a text short.
func cut(s string) string {
	const most = 120
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
