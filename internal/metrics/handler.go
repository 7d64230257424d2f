package metrics

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Access says who may read the metrics. The zero value lets nobody.
type Access struct {
	Token  string // bearer token; "" fits nobody
	Public bool   // no token is asked for
}

// Handler serves the metrics in Prometheus' text form.
func (m *Metrics) Handler(a Access) http.Handler {
	show := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.allows(r.Header.Get("Authorization")) {
			refuse(w)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		show.ServeHTTP(w, r)
	})
}

func (a Access) allows(authorization string) bool {
	if a.Public {
		return true
	}
	scheme, token, _ := strings.Cut(authorization, " ")
	if a.Token == "" || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	have, want := sha256.Sum256([]byte(strings.TrimSpace(token))), sha256.Sum256([]byte(a.Token))
	return subtle.ConstantTimeCompare(have[:], want[:]) == 1
}

func refuse(w http.ResponseWriter) {
	const message = "the metrics need the bearer token Z4J_METRICS_AUTH_TOKEN"
	w.Header().Set("WWW-Authenticate", `Bearer realm="metrics"`)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	body, err := json.Marshal(map[string]any{
		"error": "unauthenticated", "message": message, "detail": message,
		"request_id": w.Header().Get("X-Request-Id"), "details": map[string]any{},
	})
	if err != nil {
		http.Error(w, message, http.StatusUnauthorized)
		return
	}
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write(body) // the client is gone: nobody is left to tell
}
