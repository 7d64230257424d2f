package api

import (
	"cmp"
	"context"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/store"
)

type status struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty" enum:"database" doc:"what is missing, when unready"`
	Audit  string `json:"audit" enum:"ok,history_in_doubt,audit_key_unknown,failed" doc:"whether changes can be made; if not, events are taken and reads answered all the same"`
	Detail string `json:"audit_detail,omitempty" doc:"what to do about it"`
	Backup string `json:"backup,omitempty" enum:"late" doc:"the newest good backup is older than Z4J_RPO allows"`
	Drill  string `json:"drill,omitempty" enum:"late" doc:"backups are scheduled, and no drill of the last 90 days went well"`

	Chain
}

// healthAs is a status with what is known of the audit log's verifications.
func (s *Server) healthAs(word string) status {
	state := s.Audit.State()
	return status{Status: word, Chain: chainOf(&state)}
}

// showHealth says that the process answers, and what is known of the audit log; it asks nobody.
func (s *Server) showHealth(context.Context, *struct{}) (*reply[status], error) {
	out := &reply[status]{s.healthAs("ok")}
	out.Body.describe(s.Audit.Err())
	out.Body.backups(s.Backups)
	return out, nil
}

// backups says whether backups and drills are late.
func (s *status) backups(b Backups) {
	if b != nil && b.Late() {
		s.Backup = "late"
	}
	if b != nil && b.DrillLate() {
		s.Drill = "late"
	}
}

type readiness struct {
	Status int
	Body   status
}

// readyDeadline is how long the database may take to answer before the brain calls itself unready.
const readyDeadline = 2 * time.Second

// showReady asks the database. A brain that can't make changes is ready: it takes events and answers reads.
func (s *Server) showReady(ctx context.Context, _ *struct{}) (*readiness, error) {
	ctx, cancel := context.WithTimeout(ctx, readyDeadline)
	defer cancel()
	if err := s.Store.Ping(ctx); err != nil {
		out := &readiness{http.StatusServiceUnavailable, s.healthAs("unready")}
		out.Body.Reason = "database"
		out.Body.describe(cmp.Or(s.Audit.Err(), err))
		return out, nil
	}
	out := &readiness{http.StatusOK, s.healthAs("ready")}
	out.Body.describe(s.Audit.Try(ctx))
	out.Body.backups(s.Backups)
	return out, nil
}

// system describes the process and its database.
type system struct {
	Version              string            `json:"z4j_version"`
	GoVersion            string            `json:"go_version"`
	PythonVersion        *string           `json:"python_version" doc:"always null: no Python runs here"`
	PythonImplementation *string           `json:"python_implementation" doc:"always null: no Python runs here"`
	OS                   string            `json:"os"`
	Architecture         string            `json:"architecture"`
	PID                  int               `json:"pid"`
	DatabaseType         string            `json:"database_type" enum:"postgres,sqlite"`
	DatabaseVersion      *string           `json:"database_version"`
	DatabaseSizeMB       *float64          `json:"database_size_mb"`
	DatabaseConnections  *int64            `json:"database_connections"`
	DatabaseError        *string           `json:"database_error"`
	AnchorTroubles       []custody.Trouble `json:"anchor_troubles" doc:"what is wrong with the anchors of the audit log, as far as this brain met it; no fault of the brain"`
	DataGaps             []store.DataGap   `json:"data_gaps" doc:"times of which events may be missing, since a backup was restored; null: the database does not answer"`
	Packages             map[string]string `json:"packages" doc:"the libraries in the binary, and their versions"`
}

func (s *Server) showSystem(ctx context.Context, _ *struct{}) (*reply[system], error) {
	out := system{
		Version: s.Version, GoVersion: runtime.Version(), OS: runtime.GOOS, Architecture: runtime.GOARCH, PID: os.Getpid(), Packages: map[string]string{},
	}
	if out.AnchorTroubles = []custody.Trouble{}; s.Anchors != nil {
		out.AnchorTroubles = s.Anchors()
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			out.Packages[m.Path] = m.Version
		}
	}
	d, err := s.Store.Database(ctx)
	if err == nil {
		out.DataGaps, err = s.Store.DataGaps(ctx)
	}
	if err != nil {
		s.Log.WarnContext(ctx, "database does not describe itself", "error", err)
		out.DatabaseError = new("the database does not answer; see the log")
	}
	out.describe(d)
	return &reply[system]{out}, nil
}

func (s *system) describe(d store.Database) {
	s.DatabaseType, s.DatabaseVersion, s.DatabaseConnections = d.Type, d.Version, d.Connections
	if d.Bytes != nil {
		mb := float64(*d.Bytes/1024) / 1024
		s.DatabaseSizeMB = &mb
	}
}
