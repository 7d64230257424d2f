package audit

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrFile says that a file is none that an export wrote, or was damaged so that its rows can't be told apart.
var ErrFile = errors.New("not readable as an export of the audit log")

// maxRecord bounds a record of a file: the largest that an entry can make is below 1 MiB.
const maxRecord = 8 << 20 // bytes

// FileReader reads the records of an exported file, in constant memory.
type FileReader struct {
	in     *bufio.Reader
	format Format
	record int64 // number of the record that was read last
	buf    []byte
	fields [][]byte
}

// FileRecord is a record of an exported file.
type FileRecord struct {
	Row
	Parts []Personal

	cells cells
}

// NewFileReader reads what the file begins with, which tells its format.
func NewFileReader(r io.Reader) (*FileReader, error) {
	f := &FileReader{in: bufio.NewReaderSize(r, 64<<10), format: NDJSON}
	first, err := f.in.Peek(1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(first) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrFile)
	}
	if first[0] == '{' {
		return f, nil
	}
	f.format = CSV
	if err := f.readCSV(); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	for i, name := range fileColumns {
		if len(f.fields) != len(fileColumns) || string(f.fields[i]) != name {
			return nil, fmt.Errorf("%w: it begins neither with the columns %s nor with a line of JSON", ErrFile, strings.Join(fileColumns[:], ","))
		}
	}
	return f, nil
}

// Format is the format of the file.
func (f *FileReader) Format() Format { return f.format }

// Next returns the next record, io.EOF behind the last, or an ErrFile.
func (f *FileReader) Next() (*FileRecord, error) {
	f.record++
	out := &FileRecord{}
	var err error
	if f.format == CSV {
		err = f.nextCSV(out)
	} else {
		err = f.nextLine(out)
	}
	if err != nil {
		return nil, err
	}
	c := &out.cells
	out.ID, out.TS, out.ActorKind, out.ActorID = c[1].S, parseTime(c[columnTS].S), c[3].S, c[4]
	out.ProjectID, out.ProjectLabel, out.Action, out.TargetType, out.TargetID = c[6], c[7], c[8].S, c[9], c[10]
	out.TargetLabel, out.Outcome, out.Details, out.RequestID = c[11], c[12].S, c[columnDetails], c[14]
	out.KID, out.PrevRowHMAC, out.RowHMAC = c[17].S, c[18], c[19].S
	out.Body = []byte(c[columnBody].S) // if it is no base64 it is no body either
	if b, err := base64.StdEncoding.Strict().DecodeString(c[columnBody].S); err == nil && base64.StdEncoding.EncodeToString(b) == c[columnBody].S {
		out.Body = b
	}
	out.signedDigests()
	return out, nil
}

// signedDigests takes from the body what the file has no columns for, and the label of a person out of its target.
func (r *FileRecord) signedDigests() {
	if body, err := ParseBody(r.Body); err == nil {
		r.ActorPersonal, r.TargetPersonal = body.ActorPersonal, body.TargetPersonal
	}
	if said := readParts(r.Parts); said.target.Set && said.target == r.TargetLabel {
		r.TargetLabel = Text{}
	}
}

// differs returns the first column that does not say what the personal parts say, "" if all do.
func (r *FileRecord) differs() string {
	said := readParts(r.Parts)
	for _, c := range [...]struct {
		column int
		want   Text
	}{{5, said.label}, {15, said.ip}, {16, said.userAgent}} {
		if r.cells[c.column] != c.want {
			return fileColumns[c.column]
		}
	}
	if said.target.Set && r.TargetLabel.Set || said.target.Set && !r.cells[11].Set {
		return fileColumns[11]
	}
	return ""
}

func (f *FileReader) bad(why string) error {
	return fmt.Errorf("%w: record %d: %s", ErrFile, f.record, why)
}

