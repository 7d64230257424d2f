package api_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/api"
	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

func keys(a answer) string {
	var names []string
	text := strings.TrimPrefix(strings.TrimSpace(a.text), "[")
	depth, inString, start := 0, false, -1
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			if !inString {
				start = i + 1
			} else if depth == 1 && i+1 < len(text) && text[i+1] == ':' {
				names = append(names, text[start:i])
			}
			inString = !inString
		case !inString && (c == '{' || c == '['):
			depth++
		case !inString && (c == '}' || c == ']'):
			if depth--; depth == 0 {
				return strings.Join(names, " ")
			}
		}
	}
	return strings.Join(names, " ")
}

// TestShapes holds the names of the fields still: clients depend on them, and on which lists are bare.
func TestShapes(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		root.post("/projects/default/agents", object{"name": "web"}).must(t, "mint", 201)
		const user = "id email first_name last_name display_name is_admin"
		for _, tt := range []struct{ path, start, want string }{
			{"/auth/me", "{", user + " timezone created_at memberships"},
			{"/auth/sessions", "[", "id issued_at last_seen_at ip_at_issue user_agent_at_issue is_current"},
			{"/users", "[", user + " is_active timezone last_login_at created_at updated_at"},
			{"/projects", "[", "id slug name description environment timezone is_active default_scheduler_owner allowed_schedulers task_retention_days failed_retention_days event_retention_days hold_since hold_reason created_at updated_at"},
			{"/projects/default", "{", "id slug name description environment timezone is_active default_scheduler_owner allowed_schedulers task_retention_days failed_retention_days event_retention_days hold_since hold_reason created_at updated_at"},
			{"/projects/default/memberships", "[", "id user_id project_id user_email user_display_name role created_at"},
			{"/projects/default/agents", "[", "id project_id name state protocol_version framework_adapter engine_adapters scheduler_adapters capabilities last_seen_at last_connect_at created_at is_outdated host_name agent_version version_status"},
		} {
			got := root.get(tt.path).must(t, tt.path, 200)
			if !strings.HasPrefix(got.text, tt.start) || keys(got) != tt.want {
				t.Errorf("%s: got %s, want %s with %s", tt.path, got.text, tt.start, tt.want)
			}
		}
	})
}

func TestProjects(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		ann, _ := b.user(root, "ann@example.com", "viewer")
		made := root.post("/projects", object{"slug": "shop", "name": " The shop ", "description": " sells ", "allowed_schedulers": []string{"z4j-scheduler", "celery-beat"}}).must(t, "create", 201)
		if made.body["name"] != "The shop" || made.body["description"] != "sells" || made.body["environment"] != "production" || made.body["timezone"] != "UTC" || made.body["default_scheduler_owner"] != "z4j-scheduler" {
			t.Errorf("created: got %s", made.text)
		}
		if got := ann.get("/projects"); strings.Contains(got.text, "shop") || !strings.Contains(got.text, "default") {
			t.Errorf("a member of one sees %s, want that one", got.text)
		}
		if got := root.get("/projects"); !strings.Contains(got.text, "shop") || !strings.Contains(got.text, "default") {
			t.Errorf("a global admin sees %s, want both", got.text)
		}
		for _, tt := range []struct {
			name   string
			body   any
			status int
			has    string
		}{
			{"nothing changes nothing", object{}, 200, `"name":"The shop"`},
			{"null leaves", object{"name": nil, "description": nil}, 200, `"name":"The shop","description":"sells"`},
			{"a name", object{"name": "Shop"}, 200, `"name":"Shop","description":"sells"`},
			{"an empty list", object{"allowed_schedulers": []string{}}, 409, "owner_not_allowed"},
			{"null removes the limit", object{"allowed_schedulers": nil}, 200, `"allowed_schedulers":null`},
			{"a new limit", object{"allowed_schedulers": []string{"z4j-scheduler"}}, 200, `"allowed_schedulers":["z4j-scheduler"]`},
			{"absent leaves the limit", object{"timezone": "Europe/Berlin"}, 200, `"allowed_schedulers":["z4j-scheduler"]`},
			{"an owner who is not allowed", object{"default_scheduler_owner": "celery-beat"}, 409, "owner_not_allowed"},
			{"a slug that is taken", object{"slug": "default"}, 409, "slug_taken"},
			{"a retired field", object{"retention_days": 7}, 200, `"slug":"shop"`},
			{"days", object{"task_retention_days": 30, "event_retention_days": 7}, 200, `"task_retention_days":30,"failed_retention_days":null,"event_retention_days":7`},
			{"absent days stay and null takes away", object{"event_retention_days": nil}, 200, `"task_retention_days":30,"failed_retention_days":null,"event_retention_days":null`},
			{"no days", object{"task_retention_days": 0}, 422, "task_retention_days"},
			{"days beyond ten years", object{"task_retention_days": 3651}, 422, "task_retention_days"},
			{"a typo", object{"timezon": "UTC"}, 422, "timezon"},
			{"a new slug", object{"slug": "store"}, 200, `"slug":"store"`},
		} {
			got := root.patch("/projects/shop", tt.body)
			if got.status != tt.status || !strings.Contains(got.text, tt.has) {
				t.Errorf("%s: got %d %s, want %d with %s", tt.name, got.status, got.text, tt.status, tt.has)
			}
		}
		root.get("/projects/shop").must(t, "the old slug", 404)
		root.get("/projects/store").must(t, "the new slug", 200)
		root.patch("/projects/none", object{"name": "x"}).must(t, "no such project", 404)
		if _, err := storetest.DB(t, b.url).ExecContext(t.Context(), `UPDATE projects SET is_active = (1 = 0) WHERE slug = 'store'`); err != nil {
			t.Fatal(err)
		}
		root.get("/projects/store").must(t, "an archived project", 404)
		root.patch("/projects/store", object{"name": "x"}).must(t, "changing an archived project", 200)
	})
}

