package custody

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/z4j-go/z4j/internal/target"
)

// bucketAnchor keeps each note as an object of its own. Names count down, so that the first of a list is the newest.
type bucketAnchor struct {
	target.Target

	marked sync.Map // histories that are known to be listed
}

const (
	countdown = 1_000_000_000_000_000 // more than there will be rows
	maxNote   = 1 << 20               // bytes

	// beyondFork is how many checkpoints of an ended history are looked through for the newest before its end: those that
	// were signed between the moment that was restored to and the loss.
	beyondFork = 100_000
)

func down(n int64) string { return fmt.Sprintf("%016d", countdown-n) }

// up is the number in the name of an object; below 0: it is none of ours.
func up(name string) int64 {
	digits, _, _ := strings.Cut(path.Base(name), "-")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || digits != down(countdown-n) {
		return -1
	}
	return countdown - n
}

func (a *bucketAnchor) histories(ctx context.Context, instance string) ([]history, error) {
	ctx, cancel := context.WithTimeout(ctx, reach)
	defer cancel()
	found, err := a.List(ctx, "z4j/"+instance+"/generations/", 1000)
	if err != nil {
		return nil, fmt.Errorf("list generations: %w", err)
	}
	var out []history
	for _, o := range found {
		out = append(out, history{instance, path.Base(o.Name)})
	}
	return out, nil
}

func (a *bucketAnchor) checkpoints(ctx context.Context, h history, most int64, accept func(string) bool) ([]string, error) {
	note, err := a.first(ctx, h.path()+"/checkpoints/", most, sizeOf, accept)
	if err != nil || note == "" {
		return nil, err
	}
	return []string{note}, nil
}

// strangeObjects is how many objects that are no notes of ours are read, and passed over, in one look.
const strangeObjects = 200

var errStrange = errors.New("too many objects that this installation did not sign come first: remove them")

// first returns the first note below a prefix whose number is at most a given one and that accept takes, "" if there is
// none. Objects that somebody else put there, or copies of ours under other names, are passed over: they must not hide one.
func (a *bucketAnchor) first(ctx context.Context, prefix string, most int64, number func(string) int64, accept func(string) bool) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, reach)
	defer cancel()
	looked := map[string]bool{}
	for _, limit := range []int{1, 1000, beyondFork} {
		found, err := a.List(ctx, prefix, limit)
		if err != nil {
			return "", fmt.Errorf("list %s: %w", prefix, err)
		}
		for _, o := range found {
			if n := up(o.Name); n < 0 || n > most || o.Size > maxNote || looked[o.Name] {
				continue
			}
			if len(looked) == strangeObjects {
				return "", fmt.Errorf("list %s: %w", prefix, errStrange)
			}
			looked[o.Name] = true
			note, err := a.read(ctx, o)
			if err != nil {
				return "", err
			}
			if number(note) == up(o.Name) && accept(note) {
				return note, nil
			}
		}
		if len(found) < limit {
			break
		}
	}
	return "", nil
}

func (a *bucketAnchor) read(ctx context.Context, o target.Object) (text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, reach)
	defer cancel()
	if o.Size > maxNote {
		return "", fmt.Errorf("read %s: %d bytes are no note", o.Name, o.Size)
	}
	r, err := a.Open(ctx, o.Name)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", o.Name, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	b := make([]byte, min(r.Size(), maxNote))
	if n, err := r.ReadAt(b, 0); n < len(b) && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read %s: %w", o.Name, err)
	}
	return string(b), nil
}

func (a *bucketAnchor) putCheckpoint(ctx context.Context, h history, size int64, _ time.Time, note string) error {
	ctx, cancel := context.WithTimeout(ctx, reach)
	defer cancel()
	if err := a.mark(ctx, h, note); err != nil {
		return err
	}
	return a.put(ctx, h.path()+"/checkpoints/"+down(size), note)
}

// mark lists a history under a name that does not need all notes to be read.
func (a *bucketAnchor) mark(ctx context.Context, h history, note string) error {
	if _, ok := a.marked.Load(h); ok {
		return nil
	}
	name := "z4j/" + h.instance + "/generations/" + h.generation
	found, err := a.List(ctx, name, 1)
	if err == nil && len(found) == 0 {
		err = a.put(ctx, name, note)
	}
	if err == nil {
		a.marked.Store(h, true)
	}
	return err
}

func (a *bucketAnchor) put(ctx context.Context, name, note string) (err error) {
	w, err := a.Create(ctx, name)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if _, err := io.WriteString(w, note); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := w.Commit(); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func (a *bucketAnchor) lines(ctx context.Context, h history, after int64) ([]string, error) {
	found, err := a.newestLines(ctx, h, after)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, o := range found {
		note, bad := a.read(ctx, o)
		if bad == nil {
			out = append(out, note)
		}
		if err = cmp.Or(err, bad); errors.Is(bad, context.DeadlineExceeded) {
			break // the rest would not be answered, either
		}
	}
	return out, err
}

// newestLines lists the lines of entries behind a number; most of the time that are few.
func (a *bucketAnchor) newestLines(ctx context.Context, h history, after int64) (out []target.Object, err error) {
	ctx, cancel := context.WithTimeout(ctx, reach)
	defer cancel()
	for _, limit := range []int{100, beyondFork} {
		found, err := a.List(ctx, h.path()+"/lines/", limit)
		if err != nil {
			return nil, fmt.Errorf("list lines: %w", err)
		}
		out = nil
		older := false
		for _, o := range found {
			n := up(o.Name)
			switch {
			case n < 0 || o.Size > maxNote: // nobody of ours wrote it
			case n <= after:
				older = true
			default:
				out = append(out, o)
			}
		}
		if older || len(found) < limit {
			break
		}
	}
	return out, nil
}

func (a *bucketAnchor) lastLine(ctx context.Context, h history, accept func(string) bool) (int64, error) {
	note, err := a.first(ctx, h.path()+"/lines/", countdown, seqOf, accept)
	if errors.Is(err, errStrange) {
		return 0, nil // all are written once more, under the same names
	}
	return seqOf(note), err
}

func (a *bucketAnchor) putLine(ctx context.Context, h history, seq int64, part int, note string) error {
	ctx, cancel := context.WithTimeout(ctx, reach)
	defer cancel()
	if err := a.mark(ctx, h, note); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(note)) // an entry of a log that was set back must not take the place of the one that was lost
	return a.put(ctx, h.path()+"/lines/"+down(seq)+fmt.Sprintf("-%04d-%x", part, sum[:8]), note)
}
