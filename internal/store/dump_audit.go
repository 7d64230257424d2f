package store

import (
	"fmt"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
)

// DecodeAudit reads the rows of a chunk of audit_log, in order.
func DecodeAudit(raw []byte) ([]audit.Row, error) {
	var out []audit.Row
	err := decodeInto(raw, "audit_log", func(cells map[string]*Cell) error {
		at := func(name string) audit.Text { return cellText(cells[name]) }
		row := audit.Row{
			Seq: cells["seq"].Int, TS: cells["ts"].Int, ID: id.ID(cells["id"].Bytes).String(),
			ActorKind: at("actor_kind").S, ActorID: at("actor_id"), ProjectID: at("project_id"), ProjectLabel: at("project_label"),
			Action: at("action").S, TargetType: at("target_type"), TargetID: at("target_id"), TargetLabel: at("target_label"),
			Outcome: at("outcome").S, Details: at("details"), RequestID: at("request_id"), KID: at("kid").S,
			ActorPersonal: at("actor_personal"), TargetPersonal: at("target_personal"), Body: append([]byte(nil), cells["body"].Bytes...),
			PrevRowHMAC: at("prev_row_hmac"), RowHMAC: at("row_hmac").S,
		}
		out = append(out, row)
		return nil
	})
	return out, err
}

// DecodePersonal reads the rows of a chunk of audit_personal, in order.
func DecodePersonal(raw []byte) ([]audit.Personal, error) {
	var out []audit.Personal
	err := decodeInto(raw, "audit_personal", func(cells map[string]*Cell) error {
		p := audit.Personal{
			Seq: cells["seq"].Int, Role: cellText(cells["role"]).S, Subject: cellText(cells["subject"]), JSON: cellText(cells["json"]), ErasedBy: cells["erased_by"].Int,
		}
		if c := cells["salt"]; !c.Null {
			p.Salt = append([]byte{}, c.Bytes...)
		}
		out = append(out, p)
		return nil
	})
	return out, err
}

func cellText(c *Cell) audit.Text { return audit.Text{S: string(c.Bytes), Set: !c.Null} }

// decodeInto gives fn the rows of a chunk of a table of this program's schema, by the names of the columns.
func decodeInto(raw []byte, table string, fn func(map[string]*Cell) error) error {
	r, err := DecodeRows(raw)
	if err != nil {
		return err
	}
	tables, err := shapes(newestSchema())
	if err != nil {
		return err
	}
	cells := map[string]*Cell{}
	for i, c := range r.Columns {
		cells[c.Name] = &r.cells[i]
	}
	for _, t := range tables {
		for _, c := range t.columns {
			if t.name == table && (r.Table != table || cells[c.Name] == nil) {
				return fmt.Errorf("read chunk of %s: %w: it is of %s, or column %s is missing", table, ErrDamaged, r.Table, c.Name)
			}
		}
	}
	for r.Next() {
		for i, c := range r.Columns {
			if c.Name == "id" && len(r.cells[i].Bytes) != 16 {
				return fmt.Errorf("read chunk of %s: %w: bad id", table, ErrDamaged)
			}
		}
		if err := fn(cells); err != nil {
			return err
		}
	}
	return r.Err()
}
