package api_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/api"
	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// script is a client without cookies that sends an API key.
type script struct {
	c     *client
	id    string
	token string
}

// key makes an API key of a browser's account.
func (c *client) key(body object) script {
	c.b.t.Helper()
	if body["name"] == nil {
		body["name"] = "ci"
	}
	made := c.post("/api-keys", body).must(c.b.t, "API key", 201)
	return script{c.b.client(), made.body["id"].(string), made.body["token"].(string)}
}

func (k script) do(method, path string, body any, change ...func(*http.Request)) answer {
	k.c.b.t.Helper()
	add := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+k.token) }
	return k.c.do(method, path, body, append([]func(*http.Request){add}, change...)...)
}

func (k script) get(path string) answer {
	k.c.b.t.Helper()
	return k.do("GET", "/api/v1"+path, nil)
}

func (k script) call(rt api.Route) answer {
	k.c.b.t.Helper()
	if _, takes := rt.In.FieldByName("Body"); takes {
		return k.do(rt.Method, pathOf(rt), bodies[rt.ID])
	}
	return k.do(rt.Method, pathOf(rt), nil)
}

func scopeNames(admin bool) []string {
	var out []string
	for _, r := range auth.Scopes() {
		if admin || !r.AdminOnly {
			out = append(out, string(r.Scope))
		}
	}
	return out
}

// reason is what the table promises a global administrator's key: "" lets it through.
func reasonFor(rt api.Route, scope string, bound bool) string {
	noun, write := strings.CutSuffix(scope, ":write")
	switch {
	case rt.Scope == "":
		return "bearer_denied_for_tag"
	case scope != string(rt.Scope) && scope != string(auth.ScopeAll) && (!write || noun+":read" != string(rt.Scope)):
		return "scope_missing"
	case bound && !strings.Contains(rt.Path, "{slug}") && !rt.Narrow:
		return "project_scope_nonslug_denied"
	}
	return ""
}

// TestLessonC17EveryRouteForEveryScope walks the table with keys of a global administrator: one for each scope, bound to
// no project, to the one of the walk, and to another.
func TestLessonC17EveryRouteForEveryScope(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		other := root.post("/projects", object{"slug": "other", "name": "Other"}).must(t, "other project", 201).body["id"].(string)
		here := between(root.get("/projects/default").must(t, "project", 200).text, `{"id":"`)[0]
		root.post("/projects/default/agents", object{"name": "taken"}).must(t, "agent", 201)
		for _, scope := range scopeNames(true) {
			for _, project := range []string{"", here, other} {
				b.pass(2 * time.Minute) // limits are per network and minute
				k := root.key(object{"scopes": []string{scope}, "project_id": project})
				for _, rt := range b.server.Routes() {
					if rt.Kind == "anyone" {
						continue // keys mean nothing there
					}
					want := reasonFor(rt, scope, project != "")
					if want == "" && project == other && strings.Contains(rt.Path, "{slug}") {
						want = "project_scope_mismatch"
					}
					got := k.call(rt)
					if has := refused(rt, got) || got.status == 403; has != (want != "") || want != "" && got.reason() != want {
						t.Errorf("%s %s with %s bound to %q: got %d %s, want the reason %q", rt.Method, rt.Path, scope, project, got.status, got.text, want)
					}
				}
			}
		}
	})
}

// TestAKeyCanDoNoMoreThanItsOwner: with all the scopes that there are to have, a key meets the refusals of its owner's
// role at that moment.
func TestAKeyCanDoNoMoreThanItsOwner(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		root.post("/projects/default/agents", object{"name": "taken"}).must(t, "agent", 201)
		for _, c := range callers() {
			if c.email == "" || c.global || strings.HasPrefix(c.name, "member") {
				continue
			}
			browser, user := b.user(root, c.email, string(c.role))
			k := browser.key(object{"scopes": scopeNames(false)})
			// What only an administrator may give was given while the owner was one.
			exec(t, b, `UPDATE api_keys SET scopes = '["admin:*"]' WHERE user_id = `+uuid(b, user))
			for _, rt := range b.server.Routes() {
				want := c.want(rt)
				if rt.Kind == "anyone" || rt.Scope == "" {
					continue
				}
				got := k.call(rt)
				if ok := want == 0 && !refused(rt, got) || got.status == want; !ok {
					t.Errorf("%s %s by a key of a %s: got %d %s, want %s", rt.Method, rt.Path, c.name, got.status, got.text, wanted(want))
				}
			}
		}
	})
}

