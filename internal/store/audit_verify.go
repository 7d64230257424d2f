package store

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
)

// VerifyOptions say what of the audit log is verified, and with what.
type VerifyOptions struct {
	From        int64              // number of the first row; 0: where the log begins
	SinceLast   bool               // begin behind the newest own checkpoint that agrees, if there is one
	Secrets     [][]byte           // audit secrets beside those that the store was opened with
	Heads       []audit.Head       // rows that somebody remembers
	Checkpoints []audit.Checkpoint // that somebody brings, whose signatures were checked
	Witnesses   []audit.Witness    // the same, with where they come from
	Anchored    bool               // a checkpoint from beyond the brain's machine has to agree
	Restored    bool               // the log is a copy: checkpoints beyond its end are no fault
	Workers     int                // how many rows are looked at at once; 0: as many as there are processors
	Rest        time.Duration      // of each worker after a page, so that a verification in the background leaves room
	Progress    func(checked, total int64)
}

const (
	verifyPage  = 1000 // rows read at once: a short query, and about a megabyte
	mostWorkers = 8    // of a verification, each with a connection while it reads
	maxOrphans  = 100  // personal parts without a row that are looked at again
)

// VerifyAudit walks the audit log in short reads, each of which sees what was committed before it: rows never change, so
// no snapshot is held. Pages are read and looked at in parallel and put together in order. What the report calls
// existing is counted apart from the walk.
func (s *Store) VerifyAudit(ctx context.Context, o VerifyOptions) (audit.Report, error) {
	w, err := s.newVerification(ctx, o)
	if err != nil {
		return audit.Report{}, err
	}
	exist := int64(0)
	for {
		span, err := s.auditSpan(ctx, w.after)
		if err != nil {
			return audit.Report{}, wrap("count audit rows", err)
		}
		if span.count == 0 {
			break
		}
		w.span, w.total = span, w.total+span.count
		exist += span.count
		if err := w.walk(ctx); err != nil {
			return audit.Report{}, fmt.Errorf("verify audit rows after %d: %w", w.after, err)
		}
		w.after = span.highest
	}
	if err := w.strays(ctx); err != nil {
		return audit.Report{}, wrap("read personal parts without a row", err)
	}
	report := w.v.Finish(exist - w.pruned)
	return report, w.err
}

// verification is one VerifyAudit.
type verification struct {
	store    *Store
	v        *audit.Verifier
	workers  int
	rest     time.Duration
	progress func(checked, total int64)

	after, total, done int64
	span               auditSpan
	pruned             int64   // rows that were counted and that a prune took before they were read
	orphans            []int64 // numbers of personal parts whose row was not read
	err                error   // of a question that the walk asked
}

func (s *Store) newVerification(ctx context.Context, o VerifyOptions) (*verification, error) {
	keys := s.chain.given()
	for _, secret := range o.Secrets {
		k, err := audit.NewKey(secret)
		if err != nil {
			return nil, err
		}
		keys = append(slices.Clip(keys), k)
	}
	w := &verification{store: s, v: audit.NewVerifier(keys), workers: min(runtime.GOMAXPROCS(0), mostWorkers), rest: o.Rest, progress: o.Progress}
	if o.Workers > 0 {
		w.workers = min(o.Workers, mostWorkers)
	}
	for _, c := range o.Checkpoints {
		o.Witnesses = append(slices.Clip(o.Witnesses), audit.Witness{Checkpoint: c, Where: "what was given"})
	}
	w.v.Expect(o.Heads...)
	w.v.Witness(o.Witnesses...)
	if o.Restored {
		w.v.Restored()
	}
	if o.Anchored {
		w.v.RequireAnchor()
	}
	w.v.Pruned = func(from, through int64) (audit.Boundary, bool) { return w.prunedNow(ctx, from, through) }
	w.v.Erasure = func(entry int64) (parts []audit.ErasedPart) { return w.erasedNow(ctx, entry) }
	var err error
	if o.SinceLast {
		w.after, err = s.beginSince(ctx, w.v, keys, o)
	} else {
		w.after, err = s.beginVerify(ctx, w.v, o.From)
	}
	if err != nil {
		return nil, err
	}
	return w, w.v.Recall(func(seq int64) (string, error) { return s.rowHMAC(ctx, seq) })
}

