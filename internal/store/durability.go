package store

import (
	"context"
	"strconv"
	"time"
)

// Durability is what the database promises for what was committed, as far as it tells.
type Durability struct {
	Backend string `json:"backend"` // postgres, sqlite
	Version int    `json:"version"` // of Postgres: 150004 is 15.4; of SQLite 0

	Flushed    bool `json:"flushed"`          // a commit is on the disk before it is answered
	WholePages bool `json:"full_page_writes"` // a page half written in a power cut is mended; SQLite's WAL always does
	Checksums  bool `json:"checksums"`        // a page that the disk changed is noticed; SQLite has none

	Superuser   bool `json:"superuser"`    // the brain's role is above every rule of Postgres
	OwnsTables  bool `json:"owns_tables"`  // the brain's role may drop the triggers of the audit log
	ArchivesWAL bool `json:"archives_wal"` // every finished WAL segment is copied away, so a point in time can be restored

	ArchiveTimeout time.Duration `json:"archive_timeout"` // 0: a segment is finished only when it is full
	LastArchived   *Time         `json:"last_archived"`
	ArchiveFailed  *Time         `json:"archive_failed"` // the last failure, if it came after the last success
}

// Durability asks the database.
func (s *Store) Durability(ctx context.Context) (Durability, error) {
	if s.pool == nil {
		return s.durabilitySQLite(ctx)
	}
	return s.durabilityPostgres(ctx)
}

func (s *Store) durabilitySQLite(ctx context.Context) (Durability, error) {
	d := Durability{Backend: sqliteDialect.name, WholePages: true, OwnsTables: true}
	var synchronous int
	err := s.write.QueryRowContext(ctx, `PRAGMA synchronous`).Scan(&synchronous)
	d.Flushed = synchronous >= 2
	return d, wrap("durability", err)
}

func (s *Store) durabilityPostgres(ctx context.Context) (Durability, error) {
	d := Durability{Backend: postgresDialect.name}
	rows, err := s.write.QueryContext(ctx, `SELECT name, setting FROM pg_settings
		WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit', 'archive_mode', 'archive_timeout', 'data_checksums', 'server_version_num')`)
	type setting struct{ name, value string }
	settings, err := collect(rows, err, func(x *setting) []any { return []any{&x.name, &x.value} })
	if err != nil {
		return d, wrap("durability", err)
	}
	is := map[string]string{}
	for _, x := range settings {
		is[x.name] = x.value
	}
	d.Flushed = is["fsync"] == "on" && is["synchronous_commit"] != "off"
	d.WholePages = is["full_page_writes"] == "on"
	d.Checksums = is["data_checksums"] == "on"
	d.ArchivesWAL = is["archive_mode"] == "on" || is["archive_mode"] == "always"
	d.Version, _ = strconv.Atoi(is["server_version_num"]) // what is none is version 0: unknown
	if seconds, err := strconv.Atoi(is["archive_timeout"]); err == nil {
		d.ArchiveTimeout = time.Duration(seconds) * time.Second
	}
	err = s.read.QueryRowContext(ctx, `SELECT
		coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = current_user), false),
		coalesce((SELECT tableowner = current_user FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'audit_log'), false),
		(SELECT last_archived_time FROM pg_stat_archiver),
		(SELECT last_failed_time FROM pg_stat_archiver WHERE last_failed_time > coalesce(last_archived_time, '-infinity'))`).
		Scan(&d.Superuser, &d.OwnsTables, &d.LastArchived, &d.ArchiveFailed)
	return d, wrap("durability", err)
}

// Gaps says what an installation still lacks to be of use.
type Gaps struct {
	Accounts      int64    `json:"accounts"`
	ProjectsEmpty []string `json:"projects_without_agent"` // slugs, at most 20
	NoMembers     []string `json:"accounts_without_project"`
	SigningKeys   int64    `json:"signing_keys"` // audit keys that were introduced and not retired
}

// Gaps looks for accounts and projects that can't do anything.
func (s *Store) Gaps(ctx context.Context) (Gaps, error) {
	var g Gaps
	err := s.read.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM audit_kids WHERE retired IS NULL)`).Scan(&g.Accounts, &g.SigningKeys)
	if err != nil {
		return g, wrap("gaps", err)
	}
	list := func(query string) (out []string, err error) {
		rows, err := s.read.QueryContext(ctx, query)
		return collect(rows, err, func(s *string) []any { return []any{s} })
	}
	if g.ProjectsEmpty, err = list(`SELECT slug FROM projects WHERE is_active AND NOT EXISTS (SELECT 1 FROM agents WHERE project_id = projects.id AND revoked_at IS NULL) ORDER BY slug LIMIT 20`); err != nil {
		return g, wrap("gaps", err)
	}
	g.NoMembers, err = list(`SELECT email FROM users WHERE is_active AND NOT is_admin AND NOT EXISTS (SELECT 1 FROM memberships WHERE user_id = users.id) ORDER BY email LIMIT 20`)
	return g, wrap("gaps", err)
}
