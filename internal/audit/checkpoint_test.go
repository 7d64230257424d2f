package audit_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/audit"
)

const (
	instance   = "0f0e0d0c0b0a09080706050403020100"
	generation = "00112233445566778899aabbccddeeff"
)

// logins is a chain of n entries.
func logins(t testing.TB, n int) *chain {
	t.Helper()
	c := newChain(t, secretA)
	for i := 1; i < n; i++ {
		c.add(t, login(byte(i)))
	}
	return c
}

func (c *chain) tree(n int) *audit.Tree {
	var t audit.Tree
	for _, r := range c.rows[:n] {
		t.Append(r.Body, r.RowHMAC)
	}
	return &t
}

func (c *chain) checkpoint(n int) audit.Checkpoint {
	last := c.rows[n-1]
	return audit.Checkpoint{
		Instance: instance, Generation: generation, Size: last.Seq, Root: c.tree(n).Root(), RowHMAC: last.RowHMAC,
		Time: last.TS, Timeline: 3, KID: c.key.KID(),
	}
}

func (c *chain) note(t testing.TB, n int) string {
	t.Helper()
	note, err := c.key.SignCheckpoint(c.checkpoint(n))
	if err != nil {
		t.Fatal(err)
	}
	return note
}

func (c *chain) proof(t testing.TB, seq, n, through int) audit.Proof {
	t.Helper()
	p, err := audit.NewProver(int64(seq), int64(n), int64(through), c.tree(through).Peaks())
	if err != nil {
		t.Fatal(err)
	}
	for i := through; i < n; i++ {
		if more := p.Row(&c.rows[i]); more != (i < n-1) {
			t.Fatalf("row %d of %d: more is %t, want %t", i+1, n, more, i < n-1)
		}
	}
	proof, err := p.Finish(c.note(t, n), c.tree(n).Root())
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

// plainRoot is the root as RFC 6962 defines it, without shortcuts.
func plainRoot(leaves [][]byte) [32]byte {
	switch n := len(leaves); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, leaves[0]...))
	default:
		k := 1
		for k*2 < n {
			k *= 2
		}
		left, right := plainRoot(leaves[:k]), plainRoot(leaves[k:])
		return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
	}
}

func TestTreeIsThatOfRFC6962(t *testing.T) {
	c := logins(t, 40)
	var leaves [][]byte
	for n := 0; n <= len(c.rows); n++ {
		tree := c.tree(n)
		if got, want := tree.Root(), plainRoot(leaves); got != want || tree.Size() != int64(n) {
			t.Errorf("%d rows: root %x of %d, want %x", n, got, tree.Size(), want)
		}
		again, err := audit.TreeFromPeaks(int64(n), tree.Peaks())
		if err != nil {
			t.Fatal(err)
		}
		if n < len(c.rows) {
			r := c.rows[n]
			again.Append(r.Body, r.RowHMAC)
			if got, want := again.Root(), c.tree(n+1).Root(); got != want {
				t.Errorf("%d rows from peaks and one more: root %x, want %x", n, got, want)
			}
			raw, err := hex.DecodeString(r.RowHMAC)
			if err != nil {
				t.Fatal(err)
			}
			leaves = append(leaves, append(append([]byte{}, r.Body...), raw...))
		}
	}
	for _, tt := range []struct {
		name  string
		size  int64
		peaks int
	}{{"too few", 3, 32}, {"too many", 4, 64}, {"half a hash", 1, 31}, {"a size below zero", -1, 32}} {
		if _, err := audit.TreeFromPeaks(tt.size, make([]byte, tt.peaks)); !errors.Is(err, audit.ErrPeaks) {
			t.Errorf("%s: got %v, want ErrPeaks", tt.name, err)
		}
	}
	bad := c.tree(3)
	bad.Append(c.rows[3].Body, "")
	if bad.Root() == c.tree(4).Root() {
		t.Error("a row without row_hmac: got the root of the authentic one")
	}
}

