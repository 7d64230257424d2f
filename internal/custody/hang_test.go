package custody_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/target"
)

// hanging makes a directory anchor hang, whose histories hold a file that never opens, as a server's that went away.
func hanging(t *testing.T, dir string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "z4j", "*", "*", "*.notes"))
	if err != nil || len(found) == 0 {
		t.Fatalf("%v, %v; want the files of an anchor", found, err)
	}
	for _, path := range found {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { // whoever waits goes on
			if f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0); err == nil {
				_ = f.Close()
			}
		})
	}
}

// silent is an S3 server that takes connections and never answers.
func silent(t *testing.T) target.Options {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return target.Options{S3: target.S3{Endpoint: "http://" + l.Addr().String(), Region: "us-east-1", AccessKeyID: "k", SecretAccessKey: "s"}}
}

// TestAnchorsThatHangHoldNobodyUp: a checkpoint is signed and stands in the home, and lines of what was revoked come to the
// anchors that answer, while a directory and a bucket never do; that is told.
func TestAnchorsThatHangHoldNobodyUp(t *testing.T) {
	l := &lab{url: storetest.SQLite(t), home: t.TempDir()}
	hangs, fine := t.TempDir(), t.TempDir()
	l.anchors = []string{hangs, fine}
	first := l.start(t)
	first.change(t, 2)
	first.sign(t)
	first.stop(t)
	hanging(t, hangs)
	l.anchors = []string{hangs, "s3://nobody/there", fine}
	o := silent(t)
	began := time.Now()
	b := l.start(t, func(c *custody.Options) { c.Target = o })
	a := b.populate(t) // signs, and looks
	b.end(t, &a)
	if took := time.Since(began); took > 12*time.Second {
		t.Errorf("two checkpoints and two looks took %s, want them not to wait for anchors that hang", took)
	}
	for name, reader := range map[string]custody.Options{"the home": {Home: l.home}, "a directory that answers": {Anchors: []string{fine}}} {
		reader.Store, reader.Now, reader.ReadOnly = b.Store, time.Now, true
		c := custody.New(reader)
		instance, err := b.Instance(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		list, err := c.Checkpoints(t.Context())
		if head, bad := b.AuditHead(t.Context()); bad != nil || err != nil || len(list) == 0 || list[len(list)-1].Size != head.Seq {
			t.Errorf("%s: checkpoints %+v, %v; want the whole log", name, list, err)
		}
		if lines, err := c.Lines(t.Context(), instance); err != nil || len(lines) != 3 {
			t.Errorf("%s: %d lines, %v; want 3", name, len(lines), err)
		}
	}
	got := map[string]custody.Fault{}
	for _, trouble := range b.Troubles() {
		got[trouble.Anchor] = trouble.Fault
	}
	if got["1"] != custody.Silent || got["2"] != custody.Silent || len(got) != 2 {
		t.Errorf("troubles %v, want the first two silent", got)
	}
}

// TestTroublesAreTold of anchors that can't be reached, contradict, or hold what a copy signed, without secrets.
func TestTroublesAreTold(t *testing.T) {
	l := &lab{url: storetest.SQLite(t), home: t.TempDir()}
	other := &lab{url: storetest.SQLite(t), home: t.TempDir(), anchors: []string{t.TempDir()}}
	other.run(t, 2)
	l.anchors = []string{"/nonexistent/anchor", "s3://key:hush@bucket/prefix", other.anchors[0], filepath.Join(t.TempDir(), "file")}
	if err := os.WriteFile(l.anchors[3], nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := l.run(t, 3)
	found, err := b.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unreadable := 0
	for i := range found {
		if found[i].Fault == custody.Unreadable {
			unreadable++
		}
		if text := found[i].String(); strings.Contains(text, "hush") || found[i].Since.IsZero() {
			t.Errorf("%q, since %s: want no secret and a time", text, found[i].Since)
		}
	}
	if unreadable != 3 {
		t.Errorf("troubles %+v, want three unreadable anchors: another installation's notes are none of ours", found)
	}
	if labels := b.Labels(); len(labels) != 5 || labels[0] != "home" || labels[4] != "4" {
		t.Errorf("labels %v, want home, 1 to 4", labels)
	}
}
