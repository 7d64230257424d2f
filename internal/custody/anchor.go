package custody

import (
	"context"
	"time"
)

// history names one history of one installation.
type history struct{ instance, generation string }

func (h history) path() string { return "z4j/" + h.instance + "/" + h.generation }

// anchor is a place that keeps notes. It believes none of them: whoever reads checks signatures.
type anchor interface {
	String() string
	// histories lists those that there are notes of.
	histories(ctx context.Context, instance string) ([]history, error)
	// checkpoints returns notes of the newest checkpoints of h whose sizes are at most a given one and that accept takes,
	// at least the newest of these, in any order.
	checkpoints(ctx context.Context, h history, most int64, accept func(note string) bool) ([]string, error)
	putCheckpoint(ctx context.Context, h history, size int64, at time.Time, note string) error
	// lines returns the notes of h's lines of entries behind a number.
	lines(ctx context.Context, h history, after int64) ([]string, error)
	// lastLine is the number of the newest entry that h has a line of which accept takes, 0 for none.
	lastLine(ctx context.Context, h history, accept func(note string) bool) (int64, error)
	putLine(ctx context.Context, h history, seq int64, part int, note string) error
}
