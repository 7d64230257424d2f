package store

import (
	"context"
	"errors"
	"time"
)

// brainLease begins the name of the lease that each running brain holds, so that nothing is done to the database under it.
const brainLease = "brain/"

// BrainTerm is how long a brain that died counts as running: three renewals that a busy machine may miss.
const BrainTerm = 30 * time.Second

// KeepAlive says that the brain called holder runs, until BrainTerm from now. A third of that is time enough to say it again.
func (s *Store) KeepAlive(ctx context.Context, holder string) error {
	if s.pool == nil {
		if err := s.live.hold(s.path + liveSuffix); err != nil {
			return wrap("keep alive", err)
		}
	}
	now := s.now()
	_, err := s.Lease(ctx, brainLease+holder, holder, TimeOf(now), TimeOf(now.Add(BrainTerm)))
	return err
}

// Leave says that the brain called holder runs no more.
func (s *Store) Leave(ctx context.Context, holder string) error {
	return errors.Join(s.live.release(), s.ReleaseLease(ctx, brainLease+holder, holder))
}

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
