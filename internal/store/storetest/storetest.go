// Package storetest opens throwaway databases for tests.
package storetest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver that makes and drops schemas

	"github.com/z4j-go/z4j/internal/store"
)

// Secrets of every test database.
var Secrets = store.Secrets{
	Master: []byte("test-master-secret-test-master-secret-0001"),
	Audit:  []byte("test-audit-secret-test-audit-secret-000001"),
}

// Each runs fn once per database the brain supports, each time on an empty, migrated one.
func Each(t *testing.T, fn func(t *testing.T, s *store.Store)) {
	t.Helper()
	EachURL(t, func(t *testing.T, url string) { fn(t, Open(t, url)) })
}

// EachURL is Each for tests that open the database themselves.
func EachURL(t *testing.T, fn func(t *testing.T, url string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { t.Parallel(); fn(t, SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { t.Parallel(); fn(t, Postgres(t)) })
}

// Open opens url with Secrets, migrated, until the end of the test.
func Open(t testing.TB, url string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), Options(url))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Options are what Open opens url with.
func Options(url string) store.Options {
	return store.Options{
		URL: url, Migrate: true, Now: time.Now,
		Secrets: func(context.Context, bool) (store.Secrets, error) { return Secrets, nil },
	}
}

// SQLite names a database file that is gone after the test.
func SQLite(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "brain.db") }

// Postgres makes a schema of its own in the test server and drops it after the test.
func Postgres(t testing.TB) string {
	t.Helper()
	if os.Getenv("Z4J_TEST_SQLITE_ONLY") == "1" {
		t.Skip("Z4J_TEST_SQLITE_ONLY=1: Postgres is left out")
	}
	server := Server(t)
	db, err := sql.Open("pgx", server)
	if err != nil {
		t.Fatal(err)
	}
	name := "test_" + strings.ToLower(rand.Text())
	if _, err := db.ExecContext(t.Context(), `CREATE SCHEMA `+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, err := db.ExecContext(context.WithoutCancel(t.Context()), `DROP SCHEMA `+name+` CASCADE`)
		if err = errors.Join(err, db.Close()); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("search_path", name)
	u.RawQuery = q.Encode()
	return u.String()
}
