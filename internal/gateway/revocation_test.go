package gateway_test

import (
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/gateway"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/wire"
)

// TestM5RevokedByAnotherProcess: whoever revokes an agent, every brain closes its connections at once, also one that shows
// no life: where the database tells, by that alone; and by looking where it does not.
func TestM5RevokedByAnotherProcess(t *testing.T) {
	for _, tt := range []struct {
		name string
		url  func(testing.TB) string
		look time.Duration
		cut  bool // the connections that listen
	}{
		{"Postgres tells", storetest.Postgres, time.Hour, false},
		{"Postgres tells again after it cut who listens", storetest.Postgres, time.Hour, true},
		{"SQLite is looked at", storetest.SQLite, 20 * time.Millisecond, false},
		{"Postgres behind a pooler is looked at", storetest.Postgres, 20 * time.Millisecond, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			url := tt.url(t)
			limits := gateway.Limits{TouchEvery: time.Hour, RevokedEvery: tt.look}
			one, two := start(t, url, gateway.Options{Limits: limits}), start(t, url, gateway.Options{Limits: limits})
			p := one.dial(t, newHello("a"))
			two.project, two.agent, two.token, two.secret = one.project, one.agent, one.token, one.secret
			q := two.dial(t, newHello("b"))
			if tt.cut {
				one.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN z4j_agent_revoked%' AND pid <> pg_backend_pid()`)
			}
			cli := storetest.Open(t, url) // as the command line does: in a process that has no connections
			agent, project, err := cli.AgentOf(t.Context(), id.ID{}, one.agent.String())
			if err != nil {
				t.Fatal(err)
			}
			by := store.By{Actor: audit.Actor{Kind: audit.CLI, ID: "uid:0"}, Via: "cli"}
			if err := cli.RevokeAgent(t.Context(), project, agent.ID, by); err != nil {
				t.Fatal(err)
			}
			p.wantClose("at the first brain", wire.CloseRevoked)
			q.wantClose("at the second brain", wire.CloseRevoked)
			if ws, status := one.upgrade(t, one.token); ws != nil || status != 401 {
				t.Errorf("afterwards: got %d, want 401", status)
			}
		})
	}
}
