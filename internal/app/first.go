package app

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/store"
)

// Passwords hashes and checks passwords as c says.
func Passwords(c *config.Config) *auth.Passwords {
	cost := auth.Cost{Time: uint32(c.Accounts.ArgonTime), Memory: uint32(c.Accounts.ArgonMemory), Threads: uint8(c.Accounts.ArgonParallel)}
	return auth.NewPasswords(auth.Policy{MinLength: c.Accounts.PasswordMin}, cost, max(2, runtime.GOMAXPROCS(0)))
}

// firstAccount makes the account that the environment asks for, or else the one-time token with which a browser makes
// it, as long as there is none.
func (b *Brain) firstAccount(ctx context.Context, passwords *auth.Passwords) error {
	has, err := b.Store.HasUsers(ctx)
	if err != nil || has {
		return err
	}
	f := &b.Config.FirstBoot
	if f.Email != "" && !f.Password.IsZero() {
		return b.bootstrap(ctx, passwords)
	}
	token := auth.NewToken()
	first, err := b.Store.PutSetupToken(ctx, auth.SetupTokenHash(b.Config.Secrets.Master.Reveal(), token), f.TokenTTL)
	if err != nil || !first {
		return err
	}
	_, err = fmt.Fprintf(b.Banner, "\n"+
		"  There is no account yet. Open this URL to make the first one, within %s:\n\n"+
		"    %s/setup#token=%s\n\n"+
		"  It works once; a restart prints a new one. Without a browser: z4j-brain createsuperuser\n\n",
		minutes(f.TokenTTL), b.Config.Network.PublicURL, token)
	if err != nil {
		return fmt.Errorf("show the set-up URL: %w", err)
	}
	return nil
}

// bootstrap makes the account that the environment names. One that can't be made is no start: the operator asked for it.
func (b *Brain) bootstrap(ctx context.Context, passwords *auth.Passwords) error {
	f := &b.Config.FirstBoot
	email, err := auth.Email(f.Email)
	if err != nil {
		return fmt.Errorf("make the first account: Z4J_BOOTSTRAP_ADMIN_EMAIL: %w", err)
	}
	hash, err := passwords.New(ctx, string(f.Password.Reveal()))
	if err != nil {
		return fmt.Errorf("make the first account: Z4J_BOOTSTRAP_ADMIN_PASSWORD: %w", err)
	}
	n := store.NewUser{Email: email, PasswordHash: hash}
	if f.DisplayName != "" {
		n.DisplayName = &f.DisplayName
	}
	by := store.By{Actor: audit.Actor{Kind: audit.System, ID: "environment"}, Via: "environment"}
	_, err = b.Store.CreateFirstAccount(ctx, n, "", store.NewSession{}, by)
	if errors.Is(err, store.ErrConflict) {
		return nil // another brain was first
	}
	if err != nil {
		return fmt.Errorf("make the first account: %w", err)
	}
	b.Log.InfoContext(ctx, "first account made from the environment", "project", store.DefaultProject)
	return nil
}

func minutes(d time.Duration) string {
	if d%time.Minute == 0 {
		return fmt.Sprintf("%d minutes", d/time.Minute)
	}
	return fmt.Sprintf("%d seconds", d/time.Second)
}
