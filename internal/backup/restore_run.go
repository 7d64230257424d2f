package backup

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/store"
)

// loaders is how many chunks are loaded at a time.
const loaders = 2

// Run does what was planned. Whatever fails, and wherever it is killed, nothing is left that a brain would serve.
func (r *Restore) Run(ctx context.Context) (out Restored, err error) {
	began := r.o.Now()
	m := &r.archive.Manifest
	r.step(StepLoad)
	debug.FreeOSMemory() // what the verification took
	l, err := store.OpenLoader(ctx, store.LoadOptions{URL: r.o.Into, Schema: m.Schema, Log: r.o.Log, Now: r.o.Now})
	if err != nil {
		return out, fmt.Errorf("restore: %w", err)
	}
	defer func() {
		if e := l.Close(); e != nil {
			err = errors.Join(err, fmt.Errorf("restore: %w", e))
		}
	}()
	if err := r.load(ctx, l); err != nil {
		return out, fmt.Errorf("restore: %w", err)
	}
	r.step(StepIndex)
	debug.FreeOSMemory() // the chunks
	s, err := l.Finish(ctx, r.o.Secrets)
	if err != nil {
		return out, fmt.Errorf("restore: %w", err)
	}
	r.step(StepAudit)
	if err := r.prove(ctx, s); err != nil {
		return out, fmt.Errorf("restore: %w", err)
	}
	r.step(StepDefuse)
	watch := r.o.Custody(s)
	end, err := r.ending(ctx, watch)
	if err != nil {
		return out, fmt.Errorf("restore: %w", err)
	}
	err = l.Release(ctx, func(last func(*store.Tx) error) error {
		if out.Generation, err = s.EndRestore(ctx, end, last); err != nil {
			return err
		}
		if err := watch.Checkpoint(ctx); err != nil { // the brain signs one within a minute
			r.o.Log.WarnContext(ctx, "no checkpoint of the restored audit log yet", "err", err)
		}
		if end.SuspendKeys {
			look, err := s.Admitted(ctx, custody.Looked)
			if err != nil { // it is restored all the same
				r.o.Log.WarnContext(ctx, "users and agents can't be listed", "err", err)
			} else {
				out.LookAt = &look
			}
		}
		return nil
	})
	if err != nil {
		return out, fmt.Errorf("restore: %w", err)
	}
	out.Backup, out.Rows, out.From, out.Suspended = m.ID, m.Rows(), m.SnapshotAt, end.SuspendKeys
	out.Revoked, out.Erased, out.Seconds = len(end.Agents)+len(end.Keys), len(end.Erasures), r.o.Now().Sub(began).Seconds()
	return out, nil
}

func (r *Restore) step(name string) {
	if r.o.Step != nil {
		r.o.Step(name)
	}
}

// load writes every row, and counts them again.
func (r *Restore) load(ctx context.Context, l *store.Loader) error {
	var mu sync.Mutex
	done, total := int64(0), int64(0)
	for _, t := range r.archive.Manifest.Tables {
		total += t.Bytes
	}
	tell := r.progress("restored")
	err := r.archive.Read(ctx, loaders, func(c store.Chunk) error {
		if _, err := l.Load(ctx, c.Table, c.Raw); err != nil {
			return err
		}
		if tell != nil {
			mu.Lock()
			defer mu.Unlock()
			done += int64(len(c.Raw))
			tell(done, total)
		}
		return nil
	})
	if err != nil {
		return err
	}
	content := l.Content()
	for _, t := range r.archive.Manifest.Tables {
		if got := content[t.Name].Rows; got != t.Rows {
			return fmt.Errorf("%w: table %s has %d rows, and the manifest says %d", ErrDamaged, t.Name, got, t.Rows)
		}
	}
	return nil
}

// prove verifies the restored audit log, against what the anchors know of it.
func (r *Restore) prove(ctx context.Context, s *store.Store) error {
	list, err := s.Generations(ctx)
	if err != nil {
		return err
	}
	named := map[string]bool{}
	for _, g := range list {
		named[g.ID] = true
	}
	var witnesses []audit.Witness
	for _, w := range r.known.Newest {
		if named[w.Generation] {
			witnesses = append(witnesses, w)
		}
	}
	report, err := s.VerifyAudit(ctx, store.VerifyOptions{Witnesses: witnesses, Restored: true})
	if err != nil {
		return err
	}
	fault := fmt.Sprintf("the restored audit log is not proved (exit code %d): %s", report.Exit(), firstFault(&report))
	switch code := report.Exit(); {
	case code == audit.ExitProved, code == audit.ExitUnprovable && r.Plan.Archive.Audit.Exit() == audit.ExitUnprovable:
		return nil
	case code == audit.ExitBehind:
		fault = "its audit log is against what an anchor knows of the same history: the archive is not of this installation as it was"
	}
	return r.wrong(fault)
}

// ending is what the last transaction does.
func (r *Restore) ending(ctx context.Context, watch *custody.Custody) (end store.Restoration, err error) {
	m := &r.archive.Manifest
	end = store.Restoration{Backup: m.ID, SnapshotAt: m.SnapshotAt, HeadSeq: m.Audit.Size, HeadHMAC: m.Audit.RowHMAC, By: r.o.By, Revival: custody.RevivalOf(r.Plan.Gone)}
	end.SuspendKeys = r.Plan.Anchors == 0
	end.Accepted = strings.Join(r.accepted, "; ")
	if r.Plan.Migrates {
		end.MigratedFrom = m.Schema
	}
	for _, b := range r.Plan.Behind {
		if b.head.Seq > max(m.Audit.Size, end.Lost.Seq) {
			end.Lost = b.head
		}
		if b.root != "" && b.head.Seq > end.AnchorSize {
			end.AnchorSize, end.AnchorRoot = b.head.Seq, b.root
		}
	}
	if end.Abandoned, err = watch.Abandoned(ctx); err != nil {
		return end, err
	}
	end.Place, err = watch.RestoredPlace(ctx)
	return end, err
}
