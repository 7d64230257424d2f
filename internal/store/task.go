package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/z4j-go/z4j/internal/fold"
	"github.com/z4j-go/z4j/internal/id"
)

// Task is a task as the fold of its marks has it. Unknown is null. In a list args, kwargs, result and traceback are
// null and those that have a value are named in omitted; exceptions are cut.
type Task struct {
	ID               id.ID           `json:"id"`
	ProjectID        id.ID           `json:"project_id"`
	Engine           string          `json:"engine"`
	TaskID           string          `json:"task_id"`
	Name             *string         `json:"name"`
	Queue            *string         `json:"queue"`
	State            string          `json:"state" enum:"unknown,pending,received,started,success,failure,retry,revoked,rejected,lost"`
	Priority         string          `json:"priority" doc:"critical, high, normal or low; normal where nobody named one"`
	Args             json.RawMessage `json:"args"`
	Kwargs           json.RawMessage `json:"kwargs"`
	Result           json.RawMessage `json:"result"`
	HasResult        bool            `json:"has_result" doc:"tells a result that is null from one that is unknown"`
	Exception        *string         `json:"exception"`
	ExceptionMessage *string         `json:"exception_message"`
	Traceback        *string         `json:"traceback"`
	Reason           *string         `json:"reason" doc:"why revoked, retried or lost"`
	Omitted          []string        `json:"omitted" doc:"fields that have a value which this answer leaves out; ask for the one task"`
	AttemptCount     int64           `json:"attempt_count"`
	RetryCount       int64           `json:"retry_count"`
	Deliveries       int64           `json:"deliveries" doc:"how often a worker received it"`
	CountsAtLeast    bool            `json:"counts_at_least" doc:"more was heard of the task than is kept: the three counts are lower bounds"`
	ETA              *Time           `json:"eta"`
	ReceivedAt       *Time           `json:"received_at"`
	StartedAt        *Time           `json:"started_at"`
	FinishedAt       *Time           `json:"finished_at"`
	WaitMS           *float64        `json:"wait_ms"`
	RuntimeMS        *float64        `json:"runtime_ms"`
	WorkerName       *string         `json:"worker_name"`
	ParentTaskID     *string         `json:"parent_task_id"`
	RootTaskID       *string         `json:"root_task_id"`
	Tags             []string        `json:"tags"`
	CreatedAt        Time            `json:"created_at"`
	UpdatedAt        Time            `json:"updated_at"`
}

// taskColumns come from the task t and from the attempt a that decides.
const taskColumns = `t.id, t.project_id, t.engine, t.task_id, t.name, t.queue, t.state, coalesce(t.priority, 'normal'),
	a.result IS NOT NULL, coalesce(a.reason, t.reason), t.attempts, t.retry_count, t.deliveries, t.truncated, t.eta, t.received_at, t.started_at, t.finished_at,
	t.wait_us, t.runtime_us, t.worker, t.parent_task_id, t.root_task_id, t.tags, t.created_at, t.updated_at`

func (t *Task) fields() []any {
	return []any{
		&t.ID, &t.ProjectID, &t.Engine, &t.TaskID, &t.Name, &t.Queue,
		stateName{&t.State},
		&t.Priority,
		&t.HasResult, &t.Reason, &t.AttemptCount, &t.RetryCount, &t.Deliveries, &t.CountsAtLeast, &t.ETA, &t.ReceivedAt, &t.StartedAt, &t.FinishedAt,
		millis{&t.WaitMS},
		millis{&t.RuntimeMS},
		&t.WorkerName, &t.ParentTaskID, &t.RootTaskID,
		parsedJSON{&t.Tags},
		&t.CreatedAt, &t.UpdatedAt,
	}
}

const decidingAttempt = ` LEFT JOIN attempts a
	ON a.project_id = t.project_id AND a.engine = t.engine AND a.task_key = t.task_key AND a.number = t.deciding`

