// Package api serves the REST API under /api/v1 and the set-up page.
//
// Every route stands in the table of routes.go with who may call it. A request passes, in this order: security headers,
// client address, request id, host check, size; then, for its route, rate limit, readable body, origin, session, CSRF;
// then huma checks the fields; then the project is looked up and the role asked; then the handler runs. Every error
// becomes an answer in errors.go and nowhere else.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/metrics"
	"github.com/z4j-go/z4j/internal/store"
)

// Options are what a Server needs.
type Options struct {
	Store     *store.Store
	Log       *slog.Logger
	Now       func() time.Time
	Passwords *auth.Passwords
	Sessions  auth.SessionKeys
	Master    []byte   // hashes tokens
	Previous  [][]byte // earlier masters, under which API keys go on working
	Hosts     auth.Hosts
	Proxies   auth.Proxies
	Agents    Connections
	Refusals  Refusals
	Settings  Settings
	Metrics   *metrics.Metrics
	Audit     *AuditHealth // nil: an own one
	Backups   Backups

	// Anchors tells what is wrong with the anchors of the audit log; nil: nobody watches them.
	Anchors func() []custody.Trouble
	Beside  Beside
	Version string

	// SigningSecret is the text with which agents of a project are configured to sign frames.
	SigningSecret func(project id.ID) string

	// Pause waits, or returns earlier when ctx ends; nil is a timer. Failed log-ins are slowed down with it.
	Pause func(ctx context.Context, d time.Duration)
}

// Settings are the operator's choices.
type Settings struct {
	Dev             bool   // cookies without Secure, no HSTS
	PublicURL       string // as browsers reach the brain
	Docs            string // who may read the documentation: public, private or disabled; "" is public
	MaxBody         int64  // bytes
	SetupTries      int    // failed ones in 15 minutes from one network
	Lockout         int    // failed log-ins that lock an account
	LockFor         time.Duration
	LoginMin        time.Duration // least time that a log-in takes
	SessionLifetime time.Duration
	SessionIdle     time.Duration
	SessionRemember time.Duration
	StrictCookies   bool // SameSite=strict for the session's cookie, too
	HSTSMaxAge      time.Duration
	HSTSSubdomains  bool
	ClientPatience  time.Duration // how long a client of an export may take nothing
	VerifyInterval  time.Duration // between two verifications of the audit log; 0 is off
}

// Connections are the agents' ones.
type Connections interface {
	// Revoked closes every connection of an agent whose token was revoked.
	Revoked(agent id.ID)
}

// Refusals records what was refused; a *store.Refusals does. It can neither fail nor take longer than a second.
type Refusals interface {
	Record(ctx context.Context, f audit.Facts)
}

// Server answers API requests. Make one with New.
type Server struct {
	Options

	cookies  auth.CookieNames
	masters  []master // the first is the current one
	uses     uses
	limits   map[bucket]*auth.Limiter
	tries    setupTries
	failures *auth.Limiter // failed log-ins by e-mail address, of accounts that exist and of others
	origins  *http.CrossOriginProtection
	routes   []route
	handler  func() http.Handler
	document *huma.OpenAPI
}

// New returns a Server. An unset setting has the default of docs/configuration.md.
func New(o Options) *Server {
	s := &Server{Options: o, cookies: auth.Cookies(o.Settings.Dev), failures: auth.NewLimiter(auth.Limit{Count: maxBackoffSteps, Per: backoffMemory})}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.Pause == nil {
		s.Pause = pause
	}
	if s.Audit == nil {
		s.Audit = NewAuditHealth(s.Store, s.Log, s.Now)
	}
	s.masters = masters(s.Master, s.Previous)
	s.Settings.fill()
	s.tries = newSetupTries(s.Settings.SetupTries)
	s.limits = make(map[bucket]*auth.Limiter)
	for name, limit := range buckets() {
		s.limits[name] = auth.NewLimiter(limit)
	}
	s.origins = http.NewCrossOriginProtection()
	if err := s.origins.AddTrustedOrigin(originOf(s.Settings.PublicURL)); err != nil {
		s.Log.Warn("public URL has no origin", "err", err)
	}
	s.routes = s.table()
	s.handler = sync.OnceValue(s.build)
	return s
}

