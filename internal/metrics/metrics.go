// Package metrics counts what the brain does and shows it to Prometheus.
//
// A Metrics is a value with a registry of its own: two brains in one process don't share a number. A nil *Metrics
// counts nothing, so that a part can be used without. Every label is bounded: what an agent can choose freely (kinds,
// engines, task names, queues) is cut and, beyond a number of different values, summed up as "__overflow__".
package metrics

import (
	"cmp"
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Limits of labels: what Prometheus keeps in memory for each brain.
const (
	maxLabel       = 128  // bytes of one value; longer ones are cut
	maxTaskNames   = 1000 // a project
	maxQueues      = 500  // a project
	maxKinds       = 64   // event kinds and engines together; the protocol knows about 30
	maxProjects    = 2000 // beyond, projects share one
	overflow       = "__overflow__"
	gatherDeadline = 3 * time.Second // for the gauges that ask the database
)

var durationBuckets = []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120}

// Options say what a scrape asks for; every function may be nil.
type Options struct {
	Version  string
	Database func() (size, used int)                           // connections of the pool
	State    func(ctx context.Context) ([]ProjectState, error) // gauges per project
	Snapshot func() time.Duration                              // age of the oldest
	Items    map[string]func() int                             // length of each bounded thing in memory, by subsystem
	Audit    func() (a AuditChain, known bool)                 // what verifications of the audit log found
	Anchors  func() []AnchorState                              // of the audit log
}

// AnchorState is whether an anchor of the audit log has a fault.
type AnchorState struct {
	Anchor, Fault string // neither is a place
	Bad           bool
}

// AuditChain is what the newest verifications of the audit log found.
type AuditChain struct {
	OK          bool
	VerifiedSeq int64     // number of the last row that was looked at
	VerifiedAt  time.Time // when the newest ended
	Took        time.Duration
	Unproved    int64 // rows that could not be proved
}

// ProjectState is what is now, of one project.
type ProjectState struct {
	Project                     string // id
	AgentsOnline, WorkersOnline int
	Queues                      []QueueDepth
}

// QueueDepth is the number of messages that wait in a queue.
type QueueDepth struct {
	Engine, Queue string
	Pending       int64
}

// Metrics holds every counter of one brain.
type Metrics struct {
	registry *prometheus.Registry

	eventsIngested *prometheus.CounterVec
	eventsRefused  *prometheus.CounterVec
	tasks          *prometheus.CounterVec
	taskDuration   *prometheus.HistogramVec
	frames         *prometheus.CounterVec
	refusedFrames  *prometheus.CounterVec
	connections    prometheus.Gauge
	commitSeconds  prometheus.Histogram
	requests       *prometheus.HistogramVec
	jobError       *prometheus.GaugeVec
	sweeps         sweeps
	backupAt       prometheus.Gauge
	backupSize     prometheus.Gauge
	backupVerified prometheus.Gauge
	drillAt        prometheus.Gauge
	drillSeconds   prometheus.Gauge

	projects capped
	kinds    capped
	names    capped
}

// New makes the counters and registers them.
func New(o Options) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		eventsIngested: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "z4j_events_ingested_total",
			Help: "Events committed; of those that say nothing of a task, repetitions count too.",
		}, []string{"project", "engine", "kind"}),
		eventsRefused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "z4j_dead_letters_total",
			Help: "Events and frames that could not be taken and went to the dead letters.",
		}, []string{"project", "reason"}),
		tasks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "z4j_tasks_total",
			Help: "Tasks that came to a state.",
		}, []string{"project", "task_name", "state"}),
		taskDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "z4j_task_duration_seconds",
			Help: "Run time of ended attempts.", Buckets: durationBuckets,
		}, []string{"project", "task_name"}),
		frames: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "z4j_agent_frames_total",
			Help: "Frames of agents that were verified, by type.",
		}, []string{"type"}),
		refusedFrames: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "z4j_agent_refusals_total",
			Help: "Connections and frames of agents that were refused, by close code or status.",
		}, []string{"code"}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "z4j_ws_connections",
			Help: "Agents' WebSocket connections that are open.",
		}),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "z4j_ingest_commit_seconds",
			Help: "Time of one grouped ingest transaction.", Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "z4j_http_request_seconds",
			Help:    "Time to answer, by operation and class of status.",
			Buckets: []float64{.005, .025, .1, .5, 2.5, 10},
		}, []string{"route", "status"}),
		jobError: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "z4j_background_task_error_active",
			Help: "1 while the last run of a periodic job failed.",
		}, []string{"task"}),
		sweeps: newSweeps(),
		backupAt: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "z4j_backup_last_success_timestamp_seconds",
			Help: "The moment that the newest good backup is of; 0: there is none.",
		}),
		backupSize: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "z4j_backup_last_size_bytes",
			Help: "Size of the newest good backup.",
		}),
		backupVerified: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "z4j_backup_verified",
			Help: "1 if the newest try to make a backup succeeded and it was read back whole.",
		}),
		drillAt: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "z4j_drill_last_success_timestamp_seconds",
			Help: "When the newest good drill ended; 0: there is none.",
		}),
		drillSeconds: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "z4j_drill_duration_seconds",
			Help: "How long the newest good drill took.",
		}),
		projects: capped{most: maxProjects},
		kinds:    capped{most: maxKinds},
		names:    capped{most: maxTaskNames},
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "z4j_build_info", Help: "1, with the version of the brain.",
		ConstLabels: prometheus.Labels{"version": o.Version},
	})
	build.Set(1)
	m.registry.MustRegister(m.sweeps.all()...)
	m.registry.MustRegister(m.eventsIngested, m.eventsRefused, m.tasks, m.taskDuration, m.frames, m.refusedFrames,
		m.connections, m.commitSeconds, m.requests, m.jobError, m.backupAt, m.backupSize, m.backupVerified, m.drillAt, m.drillSeconds, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&state{o: o})
	return m
}

