package store_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

func TestLease(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		t0, ended := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), ``
		if s.Dialect() == "postgres" { // its clock can't be set: the lease is made to end instead
			ended = `UPDATE leases SET until = now() - interval '1 second'`
		}
		for _, tt := range []struct {
			name, holder string
			after        time.Duration
			want         bool
		}{
			{"a free lease is given", "a", 0, true},
			{"a held one is not", "b", 30 * time.Second, false},
			{"its holder renews it", "a", 40 * time.Second, true},
			{"the renewal counts", "b", 90 * time.Second, false},
			{"one that ended is given", "b", 101 * time.Second, true},
			{"and is gone for the first", "a", 102 * time.Second, false},
		} {
			if tt.after == 101*time.Second && ended != "" {
				mustExec(t, storetest.DB(t, url), ended)
			}
			now := store.TimeOf(t0.Add(tt.after))
			got, err := s.Lease(t.Context(), "prune", tt.holder, now, store.TimeOf(now.Add(time.Minute)))
			if err != nil || got != tt.want {
				t.Errorf("%s: %v, %v; want %v", tt.name, got, err, tt.want)
			}
		}
		if err := s.ReleaseLease(t.Context(), "prune", "b"); err != nil {
			t.Fatal(err)
		}
		now := store.TimeOf(t0.Add(103 * time.Second))
		if got, err := s.Lease(t.Context(), "prune", "a", now, now); err != nil || !got {
			t.Errorf("a released lease: %v, %v; want true", got, err)
		}
	})
}

// TestLeasesGoByTheDatabasesClock: a brain whose clock is a year ahead can't take what another one holds, and one whose
// clock is a year behind holds what it was given.
func TestLeasesGoByTheDatabasesClock(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		if s.Dialect() == "sqlite" {
			t.Skip("all brains of a SQLite file run on one host and have its clock")
		}
		for _, years := range []int{1, -1} {
			holder, here := store.TimeOf(time.Now()), store.TimeOf(time.Now().AddDate(years, 0, 0))
			if years < 0 {
				holder, here = here, holder
			}
			name := []string{"behind", "", "ahead"}[years+1]
			if got, err := s.Lease(t.Context(), name, "a", holder, store.TimeOf(holder.Add(time.Minute))); err != nil || !got {
				t.Fatalf("%s: the first: %v, %v; want the lease", name, got, err)
			}
			if got, err := s.Lease(t.Context(), name, "b", here, store.TimeOf(here.Add(time.Minute))); err != nil || got {
				t.Errorf("%s: the other: %v, %v; want no lease", name, got, err)
			}
		}
	})
}

// TestASecondBrainIsSeenAfterTheFirstStops: no restore replaces a SQLite file that any brain still has open.
func TestASecondBrainIsSeenAfterTheFirstStops(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		path, isFile := strings.CutPrefix(url, "sqlite:")
		if !isFile {
			t.Skip("on Postgres leases tell")
		}
		one, two := storetest.Open(t, url), storetest.Open(t, url)
		for _, err := range []error{one.KeepAlive(t.Context(), "one"), two.KeepAlive(t.Context(), "two"), one.Leave(t.Context(), "one")} {
			if err != nil {
				t.Fatal(err)
			}
		}
		path, _, _ = strings.Cut(strings.TrimPrefix(path, "//"), "?")
		if err := store.RefuseLiveFile(path); !errors.Is(err, store.ErrInUse) {
			t.Errorf("with one of two brains stopped: %v, want ErrInUse", err)
		}
		if err := two.Leave(t.Context(), "two"); err != nil {
			t.Fatal(err)
		}
		if err := store.RefuseLiveFile(path); err != nil {
			t.Errorf("with both stopped: %v, want none", err)
		}
	})
}

func TestMeta(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		for _, want := range []string{"one", "two", "two"} {
			if err := s.PutMeta(t.Context(), "k", want); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Meta(t.Context(), "k"); err != nil || got != want {
				t.Errorf("meta: %q, %v; want %q", got, err, want)
			}
		}
	})
}

// errorIs is errors.Is that takes nil as "no error".
func errorIs(err, want error) bool {
	if want == nil {
		return err == nil
	}
	return errors.Is(err, want)
}

