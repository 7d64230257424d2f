package redact

import (
	"bytes"
	"regexp"
)

// pattern finds one kind of secret. The classes and the word tell cheaply that it is not there; the expression decides.
type pattern struct {
	has  class
	word string
	re   *regexp.Regexp
	find func(text []byte) bool // in place of the expression, where it is asked often
}

// shortest is the length in bytes below which no text is a secret or an address.
const shortest = 6

var secrets = []pattern{
	{upper, "eyJ", regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*`), nil},                 // JSON Web Token
	{space, "earer ", regexp.MustCompile(`(?i)\bbearer +[A-Za-z0-9._~+/-]{16,}`), nil},                                   // Authorization
	{space, "EARER ", regexp.MustCompile(`\bBEARER +[A-Za-z0-9._~+/-]{16,}`), nil},                                       // the same, shouted
	{under, "k_live_", regexp.MustCompile(`\b[rsp]k_live_[A-Za-z0-9]{10,}`), nil},                                        // Stripe
	{under, "k_test_", regexp.MustCompile(`\b[rsp]k_test_[A-Za-z0-9]{10,}`), nil},                                        // Stripe
	{under, "z4k_", regexp.MustCompile(`\bz4k_[A-Za-z0-9_-]{32,}`), nil},                                                 // our own API keys
	{under, "whsec_", regexp.MustCompile(`\bwhsec_[A-Za-z0-9+/]{16,}`), nil},                                             // Stripe, Svix
	{dash, "xox", regexp.MustCompile(`\bxox[a-z](?:\.xox[a-z])?-[A-Za-z0-9-]{10,}`), nil},                                // Slack
	{dash, "xapp-", regexp.MustCompile(`\bxapp-[A-Za-z0-9-]{10,}`), nil},                                                 // Slack
	{slash, "hooks.slack.com/", regexp.MustCompile(`\bhooks\.slack\.com/(?:services|workflows|triggers)/[^\s"']+`), nil}, // Slack
	{under, "gh", regexp.MustCompile(`\bgh[pousr]_[A-Za-z0-9_]{20,}`), nil},                                              // GitHub
	{under, "github_pat_", regexp.MustCompile(`\bgithub_pat_[A-Za-z0-9_]{20,}`), nil},                                    // GitHub
	{upper, "AKIA", regexp.MustCompile(`\bAKIA[0-9A-Z]{16}\b`), nil},                                                     // AWS
	{upper, "ASIA", regexp.MustCompile(`\bASIA[0-9A-Z]{16}\b`), nil},                                                     // AWS
	{upper, "AIza", regexp.MustCompile(`\bAIza[0-9A-Za-z_-]{35}`), nil},                                                  // Google
	{upper, "SK", regexp.MustCompile(`\bSK[0-9a-fA-F]{32}\b`), nil},                                                      // Twilio
	{upper, "SG.", regexp.MustCompile(`\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}`), nil},                              // SendGrid
	{dash, "-----BEGIN ", regexp.MustCompile(`-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----`), nil},              // PEM
	{at, "://", regexp.MustCompile(`\b[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#"'@:]*:[^\s/?#"']*@`), findPassword},              // user and password in a URL
}

// hit reports whether a text whose classes are has is to be masked.
func (w *walker) hit(text []byte, has class) bool {
	if has&^odd == 0 || len(text) < shortest {
		return false
	}
	if has&dash != 0 && findSocial(text) || has&at != 0 && w.personal && findEmail(text) {
		return true
	}
	return len(text) >= shortestSecret && isSecretText(text, has)
}

// shortestSecret is the length in bytes of the shortest text that one of secrets matches: x://:@.
const shortestSecret = 6

func isSecretText(text []byte, has class) bool {
	for i := range secrets {
		p := &secrets[i]
		if has&p.has != 0 && bytes.Contains(text, []byte(p.word)) && p.match(text) {
			return true
		}
	}
	return false
}

func (p *pattern) match(text []byte) bool {
	if p.find != nil {
		return p.find(text)
	}
	return p.re.Match(text)
}

// findSocial looks for a US social security number, \b[0-9]{3}-[0-9]{2}-[0-9]{4}\b.
func findSocial(text []byte) bool {
	for i := 3; i+8 <= len(text); i++ {
		if text[i] == '-' && text[i+3] == '-' && areDigits(text[i-3:i]) && areDigits(text[i+1:i+3]) && areDigits(text[i+4:i+8]) &&
			(i == 3 || !isWord(text[i-4])) && (i+8 == len(text) || !isWord(text[i+8])) {
			return true
		}
	}
	return false
}

func areDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func isAlnum(c byte) bool { return isLetter(c) || c >= '0' && c <= '9' }

func isWord(c byte) bool { return isAlnum(c) || c == '_' }

// findEmail looks for an e-mail address, [A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}: tracebacks are
// full of decorators, and an expression takes a hundred times as long.
func findEmail(text []byte) bool {
	for from := 0; ; {
		i := bytes.IndexByte(text[from:], '@')
		if i < 0 {
			return false
		}
		i += from
		from = i + 1
		if i == 0 || !isAlnum(text[i-1]) && bytes.IndexByte([]byte("._%+-"), text[i-1]) < 0 {
			continue
		}
		if isHost(text[from:]) {
			return true
		}
	}
}

// isHost reports whether text begins with a name of at least two labels, the last one of letters.
func isHost(text []byte) bool {
	label := 0 // bytes of the label so far
	for i, c := range text {
		switch {
		case isAlnum(c) || c == '-':
			label++
		case c != '.' || label == 0:
			return false
		case i+2 < len(text) && isLetter(text[i+1]) && isLetter(text[i+2]):
			return true
		default:
			label = 0
		}
	}
	return false
}

// findPassword looks for a URL that holds a user and a password.
func findPassword(text []byte) bool {
	for from := 0; ; {
		i := bytes.Index(text[from:], []byte("://"))
		if i < 0 {
			return false
		}
		i += from
		from = i + len("://")
		if i > 0 && isAlnum(text[i-1]) && isUserPassword(text[from:]) {
			return true
		}
	}
}

// isUserPassword reports whether text begins with user:password@; either may be empty.
func isUserPassword(text []byte) bool {
	colon := false
	for _, c := range text {
		switch c {
		case '@':
			return colon
		case ':':
			colon = true
		case '/', '?', '#', '"', '\'', ' ', '\t', '\n', '\r', '\f':
			return false
		}
	}
	return false
}
