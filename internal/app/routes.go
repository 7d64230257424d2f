package app

import (
	"fmt"
	"net/http"

	"github.com/z4j-go/z4j/internal/api"
	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/gateway"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/metrics"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/wire"
)

// api connects the REST API with everything that it needs.
func (b *Brain) api(passwords *auth.Passwords, agents *gateway.Server, refused *store.Refusals, counts *metrics.Metrics) (*api.Server, error) {
	c := b.Config
	hosts, err := auth.NewHosts(c.Network.AllowedHosts)
	if err != nil {
		return nil, fmt.Errorf("Z4J_ALLOWED_HOSTS: %w", err)
	}
	master := c.Secrets.Master.Reveal()
	ws := agents.Handler()
	if b.Drill {
		ws = http.NotFoundHandler()
	}
	return api.New(api.Options{
		Store: b.Store, Log: b.Log, Now: b.Now, Passwords: passwords, Master: master, Previous: c.Secrets.PreviousMaster.Reveal(), Version: b.Version,
		Sessions: auth.SessionKeys{Current: c.Secrets.Session.Reveal(), Previous: c.Secrets.PreviousSession.Reveal()},
		Hosts:    hosts, Proxies: auth.Proxies(c.Network.TrustedProxies), Agents: agents, Refusals: refused, Metrics: counts, Audit: b.audit, Backups: b.backups, Anchors: b.custody.Troubles,
		Beside: api.Beside{Agents: ws, Metrics: counts.Handler(metrics.Access{
			Token: string(c.Secrets.Metrics.Reveal()), Public: c.Observe.MetricsPublic,
		})},
		SigningSecret: func(project id.ID) string { return SigningSecret(c, project) },
		Settings:      b.apiSettings(),
	}), nil
}

// SigningSecret is the text with which agents of a project are configured to sign frames.
func SigningSecret(c *config.Config, project id.ID) string {
	return wire.EncodeSecret(wire.ProjectSecret(string(c.Secrets.Master.Reveal()), project))
}

func (b *Brain) apiSettings() api.Settings {
	c := b.Config
	return api.Settings{
		Dev: c.IsDev(), PublicURL: c.Network.PublicURL, Docs: c.Observe.OpenAPIVisibility, MaxBody: int64(c.Network.MaxPayload),
		SetupTries: c.FirstBoot.AttemptsPerIP, Lockout: c.Accounts.LockoutThreshold, LockFor: c.Accounts.LockoutDuration, LoginMin: c.Accounts.LoginMin,
		SessionLifetime: c.Accounts.SessionLifetime, SessionIdle: c.Accounts.SessionIdle, SessionRemember: c.Accounts.SessionRemember,
		VerifyInterval: c.Audit.VerifyInterval,
		StrictCookies:  c.Accounts.CookieSameSite == "strict", HSTSMaxAge: c.Network.HSTSMaxAge, HSTSSubdomains: c.Network.HSTSSubdomains,
	}
}
