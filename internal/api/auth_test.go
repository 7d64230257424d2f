package api_test

import (
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/api"
	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

func TestLogInAndOut(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		b.pass(time.Minute)
		c := b.client()
		got := c.post("/auth/login", object{"email": " ROOT@Example.com", "password": password}).must(t, "login", 200)
		user, _ := got.body["user"].(object)
		if user["email"] != "root@example.com" || user["display_name"] != "root" || got.body["mfa_required"] != false || got.body["mfa_enrollment_required"] != false {
			t.Errorf("login: got %s", got.text)
		}
		me := c.get("/auth/me").must(t, "me", 200)
		if m, _ := me.body["memberships"].([]any); len(m) != 1 || m[0].(object)["project_slug"] != "default" || m[0].(object)["role"] != "admin" {
			t.Errorf("memberships: got %s", me.text)
		}
		if users := root.get("/users"); !strings.Contains(users.text, `"last_login_at":"2026-03-14T09:27:53.589793Z"`) {
			t.Errorf("last_login_at: got %s, want the time of the log-in", users.text)
		}
		c.post("/auth/logout", nil).must(t, "logout", 204)
		if len(c.cookies) != 0 {
			t.Errorf("cookies after logout: got %v, want none", c.cookies)
		}
		c.get("/auth/me").must(t, "me after logout", 401)
		root.get("/auth/me").must(t, "the other session", 200)
		b.pauses = nil
		for _, try := range []struct {
			password string
			want     int
		}{{"wrong", 401}, {"wrong", 401}, {password, 200}, {"wrong", 401}} {
			c.post("/auth/login", object{"email": "root@example.com", "password": try.password}).must(t, try.password, try.want)
		}
		want := []time.Duration{800 * time.Millisecond, 1300 * time.Millisecond, 300 * time.Millisecond, 800 * time.Millisecond}
		if diff := cmp.Diff(want, b.pauses); diff != "" {
			t.Errorf("delays; a success forgets the failures: (- want, + got)\n%s", diff)
		}
	})
}

// TestLessonC11FailedLogInsAreAlike: the answer, its delay, the work and the counting are the same whether the account
// exists or not, whatever the reason.
func TestLessonC11FailedLogInsAreAlike(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		var passwords *auth.Passwords
		b := start(t, url, func(o *api.Options) { o.Settings.Lockout, passwords = 3, o.Passwords })
		b.setUp()
		tries := func(email string) (answers []string, pauses []time.Duration) {
			for range 8 {
				c := b.client()
				b.networks++
				c.address = "203.0.113." + string(rune('0'+b.networks%10)) + ":1"
				b.pauses = nil
				before := passwords.Computed()
				got := c.post("/auth/login", object{"email": email, "password": "wrong"})
				if n := passwords.Computed() - before; n != 1 {
					t.Errorf("%s: got %d hashes computed, want 1", email, n)
				}
				answers = append(answers, http.StatusText(got.status)+" "+got.code()+" "+got.reason()+" "+got.body["message"].(string))
				pauses = append(pauses, b.pauses...)
			}
			return answers, pauses
		}
		known, knownPauses := tries("root@example.com") // the last five of these meet a locked account
		unknown, unknownPauses := tries("nobody@example.com")
		if diff := cmp.Diff(known, unknown); diff != "" {
			t.Errorf("answers for a known account (-) and an unknown one (+):\n%s", diff)
		}
		if diff := cmp.Diff(knownPauses, unknownPauses); diff != "" {
			t.Errorf("delays for a known account (-) and an unknown one (+):\n%s", diff)
		}
		ms := time.Millisecond
		want := []time.Duration{800 * ms, 1300 * ms, 2300 * ms, 4300 * ms, 5300 * ms, 5300 * ms, 5300 * ms, 5300 * ms}
		if diff := cmp.Diff(want, knownPauses); diff != "" {
			t.Errorf("delays: (- want, + got)\n%s", diff)
		}
		if got := known[0]; got != "Unauthorized unauthenticated invalid_credentials invalid_credentials" {
			t.Errorf("answer: got %q", got)
		}
		var reasons []any
		for _, f := range b.refusals {
			if f.Action != audit.AuthLogin || f.Outcome != audit.Deny || f.Actor.Kind != audit.Anonymous || f.Actor.IP == "" {
				t.Errorf("refusal: got %+v, want a denied log-in of an anonymous with address", f)
			}
			reasons = append(reasons, f.Details["reason"])
		}
		if len(reasons) != 16 || reasons[0] != "invalid_credentials" || reasons[7] != "locked" || reasons[8] != "invalid_credentials" {
			t.Errorf("recorded reasons: got %v, want the true ones", reasons)
		}
	})
}