// uuid is how a database writes the id.
func uuid(b *brain, text string) string {
	if strings.HasPrefix(b.url, "sqlite") {
		return "x'" + strings.ReplaceAll(text, "-", "") + "'"
	}
	return "'" + text + "'"
}

func exec(t *testing.T, b *brain, q string) {
	t.Helper()
	if _, err := storetest.DB(t, b.url).ExecContext(t.Context(), q); err != nil {
		t.Fatal(err)
	}
}

// TestLessonD10ABoundKeySeesOneProject: in every list, not only where a path names the project; also when its owner sees all.
func TestLessonD10ABoundKeySeesOneProject(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		shop := root.post("/projects", object{"slug": "shop", "name": "Shop"}).must(t, "project", 201).body["id"].(string)
		k := root.key(object{"scopes": []string{"admin:*"}, "project_id": shop})
		for _, path := range []string{"/projects", "/home/summary"} {
			got := k.get(path).must(t, path, 200)
			if !strings.Contains(got.text, `"slug":"shop"`) || strings.Contains(got.text, `"slug":"default"`) {
				t.Errorf("%s: got %s, want shop alone", path, got.text)
			}
		}
		k.get("/projects/shop").must(t, "its project", 200)
		for _, path := range []string{"/projects/default", "/projects/default/tasks", "/projects/no-such-one"} {
			if got := k.get(path); got.status != 403 || got.reason() != "project_scope_mismatch" {
				t.Errorf("%s: got %d %s, want project_scope_mismatch, whether it exists or not", path, got.status, got.text)
			}
		}
		if got := k.do("PATCH", "/api/v1/projects/default", object{"name": "Taken over"}); got.status != 403 {
			t.Errorf("a change elsewhere: got %d %s, want 403", got.status, got.text)
		}
		k.do("PATCH", "/api/v1/projects/shop", object{"name": "The shop"}).must(t, "a change of its own", 200)
		_, name, err := b.store.ProjectOf(t.Context(), "default", store.Sight{All: true, Only: id.Null{ID: must(id.Parse(shop))}})
		if err == nil {
			t.Errorf("the store: got the project with the role %q, want none: the binding is in the query", name)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestLessonC6AKeyThatIsNoLongerGood: is refused with 401 and the reason, on both databases.
func TestLessonC6AKeyThatIsNoLongerGood(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		ann, user := b.user(root, "ann@example.com", "viewer")
		for _, tt := range []struct {
			name   string
			spoil  func(k script)
			status int
			reason string
		}{
			{"good", func(script) {}, 200, ""},
			{"revoked by its owner", func(k script) { ann.del("/api-keys/"+k.id+"?reason=lost").must(t, "revoke", 204) }, 401, "api_key_revoked"},
			{"revoked by an administrator", func(k script) { root.del("/api-keys/"+k.id).must(t, "revoke", 204) }, 401, "api_key_revoked"},
			{"expired", func(script) { b.pass(25 * time.Hour) }, 401, "api_key_expired"},
			{"suspended", func(script) { suspend(t, b.store, true) }, 401, "api_key_suspended"},
			{"released", func(script) { suspend(t, b.store, true); suspend(t, b.store, false) }, 200, ""},
			{"of an inactive owner", func(script) { exec(t, b, `UPDATE users SET is_active = `+no(b)+` WHERE id = `+uuid(b, user)) }, 401, "api_key_owner_inactive"},
		} {
			ann = b.client()
			ann.post("/auth/login", object{"email": "ann@example.com", "password": password}).must(t, "log in", 200)
			k := ann.key(object{"scopes": []string{"tasks:read"}, "expires_in_days": 1})
			k.get("/projects/default/tasks").must(t, tt.name+", before", 200)
			tt.spoil(k)
			if got := k.get("/projects/default/tasks"); got.status != tt.status || got.reason() != tt.reason {
				t.Errorf("%s: got %d %s, want %d %s", tt.name, got.status, got.text, tt.status, tt.reason)
			}
			suspend(t, b.store, false)
		}
		for _, text := range []string{"z4k_", "z4k_wrong", "z4k_" + auth.NewToken(), "Z4K_x"} {
			got := script{b.client(), "", text}.get("/projects")
			if got.status != 401 {
				t.Errorf("%q: got %d %s, want 401", text, got.status, got.text)
			}
		}
	})
}

