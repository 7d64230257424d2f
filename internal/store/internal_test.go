package store

import (
	"context"
	"database/sql"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func openBare(t *testing.T, url string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{URL: url, Migrate: true, Secrets: func(context.Context, bool) (Secrets, error) {
		return Secrets{Master: []byte(strings.Repeat("m", 40)), Audit: []byte(strings.Repeat("a", 40))}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func columnsOf(t *testing.T, db *sql.DB, q string) []string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var table, column string
		var required bool
		if err := rows.Scan(&table, &column, &required); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(table, "events_") {
			continue // a day's partition
		}
		s := table + "." + column
		if required {
			s += "!"
		}
		out = append(out, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func sqliteColumns(t *testing.T) []string {
	s := openBare(t, "sqlite:"+filepath.Join(t.TempDir(), "x.db"))
	return columnsOf(t, s.read, `SELECT m.name, c.name, c."notnull" OR c.pk > 0 FROM sqlite_master m JOIN pragma_table_info(m.name) c
		WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name <> 'schema_migrations'`)
}
