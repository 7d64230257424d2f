package store

import "context"

func (s *Store) describeSQLite(ctx context.Context, d *Database) error {
	return s.read.QueryRowContext(ctx, `SELECT sqlite_version(), page_count * page_size FROM pragma_page_count(), pragma_page_size()`).
		Scan(&d.Version, &d.Bytes)
}