// TestLessonA13AndC12LockOut: ten failures lock for 15 minutes, none is lost, and tries on a locked account don't prolong.
func TestLessonA13AndC12LockOut(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		b.setUp()
		try := func(password string) answer {
			b.networks++
			c := b.client()
			c.address = "203.0.113." + string(rune('0'+b.networks%10)) + ":1"
			return c.post("/auth/login", object{"email": "root@example.com", "password": password})
		}
		done := make(chan answer)
		for i := range 10 {
			go func() {
				c := b.client()
				c.address = "203.0.114." + string(rune('0'+i)) + ":1"
				done <- c.post("/auth/login", object{"email": "root@example.com", "password": "wrong"})
			}()
		}
		for range 10 {
			(<-done).must(t, "wrong password", 401)
		}
		b.pass(time.Minute)
		try(password).must(t, "the right password of a locked account", 401)
		for range 13 {
			b.pass(time.Minute)
			try("wrong").must(t, "a try while locked", 401)
		}
		b.pass(59 * time.Second)
		try(password).must(t, "just before the lock ends", 401)
		b.pass(time.Second)
		try(password).must(t, "when the lock ends", 200)
		for range 9 {
			b.pass(time.Minute)
			try("wrong").must(t, "wrong again", 401)
		}
		try(password).must(t, "after nine of ten: a success took the count back", 200)
	})
}

func TestAPasswordIsHashedAnewWhenItsCostChanged(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := start(t, url, nil)
		b.setUp()
		dearer := start(t, url, func(o *api.Options) {
			o.Passwords = auth.NewPasswords(auth.Policy{MinLength: 30}, auth.Cost{Time: 2, Memory: 8, Threads: 1}, 4) // a password that a new policy would refuse
		})
		for range 2 {
			dearer.client().post("/auth/login", object{"email": "root@example.com", "password": password}).must(t, "login", 200)
			c, err := b.store.Credential(t.Context(), "root@example.com")
			if err != nil || !strings.Contains(c.PasswordHash, "t=2") {
				t.Errorf("hash: got %s, %v; want the new cost", c.PasswordHash, err)
			}
		}
	})
}

func TestSessionsEnd(t *testing.T) {
	day := 24 * time.Hour
	each(t, nil, func(t *testing.T, b *brain) {
		b.setUp()
		for _, tt := range []struct {
			name     string
			remember bool
			steps    []time.Duration // the session is used after each
			want     int             // of the last use
		}{
			{"just in time", false, []time.Duration{30*time.Minute - time.Second}, 200},
			{"idle for 30 minutes", false, []time.Duration{30 * time.Minute}, 401},
			{"used now and then", false, []time.Duration{20 * time.Minute, 20 * time.Minute, 20 * time.Minute}, 200},
			{"remembered has no idle limit", true, []time.Duration{29 * day}, 200},
			{"remembered is not for ever", true, []time.Duration{30 * day}, 401},
		} {
			c := b.client()
			b.networks++
			c.address = "203.0.113." + string(rune('0'+b.networks%10)) + ":1"
			c.post("/auth/login", object{"email": "root@example.com", "password": password, "remember_me": tt.remember}).must(t, tt.name, 200)
			life := c.cookies["__Host-z4j_session"].MaxAge
			if want := int((7 * day).Seconds()); !tt.remember && life != want {
				t.Errorf("%s: the cookie lives %d s, want %d", tt.name, life, want)
			}
			if want := int((30 * day).Seconds()); tt.remember && life != want {
				t.Errorf("%s: the cookie lives %d s, want %d", tt.name, life, want)
			}
			got := 0
			for _, step := range tt.steps {
				b.pass(step)
				got = c.get("/auth/me").status
			}
			if got != tt.want {
				t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
			}
		}
		c := b.client()
		c.address = "203.0.115.1:1"
		c.post("/auth/login", object{"email": "root@example.com", "password": password}).must(t, "login", 200)
		for used := time.Duration(0); used < 7*day-time.Hour; used += 20 * time.Minute {
			b.pass(20 * time.Minute)
			c.get("/auth/policy")
			if used%(2*time.Hour) == 0 {
				c.get("/auth/me").must(t, "a session in steady use", 200)
			}
			c.get("/auth/me").must(t, "a session in steady use", 200)
		}
		b.pass(time.Hour)
		c.get("/auth/me").must(t, "a session of seven days, however used", 401)
	})
}

