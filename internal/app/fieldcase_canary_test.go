package app_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/z4j-go/z4j/internal/app/apptest"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/wire"
)

// The secrets that are sent in every way and must be found nowhere: in no column, no line of the log, no answer.
const (
	canaryWord   = "Zk7Qcanary42vXw9"
	canaryUpper  = "QZ7CANARYQZ7CANA"                 // what follows AKIA
	canaryHex    = "ca9a57ca9a57ca9a57ca9a57ca9a57ca" // what follows SK
	canaryDigits = "7731998877319988"                 // a secret that is a number
	canarySocial = "932-71-4453"
)

// secretKeys are names whose value is a secret whatever it is.
func secretKeys() []string {
	return []string{
		"password", "Password", "PASSWORD_CONFIRMATION", "password_hash", "passwd", "pwd", "old_password", "new-password", "secret", "secrets",
		"client_secret", "webhook_secret", "token", "access_token", "refresh-token", "id_token", "api_token", "bearer_token", "session_token", "api_key",
		"apikey", "X-Api-Key", "x_api_key", "Authorization", "auth", "credentials", "cookie", "Set-Cookie", "ssn", "social_security",
		"social_security_number", "credit_card", "credit_card_number", "card_number", "cvv", "cvc",
	}
}

// secretTexts are texts that are secrets whatever their key.
func secretTexts() []string {
	return []string{
		"eyJhbGciOiJIUzI1NiJ9." + canaryWord + canaryWord + "." + canaryWord,
		"Authorization: Bearer " + canaryWord + canaryWord,
		"sk_live_" + canaryWord, "rk_test_" + canaryWord, "xoxb-1234567890-" + canaryWord, "ghp_" + canaryWord + canaryWord,
		"AKIA" + canaryUpper, "ASIA" + canaryUpper, "AIza" + (canaryWord + canaryWord + canaryWord)[:35], "SK" + canaryHex,
		"SG." + canaryWord + canaryWord + "." + canaryWord + canaryWord,
		"https://hooks.slack.com/services/T00/B00/" + canaryWord,
		"postgres://admin:" + canaryWord + "@db.example.com:5432/shop", "redis://:" + canaryWord + "@cache:6379/0", "amqp://u:" + canaryWord + "@mq//",
		"-----BEGIN RSA PRIVATE KEY-----\n" + canaryWord + "\n-----END RSA PRIVATE KEY-----",
		"mail to " + canaryWord + "@example.com", "number " + canarySocial,
		"could not connect to postgres://admin:" + canaryWord + "@db/shop: timed out",
	}
}

// nest is everything secret, at several depths, beside what is to be kept.
func nest() map[string]any {
	inner := map[string]any{"kept": "harmless"}
	for i, key := range secretKeys() {
		inner[key] = []any{canaryWord, json.Number(canaryDigits), []any{canaryWord}, map[string]any{"any": canaryWord}}[i%4]
	}
	texts := []any{}
	for _, text := range secretTexts() {
		texts = append(texts, text, "é "+text, map[string]any{"note": text})
	}
	return map[string]any{"kept": "harmless", "list": []any{inner, []any{inner}}, "texts": texts, "inner": map[string]any{"inner": inner}}
}

