package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestLessonC17ARouteWithoutAccessIsNobodys: a line of the table that forgot who may call it is closed to everybody.
func TestLessonC17ARouteWithoutAccessIsNobodys(t *testing.T) {
	s := New(Options{Now: time.Now})
	called := false
	s.routes = append(s.routes, route{method: http.MethodGet, path: "/forgotten", id: "forgotten", endpoint: call(
		func(context.Context, *struct{}) (*nothing, error) { called = true; return &nothing{}, nil },
	)})
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/forgotten", nil))
	if w.Code != http.StatusBadRequest { // no host is allowed here
		t.Fatalf("got %d, want the host refused first", w.Code)
	}
	r := httptest.NewRequest(http.MethodGet, "/api/v1/forgotten", nil)
	r.Host = ""
	w = httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusForbidden || called || !strings.Contains(w.Body.String(), "nobody") {
		t.Errorf("got %d %s, called %t; want 403 and not called", w.Code, w.Body, called)
	}
}
