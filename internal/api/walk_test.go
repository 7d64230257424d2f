package api_test

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/api"
	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// bodies are requests that pass the check of fields, by operation. A route that takes a body gets a line here.
var bodies = map[string]object{
	"complete-setup":    {"token": "no-such-token", "email": "x@example.com", "password": password},
	"login":             {"email": "nobody@example.com", "password": "wrong"},
	"change-password":   {"current_password": "wrong", "new_password": password},
	"create-user":       {"email": "root@example.com", "password": password},
	"create-project":    {"slug": "default", "name": "taken"},
	"update-project":    {"slug": "other"},
	"add-membership":    {"user_id": "00000000-0000-4000-8000-000000000000", "role": "viewer"},
	"mint-agent":        {"name": "taken"},
	"create-api-key":    {"name": "no scope of that name", "scopes": []string{"none:such"}},
	"change-api-key":    {"name": "other"},
	"hold-project":      {"reason": " "},
	"hold-installation": {"reason": " "},
}

var parameter = regexp.MustCompile(`\{[a-z_]+\}`)

// pathOf fills a route's parameters: the default project, and things that don't exist.
func pathOf(rt api.Route) string {
	return parameter.ReplaceAllStringFunc(rt.Path, func(name string) string {
		if name == "{slug}" {
			return "default"
		}
		return "00000000-0000-4000-8000-000000000000"
	})
}

// caller is somebody who tries every route.
type caller struct {
	name   string
	email  string    // "" sends no credentials
	role   auth.Role // in the default project
	global bool
}

func callers() []caller {
	return []caller{
		{name: "nobody"},
		{name: "stranger", email: "stranger@example.com"},
		{name: "member of another project", email: "foreign@example.com"},
		{name: "viewer", email: "viewer@example.com", role: auth.Viewer},
		{name: "auditor", email: "auditor@example.com", role: auth.Auditor},
		{name: "operator", email: "operator@example.com", role: auth.Operator},
		{name: "admin", email: "admin@example.com", role: auth.Admin},
		{name: "global admin", email: "root@example.com", global: true},
	}
}

// want is the status that the table promises a caller; 0 is "let through".
func (c caller) want(rt api.Route) int {
	role := c.role
	if c.global {
		role = auth.GlobalAdmin
	}
	switch {
	case rt.Kind == "anyone":
		return 0
	case c.email == "":
		return http.StatusUnauthorized
	case rt.Kind == "loggedIn" || rt.Kind == "untilSetUp":
		return 0
	case rt.Kind == "installation" && (!c.global || !role.Can(rt.Permission)):
		return http.StatusForbidden
	case rt.Kind == "project" && !role.Can(auth.ReadProject):
		return http.StatusNotFound
	case rt.Kind == "project" && !role.Can(rt.Permission):
		return http.StatusForbidden
	}
	return 0
}

// TestLessonD13EveryRouteForEveryRole walks the table: each route with each role, a foreign project and no credentials.
func TestLessonD13EveryRouteForEveryRole(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		for _, c := range callers() {
			if c.email != "" && !c.global {
				b.user(root, c.email, string(c.role))
			}
		}
		root.post("/projects", object{"slug": "other", "name": "Other"}).must(t, "other project", 201)
		users := root.get("/users?limit=500").must(t, "users", 200)
		foreign := regexp.MustCompile(`"id":"([^"]+)","email":"foreign@`).FindStringSubmatch(users.text)[1]
		root.post("/projects/other/memberships", object{"user_id": foreign, "role": "admin"}).must(t, "foreign admin", 201)
		root.post("/projects/default/agents", object{"name": "taken"}).must(t, "agent", 201)

		for _, rt := range b.server.Routes() {
			for _, c := range callers() {
				got := b.callerOf(c).call(rt)
				want := c.want(rt)
				ok := got.status == want
				if want == 0 {
					ok = !refused(rt, got)
				}
				if !ok {
					t.Errorf("%s %s by %s: got %d %s, want %s", rt.Method, rt.Path, c.name, got.status, got.text, wanted(want))
				}
			}
		}
	})
}

