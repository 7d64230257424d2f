package custody_test

import (
	"sync"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/store/storetest"
)

// BenchmarkAppendWithCheckpoints makes 8,000 audited changes while checkpoints are signed all the time, sixty times as
// often as they are, and as many without, by turns in one run: they are no slower than nine tenths. Run it with
// -benchtime 1x.
func BenchmarkAppendWithCheckpoints(b *testing.B) {
	const rounds, changes, writers = 4, 1000, 16
	l := &lab{url: storetest.Postgres(b), home: b.TempDir()}
	brain := l.start(b)
	took := map[bool]time.Duration{}
	for b.Loop() {
		for round := range 2 * rounds {
			signing := round%2 == 0
			stop, ended := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(ended)
				tick := time.NewTicker(time.Second)
				defer tick.Stop()
				for signing {
					if err := brain.Checkpoint(b.Context()); err != nil {
						b.Error(err)
					}
					select {
					case <-stop:
						return
					case <-tick.C:
					}
				}
			}()
			begin := time.Now()
			var wg sync.WaitGroup
			for range writers {
				wg.Go(func() { brain.change(b, changes/writers) })
			}
			wg.Wait()
			took[signing] += time.Since(begin)
			close(stop)
			<-ended
		}
	}
	b.ReportMetric(float64(took[false])/float64(took[true]), "with/without")
	b.ReportMetric(rounds*changes/took[true].Seconds(), "appends/s")
}
