package store_test

import (
	"testing"

	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

func TestDatabaseDescribesItself(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		d, err := s.Database(t.Context())
		if err != nil || d.Type != s.Dialect() || d.Version == nil || d.Bytes == nil || *d.Bytes <= 0 {
			t.Fatalf("database: %+v, %v; want its version and size", d, err)
		}
		if known := d.Connections != nil; known != (d.Type == "postgres") {
			t.Errorf("connections known: %v on %s", known, d.Type)
		}
	})
}
