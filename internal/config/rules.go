package config

import (
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// derive fills in what follows from other settings.
func (l *loader) derive() {
	c := l.c
	c.Network.BindHost = strings.TrimSuffix(strings.TrimPrefix(c.Network.BindHost, "["), "]")
	if !c.Given("ENVIRONMENT") {
		c.General.Environment = "production"
		if loopback(c.Network.BindHost) {
			c.General.Environment = Dev
		}
		c.origins["ENVIRONMENT"] = Origin{Kind: Derived}
	}
	if !c.Given("LOG_FORMAT") && !c.IsDev() {
		c.General.LogFormat = "json"
		c.origins["LOG_FORMAT"] = Origin{Kind: Derived}
	}
	if c.Database.URL.IsZero() && !c.Given("DATABASE_URL") {
		c.Database.URL = SQLiteURL(filepath.Join(c.General.Home, "z4j.db"))
		c.origins["DATABASE_URL"] = Origin{Kind: Derived}
	}
	if !c.Given("PUBLIC_URL") {
		c.Network.PublicURL = derivedURL(c.Network.BindHost, l.in.Hostname, c.Network.BindPort)
		c.origins["PUBLIC_URL"] = Origin{Kind: Derived}
	}
	c.Network.PublicURL = strings.TrimRight(c.Network.PublicURL, "/")
	if !c.Given("ALLOWED_HOSTS") {
		c.Network.AllowedHosts = derivedHosts(c.Network.BindHost, l.in)
		c.origins["ALLOWED_HOSTS"] = Origin{Kind: Derived}
	}
	hosts := c.Network.AllowedHosts
	if u, err := url.Parse(c.Network.PublicURL); err == nil && u.Hostname() != "" {
		hosts = append(hosts, u.Hostname())
	}
	var clean []string
	for _, h := range hosts {
		h = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(h, "["), "]"))
		if !slices.Contains(clean, h) {
			clean = append(clean, h)
		}
	}
	c.Network.AllowedHosts = clean
}

// Listening puts the port that was really taken into a derived public URL.
func (c *Config) Listening(port int) {
	if c.Network.BindPort == 0 && !c.Given("PUBLIC_URL") {
		if u, err := url.Parse(c.Network.PublicURL); err == nil {
			u.Host = net.JoinHostPort(u.Hostname(), strconv.Itoa(port))
			c.Network.PublicURL = u.String()
		}
	}
	c.Network.BindPort = port
}

func derivedURL(host, hostname string, port int) string {
	if everyAddress(host) {
		host = hostname
		if host == "" {
			host = "localhost"
		}
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(port))
}

func derivedHosts(host string, in Input) []string {
	loop := []string{"localhost", "127.0.0.1", "::1"}
	switch {
	case loopback(host):
		return append(loop, host)
	case everyAddress(host):
		hosts := loop
		if in.Hostname != "" {
			hosts = append(hosts, in.Hostname)
		}
		for _, a := range in.Addresses {
			hosts = append(hosts, a.WithZone("").Unmap().String())
		}
		return hosts
	}
	return []string{host}
}

func everyAddress(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "" || err == nil && a.IsUnspecified()
}

// check refuses what does not go together.
func (l *loader) check() {
	c := l.c
	bind := c.Network.BindHost
	if len(c.General.Environment) > 40 {
		l.problem("Z4J_ENVIRONMENT", c.Origin("ENVIRONMENT"), "is longer than 40 bytes")
	}
	if c.IsDev() && !loopback(bind) {
		l.problem("Z4J_ENVIRONMENT", c.Origin("ENVIRONMENT"), "dev (cookies without Secure) listens on loopback addresses only, and Z4J_BIND_HOST is %s: "+
			"leave Z4J_ENVIRONMENT out or set it to production, or bind to 127.0.0.1", quote(bind))
	}
	if strings.ContainsFunc(bind, unicode.IsSpace) || strings.ContainsAny(bind, "/@") {
		l.problem("Z4J_BIND_HOST", c.Origin("BIND_HOST"), "%s is not a host name or address", quote(bind))
	}
	l.checkPublicURL()
	for _, h := range c.Network.AllowedHosts {
		if !plainHost(h) {
			l.problem("Z4J_ALLOWED_HOSTS", c.Origin("ALLOWED_HOSTS"), "%s is not a host name; names are given without scheme, port and wildcard", quote(h))
		}
	}
	for _, p := range c.Network.TrustedProxies {
		if p.Bits() == 0 {
			l.warn("Z4J_TRUSTED_PROXIES trusts everybody's X-Forwarded-For (%s): any client can claim any address; name the proxies' networks", p)
		}
	}
	l.checkDatabase()
	l.checkSecrets()
	if (c.FirstBoot.Email == "") != c.FirstBoot.Password.IsZero() {
		l.warn("Z4J_BOOTSTRAP_ADMIN_EMAIL and Z4J_BOOTSTRAP_ADMIN_PASSWORD make an account only together; the one that is set is ignored")
	}
	if e, t := c.Retention.EventDays, c.Retention.TaskDays; e > t {
		l.warn("Z4J_EVENT_RETENTION_DAYS is more than Z4J_TASK_RETENTION_DAYS (%d) and is ignored: events are not kept longer than their tasks", t)
		c.Retention.EventDays = 0
	}
	for _, r := range []struct {
		name string
		days int
	}{{"FAILED_TASK", c.Retention.FailedDays}, {"UNFINISHED_TASK", c.Retention.UnfinishedDays}} {
		if r.days > 0 && r.days < c.Retention.TaskDays && c.Given(r.name+"_RETENTION_DAYS") {
			l.warn("Z4J_%s_RETENTION_DAYS is less than Z4J_TASK_RETENTION_DAYS (%d) and does nothing: it makes some tasks stay longer than the others", r.name, c.Retention.TaskDays)
		}
	}
	if _, err := time.Parse("15:04", c.Retention.SweepTime); err != nil {
		l.problem("Z4J_RETENTION_TIME", c.Origin("RETENTION_TIME"), "%s is not a time of day like 03:30", quote(c.Retention.SweepTime))
	}
}