// taskBriefs are what a list shows of the columns that can be large: whether they are there, and the head of an exception.
const taskBriefs = `, t.args IS NOT NULL, t.kwargs IS NOT NULL, a.traceback IS NOT NULL,
	CASE WHEN length(a.exception) > 200 THEN substr(a.exception, 1, 200) || '…' ELSE a.exception END,
	CASE WHEN length(a.exception_message) > 300 THEN substr(a.exception_message, 1, 300) || '…' ELSE a.exception_message END`

// taskBrief is a row of a list being read.
type taskBrief struct {
	Task

	hasArgs, hasKwargs, hasTraceback bool
}

func (t *taskBrief) fields() []any {
	return append(t.Task.fields(), &t.hasArgs, &t.hasKwargs, &t.hasTraceback, &t.Exception, &t.ExceptionMessage)
}

func (t *taskBrief) settle() Task {
	t.Task.settle()
	for _, f := range []struct {
		name string
		has  bool
	}{{"args", t.hasArgs}, {"kwargs", t.hasKwargs}, {"result", t.HasResult}, {"traceback", t.hasTraceback}} {
		if f.has {
			t.Omitted = append(t.Omitted, f.name)
		}
	}
	return t.Task
}

func (t *Task) settle() {
	t.Omitted = []string{}
	if t.Tags == nil {
		t.Tags = []string{}
	}
}

// TaskFilter says which of a project's tasks are wanted; zero values mean any.
type TaskFilter struct {
	Project      id.ID
	State        *fold.State
	Priorities   []string
	Name         string // contained in the name, the case counts
	Search       string // contained in name, queue, worker or task id, whatever the case of ASCII letters; a whole UUID is the task id
	Queue        string
	Worker       string
	Since, Until *Time // on received_at, both inclusive
	Page         Page
}

// newestTasks is the order of tasks: by the row's own id, which no change of state moves (docs/decisions).
var newestTasks = listing{tag: 't', columns: "id", kinds: "i", desc: true}

// Tasks lists tasks, newest first. Where no index knows what a filter wants a page may end early, even empty, with a
// cursor that goes on.
func (s *Store) Tasks(ctx context.Context, f TaskFilter) (Slice[Task], error) {
	out, err := s.tasks(ctx, f)
	return out, wrap("list tasks", err)
}

func (s *Store) tasks(ctx context.Context, f TaskFilter) (Slice[Task], error) {
	out := Slice[Task]{Items: []Task{}}
	q, err := newestTasks.page(f.Page)
	if err != nil {
		return out, err
	}
	search, err := s.taskSearch(ctx, &f)
	if err != nil || len(search.parts) == 0 {
		return out, err
	}
	search.state = f.State
	found, cut, err := s.scanTasks(ctx, f.Project, q, search)
	if err != nil {
		return out, err
	}
	page := slice(q, found, func(t *taskBrief) []any { return []any{t.ID} })
	for i := range page.Items {
		out.Items = append(out.Items, page.Items[i].settle())
	}
	out.Next, out.Prev = page.Next, page.Prev
	if cut != nil {
		on := newestTasks.encode(cursor{back: q.at.back, key: []any{*cut}})
		if q.at.back {
			out.Prev = &on
		} else {
			out.Next = &on
		}
	}
	return out, nil
}

// taskSearch is a filter made SQL.
type taskSearch struct {
	base   string // the conditions that an index serves in the list's order
	rest   string // the others: rows are read and left out
	parts  []string
	args   []any // of base, rest, parts
	inBase int   // how many of args belong to base
	state  *fold.State
}

const (
	// scanRows are read at most between two looks at the clock where no index knows what a filter wants.
	scanRows = 20_000
	// scanBudget is how long a page is looked for; it ends early then, and its cursor goes on from there.
	scanBudget = time.Second
)

