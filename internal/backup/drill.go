package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
)

// Steps of a drill, in order.
const (
	StepFind   = "find"    // the archive
	StepMake   = "scratch" // a place to restore into
	StepVerify = "verify"  // the archive, whole
	StepLoad   = "load"    // rows, counted as the manifest says
	StepIndex  = "index"   // indexes, constraints, rows read back, migration, a write into every table
	StepAudit  = "audit"   // the audit log, against the anchors
	StepDefuse = "defuse"  // what a restore makes void
	StepStart  = "start"   // a brain
	StepLogin  = "login"
	StepHealth = "health"
	StepTasks  = "tasks"
	StepAgents = "agents"
	StepRead   = "read" // a page of everything
	StepWrite  = "write"
	StepStop   = "stop"
	StepRemove = "remove" // the scratch
)

// DrillStep is one step of a drill.
type DrillStep struct {
	Name    string  `json:"step"`
	OK      bool    `json:"ok"`
	Seconds float64 `json:"seconds"`
	Note    string  `json:"note,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// DrillReport is what a drill did and found.
type DrillReport struct {
	OK         bool        `json:"ok"` // every step went well
	FailedStep string      `json:"failed_step,omitempty"`
	Backup     string      `json:"backup_id"`
	Target     string      `json:"target"`
	File       string      `json:"file"`
	Snapshot   *store.Time `json:"snapshot_at"`
	Rows       int64       `json:"rows"`
	Scratch    string      `json:"scratch"` // postgres, sqlite
	Started    store.Time  `json:"started_at"`
	Finished   store.Time  `json:"finished_at"`
	Seconds    float64     `json:"seconds"`
	Restore    float64     `json:"restore_seconds"` // until the brain served
	Age        int64       `json:"backup_age_seconds"`
	RPO        int64       `json:"rpo_seconds"`
	RPOMet     bool        `json:"rpo_met"`
	RTO        int64       `json:"rto_seconds"`
	RTOMet     bool        `json:"rto_met"`
	Steps      []DrillStep `json:"steps"`
	Notes      []string    `json:"notes"`
	Recorded   bool        `json:"recorded"` // in the audit log of the live database
}

// Failed gives the error of the step that failed.
func (r *DrillReport) Failed() error {
	for _, s := range r.Steps {
		if !s.OK {
			return fmt.Errorf("step %s: %s", s.Name, s.Error)
		}
	}
	return nil
}

// RecordDrill writes what a drill found into the audit log of the live database.
func RecordDrill(ctx context.Context, s *store.Store, r *DrillReport, actor audit.Actor) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordIn)
	defer cancel()
	details := map[string]any{
		"backup": r.Backup, "target": r.Target, "file": r.File, "started_at": r.Started.String(), "finished_at": r.Finished.String(),
		"restore_ms": int64(r.Restore * 1e3), "scratch": r.Scratch, "rpo_met": r.RPOMet, "rto_met": r.RTOMet,
	}
	if r.Snapshot != nil {
		details["snapshot_at"] = r.Snapshot.String()
	}
	f := audit.Facts{Action: audit.DrillCompleted, Actor: actor, Target: audit.Target{ID: r.Backup}, Details: details}
	if err := r.Failed(); err != nil {
		reason := err.Error()
		f.Outcome, details["failed_step"], details["reason"] = audit.Failed, r.FailedStep, reason[:min(len(reason), maxReasons)]
	}
	err := s.Update(ctx, func(tx *store.Tx) error {
		tx.Record(audit.New(f))
		return nil
	})
	if err != nil {
		return fmt.Errorf("record the drill: %w", err)
	}
	return nil
}

// DrillRecord is what the audit log says of a drill.
type DrillRecord struct {
	Seq            int64      `json:"audit_seq"`
	OK             bool       `json:"ok"`
	Backup         string     `json:"backup_id"`
	Target         string     `json:"target"`
	File           string     `json:"file"`
	Snapshot       store.Time `json:"snapshot_at"`
	Started        store.Time `json:"started_at"`
	Finished       store.Time `json:"finished_at"`
	RestoreSeconds float64    `json:"restore_seconds" doc:"until the brain served"`
	Scratch        string     `json:"scratch"`
	FailedStep     string     `json:"failed_step"`
	Reason         string     `json:"reason"`
	RPOMet         bool       `json:"rpo_met"`
	RTOMet         bool       `json:"rto_met"`
}

// Took is how long the drill took.
func (r *DrillRecord) Took() time.Duration { return r.Finished.Sub(r.Started.Time) }

// drillDetails are those of the entries.
type drillDetails struct {
	Backup     string     `json:"backup"`
	Target     string     `json:"target"`
	File       string     `json:"file"`
	Snapshot   store.Time `json:"snapshot_at"`
	Started    store.Time `json:"started_at"`
	Finished   store.Time `json:"finished_at"`
	RestoreMS  int64      `json:"restore_ms"`
	Scratch    string     `json:"scratch"`
	FailedStep string     `json:"failed_step"`
	Reason     string     `json:"reason"`
	RPOMet     bool       `json:"rpo_met"`
	RTOMet     bool       `json:"rto_met"`
}

// LastDrill gives the newest drill of which the audit log knows, or the newest good one; store.ErrNotFound if there is none.
func LastDrill(ctx context.Context, s *store.Store, good bool) (DrillRecord, error) {
	f := store.AuditFilter{Action: string(audit.DrillCompleted), Page: store.Page{Limit: 1}}
	if good {
		f.Outcome = string(audit.Allow)
	}
	page, err := s.AuditLog(ctx, f)
	if err != nil {
		return DrillRecord{}, fmt.Errorf("read the history of drills: %w", err)
	}
	if len(page.Items) == 0 {
		return DrillRecord{}, store.ErrNotFound
	}
	e := &page.Items[0]
	var d drillDetails
	_ = json.Unmarshal(e.Details, &d) // an entry that was tampered with tells nothing
	return DrillRecord{
		Seq: e.Seq, OK: e.Outcome == string(audit.Allow), Backup: d.Backup, Target: d.Target, File: d.File, Snapshot: d.Snapshot, Started: d.Started, Finished: d.Finished,
		RestoreSeconds: float64(d.RestoreMS) / 1e3, Scratch: d.Scratch, FailedStep: d.FailedStep, Reason: d.Reason, RPOMet: d.RPOMet, RTOMet: d.RTOMet,
	}, nil
}

// DrillEvery is how old the newest good drill may become.
const DrillEvery = 90 * 24 * time.Hour

// Drills is what a brain does about drills.
type Drills struct {
	Cron     string // as it was written
	Schedule Cron
	RTO      time.Duration
	Run      func(context.Context) (DrillReport, error) // of the newest backup
}

// DrillStanding is how things stand with drills.
type DrillStanding struct {
	Schedule    string       `json:"schedule" doc:"cron expression; empty: none"`
	Next        *store.Time  `json:"next_at" doc:"when the next drill is due"`
	Last        *DrillRecord `json:"last"`
	LastSuccess *DrillRecord `json:"last_success"`
	RTOSeconds  int64        `json:"rto_seconds"`
	Late        bool         `json:"late" doc:"backups are scheduled, and no drill of the last 90 days went well"`
}

// drillStanding says how things stand with drills. scheduled says that backups are.
func (b *Brain) drillStanding(ctx context.Context, scheduled bool) (d DrillStanding, err error) {
	now := b.p.Now()
	d.Schedule, d.RTOSeconds = b.p.Drills.Cron, int64(b.p.Drills.RTO/time.Second)
	if next := b.p.Drills.Schedule.Next(now); !next.IsZero() {
		at := store.TimeOf(next)
		d.Next = &at
	}
	last, err := LastDrill(ctx, b.p.Store, false)
	if errors.Is(err, store.ErrNotFound) {
		return d, b.neverDrilled(ctx, &d, scheduled)
	}
	if err != nil {
		return d, err
	}
	d.Last = &last
	good, err := last, error(nil)
	if !last.OK {
		good, err = LastDrill(ctx, b.p.Store, true)
	}
	if errors.Is(err, store.ErrNotFound) {
		return d, b.neverDrilled(ctx, &d, scheduled)
	}
	if err != nil {
		return d, err
	}
	d.LastSuccess = &good
	d.Late = scheduled && now.Sub(good.Finished.Time) > DrillEvery
	return d, nil
}

// neverDrilled gives an installation as long as there may be between two drills, from its first backup on.
func (b *Brain) neverDrilled(ctx context.Context, d *DrillStanding, scheduled bool) error {
	if !scheduled {
		return nil
	}
	before := store.TimeOf(b.p.Now().Add(-DrillEvery))
	page, err := b.p.Store.AuditLog(ctx, store.AuditFilter{Action: string(audit.BackupCompleted), To: &before, Page: store.Page{Limit: 1}})
	if err != nil {
		return fmt.Errorf("read the history of backups: %w", err)
	}
	d.Late = len(page.Items) > 0
	return nil
}

// drillAgain is the wait after a failed drill that is due: a drill takes long, and what failed is told.
const drillAgain = 6 * time.Hour

// TickDrill drills if that is due. Of several brains one calls it at a time. One that was due before the first backup
// waits for that.
func (b *Brain) TickDrill(ctx context.Context) error {
	now := b.p.Now()
	due := b.p.Drills.Schedule.Last(now)
	if due.IsZero() {
		return nil
	}
	last, err := LastDrill(ctx, b.p.Store, false)
	switch {
	case errors.Is(err, store.ErrNotFound):
		if _, err := newestMade(ctx, b.p.Store, b.counts); err != nil {
			return unlessNone(err)
		}
	case err != nil:
		return err
	case last.OK && !last.Started.Before(due), !last.OK && now.Sub(last.Started.Time) < drillAgain:
		return nil
	}
	r, err := b.p.Drills.Run(ctx)
	if err == nil {
		err = r.Failed()
	}
	if err != nil {
		return fmt.Errorf("scheduled drill: %w", err)
	}
	b.p.Log.InfoContext(ctx, "drill went well", "backup", r.Backup, "seconds", r.Seconds, "restore_seconds", r.Restore, "rpo_met", r.RPOMet, "rto_met", r.RTOMet)
	return nil
}

func unlessNone(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}