func no(b *brain) string {
	if strings.HasPrefix(b.url, "sqlite") {
		return "0"
	}
	return "false"
}

func suspend(t *testing.T, s *store.Store, on bool) {
	t.Helper()
	err := s.Update(t.Context(), func(tx *store.Tx) (err error) {
		tx.Record(audit.New(audit.Facts{Action: audit.SystemMigrated, Actor: audit.Actor{Kind: audit.System}}))
		if on {
			_, err = tx.SuspendAPIKeys(t.Context())
		} else {
			_, err = tx.ReleaseAPIKeys(t.Context())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestLessonC16AKeyBesideASession: then the session acts, and its CSRF token is asked for; a bad key is refused all the same.
func TestLessonC16AKeyBesideASession(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		k := root.key(object{"scopes": []string{"projects:write"}})
		bad := script{b.client(), "", "z4k_" + auth.NewToken()}
		with := func(cookies, csrf bool) func(*http.Request) {
			return func(r *http.Request) {
				if !cookies {
					return
				}
				for _, c := range root.cookies {
					r.AddCookie(c)
					if csrf && strings.HasSuffix(c.Name, "csrf") {
						r.Header.Set("X-CSRF-Token", c.Value)
					}
				}
			}
		}
		dead := func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "__Host-z4j_session", Value: "gone"}) }
		elsewhere := func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }
		for i, tt := range []struct {
			name   string
			key    script
			change func(*http.Request)
			status int
			actor  string
		}{
			{"the key alone", k, with(false, false), 201, "api_key"},
			{"with a cookie and no CSRF token", k, with(true, false), 403, ""},
			{"with a cookie and its CSRF token", k, with(true, true), 201, "user"},
			{"with a cookie that is no session's", k, dead, 201, "api_key"},
			{"a bad key with a good session", bad, with(true, true), 401, ""},
			{"from a page of another site", k, elsewhere, 403, ""},
		} {
			got := tt.key.do("POST", "/api/v1/projects", object{"slug": fmt.Sprint("shop-", i), "name": "Shop"}, tt.change)
			if got.status != tt.status {
				t.Errorf("%s: got %d %s, want %d", tt.name, got.status, got.text, tt.status)
			}
			if tt.status == 201 {
				last := storetest.Rows(t, storetest.DB(t, b.url), `SELECT actor_kind, details FROM audit_log ORDER BY seq DESC LIMIT 1`)[0]
				if last[0] != tt.actor || strings.Contains(last[1], "owner_id") != (tt.actor == "api_key") {
					t.Errorf("%s: got the entry %v, want one of %s, a key's with its owner", tt.name, last, tt.actor)
				}
			}
		}
	})
}

