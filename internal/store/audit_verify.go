package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/z4j-go/z4j/internal/audit"
)

// VerifyOptions say what of the audit log is verified, and with what.
type VerifyOptions struct {
	From     int64        // number of the first row; 0: where the log begins
	Secrets  [][]byte     // audit secrets beside those that the store was opened with
	Heads    []audit.Head // rows that somebody remembers
	Progress func(checked, total int64)
}

// verifyPage is how many rows are read at once: a short query, and about a megabyte.
const verifyPage = 1000

// VerifyAudit walks the audit log in short reads, each of which sees what was committed before it: rows never change, so
// no snapshot is held. What the report calls existing is counted apart from the walk.
func (s *Store) VerifyAudit(ctx context.Context, o VerifyOptions) (audit.Report, error) {
	keys := s.chain.given()
	for _, secret := range o.Secrets {
		k, err := audit.NewKey(secret)
		if err != nil {
			return audit.Report{}, err
		}
		keys = append(slices.Clip(keys), k)
	}
	v := audit.NewVerifier(keys)
	v.Expect(o.Heads...)
	after, err := s.beginVerify(ctx, v, o.From)
	if err != nil {
		return audit.Report{}, err
	}
	var total int64
	if err := s.read.QueryRowContext(ctx, `SELECT count(*) FROM audit_log WHERE seq > $1`, after).Scan(&total); err != nil {
		return audit.Report{}, wrap("count audit rows", err)
	}
	first := after
	if after, err = s.verifyPages(ctx, v, after, total, o.Progress); err != nil {
		return audit.Report{}, err
	}
	var exist int64
	err = s.read.QueryRowContext(ctx, `SELECT count(*) FROM audit_log WHERE seq > $1 AND seq <= $2`, first, after).Scan(&exist)
	if err != nil {
		return audit.Report{}, wrap("count audit rows", err)
	}
	return v.Finish(exist), nil
}

// auditPage are rows in order, with their personal parts.
type auditPage struct {
	rows  []audit.Row
	parts map[int64][]audit.Personal
}

// verifyPages gives v all rows after a number, reading one page ahead, and returns the number of the last.
func (s *Store) verifyPages(ctx context.Context, v *audit.Verifier, after, total int64, progress func(checked, total int64)) (last int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	pages := make(chan auditPage, 1) // a page is read while another is verified
	read := make(chan error, 1)
	go func() {
		read <- s.readPages(ctx, after, pages)
		close(pages)
	}()
	last = after
	checked := int64(0)
	for p := range pages {
		for i := range p.rows {
			v.Row(&p.rows[i], p.parts[p.rows[i].Seq])
		}
		last = p.rows[len(p.rows)-1].Seq
		checked += int64(len(p.rows))
		if progress != nil {
			progress(checked, max(total, checked))
		}
	}
	cancel()
	if err := <-read; err != nil {
		return last, fmt.Errorf("verify audit rows after %d: %w", last, err)
	}
	return last, nil
}

// readPages sends the rows after a number, page by page, until there are none.
func (s *Store) readPages(ctx context.Context, after int64, pages chan<- auditPage) error {
	for {
		rows, err := s.auditRows(ctx, s.read, `WHERE seq > $1 ORDER BY seq LIMIT $2`, after, verifyPage)
		if err != nil || len(rows) == 0 {
			return err
		}
		p := auditPage{rows: rows}
		after = rows[len(rows)-1].Seq
		if p.parts, err = personalRows(ctx, s.read, rows[0].Seq, after); err != nil {
			return err
		}
		select {
		case pages <- p:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// beginVerify sets v to where the walk begins and returns the number before it.
func (s *Store) beginVerify(ctx context.Context, v *audit.Verifier, from int64) (after int64, err error) {
	const all = -1 << 63 // rows of a number that no row has are seen, too
	var lowest int64
	if err := s.read.QueryRowContext(ctx, `SELECT coalesce(min(seq), 0) FROM audit_log`).Scan(&lowest); err != nil {
		return 0, wrap("read the beginning of the audit log", err)
	}
	b, err := s.boundary(ctx, s.read)
	if err != nil {
		return 0, err
	}
	if from <= max(lowest, 1) {
		switch {
		case lowest <= 1 || b.Through == 0:
		case lowest <= b.Through: // a prune that was not finished
			v.Begin(b)
			v.BeginAt(lowest)
			v.Expect(audit.Head{Seq: b.Through, RowHMAC: b.RowHMAC})
		default:
			v.Begin(b)
		}
		return all, nil
	}
	v.Begin(b)
	v.BeginAt(from)
	seeds, err := s.auditRows(ctx, s.read, `WHERE action{C} IN ($1, $2, $3, $4) AND seq < $5 ORDER BY seq`,
		string(audit.SystemInstalled), string(audit.KeyIntroduced), string(audit.KeyAdopted), string(audit.KeyRetired), from)
	if err != nil {
		return 0, wrap("read the entries about audit keys", err)
	}
	for i := range seeds {
		v.Seed(&seeds[i])
	}
	return from - 1, nil
}
