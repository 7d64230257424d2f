package api

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
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
	state  store.AuditState
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
	if held := (*store.HeldError)(nil); errors.As(h.err, &held) {
		return nil // it ended since the try: the store knows of none
	}
	return h.err
}

// Refresh reads what the verifications of any brain found, and tells the log when that is news to this one: it is how a
// start says that the audit log is broken, and since when.
func (h *AuditHealth) Refresh(ctx context.Context) error {
	state, err := h.store.AuditState(ctx)
	if err != nil {
		return err
	}
	h.mu.Lock()
	was := h.state
	h.state = state
	h.mu.Unlock()
	switch {
	case state.Broken != nil && was.Broken == nil:
		h.log.ErrorContext(ctx, "audit log is broken", "result", state.Broken.Result, "why", state.Broken.Why(), "since", state.BrokenSince.String())
	case state.Last == nil && was.Last != nil:
		h.log.InfoContext(ctx, "another history of the audit log began, which no verification has looked at yet")
	case state.Broken == nil && was.Broken != nil:
		h.log.InfoContext(ctx, "audit log is whole again")
	}
	return nil
}

// State returns what the verifications found, as far as this brain knows.
func (h *AuditHealth) State() store.AuditState {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state
}

// Chain is what health says of verifications.
type Chain struct {
	OK          *bool         `json:"audit_chain_ok" doc:"false when a verification found the audit log tampered with or behind an anchor; null before the first"`
	Broken      string        `json:"audit_chain_detail,omitempty" doc:"what is broken"`
	BrokenSince *store.Time   `json:"audit_broken_since,omitempty"`
	Unproved    []audit.Range `json:"audit_unproved,omitempty" doc:"the first ranges of rows that could not be proved, and why; no fault"`
	VerifiedAt  *store.Time   `json:"audit_verified_at,omitempty"`
	VerifiedSeq int64         `json:"audit_verified_seq,omitempty" doc:"number of the last row that was looked at"`
}

// chainOf says what is known of the log. Ranges that could not be proved are those of the newest walk over every row.
func chainOf(a *store.AuditState) Chain {
	out := Chain{OK: a.OK(), BrokenSince: a.BrokenSince}
	if a.Broken != nil {
		out.Broken = a.Broken.Why()
	}
	if a.Last != nil {
		out.VerifiedAt, out.VerifiedSeq, out.Unproved = &a.Last.Ended, a.Last.To, a.Last.Unprovable
	}
	if a.Full != nil {
		out.Unproved = a.Full.Unprovable
	}
	return out
}

type auditStatus struct {
	OK          *bool           `json:"chain_ok"`
	Result      string          `json:"result" doc:"proved, tampered, behind, not provable; empty before the first verification"`
	Changes     string          `json:"changes" enum:"ok,history_in_doubt,audit_key_unknown,failed" doc:"whether changes can be made"`
	Detail      string          `json:"changes_detail,omitempty"`
	BrokenSince *store.Time     `json:"broken_since,omitempty"`
	Broken      *store.Verified `json:"broken,omitempty" doc:"the newest verification that found fault, until one of every row finds none"`
	Last        *store.Verified `json:"last,omitempty"`
	Full        *store.Verified `json:"full,omitempty" doc:"the newest verification of every row"`
	Interval    int64           `json:"interval_seconds" doc:"between two verifications; 0 is off"`
}

// showAuditStatus says what the verifications found. It asks the database: another brain may have found it just now.
func (s *Server) showAuditStatus(ctx context.Context, _ *struct{}) (*reply[auditStatus], error) {
	if err := s.Audit.Refresh(ctx); err != nil {
		return nil, err
	}
	a := s.Audit.State()
	var changes status
	changes.describe(s.Audit.Err())
	return &reply[auditStatus]{auditStatus{
		OK: a.OK(), Result: a.Result(), Changes: changes.Audit, Detail: changes.Detail, BrokenSince: a.BrokenSince, Broken: a.Broken, Last: a.Last, Full: a.Full,
		Interval: int64(s.Settings.VerifyInterval / time.Second),
	}}, nil
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