// checkPublicURL keeps links from leading elsewhere than the operator reads.
func (l *loader) checkPublicURL() {
	c := l.c
	text, o := c.Network.PublicURL, c.Origin("PUBLIC_URL")
	bad := func(why string) { l.problem("Z4J_PUBLIC_URL", o, "%s", why) }
	if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '\\' }) {
		bad("holds a space, a control character or a backslash")
		return
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !plainHost(u.Hostname()) {
		bad("must be like https://brain.example.com")
		return
	}
	if u.User != nil {
		bad("holds a user name or password; it must be like https://brain.example.com")
		return
	}
	if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Path != "" {
		bad("must end with the host or port: the brain answers at the root of its host only")
		return
	}
	if c.IsDev() {
		if u.Scheme == "https" && !c.Given("ENVIRONMENT") {
			l.warn("Z4J_PUBLIC_URL is https, but a loopback bind makes the environment dev: cookies are not marked Secure. Behind a proxy with TLS set Z4J_ENVIRONMENT=production")
		}
		return
	}
	if u.Scheme == "https" || loopback(u.Hostname()) {
		return
	}
	switch {
	case c.Given("PUBLIC_URL") && !c.Network.AllowHTTPPublic:
		bad("is http, and outside dev browsers send session cookies over https only: give an https URL, or, behind something else that encrypts, set Z4J_ALLOW_HTTP_PUBLIC_URL=true")
	case !c.Given("PUBLIC_URL"):
		l.warn("Z4J_PUBLIC_URL is not set; links begin with %s, where browsers send no session cookie. Set it to the https URL that people use", text)
	}
}

// plainHost reports whether h is nothing but a host name or address.
func plainHost(h string) bool {
	if a, err := netip.ParseAddr(h); err == nil {
		return a.Zone() == ""
	}
	if h == "" || len(h) > 253 || h[0] == '-' || h[0] == '.' {
		return false
	}
	for _, r := range h {
		if r != '-' && r != '.' && r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return false
		}
	}
	return true
}

func (l *loader) checkDatabase() {
	c := l.c
	d := c.Database.URL
	if d.IsZero() || d.IsSQLite() || c.IsDev() || !c.Database.RequireTLS || d.local() || d.encrypted() {
		return
	}
	l.problem("Z4J_DATABASE_URL", c.Origin("DATABASE_URL"), "would carry the password and the data in the clear: add ?sslmode=verify-full (or require), "+
		"or, where the network is private, set Z4J_REQUIRE_DB_SSL=false")
}

func (l *loader) checkSecrets() {
	k := &l.c.Secrets
	for _, pair := range []struct {
		a, b   Secret
		na, nb string
	}{
		{k.Master, k.Session, "Z4J_SECRET", "Z4J_SESSION_SECRET"},
		{k.Master, k.Audit, "Z4J_SECRET", "Z4J_AUDIT_SECRET"},
		{k.Session, k.Audit, "Z4J_SESSION_SECRET", "Z4J_AUDIT_SECRET"},
	} {
		if !pair.a.IsZero() && pair.a.Equal(pair.b) {
			l.warn("%s and %s are the same: who learns one has both", pair.na, pair.nb)
		}
	}
	if l.c.Observe.MetricsPublic {
		l.warn("Z4J_METRICS_PUBLIC lets everybody read the names of projects, tasks and queues at /metrics")
	}
}