// rowHMAC looks up the HMAC of a row; "" if there is none.
func (s *Store) rowHMAC(ctx context.Context, seq int64) (text string, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT coalesce((SELECT row_hmac FROM audit_log WHERE seq = $1), '')`, seq).Scan(&text)
	return text, wrap("read the row of a checkpoint", err)
}

// fail keeps the first error of a question that the walk asked.
func (w *verification) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// prunedNow answers the walk: rows that are not there any more were pruned if nothing is left before the next one and
// the newest boundary reaches so far.
func (w *verification) prunedNow(ctx context.Context, from, through int64) (audit.Boundary, bool) {
	lowest, err := w.store.lowestAudit(ctx)
	if err != nil {
		w.fail(err)
		return audit.Boundary{}, false
	}
	b, err := w.store.boundary(ctx, w.store.read)
	if err != nil {
		w.fail(err)
		return audit.Boundary{}, false
	}
	if lowest <= through || b.Through < through {
		return audit.Boundary{}, false
	}
	w.pruned += max(0, through-max(from, w.span.lowest)+1)
	return b, true
}

// erasedNow answers the walk: the parts that an entry erased, as they are now. Some were read before they were.
func (w *verification) erasedNow(ctx context.Context, entry int64) []audit.ErasedPart {
	parts, err := w.store.ErasedBy(ctx, entry)
	if err != nil {
		w.fail(err)
	}
	return parts
}

// strays looks at personal parts whose row was not read: a prune may have taken it meanwhile, or it came meanwhile.
func (w *verification) strays(ctx context.Context) error {
	rows, err := w.store.read.QueryContext(ctx, `SELECT seq FROM audit_personal WHERE seq > $1 ORDER BY seq LIMIT 1`, w.after)
	beyond, err := collect(rows, err, func(seq *int64) []any { return []any{storedNumber{seq}} })
	if err != nil {
		return err
	}
	for _, seq := range append(w.orphans, beyond...) {
		if seq == notSigned { // SQLite takes any value for a number
			w.v.Stray(w.after + 1)
			continue
		}
		var part, row int64
		err := w.store.read.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM audit_personal WHERE seq = $1), (SELECT count(*) FROM audit_log WHERE seq = $1)`, seq).
			Scan(&part, &row)
		if err != nil {
			return err
		}
		if part > 0 && row == 0 {
			w.v.Stray(seq)
		}
	}
	return nil
}

// auditSpan is a stretch of the log at one moment.
type auditSpan struct{ lowest, highest, count int64 }

// dense reports whether no number of the span is missing, so that its pages can be told without looking.
func (a auditSpan) dense() bool { return a.highest-a.lowest == a.count-1 }

