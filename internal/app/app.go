// Package app is the brain's process as a value: Start opens, connects and listens; Stop unwinds it all in reverse.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/z4j-go/z4j/internal/api"
	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/gateway"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/ingest"
	"github.com/z4j-go/z4j/internal/jobs"
	"github.com/z4j-go/z4j/internal/metrics"
	"github.com/z4j-go/z4j/internal/store"
)

// StopTimeout is how long Stop takes at most.
const StopTimeout = 20 * time.Second

// Options are what a brain is made of.
type Options struct {
	Config  *config.Config
	Version string
	Log     *slog.Logger
	Banner  io.Writer        // where the one-time set-up URL is shown; nil: nowhere
	Now     func() time.Time // nil: the machine's clock
	Drill   bool             // of a restored copy: with Config.Scratch: nothing is done by itself, nothing goes out, no agent comes in
}

// Brain is a running brain.
type Brain struct {
	Options
	Store *store.Store

	url      string
	holder   string
	audit    *api.AuditHealth
	verified store.AuditState // as it was when the brain started
	backups  *backup.Brain
	counts   *metrics.Metrics
	stops    []stop
	failed   chan error
	once     sync.Once
	stopAt   error

	horizons horizons

	custody *custody.Custody
}

// stop is what undoes one step of Start, and how long it may take.
type stop struct {
	name string
	most time.Duration
	do   func(context.Context) error
}

// Start starts a brain and returns when it is ready. When it fails, or ctx ends before, nothing of it is left.
//
// It is one straight function: what is started registers its stop on the next line.
func Start(ctx context.Context, o Options) (_ *Brain, err error) {
	b := &Brain{Options: o, failed: make(chan error, 1)}
	b.fill()
	defer func() {
		if err != nil {
			err = errors.Join(err, b.unwind(context.WithoutCancel(ctx)))
		}
	}()
	c := b.Config
	for _, w := range c.Warnings {
		b.Log.WarnContext(ctx, "configuration", "warning", w)
	}

	if err := CheckBackups(c); err != nil {
		return nil, err
	}

	front, err := b.listen(ctx)
	if err != nil {
		return nil, err
	}
	b.onStop("listener", time.Second, front.close) // when a later step fails; otherwise "http" below was first

	if b.Store, err = b.openStore(ctx); err != nil {
		return nil, err
	}
	b.onStop("store", time.Second, b.closeStore)
	b.custody = Custody(c, b.Store, b.Log, b.Now)
	if err := b.custody.Examine(ctx); err != nil {
		return nil, fmt.Errorf("find out whether the database is the one it was: %w", err)
	}
	b.onStop("last checkpoint", 3*time.Second, b.lastCheckpoint)
	if err := b.Store.KeepAlive(ctx, b.holder); err != nil {
		return nil, err
	}
	b.onStop("lease of the brain", time.Second, func(ctx context.Context) error { return b.Store.Leave(ctx, b.holder) })
	b.audit = api.NewAuditHealth(b.Store, b.Log, b.Now)
	if err := b.audit.Refresh(ctx); err != nil { // a log that is broken is told; it stops nothing
		b.Log.WarnContext(ctx, "what verifications found is unknown", "err", err)
	}
	b.verified = b.audit.State()

	if err := b.startHorizons(ctx); err != nil {
		return nil, err
	}

	passwords := Passwords(c)
	if err := b.firstAccount(ctx, passwords); err != nil {
		return nil, err
	}

	refused := store.NewRefusals(b.Store)
	b.onStop("refusals", 2*time.Second, background(ctx, refused.Run))

	var taken *ingest.Writer
	counts := metrics.New(b.metricsOptions(func() *ingest.Stats { return &taken.Stats }))
	b.counts = counts
	taken = ingest.New(b.Store, ingest.Options{
		Log: b.Log, Now: b.Now, Metrics: counts, Horizons: b.horizons.of,
	})

	if b.backups, err = b.makeBackups(ctx, backupSeen(counts)); err != nil {
		return nil, err
	}
	b.onStop("backups", 5*time.Second, b.backups.Close)

	runner := jobs.New(jobs.Options{Log: b.Log, Leases: leases{b.Store}, Holder: b.holder, Now: b.Now, Failed: counts.JobFailed})
	b.onStop("jobs", 5*time.Second, background( // a passphrase takes a second that nothing can cut short
		ctx, func(ctx context.Context) { runner.Run(ctx, b.jobs()) }))

	taken.Start(ctx)
	b.onStop("ingest", 5*time.Second, taken.Close)

	agents := gateway.New(gateway.Options{
		Store: b.Store, Ingest: taken, Log: b.Log, Now: b.Now, Metrics: counts,
		Master: c.Secrets.Master.Reveal(), PreviousMasters: c.Secrets.PreviousMaster.Reveal(),
		Address: b.client, Refusals: newRefusals(b.Now, refused),
		Limits: gateway.Limits{MaxFrame: c.Agents.MaxFrame, SlotCap: slotCap(c.Agents.SlotCap), IdleTimeout: c.Agents.IdleTimeout},
	})
	agents.Start()
	b.onStop("gateway", 6*time.Second, agents.Close)

	server, err := b.api(passwords, agents, refused, counts)
	if err != nil {
		return nil, err
	}
	front.open(server.Handler())
	b.onStop("http", 4*time.Second, front.close)
	b.Log.InfoContext(ctx, "ready", "url", b.url, "database", c.Database.URL, "environment", c.General.Environment, "version", b.Version)
	return b, nil
}

