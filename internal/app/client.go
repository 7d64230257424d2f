package app

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/store"
)

// client is the address of whom a request comes from, past trusted proxies; "" is unknown.
func (b *Brain) client(r *http.Request) string {
	a := auth.Proxies(b.Config.Network.TrustedProxies).Client(r.RemoteAddr, r.Header.Values("X-Forwarded-For"))
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// refusedCredentials is how many refused tokens one address may show: more than a fleet of 64 processes with a revoked
// one makes while it backs off, and far less than guessing needs.
var refusedCredentials = auth.Limit{Count: 300, Per: time.Minute}

// refusals counts refused agents' credentials by network, and has them recorded.
type refusals struct {
	limiter *auth.Limiter
	now     func() time.Time
	audited *store.Refusals
}

func newRefusals(now func() time.Time, audited *store.Refusals) refusals {
	return refusals{auth.NewLimiter(refusedCredentials), now, audited}
}

// Blocked reports whether too many were refused of late.
func (r refusals) Blocked(address string) bool {
	return r.limiter.Count(network(address), r.now()) >= refusedCredentials.Count
}

// Refused counts one more. Who it was nobody knows: its entry names the address, and the next ten minutes' repetitions
// are one entry more.
func (r refusals) Refused(address string) {
	r.limiter.Take(network(address), r.now())
	r.audited.Record(context.Background(), audit.Facts{
		Action: audit.AgentAuthFailed, Outcome: audit.Deny, Actor: audit.Actor{Kind: audit.Anonymous, IP: address},
		Details: map[string]any{"status": http.StatusUnauthorized, "method": http.MethodGet, "path": "/ws/agent"},
	})
}

func network(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	return auth.Network(a)
}
