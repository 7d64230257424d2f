package auth_test

import (
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/auth"
)

// TestLessonC13 and C14: one function makes one account of one mailbox, at every entrance.
func TestLessonC13OneMailboxHasOneForm(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"plain", "ann@example.com", "ann@example.com"},
		{"case and space", "  Ann.Lee@Example.COM\n", "ann.lee@example.com"},
		{"full width", "ａｎｎ＠ｅｘａｍｐｌｅ．ｃｏｍ", "ann@example.com"},
		{"sharp s folds", "Straße@example.com", "strasse@example.com"},
		{"decomposed", "jose\u0301@example.com", "jos\u00e9@example.com"},
		{"IDN", "ann@Bücher.example", "ann@xn--bcher-kva.example"},
		{"IDN as punycode", "ann@xn--bcher-kva.example", "ann@xn--bcher-kva.example"},
		{"plus and signs", "a+b_c'd@example.com", "a+b_c'd@example.com"},
		{"private domain", "admin@brain.local", "admin@brain.local"},
		{"private domain of two", "root@z4j.internal", "root@z4j.internal"},
		{"no dot", "root@localhost", ""},
		{"none", "", ""},
		{"no at", "ann.example.com", ""},
		{"two ats", "ann@b@example.com", ""},
		{"no local part", "@example.com", ""},
		{"no domain", "ann@", ""},
		{"dot at the ends", ".ann@example.com", ""},
		{"two dots", "ann..lee@example.com", ""},
		{"space inside", "ann lee@example.com", ""},
		{"quotes", `"ann"@example.com`, ""},
		{"line break", "ann@example.com\r\nBcc: b@example.com", ""},
		{"zero", "an\x00n@example.com", ""},
		{"zero-width space", "an\u200bn@example.com", ""},
		{"no UTF-8", "ann\xff@example.com", ""},
		{"an address", "ann@[127.0.0.1]", ""},
		{"hyphen at the edge", "ann@-example.com", ""},
		{"empty label", "ann@example..com", ""},
		{"long local part", strings.Repeat("a", 65) + "@example.com", ""},
		{"long domain", "a@" + strings.Repeat("a.", 130) + "com", ""},
		{"very long", strings.Repeat("a", 10_000) + "@example.com", ""},
	} {
		got, err := auth.Email(tt.in)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: got %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
}

func FuzzEmail(f *testing.F) {
	for _, s := range []string{"ann@example.com", "ａｎｎ＠ｅｘａｍｐｌｅ．ｃｏｍ", "Straße@Bücher.example", "İ@example.com", "a@b@c", "\u0345@example.com", "ﬃ@xn--bcher-kva.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		once, err := auth.Email(in)
		if err != nil {
			return
		}
		twice, err := auth.Email(once)
		if err != nil || once != twice {
			t.Errorf("%q: got %q, then %q, %v; want the form to stay", in, once, twice, err)
		}
		if strings.ContainsAny(once, " \r\n\t\x00<>\"") || len(once) > 320 || strings.Count(once, "@") != 1 {
			t.Errorf("%q: got %q, want an address", in, once)
		}
	})
}
