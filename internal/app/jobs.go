package app

import (
	"context"
	"time"

	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/jobs"
	"github.com/z4j-go/z4j/internal/metrics"
	"github.com/z4j-go/z4j/internal/store"
)

// partitionsAhead is how many days of events have their partition before they come.
const partitionsAhead = 7

// jobs is everything periodic.
func (b *Brain) jobs() []jobs.Job {
	return []jobs.Job{
		{Name: "partitions", Every: time.Hour, Run: func(ctx context.Context) error {
			return b.Store.EnsurePartitions(ctx, b.Now(), partitionsAhead)
		}},
	}
}

// leases lets jobs hold leases in the store.
type leases struct{ *store.Store }

// Lease gives holder the lease until the given time and reports whether it has it.
func (l leases) Lease(ctx context.Context, name, holder string, now, until time.Time) (bool, error) {
	return l.Store.Lease(ctx, name, holder, store.TimeOf(now), store.TimeOf(until))
}

func (b *Brain) metricsOptions(taken func() *ingest.Stats) metrics.Options {
	return metrics.Options{
		Version: b.Version,
		Items: map[string]func() int{
			"ingest_frames": func() int { return int(taken().QueuedFrames.Load()) },
			"ingest_bytes":  func() int { return int(taken().QueuedBytes.Load()) },
		},
	}
}
