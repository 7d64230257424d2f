package auth

import (
	"sync"
	"time"
)

// Limit is how often something may happen within a sliding window.
type Limit struct {
	Count int
	Per   time.Duration
}

// maxKeys bounds a Limiter's memory: twice as many keys with at most Count times each are remembered.
const maxKeys = 8192

// Limiter counts what happened per key within a sliding window. The time comes in with each call. What it refuses it
// does not count, so that nobody who goes on trying is locked out for longer. Make one with NewLimiter.
type Limiter struct {
	limit Limit

	mu     sync.Mutex
	keys   int                // that newer may hold
	newer  map[string][]int64 // times in ns, oldest first
	older  map[string][]int64 // what newer was before it was full or a window old
	rotate int64              // when newer becomes older
}

// NewLimiter returns a Limiter that has counted nothing.
func NewLimiter(limit Limit) *Limiter {
	return &Limiter{limit: limit, keys: maxKeys, newer: make(map[string][]int64)}
}

// Take counts one for key if the limit permits. If not it says after how long it will.
func (l *Limiter) Take(key string, now time.Time) (ok bool, retry time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	times := l.times(key, now)
	if len(times) >= l.limit.Count {
		return false, max(time.Duration(times[len(times)-l.limit.Count]-now.Add(-l.limit.Per).UnixNano()), time.Nanosecond)
	}
	l.newer[key] = append(times, now.UnixNano())
	return true, 0
}

// Return takes back the newest Take of key: it turned out to be none that counts.
func (l *Limiter) Return(key string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if times := l.times(key, now); len(times) > 0 {
		l.newer[key] = times[:len(times)-1]
	}
}

// Count is how many were counted for key within the window that ends at now.
func (l *Limiter) Count(key string, now time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.times(key, now))
}

// Forget forgets what was counted for key.
func (l *Limiter) Forget(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.newer, key)
	delete(l.older, key)
}

// times moves what is known of key and still within the window into newer and returns it.
func (l *Limiter) times(key string, now time.Time) []int64 {
	if len(l.newer) >= l.keys || now.UnixNano() >= l.rotate {
		l.older, l.newer = l.newer, make(map[string][]int64)
		l.rotate = now.Add(l.limit.Per).UnixNano()
	}
	times, found := l.newer[key]
	if !found {
		times = l.older[key]
		delete(l.older, key)
	}
	from := now.Add(-l.limit.Per).UnixNano()
	gone := 0
	for gone < len(times) && times[gone] <= from {
		gone++
	}
	times = times[gone:]
	if len(times) == 0 {
		delete(l.newer, key)
		return nil
	}
	l.newer[key] = times
	return times
}
