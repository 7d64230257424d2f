package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// oddTexts are what a text column may hold.
var oddTexts = []string{
	"", "null", "ünï \U0001F980 \ufffd\ufffd", "a\tb\nc\r\\N\\x00 '\"$1 ?1 \x01\x7f", strings.Repeat("long ", 30_000),
}

// oddValue is a value for a column that the rows before do not have.
func oddValue(c store.Column, n int, postgres bool) any {
	switch c.Kind {
	case store.KindBool:
		if postgres {
			return n%2 == 0
		}
		return n % 2
	case store.KindInt:
		switch {
		case slices.Contains([]string{"sum", "wait_us", "runtime_us", "concurrency"}, c.Name):
			return []int64{1<<63 - 1, -1 << 63, -1, 0}[n%4]
		case n == 0:
			return 127
		}
		return n
	case store.KindTime:
		at := time.Date(2026, 3, 14+n%3, 9, 26, 53, 589793000+n*1000, time.UTC)
		if n == 1 {
			at = time.Date(1969, 12, 31, 23, 59, 59, 999999000, time.UTC)
		}
		if postgres {
			return at
		}
		return at.UnixMicro()
	case store.KindText:
		text := oddTexts[n%len(oddTexts)]
		if len(text) > 1000 && !slices.Contains([]string{"payload", "args", "traceback", "body", "value", "metadata"}, c.Name) {
			text = "in an index"
		}
		return text + strings.Repeat("+", n/len(oddTexts))
	case store.KindBytes:
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i + n)
		}
		return all[:256*(n%2)]
	case store.KindUUID:
		u := id.Named(id.ID{}, []byte(c.Name+fmt.Sprint(n)))
		if postgres {
			return u.String()
		}
		return u[:]
	}
	return nil
}

