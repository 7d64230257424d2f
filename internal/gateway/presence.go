package gateway

import (
	"context"
	"sync"
	"time"

	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/wire"
)

const (
	connectGroup  = 256 // hellos in one transaction; a fleet that comes back costs some dozens of commits
	touchGroup    = 2000
	presenceLimit = 10 * time.Second // of one transaction
	maxEnds       = 100_000          // ends that wait for the database, some 150 B each; lost ones heal by age
)

// presence writes down who is connected. One goroutine does it, in groups, so that the database sees connects and ends
// of a slot in the order in which the registry does.
type presence struct {
	server *Server
	wake   chan struct{}
	over   chan struct{} // closed when no connection is left

	mu       sync.Mutex
	connects []*pendingConnect
	ends     []store.SlotEnd
}

// pendingConnect is a hello that waits for its slot.
type pendingConnect struct {
	conn   *conn
	hello  store.SlotConnect
	answer chan connected // buffered
}

type connected struct {
	taken bool // false: the agent may not connect
	err   error
}

func newPresence(s *Server) presence {
	return presence{server: s, wake: make(chan struct{}, 1), over: make(chan struct{})}
}

// connect gives c its slot in the database and then in the registry.
func (p *presence) connect(c *conn, hello store.SlotConnect) connected {
	w := &pendingConnect{conn: c, hello: hello, answer: make(chan connected, 1)}
	p.mu.Lock()
	p.connects = append(p.connects, w)
	p.mu.Unlock()
	p.poke()
	return <-w.answer
}

// end notes that c's connection is over.
func (p *presence) end(e store.SlotEnd) {
	p.mu.Lock()
	p.ends = append(p.ends, e)
	p.mu.Unlock()
	p.poke()
}

func (p *presence) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// finish lets run write what is left and return.
func (p *presence) finish() { close(p.over) }

func (p *presence) run() {
	touch := time.NewTicker(p.server.TouchEvery)
	defer touch.Stop()
	for {
		select {
		case <-p.wake:
			for p.connectAll() {
			}
			p.endAll()
		case <-touch.C:
			p.endAll()
			p.touchAll()
		case <-p.over:
			p.touchAll()
			p.endAll()
			return
		}
	}
}

// connectAll writes one group of hellos and reports whether more wait.
func (p *presence) connectAll() bool {
	p.mu.Lock()
	group := p.connects[:min(connectGroup, len(p.connects))]
	p.connects = p.connects[len(group):]
	more := len(p.connects) > 0
	p.mu.Unlock()
	if len(group) == 0 {
		return false
	}
	hellos := make([]store.SlotConnect, len(group))
	for i, w := range group {
		hellos[i] = w.hello
	}
	ctx, cancel := context.WithTimeout(p.server.base, presenceLimit)
	defer cancel()
	taken, err := p.server.Store.ConnectSlots(ctx, hellos)
	for i, w := range group {
		if err != nil || !taken[i] {
			w.answer <- connected{err: err}
			continue
		}
		old := p.server.registry.install(w.conn)
		if old != nil {
			old.end(wire.CloseDisplaced, "displaced by a newer connection of the same process")
		}
		w.answer <- connected{taken: true}
	}
	return more
}

// endAll writes the ends that wait; those that can't be written wait on.
func (p *presence) endAll() {
	p.mu.Lock()
	ends := p.ends
	p.ends = nil
	p.mu.Unlock()
	for len(ends) > 0 {
		group := ends[:min(touchGroup, len(ends))]
		ctx, cancel := context.WithTimeout(p.server.base, presenceLimit)
		err := p.server.Store.DisconnectSlots(ctx, group)
		cancel()
		if err != nil {
			p.server.Log.Warn("ended connections not written", "count", len(ends), "err", err)
			p.mu.Lock()
			p.ends = append(ends, p.ends...)
			p.ends = p.ends[max(0, len(p.ends)-maxEnds):]
			p.mu.Unlock()
			return
		}
		ends = ends[len(group):]
	}
}

// touchAll writes which connections showed life since the last time and closes those that lost their slots elsewhere.
func (p *presence) touchAll() {
	var conns []*conn
	var touches []store.SlotTouch
	for _, c := range p.server.registry.holders() {
		if t, ok := c.touch(); ok {
			conns, touches = append(conns, c), append(touches, t)
		}
	}
	for len(touches) > 0 {
		n := min(touchGroup, len(touches))
		ctx, cancel := context.WithTimeout(p.server.base, presenceLimit)
		losses, err := p.server.Store.TouchSlots(ctx, touches[:n])
		cancel()
		if err != nil {
			p.server.Log.Warn("signs of life not written", "count", len(touches), "err", err)
			for i, c := range conns {
				c.untouch(touches[i])
			}
			return
		}
		for i, loss := range losses {
			switch loss {
			case store.SlotHeld:
			case store.SlotTaken:
				conns[i].end(wire.CloseDisplaced, "displaced by a newer connection of the same process")
			case store.SlotRevoked:
				conns[i].end(wire.CloseRevoked, "agent revoked")
			}
		}
		conns, touches = conns[n:], touches[n:]
	}
}
