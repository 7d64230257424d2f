// Package audit makes, signs and verifies the entries of the audit chain.
//
// An entry's values are final when New returns. Key.Seal gives it its place in the chain and signs its bytes; Verifier
// walks rows as they are stored and says what is proved. Nothing is ever encoded again from what a database returns.
package audit

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/z4j-go/z4j/internal/redact"
)

// Facts are what a caller says of an action.
type Facts struct {
	Action    Action
	Outcome   Outcome // "" is Allow
	Actor     Actor
	Project   Project
	Target    Target
	Details   map[string]any // the catalogue names them; strings, booleans, integers, times, texts, lists, objects
	RequestID string
}

// Actor is who acted, from where.
type Actor struct {
	Kind      ActorKind
	ID        string
	Owner     string // of an API key: the account that it acts for
	Label     string // e-mail address or name; never signed
	IP        string // never signed
	UserAgent string // never signed
}

// Project is where it happened; the zero Project is none.
type Project struct {
	ID    string
	Label string // slug
}

// Target is what it happened to.
type Target struct {
	ID      string
	Label   string
	Subject string // whose personal data the label is, if ID is not that person's
}

// Lengths of what an entry holds, in bytes.
const (
	maxID        = 200
	maxLabel     = 320 // the longest e-mail address
	maxUserAgent = 1024
	maxRequestID = 128
	maxDetails   = 32 << 10
	maxExcerpt   = 1 << 10
)

// Entry is a fact whose values are final: valid UTF-8 without U+0000, capped, redacted. Only New makes one.
type Entry struct {
	action       Action
	outcome      Outcome
	actorKind    ActorKind
	actorID      string
	projectID    string
	projectLabel string
	targetType   string
	targetID     string
	targetLabel  string
	details      string // JSON; "" is none
	requestID    string
	parts        [2]part // personal: of the actor, of the target
	err          error
}

// part is what an entry says of a person.
type part struct {
	subject string
	json    string // "" is none
}

// Action returns what the entry is about.
func (e *Entry) Action() Action { return e.action }

// Outcome returns how it ended.
func (e *Entry) Outcome() Outcome { return e.outcome }

// Err returns why the entry can't be recorded: an action, an outcome or a detail that the catalogue doesn't know, which is
// a fault of the program.
func (e *Entry) Err() error { return e.err }

// New makes the entry for f.
func New(f Facts) Entry {
	kind, ok := f.Action.Kind()
	e := Entry{
		action: f.Action, outcome: f.Outcome, actorKind: f.Actor.Kind, actorID: final(f.Actor.ID, maxID),
		projectID: final(f.Project.ID, maxID), projectLabel: final(f.Project.Label, maxLabel),
		targetType: kind.Target, targetID: final(f.Target.ID, maxID), requestID: final(f.RequestID, maxRequestID),
	}
	if e.outcome == "" {
		e.outcome = Allow
	}
	switch {
	case !ok:
		e.err = fmt.Errorf("audit: the catalogue has no action %q", f.Action)
	case !slices.Contains(outcomes, e.outcome):
		e.err = fmt.Errorf("audit: %s has the unknown outcome %q", f.Action, e.outcome)
	case !slices.Contains(actorKinds, e.actorKind):
		e.err = fmt.Errorf("audit: %s has the unknown kind of actor %q", f.Action, e.actorKind)
	}
	if e.err != nil {
		return e
	}
	plain, personal := map[string]any{}, map[string]any{}
	for name, v := range f.Details {
		switch {
		case slices.Contains(kind.Personal, name):
			personal[name] = v
		case kind.allows(name):
			plain[name] = v
		default:
			e.err = fmt.Errorf("audit: the catalogue has no detail %q of %s", name, f.Action)
			return e
		}
	}
	if f.Actor.Owner != "" {
		plain[ownerDetail] = final(f.Actor.Owner, maxID)
	}
	if e.details, e.err = encodeDetails(plain); e.err != nil {
		e.err = fmt.Errorf("audit: %s: %w", f.Action, e.err)
		return e
	}
	e.setParts(f, kind, personal)
	return e
}

// setParts sorts what tells of persons into the parts.
func (e *Entry) setParts(f Facts, kind Kind, personal map[string]any) {
	actor := map[string]any{}
	target := map[string]any{}
	setText(actor, "label", final(f.Actor.Label, maxLabel))
	setText(actor, "ip", address(f.Actor.IP))
	setText(actor, "user_agent", final(f.Actor.UserAgent, maxUserAgent))
	label := final(f.Target.Label, maxLabel)
	if kind.Person {
		setText(target, "label", label)
	} else {
		e.targetLabel = label
	}
	if len(personal) > 0 {
		if kind.Person {
			target["details"] = personal
		} else {
			actor["details"] = personal
		}
	}
	for i, m := range []map[string]any{actor, target} {
		if e.parts[i].json, e.err = encodeDetails(m); e.err != nil {
			e.err = fmt.Errorf("audit: %s: %w", f.Action, e.err)
			return
		}
	}
	switch e.actorKind {
	case User:
		e.parts[0].subject = e.actorID
	case APIKey:
		e.parts[0].subject = final(f.Actor.Owner, maxID)
	default:
	}
	if e.parts[1].json != "" {
		e.parts[1].subject, e.err = e.subject(f)
	}
}

// subject is whose personal data the target's part is. It can be found out from the entry and the part, so that nobody
// can hide a part from an erasure.
func (e *Entry) subject(f Facts) (string, error) {
	subject := final(f.Target.Subject, maxLabel)
	switch {
	case subject != "" && subject != e.targetID && fmt.Sprint(f.Details[userDetail]) != subject:
		return "", fmt.Errorf("audit: the subject of %s is neither its target nor its detail user_id", f.Action)
	case subject != "":
		return subject, nil
	case e.targetID != "":
		return e.targetID, nil
	}
	return addressed(e.parts[1].json), nil
}

// addressed is whose a part is that is about an account which there is not: it is erased by its address.
func addressed(part string) string {
	var d struct {
		Label string `json:"label"`
	}
	if json.Unmarshal([]byte(part), &d) != nil {
		return ""
	}
	return strings.ToLower(d.Label)
}

func setText(m map[string]any, key, text string) {
	if text != "" {
		m[key] = text
	}
}

// address writes an IP address in its shortest form; what is none stays as it is.
func address(text string) string {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return final(text, 64)
	}
	return a.Unmap().WithZone("").String()
}

// final makes a text storable everywhere and cuts it to most bytes, never inside a character.
func final(s string, most int) string {
	s = redact.Clean(s)
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

// Stamp gives a new row its time from the database's clock and the time of the row before, all in µs: it never goes
// back, but when the clock went back by more than five minutes the clock is right, and step says by how much.
func Stamp(clock, before int64) (ts, step int64) {
	const most = 5 * 60 * 1_000_000 // µs
	switch {
	case clock >= before:
		return clock, 0
	case before-clock <= most:
		return before, 0
	}
	return clock, before - clock
}
