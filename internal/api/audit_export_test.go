package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/api"
	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// exportedRows verifies a file and returns its report, and the actions of its rows with their projects.
func exportedRows(t testing.TB, text string) (audit.FileReport, []string) {
	t.Helper()
	key, err := audit.NewKey(storetest.Secrets.Audit)
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	r, err := audit.VerifyFile(strings.NewReader(text), []audit.Key{key}, func(r *audit.FileRecord) error {
		rows = append(rows, r.Action+" "+r.ProjectLabel.S)
		return nil
	})
	if err != nil {
		t.Fatalf("%v: %.300s", err, text)
	}
	return r, rows
}

// TestAuditExportOfThePage is the line of the operations page, with an API key that may read the audit log and nothing
// else: a CSV that can be verified, whose last record is the export itself.
func TestAuditExportOfThePage(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		k := root.key(object{"scopes": []string{"audit:read"}})
		got := k.get("/audit/export?format=csv&from=2026-01-01").must(t, "the page's line", 200)
		r, rows := exportedRows(t, got.text)
		if r.Exit() != 0 || r.Format != audit.CSV || r.Exported.First != 1 || !strings.Contains(r.Summary, "complete from 1 to") {
			t.Errorf("exit %d, %s: %s; want 0, a whole CSV", r.Exit(), r.Format, r.Summary)
		}
		if last := rows[len(rows)-1]; last != "audit.exported " {
			t.Errorf("the last record: got %s, want audit.exported", last)
		}
		header, _, _ := strings.Cut(got.text, "\n")
		if !strings.Contains(header, ",prev_row_hmac,row_hmac,") {
			t.Errorf("columns: got %s, want prev_row_hmac and row_hmac among them", header)
		}
		kind, params, err := mime.ParseMediaType(got.header.Get("Content-Disposition"))
		if err != nil || kind != "attachment" || !strings.HasSuffix(params["filename"], ".csv") || !strings.HasPrefix(got.header.Get("Content-Type"), "text/csv") {
			t.Errorf("headers: got %q and %q, want an attachment of CSV", got.header.Get("Content-Disposition"), got.header.Get("Content-Type"))
		}
		lines := k.get("/audit/export?format=ndjson&action=setup.completed").must(t, "a filter", 200)
		if r, rows := exportedRows(t, lines.text); r.Exit() != 0 || r.Format != audit.NDJSON || len(rows) != 2 || lines.header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("a filter: exit %d, %s, %q of %s; want 0, two lines of JSON", r.Exit(), r.Format, rows, lines.header.Get("Content-Type"))
		}
		list := root.get("/projects/default/audit").must(t, "the list stays", 200)
		if !strings.Contains(list.text, `"row_hmac"`) {
			t.Errorf("the list: %s, want row_hmac in it", list.text)
		}
		actor := storetest.Rows(t, storetest.DB(t, b.url), `SELECT actor_kind FROM audit_log WHERE action = 'audit.exported' ORDER BY seq`)
		if len(actor) != 2 || actor[0][0] != "api_key" {
			t.Errorf("entries of exports: got %v, want two by an API key", actor)
		}
	})
}

// TestWhoMayExport: everything for global administrators, a project's rows for its auditors and admins and for keys that
// are bound to it, nothing for anybody else.
func TestWhoMayExport(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		other := root.post("/projects", object{"slug": "other", "name": "Other"}).must(t, "other project", 201).body["id"].(string)
		root.post("/projects/other/agents", object{"name": "there"}).must(t, "agent", 201)
		root.post("/projects/default/agents", object{"name": "here"}).must(t, "agent", 201)
		by := map[string]func(string) answer{"root": root.get}
		for _, role := range []string{"viewer", "operator", "auditor", "admin"} {
			c, _ := b.user(root, role+"@example.com", role)
			by[role] = c.get
			by["key of "+role] = c.key(object{"scopes": []string{"audit:read"}}).get
		}
		stranger, _ := b.user(root, "stranger@example.com", "")
		by["stranger"] = stranger.get
		by["key of root"] = root.key(object{"scopes": []string{"audit:read"}}).get
		by["key of root, bound to other"] = root.key(object{"scopes": []string{"audit:read"}, "project_id": other}).get
		by["key of another scope"] = root.key(object{"scopes": []string{"tasks:read"}}).get
		by["nobody"] = b.client().get
		for who, want := range map[string][3]string{ // without a project, of default, of other: the status, or of what rows are
			"nobody":                      {"401", "401", "401"},
			"stranger":                    {"422", "404", "404"},
			"viewer":                      {"422", "403", "404"},
			"operator":                    {"422", "403", "404"},
			"key of viewer":               {"422", "403", "404"},
			"auditor":                     {"422", "default", "404"},
			"admin":                       {"422", "default", "404"},
			"key of auditor":              {"422", "default", "404"},
			"key of admin":                {"422", "default", "404"},
			"root":                        {"all", "default", "other"},
			"key of root":                 {"all", "default", "other"},
			"key of root, bound to other": {"other", "403", "other"},
			"key of another scope":        {"403", "403", "403"},
		} {
			b.pass(time.Minute)
			for i, query := range []string{"", "?project=default", "?project=other"} {
				got := by[who]("/audit/export" + query)
				if says := ofProjects(t, got); says != want[i] {
					t.Errorf("%s with %q: got %s (%.200s), want %s", who, query, says, got.text, want[i])
				}
			}
		}
	})
}

