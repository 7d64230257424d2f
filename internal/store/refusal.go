package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
)

// Bounds of what refusals may cost: a flood of them costs the chain ten rows a second and the process a megabyte.
const (
	refusalWindow  = 10 * time.Minute
	refusalRate    = 10                      // rows a second
	stopBatch      = 100                     // rows of one transaction at stop
	refusalTick    = time.Second / 10        // how often the writer looks
	refusalWait    = time.Second             // how long an answer waits for its row
	refusalRetry   = time.Second             // after a failed write
	maxRefusals    = 1000                    // rows that wait to be written
	maxWindows     = 10_000                  // keys that are counted at once
	maxStopRows    = 2000                    // rows written at stop
	stopRows       = 1200 * time.Millisecond // for them: a shutdown gives two seconds
	stopOverflow   = 700 * time.Millisecond  // for the row that sums up the rest
	overflowPause  = time.Minute             // between two rows about overflow
	maxOverflowing = 100                     // actions that an overflow names
	otherActions   = audit.Action("others")  // the rest of them
)

// Refusals writes refused actions to the audit log: the first of a key at once, its repetitions within ten minutes as
// one row with their count. The key is actor, action and target; for the anonymous the address (of IPv6 the /64) and the
// action. Nothing that it does can change the answer, and no limiter counts its rows.
type Refusals struct {
	store *Store

	mu       sync.Mutex
	windows  map[refusalKey]*refusalCount
	waiting  []*refusal
	overflow refusalOverflow
	wake     chan struct{} // a row waits
	stopped  bool
}

type refusalKey struct {
	action audit.Action
	kind   audit.ActorKind
	actor  string // id, or address
	target string
}

// refusalCount counts the repetitions of a key.
type refusalCount struct {
	facts       audit.Facts
	ends        time.Time
	count       int64
	first, last time.Time
}

// refusal is a row that waits.
type refusal struct {
	facts audit.Facts
	count int64         // refusals that it stands for
	done  chan struct{} // closed when it is written
}

// refusalOverflow sums up what found no room.
type refusalOverflow struct {
	count       int64
	first, last time.Time
	actions     map[audit.Action]int64
	next        time.Time // not before
}

// NewRefusals prepares a writer; Run is what writes.
func NewRefusals(s *Store) *Refusals {
	return &Refusals{store: s, windows: map[refusalKey]*refusalCount{}, wake: make(chan struct{}, 1)}
}

// Record notes a refused action. It returns at once, but for log-ins and authenticated actors, who wait up to a second
// for their row; log-ins alike whether the account exists or not.
func (r *Refusals) Record(ctx context.Context, f audit.Facts) {
	if f.Outcome == "" || f.Outcome == audit.Allow {
		f.Outcome = audit.Deny
	}
	if e := audit.New(f); e.Err() != nil {
		r.store.log.ErrorContext(ctx, "refusal not recorded", "err", e.Err())
		return
	}
	done := r.take(bounded(f))
	if done == nil || f.Actor.Kind == audit.Anonymous && f.Action != audit.AuthLogin {
		return
	}
	t := time.NewTimer(refusalWait)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	case <-ctx.Done():
	}
}

// bounded copies f with short texts: it is kept for ten minutes, and a header may be a megabyte.
func bounded(f audit.Facts) audit.Facts {
	for _, text := range []*string{
		&f.Actor.ID, &f.Actor.Label, &f.Actor.IP, &f.Actor.UserAgent, &f.Project.ID, &f.Project.Label, &f.Target.ID, &f.Target.Label,
		&f.Target.Subject, &f.RequestID,
	} {
		*text = short(*text)
	}
	details := make(map[string]any, len(f.Details))
	for name, v := range f.Details {
		if text, ok := v.(string); ok {
			v = short(text)
		}
		details[name] = v
	}
	f.Details = details
	return f
}

func short(s string) string {
	const most = 1 << 10 // bytes: more than any of them has in an entry
	return strings.Clone(s[:min(len(s), most)])
}

// take counts f, or queues it if it is the first of its key; then done tells when it is written.
func (r *Refusals) take(f audit.Facts) (done chan struct{}) {
	now := r.store.now()
	key := keyOf(&f)
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.windows[key]; w != nil && now.Before(w.ends) {
		w.add(now)
		return nil
	} else if w != nil {
		r.close(key, w)
	}
	if len(r.windows) >= maxWindows || r.stopped {
		r.overflow.add(f.Action, 1, now, now)
		return nil
	}
	row := &refusal{facts: f, count: 1, done: make(chan struct{})}
	if !r.queue(row, now) {
		return nil
	}
	r.windows[key] = &refusalCount{facts: f, ends: now.Add(refusalWindow)}
	return row.done
}

func (w *refusalCount) add(now time.Time) {
	if w.count == 0 {
		w.first = now
	}
	w.count++
	w.last = now
}

// queue lets row wait, or counts it among the overflow.
func (r *Refusals) queue(row *refusal, now time.Time) bool {
	if len(r.waiting) >= maxRefusals {
		r.overflow.add(row.facts.Action, row.count, now, now)
		return false
	}
	r.waiting = append(r.waiting, row)
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return true
}

