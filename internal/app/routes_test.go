package app_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/app/apptest"
	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
)

// TestLessonI18EveryAddressAnswersInOneForm: errors have the fields, the request id and the headers wherever they come
// from, also where no part of the API answers.
func TestLessonI18EveryAddressAnswersInOneForm(t *testing.T) {
	b := apptest.Start(t, apptest.Options{Environ: []string{"Z4J_METRICS_AUTH_TOKEN=metrics-token-metrics-token"}})
	wrongHost := func(r *http.Request) { r.Host = "evil.test" }
	badToken := func(r *http.Request) { r.Header.Set("Authorization", "Bearer unknown") }
	for _, tt := range []struct {
		name, method, path string
		change             func(*http.Request)
		status             int
		code               string
	}{
		{"an agent without a token", http.MethodGet, "/ws/agent", nop, 401, "unauthenticated"},
		{"an agent with an unknown one", http.MethodGet, "/ws/agent", badToken, 401, "unauthenticated"},
		{"an agent that knows the brain by another name", http.MethodGet, "/ws/agent", wrongHost, 401, "unauthenticated"},
		{"a socket that is posted to", http.MethodPost, "/ws/agent", nop, 405, "method_not_allowed"},
		{"metrics without a token", http.MethodGet, "/metrics", nop, 401, "unauthenticated"},
		{"metrics by a wrong name", http.MethodGet, "/metrics", wrongHost, 400, "invalid_host"},
		{"metrics that are posted to", http.MethodPost, "/metrics", nop, 405, "method_not_allowed"},
		{"an address that is none", http.MethodGet, "/foo", nop, 404, "not_found"},
		{"one below the socket", http.MethodGet, "/ws/agent/x", nop, 404, "not_found"},
		{"the set-up page that is posted to", http.MethodPost, "/setup", nop, 405, "method_not_allowed"},
		{"an address of the API that is none", http.MethodGet, "/api/v1/foo", nop, 404, "not_found"},
	} {
		res := request(t, b, tt.method, tt.path, "", func(r *http.Request) { r.Header.Set("X-Request-Id", "mine-1"); tt.change(r) })
		var body struct {
			Error, Message, Detail string
			RequestID              string `json:"request_id"`
			Details                map[string]any
		}
		if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
			t.Errorf("%s: %d with a body that is no JSON: %v", tt.name, res.StatusCode, err)
			continue
		}
		if res.StatusCode != tt.status || body.Error != tt.code || body.Message == "" || body.Details == nil || body.RequestID != "mine-1" {
			t.Errorf("%s: got %d %+v, want %d %s with message, details and the request's id", tt.name, res.StatusCode, body, tt.status, tt.code)
		}
		if body.Detail == "" && tt.status != http.StatusBadRequest {
			t.Errorf("%s: got no detail, want one", tt.name)
		}
		for name, value := range map[string]string{
			"X-Request-Id": "mine-1", "Content-Type": "application/json", "Cache-Control": "no-store",
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := res.Header.Get(name); got != value {
				t.Errorf("%s: %s is %q, want %q", tt.name, name, got, value)
			}
		}
		if tt.status == http.StatusMethodNotAllowed && res.Header.Get("Allow") != http.MethodGet {
			t.Errorf("%s: Allow is %q, want GET", tt.name, res.Header.Get("Allow"))
		}
	}
}

// TestRefusedAgentsAreRecorded: an unknown token leaves an entry with the address, and no token.
func TestRefusedAgentsAreRecorded(t *testing.T) {
	b := apptest.Start(t, apptest.Options{})
	for range 3 {
		res := request(t, b, http.MethodGet, "/ws/agent", "", func(r *http.Request) { r.Header.Set("Authorization", "Bearer not-a-token-of-ours") })
		want(t, "status", res.StatusCode, http.StatusUnauthorized)
	}
	var found []store.AuditEntry
	apptest.Until(t, "the refusal is recorded", func() bool {
		page, err := b.Store.AuditLog(t.Context(), store.AuditFilter{Action: string(audit.AgentAuthFailed)})
		if err != nil {
			t.Fatal(err)
		}
		found = page.Items
		return len(found) > 0
	})
	text, err := json.Marshal(found)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "entries of three refusals", len(found), 1)
	contains(t, "the entry", string(text), "127.0.0.1")
	contains(t, "the entry", string(text), `"outcome":"deny"`)
	want(t, "the token in the entry", strings.Contains(string(text), "not-a-token"), false)
}
