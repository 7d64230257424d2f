package api

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/auth"
)

// route is one operation of the API. None of the fields can be left out of a line of the table.
type route struct {
	method  string
	path    string // below base; {slug} is the project
	id      string // of the operation, in the OpenAPI document
	summary string
	access  access
	keys    reach
	action  audit.Action // what a refusal of a change is recorded as; reads have none
	bucket  bucket
	endpoint
}

// changes reports whether the route changes something, so that its refusals are recorded.
func (rt *route) changes() bool { return rt.method != http.MethodGet }

// access says who may call a route. The zero access is nobody.
type access struct {
	kind       accessKind
	permission auth.Permission
}

type accessKind int

const (
	nobody       accessKind = iota
	anyone                  // without credentials
	untilSetUp              // anyone as long as there is no account, then whoever is logged in
	loggedIn                // any account
	installation            // whose role in the installation has the permission
	project                 // whose role in the project {slug} has the permission; others don't learn that it exists
)

func open() access                          { return access{kind: anyone} }
func openUntilSetUp() access                { return access{kind: untilSetUp} }
func account() access                       { return access{kind: loggedIn} }
func global(p auth.Permission) access       { return access{kind: installation, permission: p} }
func inProject(p auth.Permission) access    { return access{kind: project, permission: p} }
func (a access) needsSession() bool         { return a.kind >= loggedIn }
func (a access) inProject() bool            { return a.kind == project }
func (a access) allows(role auth.Role) bool { return a.permission == "" || role.Can(a.permission) }

// reach says what API keys may do with a route. The zero reach is nothing: no key gets there, whatever its scopes.
type reach struct {
	scope  auth.Scope
	narrow bool // the path names no project and keys that are bound to one may come: the handler shows them that one only
}

func noKeys() reach                  { return reach{} }
func key(s auth.Scope) reach         { return reach{scope: s} }
func keyNarrowed(s auth.Scope) reach { return reach{scope: s, narrow: true} }

// bucket is a rate limit that routes share, per client network.
type bucket string

const (
	unlimited     bucket = ""
	loginBucket   bucket = "login"
	setupBucket   bucket = "setup"
	passwordCheck bucket = "password"
	documentation bucket = "openapi"
	exports       bucket = "export"
)

func buckets() map[bucket]auth.Limit {
	return map[bucket]auth.Limit{
		loginBucket:   {Count: 20, Per: time.Minute},
		setupBucket:   {Count: 120, Per: time.Minute}, // failed tries have a tighter limit of their own
		passwordCheck: {Count: 10, Per: time.Minute},
		documentation: {Count: 10, Per: time.Minute},
		exports:       {Count: 30, Per: time.Minute}, // each leaves an entry
	}
}

const none audit.Action = "" // of routes that change nothing

