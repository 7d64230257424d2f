package store

import "context"

func (s *Store) describePostgres(ctx context.Context, d *Database) error {
	return s.read.QueryRowContext(ctx, `SELECT current_setting('server_version'), pg_database_size(current_database()),
		(SELECT count(*) FROM pg_stat_activity WHERE datname = current_database())`).Scan(&d.Version, &d.Bytes, &d.Connections)
}
