package redact

import (
	"log/slog"
	"strings"
)

// secretKeys are the names whose value is masked whatever it is: in lower case, with _ for -.
var secretKeys = set(
	"password", "password_confirmation", "password_hash", "passwd", "pwd", "old_password", "new_password", "current_password",
	"secret", "secrets", "client_secret", "webhook_secret", "session_secret", "hmac_secret",
	"token", "access_token", "refresh_token", "id_token", "api_token", "bearer_token", "session_token", "csrf_token",
	"api_key", "apikey", "x_api_key", "authorization", "proxy_authorization", "auth", "credentials", "cookie", "set_cookie",
	"private_key", "ssn", "social_security", "social_security_number", "credit_card", "credit_card_number", "card_number", "cvv", "cvc",
)

// identityKeys name what an event is about.
var identityKeys = set(
	"id", "kind", "engine", "scheduler", "task_id", "task_name", "name", "queue", "worker", "worker_name", "worker_id", "hostname",
	"parent_task_id", "root_task_id", "occurred_at",
)

const longestKey = 22 // bytes: the longest of secretKeys

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// starts has the first letters of secretKeys, by length: nearly every other key is told apart here.
var starts = func() (t [longestKey + 1]uint32) {
	for name := range secretKeys {
		t[len(name)] |= 1 << (name[0] - 'a')
	}
	return t
}()

// isSecret reports whether key is the name of a secret, in any case and with - for _.
func isSecret(key []byte) bool {
	if len(key) == 0 || len(key) > longestKey {
		return false
	}
	first := key[0] | 0x20
	if first < 'a' || first > 'z' || starts[len(key)]&(1<<(first-'a')) == 0 {
		return false
	}
	var low [longestKey]byte
	for i, c := range key {
		switch {
		case 'A' <= c && c <= 'Z':
			c |= 0x20
		case c == '-':
			c = '_'
		}
		low[i] = c
	}
	return secretKeys[string(low[:len(key)])]
}

func isIdentity(key []byte) bool { return identityKeys[string(key)] }

// Key reports whether name is the name of a secret.
func Key(name string) bool { return isSecret([]byte(name)) }

// logSuffixes end the names of settings and attributes that are secrets.
var logSuffixes = []string{"_secret", "_secrets", "_password", "_token", "_api_key", "_private_key", "signing_key", "_cookie", "_credentials"}

// Attr masks secrets in log attributes; it is a slog.HandlerOptions.ReplaceAttr. An attribute with a secret's name loses
// its value; in other texts and in errors only what looks like a secret goes, so that the rest can be read.
func Attr(_ []string, a slog.Attr) slog.Attr {
	if isLogSecret(a.Key) {
		return slog.String(a.Key, Mask)
	}
	text := ""
	v := a.Value.Resolve()
	if err, ok := v.Any().(error); ok {
		text = errorText(err)
	} else if v.Kind() == slog.KindString {
		text = v.String()
	}
	if masked := Secrets(text); masked != text {
		return slog.String(a.Key, masked)
	}
	return a
}

// errorText survives errors that are typed nil pointers.
func errorText(err error) (s string) {
	defer func() {
		if recover() != nil {
			s = ""
		}
	}()
	return err.Error()
}

func isLogSecret(key string) bool {
	if Key(key) {
		return true
	}
	low := strings.ReplaceAll(strings.ToLower(key), "-", "_")
	for _, s := range logSuffixes {
		if strings.HasSuffix(low, s) {
			return true
		}
	}
	return false
}

// Secrets masks in s just what looks like a secret and leaves the rest.
func Secrets(s string) string {
	text := []byte(s)
	has := classOf(text)
	if !isSecretText(text, has) {
		return s
	}
	for i := range secrets {
		if has&secrets[i].has != 0 {
			text = secrets[i].re.ReplaceAllLiteral(text, []byte(Mask))
		}
	}
	return string(text)
}
