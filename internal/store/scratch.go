package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	scratchPrefix = "z4j_drill_" // then the second in which it was made, and something random
	scratchYoung  = time.Minute  // who made one this long ago may not have connected to it yet
)

// NewScratch makes an empty database on the Postgres server of address, and takes away those that killed drills left
// there. Its drop takes it away, whoever is connected to it.
func NewScratch(ctx context.Context, address string, now time.Time) (scratch string, drop func(context.Context) error, err error) {
	c, err := pgx.ParseConfig(address)
	if err != nil {
		return "", nil, errors.New("the Postgres URL cannot be read") // the driver's error quotes the URL, password included
	}
	name := scratchPrefix + strconv.FormatInt(now.Unix(), 10) + "_" + strings.ToLower(rand.Text()[:10])
	if scratch, err = otherDatabase(address, name); err != nil {
		return "", nil, err
	}
	server, err := ownConn(ctx, c, "z4j-brain drill", loadLockWait)
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, server.Close(context.WithoutCancel(ctx))) }()
	if err := sweepScratches(ctx, server, now); err != nil {
		return "", nil, err
	}
	if _, err := server.Exec(ctx, `CREATE DATABASE `+quoted(name)+` TEMPLATE template0 ENCODING 'UTF8'`); err != nil {
		return "", nil, fmt.Errorf("make a scratch database: %w; run as a superuser: ALTER ROLE %s CREATEDB, or leave out --into for a SQLite file", err, quoted(c.User))
	}
	own, err := pgx.ParseConfig(scratch)
	if err != nil {
		return "", nil, errors.New("the Postgres URL cannot be read") // as above
	}
	presence, err := ownConn(ctx, own, "z4j-brain drill", loadLockWait) // as long as it is there, no other drill sweeps the database
	drop = func(ctx context.Context) error { return dropScratch(ctx, c, presence, name) }
	if err != nil {
		return "", nil, errors.Join(err, drop(context.WithoutCancel(ctx)))
	}
	return scratch, drop, nil
}

// otherDatabase is address with another database.
func otherDatabase(address, name string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", errors.New("the Postgres URL cannot be read") // as above
	}
	u.Path, u.RawPath = "/"+name, ""
	q := u.Query()
	q.Del("search_path") // of the other database
	u.RawQuery = q.Encode()
	return u.String(), nil
}

func dropScratch(ctx context.Context, c *pgx.ConnConfig, presence *pgx.Conn, name string) error {
	var errs []error
	if presence != nil {
		errs = append(errs, presence.Close(ctx))
	}
	server, err := ownConn(ctx, c, "z4j-brain drill", loadLockWait)
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("drop the scratch database %s: %w", name, err))...)
	}
	if _, err := server.Exec(ctx, `DROP DATABASE IF EXISTS `+quoted(name)+` WITH (FORCE)`); err != nil {
		errs = append(errs, fmt.Errorf("drop the scratch database %s: %w", name, err))
	}
	return errors.Join(append(errs, server.Close(ctx))...)
}

// sweepScratches drops the scratch databases that nobody is connected to.
func sweepScratches(ctx context.Context, server *pgx.Conn, now time.Time) error {
	rows, err := server.Query(ctx, `SELECT d.datname FROM pg_database d WHERE d.datname LIKE $1 AND d.datdba = (SELECT oid FROM pg_roles WHERE rolname = current_user)
		AND NOT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.datid = d.oid)`, strings.ReplaceAll(scratchPrefix, "_", `\_`)+"%")
	if err != nil {
		return fmt.Errorf("look for scratch databases of earlier drills: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for scratch databases of earlier drills: %w", err)
	}
	for _, name := range names {
		second, _, _ := strings.Cut(strings.TrimPrefix(name, scratchPrefix), "_")
		if made, err := strconv.ParseInt(second, 10, 64); err != nil || now.Sub(time.Unix(made, 0)) < scratchYoung {
			continue
		}
		_, err := server.Exec(ctx, `DROP DATABASE IF EXISTS `+quoted(name))
		var pg *pgconn.PgError
		if errors.As(err, &pg) && (pg.Code == "55006" || pg.Code == "3D000") { // somebody came, or was faster
			continue
		}
		if err != nil {
			return fmt.Errorf("drop the scratch database %s of an earlier drill: %w", name, err)
		}
	}
	return nil
}
