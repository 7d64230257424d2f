package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
)

// ErrNotHeld says that no restore waits to be released.
var ErrNotHeld = errors.New("no restore waits to be released")

const (
	restoreKey = "restore_held"
	gapsKey    = "data_gaps"

	maxAccepted = 1 << 10 // bytes of what was accepted, in the audit log

	maxGaps = 100 // restores that are told of; the audit log has all
)

// DataGap is a time of which events may be missing: agents forget what was acknowledged, and what was acknowledged after
// a backup is not in it. It ends when what a restore held is released.
type DataGap struct {
	From   Time   `json:"from" doc:"the moment of the state that came back"`
	Until  *Time  `json:"until" doc:"when z4j-brain restore release was run; null: it was not yet, and the gap is open"`
	Backup string `json:"backup_id" doc:"empty: the database was set back by other means"`
}

// RestoreHeld says what waits for `restore release`.
type RestoreHeld struct {
	Since  Time   `json:"since"`
	Backup string `json:"backup_id"` // "": the database was set back by other means

	Outgoing bool `json:"outgoing"`       // schedules' fires and notifications
	Keys     bool `json:"keys_suspended"` // API keys
}

// Restoration is what the last transaction of a restore does.
type Restoration struct {
	Backup       string // id of the archive
	SnapshotAt   Time
	MigratedFrom int64     // the archive's schema, if it was an older one; 0
	HeadSeq      int64     // of the archive
	HeadHMAC     string    // of the archive
	Lost         audit.Row // the newest entry known that the archive lacks: number, HMAC and time; zero: none
	AnchorSize   int64
	AnchorRoot   string
	By           By
	Revival

	Place     Place
	Accepted  string   // in what the archive is not right, which the operator accepted; "": in nothing
	Abandoned []string // histories that anchors know and the archive does not (custody.Abandoned)
}

// Revival is what an older state of the database brings back to life and must not, as far as anybody knows.
type Revival struct {
	Agents      []id.ID   // revoked since
	Keys        []id.ID   // API keys revoked since
	Erasures    []Erasure // made since
	SuspendKeys bool      // since nobody can tell which were revoked
	Gap         DataGap   // of which events may be missing; it is open
}

// Erasure is an audit.erased that a restored database lacks: the parts that it took, in order.
type Erasure struct {
	Reason string
	Parts  []audit.ErasedPart
}

// EndRestore makes void what must not come back to life, does again what was revoked and erased after the backup, notes
// the gap, and begins a new history at a new place, in one transaction, of which last is a part.
func (s *Store) EndRestore(ctx context.Context, r Restoration, last func(*Tx) error) (generation string, err error) {
	details := map[string]any{
		"backup_id": r.Backup, "head_seq": r.HeadSeq, "head_row_hmac": r.HeadHMAC, "snapshot_at": r.SnapshotAt.Time, "reason": "restored from a backup",
	}
	if r.MigratedFrom > 0 {
		details["migrated_from"] = r.MigratedFrom
	}
	if r.Lost.Seq > 0 {
		details["lost_seq"], details["lost_row_hmac"], details["lost_ts"] = r.Lost.Seq, r.Lost.RowHMAC, TimeAt(r.Lost.TS).Time
	}
	if r.Accepted != "" {
		details["accepted"] = r.Accepted[:min(len(r.Accepted), maxAccepted)]
	}
	r.Gap = DataGap{From: r.SnapshotAt, Backup: r.Backup}
	n := NewGeneration{
		Cause: "restored", Reason: "backup " + r.Backup, Actor: r.By.Actor, Fork: r.HeadSeq, AnchorSize: r.AnchorSize, AnchorRoot: r.AnchorRoot,
		Restored: details, Defuse: &r.Revival, Place: &r.Place, Abandoned: r.Abandoned, last: last,
	}
	if generation, err = s.StartGeneration(ctx, n); err != nil {
		return "", fmt.Errorf("end restore: %w", err)
	}
	return generation, nil
}