// auditSpan measures the rows after a number.
func (s *Store) auditSpan(ctx context.Context, after int64) (a auditSpan, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT coalesce(min(seq), 0), coalesce(max(seq), 0) FROM audit_log WHERE seq > $1`, after).Scan(&a.lowest, &a.highest)
	if err != nil {
		return a, err
	}
	if s.pool != nil {
		a.count, err = s.countAuditPostgres(ctx, after, a.highest)
	} else {
		a.count, err = s.countAuditSQLite(ctx, after, a.highest)
	}
	return a, err
}

// auditPage is a page of rows that were looked at.
type auditPage struct {
	after, through int64
	rows           []audit.Checked
	orphans        []int64
	err            error
	ready          chan struct{} // closed when it is done
}

// walk gives the rows of the span to the walk in order, while workers read and check pages ahead.
func (w *verification) walk(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	work := make(chan *auditPage)
	order := make(chan *auditPage, 2*w.workers) // a few pages for each, so that a slow one does not stop the others
	spare := make(chan []audit.Checked, cap(order)+w.workers+1)
	ended := make(chan error, 1)
	wg.Go(func() {
		defer close(order)
		defer close(work)
		ended <- w.deal(ctx, work, order)
	})
	for range w.workers {
		c := w.v.Checker() // before the walk begins to change what it reads
		wg.Go(func() {
			for p := range work {
				select {
				case p.rows = <-spare:
				default:
				}
				p.err = w.store.checkPage(ctx, c, p)
				close(p.ready)
				w.pause(ctx)
			}
		})
	}
	for p := range order {
		select {
		case <-p.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
		if p.err != nil {
			return p.err
		}
		w.take(p)
		spare <- p.rows[:0]
	}
	return <-ended
}

// pause is between two pages of a worker.
func (w *verification) pause(ctx context.Context) {
	if w.rest <= 0 {
		return
	}
	timer := time.NewTimer(w.rest)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// take gives a page to the walk.
func (w *verification) take(p *auditPage) {
	for i := range p.rows {
		w.v.Take(&p.rows[i])
	}
	if room := maxOrphans - len(w.orphans); room > 0 {
		w.orphans = append(w.orphans, p.orphans[:min(room, len(p.orphans))]...)
	}
	w.done += int64(len(p.rows))
	if w.progress != nil {
		w.progress(w.done, max(w.total, w.done))
	}
}

// deal gives out the pages of the span, to workers and in order to who puts them together.
func (w *verification) deal(ctx context.Context, work, order chan<- *auditPage) error {
	after := w.after
	if w.span.dense() {
		after = w.span.lowest - 1
	}
	for after < w.span.highest {
		through := min(after+verifyPage, w.span.highest)
		if !w.span.dense() {
			var err error
			if through, err = w.store.pageEnd(ctx, after, w.span.highest); errors.Is(err, ErrNotFound) {
				return nil // a prune was faster
			}
			if err != nil {
				return err
			}
		}
		p := &auditPage{after: after, through: through, ready: make(chan struct{})}
		for _, to := range [...]chan<- *auditPage{order, work} {
			select {
			case to <- p:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		after = through
	}
	return nil
}

// pageEnd returns the number of the last row of the page after a number.
func (s *Store) pageEnd(ctx context.Context, after, highest int64) (int64, error) {
	var end *int64
	err := s.read.QueryRowContext(ctx, `SELECT max(seq) FROM (SELECT seq FROM audit_log WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3) AS page`, after, highest, verifyPage).
		Scan(&end)
	if err != nil {
		return 0, wrap("find the end of a page", err)
	}
	if end == nil {
		return 0, ErrNotFound
	}
	return *end, nil
}

// checkPage fills p. Personal parts are read before the rows that they belong to: both come and go together.
func (s *Store) checkPage(ctx context.Context, c *audit.Checker, p *auditPage) (err error) {
	check := pageChecker{c: c, page: p}
	if s.pool != nil {
		err = s.readPagePostgres(ctx, &check)
	} else {
		err = s.readPageSQLite(ctx, &check)
	}
	for _, part := range check.parts {
		check.orphan(part.Seq)
	}
	return err
}

// selectPersonal reads the personal parts of a page.
const selectPersonal = `SELECT ` + personalColumns + ` FROM audit_personal WHERE seq > $1 AND seq <= $2 ORDER BY seq, role`

// selectPage reads the rows of a page as they are stored.
const selectPage = `SELECT ` + auditColumns + ` FROM audit_log WHERE seq > $1 AND seq <= $2 ORDER BY seq`

// pageChecker checks the rows of a page as they come.
type pageChecker struct {
	c     *audit.Checker
	parts []audit.Personal // not met yet, in order
	page  *auditPage
}

// before returns the parts of row seq; those of rows that never came are orphans.
func (p *pageChecker) before(seq int64) []audit.Personal {
	for len(p.parts) > 0 && p.parts[0].Seq < seq {
		p.orphan(p.parts[0].Seq)
		p.parts = p.parts[1:]
	}
	n := 0
	for n < len(p.parts) && p.parts[n].Seq == seq {
		n++
	}
	own := p.parts[:n]
	p.parts = p.parts[n:]
	return own
}

func (p *pageChecker) orphan(seq int64) {
	if n := len(p.page.orphans); n < maxOrphans && (n == 0 || p.page.orphans[n-1] != seq) {
		p.page.orphans = append(p.page.orphans, seq)
	}
}

func (p *pageChecker) columns(r *audit.Columns) {
	p.page.rows = append(p.page.rows, p.c.Columns(r, p.before(r.Seq)))
}

// personalPage reads the personal parts of the rows after a number, in order.
func (s *Store) personalPage(ctx context.Context, after, through int64) ([]audit.Personal, error) {
	rows, err := s.read.QueryContext(ctx, selectPersonal, after, through)
	return collect(rows, err, personalFields)
}

func (s *Store) lowestAudit(ctx context.Context) (lowest int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT coalesce(min(seq), 0) FROM audit_log`).Scan(&lowest)
	return lowest, wrap("read the beginning of the audit log", err)
}

