package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

type apiKeysCmd struct {
	Create apiKeysCreateCmd `cmd:"" help:"Make an API key; its text is shown once."`
	List   apiKeysListCmd   `cmd:"" help:"List API keys."`
	Revoke apiKeysRevokeCmd `cmd:"" help:"End an API key."`
}

type apiKeysCreateCmd struct {
	User          string   `required:"" help:"E-mail address of the account that the key acts for." placeholder:"ADDRESS"`
	Name          string   `required:"" help:"What it is for." placeholder:"NAME"`
	Scope         []string `required:"" help:"What it may be used for, such as audit:read; may be repeated." placeholder:"SCOPE"`
	Project       string   `help:"The only project that it reaches." placeholder:"SLUG"`
	ExpiresInDays *int     `help:"1 to 3650; without it the key does not expire." placeholder:"N"`
	CIDR          []string `name:"cidr" help:"Network or address that it works from; may be repeated." placeholder:"NETWORK"`
	JSON          bool     `name:"json" help:"Print JSON."`
}

// Help is shown by `api-keys create --help`.
func (apiKeysCreateCmd) Help() string {
	var all, admin []string
	for _, r := range auth.Scopes() {
		all = append(all, string(r.Scope))
		if r.AdminOnly {
			admin = append(admin, string(r.Scope))
		}
	}
	return `Prints the key on standard output, and nothing else there. It is shown this once: the brain keeps a keyed hash. What the
key may do are its scopes, and of them what its owner may do at that moment.

Scopes: ` + strings.Join(all, ", ") + `.
x:write has x:read in it. Only for keys of a global administrator: ` + strings.Join(admin, ", ") + `.

Exit codes: 0 made, 1 could not, 2 wrong arguments or settings, 4 no such account or project.`
}

// wanted reads the arguments but for the owner and the project.
func (a *apiKeysCreateCmd) wanted(now time.Time) (store.NewAPIKey, error) {
	n := store.NewAPIKey{Name: strings.TrimSpace(a.Name)}
	if n.Name == "" || len(n.Name) > 200 || strings.ContainsRune(n.Name, 0) {
		return n, exit(exitUsage, errors.New("--name has 1 to 200 bytes"))
	}
	list, refused := auth.Networks(a.CIDR)
	if len(refused) > 0 {
		return n, exit(exitUsage, fmt.Errorf("--cidr %s: neither a network like 192.0.2.0/24 nor an address", strings.Join(refused, ", ")))
	}
	for _, network := range list {
		n.AllowedCIDRs = append(n.AllowedCIDRs, network.String())
	}
	if days := a.ExpiresInDays; days != nil {
		if *days < 1 || *days > 3650 {
			return n, exit(exitUsage, errors.New("--expires-in-days is 1 to 3650"))
		}
		n.ExpiresAt = new(store.TimeOf(now.Add(time.Duration(*days) * 24 * time.Hour)))
	}
	return n, nil
}

// Run makes the key.
func (a *apiKeysCreateCmd) Run(c *call) error {
	email, err := readEmail(a.User)
	if err != nil {
		return err
	}
	n, err := a.wanted(time.Now())
	if err != nil {
		return err
	}
	return c.withChanges(func(ctx context.Context, cfg *config.Config, s *store.Store) error {
		owner, err := ownerOf(ctx, s, email)
		if err != nil {
			return err
		}
		granted, refused := auth.Grantable(a.Scope, owner.IsAdmin)
		if len(refused) > 0 {
			return exit(exitUsage, fmt.Errorf("no key of %s can have these scopes: %s (`z4j-brain api-keys create --help` lists them)", email, strings.Join(refused, ", ")))
		}
		for _, g := range granted {
			n.Scopes = append(n.Scopes, string(g))
		}
		if a.Project != "" {
			p, err := projectOf(ctx, s, a.Project)
			if err != nil {
				return err
			}
			n.Project = &p
		}
		master, text := cfg.Secrets.Master.Reveal(), auth.NewAPIKey()
		n.User, n.Prefix, n.Hash, n.SecretID = owner.ID, auth.APIKeyPrefix(text), auth.APIKeyHash(master, text), store.SecretID(master)
		k, err := s.CreateAPIKey(ctx, n, byOperator())
		if err != nil {
			return err
		}
		if a.JSON {
			return printJSON(c.stdout, struct {
				store.APIKey

				Token string `json:"token"`
			}{k, text})
		}
		fmt.Fprintf(c.stderr, "key %q of %s made (id %s); it is not shown again:\n", k.Name, k.UserEmail, k.ID)
		_, err = fmt.Fprintln(c.stdout, text)
		return err
	})
}

