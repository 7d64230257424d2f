package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

type scopeList struct {
	Scopes    []auth.Scope `json:"scopes"`
	AdminOnly []auth.Scope `json:"admin_only" doc:"those of them that only a global administrator may give"`
}

func (s *Server) listScopes(context.Context, *struct{}) (*reply[scopeList], error) {
	out := scopeList{Scopes: []auth.Scope{}, AdminOnly: []auth.Scope{}}
	for _, r := range auth.Scopes() {
		out.Scopes = append(out.Scopes, r.Scope)
		if r.AdminOnly {
			out.AdminOnly = append(out.AdminOnly, r.Scope)
		}
	}
	return &reply[scopeList]{out}, nil
}

type apiKeyList struct {
	bareQuery

	All            bool `query:"all" doc:"everybody's, for global administrators; without it the own ones"`
	IncludeRevoked bool `query:"include_revoked"`
}

func (s *Server) listAPIKeys(ctx context.Context, in *apiKeyList) (*rows[store.APIKey], error) {
	user := requestOf(ctx).user
	f := store.APIKeyFilter{User: id.Null{ID: user.ID}, Ended: in.IncludeRevoked, Page: in.page()}
	if in.All {
		if !user.IsAdmin {
			return nil, forbidden("only a global administrator sees the keys of others", because("admin_only"))
		}
		f.User = id.Null{}
	}
	list, err := s.Store.APIKeys(ctx, f)
	if err != nil {
		return nil, pageError(err)
	}
	return rowsOf(list), nil
}

// Bounds of what a key may have.
const (
	maxKeyDays     = 3650
	maxKeyNetworks = 64
	maxKeyName     = 200
)

type newAPIKey struct {
	Body struct {
		Name          string   `json:"name" minLength:"1" maxLength:"200"`
		Scopes        []string `json:"scopes" maxItems:"64" doc:"see /api-keys/scopes; x:write has x:read in it; a key without scopes can do nothing"`
		ProjectID     *string  `json:"project_id,omitempty" maxLength:"64" nullable:"true" doc:"the only project that the key reaches; absent or null: every one that its owner sees"`
		ExpiresInDays *int     `json:"expires_in_days,omitempty" minimum:"1" maximum:"3650" nullable:"true" doc:"absent or null: never"`
		AllowedCIDRs  []string `json:"allowed_cidrs,omitempty" maxItems:"64" nullable:"true" doc:"networks or addresses that the key works from; absent, null or empty: everywhere"`
	}
}

// mintedKey is the one answer that holds a key's text.
type mintedKey struct {
	store.APIKey

	Token string `json:"token" doc:"for Authorization: Bearer; shown once, the brain keeps a keyed hash"`
}

func (s *Server) createAPIKey(ctx context.Context, in *newAPIKey) (*reply[mintedKey], error) {
	q, b := requestOf(ctx), &in.Body
	n := store.NewAPIKey{User: q.user.ID}
	var err error
	if n.Name = clean(b.Name); n.Name == "" {
		return nil, invalid("body.name", "must not be empty")
	}
	q.target = audit.Target{Label: n.Name}
	if n.Scopes, err = grantable(b.Scopes, q.user.IsAdmin); err != nil {
		return nil, err
	}
	if n.AllowedCIDRs, err = networks(b.AllowedCIDRs); err != nil {
		return nil, err
	}
	if b.ExpiresInDays != nil {
		n.ExpiresAt = s.inDays(*b.ExpiresInDays)
	}
	if b.ProjectID != nil && *b.ProjectID != "" {
		if n.Project, err = s.projectToBind(ctx, *b.ProjectID); err != nil {
			return nil, err
		}
	}
	text := auth.NewAPIKey()
	n.Prefix, n.Hash, n.SecretID = auth.APIKeyPrefix(text), auth.APIKeyHash(s.Master, text), s.masters[0].id
	k, err := s.Store.CreateAPIKey(ctx, n, byCaller(ctx))
	if errors.Is(err, store.ErrTooManyKeys) {
		return nil, conflict(fmt.Sprintf("an account has at most %d keys; revoke some", store.MaxAPIKeys), "too_many_keys")
	}
	if err != nil {
		return nil, err
	}
	return &reply[mintedKey]{mintedKey{k, text}}, nil
}

// grantable are the scopes that the caller may give to a key.
func grantable(names []string, admin bool) ([]string, error) {
	granted, refused := auth.Grantable(names, admin)
	if len(refused) > 0 {
		p := conflict("these scopes do not exist or are an administrator's to give: "+strings.Join(clipped(refused), ", "), "rejected_scopes")
		p.details["rejected_scopes"] = clipped(refused)
		return nil, p
	}
	out := make([]string, len(granted))
	for i, g := range granted {
		out[i] = string(g)
	}
	return out, nil
}

// clipped bounds what an answer repeats of a request.
func clipped(list []string) []string {
	out := slices.Clone(list)
	for i, text := range out {
		if r := []rune(text); len(r) > 64 {
			out[i] = string(r[:64]) + "…"
		}
	}
	return out
}

