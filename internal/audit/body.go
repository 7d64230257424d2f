package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/z4j-go/z4j/internal/id"
)

const saltSize = 16

// Link is the place in the chain that an entry gets.
type Link struct {
	Seq       int64
	ID        id.ID
	TS        int64 // µs
	ClockStep int64 // µs; 0 is none
	Prev      string
	Salts     [2][saltSize]byte // of the personal parts; random
}

// Text is a text that may be NULL, which differs from an empty one.
type Text struct {
	S   string
	Set bool
}

// Some is s, or NULL if it is empty: no column of the chain ever holds an empty text.
func Some(s string) Text { return Text{S: s, Set: s != ""} }

// Row is a row of audit_log as the database holds it, times in µs.
type Row struct {
	Seq            int64
	ID             string
	TS             int64
	ActorKind      string
	ActorID        Text
	ProjectID      Text
	ProjectLabel   Text
	Action         string
	TargetType     Text
	TargetID       Text
	TargetLabel    Text
	Outcome        string
	Details        Text
	RequestID      Text
	KID            string
	ActorPersonal  Text
	TargetPersonal Text
	Body           []byte
	PrevRowHMAC    Text
	RowHMAC        string
}

// The roles of personal parts.
const (
	RoleActor  = "actor"
	RoleTarget = "target"
)

// Personal is a row of audit_personal: what an entry says of one person, or, with ErasedBy, that it said something.
type Personal struct {
	Seq      int64
	Role     string
	Subject  Text
	Salt     []byte
	JSON     Text
	ErasedBy int64 // seq of the audit.erased; 0: not erased
}

// Digest is what the body holds of a part: nobody can guess the part from it without the salt.
func (p *Personal) Digest() string {
	h := sha256.New()
	h.Write(p.Salt)
	h.Write([]byte(p.JSON.S))
	return hex.EncodeToString(h.Sum(nil))
}

// Seal numbers and signs e.
func (k Key) Seal(e *Entry, l Link) (Row, []Personal) {
	r := Row{
		Seq: l.Seq, ID: l.ID.String(), TS: l.TS, ActorKind: string(e.actorKind), ActorID: Some(e.actorID),
		ProjectID: Some(e.projectID), ProjectLabel: Some(e.projectLabel), Action: string(e.action),
		TargetType: Some(e.targetType), TargetID: Some(e.targetID), TargetLabel: Some(e.targetLabel),
		Outcome: string(e.outcome), Details: Some(e.details), RequestID: Some(e.requestID), KID: k.kid,
		PrevRowHMAC: Some(l.Prev),
	}
	var parts []Personal
	for i, role := range [...]string{RoleActor, RoleTarget} {
		if e.parts[i].json == "" {
			continue
		}
		p := Personal{Seq: l.Seq, Role: role, Subject: Some(e.parts[i].subject), Salt: l.Salts[i][:], JSON: Some(e.parts[i].json)}
		parts = append(parts, p)
		if role == RoleActor {
			r.ActorPersonal = Some(p.Digest())
		} else {
			r.TargetPersonal = Some(p.Digest())
		}
	}
	r.Body = appendBody(nil, &r, l.ClockStep)
	r.RowHMAC = k.sign(r.Body)
	return r, parts
}

// appendBody writes the bytes that are signed: every field, by name, no space.
func appendBody(dst []byte, r *Row, step int64) []byte {
	text := func(name string, t Text) {
		dst = append(dst, name...)
		if !t.Set {
			dst = append(dst, "null"...)
			return
		}
		dst = appendString(dst, t.S)
	}
	text(`{"action":`, Some(r.Action))
	text(`,"actor_id":`, r.ActorID)
	text(`,"actor_kind":`, Some(r.ActorKind))
	text(`,"actor_personal":`, r.ActorPersonal)
	dst = append(dst, `,"clock_step":`...)
	if step == 0 {
		dst = append(dst, "null"...)
	} else {
		dst = strconv.AppendInt(dst, step, 10)
	}
	dst = append(dst, `,"details":`...)
	if r.Details.Set {
		dst = append(dst, r.Details.S...)
	} else {
		dst = append(dst, "null"...)
	}
	text(`,"id":`, Some(r.ID))
	text(`,"kid":`, Some(r.KID))
	text(`,"outcome":`, Some(r.Outcome))
	text(`,"prev_row_hmac":`, r.PrevRowHMAC)
	text(`,"project_id":`, r.ProjectID)
	text(`,"project_label":`, r.ProjectLabel)
	text(`,"request_id":`, r.RequestID)
	dst = append(dst, `,"seq":`...)
	dst = strconv.AppendInt(dst, r.Seq, 10)
	text(`,"target_id":`, r.TargetID)
	text(`,"target_label":`, r.TargetLabel)
	text(`,"target_personal":`, r.TargetPersonal)
	text(`,"target_type":`, r.TargetType)
	text(`,"ts":`, Some(formatTime(r.TS)))
	return append(dst, `,"v":1}`...)
}

var errBody = errors.New("not the body of an entry")

// Body is what the signed bytes say, in the types of a Row; TS is the text as it stands there.
type Body struct {
	Row

	TS        string
	ClockStep int64
}

