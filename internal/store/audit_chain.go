package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
)

// Why no audited change can be made. Events are taken in and reads go on.
var (
	// ErrHistoryInDoubt says that an entry whose commit this process saw is not in the audit log any more.
	ErrHistoryInDoubt = errors.New("the history is in doubt")

	// ErrAuditKeyUnknown says that the audit key of this process may not sign.
	ErrAuditKeyUnknown = errors.New("the audit key is unknown")

	// ErrAuditFailed says that the entry of a change could not be written, so that the change was not made.
	ErrAuditFailed = errors.New("the audit entry could not be written")
)

// chain is the audit chain as this process knows it.
type chain struct {
	queue    chan struct{} // who has its one place appends: the database sees one waiter per process
	timeline string        // SQL that reads the timeline, where the database has one
	identity string        // SQL that reads the cluster's identifier, where the database tells it
	grace    Grace         // what an ordinary failover may lose
	doubting sync.Mutex    // one at a time looks into a lost history
	news     chan struct{} // holds one when entries that others wait for were committed

	mu         sync.Mutex
	key        audit.Key   // signs; zero: none was given
	keys       []audit.Key // all that were given
	keyErr     error       // why key may not sign; nil: it may
	generation string
	seen       []seenEntry // what COMMIT has answered, by number, the newest last
	held       *HeldError  // the history is in doubt; nil: it is not
}

// seenEntry is an entry whose commit this process saw.
type seenEntry struct {
	seq        int64
	rowHMAC    string
	ts         int64
	generation string
	timeline   int64
}

const maxSeen = 1000 // entries: a loss of more than these seconds' work is told as "at least"

// head is the end of the chain, read under its lock, and what decides about appending.
type head struct {
	seq      int64 // 0: there is no row
	rowHMAC  string
	ts       int64 // µs
	clock    int64 // µs
	durable  bool
	timeline int64
	known    bool // our key has a row in audit_kids
	retired  bool
	seenHMAC string // of the row with the number of our newest seen entry; "" if there is none
	through  int64  // prune boundary

	generation string
	held       bool // a hold stands
	strays     bool // there are personal parts of entries that are not there
}

// tail scans the end of headText, which is the same in both databases.
func (h *head) tail() []any {
	return []any{&h.known, &h.retired, &h.seenHMAC, &h.through, &h.generation, &h.held, &h.strays}
}

// headText reads head. Its parameters are the kid and the number of the newest seen entry. {clock}, {durable} and
// {timeline} are the dialect's.
const headText = `
	SELECT coalesce(h.seq, 0), coalesce(h.row_hmac, ''), h.ts, {clock}, {durable}, {timeline},
		EXISTS (SELECT 1 FROM audit_kids WHERE kid = $1), EXISTS (SELECT 1 FROM audit_kids WHERE kid = $1 AND retired IS NOT NULL),
		coalesce((SELECT row_hmac FROM audit_log WHERE seq = $2), ''), coalesce((SELECT through FROM audit_boundary), 0),
		coalesce((SELECT generation FROM audit_generations ORDER BY started DESC, generation LIMIT 1), ''), EXISTS (SELECT 1 FROM audit_hold),
		EXISTS (SELECT 1 FROM audit_personal WHERE seq > coalesce(h.seq, 0))
	FROM (SELECT 1 AS one) AS one LEFT JOIN (SELECT seq, row_hmac, ts FROM audit_log ORDER BY seq DESC LIMIT 1) AS h ON one.one = 1`

const (
	auditColumns = `seq, id, ts, actor_kind, actor_id, project_id, project_label, action, target_type, target_id, target_label, outcome, ` +
		`details, request_id, kid, actor_personal, target_personal, body, prev_row_hmac, row_hmac`
	insertAudit = `INSERT INTO audit_log (` + auditColumns + `)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)`

	personalColumns = `seq, role, subject, salt, json, erased_by`
	insertPersonal  = `INSERT INTO audit_personal (seq, role, subject, salt, json) VALUES ($1, $2, $3, $4, $5)`
)

// sealed is an entry with its place in the chain.
type sealed struct {
	id    id.ID
	row   audit.Row
	parts []audit.Personal
}

func (r *sealed) args() []any {
	w := &r.row
	return []any{
		w.Seq, r.id, TimeAt(w.TS), w.ActorKind, w.ActorID.Param(), w.ProjectID.Param(), w.ProjectLabel.Param(), w.Action, w.TargetType.Param(),
		w.TargetID.Param(), w.TargetLabel.Param(), w.Outcome, w.Details.Param(), w.RequestID.Param(), w.KID, w.ActorPersonal.Param(),
		w.TargetPersonal.Param(), w.Body, w.PrevRowHMAC.Param(), w.RowHMAC,
	}
}