// revokeAgain revokes what was revoked since the state that came back, and returns the details that tell of it.
func (tx *Tx) revokeAgain(ctx context.Context, r *Revival) (details map[string]any, err error) {
	details = map[string]any{"suspended_keys": r.SuspendKeys, "erased": len(r.Erasures)}
	for _, part := range []struct {
		detail, text string
		ids          []id.ID
	}{
		{"revoked_agents", `UPDATE agents SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL`, r.Agents},
		{"revoked_keys", `UPDATE api_keys SET revoked_at = $1, revoked_reason = 'revoked before the database was set back', updated_at = $1
			WHERE id = $2 AND revoked_at IS NULL`, r.Keys},
	} {
		done := []string{}
		for _, one := range part.ids {
			res, err := tx.ExecContext(ctx, part.text, tx.now, one)
			if err != nil {
				return nil, wrap("revoke again", err)
			}
			n, err := res.RowsAffected()
			if err != nil {
				return nil, wrap("revoke again", err)
			}
			if n > 0 {
				done = append(done, one.String())
			}
		}
		details[part.detail] = done
	}
	if !r.SuspendKeys {
		return details, nil
	}
	_, err = tx.ExecContext(ctx, `UPDATE api_keys SET suspended_at = $1 WHERE suspended_at IS NULL AND revoked_at IS NULL`, tx.now)
	return details, wrap("suspend API keys", err)
}

// standing are those of erasures that have something to erase here.
func (s *Store) standing(ctx context.Context, erasures []Erasure) ([]Erasure, error) {
	var out []Erasure
	for _, e := range erasures {
		var parts []audit.ErasedPart
		for _, p := range e.Parts {
			var n int
			err := s.write.QueryRowContext(ctx, `SELECT count(*) FROM audit_personal WHERE seq = $1 AND role = $2 AND erased_by IS NULL`, p.Seq, p.Role).Scan(&n)
			if err != nil {
				return nil, wrap("look for what was erased", err)
			}
			if n > 0 {
				parts = append(parts, p)
			}
		}
		slices.SortFunc(parts, func(a, b audit.ErasedPart) int {
			if a.Seq != b.Seq {
				return int(min(max(a.Seq-b.Seq, -1), 1))
			}
			return strings.Compare(a.Role, b.Role)
		})
		if len(parts) > 0 {
			out = append(out, Erasure{e.Reason, parts})
		}
	}
	return out, nil
}

func (e *Erasure) entry(by audit.Actor) audit.Entry {
	sum := sha256.New()
	for _, p := range e.Parts {
		sum.Write([]byte(audit.ErasureLine(p.Seq, p.Role)))
	}
	return By{Actor: by}.entry(audit.Erased, audit.Project{}, audit.Target{}, map[string]any{
		"count": len(e.Parts), "sha256": hex.EncodeToString(sum.Sum(nil)), "reason": e.Reason,
	})
}

func (tx *Tx) eraseAgain(ctx context.Context, parts []audit.ErasedPart, entry int64) error {
	for _, p := range parts {
		_, err := tx.ExecContext(ctx, `UPDATE audit_personal SET subject = NULL, salt = NULL, json = NULL, erased_by = $1 WHERE seq = $2 AND role = $3`, entry, p.Seq, p.Role)
		if err != nil {
			return wrap("erase again", err)
		}
	}
	return nil
}

// noteRevival notes the gap, and lets what goes out wait for ReleaseRestore. API keys that waited go on waiting.
func (tx *Tx) noteRevival(ctx context.Context, r *Revival) error {
	gaps, err := gapsOf(ctx, tx.metaText(gapsKey))
	if err != nil {
		return err
	}
	gaps = append(gaps, r.Gap)
	if err := tx.putMeta(ctx, gapsKey, gaps[max(0, len(gaps)-maxGaps):]); err != nil {
		return err
	}
	held, err := tx.restoreHeld(ctx)
	if err != nil && !errors.Is(err, ErrNotHeld) {
		return err
	}
	return tx.putMeta(ctx, restoreKey, RestoreHeld{Since: tx.now, Backup: r.Gap.Backup, Outgoing: true, Keys: r.SuspendKeys || held.Keys})
}

