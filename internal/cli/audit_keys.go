package cli

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/store"
)

type auditRowKeysCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Help is shown by `audit row-keys --help`.
func (auditRowKeysCmd) Help() string {
	return `One key for each configured secret, the present one first. An auditor checks an export with them; they sign rows, too, so
give them to nobody who could gain by a forged log. Needs no database.

Exit codes: 0 printed, 1 could not, 2 wrong arguments or settings.`
}

// Run prints the row keys.
func (k *auditRowKeysCmd) Run(c *call) error {
	keys, err := c.auditKeys(k.JSON)
	if err != nil {
		return err
	}
	type rowKey struct {
		KID string `json:"kid"`
		Key string `json:"row_key"`
	}
	var out []rowKey
	for _, key := range keys {
		out = append(out, rowKey{key.KID(), key.RowKey()})
	}
	if k.JSON {
		return printJSON(c.stdout, map[string]any{"row_keys": out})
	}
	for _, key := range out {
		if _, err := fmt.Fprintf(c.stdout, "%s %s\n", key.KID, key.Key); err != nil {
			return err
		}
	}
	return nil
}

// auditKeys are the keys of the configured secrets, the present one first.
func (c *call) auditKeys(quiet bool) ([]audit.Key, error) {
	cfg, err := c.load(quiet)
	if err != nil {
		return nil, err
	}
	if cfg.Secrets.Audit.IsZero() {
		return nil, exit(exitUsage, errors.New("no Z4J_AUDIT_SECRET is configured; `z4j-brain config show` says where it is looked for"))
	}
	var keys []audit.Key
	for _, secret := range append([][]byte{cfg.Secrets.Audit.Reveal()}, cfg.Secrets.PreviousAudit.Reveal()...) {
		k, err := audit.NewKey(secret)
		if err != nil {
			return nil, exit(exitUsage, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

type auditPubKeyCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Help is shown by `audit pubkey --help`.
func (auditPubKeyCmd) Help() string {
	return `Lists the Ed25519 keys that the audit log introduced, with the rows between which each one signs, and says which of them the
configured secrets are of. Who keeps them checks checkpoints and proofs without the secret.

Exit codes: 0 printed, 1 could not, 2 wrong arguments or settings.`
}

// Run prints the public keys.
func (k *auditPubKeyCmd) Run(c *call) error {
	return c.withStore(func(ctx context.Context, _ *config.Config, s *store.Store) error {
		keys, err := s.AuditKIDs(ctx)
		if err != nil {
			return err
		}
		if k.JSON {
			return printJSON(c.stdout, map[string]any{"public_keys": keys})
		}
		w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "kid\tpublic key\tintroduced\tretired\tsecret")
		for _, key := range keys {
			retired, secret := "-", "not given"
			if key.Retired != nil {
				retired = fmt.Sprint(*key.Retired)
			}
			if key.Given {
				secret = "given"
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\n", key.KID, key.PublicKey, key.Introduced, retired, secret)
		}
		return w.Flush()
	})
}
