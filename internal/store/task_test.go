package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/z4j-go/z4j/internal/fold"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestF25RowsOfOneTime pages over three groups of 400 tasks, each group of one microsecond, while newer ones come in.
func TestF25RowsOfOneTime(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		project := id.Random()
		var w store.IngestWrites
		want := map[string]bool{}
		for g, micros := range []int{123456, 123457, 123999} {
			for i := 1; i <= 400; i++ {
				name := fmt.Sprintf("g%d-%03d", g+1, i)
				want[name] = true
				r := taskRow(project, name, time.Date(2026, 3, 2, 8, 0, 0, micros*1000, time.UTC), fold.StateReceived)
				r.Name, r.Queue = "bulk", "q"
				w.NewTasks = append(w.NewTasks, r)
			}
		}
		seed(t, s, &w)
		var first []string
		for _, limit := range []int{7, 50, 500} {
			for _, name := range []string{"", "bulk"} {
				forward, last := walkTasks(t, s, project, name, limit, limit == 7)
				forward = slices.DeleteFunc(forward, func(k string) bool { return !want[k] })
				if first == nil {
					first = forward
				}
				if diff := cmp.Diff(first, forward); diff != "" || len(forward) != len(want) {
					t.Fatalf("limit %d, name %q: %d rows, want %d in the order of the first walk:\n%s", limit, name, len(forward), len(want), diff)
				}
				back := walkTasksBack(t, s, project, name, limit, last)
				back = slices.DeleteFunc(back, func(k string) bool { return !want[k] })
				if diff := cmp.Diff(first, back); diff != "" {
					t.Fatalf("limit %d, name %q: back, not as forwards:\n%s", limit, name, diff)
				}
			}
		}
	})
}

