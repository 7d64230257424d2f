package store_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestScratchDatabases: each is made empty and dropped whoever uses it; what killed drills left goes with the next one,
// what another drill uses or has just made stays.
func TestScratchDatabases(t *testing.T) {
	t.Parallel()
	server := storetest.Postgres(t)
	db := storetest.DB(t, server)
	now := time.Now()
	have := func() []string {
		rows, err := db.QueryContext(t.Context(), `SELECT datname FROM pg_database WHERE datname LIKE 'z4j\_drill\_%'`)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		var out []string
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				t.Fatal(err)
			}
			out = append(out, name)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return out
	}
	unique := time.Now().UnixNano()
	left, young := fmt.Sprintf("z4j_drill_%d_left%d", now.Add(-time.Hour).Unix(), unique), fmt.Sprintf("z4j_drill_%d_young%d", now.Unix(), unique)
	for _, name := range []string{left, young} {
		if _, err := db.ExecContext(t.Context(), `CREATE DATABASE `+name); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if _, err := db.ExecContext(context.WithoutCancel(t.Context()), `DROP DATABASE IF EXISTS `+young); err != nil {
			t.Error(err)
		}
	})

	used, dropUsed, err := store.NewScratch(t.Context(), server, now.Add(-2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	scratch, drop, err := store.NewScratch(t.Context(), server, now)
	if err != nil {
		t.Fatal(err)
	}
	if names := have(); slices.Contains(names, left) || !slices.Contains(names, young) {
		t.Errorf("after the next drill's beginning: %v; want %s gone and %s there", names, left, young)
	}
	for _, url := range []string{used, scratch} { // the older one is still there, since its drill is
		if n := storetest.Rows(t, storetest.DB(t, url), `SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace`); len(n) > 0 {
			t.Errorf("%v in a new scratch database, want nothing", n)
		}
	}
	before := len(have())
	for _, drop := range []func(context.Context) error{drop, dropUsed} {
		if err := drop(t.Context()); err != nil {
			t.Errorf("drop: %v", err)
		}
	}
	if after := len(have()); after > before-2 {
		t.Errorf("%d scratch databases after both were dropped, want fewer than %d", after, before-1)
	}
}