func (b *Brain) fill() {
	if b.Log == nil {
		b.Log = slog.New(slog.DiscardHandler)
	}
	if b.Now == nil {
		b.Now = time.Now
	}
	if b.Banner == nil {
		b.Banner = io.Discard
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	b.holder = host + "/" + id.Random().String()
}

// URL is where the brain really listens.
func (b *Brain) URL() string { return b.url }

// Failed tells that the brain can't go on by itself; whoever started it has to stop it.
func (b *Brain) Failed() <-chan error { return b.failed }

// Stop stops everything that Start started, in reverse, within StopTimeout: no new request, agents told to come back,
// what was taken written, jobs ended, the database closed. A second call waits for the first.
func (b *Brain) Stop(ctx context.Context) error {
	b.once.Do(func() { b.stopAt = b.unwind(ctx) })
	return b.stopAt
}

func (b *Brain) onStop(name string, most time.Duration, do func(context.Context) error) {
	b.stops = append(b.stops, stop{name, most, do})
}

func (b *Brain) unwind(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, StopTimeout)
	defer cancel()
	var errs []error
	for _, s := range slices.Backward(b.stops) {
		part, end := context.WithTimeout(ctx, s.most)
		began := b.Now()
		if err := s.do(part); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", s.name, err))
		}
		b.Log.DebugContext(ctx, "stopped", "part", s.name, "took", b.Now().Sub(began))
		end()
	}
	b.stops = nil
	return errors.Join(errs...)
}

// background runs fn until the stop that it returns is called, which waits for fn to return.
func background(ctx context.Context, fn func(context.Context)) func(context.Context) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn(ctx)
	}()
	return func(limit context.Context) error {
		cancel()
		select {
		case <-done:
			return nil
		case <-limit.Done():
			return limit.Err()
		}
	}
}

func (b *Brain) openStore(ctx context.Context) (*store.Store, error) {
	c := b.Config
	if err := c.MakeHome(); err != nil && c.Database.URL.IsSQLite() {
		return nil, err // with Postgres and secrets from outside nothing is kept there
	}
	s, err := store.Open(ctx, store.Options{
		URL: c.Database.URL.Reveal(), Log: b.Log, Now: b.Now, Migrate: c.Database.AutoMigrate, Grace: grace(c),
		Secrets: func(ctx context.Context, empty bool) (store.Secrets, error) {
			if empty && c.Secrets.None() {
				if err := c.Mint(); err != nil {
					return store.Secrets{}, err
				}
				b.Log.InfoContext(ctx, "secrets minted; keep a copy apart from the database", "home", c.General.Home)
			}
			if err := c.SecretsError(); err != nil {
				return store.Secrets{}, err
			}
			return StoreSecrets(c), nil
		},
	})
	if errors.Is(err, store.ErrNoSchema) {
		err = fmt.Errorf("%w: start once without Z4J_AUTO_MIGRATE=false", err)
	}
	return s, err
}

// closeStore closes the database, but does not wait for ever for who still holds a connection.
func (b *Brain) closeStore(limit context.Context) error {
	done := make(chan error, 1)
	go func() { done <- b.Store.Close() }()
	select {
	case err := <-done:
		return err
	case <-limit.Done():
		return limit.Err()
	}
}

// StoreSecrets are the secrets of c that the store needs.
func StoreSecrets(c *config.Config) store.Secrets {
	return store.Secrets{
		Master: c.Secrets.Master.Reveal(), PreviousMasters: c.Secrets.PreviousMaster.Reveal(),
		Audit: c.Secrets.Audit.Reveal(), PreviousAudit: c.Secrets.PreviousAudit.Reveal(),
	}
}

// slotCap translates the setting's "0 is any number" for the gateway, where 0 is the default.
func slotCap(n int) int {
	if n == 0 {
		return -1
	}
	return n
}

func (b *Brain) listen(ctx context.Context) (*front, error) {
	n := &b.Config.Network
	address := net.JoinHostPort(n.BindHost, strconv.Itoa(n.BindPort))
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; set Z4J_BIND_PORT or stop what listens there", address, err)
	}
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listen on %s: not a TCP address", address), l.Close())
	}
	b.Config.Listening(tcp.Port)
	b.url = "http://" + tcp.String()
	return serveFront(l, api.Starting(b.apiSettings()), b.Log, b.failed), nil
}
