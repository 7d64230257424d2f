package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/z4j-go/z4j/internal/audit"
)

// ExportFilter says which entries an export holds. The zero value is all of them.
type ExportFilter struct {
	Project *Project // of this one only
	Action  string   // exactly this one
	Actor   string   // actor_id
	Outcome string
	From    *Time // from the first entry of this time or later
	To      *Time // to the last entry before this time
	Through int64 // to the entry with this number; 0: no such limit
}

// contiguous reports whether nothing is left out between the first row and the last.
func (f *ExportFilter) contiguous() bool {
	return f.Project == nil && f.Action == "" && f.Actor == "" && f.Outcome == ""
}

// said is the filter as the entry of the export tells it.
func (f *ExportFilter) said() map[string]any {
	out := map[string]any{}
	put := func(name string, given bool, v any) {
		if given {
			out[name] = v
		}
	}
	put("project", f.Project != nil, "")
	if f.Project != nil {
		out["project"] = f.Project.ID.String()
	}
	put("action", f.Action != "", f.Action)
	put("actor", f.Actor != "", f.Actor)
	put("outcome", f.Outcome != "", f.Outcome)
	put("through", f.Through != 0, f.Through)
	if f.From != nil {
		out["from"] = f.From.String()
	}
	if f.To != nil {
		out["to"] = f.To.String()
	}
	return out
}

// AuditExport is an export whose entry is committed, and which is yet to be read. It holds no transaction.
type AuditExport struct {
	audit.Exported

	store  *Store
	format audit.Format
	filter ExportFilter
	own    audit.Row // the export's entry: its last record
	parts  []audit.Personal
}

// ExportAudit begins an export: it finds the range, and commits the entry that says who exports what.
func (s *Store) ExportAudit(ctx context.Context, format audit.Format, f ExportFilter, by By) (*AuditExport, error) {
	e := &AuditExport{store: s, format: format, filter: f}
	e.Contiguous = f.contiguous()
	if err := e.findRange(ctx); err != nil {
		return nil, err
	}
	kids, err := s.keyTimes(ctx, s.read)
	if err != nil {
		return nil, err
	}
	e.Kids = kids
	if e.Generation, err = s.Generation(ctx); err != nil { // not what this process began with: another may have begun a new one
		return nil, err
	}
	details := e.Details(format, f.said())
	if details["checkpoint"], err = s.newestCheckpoint(ctx, e.Generation); err != nil {
		return nil, err
	}
	facts := audit.Facts{Action: audit.AuditExported, Actor: by.Actor, Details: details, RequestID: by.RequestID}
	if f.Project != nil {
		facts.Project = f.Project.Audited()
	}
	rows, err := s.appendAlone(ctx, audit.New(facts), nil, nil)
	if err != nil {
		return nil, err
	}
	e.own, e.parts, e.Seq = rows[0].row, rows[0].parts, rows[0].row.Seq
	return e, nil
}

// appendAlone is Update for an entry that is wanted as a row, with what has to be looked at before under the chain's lock,
// and what has to be written beside it.
func (s *Store) appendAlone(ctx context.Context, entry audit.Entry, before func(*Tx) error, beside func(*Tx, audit.Row) error) ([]sealed, error) {
	tx, err := s.begin(ctx)
	if err != nil {
		return nil, wrap("begin", err)
	}
	defer tx.end()
	var rows []sealed
	tx.Record(entry)
	release, err := s.append(ctx, tx, appending{
		key: s.chain.signer(), entries: func(head) []audit.Entry { return tx.entries }, before: before,
		also: func(tx *Tx, done []sealed) error {
			rows = done
			if beside == nil {
				return nil
			}
			return beside(tx, done[0].row)
		},
	})
	if err != nil {
		return nil, s.settle(ctx, tx, err)
	}
	err = tx.Commit()
	release(err)
	return rows, wrap("commit", err)
}

