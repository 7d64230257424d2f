package store

import (
	"context"
)

// Lease gives holder the lease called name until the given time and reports whether it has it. A holder may renew;
// another one gets it only after it ended.
func (s *Store) Lease(ctx context.Context, name, holder string, now, until Time) (bool, error) {
	res, err := s.write.ExecContext(ctx, `
		INSERT INTO leases (name, holder, until) VALUES ($1, $2, $3)
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
		WHERE leases.holder = excluded.holder OR leases.until < $4`,
		name, holder, until, now)
	if err != nil {
		return false, wrap("lease "+name, err)
	}
	n, err := res.RowsAffected()
	return n == 1, wrap("lease "+name, err)
}

// ReleaseLease gives the lease back before its end, so that another holder need not wait.
func (s *Store) ReleaseLease(ctx context.Context, name, holder string) error {
	_, err := s.write.ExecContext(ctx, `DELETE FROM leases WHERE name = $1 AND holder = $2`, name, holder)
	return wrap("release lease "+name, err)
}
