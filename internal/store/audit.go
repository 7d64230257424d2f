package store

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
)

// AuditEntry is an entry of the audit log as it is shown: the chain's own names, and beside them those of the older API.
type AuditEntry struct {
	Seq          int64           `json:"seq"`
	ID           string          `json:"id"`
	TS           Time            `json:"ts"`
	ActorKind    string          `json:"actor_kind"`
	ActorID      *string         `json:"actor_id"`
	ActorLabel   *string         `json:"actor_label"`
	ProjectID    *string         `json:"project_id"`
	ProjectLabel *string         `json:"project_label"`
	Action       string          `json:"action"`
	TargetType   *string         `json:"target_type"`
	TargetID     *string         `json:"target_id"`
	TargetLabel  *string         `json:"target_label"`
	Outcome      string          `json:"outcome"`
	Details      json.RawMessage `json:"details"`
	RequestID    *string         `json:"request_id"`
	IP           *string         `json:"ip"`
	UserAgent    *string         `json:"user_agent"`
	KID          string          `json:"kid"`
	PrevRowHMAC  *string         `json:"prev_row_hmac"`
	RowHMAC      string          `json:"row_hmac"`
	Body         []byte          `json:"body"` // base64: what was signed
	Personal     AuditPersonal   `json:"personal"`

	OccurredAt Time            `json:"occurred_at"` // ts
	UserID     *string         `json:"user_id"`     // actor_id of a user
	Result     string          `json:"result"`      // success, failed
	EventID    *string         `json:"event_id"`    // always null
	Metadata   json.RawMessage `json:"metadata"`    // details, {} for none
	SourceIP   *string         `json:"source_ip"`   // ip
}

// AuditPersonal are the personal parts of an entry, by role; nil where it has none.
type AuditPersonal struct {
	Actor  *AuditPart `json:"actor"`
	Target *AuditPart `json:"target"`
}

// AuditPart is a personal part: SHA-256 of salt and json is in the signed bytes. Of an erased part only ErasedBy is left.
type AuditPart struct {
	Salt     *string `json:"salt"` // hexadecimal
	JSON     *string `json:"json"`
	ErasedBy *int64  `json:"erased_by"`
}

// AuditFilter says which entries are wanted. The zero value is all of them.
type AuditFilter struct {
	Project *id.ID
	Action  string // exactly this one
	Prefix  string // actions that begin with it, such as "auth."
	Actor   string // actor_id
	Outcome string
	Target  string // target_id
	From    *Time  // ts at or after
	To      *Time  // ts before
	Page
}

// newestAudit is the order of the audit log's pages.
var newestAudit = listing{tag: 'a', columns: "seq", kinds: "l", desc: true}

// AuditLog lists entries, newest first, with what is known of persons.
func (s *Store) AuditLog(ctx context.Context, f AuditFilter) (Slice[AuditEntry], error) {
	q, err := newestAudit.page(f.Page)
	if err != nil {
		return Slice[AuditEntry]{}, wrap("list audit log", err)
	}
	f.conditions(&q.where)
	if err := s.window(ctx, &f, &q.where); err != nil {
		return Slice[AuditEntry]{}, wrap("list audit log", err)
	}
	rows, err := s.auditRows(ctx, s.read, q.conditions()+q.end(), q.args...)
	if err != nil {
		return Slice[AuditEntry]{}, wrap("list audit log", err)
	}
	page := slice(q, rows, func(r *audit.Row) []any { return []any{r.Seq} })
	entries, err := s.withPersonal(ctx, page.Items)
	return Slice[AuditEntry]{Items: entries, Next: page.Next, Prev: page.Prev}, wrap("list audit log", err)
}

func (f *AuditFilter) conditions(w *where) {
	if f.Project != nil {
		w.and("project_id = ?", f.Project.String())
	}
	for _, c := range []struct{ column, value string }{
		{"action{C}", f.Action}, {"actor_id", f.Actor}, {"outcome", f.Outcome}, {"target_id", f.Target},
	} {
		switch {
		case c.value == "":
		case !isStorable(c.value): // no entry has it, and Postgres would refuse to look
			w.and("1 = 0")
		default:
			w.and(c.column+" = ?", c.value)
		}
	}
	switch {
	case f.Prefix == "":
	case !isStorable(f.Prefix):
		w.and("1 = 0")
	default: // a range, since LIKE would not use the index
		w.and("action{C} >= ?", f.Prefix)
		w.and("action{C} < ?", f.Prefix+"\U0010ffff")
	}
}

