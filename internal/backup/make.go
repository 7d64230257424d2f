package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"slices"
	"time"

	"filippo.io/age"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
)

// Options say what is backed up, and to where.
type Options struct {
	Store   *store.Store
	Keys    []audit.Key // the first signs; all prove the audit log
	Version string
	Actor   audit.Actor
	Now     func() time.Time // required
	Log     *slog.Logger

	Target  target.Target                                    // where the archive is kept
	Open    func(ctx context.Context) (target.Target, error) // opens Target, instead of it
	Name    string                                           // of the file; "": NewName gives it
	Stream  io.Writer                                        // instead of Target: the archive goes there, and is not verified
	Without []string                                         // tables whose rows are left out
	TempDir string                                           // SQLite: where the copy is made; "": where there is room

	// TempDirs are tried for the copy after Target, if that is a directory, and before the one beside the database.
	TempDirs []string

	LockWait time.Duration // Postgres: how long a table may be locked by another before that is an error; 0: 30 s

	Recipients []age.Recipient
	Passphrase string
	Unverified bool // don't read the archive after it was made

	// Progress is told of rows that were written, and then of bytes that were verified.
	Progress func(phase string, done, total int64)
}

// Result is a backup that was made.
type Result struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Target    string     `json:"target"`
	Bytes     int64      `json:"bytes"`
	SHA256    string     `json:"sha256"`
	Rows      int64      `json:"rows"`
	Raw       int64      `json:"raw_bytes"`
	Encrypted bool       `json:"encrypted"`
	Verified  bool       `json:"verified"`
	Reason    string     `json:"reason,omitempty"` // why it is not, though it was read: the database itself is not right
	Unproved  bool       `json:"unproved"`         // Reason is that its audit log cannot be proved with the keys at hand
	Started   store.Time `json:"started_at"`
	Finished  store.Time `json:"finished_at"`
	Manifest  Manifest   `json:"manifest"`
}

// ErrUnrecorded says that an archive is whole and verified, but that its entry in the audit log could not be written.
var ErrUnrecorded = errors.New("the backup is made, but not recorded in the audit log")

const (
	leftover   = 24 * time.Hour   // what is unfinished for so long has nobody who writes it
	recordIn   = 15 * time.Second // the entry of a failure, when the failure may be the database's
	readers    = 2                // tables read at a time: each needs about 40 MB
	maxReasons = 1 << 10          // bytes of an error in the audit log

	unproved = "not provable: " // begins the reason of a backup whose audit log cannot be proved
)

// Make makes a backup under the lease that allows one at a time, verifies it and records it. Whatever fails, fails all of
// it: nothing is left in the target that looks like a backup, and the failure is recorded.
func Make(ctx context.Context, o Options) (Result, error) {
	m, err := prepare(ctx, o)
	if err != nil {
		return Result{}, err // nothing was begun, so there is nothing to record
	}
	return m.finish()
}

// making is a backup that may be made: it holds the lease.
type making struct {
	o    Options
	r    Result
	held *lease
	ctx  context.Context //nolint:containedctx // ends with the lease.
	end  context.CancelFunc
}

func prepare(ctx context.Context, o Options) (*making, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	held, ctx, err := takeLease(ctx, &o)
	if err != nil {
		return nil, err
	}
	r := Result{ID: id.New(o.Now()).String(), Started: store.TimeOf(o.Now())}
	return &making{o: o, r: r, held: held, ctx: ctx, end: func() {}}, nil
}

// limit ends the backup after a time.
func (m *making) limit(d time.Duration) {
	if d > 0 {
		m.ctx, m.end = context.WithTimeoutCause(m.ctx, d, fmt.Errorf("it took longer than %v, which Z4J_BACKUP_MAX_DURATION allows", d))
	}
}

// finish makes it and gives the lease back.
func (m *making) finish() (Result, error) {
	defer m.held.release()
	defer m.end()
	err := m.o.open(m.ctx, &m.r)
	if err == nil {
		err = m.o.run(m.ctx, &m.r)
	}
	if err == nil {
		return m.r, m.o.completed(m.ctx, &m.r)
	}
	if cause := context.Cause(m.ctx); cause != nil && !errors.Is(err, cause) {
		err = errors.Join(cause, err)
	}
	return m.r, errors.Join(err, m.o.failed(m.ctx, &m.r, err))
}

// open opens the target, if that is still to do.
func (o *Options) open(ctx context.Context, r *Result) error {
	if o.Open != nil && o.Target == nil {
		opened, err := o.Open(ctx)
		if err != nil {
			return err
		}
		o.Target = opened
	}
	r.Target = "a stream"
	if o.Target != nil {
		r.Target = o.Target.String()
	}
	return nil
}

// tempDirs are the places for SQLite's copy: an operator sees to it that there is room where backups go, and it costs the
// database's disk nothing.
func (o *Options) tempDirs() []string {
	if o.Target != nil {
		if dir := target.DirectoryOf(o.Target); dir != "" {
			return append([]string{dir}, o.TempDirs...)
		}
	}
	return o.TempDirs
}

