package api_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/z4j-go/z4j/internal/api"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestADoubtfulHistoryStopsChanges: an entry that was committed is gone. Reads go on; changes answer 503 and are not made.
func TestADoubtfulHistoryStopsChanges(t *testing.T) {
	each(t, nil, func(t *testing.T, b *brain) {
		root := b.setUp()
		db := storetest.DB(t, b.url)
		var guards []string
		if b.store.Dialect() == "postgres" {
			guards = []string{`ALTER TABLE audit_log DISABLE TRIGGER USER`, `ALTER TABLE audit_personal DISABLE TRIGGER USER`}
		} else {
			for _, row := range storetest.Rows(t, db, `SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name LIKE 'audit%'`) {
				guards = append(guards, `DROP TRIGGER "`+row[0]+`"`)
			}
		}
		for _, q := range append(guards, `DELETE FROM audit_personal WHERE seq = (SELECT max(seq) FROM audit_log)`, `DELETE FROM audit_log WHERE seq = (SELECT max(seq) FROM audit_log)`) {
			if _, err := db.ExecContext(t.Context(), q); err != nil {
				t.Fatalf("%s: %v", q, err)
			}
		}
		got := root.post("/projects", object{"slug": "shop", "name": "Shop"}).must(t, "a change", 503)
		if got.code() != "history_in_doubt" || got.reason() != "history_in_doubt" || !strings.Contains(got.text, "acknowledge-rollback") {
			t.Errorf("a change: got %s, want history_in_doubt and the way out", got.text)
		}
		if list := root.get("/projects").must(t, "a read", 200); strings.Contains(list.text, "shop") {
			t.Errorf("a read: got %s, want the change not made", list.text)
		}
	})
}

// TestAnUnknownAuditKeyStopsChanges: a mistyped audit secret stops what is audited and nothing else.
func TestAnUnknownAuditKeyStopsChanges(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := start(t, url, nil)
		root := b.setUp()
		o := storetest.Options(url)
		o.Now = b.Now
		o.Secrets = func(context.Context, bool) (store.Secrets, error) {
			s := storetest.Secrets
			s.Audit = []byte("another-audit-secret-another-audit-secret")
			return s, nil
		}
		other, err := store.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := other.Close(); err != nil {
				t.Error(err)
			}
		})
		mistyped := start(t, url, func(o *api.Options) { o.Store = other })
		c := mistyped.client()
		c.cookies = root.cookies
		c.get("/projects").must(t, "a read", 200)
		for _, got := range []answer{
			c.post("/projects", object{"slug": "shop", "name": "Shop"}),
			mistyped.client().post("/auth/login", object{"email": "root@example.com", "password": password}),
		} {
			if got.must(t, "a change", 503); got.code() != "audit_key_unknown" || !strings.Contains(got.text, "Z4J_AUDIT_SECRETS_PREVIOUS") {
				t.Errorf("a change: got %s, want audit_key_unknown and the way out", got.text)
			}
		}
	})
}

// proxy passes connections on to a database until it is cut.
type proxy struct {
	to string

	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func (p *proxy) serve(l net.Listener, wg *sync.WaitGroup) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.to)
		p.mu.Lock()
		if err != nil || p.cut {
			_ = in.Close()
			if out != nil {
				_ = out.Close()
			}
			p.mu.Unlock()
			continue
		}
		p.conns = append(p.conns, in, out)
		p.mu.Unlock()
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			wg.Go(func() {
				_, _ = io.Copy(pair[0], pair[1])
				_ = pair[0].Close()
			})
		}
	}
}

func (p *proxy) set(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	if cut {
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.conns = nil
	}
}

// TestTheDatabaseGoesAwayAndComesBack: 503 with Retry-After while it is away, and work as before when it is back.
func TestTheDatabaseGoesAwayAndComesBack(t *testing.T) {
	u, err := url.Parse(storetest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{to: u.Host}
	var wg sync.WaitGroup
	wg.Go(func() { p.serve(l, &wg) })
	t.Cleanup(func() {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		p.set(true)
		wg.Wait()
	})
	u.Host = l.Addr().String()
	b := start(t, u.String(), nil)
	root := b.setUp()
	p.set(true)
	for _, got := range []answer{root.get("/projects"), root.post("/projects", object{"slug": "shop", "name": "Shop"})} {
		if got.must(t, "while it is away", 503); got.code() != "unavailable" || got.header.Get("Retry-After") != "1" {
			t.Errorf("while it is away: got %s, want unavailable and Retry-After", got.text)
		}
	}
	p.set(false)
	root.get("/projects").must(t, "a read when it is back", 200)
	root.post("/projects", object{"slug": "shop", "name": "Shop"}).must(t, "a change when it is back", 201)
}
