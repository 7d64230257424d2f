package target_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/target"
	"github.com/z4j-go/z4j/internal/target/targettest"
)

// place is a target to test and where it keeps its files.
type place struct {
	target.Target
	location string
	dir      string
	options  target.Options
}

// each runs a test on a directory and on a bucket, both empty.
func each(t *testing.T, test func(t *testing.T, p place)) {
	t.Run("directory", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		test(t, place{open(t, dir, target.Options{}), dir, dir, target.Options{}})
	})
	t.Run("s3", func(t *testing.T) {
		t.Parallel()
		location, o, dir := targettest.Bucket(t)
		test(t, place{open(t, location+"/a/prefix", o), location + "/a/prefix", filepath.Join(dir, "a", "prefix"), o})
	})
}

func open(t *testing.T, location string, o target.Options) target.Target {
	t.Helper()
	p, err := target.Open(t.Context(), location, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func put(t *testing.T, p target.Target, name string, content []byte) error {
	t.Helper()
	w, err := p.Create(t.Context(), name)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(content, 3_000_001) {
		if _, err := w.Write(part); err != nil {
			return errors.Join(err, w.Close())
		}
	}
	return errors.Join(w.Commit(), w.Close())
}

func get(t *testing.T, p target.Target, name string) ([]byte, error) {
	t.Helper()
	r, err := p.Open(t.Context(), name)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
	return content, errors.Join(err, r.Close())
}

func names(t *testing.T, p target.Target, prefix string, limit int) []string {
	t.Helper()
	list, err := p.List(t.Context(), prefix, limit)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, o := range list {
		out = append(out, o.Name)
	}
	return out
}

func noise(n int) []byte {
	out := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(out)
	return out
}

func TestAFileComesBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, p place) {
		for _, size := range []int{0, 1, 16<<20 - 1, 16 << 20, 16<<20 + 1, 35 << 20} {
			want := noise(size)
			if err := put(t, p, "some.file", want); err != nil {
				t.Fatalf("put %d bytes: %v", size, err)
			}
			got, err := get(t, p, "some.file")
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes: got %d others, %v, want those that were written", size, len(got), err)
			}
			list, err := p.List(t.Context(), "", 10)
			if err != nil || len(list) != 1 || list[0].Size != int64(size) || time.Since(list[0].Modified) > time.Hour {
				t.Errorf("list after %d bytes: got %+v, %v, want the one file with its size and time", size, list, err)
			}
		}
	})
}

func TestReadersReadAnywhere(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, p place) {
		want := noise(1000)
		if err := put(t, p, "f", want); err != nil {
			t.Fatal(err)
		}
		r, err := p.Open(t.Context(), "f")
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name    string
			at      int64
			n, want int
			err     error
		}{
			{"the beginning", 0, 10, 10, nil},
			{"the middle", 500, 100, 100, nil},
			{"the end exactly", 990, 10, 10, nil},
			{"past the end", 990, 20, 10, io.EOF},
			{"behind the end", 1000, 5, 0, io.EOF},
			{"far behind the end", 5000, 5, 0, io.EOF},
		} {
			got := make([]byte, tt.n)
			n, err := r.ReadAt(got, tt.at)
			if n != tt.want || !errors.Is(err, tt.err) || n > 0 && !bytes.Equal(got[:n], want[tt.at:tt.at+int64(n)]) {
				t.Errorf("%s: got %d bytes, %v, want %d, %v", tt.name, n, err, tt.want, tt.err)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatIsNotCommittedIsNotThere(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, p place) {
		if err := put(t, p, "kept", []byte("old")); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"kept", "new/one"} {
			w, err := p.Create(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(noise(17 << 20)); err != nil {
				t.Fatal(err)
			}
			if got := names(t, p, "", 10); !slices.Equal(got, []string{"kept"}) {
				t.Errorf("while %s is written: got %q, want what was committed", name, got)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if err := w.Commit(); !errors.Is(err, fs.ErrClosed) {
				t.Errorf("commit after close: got %v, want it refused", err)
			}
		}
		if got, err := get(t, p, "kept"); err != nil || string(got) != "old" {
			t.Errorf("an abandoned replacement: got %q, %v, want the old content", got, err)
		}
		if _, err := p.Open(t.Context(), "new/one"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open what was abandoned: got %v, want fs.ErrNotExist", err)
		}
		left := 0
		_ = filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && !strings.HasSuffix(path, "kept") {
				left++
			}
			return nil
		})
		if left > 0 {
			t.Errorf("got %d files left behind, want none", left)
		}
	})
}

