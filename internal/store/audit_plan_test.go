package store_test

import (
	"testing"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestLessonA9AppendingCostsTheSameAtAnySize: what an append reads, and each list, comes out of an index.
func TestLessonA9AppendingCostsTheSameAtAnySize(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		for range 20 {
			err := s.Update(t.Context(), func(tx *store.Tx) error {
				for i := range 100 {
					tx.Record(note(i))
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Analyze(t.Context()); err != nil {
			t.Fatal(err)
		}
		first := log(t, s, store.AuditFilter{})[0].TS
		primary := map[string]string{"sqlite": "SCAN audit_log", "postgres": "audit_log_pkey"}[s.Dialect()]
		row := map[string]string{"sqlite": "INTEGER PRIMARY KEY", "postgres": "audit_log_pkey"}[s.Dialect()]
		for _, tt := range []struct {
			name, index, text string
			args              []any
		}{
			{"the head", primary, `SELECT seq FROM audit_log ORDER BY seq DESC LIMIT 1`, nil},
			{"a remembered entry", row, `SELECT row_hmac FROM audit_log WHERE seq = $1`, []any{1000}},
			{"of a project", "audit_log_project", `SELECT seq FROM audit_log WHERE project_id = $1 ORDER BY seq DESC LIMIT 51`, []any{id.Random().String()}},
			{"of a rare actor", "audit_log_actor", `SELECT seq FROM audit_log WHERE actor_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT 51`, []any{"u9", 500}},
			{"where the clock went back", "audit_log_clock_step", store.ClockSteps, []any{1, 2001}},
			{"from a number, for its time", row, store.RowFrom, []any{500}},
			{"up to a number, for its time", row, store.RowUpTo, []any{500}},
			{"of a project and a time", "audit_log_project", `SELECT seq FROM audit_log WHERE project_id = $1 AND seq >= $2 AND ts >= $3 ORDER BY seq DESC LIMIT 51`, []any{id.Random().String(), 500, first}},
			{"about keys", "audit_log_action", `SELECT seq FROM audit_log WHERE action{C} IN ($1, $2) ORDER BY seq`, []any{"system.installed", "audit.key_introduced"}},
			{"of doubt, of which there is none", "audit_log_action", `SELECT seq FROM audit_log ` + store.NewestOfAction, []any{"audit.history_in_doubt", 1 << 50, 4}},
			{"for anchors, behind a number", "audit_log_action", `SELECT seq FROM audit_log ` + store.SpanOfAction, []any{"agent.token.revoked", 10, 2000, 1000}},
			{"a page of a verification", row, `SELECT seq FROM audit_log WHERE seq > $1 ORDER BY seq LIMIT 1000`, []any{500}},
		} {
			plan, err := s.Explain(t.Context(), tt.text, tt.args...)
			if s.Dialect() == "sqlite" && tt.name == "the head" { // it walks the table itself, which is in the order of seq, and stops
				continue
			}
			checkPlan(t, tt.name, tt.index, plan, err)
		}
	})
}
