// Package prune takes the oldest rows out of the audit log, after they were written into an archive that is proved.
//
// It goes in five steps, each of which leaves a log that verifies, and of which a later run finishes what was begun: prove
// the rows; write the archive, read it back and prove it; record that they go; delete them, upwards, once the archive was
// compared with what was recorded; record that they are gone.
package prune

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
)

// What a caller can tell apart. Of each, nothing was deleted that no archive holds.
var (
	ErrBusy     = errors.New("another prune is running, or was killed a moment ago: try again in two minutes")
	ErrNothing  = errors.New("there is no row to prune")
	ErrUnproved = errors.New("the rows are not proved, so nothing was deleted")
	ErrArchive  = errors.New("the archive is not there as it was written, so nothing was deleted")
	ErrExists   = errors.New("the file is there already and holds something else")
	ErrDeclined = errors.New("nothing was deleted, as you said")
)

// Options say what is pruned, and where it goes.
type Options struct {
	Store  *store.Store
	Open   func(ctx context.Context, location string) (target.Target, error)
	Place  string // where the archive is written
	Name   string // of the archive there; "" is audit-<generation>-<first>-<last>.<format>
	Format audit.Format

	Before           *store.Time // rows older than this; nil with Through
	Through          int64       // rows up to this one
	AcceptUnprovable bool        // also rows whose key is lost

	By       store.By
	Now      func() time.Time
	Confirm  func(Plan) bool // asked before anything is written; nil: yes
	Progress func(what string, done, total int64)
	LeaseFor time.Duration // 0: two minutes

	// Anchor is done once it is recorded that rows go, before one does: what is beyond the database is to know of it. An
	// error ends the prune.
	Anchor func(ctx context.Context) error
	Step   func(name string)
}

// Plan is what a prune is about to do.
type Plan struct {
	First, Last int64
	Until       store.Time // of the last row
	Archive     string
}

// Result is what a prune did.
type Result struct {
	First   int64  `json:"first"`
	Last    int64  `json:"last"` // 0: only an earlier prune was finished
	Rows    int64  `json:"rows"`
	Archive string `json:"archive"`
	SHA256  string `json:"sha256"`

	Finished int64 `json:"finished_through"` // an earlier prune that was not finished went up to here; 0: there was none
}

// leaseName is what one prune at a time holds.
const leaseName = "audit_prune"

// run is one prune.
type run struct {
	Options

	holder string
	result Result
}

// Run finishes a prune that was begun, and then does its own. ErrNothing says that nothing is left to prune.
func Run(ctx context.Context, o Options) (Result, error) {
	r := run{Options: o, holder: rand.Text()}
	if r.LeaseFor == 0 {
		r.LeaseFor = 2 * time.Minute
	}
	if r.Progress == nil {
		r.Progress = func(string, int64, int64) {}
	}
	if r.Step == nil {
		r.Step = func(string) {}
	}
	if err := r.mayPrune(ctx); err != nil {
		return r.result, err
	}
	ctx, release, err := r.lease(ctx)
	if err != nil {
		return r.result, err
	}
	defer release()
	pruned, err := r.finish(ctx)
	if err != nil {
		return r.result, err
	}
	return r.result, r.prune(ctx, &pruned)
}

func (r *run) mayPrune(ctx context.Context) error {
	hold, err := r.Store.Hold(ctx)
	if err != nil {
		return err
	}
	if hold != nil {
		return &store.HeldError{Hold: *hold}
	}
	return r.Store.AuditErr()
}

// lease takes the lease and renews it until release; if it is lost the context ends.
func (r *run) lease(ctx context.Context) (_ context.Context, release func(), err error) {
	take := func(ctx context.Context) error {
		now := store.TimeOf(r.Now())
		has, err := r.Store.Lease(ctx, leaseName, r.holder, now, store.TimeOf(now.Add(r.LeaseFor)))
		if err == nil && !has {
			err = ErrBusy
		}
		return err
	}
	if err := take(ctx); err != nil {
		return nil, nil, err
	}
	held, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(r.LeaseFor / 4)
		defer tick.Stop()
		for {
			select {
			case <-held.Done():
				return
			case <-tick.C:
				if err := take(held); err != nil {
					cancel(fmt.Errorf("renew lease: %w", err))
					return
				}
			}
		}
	}()
	return held, func() {
		cancel(nil)
		<-done
		_ = r.Store.ReleaseLease(context.WithoutCancel(ctx), leaseName, r.holder) // it ends by itself
	}, nil
}

