// Command z4j-brain is the control plane for background tasks.
package main

import (
	"os"

	"github.com/z4j-go/z4j/internal/cli"
)

func main() { os.Exit(cli.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
