package api_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

func TestSetUp(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		c := b.client()
		body := func(token, email, password string) object {
			return object{"token": token, "email": email, "password": password, "display_name": "  Root  "}
		}
		got := c.post("/setup/complete", body("some-token", "root@example.com", password)).must(t, "before serve made a token", 404)
		if got.reason() != "no_active_token" {
			t.Errorf("before serve made a token: got %s", got.text)
		}
		old, token := b.token(), b.token()
		for _, tt := range []struct {
			name, token, email, password string
			status                       int
			reason                       string
		}{
			{"the token of an earlier start", old, "root@example.com", password, 404, "invalid_token"},
			{"a wrong token", "some-wrong-token", "root@example.com", password, 404, "invalid_token"},
			{"a bad address", token, "root@localhost", password, 422, "invalid_email"},
			{"a weak password", token, "root@example.com", "password", 422, "password_too_short"},
			{"a wrong token and a weak password", "some-wrong-token", "root@example.com", "password", 404, "invalid_token"},
		} {
			got := c.post("/setup/complete", body(tt.token, tt.email, tt.password)).must(t, tt.name, tt.status)
			if got.reason() != tt.reason {
				t.Errorf("%s: got %s, want the reason %s", tt.name, got.text, tt.reason)
			}
		}
		done := c.post("/setup/complete", body(token, "Root@Example.com", password)).must(t, "set-up", 200)
		user, _ := done.body["user"].(object)
		if user["email"] != "root@example.com" || user["display_name"] != "Root" || user["is_admin"] != true {
			t.Errorf("user: got %s", done.text)
		}
		project := c.get("/projects/default").must(t, "the project", 200)
		if project.body["id"] != done.body["project_id"] || project.body["name"] != "Default" {
			t.Errorf("project: got %s and %s", done.text, project.text)
		}
		again := b.client().post("/setup/complete", body(token, "eve@example.com", password)).must(t, "a second time", 409)
		if again.code() != "conflict" || again.reason() != "already_initialised" {
			t.Errorf("a second time: got %s", again.text)
		}
		b.client().get("/setup/status").must(t, "status afterwards, without credentials", 401)
		if got := c.get("/setup/status").must(t, "status afterwards", 200); got.body["first_boot"] != false {
			t.Errorf("status afterwards: got %s", got.text)
		}
	})
}

// TestLessonC14AnAddressThatSetsUpLogsIn: every entrance takes the same addresses, also those of private domains.
func TestLessonC14AnAddressThatSetsUpLogsIn(t *testing.T) {
	b := start(t, storetest.SQLite(t), nil)
	root := b.client()
	for _, email := range []string{"Admin@Brain.local", "josé@Bücher.example", "a+b@z4j.internal"} {
		if len(root.cookies) == 0 {
			root.post("/setup/complete", object{"token": b.token(), "email": email, "password": password}).must(t, email, 200)
		} else {
			root.post("/users", object{"email": email, "password": password}).must(t, email, 201)
		}
		b.client().post("/auth/login", object{"email": email, "password": password}).must(t, email, 200)
		b.client().post("/auth/login", object{"email": strings.ToUpper(email), "password": password}).must(t, email+" in capitals", 200)
	}
}

func TestASetUpTokenGetsOld(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		token := b.token()
		b.pass(15 * time.Minute)
		got := b.client().post("/setup/complete", object{"token": token, "email": "root@example.com", "password": password}).must(t, "an old token", 404)
		if got.reason() != "expired" {
			t.Errorf("got %s, want expired", got.text)
		}
	})
}

// TestLessonC2OneTokenMakesOneAccount: many at once with the right token, and one of them wins.
func TestLessonC2OneTokenMakesOneAccount(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		token := b.token()
		statuses := make(chan int)
		const many = 8
		for i := range many {
			go func() {
				c := b.client()
				c.address = fmt.Sprintf("203.0.113.%d:1", i)
				statuses <- c.post("/setup/complete", object{"token": token, "email": fmt.Sprintf("u%d@example.com", i), "password": password}).status
			}()
		}
		counts := map[int]int{}
		for range many {
			counts[<-statuses]++
		}
		if counts[200] != 1 || counts[409]+counts[404] != many-1 {
			t.Errorf("got %v, want one 200 and else 409 (or 404: the token is used up)", counts)
		}
		if got := storetest.Rows(t, storetest.DB(t, b.url), `SELECT count(*) FROM users`)[0][0]; got != "1" {
			t.Errorf("accounts: got %s, want 1", got)
		}
	})
}

