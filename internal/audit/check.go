package audit

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"hash"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/z4j-go/z4j/internal/id"
)

// Columns is a row of audit_log as a driver gives it: the bytes of each column, nil for NULL, good until the next row is
// read. What is of another type than the column's is no value that was ever signed: see Odd.
type Columns struct {
	Seq, TS        int64  // µs
	ID             []byte // 16
	ActorKind      []byte
	ActorID        []byte
	ProjectID      []byte
	ProjectLabel   []byte
	Action         []byte
	TargetType     []byte
	TargetID       []byte
	TargetLabel    []byte
	Outcome        []byte
	Details        []byte
	RequestID      []byte
	KID            []byte
	ActorPersonal  []byte
	TargetPersonal []byte
	Body           []byte
	PrevRowHMAC    []byte
	RowHMAC        []byte
}

// Odd is what stands for a text that the database holds as something else. It ends with a byte that no text has.
func Odd(value []byte) []byte { return append(bytes.Clone(value), 0xff) }

// Row is c as a Row of its own.
func (c *Columns) Row() Row {
	text := func(b []byte) Text { return Text{S: string(b), Set: b != nil} }
	var u id.ID
	name := "not an id " + hex.EncodeToString(c.ID)
	if copy(u[:], c.ID) == len(c.ID) && len(c.ID) == len(u) {
		name = u.String()
	}
	return Row{
		Seq: c.Seq, ID: name, TS: c.TS, ActorKind: string(c.ActorKind), ActorID: text(c.ActorID), ProjectID: text(c.ProjectID),
		ProjectLabel: text(c.ProjectLabel), Action: string(c.Action), TargetType: text(c.TargetType), TargetID: text(c.TargetID),
		TargetLabel: text(c.TargetLabel), Outcome: string(c.Outcome), Details: text(c.Details), RequestID: text(c.RequestID), KID: string(c.KID),
		ActorPersonal: text(c.ActorPersonal), TargetPersonal: text(c.TargetPersonal), Body: bytes.Clone(c.Body),
		PrevRowHMAC: text(c.PrevRowHMAC), RowHMAC: string(c.RowHMAC),
	}
}

// Checker looks at rows one by one: at what each says by itself, which is most of the work of a walk and needs no order.
// Each goroutine has its own; what it finds is given to Verifier.Take in the order of the chain.
type Checker struct {
	macs   map[string]hash.Hash // by kid
	leaves bool
	sum    []byte
	text   []byte
	prev   string // HMAC of the row checked last, which the next one names
	day    int64  // since 1970, of the time that was written last
	date   []byte // and how it is written; nil: none was
}

// Checker returns a Checker with the keys of v. When v compares roots it hashes leaves as well.
func (v *Verifier) Checker() *Checker {
	c := &Checker{macs: map[string]hash.Hash{}, leaves: v.tree != nil}
	for kid, k := range v.keys {
		c.macs[kid] = hmac.New(sha256.New, k.row)
	}
	return c
}

// Checked is what a Checker found of one row.
type Checked struct {
	Seq int64
	KID string // that signed it, as it says

	rowHMAC string
	prev    string // that it follows, as it says; "" for none
	none    bool   // its body is none of an entry
	known   bool   // its key is at hand
	proved  bool   // and signed it
	column  string // that is not what was signed; "" for none
	body    *Body  // of an entry that the walk itself needs
	leaf    []byte // hash in the tree; nil when nobody asks

	present int      // personal parts
	erased  []string // roles of the parts that are erased
	by      []int64  // and the entries that say so
	faults  []Fault  // of personal parts
}

// needed reports whether the walk needs more of an entry than its place.
func needed(a Action) bool {
	switch a {
	case SystemInstalled, KeyIntroduced, KeyAdopted, KeyRetired, GenerationStarted, Erased, Pruned, PruneCompleted:
		return true
	default:
		return false
	}
}

