package app

import (
	"net/http"

	"github.com/z4j-go/z4j/internal/gateway"
	"github.com/z4j-go/z4j/internal/metrics"
)

// routes is everything that is answered.
func (b *Brain) routes(agents *gateway.Server, counts *metrics.Metrics) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /ws/agent", agents.Handler())
	mux.Handle("GET /metrics", counts.Handler(metrics.Access{
		Token: string(b.Config.Secrets.Metrics.Reveal()), Public: b.Config.Observe.MetricsPublic,
	}))
	mux.HandleFunc("GET /api/v1/health", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"status":"ok"}`)) })
	mux.HandleFunc("GET /api/v1/health/ready", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"status":"ready"}`)) })
	return mux
}
