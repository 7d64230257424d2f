package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

type auditEraseCmd struct {
	User   string `help:"The account: its number, which stays in the log. What stands under its address goes, too." placeholder:"ID" xor:"who"`
	Email  string `help:"An address that is no account's: that of failed log-ins." placeholder:"ADDRESS" xor:"who"`
	Reason string `required:"" help:"Why; it is recorded. Name nobody in it." placeholder:"TEXT"`
	Yes    bool   `help:"Do not ask."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

// Help is shown by `audit erase --help`.
func (auditEraseCmd) Help() string {
	return `Takes the name, address, IP addresses and browsers of a person out of the audit log, for good. The rows stay, with the account's
number, and still verify; what they say of others stays, too. Archives that were exported before keep what they hold.

Exit codes: 0 erased, or nothing was there; 1 could not, or not confirmed; 2 wrong arguments or settings.`
}

// Run erases.
func (e *auditEraseCmd) Run(c *call) error {
	if (e.User == "") == (e.Email == "") {
		return exit(exitUsage, errors.New("say who: --user ID or --email ADDRESS"))
	}
	if strings.TrimSpace(e.Reason) == "" {
		return exit(exitUsage, errors.New("--reason is empty"))
	}
	return c.withChanges(func(ctx context.Context, _ *config.Config, s *store.Store) error {
		who, err := e.person(ctx, s)
		if err != nil {
			return err
		}
		n, err := s.Erasable(ctx, who)
		if err != nil {
			return err
		}
		if n > 0 {
			if err := c.confirm(e.Yes, fmt.Sprintf("Erase %d personal parts of the audit log for good?", n)); err != nil {
				return err
			}
		}
		done, err := s.EraseAudit(ctx, who, e.Reason, byOperator())
		if err != nil {
			return err
		}
		if e.JSON {
			return printJSON(c.stdout, done)
		}
		if done.Parts == 0 {
			_, err = fmt.Fprintln(c.stdout, "the audit log holds nothing of that person")
			return err
		}
		_, err = fmt.Fprintf(c.stdout, "%d personal parts erased; recorded in entries %v\n", done.Parts, done.Entries)
		return err
	})
}

// person finds out whom the arguments mean. Of an account not the address alone is erased: that would forget half of it.
func (e *auditEraseCmd) person(ctx context.Context, s *store.Store) (store.Person, error) {
	if e.User != "" {
		user, err := id.Parse(e.User)
		if err != nil {
			return store.Person{}, exit(exitUsage, fmt.Errorf("--user: %q is no account's number", e.User))
		}
		return s.PersonOf(ctx, user)
	}
	account, err := s.Credential(ctx, strings.ToLower(e.Email))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return store.Person{Email: e.Email}, nil
	case err != nil:
		return store.Person{}, err
	}
	return store.Person{}, exit(exitUsage, fmt.Errorf("%s has an account: say --user %s, which erases what stands under the address as well", e.Email, account.User.ID))
}