func TestMembers(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		b.pass(time.Second)
		ann, user := b.user(root, "ann@example.com", "")
		ann.get("/projects/default").must(t, "before", 404)
		root.post("/projects/default/memberships", object{"user_id": strings.ToUpper(user), "role": "auditor"}).must(t, "add", 201)
		ann.get("/projects/default").must(t, "after", 200)
		if me := ann.get("/auth/me"); !strings.Contains(me.text, `"memberships":[{"project_id":"`) || !strings.Contains(me.text, `"project_slug":"default","role":"auditor"}]`) {
			t.Errorf("me: got %s", me.text)
		}
		got := root.post("/projects/default/memberships", object{"user_id": user, "role": "viewer"}).must(t, "add again", 409)
		if got.reason() != "already_member" {
			t.Errorf("add again: got %s", got.text)
		}
		list := root.get("/projects/default/memberships").must(t, "list", 200)
		if diff := cmp.Diff([]string{"root@example.com", "ann@example.com"}, between(list.text, `"user_email":"`)); diff != "" {
			t.Errorf("list, the oldest first: (- want, + got)\n%s", diff)
		}
		if _, err := storetest.DB(t, b.url).ExecContext(t.Context(), `UPDATE users SET is_active = (1 = 0) WHERE email = 'ann@example.com'`); err != nil {
			t.Fatal(err)
		}
		root.post("/projects", object{"slug": "shop", "name": "Shop"}).must(t, "project", 201)
		root.post("/projects/shop/memberships", object{"user_id": user, "role": "viewer"}).must(t, "an account that is not active", 404)
	})
}