// walkTasks lists all tasks page by page; with new, a newer one comes in after each page.
func walkTasks(t *testing.T, s *store.Store, project id.ID, name string, limit int, add bool) (keys []string, last store.Slice[store.Task]) {
	t.Helper()
	f := store.TaskFilter{Project: project, Name: name, Page: store.Page{Limit: limit}}
	for n := 0; ; n++ {
		page, err := s.Tasks(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		for i := range page.Items {
			keys = append(keys, page.Items[i].TaskID)
		}
		if page.Next == nil {
			return keys, page
		}
		if add && n < 50 {
			r := taskRow(project, "new-"+name+fmt.Sprint(n), t0.Add(time.Hour+time.Duration(n)), fold.StateReceived)
			r.Name = "bulk"
			seed(t, s, &store.IngestWrites{NewTasks: []store.TaskRow{r}})
		}
		f.Page.Cursor = *page.Next
	}
}

func walkTasksBack(t *testing.T, s *store.Store, project id.ID, name string, limit int, page store.Slice[store.Task]) (keys []string) {
	t.Helper()
	f := store.TaskFilter{Project: project, Name: name, Page: store.Page{Limit: limit}}
	for {
		part := make([]string, 0, len(page.Items)+len(keys))
		for i := range page.Items {
			part = append(part, page.Items[i].TaskID)
		}
		keys = append(part, keys...)
		if page.Prev == nil {
			return keys
		}
		f.Page.Cursor = *page.Prev
		var err error
		if page, err = s.Tasks(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTaskFilters also holds lesson D15: what a user types is text, and no pattern.
func TestTaskFilters(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		project := id.Random()
		uuid := "0195fa10-1111-7abc-8def-0123456789ab"
		rows := map[string]func(r *store.TaskRow){
			"t-1":     func(r *store.TaskRow) { r.Name, r.Queue, r.Worker = "pay.charge_card", "pay", "celery@n1" },
			"t-2":     func(r *store.TaskRow) { r.Name, r.Queue, r.Worker = "pay.chargeXcard", "pay", "celery@n2" },
			"t-3":     func(r *store.TaskRow) { r.Name, r.Queue, r.Priority = "Mail.Send", "50%_off", "high" },
			"t-4":     func(r *store.TaskRow) { r.State, r.Rare, r.Queue = 5, 5, `back\slash` },
			"t-5":     func(r *store.TaskRow) { r.State, r.Priority, r.Name = 4, "low", "mail.send" },
			uuid:      func(r *store.TaskRow) { r.Name = "by.id" },
			"Äpfel/1": func(r *store.TaskRow) { r.Received = 0; r.State = int16(fold.StatePending) },
		}
		at := map[string]time.Time{}
		var w store.IngestWrites
		for i, key := range []string{"t-1", "t-2", "t-3", "t-4", "t-5", uuid, "Äpfel/1"} {
			at[key] = t0.Add(time.Duration(i) * time.Second)
			r := taskRow(project, key, at[key], fold.StateReceived)
			rows[key](&r)
			w.NewTasks = append(w.NewTasks, r)
		}
		other := taskRow(id.Random(), "t-1", t0, fold.StateReceived)
		other.Name, other.Queue = "pay.charge_card", "pay"
		w.NewTasks = append(w.NewTasks, other)
		slices.SortFunc(w.NewTasks, func(a, b store.TaskRow) int { return a.Compare(b.TaskRef) })
		seed(t, s, &w)
		since := func(key string) *store.Time { return new(store.TimeOf(at[key])) }
		for _, tt := range []struct {
			name   string
			filter store.TaskFilter
			want   string
		}{
			{"all, newest first", store.TaskFilter{}, "Äpfel/1 " + uuid + " t-5 t-4 t-3 t-2 t-1"},
			{"a part of the name", store.TaskFilter{Name: "charge"}, "t-2 t-1"},
			{"an underscore in the name is no wildcard", store.TaskFilter{Name: "charge_card"}, "t-1"},
			{"a percent sign in the name is no wildcard", store.TaskFilter{Name: "%"}, ""},
			{"the name minds the case", store.TaskFilter{Name: "mail"}, "t-5"},
			{"a search does not", store.TaskFilter{Search: "MAIL"}, "t-5 t-3"},
			{"a search for an underscore", store.TaskFilter{Search: "e_c"}, "t-1"},
			{"a search for a percent sign", store.TaskFilter{Search: "50%"}, "t-3"},
			{"a search for a backslash", store.TaskFilter{Search: `k\S`}, "t-4"},
			{"a search finds workers", store.TaskFilter{Search: "@N2"}, "t-2"},
			{"a search finds task ids", store.TaskFilter{Search: "T-4"}, "t-4"},
			{"a search for other letters minds their case", store.TaskFilter{Search: "Äpf"}, "Äpfel/1"},
			{"on both databases", store.TaskFilter{Search: "äpf"}, ""},
			{"a search for quotes", store.TaskFilter{Search: `' OR 1=1 --`}, ""},
			{"a search for a whole UUID", store.TaskFilter{Search: strings.ToUpper(uuid)}, uuid},
			{"a search for another UUID", store.TaskFilter{Search: strings.Replace(uuid, "0", "1", 1)}, ""},
			{"a queue is exact", store.TaskFilter{Queue: "pay"}, "t-2 t-1"},
			{"a worker is exact", store.TaskFilter{Worker: "celery@n"}, ""},
			{"a rare state", store.TaskFilter{State: new(fold.StateFailure)}, "t-4"},
			{"a common state", store.TaskFilter{State: new(fold.StateSuccess)}, "t-5"},
			{"a state without rows", store.TaskFilter{State: new(fold.StateLost)}, ""},
			{"a state and a name", store.TaskFilter{State: new(fold.StateReceived), Name: "pay"}, "t-2 t-1"},
			{"a rare state and a name", store.TaskFilter{State: new(fold.StateFailure), Name: "pay"}, ""},
			{"a priority", store.TaskFilter{Priorities: []string{"high", "low"}}, "t-5 t-3"},
			{"normal is what nobody named", store.TaskFilter{Priorities: []string{"normal"}}, "Äpfel/1 " + uuid + " t-4 t-2 t-1"},
			{"since is inclusive", store.TaskFilter{Since: since("t-5")}, uuid + " t-5"},
			{"until is too", store.TaskFilter{Until: since("t-2")}, "t-2 t-1"},
			{"both, and a name", store.TaskFilter{Since: since("t-2"), Until: since("t-3"), Name: "."}, "t-3 t-2"},
		} {
			tt.filter.Project = project
			got, err := s.Tasks(t.Context(), tt.filter)
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			var keys []string
			for _, task := range got.Items {
				keys = append(keys, task.TaskID)
			}
			if k := strings.Join(keys, " "); k != tt.want {
				t.Errorf("%s: %q, want %q", tt.name, k, tt.want)
			}
		}
	})
}

// TestF20ListsCarryNoPayload keeps a page of 500 small, and says what it leaves out.
func TestF20ListsCarryNoPayload(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		project := id.Random()
		big := []byte(`"` + strings.Repeat("x", 8000) + `"`)
		var w store.IngestWrites
		for i := range 500 {
			r := taskRow(project, id.Random().String(), t0.Add(time.Duration(i)*time.Second), fold.StateFailure)
			r.Name, r.Queue, r.Worker, r.Deciding, r.Attempts = "shop.orders.confirm", "orders", "celery@worker-1", 1, 1
			r.Args, r.Kwargs = big, big
			w.NewTasks = append(w.NewTasks, r)
			w.Attempts = append(w.Attempts, store.AttemptRow{
				TaskRef: r.TaskRef, Number: 1, State: 5, WaitUS: -1, RuntimeUS: 400, Retries: -1,
				Payload: store.Payload{Result: big, Exception: "ValueError", ExceptionMessage: strings.Repeat("é", 4000), Traceback: string(big)},
			})
		}
		slices.SortFunc(w.NewTasks, func(a, b store.TaskRow) int { return a.Compare(b.TaskRef) })
		slices.SortFunc(w.Attempts, func(a, b store.AttemptRow) int { return a.Compare(b.TaskRef) })
		seed(t, s, &w)
		page, err := s.Tasks(t.Context(), store.TaskFilter{Project: project})
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(page)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Items) != 500 || len(text) > 900<<10 {
			t.Errorf("a page of %d rows has %d bytes, want 500 in less than 900 KiB even with a long message each", len(page.Items), len(text))
		}
		got := page.Items[0]
		if diff := cmp.Diff([]string{"args", "kwargs", "result", "traceback"}, got.Omitted); diff != "" || got.Args != nil || got.Result != nil || !got.HasResult {
			t.Errorf("omitted (-want +got):\n%s%+v", diff, got)
		}
		if got.ExceptionMessage == nil || len([]rune(*got.ExceptionMessage)) != 301 || !strings.HasSuffix(*got.ExceptionMessage, "é…") {
			t.Errorf("exception message: %v, want 300 characters and an ellipsis", got.ExceptionMessage)
		}
		one, err := s.Task(t.Context(), project, "celery", got.TaskID)
		if err != nil || string(one.Args) != string(big) || string(one.Result) != string(big) || *one.Traceback != string(big) || len(one.Omitted) != 0 {
			t.Errorf("the one task: %v, want it whole", err)
		}
	})
}

