package store

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/z4j-go/z4j/internal/id"
)

// ErrCursor says that a text is not a cursor of the list that it was given to.
var ErrCursor = errors.New("not a cursor of this list")

// MaxPage is the most rows of one answer: it keeps the answer below a few hundred kilobytes.
const MaxPage = 500

// Page says which part of a list is wanted. The zero value is the first MaxPage rows.
type Page struct {
	Limit  int    // above MaxPage is cut
	Cursor string // Next or Prev of a Slice of the same list; "" begins the list
}

// Slice is a part of a list, in the list's order whichever way it was reached. A cursor is the place of a row that was
// shown, so that rows which come in between move nothing.
type Slice[T any] struct {
	Items []T     `json:"items"`
	Next  *string `json:"next_cursor"` // what follows; nil at the end
	Prev  *string `json:"prev_cursor"` // what stands before; nil at the beginning
}

// listing is the total order of a list. Its columns are never NULL and together unique within the list.
type listing struct {
	tag     byte   // tells the cursors of different lists apart
	columns string // comma list; {C} follows texts, see dialect.byteOrder
	kinds   string // one letter per column: i an id, t a time, n a number of 32 bits, l one of 63, s a text
	desc    bool
}

// cursor is a place in a listing: the key of a row, and the way to go on from it.
type cursor struct {
	back bool
	key  []any // id.ID, Time, int64 or string, as the listing's kinds say
}

const cursorVersion = 1