// TestWhatAKeyDoesIsItsOwners: the entry names the key and the account, and the account's part can be erased.
func TestWhatAKeyDoesIsItsOwners(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		k := root.key(object{"scopes": []string{"agents:write"}})
		k.do("POST", "/api/v1/projects/default/agents", object{"name": "web"}).must(t, "mint", 201)
		owner := must(b.store.Credential(t.Context(), "root@example.com")).User.ID.String()
		rows := storetest.Rows(t, storetest.DB(t, b.url), `SELECT actor_id, details, subject, json FROM audit_log JOIN audit_personal p ON p.seq = audit_log.seq
			WHERE action = 'agent.token.minted' AND p.role = 'actor'`)
		if len(rows) != 1 || rows[0][0] != k.id || rows[0][1] != `{"name":"web","owner_id":"`+owner+`"}` || rows[0][2] != owner || !strings.Contains(rows[0][3], "root@example.com") {
			t.Errorf("entry: got %v, want one of key %s for %s", rows, k.id, owner)
		}
		b.refusals = nil
		k.do("POST", "/api/v1/projects/default/memberships", bodies["add-membership"]).must(t, "beyond its scopes", 403)
		if len(b.refusals) != 1 || b.refusals[0].Actor.Kind != audit.APIKey || b.refusals[0].Actor.ID != k.id || b.refusals[0].Actor.Owner != owner {
			t.Errorf("refusal: got %+v, want one of the key", b.refusals)
		}
	})
}

// TestWhoMayGiveWhichScope: and what else a key can't be made with.
func TestWhoMayGiveWhichScope(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		ann, _ := b.user(root, "ann@example.com", "admin")
		shop := root.post("/projects", object{"slug": "shop", "name": "Shop"}).must(t, "project", 201).body["id"].(string)
		for _, tt := range []struct {
			name   string
			by     *client
			body   object
			status int
			detail string // in the answer
		}{
			{"an administrator everything", root, object{"scopes": scopeNames(true)}, 201, `"admin:*"`},
			{"others what is not an administrator's", ann, object{"scopes": scopeNames(false)}, 201, `"agents:write"`},
			{"others nothing of an administrator's", ann, object{"scopes": []string{"tasks:read", "users:read", "admin:*"}}, 409, `"rejected_scopes":["users:read","admin:*"]`},
			{"nobody what does not exist", root, object{"scopes": []string{"tasks:eat"}}, 409, `"rejected_scopes":["tasks:eat"]`},
			{"nobody a wildcard that is none", root, object{"scopes": []string{"tasks:*", "*"}}, 409, `"rejected_scopes":["tasks:*","*"]`},
			{"none at all", ann, object{"scopes": []string{}}, 201, `"scopes":[]`},
			{"twice the same", ann, object{"scopes": []string{"tasks:read", "tasks:read"}}, 201, `"scopes":["tasks:read"]`},
			{"bound to a project of others", ann, object{"scopes": []string{}, "project_id": shop}, 404, ``},
			{"bound to no project at all", root, object{"scopes": []string{}, "project_id": "00000000-0000-4000-8000-000000000000"}, 404, ``},
			{"bound to nonsense", root, object{"scopes": []string{}, "project_id": "shop"}, 422, `"body","project_id"`},
			{"for no day", root, object{"scopes": []string{}, "expires_in_days": 0}, 422, ``},
			{"for too long", root, object{"scopes": []string{}, "expires_in_days": 3651}, 422, ``},
			{"for ten years", root, object{"scopes": []string{}, "expires_in_days": 3650}, 201, `"expires_at":"2036-03-11T09:26:53.589793Z"`},
			{
				"networks in their one form", root,
				object{"scopes": []string{}, "allowed_cidrs": []string{"192.0.2.77/24", "::ffff:198.51.100.1", "2001:DB8::1"}},
				201,
				`"allowed_cidrs":["192.0.2.0/24","198.51.100.1/32","2001:db8::1/128"]`,
			},
			{"a network that is none", root, object{"scopes": []string{}, "allowed_cidrs": []string{"192.0.2.0/33"}}, 422, `192.0.2.0/33`},
			{"an empty list of networks", root, object{"scopes": []string{}, "allowed_cidrs": []string{}}, 201, `"allowed_cidrs":null`},
			{"a name of space", root, object{"scopes": []string{}, "name": " \t"}, 422, `"body","name"`},
		} {
			if tt.body["name"] == nil {
				tt.body["name"] = tt.name
			}
			got := tt.by.post("/api-keys", tt.body)
			if got.status != tt.status || !strings.Contains(got.text, tt.detail) {
				t.Errorf("%s: got %d %s, want %d with %s", tt.name, got.status, got.text, tt.status, tt.detail)
			}
		}
	})
}

