package store

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

//go:embed migrations/postgres/*.sql migrations/sqlite/*.sql
var migrations embed.FS

const (
	versionTable  = "schema_migrations"
	migrationLock = 0x7a346a // advisory lock key: "z4j"
)

// ErrOldSchema says that the database has to be migrated first.
var ErrOldSchema = errors.New("the schema is older than this z4j-brain: run `z4j-brain migrate upgrade`")

// prepare asks for the secrets, migrates, and checks the fingerprint, all under one lock.
func (s *Store) prepare(ctx context.Context, o Options) (err error) {
	release, err := s.lockMigrations(ctx)
	if err != nil {
		return fmt.Errorf("lock for migration: %w", err)
	}
	defer func() { err = errors.Join(err, release()) }()

	have, err := s.hasTable(ctx, versionTable)
	if err != nil {
		return err
	}
	p, err := s.provider()
	if err != nil {
		return err
	}
	if !o.restoring {
		if err := s.refuseHalfRestored(ctx); err != nil {
			return err
		}
	}
	if !have && !o.Migrate {
		return ErrNoSchema
	}
	if have {
		if err := refuseFuture(ctx, p); err != nil {
			return err
		}
	}
	var secrets Secrets
	if o.Secrets != nil {
		if secrets, err = o.Secrets(ctx, !have); err != nil {
			return err
		}
	}
	if have {
		if err := s.checkFingerprint(ctx, secrets); err != nil {
			return err
		}
	}
	var news startNews
	if o.Migrate {
		if news, err = s.startNews(ctx, p, have, secrets); err != nil {
			return err
		}
		if _, err := p.Up(ctx); err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		if s.pool != nil {
			if err := s.EnsurePartitions(ctx, s.now(), 8); err != nil {
				return err
			}
		}
		if len(secrets.Master) > 0 {
			if err := s.putFingerprint(ctx, secrets.Master); err != nil {
				return err
			}
		}
	} else if pending, err := p.HasPending(ctx); err != nil || pending {
		return errors.Join(err, ErrOldSchema)
	}
	if err := s.startChain(ctx, secrets, o.Migrate); err != nil {
		return err
	}
	if !o.restoring {
		s.recordNews(ctx, news)
	}
	return nil
}

func (s *Store) provider() (*goose.Provider, error) {
	dir, err := fs.Sub(migrations, "migrations/"+s.dialect.name)
	if err != nil {
		return nil, err
	}
	d := goose.DialectPostgres
	if s.pool == nil {
		d = goose.DialectSQLite3
	}
	versions, err := database.NewStore(d, versionTable)
	if err != nil {
		return nil, err
	}
	return goose.NewProvider("", s.write, dir, goose.WithStore(versions), goose.WithDisableGlobalRegistry(true))
}

func refuseFuture(ctx context.Context, p *goose.Provider) error {
	have, err := p.GetDBVersion(ctx)
	if err != nil {
		return err
	}
	sources := p.ListSources()
	if known := sources[len(sources)-1].Version; have > known {
		return fmt.Errorf("%w: its schema is number %d and this program knows up to %d; install the newer z4j-brain again, or restore a backup from before the upgrade",
			ErrFutureSchema, have, known)
	}
	return nil
}

// SchemaVersion returns the number of the newest migration that the database has, and of the newest that this program knows.
func (s *Store) SchemaVersion(ctx context.Context) (have, known int64, err error) {
	p, err := s.provider()
	if err != nil {
		return 0, 0, err
	}
	sources := p.ListSources()
	have, err = p.GetDBVersion(ctx)
	return have, sources[len(sources)-1].Version, wrap("schema version", err)
}

func (s *Store) hasTable(ctx context.Context, name string) (bool, error) {
	q := `SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1`
	if s.pool != nil {
		q = `SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = $1`
	}
	var n int
	err := s.write.QueryRowContext(ctx, q, name).Scan(&n)
	return n > 0, wrap("look for "+name, err)
}

// lockMigrations waits until no other process prepares this database.
func (s *Store) lockMigrations(ctx context.Context) (release func() error, err error) {
	if s.pool == nil {
		return lockSQLite(s.path)
	}
	conn, err := s.read.Conn(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.ExecContext(ctx, `SET lock_timeout = '600s'`); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if _, err := conn.ExecContext(ctx, `SET statement_timeout = '600s'`); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock($1, hashtext(current_schema()))`, migrationLock); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return func() error { return unlockPostgres(context.WithoutCancel(ctx), conn) }, nil
}

func unlockPostgres(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, `SELECT pg_advisory_unlock($1, hashtext(current_schema()))`, migrationLock)
	for _, reset := range []string{`SET lock_timeout = ` + lockTimeout, `SET statement_timeout = ` + statementTimeout} {
		_, e := conn.ExecContext(ctx, reset)
		err = errors.Join(err, e)
	}
	return errors.Join(err, conn.Close())
}

// fingerprint tells one master secret from another and gives nothing of it away.
func fingerprint(secret []byte) (string, error) {
	sum, err := hkdf.Key(sha256.New, secret, nil, "z4j-secret-fingerprint", 16)
	return hex.EncodeToString(sum), err
}

const fingerprintKey = "secret_fingerprint"

func (s *Store) checkFingerprint(ctx context.Context, secrets Secrets) error {
	if len(secrets.Master) == 0 {
		return nil
	}
	want, err := s.Meta(ctx, fingerprintKey)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if ok, err := secrets.Opens(want); err != nil || ok {
		return err
	}
	return fmt.Errorf("%w: give the Z4J_SECRET that it was made with, or, to rotate, name that one in Z4J_PREVIOUS_SECRETS", ErrForeignSecret)
}

func (s *Store) putFingerprint(ctx context.Context, secret []byte) error {
	sum, err := fingerprint(secret)
	if err != nil {
		return err
	}
	return s.PutMeta(ctx, fingerprintKey, sum)
}

// Meta returns the installation's value for key, or ErrNotFound.
func (s *Store) Meta(ctx context.Context, key string) (value string, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT value FROM meta WHERE key = $1`, key).Scan(&value)
	return value, wrap("meta "+key, err)
}

// PutMeta stores the installation's value for key.
func (s *Store) PutMeta(ctx context.Context, key, value string) error {
	_, err := s.write.ExecContext(ctx, `
		INSERT INTO meta (key, value, updated_at) VALUES ($1, $2, $3)
		ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at
		WHERE meta.value <> excluded.value`, key, value, TimeOf(s.now()))
	return wrap("put meta "+key, err)
}

// Opens reports whether the fingerprint of a database is that of one of the master secrets.
func (s Secrets) Opens(of string) (bool, error) {
	for _, secret := range append([][]byte{s.Master}, s.PreviousMasters...) {
		have, err := fingerprint(secret)
		if err != nil {
			return false, err
		}
		if len(secret) > 0 && subtle.ConstantTimeCompare([]byte(have), []byte(of)) == 1 {
			return true, nil
		}
	}
	return false, nil
}

// NewestSchema is the number of the newest migration that this program knows.
func NewestSchema() int64 { return newestSchema() }
