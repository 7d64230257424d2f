package audit_test

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
)

var update = flag.Bool("update", false, "write testdata again: only when the format of the chain changes on purpose")

// Secrets of the vectors. The second is no ASCII: its bytes are taken as they are.
const (
	secretA = "vector-secret-vector-secret-vector-0001"
	secretB = "zweites-Geheimnis-ÄÖÜ-zweites-Geheimnis-ß"
)

// vector is a file of testdata: what is stored, and what a verification says.
type vector struct {
	Name     string          `json:"name"`
	Secrets  []string        `json:"secrets"`
	Kids     []string        `json:"kids"`
	Boundary *audit.Boundary `json:"boundary,omitempty"`
	Rows     []storedRow     `json:"rows"`
	Exit     int             `json:"exit"`
}

// storedRow is a row with its columns by their names.
type storedRow struct {
	Columns  map[string]any `json:"columns"`
	Personal []storedPart   `json:"personal,omitempty"`
}

type storedPart struct {
	Role     string  `json:"role"`
	Subject  *string `json:"subject"`
	Salt     string  `json:"salt"`
	JSON     *string `json:"json"`
	ErasedBy int64   `json:"erased_by,omitempty"`
}

// chain is a chain that is being made.
type chain struct {
	key   audit.Key
	rows  []audit.Row
	parts map[int64][]audit.Personal
	ts    int64
}

const firstTime = 1767323045000006 // 2026-01-02T03:04:05.000006Z

func newChain(t testing.TB, secret string) *chain {
	t.Helper()
	c := &chain{key: newKey(t, secret), parts: map[int64][]audit.Personal{}, ts: firstTime}
	c.add(t, audit.Facts{
		Action: audit.SystemInstalled, Actor: audit.Actor{Kind: audit.System},
		Details: map[string]any{"kid": c.key.KID(), "public_key": c.key.PublicKey(), "generation": "00112233445566778899aabbccddeeff"},
	})
	return c
}

