package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// sweeps are the numbers of the sweep that deletes what is older than it is kept.
type sweeps struct {
	deleted  *prometheus.CounterVec
	last     prometheus.Gauge
	took     prometheus.Gauge
	longest  prometheus.Gauge
	strayed  prometheus.Gauge
	busyDays prometheus.Gauge
}

func newSweeps() sweeps {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	return sweeps{
		deleted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "z4j_retention_deleted_total",
			Help: "Rows that a sweep of this brain deleted; those of whole partitions are an estimate.",
		}, []string{"table"}),
		last:     gauge("z4j_retention_last_run_timestamp_seconds", "When a sweep of this brain last came to its end."),
		took:     gauge("z4j_retention_last_run_seconds", "How long that took."),
		longest:  gauge("z4j_retention_longest_lock_seconds", "Its longest transaction."),
		busyDays: gauge("z4j_retention_busy_partitions", "Partitions that it could not drop, because others kept using them."),
		strayed:  gauge("z4j_events_default_partition_rows", "Events in a default partition, counted up to a bound; there should be none."),
	}
}

func (s *sweeps) all() []prometheus.Collector {
	return []prometheus.Collector{s.deleted, s.last, s.took, s.longest, s.busyDays, s.strayed}
}

// A Sweep is what one did.
type Sweep struct {
	Deleted       map[string]int64 // rows by table
	Ended         time.Time        // zero: it was cut short
	Took, Longest time.Duration    // Longest: of one transaction
	Busy          int              // partitions
}

// Swept counts what a sweep did.
func (m *Metrics) Swept(s *Sweep) {
	if m == nil {
		return
	}
	for table, n := range s.Deleted {
		m.sweeps.deleted.WithLabelValues(table).Add(float64(n))
	}
	m.sweeps.longest.Set(s.Longest.Seconds())
	m.sweeps.busyDays.Set(float64(s.Busy))
	if !s.Ended.IsZero() {
		m.sweeps.last.Set(float64(s.Ended.UnixMicro()) / 1e6)
		m.sweeps.took.Set(s.Took.Seconds())
	}
}

// DefaultEvents says how many events stand in a default partition.
func (m *Metrics) DefaultEvents(n int64) {
	if m == nil {
		return
	}
	m.sweeps.strayed.Set(float64(n))
}