// TestAKeyDoesNotMakeKeys: nor prolong itself: who has one for a day must not have one for ever.
func TestAKeyDoesNotMakeKeys(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		k := b.setUp().key(object{"scopes": []string{"admin:*"}})
		k.do("POST", "/api/v1/api-keys", object{"name": "more", "scopes": []string{}}).must(t, "make", 403)
		k.do("PATCH", "/api/v1/api-keys/"+k.id, object{"expires_in_days": nil}).must(t, "prolong", 403)
		k.get("/api-keys").must(t, "list", 200)
		k.do("DELETE", "/api/v1/api-keys/"+k.id, nil).must(t, "end itself", 204)
		k.get("/api-keys").must(t, "afterwards", 401)
	})
}

func TestAKeyIsChanged(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		ann, _ := b.user(root, "ann@example.com", "viewer")
		bob, _ := b.user(root, "bob@example.com", "viewer")
		k := ann.key(object{"scopes": []string{"tasks:read"}, "expires_in_days": 1, "allowed_cidrs": []string{"192.0.2.0/24"}})
		for _, tt := range []struct {
			name   string
			by     *client
			body   object
			status int
			detail string
		}{
			{"the name alone", ann, object{"name": " CI "}, 200, `"name":"CI","prefix":"` + k.token[:8] + `"`},
			{"everything else stays", ann, object{"name": "CI"}, 200, `"scopes":["tasks:read"],"project_id":null,"project_slug":null,"allowed_cidrs":["192.0.2.0/24"]`},
			{"scopes", ann, object{"scopes": []string{"home:read"}}, 200, `"scopes":["home:read"]`},
			{"scopes that are not the caller's to give", ann, object{"scopes": []string{"admin:*"}}, 409, `rejected_scopes`},
			{"no end", ann, object{"expires_in_days": nil}, 200, `"expires_at":null`},
			{"another end", ann, object{"expires_in_days": 2}, 200, `"expires_at":"2026-03-16T09:26:53.589793Z"`},
			{"an end that is none", ann, object{"expires_in_days": 0}, 422, `expires_in_days`},
			{"from everywhere", ann, object{"allowed_cidrs": nil}, 200, `"allowed_cidrs":null`},
			{"from one address", ann, object{"allowed_cidrs": []string{"192.0.2.10"}}, 200, `"allowed_cidrs":["192.0.2.10/32"]`},
			{"from nonsense", ann, object{"allowed_cidrs": []string{"here"}}, 422, `allowed_cidrs`},
			{"a field that there is not", ann, object{"user_id": "x"}, 422, `extra_forbidden`},
			{"by another account", bob, object{"name": "mine"}, 404, ``},
			{"by an administrator", root, object{"name": "ann's"}, 200, `"name":"ann's"`},
		} {
			got := tt.by.patch("/api-keys/"+k.id, tt.body)
			if got.status != tt.status || !strings.Contains(got.text, tt.detail) {
				t.Errorf("%s: got %d %s, want %d with %s", tt.name, got.status, got.text, tt.status, tt.detail)
			}
		}
		bob.del("/api-keys/"+k.id).must(t, "revoke by another account", 404)
		for _, tt := range []struct {
			by   *client
			path string
			want int
		}{{ann, "/api-keys", 1}, {bob, "/api-keys", 0}, {root, "/api-keys", 0}, {root, "/api-keys?all=true", 1}, {bob, "/api-keys?all=true", -1}} {
			got := tt.by.get(tt.path)
			if n := strings.Count(got.text, `"prefix"`); tt.want >= 0 && n != tt.want || tt.want < 0 && got.status != 403 {
				t.Errorf("%s: got %d with %d keys, want %d", tt.path, got.status, n, tt.want)
			}
		}
		ann.del("/api-keys/"+k.id+"?reason=laptop%20lost").must(t, "revoke", 204)
		ann.del("/api-keys/"+k.id).must(t, "revoke again", 404)
		if got := ann.get("/api-keys").text; got != "[]\n" {
			t.Errorf("afterwards: got %s, want none", got)
		}
		if got := ann.get("/api-keys?include_revoked=true").text; !strings.Contains(got, `"revoked_reason":"laptop lost"`) {
			t.Errorf("with the revoked ones: got %s, want the key and why", got)
		}
	})
}