// callerOf returns a fresh session of a caller: some routes end the one that calls them.
func (b *brain) callerOf(c caller) *client {
	b.t.Helper()
	out := b.client()
	b.networks++
	out.address = fmt.Sprintf("198.51.%d.%d:4000", b.networks/250, b.networks%250+1) // limits are per network
	if c.email != "" {
		out.post("/auth/login", object{"email": c.email, "password": password}).must(b.t, "login of "+c.name, 200)
	}
	return out
}

func (c *client) call(rt api.Route) answer {
	c.b.t.Helper()
	body := bodies[rt.ID]
	_, takes := rt.In.FieldByName("Body")
	switch {
	case takes && body == nil:
		c.b.t.Fatalf("%s takes a body: give it one in the map bodies of this test", rt.ID)
	case takes:
		return c.do(rt.Method, pathOf(rt), body)
	}
	return c.do(rt.Method, pathOf(rt), nil)
}

// refused reports whether an answer says that the caller may not. A wrong password is another matter.
func refused(rt api.Route, a answer) bool {
	switch a.status {
	case http.StatusUnauthorized:
		return a.reason() != "invalid_credentials" && a.reason() != "wrong_current_password"
	case http.StatusForbidden:
		return true
	case http.StatusNotFound:
		return rt.Kind == "project" && strings.Contains(a.text, "no member")
	}
	return a.status >= 500
}

func wanted(status int) string {
	if status == 0 {
		return "to be let through"
	}
	return fmt.Sprint(status)
}

// TestLessonC17TheTableIsWhole: a route that forgot who may call it is reachable by nobody, and this test says so.
func TestLessonC17TheTableIsWhole(t *testing.T) {
	s := api.New(api.Options{})
	seen := map[string]bool{}
	for _, rt := range s.Routes() {
		changes := rt.Method != http.MethodGet
		_, known := rt.Action.Kind()
		switch {
		case rt.Kind == "nobody":
			t.Errorf("%s: nobody may call it; say who", rt.ID)
		case seen[rt.ID]:
			t.Errorf("%s: stands in the table twice", rt.ID)
		case changes && !known:
			t.Errorf("%s changes something: got the action %q, want one of audit's catalogue", rt.ID, rt.Action)
		case !changes && rt.Action != "":
			t.Errorf("%s only reads: got the action %q, want none", rt.ID, rt.Action)
		case rt.Limited && !rt.HasBucket:
			t.Errorf("%s: its rate limit is not one of buckets", rt.ID)
		case (rt.Kind == "project" || rt.Kind == "installation") && !slices.Contains(auth.Permissions(), rt.Permission):
			t.Errorf("%s asks for %q, want a permission of auth", rt.ID, rt.Permission)
		case rt.Kind == "anyone" && !slices.Contains(public, rt.ID):
			t.Errorf("%s is open to everybody; if that is meant, name it in public of this test", rt.ID)
		}
		seen[rt.ID] = true
	}
}

// public are the routes that need no credentials.
var public = []string{"complete-setup", "login", "password-policy", "get-health", "get-readiness"}

// TestNoAnswerHasAFieldForASecret walks the types of all answers. The one that shows an agent's secrets once is named.
func TestNoAnswerHasAFieldForASecret(t *testing.T) {
	once := []string{"api.mintedAgent.token", "api.mintedAgent.hmac_secret", "api.mintedKey.token"}
	secret := regexp.MustCompile(`(?i)password|passwd|secret|token|hash|csrf|hmac|cookie|credential|private`)
	found := 0
	for _, rt := range api.New(api.Options{}).Routes() {
		walkFields(rt.Out, map[reflect.Type]bool{}, func(owner reflect.Type, name string) {
			found++
			if at := owner.String() + "." + name; secret.MatchString(name) && !slices.Contains(once, at) && !strings.HasSuffix(name, "row_hmac") {
				t.Errorf("%s: its answer has the field %s; secrets are never fields of what a read returns", rt.ID, at)
			}
		})
	}
	if found < 50 {
		t.Errorf("fields looked at: got %d, want all of the API's", found)
	}
}

