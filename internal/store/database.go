package store

import "context"

// Database says what the brain's database is; nil is unknown.
type Database struct {
	Type        string // "postgres" or "sqlite"
	Version     *string
	Bytes       *int64
	Connections *int64 // of this server to the database, all clients; Postgres only
}

// Database describes the database. What it knows comes with the error.
func (s *Store) Database(ctx context.Context) (Database, error) {
	d := Database{Type: s.Dialect()}
	var err error
	if s.pool != nil {
		err = s.describePostgres(ctx, &d)
	} else {
		err = s.describeSQLite(ctx, &d)
	}
	return d, wrap("describe database", err)
}