// secretEvents are events of all sorts with secrets wherever data may stand.
func secretEvents(t testing.TB) []string {
	t.Helper()
	var all []string
	add := func(kind, task string, more map[string]any) {
		data := map[string]any{"task_name": "shop.pay", "queue": "pay", "worker": "celery@n1"}
		maps.Copy(data, more)
		e := map[string]any{
			"kind": kind, "engine": "celery", "task_id": task, "data": data, "password": canaryWord, "extra": nest(),
			"id": fmt.Sprintf("0b8f7a52-51f0-4d5e-9d0c-%012d", len(all)), "occurred_at": noon.Add(-minute).Format("2006-01-02T15:04:05.000000Z07:00"),
		}
		if kind == "" {
			delete(e, "kind")
		}
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(text))
	}
	everything := map[string]any{"args": []any{nest()}, "kwargs": nest(), "description": nest(), "unheard_of": nest(), "token": canaryWord, "tags": []string{secretTexts()[1]}}
	add("task.received", "c-received", everything)
	add("task.started", "c-received", everything)
	add("task.succeeded", "c-success", map[string]any{"result": nest()})
	for i, text := range secretTexts() {
		task := fmt.Sprintf("c-failed-%d", i)
		add("task.failed", task, map[string]any{"exception": text, "exception_message": text, "traceback": "line\n" + text, "result": text, "reason": text})
		add("task.retried", task+"-retry", map[string]any{"reason": text})
		add("task.succeeded", task+"-result", map[string]any{"result": text, "args": text, "kwargs": text})
	}
	add("task.started", "c-hearsay", nil)
	add("task.succeeded", "c-hearsay", nil)
	add("task.failed", "c-hearsay", map[string]any{"worker": "celery@n9", "exception": secretTexts()[12], "traceback": secretTexts()[12]}) // kept in a side row
	add("task.unheard_of", "c-unknown", everything)
	add("worker.online", "", everything)
	add("", "c-dead", everything)                        // a dead letter: no kind
	add("task.received", "", everything)                 // a dead letter: no task
	all = append(all, `"redis://:`+canaryWord+`@cache"`) // a dead letter: no object
	return all
}

