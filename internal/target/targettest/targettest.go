// Package targettest gives tests a real S3 server, and a way to have it lose and break things.
package targettest

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/z4j-go/z4j/internal/store/storetest"
	"github.com/z4j-go/z4j/internal/target"
)

const (
	module    = "github.com/versity/versitygw/cmd/versitygw"
	version   = "v1.8.0"
	readyIn   = 20 * time.Second
	accessKey = "z4jtests"
	region    = "us-east-1"
)

// keeper runs the server and ends it, and what it kept, when its input ends: with this process, however that ends.
const keeper = `
trap '' INT HUP TERM
"$SERVER" --quiet --port "$ADDRESS" posix --sidecar "$DIR/sidecar" "$DIR/data" >"$DIR/log" 2>&1 &
server=$!
echo started
cat >/dev/null
kill -9 $server 2>/dev/null
wait $server 2>/dev/null
cd / && rm -rf "$DIR"
`

// server is a running S3 server; it runs as long as input is open.
type server struct {
	address string
	dir     string
	secret  string
	input   io.Closer
}

// started starts at most one server per test process. It is global since nothing that ends with a test may own it.
var started = sync.OnceValues(start)

// Bucket makes an empty bucket of a test's own, and returns its location, how it is reached, and the directory in which the
// server keeps it.
func Bucket(t testing.TB) (location string, o target.Options, dir string) {
	t.Helper()
	s, err := started()
	if err != nil {
		t.Fatalf("no S3 server for the tests: %v", err)
	}
	o.S3 = target.S3{Endpoint: "http://" + s.address, Region: region, AccessKeyID: accessKey, SecretAccessKey: s.secret, Retries: 2}
	name := "test-" + strings.ToLower(rand.Text())
	client, err := minio.New(s.address, &minio.Options{Creds: credentials.NewStaticV4(accessKey, s.secret, ""), Region: region})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.MakeBucket(t.Context(), name, minio.MakeBucketOptions{}); err != nil {
		t.Fatalf("make a bucket: %v", err)
	}
	return "s3://" + name, o, filepath.Join(s.dir, "data", name)
}

// Proxy returns how the server of o is reached through a proxy that does with every request what fault does: forward
// passes it on and returns the answer, which nobody has seen yet.
func Proxy(t testing.TB, o target.Options, fault func(w http.ResponseWriter, r *http.Request, forward func())) target.Options {
	t.Helper()
	u, err := url.Parse(o.S3.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	pass := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(u)
		r.Out.Host = r.In.Host // it is signed
	}, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front := &http.Server{ReadHeaderTimeout: readyIn, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault(w, r, func() { pass.ServeHTTP(w, r) })
	})}
	done := make(chan error, 1) // one answer of Serve
	go func() { done <- front.Serve(listener) }()
	t.Cleanup(func() {
		if err := front.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	o.S3.Endpoint = "http://" + listener.Addr().String()
	return o
}

func start() (*server, error) {
	binary, err := binary()
	if err != nil {
		return nil, err
	}
	var errs []error
	for range 3 { // another process may take the port between our look and the start
		s, err := run(binary)
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func run(binary string) (*server, error) {
	dir, err := os.MkdirTemp("", "z4j-s3-")
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"data", "sidecar"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{address: l.Addr().String(), dir: dir, secret: rand.Text()}
	if err := l.Close(); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.Background(), "/bin/sh", "-c", keeper)
	cmd.Env = append(os.Environ(), "DIR="+dir, "SERVER="+binary, "ADDRESS="+s.address, "ROOT_ACCESS_KEY="+accessKey, "ROOT_SECRET_KEY="+s.secret)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if s.input, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the keeper of an S3 server: %w", err)
	}
	if _, err := bufio.NewReader(output).ReadString('\n'); err != nil {
		return nil, fmt.Errorf("start an S3 server: %w", err)
	}
	if err := s.await(); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, log), s.input.Close(), cmd.Wait())
	}
	return s, nil
}

// await returns when the server answers.
func (s *server) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyIn)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+"/", http.NoBody)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			return res.Body.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the S3 server does not answer: %w", err)
		case <-tick.C:
		}
	}
}

// binary builds the server into the cache, once. It is no dependency of ours.
func binary() (string, error) {
	cache, err := storetest.CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "tools", "versitygw-"+version)
	path := filepath.Join(dir, "versitygw")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil { // ends with the file
		return "", err
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	cmd := exec.CommandContext(context.Background(), "go", "install", module+"@"+version)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-mod=mod", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s@%s (go install): %w\n%s", module, version, err, out)
	}
	return path, nil
}