// scanTasks reads the rows of a page and one more. cut is the row up to which it looked before time was up; nil when the
// page is full or the list at its end.
func (s *Store) scanTasks(ctx context.Context, project id.ID, q *query, search *taskSearch) (found []taskBrief, cut *id.ID, err error) {
	var place *id.ID
	if q.begun {
		at, _ := q.at.key[0].(id.ID) // newestTasks has no other kind of key
		place = &at
	}
	begun := s.now()
	for first := true; ; first = false {
		bound := (*id.ID)(nil)
		if search.rest != "" {
			if bound, err = s.taskAfter(ctx, q, search, place); err != nil {
				return nil, nil, err
			}
		}
		if first && bound != nil && search.state != nil {
			// "What is running?" is asked often, and nothing is a common answer.
			if n, err := s.CountTasks(ctx, TaskFilter{Project: project, State: search.state}); err != nil || *n == 0 {
				return nil, nil, err
			}
		}
		text, args := search.page(q, place, bound, q.limit+1-len(found))
		rows, err := s.read.QueryContext(ctx, s.sql(text), args...)
		list, err := collect(rows, err, (*taskBrief).fields)
		if err != nil {
			return nil, nil, err
		}
		found = append(found, list...)
		switch {
		case bound == nil || len(found) > q.limit:
			return found, nil, nil
		case s.now().Sub(begun) >= scanBudget:
			return found, bound, nil
		}
		place = bound
	}
}

// taskAfter finds the row that ends a stretch of scanRows behind place; nil where fewer follow.
func (s *Store) taskAfter(ctx context.Context, q *query, search *taskSearch, place *id.ID) (*id.ID, error) {
	w := where{args: slices.Clone(search.args[:search.inBase])}
	text := "SELECT id FROM tasks" + search.base
	if place != nil {
		text += " AND id " + beyond(q.at.back) + " " + w.arg(*place)
	}
	var bound id.ID
	err := s.read.QueryRowContext(ctx, text+newestTasks.order(q.at.back)+" LIMIT 1 OFFSET "+strconv.Itoa(cmp.Or(s.stretch, scanRows)-1), w.args...).Scan(&bound)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // the list ends within the stretch
	}
	return &bound, err
}

// beyond compares with a place in the list of tasks, in the direction of reading.
func beyond(back bool) string {
	if back {
		return ">"
	}
	return "<"
}

// page is the statement of rows behind place and up to bound. It finds their ids first, so that no plan joins or sorts
// more than the page: of several parts, each of which an index serves in the list's order, the best are taken. CROSS JOIN
// keeps SQLite from turning that around.
func (t *taskSearch) page(q *query, place, bound *id.ID, limit int) (text string, args []any) {
	w := where{args: slices.Clone(t.args)}
	conditions := t.base + t.rest
	if place != nil {
		conditions += " AND id " + beyond(q.at.back) + " " + w.arg(*place)
	}
	if bound != nil {
		conditions += " AND id " + beyond(!q.at.back) + "= " + w.arg(*bound)
	}
	end := newestTasks.order(q.at.back) + " LIMIT " + strconv.Itoa(limit)
	ids := "SELECT id FROM tasks" + conditions + t.parts[0] + end
	if len(t.parts) > 1 {
		ids = ""
		for _, part := range t.parts {
			ids += " UNION ALL SELECT id FROM (SELECT id FROM tasks" + conditions + part + end + ") p"
		}
		ids = "SELECT id FROM (" + strings.TrimPrefix(ids, " UNION ALL ") + ") u" + end
	}
	return "SELECT " + taskColumns + taskBriefs + " FROM (" + ids + ") page CROSS JOIN tasks t" + decidingAttempt +
		" WHERE t.project_id = $1 AND t.id = page.id" + strings.ReplaceAll(newestTasks.order(q.at.back), " id", " t.id"), w.args
}

