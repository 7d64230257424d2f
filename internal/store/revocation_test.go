package store_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestLessonD12RevokingAnAgentWithManyEvents: it is one row found by its key, whatever the agent has sent; the events go
// on naming it.
func TestLessonD12RevokingAnAgentWithManyEvents(t *testing.T) {
	many := 20_000
	if os.Getenv("Z4J_NIGHTLY") != "" {
		many = 1_000_000
	}
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		db := storetest.DB(t, url)
		first, err := s.CreateFirstAccount(t.Context(), store.NewUser{Email: "root@example.com", PasswordHash: "x"}, "", store.NewSession{}, operator)
		if err != nil {
			t.Fatal(err)
		}
		agent, err := s.MintAgent(t.Context(), first.Project, "web", "hash", "", operator)
		if err != nil {
			t.Fatal(err)
		}
		numbers, key := fmt.Sprintf("generate_series(1, %d) n", many), "gen_random_uuid()"
		if s.Dialect() == "sqlite" {
			numbers, key = fmt.Sprintf("(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < %d) SELECT n FROM c)", many), "randomblob(16)"
		}
		_, err = db.ExecContext(t.Context(), `INSERT INTO events (project_id, id, agent_id, occurred_at, received_at, engine, task_id, kind, payload)
			SELECT $1, `+key+`, $2, $3, $3, 'celery', 't', 'task-sent', '{}' FROM `+numbers, first.Project.ID, agent.ID, store.TimeOf(time.Now()))
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct{ name, text, index string }{
			{"revoke", store.RevokeAgentText, "agents"},
			{"look", store.RevokedSinceText, "agents_revoked"},
		} {
			args := []any{store.TimeOf(time.Now()), first.Project.ID, agent.ID}
			if tt.name == "look" {
				args = args[:1]
			}
			plan, err := s.Explain(t.Context(), tt.text, args...)
			if err != nil || !strings.Contains(plan, tt.index) || strings.Contains(plan, "events") || strings.Contains(plan, "SCAN") || strings.Contains(plan, "Seq Scan") {
				t.Errorf("%s: %v, want the agent's row found through %s, and nothing of events, in\n%s", tt.name, err, tt.index, plan)
			}
		}
		if s.Dialect() == "postgres" {
			refer := storetest.Rows(t, db, `SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f' AND confrelid = 'agents'::regclass
				AND conrelid::regclass::text NOT LIKE '%agent_workers'`)
			if len(refer) > 0 {
				t.Errorf("tables that refer to agents: got %v, want agent_workers alone: a revocation must not touch what grows", refer)
			}
		}
		if err := s.RevokeAgent(t.Context(), first.Project, agent.ID, operator); err != nil {
			t.Fatal(err)
		}
		list, err := s.RevokedSince(t.Context(), store.Time{})
		if err != nil || len(list) != 1 || list[0].Agent != agent.ID {
			t.Errorf("revoked: got %v, %v; want the agent", list, err)
		}
		if err := s.RevokeAgent(t.Context(), first.Project, agent.ID, operator); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("again: got %v, want ErrNotFound", err)
		}
		if got := storetest.Rows(t, db, `SELECT count(*) FROM events`)[0][0]; got != fmt.Sprint(many) {
			t.Errorf("events afterwards: got %s, want %d", got, many)
		}
	})
}

func TestAnAgentIsFoundByNameOrID(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		first, err := s.CreateFirstAccount(t.Context(), store.NewUser{Email: "root@example.com", PasswordHash: "x"}, "", store.NewSession{}, operator)
		if err != nil {
			t.Fatal(err)
		}
		web, err := s.MintAgent(t.Context(), first.Project, "web", "hash", "", operator)
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name    string
			project id.ID
			named   string
			found   bool
		}{
			{"by its id alone", id.ID{}, web.ID.String(), true},
			{"by its id in its project", first.Project.ID, web.ID.String(), true},
			{"by its id in another", id.Random(), web.ID.String(), false},
			{"by its name", first.Project.ID, "web", true},
			{"by its name alone", id.ID{}, "web", false},
			{"by another name", first.Project.ID, "we", false},
		} {
			a, p, err := s.AgentOf(t.Context(), tt.project, tt.named)
			if tt.found && (err != nil || a.ID != web.ID || p.Slug != first.Project.Slug) || !tt.found && !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: got %s of %q, %v; want it found %t", tt.name, a.ID, p.Slug, err, tt.found)
			}
		}
	})
}
