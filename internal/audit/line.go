package audit

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Line is what an anchor keeps of an entry that a restore has to know of: what was revoked, erased, pruned, and which
// keys and generations began. It names no person. Signed, it is a note.
type Line struct {
	Instance   string
	Generation string
	Seq        int64 // of the entry
	Time       int64 // µs, of the entry
	Action     Action
	RowHMAC    string // of the entry
	KID        string // names the key that signed the line
	Facts      LineFacts
}

// LineFacts is what an entry was about. Of an erasure it is only which parts are gone.
type LineFacts struct {
	TargetType string          `json:"target_type,omitempty"`
	TargetID   string          `json:"target_id,omitempty"`
	ProjectID  string          `json:"project_id,omitempty"`
	Details    json.RawMessage `json:"details,omitempty"`
	Part       int             `json:"part,omitempty"` // of several lines of one entry, from 0
	Erased     []ErasedPart    `json:"erased,omitempty"`
}

// ErasedPart is a personal part that an erasure took.
type ErasedPart struct {
	Seq  int64  `json:"seq"`
	Role string `json:"role"`
}

const (
	lineTag = "z4j-line/"

	// MaxErased is how many parts one line lists: a note has less than a megabyte.
	MaxErased = 10_000
)

// NewLine makes the line of r. erased are the parts that r, if it is an erasure, took.
func NewLine(instance, generation string, r *Row, part int, erased []ErasedPart) Line {
	l := Line{Instance: instance, Generation: generation, Seq: r.Seq, Time: r.TS, Action: Action(r.Action), RowHMAC: r.RowHMAC}
	l.Facts.Part = part
	if l.Action == Erased {
		l.Facts.Erased = erased
		return l
	}
	l.Facts.TargetType, l.Facts.TargetID, l.Facts.ProjectID = r.TargetType.S, r.TargetID.S, r.ProjectID.S
	if r.Details.Set && json.Valid([]byte(r.Details.S)) {
		l.Facts.Details = json.RawMessage(r.Details.S)
	}
	return l
}

func (l *Line) origin() string { return lineTag + l.Instance + "/" + l.Generation }

func (l *Line) text() (string, error) {
	facts, err := json.Marshal(l.Facts)
	if err != nil {
		return "", err
	}
	return l.origin() + "\n" + strconv.FormatInt(l.Seq, 10) + "\n" + string(l.Action) + "\n" +
		"time " + formatTime(l.Time) + "\nrow_hmac " + l.RowHMAC + "\nkid " + l.KID + "\n" + string(facts) + "\n", nil
}

// SignLine returns the note of l, signed with k.
func (k Key) SignLine(l Line) (string, error) {
	l.KID = k.kid
	text, err := l.text()
	if err != nil {
		return "", fmt.Errorf("sign line of entry %d: %w", l.Seq, err)
	}
	if _, err := parseLine(text); err != nil {
		return "", fmt.Errorf("sign line of entry %d: %w", l.Seq, err)
	}
	return k.signNote(l.origin(), text)
}

// OpenLine reads a note that one of the keys signed, which are given as Key.PublicKey writes them.
func OpenLine(text string, publicKeys ...string) (Line, error) {
	body, err := openNote(text, publicKeys)
	if err != nil {
		return Line{}, fmt.Errorf("open line: %w", err)
	}
	l, err := parseLine(body)
	if err != nil {
		return Line{}, fmt.Errorf("open line: %w", err)
	}
	return l, nil
}

// IsLine reports whether a note is one of a line rather than of a checkpoint, by its first word.
func IsLine(text string) bool { return strings.HasPrefix(text, lineTag) }

func parseLine(text string) (l Line, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 8 || lines[7] != "" {
		return l, ErrNote
	}
	bad := false
	field := func(i int, name string) string {
		value, ok := strings.CutPrefix(lines[i], name)
		bad = bad || !ok
		return value
	}
	l.Instance, l.Generation, _ = strings.Cut(field(0, lineTag), "/")
	l.Seq, err = strconv.ParseInt(lines[1], 10, 64)
	bad = bad || err != nil || l.Seq < 1 || l.Seq > maxInteger
	l.Action = Action(lines[2])
	t, err := time.Parse(timeLayout, field(3, "time "))
	bad = bad || err != nil
	l.Time = t.UnixMicro()
	l.RowHMAC, l.KID = field(4, "row_hmac "), field(5, "kid ")
	err = json.Unmarshal([]byte(lines[6]), &l.Facts)
	if bad || err != nil || !isName(lines[2]) || !isHex(l.Instance, 32) || !isHex(l.Generation, 32) || !isHex(l.RowHMAC, 64) || !isHex(l.KID, 16) {
		return Line{}, ErrNote
	}
	return l, nil
}
