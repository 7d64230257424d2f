package api

import (
	"context"
	"crypto/rand"
	_ "embed" // the page
	"encoding/base64"
	"errors"
	"html/template"
	"net/http"
	"sync"
	"time"

	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

const (
	setupOperation = "complete-setup"

	setupWindow   = 15 * time.Minute
	networksAtAll = 8 // times the tries of one network are those of all
)

// setupTries count set-up tries with a wrong token, per network and in all: whoever changes addresses meets the second.
type setupTries struct {
	one, all *auth.Limiter
	mu       *sync.Mutex // takes from both or from none
}

func newSetupTries(perNetwork int) setupTries {
	return setupTries{
		one: auth.NewLimiter(auth.Limit{Count: perNetwork, Per: setupWindow}),
		all: auth.NewLimiter(auth.Limit{Count: networksAtAll * perNetwork, Per: setupWindow}),
		mu:  new(sync.Mutex),
	}
}

// begin counts a try before it is judged, so that many at once don't slip through.
func (t setupTries) begin(network string, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ok, retry := t.one.Take(network, now); !ok {
		return limited(setupBucket, retry)
	}
	if ok, retry := t.all.Take("", now); !ok {
		t.one.Return(network, now)
		return limited(setupBucket, retry)
	}
	return nil
}

// forgive takes a try back: it was no wrong token.
func (t setupTries) forgive(network string, now time.Time) {
	t.one.Return(network, now)
	t.all.Return("", now)
}

// exhausted returns why a try would be refused now.
func (t setupTries) exhausted(network string, now time.Time) error {
	err := t.begin(network, now)
	if err == nil {
		t.forgive(network, now)
	}
	return err
}

type setupStatus struct {
	FirstBoot bool `json:"first_boot" doc:"no account exists yet"`
}

func (s *Server) setupStatus(ctx context.Context, _ *struct{}) (*reply[setupStatus], error) {
	has, err := s.Store.HasUsers(ctx)
	return &reply[setupStatus]{setupStatus{!has}}, err
}

type setupInput struct {
	Body struct {
		Token       string  `json:"token" minLength:"10" maxLength:"200"`
		Email       string  `json:"email" minLength:"3" maxLength:"320"`
		DisplayName *string `json:"display_name,omitempty" maxLength:"200" nullable:"true"`
		Password    string  `json:"password" minLength:"1" maxLength:"256" doc:"see /auth/policy"`
	}
}

type setupResult struct {
	User    UserPublic `json:"user"`
	Project id.ID      `json:"project_id"`
}

func (s *Server) completeSetup(ctx context.Context, in *setupInput) (*reply[setupResult], error) {
	email, err := readEmail("body.email", in.Body.Email)
	if err != nil {
		return nil, err
	}
	hash := auth.SetupTokenHash(s.Master, in.Body.Token)
	if err := s.checkSetupToken(ctx, hash); err != nil {
		return nil, err
	}
	password, err := s.newPassword(ctx, "body.password", in.Body.Password)
	if err != nil {
		return nil, err
	}
	by := byCaller(ctx)
	by.Via = "setup"
	first, err := s.Store.CreateFirstAccount(ctx, store.NewUser{Email: email, PasswordHash: password, DisplayName: trimmed(in.Body.DisplayName)},
		hash, s.newSession(ctx, id.ID{}, false), by)
	if err != nil {
		return nil, setupProblem(err)
	}
	s.setCookies(ctx, first.Session)
	return &reply[setupResult]{setupResult{User: publicOf(first.User), Project: first.Project.ID}}, nil
}

// checkSetupToken judges the token before the password costs anything, and counts the try only if the token is wrong:
// who mistypes the password ten times is no attacker.
func (s *Server) checkSetupToken(ctx context.Context, hash string) error {
	network, now := auth.Network(requestOf(ctx).client), s.Now()
	if err := s.tries.begin(network, now); err != nil {
		return err
	}
	err := s.Store.CheckSetupToken(ctx, hash, store.TimeOf(now))
	wrong := errors.Is(err, store.ErrNoSetupToken) || errors.Is(err, store.ErrSetupTokenExpired) || errors.Is(err, store.ErrSetupTokenWrong)
	if !wrong {
		s.tries.forgive(network, now)
	}
	return setupProblem(err)
}

func setupProblem(err error) error {
	no := func(message, reason string) error {
		p := notFound(message)
		p.details = because(reason)
		return p
	}
	switch {
	case errors.Is(err, store.ErrConflict):
		return conflict("this brain has an account already; log in", "already_initialised")
	case errors.Is(err, store.ErrNoSetupToken):
		return no("there is no set-up token; restart the brain for a new one", "no_active_token")
	case errors.Is(err, store.ErrSetupTokenExpired):
		return no("the set-up token is too old; restart the brain for a new one", "expired")
	case errors.Is(err, store.ErrSetupTokenWrong):
		return no("this is not the set-up token of the brain's newest start", "invalid_token")
	}
	return err
}

//go:embed setup.html
var setupHTML string

// pages mounts what is not part of the API.
func (s *Server) pages(mux *http.ServeMux) {
	page := template.Must(template.New("setup").Parse(setupHTML))
	mux.HandleFunc("GET /setup", func(w http.ResponseWriter, r *http.Request) { s.showSetup(w, r, page) })
	mux.HandleFunc("/setup", s.wrongMethod([]string{http.MethodGet}))
}

// showSetup shows the form as long as there is a token to use.
func (s *Server) showSetup(w http.ResponseWriter, r *http.Request, page *template.Template) {
	ready, err := s.Store.SetupOpen(r.Context(), store.TimeOf(s.Now()))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	nonce := newNonce()
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'; connect-src 'self'; img-src data:; script-src 'nonce-"+
		nonce+"'; style-src 'nonce-"+nonce+"'")
	if !ready {
		w.WriteHeader(http.StatusNotFound)
	}
	_ = page.Execute(w, map[string]any{"Nonce": nonce, "Ready": ready, "MinLength": s.Passwords.Policy.Min()}) // the client went away: there is nobody to tell
}

func newNonce() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err) // crypto/rand never fails on the systems we run on
	}
	return base64.RawURLEncoding.EncodeToString(b[:])
}
