package fold

import "strconv"

var kindNames = [...]string{
	Sent: "task.sent", Received: "task.received", Started: "task.started", Failed: "task.failed",
	Retried: "task.retried", Rejected: "task.rejected", Succeeded: "task.succeeded", Revoked: "task.revoked",
}

// ParseKind reads the name of an event's kind, "task.sent" and its like.
func ParseKind(s string) (Kind, bool) {
	for k := Sent; k <= Revoked; k++ {
		if kindNames[k] == s {
			return k, true
		}
	}
	return 0, false
}

// String returns the name of the event's kind.
func (k Kind) String() string {
	if k < Sent || k > Revoked {
		return "kind " + strconv.Itoa(int(k))
	}
	return kindNames[k]
}

// isEnd reports whether k ends an attempt for real.
func (k Kind) isEnd() bool { return k >= Failed && k <= Succeeded }

// outcome is the state that a real end of kind k gives.
func (k Kind) outcome() State {
	switch k {
	case Failed:
		return StateFailure
	case Retried:
		return StateRetry
	case Rejected:
		return StateRejected
	case Succeeded:
		return StateSuccess
	case Revoked:
		return StateRevoked
	default:
		return StateUnknown
	}
}

var stateNames = [...]string{
	StateUnknown: "unknown", StatePending: "pending", StateReceived: "received", StateStarted: "started",
	StateSuccess: "success", StateFailure: "failure", StateRetry: "retry", StateRevoked: "revoked",
	StateRejected: "rejected", StateLost: "lost",
}

// ParseState reads a state's name.
func ParseState(s string) (State, bool) {
	for i, name := range stateNames {
		if name == s {
			return State(i), true
		}
	}
	return StateUnknown, false
}

// String returns the state's name.
func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return "state " + strconv.Itoa(int(s))
	}
	return stateNames[s]
}

// Final reports whether nothing more is awaited in the state: success, failure, rejected and revoked.
func (s State) Final() bool {
	return s == StateSuccess || s == StateFailure || s == StateRejected || s == StateRevoked
}

var reasonNames = [...]string{
	NoReason: "", ReasonRevoked: "revoked", ReasonTerminated: "terminated", ReasonExpired: "expired",
	ReasonStopped: "worker stopped", ReasonRestarted: "worker restarted", ReasonSilent: "worker silent",
	ReasonNotRunning: "not running", ReasonLaterEnded: "later attempt ended", ReasonLaterWon: "later attempt succeeded",
	ReasonBeyondBound: "too many events",
}

// String returns the reason in words, "" for none.
func (r Reason) String() string {
	if int(r) >= len(reasonNames) {
		return "reason " + strconv.Itoa(int(r))
	}
	return reasonNames[r]
}

var remarkNames = [...]string{RemarkCopy: "copy", RemarkHearsay: "hearsay", RemarkWeak: "without effect"}

// String returns the remark in words.
func (r Remark) String() string {
	if int(r) >= len(remarkNames) {
		return "remark " + strconv.Itoa(int(r))
	}
	return remarkNames[r]
}
