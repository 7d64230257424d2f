package cli_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/store/storetest"
)

// filled is an installation without a brain that runs, with enough in its database that a backup of it takes a moment.
type filled struct {
	*installation

	url string // of the database
	to  string // where its backups go
}

const (
	fillers    = 8
	fillerSize = 128 << 10 // bytes that don't compress
)

func fill(t *testing.T, url string) *filled {
	t.Helper()
	in := install(t, url)
	for _, b := range in.brains {
		if err := b.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	f := &filled{installation: in, url: database(in, url), to: t.TempDir()}
	db := storetest.DB(t, f.url)
	for i := range fillers {
		content := make([]byte, fillerSize)
		if _, err := io.ReadFull(rand.Reader, content); err != nil {
			t.Fatal(err)
		}
		_, err := db.ExecContext(t.Context(), `INSERT INTO meta (key, value, updated_at) VALUES ($1, $2, (SELECT max(updated_at) FROM meta))`,
			fmt.Sprintf("filler %d", i), hex.EncodeToString(content))
		if err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// command is the real program as another process, with the first home.
func (in *installation) command(args ...string) *exec.Cmd {
	return exec.CommandContext(in.t.Context(), "z4j-brain", append([]string{"--home", in.homes[0]}, args...)...)
}

// must runs the real program and returns how long it took.
func (in *installation) must(args ...string) time.Duration {
	in.t.Helper()
	began := time.Now()
	if out, err := in.command(args...).CombinedOutput(); err != nil {
		in.t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return time.Since(began)
}

// killAfter runs the real program and kills it after a while, unless it has ended.
func (in *installation) killAfter(after time.Duration, args ...string) (killed bool) {
	in.t.Helper()
	cmd := in.command(args...)
	if err := cmd.Start(); err != nil {
		in.t.Fatal(err)
	}
	clock := time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) // it may have ended
	defer clock.Stop()
	err := cmd.Wait()
	if err != nil && !strings.Contains(err.Error(), "killed") {
		in.t.Fatalf("%q: %v", args, err)
	}
	return err != nil
}

// entries counts the entries of an action with an outcome.
func (f *filled) entries(action, outcome string) int {
	f.t.Helper()
	return len(storetest.Rows(f.t, storetest.DB(f.t, f.url), `SELECT seq FROM audit_log WHERE action = '`+action+`' AND outcome = '`+outcome+`'`))
}

// forget ends the lease of a backup that was killed, which would end by itself after a minute.
func (f *filled) forget() {
	f.t.Helper()
	if _, err := storetest.DB(f.t, f.url).ExecContext(f.t.Context(), `DELETE FROM leases WHERE name = 'backup'`); err != nil {
		f.t.Fatal(err)
	}
}

// kills is how many are spread over the time that a command takes.
func kills() int {
	if os.Getenv("Z4J_NIGHTLY") == "1" {
		return 12
	}
	return 2
}

// TestKilledBackupCommand: killed at any moment, whatever lies in the target under the name of an archive is whole, the audit log is
// proved, and the next backup works.
func TestKilledBackupCommand(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		f := fill(t, url)
		takes := f.must("backup", "--to", f.to)
		killed := 0
		for i := range kills() {
			if f.killAfter(takes*time.Duration(i+1)/time.Duration(kills()+1), "backup", "--to", f.to) {
				killed++
			}
			archives, err := filepath.Glob(filepath.Join(f.to, "*.tar"))
			if err != nil {
				t.Fatal(err)
			}
			f.cli(0, "backup", "verify", archives[len(archives)-1])
			f.cli(0, "audit", "verify")
			f.forget()
			f.must("backup", "--to", f.to, "--no-verify")
		}
		if killed == 0 {
			t.Error("no backup was killed: this test shows nothing")
		}
		left, err := filepath.Glob(filepath.Join(f.to, "*snapshot*"))
		if err != nil || len(left) > 0 {
			t.Errorf("copies left: %q, %v, want none", left, err)
		}
	})
}

// TestKilledRestoreCommand: killed at any moment, the database is not there, is refused as half restored, or is whole; the next
// restore works, or finds it whole.
func TestKilledRestoreCommand(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		f := fill(t, url)
		archive := filepath.Join(f.to, "mine.tar")
		f.must("backup", "--to", archive)
		fresh := func() string {
			if strings.HasPrefix(url, "sqlite") {
				return "sqlite:" + filepath.Join(t.TempDir(), "new.db")
			}
			return storetest.Postgres(t)
		}
		takes := f.must("restore", archive, "--yes", "--into", fresh())
		killed := 0
		for i := range kills() {
			into := fresh()
			if f.killAfter(takes*time.Duration(i+1)/time.Duration(kills()+1), "restore", archive, "--yes", "--into", into) {
				killed++
			}
			out, err := f.command("restore", archive, "--yes", "--into", into).CombinedOutput()
			var exit *exec.ExitError
			if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 4) {
				t.Errorf("kill %d: the next restore: got %v, want it done, or exit code 4 since the killed one had ended\n%s", i, err, out)
				continue
			}
			if n := storetest.Rows(t, storetest.DB(t, into), `SELECT count(*) FROM meta WHERE key LIKE 'filler %'`)[0][0]; n != fmt.Sprint(fillers) {
				t.Errorf("kill %d: got %s rows, want %d", i, n, fillers)
			}
			if n := len(storetest.Rows(t, storetest.DB(t, into), `SELECT seq FROM audit_log WHERE action = 'system.restored'`)); n != 1 {
				t.Errorf("kill %d: got %d entries of restores, want 1", i, n)
			}
		}
		if killed == 0 {
			t.Error("no restore was killed: this test shows nothing")
		}
	})
}

