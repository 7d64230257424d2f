package audit

import "slices"

// Action is what was done, or refused.
type Action string

// Every action that has a name. A new one gets a line in the catalogue below.
const (
	SystemInstalled     Action = "system.installed"
	SystemMigrated      Action = "system.migrated"
	SystemSecretChanged Action = "system.secret_changed"

	SetupAttempt   Action = "setup.attempt"
	SetupCompleted Action = "setup.completed"

	AuthLogin           Action = "auth.login"
	AuthLogout          Action = "auth.logout"
	AuthPasswordChanged Action = "auth.password_changed"
	AuthSessionRevoked  Action = "auth.session_revoked"

	UserCreated       Action = "user.created"
	MembershipGranted Action = "membership.granted"
	ProjectCreated    Action = "project.created"
	ProjectChanged    Action = "project.changed"

	AgentMinted     Action = "agent.token.minted"
	AgentRevoked    Action = "agent.token.revoked"
	AgentAuthFailed Action = "agent.auth.bearer_failed"

	AccessRefused    Action = "access.refused"
	RefusalsOverflow Action = "refusals.overflow"

	KeyIntroduced     Action = "audit.key_introduced"
	KeyAdopted        Action = "audit.key_adopted"
	KeyRetired        Action = "audit.key_retired"
	HistoryInDoubt    Action = "audit.history_in_doubt"
	GenerationStarted Action = "audit.generation_started"
	Pruned            Action = "audit.pruned"
	Erased            Action = "audit.erased"
)

// Kind is what the catalogue says of an action.
type Kind struct {
	Target string // type of the target
	Person bool   // the target is a person: its label stands in the personal part

	Details  []string // names of details
	Personal []string // those of details that tell of the target, or else of the actor, as a person
}

// catalogue is the whole list. Names of details are ASCII; user text is only ever a value.
var catalogue = map[Action]Kind{
	SystemInstalled:     {Target: "system", Details: []string{"kid", "public_key", "generation", "version"}},
	SystemMigrated:      {Target: "system", Details: []string{"from", "to", "version"}},
	SystemSecretChanged: {Target: "system", Details: []string{"setting"}},

	SetupAttempt:   {Target: "setup"},
	SetupCompleted: {Target: "user", Person: true, Details: []string{"project_id", "project_slug", "via"}},

	AuthLogin:           {Target: "user", Person: true, Details: []string{"session_id", "remembered"}},
	AuthLogout:          {Target: "user", Person: true, Details: []string{"session_id"}},
	AuthPasswordChanged: {Target: "user", Person: true, Details: []string{"revoked_sessions", "via"}},
	AuthSessionRevoked:  {Target: "session", Details: []string{"user_id", "session_reason"}},

	UserCreated:       {Target: "user", Person: true, Details: []string{"is_admin", "via"}, Personal: []string{"display_name"}},
	MembershipGranted: {Target: "membership", Person: true, Details: []string{"role", "user_id"}},
	ProjectCreated:    {Target: "project", Details: []string{"slug", "environment"}},
	ProjectChanged:    {Target: "project", Details: []string{"slug", "previous_slug", "environment", "changes"}},

	AgentMinted:     {Target: "agent", Details: []string{"name"}},
	AgentRevoked:    {Target: "agent", Details: []string{"name", "connections"}},
	AgentAuthFailed: {Target: "agent"},

	AccessRefused:    {Target: "route"},
	RefusalsOverflow: {Target: "refusals", Details: []string{"actions"}},

	KeyIntroduced:     {Target: "audit_key", Details: []string{"kid", "public_key", "previous_kid", "proof"}},
	KeyAdopted:        {Target: "audit_key", Details: []string{"kid", "public_key", "lost_kids"}},
	KeyRetired:        {Target: "audit_key", Details: []string{"kid"}},
	HistoryInDoubt:    {Target: "audit_log", Details: []string{"lost_seq", "lost_row_hmac", "lost_ts", "head_seq", "head_row_hmac", "timeline"}},
	GenerationStarted: {Target: "audit_log", Details: []string{"generation", "previous", "fork", "anchor_size", "anchor_root", "cause"}},
	Pruned:            {Target: "audit_log", Details: []string{"through", "row_hmac", "peaks", "kids", "generations", "archives"}},
	Erased:            {Target: "user", Person: true, Details: []string{"user_id", "count", "sha256"}},
}

// commonDetails may stand in any entry: why, and what a refusal says beside it.
var commonDetails = []string{"reason", "status", "method", "path", "count", "first", "last"}

// Kind returns what the catalogue says of a.
func (a Action) Kind() (Kind, bool) {
	k, ok := catalogue[a]
	return k, ok
}

func (k Kind) allows(detail string) bool {
	return slices.Contains(k.Details, detail) || slices.Contains(commonDetails, detail)
}

// ActorKind says what acted.
type ActorKind string

// The kinds of actors.
const (
	User      ActorKind = "user"
	APIKey    ActorKind = "api_key"
	Agent     ActorKind = "agent"
	Scheduler ActorKind = "scheduler"
	CLI       ActorKind = "cli"
	System    ActorKind = "system"
	Anonymous ActorKind = "anonymous"
)

var actorKinds = []ActorKind{User, APIKey, Agent, Scheduler, CLI, System, Anonymous}

// Outcome says how it ended.
type Outcome string

// The outcomes. Deny is a refusal by rule (401, 403, 404, 429), failed what could not be done (409, 422, 5xx).
const (
	Allow  Outcome = "allow"
	Deny   Outcome = "deny"
	Failed Outcome = "error"
)

var outcomes = []Outcome{Allow, Deny, Failed}