func (s *Settings) fill() {
	def := func(have *time.Duration, want time.Duration) {
		if *have == 0 {
			*have = want
		}
	}
	def(&s.LockFor, 15*time.Minute)
	def(&s.SessionLifetime, 7*24*time.Hour)
	def(&s.SessionIdle, 30*time.Minute)
	def(&s.SessionRemember, 30*24*time.Hour)
	def(&s.ClientPatience, clientPatience)
	if s.MaxBody == 0 {
		s.MaxBody = 1 << 20
	}
	if s.SetupTries == 0 {
		s.SetupTries = 30
	}
	if s.Lockout == 0 {
		s.Lockout = 10
	}
}

// Handler returns the API and its pages as one http.Handler.
func (s *Server) Handler() http.Handler { return s.handler() }

// Document returns the OpenAPI document of the routes.
func (s *Server) Document() *huma.OpenAPI {
	s.handler()
	return s.document
}

// base is where the API begins.
const base = "/api/v1"

func (s *Server) build() http.Handler {
	mux := http.NewServeMux()
	api := humago.New(mux, s.humaConfig())
	s.document = api.OpenAPI()
	methods := map[string][]string{}
	for i := range s.routes {
		rt := &s.routes[i]
		rt.mount(s, api, rt)
		methods[base+rt.path] = append(methods[base+rt.path], rt.method)
	}
	for path, allowed := range methods {
		s.otherMethods(mux, path, allowed)
	}
	s.beside(mux)
	s.pages(mux)
	s.documents(mux)
	return s.outermost(mux)
}

// strictCasing makes huma tell "Email" from "email", as encoding/json does not: a field that is not checked must not be
// read; and it makes lists never null, but for those whose tag says so. huma keeps these choices in variables of its own.
var strictCasing sync.Once

func (s *Server) humaConfig() huma.Config {
	strictCasing.Do(func() { huma.ValidateStrictCasing, huma.DefaultArrayNullable = true, false })
	c := huma.DefaultConfig("z4j", s.Version)
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", "" // served by routes of ours
	c.CreateHooks = nil                                   // no $schema in answers
	c.Transformers = []huma.Transformer{s.replaceError}
	s.describe(&c)
	return c
}

// pause waits for d or for ctx.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// request is what is known of a request while it is answered.
type request struct {
	id        string
	client    netip.Addr
	userAgent string
	writer    http.ResponseWriter
	route     *route // nil until one was found
	slug      string // of the project that the path names

	user    *store.User    // nil: anonymous
	key     *store.APIKey  // that acts for user; nil: none
	session *store.Session // of user
	project store.Project
	role    auth.Role // in project

	target audit.Target // of a refusal, as far as known
}

type requestKey struct{}

// requestOf returns what is known of the request that ctx belongs to.
func requestOf(ctx context.Context) *request {
	if q, ok := ctx.Value(requestKey{}).(*request); ok {
		return q
	}
	return &request{id: "none"}
}

// projectOf returns the project that the request's path names; the caller may do there what the route asks for.
func projectOf(ctx context.Context) store.Project { return requestOf(ctx).project }

// actor is who sent the request, for the audit log.
func (q *request) actor() audit.Actor {
	a := audit.Actor{Kind: audit.Anonymous, UserAgent: q.userAgent}
	if q.client.IsValid() {
		a.IP = q.client.String()
	}
	if q.key != nil {
		return q.keyActor(a)
	}
	if q.user != nil {
		a.Kind, a.ID, a.Label = audit.User, q.user.ID.String(), q.user.Email
	}
	return a
}

// byCaller is who makes the change that the request asks for.
func byCaller(ctx context.Context) store.By {
	q := requestOf(ctx)
	return store.By{Actor: q.actor(), RequestID: q.id, Via: "api"}
}
