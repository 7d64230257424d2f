package wire_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/wire"
)

type boundVector struct {
	Name      string `json:"name"`
	SecretHex string `json:"secret_hex"`
	AgentID   string `json:"agent_id"`
	ProjectID string `json:"project_id"`
	SessionID string `json:"session_id"`
}

func (v boundVector) session(t testing.TB, nonce []byte) *wire.Session {
	t.Helper()
	return session(t, wire.Keys{
		Secret: unhex(t, v.SecretHex), AgentID: v.AgentID, ProjectID: v.ProjectID, SessionID: v.SessionID,
		Rand: bytes.NewReader(nonce),
	})
}

type vectors struct {
	KeyDerivation []struct {
		Master  string `json:"master_utf8"`
		Project string `json:"project_id"`
		Derived string `json:"derived_hex"`
		Config  string `json:"agent_config_value_urlsafe_b64"`
	} `json:"key_derivation"`
	TokenHash []struct {
		Master string `json:"master_utf8"`
		Token  string `json:"token"`
		Hash   string `json:"token_hash_hex"`
	} `json:"token_hash"`
	AgentSecretDecode []struct {
		Config  string `json:"config_value"`
		Decoded string `json:"decoded_hex"`
	} `json:"agent_secret_decode"`
	Canonical []struct {
		Name  string `json:"name"`
		Input string `json:"input_json"`
		Want  string `json:"canonical_hex"`
	} `json:"canonical"`
	Positive []struct {
		boundVector
		Inputs struct {
			Type    string          `json:"type"`
			ID      string          `json:"id"`
			TS      string          `json:"ts"`
			Nonce   string          `json:"nonce"`
			Seq     int64           `json:"seq"`
			Payload json.RawMessage `json:"payload"`
		} `json:"inputs"`
		Canonical string `json:"canonical_hex"`
		HMAC      string `json:"hmac"`
		Frame     string `json:"wire_frame"`
	} `json:"positive"`
	Negative []struct {
		boundVector
		Steps []struct {
			Now    string `json:"now"`
			Frame  string `json:"frame"`
			Expect string `json:"expect"`
			Reason string `json:"reference_error"`
		} `json:"steps"`
	} `json:"negative"`
	PurgeToken []struct {
		SecretHex string `json:"secret_hex"`
		Message   string `json:"message_utf8"`
		Keyed     string `json:"keyed_token_1_7_plus"`
	} `json:"purge_token"`
}

