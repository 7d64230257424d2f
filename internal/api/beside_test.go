package api_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/api"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestASocketHasNoDeadline: what an agent's connection does takes as long as it takes; any other answer has to end.
func TestASocketHasNoDeadline(t *testing.T) {
	deadline := map[string]bool{}
	note := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, deadline[r.URL.Path] = r.Context().Deadline() })
	b := start(t, storetest.SQLite(t), func(o *api.Options) { o.Beside = api.Beside{Agents: note, Metrics: note} })
	for path, want := range map[string]bool{"/ws/agent": false, "/metrics": true} {
		b.client().do(http.MethodGet, path, nil)
		if got, asked := deadline[path]; !asked || got != want {
			t.Errorf("%s: asked %t, a deadline %t; want one: %t", path, asked, got, want)
		}
	}
}

// TestAStartingBrainAnswersInTheSameForm, with the same headers, as a started one.
func TestAStartingBrainAnswersInTheSameForm(t *testing.T) {
	h := api.Starting(api.Settings{PublicURL: "https://brain.test", HSTSMaxAge: time.Hour})
	for path, tt := range map[string]struct {
		status int
		field  string
		want   any
	}{
		"/api/v1/health":       {200, "status", "ok"},
		"/api/v1/health/ready": {503, "status", "unready"},
		"/api/v1/projects":     {503, "error", "unavailable"},
		"/ws/agent":            {503, "request_id", "mine-1"},
		"/foo":                 {503, "message", "the brain is starting"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		r.Header.Set("X-Request-Id", "mine-1")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var body map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Fatalf("%s: %v in %s", path, err, w.Body)
		}
		if w.Code != tt.status || body[tt.field] != tt.want || (w.Header().Get("Retry-After") == "1") != (tt.status == 503) {
			t.Errorf("%s: got %d %s, want %d with %s %v", path, w.Code, w.Body, tt.status, tt.field, tt.want)
		}
		for name, value := range map[string]string{
			"X-Request-Id": "mine-1", "X-Frame-Options": "DENY", "Cache-Control": "no-store", "Strict-Transport-Security": "max-age=3600",
		} {
			if got := w.Header().Get(name); got != value {
				t.Errorf("%s: %s is %q, want %q", path, name, got, value)
			}
		}
	}
}
