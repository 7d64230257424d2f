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
}

// shortest is the length in bytes below which no text is a secret or an address.
const shortest = 6

var secrets = []pattern{
	{upper, "eyJ", regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*`)},                 // JSON Web Token
	{space, "earer ", regexp.MustCompile(`(?i)\bbearer +[A-Za-z0-9._~+/-]{16,}`)},                                   // Authorization
	{space, "EARER ", regexp.MustCompile(`\bBEARER +[A-Za-z0-9._~+/-]{16,}`)},                                       // the same, shouted
	{under, "k_live_", regexp.MustCompile(`\b[rsp]k_live_[A-Za-z0-9]{10,}`)},                                        // Stripe
	{under, "k_test_", regexp.MustCompile(`\b[rsp]k_test_[A-Za-z0-9]{10,}`)},                                        // Stripe
	{under, "whsec_", regexp.MustCompile(`\bwhsec_[A-Za-z0-9+/]{16,}`)},                                             // Stripe, Svix
	{dash, "xox", regexp.MustCompile(`\bxox[a-z](?:\.xox[a-z])?-[A-Za-z0-9-]{10,}`)},                                // Slack
	{dash, "xapp-", regexp.MustCompile(`\bxapp-[A-Za-z0-9-]{10,}`)},                                                 // Slack
	{slash, "hooks.slack.com/", regexp.MustCompile(`\bhooks\.slack\.com/(?:services|workflows|triggers)/[^\s"']+`)}, // Slack
	{under, "gh", regexp.MustCompile(`\bgh[pousr]_[A-Za-z0-9_]{20,}`)},                                              // GitHub
	{under, "github_pat_", regexp.MustCompile(`\bgithub_pat_[A-Za-z0-9_]{20,}`)},                                    // GitHub
	{upper, "AKIA", regexp.MustCompile(`\bAKIA[0-9A-Z]{16}\b`)},                                                     // AWS
	{upper, "ASIA", regexp.MustCompile(`\bASIA[0-9A-Z]{16}\b`)},                                                     // AWS
	{upper, "AIza", regexp.MustCompile(`\bAIza[0-9A-Za-z_-]{35}`)},                                                  // Google
	{upper, "SK", regexp.MustCompile(`\bSK[0-9a-fA-F]{32}\b`)},                                                      // Twilio
	{upper, "SG.", regexp.MustCompile(`\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}`)},                              // SendGrid
	{dash, "-----BEGIN ", regexp.MustCompile(`-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----`)},              // PEM
	{at, "://", regexp.MustCompile(`\b[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#"'@:]*:[^\s/?#"']*@`)},                       // user and password in a URL
}

var (
	email  = regexp.MustCompile(`[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}`)
	social = regexp.MustCompile(`\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b`) // US social security number
)

// hit reports whether a text whose classes are has is to be masked.
func (w *walker) hit(text []byte, has class) bool {
	if has&^odd == 0 || len(text) < shortest {
		return false
	}
	if has&dash != 0 && mayBeSocial(text) && social.Match(text) {
		return true
	}
	if has&at != 0 && w.personal && mayBeEmail(text) && email.Match(text) {
		return true
	}
	return len(text) >= shortestSecret && isSecretText(text, has)
}

// shortestSecret is the length in bytes of the shortest text that one of secrets matches: x://:@.
const shortestSecret = 6

func isSecretText(text []byte, has class) bool {
	for i := range secrets {
		p := &secrets[i]
		if has&p.has != 0 && bytes.Contains(text, []byte(p.word)) && p.re.Match(text) {
			return true
		}
	}
	return false
}

// mayBeSocial looks for two hyphens three bytes apart, which a UUID or a date has not.
func mayBeSocial(text []byte) bool {
	for i := 3; i+8 <= len(text); i++ {
		if text[i] == '-' && text[i+3] == '-' {
			return true
		}
	}
	return false
}

// mayBeEmail looks for a point behind an @.
func mayBeEmail(text []byte) bool {
	i := bytes.IndexByte(text, '@')
	return i >= 0 && bytes.IndexByte(text[i:], '.') > 0
}