func walkFields(typ reflect.Type, seen map[reflect.Type]bool, visit func(reflect.Type, string)) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map || typ.Kind() == reflect.Array {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct || seen[typ] || typ == reflect.TypeFor[id.ID]() {
		return
	}
	seen[typ] = true
	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		if name != "" {
			visit(typ, name)
		}
		walkFields(f.Type, seen, visit)
	}
}

// TestLessonA25EveryChangeLeavesItsEntry: each route that changes something writes an entry with its own action when it succeeds,
// in the transaction of the change, and one with the outcome deny or error when it is refused.
func TestLessonA25EveryChangeLeavesItsEntry(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		db := storetest.DB(t, b.url)
		entries := func() []string {
			var out []string
			for _, row := range storetest.Rows(t, db, `SELECT action || ' ' || outcome || ' ' || actor_kind FROM audit_log ORDER BY seq`) {
				out = append(out, row[0])
			}
			return out
		}
		before := len(entries())
		root := b.setUp()
		users := between(root.post("/users", object{"email": "ann@example.com", "password": password}).must(t, "user", 201).text, `{"id":"`)
		root.post("/projects/default/memberships", object{"user_id": users[0], "role": "viewer"}).must(t, "member", 201)
		root.post("/projects", object{"slug": "shop", "name": "Shop"}).must(t, "project", 201)
		root.patch("/projects/shop", object{"name": "The shop"}).must(t, "change project", 200)
		root.post("/projects/shop/retention-hold", object{"reason": "case 7"}).must(t, "hold", 200)
		root.del("/projects/shop/retention-hold").must(t, "release", 200)
		minted := root.post("/projects/shop/agents", object{"name": "web"}).must(t, "mint", 201)
		agent, _ := minted.body["agent"].(object)
		root.del("/projects/shop/agents/"+agent["id"].(string)).must(t, "revoke", 204)
		key := root.post("/api-keys", object{"name": "ci", "scopes": []string{"tasks:read"}}).must(t, "API key", 201).body["id"].(string)
		root.patch("/api-keys/"+key, object{"name": "CI"}).must(t, "change API key", 200)
		root.del("/api-keys/"+key).must(t, "revoke API key", 204)
		root.post("/admin/backups", nil).must(t, "start a backup", 202)
		root.backup()
		root.post("/auth/change-password", object{"current_password": password, "new_password": "Another-Horse-7-Stable"}).must(t, "password", 200)
		other := b.client()
		other.post("/auth/login", object{"email": "root@example.com", "password": "Another-Horse-7-Stable"}).must(t, "login", 200)
		root.post("/auth/sessions/revoke-others", nil).must(t, "revoke others", 200)
		other.post("/auth/login", object{"email": "root@example.com", "password": "Another-Horse-7-Stable"}).must(t, "login", 200)
		var other2 string
		for one := range strings.SplitSeq(root.get("/auth/sessions").text, "},{") {
			if strings.Contains(one, `"is_current":false`) {
				other2 = between(one, `"id":"`)[0]
			}
		}
		root.post("/auth/sessions/"+other2+"/revoke", nil).must(t, "revoke session", 200)
		root.post("/auth/logout", nil).must(t, "logout", 204)
		want := []string{
			"setup.completed allow anonymous", "user.created allow user", "membership.granted allow user", "project.created allow user", "project.changed allow user",
			"retention.held allow user", "retention.released allow user",
			"agent.token.minted allow user", "agent.token.revoked allow user", "api_key.created allow user", "api_key.changed allow user", "api_key.revoked allow user", "backup.completed allow user", "auth.password_changed allow user", "auth.login allow user",
			"auth.session_revoked allow user", "auth.login allow user", "auth.session_revoked allow user", "auth.logout allow user",
		}
		if diff := cmp.Diff(want, entries()[before:]); diff != "" {
			t.Errorf("entries: (- want, + got)\n%s", diff)
		}
		done := map[string]bool{"setup.attempt": true} // its success is setup.completed
		for _, e := range want {
			done[strings.Fields(e)[0]] = true
		}
		for _, rt := range b.server.Routes() {
			if rt.Method != http.MethodGet && !done[string(rt.Action)] {
				t.Errorf("%s: no entry of %s in this test; add its success", rt.ID, rt.Action)
			}
		}
	})
}

