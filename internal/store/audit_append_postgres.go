package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	// chainIdle ends a transaction that holds the chain and does nothing: its process hangs, and everybody waits.
	chainIdle = `SET LOCAL idle_in_transaction_session_timeout = '2s'`

	// chainLock is a statement of its own: one that locks and reads would read what stood there before it waited.
	chainLock = `SELECT id FROM audit_lock WHERE id = 1 FOR UPDATE`

	chainTimeline = `substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)`
)

// postgresHead is headText for Postgres with a way to read the timeline.
func postgresHead(timeline string) string {
	return strings.NewReplacer("{clock}", "clock_timestamp()", "{durable}", "current_setting('synchronous_commit')", "{timeline}", timeline).Replace(headText)
}

// lockHeadPostgres locks the chain and reads its head, in one round trip.
func (s *Store) lockHeadPostgres(ctx context.Context, tx *Tx, kid string, seen int64) (h head, err error) {
	var b pgx.Batch
	b.Queue(chainIdle)
	b.Queue(chainLock)
	b.Queue(postgresHead(s.chain.timeline), kid, seen)
	err = tx.pipeline(ctx, &b, func(r pgx.BatchResults) error {
		if _, err := r.Exec(); err != nil {
			return err
		}
		if tag, err := r.Exec(); err != nil || tag.RowsAffected() != 1 {
			return errors.Join(err, noLock(tag.RowsAffected() == 1))
		}
		var ts *Time
		var clock Time
		var durable, timeline string
		err := r.QueryRow().Scan(append([]any{&h.seq, &h.rowHMAC, &ts, &clock, &durable, &timeline}, h.tail()...)...)
		h.ts, h.clock, h.durable = ts.Micros(), clock.UnixMicro(), durable != "off"
		if err == nil {
			h.timeline, err = strconv.ParseInt(timeline, 16, 64)
		}
		return err
	})
	return h, err
}

func noLock(there bool) error {
	if there {
		return nil
	}
	return errors.New("the row of audit_lock is gone")
}

// insertAuditPostgres writes rows in one round trip, and makes sure that each was written: a trigger may eat one.
func (s *Store) insertAuditPostgres(ctx context.Context, tx *Tx, rows []sealed) error {
	var b pgx.Batch
	for i := range rows {
		b.Queue(insertAudit, rows[i].args()...)
		for j := range rows[i].parts {
			b.Queue(insertPersonal, personalArgs(&rows[i].parts[j])...)
		}
	}
	return tx.pipeline(ctx, &b, func(r pgx.BatchResults) error {
		for range b.Len() {
			tag, err := r.Exec()
			if err != nil {
				return err
			}
			if err := inserted(tag.RowsAffected()); err != nil {
				return err
			}
		}
		return nil
	})
}

// pipeline sends b within tx.
func (tx *Tx) pipeline(ctx context.Context, b *pgx.Batch, read func(pgx.BatchResults) error) error {
	return tx.conn.Raw(func(driver any) error {
		conn, ok := driver.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("the driver is %T", driver)
		}
		r := conn.Conn().SendBatch(ctx, b)
		return errors.Join(read(r), r.Close())
	})
}

// findTimeline finds out whether this Postgres tells its timeline: some that only speak its protocol do not.
func (s *Store) findTimeline(ctx context.Context) {
	var timeline string
	if err := s.read.QueryRowContext(ctx, `SELECT `+chainTimeline).Scan(&timeline); err == nil {
		s.chain.timeline = chainTimeline
		return
	}
	s.chain.timeline = "'0'"
}