// TestLessonA13A14C20C21SetUpTries: 30 wrong tokens from one network and 240 in all in 15 minutes, whatever the body is
// then; refused tries don't prolong, other mistakes and the success don't count.
func TestLessonA13A14C20C21SetUpTries(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		token := b.token()
		c := b.client()
		try := func(c *client, token, pass string) answer {
			b.pass(time.Second) // below the limit per minute
			return c.post("/setup/complete", object{"token": token, "email": "root@example.com", "password": pass})
		}
		for range 40 {
			try(c, token, "weak").must(t, "the right token and a weak password", 422)
		}
		for range 30 {
			try(c, "a-wrong-token", password).must(t, "a wrong token", 404)
		}
		got := try(c, "a-wrong-token", password).must(t, "the 31st", 429)
		if got.code() != "rate_limited" || got.header.Get("Retry-After") == "" || got.body["detail"] == nil {
			t.Errorf("the 31st: got %s %v, want rate_limited, detail and Retry-After", got.text, got.header)
		}
		c.post("/setup/complete", `{"token":1}`).must(t, "whatever the body is", 429)
		c.post("/setup/complete", `no JSON`).must(t, "whatever the body is", 429)
		try(c, token, password).must(t, "the right token from there", 429)

		strangers := 0
		for i := range 30 { // until all together had theirs
			other := b.client()
			other.address = fmt.Sprintf("[2001:db8:%x::1]:1", i)
			for range 25 {
				if try(other, "a-wrong-token", password).status == 404 {
					strangers++
				}
			}
		}
		if strangers != 240-30 {
			t.Errorf("tries in all: got %d, want 240", strangers+30)
		}
		b.pass(15 * time.Minute)
		fresh := b.token()
		try(c, fresh, password).must(t, "when the window is over", 200)
		if f := b.refusals[0]; f.Action != audit.SetupAttempt || f.Outcome != audit.Failed || f.Actor.Kind != audit.Anonymous {
			t.Errorf("recorded: got %+v, want a failed set-up attempt of an anonymous", f)
		}
	})
}

func TestAnIPv6HolderHasOneShare(t *testing.T) {
	b := start(t, storetest.SQLite(t), nil)
	b.token()
	refused := 0
	for i := range 40 {
		c := b.client()
		c.address = fmt.Sprintf("[2001:db8::%x]:1", i+1)
		if c.post("/setup/complete", object{"token": "a-wrong-token", "email": "root@example.com", "password": password}).status == 429 {
			refused++
		}
	}
	if refused != 10 {
		t.Errorf("refused of 40 tries from one /64: got %d, want 10", refused)
	}
}

// TestLessonC15TheSetUpPage: one form of ours, with a nonce, no referrer, no cache; the token is taken from the fragment.
func TestLessonC15TheSetUpPage(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		c := b.client()
		if got := c.do("GET", "/setup", nil); got.status != 404 || !strings.Contains(got.text, "Nothing to set up") {
			t.Errorf("without a token: got %d, want 404 and words", got.status)
		}
		token := b.token()
		first, second := c.do("GET", "/setup", nil).must(t, "page", 200), c.do("GET", "/setup?token="+token, nil).must(t, "page", 200)
		nonce := regexp.MustCompile(`script-src 'nonce-([A-Za-z0-9_-]{22})'`)
		csp := first.header.Get("Content-Security-Policy")
		n := nonce.FindStringSubmatch(csp)
		if n == nil || strings.Contains(csp, "unsafe") || strings.Count(first.text, `nonce="`+n[1]+`"`) != 2 {
			t.Fatalf("CSP: got %q, want the nonce of both script and style", csp)
		}
		if m := nonce.FindStringSubmatch(second.header.Get("Content-Security-Policy")); m == nil || m[1] == n[1] {
			t.Error("two pages have one nonce, want a new one each")
		}
		if strings.Contains(second.text, token) {
			t.Error("the page repeats the token, want it only in the address")
		}
		want := map[string]string{"Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "Content-Type": "text/html; charset=utf-8", "X-Frame-Options": "DENY"}
		got := map[string]string{}
		for name := range want {
			got[name] = first.header.Get(name)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("headers: (- want, + got)\n%s", diff)
		}
		if outside := regexp.MustCompile(`(src|href)="(https?:)?//`).FindString(first.text); outside != "" {
			t.Errorf("the page loads %s, want nothing from outside", outside)
		}
		c.post("/setup/complete", object{"token": token, "email": "root@example.com", "password": password}).must(t, "set-up", 200)
		c.do("GET", "/setup", nil).must(t, "afterwards", 404)
	})
}

func TestPasswordPolicyIsTold(t *testing.T) {
	b := start(t, storetest.SQLite(t), nil)
	got := b.client().get("/auth/policy").must(t, "policy", 200)
	want := `{"min_length":12,"required_character_classes":3,"character_class_names":["lowercase","uppercase","digit","symbol"]}`
	if strings.TrimSpace(got.text) != want {
		t.Errorf("got %s, want %s", got.text, want)
	}
}

func TestSetUpTokenOfAnotherSecret(t *testing.T) {
	b := start(t, storetest.SQLite(t), nil)
	token := auth.NewToken()
	if _, err := b.store.PutSetupToken(t.Context(), auth.SetupTokenHash([]byte("another master secret"), token), time.Minute); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/api/v1/setup/complete", strings.NewReader(`{"token":"`+token+`","email":"a@example.com","password":"`+password+`"}`))
	r.Host = "brain.test"
	r.Header.Set("Content-Type", "application/json")
	b.http.ServeHTTP(w, r)
	if w.Code != 404 {
		t.Errorf("got %d, want 404", w.Code)
	}
}
