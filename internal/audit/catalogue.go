package audit

import (
	"maps"
	"slices"
)

// Action is what was done, or refused.
type Action string

// Lines are the actions whose entries append lines to the anchors, in order.
func Lines() []Action {
	var out []Action
	for _, a := range slices.Sorted(maps.Keys(catalogue)) {
		if catalogue[a].Line {
			out = append(out, a)
		}
	}
	return out
}

// Held reports whether e may be recorded while the history is in doubt: its action goes on, or it was refused.
func (e *Entry) Held() bool { return e.outcome != Allow || catalogue[e.action].Held }

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

	APIKeyCreated Action = "api_key.created"
	APIKeyChanged Action = "api_key.changed"
	APIKeyRevoked Action = "api_key.revoked"

	RetentionHeld     Action = "retention.held"
	RetentionReleased Action = "retention.released"
	RetentionSwept    Action = "retention.swept"

	AgentMinted     Action = "agent.token.minted"
	AgentRevoked    Action = "agent.token.revoked"
	AgentAuthFailed Action = "agent.auth.bearer_failed"

	AccessRefused    Action = "access.refused"
	RefusalsOverflow Action = "refusals.overflow"

	KeyIntroduced      Action = "audit.key_introduced"
	KeyAdopted         Action = "audit.key_adopted"
	KeyRetired         Action = "audit.key_retired"
	HistoryInDoubt     Action = "audit.history_in_doubt"
	GenerationStarted  Action = "audit.generation_started"
	RollbackAccepted   Action = "audit.rollback_acknowledged"
	AnchorStarted      Action = "audit.anchor_started"
	PlaceChanged       Action = "audit.place_changed"
	AuditExported      Action = "audit.exported"
	Pruned             Action = "audit.pruned"
	PruneCompleted     Action = "audit.prune_completed"
	Erased             Action = "audit.erased"
	VerificationTurned Action = "audit.verification_turned"

	SystemRestored Action = "system.restored"
	SystemReleased Action = "system.restore_released"

	BackupCompleted Action = "backup.completed"
	BackupFailed    Action = "backup.failed"
	BackupPruned    Action = "backup.pruned"
	DrillCompleted  Action = "drill.completed"
)

// Kind is what the catalogue says of an action.
type Kind struct {
	Target string // type of the target
	Person bool   // the target is a person: its label stands in the personal part

	Held  bool // goes on while the history is in doubt; a refusal of any action does, too
	Line  bool // the entry also appends a line to the anchors, for a restore to know of
	Grave bool // the next checkpoint is signed at once

	Details  []string // names of details
	Personal []string // those of details that tell of the target, or else of the actor, as a person
}

