package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/store"
)

// problem is an error that the client may see.
type problem struct {
	status  int
	code    string
	message string
	details map[string]any
	detail  any           // beside the rest, where clients of the first z4j look for it
	retry   time.Duration // 0: none is said
	allow   string        // of 405
	request string
	reason  string // what the audit log says beyond the details
}

// problemBody is the form of every error.
type problemBody struct {
	Error     string         `json:"error" doc:"stable code"`
	Message   string         `json:"message" doc:"for people"`
	RequestID string         `json:"request_id" doc:"also in the X-Request-Id header and in the log"`
	Details   map[string]any `json:"details"`
	Detail    any            `json:"detail,omitempty" doc:"of validation errors and rate limits: what the first z4j answered"`
}

// Error gives the message.
func (p *problem) Error() string { return p.message }

// GetStatus tells huma the status.
func (p *problem) GetStatus() int { return p.status }

// GetHeaders tells huma the headers.
func (p *problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(p.seconds()))
	}
	if p.allow != "" {
		h.Set("Allow", p.allow)
	}
	return h
}

func (p *problem) seconds() int { return int(math.Ceil(p.retry.Seconds())) }

// MarshalJSON writes the one form.
func (p *problem) MarshalJSON() ([]byte, error) {
	b := problemBody{Error: p.code, Message: p.message, RequestID: p.request, Details: p.details, Detail: p.detail}
	if b.Details == nil {
		b.Details = map[string]any{}
	}
	var out bytes.Buffer
	err := encode(&out, b)
	return out.Bytes(), err
}

// encode writes JSON without the escapes that only a page of HTML needs.
func encode(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func because(reason string) map[string]any { return map[string]any{"reason": reason} }

// invalid refuses a value; where is its place, like body.email or query.limit.
func invalid(where, message string) error {
	return invalidFields("validation_failed", fieldError{where: where, kind: "value_error", message: message})
}

// invalidFor is invalid with a reason that programs can tell apart.
func invalidFor(where, reason, message string) error {
	p := invalidFields("validation_error", fieldError{where: where, kind: reason, message: message})
	p.details["reason"] = reason
	p.message = message
	return p
}

// fieldError says what is wrong with one value, and never the value: it may be a password.
type fieldError struct{ where, kind, message string }

func (f fieldError) loc() []string { return strings.Split(f.where, ".") }

func invalidFields(code string, fields ...fieldError) *problem {
	errs, detail := []map[string]any{}, []map[string]any{}
	for _, f := range fields {
		errs = append(errs, map[string]any{"loc": f.loc(), "type": f.kind, "msg": f.message})
		detail = append(detail, map[string]any{"type": f.kind, "loc": f.loc(), "msg": f.message})
	}
	p := &problem{status: http.StatusUnprocessableEntity, code: code, message: "the request is not valid", details: map[string]any{"errors": errs}, detail: detail}
	if len(fields) > 0 {
		p.message = fields[0].where + ": " + fields[0].message
	}
	return p
}

func unauthenticated(message string, details map[string]any) *problem {
	return &problem{status: http.StatusUnauthorized, code: "unauthenticated", message: message, details: details}
}

func forbidden(message string, details map[string]any) *problem {
	return &problem{status: http.StatusForbidden, code: "forbidden", message: message, details: details}
}

func notFound(message string) *problem {
	return &problem{status: http.StatusNotFound, code: "not_found", message: message}
}

func conflict(message, reason string) *problem {
	return &problem{status: http.StatusConflict, code: "conflict", message: message, details: because(reason)}
}

func errNoRoute() *problem {
	p := notFound("there is no such address; /docs lists them")
	p.detail = "Not Found"
	return p
}

// limited refuses who asks too often.
func limited(name bucket, retry time.Duration) *problem {
	p := &problem{status: http.StatusTooManyRequests, code: "rate_limited", retry: max(retry, time.Second)}
	p.message = fmt.Sprintf("too many requests (%s); try again in %d seconds", name, p.seconds())
	p.details = map[string]any{"bucket": string(name), "retry_after_seconds": p.seconds()}
	p.detail = p.message
	return p
}

// tooLarge refuses a body. reason is content_length_exceeded or streamed_body_exceeded.
func tooLarge(reason string, most int64) *problem {
	return &problem{
		status: http.StatusRequestEntityTooLarge, code: "payload_too_large",
		message: fmt.Sprintf("the body may have at most %d bytes", most), details: because(reason),
	}
}

// answerTo turns any error into what the client sees, logs it if it is a fault of ours, and records refusals.
func (s *Server) answerTo(ctx context.Context, err error) *problem {
	p := s.problemOf(ctx, err)
	q := requestOf(ctx)
	p.request = q.id
	s.recordRefusal(ctx, q, p)
	return p
}

func (s *Server) problemOf(ctx context.Context, err error) *problem {
	var p *problem
	var weak *auth.WeakPassword
	switch {
	case errors.As(err, &p):
		one := *p
		return &one
	case errors.As(err, &weak):
		return s.problemOf(ctx, invalidFor("body.password", weak.Code, weak.Message))
	case errors.Is(err, auth.ErrBusy):
		return &problem{status: http.StatusServiceUnavailable, code: "busy", message: err.Error() + "; try again", retry: time.Second, details: because("busy")}
	case errors.Is(err, store.ErrNotFound):
		return notFound("there is none")
	case errors.Is(err, store.ErrConflict):
		return conflict("there is one already", "duplicate")
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return &problem{status: statusClientGone, code: "client_gone", message: "the client ended the request"}
	}
	if p := unavailable(err); p != nil {
		s.Log.ErrorContext(ctx, "request can't be served now", "request_id", requestOf(ctx).id, "route", requestOf(ctx).routeID(), "err", err)
		return p
	}
	s.Log.ErrorContext(ctx, "request failed", "request_id", requestOf(ctx).id, "route", requestOf(ctx).routeID(), "err", err)
	return &problem{status: http.StatusInternalServerError, code: "internal_error", message: "something went wrong here; the log knows more under the request id"}
}

// unavailable is the answer when the database can't be reached, or to a change that the audit log can't take: then it is
// not made. It is nil for any other error.
func unavailable(err error) *problem {
	p := &problem{status: http.StatusServiceUnavailable}
	switch {
	case errors.Is(err, store.ErrHistoryInDoubt):
		p.code = "history_in_doubt"
		p.message = "the database was rolled back; changes wait until somebody has found out why, and runs `z4j-brain audit acknowledge-rollback --reason …`"
		if held, ok := errors.AsType[*store.HeldError](err); ok {
			p.message = held.Error()
		}
	case errors.Is(err, store.ErrAuditKeyUnknown):
		p.code = "audit_key_unknown"
		p.message = "this brain's audit key may not sign: give the old secret in Z4J_AUDIT_SECRETS_PREVIOUS, or run `z4j-brain audit adopt-key --lost --reason …`"
	case errors.Is(err, store.ErrAuditFailed):
		p.code, p.retry = "audit_unavailable", time.Second
		p.message = "the entry of this change could not be written, so it was not made; try again"
	case store.Unavailable(err):
		p.code, p.retry = "unavailable", time.Second
		p.message = "the database can't be reached or is too busy; try again"
	default:
		return nil
	}
	p.details = because(p.code)
	return p
}

// statusClientGone is nginx's word for a client that did not wait. Nobody sees it but the log.
const statusClientGone = 499

// fail writes the answer to an error outside of a handler.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := s.answerTo(r.Context(), err)
	maps.Copy(w.Header(), p.GetHeaders())
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.status)
	_ = encode(w, p) // the client went away: there is nobody to tell
}

