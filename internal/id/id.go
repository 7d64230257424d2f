// Package id makes and reads the identifiers of everything the brain stores.
package id

import (
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // UUIDv5 is defined over SHA-1 (RFC 9562 §5.5); nothing secret depends on it.
	"database/sql/driver"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// ID is a UUID (RFC 9562). The zero ID stands for "none".
type ID [16]byte

// ErrSyntax says that a text is not a UUID in the lower-case hyphenated form.
var ErrSyntax = errors.New("not a UUID")

// New returns a UUIDv7 whose time is t, in milliseconds with twelve more bits of its microseconds.
func New(t time.Time) ID {
	return At(t.UnixMicro())
}

// At is New for a time in µs since the epoch.
func At(micros int64) ID {
	var random [10]byte
	if _, err := rand.Read(random[:]); err != nil {
		panic(err) // crypto/rand never fails on the systems we run on
	}
	return With(micros, random)
}

// With is At with the random bits of a caller that wants the same id again.
func With(micros int64, random [10]byte) ID {
	var u ID
	copy(u[6:], random[:])
	micros = max(micros, 0)
	ms, rest := uint64(micros/1000), uint64(micros%1000)
	binary.BigEndian.PutUint64(u[:8], ms<<16|0x7000|rest<<2|uint64(u[7]&3))
	u[8] = u[8]&0x3f | 0x80
	return u
}

// Random returns a UUIDv4.
func Random() ID {
	var u ID
	if _, err := rand.Read(u[:]); err != nil {
		panic(err) // crypto/rand never fails on the systems we run on
	}
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return u
}

// Named returns the UUIDv5 of data within space.
func Named(space ID, data []byte) ID {
	h := sha1.New() //nolint:gosec // as above.
	h.Write(space[:])
	h.Write(data)
	var u ID
	copy(u[:], h.Sum(nil))
	u[6] = u[6]&0x0f | 0x50
	u[8] = u[8]&0x3f | 0x80
	return u
}

// Parse reads the hyphenated form, of either case.
func Parse(s string) (ID, error) {
	var u ID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, ErrSyntax
	}
	at := 0
	for i := range 36 {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			continue
		}
		n := nibble(s[i])
		if n < 0 {
			return ID{}, ErrSyntax
		}
		u[at/2] = u[at/2]<<4 | byte(n)
		at++
	}
	return u, nil
}

func nibble(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// IsZero reports whether u is the zero ID.
func (u ID) IsZero() bool { return u == ID{} }

// String returns the lower-case hyphenated form.
func (u ID) String() string {
	var b [36]byte
	hex.Encode(b[:8], u[:4])
	b[8] = '-'
	hex.Encode(b[9:13], u[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], u[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], u[8:10])
	b[23] = '-'
	hex.Encode(b[24:], u[10:])
	return string(b[:])
}

// Micros returns the time of a UUIDv7 made here, in µs since the epoch.
func (u ID) Micros() int64 {
	n := binary.BigEndian.Uint64(u[:8])
	return int64(n>>16)*1000 + int64(n&0xfff)>>2
}

// MarshalText gives the hyphenated form.
func (u ID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads the hyphenated form.
func (u *ID) UnmarshalText(b []byte) error {
	v, err := Parse(string(b))
	if err != nil {
		return err
	}
	*u = v
	return nil
}

// Value gives SQLite the 16 bytes; pgx takes the array itself as a uuid.
func (u ID) Value() (driver.Value, error) { return u[:], nil }

// Scan reads what either database gives: 16 bytes or the hyphenated text.
func (u *ID) Scan(src any) error {
	switch v := src.(type) {
	case []byte:
		if len(v) == 16 {
			copy(u[:], v)
			return nil
		}
		return u.UnmarshalText(v)
	case string:
		return u.UnmarshalText([]byte(v))
	case nil:
		*u = ID{}
		return nil
	}
	return fmt.Errorf("id: cannot read %T", src)
}

// Null is an ID that the zero value stores as NULL.
type Null struct{ ID }

// Value gives NULL for the zero ID.
func (n Null) Value() (driver.Value, error) {
	if n.IsZero() {
		return nil, nil
	}
	return n.ID.Value()
}

// MarshalJSON gives null for the zero ID.
func (n Null) MarshalJSON() ([]byte, error) {
	if n.IsZero() {
		return []byte("null"), nil
	}
	return []byte(`"` + n.String() + `"`), nil
}
