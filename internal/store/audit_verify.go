package store

import (
	"context"
	"fmt"

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
		keys = append(keys[:len(keys):len(keys)], k)
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
	first, checked := after, int64(0)
	for {
		n, last, err := s.verifyPage(ctx, v, after)
		if err != nil {
			return audit.Report{}, fmt.Errorf("verify audit rows after %d: %w", after, err)
		}
		if n == 0 {
			break
		}
		after, checked = last, checked+int64(n)
		if o.Progress != nil {
			o.Progress(checked, max(total, checked))
		}
	}
	var exist int64
	err = s.read.QueryRowContext(ctx, `SELECT count(*) FROM audit_log WHERE seq > $1 AND seq <= $2`, first, after).Scan(&exist)
	if err != nil {
		return audit.Report{}, wrap("count audit rows", err)
	}
	return v.Finish(exist), nil
}

// verifyPage gives v the rows after a number, with their personal parts.
func (s *Store) verifyPage(ctx context.Context, v *audit.Verifier, after int64) (n int, last int64, err error) {
	rows, err := auditRows(ctx, s.read, `WHERE seq > $1 ORDER BY seq LIMIT $2`, after, verifyPage)
	if err != nil || len(rows) == 0 {
		return 0, after, err
	}
	last = rows[len(rows)-1].Seq
	parts, err := personalRows(ctx, s.read, rows[0].Seq, last)
	if err != nil {
		return 0, after, err
	}
	for i := range rows {
		v.Row(&rows[i], parts[rows[i].Seq])
	}
	return len(rows), last, nil
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
	seeds, err := auditRows(ctx, s.read, `WHERE action IN ($1, $2, $3, $4) AND seq < $5 ORDER BY seq`,
		string(audit.SystemInstalled), string(audit.KeyIntroduced), string(audit.KeyAdopted), string(audit.KeyRetired), from)
	if err != nil {
		return 0, wrap("read the entries about audit keys", err)
	}
	for i := range seeds {
		v.Seed(&seeds[i])
	}
	return from - 1, nil
}
