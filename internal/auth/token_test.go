package auth_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/auth"
)

// TestAgentTokenHash is a known answer of the agent protocol.
func TestAgentTokenHash(t *testing.T) {
	const master, token = "correct-horse-battery-staple-0123456789", "Zk3v9QhT0uJm2Xc7LrYb5NwAeSgPdFiK1oVqHtBzM_8"
	const want = "0869639f3035adca0e13ba002062ade27ab4e1a59fc9b7f8ecbc78f38e90b491"
	if got := auth.AgentTokenHash([]byte(master), token); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTokensOfTwoKindsHaveTwoHashes(t *testing.T) {
	master := make([]byte, 32, 64) // with room behind: hashing must not write into it
	token := auth.NewToken()
	if auth.AgentTokenHash(master, token) == auth.SetupTokenHash(master, token) {
		t.Error("an agent's token and a set-up token hash alike, want a label of their own")
	}
	if !bytes.Equal(master[:64], make([]byte, 64)) {
		t.Error("hashing wrote into the caller's secret")
	}
}

func TestNewToken(t *testing.T) {
	a, b := auth.NewToken(), auth.NewToken()
	if len(a) != 43 || a == b || strings.Trim(a, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		t.Errorf("got %q and %q, want two different tokens of 43 URL-safe characters", a, b)
	}
}

func TestSameToken(t *testing.T) {
	for _, tt := range []struct {
		name, a, b string
		want       bool
	}{
		{"same", "abc", "abc", true},
		{"other", "abc", "abd", false},
		{"shorter", "abc", "ab", false},
		{"two empty ones", "", "", false},
	} {
		if got := auth.SameToken(tt.a, tt.b); got != tt.want {
			t.Errorf("%s: got %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestSessionCookie(t *testing.T) {
	session, user := [16]byte{1}, [16]byte{2}
	keys := auth.SessionKeys{Current: []byte("session-secret-0000000000000000000001")}
	value := keys.Seal(session, user)
	rotated := auth.SessionKeys{Current: []byte("session-secret-0000000000000000000002"), Previous: [][]byte{keys.Current}}
	flip := func(i int) string { return value[:i] + string("AB"[b2i(value[i] == 'A')]) + value[i+1:] }
	for _, tt := range []struct {
		name  string
		keys  auth.SessionKeys
		value string
		want  bool
	}{
		{"its own", keys, value, true},
		{"after a rotation", rotated, value, true},
		{"after another rotation", auth.SessionKeys{Current: rotated.Current}, value, false},
		{"other session", keys, flip(0), false},
		{"other user", keys, flip(30), false},
		{"other signature", keys, flip(80), false},
		{"cut", keys, value[:len(value)-1], false},
		{"longer", keys, value + "A", false},
		{"empty", keys, "", false},
		{"no base64", keys, strings.Repeat("%", len(value)), false},
	} {
		s, u, ok := tt.keys.Open(tt.value)
		if ok != tt.want || ok && (s != session || u != user) {
			t.Errorf("%s: got %t, want %t", tt.name, ok, tt.want)
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func FuzzSessionCookie(f *testing.F) {
	keys := auth.SessionKeys{Current: []byte("session-secret-0000000000000000000001"), Previous: [][]byte{[]byte("old")}}
	f.Add(keys.Seal([16]byte{1}, [16]byte{2}))
	f.Add("")
	f.Add("eyJzaWQiOiJ4In0.abc.def")
	f.Fuzz(func(t *testing.T, value string) {
		session, user, ok := keys.Open(value)
		if ok && keys.Seal(session, user) != value && (auth.SessionKeys{Current: []byte("old")}).Seal(session, user) != value {
			t.Errorf("%q: opened, want only what we sealed", value)
		}
	})
}

func TestCookieNames(t *testing.T) {
	if got := auth.Cookies(false); !strings.HasPrefix(got.Session, "__Host-") || !strings.HasPrefix(got.CSRF, "__Host-") {
		t.Errorf("got %v, want names tied to the host", got)
	}
	if got := auth.Cookies(true); got.Session != "z4j_session" || got.CSRF != "z4j_csrf" {
		t.Errorf("in dev: got %v, want names that work without TLS", got)
	}
}
