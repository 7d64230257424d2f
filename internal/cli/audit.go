package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/store"
)

type auditCmd struct {
	Verify      auditVerifyCmd      `cmd:"" help:"Prove the audit log: read every row and say what is wrong."`
	Export      auditExportCmd      `cmd:"" help:"Write the audit log as a file that can be proved without z4j; with --delete archive and delete the oldest entries."`
	Prove       auditProveCmd       `cmd:"" help:"Write a proof that an entry is in the audit log."`
	CheckProof  auditCheckProofCmd  `cmd:"" name:"check-proof" help:"Check such a proof, without a database or a secret."`
	Acknowledge auditAcknowledgeCmd `cmd:"" name:"acknowledge-rollback" help:"Let changes be made again after the database was found set back."`
	AdoptKey    auditAdoptKeyCmd    `cmd:"" name:"adopt-key" help:"Let the configured audit secret in although the old one is lost."`
	Erase       auditEraseCmd       `cmd:"" help:"Forget a person: take away what the audit log says of them; it still verifies."`
	PubKey      auditPubKeyCmd      `cmd:"" name:"pubkey" help:"List the public keys that checkpoints are checked with."`
	RowKeys     auditRowKeysCmd     `cmd:"" name:"row-keys" help:"Print the keys that an auditor checks rows with, never the secrets."`
}

type auditAdoptKeyCmd struct {
	Lost   bool   `required:"" help:"Say that the old secret is lost. If it is not, give it in Z4J_AUDIT_SECRETS_PREVIOUS instead."`
	Reason string `required:"" help:"Why; it is recorded." placeholder:"TEXT"`
}

// Help is shown by `audit adopt-key --help`.
func (auditAdoptKeyCmd) Help() string {
	return `From then on the configured Z4J_AUDIT_SECRET signs. A verification says that nothing is provable across that row.

Exit codes: 0 adopted, 1 could not, 2 wrong arguments or settings, 3 the key signs already or was retired.`
}

// Run adopts the key.
func (a *auditAdoptKeyCmd) Run(c *call) error {
	if strings.TrimSpace(a.Reason) == "" {
		return exit(exitUsage, errors.New("--reason is empty"))
	}
	return c.withChanges(func(ctx context.Context, _ *config.Config, s *store.Store) error {
		err := s.AdoptAuditKey(ctx, byOperator().Actor, a.Reason)
		if errors.Is(err, store.ErrConflict) {
			return exit(exitAlready, err)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.stdout, "adopted: the configured Z4J_AUDIT_SECRET signs from now on; the loss is recorded")
		return err
	})
}
