package store_test

import (
	"slices"
	"testing"

	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

func TestDurabilityOfADatabaseThatKeepsItsPromises(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		d, err := s.Durability(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d.Backend != s.Dialect() || d.ArchivesWAL || d.LastArchived != nil || d.ArchiveFailed != nil {
			t.Errorf("got %+v, want the backend %s and no archive", d, s.Dialect())
		}
		if postgres := s.Dialect() == "postgres"; (d.Version >= 140000) != postgres || !d.OwnsTables {
			t.Errorf("got version %d, owner %v, want a version of Postgres: %v, and that the role owns its tables", d.Version, d.OwnsTables, postgres)
		}
		if s.Dialect() == "sqlite" && !d.Flushed {
			t.Error("SQLite: a commit is answered before it is on the disk")
		}
	})
}

func TestGapsOfAFreshInstallation(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		if _, err := s.CreateProject(t.Context(), store.Project{Slug: "lonely", Name: "Lonely", Environment: "production", Timezone: "UTC", DefaultSchedulerOwner: "beat"}, operator); err != nil {
			t.Fatal(err)
		}
		account(t, s, "ann@example.com")
		g, err := s.Gaps(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if g.Accounts != 1 || g.SigningKeys != 1 || !slices.Equal(g.ProjectsEmpty, []string{"lonely"}) || !slices.Equal(g.NoMembers, []string{"ann@example.com"}) {
			t.Errorf("got %+v, want one account in no project, one key, and the project without an agent", g)
		}
	})
}