// beginVerify sets v to where the walk begins and returns the number before it.
func (s *Store) beginVerify(ctx context.Context, v *audit.Verifier, from int64) (after int64, err error) {
	const all = -1 << 63 // rows of a number that no row has are seen, too
	lowest, err := s.lowestAudit(ctx)
	if err != nil {
		return 0, err
	}
	b, err := s.boundary(ctx, s.read)
	if err != nil {
		return 0, err
	}
	if from <= max(lowest, 1) {
		if lowest-1 > b.Through { // more is gone than was proved to be pruned
			claim, err := s.claimedBoundary(ctx, s.read)
			if err != nil {
				return 0, err
			}
			if lowest-1 <= claim.Through {
				v.BeginUnproved(claim)
				if lowest <= claim.Through {
					v.BeginAt(lowest)
				}
				return all, nil
			}
		}
		switch {
		case lowest <= 1 || b.Through == 0:
		case lowest <= b.Through: // a prune that was not finished
			v.Begin(b)
			v.BeginAt(lowest)
			v.Expect(audit.Head{Seq: b.Through, RowHMAC: b.RowHMAC})
		default:
			v.Begin(b)
		}
		return all, nil
	}
	v.Begin(b)
	v.BeginAt(from)
	return from - 1, s.seed(ctx, v, from)
}

// beginSince sets v behind the newest own checkpoint that agrees; without one, to the beginning.
func (s *Store) beginSince(ctx context.Context, v *audit.Verifier, keys []audit.Key, o VerifyOptions) (after int64, err error) {
	own, peaks, err := s.newestOwn(ctx, keys, o.Witnesses)
	if err != nil {
		return 0, err
	}
	if own.Size == 0 {
		return s.beginVerify(ctx, v, 0)
	}
	b, err := s.boundary(ctx, s.read)
	if err != nil {
		return 0, err
	}
	v.Begin(b)
	v.BeginAfter(own, peaks)
	return own.Size, s.seed(ctx, v, own.Size+1)
}

// seed gives v the entries before a row that the walk has to know.
func (s *Store) seed(ctx context.Context, v *audit.Verifier, from int64) error {
	seeds, err := s.auditRows(ctx, s.read, `WHERE action{C} IN ($1, $2, $3, $4, $5) AND seq < $6 ORDER BY seq`, string(audit.SystemInstalled),
		string(audit.KeyIntroduced), string(audit.KeyAdopted), string(audit.KeyRetired), string(audit.GenerationStarted), from)
	if err != nil {
		return wrap("read the entries about audit keys", err)
	}
	for i := range seeds {
		v.Seed(&seeds[i])
	}
	return nil
}

// sinceCandidates is how many of the newest own checkpoints are tried: one that does not agree is a roll-back, of which
// the checkpoints before it know nothing.
const sinceCandidates = 16

// newestOwn returns the newest checkpoint that one of keys signed and that agrees with the log, with the peaks of its
// tree where the database keeps them; the zero Checkpoint if there is none.
func (s *Store) newestOwn(ctx context.Context, keys []audit.Key, witnesses []audit.Witness) (own audit.Checkpoint, peaks []byte, err error) {
	public := audit.PublicKeys(keys)
	kids := map[string]bool{}
	for _, k := range keys {
		kids[k.KID()] = true
	}
	rows, err := s.read.QueryContext(ctx, `SELECT note FROM audit_checkpoints ORDER BY size DESC, generation LIMIT $1`, sinceCandidates)
	notes, err := collect(rows, err, func(note *string) []any { return []any{note} })
	if err != nil {
		return own, nil, wrap("read checkpoints", err)
	}
	var list []audit.Checkpoint
	for _, note := range notes {
		if c, err := audit.OpenCheckpoint(note, public...); err == nil { // what is not signed says nothing
			list = append(list, c)
		}
	}
	for _, w := range witnesses {
		if kids[w.KID] && w.Line == "" {
			list = append(list, w.Checkpoint)
		}
	}
	slices.SortFunc(list, func(a, b audit.Checkpoint) int { return int(b.Size - a.Size) })
	for _, c := range list[:min(len(list), sinceCandidates)] {
		rowHMAC, err := s.rowHMAC(ctx, c.Size)
		if err != nil {
			return own, nil, err
		}
		if rowHMAC != c.RowHMAC {
			continue
		}
		peaks, err := s.frontierAt(ctx, c)
		return c, peaks, err
	}
	return own, nil, nil
}

// frontierAt returns the peaks of the tree of c, nil unless the database keeps them. Whether they are is for their root to
// say.
func (s *Store) frontierAt(ctx context.Context, c audit.Checkpoint) ([]byte, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT peaks FROM audit_frontier WHERE generation = $1 AND size = $2`, c.Generation, c.Size)
	peaks, err := collect(rows, err, func(p *[]byte) []any { return []any{p} })
	if err != nil || len(peaks) == 0 {
		return nil, wrap("read the frontier", err)
	}
	return peaks[0], nil
}