// TestLessonA15A16A17RefusalsAreRecorded: by the route's action, with the actor and the resolved address, committed
// before the answer, and without changing it.
func TestLessonA15A16A17RefusalsAreRecorded(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		viewer, _ := b.user(root, "viewer@example.com", "viewer")
		stranger, _ := b.user(root, "stranger@example.com", "")
		root.post("/projects/default/agents", object{"name": "web"}).must(t, "mint", 201)
		for _, tt := range []struct {
			name    string
			by      *client
			path    string
			body    any
			status  int
			action  audit.Action
			outcome audit.Outcome
			actor   audit.ActorKind
			project string
			reason  any
		}{
			{"no credentials", b.client(), "/projects/default/agents", object{"name": "x"}, 401, audit.AgentMinted, audit.Deny, audit.Anonymous, "", nil},
			{"no member", stranger, "/projects/default/agents", object{"name": "x"}, 404, audit.AgentMinted, audit.Deny, audit.User, "default", nil},
			{"no such role", viewer, "/projects/default/agents", object{"name": "x"}, 403, audit.AgentMinted, audit.Deny, audit.User, "default", nil},
			{"a name that is taken", root, "/projects/default/agents", object{"name": "web"}, 409, audit.AgentMinted, audit.Failed, audit.User, "default", "name_taken"},
			{"a field missing", root, "/projects/default/agents", object{}, 422, audit.AgentMinted, audit.Failed, audit.User, "", nil},
			{"no global admin", viewer, "/users", object{"email": "x@example.com", "password": password}, 403, audit.UserCreated, audit.Deny, audit.User, "", nil},
			{"a wrong password", b.client(), "/auth/login", object{"email": "Viewer@example.com", "password": "wrong"}, 401, audit.AuthLogin, audit.Deny, audit.Anonymous, "", "invalid_credentials"},
		} {
			b.refusals = nil
			got := tt.by.do("POST", "/api/v1"+tt.path, tt.body, func(r *http.Request) {
				r.RemoteAddr = "10.0.0.9:1"
				r.Header.Set("X-Forwarded-For", "198.51.100.77")
				r.Header.Set("User-Agent", "test \xff")
			}).must(t, tt.name, tt.status)
			if len(b.refusals) != 1 {
				t.Errorf("%s: got %d refusals recorded, want 1", tt.name, len(b.refusals))
				continue
			}
			f := b.refusals[0]
			if f.Action != tt.action || f.Outcome != tt.outcome || f.Actor.Kind != tt.actor || f.Project.Label != tt.project || f.Details["reason"] != tt.reason ||
				f.Actor.IP != "198.51.100.77" || f.RequestID != got.header.Get("X-Request-Id") || (tt.actor == audit.User) != (f.Actor.ID != "") {
				t.Errorf("%s: got %+v, want %s %s by %s in %q because of %v", tt.name, f, tt.action, tt.outcome, tt.actor, tt.project, tt.reason)
			}
			if tt.action == audit.AuthLogin && (f.Target.Label != "viewer@example.com" || f.Target.ID == "") {
				t.Errorf("%s: got the target %+v, want the account", tt.name, f.Target)
			}
		}
		b.refusals = nil
		viewer.get("/users").must(t, "a read", 403)
		viewer.get("/projects/default/memberships").must(t, "a read", 403)
		if len(b.refusals) != 0 {
			t.Errorf("refused reads: got %d recorded, want none", len(b.refusals))
		}
	})
}

