package auth

import (
	"net/netip"
	"slices"
	"strings"
)

// Scope is one thing that an API key may be used for. What its owner may not do, no scope permits.
type Scope string

// The scopes. Each is asked for by a route of the API at least; a new one gets a line in the list below.
const (
	ScopeHomeRead      Scope = "home:read"
	ScopeProjectsRead  Scope = "projects:read"
	ScopeProjectsWrite Scope = "projects:write"
	ScopeTasksRead     Scope = "tasks:read" // attempts, events and numbers too
	ScopeWorkersRead   Scope = "workers:read"
	ScopeQueuesRead    Scope = "queues:read"
	ScopeAgentsRead    Scope = "agents:read"
	ScopeAgentsWrite   Scope = "agents:write"
	ScopeAuditRead     Scope = "audit:read"
	ScopeMembersRead   Scope = "memberships:read"
	ScopeMembersWrite  Scope = "memberships:write"
	ScopeUsersRead     Scope = "users:read"
	ScopeUsersWrite    Scope = "users:write"
	ScopeBackupsRead   Scope = "backups:read"
	ScopeBackupsWrite  Scope = "backups:write"
	ScopeHealthRead    Scope = "health:read"
	ScopeAll           Scope = "admin:*" // every route that has a scope
)

// ScopeRule is what is to be known of a scope.
type ScopeRule struct {
	Scope     Scope
	AdminOnly bool // only a global administrator may make keys with it
}

// Scopes is the whole list.
func Scopes() []ScopeRule {
	return []ScopeRule{
		{ScopeHomeRead, false},
		{ScopeProjectsRead, false},
		{ScopeProjectsWrite, true},
		{ScopeTasksRead, false},
		{ScopeWorkersRead, false},
		{ScopeQueuesRead, false},
		{ScopeAgentsRead, false},
		{ScopeAgentsWrite, false},
		{ScopeAuditRead, false},
		{ScopeMembersRead, false},
		{ScopeMembersWrite, false},
		{ScopeUsersRead, true},
		{ScopeUsersWrite, true},
		{ScopeBackupsRead, true},
		{ScopeBackupsWrite, true},
		{ScopeHealthRead, false},
		{ScopeAll, true},
	}
}

// Grants reports whether a key with the scopes have may use a route that asks for want. x:write has x:read in it. A
// route that asks for nothing is out of every key's reach.
func Grants(have []Scope, want Scope) bool {
	if want == "" {
		return false
	}
	if slices.Contains(have, want) || slices.Contains(have, ScopeAll) {
		return true
	}
	noun, read := strings.CutSuffix(string(want), ":read")
	return read && slices.Contains(have, Scope(noun+":write"))
}

// Grantable sorts the names of scopes for a key that is made by a global administrator or another account: those that it
// may have, each once and in the order of the list, and those that it may not, because they don't exist or are an
// administrator's.
func Grantable(names []string, admin bool) (granted []Scope, refused []string) {
	granted = []Scope{}
	rules := Scopes()
	for _, name := range names {
		at := slices.IndexFunc(rules, func(r ScopeRule) bool { return string(r.Scope) == name })
		if at < 0 || rules[at].AdminOnly && !admin {
			refused = append(refused, name)
		}
	}
	for _, r := range rules {
		if slices.Contains(names, string(r.Scope)) && (admin || !r.AdminOnly) {
			granted = append(granted, r.Scope)
		}
	}
	return granted, refused
}

// Networks reads a list of networks (CIDR) or single addresses in their one form; refused names what is neither.
func Networks(texts []string) (list []netip.Prefix, refused []string) {
	for _, text := range texts {
		n, err := netip.ParsePrefix(text)
		if err != nil {
			a, err := netip.ParseAddr(text)
			if err != nil || a.Zone() != "" {
				refused = append(refused, text)
				continue
			}
			n = netip.PrefixFrom(a, a.BitLen())
		}
		if n.Addr().Is4In6() {
			if n.Bits() < 96 {
				refused = append(refused, text) // it would be more than all of IPv4
				continue
			}
			n = netip.PrefixFrom(n.Addr().Unmap(), n.Bits()-96)
		}
		if n = n.Masked(); !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	return list, refused
}
