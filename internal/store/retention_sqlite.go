package store

import (
	"context"
	"fmt"
)

// eventsSQLite deletes each project's events row by row: SQLite has no partitions.
func (w *sweeper) eventsSQLite(ctx context.Context) error {
	return w.each(ctx, func(ctx context.Context, r *rule) error {
		return w.deleteEvents(ctx, r, eventRange{"events", TimeAt(0), eventCut(w.now, r.events)})
	})
}

// File is how full a SQLite file is.
type File struct {
	Pages, Free, PageSize int64
	Incremental           bool // free pages can be given back while the brain runs
}

// File describes the SQLite file; with Postgres it is zero.
func (s *Store) File(ctx context.Context) (f File, err error) {
	if s.pool != nil {
		return f, nil
	}
	mode := 0
	err = s.read.QueryRowContext(ctx, `SELECT page_count, freelist_count, page_size, auto_vacuum
		FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size(), pragma_auto_vacuum()`).Scan(&f.Pages, &f.Free, &f.PageSize, &mode)
	f.Incremental = mode == incremental
	return f, wrap("describe the file", err)
}

const (
	incremental = 2   // auto_vacuum
	spare       = 20  // a twentieth of the file may stay free: tomorrow needs it again
	firstPages  = 256 // of a step
	mostPages   = 8192
)

// shrink gives free pages back to the file system, a few at a time. Postgres does that by itself.
func (w *sweeper) shrink(ctx context.Context) error {
	if w.pool != nil {
		return nil
	}
	f, err := w.File(ctx)
	if err != nil || !f.Incremental {
		return err
	}
	pages := int64(firstPages)
	for free := f.Free; free > (f.Pages-f.Free)/spare; {
		if err := w.mayDelete(ctx, w.read, TimeOf(w.Store.now())); err != nil {
			return err
		}
		began := w.Store.now()
		if _, err := w.write.ExecContext(ctx, fmt.Sprintf(`PRAGMA incremental_vacuum(%d)`, min(pages, free))); err != nil {
			return wrap("shrink the file", err)
		}
		took := w.Store.now().Sub(began)
		w.out.LongestLock = max(w.out.LongestLock, took)
		switch {
		case took > longBatch:
			pages = max(pages/2, 16)
		case took < shortBatch:
			pages = min(pages*2, mostPages)
		}
		if err := pause(ctx, took); err != nil {
			return err
		}
		now, err := w.File(ctx)
		if err != nil || now.Free >= free {
			return err // nothing moves: somebody fills it faster
		}
		w.out.FreedBytes += max(0, f.Pages-now.Pages) * f.PageSize
		f, free = now, now.Free
	}
	return nil
}

// Compact writes the SQLite file anew, so that it has no free pages and can give them back from then on. Nobody can
// write meanwhile, and it needs as much room again.
func (s *Store) Compact(ctx context.Context) (before, after File, err error) {
	if s.pool != nil {
		return before, after, nil
	}
	if before, err = s.File(ctx); err != nil {
		return before, after, err
	}
	conn, err := s.write.Conn(ctx)
	if err != nil {
		return before, after, wrap("compact", err)
	}
	defer conn.Close()
	for _, q := range []string{`PRAGMA auto_vacuum = INCREMENTAL`, `VACUUM`, `PRAGMA wal_checkpoint(TRUNCATE)`} {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			return before, after, wrap("compact", err)
		}
	}
	after, err = s.File(ctx)
	return before, after, err
}
