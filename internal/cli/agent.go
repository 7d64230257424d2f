package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/z4j-go/z4j/internal/app"
	"github.com/z4j-go/z4j/internal/auth"
	"github.com/z4j-go/z4j/internal/config"
	"github.com/z4j-go/z4j/internal/id"
	"github.com/z4j-go/z4j/internal/store"
)

// exitNone says that what a command is about does not exist.
const exitNone = 4

type agentsCmd struct {
	List   agentsListCmd   `cmd:"" help:"List agents."`
	Mint   agentsMintCmd   `cmd:"" help:"Make an agent; its token and signing secret are shown once."`
	Revoke agentsRevokeCmd `cmd:"" help:"End an agent's token and its connections."`
}

// projectOf returns the project of a slug.
func projectOf(ctx context.Context, s *store.Store, slug string) (store.Project, error) {
	p, _, err := s.ProjectOf(ctx, slug, store.Sight{All: true})
	if errors.Is(err, store.ErrNotFound) {
		return p, exit(exitNone, fmt.Errorf("there is no project %q", slug))
	}
	return p, err
}

type agentsListCmd struct {
	Project string `help:"Of this project; without it, of all." placeholder:"SLUG"`
	JSON    bool   `name:"json" help:"Print JSON."`
}

// Help is shown by `agents list --help`.
func (agentsListCmd) Help() string {
	return `Lists the agents that are not revoked, with when they were last heard of.

Exit codes: 0 listed, 1 could not, 2 wrong arguments or settings, 4 no such project.`
}

// listedAgent is an agent with its project's slug.
type listedAgent struct {
	store.Agent

	ProjectSlug string `json:"project_slug"`
}

// Run lists.
func (a *agentsListCmd) Run(c *call) error {
	return c.withStore(func(ctx context.Context, _ *config.Config, s *store.Store) error {
		projects, err := s.Projects(ctx, store.Sight{All: true})
		if a.Project != "" {
			var one store.Project
			one, err = projectOf(ctx, s, a.Project)
			projects = []store.Project{one}
		}
		if err != nil {
			return err
		}
		list := []listedAgent{}
		for _, p := range projects {
			for page := (store.Page{}); ; {
				some, err := s.Agents(ctx, p.ID, page, store.TimeOf(time.Now()))
				if err != nil {
					return err
				}
				for _, one := range some.Items {
					list = append(list, listedAgent{one, p.Slug})
				}
				if some.Next == nil {
					break
				}
				page.Cursor = *some.Next
			}
		}
		if a.JSON {
			return printJSON(c.stdout, list)
		}
		w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "PROJECT\tNAME\tSTATE\tLAST SEEN\tVERSION\tID")
		for _, one := range list {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", one.ProjectSlug, one.Name, one.State, shortTime(one.LastSeenAt), orDash(one.AgentVersion), one.ID)
		}
		return w.Flush()
	})
}

func shortTime(t *store.Time) string {
	if t == nil {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

func orDash(text *string) string {
	if text == nil || *text == "" {
		return "-"
	}
	return *text
}

type agentsMintCmd struct {
	Project string `required:"" help:"The agent's project." placeholder:"SLUG"`
	Name    string `required:"" help:"The agent's name; those of revoked agents are free." placeholder:"NAME"`
	JSON    bool   `name:"json" help:"Print JSON."`
}

// Help is shown by `agents mint --help`.
func (agentsMintCmd) Help() string {
	return `Prints what the agent's environment needs. Token and signing secret are shown this once: the brain keeps a keyed hash
of the token. In place of a lost token: revoke the agent, mint one of the same name. While Z4J_SECRET is rotated: mint a
second agent, give it to the workers, revoke the first.

Exit codes: 0 made, 1 could not, 2 wrong arguments or settings, 3 the project has an agent of this name, 4 no such project.`
}

// Run makes the agent.
func (a *agentsMintCmd) Run(c *call) error {
	name := strings.TrimSpace(a.Name)
	if name == "" || len(name) > 200 || strings.ContainsRune(name, 0) {
		return exit(exitUsage, errors.New("--name has 1 to 200 bytes"))
	}
	return c.withChanges(func(ctx context.Context, cfg *config.Config, s *store.Store) error {
		p, err := projectOf(ctx, s, a.Project)
		if err != nil {
			return err
		}
		master, token := cfg.Secrets.Master.Reveal(), auth.NewToken()
		made, err := s.MintAgent(ctx, p, name, auth.AgentTokenHash(master, token), store.SecretID(master), byOperator())
		if errors.Is(err, store.ErrConflict) {
			return exit(exitAlready, fmt.Errorf("project %q has an agent %q: revoke it, or take another name", p.Slug, name))
		}
		if err != nil {
			return err
		}
		secret := app.SigningSecret(cfg, p.ID)
		if a.JSON {
			return printJSON(c.stdout, map[string]any{"agent": listedAgent{made, p.Slug}, "token": token, "hmac_secret": secret, "brain_url": cfg.Network.PublicURL})
		}
		fmt.Fprintf(c.stderr, "agent %s made in project %q (id %s). Put this into its environment; it is not shown again:\n", made.Name, p.Slug, made.ID)
		_, err = fmt.Fprintf(c.stdout, "Z4J_BRAIN_URL=%s\nZ4J_PROJECT_ID=%s\nZ4J_TOKEN=%s\nZ4J_HMAC_SECRET=%s\n", cfg.Network.PublicURL, p.Slug, token, secret)
		return err
	})
}

type agentsRevokeCmd struct {
	Agent   string `arg:"" help:"Name or id of the agent."`
	Project string `help:"Its project; needed with a name." placeholder:"SLUG"`
	JSON    bool   `name:"json" help:"Print JSON."`
}

// Help is shown by `agents revoke --help`.
func (agentsRevokeCmd) Help() string {
	return `Ends the agent's token and closes its connections at every brain: at once with Postgres, within a second or two with
SQLite. Its tasks and events stay. Workers go on with their tasks; nothing more is heard of them.

Exit codes: 0 revoked, 1 could not, 2 wrong arguments or settings, 4 no such agent, or it is revoked already.`
}

// Run revokes the agent.
func (a *agentsRevokeCmd) Run(c *call) error {
	if _, err := id.Parse(a.Agent); err != nil && a.Project == "" {
		return exit(exitUsage, fmt.Errorf("%q is a name: say --project too, or give the agent's id", a.Agent))
	}
	return c.withChanges(func(ctx context.Context, _ *config.Config, s *store.Store) error {
		var within id.ID
		if a.Project != "" {
			p, err := projectOf(ctx, s, a.Project)
			if err != nil {
				return err
			}
			within = p.ID
		}
		agent, p, err := s.AgentOf(ctx, within, a.Agent)
		if err == nil {
			err = s.RevokeAgent(ctx, p, agent.ID, byOperator())
		}
		if errors.Is(err, store.ErrNotFound) {
			return exit(exitNone, fmt.Errorf("there is no agent %q, or it is revoked already", a.Agent))
		}
		if err != nil {
			return err
		}
		if a.JSON {
			return printJSON(c.stdout, map[string]any{"revoked": true, "agent_id": agent.ID, "name": agent.Name, "project_slug": p.Slug})
		}
		_, err = fmt.Fprintf(c.stdout, "agent %s of project %q revoked\n", agent.Name, p.Slug)
		return err
	})
}
