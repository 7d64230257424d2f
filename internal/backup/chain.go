package backup

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

// Tables of the audit log.
const (
	logTable      = "audit_log"
	personalTable = "audit_personal"
)

// place is where a chunk lies in the tar file.
type place struct{ at, size int64 }

// verifyChain walks the audit log that is inside, as s found it, and compares it with the manifest.
func (a *Archive) verifyChain(ctx context.Context, s *survey) (audit.Report, []string, error) {
	v := audit.NewVerifier(s.keys)
	v.Restored()
	chain := a.Manifest.Audit
	var notes []string
	switch signed, known, err := openCheckpoint(chain.Checkpoint, s.keys); {
	case err != nil:
		notes = append(notes, "the checkpoint in the manifest: "+err.Error())
	case known && signed.Instance != a.Manifest.Instance:
		notes = append(notes, "the checkpoint in the manifest is of another installation")
	case known && signed.Size > chain.Size:
		notes = append(notes, fmt.Sprintf("the checkpoint in the manifest is of %d rows, and the audit log has %d", signed.Size, chain.Size))
	case known:
		v.Witness(audit.Witness{Checkpoint: signed, Where: "the manifest"})
	}
	tree := s.begin(v)
	v.Expect(audit.Head{Seq: chain.Size, RowHMAC: chain.RowHMAC})
	rows := a.rows(ctx, s.places[logTable])
	defer rows.close()
	parts := a.rows(ctx, s.places[personalTable])
	defer parts.close()
	exist, err := walkChain(v, tree, rows, parts)
	if err != nil {
		return audit.Report{}, nil, err
	}
	if chain.Root != "" && tree != nil {
		if root := tree.Root(); hex.EncodeToString(root[:]) != chain.Root {
			notes = append(notes, "the root of the audit log's tree is not the one of the manifest")
		}
	}
	report := v.Finish(exist)
	if report.To != chain.Size {
		notes = append(notes, fmt.Sprintf("the audit log ends at row %d, and the manifest says %d", report.To, chain.Size))
	}
	return report, notes, nil
}

// openCheckpoint reads the checkpoint of a manifest. Nothing is known of one that is not there, or that a key signed which is not
// at hand; one that a key at hand should have signed and did not is an error.
func openCheckpoint(text string, keys []audit.Key) (c audit.Checkpoint, known bool, err error) {
	if text == "" {
		return c, false, nil
	}
	c, err = audit.OpenCheckpoint(text, audit.PublicKeys(keys)...)
	if err == nil {
		return c, true, nil
	}
	for _, k := range keys {
		if strings.Contains(text, "\nkid "+k.KID()+"\n") {
			return c, false, errors.New("key " + k.KID() + " did not sign it")
		}
	}
	return c, false, nil
}

// begin sets v to where the log begins, as the walk over a database does, and returns the tree of the rows before it; nil: it is
// not known.
func (s *survey) begin(v *audit.Verifier) *audit.Tree {
	b, claim := s.pruned.Boundary, s.claim.Boundary
	switch {
	case s.lowest <= 1:
		return &audit.Tree{}
	case s.lowest-1 > b.Through && s.lowest-1 <= claim.Through:
		v.BeginUnproved(claim)
		if s.lowest <= claim.Through {
			v.BeginAt(s.lowest)
		}
		return nil
	case b.Through == 0:
		return &audit.Tree{} // rows are missing, as the walk will say
	case s.lowest <= b.Through: // a prune that was not finished
		v.Begin(b)
		v.BeginAt(s.lowest)
		v.Expect(audit.Head{Seq: b.Through, RowHMAC: b.RowHMAC})
		return nil
	}
	v.Begin(b)
	return prunedTree(b)
}

// prunedTree is the tree of the rows that were pruned; nil: the entry does not say it.
func prunedTree(b audit.Boundary) *audit.Tree {
	peaks, err := hex.DecodeString(b.Peaks)
	if err != nil || b.Peaks == "" {
		return nil
	}
	tree, err := audit.TreeFromPeaks(b.Through, peaks)
	if err != nil {
		return nil
	}
	return tree
}

// walkChain gives v the rows with their personal parts; both come in the order of seq. tree may be nil.
func walkChain(v *audit.Verifier, tree *audit.Tree, rows, parts *rowReader) (exist int64, err error) {
	var ahead []audit.Personal // at most one, of a later row
	for {
		cells, err := rows.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return exist, err
		}
		row, err := logRow(rows.columns(), cells)
		if err != nil {
			return exist, err
		}
		var mine []audit.Personal
		for {
			if len(ahead) == 0 {
				cells, err := parts.next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					return exist, err
				}
				ahead = append(ahead, personalRow(parts.columns(), cells))
			}
			if ahead[0].Seq > row.Seq {
				break
			}
			if ahead[0].Seq == row.Seq {
				mine = append(mine, ahead[0])
			}
			ahead = ahead[:0]
		}
		v.Row(&row, mine)
		if tree != nil {
			tree.Append(row.Body, row.RowHMAC)
		}
		exist++
	}
	return exist, nil
}

