package store

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/z4j-go/z4j/internal/audit"
)

// Pruned is what the newest proved audit.pruned says, which replaces all before it.
type Pruned struct {
	audit.Boundary

	Seq       int64 // of the entry; 0: nothing was ever pruned
	Archives  []audit.Archive
	Completed bool // its audit.prune_completed is there
	Lowest    int64
}

// Unfinished reports whether rows are there that the entry says are exported and may go.
func (p *Pruned) Unfinished() bool { return p.Seq != 0 && p.Lowest != 0 && p.Lowest <= p.Through }

// Archive is the archive that p is about.
func (p *Pruned) Archive() (audit.Archive, bool) {
	if len(p.Archives) == 0 {
		return audit.Archive{}, false
	}
	return p.Archives[len(p.Archives)-1], true
}

// NewestPruned returns what was pruned so far, and where the log begins.
func (s *Store) NewestPruned(ctx context.Context) (p Pruned, err error) {
	r, b, err := s.boundaryEntry(ctx, s.read)
	if err != nil {
		return p, err
	}
	if r.Seq > 0 {
		var d struct {
			Archives []audit.Archive `json:"archives"`
		}
		if err := json.Unmarshal([]byte(r.Details.S), &d); err != nil {
			return p, fmt.Errorf("read the archives of entry %d: %w", r.Seq, err)
		}
		p = Pruned{Boundary: b, Seq: r.Seq, Archives: d.Archives}
	}
	if p.Lowest, err = s.lowestAudit(ctx); err != nil || p.Seq == 0 {
		return p, err
	}
	done, err := s.newestProved(ctx, s.read, audit.PruneCompleted)
	p.Completed = done.Seq > p.Seq
	return p, wrap("read the end of the prune", err)
}

// AuditEndBefore returns the number of the last row of the prefix whose rows are all older than t: it ends before the first
// that is not. 0: there is none.
func (s *Store) AuditEndBefore(ctx context.Context, t Time) (int64, error) {
	lowest, highest, err := s.auditEnds(ctx)
	if err != nil || highest == 0 {
		return 0, err
	}
	first, _, err := s.auditWindow(ctx, lowest, highest, &t, nil)
	if err != nil || first > 0 {
		return max(0, first-1), err
	}
	return highest, nil
}

// Prefix is what a prune finds of the rows that are to go.
type Prefix struct {
	Report audit.Report
	Last   audit.Row
	Peaks  []byte // of the tree with the last row as its last; nil: unknown, since an earlier prune did not say
}

// VerifyPrefix proves the rows from where the log begins to one, in order, and computes the tree that ends there.
func (s *Store) VerifyPrefix(ctx context.Context, through int64, progress func(done, total int64)) (p Prefix, err error) {
	b, err := s.boundary(ctx, s.read)
	if err != nil {
		return p, err
	}
	e := &AuditExport{store: s}
	e.filter.Through = through
	if err := e.findRange(ctx); err != nil {
		return p, err
	}
	v := audit.NewVerifier(s.chain.given())
	tree := &audit.Tree{}
	if b.Through > 0 {
		v.Begin(b)
		if tree, err = treeAt(b); err != nil {
			return p, err
		}
	}
	v.Part()
	err = e.each(ctx, func(page *exportPage) error {
		for i := range page.rows {
			r := &page.rows[i]
			v.Row(r, page.parts[r.Seq])
			if tree != nil {
				tree.Append(r.Body, r.RowHMAC)
			}
			p.Last = *r
		}
		if progress != nil {
			progress(p.Last.Seq-e.First+1, e.Rows())
		}
		return nil
	})
	if err != nil {
		return p, fmt.Errorf("verify audit rows to %d: %w", through, err)
	}
	p.Report = v.Finish(e.Rows())
	if tree != nil && tree.Size() == p.Last.Seq {
		p.Peaks = tree.Peaks()
	}
	return p, nil
}

// treeAt is the tree of the rows that were pruned, nil if their entry does not hold it.
func treeAt(b audit.Boundary) (*audit.Tree, error) {
	if b.Peaks == "" {
		return nil, nil //nolint:nilnil // as said.
	}
	peaks, err := hex.DecodeString(b.Peaks)
	if err != nil {
		return nil, fmt.Errorf("read the tree of the prune boundary: %w", err)
	}
	return audit.TreeFromPeaks(b.Through, peaks)
}

// Prune is what an audit.pruned says beyond what the store knows itself.
type Prune struct {
	Prefix     Prefix
	Archives   []audit.Archive // all, the newest last
	Unprovable int64           // rows that could not be proved, which was accepted
	By         By
}

