package auth

import (
	"net/netip"
	"slices"
	"strings"
)

const (
	maxHops      = 32      // addresses of X-Forwarded-For that are looked at; real chains have a few
	maxForwarded = 4 << 10 // bytes of it
)

// Proxies are the networks whose X-Forwarded-For is believed.
type Proxies []netip.Prefix

// Client returns the address of whom a request comes from: the socket's peer, unless that is a trusted proxy. Then
// X-Forwarded-For is read from right to left and the first address that is no proxy of ours wins; if all are, the
// leftmost. At an entry that is no address reading ends with what is known: what stands left of it, anybody can have
// written. The zero Addr means that even the peer is unknown (a Unix socket).
func (p Proxies) Client(peer string, forwarded []string) netip.Addr {
	addr := readAddr(peer).WithZone("") // of our own socket: the rest of the address tells neighbours apart
	if !addr.IsValid() || !p.trusts(addr) {
		return addr
	}
	text := strings.Join(forwarded, ",")
	if len(text) > maxForwarded {
		text = text[len(text)-maxForwarded:]
	}
	hops := strings.Split(text, ",")
	slices.Reverse(hops)
	for _, hop := range hops[:min(len(hops), maxHops)] {
		next := readAddr(strings.TrimSpace(hop))
		if !next.IsValid() || next.Zone() != "" { // zones mean something on one machine only
			return addr
		}
		addr = next
		if !p.trusts(addr) {
			return addr
		}
	}
	return addr
}

func (p Proxies) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(p, func(n netip.Prefix) bool { return n.Contains(a) })
}

// readAddr reads an address with or without port.
func readAddr(text string) netip.Addr {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		both, err := netip.ParseAddrPort(text)
		if err != nil {
			return netip.Addr{}
		}
		addr = both.Addr()
	}
	return addr.Unmap()
}

// Network is what limits are counted by: the IPv4 address, or the /64 of an IPv6 address, as whoever has one has all
// of it.
func Network(a netip.Addr) string {
	if !a.IsValid() {
		return "unknown"
	}
	if a.Is4() {
		return a.String()
	}
	n, err := a.Prefix(64)
	if err != nil {
		return a.String()
	}
	return n.String()
}