// closeGaps ends the gaps that are open.
func (tx *Tx) closeGaps(ctx context.Context) error {
	gaps, err := gapsOf(ctx, tx.metaText(gapsKey))
	if err != nil {
		return err
	}
	open := false
	for i := range gaps {
		if gaps[i].Until == nil {
			gaps[i].Until, open = &tx.now, true
		}
	}
	if !open {
		return nil
	}
	return tx.putMeta(ctx, gapsKey, gaps)
}

// restoreHeld is RestoreHeld inside the transaction.
func (tx *Tx) restoreHeld(ctx context.Context) (RestoreHeld, error) {
	return heldOf(ctx, tx.metaText(restoreKey))
}

func heldOf(ctx context.Context, read func(context.Context) (string, error)) (h RestoreHeld, err error) {
	text, err := read(ctx)
	if errors.Is(err, ErrNotFound) {
		return h, ErrNotHeld
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &h)
	}
	return h, wrap("read what a restore holds", err)
}

// metaText reads a value inside the transaction.
func (tx *Tx) metaText(key string) func(ctx context.Context) (string, error) {
	return func(ctx context.Context) (value string, err error) {
		err = tx.QueryRowContext(ctx, `SELECT value FROM meta WHERE key = $1`, key).Scan(&value)
		return value, wrap("meta "+key, err)
	}
}

func (tx *Tx) putMeta(ctx context.Context, key string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("put meta %s: %w", key, err)
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO meta (key, value, updated_at) VALUES ($1, $2, $3)
		ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at`, key, string(text), tx.now)
	return wrap("put meta "+key, err)
}

func gapsOf(ctx context.Context, read func(context.Context) (string, error)) ([]DataGap, error) {
	gaps := []DataGap{}
	text, err := noneIsZero(read(ctx))
	if err != nil || text == "" {
		return gaps, err
	}
	if err := json.Unmarshal([]byte(text), &gaps); err != nil {
		return nil, fmt.Errorf("read data gaps: %w", err)
	}
	return gaps, nil
}

// DataGaps lists the times of which events may be missing, since a backup was restored or the database was set back.
func (s *Store) DataGaps(ctx context.Context) ([]DataGap, error) {
	return gapsOf(ctx, func(ctx context.Context) (string, error) { return s.Meta(ctx, gapsKey) })
}

// RestoreHeld returns what waits for ReleaseRestore, or ErrNotHeld.
func (s *Store) RestoreHeld(ctx context.Context) (RestoreHeld, error) {
	return heldOf(ctx, func(ctx context.Context) (string, error) { return s.Meta(ctx, restoreKey) })
}

// HoldOutgoing lets fires and notifications wait for ReleaseRestore, because the database may be a restored one.
func (s *Store) HoldOutgoing(ctx context.Context) error {
	return s.transact(ctx, func(tx *Tx) error {
		if text, err := noneIsZero(tx.metaText(restoreKey)(ctx)); err != nil || text != "" {
			return err
		}
		return tx.putMeta(ctx, restoreKey, RestoreHeld{Since: tx.now, Outgoing: true})
	})
}

// ReleaseRestore lets go what a restore held: fires and notifications, and with keys the API keys that it suspended. It
// returns how many these were. The gap ends, in which events may be missing.
func (s *Store) ReleaseRestore(ctx context.Context, keys bool, by By) (released int64, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		h, err := tx.restoreHeld(ctx)
		if err != nil {
			return err
		}
		if h.Outgoing = false; keys {
			h.Keys = false
			res, err := tx.ExecContext(ctx, `UPDATE api_keys SET suspended_at = NULL WHERE suspended_at IS NOT NULL`)
			if err != nil {
				return wrap("release API keys", err)
			}
			if released, err = res.RowsAffected(); err != nil {
				return wrap("release API keys", err)
			}
		}
		if h.Keys {
			err = tx.putMeta(ctx, restoreKey, h)
		} else if _, err = tx.ExecContext(ctx, `DELETE FROM meta WHERE key = $1`, restoreKey); err != nil {
			err = wrap("release the restore", err)
		}
		if err := errors.Join(err, tx.closeGaps(ctx)); err != nil {
			return err
		}
		tx.Record(by.entry(audit.SystemReleased, audit.Project{}, audit.Target{}, map[string]any{"backup_id": h.Backup, "keys": released}))
		return nil
	})
	return released, err
}
