package load_test

import (
	"testing"

	"github.com/z4j-go/z4j/internal/load"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// BenchmarkMake makes up parts of a long history; ns/op is for a task.
func BenchmarkMake(b *testing.B) {
	h := load.History{Tasks: 10_000_000, Days: 30, Projects: 3, Engines: load.DefaultEngines(), Seed: 1, EventSize: 200, Until: until}
	b.ReportAllocs()
	if err := load.Make(h, b.N/load.PartTasks+1); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkFill fills a database; ns/op is for a task. Run it with -benchtime 200000x.
func BenchmarkFill(b *testing.B) {
	for _, database := range []string{"postgres", "sqlite"} {
		b.Run(database, func(b *testing.B) {
			url := storetest.SQLite(b)
			if database == "postgres" {
				url = storetest.Postgres(b)
			}
			s := storetest.Open(b, url)
			h := load.History{Tasks: int64(b.N), Days: 1, Projects: 3, Engines: load.DefaultEngines(), Seed: 1, EventSize: 200, Until: until}
			b.ResetTimer()
			if _, err := load.Fill(b.Context(), s, load.FillOptions{History: h}); err != nil {
				b.Fatal(err)
			}
		})
	}
}
