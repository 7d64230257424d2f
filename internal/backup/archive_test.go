package backup_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"pgregory.net/rapid"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
)

func key(t testing.TB, letter string) audit.Key {
	t.Helper()
	k, err := audit.NewKey([]byte(strings.Repeat(letter, audit.MinSecret)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// chunk makes a chunk of a table with one column of texts.
func chunk(table string, n int, texts ...string) store.Chunk {
	text := func(b []byte, s string) []byte { return append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	raw := append([]byte("z4jr\x01"), text(nil, table)...)
	raw = append(text(append(raw, 1), "word"), 't')
	for _, s := range texts {
		raw = text(append(raw, 0), s)
	}
	return store.Chunk{Table: table, N: n, Rows: int64(len(texts)), Raw: raw}
}

// sample is what the archives of these tests hold.
func sample() []store.Chunk {
	r := rand.New(rand.NewPCG(1, 2))
	words := func(n int) []string {
		var out []string
		for range n {
			out = append(out, fmt.Sprintf("%x-%d", r.Uint64(), n))
		}
		return out
	}
	return []store.Chunk{
		chunk("queues", 0, words(30)...), chunk("workers", 1, words(3)...), chunk("queues", 1, words(50)...), chunk("workers", 0, words(9)...),
		chunk("queues", 2, words(1)...),
	}
}

// write makes an archive of chunks.
func write(t testing.TB, signer audit.Key, chunks []store.Chunk, recipients ...age.Recipient) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := backup.NewWriter(&out, recipients...)
	if err != nil {
		t.Fatal(err)
	}
	w.Expect("empty")
	for _, c := range chunks {
		if err := w.Add(c); err != nil {
			t.Fatal(err)
		}
	}
	m := backup.Manifest{ID: "0190a0b0-0000-7000-8000-00000000cafe", Schema: 2, Instance: strings.Repeat("1", 32), Generation: strings.Repeat("2", 32)}
	if _, err := w.Finish(m, signer); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// memory is a target with one file.
type memory struct {
	target.Target

	content []byte
}

func (m memory) String() string { return "memory" }

func (m memory) Open(context.Context, string) (target.Reader, error) {
	return file{bytes.NewReader(m.content)}, nil
}

type file struct{ *bytes.Reader }

func (file) Close() error { return nil }

// read opens and reads an archive whole, and returns what its tables hold.
func read(t testing.TB, content []byte, o backup.ReadOptions) (map[string][]string, error) {
	t.Helper()
	a, err := backup.Open(t.Context(), memory{content: content}, "sample", o)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	var mu sync.Mutex
	found := map[string]map[int][]string{}
	err = a.Read(t.Context(), 2, func(c store.Chunk) error {
		rows, err := store.DecodeRows(c.Raw)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if found[c.Table] == nil {
			found[c.Table] = map[int][]string{}
		}
		for rows.Next() {
			found[c.Table][c.N] = append(found[c.Table][c.N], string(rows.Cells()[0].Bytes))
		}
		return rows.Err()
	})
	out := map[string][]string{}
	for table, parts := range found {
		for n := range len(parts) {
			out[table] = append(out[table], parts[n]...)
		}
	}
	return out, err
}

func TestAnArchiveComesBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	me, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	k := key(t, "k")
	for _, tt := range []struct {
		name       string
		recipients []age.Recipient
		read       backup.ReadOptions
		want       error
	}{
		{"plain", nil, backup.ReadOptions{Keys: []audit.Key{k}}, nil},
		{"plain, with an old key among several", nil, backup.ReadOptions{Keys: []audit.Key{key(t, "z"), k}}, nil},
		{"plain, without the key", nil, backup.ReadOptions{Keys: []audit.Key{key(t, "z")}}, backup.ErrUnsigned},
		{"plain, without the key and accepted so", nil, backup.ReadOptions{Unsigned: true}, nil},
		{"encrypted", []age.Recipient{other.Recipient(), me.Recipient()}, backup.ReadOptions{Keys: []audit.Key{k}, Identities: []age.Identity{me}}, nil},
		{"encrypted, to somebody else", []age.Recipient{other.Recipient()}, backup.ReadOptions{Keys: []audit.Key{k}, Identities: []age.Identity{me}}, backup.ErrNoIdentity},
		{"encrypted, without an identity", []age.Recipient{other.Recipient()}, backup.ReadOptions{Keys: []audit.Key{k}}, backup.ErrNoIdentity},
	} {
		got, err := read(t, write(t, k, sample(), tt.recipients...), tt.read)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if tt.want == nil && (len(got["queues"]) != 81 || len(got["workers"]) != 12) {
			t.Errorf("%s: got %d and %d rows, want 81 and 12", tt.name, len(got["queues"]), len(got["workers"]))
		}
	}
}

func TestAPlainArchiveIsATarFile(t *testing.T) {
	t.Parallel()
	r := tar.NewReader(bytes.NewReader(write(t, key(t, "k"), sample())))
	var names []string
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
	want := []string{"queues/0.zst", "workers/1.zst", "queues/1.zst", "workers/0.zst", "queues/2.zst", "manifest.json", "manifest.sig"}
	if !slices.Equal(names, want) {
		t.Errorf("members: got %q, want %q", names, want)
	}
}

// TestNoChangedArchiveVerifies flips every bit of archives, and cuts them at every length.
func TestNoChangedArchiveVerifies(t *testing.T) {
	t.Parallel()
	k := key(t, "k")
	me, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	o := backup.ReadOptions{Keys: []audit.Key{k}, Identities: []age.Identity{me}}
	small := []store.Chunk{chunk("queues", 0, "a", "b"), chunk("workers", 0, "c")}
	for name, good := range map[string][]byte{"plain": write(t, k, small), "encrypted": write(t, k, small, me.Recipient())} {
		if _, err := read(t, good, o); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		step := 1
		if name == "encrypted" {
			step = 5 // each needs a key exchange
		}
		for at := 0; at < len(good); at += step {
			bad := slices.Clone(good)
			bad[at] ^= 1 << (at % 8)
			if _, err := read(t, bad, o); !refused(err) {
				t.Errorf("%s: bit %d of byte %d of %d flipped: got %v, want it refused as damaged", name, at%8, at, len(good), err)
			}
			if at%35 == 0 || at > len(good)-100 {
				if _, err := read(t, good[:at], o); !refused(err) {
					t.Errorf("%s: cut to %d of %d bytes: got %v, want it refused as damaged", name, at, len(good), err)
				}
			}
		}
		for _, more := range []int{1, 511, 512, 1024, 4096} {
			if _, err := read(t, append(slices.Clone(good), make([]byte, more)...), o); !refused(err) {
				t.Errorf("%s with %d zeros behind it: got %v, want it refused as damaged", name, more, err)
			}
		}
	}
}

// refused reports whether err says that an archive is not what was written. A flipped format or stanza is no match at times.
func refused(err error) bool {
	return errors.Is(err, backup.ErrDamaged) || errors.Is(err, backup.ErrFormat) || errors.Is(err, backup.ErrIncomplete) || errors.Is(err, backup.ErrNoIdentity) || errors.Is(err, backup.ErrUnsigned)
}

func TestNoChangedLargeArchiveVerifies(t *testing.T) {
	t.Parallel()
	k := key(t, "k")
	o := backup.ReadOptions{Keys: []audit.Key{k}}
	r := rand.New(rand.NewPCG(3, 4))
	var chunks []store.Chunk
	for n := range 20 {
		noise := make([]byte, 100_000)
		for i := range noise {
			noise[i] = byte(r.Uint64())
		}
		chunks = append(chunks, chunk("queues", n, string(noise)))
	}
	good := write(t, k, chunks)
	rapid.Check(t, func(rt *rapid.T) {
		bad := slices.Clone(good)
		switch at := rapid.IntRange(0, len(good)-1).Draw(rt, "at"); rapid.SampledFrom([]string{"flip", "cut", "swap", "repeat"}).Draw(rt, "what") {
		case "flip":
			bad[at] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		case "cut":
			bad = bad[:at]
		case "swap":
			from := rapid.IntRange(0, len(good)-1).Draw(rt, "from")
			n := min(rapid.IntRange(1, 2000).Draw(rt, "length"), len(good)-from, len(good)-at)
			copy(bad[at:], good[from:from+n])
		case "repeat":
			n := min(rapid.IntRange(1, 2000).Draw(rt, "length"), len(good)-at)
			bad = slices.Insert(bad, at, good[at:at+n]...)
		}
		if bytes.Equal(bad, good) {
			return
		}
		if _, err := read(t, bad, o); !refused(err) {
			rt.Fatalf("got %v, want it refused as damaged", err)
		}
	})
}

// TestReplacedMembersAreRefused: who has no audit secret may write any archive, but can't sign it.
func TestReplacedMembersAreRefused(t *testing.T) {
	t.Parallel()
	k := key(t, "k")
	o := backup.ReadOptions{Keys: []audit.Key{k}}
	good := write(t, k, sample())
	members := func(content []byte) (list []tar.Header, bodies [][]byte) {
		r := tar.NewReader(bytes.NewReader(content))
		for {
			h, err := r.Next()
			if err != nil {
				return list, bodies
			}
			body, _ := io.ReadAll(r)
			list, bodies = append(list, *h), append(bodies, body)
		}
	}
	pack := func(list []tar.Header, bodies [][]byte) []byte {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for i := range list {
			list[i].Size = int64(len(bodies[i]))
			if err := w.WriteHeader(&list[i]); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(bodies[i]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	list, bodies := members(good)
	if again := pack(list, bodies); !bytes.Equal(again, good) {
		t.Fatal("packed as it was: got other bytes, want the same, or this test shows nothing")
	}
	forged := write(t, key(t, "x"), []store.Chunk{chunk("queues", 0, "forged")})
	forgedList, forgedBodies := members(forged)
	for _, tt := range []struct {
		name   string
		change func() []byte
	}{
		{"two members swapped", func() []byte {
			l, b := slices.Clone(list), slices.Clone(bodies)
			l[0], l[2], b[0], b[2] = l[2], l[0], b[2], b[0]
			return pack(l, b)
		}},
		{"two bodies swapped", func() []byte {
			b := slices.Clone(bodies)
			b[0], b[2] = b[2], b[0]
			return pack(list, b)
		}},
		{"a member left out", func() []byte {
			return pack(slices.Delete(slices.Clone(list), 1, 2), slices.Delete(slices.Clone(bodies), 1, 2))
		}},
		{"a member twice", func() []byte {
			return pack(slices.Insert(slices.Clone(list), 1, list[0]), slices.Insert(slices.Clone(bodies), 1, bodies[0]))
		}},
		{"a later time in a header", func() []byte {
			l := slices.Clone(list)
			l[0].ModTime = time.Unix(1, 0)
			return pack(l, bodies)
		}},
		{"a member replaced and the manifest recomputed, with the old signature", func() []byte {
			b := slices.Clone(forgedBodies)
			b[len(b)-1] = bodies[len(bodies)-1]
			return pack(forgedList, b)
		}},
		{"signed by another key", func() []byte { return forged }},
		{"no signature", func() []byte { return pack(list[:len(list)-1], bodies[:len(bodies)-1]) }},
		{"no manifest", func() []byte { return pack(list[:len(list)-2], bodies[:len(bodies)-2]) }},
		{"nothing", func() []byte { return nil }},
		{"only an end", func() []byte { return make([]byte, 1024) }},
		{"another tar file", func() []byte {
			return pack([]tar.Header{{Name: "x", Format: tar.FormatUSTAR, Typeflag: tar.TypeReg}}, [][]byte{{1}})
		}},
		{"a picture", func() []byte { return append([]byte("\xff\xd8\xff\xe0"), make([]byte, 5000)...) }},
	} {
		if _, err := read(t, tt.change(), o); !refused(err) {
			t.Errorf("%s: got %v, want it refused", tt.name, err)
		}
	}
}

func TestAWriterThatCantWriteEndsWithThat(t *testing.T) {
	t.Parallel()
	whole := write(t, key(t, "k"), sample())
	for room := 0; room < len(whole); room += 300 {
		w, err := backup.NewWriter(&bounded{room: room})
		if err == nil {
			for _, c := range sample() {
				if err = w.Add(c); err != nil {
					break
				}
			}
			var done error
			_, done = w.Finish(backup.Manifest{Instance: "1", Generation: "2"}, key(t, "k"))
			err = errors.Join(err, done)
			if done == nil {
				t.Errorf("room for %d bytes: got a finished archive, want an error", room)
			}
		}
		if !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("room for %d bytes: got %v, want the error of the writer", room, err)
		}
	}
}

// bounded takes so many bytes.
type bounded struct{ room int }

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.room {
		return b.room, io.ErrShortWrite
	}
	b.room -= len(p)
	return len(p), nil
}

func FuzzOpen(f *testing.F) {
	k := key(f, "k")
	f.Add(write(f, k, sample()))
	f.Add([]byte("age-encryption.org/v1\n-> X25519 x\n"))
	f.Add(make([]byte, 2048))
	f.Fuzz(func(t *testing.T, content []byte) {
		got, err := read(t, content, backup.ReadOptions{Keys: []audit.Key{k}})
		if err == nil && len(got["queues"]) != 81 {
			t.Errorf("got an archive that nobody wrote: %v", got)
		}
	})
}
