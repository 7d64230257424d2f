package auth_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/auth"
)

func TestWhatAScopeGrants(t *testing.T) {
	for _, tt := range []struct {
		name string
		have []auth.Scope
		want auth.Scope
		ok   bool
	}{
		{"itself", []auth.Scope{auth.ScopeTasksRead}, auth.ScopeTasksRead, true},
		{"writing has reading in it", []auth.Scope{auth.ScopeAgentsWrite}, auth.ScopeAgentsRead, true},
		{"reading has no writing in it", []auth.Scope{auth.ScopeAgentsRead}, auth.ScopeAgentsWrite, false},
		{"of another noun", []auth.Scope{auth.ScopeAgentsWrite}, auth.ScopeUsersRead, false},
		{"everything that has a scope", []auth.Scope{auth.ScopeAll}, auth.ScopeUsersWrite, true},
		{"nothing without a scope, even for everything", []auth.Scope{auth.ScopeAll, ""}, "", false},
		{"nothing by nothing", nil, auth.ScopeTasksRead, false},
		{"everything is not granted by less", []auth.Scope{auth.ScopeUsersWrite}, auth.ScopeAll, false},
		{"a wildcard that is none", []auth.Scope{"tasks:*", "*"}, auth.ScopeTasksRead, false},
	} {
		if got := auth.Grants(tt.have, tt.want); got != tt.ok {
			t.Errorf("%s: got %t, want %t", tt.name, got, tt.ok)
		}
	}
}

func TestAPIKeyTexts(t *testing.T) {
	key := auth.NewAPIKey()
	if len(key) != 47 || !auth.IsAPIKey(key) || auth.APIKeyPrefix(key) != key[:8] || auth.IsAPIKey(auth.NewToken()) {
		t.Errorf("got a key of %d characters with the prefix %q, want z4k_ and 43 more", len(key), auth.APIKeyPrefix(key))
	}
	const want = "4bb8325e582b9a82882861df3426b0ea4f7a29abbd367b82b2996503a655591a"
	if got := auth.APIKeyHash([]byte("a master secret of thirty-two b."), "z4k_"+"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"); got != want {
		t.Errorf("hash: got %s, want %s: HMAC-SHA256 under the master secret and the label", got, want)
	}
	if a, b := auth.APIKeyHash([]byte("one"), "x"), auth.AgentTokenHash([]byte("one"), "x"); a == b {
		t.Error("an API key and an agent's token of one text have one hash")
	}
}

func TestNetworks(t *testing.T) {
	list, refused := auth.Networks([]string{
		"192.0.2.1/24", "192.0.2.0/24", "10.0.0.1", "::ffff:10.0.0.2", "::ffff:10.1.0.0/112", "2001:DB8::1/32", "0.0.0.0/0", "::/0",
		"", "here", "192.0.2.0/33", "fe80::1%eth0", "::ffff:0:0/64", "10.0.0.1/24/8",
	})
	var got []string
	for _, n := range list {
		got = append(got, n.String())
	}
	want := []string{"192.0.2.0/24", "10.0.0.1/32", "10.0.0.2/32", "10.1.0.0/16", "2001:db8::/32", "0.0.0.0/0", "::/0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("networks: (- want, + got)\n%s", diff)
	}
	if want := []string{"", "here", "192.0.2.0/33", "fe80::1%eth0", "::ffff:0:0/64", "10.0.0.1/24/8"}; !slices.Equal(refused, want) {
		t.Errorf("refused: got %q, want %q", refused, want)
	}
}
