package backup

import "context"

// UntilDone is untilDone.
func UntilDone[T any](ctx context.Context, f func() (T, error)) (T, error) { return untilDone(ctx, f) }
