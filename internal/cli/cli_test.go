package cli_test

import (
	"os"
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/cli"
)

// run runs a command in this process.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	code = cli.Run(args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func TestLessonB5ThePasswordLeavesTheEnvironment(t *testing.T) {
	t.Setenv("Z4J_HOME", t.TempDir())
	t.Setenv("Z4J_BOOTSTRAP_ADMIN_PASSWORD", "Correct-Horse-9-Battery")
	t.Setenv("z4j_bootstrap_admin_password", "Correct-Horse-9-Battery")
	for _, args := range [][]string{{"config", "show"}, {"config", "validate"}, {"check"}} {
		_, stdout, stderr := run(t, args...)
		if left := strings.Join(os.Environ(), "\n"); strings.Contains(left, "Correct-Horse") {
			t.Errorf("%v: the password is still in the environment, want it gone", args)
		}
		if strings.Contains(stdout+stderr, "Correct-Horse") {
			t.Errorf("%v: the password is printed", args)
		}
		t.Setenv("Z4J_BOOTSTRAP_ADMIN_PASSWORD", "Correct-Horse-9-Battery")
	}
}

// TestLessonB23EveryCommandHasHelpWithItsExitCodes runs the help of each command.
func TestLessonB23EveryCommandHasHelpWithItsExitCodes(t *testing.T) {
	_, list, _ := run(t, "--help")
	commands := []string{
		"serve", "health", "check", "status", "config show", "config validate", "migrate upgrade", "migrate current", "audit verify", "audit adopt-key", "audit export", "audit prove", "audit check-proof", "audit acknowledge-rollback",
		"createsuperuser", "bootstrap-admin", "doctor",
		"api-keys create", "api-keys list", "api-keys revoke", "agents list", "agents mint", "agents revoke",
		"retention run", "retention hold", "retention release", "retention compact", "secrets rotate", "users create", "changepassword",
	}
	for _, command := range commands {
		code, help, stderr := run(t, append(strings.Fields(command), "--help")...)
		if code != 0 || stderr != "" || !strings.Contains(help, "Exit codes: 0") {
			t.Errorf("%s --help: exit code %d, stderr %q; want 0, nothing, and help that names the exit codes", command, code, stderr)
		}
	}
	for line := range strings.Lines(list[strings.Index(list, "Commands:"):]) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), "  ")
		if !strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "    ") || strings.HasPrefix(name, "version") {
			continue
		}
		known := false
		for _, command := range commands {
			known = known || strings.HasPrefix(name, command)
		}
		if !known {
			t.Errorf("the command %q is in the list and not in this test", name)
		}
	}
}

func TestUsageErrorsAreExitCode2(t *testing.T) {
	for _, args := range [][]string{
		{"nonsense"},
		{"serve", "--nonsense"},
		{"serve", "extra"},
		{"config"},
		{"users"},
		{"changepassword"},
		{"createsuperuser"},
		{"audit", "verify", "--from", "x"},
		{"audit", "adopt-key"},
		{"serve", "--secret", "x"},
		{"serve", "--bootstrap-admin-password", "x"},
	} {
		code, _, stderr := run(t, args...)
		if code != 2 || !strings.Contains(stderr, "z4j-brain") {
			t.Errorf("%v: exit code %d, %q; want 2 and a message", args, code, stderr)
		}
	}
}
