package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
)

// Why a restore is refused, beside what is wrong with the archive or the target.
var (
	ErrTampered    = errors.New("the archive is whole, and what it holds is not right")
	ErrUnknownHead = errors.New("the archive does not hold the entry that was named")
	ErrNoKey       = errors.New("a secret that the restore needs is missing")
)

// RestoreOptions say what is restored, and to where.
type RestoreOptions struct {
	From       target.Target
	Name       string // of the archive
	Identities []age.Identity
	Into       string // URL of the database, which is empty or not there
	Secrets    store.Secrets
	Keys       []audit.Key      // of all audit secrets
	Live       *store.Store     // the database that was live last, if it can be opened; nil: it can't
	By         store.By         // who restores
	Log        *slog.Logger     //
	Now        func() time.Time // required

	// Custody gives what watches the audit log of a store; of nil, what only asks the anchors.
	Custody func(s *store.Store) *custody.Custody

	KnownHead          string   // row_hmac of an entry that the archive must hold; "": none
	Tampered           bool     // accept an archive whose content is not right
	Unsigned           bool     // accept an archive whose signature no key at hand proves
	WithoutGenerations []string // whose revocations and erasures are left out, such as a drill's

	// Progress is told of bytes of the archive that were verified, and then of those that were restored.
	Progress func(phase string, done, total int64)

	// Step, of a drill, is told what Run begins to do.
	Step func(name string)
}

// Behind is how far the archive is behind what somebody knows.
type Behind struct {
	Of      string     `json:"of"` // the live database, or an anchor
	Entries int64      `json:"entries"`
	Seconds int64      `json:"seconds"`
	Time    store.Time `json:"time"`

	head audit.Row
	root string
}

// RestorePlan is what a restore would do.
type RestorePlan struct {
	Archive  Report         `json:"archive"`
	Target   string         `json:"target"`
	Note     string         `json:"note,omitempty"` // what happens there first
	Schema   int64          `json:"schema"`         // that the rows are brought to
	Migrates bool           `json:"migrates"`
	Anchors  int            `json:"anchors"` // that can tell what came after the backup
	Behind   []Behind       `json:"behind"`
	Gone     []custody.Gone `json:"gone"`
	Prune    int64          `json:"prune_through,omitempty"` // the last entry of a prune of the audit log to run again; 0: none
	Warnings []string       `json:"warnings"`
}

// Restore is a restore that was planned.
type Restore struct {
	Plan RestorePlan

	o       RestoreOptions
	archive *Archive
	done    func()
	known   custody.Known

	accepted []string // in what it is not right
}

// Restored is what a restore did.
type Restored struct {
	Backup     string     `json:"backup_id"`
	Generation string     `json:"generation"`
	Rows       int64      `json:"rows"`
	From       store.Time `json:"snapshot_at"`
	Seconds    float64    `json:"seconds"`
	Suspended  bool       `json:"api_keys_suspended"`

	LookAt  *store.Admitted `json:"look_at"` // who gets in; null: an anchor tells who was revoked
	Revoked int             `json:"revoked_again"`
	Erased  int             `json:"erased_again"`
}

// PlanRestore verifies the archive, looks at the target and asks everybody who knows more than the archive. It changes
// nothing but for a mark that keeps prunes from the archive. The Restore has to be closed.
func PlanRestore(ctx context.Context, o RestoreOptions) (_ *Restore, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Restore{o: o, done: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("plan the restore: %w", err), r.Close())
		}
	}()
	if r.archive, err = Open(ctx, o.From, o.Name, ReadOptions{Identities: o.Identities, Keys: o.Keys, Unsigned: o.Unsigned}); err != nil {
		return nil, err
	}
	r.done = Reading(ctx, o.From, o.Name)
	m := &r.archive.Manifest
	r.Plan = RestorePlan{Schema: store.NewestSchema(), Migrates: m.Schema < store.NewestSchema(), Warnings: []string{}, Behind: []Behind{}, Gone: []custody.Gone{}}
	if m.Schema > r.Plan.Schema {
		return nil, fmt.Errorf("%w: the archive's schema is number %d and this program knows up to %d; install the newer z4j-brain (the archive is of %s)",
			store.ErrFutureSchema, m.Schema, r.Plan.Schema, m.Application)
	}
	raw := int64(0)
	for _, t := range m.Tables {
		raw += t.Bytes
	}
	if r.Plan.Note, err = store.CheckTarget(ctx, o.Into, raw); err != nil {
		return nil, err
	}
	if err := r.checkMaster(m); err != nil {
		return nil, err
	}
	if r.Plan.Archive, err = r.archive.Verify(ctx, o.Keys, r.progress("verified")); err != nil {
		return nil, err
	}
	if err := r.judge(ctx); err != nil {
		return nil, err
	}
	return r, r.compare(ctx, m)
}

// Close gives up the archive.
func (r *Restore) Close() error {
	r.done()
	r.done = func() {}
	if r.archive == nil {
		return nil
	}
	return r.archive.Close()
}

func (r *Restore) progress(phase string) func(done, total int64) {
	if r.o.Progress == nil {
		return nil
	}
	return func(done, total int64) { r.o.Progress(phase, done, total) }
}

func (r *Restore) warn(format string, args ...any) {
	r.Plan.Warnings = append(r.Plan.Warnings, fmt.Sprintf(format, args...))
}

// checkMaster refuses an archive of another Z4J_SECRET: what it holds would be of no use.
func (r *Restore) checkMaster(m *Manifest) error {
	if m.Keys.Master == "" {
		return nil
	}
	ok, err := r.o.Secrets.Opens(m.Keys.Master)
	if err == nil && !ok {
		err = fmt.Errorf("%w: Z4J_SECRET is not the one of this backup (key id %s): take it from where the secrets are kept", ErrNoKey, m.Keys.Master)
	}
	return err
}

