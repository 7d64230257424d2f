package audit

// Class says what is wrong with a row.
type Class string

// The classes of faults.
const (
	Edited          Class = "edited"
	MissingInside   Class = "missing inside"
	CutTail         Class = "cut tail"
	Against         Class = "against a remembered row"
	KeyOutOfTime    Class = "key out of its time"
	ColumnDiffers   Class = "column differs from body"
	PersonalMissing Class = "personal part missing"
	PersonalEdited  Class = "personal part edited"

	UnknownKey Class = "unknown key" // no fault: the row can't be proved with the keys at hand
)

// Fault is a row that is not as it was written.
type Fault struct {
	Seq   int64  `json:"seq"`
	Class Class  `json:"class"`
	Why   string `json:"why"`
}

// Range is a part of the chain that could not be proved.
type Range struct {
	From  int64  `json:"from"`
	To    int64  `json:"to"`
	Class Class  `json:"class"` // UnknownKey, or "" for another reason
	Why   string `json:"why"`
}

// Exit codes of a verification.
const (
	ExitProved     = 0
	ExitTampered   = 1
	ExitUsage      = 2
	ExitUnprovable = 3
	ExitBehind     = 4
)

// Report is what a walk found.
type Report struct {
	Exist           int64           `json:"rows_exist"`
	Checked         int64           `json:"rows_checked"`
	From            int64           `json:"from"`
	To              int64           `json:"to"`
	Head            string          `json:"head_row_hmac"`
	First           *Fault          `json:"first_bad"`
	Faults          map[Class]int64 `json:"faults"`
	Unprovable      []Range         `json:"unprovable"`
	UnprovableRows  int64           `json:"unprovable_rows"`
	PersonalPresent int64           `json:"personal_present"`
	PersonalErased  int64           `json:"personal_erased"`
	Notes           []string        `json:"notes"`
	Checkpoints     []Compared      `json:"checkpoints"`
	Behind          int64           `json:"rows_behind"`      // the newest checkpoint
	Adopted         int64           `json:"-"`                // number of the newest proved entry that says that the key before it is lost
	Since           int64           `json:"since_checkpoint"` // rows of the checkpoint that the walk began behind; 0: it began at the beginning
}

// Exit is the exit code that r stands for.
func (r *Report) Exit() int {
	behind := r.Faults[CutTail] + r.Faults[Against]
	all := int64(0)
	for _, n := range r.Faults {
		all += n
	}
	switch {
	case all > behind:
		return ExitTampered
	case behind > 0:
		return ExitBehind
	case len(r.Unprovable) > 0 || r.Checked == 0 && r.Since == 0 || r.Checked != r.Exist:
		return ExitUnprovable
	}
	return ExitProved
}

// Verdict is what an exit code of a verification means.
func Verdict(code int) string {
	switch code {
	case ExitProved:
		return "proved"
	case ExitTampered:
		return "tampered"
	case ExitBehind:
		return "behind"
	}
	return "not provable"
}

// maxRanges bounds what a report holds.
const maxRanges = 1000

func (v *Verifier) fault(seq int64, c Class, why string) {
	v.report.Faults[c]++
	if v.report.First == nil || seq < v.report.First.Seq {
		v.report.First = &Fault{Seq: seq, Class: c, Why: why}
	}
}

// unprovable notes a row, and joins it to the range before it where it can.
func (v *Verifier) unprovable(seq int64, c Class, why string) {
	v.report.UnprovableRows++
	list := v.report.Unprovable
	if n := len(list); n > 0 && list[n-1].Why == why && list[n-1].To == seq-1 {
		list[n-1].To = seq
		return
	}
	if len(list) < maxRanges {
		v.report.Unprovable = append(list, Range{From: seq, To: seq, Class: c, Why: why})
	}
}

func (v *Verifier) note(text string) {
	if len(v.report.Notes) < maxRanges {
		v.report.Notes = append(v.report.Notes, text)
	}
}