// table is the whole API. The OpenAPI document, the permissions and the test of all roles come from it.
func (s *Server) table() []route {
	const get, post, patch, del = http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete
	return []route{
		{get, "/setup/status", "setup-status", "Whether the first account is still to be made", openUntilSetUp(), noKeys(), none, unlimited, call(s.setupStatus)},
		{post, "/setup/complete", "complete-setup", "Make the first account with the one-time token", open(), noKeys(), audit.SetupAttempt, setupBucket, call(s.completeSetup)},

		{post, "/auth/login", "login", "Log in", open(), noKeys(), audit.AuthLogin, loginBucket, call(s.login)},
		{post, "/auth/logout", "logout", "End the session", account(), noKeys(), audit.AuthLogout, unlimited, call(s.logout)},
		{get, "/auth/policy", "password-policy", "What a new password must be like", open(), noKeys(), none, unlimited, call(s.passwordPolicy)},
		{get, "/auth/me", "me", "The account that is logged in, with its projects", account(), noKeys(), none, unlimited, call(s.showMe)},
		{post, "/auth/change-password", "change-password", "Change the own password and end all other sessions", account(), noKeys(), audit.AuthPasswordChanged, passwordCheck, call(s.changePassword)},
		{get, "/auth/sessions", "list-sessions", "The own sessions", account(), noKeys(), none, unlimited, call(s.listSessions)},
		{post, "/auth/sessions/revoke-others", "revoke-other-sessions", "End all own sessions but this one", account(), noKeys(), audit.AuthSessionRevoked, unlimited, call(s.revokeOtherSessions)},
		{post, "/auth/sessions/{session_id}/revoke", "revoke-session", "End one of the own sessions", account(), noKeys(), audit.AuthSessionRevoked, unlimited, call(s.revokeSession)},

		{get, "/users", "list-users", "Accounts, the newest first", global(auth.ReadUsers), key(auth.ScopeUsersRead), none, unlimited, call(s.listUsers)},
		{post, "/users", "create-user", "Make an account", global(auth.CreateUsers), key(auth.ScopeUsersWrite), audit.UserCreated, unlimited, create(s.createUser)},

		{get, "/api-keys/scopes", "list-scopes", "What API keys can be made for", account(), key(auth.ScopeAll), none, unlimited, call(s.listScopes)},
		{get, "/api-keys", "list-api-keys", "API keys, the newest first", account(), key(auth.ScopeAll), none, unlimited, call(s.listAPIKeys)},
		{post, "/api-keys", "create-api-key", "Make an API key; its text is shown once", account(), noKeys(), audit.APIKeyCreated, unlimited, create(s.createAPIKey)},
		{patch, "/api-keys/{key_id}", "change-api-key", "Change name, scopes, expiry or networks of an API key", account(), noKeys(), audit.APIKeyChanged, unlimited, call(s.changeAPIKey)},
		{del, "/api-keys/{key_id}", "revoke-api-key", "End an API key", account(), key(auth.ScopeAll), audit.APIKeyRevoked, unlimited, call(s.revokeAPIKey)},

		{get, "/projects", "list-projects", "The projects that the caller sees", account(), keyNarrowed(auth.ScopeProjectsRead), none, unlimited, call(s.listProjects)},
		{post, "/projects", "create-project", "Make a project", global(auth.CreateProjects), key(auth.ScopeProjectsWrite), audit.ProjectCreated, unlimited, create(s.createProject)},
		{get, "/projects/{slug}", "get-project", "One project", inProject(auth.ReadProject), key(auth.ScopeProjectsRead), none, unlimited, call(s.showProject)},
		{patch, "/projects/{slug}", "update-project", "Change a project", global(auth.ChangeProjects), key(auth.ScopeProjectsWrite), audit.ProjectChanged, unlimited, call(s.changeProject)},

		{post, "/projects/{slug}/retention-hold", "hold-project", "Let nothing of a project be deleted", global(auth.HoldRetention), noKeys(), audit.RetentionHeld, unlimited, call(s.holdProject)},
		{del, "/projects/{slug}/retention-hold", "release-project", "End the legal hold of a project", global(auth.HoldRetention), noKeys(), audit.RetentionReleased, unlimited, call(s.releaseProject)},
		{get, "/retention", "get-retention", "Legal hold of the whole installation, and the last sweep", global(auth.HoldRetention), key(auth.ScopeProjectsRead), none, unlimited, call(s.showRetention)},
		{post, "/retention/hold", "hold-installation", "Let nothing be deleted", global(auth.HoldRetention), noKeys(), audit.RetentionHeld, unlimited, call(s.holdInstallation)},
		{del, "/retention/hold", "release-installation", "End the legal hold of the whole installation", global(auth.HoldRetention), noKeys(), audit.RetentionReleased, unlimited, call(s.releaseInstallation)},

		{get, "/projects/{slug}/memberships", "list-memberships", "Members of a project", inProject(auth.ReadMembers), key(auth.ScopeMembersRead), none, unlimited, call(s.listMemberships)},
		{post, "/projects/{slug}/memberships", "add-membership", "Make an account a member", inProject(auth.ManageMembers), key(auth.ScopeMembersWrite), audit.MembershipGranted, unlimited, create(s.addMembership)},

		{get, "/projects/{slug}/agents", "list-agents", "Agents of a project, the newest first", inProject(auth.ReadAgents), key(auth.ScopeAgentsRead), none, unlimited, call(s.listAgents)},
		{post, "/projects/{slug}/agents", "mint-agent", "Make an agent; its token and signing secret are shown once", inProject(auth.ManageAgents), key(auth.ScopeAgentsWrite), audit.AgentMinted, unlimited, create(s.mintAgent)},
		{del, "/projects/{slug}/agents/{agent_id}", "revoke-agent", "End an agent's token and its connections", inProject(auth.ManageAgents), key(auth.ScopeAgentsWrite), audit.AgentRevoked, unlimited, call(s.revokeAgent)},
		{get, "/projects/{slug}/agent-workers", "list-agent-workers", "Processes of a project's agents", inProject(auth.ReadAgents), key(auth.ScopeAgentsRead), none, unlimited, call(s.listAgentWorkers)},

		{get, "/projects/{slug}/tasks", "list-tasks", "Tasks of a project, the newest first", inProject(auth.ReadTasks), key(auth.ScopeTasksRead), none, unlimited, call(s.listTasks)},
		{get, "/projects/{slug}/tasks/{engine}/{task_id}", "get-task", "One task with its newest attempts", inProject(auth.ReadTasks), key(auth.ScopeTasksRead), none, unlimited, call(s.showTask)},
		{get, "/projects/{slug}/tasks/{engine}/{task_id}/attempts", "list-attempts", "Attempts of a task, the newest first", inProject(auth.ReadTasks), key(auth.ScopeTasksRead), none, unlimited, call(s.listAttempts)},
		{get, "/projects/{slug}/events", "list-events", "Events of a task, the newest first", inProject(auth.ReadTasks), key(auth.ScopeTasksRead), none, unlimited, call(s.listEvents)},
		{get, "/projects/{slug}/refused-events", "list-refused-events", "What agents sent and could not be taken, the newest first", inProject(auth.ReadTasks), key(auth.ScopeTasksRead), none, unlimited, call(s.listRefusedEvents)},
		{get, "/projects/{slug}/workers", "list-workers", "Engine workers of a project, the freshest first", inProject(auth.ReadWorkers), key(auth.ScopeWorkersRead), none, unlimited, call(s.listWorkers)},
		{get, "/projects/{slug}/workers/{worker_id}", "get-worker", "One engine worker", inProject(auth.ReadWorkers), key(auth.ScopeWorkersRead), none, unlimited, call(s.showWorker)},
		{get, "/projects/{slug}/queues", "list-queues", "Queues of a project by name", inProject(auth.ReadQueues), key(auth.ScopeQueuesRead), none, unlimited, call(s.listQueues)},
		{get, "/projects/{slug}/stats", "get-stats", "Numbers of a project", inProject(auth.ReadStats), key(auth.ScopeTasksRead), none, unlimited, call(s.showStats)},
		{get, "/projects/{slug}/audit", "list-audit", "Audit log of a project, the newest first", inProject(auth.ReadAudit), key(auth.ScopeAuditRead), none, unlimited, call(s.listAudit)},
		{get, "/audit/export", "export-audit", "The audit log as a file that can be verified", account(), keyNarrowed(auth.ScopeAuditRead), none, exports, call(s.exportAudit)},

		{get, "/audit/status", "get-audit-status", "What the verifications of the audit log found", global(auth.ReadAudit), key(auth.ScopeAuditRead), none, unlimited, call(s.showAuditStatus)},
		{get, "/admin/backups", "list-backups", "How backups stand, and those that were made or failed, the newest first", global(auth.ReadBackups), key(auth.ScopeBackupsRead), none, unlimited, call(s.listBackups)},
		{post, "/admin/backups", "start-backup", "Make a backup now", global(auth.MakeBackups), key(auth.ScopeBackupsWrite), audit.BackupCompleted, unlimited, call(s.startBackup)},

		{get, "/home/summary", "get-home", "Numbers of all projects that the caller sees", account(), keyNarrowed(auth.ScopeHomeRead), none, unlimited, call(s.showHome)},
		{get, "/home/recent-failures", "list-recent-failures", "Failed tasks of all projects that the caller sees, the newest first", account(), keyNarrowed(auth.ScopeHomeRead), none, unlimited, call(s.listRecentFailures)},

		{get, "/health", "get-health", "Whether the process answers", open(), noKeys(), none, unlimited, call(s.showHealth)},
		{get, "/health/ready", "get-readiness", "Whether the brain can work; 503 if not", open(), noKeys(), none, unlimited, call(s.showReady)},
		{get, "/health/system", "get-system", "What the brain runs on", account(), key(auth.ScopeHealthRead), none, unlimited, call(s.showSystem)},
	}
}