// TestLessonD12D11RevokedAgents: the token is dead and the connections closed at once, however much the agent has sent;
// its row stays for what it sent, and its name is free.
func TestLessonD12D11RevokedAgents(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		minted := root.post("/projects/default/agents", object{"name": "web"}).must(t, "mint", 201)
		agent, _ := minted.body["agent"].(object)
		token, _ := minted.body["token"].(string)
		if len(token) != 43 || len(minted.body["hmac_secret"].(string)) != 44 || agent["state"] != "unknown" || agent["protocol_version"] != "0" || agent["framework_adapter"] != "unknown" {
			t.Errorf("minted: got %s", minted.text)
		}
		hash := auth.AgentTokenHash([]byte(master), token)
		known, err := b.store.AgentCredential(t.Context(), hash)
		if err != nil || known.Revoked || known.Agent.String() != agent["id"] {
			t.Fatalf("token: got %+v, %v; want the agent", known, err)
		}
		taken, err := b.store.ConnectSlots(t.Context(), []store.SlotConnect{{
			Slot: store.Slot{Project: known.Project, Agent: known.Agent, WorkerID: "w1", Named: true}, Session: "s", At: store.TimeOf(b.Now()), ProtocolVersion: "2",
			AgentVersion: "1.13.0", Framework: "celery", Engines: []string{"celery"}, HostName: "web-01",
		}})
		if err != nil || !taken[0] {
			t.Fatalf("connect: %v %v", taken, err)
		}
		if list := root.get("/projects/default/agents"); !strings.Contains(list.text, `"state":"online"`) || !strings.Contains(list.text, `"version_status":"current"`) || !strings.Contains(list.text, `"is_outdated":false`) {
			t.Errorf("connected: got %s", list.text)
		}
		path := "/projects/default/agents/" + known.Agent.String()
		other, _ := b.user(root, "viewer@example.com", "viewer")
		other.del(path).must(t, "by a viewer", 403)
		if len(b.revoked) != 0 {
			t.Error("connections were closed although nothing was revoked")
		}
		root.post("/projects", object{"slug": "shop", "name": "Shop"}).must(t, "project", 201)
		root.del("/projects/shop/agents/"+known.Agent.String()).must(t, "an agent of another project", 404)
		root.del(path).must(t, "revoke", 204)
		if len(b.revoked) != 1 || b.revoked[0] != known.Agent {
			t.Errorf("closed connections of: got %v, want %v", b.revoked, known.Agent)
		}
		if known, err = b.store.AgentCredential(t.Context(), hash); err != nil || !known.Revoked {
			t.Errorf("token afterwards: got %+v, %v; want it known and revoked", known, err)
		}
		root.del(path).must(t, "revoke again", 404)
		if list := root.get("/projects/default/agents"); strings.TrimSpace(list.text) != "[]" {
			t.Errorf("list afterwards: got %s, want none", list.text)
		}
		root.post("/projects/default/agents", object{"name": "web"}).must(t, "the name is free again", 201)
	})
}

// TestNoSecretLeavesOrStays: what is shown once stands in no other answer, in no log and, as it is, in no table.
func TestNoSecretLeavesOrStays(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		var text bytes.Buffer
		b := start(t, url, func(o *api.Options) {
			o.Log = slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		root := b.setUp()
		minted := root.post("/projects/default/agents", object{"name": "web"}).must(t, "mint", 201)
		root.post("/auth/login", object{"email": "root@example.com", "password": "Wr0ng-Secret-Password"})
		root.get("/auth/me").must(t, "still logged in", 200)
		token, secret := minted.body["token"].(string), minted.body["hmac_secret"].(string)
		root.do("GET", "/setup?token="+token, nil)
		root.get("/projects/none/"+token).must(t, "an address with a secret", 404)
		root.post("/users", `{"email":"x@example.com","password":["`+password+`"]}`).must(t, "a password that can't be read", 422)
		logged := text.Len()
		for _, path := range []string{"/auth/me", "/auth/sessions", "/users", "/projects", "/projects/default", "/projects/default/memberships", "/projects/default/agents"} {
			text.WriteString(root.get(path).must(t, path, 200).text)
		}
		shown := text.String()
		if logged < 500 {
			t.Errorf("log: got %d bytes, want a line for each request", logged)
		}
		db := storetest.DB(t, b.url)
		tables := `SELECT name FROM sqlite_master WHERE type = 'table'`
		if b.store.Dialect() == "postgres" {
			tables = `SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()`
		}
		stored := 0
		for _, table := range storetest.Rows(t, db, tables) {
			for _, row := range storetest.Rows(t, db, `SELECT * FROM "`+table[0]+`"`) {
				text.WriteString(strings.Join(row, " ") + "\n")
				stored++
			}
		}
		for name, canary := range map[string]string{
			"an agent's token": token, "the signing secret": secret, "the password": password, "a wrong password": "Wr0ng-Secret-Password",
			"the master secret": master, "the cookie": root.cookies["__Host-z4j_session"].Value,
		} {
			if strings.Contains(text.String(), canary) {
				t.Errorf("%s stands in an answer or in a table", name)
			}
		}
		for name, canary := range map[string]string{"a password's hash": "argon2id", "the CSRF token": root.cookies["__Host-z4j_csrf"].Value, "a token's hash": auth.AgentTokenHash([]byte(master), token)} {
			if strings.Contains(shown, canary) {
				t.Errorf("%s stands in an answer", name)
			}
			if !strings.Contains(text.String(), canary) {
				t.Errorf("%s was not found in any table: this test looks in the wrong place", name)
			}
		}
		if stored < 6 {
			t.Errorf("rows looked at: got %d, want those of all tables", stored)
		}
	})
}