// Columns checks a row of the database, with its personal parts. What is as it was signed, which is nearly every row,
// costs no decoding: the columns are found in the signed bytes, each in its place.
func (c *Checker) Columns(r *Columns, parts []Personal) Checked {
	mac, known := c.macs[string(r.KID)]
	if !known || r.Seq == 1 || needed(Action(r.Action)) || !c.proves(mac, r.Body, r.RowHMAC) || !c.same(r) {
		row := r.Row()
		return c.row(&row, parts, true)
	}
	out := Checked{Seq: r.Seq, KID: c.kid(r.KID), prev: c.prev, rowHMAC: string(r.RowHMAC), known: true, proved: true}
	if string(r.PrevRowHMAC) != c.prev {
		out.prev = string(r.PrevRowHMAC)
	}
	c.prev = out.rowHMAC
	if c.leaves {
		out.leaf = c.leaf(r.Body, r.RowHMAC)
	}
	c.personal(&out, parts, persons{r.ActorPersonal, r.TargetPersonal, r.ActorKind, r.ActorID, r.TargetID, r.Details, true})
	return out
}

// Stored is Columns for a row that was copied.
func (c *Checker) Stored(r *Row, parts []Personal) Checked { return c.row(r, parts, true) }

// row checks a row without haste; stored says that its parts come from the database and not from a file.
func (c *Checker) row(r *Row, parts []Personal, stored bool) Checked {
	out := Checked{Seq: r.Seq, rowHMAC: r.RowHMAC}
	c.prev = r.RowHMAC
	if c.leaves {
		out.leaf = c.leaf(r.Body, []byte(r.RowHMAC))
	}
	body, err := ParseBody(r.Body)
	if err != nil {
		out.none = true
		return out
	}
	out.KID, out.prev = body.KID, body.PrevRowHMAC.S
	if mac, known := c.macs[body.KID]; known {
		out.known, out.proved = true, c.proves(mac, r.Body, []byte(r.RowHMAC))
	}
	out.column = body.Differs(r)
	raw := func(t Text) []byte {
		if !t.Set {
			return nil
		}
		return []byte(t.S)
	}
	c.personal(&out, parts, persons{
		raw(body.ActorPersonal), raw(body.TargetPersonal), []byte(body.ActorKind), raw(body.ActorID), raw(body.TargetID), raw(body.Details),
		stored && (out.proved || !out.known), // what was edited says nothing of persons
	})
	if r.Seq == 1 || needed(Action(body.Action)) {
		body.Seq = r.Seq // if it says another number, that was said
		out.body = &body
	}
	return out
}

func (c *Checker) kid(raw []byte) string {
	for kid := range c.macs {
		if kid == string(raw) {
			return kid
		}
	}
	return string(raw)
}

func (c *Checker) proves(mac hash.Hash, body, rowHMAC []byte) bool {
	mac.Reset()
	mac.Write([]byte(rowTag))
	mac.Write(body)
	c.sum = mac.Sum(c.sum[:0])
	c.text = hex.AppendEncode(c.text[:0], c.sum)
	return hmac.Equal(c.text, rowHMAC)
}

func (c *Checker) leaf(body, rowHMAC []byte) []byte {
	raw, err := hex.AppendDecode(c.sum[:0], rowHMAC)
	if err != nil || len(raw) != HashSize {
		raw = append(raw[:0], rowHMAC...)
	}
	c.sum = raw
	c.text = append(append(c.text[:0], body...), raw...)
	return rfc6962.DefaultHasher.HashLeaf(c.text)
}

