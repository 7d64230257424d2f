package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/app/apptest"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// chainHealth is what health says of the audit log.
type chainHealth struct {
	OK     *bool  `json:"audit_chain_ok"`
	Detail string `json:"audit_chain_detail"`
	Since  string `json:"audit_broken_since"`
	Seq    int64  `json:"audit_verified_seq"`
	Audit  string `json:"audit"`
}

func (h *chainHealth) is(ok bool) bool { return h.OK != nil && *h.OK == ok }

func healthOf(b *apptest.Brain) (h chainHealth) {
	b.Client.Do(http.MethodGet, "/api/v1/health", nil, http.StatusOK, &h)
	return h
}

func stopBrain(t *testing.T, b *apptest.Brain) {
	t.Helper()
	if err := b.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// TestLessonL8ATamperedRowIsToldEverywhere: the brain that finds it and another on the same database say so in health,
// metrics, the audit status and the log; changes go on; a restart forgets nothing; what turned stands in the audit log.
func TestLessonL8ATamperedRowIsToldEverywhere(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		environ := []string{"Z4J_AUDIT_VERIFY_INTERVAL=1", "Z4J_METRICS_PUBLIC=true", "Z4J_AUDIT_CHECKPOINT_INTERVAL=86400"}
		b := apptest.Start(t, apptest.Options{Database: url, Environ: environ})
		b.Client.Login(apptest.Email, apptest.Password)
		apptest.Until(t, "a verification finds nothing", func() bool { h := healthOf(b); return h.is(true) })
		b.Client.Login(apptest.Email, apptest.Password) // behind every checkpoint
		db := storetest.DB(t, url)
		row := storetest.Rows(t, db, `SELECT max(seq) FROM audit_log WHERE action = 'auth.login'`)[0][0]
		on := ""
		if b.Store.Dialect() == "postgres" {
			on = " ON audit_log"
		}
		run := func(text string) {
			t.Helper()
			if _, err := db.ExecContext(t.Context(), text); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
		run(`DROP TRIGGER audit_log_update` + on)
		run(`UPDATE audit_log SET target_label = 'x' WHERE seq = ` + row)
		apptest.Until(t, "a verification finds it", func() bool { h := healthOf(b); return h.is(false) })
		h := healthOf(b)
		if !strings.HasPrefix(h.Detail, "row "+row+": column differs from body") || h.Since == "" || h.Audit != "ok" {
			t.Errorf("health: %+v, want the row, since when, and that changes are made", h)
		}
		var status struct {
			OK     *bool           `json:"chain_ok"`
			Result string          `json:"result"`
			Since  string          `json:"broken_since"`
			Broken *store.Verified `json:"broken"`
		}
		b.Client.Do(http.MethodGet, "/api/v1/audit/status", nil, http.StatusOK, &status)
		if status.OK == nil || *status.OK || status.Result != "tampered" || status.Since != h.Since || status.Broken == nil || fmt.Sprint(status.Broken.First.Seq) != row {
			t.Errorf("audit status: %+v, want what health says", status)
		}
		_, _, metrics := b.Client.Try(http.MethodGet, "/metrics", nil)
		for _, line := range []string{"z4j_audit_chain_ok 0", "z4j_audit_verified_seq ", "z4j_audit_verify_duration_seconds "} {
			if !strings.Contains(string(metrics), "\n"+line) {
				t.Errorf("metrics: no line %q", line)
			}
		}
		b.Client.Project("goes-on")
		for _, want := range []string{"level=ERROR", "audit log is broken", "row " + row + ": column differs"} {
			if !strings.Contains(b.Output(), want) {
				t.Errorf("log: no %q", want)
			}
		}
		stopBrain(t, b)

		quiet := apptest.Start(t, apptest.Options{Database: url, Environ: []string{"Z4J_AUDIT_VERIFY_INTERVAL=0"}})
		if again := healthOf(quiet); !again.is(false) || again.Since != h.Since {
			t.Errorf("health after a restart: %+v, want broken since %s", again, h.Since)
		}
		if !strings.Contains(quiet.Output(), "audit log is broken") {
			t.Error("log of the start: nothing of it")
		}
		stopBrain(t, quiet)

		run(`UPDATE audit_log SET target_label = NULL WHERE seq = ` + row)
		mended := apptest.Start(t, apptest.Options{Database: url, Environ: environ})
		apptest.Until(t, "a verification of every row finds nothing", func() bool { h := healthOf(mended); return h.is(true) })
		apptest.Until(t, "that is recorded", func() bool { return len(turns(t, mended)) == 2 })
		want := []string{"error proved tampered " + row, "allow tampered proved 0"}
		if got := turns(t, mended); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("recorded turns: %q, want %q", got, want)
		}
	})
}

