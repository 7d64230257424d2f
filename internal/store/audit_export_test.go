package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

func beginExport(t testing.TB, s *store.Store, format audit.Format, f store.ExportFilter) *store.AuditExport {
	t.Helper()
	e, err := s.ExportAudit(t.Context(), format, f, operator)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func exportOf(t testing.TB, s *store.Store, format audit.Format, f store.ExportFilter) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := beginExport(t, s, format, f).Write(t.Context(), &out, nil); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func auditKey(t testing.TB) audit.Key {
	t.Helper()
	k, err := audit.NewKey(storetest.Secrets.Audit)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func verifyExport(t testing.TB, data []byte) audit.FileReport {
	t.Helper()
	r, err := audit.VerifyFile(bytes.NewReader(data), []audit.Key{auditKey(t)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// python runs docs/verify_audit.py on data with what `audit row-keys` gives, and returns its exit code and what it says.
func python(t testing.TB, data []byte) (int, string) {
	t.Helper()
	dir := t.TempDir()
	file, keys := filepath.Join(dir, "export"), filepath.Join(dir, "keys")
	k := auditKey(t)
	for path, text := range map[string][]byte{file: data, keys: []byte(k.KID() + "  " + k.RowKey() + "\n")} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "python3", "../../docs/verify_audit.py", file, "--row-keys", keys)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// hostile are texts that a file has to carry as they are.
func hostile() []audit.Entry {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	var out []audit.Entry
	for _, text := range []string{
		string(every), "=cmd|' /C calc'!A0", "@SUM(1)", "a,b\"c\"\r\nd\re\nf", " leading", "\ufeffBOM \u2028 \u202e 😀 日本語", strings.Repeat("\x01\"", 16<<10), strings.Repeat("€", 10_900),
	} {
		out = append(out, audit.New(audit.Facts{
			Action: audit.AuthLogin, Outcome: audit.Deny, Actor: audit.Actor{Kind: audit.User, ID: text, Label: text, IP: text, UserAgent: text},
			Target: audit.Target{ID: text, Label: text}, Details: map[string]any{"reason": text, "path": text}, RequestID: text,
		}))
	}
	return out
}

// TestExportIsProvedByBothVerifiers: what was written is in the file, byte by byte, and nothing that a caller sent
// breaks a file.
func TestExportIsProvedByBothVerifiers(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		if err := record(t.Context(), s, hostile()...); err != nil {
			t.Fatal(err)
		}
		for _, format := range []audit.Format{audit.CSV, audit.NDJSON} {
			before := verifyStore(t, s, store.VerifyOptions{})
			data := exportOf(t, s, format, store.ExportFilter{})
			want := fmt.Sprintf("complete from 1 to %d", before.To)
			r := verifyExport(t, data)
			if r.Exit() != 0 || !strings.Contains(r.Summary, want) || r.Exported.Seq != before.To+1 {
				t.Errorf("%s: exit %d, %s; want 0, %s", format, r.Exit(), r.Summary, want)
			}
			if code, said := python(t, data); code != 0 || !strings.Contains(said, want) {
				t.Errorf("%s: docs/verify_audit.py: exit %d, %s; want 0, %s", format, code, said, want)
			}
			compareRows(t, s, data)
			for _, at := range []int{len(data) / 3, len(data) / 2, len(data) - 3} {
				tampered := bytes.Clone(data)
				tampered[at] ^= 2
				code, said := python(t, tampered)
				exit := audit.ExitUnprovable
				if r, err := audit.VerifyFile(bytes.NewReader(tampered), []audit.Key{auditKey(t)}, nil); err == nil {
					exit = r.Exit()
				}
				if code == 0 || code != exit {
					t.Errorf("%s, byte %d changed: exit %d and %d of docs/verify_audit.py, want the same and not 0; %s", format, at, exit, code, said)
				}
			}
		}
	})
}

// compareRows reads a file and compares it with what the list of entries shows.
func compareRows(t testing.TB, s *store.Store, data []byte) {
	t.Helper()
	in, err := audit.NewFileReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for {
		r, err := in.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		page, err := s.AuditLog(t.Context(), store.AuditFilter{Page: store.Page{Limit: 500}})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Items {
			if e.Seq == r.Seq && (e.ID != r.ID || string(e.Details) != r.Details.S || !bytes.Equal(e.Body, r.Body) || e.RowHMAC != r.RowHMAC || e.Personal.Actor != nil && *e.Personal.Actor.JSON != r.Parts[0].JSON.S) {
				t.Errorf("row %d of the file is %+v, the list shows %+v", e.Seq, r.Row, e)
			}
		}
	}
}

// TestExportSelects: times give one contiguous range, other filters leave rows out and the file says so; the entry of the
// export is the last record whatever the filter.
func TestExportSelects(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		o := storetest.Options(url)
		sqlite := strings.HasPrefix(url, "sqlite:")
		if sqlite { // its clock is the host's
			o.Now = func() time.Time { return now }
		}
		s, err := store.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		project := store.Project{ID: id.Random(), Slug: "shop"}
		for i := range 8 {
			now = now.AddDate(0, 0, 1)
			f := audit.Facts{Action: audit.AuthLogin, Actor: audit.Actor{Kind: audit.User, ID: fmt.Sprint("u", i%2)}, Details: map[string]any{"reason": i}}
			if i%3 == 0 {
				f.Project, f.Action, f.Outcome = project.Audited(), audit.ProjectChanged, audit.Deny
			}
			if err := record(t.Context(), s, audit.New(f)); err != nil {
				t.Fatal(err)
			}
		}
		times := map[int64]store.Time{}
		page, err := s.AuditLog(t.Context(), store.AuditFilter{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Items {
			times[e.Seq] = e.TS
		}
		at := func(seq int64) *store.Time { return new(times[seq]) }
		for _, tt := range []struct {
			name   string
			filter store.ExportFilter
			want   string // numbers, but for the export's own
			says   string
		}{
			{"all", store.ExportFilter{Through: 9}, "1 2 3 4 5 6 7 8 9", "complete from 1 to 9"},
			{"from a time", store.ExportFilter{From: at(4), Through: 9}, "4 5 6 7 8 9", "complete from 4 to 9, follows"},
			{"to a time", store.ExportFilter{To: at(4)}, "1 2 3", "complete from 1 to 3"},
			{"between", store.ExportFilter{From: at(4), To: at(6)}, "4 5", "complete from 4 to 5"},
			{"nothing", store.ExportFilter{From: at(4), To: at(4)}, "", "there is no row"},
			{"a project", store.ExportFilter{Project: &project}, "2 5 8", "3 rows authentic; nothing is said about those between"},
			{"another project", store.ExportFilter{Project: &store.Project{ID: id.Random()}}, "", "there is no row"},
			{"an action", store.ExportFilter{Action: "auth.login", Through: 9}, "3 4 6 7 9", "5 rows authentic"},
			{"an actor", store.ExportFilter{Actor: "u1"}, "3 5 7 9", "4 rows authentic"},
			{"an outcome", store.ExportFilter{Outcome: "deny"}, "2 5 8", "3 rows authentic"},
			{"both", store.ExportFilter{Outcome: "deny", Actor: "u1", From: at(2), To: at(8)}, "5", "1 rows authentic"},
			{"what is no text", store.ExportFilter{Actor: "\x00"}, "", "there is no row"},
		} {
			data := exportOf(t, s, audit.NDJSON, tt.filter)
			r := verifyExport(t, data)
			var got []string
			in, _ := audit.NewFileReader(bytes.NewReader(data))
			var last audit.Row
			for {
				one, err := in.Next()
				if err != nil {
					break
				}
				got, last = append(got, fmt.Sprint(one.Seq)), one.Row
			}
			if numbers := strings.Join(got[:len(got)-1], " "); numbers != tt.want || !strings.Contains(r.Summary, tt.says) {
				t.Errorf("%s: got %s, %q; want %s, %q", tt.name, numbers, r.Summary, tt.want, tt.says)
			}
			if last.Action != string(audit.AuditExported) || last.ProjectID.Set != (tt.filter.Project != nil) {
				t.Errorf("%s: the last record is %s of %v, want the export's own", tt.name, last.Action, last.ProjectID)
			}
			if strings.HasPrefix(tt.name, "a") { // docs/verify_audit.py is tried on all kinds of files elsewhere
				continue
			}
			if code, said := python(t, data); code != r.Exit() {
				t.Errorf("%s: docs/verify_audit.py: exit %d, want %d; %s", tt.name, code, r.Exit(), said)
			}
		}
	})
}

// TestExportReadsPages: more rows than a page, of which a filter takes few.
func TestExportReadsPages(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		fill(t, s, 3500)
		mustRecord(t, s, 2)
		total := verifyStore(t, s, store.VerifyOptions{}).To
		r := verifyExport(t, exportOf(t, s, audit.CSV, store.ExportFilter{}))
		if r.Exit() != 0 || r.Checked != total {
			t.Errorf("all: exit %d, %d rows; want 0, %d; %s", r.Exit(), r.Checked, total, r.Summary)
		}
		r = verifyExport(t, exportOf(t, s, audit.NDJSON, store.ExportFilter{Action: string(audit.AuthLogin)}))
		if r.Exit() != 0 || r.Checked != 2 {
			t.Errorf("two of many: exit %d, %d rows; want 0, 2; %s", r.Exit(), r.Checked, r.Summary)
		}
		r = verifyExport(t, exportOf(t, s, audit.NDJSON, store.ExportFilter{Actor: "u7"}))
		if r.Exit() != 0 || r.Checked != 350 {
			t.Errorf("every tenth: exit %d, %d rows; want 0, 350; %s", r.Exit(), r.Checked, r.Summary)
		}
	})
}

// fill appends n entries, many in one change.
func fill(t testing.TB, s *store.Store, n int) {
	t.Helper()
	fillWith(t, s, n, "agent")
}

func fillWith(t testing.TB, s *store.Store, n int, name string) {
	t.Helper()
	batch := min(1000, 1+(1<<20)/len(name)) // one megabyte: who holds the chain has two seconds
	for i := 0; i < n; {
		var entries []audit.Entry
		for ; len(entries) < batch && i < n; i++ {
			entries = append(entries, audit.New(audit.Facts{
				Action: audit.AgentMinted, Actor: audit.Actor{Kind: audit.User, ID: fmt.Sprint("u", i%10), Label: "ann@example.org", IP: "203.0.113.7", UserAgent: "curl/8"},
				Target: audit.Target{ID: fmt.Sprint(i), Label: "agent"}, Details: map[string]any{"name": fmt.Sprint(name, "-", i)}, RequestID: "req_0123456789abcdef",
			}))
		}
		if err := record(t.Context(), s, entries...); err != nil {
			t.Fatal(err)
		}
	}
}

const exportMemoryEnv = "Z4J_TEST_EXPORT_MEMORY"

// TestExportMemory is what TestExportTakesConstantMemory runs as another process: it tells the largest heap.
func TestExportMemory(t *testing.T) {
	url := os.Getenv(exportMemoryEnv)
	if url == "" {
		t.Skip("runs in the process that TestExportTakesConstantMemory starts")
	}
	s := storetest.Open(t, url)
	var peak uint64
	if err := beginExport(t, s, audit.CSV, store.ExportFilter{}).Write(t.Context(), &heapMeter{peak: &peak}, nil); err != nil {
		t.Fatal(err)
	}
	fmt.Println("peak", peak>>20)
}

// heapMeter throws away what it is given and remembers the largest heap.
type heapMeter struct {
	peak   *uint64
	writes int
}

func (m *heapMeter) Write(p []byte) (int, error) {
	if m.writes++; m.writes%16 == 0 {
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		*m.peak = max(*m.peak, now.HeapAlloc)
	}
	return len(p), nil
}

// TestExportTakesConstantMemory: 15,000 rows (50,000 by night) and 500 of the largest, about 70 MB as a file, in a heap
// that is far smaller.
func TestExportTakesConstantMemory(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		storetest.Open(t, url)
		rows := 15_000
		if os.Getenv("Z4J_NIGHTLY") == "1" {
			rows = 50_000
		}
		storetest.FillAudit(t, url, rows)
		fillWith(t, storetest.Open(t, url), 500, strings.Repeat("x", 30<<10))
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestExportMemory$", "-test.count=1", "-test.v")
		cmd.Env = append(os.Environ(), exportMemoryEnv+"="+url)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var peak int
		_, after, _ := strings.Cut(string(out), "peak ")
		if _, err := fmt.Sscan(after, &peak); err != nil || peak == 0 || peak > 40 {
			t.Errorf("largest heap: %d MiB (%v), want at most 40; %s", peak, err, out)
		}
	})
}

