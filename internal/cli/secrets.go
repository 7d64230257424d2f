package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/store"
)

// exitNotYet says that a rotation can't be finished as things are.
const exitNotYet = 3

type secretsCmd struct {
	Rotate secretsRotateCmd `cmd:"" help:"Replace a secret: begin, and when everything has moved over, finish."`
}

type secretsRotateCmd struct {
	What   string `arg:"" enum:"audit,session,master" help:"audit, session or master."`
	Finish bool   `help:"End what was begun: the earlier values lose their right."`
	Force  bool   `help:"With --finish of master: also when agents or API keys still need the earlier value; they are refused from then on."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

// Help is shown by `secrets rotate --help`.
func (secretsRotateCmd) Help() string {
	return `Begins by writing a new value into $Z4J_HOME/secret.env, the present one before the earlier values, which go on being
accepted. Then every brain is restarted, one after the other. --finish ends it. No value is printed: copy secret.env to
where your other copy is. Secrets that come from elsewhere are changed there: the message says how.

audit    new entries are signed with the new secret once a brain runs with it; brains with the old one go on meanwhile.
         --finish ends the old one's right to sign. Its value stays: its entries are proved with it.
session  nobody is logged out. --finish logs out whoever has a cookie of the old one.
master   agents and API keys go on with what they have. API keys move over when they are used. Agents move over when they
         get a new token and signing secret: mint, put both into the environment, restart the workers, revoke the old one.
         --finish lists who has not moved over and refuses; with --force those are refused instead.

Exit codes: 0 done, 1 could not, 2 wrong arguments or settings, or secrets that don't stand in secret.env, 3 can't be finished yet, or there is
nothing to finish.`
}

// rotated is what the command says in JSON.
type rotated struct {
	Secret   string         `json:"secret"`
	Previous string         `json:"previous"`
	File     string         `json:"file"`
	Finished bool           `json:"finished"`
	KID      string         `json:"kid,omitempty"`
	OldKIDs  []string       `json:"old_kids,omitempty"`
	Unmoved  *store.Unmoved `json:"unmoved,omitempty"`
	Next     string         `json:"next"`
}

// Run begins or ends a rotation.
func (a *secretsRotateCmd) Run(c *call) error {
	if a.Force && (!a.Finish || a.What != "master") {
		return exit(exitUsage, errors.New("--force goes with `secrets rotate master --finish` only"))
	}
	return c.withChanges(func(ctx context.Context, cfg *config.Config, s *store.Store) error {
		out := rotated{File: filepath.Join(cfg.General.Home, config.FromSecretFile), Finished: a.Finish}
		out.Secret, out.Previous = cfg.RotationNames(a.What)
		var err error
		switch {
		case !a.Finish:
			err = a.begin(ctx, c, cfg, s, &out)
		case a.What == "audit":
			err = a.finishAudit(ctx, c, s, &out)
		default:
			err = a.finish(ctx, c, cfg, s, &out)
		}
		if err != nil {
			return err
		}
		if a.JSON {
			return printJSON(c.stdout, out)
		}
		return nil
	})
}

// say prints for people.
func (a *secretsRotateCmd) say(c *call, format string, args ...any) {
	out := c.stdout
	if a.JSON {
		out = io.Discard
	}
	fmt.Fprintf(out, format+"\n", args...)
}

func (a *secretsRotateCmd) begin(ctx context.Context, c *call, cfg *config.Config, s *store.Store, out *rotated) error {
	if err := cfg.Rotatable(a.What); err != nil {
		return exit(exitUsage, fmt.Errorf("%w\n%s", err, byHand(out)))
	}
	if err := mayBegin(ctx, cfg, s, a.What); err != nil {
		return err
	}
	r, err := cfg.Rotate(a.What)
	if err != nil {
		return err
	}
	defer r.Close()        // after Commit it has nothing left to do
	if a.What != "audit" { // of that key its introduction tells
		if err := s.ChangeSecret(ctx, out.Secret, "rotation begun; brains take the new value at their next start", byOperator()); err != nil {
			return err
		}
	}
	if err := r.Commit(); err != nil {
		return err
	}
	a.say(c, "%s has a new value in %s, and the old one stands before the others in %s.", out.Secret, out.File, out.Previous)
	a.say(c, "Store a copy of %s now, apart from the database's backups.", out.File)
	switch a.What {
	case "audit":
		err = a.introduce(ctx, c, cfg, out)
	case "session":
		a.say(c, "Nobody is logged out. Until every brain is restarted, who logs in at one with the new value is unknown to those with the old one.")
	case "master":
		a.say(c, "Agents and API keys go on with what they have. Don't mint before every brain is restarted: those with the old value refuse what is made with the new one.")
	}
	out.Next = "restart every brain, one after the other; then `z4j-brain secrets rotate " + a.What + " --finish`"
	a.say(c, "Next: copy the file to the other machines that run a brain, %s", out.Next)
	return err
}

// mayBegin looks whether the present secret is the one in use: else what is replaced is not what is needed later.
func mayBegin(ctx context.Context, cfg *config.Config, s *store.Store, what string) error {
	if err := s.AuditErr(); errors.Is(err, store.ErrAuditKeyUnknown) {
		return fmt.Errorf("the change can't be recorded: %w", err)
	}
	if what != "master" {
		return nil
	}
	master := cfg.Secrets.Master.Reveal()
	known, err := s.KnowsMaster(ctx, master)
	if err != nil {
		return err
	}
	if !known {
		return exit(exitNotYet, errors.New("no brain has run with the present Z4J_SECRET yet, which an earlier rotation made: restart every brain first"))
	}
	if len(cfg.Secrets.PreviousMaster) == 0 {
		return s.MarkAgents(ctx, store.SecretID(master))
	}
	return nil
}

// introduce lets the new audit key into the chain. That this fails is no harm: serve does it as well.
func (a *secretsRotateCmd) introduce(ctx context.Context, c *call, cfg *config.Config, out *rotated) error {
	key, err := audit.NewKey(cfg.Secrets.Audit.Reveal())
	if err != nil {
		return err
	}
	out.KID = key.KID()
	for _, old := range cfg.Secrets.PreviousAudit {
		if k, err := audit.NewKey(old.Reveal()); err == nil {
			out.OldKIDs = append(out.OldKIDs, k.KID())
		}
	}
	fresh, err := c.openStore(ctx, cfg, false)
	if err == nil {
		err = errors.Join(fresh.IntroduceAuditKey(ctx), fresh.Close())
	}
	if err != nil {
		a.say(c, "Key %s is not in the audit log yet (%s). The next `z4j-brain serve` lets it in.", key.KID(), err)
		return nil // told; the rotation is begun all the same
	}
	a.say(c, "Key %s is in the audit log. Key %s may sign until the rotation is finished, and its secret is needed as long as entries or backups of its time exist.",
		key.KID(), strings.Join(out.OldKIDs, ", "))
	return nil
}

func (a *secretsRotateCmd) finishAudit(ctx context.Context, c *call, s *store.Store, out *rotated) error {
	if err := s.AuditErr(); errors.Is(err, store.ErrAuditKeyUnknown) {
		return err
	}
	old, err := s.OldAuditKeys(ctx)
	if err != nil {
		return err
	}
	if len(old) == 0 {
		return exit(exitNotYet, errors.New("there is nothing to finish: the configured audit secret is the only one that may sign"))
	}
	for _, k := range old {
		out.OldKIDs = append(out.OldKIDs, k.KID)
		if k.Rows > 0 {
			fmt.Fprintf(c.stderr, "note: key %s signed %d of the newest 1,000 entries, the last at %s; a brain that still runs with it can change nothing any more: restart it\n",
				k.KID, k.Rows, shortTime(k.Newest))
		}
		if !k.Present {
			fmt.Fprintf(c.stderr, "note: the secret of key %s is not given; what it signed can't be proved without it\n", k.KID)
		}
	}
	if err := s.RetireAuditKeys(ctx, out.OldKIDs, byOperator()); err != nil {
		return err
	}
	out.Next = "keep " + out.Previous + " as it is: with it the entries of the old keys are proved"
	a.say(c, "Key %s may not sign any more; that is in the audit log.", strings.Join(out.OldKIDs, ", "))
	a.say(c, "Next: %s.", out.Next)
	return nil
}

func (a *secretsRotateCmd) finish(ctx context.Context, c *call, cfg *config.Config, s *store.Store, out *rotated) error {
	if earlierValues(cfg, a.What) == 0 {
		return exit(exitNotYet, fmt.Errorf("there is nothing to finish: %s is empty", out.Previous))
	}
	if a.What == "master" {
		if err := a.finishMaster(ctx, c, cfg, s, out); err != nil {
			return err
		}
	}
	if err := cfg.Rotatable(a.What); err != nil {
		return exit(exitUsage, fmt.Errorf("%w: take %s away there and restart every brain; nothing else is to be done", err, out.Previous))
	}
	r, err := cfg.EndRotation(a.What)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := s.ChangeSecret(ctx, out.Previous, "rotation finished: earlier values are no longer accepted", byOperator()); err != nil {
		return err
	}
	if err := r.Commit(); err != nil {
		return err
	}
	a.say(c, "%s is taken out of %s.", out.Previous, out.File)
	if a.What == "session" {
		a.say(c, "Whoever has a cookie of an earlier value logs in again once the brains are restarted.")
	}
	out.Next = "copy the file to the other machines that run a brain, and restart every brain"
	a.say(c, "Next: %s. Keep the earlier value apart as long as you keep backups of its time.", out.Next)
	return nil
}

func earlierValues(cfg *config.Config, what string) int {
	if what == "session" {
		return len(cfg.Secrets.PreviousSession)
	}
	return len(cfg.Secrets.PreviousMaster)
}

const shownUnmoved = 20 // agents or keys; --json shows all

// finishMaster refuses while somebody needs an earlier value.
func (a *secretsRotateCmd) finishMaster(ctx context.Context, c *call, cfg *config.Config, s *store.Store, out *rotated) error {
	master := cfg.Secrets.Master.Reveal()
	known, err := s.KnowsMaster(ctx, master)
	if err != nil {
		return err
	}
	if !known {
		return exit(exitNotYet, errors.New("no brain has run with the new Z4J_SECRET yet: restart every brain first (with Z4J_AUTO_MIGRATE=false run `z4j-brain migrate upgrade` once, too)"))
	}
	left, err := s.Unmoved(ctx, store.SecretID(master), store.TimeOf(time.Now()))
	if err != nil {
		return err
	}
	out.Unmoved = &left
	n := len(left.Agents) + len(left.Keys)
	if n == 0 {
		return nil
	}
	for _, agent := range left.Agents[:min(len(left.Agents), shownUnmoved)] {
		a.say(c, "agent %s of project %s, last seen %s", agent.Name, agent.ProjectSlug, shortTime(agent.LastSeenAt))
	}
	for _, k := range left.Keys[:min(len(left.Keys), shownUnmoved)] {
		a.say(c, "API key %q (%s) of %s, last used %s", k.Name, k.Prefix, k.UserEmail, shortTime(k.LastUsedAt))
	}
	if a.Force {
		a.say(c, "%d agents and %d API keys need an earlier value and are refused from now on.", len(left.Agents), len(left.Keys))
		return nil
	}
	if a.JSON {
		if err := printJSON(c.stdout, out); err != nil {
			return err
		}
	}
	return exit(exitNotYet, fmt.Errorf("%d agents and %d API keys still need an earlier value. For each agent: `z4j-brain agents mint` another one, put what it prints into the environment, "+
		"restart the workers, `z4j-brain agents revoke` the old one. An API key moves over when it is used: use it, or revoke it. --force finishes all the same", len(left.Agents), len(left.Keys)))
}

// byHand says how to rotate what this command can't change.
func byHand(out *rotated) string {
	return "Where your secrets are kept: make a new value (openssl rand -base64 48), put the present one first into " + out.Previous +
		" (a comma list), set " + out.Secret + " to the new one, store a copy of both, and restart every brain, one after the other. --finish tells when the old value can go"
}
