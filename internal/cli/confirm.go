package cli

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// confirm asks on a terminal, and returns nil for yes. Elsewhere nobody can answer: --yes is wanted there.
func (c *call) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	f, ok := c.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return exit(exitUsage, fmt.Errorf("%s There is no terminal to ask on: say --yes", question))
	}
	if _, err := fmt.Fprintf(c.stderr, "%s [y/N] ", question); err != nil {
		return err
	}
	answer, err := bufio.NewReader(c.stdin).ReadString('\n')
	if answer = strings.ToLower(strings.TrimSpace(answer)); err != nil || answer != "y" && answer != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}
