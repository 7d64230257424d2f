package app_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/app/apptest"
	"github.com/z4j-go/z4j/internal/target/targettest"
)

// always is a schedule by which a backup is always due when there is none.
const always = "Z4J_BACKUP_SCHEDULE=0 0 1 1 *"

// archives waits until a directory has so many archives, and returns the bytes of the first.
func archives(t *testing.T, dir string, n int) []byte {
	t.Helper()
	var found []string
	apptest.Until(t, "a backup is there", func() bool {
		found, _ = filepath.Glob(filepath.Join(dir, "z4j-*.tar*"))
		return len(found) == n
	})
	content, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func backupKnobs() map[string]func(*testing.T) {
	encrypted := func(content []byte) bool { return strings.HasPrefix(string(content), "age-encryption.org/") }
	keys := func(t *testing.T) (location string, settings []string) {
		location, o, _ := targettest.Bucket(t)
		return location, []string{
			"Z4J_BACKUP_TARGET=" + location, "Z4J_S3_ENDPOINT=" + o.S3.Endpoint, "Z4J_S3_REGION=" + o.S3.Region,
			"Z4J_S3_ACCESS_KEY_ID=" + o.S3.AccessKeyID, "Z4J_S3_SECRET_ACCESS_KEY=" + o.S3.SecretAccessKey,
		}
	}
	bucket := func(t *testing.T) {
		location, settings := keys(t)
		c := configured(t, settings...)
		p, err := app.OpenBackups(t.Context(), c, "")
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.List(t.Context(), "", 1)
		want(t, "list of "+location, err, nil)
		for i := range settings[1:] {
			without := append(append([]string{}, settings[:i+1]...), settings[i+2:]...)
			if strings.HasPrefix(settings[i+1], "Z4J_S3_REGION") {
				without = append(without, "Z4J_S3_REGION=eu-central-7")
			}
			p, err := app.OpenBackups(t.Context(), configured(t, without...), "")
			if err == nil && !strings.HasPrefix(settings[i+1], "Z4J_S3_ENDPOINT") { // that would ask AWS
				_, err = p.List(t.Context(), "", 1)
			}
			if err == nil && !strings.HasPrefix(settings[i+1], "Z4J_S3_ENDPOINT") {
				t.Errorf("without %s: got no error, want one", settings[i+1])
			}
		}
	}
	return map[string]func(*testing.T){
		"BACKUP_SCHEDULE": func(t *testing.T) {
			b := with(t, always)
			want(t, "encrypted", encrypted(archives(t, filepath.Join(b.Config.General.Home, "backups"), 1)), false)
			_, err := apptest.TryStart(t, apptest.Options{Environ: []string{"Z4J_BACKUP_SCHEDULE=often"}})
			contains(t, "one that is none", errText(err), "Z4J_BACKUP_SCHEDULE")
		},
		"BACKUP_TARGET": func(t *testing.T) {
			dir := t.TempDir()
			with(t, always, "Z4J_BACKUP_TARGET="+dir)
			archives(t, dir, 1)
		},
		"BACKUP_RECIPIENTS": func(t *testing.T) {
			me, err := age.GenerateX25519Identity()
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			with(t, always, "Z4J_BACKUP_TARGET="+dir, "Z4J_BACKUP_RECIPIENTS="+me.Recipient().String())
			want(t, "encrypted", encrypted(archives(t, dir, 1)), true)
			_, err = apptest.TryStart(t, apptest.Options{Environ: []string{"Z4J_BACKUP_RECIPIENTS=age1x"}})
			contains(t, "one that is none", errText(err), "Z4J_BACKUP_RECIPIENTS")
		},
		"BACKUP_PASSPHRASE": func(t *testing.T) {
			dir := t.TempDir()
			b := with(t, always, "Z4J_BACKUP_TARGET="+dir, "Z4J_BACKUP_PASSPHRASE=correct horse battery")
			want(t, "encrypted", encrypted(archives(t, dir, 1)), true)
			if strings.Contains(b.Output(), "correct horse") {
				t.Error("LessonB8: the passphrase is in the log, want it nowhere")
			}
		},
		"BACKUP_KEEP": func(t *testing.T) {
			dir := t.TempDir()
			b := loggedIn(t, "Z4J_BACKUP_TARGET="+dir, "Z4J_BACKUP_KEEP=last=1")
			for n := range 2 {
				apptest.Until(t, "a backup is made", func() bool {
					code, _, _ := b.Client.Try(http.MethodPost, "/api/v1/admin/backups", nil)
					return code == http.StatusAccepted
				})
				apptest.Until(t, "and recorded", func() bool {
					_, _, text := b.Client.Try(http.MethodGet, "/api/v1/admin/backups", nil)
					return strings.Count(string(text), `"ok":true`) >= n+2 && strings.Contains(string(text), `"running":null`) // the list, and the last success
				})
			}
			archives(t, dir, 1)
		},
		"BACKUP_TMP": func(t *testing.T) {
			b := loggedIn(t, "Z4J_BACKUP_TARGET="+t.TempDir(), "Z4J_BACKUP_TMP="+filepath.Join(t.TempDir(), "not-mounted"))
			apptest.Until(t, "a backup is begun", func() bool {
				code, _, _ := b.Client.Try(http.MethodPost, "/api/v1/admin/backups", nil)
				return code == http.StatusAccepted
			})
			apptest.Until(t, "and fails where its copy should be", func() bool {
				_, _, text := b.Client.Try(http.MethodGet, "/api/v1/admin/backups", nil)
				return strings.Contains(string(text), `"ok":false`) && strings.Contains(string(text), "not-mounted")
			})
		},
		"RPO": func(t *testing.T) {
			c := configured(t, "Z4J_RPO=2h")
			want(t, "seconds", c.Backup.RPO.Hours(), 2)
			b := loggedIn(t, "Z4J_RPO=2h")
			_, _, text := b.Client.Try(http.MethodGet, "/api/v1/admin/backups", nil)
			contains(t, "standing", string(text), `"rpo_seconds":7200`)
		},
		"DRILL_SCHEDULE": drilled, "BACKUP_IDENTITY": drilled,
		"RTO": func(t *testing.T) {
			b := loggedIn(t, "Z4J_RTO=2h")
			_, _, text := b.Client.Try(http.MethodGet, "/api/v1/admin/backups", nil)
			contains(t, "standing", string(text), `"rto_seconds":7200`)
		},
		"S3_ENDPOINT": bucket, "S3_REGION": bucket, "S3_ACCESS_KEY_ID": bucket, "S3_SECRET_ACCESS_KEY": bucket,
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestBackupsAreMeasured: what Prometheus sees of them.
func TestBackupsAreMeasured(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := with(t, always, "Z4J_BACKUP_TARGET="+dir, "Z4J_METRICS_PUBLIC=true")
	size := len(archives(t, dir, 1))
	if size == 0 {
		t.Fatal("the archive is empty")
	}
	apptest.Until(t, "the metrics show the backup", func() bool {
		_, _, text := b.Client.Try(http.MethodGet, "/metrics", nil)
		return strings.Contains(string(text), "\nz4j_backup_verified 1\n") && strings.Contains(string(text), "\nz4j_backup_last_success_timestamp_seconds 1.") &&
			!strings.Contains(string(text), "\nz4j_backup_last_size_bytes 0\n")
	})
}