// endpoint is a typed handler: what it takes, what it gives, and how it is mounted.
type endpoint struct {
	in, out reflect.Type
	mount   func(s *Server, api huma.API, rt *route)
}

// nothing is the answer 204.
type nothing struct{}

// call makes fn an endpoint that answers 200, or 204 if Out is nothing.
func call[In, Out any](fn func(context.Context, *In) (*Out, error)) endpoint { return answering(0, fn) }

// create is call for what answers 201.
func create[In, Out any](fn func(context.Context, *In) (*Out, error)) endpoint {
	return answering(http.StatusCreated, fn)
}

func answering[In, Out any](status int, fn func(context.Context, *In) (*Out, error)) endpoint {
	return endpoint{
		in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](),
		mount: func(s *Server, api huma.API, rt *route) {
			op := s.operation(api, rt)
			op.DefaultStatus = status
			op.Middlewares = huma.Middlewares{s.gate(rt, hasBody(reflect.TypeFor[In]()))}
			huma.Register(api, op, func(ctx context.Context, in *In) (*Out, error) {
				if err := s.admit(ctx, rt); err != nil {
					return nil, s.answerTo(ctx, err)
				}
				out, err := fn(ctx, in)
				if err != nil {
					return nil, s.answerTo(ctx, err)
				}
				return out, nil
			})
			describeNeeded(api, rt, reflect.TypeFor[In]())
		},
	}
}

