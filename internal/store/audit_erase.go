package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
)

// Person is whom an erasure forgets: an account, or an address that is or was none's.
type Person struct {
	User  id.ID  // zero: nobody's
	Email string // "": none
}

// subjects are the names under which the personal parts of p are kept.
func (p Person) subjects() []string {
	var out []string
	if !p.User.IsZero() {
		out = append(out, p.User.String())
	}
	if p.Email != "" {
		out = append(out, strings.ToLower(p.Email))
	}
	return out
}

// Erased is what an erasure did.
type Erased struct {
	Parts   int64   `json:"parts"`
	Entries []int64 `json:"entries"` // numbers of the audit.erased
}

// PersonOf returns whom --user ID means: the account and, where it is still there, its address, under which its failed
// log-ins stand.
func (s *Store) PersonOf(ctx context.Context, user id.ID) (Person, error) {
	p := Person{User: user}
	rows, err := s.read.QueryContext(ctx, `SELECT email FROM users WHERE id = $1`, user)
	emails, err := collect(rows, err, func(email *string) []any { return []any{email} })
	if err != nil {
		return p, wrap("read the address of an account", err)
	}
	if len(emails) > 0 {
		p.Email = emails[0]
	}
	return p, nil
}

// Erasable counts the personal parts of p that the audit log holds.
func (s *Store) Erasable(ctx context.Context, p Person) (n int64, err error) {
	var w where
	in(&w, "subject", p.subjects())
	err = s.read.QueryRowContext(ctx, `SELECT count(*) FROM audit_personal`+w.sql.String(), w.args...).Scan(&n)
	return n, wrap("count personal parts", err)
}

// erasedAtOnce bounds what one entry erases: what is added meanwhile waits for it, and the line that an anchor keeps of it
// lists every part.
const erasedAtOnce = audit.MaxErased / 2

// EraseAudit takes away what the audit log says of a person, for good: of each part only is left that it was. What was
// signed stays, so that the log still verifies, and so do the parts of others in the same entries. Who did it, why and
// which parts are an entry of its own, or several for many.
func (s *Store) EraseAudit(ctx context.Context, p Person, reason string, by By) (out Erased, err error) {
	out.Entries = []int64{}
	if reason == "" || len(p.subjects()) == 0 {
		return out, errors.New("erase audit: a person and a reason are needed")
	}
	for {
		seq, n, err := s.erase(ctx, p, reason, by)
		if err != nil {
			return out, fmt.Errorf("erase audit: %w", err)
		}
		if n == 0 {
			return out, nil
		}
		out.Parts, out.Entries = out.Parts+n, append(out.Entries, seq)
	}
}

// erase is one step of EraseAudit. An erasure goes on while the history is in doubt, also when it was what noticed that.
func (s *Store) erase(ctx context.Context, p Person, reason string, by By) (seq, n int64, err error) {
	seq, n, err = s.eraseOnce(ctx, p, reason, by)
	if errors.Is(err, ErrHistoryInDoubt) {
		return s.eraseOnce(ctx, p, reason, by)
	}
	return seq, n, err
}

// eraseOnce is one try of erase. n is 0 when there was nothing left, and then nothing was recorded.
func (s *Store) eraseOnce(ctx context.Context, p Person, reason string, by By) (seq, n int64, err error) {
	if left, err := s.Erasable(ctx, p); err != nil || left == 0 {
		return 0, 0, err
	}
	var parts []audit.ErasedPart
	err = s.system(ctx, appending{
		key: s.chain.signer(),
		before: func(tx *Tx) (err error) { // the chain is locked: no part comes between
			parts, err = tx.erasable(ctx, p)
			return err
		},
		entries: func(head) []audit.Entry { return []audit.Entry{erasedEntry(p, parts, reason, by)} },
		also: func(tx *Tx, rows []sealed) error {
			seq = rows[0].row.Seq
			return tx.leaveTombstones(ctx, p, parts, seq)
		},
	})
	if errors.Is(err, errNothingLeft) {
		return 0, 0, nil
	}
	return seq, int64(len(parts)), err
}

// errNothingLeft says that another erasure was faster.
var errNothingLeft = errors.New("nothing is left to erase")

// erasable lists the parts of the next step, whole rows, in order.
func (tx *Tx) erasable(ctx context.Context, p Person) ([]audit.ErasedPart, error) {
	var w where
	in(&w, "subject", p.subjects())
	limit := w.arg(erasedAtOnce + 1)
	rows, err := tx.QueryContext(ctx, `SELECT seq, role FROM audit_personal`+w.sql.String()+` ORDER BY seq, role LIMIT `+limit, w.args...)
	parts, err := collect(rows, err, func(p *audit.ErasedPart) []any { return []any{&p.Seq, &p.Role} })
	switch {
	case err != nil:
		return nil, wrap("read personal parts", err)
	case len(parts) == 0:
		return nil, errNothingLeft
	case len(parts) <= erasedAtOnce:
		return parts, nil
	}
	last := parts[erasedAtOnce].Seq // an entry has two parts at most, so some are before it
	return parts[:slices.IndexFunc(parts, func(p audit.ErasedPart) bool { return p.Seq == last })], nil
}

