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

// Lease gives holder the lease called name from now until the given time and reports whether it has it. A holder may renew;
// another one gets it only after it ended. On Postgres only the time between the two counts: when it is the database's
// clock says, since those of its brains differ.
func (s *Store) Lease(ctx context.Context, name, holder string, now, until Time) (bool, error) {
	term := until.Sub(now.Time)
	now, err := s.leaseTime(ctx, s.write, now)
	if err != nil {
		return false, wrap("lease "+name, err)
	}
	until = TimeOf(now.Add(term))
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

// leaseTime is the time by which leases go: the database's, or now where the database has no clock but its host's.
func (s *Store) leaseTime(ctx context.Context, q querier, now Time) (Time, error) {
	if s.pool == nil {
		return now, nil
	}
	rows, err := q.QueryContext(ctx, `SELECT clock_timestamp()`)
	times, err := collect(rows, err, func(t *Time) []any { return []any{t} })
	if err != nil || len(times) == 0 {
		return now, wrap("read the database's clock", err)
	}
	return times[0], nil
}

// ReleaseLease gives the lease back before its end, so that another holder need not wait.
func (s *Store) ReleaseLease(ctx context.Context, name, holder string) error {
	_, err := s.write.ExecContext(ctx, `DELETE FROM leases WHERE name = $1 AND holder = $2`, name, holder)
	return wrap("release lease "+name, err)
}
