package storetest

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

// fillBatch is how many rows of the audit log FillAudit writes at once.
const fillBatch = 5000

var (
	auditColumns = strings.Fields(`seq id ts actor_kind actor_id project_id project_label action target_type target_id target_label outcome
		details request_id kid actor_personal target_personal body prev_row_hmac row_hmac`)
	personalColumns = strings.Fields(`seq role subject salt json`)
)

// FillAudit appends n signed rows, and the personal parts of every third, to the audit log at url: as an installation
// that is used leaves it, but in batches and past the store, with the triggers in place. Nobody else may append meanwhile.
func FillAudit(t testing.TB, url string, n int) {
	t.Helper()
	fillAudit(t, url, n, func(before int64) int64 { return before + 1000 })
}

// FillAuditBy is FillAudit with a row for each of these times that a clock showed, in µs after the row that is the last
// now. As the store does, it lets time go back only where the clock did by more than some minutes.
func FillAuditBy(t testing.TB, url string, clock []int64) {
	t.Helper()
	var begin int64
	i := 0
	fillAudit(t, url, len(clock), func(before int64) int64 {
		if i == 0 {
			begin = before
		}
		i++
		return begin + clock[i-1]
	})
}

func fillAudit(t testing.TB, url string, n int, clock func(before int64) int64) {
	t.Helper()
	key, err := audit.NewKey(Secrets.Audit)
	if err != nil {
		t.Fatal(err)
	}
	db := DB(t, url)
	f := filler{key: key, clock: clock}
	var ts store.Time
	if err := db.QueryRowContext(t.Context(), `SELECT seq, row_hmac, ts FROM audit_log ORDER BY seq DESC LIMIT 1`).Scan(&f.seq, &f.hmac, &ts); err != nil {
		t.Fatal(err)
	}
	f.ts = ts.Micros()
	for done := 0; done < n; done += fillBatch {
		rows, parts := f.next(min(fillBatch, n-done))
		insert := insertSQLite
		if !strings.HasPrefix(url, "sqlite:") {
			insert = copyPostgres
		}
		if err := insert(t.Context(), db, rows, parts); err != nil {
			t.Fatalf("fill the audit log: %v", err)
		}
	}
	if !strings.HasPrefix(url, "sqlite:") {
		if _, err := db.ExecContext(t.Context(), `VACUUM ANALYZE audit_log, audit_personal`); err != nil {
			t.Fatal(err)
		}
	}
}

// filler makes the rows of a chain.
type filler struct {
	key  audit.Key
	seq  int64
	hmac string
	ts   int64

	clock func(before int64) int64 // what it shows when a row is made; both in µs
}

func (f *filler) next(n int) (rows, parts [][]any) {
	for range n {
		f.seq++
		l := audit.Link{Seq: f.seq, Prev: f.hmac}
		l.TS, l.ClockStep = audit.Stamp(f.clock(f.ts), f.ts)
		f.ts, l.ID = l.TS, id.At(l.TS)
		for i := range l.Salts {
			copy(l.Salts[i][:], fmt.Sprintf("%d %16d", i, f.seq))
		}
		e := f.entry()
		r, personal := f.key.Seal(&e, l)
		f.hmac = r.RowHMAC
		rows = append(rows, []any{
			r.Seq, l.ID, store.TimeAt(r.TS), r.ActorKind, r.ActorID.Param(), r.ProjectID.Param(), r.ProjectLabel.Param(), r.Action,
			r.TargetType.Param(), r.TargetID.Param(), r.TargetLabel.Param(), r.Outcome, r.Details.Param(), r.RequestID.Param(), r.KID,
			r.ActorPersonal.Param(), r.TargetPersonal.Param(), r.Body, r.PrevRowHMAC.Param(), r.RowHMAC,
		})
		for i := range personal {
			p := &personal[i]
			parts = append(parts, []any{p.Seq, p.Role, p.Subject.Param(), p.Salt, p.JSON.Param()})
		}
	}
	return rows, parts
}

func (f *filler) entry() audit.Entry {
	who := id.Named(id.ID{}, fmt.Appendf(nil, "user %d", f.seq%97)).String()
	mail := fmt.Sprintf("user%d@example.org", f.seq%97)
	facts := audit.Facts{
		Action: audit.ProjectChanged, Actor: audit.Actor{Kind: audit.User, ID: who}, RequestID: id.Named(id.ID{}, fmt.Appendf(nil, "%d", f.seq)).String(),
		Project: audit.Project{ID: who, Label: "shop"}, Target: audit.Target{ID: who, Label: "Shop"},
		Details: map[string]any{"slug": fmt.Sprintf("shop-%d", f.seq), "environment": "production"},
	}
	if f.seq%3 == 0 {
		facts = audit.Facts{
			Action: audit.AuthLogin, Actor: audit.Actor{Kind: audit.User, ID: who, Label: mail, IP: "203.0.113.7", UserAgent: "Mozilla/5.0 (X11; Linux x86_64)"},
			Target: audit.Target{ID: who, Label: mail}, Details: map[string]any{"session_id": who, "remembered": f.seq%2 == 0}, RequestID: facts.RequestID,
		}
	}
	return audit.New(facts)
}

func copyPostgres(ctx context.Context, db *sql.DB, rows, parts [][]any) error {
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Raw(func(driver any) error {
		conn := driver.(*stdlib.Conn).Conn()
		for i := range rows {
			rows[i][2] = rows[i][2].(store.Time).Time
		}
		if _, err := conn.CopyFrom(ctx, pgx.Identifier{"audit_log"}, auditColumns, pgx.CopyFromRows(rows)); err != nil {
			return err
		}
		_, err := conn.CopyFrom(ctx, pgx.Identifier{"audit_personal"}, personalColumns, pgx.CopyFromRows(parts))
		return err
	})
}

func insertSQLite(ctx context.Context, db *sql.DB, rows, parts [][]any) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, in := range []struct {
		table   string
		columns []string
		rows    [][]any
	}{{"audit_log", auditColumns, rows}, {"audit_personal", personalColumns, parts}} {
		text := "INSERT INTO " + in.table + " (" + strings.Join(in.columns, ", ") + ") VALUES (?" + strings.Repeat(", ?", len(in.columns)-1) + ")"
		stmt, err := tx.PrepareContext(ctx, text)
		if err != nil {
			return err
		}
		defer stmt.Close()
		for _, row := range in.rows {
			if _, err := stmt.ExecContext(ctx, row...); err != nil {
				return err
			}
		}
	}
	return tx.Commit()
}
