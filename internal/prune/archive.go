package prune

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
)

// archive is the file of a prune.
type archive struct {
	place target.Target
	name  string
	first int64
	last  int64
	found *audit.FileReport // an interrupted run left it, proved; nil: it is yet to be written
}

func (a *archive) location() string { return join(a.place.String(), a.name) }

func join(place, name string) string {
	if strings.Contains(place, "://") {
		return strings.TrimSuffix(place, "/") + "/" + name
	}
	return path.Join(place, name)
}

// split is join taken apart.
func split(location string) (place, name string) {
	at := strings.LastIndexByte(location, '/')
	switch {
	case at < 0:
		return ".", location
	case at == 0:
		return "/", location[1:]
	}
	return location[:at], location[at+1:]
}

// openArchive finds the place and the name of the archive. A file that a run left which was killed before it recorded it
// is taken: then its rows are those that go.
func (r *run) openArchive(ctx context.Context, first, last int64) (*archive, error) {
	place, err := r.Open(ctx, r.Place)
	if err != nil {
		return nil, fmt.Errorf("open the place of the archive: %w", err)
	}
	generation, err := r.Store.Generation(ctx)
	if err != nil {
		return nil, err
	}
	a := &archive{place: place, name: r.Name, first: first, last: last}
	if a.name == "" {
		prefix := fmt.Sprintf("audit-%s-%d-", generation, first)
		a.name = fmt.Sprintf("%s%d.%s", prefix, last, r.Format)
		left, err := place.List(ctx, prefix, 100)
		if err != nil {
			return nil, fmt.Errorf("look for an archive that was begun: %w", err)
		}
		for _, o := range left {
			if strings.HasSuffix(o.Name, "."+string(r.Format)) {
				a.name = o.Name
			}
		}
	}
	in, err := place.Open(ctx, a.name)
	if isMissing(err) {
		return a, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for an archive that was begun: %w", err)
	}
	defer in.Close()
	report, err := audit.VerifyFile(reader(in), r.Store.AuditKeys(), nil)
	e := report.Exported
	if err != nil || e == nil || !r.fits(&report) || e.First != first || e.Last > last || e.Generation != generation {
		return nil, fmt.Errorf("%w: %s: move it away or choose another name", ErrExists, a.location())
	}
	a.last, a.found = e.Last, &report
	return a, nil
}

// fits reports whether a file is proved as far as it has to be.
func (r *run) fits(report *audit.FileReport) bool {
	e := report.Exported
	code := report.Exit()
	return e != nil && e.Contiguous && report.Exist == report.Checked && report.First == nil &&
		(code == audit.ExitProved || code == audit.ExitUnprovable && r.AcceptUnprovable)
}

// archive writes the file with its manifest, reads it back, and proves it.
func (r *run) archive(ctx context.Context, a *archive, prefix *store.Prefix) (audit.Archive, error) {
	if a.found == nil {
		e, err := r.Store.ExportAudit(ctx, r.Format, store.ExportFilter{Through: a.last}, r.By)
		if err != nil {
			return audit.Archive{}, err
		}
		if e.First != a.first || e.Last != a.last {
			return audit.Archive{}, fmt.Errorf("the log begins with row %d now, not with %d: begin again", e.First, a.first)
		}
		err = write(ctx, a, func(w io.Writer) error {
			return e.Write(ctx, w, func(done, total int64) { r.Progress("written", done, total) })
		})
		if err != nil {
			return audit.Archive{}, err
		}
		r.Step("exported")
	}
	named, err := r.readBack(ctx, a, prefix)
	if err != nil {
		return audit.Archive{}, err
	}
	manifest, err := json.MarshalIndent(map[string]any{
		"file": a.name, "format": r.Format, "generation": named.Generation, "first": named.First, "last": named.Last, "rows": named.Last - named.First + 1,
		"prev_row_hmac": prefixPrev(a.found), "row_hmac": prefix.Last.RowHMAC, "sha256": named.SHA256, "exported_seq": a.found.Exported.Seq,
	}, "", "  ")
	if err != nil {
		return audit.Archive{}, fmt.Errorf("write manifest: %w", err)
	}
	beside := *a
	beside.name += ".manifest.json"
	return named, write(ctx, &beside, func(w io.Writer) error {
		_, err := w.Write(append(manifest, '\n'))
		return err
	})
}

