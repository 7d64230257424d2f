package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
	exitMissed = 3
)

// Process is what the command gets from the machine.
type Process struct {
	Args           []string
	Stdout, Stderr io.Writer
	Terminal       bool // Stderr is one: progress is shown
	Now            func() time.Time
}

// failure is an error with its exit code.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// grammar is both commands.
type grammar struct {
	Run  runCmd  `cmd:"" default:"withargs" help:"Pretend to be agents, and measure the brain."`
	Fill fillCmd `cmd:"" help:"Fill a database with believable history."`
}

// ended is how kong's wish to end the process, after it printed its help, gets out of it.
type ended int

// Command runs z4j-loadgen and returns its exit code.
func Command(p Process) (code int) {
	defer func() {
		if r := recover(); r != nil {
			end, is := r.(ended)
			if !is {
				panic(r)
			}
			code = int(end)
		}
	}()
	var g grammar
	k, err := kong.New(&g, kong.Name("z4j-loadgen"), kong.Description("Load for a z4j brain: agents that report as many events as wished, and databases full of history."),
		kong.Writers(p.Stdout, p.Stderr), kong.Exit(func(code int) { panic(ended(code)) }), kong.ConfigureHelp(kong.HelpOptions{Compact: true}), kong.Bind(&p),
		kong.Vars{"engines": strings.Join(DefaultEngines(), ","), "all": strings.Join(EngineNames(), ", ")})
	if err != nil {
		fmt.Fprintf(p.Stderr, "z4j-loadgen: read the grammar of commands: %v\n", err)
		return exitFailed
	}
	ctx, err := k.Parse(p.Args)
	if err != nil {
		fmt.Fprintf(p.Stderr, "z4j-loadgen: %v (`z4j-loadgen --help` lists the commands)\n", err)
		return exitUsage
	}
	err = ctx.Run()
	var with *failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &with):
		code = with.code
	default:
		code = exitFailed
	}
	fmt.Fprintf(p.Stderr, "z4j-loadgen: %v\n", err)
	return code
}

type runCmd struct {
	URL      string `name:"url" env:"Z4J_LOADGEN_URL" default:"http://127.0.0.1:7700" help:"The brain."`
	Email    string `env:"Z4J_LOADGEN_EMAIL" help:"Account that makes projects and agents and asks for tasks: a global administrator."`
	Password string `env:"Z4J_LOADGEN_PASSWORD" help:"Its password."`
	APIKey   string `name:"api-key" env:"Z4J_LOADGEN_API_KEY" help:"An API key in its place."`
	Tokens   string `placeholder:"FILE" help:"Agents that exist: a JSON list of {project, token, hmac_secret}."`
	Save     string `placeholder:"FILE" help:"Write the agents that are minted to a new file, for --tokens, and keep them."`

	Agents    int           `default:"8" help:"Agents: one token each."`
	Processes int           `default:"1" help:"Processes of each agent: connections that share its token."`
	Projects  int           `default:"2" help:"Projects that the agents are spread over: load-1, load-2, …"`
	Engines   []string      `default:"${engines}" help:"Engines that they are spread over: ${all}."`
	Rate      float64       `default:"0" help:"Events a second of all together; 0: as fast as acks allow."`
	Batch     int           `default:"1" help:"Events a frame. Published agents send one."`
	Window    int           `default:"256" help:"Frames that a process may have without ack."`
	Order     string        `default:"interleaved" help:"interleaved: many tasks are under way at once; completed: one after the other."`
	EventSize int           `default:"360" help:"Bytes of an event's data, about; with the rest of it 400 to 700."`
	Duration  time.Duration `default:"10s" help:"How long; 0: until Ctrl-C."`
	Events    int64         `default:"0" help:"How many events at most; 0: no bound."`
	Samples   float64       `default:"5" help:"Tasks a second of which the way into GET tasks is timed."`
	Idle      bool          `help:"Connect, send heartbeats and no events."`
	Poll      bool          `help:"Long-poll in place of WebSockets."`
	Keep      bool          `help:"Do not revoke the agents that were minted."`
	Seed      uint64        `default:"1" help:"Of the random numbers; task ids are new in every run."`
	Goal      float64       `default:"0" help:"Events a second that have to be acked: exit code 3 below."`
	JSON      bool          `name:"json" help:"Print the summary as JSON."`
}