// ofProjects says of which projects the rows of a file are, or else which status an answer has.
func ofProjects(t testing.TB, a answer) string {
	t.Helper()
	if a.status != 200 {
		return fmt.Sprint(a.status)
	}
	r, rows := exportedRows(t, a.text)
	if r.Exit() != 0 {
		return r.Summary
	}
	var found []string
	for _, row := range rows {
		_, project, _ := strings.Cut(row, " ")
		if !slices.Contains(found, project) {
			found = append(found, project)
		}
	}
	if len(found) > 1 && slices.Contains(found, "") {
		return "all"
	}
	return strings.Join(found, " and ")
}

// TestExportRefusesBadParameters: each with the parameter's name, and none leaves an entry.
func TestExportRefusesBadParameters(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		for _, tt := range []struct{ query, field string }{
			{"format=xlsx", "format"},
			{"from=yesterday", "from"},
			{"from=2026-13-01", "from"},
			{"to=2026-02-30", "to"},
			{"from=2026-02-02&to=2026-02-01", "from"},
			{"from=0000-01-01", "from"},
			{"outcome=maybe", "outcome"},
			{"action=" + strings.Repeat("a", 81), "action"},
			{"actor=%ff", "actor"},
			{"actor=%00", "actor"},
			{"colour=red&format=csv", "colour"},
		} {
			got := root.get("/audit/export?"+tt.query).must(t, tt.query, 422)
			if !strings.Contains(got.text, `"`+tt.field+`"`) {
				t.Errorf("%s: got %s, want the field %s named", tt.query, got.text, tt.field)
			}
		}
		if rows := storetest.Rows(t, storetest.DB(t, b.url), `SELECT seq FROM audit_log WHERE action = 'audit.exported'`); len(rows) != 0 {
			t.Errorf("entries of refused exports: got %d, want none", len(rows))
		}
		got := root.get("/audit/export?from=2026-02-02&to=2026-02-02").must(t, "an empty range", 200)
		if r, _ := exportedRows(t, got.text); r.Exit() != audit.ExitUnprovable || r.Exported == nil {
			t.Errorf("an empty range: exit %d, want 3: nothing is proved by no row", r.Exit())
		}
	})
}

// TestDeadClientOfAnExportIsCutOff: who takes nothing is cut off, and sees that the file is not whole; the server's short
// deadlines do not end the export of a slow one.
func TestDeadClientOfAnExportIsCutOff(t *testing.T) {
	each(t, func(o *api.Options) { o.Settings.ClientPatience = 300 * time.Millisecond }, func(t *testing.T, b *brain) {
		root := b.setUp()
		k := root.key(object{"scopes": []string{"audit:read"}})
		long := strings.Repeat("x", 8<<10)
		for range 6 {
			err := b.store.Update(t.Context(), func(tx *store.Tx) error {
				for range 100 {
					tx.Record(audit.New(audit.Facts{Action: audit.AgentMinted, Actor: audit.Actor{Kind: audit.System}, Details: map[string]any{"name": long}}))
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		ended := make(chan struct{}, 10)
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() { ended <- struct{}{} }()
			b.http.ServeHTTP(w, r)
		}))
		server.Config.ReadTimeout, server.Config.WriteTimeout = 3*time.Second, 3*time.Second // longer than a busy machine lets a reader wait
		server.Config.ConnState = func(c net.Conn, _ http.ConnState) {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetWriteBuffer(32 << 10)
			}
		}
		server.Start()
		defer server.Close()
		ask := func() *http.Response {
			t.Helper()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/api/v1/audit/export", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = "brain.test"
			r.Header.Set("Authorization", "Bearer "+k.token)
			transport := &http.Transport{DisableKeepAlives: true, DialContext: smallWindow}
			res, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			return res
		}
		dead := ask()
		<-ended // without a byte read
		if _, err := io.Copy(io.Discard, dead.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			var op *net.OpError
			if !errors.As(err, &op) {
				t.Errorf("what a dead client can still read ends with %v, want a broken connection", err)
			}
		}
		_ = dead.Body.Close()
		slow := ask()
		defer slow.Body.Close()
		text, err := io.ReadAll(&slowly{r: slow.Body, tick: time.NewTicker(2 * time.Millisecond)})
		if err != nil {
			t.Fatalf("a slow client: %v after %d bytes", err, len(text))
		}
		if r, _ := exportedRows(t, string(text)); r.Exit() != 0 {
			t.Errorf("a slow client: exit %d, %s; want 0", r.Exit(), r.Summary)
		}
	})
}

// slowly gives a little on each tick.
type slowly struct {
	r    io.Reader
	tick *time.Ticker
}

func (s *slowly) Read(p []byte) (int, error) {
	<-s.tick.C
	return s.r.Read(p[:min(len(p), 32<<10)])
}

// smallWindow connects with a small receive buffer, so that what is not read stays with the server.
func smallWindow(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if tcp, ok := c.(*net.TCPConn); ok {
		err = errors.Join(err, tcp.SetReadBuffer(32<<10))
	}
	return c, err
}
