package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEnvFile(t *testing.T) {
	for _, tt := range []struct {
		text string
		want string // NAME=value, joined by |
	}{
		{"A=1\nB=2\n", "A=1|B=2"},
		{"\ufeffA=1\r\nB= two words \r\n", "A=1|B=two words"},
		{"# x\n  \n\texport A = 1 # remark\n", "A=1"},
		{"A=a#b\nB=#c\nC=\n", "A=a#b|B=|C="},
		{`A='a # "b" \n'`, `A=a # "b" \n`},
		{`A="a\tb\"\\\$" # x`, "A=a\tb\"\\$"},
		{"exported=1", "exported=1"},
		{"A=b=c", "A=b=c"},
	} {
		lines, err := parseEnvFile(tt.text)
		var got []string
		for _, l := range lines {
			got = append(got, l.name+"="+l.value)
		}
		if err != nil || strings.Join(got, "|") != tt.want {
			t.Errorf("%q: %q, %v; want %q", tt.text, strings.Join(got, "|"), err, tt.want)
		}
	}
	for _, text := range []string{"A", "1A=x", "A B=x", "=x", `A="x`, `A="x\`, `A='x'y`, `A="\q"`, "A=\xff", "export"} {
		if lines, err := parseEnvFile(text); err == nil {
			t.Errorf("%q: read as %v, want an error", text, lines)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"ab", "ab", 0}, {"ab", "ba", 1}, {"abc", "ac", 1}, {"abc", "abxc", 1}, {"abc", "xyz", 3}, {"", "abc", 3}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("%q to %q: %d, want %d", tt.a, tt.b, got, tt.want)
		}
		if got := distance(tt.b, tt.a); got != tt.want {
			t.Errorf("%q to %q: %d, want %d", tt.b, tt.a, got, tt.want)
		}
	}
}

func FuzzEnvFile(f *testing.F) {
	for _, seed := range []string{"A=1\n", "export A='x'\n", `A="\n"`, "\ufeff# x\r\nA=b # c", "A=\"x", "=", "A"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines, err := parseEnvFile(text)
		if err != nil {
			if len(err.Error()) > 100 {
				t.Errorf("error %q is long, want one that quotes nothing", err)
			}
			return
		}
		// What was read, written plainly, reads the same.
		var b strings.Builder
		for _, l := range lines {
			r := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`)
			b.WriteString(l.name + `="` + r.Replace(l.value) + "\"\n")
		}
		again, err := parseEnvFile(b.String())
		if err != nil {
			t.Fatalf("%q: %v", b.String(), err)
		}
		for i := range lines {
			lines[i].number = i + 1
		}
		if diff := cmp.Diff(lines, again, cmp.AllowUnexported(line{})); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzDatabaseURL(f *testing.F) {
	for _, seed := range []string{"sqlite:///a/b.db", "sqlite:c.db", "postgres://u:hunter2@h:1/d?sslmode=require", "postgresql+asyncpg://u:p@h/d?ssl=true", "sqlite+aiosqlite:////a.db", "postgres://u:%zz@h/d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseDatabaseURL(text, "/cwd")
		if err != nil {
			for i := 0; i+12 <= len(text); i++ {
				if part := text[i : i+12]; strings.Contains(err.Error(), part) && !strings.Contains("sqlite:///absolute/path, sqlite:relative/path, sqlite+aiosqlite:////absolute/path, postgres://user:password@host:5432/name user@/name?host=/var/run/postgresql", part) {
					t.Errorf("error %q quotes %q", err, part)
				}
			}
			return
		}
		again, err := ParseDatabaseURL(u.Reveal(), "/elsewhere")
		if err != nil {
			t.Fatalf("%q read as %q, which is refused: %v", text, u.Reveal(), err)
		}
		if again.Reveal() != u.Reveal() || again.IsSQLite() != u.IsSQLite() {
			t.Errorf("%q: %q, then %q", text, u.Reveal(), again.Reveal())
		}
		if u.held().pg != nil {
			rest := *u.held().pg
			rest.User = nil
			without := DatabaseURL{func() heldURL { return heldURL{pg: &rest} }}.String() + u.held().pg.User.Username()
			if pw, has := u.held().pg.User.Password(); has && len(pw) > 6 && strings.Contains(u.String(), pw) && !strings.Contains(without, pw) {
				t.Errorf("%q is shown with its password: %s", text, u)
			}
			u.local()
			u.encrypted()
		}
	})
}

func FuzzPublicURL(f *testing.F) {
	for _, seed := range []string{"https://b.example", "http://[::1]:7700", "https://a@b", "https://b.example/\nx", "javascript:x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.TrimSpace(text) == "" {
			return
		}
		c, err := Load(Input{Environ: []string{"Z4J_PUBLIC_URL=" + text, "Z4J_HOME=/nowhere"}, IgnoreFiles: true})
		if err != nil {
			return
		}
		if u := c.Network.PublicURL; strings.ContainsAny(u, " \t\r\n@\\?#\x00") || strings.Count(u, "/") != 2 {
			t.Errorf("%q was accepted as %q, want scheme, host and port only", text, u)
		}
	})
}
