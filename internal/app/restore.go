package app

import (
	"log/slog"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
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
	if !custody.Owns(c.General.Home, c.Database.URL.Path()) {
		RestoreBeside(&o, c)
		return o, nil
	}
	o.Custody = func(s *store.Store) *custody.Custody {
		if s != nil {
			return Custody(c, s, log, now)
		}
		return reader(c, nil, o.Keys, log, now)
	}
	return o, nil
}

// RestoreBeside lets a restore leave the home of another database alone: the home goes on to know that one, and the
// restored one is known there when a brain is started on it.
func RestoreBeside(o *backup.RestoreOptions, c *config.Config) {
	keys, log, now := o.Keys, o.Log, o.Now
	o.Custody = func(s *store.Store) *custody.Custody {
		r := readOnly(c, s, keys, log, now)
		r.Beside = s != nil
		return custody.New(r)
	}
}

// reader asks the anchors of c and writes nothing.
func reader(c *config.Config, s *store.Store, keys []audit.Key, log *slog.Logger, now func() time.Time) *custody.Custody {
	return custody.New(readOnly(c, s, keys, log, now))
}

func readOnly(c *config.Config, s *store.Store, keys []audit.Key, log *slog.Logger, now func() time.Time) custody.Options {
	return custody.Options{
		Store: s, Keys: keys, Log: log, Now: now, Home: c.General.Home, Anchors: c.Audit.Anchors, Target: TargetOptions(c), ReadOnly: true,
	}
}
