package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/store"
)

type auditAcknowledgeCmd struct {
	Reason            string   `required:"" help:"What happened to the database; it is recorded." placeholder:"TEXT"`
	NoDefuse          bool     `help:"Leave everything as the older state has it: sessions that ended, and agents and API keys that were revoked since, live again."`
	WithoutGeneration []string `help:"Leave out what was revoked and erased in this history, such as a drill's; may be given several times." placeholder:"ID"`
	JSON              bool     `name:"json" help:"Print JSON."`
}

// Help is shown by `audit acknowledge-rollback --help`.
func (auditAcknowledgeCmd) Help() string {
	return `Ends the hold of changes after the database was found set back: restored, failed over, cut or changed. Find out first
which: whoever could do that unnoticed has done it when you say that it is in order. The database as it is holds from then
on, as a new generation of the audit log; what is lost stays on record. What an older state brings back to life ends, unless you
decline: sessions and set-up tokens are void, and what the anchors know to have been revoked or erased since is revoked and erased
again. Where no readable anchor knows what was lost, API keys are suspended. Schedules and notifications wait, and suspended API
keys too, for ` + "`z4j-brain restore release`" + `.

Exit codes: 0 acknowledged, 1 could not, 2 wrong arguments or settings, 3 nothing is in doubt.`
}

// Run acknowledges.
func (a *auditAcknowledgeCmd) Run(c *call) error {
	if strings.TrimSpace(a.Reason) == "" {
		return exit(exitUsage, errors.New("--reason is empty"))
	}
	return c.withChanges(func(ctx context.Context, _ *config.Config, _ *store.Store) error {
		k := c.anchors.Custody
		done, err := k.Acknowledge(ctx, custody.Acknowledgement{By: byOperator().Actor, Reason: a.Reason, NoDefuse: a.NoDefuse, Without: a.WithoutGeneration})
		if errors.Is(err, custody.ErrNoHold) {
			return exit(exitAlready, err)
		}
		if err != nil {
			return err
		}
		if a.JSON {
			return printJSON(c.stdout, done)
		}
		return showAcknowledged(c.stdout, k, &done)
	})
}

func showAcknowledged(out io.Writer, k *custody.Custody, done *custody.Acknowledged) error {
	w, line := pairs(out)
	line("acknowledged", "changes are made again, in generation %s, which follows entry %d of generation %s", done.Generation, done.Fork, done.Previous)
	if !done.Defused {
		line("void", "nothing: sessions, set-up tokens, agents and API keys are as that state has them")
		return w.Flush()
	}
	showTroubles(line, k.Troubles())
	showGone(line, done.Gone)
	line("void", "sessions and set-up tokens: everybody logs in again; events that were acknowledged after %s may be gone", done.Gap.From)
	line("done again", "%d revocations, %d erasures", done.Revoked, done.Erased)
	showAdmitted(line, done.LookAt)
	showPrune(line, done.Prune)
	next := "look around, then run `z4j-brain restore release`"
	if done.Suspended {
		line("suspended", "API keys: no readable anchor knows what was lost, so nobody can tell which were revoked")
		next = "look through API keys, users, memberships and agents, then run `z4j-brain restore release --keys`"
	}
	line("next", "%s", next)
	return w.Flush()
}

// withCustody is withStore with what watches the audit log.
func (c *call) withCustody(fn func(context.Context, *custody.Custody, *store.Store) error) error {
	return c.withStore(func(ctx context.Context, cfg *config.Config, s *store.Store) error {
		return fn(ctx, app.Custody(cfg, s, slog.New(slog.DiscardHandler), time.Now), s)
	})
}

type auditProveCmd struct {
	Seq int64  `arg:"" name:"seq" help:"Number of the entry."`
	Out string `help:"File to write; - is standard output." default:"-" placeholder:"FILE"`
}