// TestF11DigitsSurvive: no number of a payload passes through a float.
func TestF11DigitsSurvive(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		project := id.Random()
		r := taskRow(project, "a11", t0, fold.StateSuccess)
		r.Deciding, r.Attempts, r.WaitUS = 1, 1, 0
		r.Args = []byte(`[7205759403792793601,-9007199254740993,1.10,1e400,0.30000000000000004]`)
		r.Kwargs = []byte(`{"id":123456789012345678901234567890}`)
		seed(t, s, &store.IngestWrites{NewTasks: []store.TaskRow{r}, Attempts: []store.AttemptRow{{
			TaskRef: r.TaskRef, Number: 1, State: 4, Finished: t0.UnixMicro(), WaitUS: 0, RuntimeUS: 400, Retries: 0, Payload: store.Payload{Result: []byte("null")},
		}}})
		one, err := s.Task(t.Context(), project, "celery", "a11")
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%s %s %s %v", one.Args, one.Kwargs, one.Result, one.HasResult)
		if want := string(r.Args) + " " + string(r.Kwargs) + " null true"; got != want {
			t.Errorf("payloads: %s, want %s", got, want)
		}
		if a := one.Attempts; len(a) != 1 || *a[0].RuntimeMS != 0.4 || *a[0].WaitMS != 0 || *a[0].Retries != 0 || a[0].StartedAt != nil || a[0].State != "success" {
			t.Errorf("attempts: %+v, want one of 0.4 ms", a)
		}
		if *one.WaitMS != 0 || one.RuntimeMS != nil || one.Name != nil {
			t.Errorf("wait %v, run time %v, name %v; want 0 and unknown", one.WaitMS, one.RuntimeMS, one.Name)
		}
		for _, tt := range []struct{ engine, task string }{{"rq", "a11"}, {"celery", "A11"}, {"celery", ""}} {
			if _, err := s.Task(t.Context(), project, tt.engine, tt.task); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("task %s/%s: %v, want %v", tt.engine, tt.task, err, store.ErrNotFound)
			}
		}
	})
}

