package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/z4j-go/z4j/internal/audit"
)

// lostHistory says which entry that this process saw committed is gone. It is an ErrHistoryInDoubt.
type lostHistory struct {
	seen  seenEntry
	head  head
	lost  int   // how many of the entries that this process saw are gone
	first int64 // µs: the time of the first of them
	all   bool  // all that it remembers are gone, perhaps more
}

func (e *lostHistory) Unwrap() error { return ErrHistoryInDoubt }

func (e *lostHistory) Error() string {
	text := fmt.Sprintf("%v: the audit log does not hold entry %d of %s any more, which was committed; its head is entry %d", ErrHistoryInDoubt, e.seen.seq, TimeAt(e.seen.ts), e.head.seq)
	if e.lost > 0 {
		least := ""
		if e.all {
			least = "at least "
		}
		text += fmt.Sprintf("; %s%d entries since %s are gone", least, e.lost, TimeAt(e.first))
	}
	return text + ". The database was rolled back: restored, failed over, or tampered with. No change is made until you have found out which; " +
		"then restart z4j-brain, which ends the doubt (`z4j-brain audit acknowledge-rollback` does not exist yet)"
}

func inserted(n int64) error {
	if n == 1 {
		return nil
	}
	return fmt.Errorf("the database took the row and wrote %d", n)
}

// pruned reports whether the entry that is not there was exported and deleted, which only an authentic audit.pruned can
// say: a table alone proves nothing.
func (s *Store) pruned(ctx context.Context, tx *Tx, e seenEntry, h head) (bool, error) {
	if h.seenHMAC != "" || e.seq > h.through {
		return false, nil
	}
	b, err := s.boundary(ctx, tx)
	return b.Through >= e.seq, err
}

// doubt stops audited changes of this process because of lost, and records it once. Its own transaction is over.
func (s *Store) doubt(ctx context.Context, lost *lostHistory) error {
	ctx = context.WithoutCancel(ctx) // whoever asked may be gone; the record must not be
	s.chain.doubting.Lock()
	defer s.chain.doubting.Unlock()
	s.chain.mu.Lock()
	doubt, seen := s.chain.doubt, slices.Clone(s.chain.seen)
	s.chain.mu.Unlock()
	if doubt != nil {
		return doubt
	}
	if err := s.measureLoss(ctx, lost, seen); err != nil {
		s.log.ErrorContext(ctx, "extent of lost audit entries unknown", "err", err)
	}
	s.chain.mu.Lock()
	s.chain.doubt = lost // from here on it is everybody's, and never changes
	s.chain.mu.Unlock()
	s.log.ErrorContext(ctx, "history in doubt", "lost_seq", lost.seen.seq, "lost_ts", TimeAt(lost.seen.ts).String(), "head_seq", lost.head.seq, "lost_entries", lost.lost)
	if lost.head.seq == 0 {
		return lost // nothing is left that an entry could follow: the next start begins a log that says so
	}
	err := s.system(ctx, appending{key: s.chain.signer(), doubted: true, entries: func(h head) []audit.Entry {
		return []audit.Entry{audit.New(audit.Facts{
			Action: audit.HistoryInDoubt, Outcome: audit.Failed, Actor: audit.Actor{Kind: audit.System},
			Details: map[string]any{
				"lost_seq": lost.seen.seq, "lost_row_hmac": lost.seen.rowHMAC, "lost_ts": TimeAt(lost.seen.ts), "head_seq": h.seq, "head_row_hmac": h.rowHMAC,
				"timeline": h.timeline, "count": lost.lost,
			},
		})}
	}})
	if err != nil {
		s.log.ErrorContext(ctx, "history in doubt not recorded", "err", err)
	}
	return lost
}

// measureLoss finds the first of the seen entries that is gone.
func (s *Store) measureLoss(ctx context.Context, lost *lostHistory, seen []seenEntry) error {
	if len(seen) == 0 {
		return nil
	}
	there := map[int64]string{}
	rows, err := s.read.QueryContext(ctx, `SELECT seq, row_hmac FROM audit_log WHERE seq BETWEEN $1 AND $2`, seen[0].seq, seen[len(seen)-1].seq)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var seq int64
		var mac string
		if err := rows.Scan(&seq, &mac); err != nil {
			return err
		}
		there[seq] = mac
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, e := range seen {
		if there[e.seq] == e.rowHMAC {
			continue
		}
		if lost.lost == 0 {
			lost.first = e.ts
			lost.all = e == seen[0]
		}
		lost.lost++
	}
	return nil
}

// system does a in a transaction of its own.
func (s *Store) system(ctx context.Context, a appending) error {
	tx, err := s.begin(ctx)
	if err != nil {
		return wrap("begin", err)
	}
	defer tx.end()
	release, err := s.append(ctx, tx, a)
	if err != nil {
		return err
	}
	err = tx.Commit()
	release(err)
	return wrap("commit", err)
}

// settle ends tx, which appended nothing because of err, and takes the consequence where err is a lost history.
func (s *Store) settle(ctx context.Context, tx *Tx, err error) error {
	var lost *lostHistory
	if !errors.As(err, &lost) {
		return err
	}
	tx.end()
	return s.doubt(ctx, lost)
}
