package store

import (
	"fmt"

	"github.com/z4j-go/z4j/internal/fold"
)

// stateName scans a state's number as its name.
type stateName struct{ to *string }

// Scan implements sql.Scanner.
func (n stateName) Scan(src any) error {
	state, ok := src.(int64)
	if !ok {
		return fmt.Errorf("store: cannot read a state from %T", src)
	}
	*n.to = fold.State(state).String()
	return nil
}

// rareState reports whether tasks in a state have an index of their own.
func rareState(state fold.State) bool {
	switch state {
	case fold.StateFailure, fold.StateRetry, fold.StateRevoked, fold.StateRejected, fold.StateLost:
		return true
	default:
		return false
	}
}

// ParseState reads the name of a task's state.
func ParseState(name string) (fold.State, bool) { return fold.ParseState(name) }

// StateNames are the names of the states of a task.
func StateNames() []string {
	var names []string
	for state := fold.StateUnknown; state <= fold.StateLost; state++ {
		names = append(names, state.String())
	}
	return names
}