// TestWorkersAgeByOneRule also holds lesson L18.
func TestWorkersAgeByOneRule(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		project := id.Random()
		now := store.TimeOf(t0)
		seen := func(ago time.Duration) int64 { return t0.Add(-ago).UnixMicro() }
		seed(t, s, &store.IngestWrites{Workers: []store.WorkerTouch{
			{Project: project, Engine: "celery", Name: "dead", Seen: seen(31 * time.Second)},
			{Project: project, Engine: "celery", Name: "edge", Seen: seen(30 * time.Second)},
			{Project: project, Engine: "celery", Name: "stopped", Seen: seen(time.Second), Stopped: true},
			{Project: project, Engine: "rq", Name: "up_1", Seen: seen(2 * time.Second), Offset: new(int64(-3_600_000_000))},
		}})
		for _, tt := range []struct {
			name   string
			filter store.WorkerFilter
			want   string
		}{
			{"the freshest first", store.WorkerFilter{}, "stopped:offline up_1:online edge:online dead:offline"},
			{"by name", store.WorkerFilter{ByName: true}, "dead:offline edge:online stopped:offline up_1:online"},
			{"online", store.WorkerFilter{State: store.Online}, "up_1:online edge:online"},
			{"offline", store.WorkerFilter{State: store.Offline}, "stopped:offline dead:offline"},
			{"of an engine", store.WorkerFilter{Engine: "rq"}, "up_1:online"},
			{"a search takes no wildcards", store.WorkerFilter{Search: "P_"}, "up_1:online"},
		} {
			tt.filter.Project = project
			page, err := s.Workers(t.Context(), tt.filter, now)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range page.Items {
				got = append(got, w.Name+":"+w.State)
			}
			if g := strings.Join(got, " "); g != tt.want {
				t.Errorf("%s: %s, want %s", tt.name, g, tt.want)
			}
		}
		fleets, err := s.Fleets(t.Context(), []id.ID{project}, now)
		if f := fleets[project]; err != nil || f.WorkersOnline != 2 || f.WorkersTotal != 4 {
			t.Errorf("counts: %+v, %v; want 2 of 4 workers online", f, err)
		}
		page, err := s.Workers(t.Context(), store.WorkerFilter{Project: project, Engine: "rq"}, now)
		if err != nil {
			t.Fatal(err)
		}
		one, err := s.Worker(t.Context(), project, page.Items[0].ID, now)
		if err != nil || one.Name != "up_1" || *one.ClockOffsetMS != -3_600_000 || one.State != store.Online || string(one.Metadata) != "{}" || one.ActiveTasks != nil {
			t.Errorf("one worker: %+v, %v", one, err)
		}
		if _, err := s.Worker(t.Context(), id.Random(), page.Items[0].ID, now); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a worker of another project: %v, want %v", err, store.ErrNotFound)
		}
	})
}

// TestALongSearchIsCutAndGoesOn: a page that takes too long to fill ends early, and its cursor loses nothing.
func TestALongSearchIsCutAndGoesOn(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		o := storetest.Options(url)
		clock := t0
		o.Now = func() time.Time { clock = clock.Add(2 * time.Second); return clock } // every look takes longer than a page may
		s, err := store.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.SearchBy(200)
		project := id.Random()
		var w store.IngestWrites
		for i := range 410 { // a little more than two stretches
			r := taskRow(project, fmt.Sprint("t", i), t0.Add(time.Duration(i)*time.Millisecond), fold.StateReceived)
			if i == 0 || i == 5 || i == 300 {
				r.Worker = "rare@host"
			}
			w.NewTasks = append(w.NewTasks, r)
		}
		slices.SortFunc(w.NewTasks, func(a, b store.TaskRow) int { return a.Compare(b.TaskRef) })
		seed(t, s, &w)
		walk := func(cursor string, back bool) (pages []string, last store.Slice[store.Task]) {
			for {
				page, err := s.Tasks(t.Context(), store.TaskFilter{Project: project, Worker: "rare@host", Page: store.Page{Limit: 2, Cursor: cursor}})
				if err != nil {
					t.Fatal(err)
				}
				keys := []string{}
				for _, task := range page.Items {
					keys = append(keys, task.TaskID)
				}
				pages = append(pages, strings.Join(keys, " "))
				on := page.Next
				if back {
					on = page.Prev
				}
				if on == nil {
					return pages, page
				}
				cursor = *on
			}
		}
		pages, last := walk("", false)
		if diff := cmp.Diff([]string{"t300", "", "t5 t0"}, pages); diff != "" {
			t.Errorf("forwards (-want +got):\n%s", diff)
		}
		if last.Prev == nil {
			t.Fatal("the last page but one has no cursor back")
		}
		// Back from behind the whole list.
		end := id.New(t0.Add(-time.Hour))
		pages, _ = walk(store.TaskCursor(end, true), true)
		if diff := cmp.Diff([]string{"t5 t0", "t300", ""}, pages); diff != "" {
			t.Errorf("back (-want +got):\n%s", diff)
		}
	})
}