// secretHealth is a heartbeat's adapter_health with secrets.
func secretHealth(t testing.TB) map[string]string {
	t.Helper()
	conf := map[string]any{"broker_url": "amqp://u:" + canaryWord + "@mq//", "result_backend": "redis://:" + canaryWord + "@cache/1", "timezone": "UTC", "password": canaryWord}
	details, err := json.Marshal(map[string]any{"celery@n1": map[string]any{
		"stats":  map[string]any{"pool": map[string]any{"max-concurrency": 4}, "broker": map[string]any{"password": canaryWord, "uri": "amqp://u:" + canaryWord + "@mq//"}},
		"active": []any{map[string]any{"id": "x", "args": nest(), "kwargs": nest()}}, "active_queues": []any{map[string]any{"name": "pay", "token": canaryWord}},
		"registered": []any{"shop.pay"}, "conf": conf,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"celery.worker_details": string(details), "celery.queue_depths": `{"pay":3}`, "celery.broker_type": "redis",
		"celery.broker_error": secretTexts()[12], "celery.error": secretTexts()[18], "celery.password": canaryWord,
	}
}

func TestNoSecretOfAnAgentIsKeptLoggedOrShown(t *testing.T) {
	play(t, noon, func(t *testing.T, f *field) {
		l := f.lane(t, map[string]any{"host": map[string]any{"name": "web-1", "password": canaryWord, "url": secretTexts()[12]}})
		for _, e := range secretEvents(t) {
			l.Send(e)
		}
		l.Heartbeat(secretHealth(t))
		l.Raw(wire.TypeError, "e1", `{"code":"x","message":"`+canaryWord+` postgres://u:`+canaryWord+`@h/d","fatal":false}`)
		answer, err := json.Marshal(map[string]any{"status": "failed", "error": secretTexts()[12], "result": nest()})
		if err != nil {
			t.Fatal(err)
		}
		l.Raw(wire.TypeCommandResult, "019cae6b-6748-71b7-b4d9-8da43fc35329", string(answer))
		l.Settle()
		l.until("the heartbeat and the answer to be written", func() bool {
			w := l.bare("/workers?sort=name")
			return len(w) > 0 && w[0].(map[string]any)["concurrency"] != nil
		})
		rude(t, f, l)

		// Not everything is masked: what has no secret is kept beside it.
		l.task("c-received", `{"args":[{"kept":"harmless","inner":{"inner":{"kept":"harmless","token":"[REDACTED]"}}}],"worker_name":"celery@n1"}`)
		if n := len(l.items("/refused-events")); n != 3 {
			t.Errorf("refused events: %d, want the 3 that were unusable", n)
		}

		secrets := []string{
			canaryWord, canaryUpper, canaryHex, canaryDigits, canarySocial, l.Agent.Token, wire.EncodeSecret(l.Agent.Secret), apptest.Password,
			string(storetest.Secrets.Master), string(storetest.Secrets.Audit),
		}
		search := func(where, text string) {
			t.Helper()
			for i, secret := range secrets {
				for _, form := range []string{secret, hex.EncodeToString([]byte(secret))} {
					if at := strings.Index(text, form); at >= 0 {
						t.Errorf("%s holds secret %d: …%q…", where, i, text[max(0, at-120):min(len(text), at+40)])
						return
					}
				}
			}
		}
		for path, answer := range walk(t, f, l) {
			search("GET "+path, answer)
		}
		search("the log", f.Output())
		for table, rows := range tables(t, f) {
			for _, row := range rows {
				search("table "+table, row)
			}
		}
		if path, ok := strings.CutPrefix(f.Database, "sqlite:"); ok {
			for _, file := range []string{path, path + "-wal"} {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				search("the file "+file[len(path):], string(text))
			}
		}
	})
}

// rude shows secrets where they don't belong: in refused requests and frames.
func rude(t *testing.T, f *field, l *lane) {
	t.Helper()
	f.Client.Do(http.MethodPost, "/api/v1/setup/complete", map[string]any{"token": canaryWord, "email": "a@example.com", "password": canaryWord}, http.StatusConflict, nil)
	stranger := apptest.NewClient(t, f.Base)
	stranger.Do(http.MethodPost, "/api/v1/auth/login", map[string]any{"email": apptest.Email, "password": canaryWord}, http.StatusUnauthorized, nil)
	stranger.Do(http.MethodPost, "/api/v1/auth/login", map[string]any{"email": apptest.Email, "password": "x", "token": canaryWord}, http.StatusUnprocessableEntity, nil)
	f.Client.Do(http.MethodPost, "/api/v1/auth/change-password", map[string]any{"current_password": canaryWord, "new_password": canaryWord + "-1Aa"}, http.StatusUnauthorized, nil)
	f.Client.Do(http.MethodGet, "/api/v1/projects/"+l.slug+"/tasks?cursor="+canaryWord, nil, http.StatusUnprocessableEntity, nil)
	f.Client.Do(http.MethodGet, "/api/v1/nowhere?token="+canaryWord, nil, http.StatusNotFound, nil)

	foreign := &apptest.Agent{Token: canaryWord + canaryWord, Secret: l.Agent.Secret, Now: f.Clock.Now}
	if err := foreign.Process(t, nil).TryConnect(f.Base); err != (apptest.Refused{Status: http.StatusUnauthorized}) { //nolint:errorlint // a value
		t.Errorf("an unknown token: %v, want status 401", err)
	}
	for _, garbage := range []string{`{"password":"` + canaryWord + `"`, `{"v":2,"type":"event_batch","id":"` + canaryWord + `","hmac":"` + canaryWord + `","payload":{}}`} {
		p := l.Agent.Process(t, nil)
		p.Connect(f.Base)
		p.Garbage(garbage)
		if err := p.Ended(); websocket.CloseStatus(err) < 4400 {
			t.Errorf("garbage: %v, want a close code of ours", err)
		}
	}
}

// tables are all rows of all tables, each as one text.
func tables(t *testing.T, f *field) map[string][]string {
	t.Helper()
	db := storetest.DB(t, f.Database)
	list := `SELECT name FROM sqlite_master WHERE type = 'table'`
	if f.dialect() == "postgres" {
		list = `SELECT tablename FROM pg_tables WHERE schemaname = current_schema()`
	}
	all := map[string][]string{}
	for _, row := range storetest.Rows(t, db, list) {
		for _, cells := range storetest.Rows(t, db, `SELECT * FROM "`+row[0]+`"`) {
			all[row[0]] = append(all[row[0]], strings.Join(cells, "\x1f"))
		}
	}
	for _, table := range []string{"tasks", "attempts", "events", "dead_letters", "task_payloads", "workers", "audit_log", "agents", "agent_workers", "sessions", "users"} {
		if len(all[table]) == 0 {
			t.Errorf("table %s is empty (there are %v), want rows to search", table, slices.Sorted(maps.Keys(all)))
		}
	}
	return all
}
