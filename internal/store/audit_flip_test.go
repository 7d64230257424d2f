package store_test

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// flips is a column of a table and what somebody writes into it, as SQL.
type flips struct {
	column string
	class  audit.Class
	values []string
}

// flipsOf are what is written into the columns of audit_log and of audit_personal: other values, NULL where it may be, and
// in SQLite, which stores any value in any column, the same value as another type.
func flipsOf(lite bool) (log, personal []flips) {
	text := func(column string, class audit.Class, more ...string) flips {
		f := flips{column, class, append([]string{`coalesce(` + column + `, '') || 'x'`, `''`}, more...)}
		if lite {
			f.values = append(f.values, `CAST(coalesce(`+column+`, 'x') AS blob)`, `7`, `zeroblob(2)`)
		}
		return f
	}
	const differs = audit.ColumnDiffers
	id, ts := []string{`'01890a5d-ac96-774b-bcce-b302099a8057'`}, []string{`ts + interval '1 microsecond'`, `'infinity'`, `'-infinity'`, `'0001-01-01'`}
	body, salt := []string{`body || ' '::bytea`, `''::bytea`, `'{}'::bytea`, `set_byte(body, 9, get_byte(body, 9) # 1)`}, []string{`salt || ' '::bytea`, `''::bytea`, `NULL`}
	erased := []string{`1`, `2`, `99`, `0`, `-1`}
	seq := []string{`99`, `-seq`}
	if lite {
		id = []string{`x'01890a5dac96774bbcceb302099a8057'`, `CAST(id AS text)`, `hex(id)`, `x''`, `7`, `id || x'00'`}
		ts = []string{`ts + 1`, `-ts`, `'x'`, `CAST(ts AS blob)`, `ts + 0.5`, `x''`}
		body = []string{`x'7b7d'`, `CAST(body AS text)`, `CAST(body || ' ' AS blob)`, `x''`, `7`}
		salt = []string{`zeroblob(16)`, `CAST(salt AS text)`, `hex(salt)`, `x''`, `7`, `NULL`}
		erased = append(erased, `'x'`, `x'07'`, `1.5`)
		seq = append(seq, `'x'`, `x'03'`, `3.5`)
	}
	log = []flips{
		{"seq", audit.MissingInside, []string{`99`}},
		{"id", differs, id},
		{"ts", differs, ts},
		text("actor_kind", differs, `'cli'`),
		text("actor_id", differs, `NULL`),
		text("project_id", differs, `NULL`),
		text("project_label", differs, `NULL`),
		text("action", differs, `'auth.logout'`, `'audit.erased'`, `'audit.pruned'`, `'system.installed'`),
		text("target_type", differs, `NULL`),
		text("target_id", differs, `NULL`),
		text("target_label", differs, `NULL`),
		text("outcome", differs, `'deny'`),
		text("details", differs, `NULL`, `details || ' '`, `'{}'`),
		text("request_id", differs, `NULL`),
		text("kid", differs, `'0000000000000000'`),
		text("actor_personal", differs, `NULL`),
		text("target_personal", differs, `NULL`),
		{"body", audit.Edited, body},
		text("prev_row_hmac", differs, `NULL`, `upper(prev_row_hmac)`),
		text("row_hmac", audit.Edited, `upper(row_hmac)`),
	}
	personal = []flips{
		{"seq", audit.PersonalMissing, seq},
		text("role", audit.PersonalMissing),
		text("subject", audit.PersonalEdited, `NULL`, `upper(subject)`),
		{"salt", audit.PersonalEdited, salt},
		text("json", audit.PersonalEdited, `NULL`, `json || ' '`),
		{"erased_by", audit.PersonalEdited, erased},
	}
	return log, personal
}