func TestListsAreSortedAndCut(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, p place) {
		for _, name := range []string{"a/2", "a-b", "a/1", "b", "a.b", "a/sub/deep"} {
			if err := put(t, p, name, []byte(name)); err != nil {
				t.Fatal(err)
			}
		}
		for _, tt := range []struct {
			prefix string
			limit  int
			want   []string
		}{
			{"", 100, []string{"a-b", "a.b", "a/1", "a/2", "a/sub/deep", "b"}},
			{"", 2, []string{"a-b", "a.b"}},
			{"a/", 100, []string{"a/1", "a/2", "a/sub/deep"}},
			{"a/", 1, []string{"a/1"}},
			{"nothing", 5, []string{}},
		} {
			if got := names(t, p, tt.prefix, tt.limit); !slices.Equal(got, tt.want) {
				t.Errorf("list %q, %d: got %q, want %q", tt.prefix, tt.limit, got, tt.want)
			}
		}
		for range 2 { // the second finds nothing, and that is no error
			if err := p.Remove(t.Context(), "a/1"); err != nil {
				t.Errorf("remove: %v", err)
			}
		}
		if got := names(t, p, "a/", 100); !slices.Equal(got, []string{"a/2", "a/sub/deep"}) {
			t.Errorf("after remove: got %q, want the other two", got)
		}
	})
}

// TestLessonA32NamesStayInside: an absolute path in a row once gave a download any file of the server.
func TestLessonA32NamesStayInside(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, p place) {
		outside := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{
			"", ".", "..", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", ".hidden", "a/.hidden/b", `a\..\b`, "a\x00b", "a\nb",
			"a\xffb", strings.Repeat("x", 300),
		} {
			_, err1 := p.Create(t.Context(), name)
			_, err2 := p.Open(t.Context(), name)
			err3 := p.Remove(t.Context(), name)
			for _, err := range []error{err1, err2, err3} {
				if !errors.Is(err, target.ErrName) {
					t.Errorf("name %q: got %v, want ErrName", name, err)
				}
			}
		}
		if _, err := p.List(t.Context(), "../", 1); !errors.Is(err, target.ErrName) {
			t.Errorf("list ../: got %v, want ErrName", err)
		}
		if p.dir != p.location {
			return // only a directory has links
		}
		if err := os.Symlink(outside, filepath.Join(p.dir, "link")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Dir(outside), filepath.Join(p.dir, "linked")); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"link", "linked/secret"} {
			if got, err := get(t, p, name); err == nil {
				t.Errorf("open %s, a link that leads out: got %q, want it refused", name, got)
			}
			if err := put(t, p, "linked/new", nil); err == nil {
				t.Errorf("write through a link that leads out: got no error, want it refused")
			}
		}
		if got := names(t, p, "", 10); len(got) > 0 {
			t.Errorf("list: got %q, want no links", got)
		}
	})
}

