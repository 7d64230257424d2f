package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/audit"
)

// exported is a file that is being made: its rows, and the entry of the export behind them.
type exported struct {
	rows  []audit.Row
	parts map[int64][]audit.Personal
}

// export makes the file of the rows of c that keep has, all if it is nil, from the one with the number first to the last.
func (c *chain) export(t testing.TB, first int64, kids []audit.KeyTime, keep func(*audit.Row) bool) exported {
	t.Helper()
	e := audit.Exported{Contiguous: keep == nil, First: first, Last: c.head().Seq, Kids: kids, Generation: "g"}
	if first > 1 {
		e.PrevRowHMAC = c.rows[first-2].RowHMAC
	}
	out := exported{parts: c.parts}
	for i := range c.rows[first-1:] {
		if r := &c.rows[first-1:][i]; keep == nil || keep(r) {
			out.rows = append(out.rows, *r)
		}
	}
	out.rows = append(out.rows, c.add(t, audit.Facts{
		Action: audit.AuditExported, Actor: audit.Actor{Kind: audit.CLI, ID: "root", Label: "root"}, Details: e.Details(audit.CSV, map[string]any{"from": nil}),
	}))
	return out
}

func (e exported) clone() exported {
	out := exported{rows: slices.Clone(e.rows), parts: map[int64][]audit.Personal{}}
	for i := range out.rows {
		out.rows[i].Body = bytes.Clone(out.rows[i].Body)
	}
	for seq, p := range e.parts {
		out.parts[seq] = slices.Clone(p)
	}
	return out
}

func (e exported) records(f audit.Format) [][]byte {
	var out [][]byte
	for i := range e.rows {
		out = append(out, f.AppendRecord(nil, &e.rows[i], e.parts[e.rows[i].Seq]))
	}
	return out
}

func (e exported) file(f audit.Format) []byte {
	return append(f.AppendHeader(nil), bytes.Join(e.records(f), nil)...)
}

// fileCase is a file and what both verifiers have to say of it.
type fileCase struct {
	name    string
	data    []byte
	secrets []string
	exit    int // -1: anything but 0
	summary string
}

