package apptest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/config"
)

// serveName is what tells a test binary that it is to be a brain; its value is the time that the brain's clock shows.
const serveName = "APPTEST_SERVE_AT"

// Main is m.Run for packages whose tests call Serve: where Serve started this process it is a brain instead.
func Main(m *testing.M) int {
	at := os.Getenv(serveName)
	if at == "" {
		return m.Run()
	}
	if err := serve(at); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// serve runs a brain until the standard input ends, so that it never outlives its test.
func serve(at string) error {
	start, err := time.Parse(time.RFC3339Nano, at)
	if err != nil {
		return err
	}
	var environ []string
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, "Z4J_") {
			environ = append(environ, e)
		}
	}
	c, err := config.Load(config.Input{Environ: environ, Hostname: "apptest"})
	if err != nil {
		return err
	}
	ctx := context.Background()
	b, err := app.Start(ctx, app.Options{Config: c, Version: "1.2.3-test", Now: NewClock(start).Now, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	fmt.Println(b.URL())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return b.Stop(ctx)
}

// Server is a brain in a process of its own, which a test may kill.
type Server struct {
	URL    string
	Client *Client // not logged in

	t       testing.TB
	command *exec.Cmd
	input   io.Closer
	out     *lockedBuffer
}

// Serve starts this test binary again, as a brain whose clock shows what clock shows. The package's TestMain has to call
// Main. Name o.Home and o.Database to start another one on them.
func Serve(t testing.TB, o Options, clock *Clock) *Server {
	t.Helper()
	s := &Server{t: t, out: &lockedBuffer{}, command: exec.Command(os.Args[0])}
	s.command.Dir, s.command.Stderr = t.TempDir(), s.out
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "Z4J_") {
			s.command.Env = append(s.command.Env, e)
		}
	}
	s.command.Env = append(append(s.command.Env, Environ(t, o)...), serveName+"="+clock.Now().Format(time.RFC3339Nano))
	output, err := s.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if s.input, err = s.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.input.Close()
		_ = s.command.Wait()
		if t.Failed() {
			t.Logf("the brain's log:\n%s", tail(s.out.String(), 20_000))
		}
	})
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Fatalf("the brain did not start: %v\n%s", err, s.out)
	}
	s.URL = strings.TrimSpace(line)
	s.Client = NewClient(t, s.URL)
	return s
}

// Kill is kill -9: nothing is closed, flushed or said.
func (s *Server) Kill() {
	s.t.Helper()
	if err := s.command.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	_ = s.command.Wait()
}

// PID is the process.
func (s *Server) PID() int { return s.command.Process.Pid }

// Output is what the brain has logged so far.
func (s *Server) Output() string { return s.out.String() }
