package api

import (
	"reflect"
	"slices"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/auth"
)

// Route is a line of the table as tests see it.
type Route struct {
	Method, Path, ID   string
	Kind               string // nobody, anyone, untilSetUp, loggedIn, installation, project
	Permission         auth.Permission
	Scope              auth.Scope // that API keys need; "" keeps every one out
	Narrow             bool       // keys that are bound may come although the path names no project
	Action             audit.Action
	Limited, HasBucket bool
	In, Out            reflect.Type
}

// Routes returns the table.
func (s *Server) Routes() []Route {
	kinds := []string{"nobody", "anyone", "untilSetUp", "loggedIn", "installation", "project"}
	var out []Route
	for _, rt := range s.routes {
		_, known := buckets()[rt.bucket]
		out = append(out, Route{
			Method: rt.method, Path: base + rt.path, ID: rt.id, Kind: kinds[rt.access.kind], Permission: rt.access.permission, Scope: rt.keys.scope, Narrow: rt.keys.narrow, Action: rt.action,
			Limited: rt.bucket != unlimited, HasBucket: known, In: rt.in, Out: rt.out,
		})
	}
	return slices.Clip(out)
}