func personalArgs(p *audit.Personal) []any {
	return []any{p.Seq, p.Role, p.Subject.Param(), p.Salt, p.JSON.Param()}
}

// appendAudit numbers, signs and inserts the entries of tx under the chain's lock; it is the last step before COMMIT.
// release has to be called with what COMMIT answered.
func (s *Store) appendAudit(ctx context.Context, tx *Tx) (release func(error), err error) {
	return s.append(ctx, tx, appending{key: s.chain.signer(), entries: func(head) []audit.Entry { return tx.entries }})
}

// appending is one step of appending.
type appending struct {
	key     audit.Key
	entries func(head) []audit.Entry
	first   bool // the first entry introduces key, so that the key need not be in yet
	doubted bool // what this process saw does not matter, nor whether a hold stands
	anew    bool // what this process saw is forgotten: the head as it is now counts
	before  func(*Tx) error
	also    func(*Tx, []sealed) error

	generation string // that the entries belong to; "": the one that is
}

// append does a and returns how to end it after COMMIT.
func (s *Store) append(ctx context.Context, tx *Tx, a appending) (release func(error), err error) {
	select {
	case s.chain.queue <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: wait for the audit chain: %w", ErrAuditFailed, ctx.Err())
	}
	leave := func() { <-s.chain.queue }
	rows, h, err := s.appendNext(ctx, tx, &a)
	if err != nil {
		leave()
		return nil, err
	}
	return func(err error) {
		if err == nil {
			if a.generation != "" {
				h.generation = a.generation
			}
			s.chain.saw(rows, h, a.anew)
			s.tellNews(rows)
		}
		leave()
	}, nil
}

// appendNext appends; this process' place in the queue is held.
func (s *Store) appendNext(ctx context.Context, tx *Tx, a *appending) ([]sealed, head, error) {
	if err := s.mayAppend(ctx, tx, a); err != nil {
		return nil, head{}, err
	}
	newest := s.chain.newest()
	h, err := s.lockHead(ctx, tx, a.key.KID(), newest.seq)
	if err != nil {
		return nil, h, auditFailed(ctx, "lock the audit chain", err)
	}
	switch {
	case !h.durable:
		return nil, h, fmt.Errorf("%w: the transaction runs with synchronous_commit = off, so that a crash could lose what was answered", ErrAuditFailed)
	case !a.first && h.retired:
		return nil, h, s.chain.stop(errKeyUnknown(a.key, "it was retired"))
	case !a.first && !h.known:
		return nil, h, s.chain.stop(errKeyUnknown(a.key, "the note that it was introduced is gone, which a restart of `z4j-brain serve` writes again"))
	case !a.doubted && newest.seq != 0 && h.seenHMAC != newest.rowHMAC:
		if err := s.missing(ctx, tx, newest, h, a); err != nil {
			return nil, h, err
		}
	}
	if err := s.heldBy(ctx, tx, h, a); err != nil {
		return nil, h, err
	}
	if a.before != nil {
		if err := a.before(tx); err != nil {
			return nil, h, err
		}
	}
	if h.strays {
		if err := s.removeStrays(ctx, tx, h); err != nil {
			return nil, h, auditFailed(ctx, "remove personal parts of entries that are not there", err)
		}
	}
	rows, err := a.seal(h)
	if err != nil {
		return nil, h, err
	}
	if err := s.insertAudit(ctx, tx, rows); err != nil {
		return nil, h, auditFailed(ctx, "insert", err)
	}
	if a.also != nil {
		if err := a.also(tx, rows); err != nil {
			return nil, h, err
		}
	}
	return rows, h, nil
}

// removeStrays removes the personal parts of entries that somebody took away or that never were: they stand where those of
// the next entries belong, and nothing that is in the database shall keep the brain from going on.
func (s *Store) removeStrays(ctx context.Context, tx *Tx, h head) error {
	res, err := tx.ExecContext(ctx, `DELETE FROM audit_personal WHERE seq > $1`, h.seq)
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	s.log.WarnContext(ctx, "personal parts of audit entries that are not there were removed", "parts", n, "head_seq", h.seq)
	return err
}

// auditFailed hides the database's error: no caller shall take a conflict of the chain for one of the change.
func auditFailed(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %s: %w", ErrAuditFailed, doing, ctx.Err())
	}
	return fmt.Errorf("%w: %s: %v", ErrAuditFailed, doing, err) //nolint:errorlint // on purpose, as said.
}