// TestABackupWhoseReaderLeavesFails: exit code 1, an entry with outcome error, nothing completed.
func TestABackupWhoseReaderLeavesFails(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		f := fill(t, url)
		cmd := f.command("backup", "--to", "-")
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("got %v, want exit code 1\n%s", err, errs.Bytes())
		}
		if failed, done := f.entries("backup.failed", "error"), f.entries("backup.completed", "allow"); failed != 1 || done != 0 {
			t.Errorf("recorded: got %d failed and %d completed, want 1 and 0", failed, done)
		}
		f.must("backup", "--to", f.to)
	})
}

// TestABackupOfAnUnreadableTableFails: a table that the role may not read is no table to leave out in silence.
func TestABackupOfAnUnreadableTableFails(t *testing.T) {
	address := storetest.Postgres(t)
	f := fill(t, address)
	db := storetest.DB(t, address)
	schema := storetest.Rows(t, db, `SELECT current_schema()`)[0][0]
	role := "reader_" + strings.TrimPrefix(schema, "test_")
	for _, q := range []string{
		`CREATE ROLE ` + role + ` LOGIN PASSWORD 'a-password-of-a-role'`, `GRANT ALL ON SCHEMA ` + schema + ` TO ` + role,
		`GRANT ALL ON ALL TABLES IN SCHEMA ` + schema + ` TO ` + role, `GRANT ALL ON ALL SEQUENCES IN SCHEMA ` + schema + ` TO ` + role,
	} {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, q := range []string{`DROP OWNED BY ` + role, `DROP ROLE ` + role} {
			if _, err := db.ExecContext(context.WithoutCancel(t.Context()), q); err != nil {
				t.Error(err)
			}
		}
	})
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, "a-password-of-a-role")
	if err := os.WriteFile(filepath.Join(f.homes[0], "config.env"), []byte("Z4J_DATABASE_URL='"+u.String()+"'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.must("backup", "--to", f.to)
	if _, err := db.ExecContext(t.Context(), `REVOKE SELECT ON tasks FROM `+role); err != nil {
		t.Fatal(err)
	}
	out, err := f.command("backup", "--to", f.to).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !bytes.Contains(out, []byte("table tasks")) || bytes.Contains(out, []byte("a-password-of-a-role")) {
		t.Errorf("got %v, want exit code 1 and the name of the table, without the password\n%s", err, out)
	}
	if failed, done := f.entries("backup.failed", "error"), f.entries("backup.completed", "allow"); failed != 1 || done != 1 {
		t.Errorf("recorded: got %d failed and %d completed, want 1 and the one before", failed, done)
	}
	if left, err := os.ReadDir(f.to); err != nil || len(left) != 1 {
		t.Errorf("the target: got %v, %v, want the backup from before alone", left, err)
	}
}

// TestLessonB8NoSecretInArgumentsOrEnvironment: of backup and restore, as everybody on the machine can see them while they run. They
// start no other process, which could have any.
func TestLessonB8NoSecretInArgumentsOrEnvironment(t *testing.T) {
	const passphrase, password = "correct horse battery", "a-password-of-the-database"
	storetest.EachURL(t, func(t *testing.T, address string) {
		f := fill(t, address)
		file := filepath.Join(t.TempDir(), "passphrase")
		if err := os.WriteFile(file, []byte(passphrase+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		config := ""
		withPassword := func(address string) string {
			u, err := url.Parse(address)
			if err != nil {
				t.Fatal(err)
			}
			u.User = url.UserPassword(u.User.Username(), password) // which the server of the tests doesn't ask for
			return u.String()
		}
		into := "sqlite:" + filepath.Join(t.TempDir(), "new.db")
		if strings.HasPrefix(address, "postgres") {
			config, into = withPassword(address), withPassword(storetest.Postgres(t))
		}
		secrets := []string{passphrase, password}
		for line := range strings.Lines(f.read("secret.env")) {
			if _, value, is := strings.Cut(strings.TrimSpace(line), "="); is && !strings.HasPrefix(line, "#") {
				secrets = append(secrets, strings.Trim(value, `'"`))
			}
		}
		if len(secrets) < 5 {
			t.Fatalf("secrets: got %d, want those of secret.env, too", len(secrets))
		}
		archive := filepath.Join(f.to, "mine.tar.age")
		f.configure(config)
		f.watched(secrets, "backup", "--to", archive, "--passphrase-file", file)
		f.configure(into)
		f.watched(secrets, "restore", archive, "--yes", "--passphrase-file", file)
	})
}

func (f *filled) read(name string) string {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(f.homes[0], name))
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

// configure names the database in the file for that.
func (f *filled) configure(database string) {
	f.t.Helper()
	if database != "" {
		database = "Z4J_DATABASE_URL='" + database + "'\n"
	}
	if err := os.WriteFile(filepath.Join(f.homes[0], "config.env"), []byte(database), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// watched runs the real program and looks at what the system tells of its process until it ends.
func (f *filled) watched(secrets []string, args ...string) {
	f.t.Helper()
	cmd := f.command(args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	ended := make(chan error, 1) // the one of Wait
	go func() { ended <- cmd.Wait() }()
	looked := 0
	pace := time.NewTicker(5 * time.Millisecond) // or it takes the processor from what it watches
	defer pace.Stop()
	for proc := fmt.Sprintf("/proc/%d", cmd.Process.Pid); ; {
		select {
		case err := <-ended:
			if err != nil || looked < 3 {
				f.t.Errorf("%q: got %v, looked at %d times, want it done and seen\n%s", args, err, looked, out.Bytes())
			}
			for _, secret := range secrets {
				if strings.Contains(out.String(), secret) {
					f.t.Errorf("%q: it prints a secret", args)
				}
			}
			return
		case <-pace.C:
		}
		line, err := os.ReadFile(proc + "/cmdline")
		environ, also := os.ReadFile(proc + "/environ")
		if err != nil || also != nil || len(line) == 0 {
			continue // it has just ended
		}
		looked++
		for _, secret := range secrets {
			if bytes.Contains(line, []byte(secret)) || bytes.Contains(environ, []byte(secret)) {
				f.t.Errorf("%q: a secret is in its arguments or its environment", args)
			}
		}
		lists, err := filepath.Glob(proc + "/task/*/children")
		if err != nil {
			f.t.Fatal(err)
		}
		for _, list := range lists {
			if children, err := os.ReadFile(list); err == nil && len(bytes.TrimSpace(children)) > 0 {
				f.t.Errorf("%q: it has children: %s; want none", args, children)
			}
		}
	}
}
