package store

import (
	"context"
	"fmt"

	"github.com/z4j-go/z4j/internal/audit"
)

// FileJoin is what the live log says of an exported file.
type FileJoin struct {
	Compared int64        `json:"rows_compared"` // that are in both
	Deleted  int64        `json:"rows_deleted"`  // of the file that a prune took from the log
	Beyond   int64        `json:"rows_beyond"`   // of an ended history, beyond its end: compared with nothing
	Ended    string       `json:"ended"`         // the generation that the file is of, if it ended
	Fork     int64        `json:"fork"`          // where it did
	First    *audit.Fault `json:"first_bad"`
	Notes    []string     `json:"notes"`
}

// Exit is the exit code that j stands for.
func (j *FileJoin) Exit() int {
	switch {
	case j.First == nil:
		return audit.ExitProved
	case j.First.Class == audit.MissingInside:
		return audit.ExitTampered
	}
	return audit.ExitBehind
}

// FileJoiner compares the rows of a file with the log, in their order.
type FileJoiner struct {
	store       *Store
	boundary    audit.Boundary
	lowest      int64
	head        int64
	generations []Generation

	waiting         []audit.Head
	join            FileJoin
	against, absent int64 // the first row that is another, that is not there; 0: none
	above           int64 // the first row above the head
}

// JoinFile begins a comparison.
func (s *Store) JoinFile(ctx context.Context) (*FileJoiner, error) {
	j := &FileJoiner{store: s}
	var err error
	if j.boundary, err = s.boundary(ctx, s.read); err != nil {
		return nil, err
	}
	if j.generations, err = s.Generations(ctx); err != nil {
		return nil, err
	}
	if j.lowest, err = s.lowestAudit(ctx); err != nil {
		return nil, err
	}
	head, err := s.AuditHead(ctx)
	j.head = head.Seq
	return j, err
}

// Take compares a row of the file.
func (j *FileJoiner) Take(ctx context.Context, r *audit.FileRecord) error {
	j.waiting = append(j.waiting, audit.Head{Seq: r.Seq, RowHMAC: r.RowHMAC})
	if len(j.waiting) < maxPage {
		return nil
	}
	return j.compare(ctx)
}

func (j *FileJoiner) compare(ctx context.Context) error {
	if len(j.waiting) == 0 {
		return nil
	}
	first, last := j.waiting[0].Seq, j.waiting[0].Seq
	for _, h := range j.waiting {
		first, last = min(first, h.Seq), max(last, h.Seq)
	}
	live := map[int64]string{}
	for after := max(first, j.lowest) - 1; after < last; after += maxPage {
		rows, err := j.store.AuditLeaves(ctx, after, min(after+maxPage, last), maxPage)
		if err != nil {
			return err
		}
		for i := range rows {
			live[rows[i].Seq] = rows[i].RowHMAC
		}
	}
	note := func(first *int64, seq int64) {
		if *first == 0 || seq < *first {
			*first = seq
		}
	}
	for _, h := range j.waiting {
		mac, there := live[h.Seq]
		switch {
		case there && mac != h.RowHMAC, h.Seq == j.boundary.Through && h.RowHMAC != j.boundary.RowHMAC:
			note(&j.against, h.Seq)
		case there:
			j.join.Compared++
		case h.Seq > j.head:
			note(&j.above, h.Seq)
		case h.Seq <= j.boundary.Through || h.Seq < j.lowest:
			j.join.Deleted++
		default:
			note(&j.absent, h.Seq)
		}
	}
	j.waiting = j.waiting[:0]
	return nil
}

// Finish says how the file and the log belong together.
func (j *FileJoiner) Finish(ctx context.Context, e *audit.Exported) (FileJoin, error) {
	if err := j.compare(ctx); err != nil {
		return FileJoin{}, err
	}
	out := &j.join
	out.Notes = []string{}
	if e == nil {
		return *out, nil
	}
	limit := int64(1 << 62)
	if out.Fork = j.fork(e.Generation); out.Fork > 0 {
		out.Ended, limit = e.Generation, out.Fork
		out.Beyond = max(0, e.Last-out.Fork)
		out.Notes = append(out.Notes, fmt.Sprintf("the file is of generation %s, which ended at row %d: %d rows beyond it were compared with nothing", e.Generation, out.Fork, out.Beyond))
	} else if !j.names(e.Generation) {
		out.Notes = append(out.Notes, fmt.Sprintf("the file is of generation %s, which this log does not name", e.Generation))
	}
	fault := func(seq int64, class audit.Class, why string) {
		if seq != 0 && seq <= limit && (out.First == nil || seq < out.First.Seq) {
			out.First = &audit.Fault{Seq: seq, Class: class, Why: why}
		}
	}
	fault(j.against, audit.Against, "the log holds another row with this number than the file")
	fault(j.absent, audit.MissingInside, "the file has this row and the log does not, and no prune took it")
	fault(j.above, audit.CutTail, fmt.Sprintf("the file has this row, and the log ends with row %d", j.head))
	j.place(e)
	return *out, nil
}

// place says where the file ends beside the log.
func (j *FileJoiner) place(e *audit.Exported) {
	out := &j.join
	switch {
	case e.Last == 0 || out.First != nil:
	case e.Last == j.boundary.Through:
		out.Notes = append(out.Notes, fmt.Sprintf("the log goes on behind it with row %d", j.boundary.Through+1))
	case e.Last < j.boundary.Through:
		out.Notes = append(out.Notes, fmt.Sprintf("rows %d to %d are in other archives", e.Last+1, j.boundary.Through))
	case out.Compared > 0:
		out.Notes = append(out.Notes, fmt.Sprintf("%d rows are in the log, too, and agree", out.Compared))
	}
}

// fork is where a generation ended, 0 if it did not.
func (j *FileJoiner) fork(generation string) int64 {
	if size, ended := End(j.generations, generation); ended {
		return max(size, 1)
	}
	return 0
}

func (j *FileJoiner) names(generation string) bool {
	for _, g := range j.generations {
		if g.ID == generation {
			return true
		}
	}
	return false
}
