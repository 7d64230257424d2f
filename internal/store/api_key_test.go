package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

func newKey(t *testing.T, s *store.Store, user id.ID, hash string) store.APIKey {
	t.Helper()
	k, err := s.CreateAPIKey(t.Context(), store.NewAPIKey{User: user, Name: "ci", Prefix: "z4k_abcd", Hash: hash, SecretID: "s", Scopes: []string{"tasks:read"}}, operator)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAnAccountHasSoManyKeysAtMost(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		ann := account(t, s, "ann@example.com")
		var last store.APIKey
		for i := range store.MaxAPIKeys {
			last = newKey(t, s, ann.ID, fmt.Sprint("hash ", i))
		}
		n := store.NewAPIKey{User: ann.ID, Name: "one more", Hash: "one more"}
		if _, err := s.CreateAPIKey(t.Context(), n, operator); !errors.Is(err, store.ErrTooManyKeys) {
			t.Errorf("one more: got %v, want ErrTooManyKeys", err)
		}
		if _, err := s.RevokeAPIKey(t.Context(), id.Null{}, last.ID, "", operator); err != nil {
			t.Fatal(err)
		}
		if _, err := s.CreateAPIKey(t.Context(), n, operator); err != nil {
			t.Errorf("one more after one was revoked: got %v, want nil", err)
		}
		n.User = id.Random()
		if _, err := s.CreateAPIKey(t.Context(), n, operator); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("of nobody: got %v, want ErrNotFound", err)
		}
		seen := 0
		for page := (store.Page{Limit: 30}); ; {
			list, err := s.APIKeys(t.Context(), store.APIKeyFilter{Ended: true, Page: page})
			if err != nil {
				t.Fatal(err)
			}
			if seen += len(list.Items); list.Next == nil {
				break
			}
			page.Cursor = *list.Next
		}
		if seen != store.MaxAPIKeys+1 {
			t.Errorf("pages: got %d keys, want %d", seen, store.MaxAPIKeys+1)
		}
	})
}

// TestLessonA10RevokingAKeyChangesNoEntry: nor does the end of the account that owns it.
func TestLessonA10RevokingAKeyChangesNoEntry(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		ann := account(t, s, "ann@example.com")
		k := newKey(t, s, ann.ID, "hash")
		asKey := store.By{Actor: audit.Actor{Kind: audit.APIKey, ID: k.ID.String(), Owner: ann.ID.String(), Label: ann.Email}, Via: "api"}
		if _, err := s.CreateUser(t.Context(), store.NewUser{Email: "bob@example.com", PasswordHash: "x"}, asKey); err != nil {
			t.Fatal(err)
		}
		if _, err := s.RevokeAPIKey(t.Context(), id.Null{}, k.ID, "over", operator); err != nil {
			t.Fatal(err)
		}
		if _, err := storetest.DB(t, url).ExecContext(t.Context(), `DELETE FROM users WHERE email = 'ann@example.com'`); err != nil {
			t.Fatal(err)
		}
		r, err := s.VerifyAudit(t.Context(), store.VerifyOptions{})
		if err != nil || r.First != nil || r.Checked != r.Exist {
			t.Errorf("verify: got %+v, %v; want every row proved", r, err)
		}
	})
}

// TestAKeyIsFoundByItsHash: through the index, whatever number of master secrets there are; and one whose list of networks
// can't be read is an error, not a key from everywhere.
func TestAKeyIsFoundByItsHash(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		ann := account(t, s, "ann@example.com")
		k := newKey(t, s, ann.ID, "hash")
		c, err := s.APIKeyCredential(t.Context(), []string{"other", "hash", "another"})
		if err != nil || c.Key.ID != k.ID || c.Hash != "hash" || c.Owner.Email != "ann@example.com" || c.Key.AllowedCIDRs != nil {
			t.Errorf("got %+v, %v; want the key", c, err)
		}
		if _, err := s.APIKeyCredential(t.Context(), []string{"other"}); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("another hash: got %v, want ErrNotFound", err)
		}
		plan, err := s.Explain(t.Context(), store.APIKeyLookup, "a", "b")
		if err != nil || !strings.Contains(plan, "api_keys_token_hash_key") && !strings.Contains(plan, "sqlite_autoindex_api_keys_2") {
			t.Errorf("plan: %v, want the index of token_hash in\n%s", err, plan)
		}
		if _, err := storetest.DB(t, url).ExecContext(t.Context(), `UPDATE api_keys SET allowed_cidrs = 'nonsense'`); err != nil {
			t.Fatal(err)
		}
		if _, err := s.APIKeyCredential(t.Context(), []string{"hash"}); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("with an unreadable list of networks: got %v, want an error", err)
		}
	})
}
