package audit

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Checkpoint says what the whole chain was at one moment. Signed, it is a note in the form of C2SP tlog-checkpoint with
// lines of our own behind the root.
type Checkpoint struct {
	Instance   string // random, of the installation
	Generation string // random, of the history
	Size       int64  // rows, which is the number of the last one
	Root       [HashSize]byte
	RowHMAC    string // of the last row
	Time       int64  // µs
	Timeline   int64  // of Postgres; 0 elsewhere
	KID        string // names the key that signed
}

// ErrNote says that a text is no checkpoint and no line of ours, or that no key at hand signed it.
var ErrNote = errors.New("not a note that one of the keys signed")

const originTag = "z4j/"

// Origin names the history that c is of.
func (c *Checkpoint) Origin() string { return originTag + c.Instance + "/" + c.Generation }

func (c *Checkpoint) text() string {
	return c.Origin() + "\n" + strconv.FormatInt(c.Size, 10) + "\n" + base64.StdEncoding.EncodeToString(c.Root[:]) + "\n" +
		"time " + formatTime(c.Time) + "\ntimeline " + strconv.FormatInt(c.Timeline, 10) + "\nrow_hmac " + c.RowHMAC + "\nkid " + c.KID + "\n"
}

// PublicKeys are the public keys of keys, with which their notes are opened.
func PublicKeys(keys []Key) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = k.PublicKey()
	}
	return out
}

// SignCheckpoint returns the note of c, signed with k.
func (k Key) SignCheckpoint(c Checkpoint) (string, error) {
	c.KID = k.kid
	if parsed, err := parseCheckpoint(c.text()); err != nil || parsed != c {
		return "", fmt.Errorf("sign checkpoint of %d rows: %w", c.Size, ErrNote)
	}
	return k.signNote(c.Origin(), c.text())
}

// OpenCheckpoint reads a note that one of the keys signed, which are given as Key.PublicKey writes them.
func OpenCheckpoint(text string, publicKeys ...string) (Checkpoint, error) {
	body, err := openNote(text, publicKeys)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("open checkpoint: %w", err)
	}
	c, err := parseCheckpoint(body)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("open checkpoint: %w", err)
	}
	return c, nil
}

// parseCheckpoint takes exactly what Checkpoint.text writes.
func parseCheckpoint(text string) (c Checkpoint, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 8 {
		return c, ErrNote
	}
	bad := false
	field := func(i int, name string) string {
		value, ok := strings.CutPrefix(lines[i], name)
		bad = bad || !ok
		return value
	}
	integer := func(s string) int64 {
		n, err := strconv.ParseInt(s, 10, 64)
		bad = bad || err != nil || n < 0 || n > maxInteger
		return n
	}
	c.Instance, c.Generation, _ = strings.Cut(field(0, originTag), "/")
	c.Size = integer(lines[1])
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	bad = bad || err != nil || len(root) != HashSize
	copy(c.Root[:], root)
	t, err := time.Parse(timeLayout, field(3, "time "))
	bad = bad || err != nil
	c.Time = t.UnixMicro()
	c.Timeline = integer(field(4, "timeline "))
	c.RowHMAC = field(5, "row_hmac ")
	c.KID = field(6, "kid ")
	if bad || !isHex(c.Instance, 32) || !isHex(c.Generation, 32) || !isHex(c.RowHMAC, 64) || !isHex(c.KID, 16) || c.text() != text {
		return Checkpoint{}, ErrNote
	}
	return c, nil
}

// isHex reports whether s is n lower-case hexadecimal digits.
func isHex(s string, n int) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(s) == n && hex.EncodeToString(raw) == s
}

// noteSigner signs notes; the name of the key is the origin of what it signs, as tlog-checkpoint wants it.
type noteSigner struct {
	note.Verifier

	key ed25519.PrivateKey
}

// Sign implements note.Signer.
func (s noteSigner) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

func (k Key) signNote(origin, text string) (string, error) {
	if k.IsZero() {
		return "", errors.New("sign note: there is no audit key")
	}
	v, err := noteVerifier(origin, k.PublicKey())
	if err != nil {
		return "", fmt.Errorf("sign note: %w", err)
	}
	out, err := note.Sign(&note.Note{Text: text}, noteSigner{v, k.ed})
	if err != nil {
		return "", fmt.Errorf("sign note: %w", err)
	}
	return string(out), nil
}

func noteVerifier(origin, publicKey string) (note.Verifier, error) {
	raw, err := base64.StdEncoding.DecodeString(publicKey)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%q is no public key as `z4j-brain audit pubkey` prints them", publicKey)
	}
	text, err := note.NewEd25519VerifierKey(origin, raw)
	if err != nil {
		return nil, err
	}
	return note.NewVerifier(text)
}

// openNote returns the text of a note if one of the keys signed it under the name that its first line says.
func openNote(text string, publicKeys []string) (string, error) {
	origin, _, _ := strings.Cut(text, "\n")
	var known []note.Verifier
	for _, publicKey := range publicKeys {
		v, err := noteVerifier(origin, publicKey)
		if err != nil {
			if _, bad := noteVerifier("z4j", publicKey); bad != nil {
				return "", bad
			}
			return "", ErrNote // the origin is no name
		}
		known = append(known, v)
	}
	n, err := note.Open([]byte(text), note.VerifierList(known...))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNote, err)
	}
	return n.Text, nil
}
