package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

const csrfHeader = "X-CSRF-Token"

// gate decides what can be decided before the fields are checked: rate limit, a body that can be read, origin, session,
// CSRF token, and permissions in the installation.
func (s *Server) gate(rt *route, hasBody bool) func(huma.Context, func(huma.Context)) {
	return func(hc huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(hc)
		q := requestOf(r.Context())
		q.route, q.slug = rt, r.PathValue("slug")
		if err := s.enter(q, w, r, hasBody); err != nil {
			s.fail(w, r, err)
			return
		}
		next(hc)
	}
}

func (s *Server) enter(q *request, w http.ResponseWriter, r *http.Request, hasBody bool) error {
	if err := s.throttle(q); err != nil {
		return err
	}
	if hasBody {
		if err := s.readBody(w, r); err != nil {
			return err
		}
	}
	if err := s.origins.Check(r); err != nil {
		return forbidden("the request comes from another site", because("cross_origin"))
	}
	if err := s.identify(q, r); err != nil {
		return err
	}
	if q.route.access.kind == installation && !q.route.access.allows(installationRole(q.user)) {
		return forbidden("only a global administrator may do this", map[string]any{"need": string(q.route.access.permission)})
	}
	return nil
}

func (s *Server) throttle(q *request) error {
	now := s.Now()
	if q.route.id == setupOperation {
		if err := s.tries.exhausted(auth.Network(q.client), now); err != nil {
			return err
		}
	}
	limiter := s.limits[q.route.bucket]
	if limiter == nil {
		return nil
	}
	if ok, retry := limiter.Take(auth.Network(q.client), now); !ok {
		return limited(q.route.bucket, retry)
	}
	return nil
}

// readBody reads the whole body, so that its size and form are known before anything is decided by it.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.Settings.MaxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return tooLarge("streamed_body_exceeded", s.Settings.MaxBody)
	case err != nil:
		return invalid("body", "could not be read to its end")
	case len(bytes.TrimSpace(body)) == 0:
		return invalidFields("validation_failed", fieldError{"body", "missing", "is required"})
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return invalid("header.content-type", "must be application/json")
	}
	if !json.Valid(body) {
		return invalidFields("validation_failed", fieldError{"body", "json_invalid", "is not JSON"})
	}
	r.Header.Set("Content-Type", "application/json")
	r.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}

// identify finds out who sent the request, as far as its route asks for somebody.
func (s *Server) identify(q *request, r *http.Request) error {
	rt := q.route
	if rt.access.kind == untilSetUp {
		has, err := s.Store.HasUsers(r.Context())
		if err != nil || !has {
			return err
		}
	} else if !rt.access.needsSession() {
		if rt.access.kind == anyone {
			return nil
		}
		return forbidden("nobody may do this", nil)
	}
	if text := bearer(r); text != "" {
		if err := s.useKey(q, r, text); err != nil {
			return err
		}
		if len(r.CookiesNamed(s.cookies.Session)) == 0 {
			return nil // no CSRF token either: no browser adds a key by itself
		}
		// With a session's cookie beside the key it is the session that acts, and its CSRF token is asked for.
		key, user := q.key, q.user
		q.key, q.user = nil, nil
		if err := s.authenticate(q, r); isUnauthenticated(err) {
			q.key, q.user = key, user
			return nil
		} else if err != nil {
			return err
		}
	} else if err := s.authenticate(q, r); err != nil {
		return err
	}
	if rt.changes() && !auth.SameToken(r.Header.Get(csrfHeader), q.session.CSRF) {
		return forbidden("the "+csrfHeader+" header must repeat the value of the "+s.cookies.CSRF+" cookie", because("csrf_mismatch"))
	}
	return nil
}

func isUnauthenticated(err error) bool {
	p, ok := errors.AsType[*problem](err)
	return ok && p.status == http.StatusUnauthorized
}

// maxCookies is how many cookies of one name are tried: a browser sends more than one only when another site set it.
const maxCookies = 4

