package metrics

import (
	"context"
	"os"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	agentsOnline  = prometheus.NewDesc("z4j_agents_online", "Agents with a live connection, on any brain.", []string{"project"}, nil)
	workersOnline = prometheus.NewDesc("z4j_workers_online", "Engine workers that are alive.", []string{"project"}, nil)
	queueDepth    = prometheus.NewDesc("z4j_queue_depth", "Messages that wait, where an agent can tell.", []string{"project", "queue", "engine"}, nil)
	poolSize      = prometheus.NewDesc("z4j_db_pool_size", "Connections to the database that are open.", nil, nil)
	poolUsed      = prometheus.NewDesc("z4j_db_pool_checked_out", "Connections to the database that are in use.", nil, nil)
	rss           = prometheus.NewDesc("z4j_brain_rss_bytes", "Resident memory of the brain.", nil, nil)
	memoryItems   = prometheus.NewDesc("z4j_inmemory_state_items", "Entries of each bounded thing in memory.", []string{"subsystem"}, nil)
	snapshotAge   = prometheus.NewDesc("z4j_snapshot_age_seconds", "For how long the oldest snapshot is held that this brain reads a backup from; 0: none.", nil, nil)
	auditOK       = prometheus.NewDesc("z4j_audit_chain_ok", "0 when a verification found the audit log tampered with or behind an anchor.", nil, nil)
	auditSeq      = prometheus.NewDesc("z4j_audit_verified_seq", "Number of the last audit row that the newest verification looked at.", nil, nil)
	auditAt       = prometheus.NewDesc("z4j_audit_verified_timestamp_seconds", "When the newest verification of the audit log ended.", nil, nil)
	auditTook     = prometheus.NewDesc("z4j_audit_verify_duration_seconds", "How long it took.", nil, nil)
	auditUnproved = prometheus.NewDesc("z4j_audit_unproved_rows", "Audit rows that the newest full verification could not prove, for want of a key.", nil, nil)
	anchorTrouble = prometheus.NewDesc("z4j_anchor_trouble", "1 when an anchor of the audit log has the fault; its label is home, or its number in Z4J_AUDIT_ANCHORS.", []string{"anchor", "fault"}, nil)
	stateFailed   = prometheus.NewDesc("z4j_scrape_state_error", "1 when the database could not be asked for this scrape's gauges.", nil, nil)
)

// state asks for the gauges when Prometheus asks.
type state struct{ o Options }

// Describe sends nothing: which gauges there are depends on the options, and an unchecked collector may say so.
func (s *state) Describe(chan<- *prometheus.Desc) {}

// Collect asks for everything that is now.
func (s *state) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if s.o.Database != nil {
		size, used := s.o.Database()
		gauge(poolSize, float64(size))
		gauge(poolUsed, float64(used))
	}
	if s.o.Snapshot != nil {
		gauge(snapshotAge, s.o.Snapshot().Seconds())
	}
	for name, count := range s.o.Items {
		gauge(memoryItems, float64(count()), name)
	}
	if s.o.Audit != nil {
		s.audit(gauge)
	}
	if s.o.Anchors != nil {
		for _, a := range s.o.Anchors() {
			gauge(anchorTrouble, number(a.Bad), a.Anchor, a.Fault)
		}
	}
	if n, ok := residentBytes(); ok {
		gauge(rss, n)
	}
	if s.o.State == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), gatherDeadline)
	defer cancel()
	projects, err := s.o.State(ctx)
	if err != nil {
		gauge(stateFailed, 1)
		return
	}
	gauge(stateFailed, 0)
	for i, p := range projects {
		if i == maxProjects {
			return
		}
		gauge(agentsOnline, float64(p.AgentsOnline), p.Project)
		gauge(workersOnline, float64(p.WorkersOnline), p.Project)
		s.depths(p, gauge)
	}
}

// audit tells nothing before the first verification: no number would be true.
func (s *state) audit(gauge func(*prometheus.Desc, float64, ...string)) {
	a, known := s.o.Audit()
	if !known {
		return
	}
	gauge(auditOK, number(a.OK))
	gauge(auditSeq, float64(a.VerifiedSeq))
	gauge(auditAt, float64(a.VerifiedAt.UnixMicro())/1e6)
	gauge(auditTook, a.Took.Seconds())
	gauge(auditUnproved, float64(a.Unproved))
}

func number(holds bool) float64 {
	if holds {
		return 1
	}
	return 0
}

// depths sums queues beyond the bound up, so that one series never comes twice.
func (s *state) depths(p ProjectState, gauge func(*prometheus.Desc, float64, ...string)) {
	type key struct{ queue, engine string }
	sums := map[key]float64{}
	queues, engines := capped{most: maxQueues}, capped{most: maxKinds}
	for _, q := range p.Queues {
		sums[key{queues.get("", q.Queue), engines.get("", q.Engine)}] += float64(q.Pending)
	}
	for k, v := range sums {
		gauge(queueDepth, v, p.Project, k.queue, k.engine)
	}
}

// residentBytes reads the process's memory where the system tells it as Linux does.
func residentBytes() (float64, bool) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseFloat(fields[1], 64)
	return pages * float64(os.Getpagesize()), err == nil
}