// window adds the conditions of time. Pages go by seq, which times follow but for steps of a clock; so that a page of long
// ago does not read all that came after, it is told between which numbers the window lies.
func (s *Store) window(ctx context.Context, f *AuditFilter, w *where) error {
	if f.From == nil && f.To == nil {
		return nil
	}
	lowest, highest, err := s.auditEnds(ctx)
	if err != nil {
		return err
	}
	first, last, err := s.auditWindow(ctx, lowest, highest, f.From, f.To)
	if err != nil {
		return err
	}
	if first == 0 {
		first = highest + 1 // what came meanwhile may be of that time
	}
	w.and("seq >= ?", first)
	if f.From != nil {
		w.and("ts >= ?", *f.From)
	}
	if f.To != nil {
		w.and("ts < ?", *f.To)
		w.and("seq <= ?", last)
	}
	return nil
}

func isStorable(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// withPersonal makes entries of rows, which are those of one page.
func (s *Store) withPersonal(ctx context.Context, rows []audit.Row) ([]AuditEntry, error) {
	out := make([]AuditEntry, len(rows))
	if len(rows) == 0 {
		return out, nil
	}
	var w where
	seqs := make([]int64, len(rows))
	for i := range rows {
		seqs[i] = rows[i].Seq
	}
	in(&w, "seq", seqs)
	found, err := s.read.QueryContext(ctx, `SELECT `+personalColumns+` FROM audit_personal`+w.sql.String(), w.args...)
	parts, err := collect(found, err, personalFields)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(parts, func(a, b audit.Personal) int { return cmp.Compare(a.Seq, b.Seq) })
	for i := range rows {
		at, _ := slices.BinarySearchFunc(parts, rows[i].Seq, func(p audit.Personal, seq int64) int { return cmp.Compare(p.Seq, seq) })
		end := at
		for end < len(parts) && parts[end].Seq == rows[i].Seq {
			end++
		}
		out[i] = auditEntry(&rows[i], parts[at:end])
	}
	return out, nil
}

func auditEntry(r *audit.Row, parts []audit.Personal) AuditEntry {
	e := AuditEntry{
		Seq: r.Seq, ID: r.ID, TS: TimeAt(r.TS), ActorKind: r.ActorKind, ActorID: pointer(r.ActorID), ProjectID: pointer(r.ProjectID),
		ProjectLabel: pointer(r.ProjectLabel), Action: r.Action, TargetType: pointer(r.TargetType), TargetID: pointer(r.TargetID),
		TargetLabel: pointer(r.TargetLabel), Outcome: r.Outcome, Details: jsonOf(r.Details), RequestID: pointer(r.RequestID), KID: r.KID,
		PrevRowHMAC: pointer(r.PrevRowHMAC), RowHMAC: r.RowHMAC, Body: r.Body,
		OccurredAt: TimeAt(r.TS), Result: "failed", Metadata: json.RawMessage("{}"),
	}
	if e.Details != nil {
		e.Metadata = e.Details
	}
	if r.Outcome == string(audit.Allow) {
		e.Result = "success"
	}
	if r.ActorKind == string(audit.User) {
		e.UserID = e.ActorID
	}
	for i := range parts {
		e.addPart(&parts[i])
	}
	e.SourceIP = e.IP
	return e
}

// addPart shows what a personal part says.
func (e *AuditEntry) addPart(p *audit.Personal) {
	part := &AuditPart{JSON: pointer(p.JSON)}
	if len(p.Salt) > 0 {
		salt := hex.EncodeToString(p.Salt)
		part.Salt = &salt
	}
	if p.ErasedBy != 0 {
		part.ErasedBy = &p.ErasedBy
	}
	var says struct {
		Label     *string `json:"label"`
		IP        *string `json:"ip"`
		UserAgent *string `json:"user_agent"`
	}
	_ = json.Unmarshal([]byte(strings.TrimSpace(p.JSON.S)), &says) // what is no JSON says nothing
	if p.Role == audit.RoleActor {
		e.Personal.Actor = part
		e.ActorLabel, e.IP, e.UserAgent = says.Label, says.IP, says.UserAgent
		return
	}
	e.Personal.Target = part
	if e.TargetLabel == nil {
		e.TargetLabel = says.Label
	}
}

func pointer(t audit.Text) *string {
	if !t.Set {
		return nil
	}
	return &t.S
}

// jsonOf is a text of JSON for an answer; what is none, which nothing of ours writes, spoils no answer.
func jsonOf(t audit.Text) json.RawMessage {
	var out json.RawMessage
	if t.Set {
		_ = rawJSON{&out}.Scan(t.S) // of a string it never fails
	}
	return out
}