// findRange sets the first and the last row: one contiguous range in the order of the chain, whatever clocks did.
func (e *AuditExport) findRange(ctx context.Context) error {
	s, f := e.store, &e.filter
	lowest, highest, err := s.auditEnds(ctx)
	if err != nil {
		return err
	}
	e.First, e.Last = lowest, highest
	if f.Through != 0 {
		e.Last = min(e.Last, f.Through)
	}
	if f.From != nil || f.To != nil {
		first, last, err := s.auditWindow(ctx, lowest, highest, f.From, f.To)
		if err != nil {
			return err
		}
		e.First, e.Last = first, min(e.Last, last)
	}
	if e.First == 0 || e.Last < e.First {
		e.First, e.Last = 0, 0
		return nil
	}
	first, err := s.auditRow(ctx, s.read, `WHERE seq = $1`, e.First)
	if err != nil {
		return fmt.Errorf("read audit row %d: %w", e.First, err)
	}
	e.PrevRowHMAC = first.PrevRowHMAC.S // as signed: what is not is no matter of an export
	if body, err := audit.ParseBody(first.Body); err == nil {
		e.PrevRowHMAC = body.PrevRowHMAC.S
	}
	return nil
}

// keyTimes returns when each key entered the chain and left it, as the entries say, and for those that a prune took away
// the prune's entry.
func (s *Store) keyTimes(ctx context.Context, q querier) ([]audit.KeyTime, error) {
	b, err := s.boundary(ctx, q)
	if err != nil {
		return nil, err
	}
	entries, err := s.auditRows(ctx, q, `WHERE action{C} IN ($1, $2, $3, $4) ORDER BY seq`,
		string(audit.SystemInstalled), string(audit.KeyIntroduced), string(audit.KeyAdopted), string(audit.KeyRetired))
	if err != nil {
		return nil, wrap("read the entries about audit keys", err)
	}
	return audit.KeyTimes(b.Kids, entries), nil
}

// newestCheckpoint is what an export says of the tree's newest checkpoint; nil if there is none.
func (s *Store) newestCheckpoint(ctx context.Context, generation string) (any, error) {
	var size int64
	var root []byte
	var mac string
	err := s.read.QueryRowContext(ctx, `SELECT size, root, row_hmac FROM audit_checkpoints WHERE generation = $1 ORDER BY size DESC LIMIT 1`, generation).
		Scan(&size, &root, &mac)
	switch err = wrap("read the newest checkpoint", err); {
	case errors.Is(err, ErrNotFound):
		return nil, nil //nolint:nilnil // that there is none is what is said
	case err != nil:
		return nil, err
	}
	return map[string]any{"size": size, "root": hex.EncodeToString(root), "row_hmac": mac}, nil
}

// Rows is how many rows the range has, of which a filter leaves some out.
func (e *AuditExport) Rows() int64 {
	if e.First == 0 {
		return 0
	}
	return e.Last - e.First + 1
}

// ErrPrunedMeanwhile says that rows of an export went before they were read, so that what was written is not whole.
var ErrPrunedMeanwhile = errors.New("a prune took rows away before they were read: export again, and throw away what was written")

