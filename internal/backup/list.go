package backup

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
)

// Entry is an archive in a target.
type Entry struct {
	Name      string    `json:"name"`
	Instance  string    `json:"instance"` // its beginning
	At        time.Time `json:"at"`
	Bytes     int64     `json:"bytes"`
	Encrypted bool      `json:"encrypted"`
	State     string    `json:"state"`
	Record    *Record   `json:"record"` // what the audit log says of it; null: nothing
	Reading   bool      `json:"reading"`
	Kept      bool      `json:"kept"` // by the rules, when rules were given
}

// States of archives in a list.
const (
	StateRecorded   = "recorded"        // the audit log knows it, with this size
	StateUnrecorded = "not recorded"    // the audit log says nothing of it: of another database, or from before a restore
	StateDiffers    = "size differs"    // from the one that the audit log says
	StateMissing    = "file is missing" // the audit log knows it, and it is not there
)

const (
	maxListed = 100_000
	marker    = ".reading-"    // behind an archive's name: somebody reads it
	markFor   = 24 * time.Hour // a marker that is older has nobody
	markEvery = time.Hour
)

// List gives the archives of a target, oldest first, as the audit log of s knows them; s may be nil.
func List(ctx context.Context, in target.Target, s *store.Store, now time.Time) ([]Entry, error) {
	files, err := in.List(ctx, namePrefix, maxListed)
	if err != nil {
		return nil, err
	}
	known, err := recorded(ctx, s)
	if err != nil {
		return nil, err
	}
	reading := map[string]bool{}
	for _, f := range files {
		if name, _, is := strings.Cut(f.Name, marker); is && now.Sub(f.Modified) < markFor {
			reading[name] = true
		}
	}
	out := []Entry{}
	for _, f := range files {
		instance, at, ok := parseName(f.Name)
		if !ok {
			continue
		}
		e := Entry{Name: f.Name, Instance: instance, At: at, Bytes: f.Size, Encrypted: strings.HasSuffix(f.Name, sealedSuffix), State: StateUnrecorded, Reading: reading[f.Name]}
		if r, is := known[f.Name]; is && r.Target == in.String() {
			e.Record, e.State, e.At = &r, StateRecorded, r.Started.Time // names have whole seconds
			if r.Bytes != f.Size {
				e.State = StateDiffers
			}
		}
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(a, b Entry) int { return a.At.Compare(b.At) })
	return out, nil
}

