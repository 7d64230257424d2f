package store

import (
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

const timeLayout = "2006-01-02T15:04:05.000000Z"

// Time is an instant in UTC to the microsecond: timestamptz on Postgres, an integer of µs on SQLite,
// `2026-03-14T09:26:53.589793Z` in JSON.
type Time struct{ time.Time }

// TimeOf cuts t to the microsecond.
func TimeOf(t time.Time) Time { return Time{t.UTC().Truncate(time.Microsecond)} }

// TimeAt is the instant micros µs after the epoch.
func TimeAt(micros int64) Time { return Time{time.UnixMicro(micros).UTC()} }

// TimeAtOrNil is TimeAt with nil for 0, which stands for "unknown".
func TimeAtOrNil(micros int64) *Time {
	if micros == 0 {
		return nil
	}
	t := TimeAt(micros)
	return &t
}

// Micros returns the µs since the epoch; 0 for nil.
func (t *Time) Micros() int64 {
	if t == nil {
		return 0
	}
	return t.UnixMicro()
}

// String gives the JSON form without quotes.
func (t Time) String() string { return t.UTC().Format(timeLayout) }

// MarshalJSON writes the time with six digits and Z, whatever the database.
func (t Time) MarshalJSON() ([]byte, error) { return []byte(`"` + t.String() + `"`), nil }

// UnmarshalJSON reads RFC 3339.
func (t *Time) UnmarshalJSON(b []byte) error {
	var v time.Time
	if err := v.UnmarshalJSON(b); err != nil {
		return err
	}
	*t = TimeOf(v)
	return nil
}

// Value gives SQLite its integer.
func (t Time) Value() (driver.Value, error) { return t.UnixMicro(), nil }

// TimestamptzValue gives Postgres its timestamptz.
func (t Time) TimestamptzValue() (pgtype.Timestamptz, error) {
	return pgtype.Timestamptz{Time: t.Time, Valid: true}, nil
}

// Scan reads what either database gives.
func (t *Time) Scan(src any) error {
	switch v := src.(type) {
	case int64:
		*t = TimeAt(v)
	case time.Time:
		*t = TimeOf(v)
	case nil:
		*t = Time{}
	default:
		return fmt.Errorf("store: cannot read a time from %T", src)
	}
	return nil
}
