package cli_test

import (
	"os"
	"slices"
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

// TestLessonB23EveryCommandHasHelpWithItsExitCodes runs the help of each command that the list of them names.
func TestLessonB23EveryCommandHasHelpWithItsExitCodes(t *testing.T) {
	_, list, _ := run(t, "--help")
	commands := []string{"bootstrap-admin"} // the other name of createsuperuser
	for line := range strings.Lines(list[strings.Index(list, "Commands:"):]) {
		if !strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "    ") {
			continue
		}
		head, _, _ := strings.Cut(strings.TrimSpace(line), "  ")
		var words []string
		for word := range strings.FieldsSeq(head) {
			if strings.ContainsAny(word[:1], "<[(-") {
				break
			}
			words = append(words, word)
		}
		if command := strings.Join(words, " "); command != "version" {
			commands = append(commands, command)
		}
	}
	if len(commands) < 25 || !slices.Contains(commands, "secrets rotate") || !slices.Contains(commands, "serve") {
		t.Fatalf("commands: got %q, want all there are", commands)
	}
	for _, command := range commands {
		code, help, stderr := run(t, append(strings.Fields(command), "--help")...)
		if code != 0 || stderr != "" || !strings.Contains(help, "Exit codes: 0") {
			t.Errorf("%s --help: exit code %d, stderr %q; want 0, nothing, and help that names the exit codes", command, code, stderr)
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