// check verifies every file with this code and with docs/verify_audit.py: both say the same.
func check(t *testing.T, cases []fileCase) {
	t.Helper()
	dir := t.TempDir()
	var list strings.Builder
	for i, c := range cases {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		list.WriteString(path)
		for j, s := range c.secrets {
			name := filepath.Join(dir, fmt.Sprint(i, ".secret", j))
			if err := os.WriteFile(name, []byte(s+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			list.WriteString("\t--secret-file=" + name)
		}
		list.WriteString("\n")
	}
	cmd := exec.CommandContext(t.Context(), "python3", "-c", `
import contextlib, io, sys
sys.dont_write_bytecode = True
sys.path.insert(0, "../../docs")
import verify_audit
for line in sys.stdin:
    sys.argv = ["verify_audit.py"] + line.rstrip("\n").split("\t")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = verify_audit.main()
    print(code, said.getvalue().replace("\n", " | "))
`)
	cmd.Stdin = strings.NewReader(list.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docs/verify_audit.py: %v\n%s", err, out)
	}
	said := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(said) != len(cases) {
		t.Fatalf("docs/verify_audit.py said %d things of %d files", len(said), len(cases))
	}
	for i, c := range cases {
		exit, r := verifyFile(t, c.data, c.secrets)
		if exit != c.exit && (c.exit != -1 || exit == 0) {
			t.Errorf("%s: exit %d, want %d: %s", c.name, exit, c.exit, r.Summary)
		}
		code, text, _ := strings.Cut(said[i], " ")
		if code != fmt.Sprint(exit) {
			t.Errorf("%s: docs/verify_audit.py says %s, want %d (%s); %s", c.name, code, exit, r.Summary, text)
		}
		if c.summary != "" && (!strings.Contains(r.Summary, c.summary) || !strings.Contains(text, c.summary)) {
			t.Errorf("%s: got %q and %q, want %q in both", c.name, r.Summary, text, c.summary)
		}
	}
}

func verifyFile(t testing.TB, data []byte, secrets []string) (int, audit.FileReport) {
	t.Helper()
	var keys []audit.Key
	for _, s := range secrets {
		keys = append(keys, newKey(t, s))
	}
	r, err := audit.VerifyFile(bytes.NewReader(data), keys, nil)
	if errors.Is(err, audit.ErrFile) {
		return audit.ExitUnprovable, audit.FileReport{Summary: err.Error()}
	}
	if err != nil {
		t.Fatal(err)
	}
	return r.Exit(), r
}

// vectorFile makes an export of the rows of a vector.
func vectorFile(t testing.TB, name string) (exported, []string) {
	v := readVector(t, name)
	c := &chain{key: newKey(t, v.Secrets[len(v.Secrets)-1])}
	c.rows, c.parts = v.stored()
	kids := []audit.KeyTime{{KID: newKey(t, v.Secrets[0]).KID(), Introduced: 1}}
	for i := range c.rows {
		switch body, _ := audit.ParseBody(c.rows[i].Body); body.Action {
		case string(audit.KeyIntroduced):
			kids = append(kids, audit.KeyTime{KID: body.KID, Introduced: body.Seq})
		case string(audit.KeyRetired):
			kids[0].Retired = body.Seq
		}
	}
	c.ts = c.head().TS + 1_000_000
	first := c.rows[0].Seq
	prefix := make([]audit.Row, first-1)
	if v.Boundary != nil {
		prefix[first-2].RowHMAC = v.Boundary.RowHMAC
	}
	c.rows = append(prefix, c.rows...)
	return c.export(t, first, kids, nil), v.Secrets
}

// TestFileVectors pins the two formats, byte by byte, and both verifiers prove every vector.
func TestFileVectors(t *testing.T) {
	var cases []fileCase
	for name := range chains(t) {
		e, secrets := vectorFile(t, name)
		for _, f := range []audit.Format{audit.CSV, audit.NDJSON} {
			path := filepath.Join("testdata", "export", name+"."+string(f))
			got := e.file(f)
			if *update {
				if err := os.WriteFile(path, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: the form of exported files changed, which no script outside would survive (-want +got):\n%s", path, cmp.Diff(string(want), string(got)))
			}
			summary := fmt.Sprintf("complete from %d to %d", e.rows[0].Seq, e.rows[len(e.rows)-2].Seq)
			cases = append(cases, fileCase{path, want, secrets, 0, summary})
			if len(secrets) > 1 {
				cases = append(cases, fileCase{path + ", the new secret alone", want, secrets[1:], 3, "was not given"},
					fileCase{path + ", the old secret alone", want, secrets[:1], 3, "was not given"})
			}
			cases = append(cases, fileCase{path + ", another secret", want, []string{secretB + "another"}, 3, "was not given"})
		}
	}
	check(t, cases)
}

// fileSample is a chain of everything that a file can hold.
func fileSample(t testing.TB) (*chain, []audit.KeyTime) {
	c, b := newChain(t, secretA), newKey(t, secretB)
	a := c.key
	c.add(t, audit.Facts{
		Action: audit.ProjectCreated, Actor: audit.Actor{Kind: audit.CLI, ID: "=cmd|' /C calc'!A0", Label: "@SUM(1+1)*\",x", UserAgent: "+1\t-2"},
		Target: audit.Target{ID: user(3), Label: " leading space\r\nand\rlines\n, \"quotes\" \u2028 😀"}, Details: map[string]any{"slug": "=1+1", "environment": "a\r\nb"},
	})
	c.add(t, login(1))
	c.add(t, audit.Facts{Action: audit.AuthLogin, Actor: audit.Actor{Kind: audit.User, ID: user(2), Label: "ann@example.org"}, Details: map[string]any{"reason": strings.Repeat("\x01", 54)}})
	proof := a.RotationProof(b.KID(), c.head().RowHMAC)
	c.key = b
	c.add(t, audit.Facts{Action: audit.KeyIntroduced, Actor: audit.Actor{Kind: audit.System}, Details: map[string]any{
		"kid": b.KID(), "public_key": b.PublicKey(), "previous_kid": a.KID(), "proof": proof,
	}})
	c.add(t, audit.Facts{Action: audit.KeyRetired, Actor: audit.Actor{Kind: audit.CLI}, Details: map[string]any{"kid": a.KID()}})
	by := c.head().Seq + 1
	digest := sum(audit.ErasureLine(3, audit.RoleActor) + audit.ErasureLine(3, audit.RoleTarget))
	c.add(t, audit.Facts{Action: audit.Erased, Actor: audit.Actor{Kind: audit.CLI}, Target: audit.Target{ID: user(1)}, Details: map[string]any{"user_id": user(1), "count": 2, "sha256": digest}})
	for i := range c.parts[3] {
		c.parts[3][i] = audit.Personal{Seq: 3, Role: c.parts[3][i].Role, ErasedBy: by}
	}
	c.add(t, audit.Facts{
		Action: audit.UserCreated, Actor: audit.Actor{Kind: audit.User, ID: user(2)}, Target: audit.Target{ID: user(4), Label: "bob@example.org"},
		Details: map[string]any{"is_admin": false, "display_name": "Bob \"the\" =Builder"},
	})
	return c, []audit.KeyTime{{KID: a.KID(), Introduced: 1, Retired: 6}, {KID: b.KID(), Introduced: 5}}
}

// TestFilesTamperedWith changes every stored field, moves records about, and flips bits anywhere: nothing of it passes, and
// the Python script says of each the same as this code.
func TestFilesTamperedWith(t *testing.T) {
	both := []string{secretA, secretB}
	whole := func() exported { c, kids := fileSample(t); return c.export(t, 1, kids, nil) }()
	middle := func() exported { c, kids := fileSample(t); return c.export(t, 4, kids, nil) }()
	logins := func(r *audit.Row) bool { return r.Action == string(audit.AuthLogin) }
	sparse := func() exported { c, kids := fileSample(t); return c.export(t, 1, kids, logins) }()
	random := rand.New(rand.NewPCG(6, 1))
	for _, f := range []audit.Format{audit.CSV, audit.NDJSON} {
		t.Run(string(f), func(t *testing.T) {
			cases := []fileCase{
				{"whole", whole.file(f), both, 0, "complete from 1 to 8, from the beginning"},
				{"from the middle", middle.file(f), both, 0, "complete from 4 to 8, follows row_hmac " + whole.rows[2].RowHMAC},
				{"filtered", sparse.file(f), both, 0, "2 rows authentic; nothing is said about those between"},
				{"empty", nil, both, 3, ""},
				{"no export", []byte("hello\n"), both, 3, ""},
			}
			for kind, e := range map[string]exported{"whole": whole, "from the middle": middle, "filtered": sparse} {
				cases = append(cases, fieldCases(kind, e, f, both)...)
				cases = append(cases, recordCases(kind, e, f, both)...)
				data := e.file(f)
				for range 60 {
					flipped := bytes.Clone(data)
					at, bit := random.IntN(len(data)), random.IntN(8)
					flipped[at] ^= 1 << bit
					cases = append(cases, fileCase{fmt.Sprintf("%s: bit %d of byte %d flipped", kind, bit, at), flipped, both, -1, ""})
				}
				for range 12 {
					at := random.IntN(len(data) - 1)
					cases = append(cases, fileCase{fmt.Sprintf("%s: cut behind byte %d", kind, at), data[:at], both, -1, ""})
				}
			}
			check(t, cases)
		})
	}
}

// fieldCases are files of which one stored field is another.
func fieldCases(kind string, e exported, f audit.Format, secrets []string) []fileCase {
	var out []fileCase
	add := func(name string, i int, change func(*audit.Row, []audit.Personal)) {
		c := e.clone()
		change(&c.rows[i], c.parts[c.rows[i].Seq])
		if data := c.file(f); !bytes.Equal(data, e.file(f)) {
			out = append(out, fileCase{fmt.Sprintf("%s: row %d: %s", kind, e.rows[i].Seq, name), data, secrets, -1, ""})
		}
	}
	for i := range e.rows {
		if kind != "whole" && i > 0 && i < len(e.rows)-1 {
			continue // the same checks
		}
		for _, column := range fields {
			add(column.name+" changed", i, func(r *audit.Row, _ []audit.Personal) { column.set(r, audit.Some(column.get(r).S+"x")) })
			add(column.name+" emptied", i, func(r *audit.Row, _ []audit.Personal) { column.set(r, audit.Text{}) })
		}
		add("seq", i, func(r *audit.Row, _ []audit.Personal) { r.Seq += 1000 })
		add("ts", i, func(r *audit.Row, _ []audit.Personal) { r.TS++ })
		add("body", i, func(r *audit.Row, _ []audit.Personal) { r.Body[len(r.Body)/2] ^= 1 })
		for j := range e.parts[e.rows[i].Seq] {
			add("json of a part", i, func(_ *audit.Row, p []audit.Personal) {
				p[j].JSON = audit.Some(strings.Replace(p[j].JSON.S, "e", "f", 1))
			})
			add("salt of a part", i, func(_ *audit.Row, p []audit.Personal) { p[j].Salt = append(slices.Clone(p[j].Salt), 1) })
			add("role of a part", i, func(_ *audit.Row, p []audit.Personal) { p[j].Role = "nobody" })
			if kind == "whole" { // of the others an erasure may have taken a part that is not in them
				add("a part erased", i, func(_ *audit.Row, p []audit.Personal) { p[j] = audit.Personal{Role: p[j].Role, ErasedBy: 7} })
			}
			add("a part erased by itself", i, func(r *audit.Row, p []audit.Personal) { p[j] = audit.Personal{Role: p[j].Role, ErasedBy: r.Seq} })
			add("a part emptied", i, func(_ *audit.Row, p []audit.Personal) { p[j] = audit.Personal{Role: p[j].Role} })
		}
	}
	data := e.file(f)
	for _, tt := range []struct{ old, new string }{{"user_agent", "User_agent"}, {"root", "toor"}, {"ann@example.org", "eve@example.org"}} {
		for n := range bytes.Count(data, []byte(tt.old)) { // also in the columns that are read from the parts
			parts := bytes.SplitAfterN(data, []byte(tt.old), n+2)
			last := len(parts) - 2
			parts[last] = append(bytes.TrimSuffix(bytes.Clone(parts[last]), []byte(tt.old)), tt.new...)
			out = append(out, fileCase{fmt.Sprintf("%s: %s no. %d", kind, tt.old, n), bytes.Join(parts, nil), secrets, -1, ""})
		}
	}
	return out
}

// recordCases are files with records deleted, doubled, swapped, or put behind the end.
func recordCases(kind string, e exported, f audit.Format, secrets []string) []fileCase {
	var out []fileCase
	add := func(name string, exit int, list [][]byte) {
		out = append(out, fileCase{kind + ": " + name, append(f.AppendHeader(nil), bytes.Join(list, nil)...), secrets, exit, ""})
	}
	list := e.records(f)
	n := len(list)
	for i := range n {
		exit := 1
		switch {
		case i == n-1:
			exit = 3 // the file was cut
		case kind == "filtered":
			exit = 0 // of those between nothing is said
		}
		add(fmt.Sprint("record ", i, " deleted"), exit, slices.Concat(list[:i], list[i+1:]))
		add(fmt.Sprint("record ", i, " doubled"), 1, slices.Insert(slices.Clone(list), i, list[i]))
		if i > 0 {
			swapped := slices.Clone(list)
			swapped[i-1], swapped[i] = swapped[i], swapped[i-1]
			add(fmt.Sprint("records ", i-1, " and ", i, " swapped"), -1, swapped)
		}
	}
	add("the last record alone", -1, list[n-1:])
	add("the last record in front", -1, slices.Concat(list[n-1:], list[:n-1]))
	add("something behind the end", 3, append(slices.Clone(list), []byte("x\n")))
	return out
}

// TestFileSaysWhatItFollows: a file that begins behind a prune names the row that it follows.
func TestFileSaysWhatItFollows(t *testing.T) {
	c, kids := fileSample(t)
	e := c.export(t, 3, kids, nil)
	exit, r := verifyFile(t, e.file(audit.NDJSON), []string{secretA, secretB})
	if want := c.rows[1].RowHMAC; exit != 0 || r.Exported.PrevRowHMAC != want || r.Exported.First != 3 || r.Exported.Last != 8 || r.Checked != 6 {
		t.Errorf("exit %d, %+v, %d checked; want 0, rows 3 to 8 after %s", exit, r.Exported, r.Checked, want)
	}
}

// TestFilesAreReadAsTheyWereWritten: rows and parts come back as they are stored, every byte of them.
func TestFilesAreReadAsTheyWereWritten(t *testing.T) {
	c, kids := fileSample(t)
	e := c.export(t, 1, kids, nil)
	for _, f := range []audit.Format{audit.CSV, audit.NDJSON} {
		in, err := audit.NewFileReader(bytes.NewReader(e.file(f)))
		if err != nil {
			t.Fatal(err)
		}
		for i := range e.rows {
			r, err := in.Next()
			if err != nil {
				t.Fatal(err)
			}
			parts := slices.Clone(e.parts[r.Seq])
			for j := range parts {
				parts[j].Subject = audit.Text{} // files don't have it
			}
			if diff := cmp.Diff(e.rows[i], r.Row); diff != "" {
				t.Errorf("%s: record %d (- stored, + read):\n%s", f, i, diff)
			}
			if len(parts)+len(r.Parts) > 0 && !cmp.Equal(parts, r.Parts) {
				t.Errorf("%s: parts of record %d (- stored, + read):\n%s", f, i, cmp.Diff(parts, r.Parts))
			}
		}
		if _, err := in.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: behind the last record: %v, want EOF", f, err)
		}
	}
}

// FuzzFileReader: what is no export is an error, never a panic, and what can be read is written again as it was.
func FuzzFileReader(f *testing.F) {
	c, kids := fileSample(f)
	e := c.export(f, 1, kids, nil)
	f.Add(e.file(audit.CSV))
	f.Add(e.file(audit.NDJSON))
	f.Add([]byte(`{"seq":1}`))
	f.Add([]byte("\"\"\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := audit.VerifyFile(bytes.NewReader(data), c.keys(), nil); err != nil && !errors.Is(err, audit.ErrFile) {
			t.Errorf("got %v, want an ErrFile", err)
		}
	})
}