func TestSweepTakesOnlyWhatIsOldAndUnfinished(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, p place) {
		if err := put(t, p, "mine-1", []byte("whole")); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"mine-2", "other"} {
			w, err := p.Create(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(noise(17 << 20)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = w.Close() })
		}
		began := unfinished(t, p)
		if err := p.Sweep(t.Context(), "mine-", time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
		if got := unfinished(t, p); began < 2 || got != began {
			t.Errorf("sweep of what is an hour old: got %d of %d files left, want all", got, began)
		}
		if err := p.Sweep(t.Context(), "mine-", time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if got := unfinished(t, p); got >= began || got == 0 {
			t.Errorf("sweep: got %d of %d unfinished files left, want only those of the other name", got, began)
		}
		if got := names(t, p, "", 10); !slices.Equal(got, []string{"mine-1"}) {
			t.Errorf("files after the sweep: got %q, want the whole one", got)
		}
	})
}

// unfinished counts the files that lie where the target keeps them beside the whole ones.
func unfinished(t *testing.T, p place) int {
	t.Helper()
	n := 0
	root := p.dir
	if p.dir != p.location {
		root = filepath.Dir(filepath.Dir(p.dir)) // uploads under way stand at the top of the bucket
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !strings.HasSuffix(path, "mine-1") {
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFilesOfADirectoryAreTheirOwnersAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := put(t, open(t, dir, target.Options{}), "sub/f", []byte("x")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{"sub/f": 0o600, "sub": 0o700} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("mode of %s: got %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
}

func TestLocationsThatAreNone(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	keys := target.S3{AccessKeyID: "id", SecretAccessKey: "hidden-key"}
	for _, tt := range []struct {
		name, location string
		o              target.Options
		want           string
	}{
		{"nothing", "", target.Options{}, "empty"},
		{"another scheme", "ftp://host/dir", target.Options{}, "ftp:// is no place"},
		{"a directory that is not there", filepath.Join(file + "-none"), target.Options{}, "mkdir"},
		{"a file", file, target.Options{}, "not a directory"},
		{"no bucket", "s3:///x", target.Options{}, "s3://bucket/prefix"},
		{"keys in the location", "s3://hidden-key:x@bucket/x", target.Options{}, "settings of their own"},
		{"a prefix that climbs", "s3://bucket/../x", target.Options{}, "prefix"},
		{"an endpoint with a password", "s3://bucket", target.Options{S3: target.S3{Endpoint: "https://u:hidden-key@host"}}, "endpoint"},
		{"an endpoint without a scheme", "s3://bucket", target.Options{S3: target.S3{Endpoint: "host:9000"}}, "endpoint"},
		{"half of the keys", "s3://bucket", target.Options{S3: target.S3{SecretAccessKey: "hidden-key"}}, "one is missing"},
		{"a bucket's name that is none", "s3://B_/x", target.Options{S3: keys}, ""},
	} {
		p, err := target.Open(t.Context(), tt.location, tt.o)
		if tt.want == "" {
			_, err = p.List(t.Context(), "", 1)
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hidden-key") {
			t.Errorf("%s: got %v, want it to say %q and no secret", tt.name, err, tt.want)
		}
	}
}

func TestAServerThatRefusesOrLosesIsNoticed(t *testing.T) {
	t.Parallel()
	content := noise(40 << 20) // three parts
	number := func(r *http.Request) string { return r.URL.Query().Get("partNumber") }
	completes := func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Query().Has("uploadId") }
	for _, tt := range []struct {
		name  string
		want  string
		fault func(dir string, w http.ResponseWriter, r *http.Request, forward func())
	}{
		{"a part that is taken and lost", "complete", func(_ string, w http.ResponseWriter, r *http.Request, forward func()) {
			if number(r) != "2" {
				forward()
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("ETag", `"0123456789abcdef0123456789abcdef"`)
		}},
		{"an upload that is cut in the middle of each try", "part 2", func(_ string, _ http.ResponseWriter, r *http.Request, forward func()) {
			if number(r) == "2" {
				_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
				panic(http.ErrAbortHandler)
			}
			forward()
		}},
		{"a file that lost its end after it was complete", "lost a part", func(dir string, w http.ResponseWriter, r *http.Request, forward func()) {
			forward()
			if completes(r) {
				_ = os.Truncate(filepath.Join(dir, "p", "f"), 32<<20)
			}
		}},
		{"a file with another byte after it was complete", "other bytes", func(dir string, w http.ResponseWriter, r *http.Request, forward func()) {
			forward()
			if completes(r) {
				f, err := os.OpenFile(filepath.Join(dir, "p", "f"), os.O_WRONLY, 0)
				if err == nil {
					_, _ = f.WriteAt([]byte{content[20<<20] ^ 1}, 20<<20)
					_ = f.Close()
				}
			}
		}},
		{"a disk that is full", "full", func(_ string, w http.ResponseWriter, r *http.Request, forward func()) {
			if number(r) != "3" {
				forward()
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `<Error><Code>QuotaExceeded</Code><Message>the bucket is full</Message></Error>`)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			location, o, dir := targettest.Bucket(t)
			broken := targettest.Proxy(t, o, func(w http.ResponseWriter, r *http.Request, forward func()) { tt.fault(dir, w, r, forward) })
			err := put(t, open(t, location+"/p", broken), "f", content)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), o.S3.SecretAccessKey) {
				t.Errorf("got %v, want an error that says %q", err, tt.want)
			}
			if got := names(t, open(t, location, o), "", 10); len(got) > 0 {
				t.Errorf("got %q left in the bucket, want nothing", got)
			}
		})
	}
}

func TestABrokenConnectionIsReadAgain(t *testing.T) {
	t.Parallel()
	location, o, _ := targettest.Bucket(t)
	want := noise(3 << 20)
	if err := put(t, open(t, location, o), "f", want); err != nil {
		t.Fatal(err)
	}
	cuts := 2
	shaky := targettest.Proxy(t, o, func(w http.ResponseWriter, r *http.Request, forward func()) {
		if r.Method == http.MethodGet && r.Header.Get("Range") != "" && cuts > 0 {
			cuts--
			w.Header().Set("Content-Length", "3145728")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(want[:10])
			panic(http.ErrAbortHandler)
		}
		forward()
	})
	got := make([]byte, len(want))
	r, err := open(t, location, shaky).Open(t.Context(), "f")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.ReadAt(got, 0); err != nil || cuts != 0 {
		t.Fatalf("read: %v, %d cuts left, want none of both", err, cuts)
	}
}

func TestAReplacedObjectIsNotReadOn(t *testing.T) {
	t.Parallel()
	location, o, _ := targettest.Bucket(t)
	p := open(t, location, o)
	if err := put(t, p, "f", []byte("first")); err != nil {
		t.Fatal(err)
	}
	r, err := p.Open(t.Context(), "f")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := put(t, p, "f", []byte("other")); err != nil {
		t.Fatal(err)
	}
	if n, err := r.ReadAt(make([]byte, 5), 0); err == nil {
		t.Errorf("read of what was replaced: got %d bytes and no error, want one", n)
	}
}

// TestAFullDirectoryKeepsWhatItHad runs itself again as a process that may write no file longer than a megabyte.
func TestAFullDirectoryKeepsWhatItHad(t *testing.T) {
	const variable = "Z4J_TEST_FULL_DIRECTORY"
	if dir := os.Getenv(variable); dir != "" {
		signal.Ignore(syscall.SIGXFSZ)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20}); err != nil {
			t.Fatal(err)
		}
		err := put(t, open(t, dir, target.Options{}), "f", noise(5<<20))
		if !errors.Is(err, syscall.EFBIG) {
			t.Fatalf("write into a full directory: got %v, want EFBIG", err)
		}
		return
	}
	t.Parallel()
	dir := t.TempDir()
	p := open(t, dir, target.Options{})
	if err := put(t, p, "f", []byte("old")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("PASS")) {
		t.Fatalf("%v\n%s", err, out)
	}
	if got, err := get(t, p, "f"); err != nil || string(got) != "old" {
		t.Errorf("the file that was to be replaced: got %q, %v, want it as it was", got, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("directory: got %v, %v, want only the old file", entries, err)
	}
}
