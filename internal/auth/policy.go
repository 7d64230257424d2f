package auth

import (
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
)

// Policy says which new passwords are good enough.
type Policy struct {
	MinLength int // characters; less than minLengthFloor counts as that
}

const (
	minLengthFloor = 8
	maxLength      = 256 // characters: more would only cost time
	longEnough     = 16  // characters from which on kinds don't matter
)

// RequiredClasses is how many of ClassNames a password of less than 16 characters needs.
const RequiredClasses = 3

// ClassNames are the kinds of characters.
func ClassNames() []string { return []string{"lowercase", "uppercase", "digit", "symbol"} }

// Codes of a WeakPassword, in the order in which they are looked for.
const (
	TooShort  = "password_too_short"
	TooLong   = "password_too_long"
	TooSimple = "password_too_simple"
	TooCommon = "password_in_breach_list"
)

// WeakPassword says why a policy refuses a password. It never holds the password.
type WeakPassword struct {
	Code    string
	Message string
}

// Error gives the message.
func (w *WeakPassword) Error() string { return w.Message }

// Min is the least length of a password in characters.
func (p Policy) Min() int { return max(p.MinLength, minLengthFloor) }

// Check returns the first *WeakPassword of the rules that password breaks, or nil.
func (p Policy) Check(password string) error {
	length := utf8.RuneCountInString(password)
	switch {
	case length < p.Min():
		return &WeakPassword{TooShort, "The password needs at least " + strconv.Itoa(p.Min()) + " characters."}
	case length > maxLength:
		return &WeakPassword{TooLong, "The password may have at most " + strconv.Itoa(maxLength) + " characters."}
	case length < longEnough && classes(password) < RequiredClasses:
		return &WeakPassword{TooSimple, "A password of less than " + strconv.Itoa(longEnough) + " characters needs at least " +
			strconv.Itoa(RequiredClasses) + " of these kinds: " + strings.Join(ClassNames(), ", ") + "."}
	case common(password):
		return &WeakPassword{TooCommon, "The password is one of those that are tried first."}
	}
	return nil
}

func classes(password string) int {
	var seen [4]bool
	for _, r := range password {
		switch {
		case unicode.IsLower(r):
			seen[0] = true
		case unicode.IsUpper(r):
			seen[1] = true
		case unicode.IsDigit(r):
			seen[2] = true
		default:
			seen[3] = true
		}
	}
	n := 0
	for _, s := range seen {
		if s {
			n++
		}
	}
	return n
}

// wellKnown are passwords that every list of guesses begins with, and the words that people hang a year on.
var wellKnown = strings.Fields(`
	password passw0rd p@ssword p@ssw0rd pa$$word pa$$w0rd passwort motdepasse contraseña secret secret123 letmein
	welcome welcome1 qwerty qwertz azerty qwertyuiop qwerty123 qwerty123456 1q2w3e4r 1q2w3e4r5t 1qaz2wsx zaq12wsx q1w2e3r4 asdfghjkl zxcvbnm
	abc123 abcd1234 abcdefgh abcdefghijkl 12345678 123456789 1234567890 123456789012 87654321 11111111 00000000 iloveyou monkey dragon
	sunshine princess football baseball superman batman trustno1 master shadow michael charlie
	admin administrator root toor changeme changeit default guest login test testing user
	spring summer autumn fall winter january february march april may june july august september october november december
	z4j celery django flask fastapi redis rabbitmq postgres worker queue dashboard company hunter2 correcthorsebatterystaple`)

const (
	firstYear = 2015 // years that are hung on a word
	lastYear  = 2029
)

// common reports whether password is, but for case, a well-known one, or a well-known word with a year, a few digits
// and signs hung on.
func common(password string) bool {
	word := cases.Fold().String(password)
	if slices.Contains(wellKnown, word) {
		return true
	}
	word = strings.TrimRightFunc(word, isSign)
	if slices.Contains(wellKnown, word) {
		return true
	}
	digits := word[len(strings.TrimRightFunc(word, isASCIIDigit)):]
	stem := strings.TrimRightFunc(strings.TrimSuffix(word, digits), isSign)
	return slices.Contains(wellKnown, stem) && (isYear(digits) || isRun(digits))
}

func isSign(r rune) bool       { return unicode.IsPunct(r) || unicode.IsSymbol(r) || unicode.IsSpace(r) }
func isASCIIDigit(r rune) bool { return '0' <= r && r <= '9' }

func isYear(digits string) bool {
	n, err := strconv.Atoi(digits)
	return err == nil && len(digits) == 4 && n >= firstYear && n <= lastYear
}

// isRun reports whether digits count up from 1, as in 1234, or repeat one digit.
func isRun(digits string) bool {
	return digits != "" && (strings.HasPrefix("1234567890", digits) || strings.Count(digits, digits[:1]) == len(digits))
}
