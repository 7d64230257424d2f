package api_test

import (
	"strings"
	"testing"
)

func TestRetentionHolds(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		ann, _ := b.user(root, "ann@example.com", "admin")
		for _, tt := range []struct {
			name, method, path string
			body               any
			status             int
			has                string
		}{
			{"a hold without a reason", "POST", "/projects/default/retention-hold", object{"reason": "  "}, 422, "reason"},
			{"a hold", "POST", "/projects/default/retention-hold", object{"reason": "case 7"}, 200, `"hold_reason":"case 7"`},
			{"a second one", "POST", "/projects/default/retention-hold", object{"reason": "case 8"}, 409, "already_held"},
			{"of no project", "POST", "/projects/none/retention-hold", object{"reason": "case 7"}, 404, ""},
			{"the project shows it", "GET", "/projects/default", nil, 200, `"hold_reason":"case 7"`},
			{"the release", "DELETE", "/projects/default/retention-hold", nil, 200, `"hold_since":null,"hold_reason":null`},
			{"a second release", "DELETE", "/projects/default/retention-hold", nil, 409, "not_held"},
			{"nothing is held", "GET", "/retention", nil, 200, `{"hold":null,"last_sweep":null}`},
			{"everything", "POST", "/retention/hold", object{"reason": "all of it"}, 200, `"reason":"all of it"`},
			{"everything twice", "POST", "/retention/hold", object{"reason": "x"}, 409, "already_held"},
			{"it is shown", "GET", "/retention", nil, 200, `"reason":"all of it"`},
			{"its end", "DELETE", "/retention/hold", nil, 204, ""},
			{"its second end", "DELETE", "/retention/hold", nil, 409, "not_held"},
		} {
			if tt.method != "GET" {
				ann.do(tt.method, "/api/v1"+tt.path, tt.body).must(t, tt.name+" by a project's administrator", 403)
			}
			got := root.do(tt.method, "/api/v1"+tt.path, tt.body)
			if got.status != tt.status || !strings.Contains(got.text, tt.has) {
				t.Errorf("%s: got %d %s, want %d with %s", tt.name, got.status, got.text, tt.status, tt.has)
			}
		}
	})
}