// TestLessonL8AStartLooksAtEveryRow: a row that was changed while no brain ran, before the last checkpoint, is told soon after
// the start, however long the interval is.
func TestLessonL8AStartLooksAtEveryRow(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		first := apptest.Start(t, apptest.Options{Database: url})
		apptest.Until(t, "the first verification", func() bool { h := healthOf(first); return h.is(true) })
		on := ""
		if first.Store.Dialect() == "postgres" {
			on = " ON audit_log"
		}
		stopBrain(t, first)
		db := storetest.DB(t, url)
		for _, text := range []string{`DROP TRIGGER audit_log_update` + on, `UPDATE audit_log SET target_label = 'x' WHERE seq = 2`} {
			if _, err := db.ExecContext(t.Context(), text); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
		second := apptest.Start(t, apptest.Options{Database: url})
		apptest.Until(t, "it is told", func() bool { h := healthOf(second); return h.is(false) })
		apptest.Until(t, "it is recorded", func() bool { return len(turns(t, second)) == 1 })
	})
}

// TestAHoldIsSeenByEveryBrainAtOnce: health follows a hold that another process begins and ends, though no change is made.
func TestAHoldIsSeenByEveryBrainAtOnce(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := apptest.Start(t, apptest.Options{Database: url})
		other := storetest.Open(t, url)
		within := func(what, want string, change func() error) {
			t.Helper()
			began := time.Now()
			if err := change(); err != nil {
				t.Fatal(err)
			}
			apptest.Until(t, what, func() bool { return healthOf(b).Audit == want })
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("%s: told after %v, want it at once", what, took)
			}
		}
		within("the hold", "history_in_doubt", func() error {
			return other.PutHold(t.Context(), store.Doubt{Cause: "restored", Reason: "a test", Fork: 1})
		})
		within("its end", "ok", func() error {
			_, err := other.StartGeneration(t.Context(), store.NewGeneration{Cause: "acknowledged", Reason: "a test", Fork: 1})
			return err
		})
	})
}

// turns lists the entries about verifications, the oldest first: outcome, previous result, result, first bad row.
func turns(t *testing.T, b *apptest.Brain) (out []string) {
	t.Helper()
	page, err := b.Store.AuditLog(t.Context(), store.AuditFilter{Action: "audit.verification_turned"})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range page.Items {
		var d struct {
			Previous string `json:"previous"`
			Result   string `json:"result"`
			First    int64  `json:"first_bad"`
		}
		if err := json.Unmarshal(e.Details, &d); err != nil {
			t.Fatal(err)
		}
		out = append([]string{fmt.Sprint(e.Outcome, " ", d.Previous, " ", d.Result, " ", d.First)}, out...)
	}
	return out
}

// TestLessonA33BrainsDoNotWaitForASiblingsVerification: several brains start at once over a long log, each serves at once,
// and one of them verifies.
func TestLessonA33BrainsDoNotWaitForASiblingsVerification(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		storetest.Open(t, url)
		storetest.FillAudit(t, url, 3000)
		var brains []*apptest.Brain
		for range 3 {
			began := time.Now()
			b := apptest.Start(t, apptest.Options{Database: url})
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("a start took %v, want it to wait for no verification", took)
			}
			brains = append(brains, b)
		}
		apptest.Until(t, "every brain knows", func() bool {
			for _, b := range brains {
				if h := healthOf(b); !h.is(true) {
					return false
				}
			}
			return true
		})
		holders := storetest.Rows(t, storetest.DB(t, url), `SELECT holder FROM leases WHERE name = 'job/audit_verify'`)
		if len(holders) != 1 {
			t.Errorf("leases of the verification: %v, want one", holders)
		}
		if a := state(t, brains[0]); a.Full == nil || a.Full.Exit != 0 || a.Full.Checked < 3000 {
			t.Errorf("found: %+v, want every row proved", a.Full)
		}
	})
}
