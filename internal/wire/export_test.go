package wire

import "encoding/base64"

// DecodeNonce gives the random bytes of a nonce.
func DecodeNonce(text string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(text) }

// SetSeq makes s go on after seq.
func SetSeq(s *Session, seq int64) { s.seq = seq }

// ResetReplay makes s take again what it took, with the memory of an old session.
func ResetReplay(s *Session) {
	s.last = 0
	for i := range s.seen {
		s.seen[i].hash = 0
	}
}

// NonceCount is how many nonces s remembers.
func NonceCount(s *Session) int { return len(s.seen) }
