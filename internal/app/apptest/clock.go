package apptest

import (
	"sync/atomic"
	"time"
)

// Clock runs as the machine's does, from a time that the test chooses, so that a test needs no patience for what takes
// hours. Brain and agents of a test share one.
type Clock struct{ ahead atomic.Int64 } // of the machine's clock

// NewClock returns a clock that shows at.
func NewClock(at time.Time) *Clock {
	c := &Clock{}
	c.Set(at)
	return c
}

// Now is what the clock shows.
func (c *Clock) Now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())).Round(0) }

// Set puts the clock to at. Connections that were made before are out of their time if that is far away.
func (c *Clock) Set(at time.Time) { c.ahead.Store(int64(time.Until(at))) }