// catalogue is the whole list. Names of details are ASCII; user text is only ever a value.
var catalogue = map[Action]Kind{
	SystemInstalled:     {Target: "system", Held: true, Grave: true, Details: []string{"kid", "public_key", "generation", "instance", "version"}},
	SystemMigrated:      {Target: "system", Held: true, Details: []string{"from", "to", "version"}},
	SystemSecretChanged: {Target: "system", Held: true, Details: []string{"setting"}},

	SetupAttempt:   {Target: "setup", Held: true},
	SetupCompleted: {Target: "user", Person: true, Details: []string{"project_id", "project_slug", "via"}},

	AuthLogin:           {Target: "user", Person: true, Held: true, Details: []string{"session_id", "remembered"}},
	AuthLogout:          {Target: "user", Person: true, Held: true, Details: []string{"session_id"}},
	AuthPasswordChanged: {Target: "user", Person: true, Details: []string{"revoked_sessions", "via"}},
	AuthSessionRevoked:  {Target: "session", Held: true, Details: []string{"user_id", "session_reason"}},

	UserCreated:       {Target: "user", Person: true, Details: []string{"is_admin", "via"}, Personal: []string{"display_name"}},
	MembershipGranted: {Target: "membership", Person: true, Details: []string{"role", "user_id"}},
	ProjectCreated:    {Target: "project", Details: []string{"slug", "environment"}},
	ProjectChanged:    {Target: "project", Details: []string{"slug", "previous_slug", "environment", "changes"}},

	APIKeyCreated: {Target: "api_key", Details: []string{"name", "prefix", "user_id", "scopes", "allowed_cidrs", "expires_at", "via"}},
	APIKeyChanged: {Target: "api_key", Details: []string{"name", "prefix", "user_id", "changes", "via"}},
	APIKeyRevoked: {Target: "api_key", Held: true, Line: true, Details: []string{"name", "prefix", "user_id", "via"}},

	RetentionHeld:     {Target: "retention"},
	RetentionReleased: {Target: "retention", Grave: true, Details: []string{"held_since", "held_reason"}},
	RetentionSwept:    {Target: "retention", Grave: true, Details: []string{"tables", "projects", "partitions", "estimated", "cutoffs", "via"}},

	AgentMinted:     {Target: "agent", Details: []string{"name"}},
	AgentRevoked:    {Target: "agent", Held: true, Line: true, Details: []string{"name", "connections"}},
	AgentAuthFailed: {Target: "agent", Held: true},

	AccessRefused:    {Target: "route", Held: true},
	RefusalsOverflow: {Target: "refusals", Held: true, Details: []string{"actions"}},

	KeyIntroduced:     {Target: "audit_key", Held: true, Line: true, Grave: true, Details: []string{"kid", "public_key", "previous_kid", "proof"}},
	KeyAdopted:        {Target: "audit_key", Held: true, Line: true, Grave: true, Details: []string{"kid", "public_key", "lost_kids"}},
	KeyRetired:        {Target: "audit_key", Held: true, Line: true, Grave: true, Details: []string{"kid"}},
	HistoryInDoubt:    {Target: "audit_log", Held: true, Details: []string{"lost_seq", "lost_row_hmac", "lost_ts", "head_seq", "head_row_hmac", "timeline", "fork", "anchor", "anchor_size", "anchor_root", "cause"}},
	GenerationStarted: {Target: "audit_log", Held: true, Line: true, Grave: true, Details: []string{"generation", "previous", "fork", "anchor_size", "anchor_root", "cause", "abandoned"}},
	RollbackAccepted: {Target: "audit_log", Held: true, Grave: true, Details: []string{
		"entry_seq", "lost_seq", "lost_row_hmac", "lost_ts", "head_seq", "head_row_hmac", "defused", "revoked_agents", "revoked_keys", "suspended_keys", "erased",
	}},
	AnchorStarted:      {Target: "audit_log", Held: true, Details: []string{"anchor", "size"}},
	PlaceChanged:       {Target: "system", Held: true, Details: []string{"from", "to", "location", "timeline"}},
	AuditExported:      {Target: "audit_log", Held: true, Details: []string{"format", "filter", "generation", "contiguous", "prev_row_hmac", "kids", "checkpoint"}},
	Pruned:             {Target: "audit_log", Line: true, Grave: true, Details: []string{"through", "row_hmac", "peaks", "kids", "generations", "archives", "erased", "unprovable"}},
	PruneCompleted:     {Target: "audit_log", Details: []string{"through", "rows", "archive"}},
	Erased:             {Target: "user", Person: true, Held: true, Line: true, Grave: true, Details: []string{"user_id", "count", "sha256"}},
	VerificationTurned: {Target: "audit_log", Held: true, Details: []string{"result", "previous", "full", "from", "to", "rows", "first_bad", "class", "why"}},

	SystemRestored: {Target: "system", Held: true, Line: true, Grave: true, Details: []string{
		"backup_id", "generation", "previous", "fork", "head_seq", "head_row_hmac", "lost_seq", "lost_row_hmac", "lost_ts", "defused",
		"snapshot_at", "migrated_from", "revoked_agents", "revoked_keys", "suspended_keys", "erased", "accepted",
	}},
	SystemReleased: {Target: "system", Grave: true, Details: []string{"backup_id", "keys"}},

	BackupCompleted: {Target: "backup", Held: true, Details: []string{"backup", "target", "file", "sha256", "bytes", "rows", "snapshot_at", "head_seq", "head_row_hmac", "generation", "encrypted", "verified", "started_at", "finished_at", "without", "held"}},
	BackupFailed:    {Target: "backup", Held: true, Details: []string{"backup", "target", "file", "started_at"}},
	BackupPruned:    {Target: "backup", Details: []string{"target", "files", "kept", "keep"}},
	DrillCompleted:  {Target: "backup", Held: true, Details: []string{"backup", "target", "file", "snapshot_at", "started_at", "finished_at", "restore_ms", "scratch", "failed_step", "rpo_met", "rto_met"}},
}

// commonDetails may stand in any entry: why, what a refusal says beside it, and whose API key acted.
var commonDetails = []string{ownerDetail, "reason", "status", "method", "path", "count", "first", "last"}

// ownerDetail is the id of the account that owns the API key that acted.
const ownerDetail = "owner_id"

// userDetail is the id of the account that an entry is about, where its target is another thing.
const userDetail = "user_id"

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