// TestLessonC18AReadKeepsTheSessionAlive: the last use is written although the request changes nothing and even if it fails,
// and not at every request.
func TestLessonC18AReadKeepsTheSessionAlive(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		c := b.setUp()
		seen := func() string {
			return storetest.Rows(t, storetest.DB(t, b.url), `SELECT max(last_seen_at) FROM sessions`)[0][0]
		}
		first := seen()
		b.pass(30 * time.Second)
		c.get("/auth/me").must(t, "me", 200)
		if got := seen(); got != first {
			t.Errorf("after half a minute: got %s, want nothing written", got)
		}
		b.pass(31 * time.Second)
		c.get("/projects/none").must(t, "a request that fails", 404)
		if got := seen(); got == first {
			t.Errorf("after a minute: got %s, want the last use", got)
		}
	})
}

func TestChangePassword(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		c := b.setUp()
		other := b.client()
		other.post("/auth/login", object{"email": "root@example.com", "password": password}).must(t, "login", 200)
		before := *c.cookies["__Host-z4j_csrf"]
		got := c.post("/auth/change-password", object{"current_password": "wrong", "new_password": "Another-Horse-7-Stable"}).must(t, "wrong", 401)
		if got.reason() != "wrong_current_password" {
			t.Errorf("wrong current password: got %s", got.text)
		}
		for _, tt := range []struct{ password, reason string }{
			{"Sh0rt!", "password_too_short"},
			{"alllowercaseab", "password_too_simple"},
			{"Password2024!", "password_in_breach_list"},
		} {
			got := c.post("/auth/change-password", object{"current_password": password, "new_password": tt.password}).must(t, tt.password, 422)
			if got.code() != "validation_error" || got.reason() != tt.reason || !strings.Contains(got.text, "new_password") || strings.Contains(got.text, tt.password+`"`) {
				t.Errorf("%s: got %s, want %s of new_password", tt.password, got.text, tt.reason)
			}
		}
		c.get("/auth/me").must(t, "nothing happened so far", 200)
		c.post("/auth/change-password", object{"current_password": password, "new_password": "Another-Horse-7-Stable"}).must(t, "change", 200)
		if c.cookies["__Host-z4j_csrf"].Value == before.Value {
			t.Error("the CSRF token stayed, want a new one")
		}
		c.get("/auth/me").must(t, "the session that changed it", 200)
		other.get("/auth/me").must(t, "every other session", 401)
		b.client().post("/auth/login", object{"email": "root@example.com", "password": password}).must(t, "the old password", 401)
		b.client().post("/auth/login", object{"email": "root@example.com", "password": "Another-Horse-7-Stable"}).must(t, "the new one", 200)
	})
}