// taskSearch makes f SQL; without parts nothing can match. The project is parameter $1.
func (s *Store) taskSearch(ctx context.Context, f *TaskFilter) (*taskSearch, error) {
	t := &taskSearch{parts: []string{""}}
	var w where
	w.and("project_id = ?", f.Project)
	rare := f.State != nil && rareState(*f.State)
	if rare {
		w.and("rare_state = ?", int64(*f.State))
	}
	t.base, t.inBase = w.sql.String(), len(w.args)
	s.narrow(&w, f)
	byID := false
	if f.Search != "" {
		if _, err := id.Parse(f.Search); err == nil {
			byID = true
			if t.parts, err = s.partsOfID(ctx, &w, f); err != nil {
				return nil, err
			}
		} else {
			p := pattern(f.Search)
			w.and("("+s.dialect.contains("name")+" OR "+s.dialect.contains("queue")+" OR "+s.dialect.contains("worker")+" OR "+s.dialect.contains("task_id")+")", p, p, p, p)
		}
	}
	if f.Name != "" {
		names, complete, err := s.taskNames(ctx, f.Project, f.Name)
		plain := w.sql.Len() == len(t.base) // nothing but the project: the index of names has the list's order
		switch {
		case err != nil:
			return nil, err
		case complete && len(names) == 0:
			t.parts = nil
		case complete && plain && !rare && len(names) <= namesAtOnce:
			t.parts = nil
			for _, name := range names {
				t.parts = append(t.parts, " AND name = "+w.arg(name))
			}
		default:
			w.and("replace(name, ?, '') <> name", f.Name)
		}
	}
	t.rest, t.args = w.sql.String()[len(t.base):], w.args
	if byID {
		t.base, t.rest = t.base+t.rest, "" // the primary key finds the few rows
	}
	return t, nil
}

// narrow adds the conditions of f that no index serves, but for the name's and the search's.
func (s *Store) narrow(w *where, f *TaskFilter) {
	if f.State != nil && !rareState(*f.State) {
		w.and("state = ?", int64(*f.State))
	}
	if len(f.Priorities) > 0 {
		in(w, "coalesce(priority, 'normal')", f.Priorities)
	}
	if f.Queue != "" {
		w.and("queue = ?", f.Queue)
	}
	if f.Worker != "" {
		w.and("worker = ?", f.Worker)
	}
	if f.Since != nil {
		w.and("received_at >= ?", *f.Since)
	}
	if f.Until != nil {
		w.and("received_at <= ?", *f.Until)
	}
}

// partsOfID finds tasks by their whole id, in either case, through the primary key: a part for each engine.
func (s *Store) partsOfID(ctx context.Context, w *where, f *TaskFilter) (parts []string, err error) {
	engines, err := s.skip(ctx, f.Project, "engine", enginesAtMost)
	texts := []string{strings.ToLower(f.Search)}
	if f.Search != texts[0] {
		texts = append(texts, f.Search)
	}
	for _, engine := range engines {
		for _, text := range texts {
			parts = append(parts, " AND engine = "+w.arg(engine)+" AND task_key = "+w.arg(id.ID(fold.TaskKey(engine, text))))
		}
	}
	return parts, err
}

const (
	namesAtMost   = 2000 // distinct names of a project that a filter looks through; beyond, rows are scanned
	namesAtOnce   = 12   // names of one statement, each an index range of its own
	enginesAtMost = 40
)

// taskNames returns the distinct names of project's tasks that contain part; complete is false when there were too many
// names to look at.
func (s *Store) taskNames(ctx context.Context, project id.ID, part string) (names []string, complete bool, err error) {
	all, err := s.skip(ctx, project, "name", namesAtMost+1)
	for _, name := range all {
		if strings.Contains(name, part) {
			names = append(names, name)
		}
	}
	return names, len(all) <= namesAtMost, err
}

// skip returns the distinct values of column, the second of an index of tasks, by one index probe each.
func (s *Store) skip(ctx context.Context, project id.ID, column string, most int) ([]string, error) {
	rows, err := s.read.QueryContext(ctx, strings.ReplaceAll(`WITH RECURSIVE v(x) AS (
			SELECT (SELECT {column} FROM tasks WHERE project_id = $1 AND {column} IS NOT NULL ORDER BY {column} LIMIT 1)
			UNION ALL
			SELECT (SELECT {column} FROM tasks WHERE project_id = $1 AND {column} > v.x ORDER BY {column} LIMIT 1) FROM v WHERE v.x IS NOT NULL
		) SELECT x FROM v WHERE x IS NOT NULL LIMIT `, "{column}", column)+strconv.Itoa(most), project)
	return collect(rows, err, func(v *string) []any { return []any{v} })
}

