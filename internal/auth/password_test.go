package auth_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/auth"
)

var cheap = auth.Cost{Time: 1, Memory: 8, Threads: 1}

func TestAPasswordIsKnownAgain(t *testing.T) {
	p := auth.NewPasswords(auth.Policy{MinLength: 12}, cheap, 2)
	hash, err := p.New(t.Context(), "Correct-Horse-9-Battery")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=8,t=1,p=1$") {
		t.Errorf("hash: got %s, want a PHC string of argon2id", hash)
	}
	dearer := auth.NewPasswords(auth.Policy{}, auth.Cost{Time: 2, Memory: 8, Threads: 1}, 2)
	for _, tt := range []struct {
		name      string
		by        *auth.Passwords
		password  string
		ok, stale bool
	}{
		{"the right one", p, "Correct-Horse-9-Battery", true, false},
		{"a wrong one", p, "correct-horse-9-battery", false, false},
		{"an empty one", p, "", false, false},
		{"the right one at a new cost", dearer, "Correct-Horse-9-Battery", true, true},
		{"a wrong one at a new cost", dearer, "x", false, false},
	} {
		ok, stale, err := tt.by.Verify(t.Context(), hash, tt.password)
		if err != nil || ok != tt.ok || stale != tt.stale {
			t.Errorf("%s: got %t, stale %t, %v; want %t, %t", tt.name, ok, stale, err, tt.ok, tt.stale)
		}
	}
	again, err := p.New(t.Context(), "Correct-Horse-9-Battery")
	if err != nil || again == hash {
		t.Errorf("a second hash of the same password: got the same one (%v), want another salt", err)
	}
}

// TestAHashOfAnotherProgramIsRead is a known answer: made by the reference implementation of Argon2, version 19.
func TestAHashOfAnotherProgramIsRead(t *testing.T) {
	p := auth.NewPasswords(auth.Policy{}, cheap, 1)
	const hash = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	if ok, _, err := p.Verify(t.Context(), hash, "password"); err != nil || !ok {
		t.Errorf("got %t, %v; want the password to fit", ok, err)
	}
}

func TestAnUnreadableHashFitsNothing(t *testing.T) {
	p := auth.NewPasswords(auth.Policy{}, cheap, 1)
	for _, hash := range []string{
		"", "x", "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA", "$argon2id$v=16$m=8,t=1,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA",
		"$argon2id$v=19$m=99999999,t=1,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA", "$argon2id$v=19$m=8,t=99,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA",
		"$argon2id$v=19$m=8,t=1,p=0$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA", "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$",
		"$argon2id$v=19$t=1,m=8,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA", "$argon2id$v=19$m=8,t=1,p=1$!!$c29tZXNhbHRzb21lc2FsdA",
	} {
		if ok, _, err := p.Verify(t.Context(), hash, ""); ok || !errors.Is(err, auth.ErrHash) {
			t.Errorf("%q: got %t, %v; want ErrHash", hash, ok, err)
		}
	}
}

func TestPolicy(t *testing.T) {
	for _, tt := range []struct{ name, password, code string }{
		{"three kinds", "Correct9horse", ""},
		{"four kinds of another alphabet", "Пароль-хорош9", ""},
		{"long needs no kinds", "correct horse battery", ""},
		{"eleven characters", "Correct9-ho", auth.TooShort},
		{"characters are counted, not bytes", "Päßwörter9!", auth.TooShort},
		{"empty", "", auth.TooShort},
		{"256 characters", strings.Repeat("a", 256), ""},
		{"257 characters", strings.Repeat("a", 257), auth.TooLong},
		{"two kinds", "correct9horse", auth.TooSimple},
		{"a word and a year", "Password2024!", auth.TooCommon},
		{"a season and a year", "Summer-2026!!", auth.TooCommon},
		{"a product and a year", "RabbitMQ_2029", auth.TooCommon},
		{"a word and a run", "Password1234!", auth.TooCommon},
		{"a word and one digit over and over", "Welcome!11111", auth.TooCommon},
		{"a row of keys", "QwertyUiop!!!", auth.TooCommon},
		{"long and known", "CorrectHorseBatteryStaple", auth.TooCommon},
		{"a year that is none", "Summer-2031-x9", ""},
		{"too short comes before too common", "welcome1", auth.TooShort},
		{"too simple comes before too common", "password2024", auth.TooSimple},
	} {
		err := auth.Policy{MinLength: 12}.Check(tt.password)
		var weak *auth.WeakPassword
		got := ""
		if errors.As(err, &weak) {
			got = weak.Code
		}
		if got != tt.code {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.code)
		}
		if weak != nil && tt.password != "" && strings.Contains(weak.Message, tt.password) {
			t.Errorf("%s: the message quotes the password", tt.name)
		}
	}
	if got := (auth.Policy{MinLength: 3}).Min(); got != 8 {
		t.Errorf("floor: got %d, want 8", got)
	}
}

// TestLessonC1: the one function that makes a hash is the one that asks the policy.
func TestLessonC1NoHashOfAWeakPassword(t *testing.T) {
	p := auth.NewPasswords(auth.Policy{MinLength: 12}, cheap, 1)
	hash, err := p.New(t.Context(), "short")
	var weak *auth.WeakPassword
	if hash != "" || !errors.As(err, &weak) || weak.Code != auth.TooShort {
		t.Errorf("got %q, %v; want no hash and %s", hash, err, auth.TooShort)
	}
}
