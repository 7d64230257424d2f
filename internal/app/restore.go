package app

import (
	"log/slog"
	"time"

	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/store"
)

// RestoreOptions are those of a restore into the database of c.
func RestoreOptions(c *config.Config, log *slog.Logger, now func() time.Time) (o backup.RestoreOptions, err error) {
	if o.Keys, err = AuditKeys(c); err != nil {
		return o, err
	}
	o.Into, o.Secrets, o.Log, o.Now = c.Database.URL.Reveal(), StoreSecrets(c), log, now
	o.Custody = func(s *store.Store) *custody.Custody {
		if s != nil {
			return Custody(c, s, log, now)
		}
		return custody.New(custody.Options{Keys: o.Keys, Log: log, Now: now, Home: c.General.Home, Anchors: c.Audit.Anchors, ReadOnly: true})
	}
	return o, nil
}