// stuck is a client that takes nothing until it is told to, and then one byte less than everything.
type stuck struct {
	once chan struct{}
	free chan struct{}
}

func (w *stuck) Write(p []byte) (int, error) {
	select {
	case w.once <- struct{}{}:
	default:
	}
	<-w.free
	return len(p), nil
}

// TestFieldCaseF38SlowExportHoldsNothing: while a client reads nothing of an export, changes go on, nothing is locked, and
// the write-ahead log of SQLite can be emptied, which an open read would prevent.
func TestFieldCaseF38SlowExportHoldsNothing(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		fill(t, s, 8000)
		w := &stuck{once: make(chan struct{}, 1), free: make(chan struct{})}
		e := beginExport(t, s, audit.CSV, store.ExportFilter{})
		done := make(chan error, 1)
		go func() { done <- e.Write(t.Context(), w, nil) }()
		<-w.once
		fill(t, s, 2000)
		mustRecord(t, s, 20)
		db := attack(t, url)
		if s.Dialect() == "sqlite" {
			waitFor(t, "the write-ahead log is emptied", func() bool {
				var busy, size, moved int
				if err := db.QueryRowContext(t.Context(), `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &size, &moved); err != nil {
					t.Fatal(err)
				}
				return busy == 0 && size == 0
			})
		} else {
			waitFor(t, "no transaction is open", func() bool {
				var open int
				err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_locks WHERE relation = 'audit_log'::regclass AND pid <> pg_backend_pid()`).Scan(&open)
				if err != nil {
					t.Fatal(err)
				}
				return open == 0
			})
		}
		close(w.free)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// waitFor asks until it is so, or fails.
func waitFor(t testing.TB, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within 20 s: %s", what)
		case <-tick.C:
		}
	}
}