func loadVectors(t testing.TB) (v vectors) {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func session(t testing.TB, k wire.Keys) *wire.Session {
	t.Helper()
	s, err := wire.NewSession(k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func at(t testing.TB, text string) time.Time {
	t.Helper()
	when, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

func TestKeyVectors(t *testing.T) {
	v := loadVectors(t)
	if len(v.KeyDerivation) != 3 || len(v.TokenHash) != 2 || len(v.AgentSecretDecode) != 2 {
		t.Fatalf("got %d, %d, %d vectors, want 3, 2, 2", len(v.KeyDerivation), len(v.TokenHash), len(v.AgentSecretDecode))
	}
	for _, tt := range v.KeyDerivation {
		project, err := id.Parse(tt.Project)
		if err != nil {
			t.Fatal(err)
		}
		secret := wire.ProjectSecret(tt.Master, project)
		if got := hex.EncodeToString(secret); got != tt.Derived {
			t.Errorf("secret of %s: got %s, want %s", tt.Project, got, tt.Derived)
		}
		if got := wire.EncodeSecret(secret); got != tt.Config {
			t.Errorf("configured form of %s: got %s, want %s", tt.Project, got, tt.Config)
		}
	}
	for _, tt := range v.TokenHash {
		if got := wire.TokenHash(tt.Master, tt.Token); got != tt.Hash {
			t.Errorf("hash of %s: got %s, want %s", tt.Token, got, tt.Hash)
		}
	}
	for _, tt := range v.AgentSecretDecode {
		got, err := wire.DecodeSecret(tt.Config)
		if err != nil || hex.EncodeToString(got) != tt.Decoded {
			t.Errorf("decode %q: got %x, %v, want %s", tt.Config, got, err, tt.Decoded)
		}
	}
}

func TestCanonicalVectors(t *testing.T) {
	v := loadVectors(t)
	if len(v.Canonical) != 10 {
		t.Fatalf("got %d vectors, want 10", len(v.Canonical))
	}
	for _, tt := range v.Canonical {
		got, err := wire.Canonical(nil, []byte(tt.Input))
		if err != nil || hex.EncodeToString(got) != tt.Want {
			t.Errorf("%s: got %q, %v, want %q", tt.Name, got, err, unhex(t, tt.Want))
		}
	}
}

func TestPositiveVectors(t *testing.T) {
	v := loadVectors(t)
	if len(v.Positive) != 20 {
		t.Fatalf("got %d vectors, want 20", len(v.Positive))
	}
	for _, tt := range v.Positive {
		in := tt.Inputs
		now := at(t, in.TS)
		f, err := tt.session(t, nil).Verify([]byte(tt.Frame), now)
		if err != nil {
			t.Errorf("%s: got %v, want a frame", tt.Name, err)
			continue
		}
		if f.Type != in.Type || f.ID != in.ID || f.Seq != in.Seq || f.TS != now.UnixMicro() {
			t.Errorf("%s: got %+v, want what %+v says", tt.Name, f, in)
		}
		got, want := canonical(t, f.Payload), canonical(t, in.Payload)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: payload got %s, want %s", tt.Name, got, want)
		}
		resign(t, tt.Name, tt.boundVector, []byte(tt.Frame))
	}
}

// envelope is a frame as an independent reader sees it.
type envelope struct {
	V       int             `json:"v"`
	Type    string          `json:"type"`
	ID      string          `json:"id"`
	TS      string          `json:"ts"`
	Nonce   string          `json:"nonce"`
	Seq     int64           `json:"seq"`
	HMAC    string          `json:"hmac"`
	Payload json.RawMessage `json:"payload"`
}

// resign signs a frame's members anew and wants the same signature and members.
func resign(t *testing.T, name string, v boundVector, raw []byte) {
	t.Helper()
	var want envelope
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	nonce, err := wire.DecodeNonce(want.Nonce)
	if err != nil {
		t.Fatalf("%s: nonce %q: %v", name, want.Nonce, err)
	}
	s := v.session(t, nonce)
	wire.SetSeq(s, want.Seq-1)
	signed, err := s.Sign([]byte("before"), want.Type, want.ID, want.Payload, at(t, want.TS))
	if err != nil {
		t.Errorf("%s: sign again: %v", name, err)
		return
	}
	signed, found := bytes.CutPrefix(signed, []byte("before"))
	if !found {
		t.Errorf("%s: Sign does not append: %q", name, signed)
	}
	var got envelope
	dec := json.NewDecoder(bytes.NewReader(signed))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		t.Fatalf("%s: %v in %s", name, err, signed)
	}
	if string(canonical(t, got.Payload)) != string(canonical(t, want.Payload)) {
		t.Errorf("%s: signed again: payload %s, want %s", name, got.Payload, want.Payload)
	}
	got.Payload, want.Payload = nil, nil
	if got.HMAC != want.HMAC || got.TS != want.TS || got.Nonce != want.Nonce || got.Seq != want.Seq || got.V != 2 ||
		got.Type != want.Type || got.ID != want.ID {
		t.Errorf("%s: signed again: got %+v, want %+v", name, got, want)
	}
}

func canonical(t testing.TB, raw []byte) []byte {
	t.Helper()
	if raw == nil {
		raw = []byte("{}")
	}
	b, err := wire.Canonical(nil, raw)
	if err != nil {
		t.Fatalf("canonical form of %s: %v", raw, err)
	}
	return b
}

func TestNegativeVectors(t *testing.T) {
	v := loadVectors(t)
	if len(v.Negative) != 34 {
		t.Fatalf("got %d vectors, want 34", len(v.Negative))
	}
	for _, tt := range v.Negative {
		s := tt.session(t, nil)
		for i, step := range tt.Steps {
			_, err := s.Verify([]byte(step.Frame), at(t, step.Now))
			if (err == nil) != (step.Expect == "accept") {
				t.Errorf("%s, step %d: got %v, want %s (%s)", tt.Name, i+1, err, step.Expect, step.Reason)
				continue
			}
			if err != nil && !isOneOf(err, wantErrors(step.Reason)) {
				t.Errorf("%s, step %d: got %v, want one of %v", tt.Name, i+1, err, wantErrors(step.Reason))
			}
		}
	}
}

// wantErrors is our kind of error for what the reference says.
func wantErrors(reason string) []error {
	switch {
	case strings.Contains(reason, "unknown frame type"):
		return []error{wire.ErrUnknownType}
	case strings.Contains(reason, "payload must be"):
		return []error{wire.ErrContent}
	case strings.Contains(reason, "ProtocolError"):
		return []error{wire.ErrProtocol}
	case strings.Contains(reason, "hmac"):
		return []error{wire.ErrSignature}
	case strings.Contains(reason, " ts"):
		return []error{wire.ErrStale}
	case strings.Contains(reason, "seq"), strings.Contains(reason, "nonce"):
		return []error{wire.ErrReplay}
	}
	return nil
}
