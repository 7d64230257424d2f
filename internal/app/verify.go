package app

import (
	"context"
	"errors"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/jobs"
	"github.com/z4j-go/z4j/internal/metrics"
	"github.com/z4j-go/z4j/internal/store"
)

const (
	// verifyLook is how often it is asked whether a verification is due: another process may have done the last, or found fault.
	verifyLook = 15 * time.Second

	// verifyRest is after each page of a thousand rows: a hundred thousand a second are looked at at most.
	verifyRest = 10 * time.Millisecond
)

// verifications are the jobs that verify the audit log, on one brain at a time, and that tell every brain what was found.
func (b *Brain) verifications() []jobs.Job {
	list := []jobs.Job{{Name: "audit_state", Every: 15 * time.Second, Local: true, Run: b.audit.Refresh}}
	interval := b.Config.Audit.VerifyInterval
	if interval == 0 {
		return list
	}
	return append(list, jobs.Job{Name: "audit_verify", Every: min(interval, verifyLook), Run: b.verifyAudit})
}

// verifyAudit verifies the audit log if that is due. Nothing waits for it, and whatever it finds stops nothing.
func (b *Brain) verifyAudit(ctx context.Context) error {
	state, err := b.Store.AuditState(ctx)
	if err != nil {
		return err
	}
	rows, err := b.Store.AuditSize(ctx)
	if err != nil {
		return err
	}
	due, full := state.Due(b.Now(), b.Config.Audit.VerifyInterval, rows, !state.Seen(&b.verified))
	if !due {
		return nil
	}
	began, err := b.Store.BeginVerification(ctx)
	if err != nil {
		return err
	}
	witnesses, err := b.custody.Witnesses(ctx)
	if err != nil {
		return err
	}
	report, err := b.Store.VerifyAudit(ctx, store.VerifyOptions{SinceLast: !full, Workers: 1, Rest: verifyRest, Witnesses: witnesses})
	if err != nil {
		return err
	}
	_, is, kept, err := b.Store.EndVerification(ctx, began, &report)
	if err != nil || !kept {
		return err
	}
	b.tellVerified(ctx, &is)
	return b.audit.Refresh(ctx)
}

// tellVerified logs what the newest verification found, and records when that turned. A log that takes no entry is told
// by health already.
func (b *Brain) tellVerified(ctx context.Context, is *store.AuditState) {
	v := is.Last
	took := v.Ended.Sub(v.Began.Time)
	switch {
	case is.Broken != nil:
		b.Log.ErrorContext(ctx, "audit log is broken", "result", is.Broken.Result, "why", is.Broken.Why(), "since", is.BrokenSince.String(), "took", took)
	case v.Exit != audit.ExitProved:
		b.Log.WarnContext(ctx, "audit log is not provable", "why", v.Why(), "rows", v.UnprovableRows, "took", took)
	default:
		b.Log.DebugContext(ctx, "audit log verified", "from", v.From, "to", v.To, "full", v.Full, "took", took)
	}
	before, after := is.Recorded, is.Result() // what a command found is recorded here, too
	if before == after {
		return
	}
	err := b.recordTurn(ctx, before, is)
	if err == nil {
		err = b.Store.AuditTurnRecorded(ctx, after)
	}
	if err != nil {
		b.Log.WarnContext(ctx, "turn of the audit log not recorded", "before", before, "after", after, "err", err)
	}
}

// recordTurn records what is found now, but for a log that is proved as it was from the beginning.
func (b *Brain) recordTurn(ctx context.Context, before string, is *store.AuditState) error {
	if before == "" && is.Result() == audit.Verdict(audit.ExitProved) {
		return nil
	}
	return b.Store.Update(ctx, func(tx *store.Tx) error {
		tx.Record(turned(before, is))
		return nil
	})
}

// turned is the entry that says that the verifications find something else than before.
func turned(before string, is *store.AuditState) audit.Entry {
	v, outcome := is.Last, audit.Failed
	if is.Broken != nil {
		v = is.Broken
	}
	if is.Result() == audit.Verdict(audit.ExitProved) {
		outcome = audit.Allow
	}
	details := map[string]any{
		"result": is.Result(), "previous": before, "full": v.Full, "from": v.From, "to": v.To, "rows": v.Checked, "why": v.Why(),
	}
	if v.First != nil {
		details["first_bad"], details["class"] = v.First.Seq, string(v.First.Class)
	}
	return audit.New(audit.Facts{Action: audit.VerificationTurned, Outcome: outcome, Actor: audit.Actor{Kind: audit.System}, Details: details})
}

// auditChain is what the metrics say of the audit log.
func (b *Brain) auditChain() (metrics.AuditChain, bool) {
	a := b.audit.State()
	if a.Last == nil {
		return metrics.AuditChain{}, false
	}
	out := metrics.AuditChain{OK: *a.OK(), VerifiedSeq: a.Last.To, VerifiedAt: a.Last.Ended.Time, Took: a.Last.Ended.Sub(a.Last.Began.Time)}
	if a.Full != nil {
		out.Unproved = a.Full.UnprovableRows
	}
	return out, true
}

// KeepVerified keeps what a command found for the brains on the database, which tell it. A fault makes them look for themselves
// at once. What did not look at every row as a brain does, which is as says, tells only that.
func KeepVerified(ctx context.Context, s *store.Store, v store.Verification, r *audit.Report, as bool) error {
	code := r.Exit()
	if errors.Is(s.AuditErr(), store.ErrAuditKeyUnknown) && code == audit.ExitUnprovable {
		return nil // it is the command that lacks a secret
	}
	if as {
		if _, _, _, err := s.EndVerification(ctx, v, r); err != nil {
			return err
		}
	}
	if code == audit.ExitTampered || as && code == audit.ExitBehind {
		return s.WantVerification(ctx)
	}
	return nil
}
