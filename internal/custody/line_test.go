package custody_test

import (
	"testing"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestLinesSpeakAgainstTheDatabase: a revocation whose line stands in an anchor, and that no checkpoint covers yet, is gone.
// When that was acknowledged the line is of what was left behind, and speaks no more.
func TestLinesSpeakAgainstTheDatabase(t *testing.T) {
	for _, tt := range []struct {
		name, why string
		shared    bool // the line is in a further anchor, and the home is new
		grown     int
		seq       int64
		class     audit.Class
	}{
		{"of the home, and the log ends before", "knows entry 5 (agent.token.revoked)", false, 0, 5, audit.CutTail},
		{"of the home, and another entry is there", "entry 5 is another one", false, 2, 5, audit.Against},
		{"of a further anchor, and the log ends before", "knows entry 5 (agent.token.revoked)", true, 0, 5, audit.CutTail},
		{"of a further anchor, and another entry is there", "entry 5 is another one", true, 2, 5, audit.Against},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, func(t *testing.T, l *lab) {
				if tt.shared {
					l.anchors = []string{t.TempDir()}
				}
				b := l.run(t, 3)
				err := b.record(t.Context(), audit.Facts{Action: audit.AgentRevoked, Actor: audit.Actor{Kind: audit.User, ID: "u1"}, Target: audit.Target{ID: "a1"}})
				if err != nil {
					t.Fatal(err)
				}
				if err := b.Watch(t.Context()); err != nil {
					t.Fatal(err)
				}
				b.mustProve(t, "nothing is lost", 0)
				l.cut(t, 4)
				if tt.grown > 0 {
					brain{Store: storetest.Open(t, l.url)}.change(t, tt.grown)
				}
				if tt.shared && l.isFile() {
					return // a home that does not know the file holds by itself
				}
				if tt.shared {
					l.home = t.TempDir()
				}
				b = l.watch(t)
				out, report := b.verify(t, store.VerifyOptions{})
				if out.exit != 4 || out.class != tt.class || out.seq != tt.seq {
					t.Errorf("verified: %+v, %+v; want exit 4, %s at %d", out, report.First, tt.class, tt.seq)
				}
				b = l.start(t)
				b.mustHold(t, "set back", tt.why)
				if _, err := b.Acknowledge(t.Context(), acknowledged); err != nil {
					t.Fatal(err)
				}
				b.mustHold(t, "acknowledged", "")
				b.mustProve(t, "acknowledged, and no checkpoint yet", 0)
				b.sign(t)
				b.mustProve(t, "acknowledged", 0)
				again := l.start(t)
				again.mustHold(t, "after a restart", "")
				if found := again.Troubles(); len(found) > 0 {
					t.Errorf("troubles %+v, want none", found)
				}
			})
		})
	}
}
