package api_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestLessonF26AnyQueryIsAnsweredOrRefused: whatever stands in a query, no list answers 500.
func TestLessonF26AnyQueryIsAnsweredOrRefused(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		b.feed(root).history()
		names := []string{"state", "priority", "name", "search", "queue", "worker", "since", "until", "limit", "cursor", "include_total", "sort", "engine", "task_id", "role", "user_id", "action_prefix", "hours"}
		values := rapid.OneOf(rapid.String(), rapid.StringN(0, 40, 80), rapid.SampledFrom([]string{"failure", "2026-03-14", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999+14:00", "-1", "50", "AXQA", "online", "celery", "a11", "\x00", "\xff", "%", "\\"}))
		rapid.Check(t, func(rt *rapid.T) {
			path := rapid.SampledFrom([]string{"tasks", "tasks/celery/a11/attempts", "events", "workers", "queues", "agent-workers", "refused-events", "stats", "audit", "agents", "memberships", "/projects", "/users"}).Draw(rt, "list")
			if !strings.HasPrefix(path, "/") {
				path = "/projects/default/" + path
			}
			q := url.Values{}
			for range rapid.IntRange(1, 3).Draw(rt, "parameters") {
				q.Add(rapid.SampledFrom(names).Draw(rt, "name"), values.Draw(rt, "value"))
			}
			req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1"+path+"?"+q.Encode(), nil)
			req.RemoteAddr, req.Host = "192.0.2.10:4000", "brain.test"
			for _, k := range root.cookies {
				req.AddCookie(k)
			}
			w := httptest.NewRecorder()
			b.http.ServeHTTP(w, req)
			if w.Code != http.StatusOK && w.Code != http.StatusUnprocessableEntity {
				rt.Fatalf("%s: %d %s, want 200 or 422", req.URL, w.Code, w.Body)
			}
		})
	})
}
