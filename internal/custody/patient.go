package custody

import (
	"context"
	"fmt"
	"time"
)

// patient is a directory that is asked like a server: whoever asks waits for a time, since a directory that is mounted from
// elsewhere may hang, and with it, until it comes back, one goroutine.
type patient struct {
	*fileAnchor

	turn chan struct{}
}

func newPatient(a *fileAnchor) *patient { return &patient{a, make(chan struct{}, 1)} }

// within does do in a goroutine that is left behind when time is up.
func within[T any](ctx context.Context, a *patient, do func() (T, error)) (out T, err error) {
	ctx, cancel := context.WithTimeout(ctx, reach)
	defer cancel()
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return out, fmt.Errorf("anchor %s hangs: %w", a.dir, ctx.Err())
	}
	type answer struct {
		out T
		err error
	}
	done := make(chan answer, 1)
	go func() {
		defer func() { <-a.turn }()
		out, err := do()
		done <- answer{out, err}
	}()
	select {
	case got := <-done:
		return got.out, got.err
	case <-ctx.Done():
		return out, fmt.Errorf("anchor %s does not answer: %w", a.dir, ctx.Err())
	}
}

func (a *patient) histories(ctx context.Context, instance string) ([]history, error) {
	return within(ctx, a, func() ([]history, error) { return a.fileAnchor.histories(ctx, instance) })
}

func (a *patient) checkpoints(ctx context.Context, h history, most int64, accept func(string) bool) ([]string, error) {
	return within(ctx, a, func() ([]string, error) { return a.fileAnchor.checkpoints(ctx, h, most, accept) })
}

func (a *patient) putCheckpoint(ctx context.Context, h history, size int64, at time.Time, note string) error {
	_, err := within(ctx, a, func() (struct{}, error) { return struct{}{}, a.fileAnchor.putCheckpoint(ctx, h, size, at, note) })
	return err
}

func (a *patient) lines(ctx context.Context, h history, after int64) ([]string, error) {
	return within(ctx, a, func() ([]string, error) { return a.fileAnchor.lines(ctx, h, after) })
}

func (a *patient) lastLine(ctx context.Context, h history, accept func(string) bool) (int64, error) {
	return within(ctx, a, func() (int64, error) { return a.fileAnchor.lastLine(ctx, h, accept) })
}

func (a *patient) putLine(ctx context.Context, h history, seq int64, part int, note string) error {
	_, err := within(ctx, a, func() (struct{}, error) { return struct{}{}, a.fileAnchor.putLine(ctx, h, seq, part, note) })
	return err
}

// onVolume is sameVolume of the directory and another path.
func (a *patient) onVolume(ctx context.Context, path string) (same, known bool) {
	type answer struct{ same, known bool }
	got, err := within(ctx, a, func() (answer, error) {
		same, known := sameVolume(a.dir, path)
		return answer{same, known}, nil
	})
	return got.same, got.known && err == nil
}