func (tx *Tx) leaveTombstones(ctx context.Context, p Person, parts []audit.ErasedPart, entry int64) error {
	var w where
	set := w.arg(entry)
	in(&w, "subject", p.subjects())
	w.and("seq <= ?", parts[len(parts)-1].Seq)
	res, err := tx.ExecContext(ctx, `UPDATE audit_personal SET subject = NULL, salt = NULL, json = NULL, erased_by = `+set+w.sql.String(), w.args...)
	if err != nil {
		return wrap("erase personal parts", err)
	}
	if n, err := res.RowsAffected(); err != nil || n != int64(len(parts)) {
		return errors.Join(err, fmt.Errorf("the database erased %d personal parts of %d", n, len(parts)))
	}
	return nil
}

// erasedEntry says which parts are gone, by a digest over their lines, and names nobody but by id.
func erasedEntry(p Person, parts []audit.ErasedPart, reason string, by By) audit.Entry {
	sum := sha256.New()
	for _, part := range parts {
		sum.Write([]byte(audit.ErasureLine(part.Seq, part.Role)))
	}
	details := map[string]any{"count": len(parts), "sha256": hex.EncodeToString(sum.Sum(nil)), "reason": reason}
	target := audit.Target{}
	if !p.User.IsZero() {
		target.ID = p.User.String()
		details["user_id"] = target.ID
	}
	return by.entry(audit.Erased, audit.Project{}, target, details)
}

// ErrNotErased says that personal parts are gone that no erasure took, of rows that stay when those before them go.
var ErrNotErased = errors.New("other personal parts are gone than the ones that were erased, of which `z4j-brain audit verify` tells more")

// keptErasures sums up, for a prune up to a row, what the erasures behind that row left in the rows that stay, once what
// they took is proved. It goes up to the newest, whose number is until. Nothing is locked meanwhile.
func (s *Store) keptErasures(ctx context.Context, through int64) (kept audit.Erasures, until int64, err error) {
	before, err := s.NewestPruned(ctx)
	if err != nil {
		return kept, 0, err
	}
	if until, err = s.newestSeq(ctx, s.read, audit.Erased); err != nil || until == 0 {
		return kept, 0, err
	}
	done, err := s.newestSeq(ctx, s.read, audit.PruneCompleted)
	if err != nil {
		return kept, 0, err
	}
	rows, err := s.read.QueryContext(ctx, `SELECT erased_by, seq, role FROM audit_personal WHERE erased_by > $1 AND erased_by <= $2 ORDER BY erased_by, seq, role`,
		before.Through, until)
	if err != nil {
		return kept, 0, wrap("read what was erased", err)
	}
	defer rows.Close()
	met := tombstones{rows: rows}
	var earlier audit.Erasures // as the entry of the prune before tells of them
	for after := before.Through; after < until; {
		const page = 1000
		entries, err := s.auditRows(ctx, s.read, spanOfAction, string(audit.Erased), after, until, page)
		if err != nil {
			return kept, 0, wrap("read erasures", err)
		}
		for i := range entries {
			e := &entries[i]
			all, stay, err := met.of(e.Seq, through)
			switch {
			case err != nil:
				return kept, 0, wrap("read what was erased", err)
			case !all.Fit(e.Details.S) && e.Seq > max(before.Seq, done):
				return kept, 0, fmt.Errorf("%w: by entry %d", ErrNotErased, e.Seq)
			case e.Seq < before.Seq:
				earlier.Add(e.Seq, &all)
			}
			if e.Seq > through {
				kept.Add(e.Seq, &stay)
			}
		}
		if len(entries) < page {
			break
		}
		after = entries[len(entries)-1].Seq
	}
	if before.Erased != nil && !earlier.Are(before.Erased) {
		return kept, 0, fmt.Errorf("%w: by entries before %d", ErrNotErased, before.Seq)
	}
	return kept, until, wrap("read what was erased", rows.Err())
}

// tombstones reads what is left of erased parts, in the order of the entries that took them.
type tombstones struct {
	rows *sql.Rows
	by   int64 // of the one that was read and not yet given; 0: none was
	part audit.ErasedPart
}

// of sums up what entry left: all, and of rows behind through.
func (t *tombstones) of(entry, through int64) (all, stay audit.Tombstones, err error) {
	for {
		if t.by == 0 && t.rows.Next() {
			if err := t.rows.Scan(&t.by, &t.part.Seq, &t.part.Role); err != nil {
				return all, stay, err
			}
		}
		if t.by == 0 || t.by > entry {
			return all, stay, t.rows.Err()
		}
		if t.by == entry {
			all.Add(t.part.Seq, t.part.Role)
			if t.part.Seq > through {
				stay.Add(t.part.Seq, t.part.Role)
			}
		}
		t.by = 0
	}
}
