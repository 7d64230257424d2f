package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// small is a database with a little in it, as an archive keeps it.
func small(t testing.TB) kept {
	t.Helper()
	url := storetest.SQLite(t)
	s := storetest.Open(t, url)
	fillOdd(t, s, url)
	return keep(t, s)
}

// untouched says that nothing is left of a restore into url.
func untouched(t *testing.T, address string) {
	t.Helper()
	path, lite := strings.CutPrefix(address, "sqlite:")
	if !lite {
		if left := storetest.Rows(t, storetest.DB(t, address), `SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace
			UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace`); len(left) > 0 {
			t.Errorf("left of the restore: %v, want nothing", left)
		}
		return
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if err != nil || len(files) > 0 {
		t.Errorf("left of the restore: %v, %v; want nothing", files, err)
	}
}

// TestFieldCaseF55WhatCannotBeWrittenFailsTheRestore: rows that are damaged, of another schema or that the database
// refuses end the restore, and nothing is left of it.
func TestFieldCaseF55WhatCannotBeWrittenFailsTheRestore(t *testing.T) {
	k := small(t)
	chunk := func(table string) store.Chunk {
		return k.chunks[slices.IndexFunc(k.chunks, func(c store.Chunk) bool { return c.Table == table })]
	}
	users, meta := chunk("users").Raw, chunk("meta").Raw
	columns := []store.Column{{Name: "key", Kind: store.KindText}, {Name: "value", Kind: store.KindText}, {Name: "updated_at", Kind: store.KindTime}}
	storetest.EachURL(t, func(t *testing.T, address string) {
		for _, tt := range []struct {
			name  string
			table string
			raw   []byte
			only  string // database
		}{
			{"cut in the middle of a row", "users", users[:len(users)-3], ""},
			{"a bit of its header is flipped", "users", append([]byte{users[0] ^ 1}, users[1:]...), ""},
			{"the rows of another table", "users", meta, ""},
			{"a table that is not there", "elsewhere", users, ""},
			{"a table that no backup holds", "leases", users, ""},
			{"a value is missing that must be there", "meta", store.NewChunk("meta", columns, []any{[]byte("k"), nil, int64(0)}), ""},
			{"the same key twice", "meta", store.NewChunk("meta", columns, []any{[]byte("k"), []byte("1"), int64(0)}, []any{[]byte("k"), []byte("2"), int64(0)}), ""},
			{"a text with U+0000", "meta", store.NewChunk("meta", columns, []any{[]byte("k\x00"), []byte("1"), int64(0)}), "postgres"},
			{"a text that is no UTF-8", "meta", store.NewChunk("meta", columns, []any{[]byte("k\xff"), []byte("1"), int64(0)}), "postgres"},
		} {
			if tt.only != "" && !strings.HasPrefix(address, tt.only) {
				continue
			}
			l, err := k.open(t.Context(), address)
			if err != nil {
				t.Fatal(err)
			}
			_, err = l.Load(t.Context(), tt.table, tt.raw)
			if err == nil {
				_, err = l.Finish(t.Context(), storetest.Secrets)
			}
			if err == nil || !strings.Contains(err.Error(), tt.table) {
				t.Errorf("%s: %v, want an error that names %s", tt.name, err, tt.table)
			}
			if err := l.Close(); err != nil {
				t.Errorf("%s: close: %v", tt.name, err)
			}
			untouched(t, address)
		}
	})
}

// TestRowsThatReferToNothingFailTheRestore: a backup that lost a table's rows is not restored in silence.
func TestRowsThatReferToNothingFailTheRestore(t *testing.T) {
	k := small(t)
	k.chunks = slices.DeleteFunc(k.chunks, func(c store.Chunk) bool { return c.Table == "users" })
	storetest.EachURL(t, func(t *testing.T, address string) {
		l, err := k.open(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range k.chunks {
			if _, err := l.Load(t.Context(), c.Table, c.Raw); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := l.Finish(t.Context(), storetest.Secrets); err == nil || !strings.Contains(err.Error(), "users") {
			t.Errorf("memberships without their users: %v, want an error that names the table", err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		untouched(t, address)
	})
}

// TestNothingIsRestoredOverData: a database with anything in it is refused and stays as it is.
func TestNothingIsRestoredOverData(t *testing.T) {
	k := small(t)
	storetest.EachURL(t, func(t *testing.T, address string) {
		s := storetest.Open(t, address)
		mustRecord(t, s, 2)
		if _, err := k.open(t.Context(), address); !errors.Is(err, store.ErrNotEmpty) {
			t.Errorf("into a database of ours: %v, want ErrNotEmpty", err)
		}
		mustRecord(t, s, 1)
		newer := k
		newer.info.Schema = 9999
		if _, err := newer.open(t.Context(), address); !errors.Is(err, store.ErrFutureSchema) {
			t.Errorf("a newer schema: %v, want ErrFutureSchema", err)
		}
	})
	t.Run("of something else", func(t *testing.T) {
		address := storetest.Postgres(t)
		mustExec(t, storetest.DB(t, address), `CREATE TABLE theirs (n integer)`)
		if _, err := k.open(t.Context(), address); !errors.Is(err, store.ErrNotEmpty) {
			t.Errorf("got %v, want ErrNotEmpty", err)
		}
	})
}

// TestLessonL1LiveBrainRefusesRestore: a running brain holds its database, also if the file was moved away under it.
func TestLessonL1LiveBrainRefusesRestore(t *testing.T) {
	k := small(t)
	storetest.EachURL(t, func(t *testing.T, address string) {
		s := storetest.Open(t, address)
		if err := s.KeepAlive(t.Context(), "host/1"); err != nil {
			t.Fatal(err)
		}
		if _, err := k.open(t.Context(), address); !errors.Is(err, store.ErrInUse) {
			t.Errorf("under a live brain: %v, want ErrInUse", err)
		}
		if path, ok := strings.CutPrefix(address, "sqlite:"); ok {
			if err := os.Rename(path, path+".moved"); err != nil {
				t.Fatal(err)
			}
			if _, err := k.open(t.Context(), address); !errors.Is(err, store.ErrInUse) {
				t.Errorf("after its file was moved away: %v, want ErrInUse", err)
			}
			if err := os.Rename(path+".moved", path); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Leave(t.Context(), "host/1"); err != nil {
			t.Fatal(err)
		}
		if _, err := k.open(t.Context(), address); !errors.Is(err, store.ErrNotEmpty) {
			t.Errorf("after it left: %v, want ErrNotEmpty", err)
		}
	})
}

// TestLessonL4EmptyMachine: neither the directory of the file nor the database on the server has to be there.
func TestLessonL4EmptyMachine(t *testing.T) {
	k := small(t)
	t.Run("sqlite", func(t *testing.T) {
		k.into(t, "sqlite:"+filepath.Join(t.TempDir(), "deep", "down", "brain.db"))
	})
	t.Run("postgres", func(t *testing.T) {
		u, err := url.Parse(storetest.Postgres(t))
		if err != nil {
			t.Fatal(err)
		}
		db := storetest.DB(t, u.String())
		name := "fresh_" + strings.ReplaceAll(id.Random().String(), "-", "")
		u.Path, u.RawQuery = "/"+name, "sslmode=disable"
		t.Cleanup(func() {
			if _, err := db.ExecContext(context.WithoutCancel(t.Context()), `DROP DATABASE IF EXISTS `+name+` WITH (FORCE)`); err != nil {
				t.Error(err)
			}
		})
		l, err := k.open(t.Context(), u.String())
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		there := `SELECT datname FROM pg_database WHERE datname = '` + name + `'`
		if left := storetest.Rows(t, db, there); len(left) != 0 {
			t.Error("a restore that failed left the database that it made")
		}
		k.into(t, u.String())
		if left := storetest.Rows(t, db, there); len(left) != 1 {
			t.Error("the database that the restore made is gone")
		}

		role := "poor_" + name[6:14]
		mustExec(t, db, `CREATE ROLE `+role+` LOGIN NOCREATEDB`)
		t.Cleanup(func() {
			if _, err := db.ExecContext(context.WithoutCancel(t.Context()), `DROP ROLE `+role); err != nil {
				t.Error(err)
			}
		})
		u.User, u.Path = url.User(role), "/none_"+name
		if _, err := k.open(t.Context(), u.String()); err == nil || !strings.Contains(err.Error(), "createdb -T template0 -E UTF8 -O "+role) {
			t.Errorf("a role that may not make it: %v, want the command that does", err)
		}
	})
}

// TestLessonI12StaleWALIsNoneOfOurs: what an earlier database left beside the path is moved aside, not replayed.
func TestLessonI12StaleWALIsNoneOfOurs(t *testing.T) {
	address := storetest.SQLite(t)
	s := storetest.Open(t, address)
	mustRecord(t, s, 3)
	k := keep(t, s)
	mustRecord(t, s, 30)
	path := strings.TrimPrefix(address, "sqlite:")
	other := filepath.Join(t.TempDir(), "brain.db")
	wal, err := os.ReadFile(path + "-wal")
	if err != nil || len(wal) == 0 {
		t.Fatalf("the WAL of a live database: %d bytes, %v", len(wal), err)
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.WriteFile(other+suffix, wal, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	restored := k.into(t, "sqlite:"+other)
	if r := verifyStore(t, restored, store.VerifyOptions{}); r.Exit() != 0 || r.Exist != k.info.AuditSize+1 {
		t.Errorf("after the restore: exit %d, %d entries; want 0, %d", r.Exit(), r.Exist, k.info.AuditSize+1)
	}
	if kept, err := os.ReadFile(other + "-wal.before-restore-0"); err != nil || !bytes.Equal(kept, wal) {
		t.Errorf("the stale WAL was not kept: %v", err)
	}
	if info, err := os.Stat(other); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the restored file: %v, %v; want mode 0600", info.Mode(), err)
	}
}

// TestHalfRestoredNeverServes: until its last transaction a restored database is opened by nothing else, and another
// restore waits for none but refuses.
func TestHalfRestoredNeverServes(t *testing.T) {
	k := small(t)
	storetest.EachURL(t, func(t *testing.T, address string) {
		l, err := k.open(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, err := k.open(t.Context(), address); !errors.Is(err, store.ErrInUse) {
			t.Errorf("a second restore: %v, want ErrInUse", err)
		}
		half := address
		if strings.HasPrefix(address, "sqlite:") {
			half += "-restoring"
		}
		if half == address { // SQLite has it locked
			if _, err := store.Open(t.Context(), storetest.Options(half)); !errors.Is(err, store.ErrHalfRestored) {
				t.Errorf("while it loads: %v, want ErrHalfRestored", err)
			}
		}
		for _, c := range k.chunks {
			if _, err := l.Load(t.Context(), c.Table, c.Raw); err != nil {
				t.Fatal(err)
			}
		}
		s, err := l.Finish(t.Context(), storetest.Secrets)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.Open(t.Context(), storetest.Options(half)); !errors.Is(err, store.ErrHalfRestored) {
			t.Errorf("when it is loaded: %v, want ErrHalfRestored", err)
		}
		if err := l.Release(t.Context(), noted(t, s)); err != nil {
			t.Fatal(err)
		}
		storetest.Open(t, address)
	})
}

const (
	restoreEnv = "Z4J_TEST_RESTORE_UNTIL_KILLED"
	phaseEnv   = "Z4J_TEST_RESTORE_PHASE"
)

// TestRestoreUntilKilled is what TestKilledRestoreStartsClean runs as another process: it goes up to a phase and waits.
func TestRestoreUntilKilled(t *testing.T) {
	address, phase := os.Getenv(restoreEnv), os.Getenv(phaseEnv)
	if address == "" {
		t.Skip("runs in the process that TestKilledRestoreStartsClean starts")
	}
	reached := func(name string) {
		if name == phase {
			fmt.Println("reached", name)
			<-t.Context().Done() // we are killed
		}
	}
	k := small(t)
	l, err := k.open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	reached("begun")
	for i, c := range k.chunks {
		if _, err := l.Load(t.Context(), c.Table, c.Raw); err != nil {
			t.Fatal(err)
		}
		if i == len(k.chunks)/2 {
			reached("loading")
		}
	}
	reached("loaded")
	s, err := l.Finish(t.Context(), storetest.Secrets)
	if err != nil {
		t.Fatal(err)
	}
	reached("finished")
	err = l.Release(t.Context(), func(last func(*store.Tx) error) error {
		return s.Update(t.Context(), func(tx *store.Tx) error {
			tx.Record(note("restored"))
			if err := last(tx); err != nil {
				return err
			}
			reached("releasing")
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestKilledRestoreStartsClean kills a restore with SIGKILL at each step: nothing opens what it left, and the next begins anew.
func TestKilledRestoreStartsClean(t *testing.T) {
	k := small(t)
	storetest.EachURL(t, func(t *testing.T, address string) {
		for _, phase := range []string{"begun", "loading", "loaded", "finished", "releasing"} {
			killAt(t, address, phase)
			if strings.HasPrefix(address, "postgres") {
				if _, err := store.Open(t.Context(), storetest.Options(address)); !errors.Is(err, store.ErrHalfRestored) {
					t.Errorf("killed when %s: %v, want ErrHalfRestored", phase, err)
				}
			} else if _, err := os.Stat(strings.TrimPrefix(address, "sqlite:")); !os.IsNotExist(err) {
				t.Errorf("killed when %s: there is a database: %v", phase, err)
			}
		}
		if left, want := keep(t, k.into(t, address)).content["tasks"], k.content["tasks"]; left != want {
			t.Errorf("after five killed restores: tasks %v, want %v", left, want)
		}
	})
}

// killAt runs a restore into address in another process and kills it at a phase.
func killAt(t *testing.T, address, phase string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRestoreUntilKilled$", "-test.count=1")
	cmd.Env = append(os.Environ(), restoreEnv+"="+address, phaseEnv+"="+phase)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := make([]byte, 0, 4096)
	for !bytes.Contains(seen, []byte("reached "+phase)) {
		part := make([]byte, 512)
		n, err := out.Read(part)
		seen = append(seen, part[:n]...)
		if err != nil {
			t.Fatalf("the restore ended before it was %s: %s%s", phase, seen, errs.Bytes())
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
}

// TestFieldCaseF51FirstWritesAfterARestore: whatever is written first works, on both databases, and the generator of a table that has one
// stands behind its rows.
func TestFieldCaseF51FirstWritesAfterARestore(t *testing.T) {
	k := small(t)
	storetest.EachURL(t, func(t *testing.T, address string) {
		s := k.into(t, address)
		if err := s.TryWrites(t.Context()); err != nil {
			t.Error(err)
		}
		mustRecord(t, s, 2)
		if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != 0 || r.Exist != k.info.AuditSize+3 {
			t.Errorf("the chain across the seam: exit %d, %d entries; want 0, %d", r.Exit(), r.Exist, k.info.AuditSize+3)
		}
		db := storetest.DB(t, address)
		for _, q := range []string{`UPDATE audit_log SET action = 'x' WHERE seq = 1`, `DELETE FROM audit_log WHERE seq = 1`} {
			if _, err := db.ExecContext(t.Context(), q); err == nil {
				t.Errorf("after the restore %s is not refused: the triggers are gone", q)
			}
		}
		fresh := storetest.SQLite(t)
		if strings.HasPrefix(address, "postgres") {
			fresh = storetest.Postgres(t)
		}
		storetest.Open(t, fresh)
		if got, want := schemaOf(t, address), schemaOf(t, fresh); !slices.Equal(got, want) {
			t.Errorf("the restored schema is not a new one's:\ngot  %q\nwant %q", got, want)
		}
	})
}

// schemaOf lists indexes, constraints and triggers, but not those of partitions.
func schemaOf(t *testing.T, address string) []string {
	t.Helper()
	q := `SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_master WHERE tbl_name NOT LIKE 'sqlite_stat%'`
	if strings.HasPrefix(address, "postgres") {
		q = `SELECT 'index ' || c.relname || substring(pg_get_indexdef(c.oid) FROM ' USING .*') || i.indisunique || i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
				JOIN pg_class t ON t.oid = i.indrelid WHERE t.relnamespace = current_schema()::regnamespace AND NOT t.relispartition
			UNION ALL SELECT 'constraint ' || conname || ' ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid) || convalidated FROM pg_constraint
				WHERE connamespace = current_schema()::regnamespace AND conparentid = 0 AND NOT (SELECT relispartition FROM pg_class WHERE oid = conrelid)
			UNION ALL SELECT 'trigger ' || tgname || ' ' || tgenabled::text FROM pg_trigger JOIN pg_class t ON t.oid = tgrelid
				WHERE NOT tgisinternal AND t.relnamespace = current_schema()::regnamespace`
	}
	var out []string
	for _, row := range storetest.Rows(t, storetest.DB(t, address), q) {
		out = append(out, strings.ReplaceAll(row[0], "test_", ""))
	}
	slices.Sort(out)
	return out
}

// FuzzDecodeRows reads any bytes as a chunk: they are refused, or give whole rows, and their content can be told.
func FuzzDecodeRows(f *testing.F) {
	columns := []store.Column{
		{Name: "a", Kind: store.KindText},
		{Name: "b", Kind: store.KindInt},
		{Name: "c", Kind: store.KindUUID},
		{Name: "d", Kind: store.KindBool},
		{Name: "e", Kind: store.KindTime},
		{Name: "f", Kind: store.KindBytes},
	}
	whole := store.NewChunk("t", columns, []any{[]byte("x"), int64(-1), make([]byte, 16), int64(1), int64(1 << 50), []byte{0}}, make([]any, len(columns)))
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add([]byte("z4jr\x01\x01t\x01\x01at\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var c store.Content
		err := c.Add(raw)
		if err != nil && !errors.Is(err, store.ErrDamaged) {
			t.Errorf("%q: %v, want ErrDamaged", raw, err)
		}
		r, again := store.DecodeRows(raw)
		if again != nil {
			return
		}
		rows := int64(0)
		for r.Next() {
			rows++
		}
		if err == nil && c.Rows != rows {
			t.Errorf("%q: %d rows and %d rows", raw, rows, c.Rows)
		}
	})
}

// TestGeneratorsStandBehindTheRows: no table of ours has a generator of numbers yet; one that has one goes on behind its rows.
func TestGeneratorsStandBehindTheRows(t *testing.T) {
	k := small(t)
	address := storetest.Postgres(t)
	l, err := k.open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range k.chunks {
		if _, err := l.Load(t.Context(), c.Table, c.Raw); err != nil {
			t.Fatal(err)
		}
	}
	db := storetest.DB(t, address)
	for _, q := range []string{
		`CREATE TABLE "Numbered" (n bigint GENERATED ALWAYS AS IDENTITY, m bigserial)`,
		`INSERT INTO "Numbered" (n, m) OVERRIDING SYSTEM VALUE VALUES (41, 3000000000), (7, 1)`, `CREATE TABLE none (n bigserial)`,
	} {
		mustExec(t, db, q)
	}
	if _, err := l.Finish(t.Context(), storetest.Secrets); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{`INSERT INTO "Numbered" DEFAULT VALUES RETURNING n || ' ' || m`, `INSERT INTO none DEFAULT VALUES RETURNING n`} {
		if got, want := storetest.Rows(t, db, q)[0][0], map[bool]string{true: "42 3000000001", false: "1"}[strings.Contains(q, "Num")]; got != want {
			t.Errorf("%s: %s, want %s", q, got, want)
		}
	}
}
