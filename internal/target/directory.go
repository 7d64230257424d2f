package target

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// unfinished ends the names of files that are being written; they begin with a dot.
const unfinished = ".part"

// directory is a Target in the file system. Every access goes through os.Root, which nothing in it can lead out of.
type directory struct{ path string }

func openDirectory(location string, create bool) (Target, error) {
	dir, err := filepath.Abs(location)
	if err != nil {
		return nil, fmt.Errorf("find the directory %s: %w", location, err)
	}
	if create {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make the directory: %w", err)
		}
	}
	switch info, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no directory %s: make it (mkdir), or mount what should be there: %w", dir, fs.ErrNotExist)
	case err != nil:
		return nil, fmt.Errorf("look at the directory: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("%s is not a directory", dir)
	}
	return &directory{dir}, nil
}

func (d *directory) String() string { return d.path }

func (d *directory) Create(_ context.Context, name string) (Writer, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return nil, fmt.Errorf("open the directory: %w", err)
	}
	w := &fileWriter{root: root, name: name}
	if err := w.begin(); err != nil {
		return nil, errors.Join(fmt.Errorf("write into %s: %w", d.path, err), root.Close())
	}
	return w, nil
}

func (d *directory) Open(_ context.Context, name string) (Reader, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	f, err := os.OpenInRoot(d.path, filepath.FromSlash(name))
	if err != nil {
		return nil, fmt.Errorf("open in %s: %w", d.path, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("open %s in %s: not a file", name, d.path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &fileReader{f, info.Size()}, nil
}

// walk calls each for every regular file.
func (d *directory) walk(ctx context.Context, each func(name string, entry fs.DirEntry) error) error {
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return fmt.Errorf("open the directory: %w", err)
	}
	err = fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
			return nil
		case err != nil:
			return err
		case entry.IsDir() && name != "." && hidden(name):
			return fs.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		return each(name, entry)
	})
	return errors.Join(err, root.Close())
}

func (d *directory) List(ctx context.Context, prefix string, limit int) ([]Object, error) {
	if err := checkPrefix(prefix); err != nil {
		return nil, err
	}
	type found struct {
		name  string
		entry fs.DirEntry
	}
	var all []found
	err := d.walk(ctx, func(name string, entry fs.DirEntry) error {
		if strings.HasPrefix(name, prefix) && !hidden(name) {
			all = append(all, found{name, entry})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", d.path, err)
	}
	slices.SortFunc(all, func(a, b found) int { return cmp.Compare(a.name, b.name) })
	var out []Object
	for _, f := range all {
		if len(out) >= limit {
			break
		}
		info, err := f.entry.Info()
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("list %s: %w", d.path, err)
		default:
			out = append(out, Object{f.name, info.Size(), info.ModTime().UTC()})
		}
	}
	return out, nil
}

func (d *directory) Remove(_ context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return fmt.Errorf("open the directory: %w", err)
	}
	err = root.Remove(filepath.FromSlash(name))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = syncIn(root, path.Dir(name))
	}
	if err = errors.Join(err, root.Close()); err != nil {
		return fmt.Errorf("remove from %s: %w", d.path, err)
	}
	return nil
}

func (d *directory) Sweep(ctx context.Context, prefix string, before time.Time) error {
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	var dead []string
	err := d.walk(ctx, func(name string, entry fs.DirEntry) error {
		base, is := strings.CutPrefix(path.Base(name), ".")
		if !is || !strings.HasSuffix(base, unfinished) || !strings.HasPrefix(path.Join(path.Dir(name), base), prefix) {
			return nil
		}
		if info, err := entry.Info(); err == nil && info.ModTime().Before(before) {
			dead = append(dead, name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for unfinished files in %s: %w", d.path, err)
	}
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return fmt.Errorf("open the directory: %w", err)
	}
	for _, name := range dead {
		if gone := root.Remove(filepath.FromSlash(name)); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return errors.Join(err, root.Close())
}

// fileWriter writes under a temporary name beside the file's.
type fileWriter struct {
	root *os.Root
	name string
	temp string
	made string // the highest directory that it made; "" is none
	f    *os.File
	size int64
}

func (w *fileWriter) begin() error {
	dir := path.Dir(w.name)
	for at := dir; at != "." && at != "/"; at = path.Dir(at) {
		if _, err := w.root.Stat(filepath.FromSlash(at)); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		w.made = at
	}
	if err := w.root.MkdirAll(filepath.FromSlash(dir), 0o700); err != nil {
		return err
	}
	w.temp = path.Join(dir, "."+path.Base(w.name)+"."+strings.ToLower(rand.Text()[:10])+unfinished)
	f, err := w.root.OpenFile(filepath.FromSlash(w.temp), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	w.f = f
	return err
}

func (w *fileWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("write %s: %w", w.name, err)
	}
	return n, nil
}

func (w *fileWriter) Commit() error {
	if w.f == nil {
		return fmt.Errorf("commit %s: %w", w.name, fs.ErrClosed)
	}
	if err := w.commit(); err != nil {
		return errors.Join(fmt.Errorf("commit %s: %w", w.name, err), w.Close())
	}
	w.temp = ""
	return w.Close()
}

func (w *fileWriter) commit() error {
	if err := w.f.Sync(); err != nil {
		return err
	}
	info, err := w.f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != w.size {
		return fmt.Errorf("the file has %d bytes, %d were written", info.Size(), w.size)
	}
	if err := w.root.Rename(filepath.FromSlash(w.temp), filepath.FromSlash(w.name)); err != nil {
		return err
	}
	w.temp = w.name // what to take away when the rest fails
	for at := path.Dir(w.name); ; at = path.Dir(at) {
		if err := syncIn(w.root, at); err != nil {
			return err
		}
		if w.made == "" || at == path.Dir(w.made) || at == "." {
			return nil
		}
	}
}

// Close discards the file unless it was committed.
func (w *fileWriter) Close() error {
	if w.f == nil {
		return nil
	}
	err := w.f.Close()
	if w.temp != "" {
		if gone := w.root.Remove(filepath.FromSlash(w.temp)); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	w.f = nil
	return errors.Join(err, w.root.Close())
}

// syncIn makes the entries of a directory durable.
func syncIn(root *os.Root, dir string) error {
	f, err := root.Open(filepath.FromSlash(dir))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

type fileReader struct {
	*os.File
	size int64
}

func (r *fileReader) Size() int64 { return r.size }
