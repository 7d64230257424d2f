package custody_test

import (
	"testing"

	"github.com/z4j-go/z4j/internal/custody"
)

// TestDecide is the table of what follows from where the database is and what the anchors say.
func TestDecide(t *testing.T) {
	const (
		same, other, missing                      = custody.Same, custody.Other, custody.Missing
		none, agrees, behind, against, unnamed    = custody.None, custody.Agrees, custody.Behind, custody.Against, custody.Unnamed
		goOn, begin, moved, newGeneration, holden = custody.GoOn, custody.BeginAnchor, custody.Moved, custody.NewGeneration, custody.HoldChanges
	)
	type s = custody.Situation
	for _, tt := range []struct {
		name  string
		s     s
		act   custody.Act
		await bool
	}{
		{"all is as it was", s{Place: same, Local: agrees}, goOn, false},
		{"a promotion that lost nothing", s{Place: same, Local: agrees, Higher: true}, goOn, false},
		{"an agreeing anchor in an empty cluster of brains", s{Place: same, Local: agrees, Lonely: true}, goOn, false},
		{"a shared anchor contradicts and the local one agrees", s{Place: same, Local: agrees, Shared: against}, goOn, false},

		{"set back", s{Place: same, Local: behind}, holden, false},
		{"changed", s{Place: same, Local: against}, holden, false},
		{"wiped", s{Place: same, Local: unnamed}, holden, false},
		{"a failover that lost little", s{Place: same, Local: behind, Higher: true, Within: true}, newGeneration, false},
		{"a failover that lost little and grew again", s{Place: same, Local: against, Higher: true, Within: true}, newGeneration, false},
		{"a failover that lost much", s{Place: same, Local: behind, Higher: true}, holden, false},
		{"little lost without a failover", s{Place: same, Local: behind, Within: true}, holden, false},

		{"an empty home", s{Place: same, Local: none}, begin, false},
		{"an empty home and a shared anchor that agrees", s{Place: same, Local: none, Shared: agrees}, begin, false},
		{"an empty home and a shared anchor that is ahead", s{Place: same, Local: none, Shared: behind}, holden, false},
		{"an empty home and a shared anchor that contradicts", s{Place: same, Local: none, Shared: against}, holden, false},
		{"an empty home and no other brain for long", s{Place: same, Local: none, Lonely: true}, begin, true},

		{"moved", s{Place: other, Local: agrees}, moved, false},
		{"moved with the home's note lost", s{Place: missing, Local: agrees}, moved, false},
		{"restored elsewhere", s{Place: other, Local: behind}, holden, false},
		{"restored elsewhere, with a higher timeline", s{Place: other, Local: behind, Higher: true, Within: true}, holden, false},
		{"another one", s{Place: other, Local: unnamed}, holden, false},
		{"a database and an empty home", s{Place: other, Local: none}, holden, false},
		{"a file and an empty home", s{Place: missing, Local: none}, holden, false},
		{"a file that contradicts", s{Place: missing, Local: against}, holden, false},
	} {
		got := custody.Decide(tt.s)
		if want := (custody.Decision{Act: tt.act, Await: tt.await}); got != want {
			t.Errorf("%s: %v, awaiting %t; want %v, %t", tt.name, got.Act, got.Await, want.Act, want.Await)
		}
	}
}
