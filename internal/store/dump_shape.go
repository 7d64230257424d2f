package store

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// leftOut are the tables that no backup holds, and why. Every other table of the schema is in each.
var leftOut = map[string]string{
	"leases":            "what is running is not running where it is restored",
	versionTable:        "the number stands in the manifest, and the loader makes the schema",
	"sessions":          "a restore ends them all",
	"first_boot_tokens": "a restore voids them all",
}

// LeftOut are the tables that no backup holds, each with the reason.
func LeftOut() map[string]string { return maps.Clone(leftOut) }

// keptInOrder are the tables whose rows a snapshot gives in order, since that order is what they say; the rest come as
// they lie: to sort tens of millions of rows would cost more than to copy them.
var keptInOrder = map[string]string{"audit_log": "seq", "audit_personal": "seq, role"}

// shape is a table as both databases have it.
type shape struct {
	name    string
	columns []Column
}

func (s *shape) names() []string {
	out := make([]string, len(s.columns))
	for i, c := range s.columns {
		out[i] = c.Name
	}
	return out
}

// postgresKinds are the types that the schema may use. SQLite has no names of its own for half of them, so that the
// Postgres text of the migrations tells for both.
var postgresKinds = map[string]Kind{
	"boolean": KindBool, "smallint": KindInt, "integer": KindInt, "bigint": KindInt, "timestamptz": KindTime,
	"text": KindText, "bytea": KindBytes, "uuid": KindUUID,
}

// shapes are the tables that the migrations up to a number make.
func shapes(through int64) ([]shape, error) {
	names, err := fs.Glob(migrations, "migrations/postgres/*.sql")
	if err != nil {
		return nil, err
	}
	var out []shape
	for _, name := range names {
		var number int64
		if _, err := fmt.Sscanf(name, "migrations/postgres/%d_", &number); err != nil {
			return nil, fmt.Errorf("read the number of %s: %w", name, err)
		}
		if number > through {
			continue
		}
		text, err := fs.ReadFile(migrations, name)
		if err != nil {
			return nil, err
		}
		if out, err = reshape(out, string(text)); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	return out, nil
}

// reshape applies one migration to shapes. It knows the statements that our migrations use, one clause a line; a test
// compares what comes out with both databases' catalogues.
func reshape(tables []shape, text string) ([]shape, error) {
	text, _, _ = strings.Cut(text, "-- +goose Down")
	find := func(name string) int {
		return slices.IndexFunc(tables, func(t shape) bool { return t.name == name })
	}
	inside := -1 // of the CREATE TABLE whose lines are being read
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "--")
		words := strings.Fields(strings.ReplaceAll(strings.TrimRight(line, ",; \n"), "(", " ( "))
		switch {
		case len(words) == 0:
		case inside >= 0 && words[0][0] == ')':
			inside = -1
		case inside >= 0:
			if strings.ToUpper(words[0]) == words[0] { // PRIMARY KEY, UNIQUE, CHECK …
				continue
			}
			if err := tables[inside].add(words); err != nil {
				return nil, err
			}
		case len(words) == 4 && words[0] == "CREATE" && words[1] == "TABLE" && words[3] == "(":
			tables = append(tables, shape{name: words[2]})
			inside = len(tables) - 1
		case len(words) >= 3 && words[0] == "DROP" && words[1] == "TABLE":
			tables = slices.DeleteFunc(tables, func(t shape) bool { return t.name == words[2] })
		case len(words) >= 6 && words[0] == "ALTER" && words[1] == "TABLE" && words[4] == "COLUMN" && find(words[2]) >= 0:
			t := &tables[find(words[2])]
			switch words[3] {
			case "ADD":
				if err := t.add(words[5:]); err != nil {
					return nil, err
				}
			case "DROP":
				t.columns = slices.DeleteFunc(t.columns, func(c Column) bool { return c.Name == words[5] })
			case "RENAME":
				for i := range t.columns {
					if t.columns[i].Name == words[5] {
						t.columns[i].Name = words[len(words)-1]
					}
				}
			}
		}
	}
	return tables, nil
}

// add adds the column that a line describes: its name, its type, and the rest.
func (s *shape) add(words []string) error {
	if len(words) < 2 {
		return fmt.Errorf("column %q of %s has no type", words[0], s.name)
	}
	kind, ok := postgresKinds[words[1]]
	if !ok {
		return fmt.Errorf("column %s of %s has type %s, which no backup can hold: give it a Kind", words[0], s.name, words[1])
	}
	s.columns = append(s.columns, Column{words[0], kind})
	return nil
}

// MayLeaveOut is an error for what is no table of the newest schema.
func MayLeaveOut(tables []string) error {
	_, err := dumped(tables)
	return err
}

// dumped are the tables of the newest schema that a snapshot reads.
func dumped(without []string) (tables []shape, err error) {
	if tables, err = shapes(1 << 62); err != nil {
		return nil, err
	}
	for _, name := range without {
		if !slices.ContainsFunc(tables, func(t shape) bool { return t.name == name }) {
			return nil, fmt.Errorf("leave out table %q: there is none", name)
		}
	}
	return slices.DeleteFunc(tables, func(t shape) bool { return leftOut[t.name] != "" || slices.Contains(without, t.name) }), nil
}
