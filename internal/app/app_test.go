package app_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/app/apptest"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

func TestLessonI13ReadyOnlyWhenEverythingIs(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		b := apptest.Start(t, apptest.Options{Database: url})
		var ready struct{ Status string }
		b.Client.Do(http.MethodGet, "/api/v1/health/ready", nil, http.StatusOK, &ready)
		if ready.Status != "ready" {
			t.Errorf("status %q, want ready", ready.Status)
		}
		if has, err := b.Store.HasUsers(t.Context()); err != nil || !has {
			t.Errorf("accounts: %v, %v; want the bootstrap one to be there", has, err)
		}
	})
}

// TestStartLeavesNothingBehind fails at each step that can fail from outside, and starts well afterwards.
func TestStartLeavesNothingBehind(t *testing.T) {
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, setting, want string }{
		{"the port is taken", "Z4J_BIND_PORT=" + port, "Z4J_BIND_PORT"},
		{"no database answers", "Z4J_DATABASE_URL=postgres://u:geheim@127.0.0.1:1/z", "open database"},
		{"the database can't be made", "Z4J_DATABASE_URL=sqlite:" + file + "/z4j.db", "open database"},
		{"the home can't be made", "Z4J_HOME=" + file + "/home", "not a directory"},
		{"the first account can't be made", "Z4J_BOOTSTRAP_ADMIN_PASSWORD=short", "Z4J_BOOTSTRAP_ADMIN_PASSWORD"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			_, err := apptest.TryStart(t, apptest.Options{Environ: []string{tt.setting}})
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "geheim") {
				t.Errorf("error %v, want one with %q and without the password", err, tt.want)
			}
			goleak.VerifyNone(t, before)
		})
	}
}

func TestStopEndsEverything(t *testing.T) {
	before := goleak.IgnoreCurrent()
	b, err := apptest.TryStart(t, apptest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b.Client.Do(http.MethodGet, "/api/v1/health", nil, http.StatusOK, nil)
	b.Client.HTTP.CloseIdleConnections()
	began := time.Now()
	if err := b.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stop took %v, want far less than %v", took, app.StopTimeout)
	}
	if err := b.Stop(t.Context()); err != nil {
		t.Errorf("second stop: %v, want nothing to do", err)
	}
	if _, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(b.URL(), "http://")); err == nil {
		t.Error("somebody still listens, want nobody")
	}
	goleak.VerifyNone(t, before)
}

func TestOnlyOneOfManyBrainsMints(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		const brains = 4
		homes := make([]string, brains)
		errs := make([]error, brains)
		var wg sync.WaitGroup
		for i := range homes {
			homes[i] = filepath.Join(t.TempDir(), "home")
			environ := apptest.Environ(t, apptest.Options{Database: url, Home: homes[i], Bare: true})
			wg.Go(func() {
				c, err := config.Load(config.Input{Environ: environ})
				if err != nil {
					errs[i] = err
					return
				}
				b, err := app.Start(t.Context(), app.Options{Config: c})
				if err != nil {
					errs[i] = err
					return
				}
				errs[i] = b.Stop(context.WithoutCancel(t.Context()))
			})
		}
		wg.Wait()
		started, minted := 0, 0
		for i := range homes {
			_, err := os.Stat(filepath.Join(homes[i], "secret.env"))
			if err == nil {
				minted++
			}
			switch {
			case errs[i] == nil && err == nil:
				started++
			case !errors.Is(errs[i], config.ErrSecrets):
				t.Errorf("brain %d: %v, want that its secrets are missing", i, errs[i])
			}
		}
		if started != 1 || minted != 1 {
			t.Errorf("%d brains started and %d minted, want one each: %v", started, minted, errs)
		}
	})
}

func TestLessonB2NothingIsMintedOverADatabase(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		storetest.Open(t, url)
		home := filepath.Join(t.TempDir(), "home")
		_, err := apptest.TryStart(t, apptest.Options{Database: url, Home: home, Bare: true})
		if !errors.Is(err, config.ErrSecrets) {
			t.Errorf("error %v, want that the secrets are missing", err)
		}
		if _, err := os.Stat(filepath.Join(home, "secret.env")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("secret.env: %v, want none", err)
		}
	})
}

func TestAForeignSecretIsRefused(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		storetest.Open(t, url)
		other := "Z4J_SECRET=" + strings.Repeat("other ", 8)
		_, err := apptest.TryStart(t, apptest.Options{Database: url, Environ: []string{other}})
		if !errors.Is(err, store.ErrForeignSecret) {
			t.Errorf("error %v, want %v", err, store.ErrForeignSecret)
		}
		apptest.Start(t, apptest.Options{Database: url, Environ: []string{other, "Z4J_PREVIOUS_SECRETS=" + string(storetest.Secrets.Master)}})
	})
}

func TestLessonB10MetricsNeedTheToken(t *testing.T) {
	b := apptest.Start(t, apptest.Options{Environ: []string{"Z4J_METRICS_AUTH_TOKEN=metrics-token-metrics-token"}})
	b.Client.Do(http.MethodGet, "/metrics", nil, http.StatusUnauthorized, nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.URL()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer metrics-token-metrics-token")
	res, err := b.Client.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("with the token: %d, want 200", res.StatusCode)
	}
}

// BenchmarkStart is the time from nothing to ready: the goals are 1 s on a new database and 300 ms on an existing one.
func BenchmarkStart(b *testing.B) {
	for _, database := range []string{"sqlite", "postgres"} {
		for _, existing := range []bool{false, true} {
			name := database + "/new"
			if existing {
				name = database + "/existing"
			}
			b.Run(name, func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					url := storetest.SQLite(b)
					if database == "postgres" {
						url = storetest.Postgres(b)
					}
					c, err := config.Load(config.Input{Environ: apptest.Environ(b, apptest.Options{Database: url})})
					if err != nil {
						b.Fatal(err)
					}
					if existing {
						start(b, c)()
					}
					b.StartTimer()
					stop := start(b, c)
					b.StopTimer()
					stop()
					b.StartTimer()
				}
			})
		}
	}
}

func start(b *testing.B, c *config.Config) (stop func()) {
	b.Helper()
	brain, err := app.Start(b.Context(), app.Options{Config: c})
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		if err := brain.Stop(context.WithoutCancel(b.Context())); err != nil {
			b.Fatal(err)
		}
	}
}
