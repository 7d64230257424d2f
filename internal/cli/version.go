package cli

import "fmt"

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(c *call) error {
	_, err := fmt.Fprintln(c.stdout, c.version)
	return err
}