// describeNeeded says which parameters of a query are required where the handler sees to that itself, with the tag needed:
// it first looks who asks, and whether that may know of the project.
func describeNeeded(api huma.API, rt *route, in reflect.Type) {
	path := api.OpenAPI().Paths[base+rt.path]
	if rt.method != http.MethodGet || path == nil || path.Get == nil {
		return
	}
	for field := range in.Fields() {
		tag := field.Tag
		for _, p := range path.Get.Parameters {
			if p.In == "query" && p.Name == tag.Get("query") && tag.Get("needed") == "true" {
				p.Required = true
			}
		}
	}
}

func hasBody(in reflect.Type) bool {
	_, has := in.FieldByName("Body")
	return has
}

// operation describes a route to huma.
func (s *Server) operation(api huma.API, rt *route) huma.Operation {
	op := huma.Operation{
		OperationID: rt.id, Method: rt.method, Path: base + rt.path, Summary: rt.summary, Tags: []string{tagOf(rt.path)},
		MaxBodyBytes: -1, BodyReadTimeout: -1, // the gate has read it; a deadline left on the connection would end the request
		Responses: map[string]*huma.Response{"default": {
			Description: "Error",
			Content:     map[string]*huma.MediaType{"application/json": {Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[problemBody](), true, "Error")}},
		}},
	}
	if rt.access.inProject() && !strings.Contains(rt.path, "{slug}") {
		panic("api: " + rt.id + " asks for a role in a project and its path names none")
	}
	if rt.access.inProject() || strings.Contains(rt.path, "{slug}") {
		op.Parameters = append(op.Parameters, &huma.Param{Name: "slug", In: "path", Required: true, Description: "the project", Schema: &huma.Schema{Type: huma.TypeString}})
	}
	if rt.access.needsSession() {
		op.Security = []map[string][]string{{"session": {}}}
	}
	if rt.keys.scope != "" {
		op.Security = append(op.Security, map[string][]string{"api_key": {}})
		op.Description = "API keys need the scope " + string(rt.keys.scope) + "."
	}
	return op
}

// tagOf groups operations by the noun that their path is about.
func tagOf(path string) string {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if parts[0] == "projects" && len(parts) > 2 {
		return parts[2]
	}
	return parts[0]
}