// authenticate finds the live session of the request's cookie.
func (s *Server) authenticate(q *request, r *http.Request) error {
	for i, c := range r.CookiesNamed(s.cookies.Session) {
		if i == maxCookies {
			break
		}
		session, user, ok := s.Sessions.Open(c.Value)
		if !ok {
			continue
		}
		row, account, err := s.Store.SessionUser(r.Context(), id.ID(session))
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		now := store.TimeOf(s.Now())
		if row.User != id.ID(user) || !row.Live(now, s.Settings.SessionIdle) || !account.IsActive {
			continue
		}
		q.session, q.user = &row, &account
		if s.Sessions.Seal(session, user) != c.Value { // an earlier secret signed it, which may go soon
			s.writeCookies(r.Context(), s.Sessions.Seal(session, user), row.CSRF, int(row.ExpiresAt.Sub(now.Time)/time.Second))
		}
		s.touch(r.Context(), &row, now)
		return nil
	}
	return unauthenticated("log in first", nil)
}

const (
	touchEvery   = time.Minute     // a session's last use is not written more often
	touchTimeout = 2 * time.Second // a side note does not keep anybody waiting for longer
)

// touch notes that the session is used. Whatever becomes of that, the request goes on.
func (s *Server) touch(ctx context.Context, row *store.Session, now store.Time) {
	if now.Sub(row.LastSeenAt.Time) < min(touchEvery, s.Settings.SessionIdle/4) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), touchTimeout)
	defer cancel()
	if err := s.Store.TouchSession(ctx, row.ID, now); err != nil {
		s.Log.WarnContext(ctx, "session's last use not written", "session", row.ID, "err", err)
	}
}

// installationRole is an account's role beyond any project.
func installationRole(u *store.User) auth.Role {
	if u != nil && u.IsAdmin {
		return auth.GlobalAdmin
	}
	return ""
}

// admit looks up the project that the path names and asks whether the caller may do there what the route asks for. Who
// is no member does not learn that the project exists.
func (s *Server) admit(ctx context.Context, rt *route) error {
	if !rt.access.inProject() {
		return nil
	}
	return s.admitTo(ctx, requestOf(ctx).slug, rt.access)
}

// admitTo is admit for a project that was named elsewhere.
func (s *Server) admitTo(ctx context.Context, slug string, asks access) error {
	q := requestOf(ctx)
	p, role, err := s.Store.ProjectOf(ctx, slug, q.sight())
	if errors.Is(err, store.ErrNotFound) {
		return q.noProject()
	}
	if err != nil {
		return err
	}
	q.role = auth.Role(role)
	if q.user.IsAdmin {
		q.role = auth.GlobalAdmin
	}
	if !q.role.Can(auth.ReadProject) {
		q.project = p // for the record of the refusal
		return noProject()
	}
	if !p.IsActive {
		return noProject()
	}
	q.project = p
	if !asks.allows(q.role) {
		return forbidden("your role in this project does not permit this", map[string]any{"have": string(q.role), "need": string(asks.permission)})
	}
	return nil
}

func noProject() *problem { return notFound("there is no such project, or you are no member of it") }

// setCookies gives the browser a session.
func (s *Server) setCookies(ctx context.Context, session *store.Session) {
	life := int(session.ExpiresAt.Sub(session.IssuedAt.Time) / time.Second)
	s.writeCookies(ctx, s.Sessions.Seal(session.ID, session.User), session.CSRF, life)
}

// clearCookies takes it away.
func (s *Server) clearCookies(ctx context.Context) { s.writeCookies(ctx, "", "", -1) }

func (s *Server) writeCookies(ctx context.Context, session, csrf string, life int) {
	w := requestOf(ctx).writer
	if w == nil {
		return
	}
	same := http.SameSiteLaxMode
	if s.Settings.StrictCookies {
		same = http.SameSiteStrictMode
	}
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // only dev, which has no TLS, goes without Secure
		Name: s.cookies.Session, Value: session, Path: "/", MaxAge: life, Secure: !s.Settings.Dev, HttpOnly: true, SameSite: same,
	})
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // scripts read it to repeat it in a header: that is what it is for
		Name: s.cookies.CSRF, Value: csrf, Path: "/", MaxAge: life, Secure: !s.Settings.Dev, SameSite: http.SameSiteStrictMode,
	})
}

// newSession is a session to be made for an account by this request.
func (s *Server) newSession(ctx context.Context, user id.ID, remember bool) store.NewSession {
	q := requestOf(ctx)
	n := store.NewSession{User: user, CSRF: auth.NewToken(), Lifetime: s.Settings.SessionLifetime, Remembered: remember, UserAgent: q.userAgent}
	if remember {
		n.Lifetime = s.Settings.SessionRemember
	}
	if q.client.IsValid() {
		n.IP = q.client.String()
	}
	return n
}
