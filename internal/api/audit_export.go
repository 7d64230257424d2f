package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/store"
)

// exportPath has no deadline as other answers have: a client may take hours. It has clientPatience instead.
const exportPath = base + "/audit/export"

// clientPatience is how long a client may take nothing at all. A slow one takes something now and then: at 1 KB/s, when
// the buffers of the connection, up to 4 MB, are empty by a third.
const clientPatience = 30 * time.Minute

type auditExport struct {
	Format  string `query:"format" enum:"csv,ndjson" default:"csv"`
	From    string `query:"from" doc:"from the first entry at this time or later; a date (midnight in UTC) or RFC 3339"`
	To      string `query:"to" doc:"to the last entry before this time"`
	Project string `query:"project" maxLength:"64" doc:"slug; only entries of this project. Whoever is no global administrator has to name one, unless an API key is bound to one"`
	Action  string `query:"action" maxLength:"80"`
	Actor   string `query:"actor" maxLength:"200" doc:"actor_id: of an account, an API key, an agent"`
	Outcome string `query:"outcome" enum:"allow,deny,error"`
}

// Resolve refuses parameters that there are not: a filter that is not understood would let everything through.
func (auditExport) Resolve(hc huma.Context) (found []error) {
	u := hc.URL()
	known := reflect.TypeFor[auditExport]()
	for name := range u.Query() {
		if !slices.ContainsFunc(reflect.VisibleFields(known), func(f reflect.StructField) bool { return f.Tag.Get("query") == name }) {
			found = append(found, &huma.ErrorDetail{Location: "query." + name, Message: "is not a parameter of this route"})
		}
	}
	return found
}

// auditFile is an answer that is written while it is read.
type auditFile struct {
	Type        string `header:"Content-Type"`
	Disposition string `header:"Content-Disposition"`
	Body        func(huma.Context)
}

// exportAudit answers with the audit log as a file. What can be refused is refused, and the entry of the export is
// committed, before the first byte; an error after it breaks the connection off, so that no client takes a part for all.
func (s *Server) exportAudit(ctx context.Context, in *auditExport) (*auditFile, error) {
	begin, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	f := store.ExportFilter{Action: in.Action, Actor: in.Actor, Outcome: in.Outcome}
	var err error
	if f.From, err = readTime("from", in.From); err != nil {
		return nil, err
	}
	if f.To, err = readTime("to", in.To); err != nil {
		return nil, err
	}
	if f.From != nil && f.To != nil && f.From.After(f.To.Time) {
		return nil, invalid("query.from", "is after to")
	}
	if f.Project, err = s.exportedProject(begin, in.Project); err != nil {
		return nil, err
	}
	format, _ := audit.ParseFormat(in.Format) // checked above
	e, err := s.Store.ExportAudit(begin, format, f, byCaller(ctx))
	if err != nil {
		return nil, err
	}
	out := &auditFile{Type: "text/csv; charset=utf-8", Disposition: fmt.Sprintf(`attachment; filename="z4j-audit-%d-%d.%s"`, e.First, e.Last, format)}
	if format == audit.NDJSON {
		out.Type = "application/x-ndjson"
	}
	out.Body = func(hc huma.Context) { s.sendExport(hc, e) }
	return out, nil
}

// exportedProject is the project whose entries the caller gets, nil for all.
func (s *Server) exportedProject(ctx context.Context, slug string) (*store.Project, error) {
	q := requestOf(ctx)
	if slug == "" && q.key != nil && !q.key.Project.IsZero() {
		if q.key.ProjectSlug == nil {
			return nil, q.noProject()
		}
		slug = *q.key.ProjectSlug
	}
	if slug == "" {
		if installationRole(q.user) != auth.GlobalAdmin {
			return nil, invalid("query.project", "is required: only a global administrator exports the whole log")
		}
		return nil, nil //nolint:nilnil // no project is all of them
	}
	if err := s.admitTo(ctx, slug, inProject(auth.ReadAudit)); err != nil {
		return nil, err
	}
	return &q.project, nil
}

// sendExport writes the file as fast as the client takes it.
func (s *Server) sendExport(hc huma.Context, e *store.AuditExport) {
	r, w := humago.Unwrap(hc)
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	conn := http.NewResponseController(w)
	// The server's own deadlines are those of short answers; that of reading would end this one, too.
	_, _ = conn.SetReadDeadline(time.Time{}), conn.SetWriteDeadline(time.Time{}) // a test's recorder has none
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	watchdog := time.AfterFunc(s.Settings.ClientPatience, func() {
		cancel()
		_ = conn.SetWriteDeadline(time.Unix(1, 0)) // ends a write that waits
	})
	defer watchdog.Stop()
	client := &patient{w: w, watchdog: watchdog, patience: s.Settings.ClientPatience}
	err := e.Write(ctx, client, nil)
	if err == nil {
		return
	}
	log := s.Log.ErrorContext
	if client.gone || ctx.Err() != nil {
		log = s.Log.InfoContext
	}
	log(r.Context(), "export of the audit log broken off", "request_id", requestOf(r.Context()).id, "first", e.First, "last", e.Last, "err", err)
	panic(http.ErrAbortHandler) // the client sees that the file is not whole
}

// patient writes in small pieces, and gives a client time for each.
type patient struct {
	w        io.Writer
	watchdog *time.Timer
	patience time.Duration
	gone     bool // a write failed
}

// Write writes p.
func (p *patient) Write(b []byte) (int, error) {
	const piece = 8 << 10 // bytes
	done := 0
	for done < len(b) {
		p.watchdog.Reset(p.patience)
		n, err := p.w.Write(b[done:min(done+piece, len(b))])
		done += n
		if err != nil {
			p.gone = true
			return done, err
		}
	}
	return done, nil
}
