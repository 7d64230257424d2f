package api_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/store/storetest"
)

// ids are those of the items of a bare list.
func (a answer) ids(t *testing.T) []string {
	t.Helper()
	var items []struct{ ID string }
	if err := json.Unmarshal([]byte(a.text), &items); err != nil {
		t.Fatalf("%v in %s", err, a.text)
	}
	out := make([]string, len(items))
	for i := range items {
		out[i] = items[i].ID
	}
	return out
}

// TestBareListsSayThatMoreFollows: the union of their pages is the whole list, forward and backward, and the limit is cut
// above 500 and refused above 5,000.
func TestBareListsSayThatMoreFollows(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		for i := range 4 {
			b.user(root, fmt.Sprintf("member-%d@example.com", i), "viewer")
			root.post("/projects", object{"slug": fmt.Sprintf("shop-%d", i), "name": "Shop"}).must(t, "project", 201) // one name: the id decides
			root.post("/projects/default/agents", object{"name": fmt.Sprint("web-", i)}).must(t, "agent", 201)
		}
		for path, want := range map[string]int{"/projects": 5, "/projects/default/agents": 4, "/projects/default/memberships": 5} {
			all := root.get(path).must(t, path, 200)
			whole := all.ids(t)
			if len(whole) != want || all.header.Get("X-Next-Cursor") != "" {
				t.Errorf("%s: %d items and the cursor %q, want %d and none", path, len(whole), all.header.Get("X-Next-Cursor"), want)
			}
			var forward, backward []string
			last := root.get(path+"?limit=2").must(t, path, 200)
			for forward = last.ids(t); last.header.Get("X-Next-Cursor") != "" && len(forward) <= want; forward = append(forward, last.ids(t)...) {
				last = root.get(path+"?limit=2&cursor="+url.QueryEscape(last.header.Get("X-Next-Cursor"))).must(t, path, 200)
			}
			for backward = last.ids(t); last.header.Get("X-Prev-Cursor") != "" && len(backward) <= want; backward = append(last.ids(t), backward...) {
				last = root.get(path+"?limit=2&cursor="+url.QueryEscape(last.header.Get("X-Prev-Cursor"))).must(t, path, 200)
			}
			if !slices.Equal(forward, whole) || !slices.Equal(backward, whole) {
				t.Errorf("%s: pages forward %v, backward %v; want %v", path, forward, backward, whole)
			}
		}
		for _, path := range []string{"/projects", "/projects/default/agents", "/projects/default/memberships", "/users"} {
			for limit, want := range map[string]int{"0": 422, "1": 200, "501": 200, "5000": 200, "5001": 422} {
				root.get(path+"?limit="+limit).must(t, path+" with the limit "+limit, want)
			}
		}
	})
}

// TestNothingIsCutSilently: with more than 500 of everything each is found by its cursor, and no sum leaves one out.
func TestNothingIsCutSilently(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		const more = 600
		root := b.setUp()
		root.post("/projects/default/agents", object{"name": "web"}).must(t, "agent", 201)
		member, _ := b.user(root, "member@example.com", "viewer")
		random := map[string]string{"postgres": "gen_random_uuid()", "sqlite": "randomblob(16)"}[b.store.Dialect()]
		db := storetest.DB(t, b.url)
		numbers := fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) `, more)
		execute(t, db, `INSERT INTO projects (id, slug, name, environment, timezone, default_scheduler_owner, created_at, updated_at) `+numbers+
			`SELECT `+random+`, 'many-' || i, 'Many', environment, timezone, default_scheduler_owner, created_at, updated_at FROM projects, n WHERE slug = 'default'`)
		execute(t, db, `INSERT INTO agents (id, project_id, name, token_hash, created_at) `+numbers+
			`SELECT `+random+`, project_id, 'many-' || i, token_hash || i, created_at FROM agents, n WHERE name = 'web'`)
		execute(t, db, `INSERT INTO users (id, email, password_hash, is_admin, is_active, timezone, created_at, updated_at, password_changed_at) `+numbers+
			`SELECT `+random+`, 'many-' || i || '@example.com', password_hash, is_admin, is_active, timezone, created_at, updated_at, password_changed_at FROM users, n WHERE email = 'member@example.com'`)
		execute(t, db, `INSERT INTO memberships (id, project_id, user_id, role, created_at, updated_at)
			SELECT `+random+`, p.id, u.id, 'viewer', p.created_at, p.updated_at FROM projects p, users u
			WHERE p.slug = 'default' AND u.email LIKE 'many-%' OR p.slug LIKE 'many-%' AND u.email = 'member@example.com'`)

		for path, want := range map[string]int{"/projects": more + 1, "/projects/default/agents": more + 1, "/projects/default/memberships": more + 2} {
			first := root.get(path).must(t, path, 200)
			rest := root.get(path+"?cursor="+url.QueryEscape(first.header.Get("X-Next-Cursor"))).must(t, path, 200)
			ids := append(first.ids(t), rest.ids(t)...)
			slices.Sort(ids)
			if len(first.ids(t)) != 500 || len(slices.Compact(ids)) != want || rest.header.Get("X-Next-Cursor") != "" {
				t.Errorf("%s: %d and %d items, want 500 and the rest of %d", path, len(first.ids(t)), len(rest.ids(t)), want)
			}
		}
		for name, c := range map[string]*client{"an administrator": root, "a member": member} {
			home := c.get("/home/summary").must(t, name, 200)
			me := c.get("/auth/me").must(t, name, 200)
			if n, m := strings.Count(home.text, `"slug"`), strings.Count(me.text, `"project_slug"`); n != more+1 || m != more+1 {
				t.Errorf("%s: %d projects at home and %d memberships, want %d of each", name, n, m, more+1)
			}
			if total := home.body["aggregate"].(object)["agents_total"]; total != float64(more+1) {
				t.Errorf("%s: %v agents in sum, want %d", name, total, more+1)
			}
		}
	})
}