// TestCheckpointVectors pins the bytes of what stands in anchors for years.
func TestCheckpointVectors(t *testing.T) {
	c := logins(t, 5)
	line, err := c.key.SignLine(audit.NewLine(instance, generation, &c.rows[1], 0, nil))
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{"checkpoint.txt": c.note(t, 5), "line.txt": line, "proof.txt": c.proof(t, 3, 5, 0).String()} {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
}

func TestCheckpointSaysWhatWasSignedOrNothing(t *testing.T) {
	c := logins(t, 3)
	note, other := c.note(t, 3), newKey(t, secretB)
	got, err := audit.OpenCheckpoint(note, other.PublicKey(), c.key.PublicKey())
	if err != nil || got != c.checkpoint(3) {
		t.Errorf("got %+v, %v; want %+v", got, err, c.checkpoint(3))
	}
	if _, err := audit.OpenCheckpoint(note, other.PublicKey()); !errors.Is(err, audit.ErrNote) {
		t.Errorf("with a foreign key: got %v, want ErrNote", err)
	}
	if _, err := audit.OpenCheckpoint(note); !errors.Is(err, audit.ErrNote) {
		t.Errorf("without a key: got %v, want ErrNote", err)
	}
	if _, err := audit.OpenCheckpoint(note, "no key"); err == nil || errors.Is(err, audit.ErrNote) || !strings.Contains(err.Error(), "pubkey") {
		t.Errorf("with what is no key: got %v, want an error that names audit pubkey", err)
	}
	for i := range len(note) {
		for _, b := range []byte{note[i] ^ 1, note[i] ^ 0x20, '\n'} {
			if b == note[i] {
				continue
			}
			if got, err := audit.OpenCheckpoint(note[:i]+string(rune(b))+note[i+1:], c.key.PublicKey()); err == nil {
				t.Fatalf("byte %d as %q: got %+v, want an error", i, b, got)
			}
		}
		if _, err := audit.OpenCheckpoint(note[:i], c.key.PublicKey()); err == nil {
			t.Fatalf("cut after %d bytes: got no error", i)
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*audit.Checkpoint)
	}{
		{"an instance that is no random id", func(c *audit.Checkpoint) { c.Instance = "a b" }},
		{"a generation with a line end", func(c *audit.Checkpoint) { c.Generation = generation[:31] + "\n" }},
		{"a size below zero", func(c *audit.Checkpoint) { c.Size = -1 }},
		{"a row_hmac of capitals", func(c *audit.Checkpoint) { c.RowHMAC = strings.ToUpper(c.RowHMAC) }},
	} {
		cp := c.checkpoint(3)
		tt.change(&cp)
		if _, err := c.key.SignCheckpoint(cp); !errors.Is(err, audit.ErrNote) {
			t.Errorf("%s: got %v, want ErrNote", tt.name, err)
		}
	}
	if _, err := (audit.Key{}).SignCheckpoint(c.checkpoint(3)); err == nil {
		t.Error("signed with no key: got no error")
	}
}

func TestLineIsNoCheckpointAndNamesNoPerson(t *testing.T) {
	c := logins(t, 2)
	row := c.add(t, audit.Facts{
		Action: audit.AgentRevoked, Actor: audit.Actor{Kind: audit.User, ID: user(1), Label: "ann@example.org", IP: "203.0.113.7"},
		Project: audit.Project{ID: user(7), Label: "shop"}, Target: audit.Target{ID: user(8), Label: "worker"}, Details: map[string]any{"name": "worker"},
	})
	note, err := c.key.SignLine(audit.NewLine(instance, generation, &row, 0, nil))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(note, "ann@") || strings.Contains(note, "203.0.113") {
		t.Errorf("the line names a person: %s", note)
	}
	l, err := audit.OpenLine(note, c.key.PublicKey())
	if err != nil || l.Seq != row.Seq || l.Action != audit.AgentRevoked || l.Facts.TargetID != user(8) || l.Facts.TargetType != "agent" || l.RowHMAC != row.RowHMAC {
		t.Errorf("got %+v, %v; want the facts of entry %d", l, err, row.Seq)
	}
	if _, err := audit.OpenCheckpoint(note, c.key.PublicKey()); !errors.Is(err, audit.ErrNote) || !audit.IsLine(note) {
		t.Errorf("a line as checkpoint: got %v, want ErrNote", err)
	}
	if _, err := audit.OpenLine(c.note(t, 2), c.key.PublicKey()); !errors.Is(err, audit.ErrNote) || audit.IsLine(c.note(t, 2)) {
		t.Errorf("a checkpoint as line: got %v, want ErrNote", err)
	}
	erased := c.add(t, audit.Facts{
		Action: audit.Erased, Actor: audit.Actor{Kind: audit.CLI}, Target: audit.Target{ID: user(1)},
		Details: map[string]any{"user_id": user(1), "count": 1, "sha256": "00", "reason": "asked for by ann"},
	})
	note, err = c.key.SignLine(audit.NewLine(instance, generation, &erased, 0, []audit.ErasedPart{{Seq: 2, Role: audit.RoleActor}}))
	if err != nil {
		t.Fatal(err)
	}
	if l, err = audit.OpenLine(note, c.key.PublicKey()); err != nil || len(l.Facts.Erased) != 1 || l.Facts.Erased[0].Seq != 2 || strings.Contains(note, "ann") {
		t.Errorf("a line of an erasure: got %+v, %v; want part 2 and no reason", l, err)
	}
}

// TestEveryRowIsProved proves each row in each size with each pruned beginning.
func TestEveryRowIsProved(t *testing.T) {
	const most = 18
	c := logins(t, most)
	for n := 1; n <= most; n++ {
		for through := range n {
			for seq := through + 1; seq <= n; seq++ {
				p, err := audit.ParseProof(c.proof(t, seq, n, through).String())
				if err != nil {
					t.Fatal(err)
				}
				cp, body, err := p.Check(c.key.PublicKey())
				if err != nil || cp.Size != int64(n) || body.Seq != int64(seq) || body.Action != c.rows[seq-1].Action {
					t.Fatalf("row %d of %d behind %d: got %+v, %v", seq, n, through, body, err)
				}
			}
		}
	}
}

func TestProofProvesNothingElse(t *testing.T) {
	c := logins(t, 9)
	good := c.proof(t, 4, 9, 0)
	key := c.key.PublicKey()
	for _, tt := range []struct {
		name   string
		change func(*audit.Proof)
	}{
		{"of another row", func(p *audit.Proof) { p.Index++ }},
		{"of a row beyond the checkpoint", func(p *audit.Proof) { p.Index = 9 }},
		{"with another body", func(p *audit.Proof) { p.Leaf = append([]byte{p.Leaf[0] ^ 1}, p.Leaf[1:]...) }},
		{"without a hash", func(p *audit.Proof) { p.Hashes = p.Hashes[1:] }},
		{"with a hash more", func(p *audit.Proof) { p.Hashes = append(p.Hashes[:len(p.Hashes):len(p.Hashes)], p.Hashes[0]) }},
		{"with the checkpoint of fewer rows", func(p *audit.Proof) { p.Note = c.note(t, 8) }},
		{"with a line instead of a checkpoint", func(p *audit.Proof) { p.Note = "z4j-line/x" }},
	} {
		p := good
		tt.change(&p)
		if _, _, err := p.Check(key); err == nil {
			t.Errorf("a proof %s: got no error", tt.name)
		}
		if again, err := audit.ParseProof(p.String()); err == nil {
			if _, _, err := again.Check(key); err == nil {
				t.Errorf("a proof %s, written and read: got no error", tt.name)
			}
		}
	}
	if _, _, err := good.Check(newKey(t, secretB).PublicKey()); !errors.Is(err, audit.ErrNote) {
		t.Errorf("with a foreign key: got %v, want ErrNote", err)
	}
	for _, tt := range []struct{ seq, size, through int64 }{{0, 9, 0}, {10, 9, 0}, {3, 9, 3}} {
		if _, err := audit.NewProver(tt.seq, tt.size, tt.through, c.tree(int(tt.through)).Peaks()); err == nil {
			t.Errorf("prove row %d of %d behind %d: got no error", tt.seq, tt.size, tt.through)
		}
	}
	p, err := audit.NewProver(4, 9, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.rows {
		r := c.rows[i]
		if i == 6 {
			r.Body = append([]byte(" "), r.Body...)
		}
		p.Row(&r)
	}
	if _, err := p.Finish(c.note(t, 9), c.tree(9).Root()); !errors.Is(err, audit.ErrProof) {
		t.Errorf("over rows of which one was edited: got %v, want ErrProof", err)
	}
}

// FuzzNotes reads what an anchor may hold: nothing is accepted but what was signed, and nothing crashes.
func FuzzNotes(f *testing.F) {
	c := logins(f, 5)
	note := c.note(f, 5)
	line, err := c.key.SignLine(audit.NewLine(instance, generation, &c.rows[1], 0, nil))
	if err != nil {
		f.Fatal(err)
	}
	p := c.proof(f, 3, 5, 0)
	for _, seed := range []string{note, line, p.String(), "", "z4j/\n\n— x y\n"} {
		f.Add(seed)
	}
	key := c.key.PublicKey()
	f.Fuzz(func(t *testing.T, text string) {
		if cp, err := audit.OpenCheckpoint(text, key); err == nil && cp != c.checkpoint(5) {
			t.Errorf("a checkpoint that was never signed: %+v", cp)
		}
		if l, err := audit.OpenLine(text, key); err == nil && (l.Seq != 2 || l.RowHMAC != c.rows[1].RowHMAC) {
			t.Errorf("a line that was never signed: %+v", l)
		}
		if got, err := audit.ParseProof(text); err == nil {
			if _, body, err := got.Check(key); err == nil && body.Action != c.rows[got.Index].Action {
				t.Errorf("a proof of what isn't there: %+v", body)
			}
		}
	})
}