func prefixPrev(report *audit.FileReport) any {
	if report.Exported.PrevRowHMAC == "" {
		return nil
	}
	return report.Exported.PrevRowHMAC
}

// write makes a file whole and durable, or not at all.
func write(ctx context.Context, a *archive, fill func(io.Writer) error) (err error) {
	w, err := a.place.Create(ctx, a.name)
	if err != nil {
		return fmt.Errorf("create %s: %w", a.location(), err)
	}
	defer func() {
		if closed := w.Close(); err == nil && closed != nil {
			err = fmt.Errorf("close %s: %w", a.location(), closed)
		}
	}()
	if err := fill(w); err != nil {
		return fmt.Errorf("write %s: %w", a.location(), err)
	}
	if err := w.Commit(); err != nil {
		return fmt.Errorf("write %s: %w", a.location(), err)
	}
	return nil
}

// readBack proves the file that was written, as it lies there.
func (r *run) readBack(ctx context.Context, a *archive, prefix *store.Prefix) (audit.Archive, error) {
	in, err := a.place.Open(ctx, a.name)
	if err != nil {
		return audit.Archive{}, fmt.Errorf("read %s back: %w", a.location(), err)
	}
	defer in.Close()
	var last string
	report, err := audit.VerifyFile(reader(in), r.Store.AuditKeys(), func(record *audit.FileRecord) error {
		if record.Seq == a.last {
			last = record.RowHMAC
		}
		return nil
	})
	if err != nil {
		return audit.Archive{}, fmt.Errorf("read %s back: %w", a.location(), err)
	}
	e := report.Exported
	if !r.fits(&report) || e.First != a.first || e.Last != a.last || last != prefix.Last.RowHMAC {
		return audit.Archive{}, fmt.Errorf("%w: %s as it was read back: %s", ErrUnproved, a.location(), report.Summary)
	}
	a.found = &report
	sum, err := digest(in)
	if err != nil {
		return audit.Archive{}, fmt.Errorf("read %s back: %w", a.location(), err)
	}
	return audit.Archive{Location: a.location(), First: e.First, Last: e.Last, Generation: e.Generation, SHA256: sum}, nil
}

// compare opens an archive that an entry names and compares it with what the entry says.
func (r *run) compare(ctx context.Context, a *audit.Archive) error {
	dir, name := split(a.Location)
	place, err := r.Open(ctx, dir)
	if err != nil {
		return fmt.Errorf("%w: open %s, which is wanted: %w", ErrArchive, a.Location, err)
	}
	in, err := place.Open(ctx, name)
	if err != nil {
		return fmt.Errorf("%w: open %s, which is wanted: %w", ErrArchive, a.Location, err)
	}
	defer in.Close()
	sum, err := digest(in)
	if err != nil {
		return fmt.Errorf("%w: read %s: %w", ErrArchive, a.Location, err)
	}
	if sum != a.SHA256 {
		return fmt.Errorf("%w: SHA-256 of %s is %s, and was %s when it was written", ErrArchive, a.Location, sum, a.SHA256)
	}
	return nil
}

func digest(in target.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, reader(in)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// readSize is how much is read at once: of an object store each read is a request.
const readSize = 4 << 20 // bytes

// reader reads in in large pieces.
func reader(in target.Reader) io.ReadSeeker {
	return &pieces{in: in}
}

type pieces struct {
	in   target.Reader
	at   int64
	have bytes.Reader
	buf  []byte
}

// Read implements io.Reader.
func (p *pieces) Read(b []byte) (int, error) {
	if p.have.Len() == 0 {
		if p.buf == nil {
			p.buf = make([]byte, readSize)
		}
		n, err := p.in.ReadAt(p.buf, p.at)
		if n == 0 {
			return 0, err
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		p.at += int64(n)
		p.have.Reset(p.buf[:n])
	}
	return p.have.Read(b)
}

// Seek implements io.Seeker, for the beginning alone.
func (p *pieces) Seek(offset int64, whence int) (int64, error) {
	if offset != 0 || whence != io.SeekStart {
		return 0, errors.New("only the beginning can be sought")
	}
	p.at = 0
	p.have.Reset(nil)
	return 0, nil
}
