package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
)

// DatabaseURL names the database. It may hold a password, so it prints without.
type DatabaseURL struct {
	held func() heldURL // a function, for the reason that Secret has one
}

type heldURL struct {
	path string   // SQLite
	pg   *url.URL // Postgres
}

// SQLiteURL names the file at path.
func SQLiteURL(path string) DatabaseURL {
	return DatabaseURL{func() heldURL { return heldURL{path: path} }}
}

var errDatabaseForm = errors.New("must be sqlite:///absolute/path, sqlite:relative/path or postgres://user:password@host:5432/name")

// ParseDatabaseURL reads one of the forms that Z4J_DATABASE_URL may have; relative paths begin at dir. Its errors quote
// nothing of text.
func ParseDatabaseURL(text, dir string) (DatabaseURL, error) {
	text = strings.TrimSpace(text)
	scheme, rest, ok := strings.Cut(text, ":")
	if !ok {
		return DatabaseURL{}, errDatabaseForm
	}
	switch strings.ToLower(scheme) {
	case "sqlite":
		return parseSQLite(rest, dir)
	case "sqlite+aiosqlite":
		// In this form the third slash only ends the empty host.
		path, ok := strings.CutPrefix(rest, "///")
		if !ok {
			return DatabaseURL{}, errors.New("must name a file: sqlite+aiosqlite:////absolute/path")
		}
		return parseSQLite(path, dir)
	case "postgres", "postgresql":
		return parsePostgres(rest, false)
	case "postgresql+asyncpg":
		return parsePostgres(rest, true)
	}
	return DatabaseURL{}, errDatabaseForm
}

func parseSQLite(path, dir string) (DatabaseURL, error) {
	if rest, ok := strings.CutPrefix(path, "//"); ok {
		if !strings.HasPrefix(rest, "/") {
			return DatabaseURL{}, errors.New("sqlite:// is followed by an absolute path (sqlite:///absolute/path); a relative one is written sqlite:relative/path")
		}
		path = rest
	}
	switch {
	case path == "":
		return DatabaseURL{}, errors.New("names no file: write sqlite:///absolute/path")
	case path == ":memory:":
		return DatabaseURL{}, errors.New("a database in memory loses everything at the end: name a file")
	case strings.ContainsAny(path, "?\x00"):
		return DatabaseURL{}, errors.New("takes a path without options: the brain sets what SQLite needs")
	case strings.HasSuffix(path, "/"):
		return DatabaseURL{}, errors.New("names a directory: write sqlite:///absolute/path/z4j.db")
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	return SQLiteURL(filepath.Clean(path)), nil
}

func parsePostgres(rest string, asyncpg bool) (DatabaseURL, error) {
	if !strings.HasPrefix(rest, "//") {
		return DatabaseURL{}, errDatabaseForm
	}
	u, err := url.Parse("postgres:" + rest)
	if err != nil {
		return DatabaseURL{}, errors.New("can't be read as a URL; write special characters of the user, password and name as %XX") // err quotes the password
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return DatabaseURL{}, errors.New("has options after ? that can't be read")
	}
	if asyncpg && q.Has("ssl") {
		mode := q.Get("ssl")
		switch strings.ToLower(mode) {
		case "true", "1", "on":
			mode = "require"
		case "false", "0", "off":
			mode = "disable"
		}
		q.Set("sslmode", mode)
		q.Del("ssl")
		u.RawQuery = q.Encode()
	}
	switch {
	case u.Hostname() == "" && q.Get("host") == "":
		return DatabaseURL{}, errors.New("names no host; for a socket write postgres://user@/name?host=/var/run/postgresql")
	case strings.Trim(u.Path, "/") == "" && q.Get("dbname") == "":
		return DatabaseURL{}, errors.New("names no database: postgres://user:password@host:5432/name")
	case u.Fragment != "":
		return DatabaseURL{}, errors.New("has a # in it; write it as %23")
	}
	switch mode := q.Get("sslmode"); mode {
	case "", "disable", "allow", "prefer", "require", "verify-ca", "verify-full":
	default:
		return DatabaseURL{}, errors.New("has an sslmode that Postgres does not know; it knows disable, allow, prefer, require, verify-ca and verify-full")
	}
	return DatabaseURL{func() heldURL { return heldURL{pg: u} }}, nil
}

// IsZero reports whether no database is named.
func (d DatabaseURL) IsZero() bool { return d.held == nil }

// IsSQLite reports whether it is a SQLite file.
func (d DatabaseURL) IsSQLite() bool { return d.held != nil && d.held().pg == nil }

// Path is the SQLite file.
func (d DatabaseURL) Path() string {
	if d.held == nil {
		return ""
	}
	return d.held().path
}

// Reveal returns what the store opens, password included: "sqlite:PATH" or "postgres://…".
func (d DatabaseURL) Reveal() string {
	switch {
	case d.held == nil:
		return ""
	case d.held().pg == nil:
		return "sqlite:" + d.held().path
	}
	return d.held().pg.String()
}

// encrypted reports whether the connection can't be in the clear.
func (d DatabaseURL) encrypted() bool {
	switch d.held().pg.Query().Get("sslmode") {
	case "require", "verify-ca", "verify-full":
		return true
	}
	return false
}

// local reports whether every host of it is this machine.
func (d DatabaseURL) local() bool {
	hosts := d.held().pg.Query().Get("host")
	if hosts == "" {
		hosts = d.held().pg.Hostname()
	}
	for host := range strings.SplitSeq(hosts, ",") {
		if !strings.HasPrefix(host, "/") && !loopback(host) {
			return false
		}
	}
	return true
}

// String leaves out what is secret: of options, only harmless ones are shown.
func (d DatabaseURL) String() string {
	switch {
	case d.held == nil:
		return ""
	case d.held().pg == nil:
		return "sqlite:" + d.held().path
	}
	u := *d.held().pg
	if u.User != nil {
		if _, has := u.User.Password(); has {
			u.User = url.UserPassword(u.User.Username(), "***")
		}
	}
	shown := url.Values{}
	for key, values := range u.Query() {
		switch key {
		case "sslmode", "host", "port", "dbname", "user", "search_path", "sslrootcert", "target_session_attrs":
			shown[key] = values
		default:
			shown.Set(key, "***")
		}
	}
	u.RawQuery = shown.Encode()
	return strings.ReplaceAll(u.String(), "%2A%2A%2A", "***")
}

// GoString leaves out what is secret.
func (d DatabaseURL) GoString() string { return d.String() }

// Format leaves out what is secret, for every verb.
func (d DatabaseURL) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, d.String()) }

// MarshalText leaves out what is secret.
func (d DatabaseURL) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// LogValue leaves out what is secret.
func (d DatabaseURL) LogValue() slog.Value { return slog.StringValue(d.String()) }

// loopback reports whether host, which may stand in brackets, is this machine by its name or address.
func loopback(host string) bool {
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}
