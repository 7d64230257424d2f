package store_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/ncruces/go-sqlite3"

	"github.com/z4j-go/z4j/internal/store"
)

func TestUnavailable(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want bool
	}{
		{"nothing", nil, false},
		{"a row that is not there", store.ErrNotFound, false},
		{"a broken rule", &pgconn.PgError{Code: "23505"}, false},
		{"a typo of ours", &pgconn.PgError{Code: "42703"}, false},
		{"Postgres stops", &pgconn.PgError{Code: "57P01"}, true},
		{"Postgres starts", &pgconn.PgError{Code: "57P03"}, true},
		{"too many connections", &pgconn.PgError{Code: "53300"}, true},
		{"a standby", &pgconn.PgError{Code: "25006"}, true},
		{"a statement took too long", &pgconn.PgError{Code: "57014"}, true},
		{"nobody listens", &net.OpError{Op: "dial", Err: errors.New("refused")}, true},
		{"a broken connection", driver.ErrBadConn, true},
		{"a connection that was cut", io.ErrUnexpectedEOF, true},
		{"no time left", context.DeadlineExceeded, true},
		{"the client went away", context.Canceled, false},
		{"SQLite waits in vain", sqlite3.BUSY, true},
		{"the disk is full", sqlite3.FULL, true},
		{"a broken rule of SQLite's", sqlite3.CONSTRAINT_UNIQUE, false},
	} {
		err := tt.err
		if err != nil {
			err = fmt.Errorf("read tasks: %w", err)
		}
		if got := store.Unavailable(err); got != tt.want {
			t.Errorf("%s: got %t, want %t", tt.name, got, tt.want)
		}
	}
}
