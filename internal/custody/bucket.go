package custody

import (
	"context"
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

func up(name string) int64 {
	digits, _, _ := strings.Cut(path.Base(name), "-")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
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

func (a *bucketAnchor) checkpoints(ctx context.Context, h history, most int64) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, reach)
	defer cancel()
	for _, limit := range []int{1, beyondFork} {
		found, err := a.List(ctx, h.path()+"/checkpoints/", limit)
		if err != nil {
			return nil, fmt.Errorf("list checkpoints: %w", err)
		}
		for _, o := range found {
			if size := up(o.Name); size < 0 || size > most {
				continue
			}
			note, err := a.read(ctx, o)
			if err != nil {
				return nil, err
			}
			return []string{note}, nil
		}
		if len(found) < limit {
			break
		}
	}
	return nil, nil
}

func (a *bucketAnchor) read(ctx context.Context, o target.Object) (text string, err error) {
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
	found, err := a.List(ctx, h.path()+"/lines/", beyondFork)
	if err != nil {
		return nil, fmt.Errorf("list lines: %w", err)
	}
	var out []string
	for _, o := range found {
		if up(o.Name) <= after {
			break
		}
		note, err := a.read(ctx, o)
		if err != nil {
			return nil, err
		}
		out = append(out, note)
	}
	return out, nil
}

func (a *bucketAnchor) lastLine(ctx context.Context, h history) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, reach)
	defer cancel()
	found, err := a.List(ctx, h.path()+"/lines/", 1)
	if err != nil || len(found) == 0 {
		return 0, err
	}
	return max(0, up(found[0].Name)), nil
}

func (a *bucketAnchor) putLine(ctx context.Context, h history, seq int64, part int, note string) error {
	ctx, cancel := context.WithTimeout(ctx, reach)
	defer cancel()
	if err := a.mark(ctx, h, note); err != nil {
		return err
	}
	return a.put(ctx, h.path()+"/lines/"+down(seq)+"-"+fmt.Sprintf("%04d", part), note)
}
