package api

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/z4j-go/z4j/internal/store"
)

// PageQuery is what every list takes.
type PageQuery struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"5000" default:"50" doc:"rows of a page; above 500 is cut to 500"`
	Cursor string `query:"cursor" maxLength:"2000" doc:"next_cursor or prev_cursor of an earlier answer"`
}

func (q PageQuery) page() store.Page { return store.Page{Limit: q.Limit, Cursor: q.Cursor} }

// bareQuery is what a list takes that is answered as a bare list.
type bareQuery struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"5000" default:"500" doc:"above 500 is cut to 500"`
	Cursor string `query:"cursor" maxLength:"2000" doc:"X-Next-Cursor or X-Prev-Cursor of an earlier answer"`
}

func (q bareQuery) page() store.Page { return store.Page{Limit: q.Limit, Cursor: q.Cursor} }

// reply is an answer with a body alone.
type reply[T any] struct{ Body T }

// rows is a bare list. What follows it is asked for with the cursor in the header.
type rows[T any] struct {
	Next string `header:"X-Next-Cursor" doc:"cursor of what follows; absent at the end"`
	Prev string `header:"X-Prev-Cursor" doc:"cursor of what stands before; absent at the beginning"`
	Body []T
}

func rowsOf[T any](s store.Slice[T]) *rows[T] {
	out := &rows[T]{Body: s.Items}
	if s.Next != nil {
		out.Next = *s.Next
	}
	if s.Prev != nil {
		out.Prev = *s.Prev
	}
	return out
}

// pageError names the parameter that a list could not read.
func pageError(err error) error {
	if errors.Is(err, store.ErrCursor) {
		return invalid("query.cursor", "is not a cursor of this list; begin again without one")
	}
	return err
}

// unreadable finds what no text of ours holds: Postgres refuses U+0000, and what is not UTF-8 has no place in an answer.
func unreadable(u *url.URL) error {
	odd := func(text string) bool { return strings.ContainsRune(text, 0) || !utf8.ValidString(text) }
	if odd(u.Path) {
		return invalid("path", "must be UTF-8 without U+0000")
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return invalid("query", "is not well formed: a percent sign begins two hexadecimal digits, and & parts parameters")
	}
	for name, list := range values {
		if odd(name) || slices.ContainsFunc(list, odd) {
			return invalid("query."+strings.ToValidUTF8(strings.ReplaceAll(name, "\x00", ""), ""), "must be UTF-8 without U+0000")
		}
	}
	return nil
}

// times are read in RFC 3339, and for people also without a zone (UTC) or as a day.
var timeLayouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", time.DateOnly}

// readTime reads a query parameter that is a time; nil where it is not given.
func readTime(name, text string) (*store.Time, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // an absent parameter is no error
	}
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, text); err == nil && t.UTC().Year() > 0 && t.UTC().Year() < 10000 {
			return new(store.TimeOf(t)), nil
		}
	}
	return nil, invalid("query."+name, "must be a date like 2026-03-14 or a time like 2026-03-14T09:26:53Z")
}
