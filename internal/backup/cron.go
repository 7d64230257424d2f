package backup

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/adhocore/gronx"
)

// Cron says when something is due. The zero Cron is never.
type Cron struct {
	fields string
	zone   *time.Location
}

// ParseCron reads five fields of cron, in UTC unless CRON_TZ=Zone stands before them. Empty is never.
func ParseCron(text string) (Cron, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return Cron{}, nil
	}
	c := Cron{fields: text, zone: time.UTC}
	if rest, is := strings.CutPrefix(text, "CRON_TZ="); is {
		name, fields, _ := strings.Cut(rest, " ")
		zone, err := time.LoadLocation(name)
		if err != nil || name == "" || name == "Local" {
			return Cron{}, fmt.Errorf("%.60q is no time zone: write one like Europe/Berlin", name)
		}
		c.zone, c.fields = zone, strings.TrimSpace(fields)
	}
	if len(strings.Fields(c.fields)) != 5 || !gronx.IsValid(c.fields) {
		return Cron{}, fmt.Errorf("%.60q is no cron expression of five fields, such as 0 3 * * * for three o'clock every day", c.fields)
	}
	if _, err := gronx.NextTickAfter(c.fields, time.Unix(0, 0).In(c.zone), false); err != nil {
		return Cron{}, errors.New("the cron expression is never due")
	}
	return c, nil
}

// IsZero reports whether c is never.
func (c Cron) IsZero() bool { return c.fields == "" }

// Next is the first time after now; zero for never.
func (c Cron) Next(now time.Time) time.Time {
	if c.IsZero() {
		return time.Time{}
	}
	at, err := gronx.NextTickAfter(c.fields, now.In(c.zone), false)
	if err != nil {
		return time.Time{}
	}
	return at.UTC()
}

// Last is the newest time that is not after now; zero for never.
func (c Cron) Last(now time.Time) time.Time {
	if c.IsZero() {
		return time.Time{}
	}
	at, err := gronx.PrevTickBefore(c.fields, now.In(c.zone), true)
	if err != nil {
		return time.Time{}
	}
	return at.UTC()
}

// Longest is the longest wait between two of the next times; zero for never.
func (c Cron) Longest(now time.Time) (most time.Duration) {
	const looked = 64 // times: two months of a daily one
	at := c.Next(now)
	for range looked {
		next := c.Next(at)
		if at.IsZero() || next.IsZero() {
			break
		}
		most, at = max(most, next.Sub(at)), next
	}
	return most
}
