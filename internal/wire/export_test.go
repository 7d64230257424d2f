package wire

import "encoding/base64"

// DecodeNonce gives the random bytes of a nonce.
func DecodeNonce(text string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(text) }

// SetSeq makes s go on after seq.
func SetSeq(s *Session, seq int64) { s.seq = seq }
