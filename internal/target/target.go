// Package target is a place for files: a directory or a bucket of an S3 server.
//
// A file is there whole and durable, or not at all. Names are relative to the place and can't leave it.
package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// ErrName says that a name is none of a file in a target: it is absolute, leaves the place, or is one of a hidden file.
var ErrName = errors.New("not a name of a file in a target")

// A Target is where files are kept. What is not there is fs.ErrNotExist in errors of Open.
type Target interface {
	// Create begins a file. It is seen under its name, and replaces an older one, when Commit succeeds.
	Create(ctx context.Context, name string) (Writer, error)
	Open(ctx context.Context, name string) (Reader, error)
	// List gives at most limit files whose names begin with prefix, in the order of the bytes of their names.
	List(ctx context.Context, prefix string, limit int) ([]Object, error)
	// Remove takes a file away; one that is not there is none to complain of.
	Remove(ctx context.Context, name string) error
	// Sweep discards what was begun under names with prefix, and neither committed nor written to since before.
	Sweep(ctx context.Context, prefix string, before time.Time) error
	// String names the place, without secrets.
	String() string
}

// A Writer takes the bytes of one file.
type Writer interface {
	io.Writer
	// Commit makes the file visible, whole and durable. After an error it is not there.
	Commit() error
	// Close discards what was not committed.
	Close() error
}

// A Reader gives the bytes of one file from anywhere in it.
type Reader interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Object is a file as List tells it.
type Object struct {
	Name     string
	Size     int64
	Modified time.Time
}

// Options say how a place is reached.
type Options struct {
	// Make makes a directory that is not there, but not the one above it.
	Make bool
	// Unread lets Commit believe an S3 server as to long files: the caller reads the file anyway.
	Unread bool
	S3     S3
}

// S3 says how s3:// locations are reached. Without an access key the variables and files of AWS and, on AWS, the role of
// the machine are asked.
type S3 struct {
	Endpoint        string // https://host[:port], or http:// for a server nearby; "" is AWS
	Region          string
	AccessKeyID     string
	SecretAccessKey string
	Retries         int // of one request; 0 is 5
}

// String hides the secret.
func (s S3) String() string { return "S3 at " + s.Endpoint }

// GoString hides the secret.
func (s S3) GoString() string { return s.String() }

// LogValue hides the secret.
func (s S3) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Open returns the place that a location names: a directory or s3://bucket/prefix. Nothing is written.
func Open(ctx context.Context, location string, o Options) (Target, error) {
	scheme, rest, is := strings.Cut(location, "://")
	switch {
	case location == "":
		return nil, errors.New("the location is empty: give a directory or s3://bucket/prefix")
	case !is:
		return openDirectory(location, o.Make)
	case scheme == "s3":
		return openBucket(ctx, rest, o)
	}
	return nil, fmt.Errorf("%s:// is no place for files: give a directory or s3://bucket/prefix", scheme)
}

// DirectoryOf is the directory that t is, "" if it is none of this machine's.
func DirectoryOf(t Target) string {
	if d, is := t.(*directory); is {
		return d.path
	}
	return ""
}

// NameOf is what the Target of a location calls itself.
func NameOf(location string) string {
	if rest, is := strings.CutPrefix(location, "s3://"); is {
		name, prefix, _ := strings.Cut(rest, "/")
		return bucketName(name, strings.Trim(prefix, "/"))
	}
	if dir, err := filepath.Abs(location); err == nil {
		return dir
	}
	return location
}

func bucketName(name, prefix string) string { return strings.TrimSuffix("s3://"+name+"/"+prefix, "/") }

// longestName is what a name may have in bytes: a directory's entry ends at 255, and temporary ones are longer than theirs.
const longestName = 200

// checkName refuses what is not a plain relative path.
func checkName(name string) error {
	if !fs.ValidPath(name) || name == "." || len(name) > longestName {
		return fmt.Errorf("%w: %.80q", ErrName, name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part[0] == '.' {
			return fmt.Errorf("%w: %q", ErrName, name)
		}
	}
	for _, c := range name {
		if c < ' ' || c == 0x7f || c == '\\' || c == 0xfffd {
			return fmt.Errorf("%w: %q", ErrName, name)
		}
	}
	return nil
}

// checkPrefix refuses what no name can begin with.
func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	if err := checkName(strings.TrimSuffix(prefix, "/")); err != nil {
		return fmt.Errorf("prefix: %w", err)
	}
	return nil
}

// hidden reports whether a path has a part that no name of ours has.
func hidden(name string) bool {
	return strings.HasPrefix(path.Base(name), ".") || strings.Contains(name, "/.") || strings.HasPrefix(name, ".")
}
