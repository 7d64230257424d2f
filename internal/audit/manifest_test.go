package audit_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/audit"
)

func TestAManifestIsSignedByOneKeyAndNoOther(t *testing.T) {
	mine, other := manifestKey(t, "a"), manifestKey(t, "b")
	manifest := []byte(`{"format":"z4j-backup-1"}`)
	signed, err := mine.SignManifest("instance", "generation", manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name                 string
		text, instance, body string
		keys                 []audit.Key
		want                 error
	}{
		{"as it was signed", signed, "instance", string(manifest), []audit.Key{other, mine}, nil},
		{"with another manifest", signed, "instance", string(manifest) + " ", []audit.Key{mine}, audit.ErrNote},
		{"of another instance", signed, "other", string(manifest), []audit.Key{mine}, audit.ErrNote},
		{"with a key that is not at hand", signed, "instance", string(manifest), []audit.Key{other}, audit.ErrManifestKey},
		{"with a second signature behind it", signed + "— x AAAA\n", "instance", string(manifest), []audit.Key{mine}, audit.ErrNote},
		{"cut", signed[:len(signed)-1], "instance", string(manifest), []audit.Key{mine}, audit.ErrNote},
		{"empty", "", "instance", string(manifest), []audit.Key{mine}, audit.ErrNote},
	} {
		kid, err := audit.OpenManifest(tt.text, tt.instance, "generation", []byte(tt.body), tt.keys)
		if !errors.Is(err, tt.want) || err == nil && kid != mine.KID() {
			t.Errorf("%s: got %q, %v, want %v", tt.name, kid, err, tt.want)
		}
	}
	for at := range len(signed) {
		for bit := range 8 {
			bad := []byte(signed)
			bad[at] ^= 1 << bit
			if _, err := audit.OpenManifest(string(bad), "instance", "generation", manifest, []audit.Key{mine}); err == nil {
				t.Fatalf("bit %d of byte %d flipped: got no error, want one", bit, at)
			}
		}
	}
}

func manifestKey(t *testing.T, letter string) audit.Key {
	t.Helper()
	k, err := audit.NewKey([]byte(strings.Repeat(letter, audit.MinSecret)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}