// ParseBody reads signed bytes. It takes exactly what appendBody writes: each field once, in order, without space.
func ParseBody(b []byte) (Body, error) {
	if !utf8.Valid(b) {
		return Body{}, errBody
	}
	var out Body
	p := parser{rest: b}
	out.Action = p.text(`{"action":`).S
	out.ActorID = p.text(`,"actor_id":`)
	out.ActorKind = p.text(`,"actor_kind":`).S
	out.ActorPersonal = p.text(`,"actor_personal":`)
	out.ClockStep = p.integer(`,"clock_step":`, true)
	out.Details = p.object(`,"details":`)
	out.ID = p.text(`,"id":`).S
	out.KID = p.text(`,"kid":`).S
	out.Outcome = p.text(`,"outcome":`).S
	out.PrevRowHMAC = p.text(`,"prev_row_hmac":`)
	out.ProjectID = p.text(`,"project_id":`)
	out.ProjectLabel = p.text(`,"project_label":`)
	out.RequestID = p.text(`,"request_id":`)
	out.Seq = p.integer(`,"seq":`, false)
	out.TargetID = p.text(`,"target_id":`)
	out.TargetLabel = p.text(`,"target_label":`)
	out.TargetPersonal = p.text(`,"target_personal":`)
	out.TargetType = p.text(`,"target_type":`)
	out.TS = p.text(`,"ts":`).S
	p.literal(`,"v":1}`)
	if p.bad || len(p.rest) != 0 {
		return Body{}, errBody
	}
	return out, nil
}

// parser reads a body from the left; after the first thing that doesn't fit it is bad and gives zeros.
type parser struct {
	rest []byte
	bad  bool
}

func (p *parser) literal(s string) {
	if p.bad || len(p.rest) < len(s) || string(p.rest[:len(s)]) != s {
		p.bad = true
		return
	}
	p.rest = p.rest[len(s):]
}

func (p *parser) null() bool {
	if p.bad || !bytes.HasPrefix(p.rest, []byte("null")) {
		return false
	}
	p.rest = p.rest[4:]
	return true
}

// text reads a member whose value is null or a text that is not empty.
func (p *parser) text(name string) Text {
	p.literal(name)
	if p.bad || p.null() {
		return Text{}
	}
	end := stringEnd(p.rest)
	if end < 3 {
		p.bad = true
		return Text{}
	}
	raw := p.rest[:end]
	p.rest = p.rest[end:]
	if bytes.IndexByte(raw, '\\') < 0 {
		return Text{S: string(raw[1 : end-1]), Set: true}
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil || !bytes.Equal(appendString(nil, s), raw) {
		p.bad = true
		return Text{}
	}
	return Text{S: s, Set: true}
}

// stringEnd returns the length of the JSON string that b begins with, 0 if there is none.
func stringEnd(b []byte) int {
	if len(b) == 0 || b[0] != '"' {
		return 0
	}
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c == '\\':
			i++
		case c < ' ':
			return 0
		}
	}
	return 0
}

func (p *parser) integer(name string, nullable bool) int64 {
	p.literal(name)
	if p.bad || nullable && p.null() {
		return 0
	}
	end := 0
	for end < len(p.rest) && (p.rest[end] == '-' || p.rest[end] >= '0' && p.rest[end] <= '9') {
		end++
	}
	n, err := strconv.ParseInt(string(p.rest[:end]), 10, 64)
	if err != nil || n > maxInteger || n < -maxInteger || strconv.FormatInt(n, 10) != string(p.rest[:end]) || nullable && n == 0 {
		p.bad = true
		return 0
	}
	p.rest = p.rest[end:]
	return n
}

// object reads a member whose value is null or an object, as raw JSON.
func (p *parser) object(name string) Text {
	p.literal(name)
	if p.bad || p.null() {
		return Text{}
	}
	end := objectEnd(p.rest)
	if end == 0 || !json.Valid(p.rest[:end]) {
		p.bad = true
		return Text{}
	}
	t := Text{S: string(p.rest[:end]), Set: true}
	p.rest = p.rest[end:]
	return t
}

func objectEnd(b []byte) int {
	if len(b) == 0 || b[0] != '{' {
		return 0
	}
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			n := stringEnd(b[i:])
			if n == 0 {
				return 0
			}
			i += n - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return 0
}

// Differs returns the name of the first column of r that isn't what the body says, "" if all are.
func (b *Body) Differs(r *Row) string {
	for _, c := range [...]struct {
		name string
		same bool
	}{
		{"seq", b.Seq == r.Seq},
		{"id", b.ID == r.ID},
		{"ts", b.TS == formatTime(r.TS)},
		{"actor_kind", b.ActorKind == r.ActorKind},
		{"actor_id", b.ActorID == r.ActorID},
		{"project_id", b.ProjectID == r.ProjectID},
		{"project_label", b.ProjectLabel == r.ProjectLabel},
		{"action", b.Action == r.Action},
		{"target_type", b.TargetType == r.TargetType},
		{"target_id", b.TargetID == r.TargetID},
		{"target_label", b.TargetLabel == r.TargetLabel},
		{"outcome", b.Outcome == r.Outcome},
		{"details", b.Details == r.Details},
		{"request_id", b.RequestID == r.RequestID},
		{"kid", b.KID == r.KID},
		{"actor_personal", b.ActorPersonal == r.ActorPersonal},
		{"target_personal", b.TargetPersonal == r.TargetPersonal},
		{"prev_row_hmac", b.PrevRowHMAC == r.PrevRowHMAC},
	} {
		if !c.same {
			return c.name
		}
	}
	return ""
}

// Scan reads a column of text, NULL included. What is no text becomes one that was never signed.
func (t *Text) Scan(src any) error {
	switch v := src.(type) {
	case nil:
		*t = Text{}
	case string:
		*t = Text{S: v, Set: true}
	case []byte:
		*t = Text{S: string(v), Set: true}
	default:
		*t = Text{S: fmt.Sprintf("%T %v", v, v), Set: true}
	}
	return nil
}

// Param is what a parameter of a statement takes: a string, or nil for NULL.
func (t Text) Param() any {
	if !t.Set {
		return nil
	}
	return t.S
}
