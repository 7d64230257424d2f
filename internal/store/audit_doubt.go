package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
)

// Grace is what an ordinary failover to a standby may lose of the audit log without anybody being asked.
type Grace struct {
	Time    time.Duration // between the first and the last entry that are lost; 0: a failover is never ordinary
	Entries int64
}

// Allows reports whether a loss of n entries over that time is within g.
func (g Grace) Allows(n int64, over time.Duration) bool {
	return g.Time > 0 && n <= g.Entries && over <= g.Time
}

// lostHistory says which entry that this process saw committed is gone. It is an ErrHistoryInDoubt.
type lostHistory struct {
	seen  seenEntry
	head  head
	lost  int64     // how many of the entries that this process saw are gone
	first seenEntry // of them
	all   bool      // all that it remembers are gone, perhaps more
	fork  int64     // the last entry that is of both histories, as far as that can be told; it counts where not all are gone
}

func (e *lostHistory) Unwrap() error { return ErrHistoryInDoubt }

func (e *lostHistory) Error() string {
	return fmt.Sprintf("%v: %s. Changes wait until you have found out what happened to the database; then run %s", ErrHistoryInDoubt, e.reason(), acknowledge)
}

// reason says what was found, for people.
func (e *lostHistory) reason() string {
	text := fmt.Sprintf("the audit log does not hold entry %d of %s any more, which was committed; its head is entry %d", e.seen.seq, TimeAt(e.seen.ts), e.head.seq)
	if e.lost > 0 {
		least := ""
		if e.all {
			least = "at least "
		}
		text += fmt.Sprintf("; %s%d entries since %s are gone", least, e.lost, TimeAt(e.first.ts))
	}
	return text
}

func (e *lostHistory) doubt() Doubt {
	d := Doubt{Cause: "lost_entries", Reason: e.reason(), LostSeq: e.seen.seq, LostRowHMAC: e.seen.rowHMAC, LostTS: e.seen.ts, Count: e.lost, Fork: -1}
	if e.lost > 0 && !e.all {
		d.Fork = min(e.fork, e.head.seq)
	}
	return d
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

// missing decides about newest, which this process saw committed and which is not there any more. Nil: a goes on, and what
// was seen is forgotten.
func (s *Store) missing(ctx context.Context, tx *Tx, newest seenEntry, h head, a *appending) error {
	excused, err := s.excused(ctx, tx, newest, h)
	if err != nil {
		return err
	}
	a.anew = true
	if excused {
		s.log.WarnContext(ctx, "entries of the audit log were left behind", "seq", newest.seq, "generation", newest.generation, "head_seq", h.seq)
		return nil
	}
	lost := &lostHistory{seen: newest, head: h}
	s.chain.mu.Lock()
	seen, grace := slices.Clone(s.chain.seen), s.chain.grace
	s.chain.mu.Unlock()
	if err := s.measureLoss(ctx, lost, seen); err != nil {
		s.log.ErrorContext(ctx, "extent of lost audit entries unknown", "err", err)
		return lost
	}
	over := time.Duration(newest.ts-lost.first.ts) * time.Microsecond
	if h.held || h.seq == 0 || lost.all || h.timeline <= newest.timeline || !grace.Allows(lost.lost, over) {
		return lost
	}
	s.failover(ctx, a, lost)
	return nil
}

// failover lets a begin a new history first: a standby took over, and lost no more than it may.
func (s *Store) failover(ctx context.Context, a *appending, lost *lostHistory) {
	d := lost.doubt()
	n := NewGeneration{Cause: "failover", Reason: d.Reason, Fork: d.Fork, Doubt: &d}
	g := newGeneration(cmp.Or(lost.head.generation, lost.seen.generation), n.Cause)
	g.Fork = d.Fork
	entries, also := a.entries, a.also
	first := n.entries(lost.head, &g, nil, Defused{})
	a.generation = g.ID
	a.entries = func(h head) []audit.Entry { return append(slices.Clone(first), entries(h)...) }
	a.also = func(tx *Tx, rows []sealed) error {
		g.Started = rows[len(first)-1].row.Seq
		if err := tx.putGeneration(ctx, &g); err != nil || also == nil {
			return err
		}
		return also(tx, rows[len(first):])
	}
	s.log.ErrorContext(ctx, "a failover lost entries of the audit log", "lost_entries", lost.lost, "lost_seq", lost.seen.seq, "head_seq", lost.head.seq,
		"timeline", lost.head.timeline, "generation", g.ID)
}

// doubt begins a hold because of lost. The transaction that found it is over.
func (s *Store) doubt(ctx context.Context, lost *lostHistory) error {
	s.chain.doubting.Lock()
	defer s.chain.doubting.Unlock()
	if s.chain.newest() != lost.seen { // another change of this process was first
		if err := s.AuditErr(); err != nil {
			return err
		}
		return fmt.Errorf("%w: another change found that entry %d was left behind; try again", ErrAuditFailed, lost.seen.seq)
	}
	if err := s.PutHold(ctx, lost.doubt()); err != nil {
		s.log.ErrorContext(ctx, "history in doubt not recorded", "err", err)
		return lost
	}
	return cmp.Or(s.AuditErr(), error(lost))
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
			if lost.lost == 0 {
				lost.fork = e.seq
			}
			continue
		}
		if lost.lost == 0 {
			lost.first = e
			lost.all = e == seen[0]
		}
		lost.lost++
	}
	if lost.all || lost.lost == 0 {
		return nil
	}
	return s.measureFork(ctx, lost)
}

// measureFork finds the last entry that is of both histories. It lies between the last seen one that is there and the first
// that is gone, which others may have filled since: what was made in the place of lost entries was made later than these.
func (s *Store) measureFork(ctx context.Context, lost *lostHistory) error {
	var last int64
	err := s.read.QueryRowContext(ctx, `
		SELECT coalesce((SELECT seq FROM audit_log WHERE seq > $1 AND seq < $2 AND ts < $3 ORDER BY seq DESC LIMIT 1), 0)`,
		lost.fork, lost.first.seq, TimeAt(lost.first.ts)).Scan(&last)
	lost.fork = max(lost.fork, last)
	return err
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
		return s.settle(ctx, tx, err)
	}
	err = s.committed(tx.Commit())
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
