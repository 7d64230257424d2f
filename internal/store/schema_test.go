package store_test

import (
	"database/sql"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/ncruces/go-sqlite3/driver"

	"github.com/z4j-go/z4j/internal/store/storetest"
)

// global are the tables that may be keyed by something else than a project: small reference tables, the audit chain, and
// the installation's own bookkeeping. Every other table is one of work and follows docs/decisions/0006-past-one-machine.md.
var global = []string{"meta", "leases", "users", "sessions", "first_boot_tokens", "projects", "memberships", "agents", "api_keys", "schema_migrations"}

func isGlobal(table string) bool {
	return slices.Contains(global, table) || strings.HasPrefix(table, "audit_")
}

func TestSchemaParity(t *testing.T) {
	lite := query(t, "sqlite3", sqliteDSN(t), `
		SELECT m.name || '.' || c.name || CASE WHEN c."notnull" OR c.pk > 0 THEN '!' ELSE '' END
		FROM sqlite_master m JOIN pragma_table_info(m.name) c
		WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name <> 'schema_migrations'`)
	pg := query(t, "pgx", postgresDSN(t), `
		SELECT c.table_name || '.' || c.column_name || CASE WHEN c.is_nullable = 'NO' THEN '!' ELSE '' END
		FROM information_schema.columns c
		WHERE c.table_schema = current_schema() AND c.table_name NOT LIKE 'events\_2%' AND c.table_name <> 'schema_migrations'`)
	if diff := cmp.Diff(lite, pg); diff != "" {
		t.Errorf("the two schemas differ in tables, columns or NOT NULL (- SQLite, + Postgres); change both files of the migration:\n%s", diff)
	}
}

// TestScaleRules reads the catalogue: what a distributed Postgres asks of tables of work holds from the first migration.
func TestScaleRules(t *testing.T) {
	dsn := postgresDSN(t)
	for _, rule := range []struct{ sentence, sql string }{
		{
			"project_id is the first column of the primary key and of every unique index",
			`SELECT t.relname FROM pg_index i
			 JOIN pg_class t ON t.oid = i.indrelid JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[0]
			 WHERE t.relnamespace = current_schema()::regnamespace AND i.indisunique AND a.attname <> 'project_id'`,
		},
		{
			"a table has a primary key",
			`SELECT t.relname FROM pg_class t WHERE t.relnamespace = current_schema()::regnamespace AND t.relkind IN ('r', 'p')
			 AND NOT EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = t.oid AND i.indisprimary)`,
		},
		{
			"no sequence or identity is a key",
			`SELECT table_name FROM information_schema.columns WHERE table_schema = current_schema()
			 AND (is_identity = 'YES' OR column_default LIKE 'nextval%')`,
		},
		{
			"foreign keys go to projects, users or agents only",
			`SELECT conrelid::regclass::text FROM pg_constraint WHERE connamespace = current_schema()::regnamespace AND contype = 'f'
			 AND confrelid::regclass::text NOT IN ('projects', 'users', 'agents')`,
		},
		{
			"no trigger stands on it",
			`SELECT tgrelid::regclass::text FROM pg_trigger JOIN pg_class t ON t.oid = tgrelid
			 WHERE NOT tgisinternal AND t.relnamespace = current_schema()::regnamespace`,
		},
	} {
		for _, table := range query(t, "pgx", dsn, rule.sql) {
			if table := strings.TrimPrefix(table, "public."); !isGlobal(table) {
				t.Errorf("%s: for every table of work, %s", table, rule.sentence)
			}
		}
	}
	for _, table := range query(t, "pgx", dsn, `SELECT conrelid::regclass::text || ' ' || confrelid::regclass::text FROM pg_constraint
		WHERE connamespace = current_schema()::regnamespace AND contype = 'f'`) {
		from, to, _ := strings.Cut(table, " ")
		if isGlobal(from) && !isGlobal(to) {
			t.Errorf("%s refers to %s: nothing global refers to a table of work", from, to)
		}
	}
}

// TestFieldCaseF47NoNarrowCounters: every number in the schema is as wide as its use: counters that grow with the number of events have 64 bits.
func TestFieldCaseF47NoNarrowCounters(t *testing.T) {
	narrow := query(t, "pgx", postgresDSN(t), `SELECT table_name || '.' || column_name FROM information_schema.columns
		WHERE table_schema = current_schema() AND data_type = 'integer' AND table_name NOT LIKE 'events\_2%'`)
	// Bounded by the marks that are kept (384), by a limit, or by a frame's size.
	bounded := []string{
		"tasks.deciding", "tasks.attempts", "tasks.retry_count", "tasks.deliveries", "attempts.number", "attempts.retries",
		"dead_letters.size", "users.failed_login_count", "schema_migrations.id",
	}
	for _, c := range narrow {
		if !slices.Contains(bounded, c) && !strings.HasPrefix(c, "audit_") {
			t.Errorf("%s has 32 bits: use bigint, or name it here with its bound", c)
		}
	}
}

func sqliteDSN(t *testing.T) string {
	t.Helper()
	url := storetest.SQLite(t)
	storetest.Open(t, url)
	return "file:" + strings.TrimPrefix(url, "sqlite:")
}

func postgresDSN(t *testing.T) string {
	t.Helper()
	url := storetest.Postgres(t)
	storetest.Open(t, url)
	return url
}

func query(t *testing.T, driver, dsn, q string) []string {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}
