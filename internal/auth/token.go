package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"slices"
)

const (
	agentTokenLabel = "z4j-agent-token-v1" // the public name of a derivation, not a secret
	setupTokenLabel = "z4j-setup-token-v1"

	tokenBytes = 32 // of every token; 43 characters as text
)

// NewToken mints a token: 256 random bits as 43 URL-safe characters.
func NewToken() string { return base64.RawURLEncoding.EncodeToString(random(tokenBytes)) }

// AgentTokenHash is the form in which an agent's token is stored.
func AgentTokenHash(master []byte, token string) string {
	return keyedHash(master, agentTokenLabel, token)
}

// SetupTokenHash is the form in which the one-time set-up token is stored.
func SetupTokenHash(master []byte, token string) string {
	return keyedHash(master, setupTokenLabel, token)
}

// keyedHash is HMAC-SHA256 under the master secret followed by the label of what is hashed, in hex.
func keyedHash(master []byte, label, token string) string {
	mac := hmac.New(sha256.New, append(slices.Clip(master), label...))
	mac.Write([]byte(token))
	return hex.EncodeToString(mac.Sum(nil))
}

// SameToken compares two tokens without telling by its time where they differ. An empty one is never the same.
func SameToken(a, b string) bool {
	return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}