// Help is shown by `audit prove --help`.
func (auditProveCmd) Help() string {
	return `Writes a proof that an entry is in the audit log, for the newest checkpoint; it holds the entry itself, without what is
said of persons. Who has the public key (audit pubkey) checks it with audit check-proof, without a database or a secret.

Exit codes: 0 written, 1 could not, 2 wrong arguments or settings, 3 there is no such entry.`
}

// Run proves.
func (p *auditProveCmd) Run(c *call) error {
	return c.withCustody(func(ctx context.Context, k *custody.Custody, _ *store.Store) error {
		proof, err := k.Prove(ctx, p.Seq)
		if errors.Is(err, store.ErrNotFound) {
			return exit(exitAlready, err)
		}
		if err != nil {
			return err
		}
		if p.Out == "-" {
			_, err = io.WriteString(c.stdout, proof.String())
			return err
		}
		if err := os.WriteFile(p.Out, []byte(proof.String()), 0o600); err != nil {
			return fmt.Errorf("write proof: %w", err)
		}
		_, err = fmt.Fprintf(c.stdout, "%s proves entry %d\n", p.Out, p.Seq)
		return err
	})
}

type auditCheckProofCmd struct {
	File   string   `arg:"" help:"What audit prove wrote; - is standard input."`
	PubKey []string `name:"pubkey" required:"" help:"Public key of checkpoints, as audit pubkey lists it; may be given more than once." placeholder:"KEY"`
	JSON   bool     `name:"json" help:"Print JSON."`
}

// Help is shown by `audit check-proof --help`.
func (auditCheckProofCmd) Help() string {
	return `Needs no database, no settings and no secret.

Exit codes: 0 the entry was in the audit log when the checkpoint was signed, 1 nothing is proved, 2 wrong arguments.`
}

// proved is what a proof shows.
type proved struct {
	Seq        int64  `json:"seq"`
	TS         string `json:"ts"`
	Action     string `json:"action"`
	Outcome    string `json:"outcome"`
	ActorKind  string `json:"actor_kind"`
	ActorID    string `json:"actor_id"`
	TargetType string `json:"target_type"`
	TargetID   string `json:"target_id"`
	Instance   string `json:"instance"`
	Generation string `json:"generation"`
	Size       int64  `json:"checkpoint_size"`
	SignedAt   string `json:"checkpoint_time"`
}

// maxProof is more than the largest entry and sixty hashes take.
const maxProof = 1 << 20

// Run checks.
func (k *auditCheckProofCmd) Run(c *call) error {
	text, err := c.readProof(k.File)
	if err != nil {
		return err
	}
	p, err := audit.ParseProof(string(text))
	if err != nil {
		return exit(exitFailed, fmt.Errorf("%s: %w", k.File, err))
	}
	cp, body, err := p.Check(k.PubKey...)
	if err != nil {
		return exit(exitFailed, fmt.Errorf("%s: %w", k.File, err))
	}
	out := proved{
		Seq: body.Seq, TS: body.TS, Action: body.Action, Outcome: body.Outcome, ActorKind: body.ActorKind, ActorID: body.ActorID.S, TargetType: body.TargetType.S,
		TargetID: body.TargetID.S, Instance: cp.Instance, Generation: cp.Generation, Size: cp.Size, SignedAt: store.TimeAt(cp.Time).String(),
	}
	if k.JSON {
		return printJSON(c.stdout, out)
	}
	_, err = fmt.Fprintf(c.stdout, "proved: entry %d (%s, %s, at %s) is one of the %d entries that installation %s signed at %s\n",
		out.Seq, out.Action, out.Outcome, out.TS, out.Size, out.Instance, out.SignedAt)
	return err
}

func (c *call) readProof(path string) (text []byte, err error) {
	from := c.stdin
	if path != "-" {
		f, err := os.Open(path) //nolint:gosec // the operator names it.
		if err != nil {
			return nil, exit(exitUsage, fmt.Errorf("read proof: %w", err))
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		from = f
	}
	text, err = io.ReadAll(io.LimitReader(from, maxProof))
	if err != nil {
		return nil, fmt.Errorf("read proof: %w", err)
	}
	return text, nil
}
