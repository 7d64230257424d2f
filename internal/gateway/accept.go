package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strconv"

	"github.com/coder/websocket"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/wire"
)

// Handler serves GET /ws/agent.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.accept) }

// refusal is an answer instead of an upgrade. What it means to agents: 401 sends them away for ten seconds to ten
// minutes, everything else for one to thirty seconds.
type refusal struct {
	status        int
	code, message string
}

var (
	errStopping    = refusal{http.StatusServiceUnavailable, "unavailable", "the brain is stopping; come back"}
	errBusy        = refusal{http.StatusServiceUnavailable, "unavailable", "too many agents connect at once; come back"}
	errNoDatabase  = refusal{http.StatusServiceUnavailable, "unavailable", "the database does not answer; come back"}
	errBlocked     = refusal{http.StatusTooManyRequests, "rate_limited", "too many refused credentials from this address; come back in a minute"}
	errConnects    = refusal{http.StatusTooManyRequests, "rate_limited", "too many connections of this agent shake hands; come back"}
	errCredentials = refusal{http.StatusUnauthorized, "unauthenticated", "the bearer token is missing, unknown or revoked"}
	errInactive    = refusal{http.StatusForbidden, "project_inactive", "the project of this agent is not active"}
)

func (s *Server) refuse(w http.ResponseWriter, why refusal) {
	s.Metrics.Refusal(strconv.Itoa(why.status))
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	switch why.status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="agent"`)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		h.Set("Retry-After", "5")
	}
	body, err := json.Marshal(map[string]any{
		"error": why.code, "message": why.message, "detail": why.message, "request_id": h.Get("X-Request-Id"), "details": map[string]any{},
	})
	if err != nil {
		panic(err) // texts always marshal
	}
	w.WriteHeader(why.status)
	_, _ = w.Write(body) // the agent is gone: nobody is left to tell
}

func peer(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func (s *Server) accept(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		s.refuse(w, errStopping)
		return
	}
	if s.handshakes.Add(1) > int64(s.Handshakes) {
		s.handshakes.Add(-1)
		s.refuse(w, errBusy)
		s.conns.Done()
		return
	}
	c, hello := s.shake(w, r)
	s.handshakes.Add(-1)
	if c == nil {
		s.conns.Done()
		return
	}
	// The HTTP server's goroutine would keep its buffers, the request and a deep stack: 25 KiB for each idle agent.
	go s.serve(c, hello != nil)
}

// serve runs a connection to its end.
func (s *Server) serve(c *conn, admitted bool) {
	defer s.conns.Done()
	defer c.finish()
	if !admitted {
		return
	}
	s.Metrics.Connections(1)
	defer s.Metrics.Connections(-1)
	c.serve()
	if s.notices.due(c.agent, "disconnected", s.Now().UnixMicro()) {
		s.Log.Info("agent disconnected", "agent", c.agent, "name", c.name, "worker_id", c.slot.WorkerID)
	}
}

// shake decides about a connection. It answers nil, nil if there is none, a connection without a hello if it is being
// closed, and both after hello_ack.
func (s *Server) shake(w http.ResponseWriter, r *http.Request) (*conn, *wire.Hello) {
	who, master, why := s.authenticate(r)
	if why != nil {
		s.refuse(w, *why)
		return nil, nil
	}
	c := newConn(s, who)
	most := -1
	if s.SlotCap > 0 {
		most = 2 * s.SlotCap // all of an agent's processes may come back while their old connections are still open
	}
	if !s.registry.add(c, most) {
		s.refuse(w, errConnects)
		return nil, nil
	}
	h := &hijacker{ResponseWriter: w}
	ws, err := websocket.Accept(h, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // no browser comes here: origins say nothing
	if err != nil {
		s.registry.remove(c)
		return nil, nil // Accept has answered
	}
	c.open(ws, h.conn)
	if s.stopping() {
		c.end(wire.CloseRestart, "brain restarts")
	}
	hello := s.hello(c)
	if hello == nil || !s.admit(c, hello, master) {
		return c, nil
	}
	if c.spins {
		h.shrink()
	}
	return c, hello
}

// authenticate finds the agent of a request and the master secret under which its token was minted.
func (s *Server) authenticate(r *http.Request) (store.AgentCredential, []byte, *refusal) {
	address := s.Address(r)
	if s.Refusals.Blocked(address) {
		return store.AgentCredential{}, nil, &errBlocked
	}
	token := wire.Bearer(r.Header.Get("Authorization"))
	if token == "" || len(token) > maxToken {
		s.Refusals.Refused(address)
		return store.AgentCredential{}, nil, &errCredentials
	}
	ctx, cancel := context.WithTimeout(r.Context(), lookupTimeout)
	defer cancel()
	select {
	case s.lookups <- struct{}{}:
		defer func() { <-s.lookups }()
	case <-ctx.Done():
		return store.AgentCredential{}, nil, &errBusy
	}
	for _, master := range append([][]byte{s.Master}, s.PreviousMasters...) {
		who, err := s.Store.AgentCredential(ctx, wire.TokenHash(string(master), token))
		switch {
		case errors.Is(err, store.ErrNotFound):
			continue
		case err != nil:
			// Never 401: an agent would stay away for minutes because our database hiccuped.
			if s.notices.due(id.ID{}, "lookup", s.Now().UnixMicro()) { // thousands of agents may come at once
				s.Log.Warn("agents' tokens not looked up", "err", err)
			}
			return store.AgentCredential{}, nil, &errNoDatabase
		case who.Revoked:
			s.Refusals.Refused(address)
			return store.AgentCredential{}, nil, &errCredentials
		case !who.ProjectActive:
			return store.AgentCredential{}, nil, &errInactive
		}
		return who, master, nil
	}
	s.Refusals.Refused(address)
	return store.AgentCredential{}, nil, &errCredentials
}

const maxToken = 512 // characters; ours have 43
