package custody

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
)

// fileAnchor keeps notes in files that only grow: one note a line, as a JSON text, so that a line which was not written
// whole spoils no other.
type fileAnchor struct {
	dir  string
	make bool // makes dir where it is missing; a directory that is mounted must be there
}

const (
	checkpointFiles = "checkpoints-"
	lineFile        = "lines.notes"
	noteSuffix      = ".notes"

	// tailBytes of a file hold the checkpoints of more than an hour: the newest are looked for there.
	tailBytes = 64 << 10
)

func (a *fileAnchor) String() string { return a.dir }

func (a *fileAnchor) histories(_ context.Context, _ string) ([]history, error) {
	if err := a.there(); err != nil {
		return nil, err
	}
	found, err := filepath.Glob(filepath.Join(escapeGlob(a.dir), "z4j", "*", "*"))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", a.dir, err)
	}
	var out []history
	for _, path := range found {
		instance, generation := filepath.Base(filepath.Dir(path)), filepath.Base(path)
		if len(instance) == 32 && len(generation) == 32 {
			out = append(out, history{instance, generation})
		}
	}
	return out, nil
}

// there reports an anchor that should be there and isn't, or can't be read. One that is ours to make may be missing.
func (a *fileAnchor) there() error {
	_, err := os.ReadDir(a.dir)
	if errors.Is(err, fs.ErrNotExist) && a.make {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read anchor: %w", err)
	}
	return nil
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

func (a *fileAnchor) files(h history) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(a.dir, filepath.FromSlash(h.path())))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, a.there()
	}
	if err != nil {
		return nil, fmt.Errorf("read anchor: %w", err)
	}
	var out []string
	for _, e := range slices.Backward(entries) { // the newest month first
		if strings.HasPrefix(e.Name(), checkpointFiles) && strings.HasSuffix(e.Name(), noteSuffix) {
			out = append(out, filepath.Join(a.dir, filepath.FromSlash(h.path()), e.Name()))
		}
	}
	return out, nil
}

func (a *fileAnchor) checkpoints(_ context.Context, h history, most int64, accept func(string) bool) ([]string, error) {
	files, err := a.files(h)
	if err != nil {
		return nil, err
	}
	for _, path := range files {
		for _, whole := range []bool{false, true} { // a history that went far beyond its fork fills the tail
			notes, err := readNotes(path, whole)
			if err != nil {
				return nil, err
			}
			notes = slices.DeleteFunc(notes, func(n string) bool { size := sizeOf(n); return size < 0 || size > most })
			if notes = newestTaken(notes, accept); len(notes) > 0 {
				return notes, nil
			}
		}
	}
	return nil, nil
}

// newestTaken returns the newest notes that accept takes: what stands between them hides none.
func newestTaken(notes []string, accept func(string) bool) (out []string) {
	slices.SortStableFunc(notes, func(a, b string) int { return cmp.Compare(sizeOf(b), sizeOf(a)) })
	for _, n := range notes {
		if len(out) == mostWeighed {
			break
		}
		if accept(n) {
			out = append(out, n)
		}
	}
	return out
}

// sizeOf is the size that a note says, which is not proved; below 0: it is none of a checkpoint.
func sizeOf(note string) int64 {
	lines := strings.SplitN(note, "\n", 3)
	if audit.IsLine(note) || len(lines) < 3 {
		return -1
	}
	n, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return -1
	}
	return n
}

func (a *fileAnchor) putCheckpoint(_ context.Context, h history, _ int64, at time.Time, note string) error {
	return a.append(h, checkpointFiles+at.UTC().Format("200601")+noteSuffix, note)
}

func (a *fileAnchor) lines(_ context.Context, h history, after int64) ([]string, error) {
	if err := a.there(); err != nil {
		return nil, err
	}
	notes, err := readNotes(filepath.Join(a.dir, filepath.FromSlash(h.path()), lineFile), true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return slices.DeleteFunc(notes, func(n string) bool { return seqOf(n) <= after }), err
}

// seqOf is the number of the entry that the note of a line says, which is not proved; 0: it is none.
func seqOf(note string) int64 {
	lines := strings.SplitN(note, "\n", 3)
	if !audit.IsLine(note) || len(lines) < 3 {
		return 0
	}
	n, _ := strconv.ParseInt(lines[1], 10, 64) // 0 where it is none
	return n
}

func (a *fileAnchor) lastLine(ctx context.Context, h history, accept func(string) bool) (int64, error) {
	notes, err := a.lines(ctx, h, 0)
	slices.SortStableFunc(notes, func(a, b string) int { return cmp.Compare(seqOf(b), seqOf(a)) })
	for _, n := range notes {
		if accept(n) {
			return seqOf(n), err
		}
	}
	return 0, err
}

func (a *fileAnchor) putLine(_ context.Context, h history, _ int64, _ int, note string) error {
	return a.append(h, lineFile, note)
}

// append writes a note behind the others and returns when it is on the disk.
func (a *fileAnchor) append(h history, name, note string) (err error) {
	if err := a.there(); err != nil {
		return err
	}
	dir := filepath.Join(a.dir, filepath.FromSlash(h.path()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make anchor: %w", err)
	}
	line, err := json.Marshal(note)
	if err != nil {
		return fmt.Errorf("write into anchor: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600) //nolint:gosec // below the anchor.
	if err != nil {
		return fmt.Errorf("open anchor: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at anchor: %w", err)
	}
	line = append(line, '\n')
	if torn(f, info.Size()) {
		line = append([]byte{'\n'}, line...)
	}
	if _, err := f.Write(line); err != nil {
		return fmt.Errorf("write into anchor: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write into anchor: %w", err)
	}
	if info.Size() > 0 {
		return nil
	}
	for d := dir; len(d) >= len(filepath.Dir(a.dir)) && d != filepath.Dir(d); d = filepath.Dir(d) { // the names are new, too
		if err := syncDir(d); err != nil {
			return err
		}
	}
	return nil
}

// torn reports whether the last line of f was not written whole.
func torn(f *os.File, size int64) bool {
	var last [1]byte
	if size == 0 {
		return false
	}
	_, err := f.ReadAt(last[:], size-1)
	return err != nil || last[0] != '\n'
}

func syncDir(path string) error {
	d, err := os.Open(path) //nolint:gosec // below the anchor.
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// readNotes reads the notes at the end of a file, or all. Lines that hold none are left out.
func readNotes(path string, whole bool) ([]string, error) {
	f, err := os.Open(path) //nolint:gosec // below the anchor.
	if err != nil {
		return nil, fmt.Errorf("read anchor: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read anchor: %w", err)
	}
	from := int64(0)
	if !whole {
		from = max(0, info.Size()-tailBytes)
	}
	text := make([]byte, info.Size()-from)
	if n, err := f.ReadAt(text, from); int64(n) < int64(len(text)) {
		return nil, fmt.Errorf("read anchor %s: %w", path, err)
	}
	var notes []string
	for line := range strings.Lines(string(text)) {
		var note string
		if json.Unmarshal([]byte(line), &note) == nil && note != "" {
			notes = append(notes, note)
		}
	}
	return notes, nil
}