// networks reads a list of networks; none is no limit.
func networks(texts []string) ([]string, error) {
	list, refused := auth.Networks(texts)
	if len(refused) > 0 {
		return nil, invalid("body.allowed_cidrs", "must be networks like 192.0.2.0/24 or addresses; this is none: "+clipped(refused)[0])
	}
	var out []string
	for _, n := range list {
		out = append(out, n.String())
	}
	return out, nil
}

func (s *Server) inDays(days int) *store.Time {
	return new(store.TimeOf(s.Now().Add(time.Duration(days) * 24 * time.Hour)))
}

// projectToBind is the project of an id among those that the caller sees.
func (s *Server) projectToBind(ctx context.Context, text string) (*store.Project, error) {
	project, err := id.Parse(text)
	if err != nil {
		return nil, invalid("body.project_id", "must be a UUID")
	}
	who := requestOf(ctx).sight()
	who.Only = id.Null{ID: project}
	list, err := s.Store.Projects(ctx, who)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, noProject()
	}
	return &list[0], nil
}

// maybe is a field of a change: it tells null from absent.
type maybe[T any] struct {
	set   bool
	value *T
}

// UnmarshalJSON notes that the field was there.
func (m *maybe[T]) UnmarshalJSON(b []byte) error {
	m.set = true
	return json.Unmarshal(b, &m.value)
}

// Schema is that of T, or null.
func (maybe[T]) Schema(r huma.Registry) *huma.Schema {
	one := *r.Schema(reflect.TypeFor[T](), true, "")
	one.Nullable = true
	return &one
}

type apiKeyChange struct {
	KeyID string `path:"key_id"`
	Body  struct {
		Name          *string         `json:"name,omitempty" minLength:"1" maxLength:"200" nullable:"true"`
		Scopes        []string        `json:"scopes,omitempty" maxItems:"64" nullable:"true" doc:"null or absent leaves them"`
		ExpiresInDays maybe[int]      `json:"expires_in_days,omitzero" doc:"1 to 3650 from now; null: never; absent leaves it"`
		AllowedCIDRs  maybe[[]string] `json:"allowed_cidrs,omitzero" doc:"null or empty: everywhere; absent leaves it"`
	}
}

func (s *Server) changeAPIKey(ctx context.Context, in *apiKeyChange) (*reply[store.APIKey], error) {
	q, b := requestOf(ctx), &in.Body
	key, owner, err := keyAndOwner(q, in.KeyID)
	if err != nil {
		return nil, err
	}
	k, err := s.Store.ChangeAPIKey(ctx, owner, key, func(k *store.APIKey) (err error) {
		if b.Name != nil {
			if k.Name = clean(*b.Name); k.Name == "" {
				return invalid("body.name", "must not be empty")
			}
		}
		if b.Scopes != nil {
			if k.Scopes, err = grantable(b.Scopes, q.user.IsAdmin); err != nil {
				return err
			}
		}
		if b.AllowedCIDRs.set {
			if k.AllowedCIDRs, err = networksOf(b.AllowedCIDRs.value); err != nil {
				return err
			}
		}
		if !b.ExpiresInDays.set {
			return nil
		}
		k.ExpiresAt = nil
		if days := b.ExpiresInDays.value; days != nil {
			if *days < 1 || *days > maxKeyDays {
				return invalid("body.expires_in_days", "must be 1 to 3650 or null")
			}
			k.ExpiresAt = s.inDays(*days)
		}
		return nil
	}, byCaller(ctx))
	return &reply[store.APIKey]{k}, keyError(err)
}

func networksOf(texts *[]string) ([]string, error) {
	if texts == nil {
		return nil, nil
	}
	if len(*texts) > maxKeyNetworks {
		return nil, invalid("body.allowed_cidrs", "must be at most 64 networks")
	}
	return networks(*texts)
}

// keyAndOwner reads the id of a key, and whose it has to be: an administrator may take anybody's.
func keyAndOwner(q *request, text string) (key id.ID, owner id.Null, err error) {
	if key, err = id.Parse(text); err != nil {
		return key, owner, invalid("path.key_id", "must be a UUID")
	}
	q.target = audit.Target{ID: key.String()}
	if !q.user.IsAdmin {
		owner.ID = q.user.ID
	}
	return key, owner, nil
}

func keyError(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return notFound("there is no such API key, it is revoked, or it is not yours")
	}
	return err
}

type apiKeyPath struct {
	KeyID  string `path:"key_id"`
	Reason string `query:"reason" maxLength:"200" doc:"why; it is shown and recorded"`
}

func (s *Server) revokeAPIKey(ctx context.Context, in *apiKeyPath) (*nothing, error) {
	key, owner, err := keyAndOwner(requestOf(ctx), in.KeyID)
	if err != nil {
		return nil, err
	}
	_, err = s.Store.RevokeAPIKey(ctx, owner, key, clean(in.Reason), byCaller(ctx))
	return &nothing{}, keyError(err)
}

// permits reports whether a key may be used from an address.
func permits(k *store.APIKey, from netip.Addr) bool {
	if k.AllowedCIDRs == nil {
		return true
	}
	return slices.ContainsFunc(k.AllowedCIDRs, func(text string) bool {
		n, err := netip.ParsePrefix(text)
		return err == nil && n.Contains(from)
	})
}
