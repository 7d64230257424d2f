package wire

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The names of the two derivations; both are public.
const (
	signingLabel = "z4j-project-secret-v1:"
	bearerLabel  = "z4j-agent-token-v1"
)

// tokenBytes is the length of a bearer token; as text it has 43 characters.
const tokenBytes = 32

// ProjectSecret derives the 32 bytes that sign a project's frames from the master secret and the project's UUID.
func ProjectSecret(master string, project [16]byte) []byte {
	mac := hmac.New(sha256.New, []byte(master))
	mac.Write([]byte(signingLabel))
	// The first three fields stand in little-endian order, as existing installations have them.
	p := project
	p[0], p[1], p[2], p[3] = p[3], p[2], p[1], p[0]
	p[4], p[5] = p[5], p[4]
	p[6], p[7] = p[7], p[6]
	mac.Write(p[:])
	return mac.Sum(nil)
}

// TokenHash is the form in which a bearer token is stored and looked up.
func TokenHash(master, token string) string {
	mac := hmac.New(sha256.New, []byte(master+bearerLabel))
	mac.Write([]byte(token))
	return hex.EncodeToString(mac.Sum(nil))
}

// NewToken mints a bearer token from 32 bytes of random, or of crypto/rand if that is nil.
func NewToken(random io.Reader) (string, error) {
	if random == nil {
		random = rand.Reader
	}
	var b [tokenBytes]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("mint token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b[:]), nil
}

// Bearer returns the token of an Authorization header, or "" if it has none.
func Bearer(header string) string {
	header = strings.TrimSpace(header)
	at := strings.IndexAny(header, " \t")
	if at < 0 || !strings.EqualFold(header[:at], "bearer") {
		return ""
	}
	return strings.TrimSpace(header[at:])
}

// EncodeSecret gives a signing secret the form in which an agent is configured with it.
func EncodeSecret(secret []byte) string { return base64.URLEncoding.EncodeToString(secret) }

// DecodeSecret reads EncodeSecret's form, with or without padding and surrounding space.
func DecodeSecret(text string) ([]byte, error) {
	secret, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(text), "="))
	if err != nil {
		return nil, errors.New("signing secret: not URL-safe base64") // the cause would quote the secret
	}
	if len(secret) < MinSecret {
		return nil, fmt.Errorf("signing secret: %d bytes, want at least %d", len(secret), MinSecret)
	}
	return secret, nil
}