// RecordPruned appends the audit.pruned, and lets the rows up to its boundary be deleted.
func (s *Store) RecordPruned(ctx context.Context, p Prune) error {
	through := p.Prefix.Last.Seq
	kids, err := s.keyTimes(ctx, s.read)
	if err != nil {
		return err
	}
	generations, err := s.Generations(ctx)
	if err != nil {
		return err
	}
	details := map[string]any{
		"through": through, "row_hmac": p.Prefix.Last.RowHMAC, "kids": kidsUntil(kids, through), "generations": generationsUntil(generations, through),
		"archives": audit.ArchiveDetails(p.Archives),
	}
	if p.Prefix.Peaks != nil {
		details["peaks"] = hex.EncodeToString(p.Prefix.Peaks)
	}
	if p.Unprovable > 0 {
		details["unprovable"] = p.Unprovable
	}
	for {
		err := s.recordPruned(ctx, p, details)
		if !errors.Is(err, errErasedMeanwhile) {
			return err
		}
	}
}

// errErasedMeanwhile says that an erasure came between what was read of erasures and the entry that tells of it.
var errErasedMeanwhile = errors.New("a person was erased meanwhile")

func (s *Store) recordPruned(ctx context.Context, p Prune, details map[string]any) error {
	through := p.Prefix.Last.Seq
	erasures, until, err := s.keptErasures(ctx, through)
	if err != nil {
		return err
	}
	details["erased"] = erasures.Details()
	still := func(tx *Tx) error {
		later, err := s.newestSeq(ctx, tx, audit.Erased)
		if err == nil && later > until {
			err = errErasedMeanwhile
		}
		return err
	}
	entry := audit.New(audit.Facts{Action: audit.Pruned, Actor: p.By.Actor, Details: details, RequestID: p.By.RequestID})
	_, err = s.appendAlone(ctx, entry, still, func(tx *Tx, r audit.Row) error {
		// Nothing but what the entry says lets a verification pass: it has to say it.
		if b, ok := audit.ReadBoundary(&r, s.chain.given()); !ok || b.Through != through {
			return errors.New("the entry of the prune does not hold its boundary: too much was pruned before, so that its list is too long")
		}
		return tx.setBoundary(ctx, through, r.Seq)
	})
	return err
}

func (tx *Tx) setBoundary(ctx context.Context, through, entry int64) error {
	_, err := tx.ExecContext(ctx, `UPDATE audit_boundary SET through = $1, entry_seq = $2 WHERE id = 1 AND through < $1`, through, entry)
	return wrap("move the prune boundary", err)
}

// kidsUntil are the keys that were introduced up to a row, with what was known of them there.
func kidsUntil(kids []audit.KeyTime, through int64) []any {
	out := []any{}
	for _, k := range kids {
		if k.Introduced > through {
			continue
		}
		if k.Retired > through {
			k.Retired = 0
		}
		out = append(out, map[string]any{"kid": k.KID, "introduced": k.Introduced, "retired": k.Retired})
	}
	return out
}

func generationsUntil(list []Generation, through int64) []any {
	out := []any{}
	for _, g := range list {
		if g.Started <= through {
			d := map[string]any{"generation": g.ID, "started": g.Started, "previous": g.Previous, "fork": g.Fork, "cause": g.Cause}
			if len(g.Abandoned) > 0 {
				d["abandoned"] = g.Abandoned // or anchors speak of histories that nothing names any more
			}
			out = append(out, d)
		}
	}
	return out
}

// pruneBatch is how many rows are deleted at once: some 50 ms.
const pruneBatch = 1000

// DeletePruned deletes the rows that the newest audit.pruned lets go, upwards from the lowest, each with its personal
// parts. step is called between two transactions; its error ends it, and so does a hold: what is in doubt stays.
func (s *Store) DeletePruned(ctx context.Context, p Pruned, step func(deleted int64) error) error {
	deleted := int64(0)
	for lowest := p.Lowest; lowest != 0 && lowest <= p.Through; {
		through := min(lowest+pruneBatch-1, p.Through)
		err := s.transact(ctx, func(tx *Tx) error {
			hold, err := s.hold(ctx, tx)
			if err != nil {
				return err
			}
			if hold != nil {
				return &HeldError{Hold: *hold}
			}
			if err := tx.setBoundary(ctx, p.Through, p.Seq); err != nil { // the table is for speed: what lets rows go is the entry
				return err
			}
			if _, err := tx.ExecContext(ctx, `DELETE FROM audit_personal WHERE seq <= $1`, through); err != nil {
				return wrap("delete personal parts", err)
			}
			res, err := tx.ExecContext(ctx, `DELETE FROM audit_log WHERE seq <= $1`, through)
			if err != nil {
				return wrap("delete audit rows", err)
			}
			n, err := res.RowsAffected()
			deleted += n
			return err
		})
		if err != nil {
			return err
		}
		if err := step(deleted); err != nil {
			return err
		}
		if lowest, err = s.lowestAudit(ctx); err != nil {
			return err
		}
	}
	return nil
}

// RecordPruneCompleted appends that all rows of a prune are gone.
func (s *Store) RecordPruneCompleted(ctx context.Context, p Pruned, rows int64, by By) error {
	archive, _ := p.Archive()
	return s.Update(ctx, func(tx *Tx) error {
		tx.Record(audit.New(audit.Facts{
			Action: audit.PruneCompleted, Actor: by.Actor, RequestID: by.RequestID,
			Details: map[string]any{"through": p.Through, "rows": rows, "archive": archive.Location},
		}))
		return nil
	})
}