// same reports whether the body is exactly that of an entry with these columns. No says nothing: a text with an escape
// in it is for ParseBody.
func (c *Checker) same(r *Columns) bool {
	m := matcher{rest: r.Body, ok: utf8.Valid(r.Body)}
	m.text(`{"action":`, r.Action)
	m.text(`,"actor_id":`, r.ActorID)
	m.text(`,"actor_kind":`, r.ActorKind)
	m.text(`,"actor_personal":`, r.ActorPersonal)
	m.step()
	m.details(r.Details)
	c.text = appendID(c.text[:0], r.ID)
	m.text(`,"id":`, c.text)
	m.text(`,"kid":`, r.KID)
	m.text(`,"outcome":`, r.Outcome)
	m.text(`,"prev_row_hmac":`, r.PrevRowHMAC)
	m.text(`,"project_id":`, r.ProjectID)
	m.text(`,"project_label":`, r.ProjectLabel)
	m.text(`,"request_id":`, r.RequestID)
	m.literal(`,"seq":`)
	c.text = strconv.AppendInt(c.text[:0], r.Seq, 10)
	m.bytes(c.text)
	m.text(`,"target_id":`, r.TargetID)
	m.text(`,"target_label":`, r.TargetLabel)
	m.text(`,"target_personal":`, r.TargetPersonal)
	m.text(`,"target_type":`, r.TargetType)
	c.text = c.appendTime(c.text[:0], r.TS)
	m.text(`,"ts":`, c.text)
	m.literal(`,"v":1}`)
	return m.ok && len(m.rest) == 0
}

const (
	second = int64(time.Second / time.Microsecond)
	day    = 24 * 60 * 60 * second
)

// appendTime writes a time as it is signed. Most rows are of the day of the row before them, and its date is known.
func (c *Checker) appendTime(dst []byte, micros int64) []byte {
	n := micros / day
	rest := micros - n*day
	if rest < 0 {
		n, rest = n-1, rest+day
	}
	if c.date == nil || n != c.day {
		c.day, c.date = n, time.UnixMicro(micros).UTC().AppendFormat(c.date[:0], "2006-01-02T")
	}
	clock := []byte("00:00:00.000000Z")
	for _, part := range [...]struct{ at, digits, value int64 }{
		{0, 2, rest / (3600 * second)}, {3, 2, rest / (60 * second) % 60}, {6, 2, rest / second % 60}, {9, 6, rest % second},
	} {
		for i := part.digits - 1; i >= 0; i-- {
			clock[part.at+i] += byte(part.value % 10)
			part.value /= 10
		}
	}
	return append(append(dst, c.date...), clock...)
}

func appendID(dst, raw []byte) []byte {
	if len(raw) != 16 {
		return dst
	}
	for i, part := range [...][]byte{raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:]} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, part)
	}
	return dst
}

// matcher finds columns in a body, from the left.
type matcher struct {
	rest []byte
	ok   bool
}

func (m *matcher) literal(s string) {
	if m.ok = m.ok && len(m.rest) >= len(s) && string(m.rest[:len(s)]) == s; m.ok {
		m.rest = m.rest[len(s):]
	}
}

func (m *matcher) bytes(b []byte) {
	if m.ok = m.ok && bytes.HasPrefix(m.rest, b); m.ok {
		m.rest = m.rest[len(b):]
	}
}

// text finds a member with this value, which has to be one that stands in JSON as it is.
func (m *matcher) text(name string, value []byte) {
	m.literal(name)
	if value == nil {
		m.literal("null")
		return
	}
	m.ok = m.ok && len(value) > 0 && isPlain(value)
	m.literal(`"`)
	m.bytes(value)
	m.literal(`"`)
}

func isPlain(value []byte) bool {
	for _, b := range value {
		if b < ' ' || b == '"' || b == '\\' {
			return false
		}
	}
	return true
}

// step passes clock_step, which is no column.
func (m *matcher) step() {
	p := parser{rest: m.rest, bad: !m.ok}
	p.integer(`,"clock_step":`, true)
	m.rest, m.ok = p.rest, !p.bad
}

func (m *matcher) details(value []byte) {
	m.literal(`,"details":`)
	if value == nil {
		m.literal("null")
		return
	}
	m.ok = m.ok && objectEnd(value) == len(value) && len(value) > 0 && json.Valid(value)
	m.bytes(value)
}