// TestRefusalsReachTheLog wires the real writer.
func TestRefusalsReachTheLog(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		var refusals *store.Refusals
		b := start(t, url, func(o *api.Options) {
			refusals = store.NewRefusals(o.Store)
			o.Refusals = refusals
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); refusals.Run(ctx) }()
		b.setUp()
		b.client().post("/auth/login", object{"email": "root@example.com", "password": "wrong"}).must(t, "wrong password", 401)
		rows := storetest.Rows(t, storetest.DB(t, url), `SELECT action, outcome, actor_kind FROM audit_log WHERE outcome <> 'allow'`)
		if diff := cmp.Diff([][]string{{"auth.login", "deny", "anonymous"}}, rows); diff != "" {
			t.Errorf("the log when the answer came: (- want, + got)\n%s", diff)
		}
		cancel()
		<-done
	})
}

// matrix says, once more and by hand, who may call what, so that a slip in the table does not pass as a decision:
// n without credentials, s logged in without a role there, v viewer, a auditor, o operator, m admin of the project,
// g global admin.
var matrix = map[string]string{
	"setup-status": "svaomg", "complete-setup": "nsvaomg", "login": "nsvaomg", "password-policy": "nsvaomg", "get-health": "nsvaomg", "get-readiness": "nsvaomg",
	"logout": "svaomg", "me": "svaomg", "change-password": "svaomg", "list-sessions": "svaomg", "revoke-other-sessions": "svaomg", "revoke-session": "svaomg",
	"list-backups": "g", "start-backup": "g",
	"list-users": "g", "get-audit-status": "g", "create-user": "g", "create-project": "g", "update-project": "g",
	"list-scopes": "svaomg", "list-api-keys": "svaomg", "create-api-key": "svaomg", "change-api-key": "svaomg", "revoke-api-key": "svaomg",
	"hold-project": "g", "release-project": "g", "get-retention": "g", "hold-installation": "g", "release-installation": "g",
	"list-projects": "svaomg", "get-home": "svaomg", "list-recent-failures": "svaomg", "get-system": "svaomg",
	"get-project": "vaomg", "list-agents": "vaomg", "list-agent-workers": "vaomg", "list-tasks": "vaomg", "get-task": "vaomg", "list-attempts": "vaomg",
	"list-events": "vaomg", "list-refused-events": "vaomg", "list-workers": "vaomg", "get-worker": "vaomg", "list-queues": "vaomg", "get-stats": "vaomg",
	"list-memberships": "mg", "add-membership": "mg", "mint-agent": "mg", "revoke-agent": "mg",
	"list-audit": "amg", "export-audit": "svaomg", // whose rows, the handler decides: see TestWhoMayExport
}

// TestWhoMayDoWhat compares the table with the matrix.
func TestWhoMayDoWhat(t *testing.T) {
	for _, rt := range api.New(api.Options{}).Routes() {
		want, known := matrix[rt.ID]
		if !known {
			t.Errorf("%s: not in the matrix of this test; decide who may call it", rt.ID)
			continue
		}
		got := ""
		for i, c := range []caller{
			{},
			{email: "x"},
			{email: "x", role: auth.Viewer},
			{email: "x", role: auth.Auditor},
			{email: "x", role: auth.Operator},
			{email: "x", role: auth.Admin},
			{email: "x", global: true},
		} {
			if c.want(rt) == 0 {
				got += "nsvaomg"[i : i+1]
			}
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", rt.ID, got, want)
		}
	}
}