// logRow makes a row of the chain of the cells of audit_log.
func logRow(columns []store.Column, cells []store.Cell) (audit.Row, error) {
	var r audit.Row
	texts := map[string]*string{"actor_kind": &r.ActorKind, "action": &r.Action, "outcome": &r.Outcome, "kid": &r.KID, "row_hmac": &r.RowHMAC}
	nullable := map[string]*audit.Text{
		"actor_id": &r.ActorID, "project_id": &r.ProjectID, "project_label": &r.ProjectLabel, "target_type": &r.TargetType, "target_id": &r.TargetID,
		"target_label": &r.TargetLabel, "details": &r.Details, "request_id": &r.RequestID, "actor_personal": &r.ActorPersonal,
		"target_personal": &r.TargetPersonal, "prev_row_hmac": &r.PrevRowHMAC,
	}
	for i, c := range columns {
		cell := &cells[i]
		switch c.Name {
		case "seq":
			r.Seq = cell.Int
		case "ts":
			r.TS = cell.Int
		case "body":
			r.Body = append([]byte(nil), cell.Bytes...)
		case "id":
			one, err := idOf(cell)
			if err != nil {
				return r, err
			}
			r.ID = one
		default:
			if text, ok := texts[c.Name]; ok {
				*text = string(cell.Bytes)
				continue
			}
			text, ok := nullable[c.Name]
			if !ok {
				return r, fmt.Errorf("%w: audit_log has a column %.40q", ErrDamaged, c.Name)
			}
			*text = audit.Text{S: string(cell.Bytes), Set: !cell.Null}
		}
	}
	return r, nil
}

func idOf(c *store.Cell) (string, error) {
	var one id.ID
	if copy(one[:], c.Bytes) != len(one) || len(c.Bytes) != len(one) {
		return "", fmt.Errorf("%w: an id of the audit log has %d bytes", ErrDamaged, len(c.Bytes))
	}
	return one.String(), nil
}

func personalRow(columns []store.Column, cells []store.Cell) audit.Personal {
	var p audit.Personal
	for i, c := range columns {
		cell := &cells[i]
		switch c.Name {
		case "seq":
			p.Seq = cell.Int
		case "role":
			p.Role = string(cell.Bytes)
		case "subject":
			p.Subject = audit.Text{S: string(cell.Bytes), Set: !cell.Null}
		case "salt":
			p.Salt = append([]byte(nil), cell.Bytes...)
		case "json":
			p.JSON = audit.Text{S: string(cell.Bytes), Set: !cell.Null}
		case "erased_by":
			p.ErasedBy = cell.Int
		}
	}
	return p
}

// rowReader gives the rows of one table from the places of its chunks, in order.
type rowReader struct {
	a      *Archive
	ctx    context.Context //nolint:containedctx // an iterator.
	places []place
	zstd   *zstd.Decoder
	body   []byte
	raw    []byte
	rows   *store.Rows
}

func (a *Archive) rows(ctx context.Context, places []place) *rowReader {
	return &rowReader{a: a, ctx: ctx, places: places}
}

func (r *rowReader) close() {
	if r.zstd != nil {
		r.zstd.Close()
	}
}

func (r *rowReader) columns() []store.Column { return r.rows.Columns }

// next gives the cells of the next row, until the next call; io.EOF when there is none.
func (r *rowReader) next() ([]store.Cell, error) {
	for {
		if r.rows != nil && r.rows.Next() {
			return r.rows.Cells(), nil
		}
		if r.rows != nil && r.rows.Err() != nil {
			return nil, damaged(r.rows.Err())
		}
		if len(r.places) == 0 {
			return nil, io.EOF
		}
		if err := r.load(); err != nil {
			return nil, err
		}
	}
}

func (r *rowReader) load() error {
	if err := context.Cause(r.ctx); err != nil {
		return err
	}
	if r.zstd == nil {
		z, err := newDecoder()
		if err != nil {
			return err
		}
		r.zstd = z
	}
	p := r.places[0]
	r.places = r.places[1:]
	if cap(r.body) < int(p.size) {
		r.body = make([]byte, p.size)
	}
	r.body = r.body[:p.size]
	if n, err := r.a.plain.ReadAt(r.body, p.at); n < len(r.body) {
		return fmt.Errorf("read archive %s again: %w", r.a.Name, errors.Join(io.ErrUnexpectedEOF, err))
	}
	raw, err := r.zstd.DecodeAll(r.body, r.raw[:0])
	if err != nil {
		return damaged(err)
	}
	r.raw = raw
	if r.rows, err = store.DecodeRows(raw); err != nil {
		return damaged(err)
	}
	return nil
}