// finish ends a prune that was recorded and whose rows are not all gone.
func (r *run) finish(ctx context.Context) (store.Pruned, error) {
	p, err := r.Store.NewestPruned(ctx)
	if err != nil || p.Seq == 0 || p.Completed {
		return p, err
	}
	archive, _ := p.Archive()
	rows := archive.Last - archive.First + 1
	if p.Unfinished() {
		if err := r.erase(ctx, &p); err != nil {
			return p, err
		}
	}
	if err := r.Store.RecordPruneCompleted(ctx, p, rows, r.By); err != nil {
		return p, err
	}
	r.result.Finished = p.Through
	return r.Store.NewestPruned(ctx)
}

// erase deletes what p lets go, if the archive that it names is there as it was.
func (r *run) erase(ctx context.Context, p *store.Pruned) error {
	archive, ok := p.Archive()
	if !ok {
		return fmt.Errorf("%w: entry %d names none", ErrArchive, p.Seq)
	}
	if err := r.compare(ctx, &archive); err != nil {
		return err
	}
	r.Step("compared")
	if r.Anchor != nil {
		if err := r.Anchor(ctx); err != nil {
			return fmt.Errorf("sign a checkpoint before rows go: %w", err)
		}
	}
	total := p.Through - p.Lowest + 1
	return r.Store.DeletePruned(ctx, *p, func(deleted int64) error {
		r.Step("deleted")
		r.Progress("deleted", deleted, total)
		return context.Cause(ctx)
	})
}

// prune does the five steps.
func (r *run) prune(ctx context.Context, before *store.Pruned) error {
	last, err := r.end(ctx)
	if err != nil {
		return err
	}
	if before.Lowest == 0 || last < before.Lowest {
		if r.result.Finished > 0 {
			return nil
		}
		return ErrNothing
	}
	a, err := r.openArchive(ctx, before.Lowest, last)
	if err != nil {
		return err
	}
	leaf, err := r.Store.AuditLeaf(ctx, a.last)
	if err != nil {
		return fmt.Errorf("read row %d: %w", a.last, err)
	}
	if r.Confirm != nil && !r.Confirm(Plan{First: before.Lowest, Last: a.last, Until: store.TimeAt(leaf.TS), Archive: a.location()}) {
		return ErrDeclined
	}
	prefix, err := r.Store.VerifyPrefix(ctx, a.last, func(done, total int64) { r.Progress("verified", done, total) })
	if err != nil {
		return err
	}
	if err := r.proved(&prefix.Report); err != nil {
		return err
	}
	r.Step("verified")
	named, err := r.archive(ctx, a, &prefix)
	if err != nil {
		return err
	}
	r.Step("written")
	record := store.Prune{Prefix: prefix, Archives: audit.JoinArchives(before.Archives, named), Unprovable: prefix.Report.UnprovableRows, By: r.By}
	if err := r.Store.RecordPruned(ctx, record); errors.Is(err, store.ErrNotErased) {
		return fmt.Errorf("%w: %w", ErrUnproved, err)
	} else if err != nil {
		return fmt.Errorf("record the prune: %w", err)
	}
	r.Step("recorded")
	r.result.First, r.result.Last, r.result.Rows = named.First, named.Last, named.Last-named.First+1
	r.result.Archive, r.result.SHA256 = named.Location, named.SHA256
	p, err := r.Store.NewestPruned(ctx)
	if err != nil {
		return err
	}
	if err := r.erase(ctx, &p); err != nil {
		return err
	}
	r.Step("emptied")
	return r.Store.RecordPruneCompleted(ctx, p, r.result.Rows, r.By)
}

// end is the number of the last row that is to go.
func (r *run) end(ctx context.Context) (int64, error) {
	head, err := r.Store.AuditHead(ctx)
	if err != nil {
		return 0, err
	}
	last := head.Seq
	if r.Through > 0 {
		if r.Through > head.Seq {
			return 0, fmt.Errorf("there is no row %d: the last is %d", r.Through, head.Seq)
		}
		last = r.Through
	}
	if r.Before != nil {
		old, err := r.Store.AuditEndBefore(ctx, *r.Before)
		if err != nil {
			return 0, err
		}
		last = min(last, old)
	}
	return last, nil
}

// proved stops at any defect.
func (r *run) proved(report *audit.Report) error {
	switch {
	case report.First != nil:
		return fmt.Errorf("%w: row %d: %s: %s; see `z4j-brain audit verify`", ErrUnproved, report.First.Seq, report.First.Class, report.First.Why)
	case report.Checked == 0:
		return ErrNothing
	case len(report.Unprovable) > 0 && !r.AcceptUnprovable:
		u := report.Unprovable[0]
		return fmt.Errorf("%w: rows %d to %d: %s; give the old secret in Z4J_AUDIT_SECRETS_PREVIOUS, or, if it is lost, say --accept-unprovable, which is recorded", ErrUnproved, u.From, u.To, u.Why)
	}
	return nil
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
