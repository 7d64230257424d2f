package audit

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// Format is a form of an exported file.
type Format string

// The forms of exported files: one row a record, in the order of the chain. NDJSON holds one object a line.
const (
	CSV    Format = "csv"
	NDJSON Format = "ndjson"
)

// ParseFormat reads the name of a format.
func ParseFormat(name string) (Format, bool) {
	f := Format(name)
	return f, f == CSV || f == NDJSON
}

// fileColumns are the columns of an exported file, in both formats.
var fileColumns = [...]string{
	"seq", "id", "ts", "actor_kind", "actor_id", "actor_label", "project_id", "project_label", "action", "target_type", "target_id", "target_label",
	"outcome", "details", "request_id", "ip", "user_agent", "kid", "prev_row_hmac", "row_hmac", "body", "personal",
}

// Places of columns that are no plain text.
const (
	columnSeq      = 0
	columnTS       = 2
	columnDetails  = 13
	columnBody     = 20
	columnPersonal = 21
)

// cells are the texts of a record, by column. A text that is not set is an empty cell of CSV and null in NDJSON: no
// column of the chain ever holds an empty text.
type cells [len(fileColumns)]Text

// AppendHeader appends what a file of this format begins with.
func (f Format) AppendHeader(dst []byte) []byte {
	if f == NDJSON {
		return dst
	}
	return append(append(dst, strings.Join(fileColumns[:], ",")...), '\n')
}

// AppendRecord appends a row with its personal parts, as they are stored: nothing is changed, so that the file can be
// verified, and a cell that begins like a formula goes on beginning like one.
func (f Format) AppendRecord(dst []byte, r *Row, parts []Personal) []byte {
	var said personalText
	personal := ""
	if len(parts) > 0 {
		said = readParts(parts)
		personal = string(appendParts(nil, parts))
	}
	target := r.TargetLabel
	if !target.Set {
		target = said.target
	}
	c := cells{
		{},
		Some(r.ID), Some(formatTime(r.TS)), Some(r.ActorKind), r.ActorID, said.label, r.ProjectID, r.ProjectLabel, Some(r.Action), r.TargetType,
		r.TargetID, target, Some(r.Outcome), r.Details, r.RequestID, said.ip, said.userAgent, Some(r.KID), r.PrevRowHMAC, Some(r.RowHMAC),
		{},
		Some(personal),
	}
	if f == NDJSON {
		return appendLine(dst, r, &c)
	}
	dst = strconv.AppendInt(dst, r.Seq, 10)
	for i := 1; i < len(c); i++ {
		dst = append(dst, ',')
		if i == columnBody {
			dst = base64.StdEncoding.AppendEncode(dst, r.Body)
			continue
		}
		dst = appendCell(dst, c[i].S)
	}
	return append(dst, '\n')
}

// appendCell writes a cell of CSV as RFC 4180 says.
func appendCell(dst []byte, s string) []byte {
	if !strings.ContainsAny(s, "\",\r\n") && !strings.HasPrefix(s, " ") {
		return append(dst, s...)
	}
	dst = append(dst, '"')
	for {
		at := strings.IndexByte(s, '"')
		if at < 0 {
			return append(append(dst, s...), '"')
		}
		dst = append(append(dst, s[:at+1]...), '"')
		s = s[at+1:]
	}
}

// appendLine writes an object with the columns in their order. Details and personal parts are objects in it, byte by byte
// as they are stored; details that are no object, which nothing of ours writes, become a text.
func appendLine(dst []byte, r *Row, c *cells) []byte {
	dst = append(dst, `{"seq":`...)
	dst = strconv.AppendInt(dst, r.Seq, 10)
	for i := 1; i < len(c); i++ {
		dst = append(append(append(dst, ',', '"'), fileColumns[i]...), '"', ':')
		switch {
		case i == columnBody:
			dst = append(base64.StdEncoding.AppendEncode(append(dst, '"'), r.Body), '"')
		case !c[i].Set:
			dst = append(dst, "null"...)
		case i == columnPersonal, i == columnDetails && isLineObject(c[i].S):
			dst = append(dst, c[i].S...)
		default:
			dst = appendString(dst, c[i].S)
		}
	}
	return append(dst, '}', '\n')
}

// isLineObject reports whether s is one JSON object on one line.
func isLineObject(s string) bool {
	return objectEnd([]byte(s)) == len(s) && !strings.ContainsAny(s, "\r\n") && json.Valid([]byte(s))
}

// appendParts writes personal parts as one object: SHA-256 of the salt's bytes and json is what was signed.
func appendParts(dst []byte, parts []Personal) []byte {
	dst = append(dst, '{')
	for i := range parts {
		p := &parts[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, p.Role), ':', '{')
		begin := len(dst)
		member := func(name string) {
			if len(dst) > begin {
				dst = append(dst, ',')
			}
			dst = append(append(append(dst, '"'), name...), '"', ':')
		}
		if len(p.Salt) > 0 {
			member("salt")
			dst = append(hex.AppendEncode(append(dst, '"'), p.Salt), '"')
		}
		if p.JSON.Set {
			member("json")
			dst = appendString(dst, p.JSON.S)
		}
		if p.ErasedBy != 0 {
			member("erased_by")
			dst = strconv.AppendInt(dst, p.ErasedBy, 10)
		}
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

// personalText is what personal parts say in the columns of a file.
type personalText struct{ label, ip, userAgent, target Text }

func readParts(parts []Personal) personalText {
	var out personalText
	for i := range parts {
		p := &parts[i]
		switch p.Role {
		case RoleActor:
			out.label, out.ip, out.userAgent = readPart(p.JSON.S)
		case RoleTarget:
			out.target, _, _ = readPart(p.JSON.S)
		}
	}
	return out
}

// readPart reads a part as entries write it, by its first members; one that has other members before them, or is no part
// of ours, takes longer.
func readPart(s string) (label, ip, userAgent Text) {
	if s == "" {
		return
	}
	p := parser{rest: []byte(s)}
	for sep, i := "{", 0; i < 3 && !p.bad; i++ {
		for _, m := range [...]struct {
			name string
			to   *Text
		}{{`"ip":`, &ip}, {`"label":`, &label}, {`"user_agent":`, &userAgent}} {
			if strings.HasPrefix(string(p.rest), sep+m.name) {
				*m.to = p.text(sep + m.name)
				sep = ","
			}
		}
	}
	if !p.bad && string(p.rest) == "}" {
		return label, ip, userAgent
	}
	var said map[string]any
	if json.Unmarshal([]byte(s), &said) != nil {
		return Text{}, Text{}, Text{}
	}
	text := func(name string) Text {
		t, _ := said[name].(string)
		return Some(t)
	}
	return text("label"), text("ip"), text("user_agent")
}

// parseTime reads what formatTime writes; anything else is a time that was never signed.
func parseTime(text string) int64 {
	t, err := time.Parse(timeLayout, text)
	if err != nil || formatTime(t.UnixMicro()) != text {
		return neverSigned
	}
	return t.UnixMicro()
}

const neverSigned = -1 << 63 // µs: before the year 0
