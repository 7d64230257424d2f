package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/z4j-go/z4j/internal/auth"
)

// answerWithin is how long a request may take: two statements that take all that the store gives one. A database that
// was cut off without a word answers nothing at all, not even that it takes too long.
const answerWithin = 20 * time.Second

// outermost is what every request goes through, whatever becomes of it: headers come first, so that the answer to a
// refused request has them, too.
func (s *Server) outermost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		began := s.Now()
		w := &answer{ResponseWriter: out}
		q := &request{id: requestID(r.Header.Get("X-Request-Id")), userAgent: r.UserAgent(), writer: w}
		q.client = s.Proxies.Client(r.RemoteAddr, r.Header.Values("X-Forwarded-For"))
		ctx := context.WithValue(r.Context(), requestKey{}, q)
		if r.URL.Path != socketPath && r.URL.Path != exportPath {
			limited, cancel := context.WithTimeout(ctx, answerWithin)
			defer cancel()
			ctx = limited
		}
		r = r.WithContext(ctx)
		s.Settings.secure(w.Header(), r.URL.Path)
		w.Header().Set("X-Request-Id", q.id)
		defer func() {
			s.recovered(w, r, recover())
			took := s.Now().Sub(began)
			s.Log.DebugContext(r.Context(), "answered", "request_id", q.id, "method", r.Method, "route", q.routeID(), "status", w.status, "took", took)
			s.Metrics.Request(q.routeID(), w.status, took)
		}()
		if err := s.accept(r); err != nil {
			s.fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// accept refuses what can be refused without looking further.
func (s *Server) accept(r *http.Request) error {
	if r.ContentLength > s.Settings.MaxBody {
		return tooLarge("content_length_exceeded", s.Settings.MaxBody)
	}
	if err := unreadable(r.URL); err != nil {
		return err
	}
	if isHealth(r.URL.Path) || r.URL.Path == socketPath {
		return nil // a proxy asks by whatever name it knows, and so does an agent: its token says enough, and no browser has one
	}
	if err := s.Hosts.Allow(r.Host); errors.Is(err, auth.ErrHost) {
		return &problem{status: http.StatusBadRequest, code: "invalid_host", message: "the Host header names none of this brain's names (Z4J_ALLOWED_HOSTS)"}
	}
	return nil
}

// socketPath is where agents connect. It is no answer, so that it has no deadline; the gateway has its own.
const socketPath = "/ws/agent"

func isHealth(path string) bool {
	return path == base+"/health" || strings.HasPrefix(path, base+"/health/")
}

// recovered answers for a handler that panicked, if it had not begun to answer.
func (s *Server) recovered(w *answer, r *http.Request, cause any) {
	if cause == nil {
		return
	}
	if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(cause)
	}
	if errors.Is(r.Context().Err(), context.Canceled) {
		return // writing to a client that is gone
	}
	if w.status != 0 {
		s.Log.ErrorContext(r.Context(), "answer broken off", "request_id", requestOf(r.Context()).id, "cause", fmt.Sprint(cause), "stack", string(debug.Stack()))
		return
	}
	s.fail(w, r, fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
}

// permissions are the browser's features that no page of ours needs.
const permissions = "camera=(), display-capture=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(), payment=(), usb=()"

// secure sets the headers that every answer has.
func (s *Settings) secure(h http.Header, path string) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Permissions-Policy", permissions)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "strict-origin-when-cross-origin")
	if within(path, "/setup") || within(path, base+"/setup") {
		h.Set("Referrer-Policy", "no-referrer")
	}
	if strings.HasPrefix(path, "/api/") {
		h.Set("Cache-Control", "no-store") // an answer may hold a secret that is shown once
	}
	if hsts := s.hsts(); hsts != "" {
		h.Set("Strict-Transport-Security", hsts)
	}
}

func within(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

func (s *Settings) hsts() string {
	age := s.HSTSMaxAge
	if s.Dev || age <= 0 || !strings.HasPrefix(s.PublicURL, "https://") {
		return ""
	}
	text := "max-age=" + strconv.FormatInt(int64(age/time.Second), 10)
	if s.HSTSSubdomains {
		text += "; includeSubDomains"
	}
	return text
}

// requestID keeps a client's id of 1 to 64 printable characters and gives an own one in place of any other.
func requestID(given string) string {
	odd := func(c byte) bool { return c <= ' ' || c > '~' }
	if given != "" && len(given) <= 64 && !slices.ContainsFunc([]byte(given), odd) {
		return given
	}
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err) // crypto/rand never fails on the systems we run on
	}
	return "req_" + hex.EncodeToString(b[:])
}

// originOf is the part of a URL that browsers call its origin.
func originOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// answer remembers the status that was written.
type answer struct {
	http.ResponseWriter

	status int
}

// WriteHeader writes the status.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write writes a part of the body.
func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(b)
}

// Unwrap serves http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Starting answers until there is a Server: alive, not ready, and nothing else yet.
func Starting(settings Settings) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := &problem{status: http.StatusServiceUnavailable, code: "unavailable", message: "the brain is starting", retry: time.Second, request: requestID(r.Header.Get("X-Request-Id"))}
		settings.secure(w.Header(), r.URL.Path)
		w.Header().Set("X-Request-Id", p.request)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		var body any = p
		switch r.URL.Path {
		case base + "/health":
			p.status, p.retry, body = http.StatusOK, 0, map[string]string{"status": "ok"}
		case base + "/health/ready":
			body = map[string]string{"status": "unready", "reason": "starting"}
		}
		maps.Copy(w.Header(), p.GetHeaders())
		w.WriteHeader(p.status)
		_ = encode(w, body) // the client is gone: nobody is left to tell
	})
}

// Beside are the handlers of what is no part of the API; their answers have the headers and request ids of ours. One
// that is nil is not there.
type Beside struct {
	Agents  http.Handler // GET /ws/agent
	Metrics http.Handler // GET /metrics
}

// beside mounts what is no part of the API, and what is nowhere.
func (s *Server) beside(mux *http.ServeMux) {
	for path, h := range map[string]http.Handler{socketPath: s.Beside.Agents, "/metrics": s.Beside.Metrics} {
		if h != nil {
			mux.Handle(http.MethodGet+" "+path, h)
			mux.HandleFunc(path, s.wrongMethod([]string{http.MethodGet}))
		}
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.fail(w, r, errNoRoute()) })
}

// otherMethods answers 405 to the methods that a path does not take. Each is named: a pattern for all of them conflicts
// with a path like it whose last part is a parameter. GET has HEAD in it.
func (s *Server) otherMethods(mux *http.ServeMux, path string, allowed []string) {
	for _, method := range []string{
		http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace, http.MethodConnect,
	} {
		if !slices.Contains(allowed, method) {
			mux.HandleFunc(method+" "+path, s.wrongMethod(allowed))
		}
	}
}

// wrongMethod answers 405.
func (s *Server) wrongMethod(allowed []string) http.HandlerFunc {
	slices.Sort(allowed)
	return func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, &problem{
			status: http.StatusMethodNotAllowed, code: "method_not_allowed", message: "this address takes " + strings.Join(allowed, ", "),
			allow: strings.Join(allowed, ", "), detail: "Method Not Allowed",
		})
	}
}
