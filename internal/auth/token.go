package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
)

const (
	agentTokenLabel = "z4j-agent-token-v1" // the public name of a derivation, not a secret
	setupTokenLabel = "z4j-setup-token-v1"
	apiKeyLabel     = "z4j-api-key-v1"

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

const (
	apiKeyMark   = "z4k_" // begins every API key, so that it is known wherever it leaks to
	apiKeyPrefix = 8      // characters of a key that lists show
)

// NewAPIKey mints an API key: z4k_ and a token.
func NewAPIKey() string { return apiKeyMark + NewToken() }

// IsAPIKey reports whether a text is meant to be an API key, good or not.
func IsAPIKey(text string) bool { return strings.HasPrefix(text, apiKeyMark) }

// APIKeyPrefix is the part of a key that may be shown: it tells a person's keys apart and opens nothing.
func APIKeyPrefix(key string) string { return key[:min(apiKeyPrefix, len(key))] }

// APIKeyHash is the form in which an API key is stored.
func APIKeyHash(master []byte, key string) string { return keyedHash(master, apiKeyLabel, key) }

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