// columnsOf lists the columns of a table.
func columnsOf(t testing.TB, db *sql.DB, table string) []string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SELECT * FROM `+table+` WHERE 1 = 0`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil || rows.Err() != nil {
		t.Fatal(err, rows.Err())
	}
	return columns
}

// TestFlipEveryStoredColumn changes every column of both tables in turn: each change is found, at its row, for what it is.
func TestFlipEveryStoredColumn(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		person, project := id.Random().String(), id.Random().String()
		filled := audit.New(audit.Facts{ // every column that entries share
			Action: audit.ProjectChanged, Actor: audit.Actor{Kind: audit.User, ID: person, Label: "ann@example.org", IP: "203.0.113.7", UserAgent: "curl/8"},
			Project: audit.Project{ID: project, Label: "shop"}, Target: audit.Target{ID: project, Label: "Shop"}, Details: map[string]any{"slug": "shop"}, RequestID: "r1",
		})
		login := audit.New(audit.Facts{ // two personal parts
			Action: audit.AuthLogin, Actor: audit.Actor{Kind: audit.User, ID: person, Label: "ann@example.org", IP: "203.0.113.7"},
			Target: audit.Target{ID: person, Label: "ann@example.org"}, RequestID: "r2",
		})
		if err := record(t.Context(), s, note(1), filled, login, note(2)); err != nil {
			t.Fatal(err)
		}
		db := attack(t, url)
		log, personal := flipsOf(strings.HasPrefix(url, "sqlite:"))
		for _, seq := range []int{3, 4} {
			flipTable(t, s, db, "audit_log", fmt.Sprintf(`seq = %d`, seq), int64(seq), log)
		}
		for _, role := range []string{audit.RoleActor, audit.RoleTarget} {
			flipTable(t, s, db, "audit_personal", `seq = 4 AND role = '`+role+`'`, 4, personal)
		}
		if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != 0 || r.Checked != 5 {
			t.Errorf("everything put back: exit %d, %+v; want 0", r.Exit(), r.First)
		}
		mustExec(t, db, `UPDATE audit_personal SET subject = NULL, salt = NULL, json = NULL, erased_by = 5 WHERE seq = 4`)
		if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != audit.ExitTampered || r.First.Class != audit.PersonalMissing || r.First.Seq != 5 {
			t.Errorf("parts erased without an entry: exit %d, %+v; want 1 at the entry that is none", r.Exit(), r.First)
		}
	})
}

// flipTable writes each value into the row of a table and puts back what was there.
func flipTable(t testing.TB, s *store.Store, db *sql.DB, table, where string, seq int64, all []flips) {
	t.Helper()
	columns := columnsOf(t, db, table)
	if len(columns) != len(all) {
		t.Fatalf("%s has the columns %q, and %d are changed", table, columns, len(all))
	}
	mustExec(t, db, `CREATE TABLE before AS SELECT * FROM `+table)
	for i, f := range all {
		if columns[i] != f.column {
			t.Fatalf("column %d of %s is %s, want %s", i, table, columns[i], f.column)
		}
		for _, value := range f.values {
			change := fmt.Sprintf(`UPDATE %s SET %s = %s WHERE %s`, table, f.column, value, where)
			var same bool
			if err := db.QueryRowContext(t.Context(), `SELECT coalesce(`+f.column+` = `+value+`, `+f.column+` IS NULL AND `+value+` IS NULL) FROM `+table+` WHERE `+where).Scan(&same); err != nil {
				t.Fatalf("%s: %v", change, err)
			}
			if same {
				continue
			}
			mustExec(t, db, change)
			r := verifyStore(t, s, store.VerifyOptions{})
			if r.Exit() != audit.ExitTampered || r.First == nil || r.First.Class != f.class && r.Faults[f.class] == 0 || r.First.Seq > seq {
				t.Errorf("%s: exit %d, first bad %+v of %v; want 1, %q at row %d", change, r.Exit(), r.First, r.Faults, f.class, seq)
			}
			mustExec(t, db, `DELETE FROM `+table)
			mustExec(t, db, `INSERT INTO `+table+` SELECT * FROM before`)
		}
	}
	mustExec(t, db, `DROP TABLE before`)
}
