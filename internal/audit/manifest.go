package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// ErrManifestKey says that the key that signed a manifest is not at hand.
var ErrManifestKey = errors.New("the audit key that signed is not at hand")

const manifestTag = "z4j-backup/"

// SignManifest returns a note that binds the manifest of a backup to k: anyone can encrypt an archive, but only who has
// the audit secret can sign one.
func (k Key) SignManifest(instance, generation string, manifest []byte) (string, error) {
	origin := manifestTag + instance + "/" + generation
	sum := sha256.Sum256(manifest)
	return k.signNote(origin, origin+"\nsha256 "+hex.EncodeToString(sum[:])+"\nkid "+k.kid+"\n")
}

// OpenManifest says which key signed a manifest. ErrManifestKey is one that was not given; ErrNote, that the note is none
// of this manifest. Not a bit of it may differ from what SignManifest wrote.
func OpenManifest(text, instance, generation string, manifest []byte, keys []Key) (kid string, err error) {
	sum := sha256.Sum256(manifest)
	rest, ok := strings.CutPrefix(text, manifestTag+instance+"/"+generation+"\nsha256 "+hex.EncodeToString(sum[:])+"\nkid ")
	if !ok {
		return "", fmt.Errorf("open the manifest's signature: %w", ErrNote)
	}
	kid, _, _ = strings.Cut(rest, "\n")
	if !isHex(kid, 16) {
		return "", fmt.Errorf("open the manifest's signature: %w", ErrNote)
	}
	for _, k := range keys {
		if k.kid != kid {
			continue
		}
		want, err := k.SignManifest(instance, generation, manifest) // Ed25519 signs the same bytes the same way
		if err == nil && want != text {
			err = fmt.Errorf("open the manifest's signature: %w", ErrNote)
		}
		return kid, err
	}
	return kid, fmt.Errorf("open the manifest's signature: %w (key id %s)", ErrManifestKey, kid)
}
