package auth

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// ErrHost says that a Host header can't be read, or names a host that is not ours.
var ErrHost = errors.New("host not allowed")

// Hosts are the names that requests may call the brain by.
type Hosts struct {
	names []string // as Host returns them
}

// NewHosts reads a list of names and addresses without port.
func NewHosts(names []string) (Hosts, error) {
	var h Hosts
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil && addr.Is6() {
			name = "[" + name + "]"
		}
		host, err := Host(name)
		if err != nil || host == "" {
			return Hosts{}, errors.New("allowed host " + strconv.Quote(name) + ": not a host name or address without port")
		}
		h.names = append(h.names, host)
	}
	return h, nil
}

// Allow returns nil if a Host header names one of ours, ErrHost if not or if it can't be read. An absent one, which
// only HTTP/1.0 permits, names nobody and passes.
func (h Hosts) Allow(header string) error {
	if header == "" {
		return nil
	}
	host, err := Host(header)
	if err != nil {
		return err
	}
	if !slices.Contains(h.names, host) {
		return ErrHost
	}
	return nil
}

const maxHost = 255 // bytes, with port

// Host returns the host of a Host header in lower case, without port, dot at the end and brackets. Whatever is not
// exactly a name or an address with at most a port is ErrHost: what one reader drops, another may follow.
func Host(header string) (string, error) {
	if header == "" || len(header) > maxHost || strings.ContainsFunc(header, notASCII) {
		return "", ErrHost
	}
	if header[0] == '[' {
		return hostIPv6(header)
	}
	host, port, hasPort := strings.Cut(header, ":")
	if hasPort && !validPort(port) {
		return "", ErrHost
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, notHostLetter) {
			return "", ErrHost
		}
	}
	return host, nil
}

func hostIPv6(header string) (string, error) {
	inside, after, found := strings.Cut(header[1:], "]")
	port, hasPort := strings.CutPrefix(after, ":")
	if !found || after != "" && !hasPort || hasPort && !validPort(port) {
		return "", ErrHost
	}
	addr, err := netip.ParseAddr(inside)
	if err != nil || !addr.Is6() || addr.Zone() != "" {
		return "", ErrHost
	}
	return addr.String(), nil
}

func notASCII(r rune) bool { return r > unicode.MaxASCII }

func notHostLetter(r rune) bool {
	return r > 'z' || !isLowerOrDigit(byte(r)) && r != '-' && r != '_'
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0 && port[0] != '+'
}