func TestLessonF18SchemaFromTheFutureIsRefused(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		storetest.Open(t, url)
		if _, err := storetest.DB(t, url).ExecContext(t.Context(), `INSERT INTO schema_migrations (version_id, is_applied) VALUES (9999, true)`); err != nil {
			t.Fatal(err)
		}
		_, err := store.Open(t.Context(), storetest.Options(url))
		if !errors.Is(err, store.ErrFutureSchema) || !strings.Contains(err.Error(), "9999") {
			t.Errorf("%v, want ErrFutureSchema with the number", err)
		}
	})
}

func TestAMissingSchemaIsOnlyMadeWhenAsked(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		o := storetest.Options(url)
		o.Migrate = false
		if _, err := store.Open(t.Context(), o); !errors.Is(err, store.ErrNoSchema) {
			t.Errorf("%v, want ErrNoSchema", err)
		}
		storetest.Open(t, url)
		s, err := store.Open(t.Context(), o)
		if err != nil {
			t.Fatalf("an up-to-date schema needs no migration: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestLessonB3ForeignSecret: the database knows its secret, refuses another one with the way out, and takes a new one
// that names the known one.
func TestLessonB3ForeignSecret(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		storetest.Open(t, url)
		foreign := storetest.Secrets
		foreign.Master = []byte("another-master-secret-another-master-secret")
		open := func(secrets store.Secrets) error {
			o := storetest.Options(url)
			o.Secrets = func(_ context.Context, empty bool) (store.Secrets, error) {
				if empty {
					t.Error("a database with our tables is called empty")
				}
				return secrets, nil
			}
			s, err := store.Open(t.Context(), o)
			if err == nil {
				err = s.Close()
			}
			return err
		}
		err := open(foreign)
		if !errors.Is(err, store.ErrForeignSecret) || !strings.Contains(err.Error(), "Z4J_PREVIOUS_SECRETS") {
			t.Errorf("a foreign secret: %v, want ErrForeignSecret with the way out", err)
		}
		if strings.Contains(err.Error(), "another-master") {
			t.Errorf("the error tells the secret: %v", err)
		}
		foreign.PreviousMasters = [][]byte{storetest.Secrets.Master}
		if err := open(foreign); err != nil {
			t.Errorf("a new secret beside the known one: %v", err)
		}
		foreign.PreviousMasters = nil
		if err := open(foreign); err != nil {
			t.Errorf("after that the new one alone: %v", err)
		}
	})
}

// TestManyOpenAtOnce: of many processes that find an empty database exactly one is told so, and all end with one schema.
func TestManyOpenAtOnce(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		var empty atomic.Int32
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				o := storetest.Options(url)
				o.Secrets = func(_ context.Context, first bool) (store.Secrets, error) {
					if first {
						empty.Add(1)
					}
					return storetest.Secrets, nil
				}
				s, err := store.Open(t.Context(), o)
				if err != nil {
					t.Error(err)
					return
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := empty.Load(); n != 1 {
			t.Errorf("%d processes were told that the database is empty, want 1", n)
		}
	})
}

// TestFieldCaseF27PartitionsOnDemand: a day without a partition gets one when its first event comes, and making days
// ahead makes each once.
func TestFieldCaseF27PartitionsOnDemand(t *testing.T) {
	url := storetest.Postgres(t)
	s := storetest.Open(t, url)
	ahead := time.Now().AddDate(0, 0, 20).UnixMicro()
	event := store.EventRow{Project: id.ID{1}, ID: id.ID{2}, Agent: id.ID{3}, Occurred: ahead, Received: ahead, Engine: "rq", Kind: "task.sent", Payload: []byte(`{}`)}
	err := s.Ingest(t.Context(), func(tx *store.IngestTx) error {
		return tx.Write(t.Context(), &store.IngestWrites{Events: []store.EventRow{event}})
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.EnsurePartitions(t.Context(), time.Now(), 8); err != nil {
			t.Fatal(err)
		}
	}
	name := "events_" + time.UnixMicro(ahead).UTC().Format("2006_01_02")
	rows := storetest.Rows(t, storetest.DB(t, url), `SELECT count(*) FROM `+name)
	if rows[0][0] != "1" {
		t.Errorf("%s has %s rows, want 1", name, rows[0][0])
	}
	if n := storetest.Rows(t, storetest.DB(t, url), `SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass`)[0][0]; n != "10" {
		t.Errorf("%s partitions, want yesterday to a week ahead and the one on demand: 10", n)
	}
}
