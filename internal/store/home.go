package store

import (
	"bytes"
	"context"
	"slices"
	"strings"

	"github.com/z4j-go/z4j/internal/fold"
	"github.com/z4j-go/z4j/internal/id"
)

// newestFailures is the order of failed tasks over several projects. Ids are UUIDv7 with 62 random bits: they tell rows
// of different projects apart.
var newestFailures = listing{tag: 'f', columns: "id", kinds: "i", desc: true}

// failureProjects is how many projects one statement asks for their newest failures: an index range each.
const failureProjects = 50

// RecentFailures lists the tasks of projects that stand as failed, newest first.
func (s *Store) RecentFailures(ctx context.Context, projects []id.ID, p Page) (Slice[Task], error) {
	out := Slice[Task]{Items: []Task{}}
	q, err := newestFailures.page(p)
	if err != nil {
		return out, wrap("list recent failures", err)
	}
	var found []taskBrief
	for part := range slices.Chunk(projects, failureProjects) {
		text, args := failuresPage(q, part)
		rows, err := s.read.QueryContext(ctx, text, args...)
		list, err := collect(rows, err, (*taskBrief).fields)
		if err != nil {
			return out, wrap("list recent failures", err)
		}
		found = append(found, list...)
	}
	slices.SortFunc(found, func(a, b taskBrief) int {
		if q.at.back {
			return bytes.Compare(a.ID[:], b.ID[:])
		}
		return bytes.Compare(b.ID[:], a.ID[:])
	})
	found = found[:min(len(found), q.limit+1)]
	page := slice(q, found, func(t *taskBrief) []any { return []any{t.ID} })
	for i := range page.Items {
		out.Items = append(out.Items, page.Items[i].settle())
	}
	out.Next, out.Prev = page.Next, page.Prev
	return out, nil
}

func failuresPage(q *query, projects []id.ID) (text string, args []any) {
	end := q.end()
	var w where
	state := w.arg(int64(fold.StateFailure))
	after := ""
	if q.begun {
		compare := " AND id < "
		if q.at.back {
			compare = " AND id > "
		}
		after = compare + w.arg(q.at.key[0])
	}
	parts := make([]string, len(projects))
	for i, project := range projects {
		parts[i] = "SELECT project_id, id FROM (SELECT project_id, id FROM tasks WHERE project_id = " + w.arg(project) +
			" AND rare_state = " + state + after + end + ") p"
	}
	return "SELECT " + taskColumns + taskBriefs + " FROM (SELECT project_id, id FROM (" + strings.Join(parts, " UNION ALL ") + ") u" + end +
		") page CROSS JOIN tasks t" + decidingAttempt + " WHERE t.project_id = page.project_id AND t.id = page.id", w.args
}
