package store_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/fold"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// BenchmarkRetention sweeps one old day: Z4J_BENCH_EVENTS events (20,000) and a tenth as many tasks. It tells how long the
// longest transaction was, which is how long any lock was kept.
func BenchmarkRetention(b *testing.B) {
	events := 20_000
	if text := os.Getenv("Z4J_BENCH_EVENTS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			b.Fatal(err)
		}
		events = n
	}
	for _, database := range []string{"sqlite", "postgres"} {
		b.Run(database, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				url := ""
				if database == "sqlite" {
					url = storetest.SQLite(b)
				} else {
					url = storetest.Postgres(b)
				}
				s := openClocked(b, url, time.Now)
				fillDay(b, s, time.Now().AddDate(0, 0, -100), events)
				b.StartTimer()
				out, err := s.Sweep(b.Context(), store.SweepOptions{Keep: keep90, By: sweepBy, Holder: "bench"})
				if err != nil || out.Rows["events"] < int64(events) {
					b.Fatalf("swept %v, %v; want %d events", out.Rows, err, events)
				}
				b.ReportMetric(float64(out.LongestLock.Microseconds())/1000, "longest-lock-ms")
				b.ReportMetric(float64(out.Total())/out.Took.Seconds(), "rows/s")
			}
		})
	}
}

// fillDay writes the events of one day, ten for each task.
func fillDay(b *testing.B, s *store.Store, at time.Time, events int) {
	b.Helper()
	p, err := s.CreateProject(b.Context(), store.Project{Slug: "bench", Name: "b", Environment: "production", Timezone: "UTC", DefaultSchedulerOwner: "z4j-scheduler"}, operator)
	if err != nil {
		b.Fatal(err)
	}
	at = at.UTC().Truncate(24 * time.Hour).Add(time.Hour)
	const group = 2000
	for from := 0; from < events; from += group {
		var w store.IngestWrites
		for i := from; i < min(from+group, events); i++ {
			when, task := at.Add(time.Duration(i)*time.Millisecond), fmt.Sprint("t", i/10)
			w.Events = append(w.Events, store.EventRow{
				Project: p.ID, ID: id.New(when), Agent: p.ID, HasTask: true, TaskKey: fold.TaskKey("celery", task), Occurred: when.UnixMicro(),
				Received: when.UnixMicro(), Engine: "celery", TaskID: task, Kind: "task.succeeded", Payload: []byte(`{"result":"` + fmt.Sprintf("%0400d", i) + `"}`),
			})
			if i%10 == 0 {
				w.NewTasks = append(w.NewTasks, taskRow(p.ID, task, when, fold.StateSuccess))
			}
		}
		slices.SortFunc(w.NewTasks, func(a, b store.TaskRow) int { return a.Compare(b.TaskRef) })
		seed(b, s, &w)
	}
}
