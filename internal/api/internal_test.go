package api

import (
	"context"
	"errors"
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

// FuzzReadTime: what is read is an instant of the years 1 to 9999 in UTC that reads back as itself; all else is refused
// with the parameter's name, and without its value.
func FuzzReadTime(f *testing.F) {
	for _, text := range []string{
		"", "2026-03-14T09:26:53Z", "2026-03-14T09:26:53.589793+01:00", "2026-03-14 09:26:53", "2026-03-14T09:26:53", "2026-03-14", "0000-12-31", "0001-01-01",
		"0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999999-14:00", "9999-12-31T23:59:59.999999999+14:00", "2026-02-30", "2026-03-14T24:00:00Z",
		"2026-03-14T09:26:53,5Z", "2026-03-14T09:26:53+99:99", "yesterday", "1773480413", "\x00", "\xff", "2026-03-14T09:26:53Z\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := readTime("since", text)
		if err != nil {
			var p *problem
			if !errors.As(err, &p) || p.status != http.StatusUnprocessableEntity || got != nil || p.message != "query.since: must be a date like 2026-03-14 or a time like 2026-03-14T09:26:53Z" {
				t.Errorf("%q: got %v and %v, want 422 that names the parameter", text, got, err)
			}
			return
		}
		if (got == nil) != (text == "") {
			t.Fatalf("%q: got %v, want a time but for no text", text, got)
		}
		if got == nil {
			return
		}
		if y := got.Year(); got.Location() != time.UTC || y < 1 || y > 9999 {
			t.Errorf("%q: got %v, want one of the years 1 to 9999 in UTC", text, got)
		}
		if again, err := readTime("since", got.Format(time.RFC3339Nano)); err != nil || !again.Equal(got.Time) {
			t.Errorf("%q: got %v, which reads back as %v, %v", text, got, again, err)
		}
	})
}