func newKey(t testing.TB, secret string) audit.Key {
	t.Helper()
	k, err := audit.NewKey([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (c *chain) head() audit.Row {
	if len(c.rows) == 0 {
		return audit.Row{}
	}
	return c.rows[len(c.rows)-1]
}

func (c *chain) add(t testing.TB, f audit.Facts) audit.Row {
	t.Helper()
	e := audit.New(f)
	if err := e.Err(); err != nil {
		t.Fatal(err)
	}
	head := c.head()
	l := audit.Link{Seq: head.Seq + 1, TS: c.ts, Prev: head.RowHMAC}
	l.ID = id.ID{0x01, 0x9b, 0x7c, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, byte(l.Seq >> 8), byte(l.Seq)}
	l.TS, l.ClockStep = audit.Stamp(c.ts, head.TS)
	for i := range l.Salts {
		for j := range l.Salts[i] {
			l.Salts[i][j] = byte(int(l.Seq)*31 + i*7 + j)
		}
	}
	row, parts := c.key.Seal(&e, l)
	c.rows = append(c.rows, row)
	if len(parts) > 0 {
		c.parts[row.Seq] = parts
	}
	c.ts += 1_000_001
	return row
}

func user(n byte) string { return fmt.Sprintf("%02x111111-1111-7111-8111-111111111111", n) }

func login(n byte) audit.Facts {
	return audit.Facts{
		Action: audit.AuthLogin, Actor: audit.Actor{Kind: audit.User, ID: user(n), Label: fmt.Sprintf("user%d@example.org", n), IP: "203.0.113.7", UserAgent: "curl/8"},
		Target: audit.Target{ID: user(n), Label: fmt.Sprintf("user%d@example.org", n)}, Details: map[string]any{"session_id": user(99), "remembered": true},
		RequestID: "req-1",
	}
}

// chains are the vectors as this code makes them.
func chains(t testing.TB) map[string]func() vector {
	return map[string]func() vector{
		"unicode": func() vector {
			c := newChain(t, secretA)
			c.add(t, audit.Facts{
				Action: audit.ProjectCreated, Actor: audit.Actor{Kind: audit.CLI, ID: "root\xff", Label: "Ünïcødé 😀", UserAgent: "\xff\xfe\x00"},
				Project: audit.Project{ID: user(3), Label: "défaut"}, Target: audit.Target{ID: user(3), Label: "日本\u2028語 <&>\x7f"},
				Details:   map[string]any{"slug": "a\x00b\"\\/\b\f\n\r\t\x01 \ufeff", "environment": "\xed\xa0\xbd", "count": int64(1) << 53, "first": -(int64(1)<<53 - 1)},
				RequestID: "e\u0301",
			})
			c.ts -= 3600 * 1_000_000
			c.add(t, login(1))
			c.ts -= 60 * 1_000_000
			c.add(t, login(2))
			return c.vector("unicode", 0, secretA)
		},
		"empty": func() vector {
			c := newChain(t, secretA)
			c.add(t, audit.Facts{Action: audit.SetupAttempt, Actor: audit.Actor{Kind: audit.Anonymous}, Outcome: audit.Deny})
			return c.vector("empty", 0, secretA)
		},
		"maximum": func() vector {
			c := newChain(t, secretA)
			long := strings.Repeat("€", 9000)
			c.add(t, audit.Facts{
				Action: audit.MembershipGranted, Outcome: audit.Failed,
				Actor:   audit.Actor{Kind: audit.APIKey, ID: long, Label: long, IP: "2001:DB8::0:1%eth0", UserAgent: long},
				Project: audit.Project{ID: long, Label: long}, Target: audit.Target{ID: long, Label: long}, RequestID: long,
				Details: map[string]any{"role": strings.Repeat("\x01", 5459)},
			})
			c.add(t, audit.Facts{Action: audit.AccessRefused, Outcome: audit.Deny, Actor: audit.Actor{Kind: audit.Anonymous}, Details: map[string]any{"path": long + long}})
			return c.vector("maximum", 0, secretA)
		},
		"rotation": func() vector {
			c, b := newChain(t, secretA), newKey(t, secretB)
			a := c.key
			c.add(t, login(1))
			proof := a.RotationProof(b.KID(), c.head().RowHMAC)
			c.key = b
			c.add(t, audit.Facts{Action: audit.KeyIntroduced, Actor: audit.Actor{Kind: audit.System}, Details: map[string]any{
				"kid": b.KID(), "public_key": b.PublicKey(), "previous_kid": a.KID(), "proof": proof,
			}})
			c.key = a
			c.add(t, login(2)) // another replica, not restarted yet
			c.key = b
			c.add(t, login(3))
			c.add(t, audit.Facts{Action: audit.KeyRetired, Actor: audit.Actor{Kind: audit.CLI}, Details: map[string]any{"kid": a.KID()}})
			c.add(t, login(4))
			return c.vector("rotation", 0, secretA, secretB)
		},
		"prune": func() vector {
			c := newChain(t, secretA)
			for i := range byte(4) {
				c.add(t, login(i))
			}
			through := c.rows[2]
			c.add(t, audit.Facts{Action: audit.Pruned, Actor: audit.Actor{Kind: audit.CLI}, Details: map[string]any{
				"through": through.Seq, "row_hmac": through.RowHMAC,
				"kids": []any{map[string]any{"kid": c.key.KID(), "introduced": 1, "retired": 0}},
			}})
			c.add(t, login(5))
			v := c.vector("prune", 0, secretA)
			v.Rows = v.Rows[through.Seq:]
			v.Boundary = &audit.Boundary{Through: through.Seq, RowHMAC: through.RowHMAC, Kids: []audit.KeyTime{{KID: c.key.KID(), Introduced: 1}}}
			return v
		},
		"erased": func() vector {
			c := newChain(t, secretA)
			c.add(t, login(1))
			c.add(t, login(2))
			by := c.head().Seq + 1
			digest := sum(audit.ErasureLine(2, audit.RoleActor) + audit.ErasureLine(2, audit.RoleTarget))
			c.add(t, audit.Facts{
				Action: audit.Erased, Actor: audit.Actor{Kind: audit.CLI}, Target: audit.Target{ID: user(1)},
				Details: map[string]any{"user_id": user(1), "count": 2, "sha256": digest, "reason": "asked for"},
			})
			for i := range c.parts[2] {
				c.parts[2][i] = audit.Personal{Seq: 2, Role: c.parts[2][i].Role, ErasedBy: by}
			}
			return c.vector("erased", 0, secretA)
		},
	}
}

func (c *chain) vector(name string, exit int, secrets ...string) vector {
	v := vector{Name: name, Secrets: secrets, Exit: exit}
	for i := range c.rows {
		r := &c.rows[i]
		s := storedRow{Columns: columns(r)}
		for _, p := range c.parts[r.Seq] {
			s.Personal = append(s.Personal, storedPart{p.Role, pointer(p.Subject), hex.EncodeToString(p.Salt), pointer(p.JSON), p.ErasedBy})
		}
		v.Rows = append(v.Rows, s)
	}
	return v
}

func pointer(t audit.Text) *string {
	if !t.Set {
		return nil
	}
	return &t.S
}

func TestVectors(t *testing.T) {
	for name, make := range chains(t) {
		path := filepath.Join("testdata", name+".json")
		v := make()
		for _, s := range v.Secrets {
			v.Kids = append(v.Kids, newKey(t, s).KID())
		}
		got, err := json.MarshalIndent(v, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, '\n')
		if *update {
			if err := os.WriteFile(path, got, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s: the bytes of the chain changed, which no installation would survive (-want +got):\n%s", name, cmp.Diff(string(want), string(got)))
		}
		if r := verify(readVector(t, name)); r.Exit() != v.Exit || r.First != nil {
			t.Errorf("%s: exit %d, first bad %+v; want %d and none", name, r.Exit(), r.First, v.Exit)
		}
	}
}

func readVector(t testing.TB, name string) vector {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var v vector
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestLessonA27KnownAnswers pins what the vectors can't: the derivation of keys, the domains, the whole of one row, as
// computed by hand with another implementation.
func TestLessonA27KnownAnswers(t *testing.T) {
	k := newKey(t, secretA)
	for _, tt := range []struct{ name, got, want string }{
		{"kid", k.KID(), knownKID},
		{"row key", k.RowKey(), knownRowKey},
		{"public key", k.PublicKey(), knownPublicKey},
		{"line ends behind a secret don't count", newKey(t, secretA+"\r\n").KID(), knownKID},
		{"proof of rotation", k.RotationProof("0123456789abcdef", strings.Repeat("0", 64)), knownProof},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, tt.got, tt.want)
		}
	}
	c := newChain(t, secretA)
	row := c.add(t, audit.Facts{
		Action: audit.AuthLogin, Actor: audit.Actor{Kind: audit.User, ID: "u1", Label: "ann@example.org"},
		Target: audit.Target{ID: "u1"}, Details: map[string]any{"session_id": "s1"}, RequestID: "r1",
	})
	if got := string(row.Body); got != knownBody {
		t.Errorf("body: got %s, want %s", got, knownBody)
	}
	if row.RowHMAC != knownHMAC {
		t.Errorf("row_hmac: got %s, want %s", row.RowHMAC, knownHMAC)
	}
	if _, err := audit.NewKey([]byte("short")); err == nil {
		t.Error("a short secret: got a key, want an error")
	}
	for _, text := range []string{fmt.Sprint(k), fmt.Sprintf("%+v %#v %s", k, k, &k)} {
		if strings.Contains(text, k.RowKey()) {
			t.Errorf("a key prints its row key: %s", text)
		}
	}
}
