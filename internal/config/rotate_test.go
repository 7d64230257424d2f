package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/config"
)

// rotatable makes a home whose secret.env holds text, and loads it.
func rotatable(t *testing.T, text string, environ ...string) (*config.Config, string) {
	t.Helper()
	home := t.TempDir()
	path := filepath.Join(home, "secret.env")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.Input{Environ: append(environ, "Z4J_HOME="+home), WorkDir: home})
	if err != nil {
		t.Fatal(err)
	}
	return c, path
}

func reload(t *testing.T, path string) *config.Config {
	t.Helper()
	c, err := config.Load(config.Input{Environ: []string{"Z4J_HOME=" + filepath.Dir(path)}, WorkDir: filepath.Dir(path)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func rotate(t *testing.T, c *config.Config, word string) {
	t.Helper()
	r, err := c.Rotate(word)
	if err == nil {
		err = r.Commit()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func values(list config.Secrets) (out []string) {
	for _, s := range list {
		out = append(out, string(s.Reveal()))
	}
	return out
}

const (
	oneSecret   = "one-secret-one-secret-one-secret-one"
	twoSecret   = "two-secret-two-secret-two-secret-two"
	threeSecret = "three-secret-three-secret-three-secr"
)

// TestRotateKeepsEverythingElse: only the two lines change, whatever stands around them, and what was written is read.
func TestRotateKeepsEverythingElse(t *testing.T) {
	odd := `it's, "odd" $ \ secret # of more than 32 bytes`
	for _, tt := range []struct {
		name, text string
		rest       []string // what stays as it is
		previous   []string
	}{
		{
			"as minted", "# keep me\nZ4J_SECRET=" + oneSecret + "\nZ4J_SESSION_SECRET=" + twoSecret + "\nZ4J_AUDIT_SECRET=" + threeSecret + "\n",
			[]string{"# keep me", "Z4J_SECRET=" + oneSecret, "Z4J_SESSION_SECRET=" + twoSecret},
			[]string{threeSecret},
		},
		{
			"without a line end", "Z4J_SECRET=" + oneSecret + "\nZ4J_SESSION_SECRET=" + twoSecret + "\nZ4J_AUDIT_SECRET=" + threeSecret,
			[]string{"Z4J_SECRET=" + oneSecret},
			[]string{threeSecret},
		},
		{
			"with earlier values", "Z4J_AUDIT_SECRETS_PREVIOUS=" + oneSecret + "\n\nZ4J_SECRET=" + oneSecret + "\r\nZ4J_SESSION_SECRET=" + twoSecret + "\nZ4J_AUDIT_SECRET=" + threeSecret + "\n",
			[]string{"", "Z4J_SECRET=" + oneSecret + "\r"},
			[]string{threeSecret, oneSecret},
		},
		{"in quotes, exported, by their other names", "export Z4J_AUDIT_CHAIN_SECRET='" + threeSecret + "' # signs\nz4j_audit_chain_previous_secrets=\"" + oneSecret + "\"\n" +
			"Z4J_SECRET=" + oneSecret + "\nZ4J_SESSION_SECRET=" + twoSecret + "\n", []string{"Z4J_SECRET=" + oneSecret}, []string{threeSecret, oneSecret}},
		{
			"with every odd character", `Z4J_AUDIT_SECRET="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(odd) + "\"\nZ4J_SECRET=" + oneSecret + "\nZ4J_SESSION_SECRET=" + twoSecret + "\n",
			[]string{"Z4J_SECRET=" + oneSecret},
			[]string{odd},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, path := rotatable(t, tt.text)
			rotate(t, c, "audit")
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range tt.rest {
				if !strings.Contains("\n"+string(text), "\n"+row+"\n") {
					t.Errorf("got\n%s\nwant the line %q to stay", text, row)
				}
			}
			read := reload(t, path)
			if diff := cmp.Diff(tt.previous, values(read.Secrets.PreviousAudit)); diff != "" {
				t.Errorf("earlier values: (- want, + got)\n%s", diff)
			}
			if !read.Secrets.Audit.Equal(c.Secrets.Audit) || values(config.Secrets{read.Secrets.Audit})[0] == tt.previous[0] || len(read.Secrets.Audit.Reveal()) < 43 {
				t.Error("the new value is not a new one, or not the one that the Config has")
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("mode: got %v, %v; want 0600", info.Mode(), err)
			}
			end, err := read.EndRotation("audit")
			if err != nil {
				t.Fatal(err)
			}
			if err := end.Commit(); err != nil {
				t.Fatal(err)
			}
			if last := reload(t, path); len(last.Secrets.PreviousAudit) != 0 || !last.Secrets.Audit.Equal(read.Secrets.Audit) {
				t.Errorf("after the end: got %d earlier values, want none and the same secret", len(last.Secrets.PreviousAudit))
			}
		})
	}
}

const minted = "Z4J_SECRET=" + oneSecret + "\nZ4J_SESSION_SECRET=" + twoSecret + "\nZ4J_AUDIT_SECRET=" + threeSecret + "\n"

// TestRotateTwice: each value goes before the earlier ones, of each of the three.
func TestRotateTwice(t *testing.T) {
	c, path := rotatable(t, minted)
	for range 2 {
		for _, word := range config.Rotating() {
			rotate(t, c, word)
		}
	}
	read := reload(t, path)
	for _, tt := range []struct {
		name string
		list config.Secrets
		last string
	}{{"master", read.Secrets.PreviousMaster, oneSecret}, {"session", read.Secrets.PreviousSession, twoSecret}, {"audit", read.Secrets.PreviousAudit, threeSecret}} {
		if v := values(tt.list); len(v) != 2 || v[1] != tt.last {
			t.Errorf("%s: got %d earlier values, want two, the oldest last", tt.name, len(v))
		}
	}
}

// TestLessonB1B4RotateIsWholeOrNot: a process that is killed before the rename leaves the old file; what it left beside goes
// with the next one, and nobody else rotates meanwhile.
func TestLessonB1B4RotateIsWholeOrNot(t *testing.T) {
	c, path := rotatable(t, minted)
	r, err := c.Rotate("master")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != minted {
		t.Errorf("before the commit: got %q, %v; want the file as it was", text, err)
	}
	other := reload(t, path)
	if _, err := other.Rotate("audit"); err == nil || !strings.Contains(err.Error(), "another command") {
		t.Errorf("a second rotation meanwhile: got %v, want it refused", err)
	}
	left, err := filepath.Glob(path + ".*.tmp")
	if err != nil || len(left) != 1 {
		t.Fatalf("beside the file: got %v, %v; want the prepared one", left, err)
	}
	if info, err := os.Stat(left[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode: got %v, %v; want 0600", info.Mode(), err)
	}
	killed := path + ".killed.tmp"
	if err := os.WriteFile(killed, []byte("left behind"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	rotate(t, other, "audit")
	if left, _ = filepath.Glob(path + "*.tmp"); len(left) != 0 {
		t.Errorf("left beside the file: %v, want nothing", left)
	}
}

// TestRotateRefuses: what it can't change whole, with nothing changed.
func TestRotateRefuses(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(elsewhere, []byte(oneSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	link := func(path string) {
		real := path + ".real"
		if err := errors.Join(os.Rename(path, real), os.Symlink(real, path)); err != nil {
			t.Fatal(err)
		}
	}
	meanwhile := func(path string) {
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(minted, "one", "uno")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, text, word string
		environ          []string
		spoil            func(path string)
		says             string
		rotatable        bool // as far as the settings tell
	}{
		{"a secret of the environment", minted, "master", []string{"Z4J_SECRET=" + twoSecret}, nil, "Z4J_SECRET comes from env Z4J_SECRET", false},
		{"earlier values of the environment", minted, "master", []string{"Z4J_PREVIOUS_SECRETS=" + twoSecret}, nil, "Z4J_PREVIOUS_SECRETS comes from env", false},
		{"a file that secret.env names", strings.Replace(minted, "Z4J_SECRET="+oneSecret, "Z4J_SECRET_FILE="+elsewhere, 1), "master", nil, nil, "Z4J_SECRET comes from secret.env Z4J_SECRET_FILE", false},
		{"a link", minted, "audit", nil, link, "no regular file", true},
		{"a file that changed meanwhile", minted, "master", nil, meanwhile, "changed meanwhile", true},
		{"a file that is gone", minted, "master", nil, func(path string) { _ = os.Remove(path) }, "no such file", true},
	} {
		c, path := rotatable(t, tt.text, tt.environ...)
		if tt.spoil != nil {
			tt.spoil(path)
		}
		before, _ := os.ReadFile(path)
		_, err := c.Rotate(tt.word)
		if err == nil || !strings.Contains(err.Error(), tt.says) || errors.Is(err, config.ErrNotRotatable) == tt.rotatable {
			t.Errorf("%s: got %v, want an error that says %q", tt.name, err, tt.says)
		}
		if text := fmt.Sprint(err); strings.Contains(text, oneSecret) || strings.Contains(text, twoSecret) {
			t.Errorf("%s: the error shows a secret: %s", tt.name, text)
		}
		if after, _ := os.ReadFile(path); string(after) != string(before) {
			t.Errorf("%s: the file was changed", tt.name)
		}
		if left, _ := filepath.Glob(path + "*.tmp"); len(left) != 0 {
			t.Errorf("%s: left beside the file: %v", tt.name, left)
		}
	}
}
