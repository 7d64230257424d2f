package audit

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// FileReport is what an exported file proves.
type FileReport struct {
	Report

	Format   Format    `json:"format"`
	Exported *Exported `json:"exported"` // what its last record says; nil: it has none, so it was cut
	Summary  string    `json:"summary"`
}

// VerifyFile proves the rows of an exported file, which it reads twice: its last record says what the others have to be.
// each, which may be nil, gets every row in order. An error says that the file could not be read; if it is no export
// that is an ErrFile.
func VerifyFile(file io.ReadSeeker, keys []Key, each func(r *FileRecord) error) (FileReport, error) {
	last, err := lastRecord(file)
	if err != nil {
		return FileReport{}, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return FileReport{}, fmt.Errorf("read it again: %w", err)
	}
	in, err := NewFileReader(file)
	if err != nil {
		return FileReport{}, err
	}
	w := fileWalk{v: NewVerifier(keys), report: FileReport{Format: in.Format()}}
	w.begin(last)
	for {
		r, err := in.Next()
		if errors.Is(err, io.EOF) {
			return w.finish(), nil
		}
		if err != nil {
			return FileReport{}, err
		}
		w.take(r)
		if each == nil {
			continue
		}
		if err := each(r); err != nil {
			return FileReport{}, err
		}
	}
}

// lastRecord reads the whole file; nil if it has no record.
func lastRecord(file io.Reader) (*FileRecord, error) {
	in, err := NewFileReader(file)
	if err != nil {
		return nil, err
	}
	var last *FileRecord
	for {
		r, err := in.Next()
		if errors.Is(err, io.EOF) {
			return last, nil
		}
		if err != nil {
			return nil, err
		}
		last = r
	}
}

// fileWalk is a walk over a file.
type fileWalk struct {
	v      *Verifier
	report FileReport
	closed bool // the last record was met
}

// begin tells the walk what the last record says. What a record says that was not signed with a key at hand is believed
// for the walk, and makes the whole not provable.
func (w *fileWalk) begin(last *FileRecord) {
	v := w.v
	v.part = true
	v.sparse, v.anyKey, v.whole, v.linked = true, true, false, false
	if last == nil {
		return
	}
	e, ok := ReadExported(&last.Row)
	if !ok {
		return
	}
	w.report.Exported = &e
	v.anyKey = false
	if !e.Contiguous || e.First == 0 {
		for _, k := range e.Kids {
			v.kids[k.KID] = life{k.Introduced, k.Retired}
		}
		return
	}
	v.sparse, v.whole, v.linked = false, e.First == 1, true
	v.next, v.prev = e.First, e.PrevRowHMAC
	for _, k := range e.Kids { // the others are met
		if k.Introduced >= e.First {
			continue
		}
		if k.Retired >= e.First {
			k.Retired = 0
		}
		v.kids[k.KID] = life{k.Introduced, k.Retired}
	}
}

// take gives the walk a record.
func (w *fileWalk) take(r *FileRecord) {
	e := w.report.Exported
	if w.closed {
		w.v.fault(r.Seq, Edited, "it stands behind the record that is the last")
		return
	}
	if e != nil && r.Seq == e.Seq {
		w.closed = true
		w.closing(r)
		return
	}
	if e != nil && (r.Seq < e.First || r.Seq > e.Last) {
		w.v.fault(r.Seq, Edited, fmt.Sprintf("it is none of the rows %d to %d, which the last record says are in the file", e.First, e.Last))
		return
	}
	w.v.Row(&r.Row, r.Parts)
	w.shown(r)
}

func (w *fileWalk) shown(r *FileRecord) {
	if column := r.differs(); column != "" {
		w.v.fault(r.Seq, ColumnDiffers, "column "+column+" is not what the personal part says")
	}
}

// closing checks the last record, which stands outside of the rows that it speaks of.
func (w *fileWalk) closing(r *FileRecord) {
	v, e := w.v, w.report.Exported
	if e.Contiguous && e.Last > 0 && v.next <= e.Last {
		v.fault(v.next, MissingInside, fmt.Sprintf("rows %d to %d are missing, which the last record says are in the file", v.next, e.Last))
	}
	body, err := ParseBody(r.Body)
	if err != nil {
		return // it was read before
	}
	key, known := v.keys[body.KID]
	switch {
	case !known:
		v.unprovable(r.Seq, UnknownKey, "key "+body.KID+", with which the last record is signed, was not given")
	case !key.Proves(r.Body, r.RowHMAC):
		v.fault(r.Seq, Edited, "its bytes are not those that were signed")
	default:
		if column := body.Differs(&r.Row); column != "" {
			v.fault(r.Seq, ColumnDiffers, "column "+column+" is not what was signed")
		}
	}
	if e.Contiguous && v.linked && r.Seq == v.next && body.PrevRowHMAC.S != v.prev {
		v.fault(r.Seq, MissingInside, "it was signed as the one that follows another row than the one before it")
	}
	in := false
	for _, k := range e.Kids {
		in = in || k.KID == body.KID && k.Introduced < r.Seq && k.Retired == 0
	}
	if !in {
		v.fault(r.Seq, KeyOutOfTime, "it is signed with a key that it does not name as one that signs")
	}
	checked := v.check(&r.Row, r.Parts)
	v.persons(&checked)
	w.shown(r)
}

func (w *fileWalk) finish() FileReport {
	v, e := w.v, w.report.Exported
	exist := v.report.Checked
	switch {
	case e == nil:
		v.unprovable(0, "", "the file does not end with its "+string(AuditExported)+": it was cut")
	case e.Contiguous && e.First > 0:
		exist = e.Last - e.First + 1
	}
	w.report.Report = v.Finish(exist)
	w.report.Summary = w.report.summary()
	return w.report
}

// summary says in one sentence what an auditor may take from the file.
func (r *FileReport) summary() string {
	code := r.Exit()
	e := r.Exported
	switch {
	case code == ExitTampered && r.First != nil:
		return fmt.Sprintf("tampered with: row %d: %s: %s", r.First.Seq, r.First.Class, r.First.Why)
	case code != ExitProved && len(r.Unprovable) > 0:
		var why []string
		for _, u := range r.Unprovable[:min(len(r.Unprovable), 3)] {
			why = append(why, u.Why)
		}
		return "not provable: " + strings.Join(why, "; ")
	case code != ExitProved:
		return "not provable"
	case e.Contiguous && e.First == 1:
		return fmt.Sprintf("complete from 1 to %d, from the beginning of the log", e.Last)
	case e.Contiguous:
		return fmt.Sprintf("complete from %d to %d, follows row_hmac %s", e.First, e.Last, e.PrevRowHMAC)
	}
	return fmt.Sprintf("%d rows authentic; nothing is said about those between", r.Checked)
}
