package auth_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/auth"
)

// TestLessonB15: a header that is there and can't be read is refused, never skipped.
func TestLessonB15MalformedHostsAreRefused(t *testing.T) {
	hosts, err := auth.NewHosts([]string{"brain.example.com", "127.0.0.1", "::1", "[2001:db8::1]", "LOCALHOST"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, header string
		ok           bool
	}{
		{"ours", "brain.example.com", true},
		{"with port", "brain.example.com:7700", true},
		{"upper case", "BRAIN.Example.Com", true},
		{"dot at the end", "brain.example.com.", true},
		{"address", "127.0.0.1:7700", true},
		{"IPv6", "[::1]:7700", true},
		{"IPv6 written long", "[0:0:0:0:0:0:0:1]", true},
		{"IPv6 without port", "[2001:DB8::1]", true},
		{"absent", "", true},
		{"another", "evil.example.com", false},
		{"subdomain", "x.brain.example.com", false},
		{"ours in front", "brain.example.com.evil.com", false},
		{"path", "evil/admin:80", false},
		{"path behind ours", "brain.example.com/x", false},
		{"behind the bracket", "[::1]x", false},
		{"bracket left open", "[::1", false},
		{"IPv4 in brackets", "[127.0.0.1]", false},
		{"zone", "[fe80::1%25eth0]", false},
		{"userinfo", "a@brain.example.com", false},
		{"two ports", "brain.example.com:1:2", false},
		{"empty port", "brain.example.com:", false},
		{"port that is none", "brain.example.com:http", false},
		{"port too large", "brain.example.com:99999", false},
		{"space", " brain.example.com", false},
		{"only a port", ":80", false},
		{"only a dot", ".", false},
		{"two dots at the end", "brain.example.com..", false},
		{"line break", "brain.example.com\r\nx", false},
		{"zero", "brain.example.com\x00", false},
		{"long", strings.Repeat("a", 300), false},
		{"unicode", "bräin.example.com", false},
		{"a letter that only looks like k", "127.0.0.1\u212a", false},
	} {
		if err := hosts.Allow(tt.header); (err == nil) != tt.ok || err != nil && !errors.Is(err, auth.ErrHost) {
			t.Errorf("%s: got %v, want allowed %t", tt.name, err, tt.ok)
		}
	}
	if _, err := auth.NewHosts([]string{"bad host"}); err == nil {
		t.Error("a list with a bad name: got nil, want an error that names it")
	}
}

// FuzzHost is lesson B16: no header breaks the reader, and what it takes is exactly a name or an address.
func FuzzHost(f *testing.F) {
	for _, s := range []string{"a", "a.b:1", "[::1]:80", "[::1]x", "evil/admin:80", "a:b", "[", "]", "\x00", "1.2.3.4", "\u212a.a", "-a", "a_b.c", "[::ffff:1.2.3.4]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		host, err := auth.Host(header)
		if err != nil {
			return
		}
		if host == "" || strings.ContainsAny(host, "/@?#[]% \r\n\x00") || strings.ToLower(host) != host {
			t.Errorf("%q: got %q, want a name or an address", header, host)
		}
		bare := host
		if strings.Contains(host, ":") {
			bare = "[" + host + "]"
		}
		if again, err := auth.Host(bare + ":80"); err != nil || again != host {
			t.Errorf("%q: got %q, then %q, %v; want the same", header, host, again, err)
		}
	})
}

var proxies = auth.Proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}

