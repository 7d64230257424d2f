package auth

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// ErrEmail says that a text is not an e-mail address that an account can have.
var ErrEmail = errors.New("not an e-mail address")

const (
	maxEmail  = 320 // bytes
	maxLocal  = 64  // bytes before the @
	maxDomain = 253 // bytes after it
)

// Email returns the one form in which an address is stored, compared and looked up. Every entrance goes through it, so
// that one mailbox is never two accounts. The domain needs a dot; private ones like example.local are as good as others.
func Email(text string) (string, error) {
	if len(text) > 4*maxEmail || !utf8.ValidString(text) {
		return "", ErrEmail
	}
	local, domain, found := strings.Cut(strings.TrimSpace(norm.NFKC.String(text)), "@")
	if !found || strings.Contains(domain, "@") {
		return "", ErrEmail
	}
	local, ok := foldLocal(local)
	if !ok || !validLocal(local) {
		return "", ErrEmail
	}
	domain, err := idna.Lookup.ToASCII(cases.Fold().String(domain))
	if err != nil || !validDomain(domain) {
		return "", ErrEmail
	}
	return local + "@" + domain, nil
}

// foldLocal folds case and composes until nothing changes any more: folding can undo a composition.
func foldLocal(local string) (string, bool) {
	for range 4 { // one round is enough but for a handful of characters
		next := norm.NFKC.String(cases.Fold().String(local))
		if next == local {
			return local, true
		}
		local = next
	}
	return "", false
}

func validLocal(local string) bool {
	if local == "" || len(local) > maxLocal || local[0] == '.' || local[len(local)-1] == '.' || strings.Contains(local, "..") {
		return false
	}
	for _, r := range local {
		switch {
		case r < utf8.RuneSelf:
			if !isLowerOrDigit(byte(r)) && !strings.ContainsRune(".!#$%&'*+-/=?^_`{|}~", r) {
				return false
			}
		case !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == utf8.RuneError:
			return false
		}
	}
	return true
}

func isLowerOrDigit(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

func validDomain(domain string) bool {
	if len(domain) > maxDomain || strings.Count(domain, ".") == 0 {
		return false
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !isLowerOrDigit(c) && c != '-' {
				return false
			}
		}
	}
	return true
}
