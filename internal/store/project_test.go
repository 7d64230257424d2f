package store_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestAChangedProjectSaysWhatChanged: the entry names each field that changed with its old and its new value, and no other.
func TestAChangedProjectSaysWhatChanged(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		if _, err := s.CreateProject(t.Context(), store.Project{
			Slug: "shop", Name: "Shop", Environment: "production", Timezone: "UTC", DefaultSchedulerOwner: "beat", AllowedSchedulers: []string{"beat"},
		}, operator); err != nil {
			t.Fatal(err)
		}
		text := "Everything that is sold"
		for _, tt := range []struct {
			name   string
			change func(*store.Project)
			want   string
		}{
			{"nothing", func(*store.Project) {}, `"changes":{}`},
			{"the name", func(p *store.Project) { p.Name = "The shop" }, `"changes":{"name":{"new":"The shop","old":"Shop"}}`},
			{"the description", func(p *store.Project) { p.Description = &text }, `"changes":{"description":{"new":"Everything that is sold","old":null}}`},
			{"two fields", func(p *store.Project) { p.Timezone, p.Slug = "Europe/Berlin", "store" }, `"changes":{"slug":{"new":"store","old":"shop"},"timezone":{"new":"Europe/Berlin","old":"UTC"}}`},
			{"a list in its place", func(p *store.Project) { p.AllowedSchedulers[0] = "cron" }, `"changes":{"allowed_schedulers":{"new":["cron"],"old":["beat"]}}`},
			{"the limit of schedulers away", func(p *store.Project) { p.AllowedSchedulers = nil }, `"changes":{"allowed_schedulers":{"new":null,"old":["cron"]}}`},
		} {
			slug := "shop"
			if _, _, err := s.ProjectOf(t.Context(), slug, store.Sight{}); errors.Is(err, store.ErrNotFound) {
				slug = "store"
			}
			if _, err := s.ChangeProject(t.Context(), slug, store.Sight{}, func(p *store.Project) error { tt.change(p); return nil }, operator); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			newest := log(t, s, store.AuditFilter{Action: string(audit.ProjectChanged)})[0]
			if !strings.Contains(string(newest.Details), tt.want) {
				t.Errorf("%s: the entry says %s, want %s", tt.name, newest.Details, tt.want)
			}
		}
	})
}
