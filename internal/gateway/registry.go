package gateway

import (
	"sync"

	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

// registry knows every connection of this process and which of them holds which slot.
type registry struct {
	mu     sync.Mutex
	agents map[id.ID]*agentConns
	n      int
}

type agentConns struct {
	conns   map[*conn]struct{} // all, from the upgrade on
	shaking int                // of them without a slot
	slots   map[store.Slot]*place
}

// place is a slot: its holder, and connections that wait for the database to give it to them.
type place struct {
	holder  *conn
	waiting int
}

// add takes c in, before its hello, unless more than most connections of its agent shake hands; negative: any number.
func (r *registry) add(c *conn, most int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.agents[c.agent]
	if a == nil {
		a = &agentConns{conns: map[*conn]struct{}{}, slots: map[store.Slot]*place{}}
	}
	if most >= 0 && a.shaking >= most {
		return false
	}
	if r.agents == nil {
		r.agents = map[id.ID]*agentConns{}
	}
	r.agents[c.agent] = a
	a.conns[c] = struct{}{}
	a.shaking++
	r.n++
	return true
}

// reserve keeps c's slot for it and reports whether the cap allows that; negative: any number. A slot that is there
// already may always be taken over.
func (r *registry) reserve(c *conn, most int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.agents[c.agent]
	p := a.slots[c.slot]
	if p == nil {
		if most >= 0 && len(a.slots) >= most {
			return false
		}
		p = &place{}
		a.slots[c.slot] = p
	}
	p.waiting++
	c.reserved = true
	return true
}

// install makes c the holder of its slot and returns whom it displaces, or nil.
func (r *registry) install(c *conn) *conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.agents[c.agent]
	p := a.slots[c.slot]
	p.waiting--
	c.reserved = false
	a.shaking--
	old := p.holder
	p.holder = c
	c.installed = true
	return old
}

// remove forgets c. The slot stays with a newer holder.
func (r *registry) remove(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.agents[c.agent]
	if a == nil {
		return
	}
	if _, known := a.conns[c]; !known {
		return
	}
	delete(a.conns, c)
	r.n--
	if !c.installed {
		a.shaking--
	}
	if p := a.slots[c.slot]; p != nil && (c.reserved || c.installed) {
		if c.reserved {
			p.waiting--
		}
		if p.holder == c {
			p.holder = nil
		}
		if p.holder == nil && p.waiting == 0 {
			delete(a.slots, c.slot)
		}
	}
	if len(a.conns) == 0 {
		delete(r.agents, c.agent)
	}
}

// holders returns the connections that hold a slot.
func (r *registry) holders() []*conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*conn, 0, r.n)
	for _, a := range r.agents {
		for _, p := range a.slots {
			if p.holder != nil {
				list = append(list, p.holder)
			}
		}
	}
	return list
}

// all returns every connection.
func (r *registry) all() []*conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*conn, 0, r.n)
	for _, a := range r.agents {
		for c := range a.conns {
			list = append(list, c)
		}
	}
	return list
}

// of returns the connections of an agent.
func (r *registry) of(agent id.ID) []*conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.agents[agent]
	if a == nil {
		return nil
	}
	list := make([]*conn, 0, len(a.conns))
	for c := range a.conns {
		list = append(list, c)
	}
	return list
}

func (r *registry) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}
