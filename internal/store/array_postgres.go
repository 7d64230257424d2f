package store

import (
	"encoding/binary"
	"math"

	"github.com/z4j-go/z4j/internal/id"
)

// Object ids of the element types that ingest sends (pg_type.dat).
const (
	oidBool        = 16
	oidBytea       = 17
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidText        = 25
	oidTimestamptz = 1184
	oidUUID        = 2950
)

// epoch2000 is the zero of Postgres's timestamps, in µs since 1970.
const epoch2000 = 946684800 * 1_000_000

// array builds a one-dimensional array in Postgres's binary form: unnest over such arrays is the fastest way to write
// many rows with one statement (docs/decisions), and this needs no reflection.
type array struct {
	buf   []byte
	n     int
	nulls bool
}

const arrayHeader = 20 // bytes: dimensions, has-null flag, element type, length, lower bound

func (a *array) reset() {
	a.buf = append(a.buf[:0], make([]byte, arrayHeader)...)
	a.n, a.nulls = 0, false
}

// done fills the header; the slice is the array's until the next reset.
func (a *array) done(oid uint32) []byte {
	binary.BigEndian.PutUint32(a.buf[0:], 1)
	var flag uint32
	if a.nulls {
		flag = 1
	}
	binary.BigEndian.PutUint32(a.buf[4:], flag)
	binary.BigEndian.PutUint32(a.buf[8:], oid)
	binary.BigEndian.PutUint32(a.buf[12:], uint32(a.n))
	binary.BigEndian.PutUint32(a.buf[16:], 1)
	return a.buf
}

func (a *array) null() {
	a.buf = binary.BigEndian.AppendUint32(a.buf, math.MaxUint32)
	a.n++
	a.nulls = true
}

func (a *array) text(s string) {
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(len(s)))
	a.buf = append(a.buf, s...)
	a.n++
}

func (a *array) textOrNull(s string) {
	if s == "" {
		a.null()
		return
	}
	a.text(s)
}

func (a *array) bytes(b []byte) {
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(len(b)))
	a.buf = append(a.buf, b...)
	a.n++
}

func (a *array) bytesOrNull(b []byte) {
	if b == nil {
		a.null()
		return
	}
	a.bytes(b)
}

func (a *array) uuid(u id.ID) { a.bytes(u[:]) }

func (a *array) int8(v int64) {
	a.buf = binary.BigEndian.AppendUint32(a.buf, 8)
	a.buf = binary.BigEndian.AppendUint64(a.buf, uint64(v))
	a.n++
}

// duration takes -1 as null.
func (a *array) duration(v int64) {
	if v < 0 {
		a.null()
		return
	}
	a.int8(v)
}

// time takes µs since 1970, 0 as null.
func (a *array) time(micros int64) {
	if micros == 0 {
		a.null()
		return
	}
	a.int8(micros - epoch2000)
}

func (a *array) int4(v int32) {
	a.buf = binary.BigEndian.AppendUint32(a.buf, 4)
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(v))
	a.n++
}

// count takes -1 as null.
func (a *array) count(v int32) {
	if v < 0 {
		a.null()
		return
	}
	a.int4(v)
}

func (a *array) int2(v int16) {
	a.buf = binary.BigEndian.AppendUint32(a.buf, 2)
	a.buf = binary.BigEndian.AppendUint16(a.buf, uint16(v))
	a.n++
}

// rare takes 0 as null.
func (a *array) rare(v int16) {
	if v == 0 {
		a.null()
		return
	}
	a.int2(v)
}

func (a *array) bool(v bool) {
	a.buf = binary.BigEndian.AppendUint32(a.buf, 1)
	if v {
		a.buf = append(a.buf, 1)
	} else {
		a.buf = append(a.buf, 0)
	}
	a.n++
}