// persons is what an entry says of its personal parts.
type persons struct {
	actor, target                         []byte // digests; nil: it has no such part
	actorKind, actorID, targetID, details []byte
	stored                                bool // the parts say whose they are
}

// personal checks the parts of an entry against what was signed.
func (c *Checker) personal(out *Checked, parts []Personal, signed persons) {
	if signed.actor == nil && signed.target == nil && len(parts) == 0 {
		return
	}
	for _, role := range [...]string{RoleActor, RoleTarget} {
		want := signed.actor
		if role == RoleTarget {
			want = signed.target
		}
		at := slices.IndexFunc(parts, func(p Personal) bool { return p.Role == role })
		switch {
		case at < 0 && want != nil:
			out.fault(PersonalMissing, "the personal part of the "+role+" is gone, and nothing says that it was erased")
		case at < 0:
		case parts[at].ErasedBy != 0:
			out.tombstone(&parts[at], want != nil)
		case want == nil:
			out.fault(PersonalEdited, "it has a personal part of the "+role+" that was not signed")
		case len(parts[at].Salt) != saltSize || !bytes.Equal(c.digest(&parts[at]), want):
			out.fault(PersonalEdited, "the personal part of the "+role+" is not what was signed")
		case signed.stored && !signed.own(&parts[at]):
			out.fault(PersonalEdited, "the personal part of the "+role+" is kept as another person's, so that an erasure would miss it")
		default:
			out.present++
		}
	}
	for i := range parts {
		if parts[i].Role != RoleActor && parts[i].Role != RoleTarget {
			out.fault(PersonalEdited, "it has a personal part of nobody")
		}
	}
}

// digest is Personal.Digest in a buffer of c.
func (c *Checker) digest(p *Personal) []byte {
	c.text = append(append(c.text[:0], p.Salt...), p.JSON.S...)
	sum := sha256.Sum256(c.text)
	c.text = hex.AppendEncode(c.text[:0], sum[:])
	return c.text
}

// own reports whether a part is kept as that of the person whom the entry names. Where the details were too long to keep, of
// a target that is not the person itself it can not be told.
func (s *persons) own(p *Personal) bool {
	return s.named(p) || p.Role == RoleTarget && s.detail("excerpt") != "" && s.detail("sha256") != ""
}

// named is as Entry.subject does.
func (s *persons) named(p *Personal) bool {
	if p.Role == RoleActor {
		switch ActorKind(s.actorKind) {
		case User:
			return p.Subject == Some(string(s.actorID))
		case APIKey:
			return p.Subject == Some(s.detail(ownerDetail))
		default:
			return !p.Subject.Set
		}
	}
	if s.targetID != nil && p.Subject.Set && p.Subject.S == string(s.targetID) {
		return true
	}
	if user := s.detail("user_id"); user != "" && p.Subject.S == user {
		return true
	}
	return s.targetID == nil && p.Subject == Some(addressed(p.JSON.S))
}

// detail returns a text of the details, "" if there is none.
func (s *persons) detail(name string) string {
	var d map[string]any
	if s.details == nil || json.Unmarshal(s.details, &d) != nil {
		return ""
	}
	text, _ := d[name].(string)
	return text
}

func (c *Checked) fault(class Class, why string) {
	c.faults = append(c.faults, Fault{Seq: c.Seq, Class: class, Why: why})
}

// tombstone takes what is left of an erased part.
func (c *Checked) tombstone(p *Personal, signed bool) {
	if !signed || p.ErasedBy <= c.Seq || p.JSON.Set || len(p.Salt) != 0 || p.Subject.Set {
		c.fault(PersonalEdited, "what is left of the personal part of the "+p.Role+" is not what an erasure leaves")
		return
	}
	c.erased, c.by = append(c.erased, p.Role), append(c.by, p.ErasedBy)
}
