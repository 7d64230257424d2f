package z4j_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/z4j-go/z4j/"

// mayImport is the architecture: each package below internal, and what of ours it may import beside internal/id.
// A new package gets a line here, and a reason in docs/architecture.md.
var mayImport = map[string][]string{
	"id":      {},
	"wire":    {},
	"fold":    {},
	"auth":    {},
	"jobs":    {},
	"live":    {},
	"metrics": {},
	"redact":  {},
	"config":  {},

	"audit":             {"redact"},
	"target":            {},
	"target/targettest": {"target", "store/storetest"},
	"store":             {"audit", "fold"},
	"custody":           {"store", "audit", "target"},
	"store/storetest":   {"store", "audit", "fold"},
	"backup":            {"store", "audit", "target", "custody"},
	"load":              {"store", "fold", "wire"},
	"ingest":            {"store", "fold", "wire", "live", "metrics", "redact"},
	"gateway":           {"store", "wire", "ingest", "auth", "metrics", "live"},
	"api":               {"store", "auth", "audit", "backup", "custody", "live", "metrics"},
	"app":               {"web", "api", "backup", "gateway", "ingest", "store", "audit", "auth", "config", "jobs", "live", "metrics", "redact", "fold", "wire", "custody", "target"},
	"app/apptest":       {"app", "config", "wire", "store", "store/storetest"},
	"prune":             {"store", "audit", "target"},
	"cli":               {"app", "config", "store", "backup", "audit", "auth", "prune", "custody", "target"},
}

// only names, for what comes from outside, the few packages that may touch it; "a/..." is a and all below it.
var only = map[string][]string{
	"database/sql":                              {"store/..."},
	"github.com/jackc/pgx":                      {"store/..."},
	"modernc.org/sqlite":                        {},
	"github.com/ncruces/go-sqlite3":             {"store/..."},
	"github.com/pressly/goose":                  {"store/..."},
	"github.com/danielgtaylor/huma":             {"api"},
	"github.com/alecthomas/kong":                {"cli", "load"},
	"github.com/coder/websocket":                {"gateway", "api", "app/apptest", "load"},
	"github.com/prometheus":                     {"metrics", "api", "app"},
	"golang.org/x/term":                         {"cli"},
	"filippo.io/age":                            {"backup", "cli", "app"},
	"github.com/klauspost/compress":             {"backup"},
	"github.com/adhocore/gronx":                 {"backup"},
	"golang.org/x/crypto":                       {"auth"},
	"github.com/transparency-dev/merkle":        {"audit"},
	"golang.org/x/mod":                          {"audit"},
	"os/exec":                                   {"store/storetest", "app/apptest", "target/targettest"},
	"testing":                                   {"store/storetest", "app/apptest", "target/targettest"},
	"github.com/minio/minio-go":                 {"target/..."},
	"github.com/google/go-cmp":                  {},
	"github.com/rogpeppe/go-internal":           {},
	"go.uber.org/goleak":                        {},
	"pgregory.net/rapid":                        {},
	"log":                                       {},
	"github.com/google/uuid":                    {},
	"github.com/mattn/go-sqlite3":               {},
	"github.com/stretchr/testify":               {},
	"github.com/pkg/errors":                     {},
	"github.com/golang-migrate":                 {},
	"encoding/gob":                              {},
	"net/http/pprof":                            {},
	"plugin":                                    {},
	"unsafe":                                    {},
	"github.com/danielgtaylor/huma/v2/humatest": {},
}

// file is a Go source file of ours that is not a test.
type file struct {
	path    string
	pkg     string // below internal, or the path of its directory
	imports []string
}

func sources(t *testing.T) []file {
	t.Helper()
	var files []file
	walk := func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata" || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		one := file{path: path, pkg: strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "internal/")}
		for _, im := range f.Imports {
			name, err := strconv.Unquote(im.Path.Value)
			if err != nil {
				return err
			}
			one.imports = append(one.imports, name)
		}
		files = append(files, one)
		return nil
	}
	if err := filepath.WalkDir(".", walk); err != nil {
		t.Fatal(err)
	}
	return files
}

