package backup_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/target"
)

// TestTheNewestBackupIsAGoodOneOfThisInstallation: in a place that several share, with files that nobody verified, neither
// the choice of the newest nor the rules of a prune take another one for a backup.
func TestTheNewestBackupIsAGoodOneOfThisInstallation(t *testing.T) {
	t.Parallel()
	eachLab(t, func(t *testing.T, l *lab) {
		newest := func(s *store.Store) (string, error) {
			e, err := backup.Newest(t.Context(), l.place, s, time.Now())
			return e.Name, err
		}
		if _, err := newest(l.Store); !errors.Is(err, backup.ErrNoBackup) {
			t.Errorf("an empty place: got %v, want ErrNoBackup", err)
		}
		put := func(name string) {
			if err := os.WriteFile(filepath.Join(l.dir, name), []byte("?"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		o := l.options(t)
		good, err := backup.Make(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		own := strings.Split(good.Name, "-")[1]
		killed, old := "z4j-"+own+"-20990101T000000Z-0123456789ab.tar", "z4j-"+own+"-20200101T000000Z-0123456789ab.tar"
		foreign := "z4j-0badcafe-20990102T000000Z-0123456789ab.tar"
		put(killed)
		put(old)
		if name, err := newest(nil); err != nil || name != killed {
			t.Errorf("nobody can be asked: got %s, %v, want the newest of all", name, err)
		}
		put(foreign)
		unverified, partial := o, o
		unverified.Unverified, partial.Without = true, []string{"events"}
		for _, other := range []backup.Options{unverified, partial} {
			if _, err := backup.Make(t.Context(), other); err != nil {
				t.Fatal(err)
			}
		}
		if name, err := newest(l.Store); err != nil || name != good.Name {
			t.Errorf("got %s, %v, want the one that was verified: %s", name, err, good.Name)
		}
		if name, err := newest(nil); !errors.Is(err, backup.ErrNoBackup) || !strings.Contains(err.Error(), "0badcafe") {
			t.Errorf("of two installations, and nobody can be asked: got %s, %v, want an error that names them", name, err)
		}
		p, err := backup.Prune(t.Context(), o, backup.Keep{Last: 1}, false)
		if err != nil || !slices.Equal(p.Removed, []string{old}) {
			t.Errorf("prune: got %q, %v, want only %s: what was not verified displaces nothing", p.Removed, err, old)
		}
		if err := os.Remove(filepath.Join(l.dir, good.Name)); err != nil {
			t.Fatal(err)
		}
		if name, err := newest(l.Store); !errors.Is(err, backup.ErrNoBackup) || !strings.Contains(err.Error(), "verified") {
			t.Errorf("without the good one: got %s, %v, want ErrNoBackup that says why", name, err)
		}
		if p, err := backup.Prune(t.Context(), o, backup.Keep{Last: 1}, false); err != nil || len(p.Removed) > 0 {
			t.Errorf("prune without a good one: got %q, %v, want nothing removed", p.Removed, err)
		}
	})
}

// TestOnlyAGoodBackupInTheTargetCounts: schedule and RPO want a backup that was verified, is complete, and lies in the
// configured place.
func TestOnlyAGoodBackupInTheTargetCounts(t *testing.T) {
	t.Parallel()
	eachLab(t, func(t *testing.T, l *lab) {
		c := &clock{}
		c.set(time.Now().UTC().Add(time.Second).Format(time.RFC3339))
		b, standing := l.brain(t, c, func(p *backup.Plan) { p.Place += "/" })
		for name, change := range map[string]func(o *backup.Options){
			"into a stream":      func(o *backup.Options) { o.Target, o.Stream = nil, io.Discard },
			"not verified":       func(o *backup.Options) { o.Unverified = true },
			"without a table":    func(o *backup.Options) { o.Without = []string{"events"} },
			"into another place": func(o *backup.Options) { o.Target = open(t, t.TempDir(), target.Options{}) },
		} {
			o := l.options(t)
			change(&o)
			if _, err := backup.Make(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			if s := standing(); s.LastSuccess != nil || !s.Late {
				t.Errorf("%s: got %+v, late %v, want no success, and late", name, s.LastSuccess, s.Late)
			}
		}
		if err := b.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := standing(); s.LastSuccess == nil || s.LastSuccess.Actor != "system" || s.Late {
			t.Errorf("after a tick: got %+v, late %v, want the brain's own", s.LastSuccess, s.Late)
		}
	})
}
