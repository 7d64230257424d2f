package custody_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// alive is what an older state brings back to life: an agent, an API key, and a person in the audit log.
type alive struct {
	project store.Project
	agent   id.ID
	user    id.ID
	key     id.ID
	other   id.ID // an API key that nobody revokes
	seq     int64 // of the log that knows them alive
}

var cliBy = store.By{Actor: audit.Actor{Kind: audit.CLI, ID: "uid:0"}, Via: "cli"}

// populate makes them, and signs.
func (b brain) populate(t testing.TB) (a alive) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	a.project, err = b.CreateProject(t.Context(), store.Project{Slug: "shop", Name: "Shop", Environment: "production", Timezone: "UTC", DefaultSchedulerOwner: "beat"}, cliBy)
	must(err)
	agent, err := b.MintAgent(t.Context(), a.project, "web", "hash", "", cliBy)
	must(err)
	user, err := b.CreateUser(t.Context(), store.NewUser{Email: "bob@example.org", PasswordHash: "x"}, cliBy)
	must(err)
	key := func(name string) id.ID {
		k, err := b.CreateAPIKey(t.Context(), store.NewAPIKey{User: user.ID, Name: name, Prefix: "z4k_" + name, Hash: name, SecretID: "s", Scopes: []string{"tasks:read"}}, cliBy)
		must(err)
		return k.ID
	}
	a.agent, a.user, a.key, a.other = agent.ID, user.ID, key("abcd"), key("efgh")
	b.sign(t)
	head, err := b.AuditHead(t.Context())
	must(err)
	a.seq = head.Seq
	return a
}

// end revokes and erases them, and lets the anchors know.
func (b brain) end(t testing.TB, a *alive) {
	t.Helper()
	_, err := b.RevokeAPIKey(t.Context(), id.Null{}, a.key, "lost", cliBy)
	err = errors.Join(err, b.RevokeAgent(t.Context(), a.project, a.agent, cliBy))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.EraseAudit(t.Context(), store.Person{User: a.user, Email: "bob@example.org"}, "asked for it", cliBy); err != nil {
		t.Fatal(err)
	}
	b.sign(t)
}

// setBack is what a copy of an older state looks like.
func (l *lab) setBack(t testing.TB, a *alive, personal [][]string) {
	t.Helper()
	l.cut(t, int(a.seq))
	l.exec(t, `UPDATE agents SET revoked_at = NULL`, `UPDATE api_keys SET revoked_at = NULL, revoked_reason = NULL`)
	for _, p := range personal {
		l.exec(t, fmt.Sprintf(`UPDATE audit_personal SET subject = '%s', json = '%s', salt = %s, erased_by = NULL WHERE seq = %s AND role = '%s'`,
			p[2], p[3], l.bytes(p[4]), p[0], p[1]))
	}
}

func (l *lab) bytes(hex string) string {
	if l.isFile() {
		return "x'" + hex + "'"
	}
	return `'\x` + hex + `'`
}

func (l *lab) personal(t testing.TB) [][]string {
	t.Helper()
	hex := "encode(salt, 'hex')"
	if l.isFile() {
		hex = "hex(salt)"
	}
	return storetest.Rows(t, storetest.DB(t, l.url), `SELECT seq, role, subject, json, `+hex+` FROM audit_personal WHERE json LIKE '%bob@example.org%' AND seq > 0`)
}

// TestLessonL15AcknowledgedRollbackBringsNothingBack: what was revoked or erased in the time that was lost is revoked and
// erased again when the roll-back is acknowledged, where an anchor tells; where none does API keys wait for somebody.
func TestLessonL15AcknowledgedRollbackBringsNothingBack(t *testing.T) {
	for _, tt := range []struct {
		name                   string
		anchored, decline      bool
		agent, key, other      bool // live afterwards
		erased, held, heldKeys bool
	}{
		{name: "an anchor tells", anchored: true, other: true, erased: true, held: true},
		{name: "no anchor tells", agent: true, held: true, heldKeys: true},
		{name: "declined", anchored: true, decline: true, agent: true, key: true, other: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			each(t, func(t *testing.T, l *lab) {
				b := l.start(t)
				a := b.populate(t)
				personal := l.personal(t)
				b.end(t, &a)
				l.setBack(t, &a, personal)
				b = l.start(t)
				b.mustHold(t, "set back", "it was set back")
				if !tt.anchored {
					b.Custody = custody.New(custody.Options{Store: b.Store, Now: time.Now, Home: t.TempDir()})
				}
				done, err := b.Acknowledge(t.Context(), custody.Acknowledgement{By: cliBy.Actor, Reason: "a copy", NoDefuse: tt.decline})
				if err != nil {
					t.Fatal(err)
				}
				if done.Suspended != tt.heldKeys || done.Defused == tt.decline || tt.erased != (done.Revoked == 2 && done.Erased == 1) {
					t.Errorf("acknowledged %+v", done)
				}
				l.mustLive(t, "agents", a.agent, tt.agent)
				l.mustLive(t, "api_keys", a.key, tt.key)
				l.mustLive(t, "api_keys", a.other, tt.other)
				if left := len(l.personal(t)); (left == 0) != tt.erased {
					t.Errorf("%d personal parts of who was erased are there", left)
				}
				held, err := b.RestoreHeld(t.Context())
				if (err == nil) != tt.held || held.Outgoing != tt.held || held.Keys != tt.heldKeys {
					t.Errorf("what waits for a release: %+v, %v", held, err)
				}
				gaps, err := b.DataGaps(t.Context())
				if err != nil || (len(gaps) == 1) != tt.held {
					t.Errorf("data gaps: %+v, %v", gaps, err)
				}
				b = l.start(t)
				b.mustHold(t, "after all", "")
				b.sign(t)
				b.mustProve(t, "after all", 0)
			})
		})
	}
}

// mustLive checks whether an agent or an API key may do something.
func (l *lab) mustLive(t testing.TB, table string, one id.ID, want bool) {
	t.Helper()
	where := ` WHERE revoked_at IS NULL`
	if table == "api_keys" {
		where += ` AND suspended_at IS NULL`
	}
	got := false
	text := `CAST(id AS text)`
	if l.isFile() {
		text = `lower(hex(id))`
	}
	for _, row := range storetest.Rows(t, storetest.DB(t, l.url), `SELECT `+text+` FROM `+table+where) {
		got = got || strings.ReplaceAll(row[0], "-", "") == strings.ReplaceAll(one.String(), "-", "")
	}
	if got != want {
		t.Errorf("%s: one lives: %t, want %t", table, got, want)
	}
}

// TestAnAnchorThatEndsBeforeTells nothing of what was lost: API keys are suspended.
func TestAnAnchorThatEndsBeforeTellsNothing(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		shared := t.TempDir()
		l.anchors = []string{shared}
		l.run(t, 3)
		l.anchors = nil
		b := l.run(t, 5)
		if err := b.PutHold(t.Context(), store.Doubt{Cause: "restored", Reason: "a test", Fork: 9}); err != nil {
			t.Fatal(err)
		}
		stale := custody.New(custody.Options{Store: b.Store, Now: time.Now, Anchors: []string{shared}})
		done, err := stale.Acknowledge(t.Context(), custody.Acknowledgement{By: cliBy.Actor, Reason: "a test"})
		if err != nil || !done.Suspended || done.Gap == nil {
			t.Errorf("acknowledged %+v, %v; want API keys suspended, and a gap", done, err)
		}
	})
}