// seal numbers and signs the entries behind h.
func (a *appending) seal(h head) ([]sealed, error) {
	entries := a.entries(h)
	rows := make([]sealed, len(entries))
	l := audit.Link{Seq: h.seq, TS: h.ts, Prev: h.rowHMAC}
	for i := range entries {
		if err := entries[i].Err(); err != nil {
			return nil, err
		}
		before := l.TS
		if l.Seq == 0 {
			before = 0
		}
		l.Seq++
		l.TS, l.ClockStep = audit.Stamp(h.clock, before)
		l.ID = id.At(l.TS)
		for j := range l.Salts {
			_, _ = rand.Read(l.Salts[j][:]) // never fails
		}
		rows[i].id = l.ID
		rows[i].row, rows[i].parts = a.key.Seal(&entries[i], l)
		l.Prev = rows[i].row.RowHMAC
	}
	return rows, nil
}

// mayAppend refuses what is known to be refused before anything is locked.
func (s *Store) mayAppend(ctx context.Context, tx *Tx, a *appending) error {
	s.chain.mu.Lock()
	keyErr := s.chain.keyErr
	s.chain.mu.Unlock()
	if keyErr == nil || a.first {
		return nil
	}
	return s.proveKey(ctx, tx) // `audit adopt-key` may have let it in meanwhile
}

func (c *chain) signer() audit.Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.key
}

func (c *chain) newest() seenEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) == 0 {
		return seenEntry{}
	}
	return c.seen[len(c.seen)-1]
}

// saw remembers rows, whose COMMIT was answered. Only a larger number is; anew forgets what was before, and takes the head
// that the rows follow where there are none.
func (c *chain) saw(rows []sealed, h head, anew bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if anew {
		c.seen = nil
		if h.seq > 0 {
			c.seen = append(c.seen, seenEntry{h.seq, h.rowHMAC, h.ts, h.generation, h.timeline})
		}
	}
	for i := range rows {
		r := &rows[i].row
		if n := len(c.seen); n > 0 && c.seen[n-1].seq >= r.Seq {
			continue
		}
		if len(c.seen) >= 2*maxSeen {
			c.seen = append(c.seen[:0], c.seen[len(c.seen)-maxSeen:]...)
		}
		c.seen = append(c.seen, seenEntry{r.Seq, r.RowHMAC, r.TS, h.generation, h.timeline})
	}
}

// tellNews wakes who waits for entries that go into anchors.
func (s *Store) tellNews(rows []sealed) {
	for i := range rows {
		if k, _ := audit.Action(rows[i].row.Action).Kind(); k.Line || k.Grave {
			select {
			case s.chain.news <- struct{}{}:
			default: // it is told already
			}
			return
		}
	}
}

// AuditNews gives a value after this process committed an entry that goes into anchors, or that a checkpoint covers at once.
func (s *Store) AuditNews() <-chan struct{} { return s.chain.news }

// AuditErr returns why audited changes can't be made, or nil.
func (s *Store) AuditErr() error {
	s.chain.mu.Lock()
	defer s.chain.mu.Unlock()
	if s.chain.held != nil && s.chain.keyErr == nil {
		return s.chain.held
	}
	return s.chain.keyErr // who can't sign has that to mend first
}

func (s *Store) lockHead(ctx context.Context, tx *Tx, kid string, seen int64) (head, error) {
	if s.pool != nil {
		return s.lockHeadPostgres(ctx, tx, kid, seen)
	}
	return s.lockHeadSQLite(ctx, tx, kid, seen)
}

func (s *Store) insertAudit(ctx context.Context, tx *Tx, rows []sealed) error {
	if s.pool != nil {
		return s.insertAuditPostgres(ctx, tx, rows)
	}
	return s.insertAuditSQLite(ctx, tx, rows)
}

// TryAudit does what an audited change does, up to COMMIT, and takes it back: nil says that changes can be made now.
func (s *Store) TryAudit(ctx context.Context) error {
	tx, err := s.begin(ctx)
	if err != nil {
		return wrap("begin", err)
	}
	defer tx.end()
	e := audit.New(audit.Facts{Action: audit.SystemMigrated, Actor: audit.Actor{Kind: audit.System, Label: "a try"}})
	release, err := s.append(ctx, tx, appending{
		key: s.chain.signer(), entries: func(head) []audit.Entry { return []audit.Entry{e} },
	})
	if err != nil {
		return s.settle(ctx, tx, err)
	}
	tx.end()
	release(errUnrecorded) // it was not committed, so nothing is remembered
	return s.AuditErr()    // what may be recorded in hold is no proof that changes can be made
}