func (o *Options) encrypts() bool { return o.Passphrase != "" || len(o.Recipients) > 0 }

// run makes and verifies the archive.
func (o *Options) run(ctx context.Context, r *Result) error {
	recipients, check, err := o.seals(ctx)
	if err != nil {
		return err
	}
	r.Encrypted = len(recipients) > 0
	if _, err := o.Store.Instance(ctx); err != nil { // of an old database it is noted now, so that the snapshot has it
		return err
	}
	snap, err := o.Store.Snapshot(ctx, store.SnapshotOptions{TempDir: o.TempDir, TempDirs: o.tempDirs(), Without: o.Without, LockWait: o.LockWait})
	if err != nil {
		return err
	}
	if o.Stream != nil {
		err := o.write(ctx, snap, &counted{to: o.Stream, sum: sha256.New()}, r, recipients)
		return errors.Join(err, snap.Close())
	}
	if r.Name = o.Name; r.Name == "" {
		r.Name = NewName(snap.Info().Instance, r.ID, r.Started.Time, r.Encrypted)
	}
	if err := o.place(ctx, snap, r, recipients); err != nil {
		return err
	}
	if o.Unverified {
		return nil
	}
	if err := o.verify(ctx, r, check); err != nil {
		return errors.Join(fmt.Errorf("the archive was made and is not good; it was removed: %w", err), o.remove(ctx, r.Name))
	}
	r.Verified = r.Reason == ""
	return nil
}

// seals returns to whom the archive is encrypted, and what opens it for the verification: for recipients a key of this
// process alone, which is forgotten with it.
func (o *Options) seals(ctx context.Context) ([]age.Recipient, []age.Identity, error) {
	switch {
	case o.Passphrase != "" && len(o.Recipients) > 0:
		return nil, nil, errors.New("recipients and a passphrase are given: an archive is encrypted with one of the two")
	case o.Passphrase != "":
		to, err := passphraseSealer(ctx, o.Passphrase)
		if err != nil {
			return nil, nil, fmt.Errorf("encrypt with the passphrase: %w", err)
		}
		own, err := age.NewScryptIdentity(o.Passphrase)
		return []age.Recipient{to}, []age.Identity{own}, err
	case len(o.Recipients) == 0:
		return nil, nil, nil
	case o.Unverified || o.Stream != nil:
		return o.Recipients, nil, nil
	}
	own, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, nil, fmt.Errorf("make a key for the verification: %w", err)
	}
	return append(slices.Clip(o.Recipients), own.Recipient()), []age.Identity{own}, nil
}

// place writes the archive into the target. The snapshot is given up as soon as it was read.
func (o *Options) place(ctx context.Context, snap *store.Snapshot, r *Result, recipients []age.Recipient) error {
	if err := o.Target.Sweep(ctx, namePrefix+shortInstance(snap.Info().Instance)+"-", o.Now().Add(-leftover)); err != nil {
		o.Log.WarnContext(ctx, "unfinished backups not swept", "target", o.Target.String(), "err", err)
	}
	file, err := o.Target.Create(ctx, r.Name)
	if err != nil {
		return errors.Join(err, snap.Close())
	}
	err = o.write(ctx, snap, &counted{to: file, sum: sha256.New()}, r, recipients)
	if err = errors.Join(err, snap.Close()); err != nil {
		return errors.Join(err, file.Close())
	}
	if err := errors.Join(file.Commit(), file.Close()); err != nil {
		return err
	}
	return nil
}

// write writes the archive of a snapshot into to.
func (o *Options) write(ctx context.Context, snap *store.Snapshot, to *counted, r *Result, recipients []age.Recipient) error {
	info := snap.Info()
	w, err := NewWriter(to, recipients...)
	if err != nil {
		return err
	}
	w.Expect(snap.Tables()...)
	facts, err := o.Store.BackupFacts(ctx, info.Generation, info.AuditSize)
	if err != nil {
		return err
	}
	tree := treeOf(info.Boundary, facts.Pruned)
	rows := &rowCount{progress: o.Progress}
	err = snap.Read(ctx, readers, func(c store.Chunk) error {
		if c.Table == logTable {
			tree.add(c.Raw) // these come one after the other, in order
		}
		if err := w.Add(c); err != nil {
			return err
		}
		rows.add(c.Rows)
		return context.Cause(ctx)
	})
	if err != nil {
		return err
	}
	m, err := w.Finish(Manifest{
		ID: r.ID, Application: o.Version, Schema: info.Schema, Backend: info.Backend, Server: info.Server, Instance: info.Instance,
		Generation: info.Generation, Place: info.Place, StartedAt: r.Started, SnapshotAt: info.Time, FinishedAt: store.TimeOf(o.Now()),
		Without: append([]string{}, o.Without...), Hold: holdOf(facts.Hold),
		Audit: Chain{Size: info.AuditSize, RowHMAC: info.Head, At: info.HeadTime, Boundary: info.Boundary, Root: tree.root(info.AuditSize), Checkpoint: facts.Checkpoint},
		Keys:  KeyIDs{Master: facts.Master, Audit: facts.AuditKeys},
	}, o.Keys[0])
	if err != nil {
		return err
	}
	r.Manifest, r.Rows = m, m.Rows()
	for _, t := range m.Tables {
		r.Raw += t.Bytes
	}
	r.Bytes, r.SHA256, r.Finished = to.n, hex.EncodeToString(to.sum.Sum(nil)), store.TimeOf(o.Now())
	return nil
}