// Help is shown by `run --help`.
func (runCmd) Help() string {
	return `Events are acked when they are committed; the rate counts acked ones, from the first frame to the last ack. Ctrl-C ends a run
with the summary so far. Passwords are better given in the environment than as flags.

Exit codes: 0 done, 1 could not begin, or events stayed without ack, 2 wrong arguments, 3 the goal was missed.`
}

// Run runs agents.
func (c *runCmd) Run(p *Process) error {
	if c.Poll {
		return &failure{exitUsage, errors.New("--poll: this brain does not speak long-poll yet; leave it out")}
	}
	o := RunOptions{
		URL: c.URL, Account: Account{Email: c.Email, Password: c.Password, APIKey: c.APIKey}, Agents: c.Agents, Processes: c.Processes, Projects: c.Projects,
		Engines: c.Engines, Rate: c.Rate, Batch: c.Batch, Window: c.Window, Order: c.Order, EventSize: c.EventSize, Duration: c.Duration, Events: c.Events,
		Samples: c.Samples, Idle: c.Idle, Keep: c.Keep || c.Save != "", Seed: c.Seed, Goal: c.Goal, Now: p.Now, ID: id.Random().String()[:8],
	}
	if c.Tokens != "" {
		text, err := os.ReadFile(c.Tokens)
		if err != nil {
			return &failure{exitUsage, fmt.Errorf("read tokens: %w", err)}
		}
		if o.Tokens, err = decodeCredentials(text); err != nil {
			return &failure{exitUsage, err}
		}
	}
	if c.Save != "" {
		o.Minted = func(list []Credential) error { return save(c.Save, list) }
	}
	if err := o.check(); err != nil {
		return &failure{exitUsage, err}
	}
	for _, name := range o.Engines {
		if _, err := engineOf(name); err != nil {
			return &failure{exitUsage, err}
		}
	}
	if p.Terminal {
		o.Told = func(seconds float64, events int64, online int) {
			fmt.Fprintf(p.Stderr, "\r\x1b[K%4.0f s  %d connected  %d events acked", seconds, online, events)
		}
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	context.AfterFunc(ctx, cancel) // from here on a second signal ends the process as signals do
	s, err := Run(ctx, o)
	if p.Terminal {
		fmt.Fprint(p.Stderr, "\r\x1b[K")
	}
	if err != nil {
		return err
	}
	if err := s.print(p.Stdout, c.JSON); err != nil {
		return err
	}
	switch {
	case s.Goal > 0 && !s.Met:
		return &failure{exitMissed, fmt.Errorf("%.0f events a second are below the goal of %.0f", s.Rate, s.Goal)}
	case s.Unacked > 0:
		return fmt.Errorf("%d events stayed without ack", s.Unacked)
	case s.Connections == 0:
		return errors.New("no agent could connect")
	}
	return nil
}

// save writes credentials to a new file that is its owner's alone.
func save(name string, list []Credential) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the user's own choice
	if err != nil {
		return fmt.Errorf("save agents: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	e := json.NewEncoder(f)
	e.SetIndent("", "  ")
	return e.Encode(list) //nolint:gosec // the file is for the secrets
}

// print writes the summary for people or for programs.
func (s *Summary) print(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(s)
	}
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s"+format+"\n", append([]any{name}, args...)...)
	}
	line("connections", "%d, %d events a frame, at most %d frames without ack", s.Connections, s.EventsAFrame, s.Window)
	if s.Sent > 0 {
		line("events", "%d acked of %d in %.1f s: %.0f a second", s.Acked, s.Sent, s.Seconds, s.Rate)
	}
	if s.Goal > 0 {
		line("goal", "%.0f a second: %s", s.Goal, map[bool]string{true: "met", false: "missed"}[s.Met])
	}
	for _, q := range []struct {
		name string
		of   *Quantiles
	}{{"ack", s.Ack}, {"visible", s.Visible}, {"connect", s.Connect}} {
		if q.of != nil {
			line(q.name, "p50 %.1f ms, p99 %.1f ms, at most %.1f ms (%d)", q.of.P50, q.of.P99, q.of.Max, q.of.N)
		}
	}
	if s.Rejected > 0 {
		line("rejected", "%d events that the brain knew or could not take", s.Rejected)
	}
	if len(s.Errors) == 0 {
		line("errors", "none")
	}
	for _, reason := range slices.Sorted(maps.Keys(s.Errors)) {
		line("errors", "%d: %s", s.Errors[reason], reason)
	}
	if s.Interrupted {
		line("ended", "early")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

type fillCmd struct {
	Database string `arg:"" name:"DATABASE_URL" help:"postgres://… or sqlite:FILE, as in Z4J_DATABASE_URL. No brain may run on it."`

	Tasks     int64     `default:"100000" help:"How many tasks; most have three events."`
	Days      int       `default:"30" help:"How many days they are spread over."`
	Projects  int       `default:"3" help:"Projects: fill-1, fill-2, …; the first is the largest."`
	Engines   []string  `default:"${engines}" help:"Engines, an agent each in every project: ${all}."`
	Seed      uint64    `default:"1" help:"The same seed gives the same tasks."`
	EventSize int       `default:"200" help:"Bytes of an event's data, about; published agents send 120 to 700."`
	Until     time.Time `help:"When the history ends, as 2026-03-14T00:00:00Z; now if not given."`
	Add       bool      `help:"Add to the tasks that are there; needs another seed."`
	Vacuum    bool      `help:"Postgres: vacuum at the end, so that autovacuum does not work into a measurement."`
	JSON      bool      `name:"json" help:"Print what was written as JSON."`
}

// Help is shown by `fill --help`.
func (fillCmd) Help() string {
	return `Writes projects, agents, tasks, attempts, events with their partitions, workers, queues and rollups as the brain would have written
them. An empty Postgres is filled without its indexes, which are made at the end; a fill that was killed before that is mended
by the next one, which may then refuse. The database is made or upgraded first, and gets its secrets from the first brain that starts on it.

Exit codes: 0 done, 1 could not do it, 2 wrong arguments.`
}

// Run fills.
func (c *fillCmd) Run(p *Process) error {
	if !strings.HasPrefix(c.Database, "sqlite:") && !strings.HasPrefix(c.Database, "postgres://") && !strings.HasPrefix(c.Database, "postgresql://") {
		return &failure{exitUsage, errors.New("DATABASE_URL must be postgres://… or sqlite:FILE")}
	}
	if c.Until.IsZero() {
		c.Until = p.Now()
	}
	o := FillOptions{
		History: History{Tasks: c.Tasks, Days: c.Days, Projects: c.Projects, Engines: c.Engines, Seed: c.Seed, EventSize: c.EventSize, Until: c.Until.UTC()},
		Add:     c.Add, Vacuum: c.Vacuum,
	}
	if _, err := newPast(o.History); err != nil {
		return &failure{exitUsage, err}
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	context.AfterFunc(ctx, cancel)
	began := p.Now()
	if p.Terminal {
		phase := ""
		o.Told = func(what string) { phase = what; fmt.Fprintf(p.Stderr, "\r\x1b[K%s", phase) }
		o.Done = func(tasks, events int64) {
			share := float64(tasks) / float64(c.Tasks)
			fmt.Fprintf(p.Stderr, "\r\x1b[K%s: %3.0f %%  %d tasks  %.0f tasks a second", phase, share*100, tasks, float64(tasks)/p.Now().Sub(began).Seconds())
		}
	}
	s, err := store.Open(ctx, store.Options{URL: c.Database, Migrate: true, Now: p.Now})
	if err != nil {
		return err
	}
	defer s.Close()
	filled, err := Fill(ctx, s, o)
	if p.Terminal {
		fmt.Fprint(p.Stderr, "\r\x1b[K")
	}
	if errors.Is(err, store.ErrNotEmpty) {
		err = fmt.Errorf("%w: --add adds to them", err)
	}
	if err != nil {
		return err
	}
	seconds := p.Now().Sub(began).Seconds()
	if c.JSON {
		e := json.NewEncoder(p.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			store.Filled

			Seconds float64 `json:"seconds"`
		}{filled, seconds})
	}
	_, err = fmt.Fprintf(p.Stdout, "%d tasks, %d events, %d attempts and %d rows of rollups in %.1f s\n", filled.Tasks, filled.Events, filled.Attempts, filled.Rollups, seconds)
	return err
}