func TestPackagesImportOnlyWhatTheArchitectureAllows(t *testing.T) {
	found := 0
	for _, f := range sources(t) {
		if !strings.HasPrefix(f.path, "internal/") {
			continue
		}
		found++
		allowed, known := mayImport[f.pkg]
		if !known {
			t.Errorf("%s: internal/%s is a package that the architecture does not know; give it a line in mayImport with what it may import", f.path, f.pkg)
			continue
		}
		for _, name := range f.imports {
			dep, ours := strings.CutPrefix(name, module)
			if !ours {
				continue
			}
			dep = strings.TrimPrefix(dep, "internal/")
			if dep != "id" && !slices.Contains(allowed, dep) {
				t.Errorf("%s imports %s, got %s -> %s, want one of %q; declare the interface it needs and let app connect the two", f.path, name, f.pkg, dep, allowed)
			}
		}
	}
	if found == 0 {
		t.Fatal("no source file found below internal: run this test in the root of the module")
	}
}

func TestOnlyFewPackagesTouchWhatComesFromOutside(t *testing.T) {
	for _, f := range sources(t) {
		for _, name := range f.imports {
			for _, outside := range slices.Sorted(maps.Keys(only)) {
				if name != outside && !strings.HasPrefix(name, outside+"/") || name == "database/sql/driver" || strings.HasPrefix(name, "log/") {
					continue
				}
				if !within(f.pkg, only[outside]) {
					t.Errorf("%s imports %s, got package %s, want one of %q (empty: tests only, or never)", f.path, name, f.pkg, only[outside])
				}
			}
		}
	}
}

// within reports whether a package is one of a list; "a/..." stands for a and all below it.
func within(pkg string, list []string) bool {
	return slices.ContainsFunc(list, func(one string) bool {
		root, all := strings.CutSuffix(one, "/...")
		return pkg == root || all && strings.HasPrefix(pkg, root+"/")
	})
}

func TestCommandsKnowOnlyTheirEntry(t *testing.T) {
	allowed := map[string][]string{
		"cmd/z4j-brain":   {"internal/cli"},
		"cmd/z4j-loadgen": {"internal/load"},
	}
	for _, f := range sources(t) {
		if !strings.HasPrefix(f.path, "cmd/") {
			continue
		}
		for _, name := range f.imports {
			if dep, ours := strings.CutPrefix(name, module); ours && !slices.Contains(allowed[f.pkg], dep) {
				t.Errorf("%s imports %s, want one of %q", f.path, dep, allowed[f.pkg])
			}
		}
	}
}

func TestNoPackageIsNamedAfterNothing(t *testing.T) {
	refused := []string{"util", "utils", "common", "helper", "helpers", "manager", "base", "impl", "misc", "shared"}
	for _, f := range sources(t) {
		if name := filepath.Base(f.pkg); slices.Contains(refused, name) {
			t.Errorf("%s: a package named %s says nothing; name it after what it gives", f.path, name)
		}
	}
}

func TestFilesStayReadable(t *testing.T) {
	const most = 800 // lines; two thirds of the longest file that a reader still takes in one go
	for _, f := range sources(t) {
		text, err := os.ReadFile(f.path)
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(string(text), "\n"); lines > most {
			t.Errorf("%s: got %d lines, want at most %d; split it by noun", f.path, lines, most)
		}
	}
}

// TestMigrationsComeInPairs keeps the two databases' schemas under the same file names.
func TestMigrationsComeInPairs(t *testing.T) {
	names := func(dir string) []string {
		entries, err := os.ReadDir(filepath.Join("internal/store/migrations", dir))
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return list
	}
	postgres, sqlite := names("postgres"), names("sqlite")
	if !slices.Equal(postgres, sqlite) {
		t.Errorf("migrations: postgres has %q and sqlite %q, want the same file names", postgres, sqlite)
	}
}
