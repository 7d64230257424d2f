package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/store"
)

// Backups makes backups; a *backup.Brain does.
type Backups interface {
	Status(ctx context.Context) (backup.Standing, error)
	Begin(ctx context.Context, actor audit.Actor) (id string, err error)
	Late() bool
	DrillLate() bool
}

type backupPage struct {
	Status backup.Standing `json:"status"`
	store.Slice[backup.Record]
}

// listBackups says how backups stand, and what the audit log knows of them.
func (s *Server) listBackups(ctx context.Context, in *struct{ PageQuery }) (*reply[backupPage], error) {
	now, err := s.Backups.Status(ctx)
	if err != nil {
		return nil, err
	}
	page, err := backup.Page(ctx, s.Store, in.page())
	return &reply[backupPage]{backupPage{now, page}}, pageError(err)
}

type begunBackup struct {
	Status int
	Body   struct {
		ID string `json:"id" doc:"of the backup that is being made; its entry in the list comes when it is made or has failed"`
	}
}

// startBackup begins a backup and does not wait for it.
func (s *Server) startBackup(ctx context.Context, _ *struct{}) (*begunBackup, error) {
	id, err := s.Backups.Begin(ctx, byCaller(ctx).Actor)
	if errors.Is(err, backup.ErrBusy) {
		return nil, &problem{status: http.StatusConflict, code: "backup_running", message: err.Error()}
	}
	out := &begunBackup{Status: http.StatusAccepted}
	out.Body.ID = id
	return out, err
}
