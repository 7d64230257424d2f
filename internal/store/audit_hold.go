package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/z4j-go/z4j/internal/audit"
)

// acknowledge is how somebody ends a hold.
const acknowledge = "`z4j-brain audit acknowledge-rollback --reason …`"

// Hold says that the history is in doubt: the database was rolled back, and nobody has said yet what shall hold. Every
// replica sees it. Reads, ingest and what the catalogue marks as Held go on.
type Hold struct {
	Since       Time   `json:"since"`
	Reason      string `json:"reason"`
	Entry       int64  `json:"entry_seq"` // the audit.history_in_doubt; 0: none could be written
	LostSeq     int64  `json:"lost_seq"`  // an entry that is gone; 0: none is known by number
	LostRowHMAC string `json:"lost_row_hmac"`
	LostTS      *Time  `json:"lost_ts"`
	Fork        *int64 `json:"fork"` // up to here both histories agree; nil: unknown
}

// HeldError is an ErrHistoryInDoubt that says why and what to do.
type HeldError struct{ Hold Hold }

// Unwrap makes it ErrHistoryInDoubt.
func (e *HeldError) Unwrap() error { return ErrHistoryInDoubt }

func (e *HeldError) Error() string {
	return fmt.Sprintf("%v since %s: %s. Changes wait until you have found out what happened to the database; then run %s", ErrHistoryInDoubt, e.Hold.Since, e.Hold.Reason, acknowledge)
}

const holdColumns = `since, reason, coalesce(entry_seq, 0), coalesce(lost_seq, 0), coalesce(lost_row_hmac, ''), lost_ts, fork`

func (h *Hold) fields() []any {
	return []any{&h.Since, &h.Reason, &h.Entry, &h.LostSeq, &h.LostRowHMAC, &h.LostTS, &h.Fork}
}

// Hold returns the hold that stands, nil if none does. One whose row was taken away stands as long as the chain does not
// say that it ended.
func (s *Store) Hold(ctx context.Context) (*Hold, error) { return s.hold(ctx, s.read) }

func (s *Store) hold(ctx context.Context, q querier) (*Hold, error) {
	rows, err := q.QueryContext(ctx, `SELECT `+holdColumns+` FROM audit_hold`)
	found, err := collect(rows, err, (*Hold).fields)
	if err != nil {
		return nil, wrap("read hold", err)
	}
	if len(found) > 0 {
		return &found[0], nil
	}
	return s.doubted(ctx, q)
}

// doubted returns the hold that the chain tells of: its newest proved entry about doubt is one that begins it.
func (s *Store) doubted(ctx context.Context, q querier) (*Hold, error) {
	var newest audit.Row
	for _, action := range []audit.Action{audit.HistoryInDoubt, audit.GenerationStarted, audit.SystemRestored} {
		r, err := s.newestProved(ctx, q, action) // of all three at once a database might look through the whole log
		if err != nil {
			return nil, wrap("read the entries about doubt", err)
		}
		if r.Seq > newest.Seq {
			newest = r
		}
	}
	if newest.Action != string(audit.HistoryInDoubt) {
		return nil, nil //nolint:nilnil // no hold is no error.
	}
	return holdOf(&newest), nil
}

// holdOf reads the hold from the entry that began it.
func holdOf(r *audit.Row) *Hold {
	var d struct {
		Reason      string `json:"reason"`
		LostSeq     int64  `json:"lost_seq"`
		LostRowHMAC string `json:"lost_row_hmac"`
		Fork        *int64 `json:"fork"`
	}
	_ = json.Unmarshal([]byte(r.Details.S), &d) // it is proved; what it does not say is unknown
	return &Hold{Since: TimeAt(r.TS), Reason: d.Reason, Entry: r.Seq, LostSeq: d.LostSeq, LostRowHMAC: d.LostRowHMAC, Fork: d.Fork}
}

// proved returns what r says if one of the keys at hand signed it.
func (s *Store) proved(r *audit.Row) (audit.Body, bool) {
	for _, k := range s.chain.given() {
		if body, ok := authentic(r, k); ok {
			return body, true
		}
	}
	return audit.Body{}, false
}

// readHold finds out whether a hold stands and remembers it; a row that is gone is put back.
func (s *Store) readHold(ctx context.Context, q querier) error {
	h, err := s.hold(ctx, q)
	if err != nil {
		return err
	}
	s.chain.mu.Lock()
	defer s.chain.mu.Unlock()
	s.chain.held = nil
	if h != nil {
		s.chain.held = &HeldError{Hold: *h}
	}
	return nil
}

