package redact

import (
	"regexp"
	"testing"
)

// FuzzFind compares what is written by hand with the expressions that say what it looks for.
func FuzzFind(f *testing.F) {
	email := regexp.MustCompile(`[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}`)
	social := regexp.MustCompile(`\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b`)
	password := regexp.MustCompile(`[A-Za-z0-9]://[^\s/?#"'@:]*:[^/?#"'\s@]*@`)
	for _, s := range []string{
		"ann@example.org", "@app.task", "a@b", "a@b.c", "a@b.cd", "a@.cd", "a@b..cd", "a@b.1.cd", "a@-.cd", " a@b.c1 x@y.zz", "%@b.cd", "a@b.c@d.ef",
		"123-45-6789", "1123-45-6789", "123-45-67890", "x123-45-6789", "-123-45-6789.", "123-45-678", "1-123-45-6789",
		"x://:@", "x://a:b@", "x://a@", "://a:b@", "x://a/b:c@", "x://a:b:c@", "x://a://b:c@", "x://a:\v@", "é://a:b@",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, tt := range []struct {
			name      string
			got, want bool
		}{
			{"email", findEmail(text), email.Match(text)}, {"social", findSocial(text), social.Match(text)},
		} {
			if tt.got != tt.want {
				t.Errorf("%s in %q: got %v, want %v", tt.name, text, tt.got, tt.want)
			}
		}
		if password.Match(text) && !findPassword(text) {
			t.Errorf("password in %q: not found", text)
		}
	})
}
