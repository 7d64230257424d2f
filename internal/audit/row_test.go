package audit_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
)

func sum(text string) string {
	h := sha256.Sum256([]byte(text))
	return hex.EncodeToString(h[:])
}

// field is a column of text, by its name.
type field struct {
	name string
	get  func(*audit.Row) audit.Text
	set  func(*audit.Row, audit.Text)
}

func nullable(name string, at func(*audit.Row) *audit.Text) field {
	return field{name, func(r *audit.Row) audit.Text { return *at(r) }, func(r *audit.Row, t audit.Text) { *at(r) = t }}
}

func filled(name string, at func(*audit.Row) *string) field {
	return field{name, func(r *audit.Row) audit.Text { return audit.Some(*at(r)) }, func(r *audit.Row, t audit.Text) { *at(r) = t.S }}
}

// fields are all the columns of text.
var fields = []field{
	filled("id", func(r *audit.Row) *string { return &r.ID }),
	filled("actor_kind", func(r *audit.Row) *string { return &r.ActorKind }),
	nullable("actor_id", func(r *audit.Row) *audit.Text { return &r.ActorID }),
	nullable("project_id", func(r *audit.Row) *audit.Text { return &r.ProjectID }),
	nullable("project_label", func(r *audit.Row) *audit.Text { return &r.ProjectLabel }),
	filled("action", func(r *audit.Row) *string { return &r.Action }),
	nullable("target_type", func(r *audit.Row) *audit.Text { return &r.TargetType }),
	nullable("target_id", func(r *audit.Row) *audit.Text { return &r.TargetID }),
	nullable("target_label", func(r *audit.Row) *audit.Text { return &r.TargetLabel }),
	filled("outcome", func(r *audit.Row) *string { return &r.Outcome }),
	nullable("details", func(r *audit.Row) *audit.Text { return &r.Details }),
	nullable("request_id", func(r *audit.Row) *audit.Text { return &r.RequestID }),
	filled("kid", func(r *audit.Row) *string { return &r.KID }),
	nullable("actor_personal", func(r *audit.Row) *audit.Text { return &r.ActorPersonal }),
	nullable("target_personal", func(r *audit.Row) *audit.Text { return &r.TargetPersonal }),
	nullable("prev_row_hmac", func(r *audit.Row) *audit.Text { return &r.PrevRowHMAC }),
	filled("row_hmac", func(r *audit.Row) *string { return &r.RowHMAC }),
}

func columns(r *audit.Row) map[string]any {
	m := map[string]any{"seq": r.Seq, "ts_us": r.TS, "body": base64.StdEncoding.EncodeToString(r.Body)}
	for _, f := range fields {
		if t := f.get(r); t.Set {
			m[f.name] = t.S
		} else {
			m[f.name] = nil
		}
	}
	return m
}

func (s *storedRow) row() (audit.Row, []audit.Personal) {
	r := audit.Row{Seq: int64(s.Columns["seq"].(float64)), TS: int64(s.Columns["ts_us"].(float64))}
	r.Body, _ = base64.StdEncoding.DecodeString(s.Columns["body"].(string))
	for _, f := range fields {
		if text, ok := s.Columns[f.name].(string); ok {
			f.set(&r, audit.Text{S: text, Set: true})
		}
	}
	var parts []audit.Personal
	for _, p := range s.Personal {
		part := audit.Personal{Seq: r.Seq, Role: p.Role, ErasedBy: p.ErasedBy}
		part.Salt, _ = hex.DecodeString(p.Salt)
		if p.Subject != nil {
			part.Subject = audit.Text{S: *p.Subject, Set: true}
		}
		if p.JSON != nil {
			part.JSON = audit.Text{S: *p.JSON, Set: true}
		}
		parts = append(parts, part)
	}
	return r, parts
}

// walk verifies rows with keys, as rows of a file and as columns of a database, which have to come out alike.
func walk(keys []audit.Key, b *audit.Boundary, rows []audit.Row, parts map[int64][]audit.Personal) audit.Report {
	var reports [2]audit.Report
	for i, stored := range []bool{false, true} {
		v := audit.NewVerifier(keys)
		if b != nil {
			v.Begin(*b)
		}
		c := v.Checker()
		for i := range rows {
			if !stored {
				v.Row(&rows[i], parts[rows[i].Seq])
				continue
			}
			raw := rawColumns(&rows[i])
			checked := c.Columns(&raw, parts[rows[i].Seq])
			v.Take(&checked)
		}
		reports[i] = v.Finish(int64(len(rows)))
	}
	if diff := cmp.Diff(reports[0], reports[1]); diff != "" {
		panic("rows and columns come out differently (-rows +columns):\n" + diff)
	}
	return reports[1]
}

// rawColumns is r as a driver would give it.
func rawColumns(r *audit.Row) audit.Columns {
	text := func(t audit.Text) []byte {
		if !t.Set {
			return nil
		}
		return append(make([]byte, 0, len(t.S)+1), t.S...)
	}
	c := audit.Columns{
		Seq: r.Seq, TS: r.TS, ID: []byte(r.ID), ActorKind: []byte(r.ActorKind), ActorID: text(r.ActorID), ProjectID: text(r.ProjectID),
		ProjectLabel: text(r.ProjectLabel), Action: []byte(r.Action), TargetType: text(r.TargetType), TargetID: text(r.TargetID),
		TargetLabel: text(r.TargetLabel), Outcome: []byte(r.Outcome), Details: text(r.Details), RequestID: text(r.RequestID), KID: []byte(r.KID),
		ActorPersonal: text(r.ActorPersonal), TargetPersonal: text(r.TargetPersonal), Body: r.Body, PrevRowHMAC: text(r.PrevRowHMAC), RowHMAC: []byte(r.RowHMAC),
	}
	if u, err := id.Parse(r.ID); err == nil && u.String() == r.ID {
		c.ID = u[:]
	}
	return c
}

func verify(v vector) audit.Report {
	var keys []audit.Key
	for _, s := range v.Secrets {
		k, _ := audit.NewKey([]byte(s))
		keys = append(keys, k)
	}
	rows, parts := v.stored()
	return walk(keys, v.Boundary, rows, parts)
}

func (v *vector) stored() ([]audit.Row, map[int64][]audit.Personal) {
	var rows []audit.Row
	parts := map[int64][]audit.Personal{}
	for i := range v.Rows {
		r, p := v.Rows[i].row()
		rows = append(rows, r)
		parts[r.Seq] = p
	}
	return rows, parts
}
