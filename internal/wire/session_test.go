package wire_test

import (
	"errors"
	"slices"
)

func isOneOf(err error, want []error) bool {
	return slices.ContainsFunc(want, func(w error) bool { return errors.Is(err, w) })
}