func (l listing) encode(c cursor) string {
	b := []byte{cursorVersion, l.tag, 0}
	if c.back {
		b[2] = 1
	}
	for _, k := range c.key {
		switch k := k.(type) {
		case id.ID:
			b = append(b, k[:]...)
		case Time:
			b = binary.BigEndian.AppendUint64(b, uint64(k.UnixMicro()))
		case int64:
			b = binary.BigEndian.AppendUint64(b, uint64(k))
		case string:
			b = binary.AppendUvarint(b, uint64(len(k)))
			b = append(b, k...)
		}
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func (l listing) decode(text string) (cursor, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < 3 || b[0] != cursorVersion || b[1] != l.tag || b[2] > 1 {
		return cursor{}, ErrCursor
	}
	c := cursor{back: b[2] == 1}
	b = b[3:]
	for _, kind := range l.kinds {
		var k any
		if k, b, err = decodeKey(kind, b); err != nil {
			return cursor{}, err
		}
		c.key = append(c.key, k)
	}
	if len(b) != 0 {
		return cursor{}, ErrCursor
	}
	return c, nil
}

// Times outside these years are no column's value, and Postgres would refuse them.
var (
	minCursorTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	maxCursorTime = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC).UnixMicro()
)

func decodeKey(kind rune, b []byte) (key any, rest []byte, err error) {
	switch kind {
	case 'i':
		if len(b) < 16 {
			return nil, nil, ErrCursor
		}
		return id.ID(b[:16]), b[16:], nil
	case 't':
		if len(b) < 8 {
			return nil, nil, ErrCursor
		}
		micros := int64(binary.BigEndian.Uint64(b))
		if micros < minCursorTime || micros > maxCursorTime {
			return nil, nil, ErrCursor
		}
		return TimeAt(micros), b[8:], nil
	case 'n':
		if len(b) < 8 {
			return nil, nil, ErrCursor
		}
		n := binary.BigEndian.Uint64(b)
		if n > math.MaxInt32 {
			return nil, nil, ErrCursor // more than the column holds
		}
		return int64(n), b[8:], nil
	case 'l':
		if len(b) < 8 || b[0] > 0x7f {
			return nil, nil, ErrCursor
		}
		return int64(binary.BigEndian.Uint64(b)), b[8:], nil
	default:
		n, used := binary.Uvarint(b)
		if used <= 0 || n > uint64(len(b)-used) || n > maxCursorText {
			return nil, nil, ErrCursor
		}
		text := string(b[used : used+int(n)])
		if strings.ContainsRune(text, 0) || strings.ToValidUTF8(text, "") != text {
			return nil, nil, ErrCursor // Postgres would refuse the parameter
		}
		return text, b[used+int(n):], nil
	}
}

const maxCursorText = 1 << 10 // bytes; names are at most a few hundred

// query is a page being read: the conditions with the cursor's among them, and what ends the statement.
type query struct {
	where

	list  listing
	limit int
	at    cursor
	begun bool // at is set
}

// page starts the conditions of one page of l.
func (l listing) page(p Page) (*query, error) {
	q := &query{list: l, limit: p.Limit}
	if q.limit <= 0 || q.limit > MaxPage {
		q.limit = MaxPage
	}
	if p.Cursor == "" {
		return q, nil
	}
	var err error
	if q.at, err = l.decode(p.Cursor); err != nil {
		return nil, err
	}
	q.begun = true
	return q, nil
}

// conditions are the WHERE of the page: the list's own and the cursor's, whose place it is to come last.
func (q *query) conditions() string {
	if q.begun {
		compare := " > "
		if q.list.desc != q.at.back {
			compare = " < "
		}
		marks := strings.Repeat(", ?", len(q.at.key))[2:]
		q.and("("+q.list.columns+")"+compare+"("+marks+")", q.at.key...)
	}
	return q.sql.String()
}

// end is the order and the limit of the page.
func (q *query) end() string {
	return q.list.order(q.at.back) + " LIMIT " + strconv.Itoa(q.limit+1)
}

// order is the ORDER BY of l, reversed for going back.
func (l listing) order(back bool) string {
	if l.desc == back {
		return " ORDER BY " + l.columns
	}
	return " ORDER BY " + strings.ReplaceAll(l.columns, ",", " DESC,") + " DESC"
}

// slice makes the answer of what a statement that ends in end found, one row more than the limit where there are more.
func slice[T any](q *query, rows []T, key func(*T) []any) Slice[T] {
	more := len(rows) > q.limit
	if more {
		rows = rows[:q.limit]
	}
	back := q.at.back
	if back {
		slices.Reverse(rows)
	}
	out := Slice[T]{Items: rows}
	if len(rows) == 0 {
		return out
	}
	if more || back {
		next := q.list.encode(cursor{key: key(&rows[len(rows)-1])})
		out.Next = &next
	}
	if more && back || q.begun && !back {
		prev := q.list.encode(cursor{back: true, key: key(&rows[0])})
		out.Prev = &prev
	}
	return out
}

// readPage runs one page of a list: head is SELECT … FROM ….
func readPage[T any](ctx context.Context, s *Store, q *query, head string, scan, key func(*T) []any) (Slice[T], error) {
	text := s.sql(head + q.conditions() + q.end())
	rows, err := s.read.QueryContext(ctx, text, q.args...)
	found, err := collect(rows, err, scan)
	if err != nil {
		return Slice[T]{}, err
	}
	return slice(q, found, key), nil
}

// sql puts the dialect's fragments into text.
func (s *Store) sql(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "{C}", s.dialect.byteOrder), "{stepped}", s.dialect.stepped)
}

// contains is the condition that column contains a pattern, whatever the case of ASCII letters. Other letters are
// compared as they are: SQLite knows no more, and both databases answer alike.
func (d dialect) contains(column string) string {
	if d.name == sqliteDialect.name {
		return column + ` LIKE ? ESCAPE '\'` // minds no case, and lower would cost as much again
	}
	return "lower(" + column + d.byteOrder + `) LIKE ? ESCAPE '\'`
}

// pattern is text for contains.
func pattern(text string) string {
	return like(strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, text))
}

// in adds "column is one of list"; an empty list matches nothing.
func in[T any](w *where, column string, list []T) {
	if len(list) == 0 {
		w.and("1 = 0")
		return
	}
	w.and(column+" IN ("+strings.Repeat(", ?", len(list))[2:]+")", anys(list)...)
}

func anys[T any](list []T) []any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = v
	}
	return out
}