// SeeHold notices a hold that another process began or ended.
func (s *Store) SeeHold(ctx context.Context) error {
	var stands bool
	if err := s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM audit_hold)`).Scan(&stands); err != nil {
		return wrap("look for a hold", err)
	}
	s.chain.mu.Lock()
	known := s.chain.held != nil
	s.chain.mu.Unlock()
	if stands == known {
		return nil
	}
	return s.readHold(ctx, s.read)
}

// heldBy returns why entries can't be appended behind h, nil if they can. What this process knows of a hold follows what
// the database says; that it ended only the chain can say.
func (s *Store) heldBy(ctx context.Context, tx *Tx, h head, a *appending) error {
	s.chain.mu.Lock()
	known := s.chain.held != nil
	s.chain.mu.Unlock()
	if h.held != known {
		if err := s.readHold(ctx, tx); err != nil {
			return err
		}
	}
	s.chain.mu.Lock()
	held := s.chain.held
	s.chain.mu.Unlock()
	if held == nil || a.doubted {
		return nil
	}
	for _, e := range a.entries(h) {
		if !e.Held() {
			return held
		}
	}
	return nil
}

// Doubt is what somebody found that says that the database was rolled back.
type Doubt struct {
	Cause       string // rolled_back, restored, unnamed_generation, lost_entries, wiped
	Reason      string // a sentence for people
	LostSeq     int64  // the newest entry that is known to be gone; 0: none
	LostRowHMAC string
	LostTS      int64 // µs
	Count       int64 // how many are known to be gone
	Fork        int64 // both histories agree up to here; below 0: unknown
	Anchor      string
	AnchorSize  int64
	AnchorRoot  string // hexadecimal
}

func (d *Doubt) facts(h head) audit.Facts {
	details := map[string]any{
		"cause": d.Cause, "reason": d.Reason, "lost_seq": d.LostSeq, "lost_row_hmac": d.LostRowHMAC, "head_seq": h.seq, "head_row_hmac": h.rowHMAC,
		"timeline": h.timeline, "count": d.Count,
	}
	if d.LostTS != 0 {
		details["lost_ts"] = TimeAt(d.LostTS).Time
	}
	if d.Fork >= 0 {
		details["fork"] = min(d.Fork, h.seq)
	}
	if d.Anchor != "" {
		details["anchor"], details["anchor_size"], details["anchor_root"] = d.Anchor, d.AnchorSize, d.AnchorRoot
	}
	return audit.Facts{Action: audit.HistoryInDoubt, Outcome: audit.Failed, Actor: audit.Actor{Kind: audit.System}, Details: details}
}

// PutHold begins a hold, for every replica, and records it. One that stands goes on, and its fork falls where d knows less
// to agree. The process forgets what it saw before: what it remembers from now on is the history in doubt.
func (s *Store) PutHold(ctx context.Context, d Doubt) error {
	ctx = context.WithoutCancel(ctx) // whoever asked may be gone; the record must not be
	stands, err := s.Hold(ctx)
	if err != nil {
		return err
	}
	a := appending{key: s.chain.signer(), doubted: true, anew: true}
	entry := int64(0)
	a.entries = func(h head) []audit.Entry {
		d.Fork = min(d.Fork, h.seq) // none agrees with another beyond its own head
		if stands != nil {
			if entry = stands.Entry; entry > 0 {
				d.Fork = min(d.Fork, entry-1)
			}
			return nil
		}
		return []audit.Entry{audit.New(d.facts(h))}
	}
	a.also = func(tx *Tx, rows []sealed) error {
		if len(rows) > 0 {
			entry = rows[len(rows)-1].row.Seq
		}
		return tx.putHold(ctx, &d, entry)
	}
	err = s.beginIfWiped(ctx, &a)
	if err == nil {
		err = s.system(ctx, a)
	}
	if errors.Is(err, ErrAuditKeyUnknown) { // nothing can be recorded, and what matters is that changes stop
		err = s.transact(ctx, func(tx *Tx) error { return tx.putHold(ctx, &d, 0) })
	}
	if err != nil {
		return fmt.Errorf("hold: %w", err)
	}
	s.log.ErrorContext(ctx, "history in doubt", "cause", d.Cause, "reason", d.Reason, "lost_seq", d.LostSeq, "lost_entries", d.Count)
	return s.readHold(ctx, s.read)
}

func (tx *Tx) putHold(ctx context.Context, d *Doubt, entry int64) error {
	var lost, fork, seq, mac, ts any
	if d.LostSeq > 0 {
		lost, mac = d.LostSeq, d.LostRowHMAC
	}
	if d.LostTS != 0 {
		ts = TimeAt(d.LostTS)
	}
	if d.Fork >= 0 {
		fork = d.Fork
	}
	if entry > 0 {
		seq = entry
	}
	_, err := tx.ExecContext(ctx, `
		INSERT INTO audit_hold (id, since, reason, entry_seq, lost_seq, lost_row_hmac, lost_ts, fork) VALUES (1, $1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (id) DO UPDATE SET fork = excluded.fork, lost_seq = excluded.lost_seq, lost_row_hmac = excluded.lost_row_hmac, lost_ts = excluded.lost_ts
		WHERE excluded.fork < audit_hold.fork`, tx.now, d.Reason, seq, lost, mac, ts, fork)
	return wrap("put hold", err)
}