// replaceError puts our form in the place of huma's own errors, which are about fields only: all else was checked before.
func (s *Server) replaceError(hc huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	hc.SetHeader("Content-Type", "application/json")
	var fields []fieldError
	for _, e := range m.Errors {
		fields = append(fields, readFieldError(e))
	}
	p := invalidFields("validation_failed", fields...)
	p.status = m.Status
	return s.answerTo(hc.Context(), p), nil
}

// readFieldError takes place and message of an error of huma's, and drops the value.
func readFieldError(e *huma.ErrorDetail) fieldError {
	f := fieldError{where: e.Location, kind: "value_error", message: e.Message}
	name, missing := strings.CutPrefix(e.Message, "expected required property ")
	switch {
	case missing:
		name, _, _ = strings.Cut(name, " ")
		f.where, f.kind, f.message = f.where+"."+name, "missing", "is required"
	case e.Message == "unexpected property":
		f.kind, f.message = "extra_forbidden", "is not a field of this request"
	case strings.Contains(e.Message, "uuid"):
		f.message = "must be a UUID" // huma's message would quote the value
	case !strings.HasPrefix(e.Message, "expected "):
		f.message = "can't be read" // the parser's message may quote what it read
		if strings.HasPrefix(e.Message, "required ") {
			f.kind, f.message = "missing", "is required"
		}
	}
	return f
}

// recordRefusal tells the audit log of a change that was refused. Whatever becomes of that, the answer stays.
func (s *Server) recordRefusal(ctx context.Context, q *request, p *problem) {
	if s.Refusals == nil || q.route == nil || !q.route.changes() {
		return
	}
	outcome := audit.Deny
	switch p.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusTooManyRequests:
	case http.StatusConflict, http.StatusUnprocessableEntity:
		outcome = audit.Failed
	default:
		return
	}
	details := map[string]any{"status": p.status, "method": q.route.method, "path": base + q.route.path}
	if reason, ok := p.details["reason"].(string); ok {
		details["reason"] = reason
	}
	if p.reason != "" {
		details["reason"] = p.reason
	}
	f := audit.Facts{Action: q.route.action, Outcome: outcome, Actor: q.actor(), Target: q.target, Details: details, RequestID: q.id}
	if !q.project.ID.IsZero() {
		f.Project = q.project.Audited()
	}
	s.Refusals.Record(ctx, f)
}

func (q *request) routeID() string {
	if q.route == nil {
		return ""
	}
	return q.route.id
}
