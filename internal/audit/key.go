package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
)

// MinSecret is the length in bytes of the shortest audit secret.
const MinSecret = 32

// ErrShortSecret says that an audit secret can be guessed.
var ErrShortSecret = errors.New("an audit secret has at least 32 bytes")

// What is signed is marked with what it is, so that no signature serves for something else.
const (
	rowTag    = "z4j-audit-row-v1\x00"
	rotateTag = "z4j-audit-rotate-v1\x00"
)

// Key is what an audit secret gives. It never prints its secret parts. The zero Key is none.
type Key struct {
	kid string
	row []byte
	ed  ed25519.PrivateKey
}

// NewKey derives the key of a secret: the bytes as configured, but for line ends behind them.
func NewKey(secret []byte) (Key, error) {
	secret = bytes.TrimRight(secret, "\r\n")
	if len(secret) < MinSecret {
		return Key{}, ErrShortSecret
	}
	row, err1 := hkdf.Key(sha256.New, secret, nil, "z4j-audit-row", 32)
	kid, err2 := hkdf.Key(sha256.New, secret, nil, "z4j-audit-kid", 8)
	seed, err3 := hkdf.Key(sha256.New, secret, nil, "z4j-audit-checkpoint", ed25519.SeedSize)
	if err := errors.Join(err1, err2, err3); err != nil {
		return Key{}, fmt.Errorf("derive audit key: %w", err)
	}
	return Key{kid: hex.EncodeToString(kid), row: row, ed: ed25519.NewKeyFromSeed(seed)}, nil
}

// KID names the key in rows.
func (k Key) KID() string { return k.kid }

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k.kid == "" }

// RowKey returns, in hexadecimal, what an auditor is given to check rows with: it signs rows, but isn't the secret.
func (k Key) RowKey() string { return hex.EncodeToString(k.row) }

// PublicKey returns the Ed25519 key of checkpoints in base64.
func (k Key) PublicKey() string {
	if k.IsZero() {
		return ""
	}
	return base64.StdEncoding.EncodeToString(k.ed.Public().(ed25519.PublicKey))
}

// String hides the key.
func (k Key) String() string { return "audit key " + k.kid }

// GoString hides the key.
func (k Key) GoString() string { return k.String() }

// LogValue hides the key.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// sign returns row_hmac of a body.
func (k Key) sign(body []byte) string { return hex.EncodeToString(mac(k.row, rowTag, body)) }

// Proves reports whether hmac is row_hmac of body under k.
func (k Key) Proves(body []byte, rowHMAC string) bool {
	return hmac.Equal([]byte(k.sign(body)), []byte(rowHMAC))
}

// RotationProof shows that who introduces the key kid as the entry that follows prev knows the older key k.
func (k Key) RotationProof(kid, prev string) string {
	return hex.EncodeToString(mac(k.row, rotateTag, []byte(k.kid+kid+prev)))
}

func mac(key []byte, tag string, text []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(tag))
	h.Write(text)
	return h.Sum(nil)
}