// Backup shows the newest good backup; the zero time is none.
func (m *Metrics) Backup(at time.Time, size int64, verified bool) {
	if m == nil {
		return
	}
	m.backupAt.Set(max(0, float64(at.UnixMicro())/1e6))
	m.backupSize.Set(float64(size))
	m.backupVerified.Set(0)
	if verified {
		m.backupVerified.Set(1)
	}
}

// Drill shows the newest good drill; the zero time is none.
func (m *Metrics) Drill(at time.Time, took time.Duration) {
	if m == nil {
		return
	}
	m.drillAt.Set(max(0, float64(at.UnixMicro())/1e6))
	m.drillSeconds.Set(took.Seconds())
}

// EventIngested counts n events of a kind, after their commit.
func (m *Metrics) EventIngested(project, engine, kind string, n int) {
	if m == nil || n == 0 {
		return
	}
	m.eventsIngested.WithLabelValues(m.projects.get("", project), m.kinds.get("engine", engine), m.kinds.get("kind", kind)).Add(float64(n))
}

// DeadLetter counts what went to the dead letters; reason is one of the brain's own.
func (m *Metrics) DeadLetter(project, reason string) {
	if m == nil {
		return
	}
	m.eventsRefused.WithLabelValues(m.projects.get("", project), m.kinds.get("reason", reason)).Inc()
}

// TaskState counts n tasks that came to a state; state is one of the brain's own.
func (m *Metrics) TaskState(project, taskName, state string, n int) {
	if m == nil || n == 0 {
		return
	}
	m.tasks.WithLabelValues(m.projects.get("", project), m.names.get(project, taskName), m.kinds.get("state", state)).Add(float64(n))
}

// TaskDuration counts n ended attempts that ran for d on average.
func (m *Metrics) TaskDuration(project, taskName string, d time.Duration, n int) {
	if m == nil {
		return
	}
	h := m.taskDuration.WithLabelValues(m.projects.get("", project), m.names.get(project, taskName))
	for range n {
		h.Observe(d.Seconds())
	}
}

// Frame counts a verified frame of an agent.
func (m *Metrics) Frame(kind string) {
	if m == nil {
		return
	}
	m.frames.WithLabelValues(m.kinds.get("frame", kind)).Inc()
}

// Refusal counts a connection or frame of an agent that was refused; code is a close code or a status.
func (m *Metrics) Refusal(code string) {
	if m == nil {
		return
	}
	m.refusedFrames.WithLabelValues(m.kinds.get("code", code)).Inc()
}

// Connections adds n, which may be negative, to the open connections of agents.
func (m *Metrics) Connections(n int) {
	if m == nil {
		return
	}
	m.connections.Add(float64(n))
}

// IngestCommit counts one grouped transaction.
func (m *Metrics) IngestCommit(d time.Duration) {
	if m == nil {
		return
	}
	m.commitSeconds.Observe(d.Seconds())
}

// Request counts an answer; route is the operation's name, never the path, and "" for pages and what is no route. Status
// 0 is none: the client went away.
func (m *Metrics) Request(route string, status int, d time.Duration) {
	if m == nil || status == 0 {
		return
	}
	m.requests.WithLabelValues(cmp.Or(route, "other"), string([]byte{'0' + byte(status/100), 'x', 'x'})).Observe(d.Seconds())
}

// JobFailed says whether the last run of a periodic job failed.
func (m *Metrics) JobFailed(job string, failed bool) {
	if m == nil {
		return
	}
	v := 0.0
	if failed {
		v = 1
	}
	m.jobError.WithLabelValues(job).Set(v)
}
