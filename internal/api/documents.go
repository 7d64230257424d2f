package api

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

// Who may read the documentation.
const (
	docsPublic   = "public"
	docsPrivate  = "private" // who is logged in
	docsDisabled = "disabled"
)

// describe tells huma's document what it cannot see in our types.
func (s *Server) describe(c *huma.Config) {
	c.Info.Description = "What agents report of background tasks, and what the brain makes of it. Lists go from the newest to the oldest; " +
		"a cursor is the place of a row that was shown, so that rows which come in between move nothing."
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"session": {Type: "apiKey", In: "cookie", Name: s.cookies.Session, Description: "what POST /auth/login sets; changes repeat the CSRF cookie's value in X-CSRF-Token"},
		"api_key": {Type: "http", Scheme: "bearer", Description: "an API key, z4k_…; it acts for its owner within its scopes, and needs no CSRF token"},
	}
	c.Components.Schemas.RegisterTypeAlias(reflect.TypeFor[store.Time](), reflect.TypeFor[timeText]())
	c.Components.Schemas.RegisterTypeAlias(reflect.TypeFor[id.ID](), reflect.TypeFor[uuidText]())
	c.Components.Schemas.RegisterTypeAlias(reflect.TypeFor[id.Null](), reflect.TypeFor[nullUUID]())
}

// How times and ids are described.
type (
	timeText string
	uuidText string
	nullUUID string
)

// Schema is a time in UTC to the microsecond.
func (timeText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date-time"}
}

// Schema is a UUID.
func (uuidText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "uuid"}
}

// Schema is a UUID or null.
func (nullUUID) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "uuid", Nullable: true}
}

// documents mounts the documentation, the page at / and security.txt. The documentation is made once, of the routes
// there are, when somebody asks for it first.
func (s *Server) documents(mux *http.ServeMux) {
	get := func(path string, h http.HandlerFunc) {
		mux.HandleFunc("GET "+path, h)
		mux.HandleFunc(path, s.wrongMethod([]string{http.MethodGet}))
	}
	get(base+"/openapi.json", s.documented("application/json", "", func() ([]byte, error) {
		text, err := json.MarshalIndent(s.document, "", " ")
		return append(text, '\n'), err
	}))
	get("/docs", s.documented("text/html; charset=utf-8", pageCSP(), func() ([]byte, error) { return docsPage(s.document) }))
	get("/{$}", func(w http.ResponseWriter, r *http.Request) {
		var state status
		state.describe(s.Audit.Err())
		home, err := homePage(s.Version, state.Detail)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		writePage(w, "text/html; charset=utf-8", pageCSP(), home)
	})
	get("/.well-known/security.txt", s.showSecurity)
	get("/security.txt", s.showSecurity)
}

// documented serves a part of the documentation, which build makes, to whom the settings permit it.
func (s *Server) documented(kind, csp string, build func() ([]byte, error)) http.HandlerFunc {
	type page struct {
		body []byte
		tag  string
	}
	made := sync.OnceValues(func() (page, error) {
		body, err := build()
		sum := sha256.Sum256(body)
		return page{body, `"` + hex.EncodeToString(sum[:16]) + `"`}, err
	})
	return func(w http.ResponseWriter, r *http.Request) {
		if err := s.mayRead(r); err != nil {
			s.fail(w, r, err)
			return
		}
		p, err := made()
		if err != nil {
			s.fail(w, r, fmt.Errorf("make the documentation: %w", err))
			return
		}
		cache := "public, max-age=3600"
		if s.Settings.Docs == docsPrivate {
			cache = "private, max-age=3600"
		}
		w.Header().Set("Cache-Control", cache)
		w.Header().Set("ETag", p.tag)
		if strings.Contains(r.Header.Get("If-None-Match"), p.tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		writePage(w, kind, csp, p.body)
	}
}

func (s *Server) mayRead(r *http.Request) error {
	q := requestOf(r.Context())
	if s.Settings.Docs == docsDisabled {
		return errNoRoute()
	}
	if ok, retry := s.limits[documentation].Take(auth.Network(q.client), s.Now()); !ok {
		return limited(documentation, retry)
	}
	if s.Settings.Docs == docsPrivate {
		return s.authenticate(q, r)
	}
	return nil
}

func writePage(w http.ResponseWriter, kind, csp string, body []byte) {
	w.Header().Set("Content-Type", kind)
	if csp != "" {
		w.Header().Set("Content-Security-Policy", csp)
	}
	_, _ = w.Write(body) // the client went away: there is nobody to tell
}

// showSecurity says where to report a hole (RFC 9116).
func (s *Server) showSecurity(w http.ResponseWriter, _ *http.Request) {
	expires := s.Now().UTC().AddDate(1, 0, 0).Truncate(24 * time.Hour).Format(time.RFC3339)
	writePage(w, "text/plain; charset=utf-8", "", []byte("Contact: https://github.com/z4j-go/z4j/security/advisories/new\nExpires: "+expires+"\nPreferred-Languages: en\n"))
}
