package backup_test

import (
	"context"
	"errors"
	"testing"

	"github.com/z4j-go/z4j/internal/backup"
)

func TestASlowKeyIsNotWaitedFor(t *testing.T) {
	reason := errors.New("the brain stops")
	ctx, cancel := context.WithCancelCause(t.Context())
	begun, end := make(chan struct{}), make(chan struct{})
	defer close(end)
	go func() {
		<-begun
		cancel(reason)
	}()
	_, err := backup.UntilDone(ctx, func() (int, error) {
		close(begun)
		<-end
		return 1, nil
	})
	if !errors.Is(err, reason) {
		t.Errorf("a key that takes forever, and the brain stops: %v, want %v", err, reason)
	}
	n, err := backup.UntilDone(t.Context(), func() (int, error) { return 2, nil })
	if n != 2 || err != nil {
		t.Errorf("a key that was worked out: %d, %v, want 2", n, err)
	}
}