func TestOwnSessions(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		ann, _ := b.user(root, "ann@example.com", "viewer")
		b.pass(time.Second)
		second := b.client()
		second.post("/auth/login", object{"email": "ann@example.com", "password": password}).must(t, "login", 200)
		list := ann.get("/auth/sessions").must(t, "list", 200)
		ids := between(list.text, `{"id":"`)
		if len(ids) != 2 || strings.Count(list.text, `"is_current":true`) != 1 || !strings.HasSuffix(strings.TrimSpace(list.text), `"is_current":true}]`) {
			t.Fatalf("sessions: got %s, want two, the newest first, the older one current", list.text)
		}
		root.post("/auth/sessions/"+ids[0]+"/revoke", nil).must(t, "somebody else's session", 404)
		ann.post("/auth/sessions/no-uuid/revoke", nil).must(t, "a bad id", 422)
		ann.post("/auth/sessions/"+ids[0]+"/revoke", nil).must(t, "revoke", 200)
		second.get("/auth/me").must(t, "the revoked session", 401)
		ann.post("/auth/sessions/"+ids[0]+"/revoke", nil).must(t, "revoke again", 404)
		third := b.client()
		third.post("/auth/login", object{"email": "ann@example.com", "password": password}).must(t, "login", 200)
		ann.post("/auth/sessions/revoke-others", nil).must(t, "revoke others", 200)
		third.get("/auth/me").must(t, "another session", 401)
		ann.get("/auth/me").must(t, "this session", 200)
	})
}

// between returns what stands between each start and the quote that follows it.
func between(text, start string) []string {
	var out []string
	for {
		_, rest, found := strings.Cut(text, start)
		if !found {
			return out
		}
		var one string
		one, text, _ = strings.Cut(rest, `"`)
		out = append(out, one)
	}
}

func TestTheCookieIsBoundToTheSession(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := start(t, url, nil)
		root := b.setUp()
		ann, _ := b.user(root, "ann@example.com", "viewer")
		rotated := start(t, url, func(o *api.Options) {
			o.Sessions = auth.SessionKeys{Current: []byte("new-session-secret-new-session-secret-001"), Previous: [][]byte{o.Sessions.Current}}
		})
		replaced := start(t, url, func(o *api.Options) {
			o.Sessions = auth.SessionKeys{Current: []byte("new-session-secret-new-session-secret-001")}
		})
		for _, tt := range []struct {
			name string
			b    *brain
			want int
		}{{"the brain that gave it", b, 200}, {"one that knows the secret as a previous one", rotated, 200}, {"one with another secret", replaced, 401}} {
			c := tt.b.client()
			c.cookies = maps.Clone(ann.cookies)
			if got := c.get("/auth/me").status; got != tt.want {
				t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
			}
		}
		kept := rotated.client()
		kept.cookies = maps.Clone(ann.cookies)
		kept.get("/auth/me").must(t, "a cookie of the previous secret", 200)
		if c := kept.cookies["__Host-z4j_session"]; c.Value == ann.cookies["__Host-z4j_session"].Value || !c.HttpOnly || !c.Secure || c.MaxAge != 7*24*3600 {
			t.Errorf("its answer: got %v, want a cookie under the current secret", c)
		}
		kept.b = replaced
		kept.get("/auth/me").must(t, "that cookie once the previous secret is gone", 200)
		forged := b.client()
		forged.cookies["x"] = &http.Cookie{Name: "__Host-z4j_session", Value: strings.Repeat("A", 86)}
		forged.get("/auth/me").must(t, "a forged cookie", 401)

		// A session's row that somebody gave to another account opens nothing.
		db := storetest.DB(t, url)
		if _, err := db.ExecContext(t.Context(), `UPDATE sessions SET user_id = (SELECT id FROM users WHERE email = 'root@example.com')`); err != nil {
			t.Fatal(err)
		}
		ann.get("/auth/me").must(t, "a row of another account", 401)
		if _, err := db.ExecContext(t.Context(), `UPDATE users SET is_active = (1 = 0) WHERE email = 'root@example.com'`); err != nil {
			t.Fatal(err)
		}
		root.get("/auth/me").must(t, "an account that is not active", 401)
		b.refusals = nil
		b.client().post("/auth/login", object{"email": "root@example.com", "password": password}).must(t, "a log-in to it", 401)
		if len(b.refusals) != 1 || b.refusals[0].Details["reason"] != "inactive" {
			t.Errorf("a log-in to it: got %+v recorded, want the reason inactive", b.refusals)
		}
	})
}

