package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
)

// Verified is what one verification of the audit log found, for those who did not run it.
type Verified struct {
	Result          string                `json:"result"` // proved, tampered, behind, not provable
	Exit            int                   `json:"exit_code"`
	Full            bool                  `json:"full"` // of every row; otherwise of those since a checkpoint
	Began           Time                  `json:"began_at"`
	Ended           Time                  `json:"ended_at"`
	Exist           int64                 `json:"rows_exist"`
	Checked         int64                 `json:"rows_checked"`
	From            int64                 `json:"from"`
	To              int64                 `json:"to"`
	First           *audit.Fault          `json:"first_bad,omitempty"`
	Faults          map[audit.Class]int64 `json:"faults"`
	Unprovable      []audit.Range         `json:"unprovable"` // the first of them
	UnprovableRows  int64                 `json:"unprovable_rows"`
	PersonalPresent int64                 `json:"personal_present"`
	PersonalErased  int64                 `json:"personal_erased"`
	Covered         *audit.Compared       `json:"covered,omitempty"`         // the largest checkpoint that agrees
	CoveredOutside  *audit.Compared       `json:"covered_outside,omitempty"` // the largest of those beyond the brain's machine
}

// Verification is a verification of the audit log that is under way.
type Verification struct {
	began      Time
	generation string
	wanted     int64
}

// BeginVerification notes of which history a verification speaks.
func (s *Store) BeginVerification(ctx context.Context) (v Verification, err error) {
	v.began = TimeOf(s.now())
	if v.generation, err = s.presentGeneration(ctx, s.read); err != nil {
		return v, err
	}
	a, err := s.AuditState(ctx)
	v.wanted = a.Wanted
	return v, err
}

// presentGeneration is the history that a table names last. It need not be proved: it only tells that nothing changed.
func (s *Store) presentGeneration(ctx context.Context, q querier) (generation string, err error) {
	rows, err := q.QueryContext(ctx, `SELECT generation FROM audit_generations ORDER BY started DESC, generation LIMIT 1`)
	list, err := collect(rows, err, func(g *string) []any { return []any{g} })
	if err != nil || len(list) == 0 {
		return "", wrap("read the newest generation", err)
	}
	return list[0], nil
}

// keptRanges is how many ranges that could not be proved are kept.
const keptRanges = 20

// VerifiedOf sums up a report.
func VerifiedOf(r *audit.Report, began, ended Time) Verified {
	v := Verified{
		Result: audit.Verdict(r.Exit()), Exit: r.Exit(), Full: r.Since == 0, Began: began, Ended: ended, Exist: r.Exist, Checked: r.Checked, From: r.From,
		To: r.To, First: r.First, Faults: r.Faults, Unprovable: r.Unprovable[:min(len(r.Unprovable), keptRanges)], UnprovableRows: r.UnprovableRows,
		PersonalPresent: r.PersonalPresent, PersonalErased: r.PersonalErased,
	}
	v.Covered, v.CoveredOutside = r.Covered()
	return v
}

// broken reports whether v found fault, and did not only lack something.
func (v *Verified) broken() bool { return v.Exit == audit.ExitTampered || v.Exit == audit.ExitBehind }

// Why says in a few words what v found.
func (v *Verified) Why() string {
	switch {
	case v.First != nil:
		return fmt.Sprintf("row %d: %s: %s", v.First.Seq, v.First.Class, v.First.Why)
	case len(v.Unprovable) > 0 && v.Unprovable[0].From > 0:
		u := v.Unprovable[0]
		return fmt.Sprintf("cannot check rows %d to %d: %s", u.From, u.To, u.Why)
	case len(v.Unprovable) > 0:
		return v.Unprovable[0].Why
	}
	return v.Result
}

// AuditState is what the verifications of the audit log found so far. It is for telling: no check passes by it, and where
// one begins is never read from it.
type AuditState struct {
	Last        *Verified `json:"last"`
	Full        *Verified `json:"full"`         // the newest of every row
	Broken      *Verified `json:"broken"`       // the newest that found fault, until one of every row finds none
	BrokenSince *Time     `json:"broken_since"` // when fault was found first

	Wanted   int64  `json:"wanted,omitempty"`   // how often somebody wanted every row to be looked at
	Looked   int64  `json:"looked,omitempty"`   // of these, what was done
	Recorded string `json:"recorded,omitempty"` // the result that the log itself tells
}

// OK reports whether no fault is known; nil before the first verification.
func (a *AuditState) OK() *bool {
	if a.Last == nil {
		return nil
	}
	ok := a.Broken == nil
	return &ok
}

// Result is what is to be said of the log: a fault goes before what could not be proved.
func (a *AuditState) Result() string {
	switch {
	case a.Broken != nil:
		return a.Broken.Result
	case a.Last == nil:
		return ""
	case a.Full != nil && a.Last.Exit == audit.ExitProved:
		return a.Full.Result
	}
	return a.Last.Result
}

// After returns the state when v was found, too. Behind a checkpoint nothing says that what is before was mended: that is
// for a verification of every row.
func (a AuditState) After(v Verified) AuditState {
	a.Last = &v
	if v.Full {
		a.Full = &v
	}
	switch {
	case v.broken():
		if a.Broken == nil {
			a.BrokenSince = &v.Ended
		}
		a.Broken = &v
	case v.Full && (a.Broken == nil || !v.leftOut(a.Broken.First)):
		a.Broken, a.BrokenSince = nil, nil
	}
	return a
}

