package backup

import (
	"context"

	"filippo.io/age"
)

// sealer is a recipient that is a function: it wraps the key of a file.
type sealer func(fileKey []byte) (wrapped, error)

type wrapped struct {
	stanzas []*age.Stanza
	labels  []string
}

// Wrap is age's.
func (s sealer) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	w, err := s(fileKey)
	return w.stanzas, err
}

// WrapWithLabels is age's: the label keeps a passphrase from standing beside other recipients.
func (s sealer) WrapWithLabels(fileKey []byte) (stanzas []*age.Stanza, labels []string, err error) {
	w, err := s(fileKey)
	return w.stanzas, w.labels, err
}

// passphraseSealer encrypts to the passphrase until ctx ends.
func passphraseSealer(ctx context.Context, passphrase string) (age.Recipient, error) {
	to, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, err
	}
	return sealer(func(fileKey []byte) (wrapped, error) {
		return untilDone(ctx, func() (wrapped, error) {
			stanzas, labels, err := to.WrapWithLabels(fileKey)
			return wrapped{stanzas, labels}, err
		})
	}), nil
}

// untilDone waits for f, or for the end of ctx and leaves f to end by itself. A key of a passphrase takes a second of a
// good processor and many of a busy one, which nothing interrupts: a brain that stops does not wait for it.
func untilDone[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		value, err := f()
		answers <- answer{value, err}
	}()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
		return *new(T), context.Cause(ctx)
	}
}
