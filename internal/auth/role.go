package auth

import "slices"

// Permission is one thing that somebody may do. Routes ask for one.
type Permission string

// Permissions inside a project.
const (
	ReadProject   Permission = "project:read"
	ReadTasks     Permission = "tasks:read" // their attempts and events, too
	ReadWorkers   Permission = "workers:read"
	ReadQueues    Permission = "queues:read"
	ReadAgents    Permission = "agents:read"
	ReadStats     Permission = "stats:read"
	Operate       Permission = "commands:issue" // retry, cancel, restart: whatever reaches an agent
	ReadAudit     Permission = "audit:read"
	ReadMembers   Permission = "memberships:read"
	ManageMembers Permission = "memberships:manage"
	ManageAgents  Permission = "agents:manage"
)

// Permissions of the whole installation.
const (
	ReadUsers      Permission = "users:read"
	CreateUsers    Permission = "users:create"
	CreateProjects Permission = "projects:create"
	ChangeProjects Permission = "projects:change"
	HoldRetention  Permission = "retention:hold" // of projects, too: who may end a hold may let evidence go
	ReadBackups    Permission = "backups:read"
	MakeBackups    Permission = "backups:make"
)

// Role is a name for a set of permissions. Roles are not ranks: an operator acts and can't read the audit log, an
// auditor reads it and can't act.
type Role string

// The roles of a project, and the global administrator, who has every permission in every project.
const (
	Viewer      Role = "viewer"
	Auditor     Role = "auditor"
	Operator    Role = "operator"
	Admin       Role = "admin"
	GlobalAdmin Role = "global_admin"
)

// ProjectRoles are the roles that a membership can have.
func ProjectRoles() []Role { return []Role{Viewer, Auditor, Operator, Admin} }

// ProjectRole reads the role of a membership.
func ProjectRole(name string) (Role, bool) {
	return Role(name), slices.Contains(ProjectRoles(), Role(name))
}

// Can reports whether the role has a permission. A role that nobody knows has none.
func (r Role) Can(p Permission) bool {
	switch p {
	case ReadProject, ReadTasks, ReadWorkers, ReadQueues, ReadAgents, ReadStats:
		return r == Viewer || r == Auditor || r == Operator || r == Admin || r == GlobalAdmin
	case Operate:
		return r == Operator || r == Admin || r == GlobalAdmin
	case ReadAudit:
		return r == Auditor || r == Admin || r == GlobalAdmin
	case ReadMembers, ManageMembers, ManageAgents:
		return r == Admin || r == GlobalAdmin
	case ReadUsers, CreateUsers, CreateProjects, ChangeProjects, HoldRetention, ReadBackups, MakeBackups:
		return r == GlobalAdmin
	}
	return false
}

// Permissions are all there are.
func Permissions() []Permission {
	return []Permission{
		ReadProject, ReadTasks, ReadWorkers, ReadQueues, ReadAgents, ReadStats, Operate, ReadAudit, ReadMembers, ManageMembers, ManageAgents,
		ReadUsers, CreateUsers, CreateProjects, ChangeProjects, HoldRetention, ReadBackups, MakeBackups,
	}
}