// close ends a window: what was repeated in it becomes one row.
func (r *Refusals) close(key refusalKey, w *refusalCount) {
	delete(r.windows, key)
	if w.count == 0 {
		return
	}
	f := w.facts
	details := map[string]any{}
	maps.Copy(details, f.Details)
	details["count"], details["first"], details["last"] = w.count, TimeOf(w.first), TimeOf(w.last)
	f.Details, f.RequestID = details, "" // it was many requests
	r.queue(&refusal{facts: f, count: w.count, done: make(chan struct{})}, w.last)
}

func (o *refusalOverflow) add(action audit.Action, count int64, first, last time.Time) {
	if o.count == 0 {
		o.first, o.actions = first, map[audit.Action]int64{}
	}
	o.count += count
	o.last = last
	if _, ok := o.actions[action]; !ok && len(o.actions) >= maxOverflowing {
		action = otherActions
	}
	o.actions[action] += count
}

// keyOf makes the key of a refusal.
func keyOf(f *audit.Facts) refusalKey {
	k := refusalKey{action: f.Action, kind: f.Actor.Kind, actor: f.Actor.ID, target: f.Target.ID}
	if f.Actor.Kind != audit.Anonymous {
		return k
	}
	k.target, k.actor = "", f.Actor.IP
	a, err := netip.ParseAddr(f.Actor.IP)
	if err != nil {
		return k
	}
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil { // 64 bits are what one customer has
			a = p.Addr()
		}
	}
	k.actor = a.String()
	return k
}

// Run writes until ctx ends, and then what is left. The rate goes by its own ticks, whatever the store's clock says.
func (r *Refusals) Run(ctx context.Context) {
	tick := time.NewTicker(refusalTick)
	defer tick.Stop()
	allowed, resting := refusalRate, 0 // rows; ticks
	for ticks := 0; ; {
		select {
		case <-ctx.Done():
			r.stop(context.WithoutCancel(ctx))
			return
		case <-r.wake:
		case <-tick.C:
			allowed = min(allowed+refusalRate*int(refusalTick)/int(time.Second), refusalRate)
			resting = max(resting-1, 0)
			if ticks++; ticks%refusalRate == 0 { // once a second is enough for windows of minutes
				r.closeEnded()
			}
		}
		if resting > 0 {
			continue
		}
		n, err := r.write(ctx, allowed)
		allowed -= n
		if err != nil {
			resting = int(refusalRetry / refusalTick)
			if !errors.Is(err, ErrHistoryInDoubt) && !errors.Is(err, ErrAuditKeyUnknown) { // those were told once
				r.store.log.WarnContext(ctx, "refusals not written", "err", err)
			}
		}
	}
}

// closeEnded closes the windows whose time is over and lets the overflow wait as one row.
func (r *Refusals) closeEnded() {
	now := r.store.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, w := range r.windows {
		if !now.Before(w.ends) {
			r.close(key, w)
		}
	}
	if r.overflow.count > 0 && !now.Before(r.overflow.next) {
		r.queueOverflow(now)
	}
}

func (r *Refusals) queueOverflow(now time.Time) {
	if len(r.waiting) >= maxRefusals {
		return
	}
	o := r.overflow
	actions := map[string]any{}
	for a, n := range o.actions {
		actions[string(a)] = n
	}
	r.overflow = refusalOverflow{next: now.Add(overflowPause)}
	r.queue(&refusal{count: o.count, done: make(chan struct{}), facts: audit.Facts{
		Action: audit.RefusalsOverflow, Outcome: audit.Deny, Actor: audit.Actor{Kind: audit.System},
		Details: map[string]any{"count": o.count, "first": TimeOf(o.first), "last": TimeOf(o.last), "actions": actions},
	}}, now)
}

// write writes up to most rows in one transaction. What could not be written waits on.
func (r *Refusals) write(ctx context.Context, most int) (n int, err error) {
	r.mu.Lock()
	n = min(len(r.waiting), most)
	batch := r.waiting[:n:n]
	r.mu.Unlock()
	if n == 0 {
		return 0, nil
	}
	err = r.store.Update(ctx, func(tx *Tx) error {
		for _, row := range batch {
			tx.Record(audit.New(row.facts))
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("write refusals: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append([]*refusal(nil), r.waiting[n:]...)
	for _, row := range batch {
		close(row.done)
	}
	return n, nil
}

// stop writes what is left, without the rate. What there is no time for is summed up in the overflow, which comes last.
func (r *Refusals) stop(ctx context.Context) {
	r.mu.Lock()
	r.stopped = true
	for key, w := range r.windows {
		r.close(key, w)
	}
	r.mu.Unlock()
	most, cancel := context.WithTimeout(ctx, stopRows)
	defer cancel()
	for range maxStopRows / stopBatch {
		if n, err := r.write(most, stopBatch); err != nil || n == 0 {
			break
		}
	}
	r.mu.Lock()
	now := r.store.now()
	for _, row := range r.waiting {
		r.overflow.add(row.facts.Action, row.count, now, now)
	}
	r.waiting = nil
	if r.overflow.count > 0 {
		r.queueOverflow(now)
	}
	r.mu.Unlock()
	last, cancel := context.WithTimeout(ctx, stopOverflow)
	defer cancel()
	if _, err := r.write(last, 1); err != nil {
		r.store.log.WarnContext(ctx, "refusals lost at stop", "err", err)
	}
}