// TestAKeyFromElsewhere: the address is the resolved one, not the proxy's.
func TestAKeyFromElsewhere(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		k := root.key(object{"scopes": []string{"home:read"}, "allowed_cidrs": []string{"198.51.100.0/24", "2001:db8::/32"}})
		for _, tt := range []struct {
			peer, forwarded string
			status          int
		}{
			{"198.51.100.7:1", "", 200},
			{"192.0.2.1:1", "", 403},
			{"192.0.2.1:1", "198.51.100.7", 403}, // not of a proxy that is trusted
			{"10.0.0.1:1", "198.51.100.7", 200},
			{"10.0.0.1:1", "203.0.113.1", 403},
			{"10.0.0.1:1", "198.51.100.7, 203.0.113.1", 403},
			{"[2001:db8:1::2]:1", "", 200},
			{"[2001:db9::2]:1", "", 403},
			{"@", "", 403}, // a socket that tells no address
		} {
			got := k.do("GET", "/api/v1/home/summary", nil, func(r *http.Request) {
				r.RemoteAddr = tt.peer
				if tt.forwarded != "" {
					r.Header.Set("X-Forwarded-For", tt.forwarded)
				}
			})
			if got.status != tt.status || tt.status == 403 && got.code() != "ip_denied" {
				t.Errorf("from %s for %q: got %d %s, want %d", tt.peer, tt.forwarded, got.status, got.text, tt.status)
			}
		}
	})
}

// TestLessonC18LastUseIsASideNote: it is written once a minute in a transaction of its own, and whether it can be
// written changes no answer.
func TestLessonC18LastUseIsASideNote(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		k := root.key(object{"scopes": []string{"home:read"}})
		used := func() string {
			return storetest.Rows(t, storetest.DB(t, b.url), `SELECT coalesce(last_used_ip, ''), last_used_at FROM api_keys`)[0][0] + " " + lastUsed(t, root)
		}
		if got := used(); got != " null" {
			t.Errorf("before: got %q, want never", got)
		}
		at := func(address string, d time.Duration) {
			b.pass(d)
			k.do("GET", "/api/v1/home/summary", nil, func(r *http.Request) { r.RemoteAddr = address }).must(t, "use", 200)
		}
		at("192.0.2.1:1", 0)
		first := used()
		at("192.0.2.2:1", 59*time.Second)
		if got := used(); got != first || !strings.HasPrefix(got, "192.0.2.1 ") {
			t.Errorf("within a minute: got %q, want %q to stay", got, first)
		}
		at("192.0.2.3:1", 2*time.Second)
		if got := used(); !strings.HasPrefix(got, "192.0.2.3 ") || got == first {
			t.Errorf("after a minute: got %q, want the new use", got)
		}
		k.get("/projects").must(t, "a refused use is one too, and leaves nothing else", 403)
	})
}

func lastUsed(t *testing.T, c *client) string {
	t.Helper()
	text := c.get("/api-keys").must(t, "list", 200).text
	_, after, _ := strings.Cut(text, `"last_used_at":`)
	value, _, _ := strings.Cut(after, ",")
	return value
}