// Reading marks an archive as being read until done is called, so that no prune takes it away. A target that can't be
// written to has no marks.
func Reading(ctx context.Context, in target.Target, name string) (done func()) {
	file := name + marker + strings.ToLower(rand.Text()[:10])
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	if put(ctx, in, file) == nil {
		wg.Go(func() {
			tick := time.NewTicker(markEvery)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					_ = put(ctx, in, file) // tried again in an hour: a mark holds for a day
				}
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
		ctx, end := context.WithTimeout(context.WithoutCancel(ctx), recordIn)
		defer end()
		_ = in.Remove(ctx, file) // what stays is not looked at after a day
	}
}

func put(ctx context.Context, in target.Target, name string) error {
	w, err := in.Create(ctx, name)
	if err != nil {
		return err
	}
	return errors.Join(w.Commit(), w.Close())
}

// good reports whether the audit log says that the archive is complete and was verified.
func (e *Entry) good() bool { return e.State == StateRecorded && e.Record.good() }

// faulty reports whether the audit log says that the archive is complete, and what it holds not right.
func (e *Entry) faulty() bool {
	return e.State == StateRecorded && !e.Record.Verified && e.Record.Reason != "" && len(e.Record.Without) == 0
}

// ErrNoBackup says that of the archives in a target none can be meant by the newest.
var ErrNoBackup = errors.New("there is no backup that can be meant")

// Newest gives the newest archive of a target: of those that the audit log of s knows as complete and verified, and that
// are of its installation. If s is nil, nobody can be asked: it is the newest of all, which have to be of one installation.
func Newest(ctx context.Context, in target.Target, s *store.Store, now time.Time) (Entry, error) {
	list, err := List(ctx, in, s, now)
	if err != nil {
		return Entry{}, err
	}
	if s == nil {
		return newestUnasked(in, list)
	}
	instance, err := s.Instance(ctx)
	if err != nil {
		return Entry{}, err
	}
	own := 0
	for i := range slices.Backward(list) {
		if list[i].Instance != shortInstance(instance) {
			continue
		}
		if list[i].good() {
			return list[i], nil
		}
		own++
	}
	switch {
	case own > 0:
		return Entry{}, fmt.Errorf("%w: of the %d backups of this installation in %s the audit log says of none that it is complete and was verified: name the one that you mean",
			ErrNoBackup, own, in)
	case len(list) > 0:
		return Entry{}, fmt.Errorf("%w: the %d backups in %s are of other installations: name the one that you mean", ErrNoBackup, len(list), in)
	}
	return Entry{}, fmt.Errorf("%w: %s has none: make one with `z4j-brain backup`", ErrNoBackup, in)
}

func newestUnasked(in target.Target, list []Entry) (Entry, error) {
	if len(list) == 0 {
		return Entry{}, fmt.Errorf("%w: %s has none", ErrNoBackup, in)
	}
	last := list[len(list)-1]
	for i := range list {
		if list[i].Instance != last.Instance {
			return Entry{}, fmt.Errorf("%w: %s has backups of several installations (%s, %s): name the one that you mean", ErrNoBackup, in, list[i].Instance, last.Instance)
		}
	}
	return last, nil
}

// Pruned is what a prune did, or would do.
type Pruned struct {
	Removed []string `json:"removed"`
	Left    []string `json:"left"` // would go by the rules, but are being read
	Entries []Entry  `json:"backups"`
}

// Prune removes, of the archives of this database's instance, those that the rules don't keep. The rules count those that
// the audit log knows as complete and verified; another one goes when it is older than all that are kept. What is being
// read, what is not as it was recorded and what is of others stays. With plan nothing is changed.
func Prune(ctx context.Context, o Options, keep Keep, plan bool) (Pruned, error) {
	p := Pruned{Removed: []string{}, Left: []string{}}
	if !plan {
		held, held2, err := takeLease(ctx, &o)
		if err != nil {
			return p, err
		}
		defer held.release()
		ctx = held2
	}
	instance, err := o.Store.Instance(ctx)
	if err != nil {
		return p, err
	}
	list, err := List(ctx, o.Target, o.Store, o.Now())
	if err != nil {
		return p, err
	}
	choose(list, shortInstance(instance), keep)
	for i := range list {
		switch e := &list[i]; {
		case e.Kept:
		case e.Reading:
			p.Left = append(p.Left, e.Name)
		default:
			p.Removed = append(p.Removed, e.Name)
		}
	}
	p.Entries = list
	if plan || len(p.Removed) == 0 {
		return p, nil
	}
	return p, o.prune(ctx, &p, keep)
}

// choose sets what is kept of a list. Backups of a database that is not right are chosen among themselves: they take the place
// of no good one, and are not kept for ever when there are no others.
func choose(list []Entry, instance string, keep Keep) {
	own := func(accept func(e *Entry) bool) (found []int) {
		for i := range list {
			if list[i].Instance == instance && accept(&list[i]) {
				found = append(found, i)
			}
		}
		return found
	}
	for i := range list {
		list[i].Kept = true
	}
	oldest := chosen(list, own((*Entry).good), keep)
	chosen(list, own((*Entry).faulty), keep)
	for _, i := range own(func(e *Entry) bool { return e.State != StateDiffers && !e.good() }) {
		e := &list[i]
		e.Kept = e.Kept && !e.At.Before(oldest)
	}
}

// chosen keeps of some entries what the rules keep, and tells how old the oldest of those is.
func chosen(list []Entry, some []int, keep Keep) (oldest time.Time) {
	times := make([]time.Time, len(some))
	for i, at := range some {
		times[i] = list[at].At
	}
	for i, kept := range keep.Choose(times) {
		list[some[i]].Kept = kept
		if kept && (oldest.IsZero() || times[i].Before(oldest)) {
			oldest = times[i]
		}
	}
	return oldest
}

// prune records first what goes: a file that is gone without an entry would be a riddle, an entry too much is none.
func (o *Options) prune(ctx context.Context, p *Pruned, keep Keep) error {
	const named = 100 // files in an entry; the others are counted
	err := o.record(ctx, audit.Facts{Action: audit.BackupPruned, Target: audit.Target{ID: o.Target.String()}, Details: map[string]any{
		"target": o.Target.String(), "files": p.Removed[:min(len(p.Removed), named)], "count": len(p.Removed), "kept": len(p.Entries) - len(p.Removed), "keep": keep.String(),
	}})
	if err != nil {
		return fmt.Errorf("record the prune: %w", err)
	}
	for _, name := range p.Removed {
		if err := errors.Join(context.Cause(ctx), o.Target.Remove(ctx, name)); err != nil {
			return fmt.Errorf("remove backup %s: %w", name, err)
		}
	}
	return nil
}