func (f *FileReader) nextCSV(out *FileRecord) error {
	if err := f.readCSV(); err != nil {
		return err
	}
	if len(f.fields) != len(fileColumns) {
		return f.bad(fmt.Sprintf("it has %d columns, not %d", len(f.fields), len(fileColumns)))
	}
	for i, cell := range f.fields {
		out.cells[i] = Some(string(cell))
	}
	seq := out.cells[columnSeq].S
	n, err := strconv.ParseInt(seq, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != seq {
		return f.bad("its seq is no number")
	}
	out.Seq = n
	if text := out.cells[columnPersonal].S; text != "" {
		p := parser{rest: []byte(text)}
		out.Parts = p.parts(n)
		if p.bad || len(p.rest) > 0 {
			return f.bad("its personal parts can't be read")
		}
	}
	return nil
}

// readCSV reads one record into fields, as RFC 4180 says and Python's csv does: nothing inside quotes is changed. (Go's
// own reader makes "\n" of "\r\n" there.)
func (f *FileReader) readCSV() error {
	if _, err := f.in.Peek(1); err != nil {
		return err
	}
	f.buf = f.buf[:0]
	var ends []int
	for {
		end, err := f.readCell()
		if err != nil {
			return err
		}
		if ends = append(ends, len(f.buf)); end == '\n' {
			break
		}
	}
	if !utf8.Valid(f.buf) {
		return f.bad("it is no UTF-8")
	}
	f.fields = f.fields[:0]
	begin := 0
	for _, end := range ends {
		f.fields = append(f.fields, f.buf[begin:end])
		begin = end
	}
	return nil
}

// readCell appends a cell to buf and returns what ended it: a comma, or a line end, which the end of the file is, too.
func (f *FileReader) readCell() (byte, error) {
	const plain, quoted, closed = 0, 1, 2 // closed: behind a quote that may be the last
	state := plain
	for first := true; ; first = false {
		c, err := f.in.ReadByte()
		switch {
		case errors.Is(err, io.EOF) && state != quoted:
			return '\n', nil
		case errors.Is(err, io.EOF):
			return 0, f.bad("the file ends within it")
		case err != nil:
			return 0, err
		case c == 0:
			return 0, f.bad("it has a zero byte")
		case len(f.buf) > maxRecord:
			return 0, f.bad("it is too large")
		}
		switch {
		case state == quoted && c == '"':
			state = closed
		case state == quoted:
			f.buf = append(f.buf, c)
		case state == closed && c == '"':
			f.buf = append(f.buf, c)
			state = quoted
		case c == ',' || c == '\n':
			return c, nil
		case c == '\r':
			if next, err := f.in.Peek(1); err == nil && next[0] == '\n' {
				_, _ = f.in.ReadByte() // it was peeked at
			}
			return '\n', nil
		case state == closed:
			return 0, f.bad("a cell goes on behind its quotes")
		case first && c == '"':
			state = quoted
		default:
			f.buf = append(f.buf, c)
		}
	}
}

// nextLine reads a line of JSON, which has the columns in their order and no space.
func (f *FileReader) nextLine(out *FileRecord) error {
	if _, err := f.in.Peek(1); err != nil {
		return err
	}
	f.buf = f.buf[:0]
	for {
		part, err := f.in.ReadSlice('\n')
		f.buf = append(f.buf, part...)
		if len(f.buf) > maxRecord {
			return f.bad("it is too large")
		}
		if err == nil || errors.Is(err, io.EOF) {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
	if !utf8.Valid(f.buf) {
		return f.bad("it is no UTF-8")
	}
	p := parser{rest: bytes.TrimSuffix(f.buf, []byte("\n"))}
	out.Seq = p.integer(`{"seq":`, false)
	for i := 1; i < columnPersonal; i++ {
		name := `,"` + fileColumns[i] + `":`
		if i == columnDetails && bytes.HasPrefix(p.rest, []byte(name+"{")) {
			out.cells[i] = p.object(name)
			continue
		}
		out.cells[i] = p.text(name)
	}
	p.literal(`,"` + fileColumns[columnPersonal] + `":`)
	if !p.null() {
		out.Parts = p.parts(out.Seq)
	}
	p.literal("}")
	if p.bad || len(p.rest) > 0 {
		return f.bad("it is not as an export writes it")
	}
	return nil
}

// parts reads what appendParts writes.
func (p *parser) parts(seq int64) []Personal {
	var out []Personal
	p.literal("{")
	for !p.bad && !bytes.HasPrefix(p.rest, []byte("}")) {
		if len(out) > 0 {
			p.literal(",")
		}
		one := Personal{Seq: seq, Role: p.text("").S}
		sep := ":{"
		if bytes.HasPrefix(p.rest, []byte(sep+`"salt":`)) {
			salt := p.text(sep + `"salt":`).S
			b, err := hex.DecodeString(salt)
			one.Salt = b
			p.bad = p.bad || err != nil || hex.EncodeToString(b) != salt
			sep = ","
		}
		if bytes.HasPrefix(p.rest, []byte(sep+`"json":`)) {
			one.JSON = p.text(sep + `"json":`)
			sep = ","
		}
		if bytes.HasPrefix(p.rest, []byte(sep+`"erased_by":`)) {
			one.ErasedBy = p.integer(sep+`"erased_by":`, true)
			sep = ","
		}
		if sep == ":{" {
			p.literal(sep)
		}
		p.literal("}")
		for i := range out {
			p.bad = p.bad || out[i].Role == one.Role
		}
		out = append(out, one)
	}
	p.literal("}")
	if p.bad {
		return nil
	}
	return out
}

// Exported is what the last record of a file says of the file.
type Exported struct {
	Seq         int64           `json:"seq"` // its own number, outside of the range
	Generation  string          `json:"generation"`
	First       int64           `json:"first"` // 0: there was no row
	Last        int64           `json:"last"`
	Contiguous  bool            `json:"contiguous"`
	PrevRowHMAC string          `json:"prev_row_hmac"` // of the row before the first
	Kids        []KeyTime       `json:"kids"`
	Filter      json.RawMessage `json:"filter"`
}

// KeyTimes returns when each key entered the chain and left it: those that are known, and what the entries about keys
// say, which are in order.
func KeyTimes(known []KeyTime, entries []Row) []KeyTime {
	out := slices.Clone(known)
	for i := range entries {
		body, err := ParseBody(entries[i].Body)
		var d struct {
			KID string `json:"kid"`
		}
		if err != nil || json.Unmarshal([]byte(body.Details.S), &d) != nil || d.KID == "" {
			continue
		}
		at := slices.IndexFunc(out, func(k KeyTime) bool { return k.KID == d.KID })
		switch Action(body.Action) {
		case KeyRetired:
			if at >= 0 && out[at].Retired == 0 {
				out[at].Retired = body.Seq
			}
		case SystemInstalled, KeyIntroduced, KeyAdopted:
			if at < 0 {
				out = append(out, KeyTime{KID: d.KID, Introduced: body.Seq})
			}
		default: // it says nothing of keys
		}
	}
	return out
}

// Details are those of the entry that stands for an export with this format and filter; the zero value of what an export
// does not say is left out or null.
func (e *Exported) Details(f Format, filter map[string]any) map[string]any {
	kids := make([]any, len(e.Kids))
	for i, k := range e.Kids {
		kids[i] = map[string]any{"kid": k.KID, "introduced": k.Introduced, "retired": k.Retired}
	}
	out := map[string]any{"format": string(f), "filter": filter, "generation": e.Generation, "contiguous": e.Contiguous, "kids": kids}
	for name, seq := range map[string]int64{"first": e.First, "last": e.Last} {
		out[name] = nil
		if seq != 0 {
			out[name] = seq
		}
	}
	out["prev_row_hmac"] = nil
	if e.PrevRowHMAC != "" {
		out["prev_row_hmac"] = e.PrevRowHMAC
	}
	return out
}

// ReadExported returns what an audit.exported says; ok is false if it is none.
func ReadExported(r *Row) (e Exported, ok bool) {
	body, err := ParseBody(r.Body)
	if err != nil || body.Action != string(AuditExported) || json.Unmarshal([]byte(body.Details.S), &e) != nil {
		return Exported{}, false
	}
	e.Seq = r.Seq
	return e, e.First >= 0 && e.Last >= e.First && (e.First > 0) == (e.Last > 0) && e.Last < e.Seq
}