func TestCookies(t *testing.T) {
	for _, tt := range []struct {
		name  string
		tweak func(*api.Options)
		want  []string
	}{
		{"production", nil, []string{
			"__Host-z4j_session=…; Path=/; Max-Age=604800; HttpOnly; Secure; SameSite=Lax", "__Host-z4j_csrf=…; Path=/; Max-Age=604800; Secure; SameSite=Strict",
		}},
		{"strict", func(o *api.Options) { o.Settings.StrictCookies = true }, []string{
			"__Host-z4j_session=…; Path=/; Max-Age=604800; HttpOnly; Secure; SameSite=Strict", "__Host-z4j_csrf=…; Path=/; Max-Age=604800; Secure; SameSite=Strict",
		}},
		{"dev", func(o *api.Options) { o.Settings.Dev = true }, []string{
			"z4j_session=…; Path=/; Max-Age=604800; HttpOnly; SameSite=Lax", "z4j_csrf=…; Path=/; Max-Age=604800; SameSite=Strict",
		}},
	} {
		b := start(t, storetest.SQLite(t), tt.tweak)
		got := b.client().post("/setup/complete", object{"token": b.token(), "email": "root@example.com", "password": password}).must(t, "set-up", 200)
		var lines []string
		for _, line := range got.header.Values("Set-Cookie") {
			name, rest, _ := strings.Cut(line, "=")
			_, rest, _ = strings.Cut(rest, ";")
			lines = append(lines, name+"=…;"+rest)
		}
		if diff := cmp.Diff(tt.want, lines); diff != "" {
			t.Errorf("%s: (- want, + got)\n%s", tt.name, diff)
		}
	}
}

// TestLessonC16CSRF: every change by a cookie needs the token of that very session, whatever else is sent.
func TestLessonC16CSRF(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		other := b.client()
		other.post("/auth/login", object{"email": "root@example.com", "password": password}).must(t, "login", 200)
		body := object{"slug": "shop", "name": "Shop"}
		for _, tt := range []struct {
			name   string
			change func(*http.Request)
			status int
			reason string
		}{
			{"no token", func(r *http.Request) { r.Header.Del("X-CSRF-Token") }, 403, "csrf_mismatch"},
			{"an empty one", func(r *http.Request) { r.Header.Set("X-CSRF-Token", "") }, 403, "csrf_mismatch"},
			{"of another session", func(r *http.Request) { r.Header.Set("X-CSRF-Token", other.cookies["__Host-z4j_csrf"].Value) }, 403, "csrf_mismatch"},
			{"cookie and header changed alike", func(r *http.Request) {
				r.Header.Del("Cookie")
				r.AddCookie(root.cookies["__Host-z4j_session"])
				r.AddCookie(&http.Cookie{Name: "__Host-z4j_csrf", Value: "x"})
				r.Header.Set("X-CSRF-Token", "x")
			}, 403, "csrf_mismatch"},
			{"a bearer beside the cookie", func(r *http.Request) {
				r.Header.Del("X-CSRF-Token")
				r.Header.Set("Authorization", "Bearer z4k_x")
			}, 401, "api_key_unknown"},
			{"from another site", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403, "cross_origin"},
			{"of another origin", func(r *http.Request) { r.Header.Set("Origin", "https://evil.test") }, 403, "cross_origin"},
			{"no session", func(r *http.Request) { r.Header.Del("Cookie") }, 401, ""},
			{"from the public URL behind a proxy", func(r *http.Request) { r.Host = "example.com"; r.Header.Set("Origin", "https://brain.test") }, 201, ""},
		} {
			got := root.do("POST", "/api/v1/projects", body, tt.change)
			if got.status != tt.status || got.reason() != tt.reason {
				t.Errorf("%s: got %d %s, want %d %s", tt.name, got.status, got.text, tt.status, tt.reason)
			}
		}
		b.client().do("POST", "/api/v1/auth/login", object{"email": "root@example.com", "password": password},
			func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }).must(t, "a log-in that another site sends", 403)
	})
}