// leftOut reports whether v could not prove the row of a fault.
func (v *Verified) leftOut(f *audit.Fault) bool {
	if v.Exit != audit.ExitUnprovable || f == nil {
		return false
	}
	for _, u := range v.Unprovable {
		if u.From <= f.Seq && f.Seq <= u.To {
			return true
		}
	}
	return v.UnprovableRows > 0 && len(v.Unprovable) == keptRanges
}

// Due reports whether the log is to be verified at now, and whether in full: daily, or weekly from ten million rows on,
// every time while it is broken, whenever somebody found fault, and after a start, which is unseen until every row was looked
// at since. Of ten million rows a start wants that daily at most.
func (a *AuditState) Due(now time.Time, interval time.Duration, rows int64, unseen bool) (due, full bool) {
	const day, many = 24 * time.Hour, 10_000_000
	past := func(v *Verified, d time.Duration) bool {
		return v == nil || now.Sub(v.Ended.Time) >= d || now.Before(v.Ended.Time)
	}
	most := day
	if rows >= many {
		most = 7 * day
	}
	if a.Wanted > a.Looked || unseen && (rows < many || past(a.Full, day)) {
		return true, true
	}
	due = past(a.Last, interval)
	return due, due && (past(a.Full, most) || a.Broken != nil && rows < many)
}

// Seen reports whether a verification of every row ended since a was read as before.
func (a *AuditState) Seen(before *AuditState) bool {
	return a.Full != nil && (before.Full == nil || !a.Full.Ended.Equal(before.Full.Ended.Time))
}

const auditStateKey = "audit_verification"

// AuditState returns what the verifications of any brain on this database found; the zero AuditState before the first.
func (s *Store) AuditState(ctx context.Context) (a AuditState, err error) {
	text, err := s.Meta(ctx, auditStateKey)
	if errors.Is(err, ErrNotFound) {
		return a, nil
	}
	if err != nil {
		return a, err
	}
	return auditStateOf(text), nil
}

func auditStateOf(text string) (a AuditState) {
	if json.Unmarshal([]byte(text), &a) != nil {
		return AuditState{} // somebody else wrote it: nothing is known, which the next verification mends
	}
	return a
}

// EndVerification keeps what v found for every brain on this database, and returns what was known before and is now. A
// verification of a history that ended while it was under way tells nothing, and is not kept: kept is false.
func (s *Store) EndVerification(ctx context.Context, v Verification, r *audit.Report) (was, is AuditState, kept bool, err error) {
	err = s.changeAuditState(ctx, func(tx *Tx, a AuditState) (AuditState, error) {
		present, err := s.presentGeneration(ctx, tx)
		was, is, kept = a, a, present == v.generation
		if kept {
			is = a.After(VerifiedOf(r, v.began, TimeOf(s.now())))
		}
		if kept && is.Last.Full {
			is.Looked = max(is.Looked, v.wanted)
		}
		return is, err
	})
	return was, is, kept, err
}

// WantVerification makes a verification of every row due at once, because somebody found fault.
func (s *Store) WantVerification(ctx context.Context) error {
	return s.changeAuditState(ctx, func(_ *Tx, a AuditState) (AuditState, error) {
		a.Wanted++
		return a, nil
	})
}

// AuditTurnRecorded notes which result the log itself tells.
func (s *Store) AuditTurnRecorded(ctx context.Context, result string) error {
	return s.changeAuditState(ctx, func(_ *Tx, a AuditState) (AuditState, error) {
		a.Recorded = result
		return a, nil
	})
}

// changeAuditState changes what is known, one after the other.
func (s *Store) changeAuditState(ctx context.Context, change func(*Tx, AuditState) (AuditState, error)) error {
	err := s.transact(ctx, func(tx *Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO meta (key, value, updated_at) VALUES ($1, '{}', $2)
			ON CONFLICT (key) DO UPDATE SET updated_at = excluded.updated_at`, auditStateKey, tx.now) // locks it
		if err != nil {
			return err
		}
		text, err := tx.metaText(auditStateKey)(ctx)
		if err != nil {
			return err
		}
		next, err := change(tx, auditStateOf(text))
		if err != nil {
			return err
		}
		return tx.putMeta(ctx, auditStateKey, next)
	})
	return wrap("keep the state of the audit log", err)
}

// forgetAuditState drops what verifications found: it was of another history.
func (tx *Tx) forgetAuditState(ctx context.Context) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM meta WHERE key = $1`, auditStateKey)
	return wrap("forget the state of the audit log", err)
}

// AuditSize returns how many rows the audit log has, holes included.
func (s *Store) AuditSize(ctx context.Context) (n int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT coalesce((SELECT max(seq) FROM audit_log) - (SELECT min(seq) FROM audit_log) + 1, 0)`).Scan(&n)
	return n, wrap("size of the audit log", err)
}

// AuditKID is a key that the audit log introduced.
type AuditKID struct {
	KID        string `json:"kid"`
	PublicKey  string `json:"public_key"`
	Introduced int64  `json:"introduced"` // number of the entry
	Retired    *int64 `json:"retired"`    // nil: it signs
	Given      bool   `json:"given"`      // its secret is configured
}

// AuditKIDs lists the keys that the audit log introduced, the oldest first. Public keys of given secrets are derived from
// them; those of others are what a table says.
func (s *Store) AuditKIDs(ctx context.Context) ([]AuditKID, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT kid, public_key, introduced, retired FROM audit_kids ORDER BY introduced, kid`)
	list, err := collect(rows, err, func(k *AuditKID) []any { return []any{&k.KID, &k.PublicKey, &k.Introduced, &k.Retired} })
	for i := range list {
		for _, k := range s.chain.given() {
			if k.KID() == list[i].KID {
				list[i].Given, list[i].PublicKey = true, k.PublicKey()
			}
		}
	}
	return list, wrap("list audit keys", err)
}
