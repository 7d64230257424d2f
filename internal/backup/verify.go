package backup

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
)

// Report is what a verification found. What could not be read or is not what the manifest says is an error of Verify, and
// no report.
type Report struct {
	Manifest  Manifest     `json:"manifest"`
	Name      string       `json:"name"`
	Bytes     int64        `json:"bytes"`
	SHA256    string       `json:"sha256"`
	Encrypted bool         `json:"encrypted"`
	Signed    bool         `json:"signed"` // with a key that is at hand
	KID       string       `json:"kid"`
	Rows      int64        `json:"rows"`
	Audit     audit.Report `json:"audit"`
	Disagree  []string     `json:"disagree"` // what contradicts itself inside
}

// Exit codes of a verification, which are those of `audit verify`.
const (
	ExitGood       = audit.ExitProved
	ExitBad        = audit.ExitTampered
	ExitUnprovable = audit.ExitUnprovable
)

// Exit is the exit code that r stands for.
func (r *Report) Exit() int {
	switch code := r.Audit.Exit(); {
	case len(r.Disagree) > 0 || code == audit.ExitTampered || code == audit.ExitBehind:
		return ExitBad
	case !r.Signed || code != audit.ExitProved:
		return ExitUnprovable
	}
	return ExitGood
}

// Fault says in what the content is not right: what a restore refuses unless it is accepted. "": in nothing.
func (r *Report) Fault() string {
	faults := slices.Clone(r.Disagree)
	if code := r.Audit.Exit(); code == audit.ExitTampered || code == audit.ExitBehind {
		faults = append(faults, "its audit log is not proved: "+firstFault(&r.Audit))
	}
	return strings.Join(faults, "; ")
}

// Unproved says why nothing can be said of the audit log, "" if it is proved or has a fault. What a key signed whose loss is on
// record can never be proved again, and is no reason.
func (r *Report) Unproved() string {
	if r.Audit.Exit() != audit.ExitUnprovable {
		return ""
	}
	for _, u := range r.Audit.Unprovable {
		if u.To > r.Audit.Adopted {
			return fmt.Sprintf("rows %d to %d of the audit log cannot be proved: %s", u.From, u.To, u.Why)
		}
	}
	if len(r.Audit.Unprovable) > 0 && r.Audit.Checked == r.Audit.Exist {
		return ""
	}
	return fmt.Sprintf("of %d rows of the audit log %d can be checked", r.Audit.Exist, r.Audit.Checked)
}

// ExitOf is the exit code of an error of Open, Read or Verify; 0 is none that tells of an archive.
func ExitOf(err error) int {
	switch {
	case errors.Is(err, ErrNoIdentity), errors.Is(err, ErrUnsigned), errors.Is(err, errUnread):
		return ExitUnprovable
	case errors.Is(err, ErrDamaged), errors.Is(err, ErrIncomplete):
		return ExitBad
	}
	return 0
}

// verifyWorkers decompress and count: each needs about 20 MB.
const verifyWorkers = 2

// Verify reads everything: it hashes and counts, proves the audit log with keys, and looks whether tasks, attempts and
// rollups agree.
func (a *Archive) Verify(ctx context.Context, keys []audit.Key, progress func(done, total int64)) (Report, error) {
	s := survey{rows: map[string]int64{}, places: map[string][]place{}, agree: newAgreement(maphash.MakeSeed()), keys: keys}
	if err := a.walk(ctx, verifyWorkers, s.take, progress); err != nil {
		return Report{}, err
	}
	r := Report{
		Manifest: a.Manifest, Name: a.Name, Bytes: a.Size, SHA256: a.sum, Encrypted: a.Encrypted, Signed: a.Unsigned == nil, KID: a.KID,
		Disagree: []string{},
	}
	for _, t := range a.Manifest.Tables {
		if got := s.rows[t.Name]; got != t.Rows {
			return Report{}, fmt.Errorf("verify archive %s: %w: table %s has %d rows, and its manifest says %d", a.Name, ErrDamaged, t.Name, got, t.Rows)
		}
		r.Rows += t.Rows
	}
	chain, notes, err := a.verifyChain(ctx, &s)
	if err != nil {
		return Report{}, fmt.Errorf("verify the audit log in archive %s: %w", a.Name, err)
	}
	r.Audit = chain
	r.Disagree = append(append(r.Disagree, notes...), s.agree.check(a.Manifest.Without)...)
	return r, nil
}

// survey is what Verify notes of the chunks as they come.
type survey struct {
	mu     sync.Mutex
	rows   map[string]int64
	places map[string][]place // of the audit log's chunks
	agree  *agreement

	keys   []audit.Key
	lowest int64          // number of the first row of the audit log; 0: there is none
	pruned newestBoundary // that keys prove
	claim  newestBoundary // that no key at hand proves or disproves
}

// newestBoundary is what the entry of the highest number says of where the log begins.
type newestBoundary struct {
	audit.Boundary
	seq int64
}

func (n *newestBoundary) take(seq int64, b audit.Boundary, ok bool) {
	if ok && seq > n.seq {
		n.seq, n.Boundary = seq, b
	}
}

func (s *survey) take(p part) error {
	rows, err := store.DecodeRows(p.Raw)
	if err != nil {
		return damaged(err)
	}
	if rows.Table != p.Table {
		return fmt.Errorf("%w: a chunk of %s holds rows of %.60q", ErrDamaged, p.Table, rows.Table)
	}
	sums := newAgreement(s.agree.seed)
	add := sums.rows(p.Table, rows.Columns)
	n, lowest := int64(0), int64(0)
	var prunes []audit.Row
	seq, action := columnOf(rows.Columns, "seq"), columnOf(rows.Columns, "action")
	isLog := p.Table == logTable && min(seq, action) >= 0
	for rows.Next() {
		n++
		cells := rows.Cells()
		if add != nil {
			add(cells)
		}
		if !isLog {
			continue
		}
		if n == 1 {
			lowest = cells[seq].Int // they come in order
		}
		if string(cells[action].Bytes) == string(audit.Pruned) {
			if r, err := logRow(rows.Columns, cells); err == nil {
				prunes = append(prunes, r)
			}
		}
	}
	if rows.Err() != nil {
		return damaged(rows.Err())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows[p.Table] += n
	s.agree.merge(sums)
	if p.Table == logTable || p.Table == personalTable {
		list := s.places[p.Table]
		for len(list) <= p.N {
			list = append(list, place{})
		}
		list[p.N] = place{p.at, p.size}
		s.places[p.Table] = list
	}
	if isLog && n > 0 && p.N == 0 {
		s.lowest = lowest
	}
	for i := range prunes {
		b, ok := audit.ReadBoundary(&prunes[i], s.keys)
		s.pruned.take(prunes[i].Seq, b, ok)
		b, ok = audit.ClaimedBoundary(&prunes[i], s.keys)
		s.claim.take(prunes[i].Seq, b, ok)
	}
	return nil
}

func columnOf(columns []store.Column, name string) int {
	return slices.IndexFunc(columns, func(c store.Column) bool { return c.Name == name })
}
