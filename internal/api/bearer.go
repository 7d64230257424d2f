package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

// master is a master secret under which API keys may be hashed.
type master struct {
	secret []byte
	id     string
}

func masters(current []byte, previous [][]byte) []master {
	list := []master{{current, store.SecretID(current)}}
	for _, old := range previous {
		list = append(list, master{old, store.SecretID(old)})
	}
	return list
}

// bearer returns the API key of a request, "" for none. Agents' tokens and that of /metrics are no keys.
func bearer(r *http.Request) string {
	scheme, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	text = strings.TrimSpace(text)
	if !strings.EqualFold(scheme, "bearer") || !auth.IsAPIKey(text) {
		return ""
	}
	return text
}

// useKey finds the key of a text and whether it may use the route. The refusal of a key that is known is recorded as the
// key's.
func (s *Server) useKey(q *request, r *http.Request, text string) error {
	hashes := make([]string, len(s.masters))
	for i, m := range s.masters {
		hashes[i] = auth.APIKeyHash(m.secret, text)
	}
	c, err := s.Store.APIKeyCredential(r.Context(), hashes)
	if errors.Is(err, store.ErrNotFound) {
		return unauthenticated("there is no such API key", because("api_key_unknown"))
	}
	if err != nil {
		return err
	}
	q.key, q.user = &c.Key, &c.Owner
	now := store.TimeOf(s.Now())
	if err := refusedKey(&c, now); err != nil {
		return err
	}
	if !permits(q.key, q.client) {
		p := forbidden("this API key does not work from your address", map[string]any{"reason": "ip_denied", "surface": "api"})
		p.code = "ip_denied"
		return p
	}
	s.noteUse(r.Context(), q, &c, hashes[0], now)
	return withinReach(q)
}

func refusedKey(c *store.APIKeyCredential, now store.Time) error {
	switch c.Key.Ended(now) {
	case "revoked":
		return unauthenticated("this API key was revoked", because("api_key_revoked"))
	case "expired":
		return unauthenticated("this API key has expired; make a new one, or let its owner prolong it", because("api_key_expired"))
	case "suspended":
		return unauthenticated("API keys are suspended since the database was restored, because one may be in it that was revoked afterwards; "+
			"an operator looks at the list and runs `z4j-brain restore release --keys`", because("api_key_suspended"))
	}
	if !c.Owner.IsActive {
		return unauthenticated("the owner of this API key is not active", because("api_key_owner_inactive"))
	}
	return nil
}

// withinReach asks whether the scopes of a key and the project that it is bound to permit the route. What its owner may
// do is asked elsewhere, as of everybody.
func withinReach(q *request) error {
	rt := q.route
	if rt.keys.scope == "" {
		return forbidden("API keys can't use this; log in", map[string]any{"reason": "bearer_denied_for_tag", "tag": tagOf(rt.path)})
	}
	have := make([]auth.Scope, len(q.key.Scopes))
	for i, name := range q.key.Scopes {
		have[i] = auth.Scope(name)
	}
	if !auth.Grants(have, rt.keys.scope) {
		return forbidden("this API key lacks the scope "+string(rt.keys.scope), map[string]any{"reason": "scope_missing", "required_scope": string(rt.keys.scope)})
	}
	if !q.key.Project.IsZero() && q.slug == "" && !rt.keys.narrow {
		return forbidden("this API key is bound to a project, and this is about more than one", because("project_scope_nonslug_denied"))
	}
	return nil
}

// sight is which projects the caller can find.
func (q *request) sight() store.Sight {
	who := store.Sight{User: q.user.ID, All: q.user.IsAdmin}
	if q.key != nil {
		who.Only = q.key.Project
	}
	return who
}

// noProject is the answer where the store finds no project. A bound key is told that it is bound, whether there is
// another project or not.
func (q *request) noProject() *problem {
	if q.key != nil && !q.key.Project.IsZero() {
		return forbidden("this API key is bound to another project", because("project_scope_mismatch"))
	}
	return noProject()
}

// keyActor is a key as an entry names it: by its id, with whom it acts for.
func (q *request) keyActor(a audit.Actor) audit.Actor {
	a.Kind, a.ID, a.Owner, a.Label = audit.APIKey, q.key.ID.String(), q.user.ID.String(), q.user.Email
	return a
}

// uses remembers which keys were noted as used within a minute.
type uses struct {
	mu   sync.Mutex
	last map[id.ID]store.Time
}

const maxUses = 10_000 // keys; less than 1 MiB

// due reports whether the use of a key is to be noted at now: once a minute.
func (u *uses) due(key id.ID, now store.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if last, ok := u.last[key]; ok && now.Sub(last.Time) < touchEvery && !now.Before(last.Time) {
		return false
	}
	if u.last == nil || len(u.last) >= maxUses {
		u.last = map[id.ID]store.Time{}
	}
	u.last[key] = now
	return true
}

// noteUse notes that a key was used, and hashes it anew if it was found under an earlier master secret. Whatever becomes
// of that, the request goes on.
func (s *Server) noteUse(ctx context.Context, q *request, c *store.APIKeyCredential, hash string, now store.Time) {
	due := s.uses.due(c.Key.ID, now)
	if !due && c.Hash == hash {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), touchTimeout)
	defer cancel()
	if c.Hash != hash {
		if err := s.Store.RehashAPIKey(ctx, c.Key.ID, c.Hash, hash, s.masters[0].id); err != nil {
			s.Log.WarnContext(ctx, "API key not hashed under the new master secret", "key", c.Key.ID, "err", err)
		}
	}
	if !due {
		return
	}
	ip := ""
	if q.client.IsValid() {
		ip = q.client.String()
	}
	if err := s.Store.TouchAPIKey(ctx, c.Key.ID, now, ip); err != nil {
		s.Log.WarnContext(ctx, "API key's last use not written", "key", c.Key.ID, "err", err)
	}
}
