package store

import "context"

// Shape is a table of the schema.
type Shape struct {
	Name    string
	Columns []Column
}

// Shapes are the tables that the migrations make.
func Shapes() ([]Shape, error) {
	tables, err := shapes(newestSchema())
	var out []Shape
	for _, t := range tables {
		out = append(out, Shape{t.name, t.columns})
	}
	return out, err
}

// Reference is a foreign key's column and the table and column that it refers to.
type Reference struct{ Column, Table, To string }

// References are the foreign keys of each table.
func (s *Store) References(ctx context.Context) (map[string][]Reference, error) {
	all, err := s.references(ctx)
	out := map[string][]Reference{}
	for table, refs := range all {
		for _, r := range refs {
			out[table] = append(out[table], Reference{r.column, r.table, r.to})
		}
	}
	return out, err
}

// Reshape reads migrations.
func Reshape(texts ...string) (map[string][]Column, error) {
	var tables []shape
	var err error
	for _, text := range texts {
		if tables, err = reshape(tables, text); err != nil {
			return nil, err
		}
	}
	out := map[string][]Column{}
	for _, t := range tables {
		out[t.name] = t.columns
	}
	return out, nil
}

// NewChunk makes a chunk of rows, each with a value for every column: nil, int64, []byte.
func NewChunk(table string, columns []Column, rows ...[]any) []byte {
	var out []byte
	w := newChunkWriter(table, columns, nil, func(_ int64, raw []byte) error { out = append(out, raw...); return nil })
	for _, row := range rows {
		w.begin()
		for i, v := range row {
			switch v := v.(type) {
			case nil:
				w.null(i)
			case int64:
				switch columns[i].Kind {
				case KindBool:
					w.bool(byte(v))
				case KindTime:
					w.time(v)
				default:
					w.int(v)
				}
			case []byte:
				if columns[i].Kind == KindUUID {
					w.uuid(v)
				} else {
					w.bytes(v)
				}
			}
		}
		_ = w.end() // rows of tests are small
	}
	_ = w.flush()
	return out
}

// RegisterTempVFS makes a VFS known whose temporary files lie beside path.
var RegisterTempVFS = registerTempVFS
