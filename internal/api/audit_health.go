package api

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/z4j-go/z4j/internal/store"
)

const (
	auditFresh    = 5 * time.Second         // how long a try's outcome is good for
	auditDeadline = 1500 * time.Millisecond // of a try
)

// What health says of the audit log, without which no change is made.
const (
	auditOK     = "ok"
	auditFailed = "failed"
)

// AuditHealth knows whether the audit log takes entries. Make one with NewAuditHealth.
type AuditHealth struct {
	store *store.Store
	log   *slog.Logger
	now   func() time.Time

	trying sync.Mutex // held by whoever tries
	mu     sync.Mutex // of what follows
	at     time.Time  // of the newest try; zero: there was none
	err    error      // its outcome
}

// NewAuditHealth returns an AuditHealth of a database.
func NewAuditHealth(s *store.Store, log *slog.Logger, now func() time.Time) *AuditHealth {
	return &AuditHealth{store: s, log: log, now: now}
}

// Try does what a change does to the audit log and takes it back, unless that was done a moment ago or is being done:
// then it answers what is known. It takes little more than a second where the database does not answer.
func (h *AuditHealth) Try(ctx context.Context) error {
	if !h.stale() || !h.trying.TryLock() {
		return h.Err()
	}
	defer h.trying.Unlock()
	if !h.stale() {
		return h.Err()
	}
	limit, cancel := context.WithTimeout(ctx, auditDeadline)
	defer cancel()
	err := h.store.TryAudit(limit)
	if ctx.Err() != nil {
		return h.Err() // who asked has left: that says nothing of the log
	}
	h.mu.Lock()
	was := h.err
	h.at, h.err = h.now(), err
	h.mu.Unlock()
	switch {
	case err != nil && was == nil:
		h.log.WarnContext(ctx, "audit log takes no entry, so that no change is made", "err", err)
	case err == nil && was != nil:
		h.log.InfoContext(ctx, "audit log takes entries again")
	}
	return h.Err()
}

func (h *AuditHealth) stale() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	age := h.now().Sub(h.at)
	return h.at.IsZero() || age < 0 || age >= auditFresh
}

// Err returns why changes are not made, as far as it is known; it asks nobody.
func (h *AuditHealth) Err() error {
	if err := h.store.AuditErr(); err != nil {
		return err // a change may have met it since the try
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// describe fills the audit fields of health from an error of Err or Try.
func (s *status) describe(err error) {
	if err == nil {
		s.Audit = auditOK
		return
	}
	s.Audit, s.Detail = auditFailed, "the audit log takes no entry or the database is too busy, so that no change is made; the log of the brain says more"
	if p := unavailable(err); p != nil && (errors.Is(err, store.ErrHistoryInDoubt) || errors.Is(err, store.ErrAuditKeyUnknown)) {
		s.Audit, s.Detail = p.code, p.message
	}
}
