package backup

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Keep says how many backups are kept: the newest of each of the last so many hours, days, weeks, months and years that
// have one, and the last few whatever their time. The zero Keep keeps all.
type Keep struct {
	Last, Hourly, Daily, Weekly, Monthly, Yearly int
}

// keepUnit is one kind of rule: of each period the newest is kept, for so many periods.
type keepUnit struct {
	name   string
	count  func(*Keep) *int
	period func(time.Time) string
}

var keepUnits = []keepUnit{
	{"last", func(k *Keep) *int { return &k.Last }, func(t time.Time) string { return t.Format(time.RFC3339Nano) }},
	{"hourly", func(k *Keep) *int { return &k.Hourly }, func(t time.Time) string { return t.Format("2006-01-02T15") }},
	{"daily", func(k *Keep) *int { return &k.Daily }, func(t time.Time) string { return t.Format("2006-01-02") }},
	{"weekly", func(k *Keep) *int { return &k.Weekly }, func(t time.Time) string {
		year, week := t.ISOWeek()
		return fmt.Sprintf("%d-W%02d", year, week)
	}},
	{"monthly", func(k *Keep) *int { return &k.Monthly }, func(t time.Time) string { return t.Format("2006-01") }},
	{"yearly", func(k *Keep) *int { return &k.Yearly }, func(t time.Time) string { return t.Format("2006") }},
}

// ParseKeep reads "daily=7,weekly=5,monthly=12".
func ParseKeep(text string) (Keep, error) {
	var k Keep
	seen := map[string]bool{}
	for item := range strings.SplitSeq(text, ",") {
		name, number, _ := strings.Cut(strings.TrimSpace(item), "=")
		n, err := strconv.Atoi(number)
		at := slices.IndexFunc(keepUnits, func(u keepUnit) bool { return u.name == name })
		if err != nil || n < 1 || n > 100_000 || at < 0 || seen[name] {
			return Keep{}, fmt.Errorf("%.60q is no rule of keeping: write daily=7,weekly=5,monthly=12 (or last, hourly, yearly), each once and at least 1", item)
		}
		seen[name] = true
		*keepUnits[at].count(&k) = n
	}
	if k == (Keep{}) {
		return k, errors.New("no rule of keeping is given: write daily=7,weekly=5,monthly=12")
	}
	return k, nil
}

// String is what ParseKeep reads.
func (k Keep) String() string {
	var out []string
	for _, u := range keepUnits {
		if n := *u.count(&k); n > 0 {
			out = append(out, u.name+"="+strconv.Itoa(n))
		}
	}
	return strings.Join(out, ",")
}

// Choose returns which of backups made at these times are kept. The newest always is.
func (k Keep) Choose(times []time.Time) []bool {
	kept := make([]bool, len(times))
	order := make([]int, len(times))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Or(times[b].Compare(times[a]), cmp.Compare(a, b)) })
	if k == (Keep{}) {
		for i := range kept {
			kept[i] = true
		}
		return kept
	}
	for _, u := range keepUnits {
		left, last := *u.count(&k), ""
		for _, i := range order {
			period := u.period(times[i].UTC())
			if left == 0 || period == last && u.name != "last" {
				continue
			}
			kept[i], last = true, period
			left--
		}
	}
	if len(order) > 0 {
		kept[order[0]] = true
	}
	return kept
}
