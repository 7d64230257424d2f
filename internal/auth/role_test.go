package auth_test

import (
	"testing"

	"github.com/z4j-go/z4j/internal/auth"
)

// TestLessonD13: roles are sets. The table is written out, so that a change of a role is a change here.
func TestLessonD13RolesAreSets(t *testing.T) {
	const (
		v, a, o, m, g = 1, 2, 4, 8, 16 // viewer, auditor, operator, admin (of a project), global admin
	)
	roles := map[auth.Role]int{auth.Viewer: v, auth.Auditor: a, auth.Operator: o, auth.Admin: m, auth.GlobalAdmin: g, "": 0, "root": 0}
	want := map[auth.Permission]int{
		auth.ReadProject: v | a | o | m | g, auth.ReadTasks: v | a | o | m | g, auth.ReadWorkers: v | a | o | m | g, auth.ReadQueues: v | a | o | m | g,
		auth.ReadAgents: v | a | o | m | g, auth.ReadStats: v | a | o | m | g,
		auth.Operate: o | m | g, auth.ReadAudit: a | m | g,
		auth.ReadMembers: m | g, auth.ManageMembers: m | g, auth.ManageAgents: m | g,
		auth.ReadUsers: g, auth.CreateUsers: g, auth.CreateProjects: g, auth.ChangeProjects: g, auth.HoldRetention: g,
		auth.ReadBackups: g, auth.MakeBackups: g,
	}
	for _, p := range auth.Permissions() {
		if _, known := want[p]; !known {
			t.Errorf("%s: not in this table", p)
		}
		for role, bit := range roles {
			if got := role.Can(p); got != (want[p]&bit != 0) {
				t.Errorf("%q may %s: got %t, want %t", role, p, got, !got)
			}
		}
	}
	if len(auth.Permissions()) != len(want) {
		t.Errorf("permissions: got %d, want %d", len(auth.Permissions()), len(want))
	}
	if auth.Viewer.Can("no:such") || auth.GlobalAdmin.Can("no:such") {
		t.Error("a permission that nobody knows: got granted, want refused")
	}
}

func TestProjectRole(t *testing.T) {
	for name, want := range map[string]bool{"viewer": true, "auditor": true, "operator": true, "admin": true, "global_admin": false, "": false, "Admin": false} {
		if _, ok := auth.ProjectRole(name); ok != want {
			t.Errorf("%q: got %t, want %t", name, ok, want)
		}
	}
}
