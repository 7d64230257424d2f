package metrics

import (
	"strings"
	"sync"
	"unicode/utf8"
)

// capped lets a bounded number of different values through for each group.
type capped struct {
	most int

	mu   sync.RWMutex
	seen map[string]map[string]struct{}
}

// get returns value, cut to what a label may hold, or "__overflow__" when its group is full.
func (c *capped) get(group, value string) string {
	if !utf8.ValidString(value) {
		value = strings.ToValidUTF8(value, "\uFFFD")
	}
	if len(value) > maxLabel {
		value = strings.ToValidUTF8(value[:maxLabel], "")
	}
	c.mu.RLock()
	_, known := c.seen[group][value]
	c.mu.RUnlock()
	if known {
		return value
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = map[string]map[string]struct{}{}
	}
	values := c.seen[group]
	if values == nil {
		if len(c.seen) >= maxProjects {
			return overflow
		}
		values = map[string]struct{}{}
		c.seen[group] = values
	}
	if _, known := values[value]; !known && len(values) >= c.most {
		return overflow
	}
	values[value] = struct{}{}
	return value
}