// judge decides about what the verification found.
func (r *Restore) judge(ctx context.Context) error {
	report := &r.Plan.Archive
	m := &report.Manifest
	if fault := report.Fault(); fault != "" {
		if err := r.wrong(fault); err != nil {
			return err
		}
		r.warn("what it holds is not right, which was accepted: %s", fault)
	}
	if report.Audit.Exit() == audit.ExitUnprovable {
		for _, u := range report.Audit.Unprovable {
			if u.To >= m.Audit.Size {
				return fmt.Errorf("%w: its newest audit entry is signed with an audit secret that is not at hand (it needs key ids %s): give them in Z4J_AUDIT_SECRET and Z4J_AUDIT_SECRETS_PREVIOUS",
					ErrNoKey, strings.Join(m.Keys.Audit, ", "))
			}
		}
		r.warn("not all of its audit log can be proved: an audit secret is missing")
	}
	if !report.Signed {
		r.warn("its signature is proved by no key at hand (key id %s), which was accepted", report.KID)
	}
	if m.Hold != nil {
		r.warn("the history was in doubt when it was made (since %s: %s): it may hold less than there was", m.Hold.Since, m.Hold.Reason)
	}
	if len(m.Without) > 0 {
		r.warn("it was made without the rows of %s", strings.Join(m.Without, ", "))
	}
	if r.o.KnownHead == "" || r.o.KnownHead == m.Audit.RowHMAC {
		return nil
	}
	return r.findHead(ctx)
}

// wrong refuses what is not right, or notes that it was accepted.
func (r *Restore) wrong(fault string) error {
	if !r.o.Tampered {
		return fmt.Errorf("%w: %s. If there is no better one, --accept-tampered restores it as it is, which is recorded", ErrTampered, fault)
	}
	r.accepted = append(r.accepted, fault)
	return nil
}

func firstFault(r *audit.Report) string {
	if r.First == nil {
		return "it contradicts what was signed"
	}
	return fmt.Sprintf("row %d is %s (%s)", r.First.Seq, r.First.Class, r.First.Why)
}

// findHead looks for the entry that the operator knows.
func (r *Restore) findHead(ctx context.Context) error {
	found := false
	err := r.archive.Read(ctx, 1, func(c store.Chunk) error {
		if c.Table != logTable {
			return nil
		}
		rows, err := store.DecodeAudit(c.Raw)
		found = found || slices.ContainsFunc(rows, func(row audit.Row) bool { return row.RowHMAC == r.o.KnownHead })
		return err
	})
	if err == nil && !found {
		err = fmt.Errorf("%w: %s is not among its %d entries: it is older than that, or of another history", ErrUnknownHead, r.o.KnownHead, r.archive.Manifest.Audit.Size)
	}
	return err
}

// compare finds out what the live database and the anchors know that the archive lacks.
func (r *Restore) compare(ctx context.Context, m *Manifest) (err error) {
	if r.o.Live != nil {
		r.askLive(ctx, m)
	}
	watch := r.o.Custody(nil)
	if r.known, err = watch.Known(ctx, m.Instance); err != nil {
		return err
	}
	for _, t := range watch.Troubles() {
		r.warn("anchor %s", t.String())
	}
	if r.Plan.Anchors = r.known.Tell(m.Generation, m.Audit.Size); r.Plan.Anchors == 0 {
		r.warn("no readable anchor knows what came after the backup: nobody can tell what was revoked since. API keys are suspended until " +
			"`z4j-brain restore release --keys`; look through users, memberships and agents")
	}
	branch := r.known.Branch(m.Generation)
	for _, w := range r.known.Newest {
		if _, ok := branch[w.Generation]; ok {
			r.behind("anchor "+w.Where, audit.Row{Seq: w.Size, RowHMAC: w.RowHMAC, TS: w.Time}, fmt.Sprintf("%x", w.Root))
		}
	}
	r.Plan.Gone = r.known.GoneBehind(m.Generation, m.Audit.Size, r.o.WithoutGenerations)
	r.Plan.Prune = custody.PruneAgain(r.Plan.Gone, m.Audit.Size, m.Audit.Boundary)
	if from := r.Plan.Archive.Audit.From; r.Plan.Prune == 0 && from > 0 && from <= m.Audit.Boundary { // it was not finished
		r.Plan.Prune = m.Audit.Boundary
	}
	return nil
}

// askLive compares the archive with the live database, if both are of one installation: numbers of another's entries tell
// nothing.
func (r *Restore) askLive(ctx context.Context, m *Manifest) {
	instance, err := r.o.Live.Instance(ctx)
	if err != nil {
		r.warn("the live database can't be asked: %v", err)
		return
	}
	head, err := r.o.Live.AuditHead(ctx)
	switch {
	case err != nil:
		r.warn("the live database can't be asked: %v", err)
	case head.Seq == 0:
	case instance != m.Instance:
		r.warn("the live database is of another installation, %s, and the archive of %s: how far behind it is, only anchors can tell", instance, m.Instance)
	default:
		r.behind("the live database", head, "")
	}
}

func (r *Restore) behind(of string, head audit.Row, root string) {
	m := &r.archive.Manifest.Audit
	r.Plan.Behind = append(r.Plan.Behind, Behind{
		Of: of, Entries: max(0, head.Seq-m.Size), Seconds: max(0, (head.TS-m.At.UnixMicro())/1e6), Time: store.TimeAt(head.TS), head: head, root: root,
	})
}
