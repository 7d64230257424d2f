package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
)

// CookieNames are the names of the two cookies of a session.
type CookieNames struct {
	Session string // HttpOnly: the signed id of the session
	CSRF    string // read by scripts, sent back as X-CSRF-Token
}

// Cookies returns the names that browsers tie to the exact host, or plain ones for dev, which has no TLS.
func Cookies(dev bool) CookieNames {
	if dev {
		return CookieNames{Session: "z4j_session", CSRF: "z4j_csrf"}
	}
	return CookieNames{Session: "__Host-z4j_session", CSRF: "__Host-z4j_csrf"}
}

const (
	sessionLabel  = "z4j-session-cookie-v1\x00"
	sessionIDs    = 32 // bytes: the session's id and its user's
	sessionCookie = sessionIDs + sha256.Size
)

// SessionKeys signs session cookies and opens those that an earlier secret signed.
type SessionKeys struct {
	Current  []byte
	Previous [][]byte
}

// Seal returns the value of the cookie of a session of a user. Both ids are signed, so that a session's row that was
// given to somebody else opens nothing.
func (k SessionKeys) Seal(session, user [16]byte) string {
	ids := append(session[:], user[:]...)
	return base64.RawURLEncoding.EncodeToString(append(ids, signSession(k.Current, ids)...))
}

// Open returns whose session a cookie's value names, and false if none of our secrets signed it.
func (k SessionKeys) Open(value string) (session, user [16]byte, ok bool) {
	if len(value) != base64.RawURLEncoding.EncodedLen(sessionCookie) {
		return session, user, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(value)
	if err != nil || len(b) != sessionCookie {
		return session, user, false
	}
	ids, mac := b[:sessionIDs], b[sessionIDs:]
	ok = hmac.Equal(mac, signSession(k.Current, ids))
	for _, old := range k.Previous {
		ok = ok || hmac.Equal(mac, signSession(old, ids))
	}
	if !ok {
		return session, user, false
	}
	return [16]byte(ids[:16]), [16]byte(ids[16:]), true
}

func signSession(secret, ids []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(sessionLabel))
	mac.Write(ids)
	return mac.Sum(nil)
}