func ownerOf(ctx context.Context, s *store.Store, email string) (store.User, error) {
	cred, err := s.Credential(ctx, email)
	if errors.Is(err, store.ErrNotFound) {
		return store.User{}, exit(exitNone, fmt.Errorf("no account has the address %s", email))
	}
	return cred.User, err
}

type apiKeysListCmd struct {
	User    string `help:"Of this account; without it, of all." placeholder:"ADDRESS"`
	Revoked bool   `help:"Revoked ones too."`
	JSON    bool   `name:"json" help:"Print JSON."`
}

// Help is shown by `api-keys list --help`.
func (apiKeysListCmd) Help() string {
	return `Exit codes: 0 listed, 1 could not, 2 wrong arguments or settings, 4 no such account.`
}

// Run lists.
func (a *apiKeysListCmd) Run(c *call) error {
	return c.withStore(func(ctx context.Context, _ *config.Config, s *store.Store) error {
		f := store.APIKeyFilter{Ended: a.Revoked}
		if a.User != "" {
			email, err := readEmail(a.User)
			if err != nil {
				return err
			}
			owner, err := ownerOf(ctx, s, email)
			if err != nil {
				return err
			}
			f.User.ID = owner.ID
		}
		list := []store.APIKey{}
		for {
			some, err := s.APIKeys(ctx, f)
			if err != nil {
				return err
			}
			list = append(list, some.Items...)
			if some.Next == nil {
				break
			}
			f.Page.Cursor = *some.Next
		}
		if a.JSON {
			return printJSON(c.stdout, list)
		}
		w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "OWNER\tNAME\tPREFIX\tSTATE\tPROJECT\tLAST USED\tEXPIRES\tSCOPES\tID")
		for _, k := range list {
			state := k.Ended(store.TimeOf(time.Now()))
			if state == "" {
				state = "good"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.UserEmail, k.Name, k.Prefix, state, orDash(k.ProjectSlug), shortTime(k.LastUsedAt),
				shortTime(k.ExpiresAt), strings.Join(k.Scopes, ","), k.ID)
		}
		return w.Flush()
	})
}

type apiKeysRevokeCmd struct {
	Key    string `arg:"" help:"Id of the key."`
	Reason string `help:"Why; it is shown and recorded." placeholder:"TEXT"`
	JSON   bool   `name:"json" help:"Print the key as JSON."`
}

// Help is shown by `api-keys revoke --help`.
func (apiKeysRevokeCmd) Help() string {
	return `The key is refused from its next request on. That can't be taken back.

Exit codes: 0 revoked, 1 could not, 2 wrong arguments or settings, 4 no such key, or it is revoked already.`
}

// Run revokes the key.
func (a *apiKeysRevokeCmd) Run(c *call) error {
	key, err := id.Parse(a.Key)
	if err != nil {
		return exit(exitUsage, fmt.Errorf("%q is no id of a key: `z4j-brain api-keys list` shows them", a.Key))
	}
	return c.withChanges(func(ctx context.Context, _ *config.Config, s *store.Store) error {
		k, err := s.RevokeAPIKey(ctx, id.Null{}, key, strings.TrimSpace(a.Reason), byOperator())
		if errors.Is(err, store.ErrNotFound) {
			return exit(exitNone, errors.New("there is no such API key, or it is revoked already"))
		}
		if err != nil {
			return err
		}
		if a.JSON {
			return printJSON(c.stdout, k)
		}
		_, err = fmt.Fprintf(c.stdout, "key %q of %s revoked\n", k.Name, k.UserEmail)
		return err
	})
}