// Attempt is one run of a task.
type Attempt struct {
	Number           int64           `json:"number"`
	State            string          `json:"state" enum:"started,success,failure,retry,revoked,rejected,lost"`
	Worker           *string         `json:"worker_name"`
	StartedAt        *Time           `json:"started_at"`
	FinishedAt       *Time           `json:"finished_at"`
	WaitMS           *float64        `json:"wait_ms"`
	RuntimeMS        *float64        `json:"runtime_ms"`
	Retries          *int64          `json:"retries" doc:"as the engine numbers it; null: not told"`
	Result           json.RawMessage `json:"result"`
	HasResult        bool            `json:"has_result" doc:"tells a result that is null from one that is unknown"`
	Exception        *string         `json:"exception"`
	ExceptionMessage *string         `json:"exception_message"`
	Traceback        *string         `json:"traceback"`
	Reason           *string         `json:"reason"`
}

const attemptColumns = `number, state, worker, started_at, finished_at, wait_us, runtime_us, retries, result, result IS NOT NULL,
	exception, exception_message, traceback, reason`

func (a *Attempt) fields() []any {
	return []any{
		&a.Number,
		stateName{&a.State},
		&a.Worker, &a.StartedAt, &a.FinishedAt,
		millis{&a.WaitMS},
		millis{&a.RuntimeMS},
		&a.Retries,
		rawJSON{&a.Result},
		&a.HasResult, &a.Exception, &a.ExceptionMessage, &a.Traceback, &a.Reason,
	}
}

// TaskDetail is a task with all that is kept of it.
type TaskDetail struct {
	Task

	Attempts []Attempt `json:"attempts" doc:"the newest first; at most 50, the rest under …/attempts"`
}

// attemptsShown is how many attempts come with a task: a crash loop makes hundreds.
const attemptsShown = 50

// Task returns one task by its engine's id, or ErrNotFound.
func (s *Store) Task(ctx context.Context, project id.ID, engine, taskID string) (TaskDetail, error) {
	var t TaskDetail
	key := id.ID(fold.TaskKey(engine, taskID))
	err := s.read.QueryRowContext(ctx, `SELECT `+taskColumns+`, t.args, t.kwargs, a.result, a.exception, a.exception_message, a.traceback
		FROM tasks t`+decidingAttempt+` WHERE t.project_id = $1 AND t.engine = $2 AND t.task_key = $3`, project, engine, key).
		Scan(append(t.fields(), rawJSON{&t.Args}, rawJSON{&t.Kwargs}, rawJSON{&t.Result}, &t.Exception, &t.ExceptionMessage, &t.Traceback)...)
	if err != nil {
		return TaskDetail{}, wrap("task", err)
	}
	t.settle()
	rows, err := s.read.QueryContext(ctx, `SELECT `+attemptColumns+` FROM attempts
		WHERE project_id = $1 AND engine = $2 AND task_key = $3 ORDER BY number DESC LIMIT `+strconv.Itoa(attemptsShown), project, engine, key)
	t.Attempts, err = collect(rows, err, (*Attempt).fields)
	return t, wrap("attempts", err)
}

var newestAttempts = listing{tag: 'A', columns: "number", kinds: "n", desc: true}

// Attempts lists a task's attempts, the newest first.
func (s *Store) Attempts(ctx context.Context, project id.ID, engine, taskID string, p Page) (Slice[Attempt], error) {
	q, err := newestAttempts.page(p)
	if err != nil {
		return Slice[Attempt]{}, err
	}
	q.and("project_id = ?", project)
	q.and("engine = ?", engine)
	q.and("task_key = ?", id.ID(fold.TaskKey(engine, taskID)))
	out, err := readPage(ctx, s, q, `SELECT `+attemptColumns+` FROM attempts`, (*Attempt).fields, func(a *Attempt) []any { return []any{a.Number} })
	return out, wrap("attempts", err)
}