// TestLessonB7TheTextOfAKeyIsNowhere: not in the database, not in the log, not in any other answer.
func TestLessonB7TheTextOfAKeyIsNowhere(t *testing.T) {
	var log bytes.Buffer
	tweak := func(o *api.Options) {
		o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	each(t, tweak, func(t *testing.T, b *brain) {
		root := b.setUp()
		k := root.key(object{"scopes": []string{"admin:*"}})
		k.get("/projects").must(t, "use", 200)
		k.do("POST", "/api/v1/projects", object{"slug": "shop", "name": "my key is " + k.token}).must(t, "an entry with it", 201)
		root.post("/api-keys", object{"name": k.token, "scopes": []string{}}).must(t, "a name that is it", 201)
		secret := k.token[8:]
		for _, path := range []string{"/api-keys", "/projects/default/audit", "/users"} {
			if text := root.get(path).text; path != "/api-keys" && strings.Contains(text, secret) {
				t.Errorf("%s: holds the text of a key", path)
			}
		}
		db := storetest.DB(t, b.url)
		for _, q := range []string{
			`SELECT token_hash || secret_id || prefix || scopes FROM api_keys`,
			`SELECT coalesce(details, '') || coalesce(target_label, '') FROM audit_log WHERE action <> 'api_key.created'`,
		} {
			for _, row := range storetest.Rows(t, db, q) {
				if strings.Contains(row[0], secret) {
					t.Errorf("%s: holds the text of a key: %s", q, row[0])
				}
			}
		}
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log holds the text of a key:\n%s", log.String())
		}
	})
}

// TestLessonA12AKeyOutlivesItsMasterSecret: keys of a previous master secret are taken, and hashed under the current one
// at their first use, so that the old one can go.
func TestLessonA12AKeyOutlivesItsMasterSecret(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		old, next := []byte(master), []byte("test-master-secret-test-master-secret-0002")
		brainWith := func(current []byte, previous ...[]byte) *brain {
			return start(t, url, func(o *api.Options) { o.Master, o.Previous = current, previous })
		}
		first := brainWith(old)
		root := first.setUp()
		used, unused := root.key(object{"scopes": []string{"home:read"}}), root.key(object{"scopes": []string{"home:read"}})
		ask := func(b *brain, k script) int {
			k.c = b.client()
			return k.get("/home/summary").status
		}
		during := brainWith(next, old)
		if got := ask(during, used); got != 200 {
			t.Errorf("during the rotation: got %d, want 200", got)
		}
		after := brainWith(next)
		if got := []int{ask(after, used), ask(after, unused)}; !slices.Equal(got, []int{200, 401}) {
			t.Errorf("after the rotation: got %v, want the used key taken and the other unknown", got)
		}
		rows := storetest.Rows(t, storetest.DB(t, url), `SELECT secret_id FROM api_keys ORDER BY CASE WHEN last_used_at IS NULL THEN 1 ELSE 0 END`)
		if diff := cmp.Diff([][]string{{store.SecretID(next)}, {store.SecretID(old)}}, rows); diff != "" {
			t.Errorf("which secret they are under: (- want, + got)\n%s", diff)
		}
	})
}

// TestScopesAreUsed: a scope that no route asks for is a dead knob.
func TestScopesAreUsed(t *testing.T) {
	asked := map[auth.Scope]bool{}
	for _, rt := range api.New(api.Options{}).Routes() {
		asked[rt.Scope] = true
		changes := rt.Method != http.MethodGet
		noun, write := strings.CutSuffix(string(rt.Scope), ":write")
		if changes && rt.Scope != "" && rt.Scope != auth.ScopeAll && !write {
			t.Errorf("%s changes something: got the scope %s, want one of write", rt.ID, rt.Scope)
		}
		if !changes && write {
			t.Errorf("%s only reads: got the scope %s, want %s:read", rt.ID, rt.Scope, noun)
		}
		if rt.Narrow && strings.Contains(rt.Path, "{slug}") {
			t.Errorf("%s names its project: keyNarrowed is for routes that name none", rt.ID)
		}
	}
	for _, r := range auth.Scopes() {
		if !asked[r.Scope] {
			t.Errorf("%s: no route asks for it; take it out or map one", r.Scope)
		}
		delete(asked, r.Scope)
	}
	delete(asked, "")
	if len(asked) > 0 {
		t.Errorf("scopes that are not in auth.Scopes: %v", asked)
	}
}