func holdOf(h *store.Hold) *Hold {
	if h == nil {
		return nil
	}
	return &Hold{Since: h.Since, Reason: h.Reason}
}

// verify reads what lies in the target now.
func (o *Options) verify(ctx context.Context, r *Result, identities []age.Identity) error {
	a, err := Open(ctx, o.Target, r.Name, ReadOptions{Identities: identities, Keys: o.Keys})
	if err != nil {
		return err
	}
	defer a.Close()
	var progress func(done, total int64)
	if o.Progress != nil {
		progress = func(done, total int64) { o.Progress("verified", done, total) }
	}
	report, err := a.Verify(ctx, o.Keys, progress)
	switch {
	case err != nil:
		return err
	case report.SHA256 != r.SHA256:
		return fmt.Errorf("%w: SHA-256 is %s, and %s was written", ErrDamaged, report.SHA256, r.SHA256)
	}
	o.findings(ctx, r, &report)
	return nil
}

// findings tells what a verification found in the database itself: an archive of it is as good as it, and is kept, but a
// restore refuses it unless that is accepted, so it does not count as verified. Nor does one of which nothing can be said,
// because a key is missing.
func (o *Options) findings(ctx context.Context, r *Result, report *Report) {
	log := o.Log
	for _, one := range report.Disagree {
		log.WarnContext(ctx, "the backup holds what the database holds, and that contradicts itself", "backup", r.ID, "what", one)
	}
	if code := report.Audit.Exit(); code != audit.ExitProved {
		log.ErrorContext(ctx, "the audit log in the backup is not proved: run z4j-brain audit verify", "backup", r.ID, "exit_code", code)
		if code != audit.ExitUnprovable { // the brains look at once, and tell it
			if err := o.Store.WantVerification(ctx); err != nil {
				log.WarnContext(ctx, "verification of the audit log not asked for", "err", err)
			}
		}
	}
	if fault := report.Fault(); fault != "" {
		r.Reason = "content: " + fault
	} else if why := report.Unproved(); why != "" {
		r.Reason, r.Unproved = unproved+why, true
	}
}

func (o *Options) remove(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordIn)
	defer cancel()
	return o.Target.Remove(ctx, name)
}

// completed records a backup.
func (o *Options) completed(ctx context.Context, r *Result) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordIn) // it is made: a stop does not undo it
	defer cancel()
	m := &r.Manifest
	details := map[string]any{
		"backup": r.ID, "target": r.Target, "file": r.Name, "sha256": r.SHA256, "bytes": r.Bytes, "rows": r.Rows, "snapshot_at": m.SnapshotAt.String(),
		"head_seq": m.Audit.Size, "head_row_hmac": m.Audit.RowHMAC, "generation": m.Generation, "encrypted": r.Encrypted, "verified": r.Verified,
		"started_at": r.Started.String(), "finished_at": r.Finished.String(), "without": o.Without, "held": m.Hold != nil,
	}
	if r.Reason != "" {
		details["reason"] = r.Reason[:min(len(r.Reason), maxReasons)]
	}
	err := o.record(ctx, audit.Facts{Action: audit.BackupCompleted, Details: details, Target: audit.Target{ID: r.ID}})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnrecorded, err)
	}
	return nil
}

// failed records that there is no backup.
func (o *Options) failed(ctx context.Context, r *Result, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordIn)
	defer cancel()
	reason := cause.Error()
	err := o.record(ctx, audit.Facts{Action: audit.BackupFailed, Outcome: audit.Failed, Target: audit.Target{ID: r.ID}, Details: map[string]any{
		"backup": r.ID, "target": r.Target, "file": r.Name, "started_at": r.Started.String(), "reason": reason[:min(len(reason), maxReasons)],
	}})
	if err != nil {
		return fmt.Errorf("record that the backup failed: %w", err)
	}
	return nil
}

func (o *Options) record(ctx context.Context, f audit.Facts) error {
	f.Actor = o.Actor
	return o.Store.Update(ctx, func(tx *store.Tx) error {
		tx.Record(audit.New(f))
		return nil
	})
}

// counted hashes and counts what goes to a writer.
type counted struct {
	to  io.Writer
	sum hash.Hash
	n   int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.sum.Write(p[:n])
	c.n += int64(n)
	return n, err
}