func TestClient(t *testing.T) {
	for _, tt := range []struct {
		name, peer string
		forwarded  []string
		want       string
	}{
		{"nobody between", "192.0.2.1:1234", nil, "192.0.2.1"},
		{"a stranger's header is not read", "192.0.2.1:1234", []string{"198.51.100.7"}, "192.0.2.1"},
		{"one proxy", "10.0.0.1:1234", []string{"198.51.100.7"}, "198.51.100.7"},
		{"two proxies", "10.0.0.1:1234", []string{"198.51.100.7, 10.0.0.2"}, "198.51.100.7"},
		{"forged on the left", "10.0.0.1:1234", []string{"1.1.1.1, 198.51.100.7"}, "198.51.100.7"},
		{"two headers are one list", "10.0.0.1:1234", []string{"1.1.1.1", "198.51.100.7"}, "198.51.100.7"},
		{"all ours: the leftmost", "10.0.0.1:1234", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"no header", "10.0.0.1:1234", nil, "10.0.0.1"},
		{"garbage ends the reading", "10.0.0.1:1234", []string{"198.51.100.7, x, 10.0.0.2"}, "10.0.0.2"},
		{"garbage next to the proxy", "10.0.0.1:1234", []string{"198.51.100.7, "}, "10.0.0.1"},
		{"with ports", "10.0.0.1:1234", []string{"198.51.100.7:99, [fd00::1]:80"}, "198.51.100.7"},
		{"IPv6", "[fd00::1]:80", []string{"2001:db8::7"}, "2001:db8::7"},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:80", []string{"::ffff:198.51.100.7"}, "198.51.100.7"},
		{"a neighbour", "[fe80::1%eth0]:80", nil, "fe80::1"},
		{"a zone is no address", "10.0.0.1:1234", []string{"fe80::1%eth0"}, "10.0.0.1"},
		{"more hops than any chain", "10.0.0.1:1234", []string{"1.1.1.1" + strings.Repeat(", 10.0.0.2", 100)}, "10.0.0.2"},
	} {
		if got := proxies.Client(tt.peer, tt.forwarded); got.String() != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
	if got := proxies.Client("@", nil); got.IsValid() {
		t.Errorf("a socket without address: got %s, want none", got)
	}
}

func FuzzForwarded(f *testing.F) {
	f.Add("10.0.0.1:1", "198.51.100.7, 10.0.0.2")
	f.Add("10.0.0.1:1", "[::1]:80,,%,")
	f.Add("192.0.2.1:1", "x")
	f.Add("[fe80::1%eth0]:1", "fe80::2%eth0")
	f.Fuzz(func(t *testing.T, peer, header string) {
		got := proxies.Client(peer, []string{header})
		if got.Is4In6() || got.Zone() != "" {
			t.Errorf("%q %q: got %s, want a plain address", peer, header, got)
		}
		if plain := proxies.Client(peer, nil); plain.IsValid() && !proxies[0].Contains(plain) && !proxies[1].Contains(plain) && plain != got {
			t.Errorf("%q %q: got %s, want the peer, which is no proxy", peer, header, got)
		}
	})
}

func TestNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"198.51.100.7": "198.51.100.7", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "2001:db8:1:2::1": "2001:db8:1:2::/64",
	} {
		if got := auth.Network(netip.MustParseAddr(in)); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
	if got := auth.Network(netip.Addr{}); got != "unknown" {
		t.Errorf("no address: got %s, want unknown", got)
	}
}

func TestLimiterSlides(t *testing.T) {
	l := auth.NewLimiter(auth.Limit{Count: 3, Per: time.Minute})
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	for _, tt := range []struct {
		second int
		ok     bool
		retry  time.Duration
	}{{0, true, 0}, {10, true, 0}, {20, true, 0}, {30, false, 30 * time.Second}, {59, false, time.Second}, {60, true, 0}, {61, false, 9 * time.Second}, {70, true, 0}} {
		if ok, retry := l.Take("k", at(tt.second)); ok != tt.ok || retry != tt.retry {
			t.Errorf("after %d s: got %t, %s; want %t, %s", tt.second, ok, retry, tt.ok, tt.retry)
		}
	}
	if ok, _ := l.Take("other", at(61)); !ok {
		t.Error("another key: got refused, want its own count")
	}
}

// TestLessonA13: refused tries don't count, so who goes on trying is let in when the window is over.
func TestLessonA13RefusalsDoNotProlong(t *testing.T) {
	l := auth.NewLimiter(auth.Limit{Count: 5, Per: time.Minute})
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for range 5 {
		l.Take("k", now)
	}
	for range 59 {
		now = now.Add(time.Second)
		if ok, _ := l.Take("k", now); ok {
			t.Fatal("let in within the window")
		}
	}
	if ok, _ := l.Take("k", now.Add(time.Second)); !ok {
		t.Error("after the window: got refused, want let in")
	}
}

// TestLessonA14: what succeeded is taken back and counts nothing.
func TestLessonA14SuccessCountsNothing(t *testing.T) {
	l := auth.NewLimiter(auth.Limit{Count: 1, Per: time.Minute})
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for range 10 {
		if ok, _ := l.Take("k", now); !ok {
			t.Fatal("refused, want room after each success")
		}
		l.Return("k", now)
	}
	if got := l.Count("k", now); got != 0 {
		t.Errorf("count: got %d, want 0", got)
	}
	l.Take("k", now)
	l.Forget("k")
	if got := l.Count("k", now); got != 0 {
		t.Errorf("count after forgetting: got %d, want 0", got)
	}
}
