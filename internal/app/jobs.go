package app

import (
	"context"
	"time"

	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/jobs"
	"github.com/z4j-go/z4j/internal/metrics"
	"github.com/z4j-go/z4j/internal/store"
)

// partitionsAhead is how many days of events have their partition before they come.
const partitionsAhead = 7

// backupLook is how often it is looked whether a backup is due: schedules count in minutes.
const backupLook = 30 * time.Second

// jobs is everything periodic.
func (b *Brain) jobs() []jobs.Job {
	if b.Drill {
		return nil
	}
	return append([]jobs.Job{
		{Name: "partitions", Every: time.Hour, Run: b.partitions},
		{Name: "retention", Every: 5 * time.Minute, Run: b.sweep}, // looks whether it is time; a sweep that had to wait is tried again
		{Name: "horizons", Every: 30 * time.Second, Local: true, Run: func(ctx context.Context) error {
			return b.horizons.read(ctx, b.Store, Keep(b.Config))
		}},
		{Name: "alive", Every: store.BrainTerm / 3, Local: true, Run: func(ctx context.Context) error { return b.Store.KeepAlive(ctx, b.holder) }},
		{Name: "checkpoint", Every: b.Config.Audit.CheckpointInterval, Wake: b.custody.Grave(), Run: b.custody.Checkpoint},
		{Name: "custody", Every: time.Second, Local: true, Wake: b.Store.AuditNews(), Run: b.custody.Watch},
		{Name: "hold", Every: time.Second, Local: true, Run: b.Store.SeeHold},
		// Nothing to do: while changes are refused it fails, which health, the log and z4j_background_task_error_active say.
		{Name: "audit", Every: 15 * time.Second, Local: true, Run: b.audit.Try},
		{Name: "backup", Every: backupLook, Run: b.backups.Tick},
		{Name: "drill", Every: backupLook, Wake: b.backups.Made(), Run: b.backups.TickDrill},
		{Name: "backup_status", Every: backupLook, Local: true, Run: b.backups.Watch},
	}, b.verifications()...)
}

// leases lets jobs hold leases in the store.
type leases struct{ *store.Store }

// Lease gives holder the lease until the given time and reports whether it has it.
func (l leases) Lease(ctx context.Context, name, holder string, now, until time.Time) (bool, error) {
	return l.Store.Lease(ctx, name, holder, store.TimeOf(now), store.TimeOf(until))
}

// maxQueueDepths bounds what one scrape reads: some thousand projects with a few queues each.
const maxQueueDepths = 10_000

func (b *Brain) metricsOptions(taken func() *ingest.Stats) metrics.Options {
	return metrics.Options{
		Version: b.Version, Database: b.Store.Connections, State: b.projectStates, Snapshot: b.Store.OldestSnapshot, Audit: b.auditChain,
		Anchors: b.anchorStates,
		Items: map[string]func() int{
			"ingest_frames": func() int { return int(taken().QueuedFrames.Load()) },
			"ingest_bytes":  func() int { return int(taken().QueuedBytes.Load()) },
		},
	}
}

// projectStates asks for the gauges of every project, in three statements whatever their number.
func (b *Brain) projectStates(ctx context.Context) ([]metrics.ProjectState, error) {
	projects, err := b.Store.Projects(ctx, store.Sight{All: true})
	if err != nil {
		return nil, err
	}
	ids := make([]id.ID, len(projects))
	for i := range projects {
		ids[i] = projects[i].ID
	}
	fleets, err := b.Store.Fleets(ctx, ids, store.TimeOf(b.Now()))
	if err != nil {
		return nil, err
	}
	depths, err := b.Store.QueueDepths(ctx, maxQueueDepths)
	if err != nil {
		return nil, err
	}
	queues := map[id.ID][]metrics.QueueDepth{}
	for _, d := range depths {
		queues[d.Project] = append(queues[d.Project], metrics.QueueDepth{Engine: d.Engine, Queue: d.Name, Pending: d.Pending})
	}
	out := make([]metrics.ProjectState, 0, len(ids))
	for _, p := range ids {
		f := fleets[p]
		out = append(out, metrics.ProjectState{Project: p.String(), AgentsOnline: int(f.AgentsOnline), WorkersOnline: int(f.WorkersOnline), Queues: queues[p]})
	}
	return out, nil
}

// backupSeen shows how backups stand.
func backupSeen(counts *metrics.Metrics) func(backup.Standing) {
	return func(s backup.Standing) {
		if d := s.Drill.LastSuccess; d != nil {
			counts.Drill(d.Finished.Time, d.Took())
		} else {
			counts.Drill(time.Time{}, 0)
		}
		if s.LastSuccess == nil {
			counts.Backup(time.Time{}, 0, false)
			return
		}
		counts.Backup(s.LastSuccess.Snapshot.Time, s.LastSuccess.Bytes, s.LastSuccess.Verified && s.LastFailure == nil)
	}
}
