package store

import (
	"context"
	"errors"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
)

// Errors of holds, beside ErrNotFound for a project that is not there.
var (
	ErrLegalHoldStands = errors.New("a legal hold stands already")
	ErrNoLegalHold     = errors.New("no legal hold stands")
)

// HoldProject keeps everything of a project from being deleted until the hold is released. ErrLegalHoldStands says that
// one stands; its reason is not replaced.
func (s *Store) HoldProject(ctx context.Context, slug, reason string, by By) (out Project, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		p, err := tx.lockProject(ctx, slug)
		if err != nil {
			return err
		}
		if p.HoldReason != nil {
			return ErrLegalHoldStands
		}
		if out, err = tx.setHold(ctx, p.ID, &tx.now, &reason); err != nil {
			return err
		}
		tx.Record(by.entry(audit.RetentionHeld, out.Audited(), audit.Target{ID: out.ID.String(), Label: out.Slug}, map[string]any{"reason": reason}))
		return nil
	})
	return out, err
}

// ReleaseProject ends the hold of a project, or returns ErrNoLegalHold.
func (s *Store) ReleaseProject(ctx context.Context, slug, reason string, by By) (out Project, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		p, err := tx.lockProject(ctx, slug)
		if err != nil {
			return err
		}
		if p.HoldReason == nil {
			return ErrNoLegalHold
		}
		if out, err = tx.setHold(ctx, p.ID, nil, nil); err != nil {
			return err
		}
		tx.Record(by.entry(audit.RetentionReleased, out.Audited(), audit.Target{ID: out.ID.String(), Label: out.Slug},
			released(reason, &RetentionHold{*p.HoldSince, *p.HoldReason})))
		return nil
	})
	return out, err
}

// released is what an entry says of the hold that ended.
func released(reason string, was *RetentionHold) map[string]any {
	details := map[string]any{"held_since": was.Since, "held_reason": was.Reason}
	if reason != "" {
		details["reason"] = reason
	}
	return details
}

// lockProject reads a project and keeps others from changing it until the end of the transaction.
func (tx *Tx) lockProject(ctx context.Context, slug string) (Project, error) {
	var p Project
	err := tx.QueryRowContext(ctx, `SELECT `+projectColumns+` FROM projects WHERE slug = $1`+tx.store.dialect.forUpdate, slug).Scan(p.fields()...)
	return p, wrap("project", err)
}

func (tx *Tx) setHold(ctx context.Context, project id.ID, since *Time, reason *string) (Project, error) {
	var out Project
	err := tx.QueryRowContext(ctx, `UPDATE projects SET hold_since = $1, hold_reason = $2 WHERE id = $3 RETURNING `+projectColumns, since, reason, project).
		Scan(out.fields()...)
	return out, wrap("hold project", err)
}

// installation is how entries name what is no project's.
func installation() audit.Target {
	return audit.Target{ID: "installation", Label: "the whole installation"}
}

// HoldInstallation keeps everything from being deleted until the hold is released, or returns ErrLegalHoldStands.
func (s *Store) HoldInstallation(ctx context.Context, reason string, by By) (out RetentionHold, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		res, err := tx.ExecContext(ctx, `INSERT INTO meta (key, value, updated_at) VALUES ($1, $2, $3) ON CONFLICT (key) DO NOTHING`, holdKey, reason, tx.now)
		if err := changed("hold the installation", res, err); errors.Is(err, ErrNotFound) {
			return ErrLegalHoldStands
		} else if err != nil {
			return err
		}
		out = RetentionHold{Since: tx.now, Reason: reason}
		tx.Record(by.entry(audit.RetentionHeld, audit.Project{}, installation(), map[string]any{"reason": reason}))
		return nil
	})
	return out, err
}

// ReleaseInstallation ends the hold of the whole installation, or returns ErrNoLegalHold; holds of projects stay.
func (s *Store) ReleaseInstallation(ctx context.Context, reason string, by By) error {
	return s.Update(ctx, func(tx *Tx) error {
		was, err := installationHold(ctx, tx)
		if err != nil {
			return err
		}
		if was == nil {
			return ErrNoLegalHold
		}
		res, err := tx.ExecContext(ctx, `DELETE FROM meta WHERE key = $1`, holdKey)
		if err := changed("release the installation", res, err); errors.Is(err, ErrNotFound) {
			return ErrNoLegalHold // another one was faster
		} else if err != nil {
			return err
		}
		tx.Record(by.entry(audit.RetentionReleased, audit.Project{}, installation(), released(reason, was)))
		return nil
	})
}