// TestExportEndsWithItsClient: a client that is gone ends the export, and so does an ended context.
func TestExportEndsWithItsClient(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		fill(t, s, 5000)
		gone := errors.New("gone")
		e := beginExport(t, s, audit.CSV, store.ExportFilter{})
		if err := e.Write(t.Context(), writerFunc(func([]byte) (int, error) { return 0, gone }), nil); !errors.Is(err, gone) {
			t.Errorf("a client that is gone: %v, want its error", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		err := e.Write(ctx, writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil }), nil)
		if err == nil {
			t.Error("an ended context: no error, want one")
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestExportBesideAPrune: an export whose rows go before they are read ends with an error that says so, whatever it selects;
// one that needs none of them is whole.
func TestExportBesideAPrune(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		fill(t, s, 1200)
		from, err := s.AuditLog(t.Context(), store.AuditFilter{Page: store.Page{Limit: 1}})
		if err != nil {
			t.Fatal(err)
		}
		exports := map[string]*store.AuditExport{
			"all":           beginExport(t, s, audit.NDJSON, store.ExportFilter{}),
			"an actor":      beginExport(t, s, audit.NDJSON, store.ExportFilter{Actor: "u7"}),
			"of the newest": beginExport(t, s, audit.NDJSON, store.ExportFilter{From: &from.Items[0].TS}),
		}
		prefix, err := s.VerifyPrefix(t.Context(), 100, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.RecordPruned(t.Context(), store.Prune{Prefix: prefix, Archives: []audit.Archive{{First: 1, Last: 100, Location: "there"}}, By: operator}); err != nil {
			t.Fatal(err)
		}
		pruned, err := s.NewestPruned(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.DeletePruned(t.Context(), pruned, func(int64) error { return nil }); err != nil {
			t.Fatal(err)
		}
		for name, e := range exports {
			var out bytes.Buffer
			err := e.Write(t.Context(), &out, nil)
			if whole := name == "of the newest"; whole && err != nil || !whole && !errors.Is(err, store.ErrPrunedMeanwhile) {
				t.Errorf("%s: got %v, want ErrPrunedMeanwhile but of the newest", name, err)
			}
		}
	})
}

// TestExportNamesThePresentGeneration: also one that another process began.
func TestExportNamesThePresentGeneration(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s, other := storetest.Open(t, url), storetest.Open(t, url)
		mustRecord(t, s, 2)
		want, err := other.StartGeneration(t.Context(), store.NewGeneration{Cause: "acknowledged", Reason: "a test", Fork: 3})
		if err != nil {
			t.Fatal(err)
		}
		if e := beginExport(t, s, audit.NDJSON, store.ExportFilter{}); e.Generation != want {
			t.Errorf("the export is of generation %s, want %s", e.Generation, want)
		}
	})
}