// Write writes the whole file, reading one page ahead of w. However slow w is, nothing of the database is held meanwhile.
// If a prune was faster the error is ErrPrunedMeanwhile.
func (e *AuditExport) Write(ctx context.Context, w io.Writer, progress func(done, total int64)) error {
	buf := e.format.AppendHeader(nil)
	err := e.each(ctx, func(p *exportPage) error {
		for i := range p.rows {
			buf = e.format.AppendRecord(buf, &p.rows[i], p.parts[p.rows[i].Seq])
			if len(buf) < writeSize {
				continue
			}
			if _, err := w.Write(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
		if progress != nil {
			progress(p.rows[len(p.rows)-1].Seq-e.First+1, e.Rows())
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("export the audit log: %w", err)
	}
	_, err = w.Write(e.format.AppendRecord(buf, &e.own, e.parts))
	return err
}

// each gives the pages of the range to use, which has time: one page is read ahead.
func (e *AuditExport) each(ctx context.Context, use func(*exportPage) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pages := make(chan exportPage, 1)
	read := make(chan error, 1)
	go func() {
		read <- e.pages(ctx, pages)
		close(pages)
	}()
	var failed error
	for p := range pages {
		if failed != nil {
			continue // what was on the way
		}
		if failed = use(&p); failed != nil {
			cancel()
		}
	}
	if err := <-read; failed == nil {
		return err
	}
	return failed
}

const (
	writeSize = 64 << 10 // bytes that are written at once
	pageBytes = 1 << 20  // of a page of rows, about: three of them are the memory of an export
	maxPage   = 2000     // rows
	maxWindow = 1 << 16  // numbers that one read looks at, however few of them the filter takes
)

// exportPage are rows in order, with their personal parts.
type exportPage struct {
	rows  []audit.Row
	parts map[int64][]audit.Personal
}

// pages sends the rows of the range, page by page, each read by itself. Rows never change, so no snapshot is needed. They
// may go, from below: that the log still began at or before a page after that was read says that the page is whole.
func (e *AuditExport) pages(ctx context.Context, pages chan<- exportPage) error {
	limit, window := 100, int64(1000)
	for after := e.First - 1; e.First > 0 && after < e.Last; {
		through := min(after+window, e.Last)
		p, err := e.page(ctx, after, through, limit)
		if err != nil {
			return err
		}
		lowest, err := e.store.lowestAudit(ctx)
		if err != nil {
			return err
		}
		if lowest == 0 || lowest > after+1 {
			return fmt.Errorf("%w: row %d was to be read, the log begins with row %d", ErrPrunedMeanwhile, after+1, lowest)
		}
		n := len(p.rows)
		after = through
		if n == limit {
			after = p.rows[n-1].Seq
		}
		limit, window = nextPage(&p, limit, window)
		if n == 0 {
			continue
		}
		select {
		case pages <- p:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// nextPage chooses how much the next read takes: rows may be of 300 bytes or of 100,000.
func nextPage(p *exportPage, limit int, window int64) (int, int64) {
	bytes := 1
	for i := range p.rows {
		bytes += 500 + 2*len(p.rows[i].Body)
	}
	if n := len(p.rows); n > 0 {
		limit = max(10, min(maxPage, 2*limit, pageBytes*n/bytes))
	}
	if len(p.rows) < limit/2 {
		window *= 2
	}
	return limit, max(int64(limit), min(window, maxWindow))
}

func (e *AuditExport) page(ctx context.Context, after, through int64, limit int) (p exportPage, err error) {
	var w where
	w.and("seq > ?", after)
	w.and("seq <= ?", through)
	f := AuditFilter{Action: e.filter.Action, Actor: e.filter.Actor, Outcome: e.filter.Outcome}
	if e.filter.Project != nil {
		f.Project = &e.filter.Project.ID
	}
	f.conditions(&w)
	tail := w.sql.String() + fmt.Sprintf(" ORDER BY seq LIMIT $%d", len(w.args)+1)
	if args := append(w.args, limit); e.store.pool != nil {
		p.rows, err = e.store.exportRowsPostgres(ctx, tail, args...)
	} else {
		p.rows, err = e.store.auditRows(ctx, e.store.read, tail, args...)
	}
	if err != nil || len(p.rows) == 0 {
		return p, wrap("read audit rows", err)
	}
	first, last := p.rows[0].Seq, p.rows[len(p.rows)-1].Seq
	var parts []audit.Personal
	if int(last-first) < 2*len(p.rows) {
		parts, err = e.store.personalPage(ctx, first-1, last)
	} else {
		parts, err = e.store.personalOf(ctx, p.rows)
	}
	p.parts = make(map[int64][]audit.Personal, len(p.rows))
	for _, part := range parts {
		p.parts[part.Seq] = append(p.parts[part.Seq], part)
	}
	return p, wrap("read personal parts", err)
}

// personalOf reads the personal parts of some rows.
func (s *Store) personalOf(ctx context.Context, rows []audit.Row) ([]audit.Personal, error) {
	var w where
	n := 1
	for n < len(rows) { // few lengths, so few statements
		n *= 2
	}
	seqs := make([]int64, n)
	for i := range seqs {
		seqs[i] = rows[min(i, len(rows)-1)].Seq
	}
	in(&w, "seq", seqs)
	found, err := s.read.QueryContext(ctx, `SELECT `+personalColumns+` FROM audit_personal`+w.sql.String()+` ORDER BY seq, role`, w.args...)
	return collect(found, err, personalFields)
}