// fillOdd puts rows into every table but the audit log's, beside a few true audit entries.
func fillOdd(t testing.TB, s *store.Store, url string) {
	t.Helper()
	mustRecord(t, s, 3)
	if s.Dialect() == "postgres" {
		for _, day := range []time.Time{time.Date(2026, 3, 15, 0, 0, 0, 0, time.UTC), time.Date(1969, 12, 31, 0, 0, 0, 0, time.UTC)} {
			if err := s.EnsurePartitions(t.Context(), day, 2); err != nil {
				t.Fatal(err)
			}
		}
	}
	tables, err := store.Shapes()
	if err != nil {
		t.Fatal(err)
	}
	refs, err := s.References(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	db := storetest.DB(t, url)
	for _, table := range tables { // the migrations make what is referred to first
		if strings.HasPrefix(table.Name, "audit_") || table.Name == "leases" {
			continue
		}
		fillTable(t, db, table, refs[table.Name], notNull(t, db, table.Name, s.Dialect()), s.Dialect() == "postgres")
	}
}

func fillTable(t testing.TB, db *sql.DB, table store.Shape, refs []store.Reference, required map[string]bool, postgres bool) {
	t.Helper()
	var names, marks []string
	sign := map[bool]string{true: "$", false: "?"}[postgres]
	for i, c := range table.Columns {
		names, marks = append(names, c.Name), append(marks, fmt.Sprint(sign, i+1))
	}
	for n := range 12 {
		var values []any
		for _, c := range table.Columns {
			v := oddValue(c, n, postgres)
			for _, r := range refs {
				if r.Column == c.Name {
					v = oddValue(store.Column{Name: r.To, Kind: c.Kind}, n, postgres)
				}
			}
			if !required[c.Name] && n%3 == 1 {
				v = nil
			}
			values = append(values, v)
		}
		_, err := db.ExecContext(t.Context(), `INSERT INTO `+table.Name+` (`+strings.Join(names, ", ")+`) VALUES (`+strings.Join(marks, ", ")+`)`, values...)
		if err != nil && !strings.Contains(strings.ToLower(err.Error()), "check constraint") { // a table of one row has its row
			t.Fatalf("%s: %v", table.Name, err)
		}
	}
}

// notNull are the columns of a table that take no NULL.
func notNull(t testing.TB, db *sql.DB, table, dialect string) map[string]bool {
	t.Helper()
	q := `SELECT name FROM pragma_table_info('` + table + `') WHERE "notnull" > 0 OR pk > 0`
	if dialect == "postgres" {
		q = `SELECT column_name FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = '` + table + `' AND is_nullable = 'NO'`
	}
	out := map[string]bool{}
	for _, row := range storetest.Rows(t, db, q) {
		out[row[0]] = true
	}
	return out
}

// kept is a snapshot's chunks, as an archive keeps them.
type kept struct {
	info    store.SnapshotInfo
	chunks  []store.Chunk
	content map[string]store.Content
}

func keep(t testing.TB, s *store.Store) kept {
	t.Helper()
	snap, err := s.Snapshot(t.Context(), store.SnapshotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	k := kept{info: snap.Info(), content: map[string]store.Content{}}
	for _, name := range snap.Tables() {
		k.content[name] = store.Content{}
	}
	var mu sync.Mutex
	err = snap.Read(t.Context(), 2, func(c store.Chunk) error {
		mu.Lock()
		defer mu.Unlock()
		c.Raw = slices.Clone(c.Raw)
		k.chunks = append(k.chunks, c)
		all := k.content[c.Table]
		err := all.Add(c.Raw)
		k.content[c.Table] = all
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// open begins a restore into url.
func (k *kept) open(ctx context.Context, url string) (*store.Loader, error) {
	return store.OpenLoader(ctx, store.LoadOptions{URL: url, Schema: k.info.Schema, Now: time.Now})
}

// into restores into url and gives the database, opened as any other.
func (k *kept) into(t testing.TB, url string) *store.Store {
	t.Helper()
	l, err := k.open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, c := range k.chunks {
		if n, err := l.Load(t.Context(), c.Table, c.Raw); err != nil || n != c.Rows {
			t.Fatalf("load chunk %d of %s: %d rows, %v; want %d", c.N, c.Table, n, err, c.Rows)
		}
	}
	s, err := l.Finish(t.Context(), storetest.Secrets)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(t.Context(), noted(t, s)); err != nil {
		t.Fatal(err)
	}
	return storetest.Open(t, url)
}

// noted ends a restore with an entry.
func noted(t testing.TB, s *store.Store) func(last func(*store.Tx) error) error {
	return func(last func(*store.Tx) error) error {
		return s.Update(t.Context(), func(tx *store.Tx) error {
			tx.Record(note("restored"))
			return last(tx)
		})
	}
}

// TestEveryTableIsInABackupOrLeftOutOnPurpose compares what migrations say, which is what a backup reads, with both catalogues.
func TestEveryTableIsInABackupOrLeftOutOnPurpose(t *testing.T) {
	tables, err := store.Shapes()
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]store.Kind{
		"boolean": store.KindBool, "smallint": store.KindInt, "integer": store.KindInt, "bigint": store.KindInt, "text": store.KindText,
		"timestamp with time zone": store.KindTime, "bytea": store.KindBytes, "uuid": store.KindUUID,
	}
	said := map[string]string{}
	for _, table := range tables {
		for _, c := range table.Columns {
			said[table.Name+"."+c.Name] = c.Kind.String()
		}
	}
	inPostgres := map[string]string{}
	for _, row := range storetest.Rows(t, storetest.DB(t, mustOpen(t, storetest.Postgres(t))), `SELECT table_name || '.' || column_name, data_type FROM information_schema.columns
		WHERE table_schema = current_schema() AND table_name NOT LIKE 'events\_%' AND table_name <> 'schema_migrations'`) {
		if inPostgres[row[0]] = kinds[row[1]].String(); inPostgres[row[0]] == "" {
			t.Errorf("%s has type %s, which no backup can hold: give it a Kind", row[0], row[1])
		}
	}
	if diff := cmp.Diff(inPostgres, said); diff != "" {
		t.Errorf("what a backup knows of the schema is not what Postgres says (- Postgres, + a backup): write the migration so that reshape reads it, or teach it\n%s", diff)
	}
	for _, row := range storetest.Rows(t, storetest.DB(t, mustOpen(t, storetest.SQLite(t))), `SELECT m.name || '.' || c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
		WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name <> 'schema_migrations'`) {
		if said[row[0]] == "" {
			t.Errorf("%s is in SQLite and in no backup", row[0])
		}
	}
	for name, why := range store.LeftOut() {
		if why == "" {
			t.Errorf("table %s is left out without a reason", name)
		}
		if name != "schema_migrations" && !slices.ContainsFunc(tables, func(s store.Shape) bool { return s.Name == name }) {
			t.Errorf("table %s is left out and not there", name)
		}
	}
}

func mustOpen(t testing.TB, url string) string {
	t.Helper()
	storetest.Open(t, url)
	return url
}

// TestSQLiteToPostgresAndBack: what goes from one database into another, and back, is the same, row by row.
func TestSQLiteToPostgresAndBack(t *testing.T) {
	for _, tt := range []struct {
		name string
		urls []func(testing.TB) string
	}{
		{"from sqlite", []func(testing.TB) string{storetest.SQLite, storetest.Postgres, storetest.SQLite, storetest.SQLite}},
		{"from postgres", []func(testing.TB) string{storetest.Postgres, storetest.SQLite, storetest.Postgres, storetest.Postgres}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			first := tt.urls[0](t)
			s := storetest.Open(t, first)
			fillOdd(t, s, first)
			k := keep(t, s)
			for table, c := range k.content {
				if c.Rows == 0 && !strings.HasPrefix(table, "audit_") {
					t.Errorf("table %s has no rows: the test shows nothing", table)
				}
			}
			for i, next := range tt.urls[1:] {
				s := k.into(t, next(t))
				again := keep(t, s)
				for table, want := range k.content {
					if got := again.content[table]; got != want && !strings.HasPrefix(table, "audit_") {
						t.Errorf("table %s after restore %d: %v, want %v", table, i+1, got, want)
					}
				}
				if got, want := again.info.AuditSize, k.info.AuditSize+1; got != want { // the restore's own
					t.Errorf("audit entries after restore %d: %d, want %d", i+1, got, want)
				}
				if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != 0 {
					t.Errorf("verify after restore %d: exit %d, %+v", i+1, r.Exit(), r.First)
				}
				mustRecord(t, s, 1)
				k = keep(t, s)
			}
		})
	}
}

// TestSnapshotIsOneMoment: what is committed after it began is not in it.
func TestSnapshotIsOneMoment(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		mustRecord(t, s, 5)
		snap, err := s.Snapshot(t.Context(), store.SnapshotOptions{TempDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close()
		mustRecord(t, s, 5)
		if err := s.PutMeta(t.Context(), "later", "x"); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		rows := map[string]int64{}
		numbers := map[string][]int{}
		err = snap.Read(t.Context(), 2, func(c store.Chunk) error {
			mu.Lock()
			defer mu.Unlock()
			rows[c.Table] += c.Rows
			numbers[c.Table] = append(numbers[c.Table], c.N)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if info := snap.Info(); rows["audit_log"] != info.AuditSize || info.AuditSize != 6 || info.Head == "" || info.Generation == "" || info.Schema == 0 || info.Server == "" {
			t.Errorf("read %d audit rows; the snapshot says %+v", rows["audit_log"], info)
		}
		if s.OldestSnapshot() <= 0 {
			t.Error("the age of the open snapshot is not told")
		}
		for table, got := range numbers {
			slices.Sort(got)
			for i, n := range got {
				if n != i {
					t.Errorf("chunks of %s are numbered %v", table, got)
				}
			}
		}
		if err := snap.Close(); err != nil {
			t.Fatal(err)
		}
		if d := s.OldestSnapshot(); d != 0 {
			t.Errorf("after Close a snapshot is %v old", d)
		}
	})
}

// TestSQLiteSnapshotLeavesNoFile: the copy is gone as soon as it is open, and what a killed run left goes with the next.
func TestSQLiteSnapshotLeavesNoFile(t *testing.T) {
	s := storetest.Open(t, storetest.SQLite(t))
	mustRecord(t, s, 1)
	dir := t.TempDir()
	stale := filepath.Join(dir, "z4j-snapshot-123.tmp")
	if err := os.WriteFile(stale, []byte("left over"), 0o600); err != nil {
		t.Fatal(err)
	}
	snap, err := s.Snapshot(t.Context(), store.SnapshotOptions{TempDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 0 {
		t.Errorf("while the snapshot is open the directory has %v, %v; want nothing", files, err)
	}
	if _, err := s.Snapshot(t.Context(), store.SnapshotOptions{TempDir: filepath.Join(dir, "missing")}); err == nil {
		t.Error("a directory that is not there: no error")
	}
}

// TestTheCopyIsMadeWhereThereIsRoom: in the first of some directories that has it; a disk that fills while it is made is told,
// and holds nothing of it afterwards.
func TestTheCopyIsMadeWhereThereIsRoom(t *testing.T) {
	url := storetest.SQLite(t)
	s := storetest.Open(t, url)
	mustRecord(t, s, 2000) // some megabytes
	small, roomy := t.TempDir(), t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("a small file system can't be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	stale := filepath.Join(small, "z4j-snapshot-123.tmp")
	if err := os.WriteFile(stale, []byte("left over"), 0o600); err != nil {
		t.Fatal(err)
	}
	nothingIn := func(when, dir string) {
		t.Helper()
		if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
			t.Errorf("%s: %s has %v, %v; want nothing", when, dir, files, err)
		}
	}
	snap, err := s.Snapshot(t.Context(), store.SnapshotOptions{TempDirs: []string{filepath.Join(roomy, "missing"), small, roomy}})
	if err != nil {
		t.Fatalf("the third of three places has room: %v", err)
	}
	nothingIn("the copy of a backup that was killed is cleared away", small)
	if err := snap.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Snapshot(t.Context(), store.SnapshotOptions{TempDir: small, TempDirs: []string{roomy}}); !errors.Is(err, store.ErrNoRoom) || !strings.Contains(err.Error(), "Z4J_BACKUP_TMP") {
		t.Errorf("the place that was named has no room: %v, want ErrNoRoom and the way out", err)
	}
	if err := s.SnapshotIn(t.Context(), small); !errors.Is(err, store.ErrNoRoom) || !strings.Contains(err.Error(), small) {
		t.Errorf("the disk is full before the copy is whole: %v, want ErrNoRoom and the place", err)
	}
	nothingIn("after that", small)
	if err := s.SnapshotIn(t.Context(), roomy); err != nil {
		t.Errorf("with room: %v, want a snapshot", err)
	}
	nothingIn("after that", roomy)
}

// TestFieldCaseF55WhatCannotBeReadFailsTheBackup: a table that is locked or may not be read is named, and nothing is skipped.
func TestFieldCaseF55WhatCannotBeReadFailsTheBackup(t *testing.T) {
	address := storetest.Postgres(t)
	s := storetest.Open(t, address)
	mustRecord(t, s, 1)
	db := storetest.DB(t, address)

	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `LOCK TABLE queues IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Snapshot(t.Context(), store.SnapshotOptions{LockWait: 100 * time.Millisecond}); err == nil || !strings.Contains(err.Error(), "queues") {
		t.Errorf("a locked table: %v, want an error that names it", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}

	role := strings.ToLower("r_" + id.Random().String()[:8])
	schema := ""
	if err := db.QueryRowContext(t.Context(), `SELECT current_schema()`).Scan(&schema); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{
		`CREATE ROLE ` + role + ` LOGIN`, `GRANT ALL ON SCHEMA ` + schema + ` TO ` + role, `GRANT ALL ON ALL TABLES IN SCHEMA ` + schema + ` TO ` + role,
		`REVOKE SELECT ON workers FROM ` + role,
	} {
		mustExec(t, db, q)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		_, err1 := db.ExecContext(ctx, `DROP OWNED BY `+role)
		_, err2 := db.ExecContext(ctx, `DROP ROLE `+role)
		if err := errors.Join(err1, err2); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(role)
	o := storetest.Options(u.String())
	o.Migrate = false
	limited, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer limited.Close()
	if _, err := limited.Snapshot(t.Context(), store.SnapshotOptions{}); err == nil || !strings.Contains(err.Error(), "workers") {
		t.Errorf("a table that may not be read: %v, want an error that names it", err)
	}
}

// TestReadPassesOnWhatTheReceiverSays: an error of emit ends the reading, with its cause.
func TestReadPassesOnWhatTheReceiverSays(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		mustRecord(t, s, 1)
		snap, err := s.Snapshot(t.Context(), store.SnapshotOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close()
		full := errors.New("disk full")
		if err := snap.Read(t.Context(), 2, func(store.Chunk) error { return full }); !errors.Is(err, full) {
			t.Errorf("got %v, want %v", err, full)
		}
	})
}

// TestSchemaChangedDuringABackupFailsIt: a backup of two schemas is none.
func TestSchemaChangedDuringABackupFailsIt(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		snap, err := s.Snapshot(t.Context(), store.SnapshotOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close()
		mustExec(t, storetest.DB(t, url), `UPDATE schema_migrations SET version_id = 9999 WHERE version_id = (SELECT max(version_id) FROM schema_migrations)`)
		if err := snap.Read(t.Context(), 2, func(store.Chunk) error { return nil }); !errors.Is(err, store.ErrSchemaChanged) {
			t.Errorf("got %v, want ErrSchemaChanged", err)
		}
		if _, err := s.Snapshot(t.Context(), store.SnapshotOptions{}); !errors.Is(err, store.ErrSchemaChanged) {
			t.Errorf("a snapshot of a newer schema: %v, want ErrSchemaChanged", err)
		}
	})
}

func TestReshapeReadsMigrations(t *testing.T) {
	got, err := store.Reshape(`-- +goose Up
CREATE TABLE a (
    id   uuid PRIMARY KEY, -- c text
    n    bigint NOT NULL DEFAULT 0 CHECK (n >= 0),
    old  text,
    UNIQUE (id, n)
) WITH (fillfactor = 80);
CREATE TABLE gone (
    id uuid
);
`, `-- +goose Up
ALTER TABLE a ADD COLUMN more timestamptz;
ALTER TABLE a RENAME COLUMN n TO number;
ALTER TABLE a DROP COLUMN old;
DROP TABLE gone;
-- +goose Down
ALTER TABLE a ADD COLUMN never text;
`)
	want := map[string][]store.Column{"a": {{Name: "id", Kind: store.KindUUID}, {Name: "number", Kind: store.KindInt}, {Name: "more", Kind: store.KindTime}}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := store.Reshape("CREATE TABLE a (\n  p point\n);\n"); err == nil {
		t.Error("a type that no backup can hold: no error")
	}
}

// TestAuditChainVerifiesInsideABackup: the rows of an archive are those of the log, and prove themselves.
func TestAuditChainVerifiesInsideABackup(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		mustRecord(t, s, 20)
		k := keep(t, s)
		key, err := audit.NewKey(storetest.Secrets.Audit)
		if err != nil {
			t.Fatal(err)
		}
		v := audit.NewVerifier([]audit.Key{key})
		parts := map[int64][]audit.Personal{}
		var rows []audit.Row
		for _, c := range k.chunks {
			switch c.Table {
			case "audit_log":
				found, err := store.DecodeAudit(c.Raw)
				if err != nil {
					t.Fatal(err)
				}
				rows = append(rows, found...)
			case "audit_personal":
				found, err := store.DecodePersonal(c.Raw)
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range found {
					parts[p.Seq] = append(parts[p.Seq], p)
				}
				if _, err := store.DecodeAudit(c.Raw); !errors.Is(err, store.ErrDamaged) {
					t.Errorf("audit rows out of another table: %v, want ErrDamaged", err)
				}
			}
		}
		for i := range rows {
			v.Row(&rows[i], parts[rows[i].Seq])
		}
		if r := v.Finish(int64(len(rows))); r.Exit() != 0 || len(rows) != 21 || len(parts) != 20 || rows[20].RowHMAC != k.info.Head {
			t.Errorf("%d rows, parts of %d, exit %d, %+v; want 21, 20, 0 and the head %s", len(rows), len(parts), r.Exit(), r.First, k.info.Head)
		}
	})
}
