package api_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/api"
)

// TestOpenAPIIsGolden shows every change of the API in a diff.
func TestOpenAPIIsGolden(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		got := b.client().get("/openapi.json").must(t, "document", 200)
		golden(t, "openapi.json", []byte(got.text))
		var doc struct {
			OpenAPI string
			Paths   map[string]map[string]struct{ OperationID string }
		}
		if err := json.Unmarshal([]byte(got.text), &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1") {
			t.Errorf("document: OpenAPI %s, %v; want 3.1", doc.OpenAPI, err)
		}
		for _, rt := range b.server.Routes() {
			if doc.Paths[rt.Path][strings.ToLower(rt.Method)].OperationID != rt.ID {
				t.Errorf("%s %s is not in the document as %s", rt.Method, rt.Path, rt.ID)
			}
		}
	})
}

// TestLessonL19DocumentationNeedsNothingFromOutside: no page of ours loads anything from elsewhere, and none may run a script.
func TestLessonL19DocumentationNeedsNothingFromOutside(t *testing.T) {
	outside := regexp.MustCompile(`(?i)(src|href|action|url)\s*[=(]\s*["']?(https?:)?//`)
	each(t, nil, func(t *testing.T, b *brain) {
		for _, path := range []string{"/", "/docs"} {
			page := b.client().do("GET", path, nil).must(t, path, 200)
			if found := outside.FindString(page.text); found != "" || strings.Contains(page.text, "<script") {
				t.Errorf("%s loads something: %q", path, found)
			}
			if csp := page.header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
				t.Errorf("%s: policy %q", path, csp)
			}
			if kind := page.header.Get("Content-Type"); kind != "text/html; charset=utf-8" {
				t.Errorf("%s: type %q", path, kind)
			}
		}
		docs := b.client().do("GET", "/docs", nil)
		for _, rt := range b.server.Routes() {
			if !strings.Contains(docs.text, `<article id="`+rt.ID+`">`) {
				t.Errorf("/docs lacks %s", rt.ID)
			}
		}
		if home := b.client().do("GET", "/", nil); !strings.Contains(home.text, `href="/docs"`) {
			t.Errorf("/ does not lead to the documentation: %s", home.text)
		}
	})
}

func TestDocumentationHasItsReaders(t *testing.T) {
	for _, tt := range []struct {
		docs              string
		anonymous, logged int
		cache             string
	}{
		{"", 200, 200, "public, max-age=3600"},
		{"public", 200, 200, "public, max-age=3600"},
		{"private", 401, 200, "private, max-age=3600"},
		{"disabled", 404, 404, ""},
	} {
		t.Run("docs "+tt.docs, func(t *testing.T) {
			each(t, func(o *api.Options) { o.Settings.Docs = tt.docs }, func(t *testing.T, b *brain) {
				root := b.setUp()
				for _, path := range []string{"/docs", "/api/v1/openapi.json"} {
					if got := b.client().do("GET", path, nil); got.status != tt.anonymous {
						t.Errorf("%s by nobody: %d, want %d", path, got.status, tt.anonymous)
					}
					got := root.do("GET", path, nil)
					if got.status != tt.logged {
						t.Fatalf("%s by an account: %d, want %d", path, got.status, tt.logged)
					}
					if got.status != http.StatusOK {
						continue
					}
					tag := got.header.Get("ETag")
					again := root.do("GET", path, nil, func(r *http.Request) { r.Header.Set("If-None-Match", tag) })
					if len(tag) != 34 || again.status != http.StatusNotModified || again.text != "" || got.header.Get("Cache-Control") != tt.cache {
						t.Errorf("%s: tag %q, then %d with %d bytes, cached %q", path, tag, again.status, len(again.text), got.header.Get("Cache-Control"))
					}
				}
			})
		})
	}
}

func TestDocumentationIsLimited(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		c := b.client()
		for range 10 {
			c.get("/openapi.json").must(t, "document", 200)
		}
		if got := c.get("/openapi.json"); got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" {
			t.Errorf("the eleventh in a minute: %d %s", got.status, got.text)
		}
		if got := c.do("POST", "/docs", nil); got.status != http.StatusMethodNotAllowed {
			t.Errorf("POST /docs: %d, want 405", got.status)
		}
	})
}

func TestSecurityText(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		for _, path := range []string{"/security.txt", "/.well-known/security.txt"} {
			got := b.client().do("GET", path, nil).must(t, path, 200)
			if !strings.Contains(got.text, "Contact: https://") || !strings.Contains(got.text, "Expires: 2027-03-14T00:00:00Z") {
				t.Errorf("%s: %s", path, got.text)
			}
		}
	})
}
